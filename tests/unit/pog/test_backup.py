"""Backups under load, and going back to one: nothing half, nothing unseen, nothing lost without a word."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pog import lock
from pog.anchor import read_anchor
from pog.errors import (
    BackupError,
    LedgerCorruptError,
    LedgerLockedError,
    LedgerUncertainError,
)
from pog.ledger import Ledger
from pog.maintain import backup, exchange, verify
from pog.maintain import restore as restoring
from pog.maintain.backup import Backup
from pog.maintain.restore import Restored, resume
from pog.maintain.restore import restore as put_back
from runloop.errors import ConflictError, NotFoundError, RefusedError, UsageError

from . import facts
from .conftest import Store
from .test_materializer import BLOBS, whole_history


@pytest.fixture
def anchor(tmp_path: Path) -> Path:
    (tmp_path / "keys").mkdir(mode=0o700)
    return tmp_path / "keys" / "ledger.head"


@pytest.fixture
def full(store: Store, anchor: Path) -> Store:
    with store.ledger(anchor=anchor) as ledger:
        ledger.append(whole_history(), BLOBS)
    return store


def made(store: Store, anchor: Path | None = None, name: str = "backup") -> Backup:
    return backup.write(
        store.events_db, store.folder.parent / name, key=store.key, clock=store.clock, anchor=anchor
    )


def restored(store: Store, kept: Backup, anchor: Path | None = None, **more: Any) -> Restored:
    return put_back(
        store.events_db,
        kept,
        key=store.key,
        clock=store.clock,
        principal="operator:1000",
        anchor=anchor,
        **more,
    )


def rows(path: Path) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT * FROM events ORDER BY id").fetchall()
    connection.close()
    return found


def goes_on(store: Store, anchor: Path | None, text: str = "more", count: int = 1) -> None:
    with store.ledger(anchor=anchor) as ledger:
        ledger.append([facts.draft(facts.note(text=text))] * count)


# --- making one -----------------------------------------------------------------------------------


def test_a_backup_holds_everything_and_is_for_its_owner_only(full: Store, anchor: Path) -> None:
    kept = made(full, anchor)
    assert rows(kept.path / "events.db") == rows(full.events_db)
    assert sorted(path.name for path in kept.path.iterdir()) == ["events.db", "ledger.head", "manifest.json"]
    assert kept.path.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in kept.path.iterdir()} == {0o600}
    assert (kept.manifest.events, kept.manifest.blobs, kept.manifest.signed_up_to) == (37, 4, 37)
    assert read_anchor(kept.path / "ledger.head") == read_anchor(anchor)
    assert backup.check(kept, full.public_key).ok
    assert kept.to_json()["head_id"] == 37


def test_a_backup_can_be_judged_where_nobody_may_write(full: Store) -> None:
    kept = made(full)
    before = {path.name: path.read_bytes() for path in kept.path.iterdir()}
    for path in (*kept.path.iterdir(), kept.path):
        path.chmod(0o500)
    assert backup.check(backup.read(kept.path, full.public_key), full.public_key).ok
    assert {path.name: path.read_bytes() for path in kept.path.iterdir()} == before
    kept.path.chmod(0o700)


@pytest.mark.requirement("I4.keeping.2")
@pytest.mark.usefixtures("on_disk")
def test_a_backup_beside_a_busy_writer_is_one_moment_of_it(store: Store) -> None:
    script = """
import sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pog.ledger import Ledger
from runloop.events import DaemonStarted, Draft, DocumentImported
ledger = Ledger.open(sys.argv[1], signing_key=Ed25519PrivateKey.from_private_bytes(b"k" * 32))
ledger.append([Draft(payload=DaemonStarted(build="b", pid=1), actor="daemon")] * 5)
number = 0
while True:
    texts = [bytes([number % 251]) * 3000, b"%d" % number]
    note = DocumentImported(document="d", type="note", title="t", text="x" * 900, content_digest="0" * 64)
    ledger.append([Draft(payload=note, actor="daemon")] * 5, texts)
    if number % 40 == 0:
        ledger.checkpoint()
    number += 1
    if number == 20:
        print("ready", flush=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", script, str(store.events_db)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        heads = []
        for number in range(5):
            kept = made(store, name=f"backup-{number}")
            assert backup.check(kept, store.public_key).ok
            assert kept.manifest.events % 5 == 0  # whole transactions
            assert kept.manifest.blobs >= kept.manifest.events // 5
            heads.append(kept.manifest.head_id)
        assert heads == sorted(heads) and heads[0] >= 100 and heads[-1] > heads[0]
    finally:
        writer.kill()
        writer.wait(10)


def test_a_damaged_ledger_is_not_backed_up_and_nothing_is_left_behind(full: Store) -> None:
    connection = sqlite3.connect(full.events_db)
    connection.execute("UPDATE events SET actor = 'somebody' WHERE id = 9")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerCorruptError, match="event 9"):
        made(full)
    assert sorted(path.name for path in full.folder.parent.iterdir()) == ["keys", "pog"]


