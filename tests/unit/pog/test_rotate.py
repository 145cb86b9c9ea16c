"""Another signing key: what the old one signed stays proven, what it signs later is believed by nobody."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pog.anchor import read_anchor
from pog.chain import head_statement
from pog.errors import BackupError, LedgerCorruptError, LedgerLockedError
from pog.ledger import Ledger
from pog.maintain import backup, rotate, verify
from pog.maintain.restore import restore
from pog.rekey import reigns, rekeyed
from runloop.credential import read_key
from runloop.errors import NotFoundError
from runloop.events import decode_payload

from . import facts
from .conftest import Store


class Home:
    """A ledger with its key in a file, as a daemon's home has it."""

    def __init__(self, store: Store, keys: Path) -> None:
        keys.mkdir(mode=0o700)
        self.store = store
        self.path = store.events_db
        self.key_file = keys / "ledger.key"
        self.anchor = keys / "ledger.head"
        self.key_file.write_bytes(store.key.private_bytes_raw())
        self.key_file.chmod(0o600)

    @property
    def key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.key_file.read_bytes())

    @property
    def public(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    def ledger(self) -> Ledger:
        return Ledger.open(self.path, signing_key=self.key, clock=self.store.clock, anchor=self.anchor)

    def learns(self, *texts: str) -> None:
        with self.ledger() as ledger:
            for text in texts:
                ledger.append([facts.draft(facts.note(text=text))])

    def rotate(self) -> rotate.Rotated:
        return rotate.rotate(
            self.path, key_file=self.key_file, anchor=self.anchor, clock=self.store.clock,
            principal="operator:1000", read=read_key,
        )  # fmt: skip

    def settle(self) -> bool:
        return rotate.settle(self.path, key_file=self.key_file, anchor=self.anchor, read=read_key)

    def verified(self) -> list[str]:
        report = verify(self.path, public_key=self.key.public_key(), anchor_path=self.anchor)
        return [finding.what for finding in report.findings]

    def does(self, statement: str, *values: Any) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute(statement, values)


@pytest.fixture
def home(store: Store, tmp_path: Path) -> Home:
    made = Home(store, tmp_path / "keys")
    made.learns("one", "two")
    return made


@pytest.mark.requirement("K9")
def test_after_any_number_of_exchanges_every_head_is_still_proven(home: Home) -> None:
    keys = [home.public]
    for text in ("three", "four", "five"):
        done = home.rotate()
        assert (done.before, done.after) == (keys[-1].hex(), home.public.hex()) and home.public != keys[-1]
        keys.append(home.public)
        home.learns(text)
    assert home.verified() == []
    with closing(sqlite3.connect(home.path)) as connection:
        assert [reign.public for reign in reigns(connection, home.public)] == keys[::-1]
        signers = {row[0] for row in connection.execute("SELECT public_key FROM heads")}
    assert signers == set(keys)
    assert not rotate.next_file(home.key_file).exists()
    assert home.key_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.requirement("K9")
def test_a_head_of_the_old_key_over_anything_later_is_not_believed(home: Home) -> None:
    stolen = home.key
    event = home.rotate().event
    home.learns("three")
    with closing(sqlite3.connect(home.path)) as connection:
        newest, digest = connection.execute("SELECT id, hash FROM events ORDER BY id DESC").fetchone()
        signature = stolen.sign(head_statement(newest, digest, 7))
        connection.execute(
            "INSERT OR REPLACE INTO heads VALUES (?, ?, 7, ?, ?)",
            (newest, digest, stolen.public_key().public_bytes_raw(), signature),
        )
        connection.commit()
    assert newest > event
    assert "the head is signed with another key" in home.verified()


@pytest.mark.requirement("K9")
def test_who_has_the_old_key_and_the_file_rewrites_nothing_before_the_exchange(
    home: Home, tmp_path: Path
) -> None:
    """A history of another kind, chained and signed with the stolen key, with the true fact of the exchange
    as its last event: the new key vouched for another one."""
    stolen = home.key
    event = home.rotate().event
    with closing(sqlite3.connect(home.path)) as connection:
        (text,) = connection.execute("SELECT payload FROM events WHERE id = ?", (event,)).fetchone()
    forged = tmp_path / "forged" / "events.db"
    with Ledger.open(forged, signing_key=stolen, clock=home.store.clock) as ledger:
        for number in range(event - 1):
            ledger.append([facts.draft(facts.note(text=f"forged {number}"))])
        assert ledger.sign_head() == event - 1
        ledger.append([facts.draft(decode_payload("ledger.rekeyed", json.loads(text)))])
    report = verify(forged, public_key=home.key.public_key())
    assert report.events == event
    assert {finding.event for finding in report.findings} == {event - 1, event}
    assert {finding.what for finding in report.findings} == {"the head is signed with another key"}


@pytest.mark.requirement("K9")
@pytest.mark.parametrize("spoilt", ["vouched", "last_hash", "before"])
def test_a_fact_that_proves_nothing_makes_no_key_believed(home: Home, spoilt: str) -> None:
    thief = Ed25519PrivateKey.generate()
    with home.ledger() as ledger:
        fact = rekeyed(
            thief.public_key().public_bytes_raw(), home.key, last=ledger.head.id,
            last_hash=ledger.head.hash, principal="operator:1000",
        )  # fmt: skip
        fields = {name: getattr(fact, name) for name in fact.__struct_fields__}
        fields[spoilt] = f"{int(fields[spoilt][:2], 16) ^ 1:02x}{fields[spoilt][2:]}"
        ledger.append([facts.draft(decode_payload("ledger.rekeyed", fields))])
    with closing(sqlite3.connect(home.path)) as connection:
        assert [reign.public for reign in reigns(connection, home.public)] == [home.public]


STEPS = ["the new key is written", "the ledger knows", "the anchor knows"]


@pytest.mark.requirement("K9")
@pytest.mark.parametrize("step", STEPS)
def test_an_exchange_that_dies_at_any_step_is_brought_to_an_end(
    home: Home, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(Exception):
        pass

    def dies(*_: object, **__: object) -> None:
        raise Died

    kept = home.anchor.read_bytes()
    old = home.public
    if step == STEPS[0]:
        monkeypatch.setattr(Ledger, "rekey", dies)
    else:
        monkeypatch.setattr(rotate, "_put_in_place", dies)
    with pytest.raises(Died):
        home.rotate()
    monkeypatch.undo()
    if step == STEPS[1]:
        home.anchor.write_bytes(kept)  # as if it had died before it was written
    assert rotate.next_file(home.key_file).exists()
    assert home.settle() and not home.settle()
    assert (home.public == old) == (step == STEPS[0])
    home.learns("after")
    assert home.verified() == []


@pytest.mark.requirement("K9")
def test_an_exchange_is_not_finished_over_a_ledger_that_was_put_back(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rotate, "_put_in_place", dies)
    kept = home.anchor.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        home.rotate()
    monkeypatch.undo()
    home.anchor.write_bytes(kept)
    home.does("UPDATE events SET hash = zeroblob(32) WHERE id = (SELECT max(event_id) FROM heads) - 1")
    with pytest.raises(LedgerCorruptError, match="does not fit it"):
        home.settle()
    assert rotate.next_file(home.key_file).exists()


def test_half_of_a_key_was_never_the_ledgers(home: Home) -> None:
    old = home.public
    waiting = rotate.next_file(home.key_file)
    waiting.write_bytes(b"half")
    waiting.chmod(0o600)
    assert home.settle() and home.public == old and not waiting.exists()
    assert home.rotate().before == old.hex()


def test_beside_a_daemon_or_without_a_ledger_nothing_is_exchanged(home: Home, tmp_path: Path) -> None:
    before = home.key_file.read_bytes()
    with home.ledger(), pytest.raises(LedgerLockedError):
        home.rotate()
    home.path = tmp_path / "nothing.db"
    with pytest.raises(NotFoundError):
        home.rotate()
    assert home.key_file.read_bytes() == before and not rotate.next_file(home.key_file).exists()


def test_an_exchange_that_the_disk_refuses_leaves_the_old_key(home: Home) -> None:
    old, new = home.key, Ed25519PrivateKey.generate()
    with home.ledger() as ledger:
        ledger._connection.execute("PRAGMA query_only = ON")
        with pytest.raises(Exception, match="was not written"):
            ledger.rekey(new, principal="operator:1000")
        ledger._connection.execute("PRAGMA query_only = OFF")
        ledger.append([facts.draft(facts.note(text="still"))])
    assert home.verified() == [] and home.public == old.public_key().public_bytes_raw()


@pytest.mark.requirement("K9")
def test_a_backup_of_an_earlier_key_is_still_read_and_put_back(home: Home) -> None:
    folder = home.path.parent.parent / "backup"
    kept = backup.write(home.path, folder, key=home.key, clock=home.store.clock, anchor=home.anchor)
    home.rotate()
    home.learns("three")
    home.rotate()
    found, signer = rotate.backup_of(folder, home.path, home.key.public_key())
    assert found == kept and backup.check(found, signer).ok
    restore(
        home.path, found, key=home.key, signer=signer, clock=home.store.clock,
        principal="operator:1000", anchor=home.anchor, accept_loss=True,
    )  # fmt: skip
    assert home.verified() == []
    anchor = read_anchor(home.anchor)
    assert anchor is not None and anchor.signed_by(home.key.public_key())
    home.learns("goes on")
    assert home.verified() == []


@pytest.mark.requirement("K9")
def test_a_backup_that_a_stolen_key_made_is_not_believed(home: Home, tmp_path: Path) -> None:
    stolen = home.key
    home.rotate()
    other = Store(tmp_path / "forged")
    forged = Ledger.open(other.events_db, signing_key=stolen, clock=other.clock)
    with forged as ledger:
        ledger.append([facts.draft(facts.note(text="forged"))])
    backup.write(other.events_db, tmp_path / "backup", key=stolen, clock=other.clock)
    with pytest.raises(BackupError, match="another home's key"):
        rotate.backup_of(tmp_path / "backup", home.path, home.key.public_key())


def test_a_ledger_with_a_trigger_is_not_sound_whoever_signed_it(home: Home) -> None:
    """Facts of a kind would vanish as they are stated, and every page would be whole."""
    with closing(sqlite3.connect(home.path)) as planted:
        planted.execute(
            "CREATE TRIGGER quiet BEFORE INSERT ON events WHEN new.kind = 'grant.revoked'"
            " BEGIN SELECT RAISE(IGNORE); END"
        )
        planted.commit()
    assert any("trigger" in str(found) for found in home.verified())
