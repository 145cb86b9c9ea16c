"""Verification: every change is found, and located."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pog.chain import GENESIS, Row, relink_row
from pog.errors import LedgerCorruptError, LedgerVersionError
from pog.ledger import Ledger
from pog.maintain import Report, verify
from pog.wal import lost_commits
from runloop.errors import NotFoundError

from . import facts
from .conftest import Store
from .test_materializer import BLOBS, whole_history


def checked(store: Store, **more: object) -> Report:
    return verify(store.events_db, public_key=store.public_key, views_path=store.views_db, **more)  # type: ignore[arg-type]


def change(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.fixture
def full(store: Store) -> Store:
    return store.holding(*whole_history(), blobs=BLOBS)


def test_what_was_written_is_found_sound(full: Store) -> None:
    report = checked(full)
    assert report.ok, report.findings
    assert report.first_bad is None
    assert (
        report.events == report.head_id == report.signed_up_to == report.views_cursor == len(whole_history())
    )
    assert (report.blobs, report.quarantined, report.authenticated, report.views_checked) == (
        4,
        0,
        True,
        True,
    )
    assert report.to_json()["ok"]


def test_an_empty_ledger_is_sound(store: Store) -> None:
    store.ledger().close()
    assert verify(store.events_db, public_key=store.public_key).ok


def test_without_a_ledger_there_is_nothing_to_verify(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        verify(store.events_db)
    other = tmp_path / "other.db"
    change(other, "CREATE TABLE t (x)")
    with pytest.raises(LedgerVersionError):
        verify(other)
    rubbish = tmp_path / "rubbish.db"
    rubbish.write_bytes(b"rubbish" * 1000)
    assert verify(rubbish).findings[0].where == "file"


@pytest.mark.requirement("L2", "I2.replay.3")
@pytest.mark.parametrize(
    ("column", "new"),
    [
        ("ts_ms", "ts_ms + 1"),
        ("actor", "'daemoo'"),
        ("kind", "'run.startee'"),
        ("version", "version + 1"),
        ("scope", "'uses'"),
        ("run", f"'1{facts.RUN[1:]}'"),
        ("payload", "replace(payload, 'compose_email', 'compose_emaim')"),
        (
            "payload",
            "CAST(substr(payload, 1, 20) || x'ff' || substr(payload, 22) AS TEXT)",
        ),
        ("provenance", "'{|'"),
        ("hash", "CAST(x'00' || substr(hash, 2) AS BLOB)"),
        ("prev_hash", "CAST(x'00' || substr(prev_hash, 2) AS BLOB)"),
    ],
)
def test_a_changed_byte_is_located_to_its_event_and_column(full: Store, column: str, new: str) -> None:
    change(full.events_db, f"UPDATE events SET {column} = {new} WHERE id = 8")
    first = checked(full).first_bad
    assert first is not None
    assert (first.event, first.field) == (8, column)


def test_more_than_a_byte_is_still_located_to_its_event(full: Store) -> None:
    change(full.events_db, "UPDATE events SET actor = 'somebody else', ts_ms = 1 WHERE id = 8")
    first = checked(full).first_bad
    assert first is not None
    assert (first.event, first.field) == (8, None)
    change(full.events_db, "UPDATE events SET payload = '{ }' WHERE id = 7")
    first = checked(full).first_bad
    assert first is not None
    assert (first.event, first.field) == (7, "payload")


@pytest.mark.requirement("L2")
@pytest.mark.parametrize(
    ("attack", "event"),
    [
        (["DELETE FROM events WHERE id = 5"], 5),
        (["DELETE FROM events WHERE id = 1"], 1),
        (["DELETE FROM events WHERE id > 30"], 31),
        (["DELETE FROM events WHERE id > 30", "DELETE FROM heads"], 31),
        (["UPDATE events SET id = 99 WHERE id = 5", "UPDATE events SET id = 5 WHERE id = 6",
          "UPDATE events SET id = 6 WHERE id = 99"], 5),
        (["INSERT INTO events SELECT 38, ts_ms, actor, kind, version, scope, run, payload, provenance, hash, "
          "prev_hash FROM events WHERE id = 37"], 38),
        (["UPDATE heads SET signature = zeroblob(64)"], 37),
        (["UPDATE heads SET event_id = 36"], 36),
    ],
)  # fmt: skip
def test_dropping_swapping_doubling_and_truncating_are_found(
    full: Store, attack: list[str], event: int
) -> None:
    change(full.events_db, *attack)
    first = checked(full).first_bad
    assert first is not None
    assert first.event == event


def rewrite(store: Store) -> None:
    """Change a fact and chain everything anew, as somebody with the file and without the key would."""
    connection = sqlite3.connect(store.events_db)
    connection.execute("UPDATE events SET payload = replace(payload, 'compose_email', 'something_else')")
    prev = GENESIS
    rows = [Row._make(row) for row in connection.execute("SELECT * FROM events ORDER BY id").fetchall()]
    for row in rows:
        own = relink_row(row, prev)
        connection.execute("UPDATE events SET hash = ?, prev_hash = ? WHERE id = ?", (own, prev, row.id))
        prev = own
    connection.commit()
    connection.close()


@pytest.mark.requirement("L2")
def test_a_chain_rewritten_from_its_beginning_is_betrayed_by_the_signed_head(full: Store) -> None:
    rewrite(full)
    first = verify(full.events_db, public_key=full.public_key).first_bad
    assert first is not None
    assert (first.where, first.event) == ("heads", len(whole_history()))


@pytest.mark.requirement("L2")
def test_a_rewritten_chain_without_heads_or_signed_by_another_is_found(full: Store) -> None:
    rewrite(full)
    change(full.events_db, "DELETE FROM heads")
    assert [found.what for found in verify(full.events_db, public_key=full.public_key).findings] == [
        "no head is signed"
    ]
    with Ledger.open(full.events_db, signing_key=Ed25519PrivateKey.generate()) as ledger:
        ledger.append([facts.draft(facts.note())])
    first = verify(full.events_db, public_key=full.public_key).first_bad
    assert first is not None
    assert first.field == "public_key"
    assert verify(full.events_db).ok  # nobody can tell without the key: the report says so
    assert not verify(full.events_db).authenticated


def test_a_ledger_put_back_to_an_older_state_is_found_by_an_anchor(full: Store, tmp_path: Path) -> None:
    shutil.copy(full.events_db, tmp_path / "old.db")
    with full.ledger() as ledger:
        ledger.append([facts.draft(facts.note())])
        anchor = (ledger.head.id, ledger.head.hash.hex())
    assert checked(full, anchor=anchor).ok
    shutil.copy(tmp_path / "old.db", full.events_db)
    assert not checked(full, anchor=anchor).ok
    assert not checked(full, anchor=(1, "0" * 64)).ok
    assert checked(full, anchor=(0, "")).ok


def test_bytes_behind_digests_are_checked(full: Store) -> None:
    change(full.events_db, "UPDATE blobs SET data = CAST(data || x'00' AS BLOB) WHERE length(data) = 6")
    first = checked(full).first_bad
    assert first is not None
    assert (first.where, first.event, first.field) == ("blobs", 16, "blob")
    change(full.events_db, "DELETE FROM blobs WHERE length(data) = 7")
    first = checked(full).first_bad
    assert first is not None
    assert "missing" in first.what
    change(full.events_db, "INSERT INTO blobs VALUES (zeroblob(32), x'11')")
    assert any("or its key was" in found.what for found in checked(full).findings)


@pytest.mark.requirement("L2", "I2.ledger.4")
@pytest.mark.parametrize(
    ("attack", "field"),
    [
        ("UPDATE runs SET state = 'failed'", "state"),
        ("UPDATE contacts SET emails = '[\"evil@example.org\"]' WHERE contact = 'c1'", "emails"),
        ("UPDATE contact_emails SET email = 'evil@example.org'", "email"),
        ("DELETE FROM approvals", None),
        ("INSERT INTO contact_emails VALUES ('c9', 0, 'nobody@example.org')", None),
        (
            "INSERT INTO search (search, rowid, title, body) "
            "SELECT 'delete', id, title, body FROM searchables",
            None,
        ),
        ("UPDATE cursor SET hash = zeroblob(32)", "hash"),
        ("UPDATE cursor SET event = 99", "id"),
        ("DROP TABLE runs", None),
    ],
)
def test_views_that_are_not_the_fold_are_found(full: Store, attack: str, field: str | None) -> None:
    change(full.views_db, attack)
    report = checked(full)
    assert report.findings[0].where == "views"
    assert report.findings[0].field == field
    assert verify(full.events_db).ok


def test_views_that_lag_behind_are_sound(full: Store) -> None:
    with full.ledger() as ledger:
        ledger.append([facts.draft(facts.note())])
    report = checked(full)
    assert report.ok
    assert report.views_cursor == report.head_id - 1


def test_absent_or_ruined_views_do_not_hide_the_ledger(full: Store) -> None:
    full.views_db.write_bytes(b"rubbish" * 999)
    report = checked(full)
    assert [found.where for found in report.findings] == ["views"]
    assert report.events == len(whole_history())
    full.views_db.unlink()
    assert checked(full).ok


def test_a_cause_in_the_future_is_found(store: Store) -> None:
    store.holding(facts.draft(facts.note(), 5))
    first = checked(store).first_bad
    assert first is not None
    assert (first.event, first.field) == (1, "provenance")


def test_a_chained_row_that_holds_no_event_is_found(store: Store) -> None:
    store.holding(facts.draft(facts.note()), facts.draft(facts.note()))
    for payload, kind in (("'{}'", "'document.imported'"), ("'{ }'", "'run.started'"), ("'{}'", "'no.such'")):
        change(
            store.events_db,
            f"UPDATE events SET payload = {payload}, kind = {kind} WHERE id = 2",
            "DELETE FROM heads",
        )
        rewrite(store)
        first = verify(store.events_db).first_bad
        assert first is not None
        assert (first.event, first.field) == (2, "payload")


@pytest.mark.usefixtures("on_disk")
def test_verification_beside_a_living_writer(store: Store) -> None:
    script = """
