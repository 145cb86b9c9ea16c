"""One ledger of money for a whole tree of runs: nested and mapped runs cannot pass the outermost's limit."""

from __future__ import annotations

from itertools import count

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openings.definition import Node, Opening
from openings.testing import started
from runloop.events import Event, Payload, Provenance, RunFinished, RunParent
from runloop.ids import child_run_id
from runloopd.broker.quotas import Hold, Purse, QuotaError, Quotas
from runloopd.broker.record import Record
from tests.unit.pog.facts import model_called

ROOT = "00000000-0000-4000-8000-000000000001"


def nested(limit: int = 1_000, within: Purse | None = None, node: str = "each[0]") -> Purse:
    return Purse(limit_micro_usd=limit, limit_tokens=10**9, within=within, node=node)


@pytest.mark.requirement("K7", "I5.engine.6")
def test_nested_runs_together_cannot_pass_the_outermost_limit_by_one_micro_dollar() -> None:
    root = Purse(limit_micro_usd=100, limit_tokens=10**9)
    runs = [nested(within=root, node=f"each[{i}]") for i in range(10)]
    deeper = nested(within=runs[9], node="inner")
    for run in runs[:9]:
        run.reserve("n", 10, 1).keep()
    deeper.reserve("n", 9, 1)
    with pytest.raises(QuotaError) as caught:
        runs[0].reserve("n", 2, 1)
    assert (caught.value.resource, caught.value.limit, caught.value.used) == ("run.micro_usd", 100, 99)
    runs[0].reserve("n", 1, 1)
    with pytest.raises(QuotaError):
        root.reserve("own", 1, 1)


def test_a_nested_runs_own_limit_narrows_further() -> None:
    root = Purse(limit_micro_usd=100, limit_tokens=10**9)
    run = nested(5, within=root)
    with pytest.raises(QuotaError, match="of 5 used"):
        run.reserve("n", 6, 1)
    assert root.held_micro_usd == 0, "what is refused takes nothing anywhere"


def test_the_budget_of_a_mapped_node_is_for_all_its_items_and_the_runs_that_serve_them() -> None:
    root = Purse(limit_micro_usd=100, limit_tokens=10**9, node_tokens={"each": 10})
    root.reserve("each[0]", 0, 4)
    nested(within=root, node="each[1]").reserve("n", 0, 5)
    with pytest.raises(QuotaError, match=r"node\.each\.tokens"):
        nested(within=root, node="each[2]").reserve("n", 0, 2)


@pytest.mark.requirement("K7")
@given(
    limits=st.lists(st.integers(0, 60), min_size=1, max_size=6),
    moves=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 30), st.sampled_from(["release", "keep", "hold"])),
        max_size=60,
    ),
)
def test_no_level_is_ever_overdrawn_and_everything_given_back_is_there_again(
    limits: list[int], moves: list[tuple[int, int, str]]
) -> None:
    """A chain of purses inside each other, and whatever may happen to reservations."""
    purses: list[Purse] = []
    for limit in limits:
        purses.append(nested(limit, within=purses[-1] if purses else None))
    held: list[Hold] = []
    for which, micro_usd, then in moves:
        purse = purses[which % len(purses)]
        try:
            hold = purse.reserve("n", micro_usd, 1, agent="a")
        except QuotaError:
            continue
        if then == "release":
            hold.release()
        elif then == "keep":
            hold.keep()
        else:
            held.append(hold)
        for each in purses:
            assert 0 <= each.spent_micro_usd + each.held_micro_usd <= each.limit_micro_usd
    for hold in held:
        hold.release()
    assert all(purse.held_micro_usd == 0 for purse in purses)
    assert purses[0].pot("a").held_micro_usd == 0
    assert purses[0].spent_micro_usd == purses[0].pot("a").micro_usd


# --- from the ledger ------------------------------------------------------------------------------


def history(*facts: tuple[str, Payload]) -> list[Event]:
    numbers = count(1)
    return [
        Event(
            id=(number := next(numbers)),
            ts_ms=number,
            actor="daemon",
            kind=payload.kind,
            scope="user",
            run=run,
            payload=payload,
            provenance=Provenance(),
            hash=b"",
            prev_hash=b"",
        )
        for run, payload in facts
    ]


def tree() -> tuple[list[str], list[tuple[str, Payload]]]:
    """A run, and two that were nested in it: one is over, one is not."""
    outer = Opening(name="outer", nodes=(Node(id="each", use="opening:inner"),))
    inner = Opening(name="inner", nodes=(Node(id="n", use="agent:writer"),))
    runs = [child_run_id(ROOT, f"each[{i}]", 1) for i in range(2)]
    facts: list[tuple[str, Payload]] = [(ROOT, started(outer, budget_micro_usd=100))]
    for index, run in enumerate(runs):
        parent = RunParent(run=ROOT, node=f"each[{index}]", attempt=1, root=ROOT)
        begun = started(inner, budget_micro_usd=100)
        facts.append((run, msgspec.structs.replace(begun, parent=parent)))
    facts.append((runs[0], model_called(cost=70, node="n")))
    facts.append(
        (runs[0], RunFinished(outcome="succeeded", clause=None, outputs={}, output_digest="d", error=None))
    )
    return runs, facts


@pytest.mark.requirement("K7", "I5.engine.6")
def test_after_a_restart_what_finished_nested_runs_have_spent_is_still_spent() -> None:
    runs, facts = tree()
    record = Record(Quotas())
    record.fold(history(*facts))
    left = record.run(runs[1])
    assert left is not None
    with pytest.raises(QuotaError) as caught:
        left.purse.reserve("n", 31, 1, agent="writer")
    assert (caught.value.limit, caught.value.used) == (100, 70)
    left.purse.reserve("n", 30, 1, agent="writer")


def test_an_agents_quota_is_for_the_whole_tree() -> None:
    runs, facts = tree()
    record = Record(Quotas())
    record.fold(history(*facts))
    left, root = record.run(runs[1]), record.run(ROOT)
    assert left is not None
    assert root is not None
    assert left.usage("writer") is root.usage("writer")
    assert left.purse.pot("writer").micro_usd == 70
