"""What is known of a run after some of its events: frozen, and moved only along one table.

Knows: node states and their legal moves, attempts, timers, what a port holds, whether a node's inputs are
decided. Does not know: what to do about it (``engine``), time, or the outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from openings.definition import Edge, Opening
from openings.errors import EngineError
from openings.expressions import ABSENT, Judgement, Ref, Truth, evaluate, walk
from runloop.events import GuestError

__all__ = [
    "LEGAL_MOVES",
    "RUN_TIMER",
    "TERMINAL",
    "Inputs",
    "NodeRun",
    "NodeState",
    "RunState",
]


RUN_TIMER = "run:timeout"
"""Name of the timer that ends the run."""


class NodeState(StrEnum):
    """Where a node stands."""

    PENDING = "pending"
    """Its inputs are not decided."""
    READY = "ready"
    """It may start: now, or after the wait before its next attempt."""
    RUNNING = "running"
    WAITING = "waiting"
    """An attempt runs and waits for a person."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


LEGAL_MOVES: Mapping[NodeState, frozenset[NodeState]] = {
    NodeState.PENDING: frozenset({NodeState.READY, NodeState.SKIPPED, NodeState.CANCELLED}),
    NodeState.READY: frozenset({NodeState.RUNNING, NodeState.CANCELLED}),
    NodeState.RUNNING: frozenset(
        {NodeState.WAITING, NodeState.READY, NodeState.SUCCEEDED, NodeState.FAILED, NodeState.CANCELLED}
    ),
    NodeState.WAITING: frozenset(
        {NodeState.RUNNING, NodeState.READY, NodeState.SUCCEEDED, NodeState.FAILED, NodeState.CANCELLED}
    ),
    NodeState.SUCCEEDED: frozenset(),
    NodeState.FAILED: frozenset(),
    NodeState.SKIPPED: frozenset(),
    NodeState.CANCELLED: frozenset(),
}
"""Every move there is. ``RUNNING -> READY`` is a retry."""

TERMINAL = frozenset(state for state, moves in LEGAL_MOVES.items() if not moves)
"""States a node never leaves."""

