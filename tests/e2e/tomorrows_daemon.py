"""``runloopd`` of a release to come: the product's code, a newer ledger, and a death if one asks.

Usage: python -m tests.e2e.tomorrows_daemon --home DIR [--dies-at STATEMENT]

Its migration makes the table of all events anew. ``--dies-at``: SIGKILL before the
first statement of the migration that begins with these words.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import cast

import pog.maintain.migrate as migrating
from pog import sql
from pog.connection import LEDGER, VIEWS
from runloopd.__main__ import main

_TABLE = next(each for each in sql.statements(sql.load("ledger.sql")) if "CREATE TABLE events" in each)
STEP = "\n".join(
    (
        _TABLE[_TABLE.index("CREATE TABLE") :].replace("events (", "events_2 (\n    origin TEXT,"),
        "INSERT INTO events_2 SELECT NULL, * FROM events;",
        "DROP TABLE events;",
        "ALTER TABLE events_2 RENAME TO events;",
        "CREATE INDEX events_by_run ON events (run, id) WHERE run IS NOT NULL;",
        "CREATE INDEX events_by_kind ON events (kind, id);",
    )
)


def become(dies_at: str | None) -> None:
    """From here on this process is of the next version."""
    cast(dict[int, str], migrating.STEPS)[LEDGER.version] = STEP
    LEDGER.version += 1
    VIEWS.version += 1
    if dies_at is None:
        return
    connect = migrating._connect

    def mortal(path: Path, mode: str) -> sqlite3.Connection:
        connection = connect(path, mode)

        def step(statement: str) -> None:
            if statement.startswith(dies_at):
                os.kill(os.getpid(), signal.SIGKILL)

        connection.set_trace_callback(step)
        return connection

    migrating._connect = mortal


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", required=True)
    parser.add_argument("--dies-at")
    arguments = parser.parse_args()
    become(arguments.dies_at)
    sys.exit(main(["--home", arguments.home]))
