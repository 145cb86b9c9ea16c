"""How soon each model began to answer of late: a moving average, in memory.

Knows: milliseconds to the first word, or to the whole answer where it was not streamed; a failure counts as
the longest wait there is. Does not know: any clock, or what is done with the figures (``policy``). Nothing of
it outlives the daemon.
"""

from __future__ import annotations

__all__ = ["FirstWord"]

_WEIGHT = 0.3
"""Of the newest figure."""
_MOST = 256
"""Models remembered; the one that was measured first is forgotten first."""


class FirstWord:
    """Milliseconds to the first word, by ``provider:model``."""

    def __init__(self) -> None:
        self._ms: dict[str, float] = {}

    def note(self, target: str, ms: int) -> None:
        """Take in one figure."""
        before = self._ms.get(target)
        self._ms[target] = ms if before is None else before + _WEIGHT * (ms - before)
        if len(self._ms) > _MOST:
            del self._ms[next(iter(self._ms))]

    def of(self, target: str) -> int | None:
        """The average; None where nothing was measured yet."""
        found = self._ms.get(target)
        return None if found is None else round(found)
