"""Replay: what is identical, what is not and where, and what nobody could check."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest

from openings import engine
from openings.definition import Opening
from openings.replay import (
    AttemptOutcome,
    Divergence,
    Reexecute,
    ReplayReport,
    match,
    recorded_calls,
    replay,
)
from openings.testing import RUN, Play
from openings.validate import bind
from runloop.digest import blob_digest, canonical, digest
from runloop.events import (
    ArtifactCreated,
    Event,
    GuestError,
    HostcallDelivered,
    NodeFinished,
    NodeScheduled,
    NodeSkipped,
    Payload,
    RunCancelRequested,
    RunFinished,
    RunStarted,
    TimerSet,
)
from tests.unit.openings.conftest import COMPOSE_PORTS, brief
from tests.unit.openings.test_engine import answered, asked


def delivered(
    node: str, call: int, *, attempt: int = 1, args: str = "args", fuel: int = 10
) -> HostcallDelivered:
    return HostcallDelivered(
        node=node,
        attempt=attempt,
        call=call,
        op="kb.search",
        effect="read",
        args_digest=digest([args, call]),
        args_blob=digest([args, call]),
        ok=True,
        result_digest=digest(call),
        result_blob=digest(call),
        request_bytes=1,
        response_bytes=1,
        fuel=10,
    )


@dataclass(frozen=True)
class Left:
    """Where a re-executed guest left its record."""

    code: str
    call: int
    what: str = "host call is not in the record"
    expected: str = "e"
    actual: str = "a"


ZEROS = "0" * 64
Guest = Callable[[Reexecute], AttemptOutcome]


def faithful(demand: Reexecute) -> AttemptOutcome:
    """A guest that does again what it did."""
    ended = demand.expected
    if ended is None:
        return AttemptOutcome(
            mismatch=Left("replay.missing", len(demand.recorded)), calls=len(demand.recorded)
        )
    return AttemptOutcome(
        ok=ended.status == "succeeded",
        output_digest=ended.output_digest,
        error=ended.error,
        fuel=ended.fuel,
        calls=ended.calls,
    )


def drive(
    events: list[Event], guest: Guest = faithful, machine: dict[str, Any] | None = None
) -> tuple[ReplayReport, list[Reexecute]]:
    demands: list[Reexecute] = []
    steps = replay(events, machine)
    try:
        demand = next(steps)
        while True:
            demands.append(demand)
            demand = steps.send(guest(demand))
    except StopIteration as finished:
        return finished.value, demands


def forge(play: Play, at: int, **changes: Any) -> list[Event]:
    """The record with one payload changed."""
    event = play.events[at]
    payload = msgspec.structs.replace(event.payload, **changes)
    return [*play.events[:at], msgspec.structs.replace(event, payload=payload), *play.events[at + 1 :]]


def index(play: Play, kind: type[Payload], node: str | None = None) -> int:
    return next(
        n
        for n, e in enumerate(play.events)
        if isinstance(e.payload, kind) and (node is None or getattr(e.payload, "node", None) == node)
    )


@pytest.fixture
def recorded(compose_email: Opening) -> Play:
    """A whole compose_email with a retry, host calls, an approval, a timer and a saved artifact."""
    play = Play(bind(compose_email, COMPOSE_PORTS), {"recipient": "john", "topic": "Q4 plan", "tone": "dry"})
    play.settle()
    play.say(delivered("contacts", 0)).fail("contacts", retryable=True).settle()
    play.fire("node:contacts:2:backoff").settle()
    play.say(delivered("contacts", 0, attempt=2), delivered("contacts", 1, attempt=2))
    play.succeed("contacts", calls=2, out={"email": "j@example.org"}).settle()
    play.succeed("context", out={"facts": []}).settle()
    play.succeed("draft", out={"body": "Hello"}).settle()
    play.succeed("review", review={"ok": True}).settle()
    play.say(asked("send"), answered("send", "approved")).succeed("send", out={"status": "sent"})
    content = canonical({"body": "Hello"})
    play.say(
        ArtifactCreated(
            name="draft.out.json",
            node="draft",
            port="out",
            media_type="application/json",
            blob=blob_digest(content),
            size=len(content),
        )
    )
    play.settle()
    assert play.state.finished
    return play


def test_a_faithful_replay_is_identical_and_says_what_it_covered(recorded: Play) -> None:
    report, demands = drive(recorded.events)
    assert report.identical
    assert [(d.node, d.attempt) for d in demands] == [
        ("contacts", 1),
        ("contacts", 2),
        ("context", 1),
        ("draft", 1),
        ("review", 1),
        ("send", 1),
    ]
    coverage = report.coverage
    assert coverage.recorded == len(recorded.events) == coverage.reexecuted + coverage.substituted
    assert coverage.not_covered == 0
    assert str(coverage).endswith("/ 0 not covered")
    assert report.attempts == 6
    assert report.output_digest == recorded.events[-1].payload.output_digest  # type: ignore[attr-defined]
    assert report.to_json()["identical"] is True
    assert report.to_json()["divergence"] is None


def test_an_attempt_is_demanded_with_its_pin_input_and_answers(recorded: Play) -> None:
    _, demands = drive(recorded.events)
    second = demands[1]
    assert second.pin.name == "contact_resolver"
    assert (second.run, second.trace) == (RUN, RUN)
    scheduled = second.scheduled.payload
    assert isinstance(scheduled, NodeScheduled)
    assert scheduled.input_blob == digest({"ports": {}, "with": {"query": "john"}})
    assert [call.call for call in second.recorded] == [0, 1]
    assert second.expected is not None
    assert not second.interrupted


@pytest.mark.requirement("I5.replay.12")
@pytest.mark.parametrize("machine", [{"sandbox": 1, "wasmtime": "51"}, {"sandbox": 2, "wasmtime": "50"}])
def test_another_sandbox_that_burns_the_same_fuel_is_believed_and_one_that_does_not_is_no_divergence(
    recorded: Play, machine: dict[str, Any]
) -> None:
    same, _ = drive(recorded.events, machine=machine)
    assert same.identical

    def slower(demand: Reexecute) -> AttemptOutcome:
        good = faithful(demand)
        return replace(good, fuel=good.fuel + 1) if demand.node == "draft" else good

    at_home, _ = drive(recorded.events, slower, {"sandbox": 1, "wasmtime": "50"})
    assert at_home.divergence is not None
    elsewhere, demands = drive(recorded.events, slower, machine)
    assert elsewhere.divergence is None
    assert not elsewhere.identical
    assert elsewhere.coverage.not_covered == 1
    (gap,) = elsewhere.gaps
    assert gap.startswith(
        "node draft attempt 1: its fuel is not the recorded one; the run was executed by another"
    )
    assert demands[-1].node == "send"

    def lost(demand: Reexecute) -> AttemptOutcome:
        return replace(faithful(demand), mismatch=Left("replay.arguments", 0))

    asked_otherwise, _ = drive(recorded.events, lost, machine)
    assert asked_otherwise.divergence is None
    assert len(asked_otherwise.gaps) == 6


# --- what differs ---------------------------------------------------------------------------------


@pytest.mark.requirement("L8", "I2.replay.2")
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"output_digest": "0" * 64}, "its result is not the recorded one"),
        ({"fuel": 101}, "its fuel is not the recorded one"),
        ({"calls": 7}, "its number of host calls is not the recorded one"),
        ({"ok": False, "error": GuestError(code="x", message="y")}, "its result is not the recorded one"),
    ],
)
def test_a_guest_that_ends_otherwise_diverges(recorded: Play, change: dict[str, Any], what: str) -> None:
    def guest(demand: Reexecute) -> AttemptOutcome:
        good = faithful(demand)
        return replace(good, **change) if demand.node == "draft" else good

    report, _ = drive(recorded.events, guest)
    assert not report.identical
    assert report.divergence is not None
    assert (report.divergence.code, report.divergence.what) == ("replay.result", what)
    assert report.divergence.where == "node draft attempt 1"
    assert report.divergence.expected != report.divergence.actual
    assert report.divergence.event == index(recorded, NodeFinished, "draft") + 1
    assert report.coverage.not_covered > 0


def test_a_failed_attempt_must_fail_the_same_way(recorded: Play) -> None:
    def guest(demand: Reexecute) -> AttemptOutcome:
        good = faithful(demand)
        return replace(good, error=GuestError(code="other", message="m")) if good.error else good

    report, _ = drive(recorded.events, guest)
    assert report.divergence is not None
    assert report.divergence.where == "node contacts attempt 1"


@pytest.mark.requirement("L8", "I2.replay.2")
@pytest.mark.parametrize("code", ["replay.missing", "replay.arguments", "replay.result"])
def test_the_three_ways_to_leave_a_record_are_told_apart(recorded: Play, code: str) -> None:
    def guest(demand: Reexecute) -> AttemptOutcome:
        return replace(faithful(demand), mismatch=Left(code, 1)) if demand.attempt == 2 else faithful(demand)

    report, _ = drive(recorded.events, guest)
    assert report.divergence is not None
    assert report.divergence.code == code
    assert report.divergence.where == "node contacts attempt 2 call 1"
    assert report.to_json()["divergence"]["call"] == 1


@pytest.mark.parametrize(
    ("kind", "node", "change", "code", "where"),
    [
        (
            NodeScheduled,
            "draft",
            {"input_digest": "0" * 64},
            "replay.arguments",
            "node.scheduled draft attempt 1",
        ),
        (NodeScheduled, "draft", {"key": "0" * 64}, "replay.arguments", "node.scheduled draft attempt 1"),
        (NodeScheduled, "contacts", {"attempt": 2}, "replay.missing", "node.scheduled contacts attempt 2"),
        (TimerSet, None, {"after_ms": 1}, "replay.result", "timer.set node:contacts:1:timeout"),
        (RunFinished, None, {"output_digest": "0" * 64}, "replay.result", "run.finished"),
        (RunFinished, None, {"outcome": "failed"}, "replay.result", "run.finished"),
    ],
)
def test_a_fact_the_engine_does_not_give_diverges(
    recorded: Play, kind: type[Payload], node: str | None, change: dict[str, Any], code: str, where: str
) -> None:
    report, _ = drive(forge(recorded, index(recorded, kind, node), **change))
    assert report.divergence is not None
    assert (report.divergence.code, report.divergence.where) == (code, f"engine: {where}")
    assert report.divergence.event == index(recorded, kind, node) + 1


def test_a_changed_parameter_changes_the_input_of_whoever_uses_it(recorded: Play) -> None:
    report, _ = drive(forge(recorded, 0, params={"recipient": "mallory", "topic": "Q4 plan", "tone": "dry"}))
    assert report.divergence is not None
    assert report.divergence.code == "replay.arguments"
    assert "contacts" in report.divergence.where


def test_a_changed_definition_does_not_have_its_digest(recorded: Play) -> None:
    started = recorded.events[0].payload
    assert isinstance(started, RunStarted)
    report, _ = drive(forge(recorded, 0, definition={**started.definition, "name": "other"}))
    assert report.divergence is not None
    assert "definition" in report.divergence.what


@pytest.mark.requirement("L8")
def test_a_changed_output_does_not_have_its_digest(recorded: Play) -> None:
    at = index(recorded, NodeFinished, "draft")
    report, demands = drive(forge(recorded, at, output={"ports": {"out": [1]}, "artifacts": []}))
    assert report.divergence is not None
    assert "recorded output" in report.divergence.what
    assert "draft" not in [d.node for d in demands]


def test_a_changed_artifact_is_not_what_the_node_gave(recorded: Play) -> None:
    report, _ = drive(forge(recorded, index(recorded, ArtifactCreated), blob="0" * 64))
    assert report.divergence is not None
    assert report.divergence.where == "artifact draft.out.json"


@pytest.mark.requirement("L8")
def test_an_event_that_was_slipped_in_diverges(recorded: Play) -> None:
    at = index(recorded, NodeScheduled, "draft")
    slipped = msgspec.structs.replace(
        recorded.events[at], id=999, payload=NodeSkipped(node="draft", reason="x")
    )
    report, _ = drive([*recorded.events[:at], slipped, *recorded.events[at:]])
    assert report.divergence is not None
    assert report.divergence.code == "replay.missing"


def test_an_event_that_is_missing_diverges(recorded: Play) -> None:
    at = index(recorded, NodeScheduled, "draft")
    report, _ = drive([*recorded.events[:at], *recorded.events[at + 1 :]])
    assert not report.identical


@pytest.mark.parametrize("start", [0, 1])
def test_a_record_without_its_beginning_diverges(recorded: Play, start: int) -> None:
    report, _ = drive(recorded.events[1:] if start else [])
    assert report.divergence is not None
    assert not report.identical


# --- what is not covered --------------------------------------------------------------------------


def test_nothing_is_identical_with_an_attempt_that_cannot_be_executed(recorded: Play) -> None:
    def guest(demand: Reexecute) -> AttemptOutcome:
        return AttemptOutcome.unavailable("no such agent") if demand.node == "review" else faithful(demand)

    report, _ = drive(recorded.events, guest)
    assert report.divergence is None
    assert report.coverage.not_covered == 1
    assert not report.identical
    assert report.gaps == ("node review attempt 1: no such agent",)


def test_a_run_that_is_not_finished_is_not_identical(recorded: Play) -> None:
    report, _ = drive(recorded.events[: index(recorded, NodeFinished, "review")])
    assert report.divergence is None
    assert not report.identical
    assert report.output_digest is None
    assert report.gaps == ("node review attempt 1 has not ended", "the run is not finished")


def test_a_run_of_another_engine_is_not_identical(recorded: Play) -> None:
    report, _ = drive(forge(recorded, 0, engine={"logic": engine.LOGIC + 1}))
    assert not report.identical
    assert "engine logic" in report.gaps[0]


def test_an_attempt_without_a_pin_is_not_covered(recorded: Play) -> None:
    report, demands = drive(forge(recorded, 0, agents={}))
    assert demands == []
    assert not report.identical
    assert report.divergence is None


# --- attempts that were cut off -------------------------------------------------------------------


def cut_off() -> Play:
    play = Play(brief("a timeout_ms: 500; b"))
    play.settle()
    play.say(delivered("a", 0), delivered("b", 0)).fire("node:a:1:timeout").settle()
    late = NodeFinished(
        node="a", attempt=1, status="failed", error=GuestError(code="guest.crashed", message="x")
    )
    play.say(late, RunCancelRequested(principal="operator:1", reason="enough"))
    play.settle()
    assert play.state.finished
    return play


def test_an_attempt_that_was_cut_off_must_ask_for_what_is_recorded() -> None:
    report, demands = drive(cut_off().events)
    assert [(d.node, d.interrupted) for d in demands] == [("a", True), ("b", True)]
    assert report.identical


@pytest.mark.parametrize(
    "outcome",
    [
        AttemptOutcome(mismatch=Left("replay.arguments", 0)),
        AttemptOutcome(mismatch=Left("replay.missing", 0)),
        AttemptOutcome(ok=True, calls=0),
    ],
)
def test_an_attempt_that_was_cut_off_and_asks_for_something_else_diverges(outcome: AttemptOutcome) -> None:
    report, _ = drive(cut_off().events, lambda demand: outcome)
    assert report.divergence is not None


def test_an_attempt_that_was_cut_off_and_cannot_be_executed_is_not_covered() -> None:
    report, _ = drive(cut_off().events, lambda demand: AttemptOutcome.unavailable("gone"))
    assert (report.divergence, report.coverage.not_covered) == (None, 2)


def test_the_end_the_wall_clock_decided_is_not_demanded_of_the_guest() -> None:
    play = Play(brief("a; b"))
    play.settle()
    play.say(delivered("a", 0)).fail("a", code="guest.deadline").fail("b", code="agent.unreachable", fuel=0)
    play.settle()
    report, demands = drive(play.events)
    assert [(d.node, d.expected) for d in demands] == [("a", None)]
    assert report.identical


def test_a_fact_may_be_stated_after_others_have_come_between() -> None:
    play = Play(brief("a; b"))
    late = play.due
    play.say(RunCancelRequested(principal="operator:1", reason="enough"))
    play.carry_out(late)
    play.settle()
    assert drive(play.events)[0].identical


# --- matching calls -------------------------------------------------------------------------------


def test_a_call_is_matched_by_place_op_arguments_and_fuel() -> None:
    calls = [delivered("a", 0), delivered("a", 1)]
    assert match(calls, 1, "kb.search", calls[1].args_digest, 10) is calls[1]
    assert match(calls, 1, "kb.search", calls[1].args_digest) is calls[1]

    def code(*call: Any) -> str:
        found = match(calls, *call)
        assert isinstance(found, Divergence)
        return found.code

    assert code(2, "kb.search", "d") == "replay.missing"
    assert code(0, "kb.read", calls[0].args_digest) == "replay.arguments"
    assert code(0, "kb.search", "d") == "replay.arguments"
    assert code(0, "kb.search", calls[0].args_digest, 11) == "replay.result"


def test_recorded_calls_end_at_the_first_gap() -> None:
    play = Play(brief("a; b"))
    play.settle()
    play.say(delivered("a", 0), delivered("b", 1), delivered("a", 2), delivered("a", 0, args="again"))
    assert recorded_calls(play.events, "a", 1) == (play.events[-4].payload,)
    assert recorded_calls(play.events, "b", 1) == ()
