"""The names somebody may want to type, in a small file that a shell can read without starting anything.

Knows: which names go into the file, in which form, and when it is written again (at most once a second, and
only after something changed). Does not know: shells (``packaging/completion`` reads it), or what is done with
a name. Names only: no value of a secret, no text of a mail. A file that cannot be written is a warning;
nobody waits for it.

One line for each name: what it is, the name, a word about it, with tabs between them. A name that a shell
could take for more than a word is left out: whoever installs an agent or adds a schedule must not be able to
have something run by a press of the Tab key.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import structlog

from runloop.escape import visible
from runloop.events import Event

__all__ = ["HEAD", "Names", "line"]

log = structlog.get_logger(__name__)

HEAD = "runloop-names 1"
"""First line of the file; a shell's script that knows another number offers no names."""
_PAUSE_S = 1.0
"""Shortest time between two writings."""
_RUNS = 50
"""Newest runs that are named; of each its nodes, too."""
_MOST = 4_000
"""Lines of the file."""
_ABOUT = 60
"""Letters of the word about a name."""
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:/+-]{0,127}\Z", re.ASCII)
_CHANGES = (
    "run.started", "run.finished", "action.", "promise.", "trigger.", "agent.installed", "agent.removed",
    "grant.", "secret.set", "secret.removed", "mcp.server.", "daemon.started",
)  # fmt: skip

_QUERY = f"""
WITH latest AS (SELECT run, opening, state, started_event FROM runs ORDER BY rowid DESC LIMIT {_RUNS})
SELECT 'run' AS kind, substr(run, 1, 8) AS name, opening || ', ' || state AS about FROM latest
UNION ALL
SELECT 'node', substr(n.run, 1, 8) || '@' || n.node, n.state FROM latest AS l JOIN nodes AS n ON n.run = l.run
UNION ALL
SELECT 'approval', approval, op || ' by ' || node
FROM (SELECT * FROM approvals ORDER BY rowid DESC LIMIT 500) WHERE state IN ('waiting', 'approved')
UNION ALL
SELECT 'promise', promise, 'asked by ' || agent
FROM (SELECT * FROM promises ORDER BY rowid DESC LIMIT 500) WHERE state = 'open' AND resolver = 'operator'
UNION ALL
SELECT 'schedule', trigger_, opening FROM triggers WHERE removed_event IS NULL
UNION ALL
SELECT DISTINCT 'agent', name, 'version ' || version FROM agents WHERE state = 'current'
"""  # noqa: S608 - only numbers of ours are put in


class Announcer(Protocol):
    """Who tells what was stated (``journal``)."""

    def listen(self, callback: Callable[[list[Event]], None]) -> Callable[[], None]: ...


class Names:
    """Keeps the file abreast of what there is."""

    def __init__(
        self,
        file: Path,
        announcer: Announcer,
        query: Callable[..., Awaitable[dict[str, Any]]],
        others: Mapping[str, Callable[[], Iterable[tuple[str, str]]]],
        *,
        pause_s: float = _PAUSE_S,
    ) -> None:
        """``query``: as ``KnowledgePort.query``; ``others``: what the views do not tell, kind -> names, each
        with a word about it."""
        self._file = file
        self._query = query
        self._others = others
        self._pause_s = pause_s
        self._changed = asyncio.Event()
        self._changed.set()
        announcer.listen(self._heard)

    def _heard(self, events: list[Event]) -> None:
        if not self._changed.is_set() and any(event.kind.startswith(_CHANGES) for event in events):
            self._changed.set()

    async def follow(self) -> None:
        """Write the file whenever something changed; until cancelled."""
        written = None
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                text = await self._text()
                if text != written:
                    await asyncio.to_thread(_write, self._file, text)
                    written = text
            except Exception as error:  # names grow old; nothing else depends on them
                log.warning("names_not_written", reason=str(error))
            await asyncio.sleep(self._pause_s)

    async def _text(self) -> str:
        found = await self._query(_QUERY, [], _MOST, raw=True)
        columns = found["columns"]
        rows = [
            row if isinstance(row, Mapping) else dict(zip(columns, row, strict=True)) for row in found["rows"]
        ]
        told = [(str(row["kind"]), str(row["name"]), str(row["about"] or "")) for row in rows]
        for kind, names in self._others.items():
            told += [(kind, name, about) for name, about in names()]
        lines = [made for kind, name, about in told if (made := line(kind, name, about))]
        return "\n".join([HEAD, *lines[:_MOST]]) + "\n"


def line(kind: str, name: str, about: str = "") -> str | None:
    """One line of the file; None for a name that is not one harmless word."""
    if not _SAFE.match(name):
        return None
    words = visible(" ".join(about.split()))[:_ABOUT]
    return f"{kind}\t{name}\t{words}"


def _write(file: Path, text: str) -> None:
    """Whole or not at all; for its owner only."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number, fresh = tempfile.mkstemp(dir=file.parent, prefix=".names-")
    try:
        with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
        os.replace(fresh, file)  # noqa: PTH105
    except OSError:
        with suppress(OSError):
            os.unlink(fresh)  # noqa: PTH108
        raise