def test_a_ledger_older_than_its_anchor_is_not_backed_up(full: Store, anchor: Path) -> None:
    older = full.events_db.read_bytes()
    goes_on(full, anchor)
    full.events_db.write_bytes(older)
    with pytest.raises(LedgerCorruptError):
        made(full, anchor)


def test_a_place_that_is_taken_or_absent_is_refused(full: Store, tmp_path: Path) -> None:
    kept = made(full)
    with pytest.raises(ConflictError):
        made(full)
    assert backup.check(kept, full.public_key).ok
    with pytest.raises(NotFoundError):
        backup.write(full.events_db, tmp_path / "no" / "such", key=full.key, clock=full.clock)
    with pytest.raises(NotFoundError):
        backup.write(tmp_path / "none.db", tmp_path / "b", key=full.key, clock=full.clock)


def test_a_backup_that_is_interrupted_leaves_nothing(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(BaseException):
        pass

    def stop(*_: object, **__: object) -> None:
        raise Stop

    for name in ("_copy", "verify", "seal"):
        with monkeypatch.context() as patch:
            patch.setattr(backup, name, stop)
            with pytest.raises(Stop):
                made(full)
    assert sorted(path.name for path in full.folder.parent.iterdir()) == ["keys", "pog"]


# --- judging one ----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["events", "head_id", "head_hash", "made_ms", "files"])
def test_a_changed_manifest_is_refused(full: Store, field: str) -> None:
    kept = made(full)
    path = kept.path / "manifest.json"
    text = json.loads(path.read_text())
    value = text["manifest"][field]
    changed = {**value, "events.db": "0" * 64} if field == "files" else "1" if isinstance(value, str) else 1
    text["manifest"][field] = changed
    path.write_text(json.dumps(text))
    with pytest.raises(BackupError, match="was changed"):
        backup.read(kept.path, full.public_key)


def test_a_backup_of_another_home_is_refused(full: Store, stores: Callable[[str], Store]) -> None:
    kept = made(full)
    with pytest.raises(BackupError, match="another home"):
        backup.read(kept.path, Ed25519PrivateKey.generate().public_key())
    with pytest.raises(UsageError, match="no ledger key"):
        backup.read(kept.path, None)


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b"\xff", b"x" * 70_000])
def test_what_is_no_manifest_is_refused(full: Store, text: bytes) -> None:
    kept = made(full)
    (kept.path / "manifest.json").write_bytes(text)
    with pytest.raises(BackupError, match="no manifest"):
        backup.read(kept.path, full.public_key)


def test_a_folder_that_is_no_backup_is_refused(tmp_path: Path, full: Store) -> None:
    with pytest.raises(NotFoundError):
        backup.read(tmp_path, full.public_key)
    (tmp_path / "manifest.json").symlink_to("/etc/passwd")
    with pytest.raises(BackupError):
        backup.read(tmp_path, full.public_key)


def test_a_newer_backup_is_refused(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "FORMAT", 2)
    kept = full.folder.parent / "newer"
    backup.write(full.events_db, kept, key=full.key, clock=full.clock)
    monkeypatch.setattr(backup, "FORMAT", 1)
    with pytest.raises(BackupError, match="newer build"):
        backup.read(kept, full.public_key)


@pytest.mark.parametrize("name", ["events.db", "ledger.head"])
def test_a_changed_byte_of_a_backup_is_found_and_it_is_not_restored(
    full: Store, anchor: Path, name: str
) -> None:
    kept = made(full, anchor)
    path = kept.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert not backup.check(kept, full.public_key).ok
    if name == "events.db":
        before = full.events_db.read_bytes()
        with pytest.raises(BackupError):
            restored(full, kept, anchor)
        assert full.events_db.read_bytes() == before
        assert not list(full.folder.glob("restoring-*"))


# --- putting one back -----------------------------------------------------------------------------


