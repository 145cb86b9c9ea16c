"""The ledger and its views under any order of writing, dying, coming back, backing up and going back.

A model holds what was acknowledged. After every step the files must say exactly that: ids without a gap, the
chain and its heads verify, every blob is there, and the views are the fold of the events up to their cursor.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pog.folds import TABLES
from pog.ledger import Ledger
from pog.maintain import backup as backups
from pog.maintain import verify
from pog.maintain.restore import restore
from pog.maintain.salvage import salvage
from pog.maintain.vacuum import vacuum
from pog.materializer import Materializer
from pog.moment import Moment, fold_until
from pog.reader import Reader
from runloop.digest import blob_digest
from runloop.errors import RefusedError, UsageError
from runloop.events import (
    DaemonStarted,
    DaemonStopped,
    Draft,
    MemoryUpdated,
    SourceRestored,
    SourceRetracted,
)
from runloop.testing import ManualClock
from tests.memory import quick

from . import facts

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
RUNS = (facts.RUN, facts.OTHER)
SECTOR = 512
LEARNT = ("contact.upserted", "document.imported", "memory.updated")

Fact = tuple[str, str]
"""Kind and payload text: what is compared."""


def memory(value: str) -> Draft:
    return facts.draft(MemoryUpdated(namespace="agent:a", key=value[:3], value=value, entry_version=1))


texts = st.text("abé\U0001f600\n", max_size=2_500)
drafts = st.one_of(
    st.builds(lambda name, text: facts.draft(facts.contact(name, text)), st.sampled_from("xyz"), texts),
    st.builds(
        lambda name, text: facts.draft(facts.note(name, text[:40], text)), st.sampled_from("de"), texts
    ),
    st.builds(memory, texts),
    # The second start of the same run does not fit the views: it is quarantined, and everything goes on.
    st.builds(lambda run: facts.draft(facts.run_started(), run=run), st.sampled_from(RUNS)),
    st.builds(lambda run: facts.draft(facts.run_finished(), run=run), st.sampled_from(RUNS)),
    st.builds(lambda run: facts.draft(facts.scheduled(), run=run), st.sampled_from(RUNS)),
    st.builds(lambda reason: Draft(payload=DaemonStopped(reason=reason), actor="daemon"), texts),
)
invalid = st.sampled_from(
    [
        facts.draft(facts.contact("c", 5)),  # type: ignore[arg-type]
        facts.draft(facts.contact("c", "\ud800")),
        facts.draft(facts.contact(), actor=""),
        Draft(payload=facts.contact(), actor="daemon", scope="everybody"),
        facts.draft(MemoryUpdated(namespace="n", key="k", value=2**60, entry_version=1)),
    ]
)


class Kept(NamedTuple):
    """A backup, and what the model held when it was made."""

    backup: backups.Backup
    facts: list[Fact]
    blobs: set[bytes]


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="machine-", dir=quick()))
        self.clock = ManualClock()
        self.number = 0
        self.facts: list[Fact] = []
        self.blobs: set[bytes] = set()
        self.kept: list[Kept] = []
        self.torn = False
        """A commit was cut off: whole pages of it may lie in the log, of events that nobody was told of."""
        self.folder = self.root / "0"
        self.folder.mkdir()
        self.open()
        # As a daemon begins: from the first event on there is a signed head.
        self.state(Draft(payload=DaemonStarted(build="b", pid=1), actor="daemon", scope="system"))

    # --- the present files ------------------------------------------------------------------------

    @property
    def events_db(self) -> Path:
        return self.folder / "events.db"

    @property
    def views_db(self) -> Path:
        return self.folder / "views.db"

    @property
    def anchor(self) -> Path:
        return self.folder / "keys.head"

    def open(self) -> None:
        self.ledger = Ledger.open(
            self.events_db, signing_key=KEY, clock=self.clock, sign_every=7, anchor=self.anchor
        )
        self.views = Materializer.open(self.views_db, self.events_db)

    def close(self) -> None:
        self.views.close()
        self.ledger.close()

    def image(self) -> Path:
        """The files as they are now, without anybody closing them."""
        self.number += 1
        made = self.root / str(self.number)
        made.mkdir()
        there = [path for path in self.folder.iterdir() if path.is_file() and "shm" not in path.name]
        # By another process: to open and close a file here would drop the locks SQLite has on it.
        subprocess.run(["cp", *map(str, there), str(made)], check=True)
        return made

    def die(self, image: Path) -> None:
        """Go on with an image; what the dead process does at its end touches only its own files."""
        before = self.folder
        self.close()
        shutil.rmtree(before)
        self.folder = image
        self.open()

    def state(self, *given: Draft, blobs: tuple[bytes, ...] = ()) -> None:
        """Append, and believe it."""
        blobs = (b"{}", *blobs)
        events = self.ledger.append(given, blobs)
        self.clock.advance(10)
        assert [event.id for event in events] == [len(self.facts) + 1 + place for place in range(len(events))]
        self.facts += self.texts(after=len(self.facts))
        assert len(self.facts) == events[-1].id
        self.blobs |= set(blobs)

    def texts(self, after: int = 0) -> list[Fact]:
        with Reader(self.events_db) as reader:
            return [(row.kind, row.payload) for row in reader.rows(after=after)]

    # --- rules ------------------------------------------------------------------------------------

    @rule(
        given=st.lists(drafts, min_size=1, max_size=4), blobs=st.lists(st.binary(max_size=9_000), max_size=2)
    )
    def append(self, given: list[Draft], blobs: list[bytes]) -> None:
        named = [facts.draft(facts.artifact(blob)) for blob in blobs]
        self.state(*given, *named, blobs=tuple(blobs))

    @rule(good=drafts, bad=invalid, first=st.booleans())
    def append_what_is_refused(self, good: Draft, bad: Draft, first: bool) -> None:
        with pytest.raises(UsageError):
            self.ledger.append([bad, good] if first else [good, bad], [b"never"])

    @rule(which=st.integers(0, 40), more=st.booleans())
    def take_back(self, which: int, more: bool) -> None:
        """A retraction folds older facts anew: the views are still the fold, in whatever steps."""
        learnt = [place + 1 for place, (kind, _) in enumerate(self.facts) if kind in LEARNT]
        if learnt:
            source = learnt[which % len(learnt)]
            others = learnt[-2:] if more else []
            fact = SourceRetracted(
                source=source,
                facts=sorted({source, *others}),
                cascade=more,
                runs=[],
                approvals=[],
                reason="wrong",
                principal="operator:1",
            )
            self.state(facts.draft(fact, source, actor="operator:1"))

    @rule(which=st.integers(0, 40))
    def let_count_again(self, which: int) -> None:
        taken = [place + 1 for place, (kind, _) in enumerate(self.facts) if kind == SourceRetracted.kind]
        if taken:
            retraction = taken[which % len(taken)]
            fact = SourceRestored(retraction=retraction, reason="right", principal="operator:1")
            self.state(facts.draft(fact, retraction, actor="operator:1"))

    @rule(up_to=st.floats(0, 1))
    def catch_up_partly(self, up_to: float) -> None:
        self.views.catch_up(up_to=max(self.views.cursor, int(up_to * len(self.facts))))

    @rule()
    def catch_up(self) -> None:
        assert self.views.catch_up() == len(self.facts)

    @rule()
    def rebuild(self) -> None:
        assert self.views.rebuild() == len(self.facts)

    @rule()
    def checkpoint(self) -> None:
        self.ledger.checkpoint()

    @rule()
    def close_and_open(self) -> None:
        self.close()
        self.open()

    @rule(room=st.sampled_from([0, 700, 5_000]), rubbish=st.booleans())
    def die_at_rest(self, room: int, rubbish: bool) -> None:
        """kill -9 or a power cut between two appends: at FULL, everything acknowledged is there."""
        image = self.image()
        log = image / "events.db-wal"
        if room and log.exists() and log.stat().st_size:
            with log.open("ab") as opened:  # room the file system had given to the log, never written
                opened.write((b"\xff" if rubbish else b"\0") * room)
        self.die(image)

    @rule(
        given=st.lists(drafts, min_size=1, max_size=3),
        blob=st.binary(max_size=9_000),
        how=st.sampled_from(["cut", "sectors", "whole"]),
        dice=st.randoms(use_true_random=False),
    )
    def die_in_an_append(self, given: list[Draft], blob: bytes, how: str, dice: random.Random) -> None:
        """A power cut in the middle of a commit: the transaction is there whole, or not at all."""
        before, had = self.image(), list(self.facts)
        self.ledger.append([*given, facts.draft(facts.artifact(blob))], [b"{}", blob])
        new = had + self.texts(after=len(had))
        after = self.image()
        old_log, new_log = _log(before), _log(after)
        torn = new_log if how == "whole" else _torn(old_log, new_log, how, dice)
        image = before if torn != new_log or dice.random() < 0.5 else after  # the anchor may lag behind
        (image / "events.db-wal").write_bytes(torn)
        self.die(image)
        found = self.texts()
        if how == "whole" or torn == new_log:
            assert found == new
        assert found in (had, new)
        self.facts = found
        self.torn = self.torn or found != new
        if found == new:
            self.blobs.add(blob)

    @rule()
    def vacuum(self) -> None:
        self.close()
        vacuum(self.events_db, self.views_db)
        self.open()

    @precondition(lambda self: len(self.kept) < 4)
    @rule()
    def back_up(self) -> None:
        self.number += 1
        made = backups.write(
            self.events_db,
            self.root / f"backup-{self.number}",
            key=KEY,
            clock=self.clock,
            anchor=self.anchor,
        )
        assert made.manifest.head_id == len(self.facts)
        self.kept.append(Kept(made, list(self.facts), set(self.blobs)))

    @precondition(lambda self: self.kept)
    @rule(which=st.integers(0, 3))
    def go_back(self, which: int) -> None:
        self.close()
        kept = self.kept[which % len(self.kept)]
        lost = self.facts[: len(kept.facts)] != kept.facts or len(self.facts) > len(kept.facts)
        told: dict[str, Any] = {
            "key": KEY, "clock": self.clock, "principal": "operator:1", "anchor": self.anchor,
        }  # fmt: skip
        if lost:
            with pytest.raises(RefusedError):
                restore(self.events_db, kept.backup, **told)
            assert self.texts() == self.facts
        done = restore(self.events_db, kept.backup, **told, accept_loss=lost)
        self.clock.advance(1_000)
        assert done.loss.nothing == (not lost)
        found = self.texts()
        count = len(kept.facts)
        assert found[:count] == kept.facts
        assert [kind for kind, _ in found[count:]] == [
            "ledger.restored", *["run.cancel_requested"] * len(done.cancelled)
        ]  # fmt: skip
        self.facts, self.blobs = found, set(kept.blobs)
        self.open()
        self.views.catch_up()

    @rule(upto=st.floats(0, 1))
    def look_back(self, upto: float) -> None:
        """The views at a moment are what folding up to it made of them, in however many goes."""
        moment = Moment(event=int(upto * len(self.facts)), ts_ms=0)
        with tempfile.TemporaryDirectory() as scratch:
            there, then = Path(scratch) / "there.db", Path(scratch) / "then.db"
            fold_until(self.events_db, moment, there)
            with Materializer.open(then, self.events_db) as stepwise:
                for step in range(0, moment.event, 3):
                    stepwise.catch_up(up_to=step)
                stepwise.catch_up(up_to=moment.event)
            assert _tables(there) == _tables(then)

    @rule()
    def salvage_what_is_whole(self) -> None:
        if not self.facts:
            return
        image = self.image()
        done = salvage(
            image / "events.db", image / "saved", key=KEY, clock=self.clock, anchor=image / "keys.head"
        )
        assert done.events == len(self.facts)
        assert done.whole or (self.torn and done.beyond), "what it cannot rule out, it says"
        shutil.rmtree(image)

    # --- what always holds ------------------------------------------------------------------------

    @invariant()
    def the_files_hold_what_was_acknowledged_and_nothing_else(self) -> None:
        with Reader(self.events_db) as reader:
            rows = list(reader.rows())
        assert [row.id for row in rows] == list(range(1, len(self.facts) + 1))
        assert [(row.kind, row.payload) for row in rows] == self.facts

    @invariant()
    def chain_heads_blobs_and_views_are_sound(self) -> None:
        report = verify(
            self.events_db,
            public_key=KEY.public_key(),
            views_path=self.views_db,
            anchor_path=self.anchor,
        )
        assert report.ok, report.findings
        assert report.views_checked
        assert report.views_cursor == self.views.cursor <= len(self.facts)
        with Reader(self.events_db) as reader:
            for blob in self.blobs:
                assert reader.blob(blob_digest(blob)) == blob

    def teardown(self) -> None:
        self.close()
        shutil.rmtree(self.root)


def _log(folder: Path) -> bytes:
    log = folder / "events.db-wal"
    return log.read_bytes() if log.exists() else b""


def _torn(old: bytes, new: bytes, how: str, dice: random.Random) -> bytes:
    """The log when the power went: what was written of ``new`` over ``old``, byte by byte or by sectors."""
    old = old.ljust(len(new), b"\0")
    first = next((place for place, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
    if how == "cut":
        cut = dice.randrange(first, len(new))
        cut = 0 if cut < 32 else cut  # the log's own header lies in one sector, and is synced before the rest
        return new[:cut] + (old[cut:] if dice.random() < 0.5 else b"")
    keep = {place for place in range(0, len(new), SECTOR) if dice.random() < 0.5}
    keep |= {0} if keep else set()  # as above: the sector of the log's own header is synced before the rest
    parts = [(new if place in keep else old)[place : place + SECTOR] for place in range(0, len(new), SECTOR)]
    return b"".join(parts)


def _tables(path: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()
            for table, order in {**TABLES, "cursor": "one"}.items()
        }


TestLedger = pytest.mark.timeout(400)(pytest.mark.requirement("L4", "I4.keeping.1")(LedgerMachine.TestCase))
TestLedger.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
