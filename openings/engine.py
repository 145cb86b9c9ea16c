"""The engine: committed events in, what is due out. Pure: no clock, no dice, no I/O, no ``await``.

A live run, the recovery of a crashed one and a replay are these same functions, fed from different places.
``due`` is level-triggered: it names every command that is due and that no event reflects yet, so asking twice
changes nothing and a command lost in a crash is simply due again. The runner states each command as a fact
(:func:`fact`), and only the committed fact moves the state.

Knows: order, fan-in, guards, retries, time limits, cancelling, success. Does not know: how an attempt is
made, who is asked for approval, what time it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from openings.definition import Node, Opening, Retry, fill
from openings.errors import EngineError
from openings.expressions import evaluate
from openings.state import RUN_TIMER, TERMINAL, NodeRun, NodeState, RunState
from runloop.digest import canonical, digest
from runloop.events import (
    ActionDecided,
    ActionRequested,
    Event,
    GuestError,
    NodeCancelled,
    NodeFinished,
    NodeScheduled,
    NodeSkipped,
    Payload,
    RunCancelRequested,
    RunFinished,
    RunResumed,
    RunStarted,
    TimerFired,
    TimerSet,
)

__all__ = [
    "LOGIC",
    "RUN_TIMER",
    "CancelNode",
    "Command",
    "EndAttempt",
    "FinishRun",
    "ScheduleNode",
    "SetTimer",
    "SkipNode",
    "apply",
    "backoff_ms",
    "blobs",
    "decide",
    "due",
    "fact",
    "fold",
    "initial",
    "summary",
]

LOGIC = 1
"""Version of what these functions decide; recorded in ``run.started`` as ``engine.logic``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleNode:
    """Start an attempt. Stated as ``node.scheduled``."""

    node: str
    attempt: int
    input: dict[str, Any]
    """``{"ports": {port: [value…]}, "with": {…}}``."""
    key: str
    """Idempotency key of the attempt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SkipNode:
    """This node will not run. Stated as ``node.skipped``."""

    node: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelNode:
    """The run ends before this node did; an attempt that runs is killed. Stated as ``node.cancelled``."""

    node: str
    attempt: int | None
    """None when no attempt runs."""
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EndAttempt:
    """The attempt's time is up; it is killed. Stated as ``node.finished`` with status ``timed_out``."""

    node: str
    attempt: int
    error: GuestError


@dataclass(frozen=True, kw_only=True, slots=True)
class SetTimer:
    """Wake the run in ``after_ms`` milliseconds. Stated as ``timer.set``, later ``timer.fired``."""

    timer: str
    after_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishRun:
    """Nothing is left to do. Stated as ``run.finished``."""

    outcome: Literal["succeeded", "failed", "cancelled"]
    clause: str | None
    """The success clause that held."""
    outputs: dict[str, str]
    """``node.port`` -> digest of the list of its values."""
    output_digest: str
    """Digest of ``outputs``."""
    error: GuestError | None
    """Why it did not succeed; of a succeeded run, the error of a node that failed all the same."""


Command = ScheduleNode | SkipNode | CancelNode | EndAttempt | SetTimer | FinishRun


def initial() -> RunState:
    """The state before any event."""
    return RunState()


def fold(events: Iterable[Event]) -> RunState:
    """The state after these events."""
    state = initial()
    for event in events:
        state = apply(state, event)
    return state


def decide(state: RunState, event: Event) -> tuple[RunState, list[Command]]:
    """Fold one event and tell what is due then."""
    state = apply(state, event)
    return state, due(state)


# --- events in ------------------------------------------------------------------------------------


def apply(state: RunState, event: Event) -> RunState:
    """The state after one more event of the run.

    What comes too late to matter (a timer of an attempt that is over, the end of an attempt that timed out)
    is ignored, as are kinds the engine takes no interest in. Raises :class:`EngineError` for an event that
    this engine could not have led to: an attempt nobody was ready for, a node that is not in the opening.
    """
    handler = _HANDLERS.get(type(event.payload))
    if handler is None or state.finished:
        return state
    if isinstance(event.payload, RunStarted):
        if state.opening is not None:
            raise EngineError(f"run {state.run} started twice (event {event.id})")
    elif state.opening is None:
        raise EngineError(f"event {event.id} ({event.kind}) comes before run.started")
    elif event.run != state.run:
        raise EngineError(f"event {event.id} belongs to run {event.run}, not to {state.run}")
    return _settle(handler(state, event.payload, event))


def _settle(state: RunState) -> RunState:
    """Move every pending node whose inputs say go: the one move no event states."""
    if state.ending or state.finished:
        return state
    ready = {
        node.id: node.moved(NodeState.READY)
        for node in state.nodes.values()
        if node.state is NodeState.PENDING and state.inputs(node.id).verdict == "go"
    }
    return replace(state, nodes={**state.nodes, **ready}) if ready else state


