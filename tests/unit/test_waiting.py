"""Moves are carried to their end, and what becomes of them is heard by somebody."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from runloop.errors import UnreachableError
from runloopd.waiting import Moves


async def _left_alone(failure: Exception | None) -> list[str]:
    """What the loop is told after a caller went away and the move then ended."""
    told: list[str] = []

    def hear(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        told.append(context["message"])

    asyncio.get_running_loop().set_exception_handler(hear)
    moves, go_on = Moves(), asyncio.Event()

    async def move() -> str:
        await go_on.wait()
        if failure is not None:
            raise failure
        return "done"

    caller = asyncio.ensure_future(moves.whole(move()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go_on.set()
    await moves.close()
    await asyncio.sleep(0)
    del caller
    gc.collect()
    return told


async def test_a_refusal_that_nobody_waits_for_any_more_is_no_fault_of_the_daemon() -> None:
    assert await _left_alone(UnreachableError("the daemon stops")) == []
    assert await _left_alone(None) == []


async def test_a_fault_that_nobody_waits_for_is_told_to_the_loop() -> None:
    assert await _left_alone(ZeroDivisionError("a mistake")) == ["a move failed whose caller is gone"]


async def test_whoever_still_waits_hears_of_the_failure_itself() -> None:
    async def move() -> None:
        raise UnreachableError("the daemon stops")

    with pytest.raises(UnreachableError):
        await Moves().whole(move())
