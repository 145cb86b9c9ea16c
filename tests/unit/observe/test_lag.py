"""The lateness of the loop is measured while somebody looks, and for nobody else."""

from __future__ import annotations

import asyncio
import time

from runloopd.observe.lag import LoopLag


async def until(lag: LoopLag, since: float | None = None) -> float:
    async with asyncio.timeout(20):
        while (found := lag.look(since)) is None:
            await asyncio.sleep(0.005)
    return found.most_ms


async def test_nothing_is_known_before_the_first_tick_and_nothing_ticks_before_the_first_look() -> None:
    lag = LoopLag(tick_s=0.01)
    before = lag.awake
    assert lag.look() is None
    assert (before, lag.awake) == (False, True)
    assert await until(lag) >= 0
    lag.close()
    assert not lag.awake


async def test_a_loop_that_was_held_up_is_seen_to_be_late_by_that_much() -> None:
    lag = LoopLag(tick_s=0.01)
    await until(lag)
    held = asyncio.get_running_loop().time()
    time.sleep(0.2)
    assert await until(lag, held) >= 150
    lag.close()


async def test_what_was_late_before_the_interval_is_not_told_again() -> None:
    lag = LoopLag(tick_s=0.01)
    await until(lag)
    time.sleep(0.2)
    await until(lag)
    async with asyncio.timeout(20):
        while (found := lag.look(asyncio.get_running_loop().time() - 0.05)) is None or found.most_ms >= 150:
            await asyncio.sleep(0.01)
    lag.close()


async def test_when_nobody_looks_any_more_the_ticking_ends() -> None:
    lag = LoopLag(tick_s=0.005, watched_s=0.02)
    await until(lag)
    async with asyncio.timeout(20):
        while lag.awake:
            await asyncio.sleep(0.005)
    assert lag.look() is None, "what was measured then says nothing of now"
    lag.close()
