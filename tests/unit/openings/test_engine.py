"""The engine, event by event."""

from __future__ import annotations

from typing import Any

import pytest

from openings import engine
from openings.definition import Retry
from openings.engine import CancelNode, EndAttempt, FinishRun, ScheduleNode, SetTimer, SkipNode
from openings.errors import EngineError
from openings.load import load
from openings.state import LEGAL_MOVES, TERMINAL, NodeState
from openings.testing import RUN, Play
from openings.validate import bind
from runloop.digest import blob_digest, digest
from runloop.events import (
    ActionDecided,
    ActionRequested,
    AgentTransition,
    Draft,
    Event,
    NodeCancelled,
    NodeFinished,
    NodeScheduled,
    NodeSkipped,
    RunCancelRequested,
    RunFinished,
    RunResumed,
)
from tests.unit.openings.conftest import COMPOSE_PORTS, brief, table

PARAMS = {"recipient": "john", "topic": "Q4 plan"}


def scheduled(commands: list[engine.Command]) -> list[str]:
    return [c.node for c in commands if isinstance(c, ScheduleNode)]


def asked(node: str, approval: str = "ap_1", attempt: int = 1) -> ActionRequested:
    return ActionRequested(
        approval=approval,
        node=node,
        attempt=attempt,
        call=0,
        op="mail.send",
        effect="send",
        key="k",
        args_digest="a",
        action={},
        action_digest="d",
        content_blob="b",
        content_type="message/rfc822",
        expires_ms=0,
    )


def answered(node: str, decision: Any, approval: str = "ap_1", dispatch_after_ms: int = 0) -> ActionDecided:
    return ActionDecided(
        approval=approval,
        node=node,
        decision=decision,
        principal="operator:1000",
        action_digest="d",
        dispatch_after_ms=dispatch_after_ms,
    )


def outcome(play: Play) -> RunFinished:
    (finished,) = [e.payload for e in play.events if isinstance(e.payload, RunFinished)]
    return finished


# --- starting -------------------------------------------------------------------------------------


def test_nothing_is_due_before_a_run_has_started() -> None:
    assert engine.due(engine.initial()) == []


@pytest.mark.requirement("I2.engine.2")
def test_independent_nodes_start_together() -> None:
    assert scheduled(Play(brief("a; b; c", "a.out -> c.in")).due) == ["a", "b"]


def test_what_is_due_stays_due_until_an_event_reflects_it() -> None:
    play = Play(brief("a"))
    assert play.due == play.due != []
    play.carry_out()
    assert play.due == []


def test_a_scheduled_attempt_carries_its_input_and_a_key_of_its_own(compose_email: Any) -> None:
    play = Play(compose_email, PARAMS)
    (first,) = play.due
    assert isinstance(first, ScheduleNode)
    assert first.input == {"ports": {}, "with": {"query": "john"}}
    assert first.key == digest(["attempt", RUN, "contacts", 1, digest(first.input)])
    fact = engine.fact(first)
    assert isinstance(fact, NodeScheduled)
    assert fact.input_blob == blob_digest(engine.blobs(first)[0]) == fact.input_digest
    assert Play(compose_email, PARAMS, run=RUN.replace("1", "2")).due != play.due


def test_a_parameter_that_is_not_given_has_its_default(compose_email: Any) -> None:
    play = Play(compose_email, PARAMS)
    play.carry_out()
    play.carry_out()
    play.succeed("contacts", out={"id": 1}).settle()
    play.succeed("context", out={})
    (draft,) = play.due
    assert isinstance(draft, ScheduleNode)
    assert draft.input["with"] == {"tone": "friendly", "topic": "Q4 plan"}
    assert draft.input["ports"] == {"recipients": [{"id": 1}], "context": [{}]}


# --- the reference opening ------------------------------------------------------------------------


def through_review(play: Play, review: dict[str, Any]) -> Play:
    for node, port, value in [
        ("contacts", "out", {"email": "j@example.org"}),
        ("context", "out", {"facts": []}),
        ("draft", "out", {"body": "Hello"}),
        ("review", "review", review),
    ]:
        play.settle()
        play.succeed(node, **{port: value})
    return play


