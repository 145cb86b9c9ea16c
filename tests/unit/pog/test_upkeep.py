"""Migrating, vacuuming and rebuilding: each whole or not at all, none under a living writer."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pog import sql
from pog.connection import LEDGER, FileKind, check_identity
from pog.errors import (
    LedgerCorruptError,
    LedgerLockedError,
    LedgerVersionError,
    LedgerWriteError,
)
from pog.maintain import verify
from pog.maintain.migrate import Migrated, migrate, version_of
from pog.maintain.rebuild import rebuild
from pog.maintain.vacuum import vacuum
from runloop.errors import NotFoundError

from . import facts
from .conftest import Store
from .test_materializer import BLOBS, whole_history

ROOT = Path(__file__).parents[3]
NEXT = FileKind("ledger", LEDGER.application_id, LEDGER.version + 2)
STEPS = {
    LEDGER.version: "CREATE TABLE notes (event INTEGER PRIMARY KEY);\n"
    "CREATE TRIGGER noted AFTER INSERT ON events BEGIN\n INSERT INTO notes VALUES (new.id);\nEND;\n",
    LEDGER.version + 1: "CREATE INDEX events_by_actor ON events (actor, id);",
}


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


# --- migrating ------------------------------------------------------------------------------------


def test_a_ledger_of_this_version_is_left_alone(full: Store) -> None:
    before = full.events_db.read_bytes()
    assert migrate(full.events_db) == Migrated(before=LEDGER.version, after=LEDGER.version, kept=None)
    assert full.events_db.read_bytes() == before


def test_steps_lead_one_after_the_other_to_the_newest_version_and_the_old_files_are_kept(full: Store) -> None:
    before = state(full.events_db)
    done = migrate(full.events_db, kind=NEXT, steps=STEPS)
    after = state(full.events_db)
    assert (done.before, done.after, after["version"]) == (LEDGER.version, NEXT.version, NEXT.version)
    assert {"notes", "noted", "events_by_actor"} <= after["names"]
    assert after["events"] == before["events"]
    assert done.kept is not None
    assert state(done.kept / "events.db") == before
    assert done.kept.stat().st_mode & 0o777 == 0o700
    assert migrate(full.events_db, kind=NEXT, steps=STEPS).kept is None


def test_the_log_of_a_crashed_writer_is_migrated_with_it(store: Store, tmp_path: Path) -> None:
    ledger = store.ledger()
    ledger.append([facts.draft(facts.note())] * 5)
    copied = tmp_path / "crashed" / "events.db"
    copied.parent.mkdir()
    for suffix in ("", "-wal"):
        part = store.events_db.with_name(f"events.db{suffix}")
        copied.with_name(part.name).write_bytes(part.read_bytes())
    done = migrate(copied, kind=NEXT, steps=STEPS)
    assert len(state(copied)["events"]) == 5
    assert done.kept is not None
    assert len(state(done.kept / "events.db")["events"]) == 5


@pytest.mark.parametrize(
    ("steps", "error", "what"),
    [
        ({LEDGER.version: STEPS[LEDGER.version]}, LedgerVersionError, "no step leads on"),
        ({**STEPS, LEDGER.version + 1: "CREATE TABLE notes (x);"}, LedgerWriteError, "already exists"),
        (
            {**STEPS, LEDGER.version + 1: "DELETE FROM events WHERE id = 37;"},
            LedgerVersionError,
            "changed events",
        ),
        (
            {**STEPS, LEDGER.version + 1: "UPDATE events SET actor = 'x' WHERE id = 9;"},
            LedgerCorruptError,
            "event 9",
        ),
    ],
)  # fmt: skip
def test_a_migration_that_does_not_come_through_leaves_the_old_ledger(
    full: Store, steps: dict[int, str], error: type[Exception], what: str
) -> None:
    before = state(full.events_db)
    with pytest.raises(error, match=what):
        migrate(full.events_db, kind=NEXT, steps=steps)
    assert state(full.events_db) == before
    full.ledger().append([facts.draft(facts.note())])


_DYING = """
import os, sys
from pathlib import Path
from pog import sql
from tests.unit.pog import test_upkeep as here
real, at, seen = sql.statements, int(sys.argv[2]), 0
def dying(script):
    global seen
    for statement in real(script):
        if seen == at:
            os._exit(9)
        seen += 1
        yield statement
sql.statements = dying
here.migrate(Path(sys.argv[1]), kind=here.NEXT, steps=here.STEPS)
"""


@pytest.mark.requirement("I4.keeping.6")
def test_a_death_before_every_statement_of_a_migration_leaves_the_old_ledger(full: Store) -> None:
    before = state(full.events_db)
    for at in range(4):
        done = subprocess.run(
            [sys.executable, "-c", _DYING, str(full.events_db), str(at)], check=False, timeout=60, cwd=ROOT
        )
        assert done.returncode == (9 if at < 3 else 0)
        assert (state(full.events_db) == before) == (at < 3)
    assert len(list(full.folder.glob("*.version-*"))) == 4  # every attempt kept a copy of its own


def test_an_older_ledger_is_refused_with_the_way_on(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = full.events_db.read_bytes()
    monkeypatch.setattr(LEDGER, "version", LEDGER.version + 1)
    for work in (full.ledger, full.reader, lambda: verify(full.events_db)):
        with pytest.raises(LedgerVersionError) as refused:
            work()
        assert refused.value.hint == "rlp kb migrate"
    assert full.events_db.read_bytes() == before


@pytest.mark.requirement("I4.keeping.6")
def test_a_newer_a_foreign_and_no_file_are_refused_untouched(full: Store, tmp_path: Path) -> None:
    migrate(full.events_db, kind=NEXT, steps=STEPS)
    before = full.events_db.read_bytes()
    with pytest.raises(LedgerVersionError, match="this build knows"):
        migrate(full.events_db)
    with pytest.raises(LedgerVersionError, match="this build knows"):
        full.ledger()
    assert full.events_db.read_bytes() == before
    with pytest.raises(LedgerVersionError, match="not a Runloop ledger"):
        version_of(full.views_db)
    with pytest.raises(NotFoundError):
        version_of(tmp_path / "none.db")
    (tmp_path / "rubbish.db").write_bytes(b"rubbish" * 999)
    with pytest.raises(LedgerCorruptError):
        version_of(tmp_path / "rubbish.db")


def test_a_ledger_that_does_not_chain_is_not_migrated(full: Store) -> None:
    with closing(sqlite3.connect(full.events_db)) as connection:
        connection.execute("UPDATE events SET actor = 'x' WHERE id = 5")
        connection.commit()
    with pytest.raises(LedgerCorruptError, match="event 5"):
        migrate(full.events_db, kind=NEXT, steps=STEPS)
    assert state(full.events_db)["version"] == LEDGER.version


def test_a_migrated_schema_is_that_of_a_new_ledger(full: Store) -> None:
    """Whoever adds a step proves with this that it leads where the schema file stands."""
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(sql.load("ledger.sql"))
        wanted = set(fresh.execute("SELECT type, name, sql FROM sqlite_schema"))
    with closing(sqlite3.connect(full.events_db)) as connection:
        check_identity(connection, full.events_db, LEDGER)
        assert set(connection.execute("SELECT type, name, sql FROM sqlite_schema")) == wanted


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
        lambda: migrate(full.events_db, kind=NEXT, steps=STEPS),
        lambda: rebuild(full.events_db, full.views_db),
    ):
        with pytest.raises(LedgerLockedError, match="for itself") as refused:
            work()
        assert "daemon stop" in str(refused.value.hint)
    ledger.append([facts.draft(facts.note())])
