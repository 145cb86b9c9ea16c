"""The index of agents: where it lies, the newest one seen, and the bundle files beside it.

Knows: the path the operator configured, the bounds of what is read from it, that a newer serial is remembered
in the ledger. Does not know: what makes an index good (``runloop.bundle.index``), or what is installed by it.
Reaches no network: who fetches an index puts it into a folder.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

from runloop.bundle.archive import MAX_ARCHIVE_BYTES
from runloop.bundle.index import BundleIndexError, Index, IndexEntry, check_index
from runloop.bundle.installed import Installations
from runloop.bundle.trust import Trust
from runloop.clock import Clock
from runloop.errors import NotFoundError, UsageError
from runloop.events import AgentIndexSeen, Draft
from runloopd.authority.mint import Appender

__all__ = ["INDEX_FILE", "IndexSource", "Indexes"]

INDEX_FILE = "index.jsonl"
"""Name of the index where a folder is configured."""
MAX_INDEX_BYTES = 16 * 1024 * 1024


class IndexSource:
    """One configured place: the file itself, or the folder it lies in."""

    def __init__(self, place: Path) -> None:
        self._place = place

    @property
    def file(self) -> Path:
        """The index."""
        return self._place / INDEX_FILE if self._place.is_dir() else self._place

    def read(self) -> bytes | None:
        """The index's bytes; None when they cannot be had, for whatever reason."""
        return _read(self.file, MAX_INDEX_BYTES)

    def archive(self, name: str) -> bytes:
        """A bundle file beside the index.

        ``name`` is a plain file name (``check_index`` sees to that). Raises :class:`NotFoundError`.
        """
        path = self.file.parent / Path(name).name
        data = _read(path, MAX_ARCHIVE_BYTES)
        if data is None:
            raise NotFoundError(
                f"the index lists {name}, and {path} cannot be read",
                hint="fetch the index's folder again, whole",
                code="index.file",
            )
        return data


class Indexes:
    """The configured index, as of now."""

    def __init__(
        self,
        place: Path | None,
        *,
        installed: Installations,
        trust: Callable[[], Trust],
        journal: Appender,
        clock: Clock,
    ) -> None:
        """``place``: where ``security.agent_index`` points; None: no index is configured."""
        self._source = IndexSource(place) if place is not None else None
        self._installed = installed
        self._trust = trust
        self._journal = journal
        self._clock = clock

    async def consult(self, *, allow_stale: bool) -> Index | None:
        """The configured index, judged as of now; None where none is configured.

        It is where publishers say what they take back, so an install without it would be one with its eyes
        shut: whatever is wrong with it is raised (attacks.md M8, M10).
        """
        if self._source is None:
            return None
        data = await asyncio.to_thread(self._source.read)
        if data is None:
            raise BundleIndexError(
                f"the index of agents {self._source.file} cannot be read, so nobody can say what was revoked",
                hint="put it back; to do without what publishers revoke, unset security.agent_index",
                code="index.unreachable",
            )
        index = check_index(
            data,
            trust=self._trust(),
            now_ms=self._clock.now_ms(),
            remembered=self._installed.serials,
            allow_stale=allow_stale,
        )
        known = self._installed.serials.get(index.publisher, -1)
        if index.serial == known and index.digest != self._installed.index_digest(index.publisher):
            raise BundleIndexError(
                f"two different indexes of {index.publisher} have the serial {index.serial}",
                hint="one of them is not the publisher's, or its key is in two hands; ask it",
                code="index.equivocation",
                serial=index.serial,
            )
        if index.serial > known:
            seen = AgentIndexSeen(
                publisher=index.publisher,
                serial=index.serial,
                expires=index.expires,
                index_digest=index.digest,
            )
            await self._journal.append(Draft(payload=seen, actor="daemon", scope="system"))
        return index

    def archive(self, entry: IndexEntry) -> bytes:
        """The bundle file an entry names; see :meth:`IndexSource.archive`."""
        if self._source is None:
            raise UsageError("no index of agents is configured", hint="set security.agent_index")
        return self._source.archive(entry.file)


def _read(path: Path, most: int) -> bytes | None:
    try:
        # O_NONBLOCK: a FIFO under this name must not hold us.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            return None
        with os.fdopen(opened, "rb", closefd=False) as file:
            data = file.read(most + 1)
    except OSError:
        return None
    finally:
        os.close(opened)
    return data if len(data) <= most else None