@pytest.mark.requirement("I2.engine.5")
def test_compose_email_runs_to_its_end(compose_email: Any) -> None:
    play = through_review(Play(bind(compose_email, COMPOSE_PORTS), PARAMS), {"ok": True, "notes": []})
    assert [type(c) for c in play.due] == [ScheduleNode]
    (send,) = play.settle()[:1]
    assert isinstance(send, ScheduleNode)
    assert send.input["ports"]["in"] == [True]
    play.say(asked("send"))
    assert play.state.waiting == {"send"}
    assert play.state.active == (("send", 1),)
    play.say(answered("send", "approved"))
    assert not play.state.waiting
    play.succeed("send", out={"status": "sent"}).settle()
    end = outcome(play)
    assert (end.outcome, end.clause, end.error) == ("succeeded", "review.ok == true", None)
    assert end.outputs["draft.out"] == digest([{"body": "Hello"}])
    assert end.output_digest == digest(end.outputs)
    assert play.state.finished
    assert list(play.state.saved()) == [("draft", "out", ({"body": "Hello"},))]


@pytest.mark.requirement("I2.engine.4")
def test_a_false_guard_closes_its_node_though_its_data_arrived(compose_email: Any) -> None:
    play = through_review(Play(bind(compose_email, COMPOSE_PORTS), PARAMS), {"ok": False})
    (skip, *_) = play.settle()
    assert isinstance(skip, SkipNode)
    assert skip.node == "send"
    assert "review.ok == true does not hold" in skip.reason
    end = outcome(play)
    assert (end.outcome, end.clause) == ("failed", None)
    assert end.error is not None
    assert end.error.code == "run.unsuccessful"


@pytest.mark.parametrize("review", [{}, {"ok": "true"}, {"ok": 1}, {"ok": None}, "ok"])
def test_a_guard_that_cannot_be_judged_does_not_let_anything_through(compose_email: Any, review: Any) -> None:
    play = through_review(Play(bind(compose_email, COMPOSE_PORTS), PARAMS), review)
    play.settle()
    assert play.state.nodes["send"].state is NodeState.SKIPPED


@pytest.mark.parametrize("decision", ["denied", "expired", "undone", "voided"])
def test_what_a_person_did_not_want_is_not_tried_again(decision: str) -> None:
    play = Play(brief("a retry: {max_attempts: 3}"))
    play.settle()
    play.say(asked("a"), answered("a", decision))
    assert play.state.nodes["a"].state is NodeState.RUNNING
    play.fail("a", retryable=True)
    assert play.state.nodes["a"].state is NodeState.FAILED


def test_an_approval_that_is_undone_after_it_was_given_counts_as_denied() -> None:
    play = Play(brief("a retry: {max_attempts: 3}"))
    play.settle()
    play.say(asked("a"), answered("a", "approved"), answered("a", "undone")).fail("a", retryable=True)
    assert play.state.nodes["a"].state is NodeState.FAILED


def test_two_questions_are_both_waited_for() -> None:
    play = Play(brief("a"))
    play.settle()
    play.say(asked("a", "ap_1"), asked("a", "ap_2"), answered("a", "approved", "ap_1"))
    assert play.state.waiting == {"a"}
    play.say(answered("a", "approved", "ap_2"))
    assert play.state.nodes["a"].state is NodeState.RUNNING


def test_an_answer_to_an_earlier_attempt_changes_nothing() -> None:
    play = Play(brief("a retry: {max_attempts: 2}"))
    play.settle()
    play.say(asked("a")).fail("a", retryable=True).settle()
    before = play.state.nodes
    play.say(answered("a", "denied"), asked("a", "ap_9", attempt=1))
    assert play.state.nodes == before


# --- fan-in, joins and skips ----------------------------------------------------------------------


def test_fan_in_waits_for_every_edge_to_be_decided() -> None:
    play = Play(brief("a; b; c", "a.out -> c.in; b.out -> c.in"))
    play.settle()
    play.succeed("a", out=1)
    assert play.due == []
    play.succeed("b", out=2)
    (c,) = play.due
    assert isinstance(c, ScheduleNode)
    assert c.input["ports"] == {"in": [1, 2]}