_EXECUTING = frozenset({NodeState.RUNNING, NodeState.WAITING})


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeRun:
    """One node of one run."""

    id: str
    state: NodeState = NodeState.PENDING
    attempt: int = 0
    """The attempt that runs or ran last; 0 before the first."""
    stretch: int = 1
    """How often this attempt's clock was started: again after each wait for a person and each crash."""
    expired: bool = False
    """The attempt's time is up and it has not been recorded as ended."""
    denied: bool = False
    """A person (or the expiry of a question) said no to this attempt."""
    asked: frozenset[str] = frozenset()
    """Every question of this attempt to a person."""
    approvals: frozenset[str] = frozenset()
    """Those of them that are open."""
    grace_ms: int = 0
    """Added to the time of this stretch: an undo window is nobody's slowness."""
    ports: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """What it gave, once succeeded."""
    error: GuestError | None = None
    """Why the last attempt failed."""
    reason: str = ""
    """Why it was skipped or cancelled."""

    def moved(self, to: NodeState, **changes: Any) -> NodeRun:
        """A copy in another state. Raises :class:`EngineError` for a move that is not in the table."""
        if to not in LEGAL_MOVES[self.state]:
            raise EngineError(
                f"node {self.id} cannot go from {self.state} to {to}",
                hint="the record of this run was not written by this engine; try 'rlp verify'",
                node=self.id,
                before=str(self.state),
                after=str(to),
            )
        return replace(self, state=to, **changes)

    @property
    def timeout_timer(self) -> str:
        """Name of the timer that ends the present stretch of the present attempt."""
        suffix = "" if self.stretch == 1 else f":{self.stretch}"
        return f"node:{self.id}:{self.attempt}:timeout{suffix}"

    @property
    def backoff_timer(self) -> str:
        """Name of the timer before the next attempt."""
        return f"node:{self.id}:{self.attempt + 1}:backoff"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What the edges into a node amount to so far."""

    verdict: Literal["undecided", "go", "skip"]
    reason: str = ""
    ports: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Values per input port, in the order of the edges."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """A fold of the run's events. Equal events, equal state."""

    run: str = ""
    opening: Opening | None = None
    """None before ``run.started``."""
    params: Mapping[str, Any] = field(default_factory=dict)
    nodes: Mapping[str, NodeRun] = field(default_factory=dict)
    timers_set: Mapping[str, int] = field(default_factory=dict)
    """Name -> due, unix milliseconds, of every timer ever set."""
    timers_fired: frozenset[str] = frozenset()
    cancel: str | None = None
    """Why the run is to end early."""
    timed_out: bool = False
    """The run's own time is up."""
    timeout_ms: int | None = None
    outcome: Literal["succeeded", "failed", "cancelled"] | None = None

    # --- for the runner ---------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether ``run.finished`` is in the record."""
        return self.outcome is not None

    @property
    def active(self) -> tuple[tuple[str, int], ...]:
        """``(node, attempt)`` of every attempt that must be executing now, those that wait included."""
        return tuple((node.id, node.attempt) for node in self.nodes.values() if node.state in _EXECUTING)

    @property
    def waiting(self) -> frozenset[str]:
        """Nodes that wait for a person."""
        return frozenset(node.id for node in self.nodes.values() if node.state is NodeState.WAITING)

    def upstream(self, node: str) -> tuple[str, ...]:
        """Nodes with an edge into ``node``, in the order of the edges."""
        edges = () if self.opening is None else self.opening.inbound(node)
        return tuple(dict.fromkeys(edge.source.node for edge in edges))

    def saved(self) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
        """``(node, port, values)`` for every port the opening saves and that holds something."""
        for ref in () if self.opening is None else self.opening.save:
            values = self.values(ref)
            if values:
                yield ref.node, ref.path[0], values

    def live_timers(self) -> dict[str, int]:
        """Timers worth waking for: name -> due, unix milliseconds. All others may be forgotten."""
        if self.finished:
            return {}
        wanted = {RUN_TIMER}
        for node in self.nodes.values():
            if node.state is NodeState.RUNNING:
                wanted.add(node.timeout_timer)
            elif node.state is NodeState.READY:
                wanted.add(node.backoff_timer)
        return {
            name: due
            for name, due in self.timers_set.items()
            if name in wanted and name not in self.timers_fired
        }

    # --- for the engine ---------------------------------------------------------------------------

    @property
    def ending(self) -> bool:
        """Whether the run is to end before its nodes are done."""
        return self.cancel is not None or self.timed_out

    def values(self, ref: Ref) -> tuple[Any, ...]:
        """What an output holds; empty for a port without value and for a node that did not succeed.

        ``node.port`` is the port. Where the node gave no port of that name, it is the field of that name in
        the port called like the node itself: ``review.ok`` reads ``ok`` in the port ``review`` of ``review``.
        """
        node = self.nodes.get(ref.node)
        if node is None or node.state is not NodeState.SUCCEEDED:
            return ()
        port, *fields = ref.path
        if port not in node.ports and ref.node in node.ports:
            port, fields = ref.node, list(ref.path)
        values = node.ports.get(port, ())
        if not fields:
            return values
        found = walk(values[-1], tuple(fields)) if values else ABSENT
        return () if found is ABSENT else (found,)

    def lookup(self, ref: Ref) -> Any:
        """The last value of an output, for conditions; :data:`ABSENT` where there is none."""
        values = self.values(ref)
        return values[-1] if values else ABSENT

    def inputs(self, node: str) -> Inputs:
        """Judge the edges into a node: undecided while one may still deliver or close, else go or skip."""
        assert self.opening is not None
        edges = self.opening.inbound(node)
        undecided = [edge for edge in edges if self.nodes[edge.source.node].state not in TERMINAL]
        if undecided:
            return Inputs(verdict="undecided")
        # A guard that is not true closes its node, and one that cannot be judged is not true.
        for edge in edges:
            judged = self._judge(edge)
            if not judged:
                return Inputs(verdict="skip", reason=f"{edge.guard} does not hold: {judged.reason}")
        ports: dict[str, tuple[Any, ...]] = {}
        for edge in edges:
            if values := self.values(edge.source):
                ports[edge.port] = (*ports.get(edge.port, ()), *values)
        found = self.opening.node(node)
        assert found is not None
        required = dict.fromkeys(edge.port for edge in edges) if found.requires is None else found.requires
        missing = [port for port in required if port not in ports]
        if missing:
            return Inputs(verdict="skip", reason=self._missing(edges, missing))
        if edges and not ports:
            return Inputs(verdict="skip", reason="none of its inputs arrived")
        return Inputs(verdict="go", ports=ports)

    def _judge(self, edge: Edge) -> Judgement:
        guard = edge.guard
        if guard is None:
            return Judgement(Truth.TRUE)
        source = self.nodes[edge.source.node]
        if source.state is not NodeState.SUCCEEDED:
            return Judgement(Truth.UNKNOWN, f"{source.id} {_ENDED[source.state]}")
        return evaluate(guard, self.lookup)

    def _missing(self, edges: tuple[Edge, ...], missing: list[str]) -> str:
        whys = []
        for port in missing:
            sources = [self.nodes[edge.source.node] for edge in edges if edge.port == port]
            why = ", ".join(f"{source.id} {_ENDED.get(source.state, 'gave no value')}" for source in sources)
            whys.append(f"its input {port} never arrived ({why or 'nothing leads there'})")
        return "; ".join(whys)


_ENDED = {
    NodeState.FAILED: "failed",
    NodeState.SKIPPED: "was skipped",
    NodeState.CANCELLED: "was cancelled",
}
