"""``rlp trace``: the ladder of a run, every crossing from whom to whom; or its tree of spans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rlp.session import Session
from runloop.exits import Exit
from runloop.quantities import size
from runloop.spans import spans as tree

__all__ = ["ladder", "trace"]

_ALWAYS = (
    "run.", "node.", "message.", "hostcall.", "action.", "model.", "email.", "tool.", "artifact.", "memory.",
)  # fmt: skip
_DENIED = "denied"


def trace(session: Session, *, run: str, all: bool, spans: bool) -> Exit:
    """Print the ladder, or the tree of spans."""
    console = session.console
    if spans:
        return _tree(session, run)
    rows = list(_whole(session, run, everything=all))
    if session.json:
        for row in rows:
            console.json(row)
        return Exit.OK
    if not rows:
        console.say("the run has no events")
        return Exit.OK
    console.data(f"run {rows[0]['run']}", "bold")
    left = max(len(row["from"]) for row in rows)
    right = max(len(row["to"]) for row in rows)
    way = max(len(row["path"]) for row in rows)
    for row in rows:
        arrow = "->" if row["to"] else "  "
        bytes_ = size(row["bytes"]) if row["bytes"] else ""
        console.data(
            f"{row['at_ms']:>7} ms  {row['path']:<{way}}{'  ' if way else ''}"
            f"{row['from']:<{left}} {arrow} {row['to']:<{right}}  "
            f"{bytes_:>9}  {row['what'].replace(row['run'], row['run'][:8])}  #{row['event']}"
        )
    messages = [row for row in rows if row["kind"] == "message.sent"]
    calls = sum(row["kind"] == "hostcall.delivered" for row in rows)
    total = sum(row["bytes"] for row in messages)
    console.say(f"{len(messages)} messages, {size(total)}; {calls} host calls")
    return Exit.OK


def _tree(session: Session, run: str) -> Exit:
    """Each span below the one it lies in."""
    console = session.console
    found = tree(session.events(run))
    below: dict[str | None, list[dict[str, Any]]] = {}
    known = {span["span"] for span in found}
    for span in found:
        if session.json:
            console.json(span)
        inside = span["parent"] if span["parent"] in known else None
        below.setdefault(inside, []).append(span)
    if session.json:
        return Exit.OK
    stack = [(0, span) for span in reversed(below.get(None, []))]
    while stack:
        depth, span = stack.pop()
        took = "open" if span["end_ms"] is None else f"{span['end_ms'] - span['start_ms']} ms"
        orphan = (
            f"  (inside {span['parent']}, which is not on record)" if depth == 0 and span["parent"] else ""
        )
        console.data(
            f"{span['start_ms']:>7} ms  {took:>9}  {'  ' * depth}{span['kind']} {span['name']}"
            f"{', ' + span['status'] if span['status'] else ''}{orphan}  #{span['event']}"
        )
        stack += [(depth + 1, inner) for inner in reversed(below.get(span["span"], []))]
    console.say(f"{len(found)} spans")
    return Exit.OK


def _whole(session: Session, run: str, *, everything: bool) -> list[dict[str, Any]]:
    """The rows of a run and of those inside it, in ledger order; ``path`` says where in the tree."""
    rows: list[dict[str, Any]] = []
    began: int | None = None
    waiting = [("", run)]
    while waiting:
        path, name = waiting.pop()
        events = list(session.events(name))
        began = events[0]["ts_ms"] if began is None and events else began
        rows += ({**row, "path": path} for row in ladder(events, everything=everything, began=began))
        if any(str(node["use"]).startswith("opening:") for node in _nodes(events)):
            nested = session.ask("run.show", run=name)["nested"]
            waiting += ((f"{path}{one['parent']['node']}/", one["run"]) for one in nested)
    return sorted(rows, key=lambda row: int(row["event"]))


def _nodes(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    started = events[0]["payload"] if events else {}
    nodes: list[dict[str, Any]] = (started.get("definition") or {}).get("nodes") or []
    return nodes


def ladder(
    events: Iterable[dict[str, Any]], *, everything: bool = False, began: int | None = None
) -> Iterator[dict[str, Any]]:
    """One row per crossing: ``{event, run, at_ms, from, to, kind, what, bytes}``; ``at_ms`` since ``began``,
    or the first."""
    for event in events:
        began = event["ts_ms"] if began is None else began
        payload, kind = event["payload"], event["kind"]
        shown = kind.startswith(_ALWAYS) or payload.get("decision") == _DENIED
        if not (shown or everything):
            continue
        source, target, what, size_ = _crossing(kind, event["actor"], payload)
        yield {
            "event": event["id"],
            "run": event["run"],
            "at_ms": event["ts_ms"] - began,
            "from": source,
            "to": target,
            "kind": kind,
            "what": what,
            "bytes": size_,
        }


def _crossing(  # noqa: PLR0911, PLR0912 - one row per kind of event, read like a table
    kind: str, actor: str, p: dict[str, Any]
) -> tuple[str, str, str, int]:
    """Who, to whom, what, how many bytes."""
    node = str(p.get("node") or "")
    match kind:
        case "message.sent":
            return p["sender"], p["receiver"], f"{p['type']} on {p['topic']}", p["size"]
        case "message.posted":
            to = f" to {p['in_reply_to']}" if p["in_reply_to"] else ""
            return node, p["to"], f"{p['act']} {p['message']}{to}", p["size"]
        case "hostcall.admitted":
            return node, "gate", f"{p['op']} admitted ({p['effect']})", p["request_bytes"]
        case "hostcall.delivered":
            verdict = "" if p["ok"] else ", refused"
            return "gate", node, f"{p['op']} answered{verdict}", p["request_bytes"] + p["response_bytes"]
        case "model.called":
            tokens = (
                f"{p['input_tokens']}+{p['output_tokens']} tokens{', estimated' if p['estimated'] else ''}"
            )
            cost = f", {p['cost_micro_usd']} micro-USD" if p["cost_micro_usd"] else ""
            source = p.get("source", "asked")
            origin = "" if source == "asked" else f", from the {source}, {p['saved_micro_usd']} saved"
            why = f"; {p['route']}" if p.get("route") else ""
            return "gate", p["provider"], f"{p['model']}, {tokens}{cost}{origin}{why}", 0
        case "action.requested":
            return node, "person", f"asks: {p['action'].get('summary') or p['op']} ({p['approval']})", 0
        case "action.decided":
            return "person" if ":" in p["principal"] else p["principal"], node, f"{p['decision']}", 0
        case "action.claimed":
            return "gate", "", f"the one use of {p['approval']} is taken", 0
        case "email.sent":
            return "gate", p["provider"], f"mail to {', '.join(p['recipients'])}: {p['subject']}", 0
        case "tool.called":
            ended = p["outcome"] + (f" ({p['code']})" if p["code"] else "")
            return "gate", p["origin"], f"{p['tool']} on {p['resource']}: {ended}", 0
        case "artifact.created":
            return node, "ledger", f"artifact {p['name']}", p["size"]
        case "run.started":
            return p["principal"], "daemon", f"runs {p['opening']}", 0
        case "run.finished":
            return "daemon", "", f"run {p['outcome']}" + (f": {p['clause']}" if p["clause"] else ""), 0
        case "node.scheduled":
            return "engine", node, f"attempt {p['attempt']}", 0
        case "node.finished":
            reason = f": {p['error']['message']}" if p.get("error") else ""
            return node, "engine", f"{p['status']}, {p['calls']} calls, {p['fuel']} fuel{reason}", 0
        case "node.skipped" | "node.cancelled":
            return "engine", node, f"{kind.partition('.')[2]}: {p['reason']}", 0
        case "cap.audit":
            return "gate", p["agent"], f"{p['capability']} {p['decision']} for {p['op']}: {p['reason']}", 0
    words = ", ".join(
        f"{name} {value}" for name, value in p.items() if isinstance(value, str | int) and value
    )
    return actor, node, f"{kind} {words}"[:200], 0
