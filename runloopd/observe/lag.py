"""How late the daemon's event loop is: measured while somebody looks, and for a while after.

Knows: when a tick was due and when it came. Does not know: what made it late.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

__all__ = ["Lag", "LoopLag"]

TICK_S = 0.1
WATCHED_S = 15.0
"""After the last look the ticking ends: an idle daemon wakes for nobody."""


@dataclass(frozen=True, slots=True)
class Lag:
    """Lateness of the ticks of an interval, in milliseconds."""

    most_ms: float
    mean_ms: float


class LoopLag:
    """Used from one event loop. :meth:`close` ends the ticking."""

    def __init__(self, *, tick_s: float = TICK_S, watched_s: float = WATCHED_S) -> None:
        self._tick = tick_s
        self._watched = watched_s
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._ticks: deque[tuple[float, float]] = deque(maxlen=int(watched_s / tick_s) + 1)
        """When it came, and how late, in seconds of the loop's clock."""

    @property
    def awake(self) -> bool:
        """Whether it ticks."""
        return self._timer is not None

    def look(self, since: float | None = None) -> Lag | None:
        """The lateness of the ticks after ``since`` (seconds of the loop's clock; None: of those there are);
        None before the first. From now on, for a while, it ticks."""
        loop = asyncio.get_running_loop()
        self._until = loop.time() + self._watched
        if self._timer is None:
            self._arm(loop)
        late = [delay for at, delay in self._ticks if since is None or at > since]
        if not late:
            return None
        return Lag(max(late) * 1_000, sum(late) / len(late) * 1_000)

    def close(self) -> None:
        """Tick no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ticks.clear()

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + self._tick
        self._timer = loop.call_at(due, self._came, loop, due)

    def _came(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self._ticks.append((now, max(0.0, now - due)))
        if now < self._until:
            self._arm(loop)
        else:
            self.close()
