"""Damaged files: opened with exactly what was acknowledged, or refused by name; never changed in silence."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pog.connection import LEDGER, FileKind
from pog.errors import LedgerCorruptError, LedgerVersionError
from pog.ledger import Ledger
from pog.maintain import backup as backups
from pog.maintain import verify
from pog.maintain.migrate import migrate
from pog.maintain.vacuum import vacuum
from pog.wal import lost_commits
from runloop.errors import RunloopError
from runloop.events import DaemonStarted, Draft
from runloop.testing import ManualClock

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
FRAME = 24 + 4096
COMMITS = 12
EACH = 2
"""Events of one commit: a torn one must be there whole or not at all."""

_WRITER = """
import os, sys
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pog.ledger import Ledger
from runloop.events import Draft, DaemonStarted, DocumentImported
key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
folder = Path(sys.argv[1])
anchor = folder / "ledger.head"
with Ledger.open(folder / "events.db", signing_key=key, anchor=anchor) as ledger:
    for number in range(6):
        ledger.append([Draft(payload=DaemonStarted(build=str(number) * 900, pid=1), actor="daemon")])
ledger = Ledger.open(folder / "events.db", signing_key=key, anchor=anchor, sign_every=10**6)
for number in range(int(sys.argv[2])):
    note = DocumentImported(
        document="d", type="note", title="t", text=str(number) * 900, content_digest="0" * 64
    )
    ledger.append([Draft(payload=note, actor="daemon")] * int(sys.argv[3]), [os.urandom(700)])
os._exit(9)
"""


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger whose writer died: six events in the file, ``COMMITS`` transactions in the log."""
    folder = tmp_path_factory.mktemp("dead")
    subprocess.run(
        [sys.executable, "-c", _WRITER, str(folder), str(COMMITS), str(EACH)], check=False, timeout=60
    )
    assert (folder / "events.db-wal").stat().st_size > COMMITS * FRAME
    return folder


