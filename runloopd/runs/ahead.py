"""Attempts of a replay executed side by side, a little ahead of the walk that demands them.

Every attempt hears its own record and no other, so their order does not matter; the order in which they are
compared is the record's all the same, because the walk asks for them one after another.

Knows: how far ahead to go. Does not know: what an attempt is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType

from openings.replay import AttemptOutcome, Reexecute

__all__ = ["Ahead"]

Execute = Callable[[Reexecute], Awaitable[AttemptOutcome]]
_Key = tuple[str, int]


class Ahead:
    """An async context: leaving it stops what is still being executed."""

    def __init__(self, execute: Execute, foreseen: Iterator[Reexecute], *, width: int) -> None:
        """``width``: attempts executed at a time; as many again may be done and not asked for yet."""
        self._execute = execute
        self._foreseen = foreseen
        self._window = 2 * width
        self._room = asyncio.Semaphore(width)
        self._begun: dict[_Key, tuple[Reexecute, asyncio.Task[AttemptOutcome]]] = {}

    async def __aenter__(self) -> Ahead:
        self._fill()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        tasks = [task for _, task in self._begun.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def outcome(self, demand: Reexecute) -> AttemptOutcome:
        """How this very attempt went; executed now unless it was foreseen exactly as it is demanded."""
        begun = self._begun.pop((demand.node, demand.attempt), None)
        if begun is None or begun[0] != demand:
            if begun is not None:
                begun[1].cancel()
                await asyncio.gather(begun[1], return_exceptions=True)
            task = self._start(demand)
        else:
            task = begun[1]
        self._fill()
        try:
            return await task
        except asyncio.CancelledError:
            task.cancel()
            raise

    def _fill(self) -> None:
        while len(self._begun) < self._window and (demand := next(self._foreseen, None)) is not None:
            self._begun[demand.node, demand.attempt] = demand, self._start(demand)

    def _start(self, demand: Reexecute) -> asyncio.Task[AttemptOutcome]:
        return asyncio.create_task(self._within_room(demand))

    async def _within_room(self, demand: Reexecute) -> AttemptOutcome:
        async with self._room:
            return await self._execute(demand)