def test_a_backup_with_everything_is_put_back_without_a_word(full: Store, anchor: Path) -> None:
    kept = made(full, anchor)
    before = rows(full.events_db)
    done = restored(full, kept, anchor)
    assert done.loss.nothing and done.cancelled == []
    assert rows(full.events_db)[:-1] == before
    fact = list(full.reader().events())[-1]
    assert (fact.kind, fact.actor, fact.id) == ("ledger.restored", "operator:1000", done.fact)
    assert fact.payload.manifest_digest == kept.manifest_digest  # type: ignore[attr-defined]
    report = verify(full.events_db, public_key=full.public_key, anchor_path=anchor)
    assert (report.ok, report.unsigned, report.anchored_at, report.warnings) == (True, 0, done.head_id, [])
    assert done.aside is not None
    assert rows(done.aside / "events.db") == before


@pytest.mark.requirement("I4.keeping.3")
def test_going_back_to_an_older_state_needs_the_word_and_is_recorded(full: Store, anchor: Path) -> None:
    kept = made(full, anchor)
    goes_on(full, anchor, count=3)
    before = rows(full.events_db)
    with pytest.raises(RefusedError, match="events 38 to 40 would be lost") as refused:
        restored(full, kept, anchor)
    assert refused.value.data["loss"]["kinds"] == {"document.imported": 3}
    assert rows(full.events_db) == before
    done = restored(full, kept, anchor, accept_loss=True)
    fact = full.reader().event(done.fact).payload
    assert (fact.lost_from, fact.lost_to, fact.known, fact.head_id) == (38, 40, True, 37)  # type: ignore[attr-defined]
    assert verify(full.events_db, public_key=full.public_key, anchor_path=anchor).ok
    assert done.aside is not None and rows(done.aside / "events.db") == before
    assert (done.aside / "ledger.head").exists()
    full.ledger(anchor=anchor).append([facts.draft(facts.note())])  # and it goes on


