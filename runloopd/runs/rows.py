"""The rows of a run as they are stored: each one's hash computed again, and only then read.

Knows: that a row's hash binds every column of it and the hash before it, and how to find the column that was
changed. Does not know: what the events mean. What lies between the rows of one run is other runs' matter:
whether the ledger as a whole chains is for ``rlp verify`` to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from openings.certificate import Divergence
from pog.chain import RawRow, decode_row, text_row
from pog.errors import LedgerCorruptError
from pog.maintain.locate import blame, relink
from runloop.events import Event

__all__ = ["Rows", "read"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """A run's events, or why they are not to be believed."""

    events: list[Event]
    """Up to the first row that could not be read."""
    count: int
    """Rows there are."""
    hashes: int
    """Rows whose hash was computed again and is theirs."""
    divergence: Divergence | None = None
    unreadable: str | None = None
    """A row whose hash is right, and which holds no event this build knows."""


def read(rows: Iterable[RawRow]) -> Rows:
    """Check and decode the rows of one run, in the order of their ids."""
    events: list[Event] = []
    count = hashes = 0
    divergence: Divergence | None = None
    unreadable: str | None = None
    before: RawRow | None = None
    for raw in rows:
        count += 1
        if divergence is not None:
            continue
        divergence = _changed(raw) or _unchained(before, raw)
        before = raw
        if divergence is not None:
            continue
        hashes += 1
        if unreadable is None:
            try:
                events.append(decode_row(text_row(raw)))
            except (LedgerCorruptError, UnicodeDecodeError) as error:
                unreadable = str(error)
    return Rows(events=events, count=count, hashes=hashes, divergence=divergence, unreadable=unreadable)


def _changed(raw: RawRow) -> Divergence | None:
    """How a row differs from what was hashed when it was written."""
    made = relink(raw, raw[10])
    if made == raw[9]:
        return None
    column, what = blame(raw)
    return _at(raw, column, what, _hex(raw[9]), _hex(made))


def _unchained(before: RawRow | None, raw: RawRow) -> Divergence | None:
    """Two rows of the run that lie next to each other in the ledger hold on to each other."""
    if before is None or raw[0] > before[0] + 1:
        return None
    if raw[0] <= before[0]:
        return _at(raw, "id", "it is out of order", str(before[0] + 1), str(raw[0]))
    if raw[10] == before[9]:
        return None
    what = "its prev_hash is not the hash of the event before it"
    return _at(raw, "prev_hash", what, _hex(raw[10]), _hex(before[9]))


def _at(raw: RawRow, column: str, what: str, expected: str, actual: str) -> Divergence:
    return Divergence(
        code="replay.result",
        where=f"event {raw[0]}, column {column}",
        what=what,
        expected=expected,
        actual=actual,
        event=raw[0],
        column=column,
    )


def _hex(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else ""
