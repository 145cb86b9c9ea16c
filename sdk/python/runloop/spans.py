"""A run as a tree of spans: its nodes, their attempts, and in them host calls, models, messages, waits.

Knows: which facts begin and end a span, and inside which other span it lies: every fact states that (node,
attempt, number of the call), and nothing is guessed from time. Does not know: how it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["Span", "Spans", "spans"]

_ENDS = {"node.finished", "node.cancelled", "node.skipped"}


class Span:
    """One stretch of a run. ``end_ms`` is None while it goes on; times are since the run began."""

    __slots__ = ("end_ms", "ended_by", "event", "kind", "name", "parent", "span", "start_ms", "status")

    def __init__(self, span: Mapping[str, Any], start_ms: int, event: int) -> None:
        self.span: str = span["span"]
        self.parent: str | None = span["parent"]
        """None for the run alone. One that is not on record keeps its name: no orphan is hidden."""
        self.kind: str = span["kind"]
        self.name: str = span["name"]
        self.start_ms = start_ms
        self.end_ms: int | None = None
        self.status = ""
        self.event = event
        """Ledger id of the fact that began it."""
        self.ended_by: int | None = None
        """Ledger id of the fact that ended it."""

    def to_json(self) -> dict[str, Any]:
        return {
            "span": self.span,
            "parent": self.parent,
            "kind": self.kind,
            "name": self.name,
            "start_ms": self.start_ms,
            "end_ms": self.end_ms,
            "status": self.status,
            "event": self.event,
        }


class Spans:
    """The spans of a run that is still being told: facts in, one after the other."""

    def __init__(self) -> None:
        self.made: dict[str, Span] = {}
        """In the order they began."""
        self._began = 0

    def take(self, event: Mapping[str, Any]) -> None:
        """What this fact begins and ends."""
        kind, told = str(event["kind"]), event["payload"]
        if kind == "run.started":
            self._began = int(event["ts_ms"])
        at = int(event["ts_ms"]) - self._began
        for span in _begun(kind, told):
            if span["span"] not in self.made:
                self.made[span["span"]] = Span(span, at, int(event["id"]))
        for name, status in _ended(kind, told):
            ended = self.made.get(name)
            if ended is not None and ended.end_ms is None:
                ended.end_ms, ended.status, ended.ended_by = at, status, int(event["id"])


def spans(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """``{span, parent, kind, name, start_ms, end_ms, status, event}`` of a run, in the order they began."""
    found = Spans()
    for event in events:
        found.take(event)
    return [span.to_json() for span in found.made.values()]


def _begun(  # noqa: PLR0911 - one for each kind of fact, read like a table
    kind: str, told: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The spans that a fact begins, unless they have begun before."""
    match kind:
        case "run.started":
            return [_span("run", None, "run", told["opening"])]
        case "node.expanded":
            return [_span(_node(told), "run", "map", told["node"])]
        case "node.scheduled":
            name = str(told["node"])
            inside = f"node:{name.partition('[')[0]}" if name.endswith("]") else "run"
            return [_span(_attempt(told), inside, "attempt", f"{name}, attempt {told['attempt']}")]
        case "hostcall.admitted" | "hostcall.delivered":
            return [_span(_call(told), _attempt(told), "call", told["op"])]
        case "model.called":
            name = f"{told['provider']}:{told['model']}"
            return [_span(f"model:{_call(told)}", _call(told), "model", name)]
        case "action.requested":
            # The call began before the person was asked, and is admitted only after a yes.
            return [
                _span(_call(told), _attempt(told), "call", told["op"]),
                _span(told["approval"], _call(told), "wait", "a person is asked"),
            ]
        case "message.posted":
            return [_span(told["message"], _attempt(told), "message", f"{told['act']} to {told['to']}")]
    return []


def _ended(  # noqa: PLR0911 - one for each kind of fact, read like a table
    kind: str, told: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """The spans that a fact ends, and how."""
    match kind:
        case "run.finished":
            return [("run", str(told["outcome"]))]
        case "node.gathered":
            return [(_node(told), str(told["status"]))]
        case "hostcall.delivered":
            return [(_call(told), "ok" if told["ok"] else "refused")]
        case "model.called":
            return [(f"model:{_call(told)}", str(told["finish"]))]
        case "action.decided":
            return [(str(told["approval"]), str(told["decision"]))]
        case "message.posted":
            return [(str(told["message"]), "said")]
        case _ if kind in _ENDS:
            status = str(told.get("status") or kind.partition(".")[2])
            return [(_node(told), status), (_attempt(told), status)]
    return []


def _span(span: Any, parent: str | None, kind: str, name: Any) -> dict[str, Any]:
    return {"span": str(span), "parent": parent, "kind": kind, "name": str(name)}


def _node(told: Mapping[str, Any]) -> str:
    return f"node:{told['node']}"


def _attempt(told: Mapping[str, Any]) -> str:
    return f"attempt:{told['node']}/{told.get('attempt')}"


def _call(told: Mapping[str, Any]) -> str:
    return f"call:{told['node']}/{told['attempt']}/{told['call']}"
