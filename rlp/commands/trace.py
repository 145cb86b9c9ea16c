"""``rlp trace``: the ladder of a run, every crossing from whom to whom; or its tree of spans.

Drawn for a person whose terminal has room for all lanes; rows, one crossing each with every word of it, where
it has not, for a pipe, and with ``--rows``.
"""

from __future__ import annotations

from typing import Any

from rlp.lanes import drawing, inside
from rlp.session import Session
from runloop.exits import Exit
from runloop.ladder import crossing, ladder
from runloop.quantities import size
from runloop.spans import spans as tree

__all__ = ["trace"]


def trace(session: Session, *, run: str, all: bool, spans: bool, rows: bool = False) -> Exit:
    """Print the ladder, or the tree of spans; ``rows``: not as a drawing."""
    if spans:
        return _tree(session, run)
    whole = _whole(session, run)
    if not rows and not session.json and session.console.out.isatty() and session.console.can_draw:
        lanes = _drawn(session, whole, everything=all)
        if lanes is not None:
            return lanes
    return _rows(session, whole, everything=all)


def _drawn(
    session: Session, whole: list[tuple[str, list[dict[str, Any]]]], *, everything: bool
) -> Exit | None:
    """The ladder as a drawing; None where it does not fit."""
    console = session.console
    rungs = [
        inside(rung, path)
        for path, events in whole
        for event in events
        if (rung := crossing(event, everything=everything)) is not None
    ]
    if not rungs:
        return None
    rungs.sort(key=lambda rung: rung.event)
    lines = drawing(rungs, whole[0][1][0]["ts_ms"], console.width)
    if lines is None:
        console.say("the terminal has no room for every lane; rows instead")
        return None
    console.data(f"run {whole[0][1][0]['run']}", "bold")
    for line in lines:
        console.data(line.text, line.color)
    _sum(session, [(rung.kind, rung.bytes) for rung in rungs])
    if any("…" in line.text for line in lines):
        console.say("what is cut short is whole with --rows")
    return Exit.OK


def _rows(session: Session, whole: list[tuple[str, list[dict[str, Any]]]], *, everything: bool) -> Exit:
    """The ladder as rows, one crossing each."""
    console = session.console
    began = whole[0][1][0]["ts_ms"] if whole[0][1] else None
    rows = sorted(
        (
            {**row, "path": path}
            for path, events in whole
            for row in ladder(events, everything=everything, began=began)
        ),
        key=lambda row: int(row["event"]),
    )
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
    _sum(session, [(row["kind"], row["bytes"]) for row in rows])
    return Exit.OK


def _sum(session: Session, crossings: list[tuple[str, int]]) -> None:
    messages = [bytes_ for kind, bytes_ in crossings if kind == "message.sent"]
    calls = sum(kind == "hostcall.delivered" for kind, _ in crossings)
    session.console.say(f"{len(messages)} messages, {size(sum(messages))}; {calls} host calls")


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


def _whole(session: Session, run: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """The events of a run and of those inside it, each with where in the tree it lies; the run first."""
    found: list[tuple[str, list[dict[str, Any]]]] = []
    waiting = [("", run)]
    while waiting:
        path, name = waiting.pop()
        events = list(session.events(name))
        found.append((path, events))
        if any(str(node["use"]).startswith("opening:") for node in _nodes(events)):
            nested = session.ask("run.show", run=name)["nested"]
            waiting += ((f"{path}{one['parent']['node']}/", one["run"]) for one in nested)
    return found


def _nodes(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    started = events[0]["payload"] if events else {}
    nodes: list[dict[str, Any]] = (started.get("definition") or {}).get("nodes") or []
    return nodes
