"""``rlp peers`` and ``rlp daemon bus``: who is connected, and what the bus counted. The daemon tells."""

from __future__ import annotations

from typing import Any

from rlp.output import words
from rlp.session import Session
from runloop.exits import Exit
from runloop.quantities import size

__all__ = ["bus", "peers"]


def peers(
    session: Session,
    *,
    id: str | None,
    topic: str | None,
    capability: str | None,
    version: str | None,
    gone: bool,
) -> Exit:
    """List agents and peers that every filter given accepts."""
    asked = {"id": id, "topic": topic, "capability": capability, "version": version}
    given = {name: value for name, value in asked.items() if value is not None}
    found: list[dict[str, Any]] = session.ask("directory.find", gone=gone, **given)["entries"]
    if session.json:
        for entry in found:
            session.console.json(entry)
        return Exit.OK
    session.console.rows(
        [_row(entry) for entry in found],
        ("id", "principal", "client", "version", "state", "capabilities", "serves"),
        empty="nobody is there that fits",
    )
    return Exit.OK


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    may = words(entry["capabilities"])
    claimed = entry["claimed"] and entry["capabilities"]
    return {**entry, "capabilities": f"{may} (claimed)" if claimed else may}


def bus(session: Session) -> Exit:
    """Show the counters, peers with what they hold, and durable topics."""
    found = session.ask("bus.show")
    if session.json:
        session.console.json(found)
        return Exit.OK
    for name in ("published", "addressed", "delivered", "queued"):
        session.console.data(f"{name:<10}  {found[name]}")
    for name in ("dropped", "refused"):
        told = ", ".join(f"{reason} {count}" for reason, count in sorted(found[name].items()))
        session.console.data(f"{name:<10}  {told or 0}")
    session.console.data("")
    session.console.rows(
        [
            {
                **peer,
                "queued": f"{peer['queued']} ({size(peer['queued_bytes'])})",
                "owed": size(peer["owed_bytes"]),
                "in": size(peer["bytes_in"]),
                "out": size(peer["bytes_out"]),
                "held back": not peer["reading"],
            }
            for peer in found["peers"]
        ],
        ("id", "principal", "client", "in", "out", "queued", "owed", "held back"),
        empty="nobody is connected",
    )
    durable = found["durable"]
    session.console.data("")
    session.console.data(f"durable     {words(durable['patterns'])}")
    for label, used in sorted(durable["bytes"].items()):
        session.console.data(f"  {label} keeps {size(used)} of {size(durable['bytes_limit'])}")
    session.console.rows(
        durable["consumers"],
        ("consumer", "owner", "pattern", "position", "unacknowledged", "behind", "session"),
        titles={"behind": "events since"},
        empty="no durable consumer",
    )
    return Exit.OK
