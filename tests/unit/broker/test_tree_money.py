"""What a tree of runs has in common: a threshold, privacy, and money of calls whose run ended before them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runloop.events import HostcallAdmitted, Payload, RunStarted
from runloop.ops import OPS
from runloopd.broker.labels import may_be_private
from runloopd.broker.quotas import QuotaError, Quotas
from runloopd.broker.record import Record, Run
from runloopd.broker.threshold import Threshold
from tests.unit.pog.facts import ZERO, action_decided, action_requested, delivered, model_called

from .test_tree_budgets import ROOT, history, tree
from .world import World, ask


def folded(*facts: tuple[str, Payload]) -> Record:
    record = Record(Quotas())
    record.fold(history(*facts))
    return record


def run_of(record: Record, name: str) -> Run:
    found = record.run(name)
    assert found is not None
    return found


def admitted(run: str, reserved: int) -> tuple[str, Payload]:
    mark = HostcallAdmitted(
        node="n",
        attempt=1,
        call=0,
        op="model.complete",
        effect="spend",
        key="k",
        args_digest=ZERO,
        args_blob=ZERO,
        request_bytes=1,
        fuel=1,
        reserved_micro_usd=reserved,
        reserved_for="far:one",
        price_version="list-1",
    )
    return run, mark


def heard(run: str, op: str) -> tuple[str, Payload]:
    return run, msgspec.structs.replace(delivered(node="n"), op=op)


# --- privacy --------------------------------------------------------------------------------------


@pytest.mark.requirement("I6.policy.1")
@pytest.mark.parametrize("op", sorted(OPS))
def test_an_answer_makes_the_whole_tree_private_unless_it_is_known_to_be_harmless(op: str) -> None:
    runs, facts = tree()
    record = folded(*facts, heard(runs[1], op))
    assert run_of(record, ROOT).tree.private == run_of(record, runs[1]).tree.private == may_be_private(op)


@pytest.mark.requirement("I6.policy.1")
async def test_the_broker_hears_who_asks_and_whether_the_run_heard_what_is_private(world: World) -> None:
    caller = await world.caller()
    await world.call(caller, "time.now")
    await world.call(caller, "model.complete", ask("one"))
    await world.call(caller, "kb.query", {"sql": "SELECT 1 AS one"})
    await world.call(caller, "model.complete", ask("two"))
    await world.restart()
    await world.call(await world.caller(node="review"), "model.complete", ask("three"))
    assert [asker.private for asker in world.models.askers] == [False, True, True]
    assert {asker.agent for asker in world.models.askers} == {"writer"}
    assert {asker.bundle for asker in world.models.askers} == {caller.pin.bundle_digest}


def test_what_reads_is_never_taken_for_harmless() -> None:
    harmless = {op for op in OPS if not may_be_private(op)}
    reads = {op for op in harmless if OPS[op].effect == "read"}
    assert reads == {"msg.next", "msg.subscribe", "secret.use", "tool.list"}  # a reference is a dead string
    assert may_be_private("an.op.of.tomorrow")


# --- the threshold --------------------------------------------------------------------------------


def spend(run: str, to: int) -> tuple[str, Payload]:
    action: dict[str, Any] = {"kind": "spend", "next_micro_usd": to}
    return run, msgspec.structs.replace(action_requested(), action=action, op="model.complete")


@pytest.mark.requirement("I6.policy.3")
def test_a_word_given_to_a_nested_run_holds_for_the_tree() -> None:
    runs, facts = tree()
    record = Record(Quotas())
    record.fold(history(*facts, spend(runs[1], 90)))
    threshold = run_of(record, ROOT).tree.threshold
    threshold.first_micro_usd = 40
    assert threshold.pending(10**9) == "ap-1" and threshold.at(10**9) == 40
    record.fold(history((runs[1], action_decided())))
    assert threshold.pending(10**9) is None and threshold.at(10**9) == 90
    assert run_of(record, runs[1]).tree.threshold is threshold


@pytest.mark.requirement("I6.policy.7")
@pytest.mark.parametrize(
    ("own", "asked_from"), [(10, 10), (90, 40), (None, 40)], ids=["earlier", "later", "silent"]
)
def test_a_nested_opening_has_people_asked_earlier_and_never_later(own: int | None, asked_from: int) -> None:
    (root, first), *rest = tree()[1]
    assert isinstance(first, RunStarted)
    begun = msgspec.structs.replace(first, policy={**first.policy, "ask_micro_usd": 40})
    says = {} if own is None else {"ask_micro_usd": own}
    nested = [
        (run, msgspec.structs.replace(fact, policy=fact.policy | says))
        for run, fact in rest
        if isinstance(fact, RunStarted)
    ]
    record = folded((root, begun), *nested)
    assert run_of(record, ROOT).tree.threshold.at(10**9) == asked_from


def test_a_yes_outlasts_a_nested_opening_that_would_have_asked_earlier() -> None:
    threshold = Threshold(100, raised={"ap": (400, 0)})
    threshold.bring_forward(10)
    assert threshold.at(1) == 400


def test_other_questions_move_no_threshold() -> None:
    _runs, facts = tree()
    record = folded(*facts, (ROOT, action_requested()), (ROOT, action_decided(decision="denied")))
    assert run_of(record, ROOT).tree.threshold.closed is None


# --- money of calls that outlived their run -------------------------------------------------------


@pytest.mark.requirement("K6", "K7")
def test_what_a_nested_run_had_reserved_when_everything_died_stays_held_after_it_ended() -> None:
    runs, facts = tree()
    record = folded(*facts[:3], admitted(runs[0], 50), facts[-1])
    assert record.run(runs[0]) is None
    record.hold_what_is_in_doubt()
    with pytest.raises(QuotaError):
        run_of(record, ROOT).purse.reserve("own", 51, 1)
    run_of(record, ROOT).purse.reserve("own", 50, 1)


@pytest.mark.requirement("K7")
def test_a_call_that_is_booked_after_its_nested_run_ended_counts_for_the_tree() -> None:
    runs, facts = tree()
    late = (runs[0], model_called(cost=30, node="n"))
    record = folded(*facts[:3], admitted(runs[0], 50), facts[-1], late)
    assert run_of(record, ROOT).purse.spent_micro_usd == 30
