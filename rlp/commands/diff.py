"""``rlp diff``: two runs, message by message.

Knows: how differences look. Does not know: what one is (``openings.diff``). Everything that is shown of a
value is foreign text, and goes through the console's escapes.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from rlp.session import Session
from runloop.errors import NotFoundError, RefusedError
from runloop.escape import fold
from runloop.exits import Exit
from runloop.quantities import dollars

if TYPE_CHECKING:
    from openings.diff import Comparison, Difference, Fact, Told

__all__ = ["diff", "told"]

MAX_SHOWN = 200
"""Differences in words; all of them are in ``--json``."""
MAX_VALUE_BYTES = 262_144
MARKS = {"changed": "~", "only_one": "-", "only_other": "+"}
COLORS = {"changed": "yellow", "only_one": "red", "only_other": "green"}


def diff(session: Session, *, one: str, other: str, stat: bool) -> Exit:
    """Print what differs, the first difference first, and what came of it. Exit 0 identical, 6 different."""
    from openings.diff import compare

    found = compare(told(session, one), told(session, other))
    code = Exit.OK if found.identical else Exit.DIVERGED
    if session.json:
        session.console.json(found.to_json())
        return code
    _headline(session, found)
    if not stat:
        for number, difference in enumerate(found.differences[:MAX_SHOWN]):
            _show(session, difference, first=number == 0)
        if len(found.differences) > MAX_SHOWN:
            session.console.data(f"... {len(found.differences) - MAX_SHOWN} more; all of them: --json")
    return code


def told(session: Session, run: str, *, depth: int = 0) -> Told:
    """A run with the runs nested in it, read from the ledger."""
    from openings.definition import Opening
    from openings.diff import Told
    from openings.state import base
    from runloop.events import Event, NodeScheduled, RunStarted
    from runloop.ids import child_run_id

    events = [Event.from_json(event) for event in session.events(run)]
    if not events or not isinstance(events[0].payload, RunStarted):
        raise NotFoundError(f"no run {run}", hint="'rlp runs' lists them", code="run.absent")
    name = str(events[0].run)
    opening = Opening.from_json(events[0].payload.definition)
    nests = {node.id for node in opening.nodes if node.nests is not None}
    children = {}
    for event in events:
        this = event.payload
        if isinstance(this, NodeScheduled) and base(this.node) in nests:
            try:
                child = told(session, child_run_id(name, this.node, this.attempt), depth=depth + 1)
            except NotFoundError:
                continue  # the attempt ended before its run began
            children[this.node, this.attempt] = child
    return Told(run=name, events=events, children=children)


# --- for people -----------------------------------------------------------------------------------


def _headline(session: Session, found: Comparison) -> None:
    console, shown = session.console, found.to_json()
    if found.identical:
        console.data("identical", "green")
    else:
        nodes = ", ".join(shown["nodes"]) or "none"
        console.data(f"{len(found.differences)} differences, in the nodes: {nodes}", "yellow")
    figures = shown["figures"]
    console.data(
        f"  {figures['same']} same / {figures['changed']} changed / {figures['only_one']} only in "
        f"{found.one[:8]} / {figures['only_other']} only in {found.other[:8]}"
    )
    for kind, number in found.same.items():
        console.detail(f"  {number} {kind} same")
    if any(found.spent):
        console.data(f"  spent {dollars(found.spent[0])} and {dollars(found.spent[1])}")


def _show(session: Session, difference: Difference, *, first: bool) -> None:
    console = session.console
    mark = MARKS[difference.verdict]
    because = "" if first or not difference.causes else f"  <- {', '.join(map(str, difference.causes[:4]))}"
    root = "" if difference.causes else "  (nothing before it differs)"
    console.data(f"{mark} {difference.place}{because}{root}", COLORS[difference.verdict])
    for line in _lines(session, difference):
        for row in fold("    ", line, max(console.width, 40)):
            console.data(row)


def _lines(session: Session, difference: Difference) -> list[str]:
    """What differs at a place: words for what is short, a unified diff for what has lines."""
    from openings.shown import lines, unified

    one, other = difference.one, difference.other
    if one is None or other is None:
        fact = one or other
        assert fact is not None
        return lines(dict(fact.says))[:8]
    found: list[str] = []
    for field in difference.fields:
        before, after = _value(session, one, field), _value(session, other, field)
        found += [f"{field}:", *unified(before, after)]
    return found


def _value(session: Session, fact: Fact, field: str) -> Any:
    """A field in full where its bytes can be had and shown, else as the event says it."""
    if field in fact.values:
        return fact.values[field]
    digest = fact.blobs.get(field)
    if digest is None:
        return fact.says.get(field)
    import json

    try:
        data = base64.b64decode(session.ask("blob.get", digest=digest)["base64"])
        return json.loads(data) if len(data) <= MAX_VALUE_BYTES else f"{len(data)} bytes, {digest}"
    except (NotFoundError, RefusedError):
        return digest
    except (ValueError, RecursionError):
        return data.decode("utf-8", "backslashreplace")
