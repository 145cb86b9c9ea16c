"""The ledger's answers, off the event loop: the adapter between the gate and ``pog``.

Knows: that views follow the ledger and must have caught up before they are asked, and that SQLite blocks.
Does not know: who may ask (``broker.knowledge_ops``) or how views are made. Implements
:class:`~runloopd.broker.ports.KnowledgePort`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import structlog

from pog import why
from pog.memory import Entry, Key, Memory, Space, Write
from pog.query import Knowledge
from pog.reader import Reader
from pog.redact import mask
from pog.refold import REFOLDS
from pog.retract import Dependants, dependants
from pog.trace import Trace
from runloop.errors import RunloopError, UsageError
from runloop.events import Event
from runloopd.broker.finder import Finder
from runloopd.journal import Journal

__all__ = ["LedgerKnowledge", "LedgerMemory"]

log = structlog.get_logger(__name__)

T = TypeVar("T")

_TRACED_AT_ONCE = 512
_TRACE_REST_S = 0.05
_TRACE_AGAIN_S = 30.0
"""After a failure."""
_TRACE_PAUSE_S = 2.0
"""Nobody waits for it: an explanation takes in by itself what is still missing."""


class LedgerKnowledge:
    """Answers from the views and the ledger of one daemon, never older than the question."""

    def __init__(self, knowledge: Knowledge, journal: Journal) -> None:
        if knowledge.reader is None:
            raise UsageError("the knowledge was opened without its ledger", code="kb.reader")
        self._knowledge = knowledge
        self._reader: Reader = knowledge.reader
        self._journal = journal
        self._memory = LedgerMemory(Memory(knowledge.path, lambda: journal.views_cursor), journal)
        self.finder = Finder(knowledge, self._reader, journal)
        self._trace: Trace | None = None
        self._tracing = asyncio.Lock()

    @property
    def memory(self) -> LedgerMemory:
        """See the port."""
        return self._memory

    async def query(
        self,
        sql: str,
        params: Sequence[Any],
        limit: int,
        *,
        raw: bool,
        tables: Collection[str] | None = None,
        most_bytes: int | None = None,
    ) -> dict[str, Any]:
        """See the port."""
        await self._caught_up()
        size = {} if most_bytes is None else {"most_bytes": most_bytes}
        query = self._knowledge.query
        found = await asyncio.to_thread(query, sql, params, limit, raw=raw, tables=tables, **size)
        return found.to_json()

    async def search(self, query: str, k: int, kinds: Sequence[str], *, raw: bool) -> list[dict[str, Any]]:
        """See the port."""
        await self._caught_up()
        return await self.finder.search(query, k, kinds, raw=raw)

    async def read(self, kind: str, id: str, *, raw: bool) -> dict[str, Any]:
        """See the port."""
        await self._caught_up()
        return await asyncio.to_thread(self._knowledge.read, kind, id, raw=raw)

    async def why(self, ref: str, *, raw: bool, impact: bool = False) -> dict[str, Any]:
        """See the port."""
        trace = await self.trace()
        found = await asyncio.to_thread(why.impact if impact else why.why, self._reader, ref, trace)
        built: dict[str, Any] = await asyncio.to_thread(mask, found.to_json(), emails=not raw)
        return built

    async def spent_on_index(self) -> int:
        """Micro-dollars that embedding for the index has cost, over all time."""
        spent = "SELECT coalesce(sum(cost_micro_usd), 0) AS spent FROM model_calls"
        spent += " WHERE run IS NULL AND source <> 'check'"  # what looking at models cost is not its own
        found = await self.query(spent, [], 1, raw=True)
        return int(found["rows"][0]["spent"])

    async def dependants(self, source: int) -> Dependants:
        """Everything stated so far that came of a fact; raises :class:`UsageError` for no knowledge."""
        return await asyncio.to_thread(dependants, self._reader, await self.trace(), source)

    async def trace(self) -> Trace:
        """The index of causes and names, opened when it is first needed."""
        async with self._tracing:
            if self._trace is None:
                path = self._knowledge.path.with_name("trace.db")
                self._trace = await asyncio.to_thread(Trace.open, path, self._reader)
            return self._trace

    async def follow(self) -> None:
        """Keep what searches and explanations look things up in abreast of the ledger; until cancelled."""
        await asyncio.gather(self.finder.follow(), self._follow_trace())

    async def _follow_trace(self) -> None:
        stated = asyncio.Event()
        self._journal.listen(lambda _: stated.set())
        while True:
            behind = True
            stated.clear()
            try:
                trace = await self.trace()
                behind = not await asyncio.to_thread(trace.catch_up, limit=_TRACED_AT_ONCE)
            except (RunloopError, OSError, sqlite3.Error) as error:
                log.warning("trace_behind", reason=str(error))
                await asyncio.sleep(_TRACE_AGAIN_S)
            if not behind:
                await stated.wait()
                await asyncio.sleep(_TRACE_PAUSE_S)
            await asyncio.sleep(_TRACE_REST_S)

    async def close(self) -> None:
        """Let go of the indexes' files."""
        await self.finder.close()
        async with self._tracing:
            if self._trace is not None:
                await asyncio.to_thread(self._trace.close)

    async def blob(self, digest: str) -> bytes:
        """See the port."""
        return await asyncio.to_thread(self._reader.blob, digest)

    async def fact(self, event_id: int) -> Event:
        """See the port."""
        return await asyncio.to_thread(self._reader.event, event_id)

    async def _caught_up(self) -> None:
        await self._journal.views_at(self._journal.head_id)