def test_what_is_compared_is_what_is_put_in_place_although_the_folder_changes_meanwhile(
    full: Store, anchor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write where the backup lies shows the present ledger first, and the older one later."""
    kept = made(full, anchor)
    database = kept.path / "events.db"
    goes_on(full, anchor)
    own, copy = database.read_bytes(), restoring.copy_new
    database.write_bytes(made(full, anchor, name="newer").path.joinpath("events.db").read_bytes())

    def swapped(source: Path, target: Path) -> str:
        database.write_bytes(own)
        return copy(source, target)

    monkeypatch.setattr(restoring, "copy_new", swapped)
    before = rows(full.events_db)
    with pytest.raises(RefusedError, match="would be lost"):
        restored(full, kept, anchor)
    assert rows(full.events_db) == before
    assert sorted(path.name for path in full.folder.iterdir() if path.is_dir()) == []


def test_a_backup_of_something_else_than_files_is_judged_without_waiting_for_it(
    full: Store, anchor: Path
) -> None:
    kept = made(full, anchor)
    (kept.path / "ledger.head").unlink()
    os.mkfifo(kept.path / "ledger.head")
    assert "ledger.head is not the file" in str(backup.check(kept, full.public_key).to_json())
    (kept.path / "events.db").unlink()
    os.mkfifo(kept.path / "events.db")
    with pytest.raises(BackupError, match="was not copied"):
        restored(full, kept, anchor)


def test_runs_under_way_in_a_backup_are_asked_to_end(store: Store, anchor: Path) -> None:
    with store.ledger(anchor=anchor) as ledger:
        ledger.append([facts.draft(facts.run_started(), run=facts.RUN)])
    kept = made(store, anchor)
    with store.ledger(anchor=anchor) as ledger:
        ledger.append([facts.draft(facts.email_sent(), run=facts.RUN)], [facts.MAIL])
    done = restored(store, kept, anchor, accept_loss=True)
    assert done.cancelled == [facts.RUN]
    assert [event.kind for event in store.reader().events(run=facts.RUN)] == [
        "run.started",
        "run.cancel_requested",
    ]


def test_the_views_follow_what_was_put_back(full: Store, anchor: Path) -> None:
    kept = made(full, anchor)
    goes_on(full, anchor, text="a word nobody said before")
    with full.materializer() as views:
        views.catch_up()
    done = restored(full, kept, anchor, accept_loss=True, derived=(full.views_db,))
    assert done.aside is not None
    assert not full.views_db.exists() and (done.aside / "views.db").exists()
    with full.materializer() as views:
        views.catch_up()
    report = verify(full.events_db, public_key=full.public_key, views_path=full.views_db)
    assert report.ok and report.views_checked


def test_a_lost_ledger_comes_back_and_what_the_anchor_proves_beyond_is_said(
    full: Store, anchor: Path
) -> None:
    kept = made(full, anchor)
    goes_on(full, anchor, count=2)
    full.events_db.unlink()
    with pytest.raises(RefusedError, match="events 38 to 39 would be lost; nobody can tell what else"):
        restored(full, kept, anchor)
    done = restored(full, kept, anchor, accept_loss=True)
    assert (done.loss.first, done.loss.last, done.loss.known) == (38, 39, False)
    assert done.aside is not None and [path.name for path in done.aside.iterdir()] == ["ledger.head"]


def test_a_home_without_a_ledger_takes_a_backup_as_it_is(
    full: Store, stores: Callable[[str], Store], tmp_path: Path
) -> None:
    kept = made(full)
    other = stores("other")
    done = restored(other, kept, tmp_path / "keys" / "other.head")
    assert done.loss.nothing and done.aside is None
    assert rows(other.events_db)[:-1] == rows(full.events_db)


def test_a_damaged_ledger_is_replaced_and_kept_aside(full: Store, anchor: Path) -> None:
    kept = made(full, anchor)
    full.events_db.write_bytes(b"rubbish" * 999)
    with pytest.raises(RefusedError, match="nobody can tell"):
        restored(full, kept, anchor)
    done = restored(full, kept, anchor, accept_loss=True)
    assert done.aside is not None
    assert (done.aside / "events.db").read_bytes() == b"rubbish" * 999
    assert verify(full.events_db, public_key=full.public_key, anchor_path=anchor).ok


def test_another_history_from_the_same_beginning_is_told_event_by_event(full: Store, anchor: Path) -> None:
    old = made(full, anchor, name="old")
    goes_on(full, anchor, text="one way")
    kept = made(full, anchor, name="kept")
    restored(full, old, anchor, accept_loss=True)
    goes_on(full, anchor, text="another way", count=5)
    with pytest.raises(RefusedError, match="events 38 to 43 would be lost"):
        restored(full, kept, anchor)


@pytest.mark.requirement("S6")
def test_nothing_is_put_back_under_a_living_writer(full: Store, anchor: Path) -> None:
    kept = made(full, anchor)
    ledger = full.ledger(anchor=anchor)
    with pytest.raises(LedgerLockedError) as refused:
        restored(full, kept, anchor, accept_loss=True)
    assert "daemon stop" in str(refused.value.hint)
    ledger.append([facts.draft(facts.note())])


# --- interrupted ----------------------------------------------------------------------------------


@pytest.mark.requirement("I4.keeping.4")
def test_an_interrupted_restore_is_finished_and_never_guessed(
    full: Store, anchor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash before every single step of the exchange: nobody writes in between, and it can be finished."""
    kept = made(full, anchor)
    goes_on(full, anchor)
    before = rows(full.events_db)
    whole = full.folder.parent / "as-it-was"
    shutil.copytree(full.folder, whole)
    signed = anchor.read_bytes()
    steps = 0

    class Crash(BaseException):
        pass

    def count(real: Callable[..., Any], at: int | None) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == at:
                raise Crash
            return real(*args, **kwargs)

        return step

    def run(at: int | None) -> None:
        nonlocal steps
        steps = 0
        shutil.rmtree(full.folder)
        shutil.copytree(whole, full.folder)
        anchor.write_bytes(signed)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", count(Path.rename, at))
            patch.setattr(Path, "unlink", count(Path.unlink, at))
            patch.setattr(exchange, "sync", count(exchange.sync, at))
            restored(full, kept, anchor, accept_loss=True)

    run(None)
    total = steps
    assert total > 10
    finished = 0
    for at in range(1, total + 1):
        with pytest.raises(Crash):
            run(at)
        if lock.exchange_mark(full.events_db).exists():
            with pytest.raises(LedgerUncertainError, match="was being replaced") as refused:
                full.ledger(anchor=anchor)
            assert "--resume" in str(refused.value.hint)
            resume(full.events_db, anchor)
            finished += 1
        found = rows(full.events_db)
        assert found == before or [row[3] for row in found[37:]] == ["ledger.restored"]
        report = verify(full.events_db, public_key=full.public_key, anchor_path=anchor)
        assert report.ok, report.findings
        Ledger.open(full.events_db, signing_key=full.key, anchor=anchor).close()
    assert finished > 5
    with pytest.raises(NotFoundError):
        resume(full.events_db, anchor)


@pytest.mark.parametrize("text", ["", "{}", '{"new":"../x","aside":"a"}', '{"new":"x","aside":".."}'])
def test_a_mark_that_leads_elsewhere_moves_nothing(full: Store, text: str) -> None:
    before = full.events_db.read_bytes()
    lock.exchange_mark(full.events_db).write_text(text)
    with pytest.raises(LedgerUncertainError):
        resume(full.events_db)
    assert full.events_db.read_bytes() == before
    assert os.path.lexists(lock.exchange_mark(full.events_db))
