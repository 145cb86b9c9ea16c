"""The breaker: how many failures of one agent, in how short a time, are too many.

Knows: the moments of failures that count, each with the event that states it. Pure: time comes with the
events, so that a restart which reads the same events comes to the same verdict. Does not know: what counts
as a failure (``failures``), or what follows when it trips (``quarantine``).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

__all__ = ["Breaker"]


@dataclass(slots=True, kw_only=True)
class Breaker:
    """One per daemon; counts every agent by itself."""

    failures: int = 8
    """So many within the window are too many."""
    window_ms: int = 600_000
    _moments: dict[str, deque[tuple[int, int]]] = field(default_factory=dict)
    """Agent -> ``(ts_ms, event)`` of its newest failures, at most ``failures`` of them."""

    def note(self, agent: str, ts_ms: int, event: int) -> tuple[int, ...]:
        """Count one failure; the events of those that are too many, or nothing."""
        moments = self._moments.setdefault(agent, deque(maxlen=self.failures))
        moments.append((ts_ms, event))
        if len(moments) < self.failures or ts_ms - moments[0][0] > self.window_ms:
            return ()
        return tuple(event for _, event in moments)

    def forget(self, agent: str) -> None:
        """Start counting anew."""
        self._moments.pop(agent, None)
