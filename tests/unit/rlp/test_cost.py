"""`rlp cost`: the sums of what was booked, over real views, and the money that stands beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runloop.events import Draft, HostcallAdmitted, Payload, RunParent
from tests.unit.pog.conftest import Store
from tests.unit.pog.facts import ZERO, model_called, run_finished, run_started, scheduled
from tests.unit.rlp.conftest import Rlp
from tests.unit.rlp.daemon_twin import DaemonTwin

RUNS = {name: f"0000000{number}-0000-4000-8000-000000000000" for number, name in enumerate(["a", "b", "c"])}
NOBODYS = {"the search index": 5, "rlp providers --check": 7}
"""What was spent outside of every run."""


def held(node: str, micro_usd: int) -> HostcallAdmitted:
    return HostcallAdmitted(
        node=node,
        attempt=1,
        call=9,
        op="model.complete",
        effect="spend",
        key=node,
        args_digest=ZERO,
        args_blob=ZERO,
        request_bytes=1,
        fuel=1,
        reserved_micro_usd=micro_usd,
        reserved_for="far:one",
    )


def facts() -> list[tuple[str | None, Payload]]:
    a, b, c = RUNS.values()
    parent = RunParent(run=b, node="each[0]", attempt=1, root=b)
    far: dict[str, Any] = {"provider": "far", "model": "one", "generated": True, "price_version": "list-1"}
    lost: dict[str, Any] = far | {"finish": "unknown_outcome", "generated": False}
    return [
        (a, run_started(opening="brief", origin={"via": "cli"})),
        (a, scheduled()),
        (b, run_started(opening="report", origin={"via": "schedule"}, principal="schedule:daily")),
        (c, run_started(opening="inner", origin={"via": "cli"}, parent=parent)),
        (a, model_called(cost=100, call=1, **far)),
        (a, model_called(cost=0, call=2, **far | {"source": "cache", "saved_micro_usd": 100})),
        (a, model_called(cost=900, call=3, **lost)),
        (b, model_called(cost=40, call=1, **far | {"model": "two", "price_version": "list-2"})),
        (c, model_called(cost=2_000_002, call=1, node="draft[3]", **far)),
        (None, model_called(cost=5, call=1, node="", **far | {"finish": "embedded"})),
        (None, model_called(cost=7, call=0, node="", **far | {"source": "check"})),
        (a, held("now", 77)),
        (c, held("never", 33)),
        (c, run_finished()),
    ]


@pytest.fixture
def told(daemon: DaemonTwin, tmp_path: Path) -> Iterator[DaemonTwin]:
    store = Store(tmp_path / "pog").holding(
        *(Draft(payload=payload, actor="daemon", run=run) for run, payload in facts())
    )
    knowledge = store.knowledge()
    daemon.methods["kb.query"] = lambda sql, params, limit: knowledge.query(sql, params, limit).to_json()
    yield daemon
    store.close()


def by(rlp: Rlp, what: str) -> dict[str, int]:
    (answer,) = rlp("cost", "--since", "2000-01-01", "--by", what, "--json").lines
    return {row["key"]: row["cost_micro_usd"] for row in answer["rows"]}


@pytest.mark.requirement("I6.policy.6")
@pytest.mark.parametrize(
    ("what", "sums"),
    [
        ("opening", {"report": 2_000_042, "brief": 1_000, **NOBODYS}),
        ("agent", {"writer": 2_001_042, **NOBODYS}),
        ("provider", {"far": 2_001_054}),
        ("model", {"far:one": 2_001_014, "far:two": 40}),
        ("run", {RUNS["a"]: 1_000, RUNS["b"]: 40, RUNS["c"]: 2_000_002, **NOBODYS}),
    ],
)
def test_what_was_booked_is_summed_by(told: DaemonTwin, rlp: Rlp, what: str, sums: dict[str, int]) -> None:
    assert by(rlp, what) == sums


@pytest.mark.requirement("I6.policy.6", "L10")
def test_money_of_other_kinds_stands_apart(told: DaemonTwin, rlp: Rlp) -> None:
    (answer,) = rlp("cost", "--since", "2000-01-01", "--json").lines
    total: dict[str, Any] = answer["total"]
    assert total["cost_micro_usd"] == 2_001_054
    assert total["lost_micro_usd"] == 900, "booked, and nobody knows"
    assert total["saved_micro_usd"] == 100
    assert total["scheduled_micro_usd"] == 2_000_042, "with what was nested in a schedule's run"
    assert (total["held_micro_usd"], total["untold_micro_usd"]) == (77, 33)
    assert answer["budgets"]["run_micro_usd"] == 1_000_000


def test_a_person_reads_it_in_dollars(told: DaemonTwin, rlp: Rlp) -> None:
    shown = rlp("cost", "--since", "2000-01-01")
    assert shown.out.splitlines()[1].split() == ["report", "2", "6", "8", "$2.000042", "-", "-"]
    assert shown.out.splitlines()[-1].split()[0] == "all"
    for words in ("by hand $0.001012", "schedules $2.000042", "lost: $0.000900", "$0.000077", "$0.000033"):
        assert words in shown.err, words
    assert "nobody is asked before" in shown.err


def test_nothing_before_the_day_counts(told: DaemonTwin, rlp: Rlp) -> None:
    shown = rlp("cost", "--since", "2999-01-01")
    assert shown.code == 0 and shown.out == "" and "no model was called" in shown.err


def test_a_sum_that_does_not_exist_is_refused_before_anything_is_asked(told: DaemonTwin, rlp: Rlp) -> None:
    for args in (("--by", "colour"), ("--since", "#12"), ("--since", "soon")):
        assert rlp("cost", *args).code == 2
    assert [method for method, _, _ in told.asked if method == "kb.query"] == []
