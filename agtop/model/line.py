"""A fact as one line of a log, and which lines are wanted.

Knows: what is said of a fact where its node and its time stand beside it, which kinds are mere mechanics,
how a filter is written. Does not know: the screen. Texts are foreign: whoever shows them escapes them. Pure.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable
from typing import Any, NamedTuple

from agtop.model.facts import Fact, Unknown, told
from agtop.model.timeline import Timeline
from pog.words import WORDS

__all__ = ["MINOR", "Filter", "Line", "Matches", "line_of"]

MINOR = frozenset(
    {
        "agent.transition",
        "cap.audit",
        "consumer.advanced",
        "message.sent",
        "secret.used",
        "timer.fired",
        "timer.set",
        "token.issued",
    }
)
"""Kinds that say how the machinery turned, and hardly ever what came of it."""
MAX_WORDS = 2_000
"""Characters of one line; the whole of a fact is in its details."""


class Line(NamedTuple):
    """One line: ``node`` and ``words`` are foreign, ``tone`` is a colour of the theme or empty."""

    node: str
    words: str
    tone: str
    minor: bool


def line_of(fact: Fact) -> Line:
    """The line of a fact."""
    payload: Any = fact.payload
    node = str(getattr(payload, "node", None) or fact.provenance.node or "")
    words = " ".join(_words(fact).split())[:MAX_WORDS]
    minor = fact.kind in MINOR and not _refused(payload)
    return Line(node, words, _tone(fact.kind, payload, minor), minor)


def _words(fact: Fact) -> str:
    payload: Any = fact.payload
    if isinstance(payload, Unknown):
        return f"{fact.kind} {json.dumps(told(fact), ensure_ascii=True, default=str)}"
    own = _HERE.get(fact.kind)
    if own is not None:
        return own(payload)
    known = WORDS.get(fact.kind)
    return known(payload) if known is not None else fact.kind


def _error(payload: Any) -> str:
    return "" if payload.error is None else f": {payload.error.code}: {payload.error.message}"


def _attempt(payload: Any) -> str:
    return "begins" if payload.attempt == 1 else f"begins attempt {payload.attempt}"


def _model(payload: Any) -> str:
    tokens = f"{payload.input_tokens} tokens in, {payload.output_tokens} out"
    how = "" if payload.source == "asked" else f", from the {payload.source}"
    return f"{payload.provider} {payload.model} answered{how}: {tokens}"


def _denied(payload: Any) -> str:
    return f"{payload.decision} {payload.op}" + (f": {payload.reason}" if payload.reason else "")


_HERE: dict[str, Callable[[Any], str]] = {
    "node.scheduled": _attempt,
    "node.finished": lambda p: f"{p.status.replace('_', ' ')}{_error(p)}",
    "node.skipped": lambda p: f"skipped: {p.reason}",
    "node.cancelled": lambda p: f"cancelled: {p.reason or 'the run ended'}",
    "node.gathered": lambda p: f"{p.status}: {p.items} items, {p.failed} failed{_error(p)}",
    "run.finished": lambda p: f"run {p.outcome}" + (f" because {p.clause}" if p.clause else "") + _error(p),
    "hostcall.admitted": lambda p: f"asks {p.op}",
    "hostcall.delivered": lambda p: f"{p.op} " + ("answered" if p.ok else "refused"),
    "model.called": _model,
    "cap.audit": _denied,
    "agent.transition": lambda p: f"{p.agent}: {p.before} to {p.after} ({p.trigger})",
}
"""What is said where the node stands beside it; of other kinds, what ``pog.words`` says."""


def _refused(payload: Any) -> bool:
    return getattr(payload, "decision", None) == "denied"


def _tone(kind: str, payload: Any, minor: bool) -> str:
    status = getattr(payload, "status", None) or getattr(payload, "outcome", None)
    if status in ("failed", "timed_out", "cancelled", "unknown") or kind in _WRONG or _refused(payload):
        return "error"
    if kind in _NEEDS or getattr(payload, "ok", True) is False:
        return "warning"
    if status in ("succeeded", "done") or kind in _GOOD:
        return "success"
    return "dim" if minor else ""


_WRONG = frozenset({"quota.exceeded", "node.cancelled", "agent.quarantined", "promise.timed_out"})
_NEEDS = frozenset(
    {"action.requested", "promise.created", "quota.warned", "run.cancel_requested", "run.resumed"}
)
_GOOD = frozenset({"artifact.created", "email.sent"})


class Filter(NamedTuple):
    """Which lines are wanted: every word of ``wanted`` is in it, and none of ``unwanted``."""

    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    minor: bool = True
    """Whether mere mechanics are wanted too."""

    @classmethod
    def parse(cls, typed: str, *, minor: bool = True) -> Filter:
        """Words as somebody types them; ``-word`` for lines without it. Upper and lower case are one."""
        words = typed.lower().split()
        return cls(
            tuple(word for word in words if not (word.startswith("-") and len(word) > 1)),
            tuple(word[1:] for word in words if word.startswith("-") and len(word) > 1),
            minor,
        )

    @property
    def takes_all(self) -> bool:
        return not self.wanted and not self.unwanted and self.minor

    def takes(self, fact: Fact) -> bool:
        """Whether the line of a fact is wanted."""
        if not self.wanted and not self.unwanted:
            return self.minor or fact.kind not in MINOR or _refused(fact.payload)
        line = line_of(fact)
        if line.minor and not self.minor:
            return False
        text = f"{fact.kind} {line.node} {line.words}".lower()
        return all(word in text for word in self.wanted) and not any(word in text for word in self.unwanted)


class Matches:
    """The places of a time line that a filter takes, found in pieces."""

    def __init__(self, timeline: Timeline, wanted: Filter) -> None:
        self.timeline = timeline
        self.filter = wanted
        self._places: list[int] = []
        self._scanned = 0

    def scan(self, budget: int) -> bool:
        """Look at so many more facts; returns whether all of them have been looked at."""
        if self.filter.takes_all:
            return True
        stop = min(self._scanned + budget, len(self.timeline))
        for place, fact in enumerate(self.timeline.facts(self._scanned, stop), self._scanned):
            if self.filter.takes(fact):
                self._places.append(place)
        self._scanned = stop
        return stop == len(self.timeline)

    @property
    def left(self) -> int:
        """Facts that were not looked at yet."""
        return 0 if self.filter.takes_all else len(self.timeline) - self._scanned

    def count(self, index: int) -> int:
        """How many of the first ``index`` facts are wanted, as far as they were looked at."""
        return index if self.filter.takes_all else bisect_left(self._places, index)

    def place(self, row: int) -> int:
        """Where in the time line a row stands."""
        return row if self.filter.takes_all else self._places[row]

    def row(self, place: int) -> int:
        """The row of a place, or the one behind it."""
        return place if self.filter.takes_all else bisect_left(self._places, place)