import sys
from pog.ledger import Ledger
from pog.materializer import Materializer
from runloop.events import Draft, DocumentImported
ledger = Ledger.open(sys.argv[1])
views = Materializer.open(sys.argv[2], sys.argv[1])
print("ready", flush=True)
while True:
    note = DocumentImported(document="d", type="note", title="t", text="x" * 900, content_digest="0" * 64)
    ledger.append([Draft(payload=note, actor="daemon")] * 5)
    views.catch_up()
    ledger.checkpoint()
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(store.events_db), str(store.views_db)], stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        for _ in range(8):
            report = verify(store.events_db, views_path=store.views_db)
            assert report.ok, report.findings
    finally:
        writer.kill()
        writer.wait(10)


# --- flipped bytes in the files -------------------------------------------------------------------


def test_a_flipped_byte_anywhere_is_found_or_means_nothing(full: Store, tmp_path: Path) -> None:
    original = full.events_db.read_bytes()
    connection = sqlite3.connect(full.events_db)
    content = (
        connection.execute("SELECT * FROM events").fetchall(),
        connection.execute("SELECT * FROM blobs").fetchall(),
    )
    connection.close()
    dice = random.Random(7)
    missed: list[int] = []
    for number in range(80):
        damaged = bytearray(original)
        place = dice.randrange(len(damaged))
        damaged[place] ^= 1 << dice.randrange(8)
        path = tmp_path / f"{number}.db"
        path.write_bytes(damaged)
        try:
            ok = verify(path, public_key=full.public_key).ok
        except LedgerVersionError:
            ok = False
        if ok:
            check = sqlite3.connect(path)
            same = (
                check.execute("SELECT * FROM events").fetchall(),
                check.execute("SELECT * FROM blobs").fetchall(),
            )
            check.close()
            if same != content:
                missed.append(place)
        path.unlink()
    assert missed == []


