"""Durations as people write them: ``500ms``, ``30s``, ``1h30m``. Inside, they are integer milliseconds.

Knows: units, and what is too long for JSON. Does not know: where a duration stands, or how long one may be
there (``keys``).
"""

from __future__ import annotations

import re

from runloop.digest import MAX_SAFE

__all__ = ["DURATION", "milliseconds", "written"]

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
"""Largest first."""
_PART = re.compile(r"([0-9]+)(ms|[smhd])")
DURATION = re.compile(rf"(?:{_PART.pattern})+(?![A-Za-z0-9_])")
"""One duration, with nothing of a word behind it."""


def milliseconds(text: str) -> int:
    """What a duration means; raises :class:`ValueError` for another text, and beyond 2^53-1 ms."""
    if DURATION.fullmatch(text) is None:
        raise ValueError("it is no duration")
    found = sum(int(count) * _UNITS[unit] for count, unit in _PART.findall(text))
    if found > MAX_SAFE:
        raise ValueError("it is beyond 2^53-1 ms")
    return found


def written(ms: int) -> str:
    """In the largest unit that divides it."""
    for unit, size in _UNITS.items():
        if ms and ms % size == 0:
            return f"{ms // size}{unit}"
    return "0ms"
