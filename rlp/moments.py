"""What a person means by ``--at``: an event by number, or a time as they write it. Events are named alike
everywhere: ``1234`` or ``#1234``.

Knows: how times are written. Does not know: what was known then (``pog.moment``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from rlp.session import Session
from runloop.errors import UsageError
from runloop.quantities import moment as clock_text

if TYPE_CHECKING:
    from pog.query import Knowledge

__all__ = ["event_number", "knowledge_then", "parse", "since_ms"]

_EVENT = re.compile(r"#?([0-9]{1,15})\Z")
_SPAN = re.compile(r"([0-9]{1,6})(m|h|d|w)\Z")
_SECONDS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def event_number(text: str, *, hint: str) -> int:
    """The event a person names; raises :class:`UsageError` (``cli.event``) for anything else."""
    found = _EVENT.match(text)
    if found is None:
        raise UsageError(f"{text[:80]!r} is not an event number", hint=hint, code="cli.event")
    return int(found[1])


def parse(text: str) -> tuple[int | None, int | None]:
    """``(event, None)`` or ``(None, unix milliseconds)``; a time without a zone is of this machine's zone.

    A day alone, and a minute without seconds, mean their end: what was known on that day.
    """
    if found := _EVENT.match(text):
        return int(found[1]), None
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is neither an event nor a time",
            hint="--at 1234, --at 2031-01-31, --at '2031-01-31 18:00', --at 2031-01-31T18:00:00Z",
            code="cli.at",
        ) from error
    spans = {10: 86_400_000, 16: 60_000}
    last = spans.get(len(text), 1) - 1
    return None, int(when.timestamp() * 1000) + last


def since_ms(text: str) -> int:
    """Unix milliseconds of ``30d``, ``12h`` ago, or of a day or time."""
    span = _SPAN.match(text)
    if span is not None:
        return int((time.time() - int(span[1]) * _SECONDS[span[2]]) * 1000)
    try:
        event, at_ms = parse(text)
    except UsageError:
        event, at_ms = 0, None
    if event is not None or at_ms is None:
        raise UsageError(
            f"{text[:80]!r} says no time that lies back",
            hint="--since 30d, --since 12h, --since 2031-01-31",
            code="cli.since",
        )
    return at_ms - 86_399_999 if len(text) == 10 else at_ms


@contextmanager
def knowledge_then(session: Session, at: str) -> Iterator[Knowledge]:
    """The knowledge as it was, folded from the ledger's files; needs no daemon."""
    from pog import moment

    event, at_ms = parse(at)
    found = moment.find(session.paths.events_db, event=event, at_ms=at_ms)
    when = f", stated {clock_text(found.ts_ms)}" if found.event else ": before the first event"
    session.console.say(f"as it was after event {found.event}{when}", "dim")
    with moment.knowledge_at(session.paths.events_db, found) as knowledge:
        yield knowledge
