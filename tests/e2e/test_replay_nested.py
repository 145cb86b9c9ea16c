"""`rlp replay` of mapped nodes and of runs inside runs: compared down to the innermost call."""

from __future__ import annotations

from typing import Any

import pytest

from runloop.events import (
    HostcallDelivered,
    NodeExpanded,
    NodeFinished,
    NodeGathered,
    QuotaExceeded,
    RunStarted,
)
from tests.e2e.forging import Change, forged, without
from tests.e2e.test_nested import adding, begin, roots
from tests.home import Home

__all__ = ["adding"]


def _set(**fields: Any) -> Change:
    return lambda payload: payload.update(fields)


ZEROS = "0" * 64


@pytest.mark.requirement("I5.replay.5")
def test_a_tree_of_runs_is_replayed_as_one_and_a_change_anywhere_is_located(adding: Home) -> None:
    begin(adding, [1, 2, 3]).check()
    (root,) = roots(adding)
    events = adding.events()
    report = adding.rlp("replay", root, "--json").check().json
    assert report["identical"]
    assert report["runs"] == 4
    assert report["attempts"] == 2 + 3 * 2
    assert report["coverage"]["recorded"] == len([event for event in events if event.run is not None])

    started = [e for e in events if isinstance(e.payload, RunStarted) and e.payload.parent is not None]
    inner = [e for e in events if e.run == started[1].run]
    ended = next(e for e in inner if isinstance(e.payload, NodeFinished) and e.payload.node == "second")
    nested = next(e for e in events if isinstance(e.payload, NodeFinished) and e.payload.node == "each[1]")
    expanded = next(e for e in events if isinstance(e.payload, NodeExpanded))
    gathered = next(e for e in events if isinstance(e.payload, NodeGathered))
    forgeries: list[tuple[int, Change | None, str, str]] = [
        (ended.id, _set(fuel=7), "replay.result", "node each[1] > node second attempt 1"),
        (started[1].id, _set(params={"x": 9}), "replay.arguments", "node each[1] > engine: node.scheduled"),
        (started[1].id, _set(parent={"run": root, "node": "each[0]", "attempt": 1, "root": root}),
         "replay.arguments", "node each[1]"),
        (nested.id, _set(status="failed", output=None, output_digest=None, error={
            "code": "x", "message": "y", "retryable": False}), "replay.result", "node each[1]"),
        (expanded.id, _set(items_digest=ZEROS), "replay.result", "engine: node.expanded each"),
        (gathered.id, _set(output_digest=ZEROS), "replay.result", "engine: node.gathered each"),
    ]  # fmt: skip
    for event, change, code, where in forgeries:
        with forged(adding, event, change):
            found = adding.rlp("replay", root, "--json").check(6).json["divergence"]
        assert found["code"] == code, found
        assert found["where"].startswith(where), found
    assert adding.rlp("replay", root, "--json").check().json == report


@pytest.mark.requirement("I5.replay.5")
def test_a_nested_run_that_is_not_in_the_record_is_missing(adding: Home) -> None:
    begin(adding, [1]).check()
    (root,) = roots(adding)
    (child,) = [e for e in adding.events("run.started") if e.run != root]
    with without(adding, str(child.run)):
        found = adding.rlp("replay", root, "--json").check(6).json["divergence"]
    assert (found["code"], found["where"]) == ("replay.missing", "node each[0]")


def test_attempts_that_fail_and_are_waited_for_replay_inside_a_tree_too(adding: Home) -> None:
    begin(adding, [1, "bad", 3]).check()
    (root,) = roots(adding)
    report = adding.rlp("replay", root, "--json").check().json
    assert report["identical"]
    assert report["runs"] == len(adding.events("run.started"))
    assert not [e for e in adding.events("hostcall.delivered") if isinstance(e.payload, HostcallDelivered)]


@pytest.mark.requirement("I5.replay.10")
def test_a_nested_attempt_that_the_quota_of_the_whole_tree_cut_is_cut_again(adding: Home) -> None:
    begin(adding, [1]).check()
    ends = [e.payload for e in adding.events("node.finished") if isinstance(e.payload, NodeFinished)]
    burnt = [end.fuel for end in ends if end.fuel]
    adding.rlp("daemon", "stop").check()
    # Enough for the agent's first two attempts, and for half of the third: the second one in the nested run.
    adding.env["RUNLOOP__QUOTAS__FUEL"] = str(burnt[0] + burnt[1] + burnt[2] // 2)
    begin(adding, [1])
    root = roots(adding)[-1]
    exceeded = [e for e in adding.events("quota.exceeded") if isinstance(e.payload, QuotaExceeded)]
    assert exceeded
    assert exceeded[0].run != root
    report = adding.rlp("replay", root, "--json").check().json
    assert report["identical"], report
    part = adding.rlp("replay", str(exceeded[0].run), "--json").check().json
    assert part["identical"], part
