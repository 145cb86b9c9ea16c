"""Are the views the fold of the ledger? Folds anew, in memory, and compares table by table.

Knows: that the full-text index is no table one can read. Does not know: the chain (``pog.maintain.checks``).
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path

from pog import sql
from pog.chain import Row
from pog.connection import VIEWS, NewerError, OutdatedError, connect_reader
from pog.folds import TABLES, Folds, create_tables
from pog.history import History
from pog.maintain.report import Report
from pog.materializer import fold_rows
from runloop.errors import RunloopError

__all__ = ["check_views", "open_views"]


def open_views(
    views_path: str | os.PathLike[str] | None, stack: ExitStack, report: Report
) -> sqlite3.Connection | None:
    """One snapshot of the views; None, with the reason in the report, where there is nothing to compare."""
    if views_path is None or not Path(views_path).exists():
        return None
    try:
        views = stack.enter_context(closing(connect_reader(Path(views_path), VIEWS)))
        views.execute("BEGIN")
        views.execute("SELECT event FROM cursor").fetchone()
    except (OutdatedError, NewerError) as error:
        report.warnings.append(f"the views were not compared: {error.message}")
        return None
    except (RunloopError, sqlite3.DatabaseError) as error:
        report.add("views", f"they cannot be read: {error}")
        return None
    return views


def check_views(ledger: sqlite3.Connection, views: sqlite3.Connection, report: Report) -> None:
    """Report where the views differ from the fold of the ledger up to their own cursor."""
    try:
        cursor, own_hash = views.execute("SELECT event, hash FROM cursor").fetchone()
        report.views_checked, report.views_cursor = True, cursor
        if cursor > report.head_id:
            what = f"the views know event {cursor}, the ledger ends at {report.head_id}"
            report.add("views", what, event=report.head_id + 1, column="id")
            return
        found = ledger.execute("SELECT hash FROM events WHERE id = ?", (cursor,)).fetchone()
        if cursor and (found is None or found[0] != own_hash):
            report.add("views", "they were folded from another event", event=cursor, column="hash")
            return
        _compare_views(ledger, views, cursor, report)
    except sqlite3.DatabaseError as error:
        report.add("views", f"they cannot be read: {error}")


def _compare_views(
    ledger: sqlite3.Connection, views: sqlite3.Connection, cursor: int, report: Report
) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fold:
        create_tables(fold)
        rows = map(Row._make, ledger.execute(sql.named("statements.sql")["rows_after"], (0, cursor)))
        fold.execute("BEGIN")
        history = History(lambda statement, values: ledger.execute(statement, values).fetchall())
        fold_rows(fold, Folds(history), rows)
        for table, order in TABLES.items():
            statement = f"SELECT * FROM {table} ORDER BY {order}"  # noqa: S608
            _compare_table(table, fold.execute(statement), views.execute(statement), report)
        _compare_index(fold, views, report)
        (report.quarantined,) = views.execute("SELECT count(*) FROM quarantine").fetchone()


def _compare_table(table: str, expected: sqlite3.Cursor, found: sqlite3.Cursor, report: Report) -> None:
    names = [column[0] for column in expected.description]
    while True:
        want, have = expected.fetchone(), found.fetchone()
        if want == have:
            if want is None:
                return
            continue
        if want is None or have is None or want[0] != have[0]:
            what = f"{table}: a row is {'missing' if want else 'too many'}: {(want or have)[0]!r}"
            report.add("views", what)
            return
        wrong = next(name for name, a, b in zip(names, want, have, strict=True) if a != b)
        report.add("views", f"{table}: {wrong} of {want[0]!r} is not what the ledger says", column=wrong)
        return


def _compare_index(fold: sqlite3.Connection, views: sqlite3.Connection, report: Report) -> None:
    """The full-text index is no table one can read; compare which word stands in how many entries."""
    found = []
    for connection in (fold, views):
        connection.execute("PRAGMA query_only = OFF")  # temp only; the file itself is open read-only
        connection.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab('main', 'search', 'row')")
        found.append(connection.execute("SELECT term, doc, cnt FROM temp.words ORDER BY term"))
    _compare_table("search", found[0], found[1], report)
