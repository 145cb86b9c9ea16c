"""Time as a dependency: whoever needs it is given a clock, nobody reads one.

The twin for tests is :class:`runloop.testing.ManualClock`. Guests have no clock at all: ``time.now`` is a
host call.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """What the daemon asks of time."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        ...

    async def sleep_until(self, due_ms: int) -> None:
        """Return when ``now_ms() >= due_ms``; at once if it is past."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep_until(self, due_ms: int) -> None:
        import asyncio  # heavy, and only whoever has a loop comes here: rlp asks the time and nothing else

        # A loop, because the wall clock may be set back, or the machine suspended, while we sleep.
        while (left := due_ms - self.now_ms()) > 0:  # noqa: ASYNC110  (the wall clock has no event to wait for)
            await asyncio.sleep(min(left / 1000, 3600))
