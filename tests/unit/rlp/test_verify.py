"""``rlp verify``: a changed byte is found and located, with no daemon."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pog.ledger import Ledger
from runloop.clock import SystemClock
from runloop.events import DaemonStarted, Draft
from tests.unit.rlp.conftest import Rlp

SECRET = bytes(range(32))


@pytest.fixture
def ledger(home: Path) -> Path:
    """Three events in a signed ledger, and its key."""
    (home / "keys").mkdir(mode=0o700)
    (home / "keys" / "ledger.key").write_bytes(SECRET)
    (home / "keys" / "ledger.key").chmod(0o600)
    (home / "pog").mkdir(mode=0o700)
    path = home / "pog" / "events.db"
    writer = Ledger.open(path, signing_key=Ed25519PrivateKey.from_private_bytes(SECRET), clock=SystemClock())
    for pid in (1, 2, 3):
        writer.append([Draft(payload=DaemonStarted(build="b", pid=pid), actor="daemon")])
    writer.close()
    return path


def test_a_sound_ledger_is_verified_with_its_signatures(ledger: Path, rlp: Rlp) -> None:
    done = rlp("verify")
    assert done.code == 0
    assert done.out.startswith("verified")
    assert "events   3" in done.out
    assert "no key here" not in done.out
    found = rlp("verify", "--json", "--chain-only").lines[0]
    assert (found["ok"], found["events"], found["authenticated"]) == (True, 3, True)
    assert "3 events" in rlp("doctor").out


def test_a_changed_byte_is_located_and_exits_6(ledger: Path, rlp: Rlp) -> None:
    with sqlite3.connect(ledger) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(
            """UPDATE events SET payload = replace(payload, '"pid":2', '"pid":7') WHERE id = 2"""
        )
    connection.close()
    done = rlp("verify")
    assert done.code == 6
    assert "BAD  event 2, column payload" in done.out
    assert "restore a backup" in done.err
    assert rlp("verify", "--json").lines[0]["first_bad"]["event"] == 2


def test_without_a_key_the_report_says_that_signatures_were_not_checked(
    ledger: Path, rlp: Rlp, home: Path
) -> None:
    (home / "keys" / "ledger.key").unlink()
    assert "no key here" in rlp("verify").out


def test_a_ledger_older_than_its_anchor_is_damaged(ledger: Path, rlp: Rlp, home: Path) -> None:
    anchor = home / "keys" / "ledger.head"
    assert "ledger.head is missing" in rlp("verify").err
    key, older = Ed25519PrivateKey.from_private_bytes(SECRET), ledger.read_bytes()
    with Ledger.open(ledger, signing_key=key, clock=SystemClock(), anchor=anchor) as writer:
        writer.append([Draft(payload=DaemonStarted(build="b", pid=4), actor="daemon")])
    done = rlp("verify")
    assert (done.code, done.err) == (0, "")
    ledger.write_bytes(older)
    done = rlp("verify")
    assert done.code == 6
    assert "BAD  event 4: event 4 is that" in done.out


def test_without_a_ledger_there_is_nothing_to_verify(rlp: Rlp, home: Path) -> None:
    assert rlp("verify").code == 7


def test_views_that_differ_are_not_called_equal(ledger: Path, rlp: Rlp) -> None:
    assert rlp("kb", "rebuild").code == 0
    assert "views    equal the fold" in rlp("verify").out
    with sqlite3.connect(ledger.parent / "views.db") as connection:
        connection.execute(
            "INSERT INTO contact_emails (contact, position, email) VALUES ('c1', 0, 'x@example.org')"
        )
    connection.close()
    done = rlp("verify")
    assert done.code == 6
    assert "views    differ from the fold" in done.out