def _started(state: RunState, started: RunStarted, event: Event) -> RunState:
    opening = Opening.from_json(started.definition)
    defaults = {name: param.default for name, param in opening.params.items()}
    timeout = started.policy.get("timeout_ms", opening.policy.timeout_ms)
    return replace(
        state,
        run=event.run or "",
        opening=opening,
        params={**defaults, **started.params},
        nodes={node.id: NodeRun(id=node.id) for node in opening.nodes},
        timeout_ms=timeout if isinstance(timeout, int) else None,
    )


def _resumed(state: RunState, _: RunResumed, event: Event) -> RunState:
    # The time nobody was there is not the attempt's: its clock starts again.
    running = {
        node.id: replace(node, stretch=node.stretch + 1)
        for node in state.nodes.values()
        if node.state is NodeState.RUNNING
    }
    return replace(state, nodes={**state.nodes, **running})


def _cancel_requested(state: RunState, asked: RunCancelRequested, event: Event) -> RunState:
    return replace(state, cancel=state.cancel or asked.reason or "cancelled")


def _finished(state: RunState, finished: RunFinished, event: Event) -> RunState:
    return replace(state, outcome=finished.outcome)


def _scheduled(state: RunState, scheduled: NodeScheduled, event: Event) -> RunState:
    node = _node(state, scheduled.node)
    if scheduled.attempt != node.attempt + 1:
        raise EngineError(
            f"node {node.id}: attempt {scheduled.attempt} follows attempt {node.attempt} (event {event.id})"
        )
    return _put(
        state,
        node.moved(
            NodeState.RUNNING,
            attempt=scheduled.attempt,
            stretch=1,
            expired=False,
            denied=False,
            asked=frozenset(),
            approvals=frozenset(),
            grace_ms=0,
            error=None,
        ),
    )


def _node_finished(state: RunState, finished: NodeFinished, event: Event) -> RunState:
    node = _node(state, finished.node)
    if node.attempt != finished.attempt or node.state not in (NodeState.RUNNING, NodeState.WAITING):
        return state  # the attempt was over before: timed out, or cancelled
    if finished.status == "succeeded":
        ended = node.moved(
            NodeState.SUCCEEDED,
            ports=_ports(finished.output),
            approvals=frozenset(),
            expired=False,
            error=None,
        )
        return _put(state, ended)
    error = finished.error or GuestError(code="node.failed", message="no reason was given")
    again = finished.status == "timed_out" or error.retryable
    left = _definition(state, node.id).retry.max_attempts - node.attempt
    to = NodeState.READY if again and left > 0 and not node.denied and not state.ending else NodeState.FAILED
    return _put(state, node.moved(to, error=error, approvals=frozenset(), expired=False))


def _skipped(state: RunState, skipped: NodeSkipped, event: Event) -> RunState:
    return _put(state, _node(state, skipped.node).moved(NodeState.SKIPPED, reason=skipped.reason))


def _cancelled(state: RunState, cancelled: NodeCancelled, event: Event) -> RunState:
    node = _node(state, cancelled.node)
    if node.state in TERMINAL:
        return state  # it ended while it was being cancelled
    return _put(
        state, node.moved(NodeState.CANCELLED, reason=cancelled.reason, approvals=frozenset(), expired=False)
    )


def _timer_set(state: RunState, timer: TimerSet, event: Event) -> RunState:
    return replace(state, timers_set={**state.timers_set, timer.timer: timer.due_ms})


def _timer_fired(state: RunState, timer: TimerFired, event: Event) -> RunState:
    state = replace(state, timers_fired=state.timers_fired | {timer.timer})
    if timer.timer == RUN_TIMER:
        return replace(state, timed_out=True)
    for node in state.nodes.values():
        if node.state is NodeState.RUNNING and node.timeout_timer == timer.timer:
            return _put(state, replace(node, expired=True))
    return state


def _asked(state: RunState, asked: ActionRequested, event: Event) -> RunState:
    node = _node(state, asked.node)
    if node.attempt != asked.attempt or node.state not in (NodeState.RUNNING, NodeState.WAITING):
        return state
    node = replace(node, asked=node.asked | {asked.approval}, approvals=node.approvals | {asked.approval})
    return _put(state, node if node.state is NodeState.WAITING else node.moved(NodeState.WAITING))


def _answered(state: RunState, answer: ActionDecided, event: Event) -> RunState:
    node = _node(state, answer.node)
    if answer.approval not in node.asked or node.state not in (NodeState.RUNNING, NodeState.WAITING):
        return state  # a question of an earlier attempt
    node = replace(
        node,
        denied=node.denied or answer.decision != "approved",
        approvals=node.approvals - {answer.approval},
    )
    if node.state is NodeState.WAITING and not node.approvals:
        grace = max(0, answer.dispatch_after_ms - event.ts_ms) if answer.dispatch_after_ms else 0
        node = node.moved(NodeState.RUNNING, stretch=node.stretch + 1, grace_ms=grace)
    return _put(state, node)