class LedgerMemory:
    """What agents remember, off the event loop. Implements :class:`~runloopd.broker.ports.MemoryPort`."""

    def __init__(self, memory: Memory, journal: Journal) -> None:
        self._memory = memory
        self._journal = journal
        self._start = journal.head_id
        """What was stated before is known from the views; what comes after passes by here."""
        journal.listen(self._apply)

    def close(self) -> None:
        """Let go of the views."""
        self._memory.close()

    def _apply(self, events: list[Event]) -> None:
        self._memory.apply(events)
        for event in events:
            if event.kind in REFOLDS:
                self._start = event.id  # which facts count is known from the views only

    async def get(self, namespace: str, key: str) -> Entry:
        """See the port."""
        if self._current and self._memory.knows(namespace, key):
            return self._memory.get(namespace, key)
        return await self._do(lambda: self._memory.get(namespace, key))

    async def listed(
        self, namespace: str, *, prefix: str = "", after: str = "", limit: int = 200
    ) -> tuple[list[Key], bool]:
        """See the port."""
        await self._journal.views_at(self._journal.head_id)
        return await self._do(lambda: self._memory.listed(namespace, prefix=prefix, after=after, limit=limit))

    async def spaces(self) -> Mapping[str, Space]:
        """See the port."""
        await self._journal.views_at(self._journal.head_id)
        return await self._do(self._memory.spaces)

    async def put(self, namespace: str, key: str, value: Any, expected_version: int | None = None) -> Write:
        """See the port."""
        if self._current and self._memory.knows(namespace, key, size=True):
            return self._memory.put(namespace, key, value, expected_version)
        return await self._claim(lambda: self._memory.put(namespace, key, value, expected_version))

    async def forget(self, namespace: str, key: str, expected_version: int | None = None) -> Write | None:
        """See the port."""
        return await self._claim(lambda: self._memory.forget(namespace, key, expected_version))

    @property
    def _current(self) -> bool:
        """Whether what was stated before is in the views: then what is known needs no thread to be told."""
        return self._journal.views_cursor >= self._start

    async def _do(self, ask: Callable[[], T]) -> T:
        await self._journal.views_at(self._start)
        return await asyncio.to_thread(ask)

    async def _claim(self, claim: Callable[[], T]) -> T:
        """A claim whose asker has gone is let go: nobody else would ever end it."""
        claiming = asyncio.ensure_future(self._do(claim))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(_let_go)
            raise


def _let_go(claiming: asyncio.Future[Any]) -> None:
    if not claiming.cancelled() and claiming.exception() is None and claiming.result() is not None:
        claiming.result().end()
