"""The next state in the making: what one event changes, and what follows from that at once.

Every change of a node goes through :meth:`Moves.put`, which keeps the state's indexes right: who is
executing, which edges are undecided, whose attention is due, which timer matters. It costs what the node's
edges cost, never what the run has nodes.

Knows: the consequences of a node's move. Does not know: which event moves which node (``engine``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from immutables import Map

from openings.definition import Opening, Retry
from openings.errors import EngineError
from openings.state import (
    EXECUTING,
    RUN_TIMER,
    TERMINAL,
    Items,
    Known,
    NodeRun,
    NodeState,
    RunState,
    bits,
    item_id,
    item_of,
)
from openings.template import fill
from runloop.digest import digest

__all__ = ["Moves", "backoff_ms", "mapped_list"]

_FIELDS = tuple(field.name for field in fields(RunState))


class Moves(Known):
    """A run's state under one event: read it, move it, then take what it :meth:`became`."""

    __slots__ = (*_FIELDS, "_changed")

    def __init__(self, state: RunState) -> None:
        for name in _FIELDS:
            setattr(self, name, getattr(state, name))
        self._changed: dict[str, None] = {}

    def became(self) -> RunState:
        """The state that comes of it."""
        self.touched = tuple(self._changed)
        return RunState(**{name: getattr(self, name) for name in _FIELDS})

    # --- reading ----------------------------------------------------------------------------------

    def node(self, name: str) -> NodeRun:
        """A node or an item of the run; raises :class:`EngineError` for any other."""
        node = self.nodes.get(name)
        if node is None:
            raise EngineError(f"run {self.run} has no node {name!r}")
        return node

    # --- the beginning ----------------------------------------------------------------------------

    def begin(self, opening: Opening) -> None:
        """Every node is pending, and those that wait for nobody are judged."""
        self.opening = opening
        self.open = (1 << len(opening.nodes)) - 1
        inbound = {node.id: len(opening.inbound(node.id)) for node in opening.nodes}
        self.nodes = Map({name: NodeRun(id=name) for name in inbound})
        self.undecided = Map({name: edges for name, edges in inbound.items() if edges})
        for node in opening.nodes:
            if not opening.inbound(node.id):
                self._judge_anew(node.id)

    # --- moving -----------------------------------------------------------------------------------

    def put(self, node: NodeRun) -> None:
        """A node or an item is now like this; everything that follows from it is done too."""
        before = self.nodes.get(node.id)
        self.nodes = self.nodes.set(node.id, node)
        self._count(before, node)
        self._retime(before, node)
        if node.state in TERMINAL and (before is None or before.state not in TERMINAL):
            self._ended(node)
        self.mark(node.id)

    def expand(self, name: str, values: Sequence[Any]) -> None:
        """A mapped node knows its list: as many items as may are admitted."""
        plan = self.definition(name).for_each
        assert plan is not None
        ports = self.inputs(name).ports
        self.put(self.nodes[name].moved(NodeState.RUNNING))
        self.items = self.items.set(name, Items(plan=plan, values=values, ports=ports))
        self._admit(name)
        self.mark(name)

    def mark(self, name: str) -> None:
        """Note whether a command is due for a node or an item, and whether it starts something."""
        node, index = item_of(name)
        if index is None:
            self._mark_node(name)
            return
        self._changed[name] = None
        chore, startable = self._wants(self.nodes[name])
        items = self.items[node]
        self.items = self.items.set(
            node,
            replace(
                items,
                chores=_with(items.chores, index, chore),
                startable=_with(items.startable, index, startable),
            ),
        )
        self._mark_node(node)

    def set_timer(self, timer: str, due_ms: int) -> None:
        """A timer is set; it matters if somebody waits for it."""
        self.timers_set = self.timers_set.set(timer, due_ms)
        node = self._waits_for(timer)
        if (timer == RUN_TIMER or node is not None) and timer not in self.fired:
            self.timers = self.timers.set(timer, due_ms)
        if node is not None:
            self.mark(node.id)

    def fire(self, timer: str) -> None:
        """A timer has fired; whether it means something, the one who waits for it knows."""
        self.fired = self.fired.set(timer, None)
        if timer in self.timers:
            self.timers = self.timers.delete(timer)
        if timer == RUN_TIMER:
            self.timed_out = True
            return
        node = self._waits_for(timer)
        if node is None:
            return
        if node.state is NodeState.RUNNING:
            self.put(replace(node, expired=True))
        else:
            self.mark(node.id)

    # --- what follows -----------------------------------------------------------------------------

    def _count(self, before: NodeRun | None, node: NodeRun) -> None:
        executes = node.state in EXECUTING and node.attempt > 0
        executed = before is not None and before.state in EXECUTING and before.attempt > 0
        if executes:
            self.executing = self.executing.set(node.id, node.attempt)
        elif executed:
            self.executing = self.executing.delete(node.id)
        self.running += (executes and node.state is NodeState.RUNNING) - (
            before is not None and executed and before.state is NodeState.RUNNING
        )

    def _retime(self, before: NodeRun | None, node: NodeRun) -> None:
        was = None if before is None else before.live_timer
        now = node.live_timer
        if was == now:
            return
        if was is not None and was in self.timers:
            self.timers = self.timers.delete(was)
        if now is not None and now in self.timers_set and now not in self.fired:
            self.timers = self.timers.set(now, self.timers_set[now])

    def _waits_for(self, timer: str) -> NodeRun | None:
        """Who waits for a timer now. Names of nodes and items have no colon."""
        kind, _, rest = timer.partition(":")
        node = self.nodes.get(rest.partition(":")[0]) if kind == "node" else None
        return node if node is not None and node.live_timer == timer else None

    def _ended(self, run: NodeRun) -> None:
        node, index = item_of(run.id)
        if index is not None:
            self._item_ended(node, index, failed=run.state is NodeState.FAILED)
            return
        assert self.opening is not None
        self.open &= ~(1 << self.opening.positions[node])
        for edge in self.opening.outbound(node):
            left = self.undecided[edge.node] - 1
            if left:
                self.undecided = self.undecided.set(edge.node, left)
            else:
                self.undecided = self.undecided.delete(edge.node)
                self._judge_anew(edge.node)

    def _judge_anew(self, name: str) -> None:
        """The last edge into a node was decided: the one move no event states."""
        node = self.nodes[name]
        if node.state is not NodeState.PENDING:
            return
        if not self.ending and self.inputs(name).verdict == "go":
            self.put(node.moved(NodeState.READY))
        else:
            self.mark(name)

    def _item_ended(self, node: str, index: int, *, failed: bool) -> None:
        items = self.items[node]
        was_closed = items.closed
        items = replace(items, open=items.open & ~(1 << index), failed=items.failed + failed)
        self.items = self.items.set(node, items)
        if items.closed and not was_closed:
            for other in bits(items.open):
                self.mark(item_id(node, other))
        self._admit(node)

    def _admit(self, node: str) -> None:
        """Let the next items be tried, as many as may at a time."""
        items = self.items[node]
        if items.closed or self.ending:
            return
        room = items.plan.concurrency - items.open.bit_count()
        first, after = items.admitted, min(items.admitted + max(0, room), len(items.values))
        fresh = range(first, after)
        new = ((1 << after) - 1) & ~((1 << first) - 1)
        self.items = self.items.set(node, replace(items, admitted=after, open=items.open | new))
        for index in fresh:
            self.put(NodeRun(id=item_id(node, index), state=NodeState.READY))

    # --- whose attention is due -------------------------------------------------------------------

    def _mark_node(self, name: str) -> None:
        self._changed[name] = None
        assert self.opening is not None
        place = self.opening.positions[name]
        chore, startable = self._wants(self.nodes[name])
        items = self.items.get(name)
        if items is not None and self.nodes[name].state is NodeState.RUNNING:
            chore, startable = items.over or bool(items.chores), bool(items.startable)
        self.chores = _with(self.chores, place, chore)
        self.startable = _with(self.startable, place, startable)

    def _wants(self, node: NodeRun) -> tuple[bool, bool]:  # noqa: PLR0911 - one per state
        """Whether a command is due for it that starts nothing, and whether one that starts an attempt."""
        definition = self.definition(node.id)
        mapped = self.is_mapped(node.id)
        match node.state:
            case NodeState.PENDING:
                return node.id not in self.undecided, False
            case NodeState.READY if mapped or self.stopped(node.id):
                return True, False
            case NodeState.READY if node.attempt == 0:
                return False, True
            case NodeState.READY:
                timer = node.backoff_timer
                if timer in self.timers_set:
                    return False, timer in self.fired
                waits = backoff_ms(definition.retry, self.lineage, node.id, node.attempt) > 0
                return waits, not waits
            case NodeState.RUNNING if not mapped:
                unset = definition.timeout_ms is not None and node.timeout_timer not in self.timers_set
                return node.expired or unset, False
            case _:
                return False, False


def backoff_ms(retry: Retry, run: str, node: str, attempt: int) -> int:
    """Milliseconds between the failure of ``attempt`` and the next attempt.

    Grows by ``multiplier`` up to ``max_ms``; up to ``jitter`` of it is added, drawn not from a dice but from
    the BLAKE3 of run, node and attempt, so that a replay waits for the same timer. ``run``: the lineage, so
    that a fork does too.
    """
    wait = float(retry.initial_ms)
    for _ in range(attempt - 1):
        wait = min(wait * retry.multiplier, float(retry.max_ms))
    base = min(int(wait), retry.max_ms)
    drawn = int(digest(["backoff", run, node, attempt])[:8], 16)
    return base + (base * round(retry.jitter * 1000) * drawn) // (1000 << 32)


def mapped_list(known: Known, name: str) -> Any:
    """What a mapped node maps over, list or not: the last value on its port, or what ``with`` says of it."""
    node = known.definition(name)
    assert node.for_each is not None
    port = node.for_each.port
    arrived = known.inputs(name).ports.get(port)
    return arrived[-1] if arrived else fill(node.with_.get(port), known.params)


def _with(number: int, place: int, bit: bool) -> int:
    return number | 1 << place if bit else number & ~(1 << place)
