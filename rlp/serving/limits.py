"""How often somebody may ask: a bucket that fills again, one per name.

Knows: time that only goes forward. Does not know: who asks, or for what.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

__all__ = ["Allowance"]

_MAX_NAMES = 1_024


class Allowance:
    """``per_s`` each second, ``burst`` at once, for each name of its own."""

    def __init__(self, *, per_s: float, burst: int, now: Callable[[], float] = monotonic) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._now = now
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> bool:
        """Take one; False when there is none."""
        now = self._now()
        left, since = self._left.get(name, (self._burst, now))
        left = min(self._burst, left + max(0.0, now - since) * self._per_s)
        allowed = left >= 1.0
        self._left[name] = (left - 1.0 if allowed else left, now)
        self._left.move_to_end(name)
        while len(self._left) > _MAX_NAMES:
            self._left.popitem(last=False)
        return allowed
