"""What was known at an earlier moment: the views as they were at an event or a time, to be asked as ever.

Folds the ledger up to that event into a scratch file of its own, which is gone from the folder before the
first question. The present views are neither read nor changed. Costs what folding that many events costs.

Knows: which event a time means. Does not know: what is asked (``pog.query``). Asking why something is as it
is needs no earlier moment: what led to an event stands before it, for ever.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from pog.connection import LEDGER, connect_reader
from pog.errors import LedgerCorruptError
from pog.folds import Folds, create_tables
from pog.materializer import fold_rows
from pog.query import Knowledge
from pog.reader import Reader
from runloop.errors import NotFoundError, UsageError

__all__ = ["Moment", "find", "fold_until", "knowledge_at"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """Right after one event; id 0 is before the first."""

    event: int
    ts_ms: int


def find(ledger: Path, *, event: int | None = None, at_ms: int | None = None) -> Moment:
    """The moment right after ``event``, or after the last event stated at ``at_ms`` or before.

    Times are the host's clock when an event was stated; where that clock was put back, a time means the later
    of the events that bear it. Raises :class:`NotFoundError` for an event that is not there.
    """
    if (event is None) == (at_ms is None):
        raise UsageError("name an event or a time", hint="either event or at_ms", code="kb.at")
    with closing(connect_reader(ledger, LEDGER)) as connection:
        try:
            if event == 0:
                return Moment(event=0, ts_ms=0)
            if event is not None:
                statement, value = "SELECT id, ts_ms FROM events WHERE id = ?", event
            else:
                statement = "SELECT id, ts_ms FROM events WHERE ts_ms <= ? ORDER BY id DESC LIMIT 1"
                value = at_ms or 0
            found = connection.execute(statement, (value,)).fetchone()
            if found is None and event is not None:
                (newest,) = connection.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
                raise NotFoundError(
                    f"there is no event {event}", hint=f"the newest is {newest}", code="event.absent"
                )
        except sqlite3.DatabaseError as error:
            raise LedgerCorruptError(f"{ledger} cannot be read: {error}", hint="rlp verify") from error
    return Moment(event=found[0], ts_ms=found[1]) if found else Moment(event=0, ts_ms=0)


def fold_until(ledger: Path, moment: Moment, views: Path) -> int:
    """Make views at ``views``, where nothing is, from the events up to a moment; tells how many did not fit.

    Raises :class:`sqlite3.Error` when the file cannot be written.
    """
    with (
        Reader(ledger) as reader,
        closing(sqlite3.connect(views, isolation_level=None)) as connection,
    ):
        connection.execute("PRAGMA synchronous = OFF")  # nobody will look for it after a crash
        connection.execute("PRAGMA journal_mode = MEMORY").fetchone()
        create_tables(connection)
        connection.execute("BEGIN")
        rows = takewhile(lambda row: row.id <= moment.event, reader.rows())
        place = fold_rows(connection, Folds(reader.history), rows)
        connection.execute("UPDATE cursor SET event = ?, hash = ?", place)
        connection.execute("COMMIT")
        return int(connection.execute("SELECT count(*) FROM quarantine").fetchone()[0])


@contextmanager
def knowledge_at(ledger: Path, moment: Moment, *, time_cap_ms: int = 5_000) -> Iterator[Knowledge]:
    """The knowledge as it was at a moment, until the block ends."""
    with Reader(ledger) as reader:
        with tempfile.TemporaryDirectory(prefix="runloop-moment-") as folder:
            views = Path(folder) / "views.db"
            fold_until(ledger, moment, views)
            knowledge = Knowledge(views, reader, time_cap_ms=time_cap_ms)
        # It is open; without a name it cannot outlive us, whatever becomes of this process.
        with closing(knowledge):
            yield knowledge