def test_a_join_below_a_skipped_branch_runs_on_what_arrived() -> None:
    opening = brief(
        "a; left; right; join",
        "a.n == 1 -> left.in; a.n == 2 -> right.in; left.out -> join.l; right.out -> join.r",
    )
    ports = {
        "agent:a": table("", "n"),
        "agent:left": table("in", "out"),
        "agent:right": table("in", "out"),
        "agent:join": table("l r", ""),
    }
    play = Play(bind(opening, ports))
    play.settle()
    play.succeed("a", n=2).settle()
    assert play.state.nodes["left"].state is NodeState.SKIPPED
    play.succeed("right", out="r")
    (join,) = play.due
    assert isinstance(join, ScheduleNode)
    assert join.input["ports"] == {"r": ["r"]}


@pytest.mark.requirement("I2.engine.4")
def test_a_required_input_that_can_never_arrive_skips_the_node_and_says_why() -> None:
    play = Play(brief("a; b; c", "a.out -> b.in; b.out -> c.in"))
    play.settle()
    play.fail("a")
    skips = play.settle()
    assert [c.reason for c in skips if isinstance(c, SkipNode)] == [
        "its input in never arrived (a failed)",
        "its input in never arrived (b was skipped)",
    ]
    end = outcome(play)
    assert end.outcome == "failed"
    assert end.error is not None
    assert end.error.message.startswith("a: ")


def test_a_node_that_succeeds_without_the_port_delivers_nothing() -> None:
    play = Play(brief("a; b", "a.out -> b.in"))
    play.settle()
    play.succeed("a", other=1)
    assert play.due == [SkipNode(node="b", reason="its input in never arrived (a gave no value)")]


def test_a_node_whose_inputs_are_all_optional_is_skipped_when_none_arrives() -> None:
    play = Play(bind(brief("a; b", "a.out -> b.in"), {"agent:a": table(), "agent:b": table("in")}))
    play.settle()
    play.succeed("a")
    assert play.due == [SkipNode(node="b", reason="none of its inputs arrived")]


def test_a_required_input_nothing_leads_to_skips_the_node() -> None:
    play = Play(bind(brief("a; b", "a.out -> b.in"), {"agent:b": table("in need!")}))
    play.settle()
    play.succeed("a", out=1)
    assert play.due == [SkipNode(node="b", reason="its input need never arrived (nothing leads there)")]


def test_a_guard_on_a_skipped_node_closes_what_is_behind_it() -> None:
    play = Play(brief("a; b; c", "a.ok == true -> b.in; b.ok == true -> c.in; a.out -> c.data"))
    play.settle()
    play.succeed("a", ok=False, out=1).settle()
    assert "b was skipped" in play.state.nodes["c"].reason


@pytest.mark.parametrize("how", ["failed", "skipped"])
def test_a_guard_closes_its_node_even_where_the_port_is_optional(how: str) -> None:
    opening = brief("a; b; c", "a.ok == true -> b.in; b.ok == true -> c.in; a.out -> c.data")
    agents = {"agent:a": table(), "agent:b": table("in"), "agent:c": table("in data!")}
    play = Play(bind(opening, agents))
    play.settle()
    play.succeed("a", ok=how == "failed", out=1).settle()
    if how == "failed":
        play.fail("b").settle()
    assert play.state.nodes["c"].state is NodeState.SKIPPED
    assert play.state.nodes["c"].reason.startswith("b.ok == true does not hold")


# --- retries and time -----------------------------------------------------------------------------


@pytest.mark.requirement("I2.engine.3")
def test_a_node_that_fails_once_is_retried_after_its_backoff() -> None:
    play = Play(brief("a retry: {max_attempts: 2, backoff_ms: 2500, jitter: 0}"))
    play.carry_out()
    play.fail("a", retryable=True)
    assert play.due == [SetTimer(timer="node:a:2:backoff", after_ms=2500)]
    play.carry_out()
    assert play.due == []
    assert list(play.state.live_timers()) == ["node:a:2:backoff"]
    play.fire("node:a:2:backoff")
    (again,) = play.due
    assert isinstance(again, ScheduleNode)
    assert again.attempt == 2
    play.carry_out()
    play.fail("a", retryable=True)
    assert play.state.nodes["a"].state is NodeState.FAILED


def test_without_a_backoff_the_next_attempt_starts_at_once() -> None:
    play = Play(brief("a retry: {max_attempts: 2}"))
    play.carry_out()
    play.fail("a", retryable=True)
    assert [type(c) for c in play.due] == [ScheduleNode]