def crashed(store: Store, commits: int = 12) -> tuple[bytes, bytes]:
    """A ledger whose writer died with everything still in the log; the two files."""
    script = """
import os, sys
from pog.ledger import Ledger
from runloop.events import Draft, DaemonStopped
ledger = Ledger.open(sys.argv[1])
for number in range(int(sys.argv[2])):
    ledger.append([Draft(payload=DaemonStopped(reason=str(number) * 40), actor="daemon")])
os._exit(9)
"""
    subprocess.run(
        [sys.executable, "-c", script, str(store.events_db), str(commits)], check=False, timeout=60
    )
    log = store.events_db.with_name("events.db-wal")
    return store.events_db.read_bytes(), log.read_bytes()


def lay(store: Store, name: str, database: bytes, log: bytes) -> Path:
    folder = store.folder / name
    folder.mkdir()
    (folder / "events.db").write_bytes(database)
    (folder / "events.db-wal").write_bytes(log)
    return folder / "events.db"


def test_a_log_after_a_crash_is_sound(store: Store) -> None:
    path = lay(store, "copy", *crashed(store))
    assert lost_commits(path) == 0
    assert verify(path).ok
    with Ledger.open(path) as ledger:
        assert ledger.head.id == 12


def test_every_transaction_behind_the_damage_is_counted(store: Store) -> None:
    database, log = crashed(store, 150)
    frames = range(32, len(log), 24 + 4096)
    ends = [place for place in frames if any(log[place + 4 : place + 8])]
    assert len(frames) > 300 and len(ends) >= 150
    for name, damaged in (("first", frames[0]), ("later", frames[20])):
        torn = bytearray(log)
        torn[damaged + 100] ^= 1
        path = lay(store, name, database, bytes(torn))
        assert lost_commits(path) == sum(place >= damaged for place in ends)


