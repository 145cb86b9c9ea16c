"""A run as a ladder: every crossing from one party to another, one rung each, in ledger order.

Knows: which facts are crossings, between whom, how many bytes crossed, in which lane of a drawing a party
stands, and how one rung is drawn between lanes. Does not know: colours, the terminal, or where events come
from. What a rung says is foreign text; whoever shows it escapes it (``runloop.escape``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from runloop.quantities import dollars

__all__ = ["Lane", "Party", "Rung", "crossing", "drawn", "ladder", "ordered"]

_ALWAYS = (
    "run.", "node.", "message.", "hostcall.", "action.", "model.", "email.", "tool.", "artifact.", "memory.",
)  # fmt: skip
_DENIED = "denied"

Kind = Literal["person", "engine", "node", "gate", "outside", "ledger"]
_ORDER: tuple[Kind, ...] = ("person", "engine", "node", "gate", "outside", "ledger")
"""From left to right: who asks, who decides, who works, the door, what is behind it, what remains."""


class Lane(NamedTuple):
    """One column of a drawing. A node called ``gate`` is not the gate: the kind tells them apart."""

    kind: Kind
    name: str


class Party(NamedTuple):
    """One end of a crossing."""

    name: str
    """As rows say it; empty: there is no such end."""
    lane: Lane | None
    """Where it stands in a drawing; all items of a mapped node stand in one lane."""


class Rung(NamedTuple):
    """One crossing."""

    event: int
    run: str | None
    ts_ms: int
    source: Party
    target: Party
    kind: str
    """Of the event."""
    what: str
    bytes: int


def crossing(event: Mapping[str, Any], *, everything: bool = False) -> Rung | None:
    """The rung of an event as ``Event.to_json`` writes it; None for what crosses nothing, unless
    ``everything``."""
    payload, kind = event["payload"], event["kind"]
    if not (everything or kind.startswith(_ALWAYS) or payload.get("decision") == _DENIED):
        return None
    inside = (event.get("provenance") or {}).get("node")
    source, target, what, size = _crossing(kind, event["actor"], payload, str(inside or ""))
    return Rung(event["id"], event["run"], event["ts_ms"], source, target, kind, what, size)


def ladder(
    events: Iterable[Mapping[str, Any]], *, everything: bool = False, began: int | None = None
) -> Iterator[dict[str, Any]]:
    """One row per crossing: ``{event, run, at_ms, from, to, kind, what, bytes}``; ``at_ms`` since ``began``,
    or the first event."""
    for event in events:
        began = event["ts_ms"] if began is None else began
        rung = crossing(event, everything=everything)
        if rung is not None:
            yield {
                "event": rung.event,
                "run": rung.run,
                "at_ms": rung.ts_ms - began,
                "from": rung.source.name,
                "to": rung.target.name,
                "kind": rung.kind,
                "what": rung.what,
                "bytes": rung.bytes,
            }


# --- drawing --------------------------------------------------------------------------------------


def ordered(lanes: Iterable[Lane]) -> list[Lane]:
    """Lanes as they stand from left to right; nodes in the order in which they came."""
    return sorted(dict.fromkeys(lanes), key=lambda lane: _ORDER.index(lane.kind))


def drawn(rung: Rung, lanes: Sequence[Lane], width: int) -> str:
    """The crossing between its lanes, each ``width`` columns wide; exactly ``len(lanes) * width`` columns.

    ``●───▶`` from sender to receiver, ``●`` for what has one end; the lanes it passes are crossed, the others
    stand. An end whose lane is not among ``lanes`` is drawn at the edge, as ``…``.
    """
    middle = width // 2
    row = [" "] * (len(lanes) * width)
    for number in range(len(lanes)):
        row[number * width + middle] = "│"
    ends = [_column(party, lanes, width) for party in (rung.source, rung.target)]
    start, end = ends
    if start is None and end is None:
        return "".join(row)
    if start is None or end is None or start == end:
        at = start if start is not None else end
        assert at is not None
        row[_held(at, row)] = "●" if 0 <= at < len(row) else "…"
        return "".join(row)
    low, high = sorted((start, end))
    for column in range(max(low, 0), min(high + 1, len(row))):
        row[column] = "┼" if row[column] == "│" else "─"
    row[_held(start, row)] = "●" if 0 <= start < len(row) else "…"
    row[_held(end, row)] = ("▶" if end > start else "◀") if 0 <= end < len(row) else "…"
    return "".join(row)


def _column(party: Party, lanes: Sequence[Lane], width: int) -> int | None:
    """Where the party's line stands; beyond the last column when its lane is not shown."""
    if party.lane is None:
        return None
    if party.lane not in lanes:
        return len(lanes) * width
    return lanes.index(party.lane) * width + width // 2


def _held(column: int, row: Sequence[str]) -> int:
    return min(max(column, 0), len(row) - 1)


# --- who, to whom, what ---------------------------------------------------------------------------