_Handler = Callable[[RunState, Any, Event], RunState]

_HANDLERS: Mapping[type[Payload], _Handler] = {
    RunStarted: _started,
    RunResumed: _resumed,
    RunCancelRequested: _cancel_requested,
    RunFinished: _finished,
    NodeScheduled: _scheduled,
    NodeFinished: _node_finished,
    NodeSkipped: _skipped,
    NodeCancelled: _cancelled,
    TimerSet: _timer_set,
    TimerFired: _timer_fired,
    ActionRequested: _asked,
    ActionDecided: _answered,
}


def _node(state: RunState, name: str) -> NodeRun:
    node = state.nodes.get(name)
    if node is None:
        raise EngineError(f"run {state.run} has no node {name!r}")
    return node


def _put(state: RunState, node: NodeRun) -> RunState:
    return replace(state, nodes={**state.nodes, node.id: node})


def _definition(state: RunState, name: str) -> Node:
    found = None if state.opening is None else state.opening.node(name)
    assert found is not None, name
    return found


def _ports(output: Mapping[str, Any] | None) -> dict[str, tuple[Any, ...]]:
    ports = (output or {}).get("ports")
    if not isinstance(ports, dict):
        return {}
    return {name: tuple(values) if isinstance(values, list) else (values,) for name, values in ports.items()}


# --- commands out ---------------------------------------------------------------------------------


def due(state: RunState) -> list[Command]:
    """Every command that is due and that no event reflects yet, in the order of the nodes' declaration."""
    if state.opening is None or state.finished:
        return []
    if all(node.state in TERMINAL for node in state.nodes.values()):
        return [_finish(state)]
    if state.ending:
        return [_cancel(state, node) for node in state.nodes.values() if node.state not in TERMINAL]
    commands: list[Command] = []
    if state.timeout_ms is not None and RUN_TIMER not in state.timers_set:
        commands.append(SetTimer(timer=RUN_TIMER, after_ms=state.timeout_ms))
    for node in state.nodes.values():
        command = _next(state, node)
        if command is not None:
            commands.append(command)
    return commands


def _next(state: RunState, node: NodeRun) -> Command | None:
    match node.state:
        case NodeState.PENDING:
            inputs = state.inputs(node.id)
            return SkipNode(node=node.id, reason=inputs.reason) if inputs.verdict == "skip" else None
        case NodeState.READY:
            wait = _wait(state, node)
            return wait if wait is not None else _schedule(state, node) if _waited(state, node) else None
        case NodeState.RUNNING:
            return _watch(state, node)
        case _:
            return None


def _wait(state: RunState, node: NodeRun) -> SetTimer | None:
    """The timer before another attempt, if it is yet to be set."""
    if node.attempt == 0 or node.backoff_timer in state.timers_set:
        return None
    after = backoff_ms(_definition(state, node.id).retry, state.run, node.id, node.attempt)
    return SetTimer(timer=node.backoff_timer, after_ms=after) if after > 0 else None


def _waited(state: RunState, node: NodeRun) -> bool:
    return node.backoff_timer not in state.timers_set or node.backoff_timer in state.timers_fired


def _watch(state: RunState, node: NodeRun) -> Command | None:
    limit = _definition(state, node.id).timeout_ms
    if node.expired:
        message = f"attempt {node.attempt} of {node.id} took longer than {limit} ms"
        return EndAttempt(
            node=node.id,
            attempt=node.attempt,
            error=GuestError(code="node.timeout", message=message, retryable=True),
        )
    if limit is not None and node.timeout_timer not in state.timers_set:
        return SetTimer(timer=node.timeout_timer, after_ms=limit + node.grace_ms)
    return None


def _schedule(state: RunState, node: NodeRun) -> ScheduleNode:
    ports = {name: list(values) for name, values in state.inputs(node.id).ports.items()}
    given = {"ports": ports, "with": fill(_definition(state, node.id).with_, state.params)}
    attempt = node.attempt + 1
    key = digest(["attempt", state.run, node.id, attempt, digest(given)])
    return ScheduleNode(node=node.id, attempt=attempt, input=given, key=key)


def _cancel(state: RunState, node: NodeRun) -> CancelNode:
    running = node.state in (NodeState.RUNNING, NodeState.WAITING)
    return CancelNode(node=node.id, attempt=node.attempt if running else None, reason=_why_ending(state))


def _why_ending(state: RunState) -> str:
    return state.cancel if state.cancel is not None else f"the run took longer than {state.timeout_ms} ms"


