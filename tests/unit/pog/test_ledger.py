"""The writer: order, atomicity, the chain, the lock, and what happens when the disk says no."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pog.chain import GENESIS, link
from pog.errors import (
    LedgerCorruptError,
    LedgerLockedError,
    LedgerUncertainError,
    LedgerVersionError,
    LedgerWriteError,
)
from pog.ledger import Ledger
from pog.maintain import verify
from runloop.digest import blob_digest, framed
from runloop.errors import UsageError
from runloop.events import Draft, MemoryUpdated, Payload

from . import facts
from .conftest import Store


def test_facts_get_ids_times_and_a_place_in_the_chain(store: Store) -> None:
    ledger = store.ledger()
    first, second = ledger.append([facts.draft(facts.contact()), facts.draft(facts.note())])
    (third,) = ledger.append([facts.draft(facts.contact())])

    assert [first.id, second.id, third.id] == [1, 2, 3]
    assert first.prev_hash == GENESIS
    assert second.prev_hash == first.hash
    assert third.prev_hash == second.hash
    assert third.ts_ms == store.clock.now_ms()
    assert (ledger.head.id, ledger.head.hash) == (3, third.hash)


def test_the_same_fact_may_be_stated_twice(store: Store) -> None:
    ledger = store.ledger()
    one, two = ledger.append([facts.draft(facts.contact())] * 2)
    assert one.payload == two.payload
    assert one.hash != two.hash


@pytest.mark.requirement("I2.ledger.1")
def test_the_hash_is_the_documented_one(store: Store) -> None:
    (event,) = store.ledger().append([Draft(payload=facts.contact(), actor="operator:1", run=facts.RUN)])
    row = next(store.reader().rows())
    expected = blob_digest(
        framed(
            bytes(32),
            (1).to_bytes(8, "big"),
            event.ts_ms.to_bytes(8, "big"),
            b"operator:1",
            b"contact.upserted",
            (1).to_bytes(8, "big"),
            b"user",
            b"=" + facts.RUN.encode(),
            row.payload.encode(),
            b"{}",
        )
    )
    assert event.hash.hex() == expected


@pytest.mark.requirement("L3")
def test_no_byte_can_be_moved_from_one_field_to_the_next_without_changing_the_hash() -> None:
    fields = {
        "actor": b"daemon",
        "kind": b"run.started",
        "scope": b"user",
        "run": b"abc",
        "payload": b'{"a":1}',
        "provenance": b"{}",
    }

    def hashed(**changed: bytes | None) -> bytes:
        return link(GENESIS, event_id=1, ts_ms=2, version=1, **(fields | changed))  # type: ignore[arg-type]

    hashes = {hashed()}
    names = list(fields)
    for left, right in itertools.pairwise(names):
        hashes.add(hashed(**{left: fields[left][:-1], right: fields[left][-1:] + fields[right]}))
        hashes.add(hashed(**{left: fields[left] + fields[right][:1], right: fields[right][1:]}))
    hashes |= {hashed(run=None), hashed(run=b"")}
    assert len(hashes) == 1 + 2 * (len(names) - 1) + 2


def test_a_bad_draft_keeps_the_whole_append_out(store: Store) -> None:
    class Invented(Payload):
        kind = "invented"

    ledger = store.ledger()
    bad = [
        facts.draft(Invented()),
        facts.draft(facts.contact("c", 5)),  # type: ignore[arg-type]
        facts.draft(facts.contact("c", "\ud800")),
        facts.draft(facts.contact(), actor=""),
        Draft(payload=facts.contact(), actor="daemon", scope="everybody"),
        Draft(payload=facts.contact(), actor="daemon", run=""),
        facts.draft(MemoryUpdated(namespace="n", key="k", value=2**60, entry_version=1)),
        facts.draft(MemoryUpdated(namespace="n", key="k", value=object(), entry_version=1)),
    ]
    for draft in bad:
        with pytest.raises(UsageError):
            ledger.append([facts.draft(facts.note()), draft])
    assert ledger.head.id == 0
    assert store.reader().head_id() == 0


def test_blobs_enter_with_their_events_and_once(store: Store) -> None:
    ledger = store.ledger()
    ledger.append([facts.draft(facts.artifact(b"one"))], [b"one", b"one"])
    ledger.append([], [b"one", b"two"])
    assert ledger.append([]) == []
    assert store.reader().blob(blob_digest(b"one")) == b"one"
    assert store.reader().blob(blob_digest(b"two")) == b"two"


def test_there_is_one_writer(store: Store) -> None:
    first = store.ledger()
    with pytest.raises(LedgerLockedError) as refused:
        Ledger.open(store.events_db)
    assert refused.value.hint
    first.close()
    store.ledger().append([facts.draft(facts.note())])


def test_the_lock_holds_over_processes_and_dies_with_the_holder(store: Store) -> None:
    script = (
        "import sys; from pog.ledger import Ledger; l = Ledger.open(sys.argv[1]);"
        "print('open', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(store.events_db)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(LedgerLockedError):
            Ledger.open(store.events_db)
    finally:
        holder.kill()
        holder.wait(10)
    store.ledger()


def test_files_are_for_their_owner_only(store: Store) -> None:
    store.ledger().append([facts.draft(facts.note())])
    assert store.folder.stat().st_mode & 0o777 == 0o700
    for file in store.folder.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


def test_a_symbolic_link_is_no_ledger(store: Store, tmp_path: Path) -> None:
    store.folder.mkdir()
    (tmp_path / "elsewhere").touch()
    store.events_db.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerVersionError):
        store.ledger()
    assert (tmp_path / "elsewhere").stat().st_size == 0


def test_a_newer_or_foreign_file_is_refused_untouched(store: Store) -> None:
    store.holding(facts.draft(facts.note()))
    connection = sqlite3.connect(store.events_db)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    before = store.events_db.read_bytes()
    with pytest.raises(LedgerVersionError, match="is of version 2"):
        store.ledger()
    assert store.events_db.read_bytes() == before

    connection = sqlite3.connect(store.events_db)
    connection.execute("PRAGMA application_id = 7")
    connection.close()
    with pytest.raises(LedgerVersionError, match="not a Runloop ledger"):
        store.ledger()


def test_a_file_that_is_no_database_is_refused(store: Store) -> None:
    store.folder.mkdir()
    store.events_db.write_bytes(b"not a database at all, " * 1000)
    with pytest.raises(LedgerCorruptError):
        store.ledger()


def test_an_unknown_durability_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match=r"kb\.synchronous"):
        store.ledger(synchronous="OFF")


def test_a_closed_ledger_refuses_and_closes_again(store: Store) -> None:
    ledger = store.ledger()
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerWriteError) as refused:
        ledger.append([facts.draft(facts.note())])
    assert refused.value.named_code == "ledger.closed"


# --- the disk says no -----------------------------------------------------------------------------


def _log_descriptor(store: Store) -> int:
    name = str(store.events_db) + "-wal"
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            if descriptor.readlink() == Path(name):
                return int(descriptor.name)
        except FileNotFoundError:
            continue
    raise AssertionError("no log is open")


@pytest.mark.requirement("L1")
def test_after_an_io_error_nothing_is_recorded_and_the_next_append_goes_on(store: Store) -> None:
    ledger = store.ledger()
    ledger.append([facts.draft(facts.note())])
    head = ledger.head
    descriptor = _log_descriptor(store)
    saved = os.dup(descriptor)
    read_only = os.open(f"{store.events_db}-wal", os.O_RDONLY)
    try:
        os.dup2(read_only, descriptor)  # every write to the log now fails
        for _ in range(3):
            with pytest.raises(LedgerWriteError) as refused:
                ledger.append([facts.draft(facts.contact())], [b"never"])
            assert refused.value.named_code == "ledger.write"
            assert refused.value.hint
            assert ledger.head == head
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)
        os.close(read_only)
    (event,) = ledger.append([facts.draft(facts.contact())])
    assert (event.id, event.prev_hash) == (2, head.hash)
    ledger.close()
    assert verify(store.events_db, public_key=store.public_key).ok


@pytest.mark.requirement("L1")
def test_a_full_disk_is_said_plainly_and_survived(store: Store) -> None:
    ledger = store.ledger()
    ledger.append([facts.draft(facts.note())])
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, hard))
        with pytest.raises(LedgerWriteError):
            ledger.append([facts.draft(facts.note(text="x" * 100_000))] * 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert ledger.append([facts.draft(facts.note())])[0].id == 2
    ledger.close()
    assert verify(store.events_db).events == 2


def test_a_bounded_file_reports_full(store: Store) -> None:
    ledger = store.ledger()
    ledger.append([facts.draft(facts.note())])
    ledger._connection.execute("PRAGMA max_page_count = 20")
    with pytest.raises(LedgerWriteError, match="full") as refused:
        ledger.append([facts.draft(facts.note(text="x" * 200_000))])
    assert "free space" in str(refused.value.hint)


def test_a_head_that_somebody_else_moved_is_refused_for_good(store: Store) -> None:
    ledger = store.ledger()
    ledger.append([facts.draft(facts.note())])
    intruder = sqlite3.connect(store.events_db)
    intruder.execute(
        "INSERT INTO events SELECT 2, ts_ms, actor, kind, version, scope, run, payload, provenance, hash, "
        "prev_hash FROM events"
    )
    intruder.commit()
    intruder.close()
    with pytest.raises(LedgerWriteError):
        ledger.append([facts.draft(facts.note())])
    for _ in range(2):
        with pytest.raises(LedgerUncertainError):
            ledger.append([facts.draft(facts.note())])


def test_an_interrupted_write_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = store.ledger(sign_every=1)

    class Stop(BaseException):
        pass

    class Interrupted:
        def sign(self, _: bytes) -> bytes:
            raise Stop

    key = ledger._key
    ledger._key = Interrupted()  # type: ignore[assignment]
    with pytest.raises(Stop):
        ledger.append([facts.draft(facts.note())])
    assert not ledger._connection.in_transaction
    ledger._key = key
    assert ledger.append([facts.draft(facts.contact())])[0].id == 1


# --- after a crash --------------------------------------------------------------------------------


@pytest.mark.usefixtures("on_disk")
def test_acknowledged_events_survive_kill_nine(store: Store) -> None:
    script = """
