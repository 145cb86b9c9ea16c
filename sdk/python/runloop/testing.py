"""In-memory twins of the boundaries, shipped with the product so that everyone's tests read alike."""

from __future__ import annotations

import asyncio
import heapq

__all__ = ["ManualClock"]


class ManualClock:
    """A clock that moves when a test says so."""

    def __init__(self, now_ms: int = 1_750_000_000_000) -> None:
        self._now_ms = now_ms
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def now_ms(self) -> int:
        return self._now_ms

    def advance(self, ms: int) -> None:
        """Move on by ``ms`` and wake whoever is due, in the order they are due."""
        self._now_ms += ms
        while self._sleepers and self._sleepers[0][0] <= self._now_ms:
            _, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                sleeper.set_result(None)

    async def sleep_until(self, due_ms: int) -> None:
        if due_ms <= self._now_ms:
            return
        self._count += 1
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (due_ms, self._count, sleeper))
        await sleeper
