"""The graph of a run as rows: lanes, nodes, and the items of mapped nodes that somebody unfolded.

Knows: which row is which node, and what can be said of a node beside its name. Does not know: colours, or
what a row looks like on the screen. Pure; the layout is made once for a graph and only changes when items
come or are unfolded, however many states pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from agtop.model.document import Row
from agtop.model.state import AttemptState, Graph, GraphNode, NodeState, RunState
from runloop.escape import fold, visible
from runloop.lanes import draw, leads
from runloop.quantities import ago, dollars, moment, size

__all__ = ["MARK", "Layout", "Place", "bars", "details", "note", "sentence", "took"]

MARK = "●"
"""Stands in the lanes where a node is; whoever draws puts the sign of its state there."""
DEEPEST = 8
"""Steps a graph that is too wide for lanes is indented by, at most."""


class Place(NamedTuple):
    """One row of the layout."""

    lanes: str
    node: str | None
    """None where lanes only turn."""
    item: bool = False


class Layout:
    """The rows of a graph."""

    def __init__(self, graph: Graph, items: dict[str, int], *, plain: bool = False) -> None:
        """``items``: mapped nodes that are unfolded, and how many items each has. ``plain``: without the rows
        where lanes only turn."""
        self.graph = graph
        self.items = items
        self.plain = plain
        self.rows = [row for row in self._rows() if row.node is not None or not plain]
        self.wide = max((len(row.lanes) for row in self.rows), default=0)
        self.named = max((len(visible(row.node)) for row in self.rows if row.node), default=0)
        self._at = {row.node: number for number, row in enumerate(self.rows) if row.node is not None}

    def find(self, node: str) -> int | None:
        """The row of a node."""
        return self._at.get(node)

    def next(self, row: int, by: int) -> int:
        """The row so many nodes further, or back: rows where lanes turn are passed over."""
        step = 1 if by > 0 else -1
        at = row
        for _ in range(abs(by)):
            ahead = at + step
            while 0 <= ahead < len(self.rows) and self.rows[ahead].node is None:
                ahead += step
            if not 0 <= ahead < len(self.rows):
                break
            at = ahead
        return at

    def _rows(self) -> Iterator[Place]:
        order = [node.id for node in self.graph.nodes]
        pairs = [(edge.source, edge.target) for edge in self.graph.edges]
        drawn = draw(order, leads(order, pairs), lambda _: MARK)
        if drawn is None:
            yield from self._indented(order, pairs)
            return
        for row in drawn:
            yield Place(row.lanes, row.node)
            if row.node is not None:
                yield from self._unfolded(row.node, row.below)

    def _indented(self, order: list[str], pairs: list[tuple[str, str]]) -> Iterator[Place]:
        """Too many lanes for anybody to follow: each node by how many stand before it."""
        depth = dict.fromkeys(order, 0)
        for source, ends in leads(order, pairs).items():
            for end in ends:
                depth[end] = max(depth[end], depth[source] + 1)
        for node in order:
            yield Place(" " * min(depth[node], DEEPEST) + MARK, node)
            yield from self._unfolded(node, " " * min(depth[node], DEEPEST))

    def _unfolded(self, node: str, below: str) -> Iterator[Place]:
        for index in range(self.items.get(node, 0)):
            yield Place(f"{below}  {MARK}" if below else f"  {MARK}", f"{node}[{index}]", item=True)


def note(state: RunState, declared: GraphNode | None, node: NodeState) -> str:
    """What matters most of a node, in a few words; foreign text."""
    if node.word == "waiting":
        asked = [a.summary for a in state.approvals.values() if a.state == "open" and a.node == node.id]
        asked += [q.question for q in state.questions.values() if q.state == "open" and q.node == node.id]
        return "asks: " + " ".join((asked or ["a person"])[0].split())
    words = []
    if node.items is not None:
        words.append(f"{node.done} of {node.items} items")
        if node.failed:
            words.append(f"{node.failed} failed")
    if len(node.attempts) > 1:
        most = f" of {declared.max_attempts}" if declared and declared.max_attempts > 1 else ""
        words.append(f"attempt {node.attempts[-1].attempt}{most}")
    if node.reason:
        words.append(" ".join(node.reason.split()))
    elif not words:
        words.append(node.agent or node.use)
    return ", ".join(words)


def took(state: RunState, node: NodeState, now_ms: int) -> int | None:
    """How long its newest attempt took, or has taken; None where there was none."""
    if not node.attempts:
        return None
    last = node.attempts[-1]
    end = last.ended_ms if last.ended_ms is not None else (now_ms or state.at_ms)
    return max(0, end - last.began_ms)


def bars(state: RunState, node: NodeState, now_ms: int, width: int) -> list[tuple[int, int, str]]:
    """When the node was tried, within the run's time: first and last column of each attempt, and how it
    went."""
    if state.started_ms is None or width < 1:
        return []
    end = state.finished_ms if state.finished_ms is not None else max(now_ms, state.at_ms)
    whole = max(1, end - state.started_ms)

    def column(ms: int) -> int:
        return max(0, min(width - 1, (ms - (state.started_ms or 0)) * width // whole))

    return [
        (column(each.began_ms), column(end if each.ended_ms is None else each.ended_ms), each.status)
        for each in node.attempts
    ]


def sentence(state: RunState, declared: GraphNode | None, node: NodeState, word: str, now_ms: int) -> str:
    """A node as one sentence, for who hears the screen; foreign text."""
    lasted = took(state, node, now_ms)
    after = sorted({edge.source for edge in state.graph.edges if edge.target == node.id})
    parts = [f"{node.id}: {word}", note(state, declared, node)]
    parts += [] if lasted is None else [f"took {ago(lasted)}"]
    parts += [f"cost {dollars(node.spend.micro_usd)}"] if node.spend.calls else []
    parts += [f"after {', '.join(after)}"] if after else []
    return ", ".join(parts)


def details(state: RunState, name: str, width: int) -> list[Row]:
    """All that is known of a node; every row safe, foreign text behind a name of ours."""
    node = state.nodes.get(name)
    if node is None:
        return [Row("this node is none of the run", "note")]
    rows = [Row(visible(name), "head")]
    for title, value in (*_standing(state, node), *_limits(state, node), *_spent(node)):
        rows += _field(title, value, width)
    for attempt in node.attempts:
        rows += [Row(""), Row(f"attempt {attempt.attempt}", "head")]
        for title, value in _tried(attempt):
            rows += _field(title, value, width)
    for title, value in _left(state, name):
        rows += _field(title, value, width) if title else [Row(""), Row(value, "head")]
    return rows


Field = tuple[str, str]
"""A name of ours, and what is foreign behind it."""


def _field(title: str, value: str, width: int) -> list[Row]:
    kind = "note" if title in ("because", "failed") else "field"
    return [Row(line, kind) for line in fold(f"{title:<10} ", value, width)]


def _standing(state: RunState, node: NodeState) -> Iterator[Field]:
    yield "state", node.word.replace("_", " ")
    yield "use", node.use or "?"
    if node.agent:
        yield "agent", node.agent
    if node.reason:
        yield "because", node.reason
    if before := sorted({edge.source for edge in state.graph.edges if edge.target == node.id}):
        yield "after", ", ".join(before)
    if behind := sorted({edge.target for edge in state.graph.edges if edge.source == node.id}):
        yield "leads to", ", ".join(behind)
    if node.items is not None:
        yield "items", f"{node.items}, {node.done} ended, {node.failed} failed"


def _limits(state: RunState, node: NodeState) -> Iterator[Field]:
    declared = next((each for each in state.graph.nodes if each.id == node.id.partition("[")[0]), None)
    if declared is None:
        return
    limits = [f"{declared.max_attempts} attempts"] if declared.max_attempts > 1 else []
    limits += [f"at most {ago(declared.timeout_ms)}"] if declared.timeout_ms else []
    limits += [f"{declared.budget_tokens} tokens"] if declared.budget_tokens else []
    if limits:
        yield "limits", ", ".join(limits)


def _spent(node: NodeState) -> Iterator[Field]:
    if node.spend.calls:
        yield "models", f"{node.spend.calls} answers, {node.spend.cached} from the cache"
        yield "tokens", f"{node.spend.input_tokens} in, {node.spend.output_tokens} out"
        yield "cost", dollars(node.spend.micro_usd)


def _tried(attempt: AttemptState) -> Iterator[Field]:
    yield "state", attempt.status.replace("_", " ")
    yield "began", f"{moment(attempt.began_ms)}, event {attempt.event}"
    if attempt.ended_ms is not None:
        yield "took", ago(attempt.ended_ms - attempt.began_ms)
    if attempt.calls or attempt.fuel:
        yield "did", f"{attempt.calls} host calls, {attempt.fuel} fuel"
    if attempt.error:
        yield "failed", attempt.error


def _left(state: RunState, name: str) -> Iterator[Field]:
    """What it asked people and made; without a title: a head of ours."""
    for asked in state.approvals.values():
        if asked.node == name and asked.run == state.run:
            yield "", "asked a person"
            yield "what", asked.summary
            yield "state", asked.state
            yield "approval", asked.approval
    for artifact in state.artifacts:
        if artifact.node == name:
            yield "made", f"{artifact.name} ({artifact.media_type}, {size(artifact.size)})"
