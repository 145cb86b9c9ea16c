"""What can be saved of damaged files: all that is proven, nothing that is not, and the files left alone."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pog.errors import LedgerCorruptError, LedgerLockedError
from pog.maintain import backup, verify
from pog.maintain.restore import restore
from pog.maintain.salvage import QUARANTINE, Salvaged, salvage
from runloop.digest import blob_digest
from runloop.errors import NotFoundError, RefusedError
from runloop.testing import ManualClock

from . import facts
from .conftest import Store
from .test_damage import _WRITER, FRAME, KEY, acknowledged, copy, dead, files, frames, rows

__all__ = ["acknowledged", "dead"]  # fixtures, by name

ROWS = 12 * 2 + 6


def saved(path: Path, to: Path, **more: Any) -> Salvaged:
    before, there = files(path), sorted(path.parent.iterdir())
    done = salvage(path, to, key=KEY, clock=ManualClock(), anchor=path.with_name("ledger.head"), **more)
    assert files(path) == before, "the damaged files were touched"
    assert [each for each in sorted(path.parent.iterdir()) if each != to] == there
    return done


def kept(to: Path) -> list[Any]:
    return [row[:11] for row in rows(to / "events.db")]


def test_a_sound_ledger_is_saved_whole(dead: Path, acknowledged: list[Any], tmp_path: Path) -> None:
    done = saved(copy(dead, tmp_path / "d"), tmp_path / "new")
    assert kept(tmp_path / "new") == acknowledged
    assert (done.events, done.beyond, done.blobs, done.whole, done.signed_up_to) == (ROWS, 0, 12, True, 6)
    assert (tmp_path / "new" / QUARANTINE).read_bytes() == b""
    made = backup.read(tmp_path / "new", KEY.public_key())
    assert backup.check(made, KEY.public_key()).ok
    assert made.manifest.source == "salvage"


@pytest.mark.requirement("L4")
def test_a_byte_rotten_inside_the_log_costs_what_stands_on_that_page_alone(
    dead: Path, acknowledged: list[Any], tmp_path: Path
) -> None:
    """SQLite would forget everything behind it; the chain tells that the later transactions were stated."""
    log = (dead / "events.db-wal").read_bytes()
    dice = random.Random(1)
    saved_events = []
    for number in range(12):
        damaged = bytearray(log)
        damaged[dice.randrange(32, len(log) - 3 * FRAME)] ^= 1 << dice.randrange(8)
        path = copy(dead, tmp_path / f"d{number}")
        path.with_name("events.db-wal").write_bytes(damaged)
        done = saved(path, tmp_path / f"new{number}")
        assert kept(tmp_path / f"new{number}") == acknowledged[: done.events]
        saved_events.append(done.events)
        if done.events < ROWS:
            assert done.lost_to == ROWS and done.beyond > 0
    assert sum(events == ROWS for events in saved_events) > 3  # other images of the page had the same rows
    assert min(saved_events) >= 6


def test_pages_that_no_longer_hang_together_are_read_all_the_same(
    dead: Path, acknowledged: list[Any], tmp_path: Path
) -> None:
    """The root of the table is gone: SQLite finds no row at all, and every row is still there."""
    path = copy(dead, tmp_path / "d")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'events'").fetchone()
    data = bytearray(path.read_bytes())
    assert data[(root - 1) * 4096] == 5  # an inner page
    data[(root - 1) * 4096 : root * 4096] = bytes(4096)
    path.write_bytes(data)
    with pytest.raises(sqlite3.DatabaseError):
        rows(path)
    done = saved(path, tmp_path / "new")
    assert kept(tmp_path / "new") == acknowledged
    assert done.whole


def test_without_its_first_page_a_ledger_is_still_read(
    dead: Path, acknowledged: list[Any], tmp_path: Path
) -> None:
    path = copy(dead, tmp_path / "d")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    data = path.read_bytes()
    path.write_bytes(b"\xee" * 4096 + data[4096:])
    assert saved(path, tmp_path / "new").events == ROWS
    assert kept(tmp_path / "new") == acknowledged


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def test_what_no_longer_chains_is_written_down_for_people_and_not_kept(
    dead: Path, acknowledged: list[Any], tmp_path: Path
) -> None:
    path = copy(dead, tmp_path / "d")
    change(path, "UPDATE events SET payload = replace(payload, '444', '445') WHERE id = 15")
    done = saved(path, tmp_path / "new")
    assert kept(tmp_path / "new") == acknowledged[:14]
    lines = [json.loads(line) for line in (tmp_path / "new" / QUARANTINE).read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(15, ROWS + 1))
    assert [line["intact"] for line in lines] == [False] + [True] * (ROWS - 15)
    assert lines[1]["payload"] == acknowledged[15][7]
    assert (done.beyond, done.lost_to, done.whole) == (ROWS - 14, ROWS, False)


def test_a_damaged_hash_is_put_right_where_the_next_event_proves_it(
    dead: Path, acknowledged: list[Any], tmp_path: Path
) -> None:
    path = copy(dead, tmp_path / "d")
    change(
        path,
        "UPDATE events SET hash = CAST(x'00' || substr(hash, 2) AS BLOB) WHERE id = 12",
        "UPDATE events SET prev_hash = CAST(x'00' || substr(prev_hash, 2) AS BLOB) WHERE id = 20",
    )
    saved(path, tmp_path / "new")
    assert kept(tmp_path / "new") == acknowledged


def test_what_an_append_that_never_ended_left_behind_is_not_taken_for_stated(
    dead: Path, acknowledged: list[Any], tmp_path: Path
) -> None:
    log = (dead / "events.db-wal").read_bytes()
    last = [place for place, ends in frames(log) if ends][-1]
    path = copy(dead, tmp_path / "d")
    path.with_name("events.db-wal").write_bytes(log[:last])  # all but the frame that ends the transaction
    done = saved(path, tmp_path / "new")
    assert done.events in (ROWS - 2, ROWS)
    if done.events == ROWS - 2:
        assert done.whole
    assert kept(tmp_path / "new") == acknowledged[: ROWS - 2]


def test_bytes_that_are_gone_are_named_and_written_off_by_the_restore(
    dead: Path, acknowledged: list[Any], tmp_path: Path
) -> None:
    store = Store(tmp_path / "pog")
    with store.ledger() as ledger:
        ledger.append(
            [facts.draft(facts.artifact(b"gone")), facts.draft(facts.artifact(b"kept"))], [b"gone", b"kept"]
        )
    change(store.events_db, f"DELETE FROM blobs WHERE hash = x'{blob_digest(b'gone')}'")
    done = saved(store.events_db, tmp_path / "new")
    assert done.blobs_missing == [blob_digest(b"gone")]
    assert not done.whole
    made = backup.read(tmp_path / "new", store.public_key)
    assert backup.check(made, store.public_key).ok
    restore(store.events_db, made, key=store.key, clock=store.clock, principal="operator:1", accept_loss=True)
    report = verify(store.events_db, public_key=store.public_key)
    assert report.ok, report.findings
    assert "were lost before a restore" in report.warnings[0]
    with store.ledger() as ledger:
        ledger.append([facts.draft(facts.artifact(b"gone"))])  # named again afterwards, and not brought along
    assert [found.where for found in verify(store.events_db, public_key=store.public_key).findings] == [
        "blobs"
    ]
    change(store.events_db, f"DELETE FROM blobs WHERE hash = x'{blob_digest(b'kept')}'")
    assert not verify(store.events_db, public_key=store.public_key).ok  # and only those are


@pytest.mark.requirement("L4")
def test_a_salvaged_ledger_is_put_in_place_with_the_word_of_a_person(
    dead: Path, acknowledged: list[Any], tmp_path: Path
) -> None:
    path = copy(dead, tmp_path / "d")
    change(path, "UPDATE events SET actor = 'x' WHERE id = 20")
    anchor = path.with_name("ledger.head")
    saved(path, tmp_path / "new")
    made = backup.read(tmp_path / "new", KEY.public_key())
    told: dict[str, Any] = {
        "key": KEY, "clock": ManualClock(), "principal": "operator:1", "anchor": anchor
    }  # fmt: skip
    with pytest.raises(RefusedError):
        restore(path, made, **told)
    done = restore(path, made, **told, accept_loss=True)
    assert rows(path)[:19] == acknowledged[:19]
    assert rows(path)[19][3] == "ledger.restored"
    assert done.head_id == 20
    assert verify(path, public_key=KEY.public_key(), anchor_path=anchor).ok


@pytest.mark.requirement("S6")
def test_nothing_is_salvaged_from_under_a_living_writer(store: Store, tmp_path: Path) -> None:
    ledger = store.ledger()
    ledger.append([facts.draft(facts.note())])
    with pytest.raises(LedgerLockedError) as refused:
        salvage(store.events_db, tmp_path / "new", key=store.key, clock=store.clock)
    assert "daemon stop" in str(refused.value.hint)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("data", [b"", b"rubbish" * 3_000, bytes(8_192)])
def test_where_nothing_is_proven_nothing_is_made(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "events.db"
    path.write_bytes(data)
    with pytest.raises(LedgerCorruptError, match="no event"):
        saved(path, tmp_path / "new")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["events.db"]
    with pytest.raises(NotFoundError):
        saved(tmp_path / "none.db", tmp_path / "new")


def test_no_file_makes_the_salvage_fail_otherwise_than_by_name(dead: Path, tmp_path: Path) -> None:
    """Structure broken everywhere at once: cell counts, offsets, sizes, overflow chains in circles."""
    dice = random.Random(2)
    path = copy(dead, tmp_path / "d")
    data, log = path.read_bytes(), path.with_name("events.db-wal").read_bytes()
    for number in range(20):
        for name, whole in (("events.db", data), ("events.db-wal", log)):
            damaged = bytearray(whole)
            for _ in range(dice.choice((3, 60, 2_000))):
                page = dice.randrange(len(damaged) // 4096)
                damaged[page * 4096 + dice.randrange(120)] = dice.choice((0, 1, 0x0D, 0x7F, 0xFF))
            path.with_name(name).write_bytes(damaged)
        try:
            done = saved(path, tmp_path / f"new{number}")
        except LedgerCorruptError as refused:
            assert "no event" in refused.message
        else:
            assert done.events >= 1


def test_thousands_of_events_are_saved_in_one_go(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    subprocess.run([sys.executable, "-c", _WRITER, str(folder), "20", "250"], check=False, timeout=60)
    done = saved(folder / "events.db", tmp_path / "new")
    assert (done.events, done.whole) == (5_006, True)
