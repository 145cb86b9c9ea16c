"""The nodes of a run as rows that are painted over while it goes on: state, time, attempts, spend, who waits.

Knows: what a run's events add up to for each node, and which rows matter most where there is not room for
all. Does not know: terminals (``live``), the daemon, time (the present moment is handed in).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from runloop.escape import columns_of, pieces, visible
from runloop.quantities import ago, dollars

__all__ = ["Board", "Row", "one_row"]

_LONGEST_NAME = 24
"""Columns of a node's name before it is cut."""


class Row(NamedTuple):
    """One row: safe text and the name of a colour."""

    text: str
    color: str | None = None


class _Node:
    """How one node stands."""

    __slots__ = ("agent", "attempt", "items", "items_over", "micro_usd", "since", "state", "took")

    def __init__(self, agent: str = "") -> None:
        self.agent = agent
        self.state = "to come"
        self.since = 0
        """When its present attempt began, unix milliseconds."""
        self.took = 0
        self.attempt = 0
        self.items = 0
        """Of a mapped node: how many it is mapped over."""
        self.items_over = 0
        self.micro_usd = 0


_MARKS = {
    "to come": ("·", "."),
    "working": ("▸", ">"),
    "again": ("↻", "~"),
    "waits for you": ("?", "?"),
    "done": ("✓", "+"),
    "failed": ("✗", "x"),
    "timed out": ("✗", "x"),
    "skipped": ("-", "-"),
    "cancelled": ("-", "-"),
}
"""State -> its mark, and the one for a terminal without such letters."""
_COLORS = {
    "working": "cyan", "again": "yellow", "waits for you": "yellow", "done": "green", "failed": "red",
    "timed out": "red", "to come": "dim", "skipped": "dim", "cancelled": "dim",
}  # fmt: skip
_FIRST = (
    "waits for you",
    "failed",
    "timed out",
    "again",
    "working",
    "to come",
    "done",
    "skipped",
    "cancelled",
)
"""Where there is not room for all: whose rows stay longest."""