def test_an_error_that_is_not_retryable_is_final() -> None:
    play = Play(brief("a retry: {max_attempts: 5}"))
    play.carry_out()
    play.fail("a")
    assert play.state.nodes["a"].state is NodeState.FAILED


def test_backoff_grows_to_its_bound_and_jitter_comes_from_the_digest() -> None:
    still = Retry(max_attempts=9, initial_ms=100, max_ms=1000, multiplier=2, jitter=0)
    assert [engine.backoff_ms(still, RUN, "a", n) for n in range(1, 7)] == [100, 200, 400, 800, 1000, 1000]
    moved = Retry(max_attempts=9, initial_ms=1000, max_ms=1000, multiplier=1, jitter=0.5)
    waits = {engine.backoff_ms(moved, RUN, node, n) for node in "abcdef" for n in range(1, 5)}
    assert len(waits) > 10
    assert all(1000 <= wait < 1500 for wait in waits)
    assert engine.backoff_ms(moved, RUN, "a", 1) == 1188  # pinned: a change here breaks old histories


@pytest.mark.requirement("I2.engine.3")
def test_an_attempt_that_takes_too_long_is_ended_and_retried() -> None:
    play = Play(brief("a timeout_ms: 500, retry: {max_attempts: 2}"))
    play.carry_out()
    assert play.due == [SetTimer(timer="node:a:1:timeout", after_ms=500)]
    play.carry_out()
    play.fire("node:a:1:timeout")
    (end,) = play.due
    assert isinstance(end, EndAttempt)
    assert play.state.active == (("a", 1),)
    play.carry_out()
    assert play.state.active == ()
    assert play.state.nodes["a"].state is NodeState.READY


def test_an_attempt_that_ends_just_before_it_is_cut_off_has_ended() -> None:
    play = Play(brief("a timeout_ms: 500"))
    play.settle()
    play.fire("node:a:1:timeout").succeed("a", out=1)
    assert play.state.nodes["a"].state is NodeState.SUCCEEDED
    assert [type(c) for c in play.due] == [FinishRun]


def test_the_end_of_an_attempt_that_was_cut_off_comes_too_late() -> None:
    play = Play(brief("a timeout_ms: 500, retry: {max_attempts: 2}"))
    play.settle()
    late = NodeFinished(node="a", attempt=1, status="succeeded", output={"ports": {}}, output_digest="x")
    play.fire("node:a:1:timeout").settle()
    assert play.state.active == (("a", 2),)
    play.say(late)
    assert play.state.active == (("a", 2),)


def test_the_clock_of_an_attempt_stands_still_while_a_person_thinks() -> None:
    play = Play(brief("a timeout_ms: 500"))
    play.settle()
    play.say(asked("a"))
    assert play.state.live_timers() == {}
    play.fire("node:a:1:timeout")
    assert play.due == []
    play.say(answered("a", "approved", dispatch_after_ms=play.now_ms + 5000))
    assert play.due == [SetTimer(timer="node:a:1:timeout:2", after_ms=5500)]
    play.carry_out()
    play.fire("node:a:1:timeout:2")
    assert isinstance(play.due[0], EndAttempt)


def test_the_time_nobody_was_there_is_not_the_attempts() -> None:
    play = Play(brief("a timeout_ms: 500"))
    play.settle()
    play.say(RunResumed(reason="the daemon started")).fire("node:a:1:timeout")
    assert play.due == [SetTimer(timer="node:a:1:timeout:2", after_ms=500)]
    assert play.state.active == (("a", 1),)


def test_a_run_that_takes_too_long_is_ended() -> None:
    play = Play(brief("a; b; c", "b.out -> c.in"), timeout_ms=1000)
    assert SetTimer(timer="run:timeout", after_ms=1000) in play.settle()
    play.succeed("a", out=1).say(asked("b")).fire("run:timeout")
    reason = "the run took longer than 1000 ms"
    assert play.settle()[:-1] == [
        CancelNode(node="b", attempt=1, reason=reason),
        CancelNode(node="c", attempt=None, reason=reason),
    ]
    end = outcome(play)
    assert end.outcome == "failed"
    assert end.error is not None
    assert end.error.code == "run.timeout"


