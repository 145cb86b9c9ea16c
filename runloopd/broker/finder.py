"""Search for the daemon: words and vectors, and the vectors kept abreast of what is learnt.

Knows: when an index of vectors may be asked, who makes the vectors of a question, what to do without them.
Does not know: SQL, ranks, or providers (``pog.search``, ``pog.vectors``, ``broker.indexing``).

The lexical index is always there. An index by a model is asked once it holds everything; while it is made, or
when its model does not answer, the lexical one answers, and every hit says who found it. Vectors of different
embedders lie in different files and are never compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import structlog

from pog.embed import LEXICAL, Vector
from pog.query import Knowledge
from pog.reader import Reader
from pog.search import CANDIDATES, MAX_QUERY_CHARS, By, words_of
from pog.vectors import Passages, VectorIndex
from runloop.errors import RunloopError
from runloopd.journal import Journal

__all__ = ["Finder", "ModelEmbedder"]

log = structlog.get_logger(__name__)

_AT_ONCE = 256
"""Searchables that a search embeds itself rather than answer without them."""
_RESTED_S = 0.02
"""Between two batches in the background: whoever waits for the interpreter gets it."""
_AGAIN_S = 30.0
"""After a failure."""


class ModelEmbedder(Protocol):
    """Vectors by a model, through the broker."""

    @property
    def name(self) -> str:
        """Changes with whatever would change a vector."""
        ...

    async def question(self, text: str) -> Vector:
        """The vector of what somebody asks. Raises families of :mod:`runloop.errors`."""
        ...

    async def passages(self, batch: Sequence[Passages]) -> list[list[Vector]]:
        """Vectors of what is indexed, recorded as such. Raises families of :mod:`runloop.errors`."""
        ...


class Finder:
    """One per daemon. :meth:`follow` runs in the background; :meth:`close` at the end."""

    def __init__(
        self,
        knowledge: Knowledge,
        reader: Reader,
        journal: Journal,
        *,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._knowledge = knowledge
        self._reader = reader
        self._journal = journal
        self._sleep = sleep
        self._folder: Path = knowledge.path.parent
        self._opening = asyncio.Lock()
        self._lexical: VectorIndex | None = None
        self._model: VectorIndex | None = None
        self._embedder: ModelEmbedder | None = None
        self._whole = False
        """The model's index holds everything, apart from what was learnt a moment ago."""
        self._news = asyncio.Event()
        self._closed = False
        self._stop = journal.listen(lambda _: self._news.set())

    def use(self, embedder: ModelEmbedder | None) -> None:
        """Let a model make the vectors; None: the lexical index alone. Before :meth:`follow`."""
        self._embedder = embedder

    async def close(self) -> None:
        """Let go of the files."""
        self._closed = True
        self._stop()
        async with self._opening:
            for index in (self._lexical, self._model):
                if index is not None:
                    await asyncio.to_thread(index.close)

    # --- asking ----------------------------------------------------------------------------------

    async def search(self, query: str, k: int, kinds: Sequence[str], *, raw: bool) -> list[dict[str, Any]]:
        """See ``KnowledgePort.search``; the views have caught up."""
        query = query[:MAX_QUERY_CHARS]  # who makes vectors gets, and keeps, no more than the words do
        by = await self._by(query, kinds) if words_of(query) else None
        return await asyncio.to_thread(self._knowledge.search, query, k, kinds, raw=raw, by=by)

    async def _by(self, query: str, kinds: Sequence[str]) -> By | None:
        """Hits by vector; None when no index can be asked: words are found all the same."""
        embedder, index = self._embedder, self._model
        if embedder is not None and index is not None and self._whole:
            try:
                vector = await embedder.question(query)
                hits = await asyncio.to_thread(index.nearest, vector, CANDIDATES, kinds)
                return By(embedder=embedder.name, hits=hits)
            except Exception as error:
                _note("search_without_model", error)
        try:
            lexical = await self._lexical_index()
            return await asyncio.to_thread(_nearest, lexical, query, kinds)
        except Exception as error:
            _note("search_without_vectors", error)
            return None

    async def _lexical_index(self) -> VectorIndex:
        async with self._opening:
            if self._lexical is None:
                self._lexical = await asyncio.to_thread(
                    self._open, "vectors.db", LEXICAL.name, LEXICAL.dimensions
                )
            return self._lexical

    def _open(self, file: str, embedder: str, dimensions: int) -> VectorIndex:
        return VectorIndex.open(self._folder / file, self._knowledge.path, self._reader, embedder, dimensions)

    # --- following -------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Keep the indexes abreast of the views; runs until cancelled."""
        while not self._closed:
            self._news.clear()
            try:
                await self._journal.views_at(self._journal.head_id)
                await self._follow_lexical()
                await self._follow_model()
            except Exception as error:
                self._whole = False
                _note("index_behind", error)
                await self._sleep(_AGAIN_S)
                continue
            await self._news.wait()
            await self._sleep(_RESTED_S)

    async def _follow_lexical(self) -> None:
        index = await self._lexical_index()
        while not await asyncio.to_thread(index.catch_up, LEXICAL, limit=16):
            await self._sleep(_RESTED_S)

    async def _follow_model(self) -> None:
        embedder = self._embedder
        if embedder is None:
            return
        if self._model is None:
            dimensions = len((await embedder.question("dimensions")).numbers)
            async with self._opening:
                self._model = await asyncio.to_thread(
                    self._open, "vectors-model.db", embedder.name, dimensions
                )
        while batch := await asyncio.to_thread(self._model.wanted, 16):
            await asyncio.to_thread(self._model.keep, batch, await embedder.passages(batch))
            await self._sleep(_RESTED_S)
        if not self._whole:
            log.info("index_whole", embedder=embedder.name, vectors=self._model.size)
        self._whole = True


def _nearest(index: VectorIndex, query: str, kinds: Sequence[str]) -> By:
    index.catch_up(LEXICAL, limit=_AT_ONCE)
    (vector,) = LEXICAL.embed([query])
    floor = LEXICAL.floor_among(index.size)
    return By(embedder=LEXICAL.name, hits=index.nearest(vector, CANDIDATES, kinds, floor=floor))


def _note(event: str, error: Exception) -> None:
    """What an index cannot do costs recall, never an answer: told in the log."""
    if isinstance(error, RunloopError):
        log.warning(event, code=error.named_code, reason=error.message)
    else:
        log.warning(event, exc_info=error)