import sys
from pog.ledger import Ledger
from runloop.events import Draft, DaemonStopped
ledger = Ledger.open(sys.argv[1], synchronous="NORMAL")
while True:
    events = ledger.append([Draft(payload=DaemonStopped(reason="x" * 500), actor="daemon")] * 3)
    print(events[-1].id, flush=True)
"""
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", script, str(store.events_db)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(20):
            acknowledged = int(writer.stdout.readline())
        writer.kill()
        writer.wait(10)
        with store.ledger() as ledger:
            assert ledger.head.id >= acknowledged
            assert ledger.head.id % 3 == 0
    assert verify(store.events_db, public_key=store.public_key).ok


def test_heads_are_signed_on_the_way_and_at_close(store: Store) -> None:
    with store.ledger(sign_every=4) as ledger:
        for _ in range(9):
            ledger.append([facts.draft(facts.note())])
        assert verify(store.events_db, public_key=store.public_key).signed_up_to == 8
    report = verify(store.events_db, public_key=store.public_key)
    assert (report.signed_heads, report.signed_up_to) == (3, 9)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE events SET actor = 'somebody' WHERE id = 3",
        "UPDATE events SET hash = zeroblob(32) WHERE id = 4",
        "DELETE FROM events WHERE id = 3",
        "UPDATE events SET hash = zeroblob(32) WHERE id = 2",
        "DELETE FROM events",
    ],
)
def test_a_tail_that_does_not_chain_is_not_signed_unseen(store: Store, damage: str) -> None:
    with store.ledger() as ledger:
        ledger.append([facts.draft(facts.note())] * 2)
    ledger = store.ledger(signing_key=None)
    ledger.append([facts.draft(facts.note())] * 2)
    ledger.close()
    connection = sqlite3.connect(store.events_db)
    connection.execute(damage)
    connection.commit()
    connection.close()
    with pytest.raises(LedgerCorruptError) as refused:
        store.ledger()
    assert "verify" in str(refused.value.hint)


def test_a_checkpoint_beside_a_reader_is_harmless(store: Store) -> None:
    ledger = store.ledger()
    ledger.append([facts.draft(facts.note())] * 50)
    events = store.reader().events()
    next(events)
    ledger.checkpoint()
    ledger.append([facts.draft(facts.note())])
    assert len(list(events)) == 49


@pytest.mark.requirement("I4.step.3")
def test_the_log_is_bounded_though_nobody_makes_a_checkpoint(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pog.ledger._ALARM_PAGES", 100)
    ledger = store.ledger()
    for number in range(200):
        ledger.append([facts.draft(facts.note(f"d{number}", text="x" * 20_000))])
    assert store.events_db.with_name("events.db-wal").stat().st_size < 150 * 4_200


def test_a_checkpoint_tells_how_long_the_log_is(store: Store) -> None:
    ledger = store.ledger()
    ledger.append([facts.draft(facts.note(text="x" * 100_000))])
    assert 20 <= ledger.checkpoint() <= 60
    ledger.append([facts.draft(facts.note())])
    assert ledger.checkpoint() <= 10  # begun anew
    ledger.close()
    assert ledger.checkpoint() == 0


def test_room_is_made_once_and_a_disk_without_it_is_no_matter(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = store.ledger()
    log = store.events_db.with_name("events.db-wal")

    def full(*_: object) -> int:
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pog.ledger.os.pwrite", full)
        ledger.make_room()
    (first,) = ledger.append([facts.draft(facts.note("d1"))])
    before = log.read_bytes()
    ledger.make_room()
    assert log.stat().st_size == 8 * 1024 * 1024
    assert log.read_bytes().startswith(before)
    (second,) = ledger.append([facts.draft(facts.note("d2"))])
    ledger.make_room()
    assert log.stat().st_size == 8 * 1024 * 1024
    assert list(store.reader().events()) == [first, second]
