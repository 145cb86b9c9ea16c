"""``rlp memory``: what agents remember, to look at and to take away."""

from __future__ import annotations

from rlp.session import Session
from runloop.escape import json_text
from runloop.exits import Exit
from runloop.quantities import moment, size

__all__ = ["forget", "list_", "show"]


def list_(session: Session, *, namespace: str | None, prefix: str, limit: int) -> Exit:
    """List namespaces, or the keys of one."""
    if namespace is None:
        spaces = session.ask("memory.list")["spaces"]
        rows = spaces if session.json else [{**row, "bytes": size(row["bytes"])} for row in spaces]
        session.console.rows(rows, ("namespace", "keys", "bytes"), empty="no agent remembers anything")
        return Exit.OK
    answer = session.ask("memory.list", namespace=namespace, prefix=prefix, limit=limit)
    keys = answer["keys"]
    rows = (
        keys
        if session.json
        else [{**row, "size": size(row["size"]), "updated": moment(row["updated_ms"])} for row in keys]
    )
    session.console.rows(
        rows,
        ("key", "version", "size", "updated", "event"),
        empty=f"nothing in {namespace}; 'rlp memory list' names what there is",
    )
    if answer["truncated"]:
        session.console.say(f"stopped after {limit} keys; --limit raises that")
    return Exit.OK


def show(session: Session, *, namespace: str, key: str) -> Exit:
    """Show one value."""
    entry = session.ask("memory.show", namespace=namespace, key=key)
    if session.json:
        session.console.json(entry)
        return Exit.OK
    session.console.text(json_text(entry["value"]))
    session.console.say(f"version {entry['version']}, event #{entry['event']}; 'rlp kb why {entry['event']}'")
    return Exit.OK


def forget(session: Session, *, namespace: str, key: str) -> Exit:
    """Have one key forgotten; the ledger keeps that it was there."""
    entry = session.ask("memory.forget", namespace=namespace, key=key)
    if session.json:
        session.console.json(entry)
    else:
        session.console.say(f"{namespace}/{key} is forgotten (version {entry['version']})")
    return Exit.OK
