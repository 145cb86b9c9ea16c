"""The ledger's answers, off the event loop: the adapter between the gate and ``pog``.

Knows: that views follow the ledger and must have caught up before they are asked, and that SQLite blocks.
Does not know: who may ask (``broker.knowledge_ops``) or how views are made. Implements
:class:`~runloopd.broker.ports.KnowledgePort`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from pog import why
from pog.memory import Memory
from pog.query import Knowledge
from pog.reader import Reader
from pog.redact import mask
from runloop.errors import UsageError
from runloopd.journal import Journal

__all__ = ["LedgerKnowledge"]


class LedgerKnowledge:
    """Answers from the views and the ledger of one daemon, never older than the question."""

    def __init__(self, knowledge: Knowledge, journal: Journal) -> None:
        if knowledge.reader is None:
            raise UsageError("the knowledge was opened without its ledger", code="kb.reader")
        self._knowledge = knowledge
        self._reader: Reader = knowledge.reader
        self._journal = journal
        self._memory = Memory(self._reader)
        journal.listen(self._memory.apply)

    @property
    def memory(self) -> Memory:
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
    ) -> dict[str, Any]:
        """See the port."""
        await self._caught_up()
        found = await asyncio.to_thread(self._knowledge.query, sql, params, limit, raw=raw, tables=tables)
        return found.to_json()

    async def search(self, query: str, k: int, kinds: Sequence[str], *, raw: bool) -> list[dict[str, Any]]:
        """See the port."""
        await self._caught_up()
        return await asyncio.to_thread(self._knowledge.search, query, k, kinds, raw=raw)

    async def read(self, kind: str, id: str, *, raw: bool) -> dict[str, Any]:
        """See the port."""
        await self._caught_up()
        return await asyncio.to_thread(self._knowledge.read, kind, id, raw=raw)

    async def why(self, ref: str, *, raw: bool, impact: bool = False) -> dict[str, Any]:
        """See the port."""
        found = await asyncio.to_thread(why.impact if impact else why.why, self._reader, ref)
        built: dict[str, Any] = mask(found.to_json(), emails=not raw)
        return built

    async def blob(self, digest: str) -> bytes:
        """See the port."""
        return await asyncio.to_thread(self._reader.blob, digest)

    async def _caught_up(self) -> None:
        await self._journal.views_at(self._journal.head_id)
