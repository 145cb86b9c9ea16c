"""What the ledger says of triggers when a daemon starts, or when its clock was set back.

Knows: which questions the ledger answers quickly. Does not know: what follows from the answers (``book``).
"""

from __future__ import annotations

from pog.reader import Reader
from runloopd.triggers.allowance import DAY_MS
from runloopd.triggers.book import KINDS, Book, Trigger, label

__all__ = ["Record"]


class Record:
    """Asks the ledger. Usable from several threads."""

    def __init__(self, reader: Reader, *, alive: int) -> None:
        """``alive``: the newest event before this daemon stated any, the last sign of life of the one before;
        0: there is none."""
        self._reader = reader
        self._alive_ms = reader.event(alive).ts_ms if alive else 0

    def restore(self, book: Book) -> int:
        """Fold what was set and where each trigger stands; returns when the ledger was last written to.

        A due time is unaccounted for if it lies behind the last one that is accounted for; or, where a clock
        was set back, behind the last sign of life.
        """
        events = [*self._reader.events(kinds=KINDS), *self._reader.trigger_marks()]
        book.take(sorted(events, key=lambda event: event.id))
        alive_ms = self._alive_ms
        triggers = book.triggers.values()
        low = min((min(trigger.position, alive_ms) for trigger in triggers), default=alive_ms)
        fired = self._reader.fired_beyond(low) if triggers else []
        for trigger in triggers:
            own = [due for name, due in fired if name == trigger.name]
            trigger.highest = max((trigger.highest, *own))
            trigger.step_back(min(trigger.position, alive_ms), own)
        return alive_ms

    def spent(self, now_ms: int) -> list[tuple[int, int]]:
        """Of every scheduled run that ended within a day: when, and what it cost."""
        return self._reader.spent_by(label(""), now_ms - DAY_MS)

    def exists(self, run: str) -> bool:
        """Whether a run was started."""
        return next(self._reader.events(run=run, limit=1), None) is not None

    def fired_beyond(self, trigger: Trigger, now_ms: int) -> list[int]:
        """Its due times after a moment that have fired already."""
        return [due for name, due in self._reader.fired_beyond(now_ms) if name == trigger.name]

    def blob(self, digest: str) -> bytes:
        """Recorded bytes."""
        return self._reader.blob(digest)
