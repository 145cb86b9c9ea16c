"""``rlp logs``: the end of the daemon's log file. Needs no daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rlp.session import Session
from runloop.exits import Exit

__all__ = ["logs"]

CHUNK = 65_536
SCAN_BYTES = 64 * 1024 * 1024
"""How far back a filter may look."""


def logs(
    session: Session, *, lines: int, grep: str | None, agent: str | None, correlation: str | None
) -> Exit:
    """Print the newest lines that pass every filter, oldest first."""
    found: list[str] = []
    for line in backwards(session.paths.log_file):
        if grep is not None and grep not in line:
            continue
        if agent is not None or correlation is not None:
            record = _record(line)
            run = str(record.get("run", record.get("trace_id", "")))
            if agent is not None and record.get("agent") != agent:
                continue
            if correlation is not None and not run.startswith(correlation):
                continue
        found.append(line)
        if len(found) == lines:
            break
    for line in reversed(found):
        if session.json:
            session.console.json(_record(line) or {"text": line})
        else:
            session.console.data(line)
    if not found:
        where = session.paths.log_file
        session.console.say(f"no such lines in {where}" if where.exists() else f"no log yet at {where}")
    return Exit.OK


def _record(line: str) -> dict[str, object]:
    import json

    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def backwards(path: Path) -> Iterator[str]:
    """Lines of a file, last first, reading no more of it than asked for."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        position = file.seek(0, os.SEEK_END)
        lowest = max(0, position - SCAN_BYTES)
        rest = b""
        while position > lowest:
            step = min(CHUNK, position - lowest)
            position -= step
            file.seek(position)
            pieces = (file.read(step) + rest).split(b"\n")
            rest = pieces[0]
            for piece in reversed(pieces[1:]):
                if piece:
                    yield piece.decode("utf-8", "replace")
        if rest:
            yield rest.decode("utf-8", "replace")
