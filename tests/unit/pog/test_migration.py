"""A ledger of an earlier build: brought on whole or not at all, wherever it dies, with a way back."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pog import sql
from pog.connection import LEDGER, FileKind, NewerError, check_identity
from pog.errors import BackupError, LedgerCorruptError, LedgerVersionError, LedgerWriteError
from pog.maintain import backup, verify
from pog.maintain.migrate import Migrated, migrate, version_of
from pog.maintain.restore import Restored, restore
from runloop.errors import NotFoundError, RefusedError

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


def moved(store: Store, steps: dict[int, str] = STEPS, **more: Any) -> Migrated:
    """Migrate the store's ledger to :data:`NEXT`."""
    return migrate(store.events_db, key=store.key, clock=store.clock, kind=NEXT, steps=steps, **more)


def state(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as connection:
        return {
            "version": connection.execute("PRAGMA user_version").fetchone()[0],
            "names": {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")},
            "events": connection.execute("SELECT * FROM events ORDER BY id").fetchall(),
        }


def test_a_ledger_of_this_version_is_left_alone(full: Store) -> None:
    before = full.events_db.read_bytes()
    done = migrate(full.events_db, key=full.key, clock=full.clock)
    assert done == Migrated(before=LEDGER.version, after=LEDGER.version, kept=None)
    assert full.events_db.read_bytes() == before


def test_steps_lead_one_after_the_other_to_the_newest_version_and_a_backup_is_kept(full: Store) -> None:
    before = state(full.events_db)
    done = moved(full)
    after = state(full.events_db)
    assert (done.before, done.after, after["version"]) == (LEDGER.version, NEXT.version, NEXT.version)
    assert {"notes", "noted", "events_by_actor"} <= after["names"]
    assert after["events"] == before["events"]
    assert done.kept is not None
    assert state(done.kept / "events.db") == before
    assert done.kept.stat().st_mode & 0o777 == 0o700
    assert backup.check(backup.read(done.kept, full.public_key), full.public_key).ok
    assert moved(full).kept is None


def test_the_log_of_a_crashed_writer_is_migrated_with_it(store: Store, tmp_path: Path) -> None:
    ledger = store.ledger()
    ledger.append([facts.draft(facts.note())] * 5)
    ledger.sign_head()
    crashed = Store(tmp_path / "crashed")
    crashed.folder.mkdir()
    for suffix in ("", "-wal"):
        part = store.events_db.with_name(f"events.db{suffix}")
        crashed.folder.joinpath(part.name).write_bytes(part.read_bytes())
    done = moved(crashed)
    assert len(state(crashed.events_db)["events"]) == 5
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
        moved(full, steps)
    assert state(full.events_db) == before
    full.ledger().append([facts.draft(facts.note())])


def test_a_ledger_that_does_not_chain_is_not_migrated(full: Store) -> None:
    with closing(sqlite3.connect(full.events_db)) as connection:
        connection.execute("UPDATE events SET actor = 'x' WHERE id = 5")
        connection.commit()
    with pytest.raises(LedgerCorruptError, match="event 5"):
        moved(full)
    assert state(full.events_db)["version"] == LEDGER.version
    assert not list(full.folder.glob("*version*"))


def test_a_disk_without_room_for_the_backup_leaves_the_old_ledger(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(full.events_db)

    def no_room(*_: object) -> None:
        raise BackupError("events.db was not written: database or disk is full", hint="free space")

    monkeypatch.setattr(backup, "_copy", no_room)
    with pytest.raises(BackupError, match="full"):
        moved(full)
    assert state(full.events_db) == before
    assert not list(full.folder.glob(".*.part"))


# --- deaths ---------------------------------------------------------------------------------------

_DYING = """
import json, os, re, signal, sys
from collections import Counter
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pog.maintain import migrate as migrating
from runloop.testing import ManualClock
from tests.unit.pog import test_migration as here

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}

def die_where_nobody_did(died, told):
    times = Counter()
    def step(what):
        what = re.sub("[0-9a-f]{8}[.]part", "part", what)
        times[what] += 1
        if [what, times[what]] not in died:
            os.write(told, json.dumps([what, times[what]]).encode())
            os.kill(os.getpid(), signal.SIGKILL)
    def audit(event, arguments):
        if event == "open" and not isinstance(arguments[0], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            step(f"open {Path(arguments[0]).name}")
        elif event in CHANGES:
            step(f"{event} {Path(arguments[0]).name}")
    sys.addaudithook(audit)
    real = migrating._connect
    def connect(path, mode):
        connection = real(path, mode)
        if mode == "rw":
            connection.set_trace_callback(step)
        return connection
    migrating._connect = connect

ledger, died, out = Path(sys.argv[1]), [], []
while True:
    hear, tell = os.pipe()
    child = os.fork()
    if not child:
        die_where_nobody_did(died, tell)
        here.migrate(ledger, key=KEY, clock=ManualClock(), kind=here.NEXT, steps=here.STEPS)
        os._exit(0)
    os.close(tell)
    killed = os.waitpid(child, 0)[1] == signal.SIGKILL
    told = os.read(hear, 4096)
    os.close(hear)
    found = here.state(ledger)
    died += [json.loads(told)] if killed else []
    out.append([died[-1][0] if killed else None, found["version"], len(found["events"])])
    if not killed:
        break
print(json.dumps(out))
"""


@pytest.mark.requirement("I4.keeping.6")
@pytest.mark.requirement("M11")
def test_a_death_before_any_write_of_a_migration_leaves_the_old_ledger_and_the_next_start_goes_on(
    full: Store,
) -> None:
    before = state(full.events_db)
    done = subprocess.run(
        [sys.executable, "-c", _DYING, str(full.events_db)],
        capture_output=True, text=True, check=False, timeout=120, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *deaths, end = json.loads(done.stdout)
    points = [what for what, _, _ in deaths]
    files = ("open events.db", "open manifest.json", "os.rename .ledger.head", "os.rename .events.db")
    statements = ("BEGIN EXCLUSIVE", "CREATE TABLE", "CREATE TRIGGER", "CREATE INDEX", "PRAGMA user_version")
    for wanted in files + statements:
        assert any(point.startswith(wanted) for point in points), wanted
    assert points[-1] == "COMMIT"
    assert {(version, events) for _, version, events in deaths} == {
        (before["version"], len(before["events"]))
    }
    assert end == [None, NEXT.version, len(before["events"])]
    assert state(full.events_db)["events"] == before["events"]
    # However often it died: one backup, that is whole, and nothing half written.
    (kept,) = full.folder.glob("*.version-*")
    assert backup.check(backup.read(kept, full.public_key), full.public_key).ok
    assert not list(full.folder.glob(".*.part"))


def test_a_backup_of_an_earlier_attempt_is_not_taken_for_what_was_written_since(full: Store) -> None:
    with pytest.raises(LedgerVersionError):
        moved(full, {})
    with full.ledger() as ledger:
        ledger.append([facts.draft(facts.note())])
    before = state(full.events_db)
    done = moved(full)
    assert len(list(full.folder.glob("*.version-*"))) == 2
    assert done.kept is not None
    assert state(done.kept / "events.db") == before


def test_a_backup_of_an_earlier_attempt_that_was_changed_is_made_again(full: Store) -> None:
    with pytest.raises(LedgerVersionError):
        moved(full, {})
    (first,) = full.folder.glob("*.version-*")
    text = bytearray((first / "events.db").read_bytes())
    text[-100] ^= 1
    (first / "events.db").write_bytes(text)
    done = moved(full)
    assert done.kept not in (None, first)


# --- the way back ---------------------------------------------------------------------------------


@pytest.mark.requirement("I4.keeping.6")
@pytest.mark.requirement("M11")
def test_the_earlier_build_refuses_a_newer_ledger_and_puts_back_what_was_kept(
    full: Store, tmp_path: Path
) -> None:
    """NEXT is tomorrow's build, LEDGER today's: what is undone here is an upgrade."""
    anchor = tmp_path / "ledger.head"
    with full.ledger(anchor=anchor) as ledger:
        ledger.append([facts.draft(facts.note())])
    before = state(full.events_db)
    done = moved(full, anchor=anchor)
    newer = full.events_db.read_bytes()
    with pytest.raises(NewerError, match="this build knows") as refused:
        full.ledger(anchor=anchor)
    assert f"rlp kb restore {done.kept} --accept-loss" in str(refused.value.hint)
    assert full.events_db.read_bytes() == newer
    assert done.kept is not None
    found = backup.read(done.kept, full.public_key)

    def put_back(*, accept_loss: bool = False) -> Restored:
        return restore(
            full.events_db, found, key=full.key, clock=full.clock, principal="x", anchor=anchor,
            accept_loss=accept_loss,
        )  # fmt: skip

    with pytest.raises(RefusedError, match="this build knows"):
        put_back()  # it cannot tell what the newer build wrote, and says so
    assert full.events_db.read_bytes() == newer
    restored = put_back(accept_loss=True)
    assert restored.aside is not None
    assert (restored.aside / "events.db").read_bytes() == newer  # the upgrade's own ledger is not lost either
    assert state(full.events_db)["events"][: len(before["events"])] == before["events"]
    with full.ledger(anchor=anchor) as ledger:
        ledger.append([facts.draft(facts.note())])
    assert verify(full.events_db, public_key=full.public_key, anchor_path=anchor).ok


def test_the_newest_of_several_backups_is_named_as_the_way_back(full: Store) -> None:
    moved(full)
    for number in (2, 9, 10):
        full.events_db.with_name(f"events.db.version-{LEDGER.version}.{number}").mkdir()
    full.events_db.with_name(f"events.db.version-{LEDGER.version + 1}.11").mkdir()
    with pytest.raises(NewerError) as refused:
        full.ledger()
    assert f"version-{LEDGER.version}.10 " in str(refused.value.hint)


def test_an_older_ledger_is_refused_with_the_way_on(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = full.events_db.read_bytes()
    monkeypatch.setattr(LEDGER, "version", LEDGER.version + 1)
    works: tuple[Callable[[], object], ...] = (full.ledger, full.reader, lambda: verify(full.events_db))
    for work in works:
        with pytest.raises(LedgerVersionError) as refused:
            work()
        assert refused.value.hint == "rlp kb migrate"
    assert full.events_db.read_bytes() == before


@pytest.mark.requirement("I4.keeping.6")
def test_a_newer_a_foreign_and_no_file_are_refused_untouched(full: Store, tmp_path: Path) -> None:
    moved(full)
    before = full.events_db.read_bytes()
    with pytest.raises(LedgerVersionError, match="this build knows"):
        migrate(full.events_db, key=full.key, clock=full.clock)
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


def test_a_migrated_schema_is_that_of_a_new_ledger(full: Store) -> None:
    """Whoever adds a step proves with this that it leads where the schema file stands."""
    with closing(sqlite3.connect(":memory:")) as fresh:
        fresh.executescript(sql.load("ledger.sql"))
        wanted = set(fresh.execute("SELECT type, name, sql FROM sqlite_schema"))
    with closing(sqlite3.connect(full.events_db)) as connection:
        check_identity(connection, full.events_db, LEDGER)
        assert set(connection.execute("SELECT type, name, sql FROM sqlite_schema")) == wanted
