"""A run as a tree of spans: its nodes, their attempts, and in them host calls, models, messages, waits.

Knows: which facts begin and end a span, and inside which other span it lies: every fact states that (node,
attempt, number of the call), and nothing is guessed from time. Does not know: how it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["spans"]

_ENDS = {"node.finished", "node.cancelled", "node.skipped"}


def spans(events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """``{span, parent, kind, name, start_ms, end_ms, status, event}`` of a run, in the order they began.

    ``parent`` is None for the run alone; times are since it began. A span that has not ended has ``end_ms``
    None. One whose parent is not on record keeps the parent's name: no orphan is hidden.
    """
    made: dict[str, dict[str, Any]] = {}
    began = 0
    for event in events:
        kind, told = str(event["kind"]), event["payload"]
        if kind == "run.started":
            began = int(event["ts_ms"])
        at = int(event["ts_ms"]) - began
        for span in _begun(kind, told):
            made.setdefault(
                span["span"], {**span, "start_ms": at, "end_ms": None, "status": "", "event": event["id"]}
            )
        for name, status in _ended(kind, told):
            if name in made and made[name]["end_ms"] is None:
                made[name] |= {"end_ms": at, "status": status}
    return list(made.values())


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
            return [_span(told["approval"], _call(told), "wait", "a person is asked")]
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
