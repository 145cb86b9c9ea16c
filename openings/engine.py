"""The engine: committed events in, what is due out. Pure: no clock, no dice, no I/O, no ``await``.

A live run, the recovery of a crashed one and a replay are these same functions, fed from different places.
``due`` is level-triggered: it names every command that is due and that no event reflects yet, so asking twice
changes nothing and a command lost in a crash is simply due again. The runner states each command as a fact
(:func:`fact`), and only the committed fact moves the state.

Knows: order, fan-in, guards, retries, time limits, cancelling. Does not know: whether a run succeeded
(``outcome``), how an attempt is made, who is asked for approval, what time it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from openings.commands import (
    CancelNode,
    Command,
    EndAttempt,
    ExpandNode,
    FinishRun,
    GatherNode,
    ScheduleNode,
    SetTimer,
    SkipNode,
    blobs,
    fact,
)
from openings.definition import Opening
from openings.errors import EngineError
from openings.expressions import json_type
from openings.moves import Moves, backoff_ms, mapped_list
from openings.outcome import FORK_DIVERGED, finish, why_ending
from openings.state import RUN_TIMER, TERMINAL, NodeRun, NodeState, RunState, bits, item_id, item_of
from openings.template import fill
from runloop.digest import digest
from runloop.events import (
    ActionDecided,
    ActionRequested,
    Event,
    GuestError,
    NodeCancelled,
    NodeExpanded,
    NodeFinished,
    NodeGathered,
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
    "MAX_ITEMS",
    "RUN_TIMER",
    "CancelNode",
    "Command",
    "EndAttempt",
    "ExpandNode",
    "FinishRun",
    "GatherNode",
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
    "fresh",
    "initial",
    "summary",
]

LOGIC = 1
"""Version of what these functions decide; recorded in ``run.started`` as ``engine.logic``."""

MAX_ITEMS = 10_000
"""Items of one mapped node; a longer list fails the node."""


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
    run = Moves(state)
    handler(run, event.payload, event)
    return run.became()


def _started(run: Moves, started: RunStarted, event: Event) -> None:
    opening = Opening.from_json(started.definition)
    defaults = {name: param.default for name, param in opening.params.items()}
    timeout = started.policy.get("timeout_ms", opening.policy.timeout_ms)
    run.run = event.run or ""
    run.lineage = started.lineage or run.run
    run.params = {**defaults, **started.params}
    run.timeout_ms = timeout if isinstance(timeout, int) else None
    run.begin(opening)


def _resumed(run: Moves, _: RunResumed, event: Event) -> None:
    # The time nobody was there is not the attempt's: its clock starts again.
    for name in run.executing:
        node = run.nodes[name]
        if node.state is NodeState.RUNNING:
            run.put(replace(node, stretch=node.stretch + 1))


def _cancel_requested(run: Moves, asked: RunCancelRequested, event: Event) -> None:
    run.cancel = run.cancel or asked.reason or "cancelled"


def _finished(run: Moves, finished: RunFinished, event: Event) -> None:
    run.outcome = finished.outcome


def _scheduled(run: Moves, scheduled: NodeScheduled, event: Event) -> None:
    node = run.node(scheduled.node)
    if scheduled.attempt != node.attempt + 1 or run.is_mapped(node.id):
        raise EngineError(
            f"node {node.id}: attempt {scheduled.attempt} follows attempt {node.attempt} (event {event.id})"
        )
    run.put(
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
        )
    )


def _node_finished(run: Moves, finished: NodeFinished, event: Event) -> None:
    node = run.node(finished.node)
    if node.attempt != finished.attempt or node.id not in run.executing:
        return  # the attempt was over before: timed out, or cancelled
    if finished.status == "succeeded":
        ports = _ports(finished.output)
        run.put(
            node.moved(NodeState.SUCCEEDED, ports=ports, approvals=frozenset(), expired=False, error=None)
        )
        return
    error = finished.error or GuestError(code="node.failed", message="no reason was given")
    again = (finished.status == "timed_out" or error.retryable) and not node.denied
    left = run.definition(node.id).retry.max_attempts - node.attempt
    retried = again and left > 0 and not run.ending and not run.stopped(node.id)
    to = NodeState.READY if retried else NodeState.FAILED
    run.put(node.moved(to, error=error, approvals=frozenset(), expired=False))
    if error.code == FORK_DIVERGED and run.lineage != run.run:
        # What should have heard the record alone has left it: nothing in this fork means anything now.
        run.cancel = run.cancel or f"{FORK_DIVERGED}: {error.message}"


def _skipped(run: Moves, skipped: NodeSkipped, event: Event) -> None:
    run.put(run.node(skipped.node).moved(NodeState.SKIPPED, reason=skipped.reason))


def _cancelled(run: Moves, cancelled: NodeCancelled, event: Event) -> None:
    node = run.node(cancelled.node)
    if node.state in TERMINAL:
        return  # it ended while it was being cancelled
    run.put(node.moved(NodeState.CANCELLED, reason=cancelled.reason, approvals=frozenset(), expired=False))


def _expanded(run: Moves, expanded: NodeExpanded, event: Event) -> None:
    node = run.node(expanded.node)
    values = mapped_list(run, node.id) if run.is_mapped(node.id) else None
    if not isinstance(values, list) or len(values) != expanded.items or node.id in run.items:
        raise EngineError(f"node {node.id} has no {expanded.items} items to map over (event {event.id})")
    run.expand(node.id, values)


def _gathered(run: Moves, gathered: NodeGathered, event: Event) -> None:
    node = run.node(gathered.node)
    if not run.is_mapped(node.id):
        raise EngineError(f"node {node.id} has no items to gather (event {event.id})")
    if node.state is NodeState.READY:  # what it should map over is no list: it never had any
        node = node.moved(NodeState.RUNNING)
    if gathered.status == "failed":
        run.put(node.moved(NodeState.FAILED, error=gathered.error))
        return
    ports = {port: (values,) for port, values in run.gathered(node.id).items()}
    run.put(node.moved(NodeState.SUCCEEDED, ports=ports))


def _timer_set(run: Moves, timer: TimerSet, event: Event) -> None:
    run.set_timer(timer.timer, timer.due_ms)


def _timer_fired(run: Moves, timer: TimerFired, event: Event) -> None:
    run.fire(timer.timer)


def _asked(run: Moves, asked: ActionRequested, event: Event) -> None:
    node = run.node(asked.node)
    if node.attempt != asked.attempt or node.id not in run.executing:
        return
    node = replace(node, asked=node.asked | {asked.approval}, approvals=node.approvals | {asked.approval})
    run.put(node if node.state is NodeState.WAITING else node.moved(NodeState.WAITING))


def _answered(run: Moves, answer: ActionDecided, event: Event) -> None:
    node = run.node(answer.node)
    if answer.approval not in node.asked or node.id not in run.executing:
        return  # a question of an earlier attempt
    node = replace(
        node,
        denied=node.denied or answer.decision != "approved",
        approvals=node.approvals - {answer.approval},
    )
    if node.state is NodeState.WAITING and not node.approvals:
        grace = max(0, answer.dispatch_after_ms - event.ts_ms) if answer.dispatch_after_ms else 0
        node = node.moved(NodeState.RUNNING, stretch=node.stretch + 1, grace_ms=grace)
    run.put(node)


_Handler = Callable[[Moves, Any, Event], None]

_HANDLERS: Mapping[type[Payload], _Handler] = {
    RunStarted: _started,
    RunResumed: _resumed,
    RunCancelRequested: _cancel_requested,
    RunFinished: _finished,
    NodeScheduled: _scheduled,
    NodeFinished: _node_finished,
    NodeSkipped: _skipped,
    NodeCancelled: _cancelled,
    NodeExpanded: _expanded,
    NodeGathered: _gathered,
    TimerSet: _timer_set,
    TimerFired: _timer_fired,
    ActionRequested: _asked,
    ActionDecided: _answered,
}


def _ports(output: Mapping[str, Any] | None) -> dict[str, tuple[Any, ...]]:
    ports = (output or {}).get("ports")
    if not isinstance(ports, dict):
        return {}
    return {name: tuple(values) if isinstance(values, list) else (values,) for name, values in ports.items()}


# --- commands out ---------------------------------------------------------------------------------


def due(state: RunState, *, room: int | None = None) -> list[Command]:
    """Every command that is due and that no event reflects yet, in the order of the nodes' declaration.

    ``room``: at most so many of them start an attempt, the first ones; None: all. It costs what it returns.
    """
    if state.opening is None or state.finished:
        return []
    if not state.open:
        return [finish(state)]
    if state.ending:
        return [_cancel(state, name) for name in _open(state)]
    commands: list[Command] = []
    if state.timeout_ms is not None and RUN_TIMER not in state.timers_set:
        commands.append(SetTimer(timer=RUN_TIMER, after_ms=state.timeout_ms))
    for name in _attended(state, room):
        command = _next(state, state.nodes[name])
        if command is not None:
            commands.append(command)
    return commands


def fresh(before: RunState, after: RunState) -> list[Command]:
    """Those of the commands due ``after`` one more event that this event may have made due.

    All that is due after a series of events is among what these gave on the way; each costs what its event
    touched.
    """
    if after is before or after.opening is None or after.finished:
        return []
    if (
        before.opening is None
        or not after.open
        or (after.cancel, after.timed_out)
        != (
            before.cancel,
            before.timed_out,
        )
    ):
        return due(after)
    if after.ending:
        return [_cancel(after, name) for name in after.touched if after.nodes[name].state not in TERMINAL]
    commands = (_next(after, after.nodes[name]) for name in after.touched)
    return [command for command in commands if command is not None]


def _open(state: RunState) -> Iterator[str]:
    """Everything that is not at an end; the items of a node before the node, which ends with them."""
    assert state.opening is not None
    for place in bits(state.open):
        name = state.opening.nodes[place].id
        items = state.items.get(name)
        yield from (item_id(name, index) for index in bits(0 if items is None else items.open))
        yield name


def _attended(state: RunState, room: int | None) -> Iterator[str]:
    """Nodes and items with a command due; of those that start an attempt, the first ``room``."""
    assert state.opening is not None
    for place in bits(state.chores | _lowest(state.startable, room)):
        name = state.opening.nodes[place].id
        items = state.items.get(name)
        if items is None:
            starts = state.startable >> place & 1
            if room is None or not starts or room > 0:
                room = None if room is None else room - starts
                yield name
            continue
        starting = _lowest(items.startable, room)
        room = None if room is None else room - starting.bit_count()
        yield from (item_id(name, index) for index in bits(items.chores | starting))
        yield name


def _lowest(number: int, count: int | None) -> int:
    """The lowest ``count`` of the bits that are set; all for None."""
    if count is None or number.bit_count() <= count:
        return number
    found = 0
    for _, place in zip(range(count), bits(number), strict=False):
        found |= 1 << place
    return found


def _next(state: RunState, node: NodeRun) -> Command | None:  # noqa: PLR0911 - one per state
    match node.state:
        case NodeState.PENDING:
            inputs = state.inputs(node.id)
            return SkipNode(node=node.id, reason=inputs.reason) if inputs.verdict == "skip" else None
        case NodeState.READY if state.stopped(node.id):
            return CancelNode(node=node.id, attempt=None, reason=_stopped(state, node.id))
        case NodeState.READY if state.is_mapped(node.id):
            return _expand(state, node)
        case NodeState.READY:
            wait = _wait(state, node)
            return wait if wait is not None else _schedule(state, node) if _waited(state, node) else None
        case NodeState.RUNNING if state.is_mapped(node.id):
            return _gather(state, node.id) if state.items[node.id].over else None
        case NodeState.RUNNING:
            return _watch(state, node)
        case _:
            return None


def _wait(state: RunState, node: NodeRun) -> SetTimer | None:
    """The timer before another attempt, if it is yet to be set."""
    if node.attempt == 0 or node.backoff_timer in state.timers_set:
        return None
    after = backoff_ms(state.definition(node.id).retry, state.lineage, node.id, node.attempt)
    return SetTimer(timer=node.backoff_timer, after_ms=after) if after > 0 else None


def _waited(state: RunState, node: NodeRun) -> bool:
    return node.backoff_timer not in state.timers_set or node.backoff_timer in state.fired


def _watch(state: RunState, node: NodeRun) -> Command | None:
    limit = state.definition(node.id).timeout_ms
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
    ports = {name: list(values) for name, values in state.input_of(node.id).items()}
    given = {"ports": ports, "with": fill(state.definition(node.id).with_, state.params)}
    attempt = node.attempt + 1
    key = digest(["attempt", state.run, node.id, attempt, digest(given)])
    return ScheduleNode(node=node.id, attempt=attempt, input=given, key=key)


def _cancel(state: RunState, name: str) -> CancelNode:
    return CancelNode(node=name, attempt=state.executing.get(name), reason=why_ending(state))


# --- mapped nodes ---------------------------------------------------------------------------------


def _expand(state: RunState, node: NodeRun) -> ExpandNode | GatherNode:
    """The items, or the failure of a node whose port holds no list."""
    values = mapped_list(state, node.id)
    if isinstance(values, list) and len(values) <= MAX_ITEMS:
        return ExpandNode(node=node.id, items=len(values), items_digest=digest(values))
    plan = state.definition(node.id).for_each
    assert plan is not None
    what = f"a list of {len(values)} items" if isinstance(values, list) else f"a {json_type(values)}"
    message = f"{node.id} maps over '{plan.port}', which is {what}; at most {MAX_ITEMS} items of a list do"
    error = GuestError(code="node.for_each", message=message)
    return GatherNode(node=node.id, status="failed", items=0, failed=0, output_digest=None, error=error)


def _gather(state: RunState, name: str) -> GatherNode:
    items = state.items[name]
    many = len(items.values)
    if not items.closed:
        given = digest(state.gathered(name))
        return GatherNode(
            node=name, status="succeeded", items=many, failed=items.failed, output_digest=given, error=None
        )
    runs = (state.nodes[item_id(name, index)] for index in range(items.admitted))
    first = next(run for run in runs if run.state is NodeState.FAILED)
    why = (
        GuestError(code="node.failed", message="no reason was given") if first.error is None else first.error
    )
    error = GuestError(
        code=why.code, message=f"{items.failed} of {many} items failed; {first.id}: {why.message}"
    )
    return GatherNode(
        node=name, status="failed", items=many, failed=items.failed, output_digest=None, error=error
    )


def _stopped(state: RunState, name: str) -> str:
    node, _ = item_of(name)
    return f"{state.items[node].failed} items of {node} failed"


# --- for people -----------------------------------------------------------------------------------


def summary(state: RunState) -> dict[str, Any]:
    """The run as views and people see it, as JSON.

    Of a mapped node's items those are named that are under way, or that failed.
    """
    return {
        "outcome": state.outcome,
        "cancel": state.cancel,
        "timed_out": state.timed_out,
        "waiting": sorted(state.waiting),
        "nodes": {name: _shown(state, state.nodes[name]) for name in _named(state)},
    }


def _named(state: RunState) -> Iterator[str]:
    for node in () if state.opening is None else state.opening.nodes:
        yield node.id
        items = state.items.get(node.id)
        for index in range(0 if items is None else items.admitted):
            item = state.nodes[item_id(node.id, index)]
            if item.state not in (NodeState.SUCCEEDED, NodeState.CANCELLED):
                yield item.id


def _shown(state: RunState, node: NodeRun) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "state": str(node.state),
        "attempt": node.attempt,
        "approvals": sorted(node.approvals),
        "error": msgspec.to_builtins(node.error),
        "reason": node.reason,
        "ports": {name: len(values) for name, values in node.ports.items()},
    }
    items = state.items.get(node.id)
    if items is not None:
        shown["items"] = {
            "total": len(items.values),
            "done": items.admitted - items.open.bit_count(),
            "open": items.open.bit_count(),
            "failed": items.failed,
        }
    return shown
