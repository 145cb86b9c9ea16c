"""Vacuuming and rebuilding: each whole or not at all, none under a living writer."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pog.errors import (
    LedgerCorruptError,
    LedgerLockedError,
)
from pog.maintain import verify
from pog.maintain.migrate import migrate
from pog.maintain.rebuild import rebuild
from pog.maintain.vacuum import vacuum

from . import facts
from .conftest import Store
from .test_materializer import BLOBS, whole_history


@pytest.fixture
def full(store: Store) -> Store:
    return store.holding(*whole_history(), blobs=BLOBS)


def state(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as connection:
        return {
            "version": connection.execute("PRAGMA user_version").fetchone()[0],
            "names": {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")},
            "events": connection.execute("SELECT * FROM events ORDER BY id").fetchall(),
        }


# --- vacuuming and rebuilding ---------------------------------------------------------------------


def test_vacuuming_gives_space_back_and_keeps_every_byte_of_history(full: Store) -> None:
    with full.ledger() as ledger:
        ledger.append([facts.draft(facts.note())], [b"x" * 900_000])
    with closing(sqlite3.connect(full.events_db)) as connection:
        connection.execute("DELETE FROM blobs WHERE length(data) = 900000")
        connection.commit()
    before = state(full.events_db)
    ledger, views = vacuum(full.events_db, full.views_db)
    assert ledger.before - ledger.after > 800_000
    assert views.path == full.views_db
    assert state(full.events_db) == before
    report = verify(full.events_db, public_key=full.public_key, views_path=full.views_db)
    assert report.ok, report.findings
    full.ledger().append([facts.draft(facts.note())])


def test_a_damaged_ledger_is_not_vacuumed(full: Store) -> None:
    with closing(sqlite3.connect(full.events_db)) as connection:
        connection.execute("UPDATE events SET actor = 'x' WHERE id = 5")
        connection.commit()
    before = full.events_db.read_bytes()
    with pytest.raises(LedgerCorruptError, match="event 5"):
        vacuum(full.events_db, full.views_db)
    assert full.events_db.read_bytes() == before


def test_views_are_folded_anew_whatever_became_of_them(full: Store) -> None:
    with closing(sqlite3.connect(full.views_db)) as connection:
        connection.execute("UPDATE runs SET state = 'nonsense'")
        connection.commit()
    assert not verify(full.events_db, views_path=full.views_db).ok
    done = rebuild(full.events_db, full.views_db)
    assert (done.events, done.quarantined) == (len(whole_history()), 0)
    assert verify(full.events_db, views_path=full.views_db).ok
    full.views_db.write_bytes(b"rubbish" * 999)
    rebuild(full.events_db, full.views_db)
    assert verify(full.events_db, views_path=full.views_db).views_checked


@pytest.mark.requirement("S6")
def test_nothing_is_rewritten_under_a_living_writer(full: Store) -> None:
    ledger = full.ledger()
    for work in (
        lambda: vacuum(full.events_db, full.views_db),
        lambda: migrate(full.events_db, key=full.key, clock=full.clock),
        lambda: rebuild(full.events_db, full.views_db),
    ):
        with pytest.raises(LedgerLockedError, match="for itself") as refused:
            work()
        assert "daemon stop" in str(refused.value.hint)
    ledger.append([facts.draft(facts.note())])
