"""What samples of ``agents.metrics`` were like over the last minute, and how a course is drawn in a row.

Knows: which figures are kept, for how many samples, that a sample is taken in once. Does not know: the
screen, columns (``runloop.metrics``), who asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["KEPT", "History", "spark"]

KEPT = 120
"""Samples a course is made of: two minutes at one a second."""
AGENT_FIGURES = ("cpu_percent", "tokens_s", "rss_bytes")
DAEMON_FIGURES = ("cpu_percent", "events_s", "lag_ms")
_BARS = " ▁▂▃▄▅▆▇█"

Course = deque[float | None]


class History:
    """Courses of the daemon and of every agent that the newest sample tells of."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._agents: dict[str, dict[str, Course]] = {}
        self._daemon: dict[str, Course] = {name: deque(maxlen=kept) for name in DAEMON_FIGURES}
        self._last: tuple[Any, Any] | None = None

    def take(self, sample: Mapping[str, Any]) -> bool:
        """Take in a sample; False for one that was taken already."""
        mark = sample.get("sample"), sample.get("at_ms")
        if mark == self._last:
            return False
        self._last = mark
        rows = {str(row["agent"]): row for row in sample.get("agents", ())}
        for gone in self._agents.keys() - rows.keys():
            del self._agents[gone]
        for name, row in rows.items():
            courses = self._agents.get(name)
            if courses is None:
                courses = self._agents[name] = {each: deque(maxlen=self._kept) for each in AGENT_FIGURES}
            _append(courses, row)
        _append(self._daemon, sample.get("daemon", {}))
        return True

    def agent(self, name: str, figure: str) -> Sequence[float | None]:
        """The course of one figure of an agent, oldest first; None where it was not known."""
        return tuple(self._agents.get(name, {}).get(figure, ()))

    def daemon(self, figure: str) -> Sequence[float | None]:
        """The course of one figure of the daemon."""
        return tuple(self._daemon.get(figure, ()))


def _append(courses: Mapping[str, Course], row: Mapping[str, Any]) -> None:
    for figure, course in courses.items():
        value = row.get(figure)
        course.append(float(value) if isinstance(value, int | float) else None)


def spark(values: Iterable[float | None], width: int, *, least_top: float = 0.0) -> str:
    """The newest ``width`` values as bars of one column each, the highest of them as high as the row.

    ``least_top``: what a full bar stands for at least, so that a flicker does not look like a storm. A value
    that is not known is a blank, and zero the lowest bar; what is missing on the left is blank.
    """
    if width <= 0:
        return ""
    shown = list(values)[-width:]
    known = [max(0.0, value) for value in shown if value is not None]
    top = max([least_top, *known])
    bars = "".join(" " if value is None else _bar(max(0.0, value), top) for value in shown)
    return bars.rjust(width)


def _bar(value: float, top: float) -> str:
    if top <= 0 or value <= 0:
        return _BARS[1]
    return _BARS[min(8, 1 + round(value / top * 7))]