_NOBODY = Party("", None)
_GATE = Party("gate", Lane("gate", "gate"))
_ENGINE = Lane("engine", "engine")
_PERSON = Lane("person", "person")


def _node(name: str) -> Party:
    if not name:
        return _NOBODY
    return Party(name, Lane("node", name.partition("[")[0]))


def _outside(name: str) -> Party:
    return Party(name, Lane("outside", "outside"))


def _known(name: str, inside: str) -> Party:
    """Whoever the host names: ``daemon``, ``operator:<uid>``, ``agent:<name>``. An agent stands where the
    node is that it serves."""
    if not name:
        return _NOBODY
    kind = name.partition(":")[0]
    if kind in ("daemon", "engine"):
        return Party(name, _ENGINE)
    if kind in ("operator", "person", "schedule", "peer"):
        return Party(name, _PERSON)
    if inside:
        return Party(name, _node(inside).lane)
    return Party(name, Lane("node", name) if kind == "agent" else _ENGINE)


def _crossing(  # noqa: PLR0911, PLR0912 - one row per kind of event, read like a table
    kind: str, actor: str, p: Mapping[str, Any], inside: str
) -> tuple[Party, Party, str, int]:
    """Who, to whom, what, how many bytes."""
    node = _node(str(p.get("node") or ""))
    match kind:
        case "message.sent":
            around = str(p.get("node") or inside)
            what = f"{p['type']} on {p['topic']}"
            return _known(p["sender"], around), _known(p["receiver"], around), what, p["size"]
        case "message.posted":
            answers = f" to {p['in_reply_to']}" if p["in_reply_to"] else ""
            place, _, name = str(p["to"]).partition("/")
            heard = Party(p["to"], _node(name).lane if place == "node" else Lane("node", p["to"]))
            return node, heard, f"{p['act']} {p['message']}{answers}", p["size"]
        case "hostcall.admitted":
            return node, _GATE, f"{p['op']} admitted ({p['effect']})", p["request_bytes"]
        case "hostcall.delivered":
            verdict = "" if p["ok"] else ", refused"
            return _GATE, node, f"{p['op']} answered{verdict}", p["request_bytes"] + p["response_bytes"]
        case "model.called":
            return _GATE, _outside(p["provider"]), _model(p), 0
        case "action.requested":
            asks = f"asks: {p['action'].get('summary') or p['op']} ({p['approval']})"
            return node, Party("person", _PERSON), asks, 0
        case "action.decided":
            who = "person" if ":" in p["principal"] else p["principal"]
            return Party(who, _PERSON if who == "person" else _ENGINE), node, f"{p['decision']}", 0
        case "action.claimed":
            return _GATE, _NOBODY, f"the one use of {p['approval']} is taken", 0
        case "email.sent":
            what = f"mail to {', '.join(p['recipients'])}: {p['subject']}"
            return _GATE, _outside(p["provider"]), what, 0
        case "tool.called":
            ended = p["outcome"] + (f" ({p['code']})" if p["code"] else "")
            return _GATE, _outside(p["origin"]), f"{p['tool']} on {p['resource']}: {ended}", 0
        case "artifact.created":
            ledger = Party("ledger", Lane("ledger", "ledger"))
            return node, ledger, f"artifact {p['name']}", p["size"]
        case "run.started":
            return _known(p["principal"], ""), Party("daemon", _ENGINE), f"runs {p['opening']}", 0
        case "run.finished":
            ended = f"run {p['outcome']}" + (f": {p['clause']}" if p["clause"] else "")
            return Party("daemon", _ENGINE), _NOBODY, ended, 0
        case "node.scheduled":
            return Party("engine", _ENGINE), node, f"attempt {p['attempt']}", 0
        case "node.finished":
            reason = f": {p['error']['message']}" if p.get("error") else ""
            ended = f"{p['status']}, {p['calls']} calls, {p['fuel']} fuel{reason}"
            return node, Party("engine", _ENGINE), ended, 0
        case "node.skipped" | "node.cancelled":
            return Party("engine", _ENGINE), node, f"{kind.partition('.')[2]}: {p['reason']}", 0
        case "cap.audit":
            what = f"{p['capability']} {p['decision']} for {p['op']}: {p['reason']}"
            return _GATE, _known(p["agent"], str(p.get("node") or inside)), what, 0
    words = ", ".join(
        f"{name} {value}" for name, value in p.items() if isinstance(value, str | int) and value
    )
    return _known(actor, inside), node, f"{kind} {words}"[:200], 0


def _model(p: Mapping[str, Any]) -> str:
    tokens = f"{p['input_tokens']}+{p['output_tokens']} tokens{', estimated' if p['estimated'] else ''}"
    cost = f", {dollars(p['cost_micro_usd'])}" if p["cost_micro_usd"] else ""
    source = p.get("source", "asked")
    origin = "" if source == "asked" else f", from the {source}, {dollars(p['saved_micro_usd'])} saved"
    why = f"; {p['route']}" if p.get("route") else ""
    return f"{p['model']}, {tokens}{cost}{origin}{why}"
