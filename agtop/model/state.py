"""One run at one moment, as its facts tell it: what every pane draws.

Frozen values; a later state shares with an earlier one all that did not change. Times are unix milliseconds
of the facts, never of a clock. Texts are as the facts have them: foreign, escaped where they are shown. Does
not know how a fact changes a state (``model.reduce``).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from immutables import Map

from agtop.model.trail import Trail

__all__ = [
    "OVER",
    "ApprovalState",
    "ArtifactRow",
    "AttemptState",
    "Edge",
    "Graph",
    "GraphNode",
    "NodeState",
    "NodeWord",
    "QuestionState",
    "RunState",
    "Spend",
]

NodeWord = Literal[
    "pending",
    "running",
    "waiting",
    "succeeded",
    "failed",
    "timed_out",
    "skipped",
    "cancelled",
]
"""``waiting``: a person is asked, and the node goes no further before they answer."""

OVER: frozenset[str] = frozenset({"succeeded", "failed", "timed_out", "skipped", "cancelled"})
"""States of a node that nothing of the same attempt changes."""


class _Value(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base of the values below."""


class Spend(_Value, frozen=True, kw_only=True, gc=False):
    """What models cost: money in millionths of a US dollar, tokens."""

    micro_usd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0
    """Answers of models; the offline rules provider counts too."""
    cached: int = 0
    """Of them answered from the cache or a cassette."""
    saved_micro_usd: int = 0

    def plus(self, other: Spend) -> Spend:
        return Spend(
            micro_usd=self.micro_usd + other.micro_usd,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            calls=self.calls + other.calls,
            cached=self.cached + other.cached,
            saved_micro_usd=self.saved_micro_usd + other.saved_micro_usd,
        )


class Edge(_Value, frozen=True, kw_only=True, gc=False):
    """One arrow of the opening."""

    source: str
    target: str
    guarded: bool = False
    """It carries no value: it only lets through when its comparison holds."""


class GraphNode(_Value, frozen=True, kw_only=True, gc=False):
    """One vertex of the opening, as it was declared."""

    id: str
    use: str
    """``agent:<reference>`` or ``opening:<name>``."""
    mapped: bool = False
    max_attempts: int = 1
    budget_tokens: int | None = None
    timeout_ms: int | None = None

    @property
    def nests(self) -> bool:
        return self.use.startswith("opening:")


class Graph(_Value, frozen=True, kw_only=True, gc=False):
    """The opening of the run. Made once, at its start."""

    nodes: tuple[GraphNode, ...] = ()
    """Every node after those that lead into it."""
    edges: tuple[Edge, ...] = ()


class AttemptState(_Value, frozen=True, kw_only=True, gc=False):
    """One try of a node."""

    attempt: int
    status: Literal["running", "succeeded", "failed", "timed_out", "cancelled"] = "running"
    event: int
    """Ledger id of the fact that it was scheduled."""
    began_ms: int
    ended_ms: int | None = None
    calls: int = 0
    fuel: int = 0
    error: str = ""
    """``code: message``; foreign text."""


class NodeState(_Value, frozen=True, kw_only=True, gc=False):
    """One node, or one item of a mapped one (``<node>[<index>]``)."""

    id: str
    word: NodeWord = "pending"
    agent: str = ""
    """Name of the agent that serves it; empty for a nested opening."""
    use: str = ""
    attempts: tuple[AttemptState, ...] = ()
    since_ms: int | None = None
    """When the state it is in began."""
    spend: Spend = Spend()
    asks: int = 0
    """Open approvals and questions to a person."""
    items: int | None = None
    """Of a mapped node, once they are known."""
    done: int = 0
    """Of its items, those that ended."""
    failed: int = 0
    """Of its items, those that failed."""
    reason: str = ""
    """Why it was skipped or cancelled, or how it failed; foreign text."""


class ApprovalState(_Value, frozen=True, kw_only=True, gc=False):
    """An effect that waited, or waits, for a person."""

    approval: str
    run: str
    """The run whose node asks: this one, or one inside it."""
    node: str
    summary: str
    action: dict[str, Any]
    action_digest: str
    content_blob: str
    content_type: str
    event: int
    asked_ms: int
    expires_ms: int
    state: Literal["open", "approved", "denied", "expired", "undone", "voided", "claimed", "done"] = "open"
    principal: str = ""
    note: str = ""
    dispatch_after_ms: int = 0


class QuestionState(_Value, frozen=True, kw_only=True, gc=False):
    """Something an agent asked a person, or left for another agent to say."""

    promise: str
    run: str
    node: str
    agent: str
    question: str
    choices: tuple[str, ...]
    resolver: Literal["run", "operator"]
    event: int
    asked_ms: int
    expires_ms: int
    state: Literal["open", "resolved", "timed_out"] = "open"
    value: Any = None
    principal: str = ""


class ArtifactRow(_Value, frozen=True, kw_only=True, gc=False):
    """A file the run produced."""

    event: int
    at_ms: int
    name: str
    node: str
    port: str | None
    media_type: str
    blob: str
    size: int


class RunState(_Value, frozen=True, kw_only=True, gc=False):
    """Everything the panes show of one run, after its first ``index`` facts."""

    run: str
    index: int = 0
    """Facts folded."""
    last_id: int = 0
    """Ledger id of the newest of them."""
    at_ms: int = 0
    """When it was stated."""
    unknown: int = 0
    """Facts of kinds this build does not know."""
    opening: str = ""
    prompt: str | None = None
    principal: str = ""
    params: dict[str, Any] = {}
    graph: Graph = Graph()
    started_ms: int | None = None
    finished_ms: int | None = None
    outcome: Literal["succeeded", "failed", "cancelled"] | None = None
    clause: str | None = None
    error: str = ""
    cancelling: bool = False
    resumed: int = 0
    """Times a daemon took it up again."""
    fork_of: str | None = None
    parent_run: str | None = None
    parent_node: str | None = None
    budget_micro_usd: int | None = None
    budget_tokens: int | None = None
    nodes: Map[str, NodeState] = Map()
    approvals: Map[str, ApprovalState] = Map()
    questions: Map[str, QuestionState] = Map()
    artifacts: Trail[ArtifactRow] = msgspec.field(default_factory=Trail)
    spend: Spend = Spend()
    """Of this run and of the runs inside it."""
    asks: int = 0
    """Open approvals and questions to a person, here and in the runs inside."""
    inside: Map[str, str] = Map()
    """Runs that serve nodes of this one, at any depth -> how each ended; empty while it goes on."""

    @property
    def word(self) -> str:
        """How the run stands, in one word."""
        if self.outcome is not None:
            return self.outcome
        if self.started_ms is None:
            return "unknown"
        return "cancelling" if self.cancelling else "waiting" if self.asks else "running"

    @property
    def took_ms(self) -> int:
        """From its start to its end, or to the newest fact."""
        if self.started_ms is None:
            return 0
        return (self.finished_ms if self.finished_ms is not None else self.at_ms) - self.started_ms
