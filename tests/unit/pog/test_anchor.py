"""The signed head outside the database: a ledger rewritten without the key is told and not signed again."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import pog.ledger
from pog.anchor import read_anchor, write_anchor
from pog.chain import GENESIS, Row, relink_row
from pog.errors import LedgerCorruptError, LedgerWriteError
from pog.maintain import verify
from runloop.events import DaemonStarted, DaemonStopped, Draft, MemoryUpdated

from .conftest import Store


def started(pid: int) -> Draft:
    return Draft(payload=DaemonStarted(build="b", pid=pid), actor="daemon", scope="system")


def stopped() -> Draft:
    return Draft(payload=DaemonStopped(reason="asked to"), actor="daemon", scope="system")


@pytest.fixture
def anchor(tmp_path: Path) -> Path:
    (tmp_path / "keys").mkdir(mode=0o700)
    return tmp_path / "keys" / "ledger.head"


def forge(path: Path, event_id: int, old: str, new: str) -> None:
    """What somebody without the key can do: change a row, chain anew, drop the heads from there on."""
    with closing(sqlite3.connect(path)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(
            "UPDATE events SET payload = replace(payload, ?, ?) WHERE id = ?", (old, new, event_id)
        )
        prev = GENESIS
        rows = connection.execute(f"SELECT {', '.join(Row._fields)} FROM events ORDER BY id").fetchall()
        for row in map(Row._make, rows):
            own = relink_row(row, prev)
            connection.execute("UPDATE events SET hash = ?, prev_hash = ? WHERE id = ?", (own, prev, row.id))
            prev = own
        connection.execute("DELETE FROM heads WHERE event_id >= ?", (event_id,))
        connection.commit()


def test_a_signing_writes_the_anchor_whole_and_private(store: Store, anchor: Path) -> None:
    with store.ledger(anchor=anchor) as ledger:
        assert not anchor.exists()
        ledger.append([started(1)])
        read = read_anchor(anchor)
        assert read is not None
        assert (read.id, read.hash) == (ledger.head.id, ledger.head.hash)
        assert read.signed_by(store.public_key)
        assert not read.signed_by(Ed25519PrivateKey.generate().public_key())
        assert stat.S_IMODE(anchor.stat().st_mode) == 0o600
        assert [path.name for path in anchor.parent.iterdir()] == ["ledger.head"]


def test_the_head_is_signed_when_somebody_asks_and_only_once(store: Store, anchor: Path) -> None:
    with store.ledger(anchor=anchor) as ledger:
        memory = MemoryUpdated(namespace="n", key="k", value=1, entry_version=1)
        ledger.append([Draft(payload=memory, actor="daemon")])
        assert read_anchor(anchor) is None
        assert ledger.sign_head() == ledger.sign_head() == ledger.head.id == 1
        read = read_anchor(anchor)
        assert read is not None and (read.id, read.hash) == (1, ledger.head.hash)
    with closing(sqlite3.connect(store.events_db)) as connection:
        assert connection.execute("SELECT count(*) FROM heads").fetchone() == (1,)


@pytest.mark.requirement("L2")
def test_a_row_changed_and_chained_anew_is_found_and_never_signed_again(store: Store, anchor: Path) -> None:
    with store.ledger(anchor=anchor) as ledger:
        for pid in (1, 2, 3):
            ledger.append([started(pid)])
    forge(store.events_db, 2, '"pid":2', '"pid":7')
    without = verify(store.events_db, public_key=store.public_key)
    assert without.ok  # the chain and what is left of the heads look sound: hence the anchor
    report = verify(store.events_db, public_key=store.public_key, anchor_path=anchor)
    assert not report.ok
    assert report.first_bad is not None and report.first_bad.event == 3
    with pytest.raises(LedgerCorruptError, match="not the event that was signed") as caught:
        store.ledger(anchor=anchor)
    assert caught.value.hint == "rlp verify"
    with closing(sqlite3.connect(store.events_db)) as connection:
        assert connection.execute("SELECT max(event_id) FROM heads").fetchone() == (1,)


def test_a_ledger_put_back_to_an_older_state_is_refused(store: Store, anchor: Path) -> None:
    with store.ledger(anchor=anchor) as ledger:
        ledger.append([started(1)])
    older = store.events_db.read_bytes()
    with store.ledger(anchor=anchor) as ledger:
        ledger.append([started(2)])
    store.events_db.write_bytes(older)
    with pytest.raises(LedgerCorruptError, match="was signed and is missing"):
        store.ledger(anchor=anchor)
    assert not verify(store.events_db, public_key=store.public_key, anchor_path=anchor).ok


def test_a_missing_anchor_is_said_and_made_anew(store: Store, anchor: Path) -> None:
    with store.ledger(anchor=anchor) as ledger:
        ledger.append([started(1)])
    anchor.unlink()
    report = verify(store.events_db, public_key=store.public_key, anchor_path=anchor)
    assert report.ok
    assert [f"{anchor} is missing" in warning for warning in report.warnings] == [True]
    store.ledger(anchor=anchor).close()
    report = verify(store.events_db, public_key=store.public_key, anchor_path=anchor)
    assert (report.ok, report.warnings, report.anchored_at) == (True, [], 1)


def test_an_anchor_that_is_behind_is_brought_up_to_date(store: Store, anchor: Path) -> None:
    with store.ledger(anchor=anchor) as ledger:
        ledger.append([started(1)])
        behind = anchor.read_bytes()
        ledger.append([started(2)])
        newest = anchor.read_bytes()
    anchor.write_bytes(behind)
    report = verify(store.events_db, public_key=store.public_key, anchor_path=anchor)
    assert report.ok and "is behind" in report.warnings[0]
    store.ledger(anchor=anchor).close()
    assert anchor.read_bytes() == newest


def test_a_head_after_the_anchor_must_bear_our_signature(store: Store, anchor: Path) -> None:
    with store.ledger(anchor=anchor) as ledger:
        ledger.append([started(1)])
    with store.ledger(signing_key=Ed25519PrivateKey.generate()) as ledger:
        ledger.append([started(2)])
    with pytest.raises(LedgerCorruptError, match="another key"):
        store.ledger(anchor=anchor)


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b'{"id":0}', b"\xff" * 10])
def test_what_is_no_anchor_is_refused_and_found(store: Store, anchor: Path, text: bytes) -> None:
    with store.ledger(anchor=anchor) as ledger:
        ledger.append([started(1)])
    anchor.write_bytes(text)
    with pytest.raises(LedgerCorruptError, match="no anchor"):
        store.ledger(anchor=anchor)
    report = verify(store.events_db, public_key=store.public_key, anchor_path=anchor)
    assert [found.where for found in report.findings] == ["anchor"]


def test_an_anchor_of_another_key_is_refused_and_found(
    store: Store, stores: Any, anchor: Path, tmp_path: Path
) -> None:
    for each, key in ((store, store.key), (stores("other"), Ed25519PrivateKey.generate())):
        with each.ledger(anchor=anchor if each is not store else None, signing_key=key) as ledger:
            ledger.append([started(1)])
    with pytest.raises(LedgerCorruptError, match="not signed with this ledger's key"):
        store.ledger(anchor=anchor)
    report = verify(store.events_db, public_key=store.public_key, anchor_path=anchor)
    assert "anchor" in {found.where for found in report.findings}


def test_an_anchor_that_is_a_link_is_not_followed(store: Store, anchor: Path, tmp_path: Path) -> None:
    with store.ledger(anchor=anchor) as ledger:
        ledger.append([started(1)])
    anchor.rename(tmp_path / "elsewhere")
    anchor.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerCorruptError):
        store.ledger(anchor=anchor)


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_the_anchor_follows_a_durable_commit_and_never_leads(
    store: Store, anchor: Path, synchronous: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def keep(path: Path, made: Any) -> None:
        with closing(sqlite3.connect(store.events_db)) as other:  # a second connection sees only commits
            found = other.execute("SELECT hash FROM events WHERE id = ?", (made.id,)).fetchone()
        assert found == (made.hash,)
        steps.append("anchor")
        write_anchor(path, made)

    def sync(path: Path) -> None:
        steps.append("sync")

    monkeypatch.setattr(pog.ledger, "write_anchor", keep)
    monkeypatch.setattr(pog.ledger, "_sync_log", sync)
    with store.ledger(anchor=anchor, synchronous=synchronous) as ledger:
        ledger.append([started(1)])
    assert steps == (["anchor"] if synchronous == "FULL" else ["sync", "anchor"])


def test_a_failed_commit_leaves_the_anchor_alone(store: Store, anchor: Path) -> None:
    with store.ledger(anchor=anchor) as ledger:
        ledger.append([started(1)])
        before = anchor.read_bytes()
        ledger._sql = {**ledger._sql, "append_head": "INSERT INTO nowhere VALUES (?, ?, ?, ?, ?)"}
        with pytest.raises(LedgerWriteError):
            ledger.append([started(2)])
        assert anchor.read_bytes() == before


def test_facts_are_recorded_even_where_the_anchor_cannot_be_written(store: Store, anchor: Path) -> None:
    with store.ledger(anchor=anchor) as ledger:
        anchor.parent.rename(anchor.parent.with_name("away"))
        assert ledger.append([started(1)])[0].id == 1
    anchor.parent.mkdir()
    store.ledger(anchor=anchor).close()
    assert read_anchor(anchor) is not None


def test_events_that_are_not_signed_yet_are_counted_and_a_stop_signs_all(store: Store, anchor: Path) -> None:
    memory = Draft(payload=MemoryUpdated(namespace="n", key="k", value=1, entry_version=1), actor="daemon")
    ledger = store.ledger(anchor=anchor)
    ledger.append([started(1)])
    ledger.append([memory])
    living = verify(store.events_db, public_key=store.public_key, anchor_path=anchor)
    assert (living.ok, living.unsigned, living.to_json()["unsigned"]) == (True, 1, 1)
    ledger.append([stopped()])
    living = verify(store.events_db, public_key=store.public_key, anchor_path=anchor)
    assert (living.ok, living.unsigned, living.signed_up_to) == (True, 0, 3)
    ledger.close()
    with closing(sqlite3.connect(store.events_db)) as connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM heads WHERE event_id = 3")
        connection.commit()
    anchor.unlink()
    report = verify(store.events_db, public_key=store.public_key, anchor_path=anchor)
    assert [(found.where, found.event) for found in report.findings] == [("heads", 2)]


def test_the_log_is_synced_where_a_commit_does_not_wait(
    store: Store, anchor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(file: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{file}").readlink()))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with store.ledger(anchor=anchor, synchronous="NORMAL") as ledger:
        ledger.append([started(1)])
    assert synced[0].endswith("events.db-wal")