# --- cancelling -----------------------------------------------------------------------------------


def cancel() -> RunCancelRequested:
    return RunCancelRequested(principal="operator:1000", reason="changed my mind")


def test_a_cancelled_run_starts_nothing_more_and_ends() -> None:
    play = Play(brief("a; b; c retry: {max_attempts: 2, backoff_ms: 5}", "a.out -> b.in"))
    play.settle()
    play.fail("c", retryable=True).say(cancel())
    commands = play.settle()
    assert [c.node for c in commands if isinstance(c, CancelNode)] == ["a", "b", "c"]
    assert [c.attempt for c in commands if isinstance(c, CancelNode)] == [1, None, None]
    assert outcome(play).outcome == "cancelled"


def test_a_node_that_ends_while_it_is_cancelled_has_ended() -> None:
    play = Play(brief("a; b"))
    play.settle()
    play.say(cancel()).succeed("a", out=1).say(NodeCancelled(node="a", attempt=1))
    play.settle()
    assert play.state.nodes["a"].state is NodeState.SUCCEEDED
    assert outcome(play).outcome == "cancelled"


def test_a_failure_while_cancelling_is_not_retried() -> None:
    play = Play(brief("a retry: {max_attempts: 5}"))
    play.settle()
    play.say(cancel()).fail("a", retryable=True)
    assert play.state.nodes["a"].state is NodeState.FAILED


def test_a_run_whose_work_was_done_is_not_cancelled_any_more() -> None:
    play = Play(brief("a"))
    play.settle()
    play.succeed("a", out=1).say(cancel()).settle()
    assert outcome(play).outcome == "succeeded"


def test_after_its_end_nothing_moves_a_run() -> None:
    play = Play(brief("a"))
    play.settle()
    play.succeed("a", out=1).settle()
    end = play.state
    play.say(cancel(), RunResumed(reason="x"), NodeSkipped(node="a", reason="x"))
    assert play.state == end
    assert play.due == []
    assert play.state.live_timers() == {}


# --- success --------------------------------------------------------------------------------------


@pytest.mark.requirement("I2.engine.5")
@pytest.mark.parametrize(
    ("success", "values", "expected", "clause"),
    [
        ("", {"a": 1, "b": 1}, "succeeded", None),
        ("any_of: [exists(a.out), b.out == 2]", {"a": 1, "b": 1}, "succeeded", "exists(a.out)"),
        ("any_of: [exists(a.x), b.out == 2]", {"a": 1, "b": 1}, "failed", None),
        (
            "all_of: [exists(a.out), b.out == 1]",
            {"a": 1, "b": 1},
            "succeeded",
            "exists(a.out) and b.out == 1",
        ),
        ("all_of: [exists(a.out), b.out == 2]", {"a": 1, "b": 1}, "failed", None),
        ("any_of: [exists(a.out)]", {"a": 1, "b": None}, "succeeded", "exists(a.out)"),
        ("", {"a": 1, "b": None}, "failed", None),
    ],
)
def test_success_is_judged_when_nothing_is_left_to_do(
    success: str, values: dict[str, Any], expected: str, clause: str | None
) -> None:
    play = Play(brief("a; b", tail=f"success: {{{success}}}" if success else ""))
    play.settle()
    for node, value in values.items():
        assert not play.state.finished
        if value is None:
            play.fail(node, code="agent.sulks")
        else:
            play.succeed(node, out=value)
    play.settle()
    end = outcome(play)
    assert (end.outcome, end.clause) == (expected, clause)
    failed = None in values.values()
    assert (end.error is not None) is (failed or expected == "failed")
    assert not failed or (end.error is not None and end.error.code == "agent.sulks")


# --- contradictions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fact",
    [
        NodeScheduled(node="b", attempt=1, key="k", input_digest="d", input_blob="d"),
        NodeScheduled(node="a", attempt=2, key="k", input_digest="d", input_blob="d"),
        NodeScheduled(node="zz", attempt=1, key="k", input_digest="d", input_blob="d"),
        NodeCancelled(node="zz"),
        NodeSkipped(node="a", reason="x"),
    ],
)
def test_a_fact_this_engine_could_not_have_led_to_is_refused(fact: Any) -> None:
    play = Play(brief("a; b", "a.out -> b.in"))
    play.carry_out()
    with pytest.raises(EngineError) as caught:
        play.say(fact)
    assert caught.value.named_code == "engine.illegal"