def backoff_ms(retry: Retry, run: str, node: str, attempt: int) -> int:
    """Milliseconds between the failure of ``attempt`` and the next attempt.

    Grows by ``multiplier`` up to ``max_ms``; up to ``jitter`` of it is added, drawn not from a dice but from
    the BLAKE3 of run, node and attempt, so that a replay waits for the same timer.
    """
    wait = float(retry.initial_ms)
    for _ in range(attempt - 1):
        wait = min(wait * retry.multiplier, float(retry.max_ms))
    base = min(int(wait), retry.max_ms)
    drawn = int(digest(["backoff", run, node, attempt])[:8], 16)
    return base + (base * round(retry.jitter * 1000) * drawn) // (1000 << 32)


# --- the end --------------------------------------------------------------------------------------


def _finish(state: RunState) -> FinishRun:
    outputs = {
        f"{node.id}.{port}": digest(list(values))
        for node in state.nodes.values()
        if node.state is NodeState.SUCCEEDED
        for port, values in node.ports.items()
    }
    outcome, clause, error = _outcome(state)
    return FinishRun(
        outcome=outcome, clause=clause, outputs=outputs, output_digest=digest(outputs), error=error
    )


def _outcome(
    state: RunState,
) -> tuple[Literal["succeeded", "failed", "cancelled"], str | None, GuestError | None]:
    if any(node.state is NodeState.CANCELLED for node in state.nodes.values()):
        if state.cancel is not None:
            return "cancelled", None, GuestError(code="run.cancelled", message=state.cancel)
        return "failed", None, GuestError(code="run.timeout", message=_why_ending(state))
    held, clause, reason = _success(state)
    failed = _first_failure(state)
    if held:
        return "succeeded", clause, failed
    return "failed", None, failed or GuestError(code="run.unsuccessful", message=reason)


def _success(state: RunState) -> tuple[bool, str | None, str]:
    """Whether the run succeeded, the clause that says so, and otherwise why not."""
    assert state.opening is not None
    success = state.opening.success
    if success is None or not success.clauses:
        return _first_failure(state) is None, None, "a node failed"
    judged = [(clause, evaluate(clause, state.lookup)) for clause in success.clauses]
    reasons = "; ".join(judgement.reason for _, judgement in judged if not judgement)
    if success.mode == "all_of":
        return not reasons, " and ".join(str(clause) for clause in success.clauses), reasons
    held = next((str(clause) for clause, judgement in judged if judgement), None)
    return held is not None, held, reasons


def _first_failure(state: RunState) -> GuestError | None:
    for node in state.nodes.values():
        if node.state is NodeState.FAILED and node.error is not None:
            return GuestError(
                code=node.error.code,
                message=f"{node.id}: {node.error.message}",
                retryable=node.error.retryable,
            )
    return None


# --- commands as facts ----------------------------------------------------------------------------


def fact(command: Command, *, now_ms: int = 0) -> Payload:
    """The event payload that states a command. ``now_ms``: unix milliseconds, for the due time of a timer."""
    match command:
        case ScheduleNode():
            given = digest(command.input)
            return NodeScheduled(
                node=command.node,
                attempt=command.attempt,
                key=command.key,
                input_digest=given,
                input_blob=given,
            )
        case SkipNode():
            return NodeSkipped(node=command.node, reason=command.reason)
        case CancelNode():
            return NodeCancelled(node=command.node, attempt=command.attempt, reason=command.reason)
        case EndAttempt():
            return NodeFinished(
                node=command.node, attempt=command.attempt, status="timed_out", error=command.error
            )
        case SetTimer():
            return TimerSet(timer=command.timer, after_ms=command.after_ms, due_ms=now_ms + command.after_ms)
        case FinishRun():
            return RunFinished(
                outcome=command.outcome,
                clause=command.clause,
                outputs=command.outputs,
                output_digest=command.output_digest,
                error=command.error,
            )


def blobs(command: Command) -> list[bytes]:
    """Bytes that must be stored beside the fact: the input of a scheduled attempt."""
    return [canonical(command.input)] if isinstance(command, ScheduleNode) else []


# --- for people -----------------------------------------------------------------------------------


def summary(state: RunState) -> dict[str, Any]:
    """The run as views and people see it, as JSON."""
    return {
        "outcome": state.outcome,
        "cancel": state.cancel,
        "timed_out": state.timed_out,
        "waiting": sorted(state.waiting),
        "nodes": {
            node.id: {
                "state": str(node.state),
                "attempt": node.attempt,
                "approvals": sorted(node.approvals),
                "error": msgspec.to_builtins(node.error),
                "reason": node.reason,
                "ports": {name: len(values) for name, values in node.ports.items()},
            }
            for node in state.nodes.values()
        },
    }