class Board:
    """The nodes of one run, in the order of its opening."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}
        self._inside: dict[str, int] = {}
        """Nodes of runs inside this one that work: the way to them -> since when."""
        self._asks: dict[str, str] = {}
        """Approval or promise -> the node, or the way to it, that waits for a person."""
        self._tried: dict[str, int] = {}
        """Node -> how often it is tried at most."""
        self._leaves: dict[str, int] = {}
        """Node -> until when a person may take back what was approved, unix milliseconds."""

    def take(self, event: dict[str, Any], path: str = "") -> None:
        """Add one event; ``path``: of a run inside this one, the nodes it lies below, each with a slash."""
        payload, when = event["payload"], event["ts_ms"]
        self._ask(event["kind"], payload, path)
        if path:
            self._take_inside(event["kind"], payload, when, path)
            return
        name = str(payload.get("node") or "")
        match event["kind"]:
            case "run.started":
                self._begin(payload)
            case "node.expanded":
                self._of(name).items = payload["items"]
            case "node.scheduled":
                self._schedule(name, payload["attempt"], when)
            case "node.finished":
                self._finish(name, payload, when)
            case "node.gathered":
                self._end(name, "done" if payload["status"] == "succeeded" else "failed", when)
            case "node.skipped" | "node.cancelled":
                self._end(name, event["kind"].partition(".")[2], when)
            case "model.called" if name:
                self._of(name).micro_usd += payload.get("cost_micro_usd", 0)

    def _begin(self, payload: dict[str, Any]) -> None:
        agents = {node: str(pin.get("name", "")) for node, pin in (payload.get("agents") or {}).items()}
        nodes = (payload.get("definition") or {}).get("nodes") or [{"id": name} for name in agents]
        for node in nodes:
            self._nodes[node["id"]] = _Node(agents.get(node["id"], ""))
            self._tried[node["id"]] = int((node.get("retry") or {}).get("max_attempts") or 1)

    def _of(self, name: str) -> _Node:
        """A node, or the mapped node that an item is of."""
        return self._nodes.setdefault(name.partition("[")[0], _Node())

    def _schedule(self, name: str, attempt: int, when: int) -> None:
        node = self._of(name)
        if "[" in name:
            node.since = node.since or when
            node.attempt = 1
        else:
            node.since, node.attempt = when, attempt
        node.state = "working"

    def _finish(self, name: str, payload: dict[str, Any], when: int) -> None:
        node, good = self._of(name), payload["status"] == "succeeded"
        if "[" in name:
            node.items_over += 1
            return
        state = "done" if good else "timed out" if payload["status"] == "timed_out" else "failed"
        again = payload["status"] == "timed_out" or (payload.get("error") or {}).get("retryable")
        if not good and again and payload["attempt"] < self._tried.get(name, 1):
            state = "again"
        self._end(name, state, when)

    def _end(self, name: str, state: str, when: int) -> None:
        node = self._of(name)
        if "[" in name:
            node.items_over += 1
            return
        node.state = state
        node.took = when - node.since if node.since else 0
        self._inside = {way: at for way, at in self._inside.items() if not way.startswith(f"{name}/")}
        self._asks = {ask: who for ask, who in self._asks.items() if who.partition("/")[0] != name}

    def _take_inside(self, kind: str, payload: dict[str, Any], when: int, path: str) -> None:
        way = f"{path}{payload.get('node') or ''}"
        if kind == "node.scheduled":
            self._inside[way] = when
        elif kind in ("node.finished", "node.skipped", "node.cancelled", "node.gathered"):
            self._inside.pop(way, None)
            self._asks = {ask: who for ask, who in self._asks.items() if who != way}
        elif kind == "model.called":
            self._of(path.partition("/")[0]).micro_usd += payload.get("cost_micro_usd", 0)

    def _ask(self, kind: str, payload: dict[str, Any], path: str) -> None:
        if kind == "action.requested":
            self._asks[payload["approval"]] = f"{path}{payload['node']}"
        elif kind == "promise.created" and payload.get("resolver") == "operator":
            self._asks[payload["promise"]] = f"{path}{payload['node']}"
        elif kind in ("action.decided", "promise.resolved", "promise.timed_out"):
            self._asks.pop(payload.get("approval") or payload.get("promise") or "", None)
        if kind == "action.decided":
            until = payload.get("dispatch_after_ms", 0) if payload.get("decision") == "approved" else 0
            self._leaves[f"{path}{payload.get('node') or ''}".partition("/")[0]] = until

    # --- rows -------------------------------------------------------------------------------------

    def rows(self, now_ms: int, *, width: int, most: int, letters: bool = True) -> list[Row]:
        """At most ``most`` rows of less than ``width`` columns; ``letters``: the terminal has more than
        ASCII."""
        asking = set(self._asks.values())
        shown = [(name, self._state(name, node, asking), node) for name, node in self._nodes.items()]
        kept, left = _fitting(shown, most)
        name_width = max([8, *(min(_LONGEST_NAME, columns_of(visible(name))) for name, _, _ in kept)])
        found: list[Row] = []
        for name, state, node in kept:
            mark = _MARKS[state][0 if letters else 1]
            said = " · ".join(self._words(name, state, node, now_ms))
            text = f"  {mark} {_cut(name, name_width)}  {said}"
            found.append(Row(one_row(text, width), _COLORS.get(state)))
        if left:
            found.append(Row(one_row(f"    and {left}", width), "dim"))
        return found

    def _state(self, name: str, node: _Node, asking: set[str]) -> str:
        waits = any(who.partition("/")[0].partition("[")[0] == name for who in asking)
        return "waits for you" if waits else node.state

    def _words(self, name: str, state: str, node: _Node, now_ms: int) -> list[str]:
        words = [state]
        if state == "working" and (left := self._leaves.get(name, 0) - now_ms) > 0:
            words = [f"leaves in {_seconds(left + 999)}"]
        elif state in ("working", "waits for you", "again"):
            words = [f"{state} {_seconds(now_ms - node.since)}"]
        elif state in ("done", "failed", "timed out") and node.since:
            words = [f"{state} in {ago(max(0, node.took))}" if state == "done" else state]
        if node.attempt > 1 or state == "again":
            words.append(f"attempt {node.attempt} of {max(node.attempt, self._tried.get(name, 1))}")
        if node.items:
            words.append(f"{min(node.items_over, node.items)}/{node.items} items")
        below = (f"{name}/", f"{name}[")
        inside = [way.removeprefix(below[0]) for way in self._inside if way.startswith(below)]
        if inside:
            more = f" and {len(inside) - 2} more" if len(inside) > 2 else ""
            words.append(f"in {', '.join(inside[:2])}{more}")
        if node.micro_usd:
            words.append(dollars(node.micro_usd))
        if node.agent:
            words.append(node.agent)
        return words


_Shown = tuple[str, str, _Node]


def _fitting(shown: list[_Shown], most: int) -> tuple[list[_Shown], str]:
    """The rows there is room for, in their order, and what the others come to in words."""
    if len(shown) <= most:
        return shown, ""
    ranked = sorted(range(len(shown)), key=lambda number: (_FIRST.index(shown[number][1]), number))
    kept = set(ranked[: max(0, most - 1)])
    counts: dict[str, int] = {}
    for number in ranked[max(0, most - 1) :]:
        counts[shown[number][1]] = counts.get(shown[number][1], 0) + 1
    said = ", ".join(f"{count} {state}" for state, count in counts.items())
    return [one for number, one in enumerate(shown) if number in kept], said


def _cut(name: str, width: int) -> str:
    """A name in exactly ``width`` columns."""
    safe = visible(name)
    if columns_of(safe) > width:
        safe = pieces(safe, width - 2)[0] + ".."
    return safe + " " * (width - columns_of(safe))


def one_row(text: str, width: int) -> str:
    """One row that no terminal of ``width`` columns wraps."""
    return pieces(visible(text), max(8, width - 1))[0].rstrip(" ·")


def _seconds(ms: int) -> str:
    seconds = max(0, ms) // 1000
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
