"""How often a server is asked again, how soon, and when it is left alone for a while.

Knows: pauses, their bounds, failures in a row. Does not know: which failures may be repeated (``call``), or
any clock: the time is an argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Breaker", "Patience"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How often, how soon, and when to leave a server alone."""

    attempts: int = 3
    backoff_ms: int = 250
    """First pause; doubles, and is shortened by up to half at random."""
    max_pause_ms: int = 20_000
    """Longest pause, also where the server asks for more."""
    breaker_failures: int = 5
    """Failures in a row after which a provider is left alone…"""
    breaker_rest_ms: int = 30_000
    """…for this long; then one call may try."""
    detect_ms: int = 150
    """What asking a server on this machine which models it has may take."""
    detected_for_ms: int = 60_000
    absent_for_ms: int = 10_000

    def pause_ms(self, attempt: int, jitter: float, asked_ms: int) -> int:
        """Pause after failed ``attempt`` (from 1); ``jitter`` in [0, 1); ``asked_ms`` is Retry-After."""
        own = (self.backoff_ms << (attempt - 1)) * (1 - jitter / 2)
        return min(math.ceil(max(own, asked_ms)), self.max_pause_ms)


class Breaker:
    """Counts failures in a row; opens, and lets one trial through after each rest."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failures = 0
        self._closed_from_ms = 0

    def open(self, now_ms: int) -> bool:
        """Whether the server is left alone at this moment."""
        return now_ms < self._closed_from_ms

    def admit(self, now_ms: int) -> bool:
        """Whether a call may go; the one that may after a rest makes the others wait for another."""
        if self.open(now_ms):
            return False
        if self._failures >= self._patience.breaker_failures:
            self._closed_from_ms = now_ms + self._patience.breaker_rest_ms
        return True

    def failed(self, now_ms: int) -> None:
        """A call failed in a way that another might not."""
        self._failures += 1
        if self._failures >= self._patience.breaker_failures:
            self._closed_from_ms = now_ms + self._patience.breaker_rest_ms

    def succeeded(self) -> None:
        """A call was answered: what was before is forgotten."""
        self._failures = 0
        self._closed_from_ms = 0