def test_attempts_are_counted_without_gaps() -> None:
    play = Play(brief("a"))
    with pytest.raises(EngineError, match="attempt 2 follows attempt 0"):
        play.say(NodeScheduled(node="a", attempt=2, key="k", input_digest="d", input_blob="d"))


def test_a_node_is_never_scheduled_twice() -> None:
    play = Play(brief("a"))
    (command,) = play.carry_out()
    with pytest.raises(EngineError):
        play.say(engine.fact(command))


def test_a_run_starts_once_and_first() -> None:
    play = Play(brief("a"))
    with pytest.raises(EngineError):
        play.say(play.events[0].payload)
    with pytest.raises(EngineError):
        engine.apply(engine.initial(), event(cancel()))


def test_an_event_of_another_run_is_refused() -> None:
    play = Play(brief("a"))
    with pytest.raises(EngineError, match="belongs to run"):
        engine.apply(play.state, event(cancel(), run="another"))


def test_a_kind_the_engine_takes_no_interest_in_changes_nothing() -> None:
    play = Play(brief("a"))
    before = play.state
    play.say(AgentTransition(agent="a", instance="1", before="DEFINED", after="SPAWNED", trigger="spawn"))
    assert play.state is before


def event(payload: Any, run: str = RUN) -> Event:
    draft = Draft(payload=payload, actor="daemon", run=run)
    return Event(
        id=99,
        ts_ms=0,
        actor=draft.actor,
        kind=payload.kind,
        scope=draft.scope,
        run=run,
        payload=payload,
        provenance=draft.provenance,
        hash=b"\0" * 32,
        prev_hash=b"\0" * 32,
    )


def test_the_table_of_moves_is_closed_and_its_ends_are_ends() -> None:
    assert set(LEGAL_MOVES) == set(NodeState)
    assert {state for moves in LEGAL_MOVES.values() for state in moves} == set(NodeState) - {
        NodeState.PENDING
    }
    assert {str(state) for state in TERMINAL} == {"succeeded", "failed", "skipped", "cancelled"}


# --- views ----------------------------------------------------------------------------------------


def test_the_summary_says_where_everything_stands() -> None:
    play = Play(brief("a retry: {max_attempts: 2}; b; c", "b.out -> c.in"))
    play.settle()
    play.fail("a", code="x.y", retryable=True).say(asked("b"))
    seen = engine.summary(play.state)
    assert seen["waiting"] == ["b"]
    assert seen["outcome"] is None
    assert seen["nodes"]["a"]["error"] == {"code": "x.y", "message": "it did not work", "retryable": True}
    assert seen["nodes"]["b"] == {
        "state": "waiting",
        "attempt": 1,
        "approvals": ["ap_1"],
        "error": None,
        "reason": "",
        "ports": {},
    }
    assert seen["nodes"]["c"]["state"] == "pending"


def test_the_upstream_of_a_node_is_named_once_each() -> None:
    play = Play(brief("a; b", "a.x -> b.p; a.y -> b.q"))
    assert play.state.upstream("b") == ("a",)
    assert play.state.upstream("nobody") == ()


@pytest.mark.requirement("I2.engine.1")
def test_the_fold_of_the_record_is_the_state_that_grew_with_it(compose_email: Any) -> None:
    play = through_review(Play(compose_email, PARAMS), {"ok": True})
    assert engine.fold(play.events) == play.state
    state, due = engine.decide(engine.fold(play.events[:-1]), play.events[-1])
    assert (state, due) == (play.state, play.due)


def test_an_output_that_is_no_list_counts_as_one_value() -> None:
    play = Play(load("version: 0\nname: x\nnodes: [{id: a, use: agent:a}]"))
    play.settle()
    output = {"ports": {"out": 5}}
    play.say(
        NodeFinished(node="a", attempt=1, status="succeeded", output=output, output_digest=digest(output))
    )
    assert play.state.nodes["a"].ports == {"out": (5,)}
    other = Play(brief("a"))
    other.settle()
    other.say(NodeFinished(node="a", attempt=1, status="succeeded", output={"ports": []}, output_digest="x"))
    assert other.state.nodes["a"].ports == {}