@pytest.fixture(scope="module")
def acknowledged(dead: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return rows(copy(dead, tmp_path_factory.mktemp("read")))


@pytest.fixture
def lay(dead: Path, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """The dead ledger again, with other bytes in one of its files."""
    made: list[Path] = []

    def lay(database: bytes | None = None, log: bytes | None = None) -> Path:
        folder = copy(dead, tmp_path / str(len(made))).parent
        if database is not None:
            (folder / "events.db").write_bytes(database)
        if log is not None:
            (folder / "events.db-wal").write_bytes(log)
        made.append(folder)
        if len(made) > 1:
            shutil.rmtree(made[-2], ignore_errors=True)
        return folder / "events.db"

    yield lay


def copy(dead: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("events.db", "events.db-wal", "ledger.head"):
        shutil.copy(dead / name, folder / name)
    return folder / "events.db"


def rows(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM events ORDER BY id").fetchall()


def blobs(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM blobs ORDER BY hash").fetchall()


def files(path: Path) -> dict[str, bytes]:
    return {
        name: (path.parent / name).read_bytes()
        for name in ("events.db", "events.db-wal", "ledger.head")
        if (path.parent / name).exists()
    }


def opened(path: Path) -> int | RunloopError:
    """Open as the daemon does: the newest event, or the refusal, which must leave the files as they were."""
    before = files(path)
    try:
        with Ledger.open(path, signing_key=KEY, anchor=path.with_name("ledger.head")) as ledger:
            return ledger.head.id
    except (LedgerCorruptError, LedgerVersionError) as refused:
        assert refused.hint
        assert files(path) == before
        return refused


def frames(log: bytes) -> list[tuple[int, bool]]:
    """``(place, ends a transaction)`` of every frame."""
    return [
        (place, log[place + 4 : place + 8] != bytes(4)) for place in range(32, len(log) - FRAME + 1, FRAME)
    ]


def whole_commits(log: bytes, length: int) -> int:
    """Transactions of which every byte is within ``length``."""
    salts = log[40:48]
    return sum(
        ends and log[place + 8 : place + 16] == salts and place + FRAME <= length
        for place, ends in frames(log)
    )


# --- torn -----------------------------------------------------------------------------------------


@pytest.mark.requirement("L4", "L5")
def test_a_log_torn_at_every_byte_of_a_page_keeps_the_transactions_before_it(
    dead: Path, acknowledged: list[Any], tmp_path: Path
) -> None:
    """Every byte of one frame and its neighbours' edges, through SQLite itself and through our look at it."""
    log = (dead / "events.db-wal").read_bytes()
    ends = [place + FRAME for place, ends in frames(log) if ends]
    first = ends[3]  # the frame after the fourth transaction
    path = copy(dead, tmp_path / "torn")
    torn = path.with_name("events.db-wal")
    for cut in reversed(range(first - 30, first + FRAME + 30)):
        os.truncate(torn, cut)
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT id, hash FROM events ORDER BY id").fetchall()
        count = 6 + EACH * whole_commits(log, cut)
        assert found == [(row[0], row[9]) for row in acknowledged[:count]], cut
        path.with_name("events.db-shm").unlink(missing_ok=True)


def test_a_log_torn_at_every_edge_of_a_frame_is_opened_with_whole_transactions(
    dead: Path, acknowledged: list[Any], lay: Callable[..., Path]
) -> None:
    """Where a transaction ends with every cut; between its frames with one of them in turn."""
    log = (dead / "events.db-wal").read_bytes()
    cuts = (-1, 0, 512)
    behind_an_end = True
    for number, (place, ends) in enumerate(frames(log)):
        for cut in (place + by for by in (cuts if behind_an_end else cuts[number % 3 :][:1])):
            path = lay(log=log[:cut])
            count = 6 + EACH * whole_commits(log, cut)
            assert opened(path) == count, cut
            assert rows(path) == acknowledged[:count]
            assert verify(path, public_key=KEY.public_key()).ok
        behind_an_end = ends


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 55])
def test_a_log_of_a_few_bytes_is_no_log(
    acknowledged: list[Any], dead: Path, lay: Callable[..., Path], length: int
) -> None:
    path = lay(log=(dead / "events.db-wal").read_bytes()[:length])
    assert opened(path) == 6
    assert rows(path) == acknowledged[:6]


def test_what_the_anchor_proves_cannot_be_torn_off_unseen(dead: Path, lay: Callable[..., Path]) -> None:
    path = lay()
    with Ledger.open(path, signing_key=KEY, anchor=path.with_name("ledger.head")) as ledger:
        signed = ledger.head.id  # closing signs it
    log = path.with_name("events.db-wal")
    path.write_bytes((dead / "events.db").read_bytes())
    log.write_bytes((dead / "events.db-wal").read_bytes()[: 32 + 5 * FRAME])
    refused = opened(path)
    assert isinstance(refused, LedgerCorruptError)
    assert f"event {signed}" in refused.message


def image(folder: Path, to: Path) -> Path:
    """The files as they are, copied by another process: to close one here would drop SQLite's locks on it."""
    to.mkdir()
    subprocess.run(["cp", str(folder / "events.db"), str(folder / "events.db-wal"), str(to)], check=True)
    return to / "events.db"


def test_what_a_torn_transaction_left_behind_is_not_taken_for_damage_later(tmp_path: Path) -> None:
    """The disk wrote the end of a transaction, not its beginning; a shorter one then lies before it."""
    started = Draft(payload=DaemonStarted(build="b", pid=1), actor="daemon")
    (tmp_path / "a").mkdir()
    with Ledger.open(tmp_path / "a" / "events.db", signing_key=KEY) as ledger:
        ledger.append([started])
        before = (tmp_path / "a" / "events.db-wal").read_bytes()
        ledger.append([started], [os.urandom(30_000)])
        torn = image(tmp_path / "a", tmp_path / "b")
    log = torn.with_name("events.db-wal")
    after = log.read_bytes()
    places = (place for place, _ in frames(after))
    first = next(at for at in places if after[at : at + FRAME] != before[at : at + FRAME])
    log.write_bytes(after[:first] + bytes(FRAME) + after[first + FRAME :])
    with Ledger.open(torn, signing_key=KEY) as ledger:
        assert (ledger.head.id, ledger.torn_tail) == (1, True)
        ledger.append([started])
        later = image(torn.parent, tmp_path / "c")
    assert verify(later, public_key=KEY.public_key()).ok
    with Ledger.open(later, signing_key=KEY) as ledger:
        assert (ledger.head.id, ledger.torn_tail) == (2, False)


# --- rotten ---------------------------------------------------------------------------------------


def _judge(path: Path, acknowledged: list[Any], bytes_: list[Any]) -> str:
    """Open a damaged ledger, and insist on: exact, refused by name, or found by verify. Never silent."""
    report_before = verify(path, public_key=KEY.public_key(), anchor_path=path.with_name("ledger.head"))
    found = opened(path)
    if isinstance(found, RunloopError):
        return "refused"
    try:
        exact = rows(path) == acknowledged and blobs(path) == bytes_
    except sqlite3.DatabaseError:
        exact = False
    if exact:
        return "exact"
    assert not report_before.ok, "the ledger differs and nobody says so"
    return "found"


def _verdict(path: Path, acknowledged: list[Any], bytes_: list[Any]) -> str:
    try:
        return _judge(path, acknowledged, bytes_)
    except LedgerVersionError:
        return "refused"  # verify says it is no ledger of ours


@pytest.fixture(scope="module")
def closed(dead: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, closed in good order: everything is in the file."""
    path = copy(dead, tmp_path_factory.mktemp("closed"))
    Ledger.open(path, signing_key=KEY, anchor=path.with_name("ledger.head")).close()
    path.with_name("events.db-wal").write_bytes(b"")
    return path.parent


@pytest.mark.requirement("L4")
@pytest.mark.parametrize("part", ["events.db", "events.db-wal"])
def test_a_flipped_bit_anywhere_is_refused_or_found_or_means_nothing(
    dead: Path, closed: Path, acknowledged: list[Any], tmp_path: Path, part: str
) -> None:
    source = dead if part.endswith("wal") else closed
    data = (source / part).read_bytes()
    kept = blobs(copy(dead, tmp_path / "kept"))
    dice = random.Random(f"flip {part}")
    # Everywhere, and more often where structure is: headers of file, log, pages, frames.
    start, step = (32, FRAME) if part.endswith("wal") else (0, 4096)
    places = [dice.randrange(len(data)) for _ in range(25)]
    places += [
        start + dice.randrange((len(data) - start) // step) * step + dice.randrange(48) for _ in range(25)
    ]
    verdicts: dict[str, int] = {}
    for number, place in enumerate(places):
        damaged = bytearray(data)
        damaged[place] ^= 1 << dice.randrange(8)
        path = copy(source, tmp_path / str(number))
        path.with_name(part).write_bytes(damaged)
        verdict = _verdict(path, acknowledged, kept)
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
    assert verdicts.get("refused", 0) + verdicts.get("found", 0) > 5  # the test reaches what it is about


def test_zeroed_pages_and_cut_files_are_refused_or_found(
    dead: Path, acknowledged: list[Any], lay: Callable[..., Path], tmp_path: Path
) -> None:
    database, log = (dead / "events.db").read_bytes(), (dead / "events.db-wal").read_bytes()
    kept = blobs(copy(dead, tmp_path / "kept"))
    for page in range(len(database) // 4096):
        zeroed = database[: page * 4096] + bytes(4096) + database[(page + 1) * 4096 :]
        _verdict(lay(database=zeroed), acknowledged, kept)
    last_but_one = [place for place, ends in frames(log) if ends][COMMITS - 2]
    for place in (place for place, _ in frames(log) if place <= last_but_one):
        zeroed = log[: place + 24] + bytes(4096) + log[place + FRAME :]
        found = opened(lay(log=zeroed))
        assert isinstance(found, LedgerCorruptError), place
    for length in range(1, len(database), 1_777):
        _verdict(lay(database=database[:length]), acknowledged, kept)


NEXT = FileKind("ledger", LEDGER.application_id, LEDGER.version + 1)
KEEPING: dict[str, Callable[[Path, Path], object]] = {
    "backup": lambda path, to: backups.write(path, to, key=KEY, clock=ManualClock()),
    "vacuum": lambda path, to: vacuum(path, to),
    "migrate": lambda path, _: migrate(
        path, key=KEY, clock=ManualClock(), kind=NEXT, steps={LEDGER.version: ""}
    ),
}


@pytest.mark.requirement("L4")
@pytest.mark.parametrize("work", sorted(KEEPING))
def test_a_log_rotten_inside_is_neither_copied_nor_folded_away(
    dead: Path, lay: Callable[..., Path], tmp_path: Path, work: str
) -> None:
    """SQLite would take the transactions before the damage for the whole ledger, and say nothing."""
    log = bytearray((dead / "events.db-wal").read_bytes())
    log[frames(log)[2][0] + 200] ^= 1
    path = lay(log=bytes(log))
    before = files(path)
    with pytest.raises(LedgerCorruptError, match="cannot be read") as refused:
        KEEPING[work](path, tmp_path / "made")
    assert "rlp kb salvage" in refused.value.hint
    assert files(path) == before
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("data", [b"\0" * 4096, b"rubbish" * 999, b"SQLite format 3\0" + b"\xff" * 5000])
def test_another_file_is_refused_untouched(lay: Callable[..., Path], data: bytes) -> None:
    assert isinstance(opened(lay(database=data)), RunloopError)
    assert isinstance(opened(lay(database=data, log=b"")), RunloopError)


def test_a_database_of_somebody_else_is_refused_untouched(lay: Callable[..., Path], tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.commit()
    path = lay(database=other.read_bytes(), log=b"")
    assert isinstance(opened(path), LedgerVersionError)


# --- killed ---------------------------------------------------------------------------------------

LIVES = 1_000 if os.environ.get("HYPOTHESIS_PROFILE") == "explore" else 100


@pytest.mark.timeout(900)
@pytest.mark.requirement("L4")
@pytest.mark.usefixtures("on_disk")
def test_no_number_of_deaths_loses_anything_that_was_acknowledged(tmp_path: Path) -> None:
    """kill -9 in the middle of appending, a thousand times with `make explore`."""
    path = tmp_path / "pog" / "events.db"
    path.parent.mkdir(mode=0o700)
    script = f"""
import os, random, signal, sys, time
from pog.ledger import Ledger
from runloop.events import Draft, DaemonStopped
draft = Draft(payload=DaemonStopped(reason="x" * 400), actor="daemon")
dice = random.Random(3)
path = {str(path)!r}
for life in range({LIVES}):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        ledger = Ledger.open(path)
        while True:
            events = ledger.append([draft] * 2)
            os.write(writing, b"%12d" % events[-1].id)
    os.close(writing)
    told = 0
    for _ in range(dice.randrange(1, 4)):
        told = int(os.read(reading, 12))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while rest := os.read(reading, 12):
        told = int(rest)
    os.close(reading)
    with Ledger.open(path) as ledger:
        assert ledger.head.id >= told and ledger.head.id % 2 == 0, (life, ledger.head.id, told)
print("survived")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.stdout == "survived\n", done.stderr[-2000:]
    report = verify(path)
    assert report.ok and report.events > 2 * LIVES
    assert lost_commits(path) == 0
