"""What is known of a run after some of its events: frozen, and moved only along one table.

Knows: node states and their legal moves, attempts, timers, items of mapped nodes, what a port holds, whether
a node's inputs are decided. Does not know: how an event changes it (``moves``), what to do about it
(``engine``), time, or the outside.

An opening may have ten thousand nodes, and every event makes a new state. So the tables are persistent maps
that share what did not change, and what asks for attention is a number with one bit per node: a new
state costs what the event touches, not what the run has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from immutables import Map

from openings.definition import Edge, ForEach, Node, Opening
from openings.errors import EngineError
from openings.expressions import ABSENT, Judgement, Ref, Truth, evaluate, walk
from runloop.events import GuestError

__all__ = [
    "EXECUTING",
    "LEGAL_MOVES",
    "RUN_TIMER",
    "TERMINAL",
    "Inputs",
    "Items",
    "Known",
    "NodeRun",
    "NodeState",
    "RunState",
    "base",
    "bits",
    "item_id",
    "item_of",
]


RUN_TIMER = "run:timeout"
"""Name of the timer that ends the run."""


def item_id(node: str, index: int) -> str:
    """What an item of a mapped node is called: ``n[3]``."""
    return f"{node}[{index}]"


def item_of(name: str) -> tuple[str, int | None]:
    """Node and index of an item; a name that is no item's has no index."""
    node, bracket, rest = name.partition("[")
    return (node, int(rest[:-1])) if bracket and rest[:-1].isdigit() and rest[-1] == "]" else (name, None)


def base(name: str) -> str:
    """The declared node behind the name of a node or of an item: ``n`` for ``n`` and for ``n[3]``."""
    return item_of(name)[0]


def bits(number: int) -> Iterator[int]:
    """Places of the bits that are set, lowest first."""
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


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

EXECUTING = frozenset({NodeState.RUNNING, NodeState.WAITING})
"""States in which an attempt is under way."""


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
    def live_timer(self) -> str | None:
        """Name of the one timer that this node may be waiting for now."""
        if self.state is NodeState.RUNNING:
            return self.timeout_timer
        return self.backoff_timer if self.state is NodeState.READY else None

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
class Items:
    """The items of a mapped node, from ``node.expanded`` on. Sets of indexes are numbers, one bit each."""

    plan: ForEach
    values: Sequence[Any]
    """The list."""
    ports: Mapping[str, tuple[Any, ...]]
    """Input ports of the node; an item has its own value on the mapped one."""
    admitted: int = 0
    """Items that may be tried: the first so many."""
    open: int = 0
    """Admitted, and not at an end."""
    chores: int = 0
    """Those of them with a command due that starts nothing."""
    startable: int = 0
    """Those of them that may start an attempt."""
    failed: int = 0
    """How many failed."""

    @property
    def closed(self) -> bool:
        """Whether more failed than may: no new item starts."""
        return self.failed > self.plan.max_failed

    @property
    def over(self) -> bool:
        """Whether every item that will be tried has come to its end."""
        return not self.open and (self.closed or self.admitted == len(self.values))

    def input(self, index: int) -> dict[str, tuple[Any, ...]]:
        """Values per input port of one item."""
        return {**self.ports, self.plan.port: (self.values[index],)}