def test_a_damaged_byte_inside_the_log_is_never_taken_for_its_end(store: Store) -> None:
    database, log = crashed(store)
    dice = random.Random(11)
    frame = 24 + 4096
    for number in range(25):
        damaged = bytearray(log)
        damaged[dice.randrange(len(log) - 3 * frame)] ^= 1 << dice.randrange(8)
        path = lay(store, f"copy{number}", database, bytes(damaged))
        report = verify(path)
        if report.events == 12:
            continue  # a byte that SQLite does not use
        assert report.findings[0].where == "log"
        before = (path.read_bytes(), path.with_name("events.db-wal").read_bytes())
        with pytest.raises(LedgerCorruptError):
            Ledger.open(path)
        assert (path.read_bytes(), path.with_name("events.db-wal").read_bytes()) == before


@pytest.mark.requirement("L5")
def test_a_log_torn_at_any_place_loses_only_its_end(store: Store) -> None:
    database, log = crashed(store)
    frame = 24 + 4096
    frames = (len(log) - 32) // frame
    dice = random.Random(5)
    cuts = [0, 1, 31, 32, 33, len(log) - 1] + [
        32 + dice.randrange(frames) * frame + dice.choice((0, 1, 23, 24, 4000)) for _ in range(25)
    ]
    heads: dict[int, int] = {}
    told: dict[int, bool] = {}
    for number, cut in enumerate(cuts):
        path = lay(store, f"torn{number}", database, log[:cut])
        with Ledger.open(path) as ledger:
            heads[cut] = ledger.head.id
            told[cut] = ledger.torn_tail
            ledger.append([facts.draft(facts.note())])
        assert verify(path).ok
    ordered = [heads[cut] for cut in sorted(heads)]
    assert ordered == sorted(ordered)
    assert heads[len(log) - 1] == 11
    assert told[len(log) - 1]
    assert not told[0]


def test_a_log_that_is_gone_or_empty_is_sound(store: Store) -> None:
    store.holding(facts.draft(facts.note()))
    assert lost_commits(store.events_db) == 0
    store.events_db.with_name("events.db-wal").write_bytes(b"")
    assert lost_commits(store.events_db) == 0


def test_a_ledger_in_a_folder_nobody_may_write_can_be_verified(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def without_shared_index(database: str, **more: object) -> sqlite3.Connection:
        if "mode=ro" in str(database) and "immutable" not in str(database):
            raise sqlite3.OperationalError("unable to open database file")
        return connect(database, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("pog.connection.sqlite3.connect", without_shared_index)
    assert verify(full.events_db, public_key=full.public_key).ok
    Path(f"{full.events_db}-wal").write_bytes(b"not empty")
    assert not verify(full.events_db).ok
    Path(f"{full.events_db}-wal").unlink()
