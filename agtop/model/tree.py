"""The tree of a run's spans, for any number of its facts: which rows are open, what lies in what.

Knows: the order of rows, what is folded away, how far each span reaches at a moment. Pure; reads facts in
pieces like ``model.ladder``. Does not know: what begins and ends a span (``runloop.spans``).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from agtop.model.ladder import CHUNK, Facts, event_of
from runloop.spans import Span, Spans

__all__ = ["SpanTree", "TreeRow"]

OPEN_ALL = 400
"""Up to this many spans everything is open at first; beyond, calls and messages are folded into attempts."""
_CLOSED_AT_FIRST = "attempt"


class TreeRow(NamedTuple):
    """One span as it stands at a moment."""

    span: Span
    depth: int
    inner: int
    """Spans directly below it."""
    open: bool
    ended: bool
    """Whether it has ended by that moment."""
    orphan: bool
    """It says it lies in a span that is not on record."""


class SpanTree:
    """An index over facts that only grow in number."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._spans = Spans()
        self._seen = 0
        self._below: dict[str | None, list[Span]] = {}
        self._placed = 0

    def read(self, upto: int, most: int = CHUNK) -> bool:
        """Take in the first ``upto`` facts, ``most`` of them now; whether that was all."""
        end = min(upto, len(self._facts))
        stop = min(end, self._seen + most)
        for fact in self._facts.facts(self._seen, stop):
            try:
                self._spans.take(event_of(fact))
            except (KeyError, TypeError):
                continue  # of a shape this build does not know
        self._seen = max(self._seen, stop)
        made = self._spans.made
        for span in list(made.values())[self._placed :] if len(made) > self._placed else ():
            self._below.setdefault(span.parent, []).append(span)
        self._placed = len(made)
        return self._seen >= end

    def rows(self, index: int, toggled: Collection[str] = ()) -> list[TreeRow]:
        """The open rows after ``index`` facts; ``toggled``: spans that are not as they are at first."""
        if not index:
            return []
        newest = self._facts.fact(index - 1).id
        small = len(self._spans.made) <= OPEN_ALL
        made = self._spans.made
        roots = [span for span in made.values() if span.parent not in made]
        found: list[TreeRow] = []
        stack = [(0, span) for span in reversed(roots) if span.event <= newest]
        while stack:
            depth, span = stack.pop()
            inner = [one for one in self._below.get(span.span, ()) if one.event <= newest]
            opened = (small or span.kind != _CLOSED_AT_FIRST) != (span.span in toggled)
            ended = span.ended_by is not None and span.ended_by <= newest
            orphan = depth == 0 and span.parent is not None
            found.append(TreeRow(span, depth, len(inner), opened and bool(inner), ended, orphan))
            if opened:
                stack += [(depth + 1, one) for one in reversed(inner)]
        return found
