"""What everything that waits for a word has in common: moves carried to their end, the first of some waits.

Knows: asyncio. Does not know: what is waited for: approvals, promises, durable consumers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from runloop.errors import RunloopError

__all__ = ["Moves", "first"]

T = TypeVar("T")


class Moves:
    """Moves under way: each is carried to its end, even when its caller is cancelled, because the ledger and
    what is remembered of it must agree."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Future[Any]] = set()

    def begin(self, move: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Start a move; nobody need wait for it."""
        task = asyncio.ensure_future(move)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def whole(self, move: Coroutine[Any, Any, T]) -> T:
        """The result of a move. Cancelling the caller does not cancel the move."""
        begun = self.begin(move)
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(_unheard)
            raise

    async def close(self) -> None:
        """Wait for what is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)


def _unheard(move: asyncio.Future[Any]) -> None:
    """A move ended whose caller is gone: a refusal was for that one alone, the rest are faults of ours."""
    error = None if move.cancelled() else move.exception()
    if error is not None and not isinstance(error, RunloopError):
        move.get_loop().call_exception_handler(
            {"message": "a move failed whose caller is gone", "exception": error, "future": move}
        )


async def first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait for the first of several; the others are cancelled and awaited."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