class Known:
    """What can be asked of a run, whether its state is settled or in the making."""

    __slots__ = ()

    run: str
    lineage: str
    opening: Opening | None
    params: Mapping[str, Any]
    nodes: Map[str, NodeRun]
    items: Map[str, Items]
    undecided: Map[str, int]
    open: int
    chores: int
    startable: int
    executing: Map[str, int]
    running: int
    timers_set: Map[str, int]
    fired: Map[str, None]
    timers: Map[str, int]
    cancel: str | None
    timed_out: bool
    timeout_ms: int | None
    outcome: Literal["succeeded", "failed", "cancelled"] | None
    touched: tuple[str, ...]

    @property
    def ending(self) -> bool:
        """Whether the run is to end before its nodes are done."""
        return self.cancel is not None or self.timed_out

    def definition(self, name: str) -> Node:
        """What the opening says of a node, or of the node behind an item."""
        found = None if self.opening is None else self.opening.node(base(name))
        assert found is not None, name
        return found

    def is_mapped(self, name: str) -> bool:
        """Whether a node maps over a list; its items do not."""
        return self.definition(name).for_each is not None and item_of(name)[1] is None

    def stopped(self, name: str) -> bool:
        """Whether it is an item of a mapped node that starts nothing more."""
        node, index = item_of(name)
        return index is not None and self.items[node].closed

    def values(self, ref: Ref) -> tuple[Any, ...]:
        """What an output holds; empty for a port without value and for a node that did not succeed.

        ``node.port`` is the port. Where the node gave no port of that name, it is the field of that name in
        the port called like the node itself: ``review.ok`` reads ``ok`` in the port ``review`` of ``review``.
        The one value of a mapped node's port is the list of its items' last values.
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
        if self.undecided.get(node, 0):
            return Inputs(verdict="undecided")
        edges = self.opening.inbound(node)
        # A guard that is not true closes its node, and one that cannot be judged is not true.
        for edge in edges:
            if edge.op is not None and not (judged := self._judge(edge)):
                return Inputs(verdict="skip", reason=f"{edge.guard} does not hold: {judged.reason}")
        ports: dict[str, list[Any]] = {}
        for edge in edges:
            if values := self.values(edge.source):
                ports.setdefault(edge.port, []).extend(values)
        found = self.opening.node(node)
        assert found is not None
        required = dict.fromkeys(edge.port for edge in edges) if found.requires is None else found.requires
        missing = [port for port in required if port not in ports]
        if missing:
            return Inputs(verdict="skip", reason=self._missing(edges, missing))
        if edges and not ports:
            return Inputs(verdict="skip", reason="none of its inputs arrived")
        return Inputs(verdict="go", ports={port: tuple(values) for port, values in ports.items()})

    def input_of(self, name: str) -> dict[str, tuple[Any, ...]]:
        """Values per input port of a node or an item that may start."""
        node, index = item_of(name)
        return dict(self.inputs(node).ports) if index is None else self.items[node].input(index)

    def gathered(self, node: str) -> dict[str, list[Any]]:
        """What a mapped node gives: by port, the last value of each item that succeeded, in their order.

        A port is there if an item gave it, or if an edge, a condition or an artifact asks for it.
        """
        items = self.items[node]
        ended = [self.nodes[item_id(node, index)] for index in range(items.admitted)]
        given = [run for run in ended if run.state is NodeState.SUCCEEDED]
        asked = () if self.opening is None else self.opening.asked_of(node)
        ports: dict[str, list[Any]] = {}
        for port in dict.fromkeys((*(port for run in given for port in run.ports), *asked)):
            values = (_of_item(run, node, port) for run in given)
            ports[port] = [value for value in values if value is not ABSENT]
        return ports

    def _judge(self, edge: Edge) -> Judgement:
        guard = edge.guard
        assert guard is not None
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


def _of_item(run: NodeRun, node: str, port: str) -> Any:
    """The last value an item gave on a port; the rule of :meth:`Known.values` for a field in its place."""
    if port in run.ports:
        return run.ports[port][-1] if run.ports[port] else ABSENT
    whole = run.ports.get(node, ())
    return walk(whole[-1], (port,)) if whole else ABSENT


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState(Known):
    """A fold of the run's events. Equal events, equal state."""

    run: str = ""
    lineage: str = ""
    """The run at the beginning of its forks: itself, where it is no fork. Guests see this one, and what looks
    like chance is drawn from it."""
    opening: Opening | None = None
    """None before ``run.started``."""
    params: Mapping[str, Any] = field(default_factory=dict)
    nodes: Map[str, NodeRun] = field(default_factory=Map)
    """In no order; the items of mapped nodes are among them, once they may be tried."""
    items: Map[str, Items] = field(default_factory=Map)
    """Mapped node -> its items, once it was expanded."""
    undecided: Map[str, int] = field(default_factory=Map)
    """Node -> edges into it whose source has not come to an end; not there for none."""
    open: int = 0
    """Declared nodes that are not at an end: one bit each, by place."""
    chores: int = 0
    """Declared nodes with a command due that starts nothing, for themselves or an item."""
    startable: int = 0
    """Declared nodes that may start an attempt, for themselves or an item."""
    executing: Map[str, int] = field(default_factory=Map)
    """Node or item -> its attempt that must be under way."""
    running: int = 0
    """How many of those wait for nobody."""
    timers_set: Map[str, int] = field(default_factory=Map)
    """Name -> due, unix milliseconds, of every timer ever set."""
    fired: Map[str, None] = field(default_factory=Map)
    """Timers that have fired."""
    timers: Map[str, int] = field(default_factory=Map)
    """Those worth waking for."""
    cancel: str | None = None
    """Why the run is to end early."""
    timed_out: bool = False
    """The run's own time is up."""
    timeout_ms: int | None = None
    outcome: Literal["succeeded", "failed", "cancelled"] | None = None
    touched: tuple[str, ...] = field(default=(), compare=False)
    """Nodes and items that the last event changed."""

    # --- for the runner ---------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether ``run.finished`` is in the record."""
        return self.outcome is not None

    @property
    def active(self) -> tuple[tuple[str, int], ...]:
        """``(node, attempt)`` of every attempt that must be executing now, those that wait included; in the
        order of the declaration."""
        return tuple(sorted(self.executing.items(), key=lambda pair: self.place(pair[0])))

    @property
    def waiting(self) -> frozenset[str]:
        """Nodes and items that wait for a person."""
        return frozenset(name for name in self.executing if self.nodes[name].state is NodeState.WAITING)

    @property
    def timers_fired(self) -> frozenset[str]:
        """Names of the timers that have fired."""
        return frozenset(self.fired)

    def place(self, name: str) -> tuple[int, int]:
        """Where a node or an item stands: by declaration, then by index."""
        node, index = item_of(name)
        assert self.opening is not None
        return self.opening.positions[node], -1 if index is None else index

    def upstream(self, node: str) -> tuple[str, ...]:
        """Nodes with an edge into ``node``, in the order of the edges."""
        edges = () if self.opening is None else self.opening.inbound(base(node))
        return tuple(dict.fromkeys(edge.source.node for edge in edges))

    def saved(self) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
        """``(node, port, values)`` for every port the opening saves and that holds something."""
        for ref in () if self.opening is None else self.opening.save:
            values = self.values(ref)
            if values:
                yield ref.node, ref.path[0], values

    def live_timers(self) -> dict[str, int]:
        """Timers worth waking for: name -> due, unix milliseconds. All others may be forgotten."""
        return {} if self.finished else dict(sorted(self.timers.items()))

    def timer_of(self, name: str) -> tuple[str, int] | None:
        """The one timer that a node or an item waits for now, and when it is due."""
        node = self.nodes.get(name)
        timer = None if node is None or self.finished else node.live_timer
        due = None if timer is None else self.timers.get(timer)
        return None if timer is None or due is None else (timer, due)


_ENDED = {
    NodeState.FAILED: "failed",
    NodeState.SKIPPED: "was skipped",
    NodeState.CANCELLED: "was cancelled",
}
