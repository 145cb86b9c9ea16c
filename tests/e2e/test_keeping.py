"""Keeping a ledger over years, as its owner does it: the installed commands on a real home."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.home import Home, wait_until

JOHN = '{"contact": "john", "name": "John Doe", "emails": ["john@example.org"]}'
JANE = '{"contact": "john", "name": "Jane Doe", "emails": ["jane@example.org"]}'


def names(home: Home, *more: str) -> list[str]:
    asked = home.rlp("kb", "query", "SELECT name FROM contacts ORDER BY name", "--json", *more).check()
    return [row["name"] for row in asked.ndjson]


def stated(home: Home, payload: str, *more: str) -> int:
    done = home.rlp("kb", "write-event", "contact.upserted", payload, "--json", *more).check()
    return int(done.json["event"])


def test_what_was_known_then_can_be_asked_for_ever(home: Home) -> None:
    first = stated(home, JOHN)
    second = stated(home, JANE, "--cause", f"#{first}")
    assert names(home) == ["Jane Doe"]
    assert names(home, "--at", str(first)) == ["John Doe"]
    assert names(home, "--at", f"#{first - 1}") == []
    assert names(home, "--at", "2001-02-03") == []
    assert names(home, "--at", "2999-12-31T00:00:00Z") == ["Jane Doe"]
    found = home.rlp("kb", "search", "john", "--at", str(first), "--json").check().json["items"]
    assert [item["title"] for item in found] == ["John Doe"]
    assert f"event {first}, stated" in home.rlp("kb", "query", "SELECT 1", "--at", str(first)).check().err
    (why,) = [hop for hop in home.rlp("kb", "why", f"#{second}", "--json").check().json["hops"]
              if hop["event"] == second]  # fmt: skip
    assert (why["causes"], why["label"]) == ([first], "user")
    assert why["actor"].startswith("operator:")
    assert home.rlp("kb", "query", "SELECT 1", "--at", "999999").check(7)
    assert (
        "neither an event nor a time" in home.rlp("kb", "query", "SELECT 1", "--at", "tomorrow").check(2).err
    )
    home.rlp("daemon", "stop").check()
    assert names(home, "--at", str(first)) == ["John Doe"]  # from the files: no daemon was needed
    assert home.rlp("daemon", "status").code == 3


@pytest.mark.requirement("I4.keeping.7")
def test_a_fact_by_hand_is_knowledge_of_a_known_shape_or_refused(home: Home) -> None:
    assert home.rlp("kb", "write-event", "contact.upserted", '{"contact": "x"}').check(2)
    assert home.rlp("kb", "write-event", "contact.upserted", "nonsense").check(2)
    assert home.rlp("kb", "write-event", "no.such", "{}").check(2)
    done = home.rlp("kb", "write-event", "daemon.stopped", '{"reason": "me"}').check(4)
    assert "cannot be stated by hand" in done.err
    assert (
        "cause 999999"
        in home.rlp("kb", "write-event", "contact.upserted", JOHN, "--cause", "999999").check(7).err
    )
    piped = home.rlp("kb", "write-event", "contact.upserted", "-", "--json", stdin=JOHN).check()
    assert piped.json["kind"] == "contact.upserted"


@pytest.mark.requirement("S6")
def test_a_backup_beside_a_daemon_and_the_way_back(home: Home, tmp_path: Path) -> None:
    stated(home, JOHN)
    kept = tmp_path / "kept"
    made = home.rlp("kb", "backup", str(kept), "--json").check().json
    assert "keys" in home.rlp("kb", "backup", str(tmp_path / "second")).check().err
    assert home.rlp("kb", "backup", str(kept)).check(8)
    assert home.rlp("kb", "verify", str(kept), "--json").check().json["ok"]
    stated(home, JANE)
    before = len(home.events())
    # The daemon runs: nothing is taken from under its hands.
    for command in (
        ("kb", "restore", str(kept), "--accept-loss"),
        ("kb", "salvage", "--to", str(tmp_path / "saved")),
        ("kb", "vacuum"),
        ("kb", "migrate"),
    ):
        assert "rlp daemon stop" in home.rlp(*command).check(8).err, command
    assert home.rlp("kb", "rebuild", "--json").check().json["events"] == before
    home.rlp("daemon", "stop").check()
    # Going back costs events: said, and not done without the word.
    refused = home.rlp("kb", "restore", str(kept)).check(4)
    assert "would be lost" in refused.err and "--accept-loss" in refused.err
    done = home.rlp("kb", "restore", str(kept), "--accept-loss", "--json").check().json
    assert done["lost"]["first"] == made["head_id"] + 1
    assert Path(done["aside"]).is_dir()
    assert names(home) == ["John Doe"]
    (fact,) = home.events("ledger.restored")
    assert fact.id == done["fact"]
    home.rlp("verify").check()
    home.rlp("daemon", "stop").check()
    assert home.rlp("kb", "restore", "--resume").check(7)
    assert home.rlp("kb", "rebuild", "--json").check().json["quarantined"] == 0
    assert len(home.rlp("kb", "vacuum", "--json").check().ndjson) == 2
    assert home.rlp("kb", "migrate", "--json").check().json["kept"] is None
    home.rlp("verify").check()


@pytest.mark.requirement("L4")
def test_a_damaged_ledger_is_refused_saved_and_put_back(home: Home, tmp_path: Path) -> None:
    first = stated(home, JOHN)
    second = stated(home, JANE)
    home.rlp("daemon", "stop").check()
    ledger = home.path / "pog" / "events.db"
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute(
            "UPDATE events SET payload = replace(payload, 'Jane', 'Mary') WHERE id = ?", (second,)
        )
        connection.commit()
    damaged = ledger.read_bytes()
    assert f"event {second}" in home.rlp("verify").check(6).out
    assert home.rlp("kb", "backup", str(tmp_path / "no")).check(6)
    assert not (tmp_path / "no").exists()
    saved = home.rlp("kb", "salvage", "--to", str(tmp_path / "saved"), "--json").check(6).json
    assert ledger.read_bytes() == damaged
    assert (saved["events"], saved["lost_from"]) == (second - 1, second)
    lines = (tmp_path / "saved" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["id"] == second and "Mary" in lines[0]
    home.rlp("kb", "restore", str(tmp_path / "saved")).check(4)
    home.rlp("kb", "restore", str(tmp_path / "saved"), "--accept-loss").check()
    assert names(home) == ["John Doe"]
    home.rlp("verify").check()
    assert first < second


def test_without_its_key_no_backup_is_believed(home: Home, tmp_path: Path) -> None:
    stated(home, JOHN)
    home.rlp("kb", "backup", str(tmp_path / "kept")).check()
    home.rlp("daemon", "stop").check()
    shutil.move(home.path / "keys" / "ledger.key", tmp_path / "ledger.key")
    for command in (("kb", "verify", str(tmp_path / "kept")), ("kb", "restore", str(tmp_path / "kept"))):
        assert "no ledger key" in home.rlp(*command).check(7).err
    (home.path / "keys" / "ledger.key").write_bytes(b"x" * 32)
    (home.path / "keys" / "ledger.key").chmod(0o600)
    assert "another home" in home.rlp("kb", "restore", str(tmp_path / "kept"), "--accept-loss").check(1).err


@pytest.mark.requirement("I4.keeping.3")
def test_going_back_to_before_a_mail_was_sent_does_not_send_it_again(home: Home, tmp_path: Path) -> None:
    """The restored ledger holds a run that waits for a person, and nothing of the mail that then left."""
    home.play().check(5)
    home.rlp("kb", "backup", str(tmp_path / "kept")).check()
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    home.rlp("approve", str(waiting["approval"]), "--wait").check()
    assert len(outbox(home)) == 1
    home.rlp("daemon", "stop").check()
    done = home.rlp("kb", "restore", str(tmp_path / "kept"), "--accept-loss", "--json").check().json
    assert len(done["cancelled"]) == 1
    assert done["lost"]["kinds"]["email.sent"] == 1
    home.rlp("daemon", "start").check()
    wait_until(lambda: bool(home.events("run.finished")), "the run to end")
    (ended,) = home.events("run.finished")
    assert ended.payload.outcome == "cancelled"  # type: ignore[attr-defined]
    assert home.rlp("approvals", "--json").check().ndjson == []
    home.rlp("approve", str(waiting["approval"])).check(8)
    assert len(outbox(home)) == 1


def outbox(home: Home) -> list[Path]:
    return sorted((home.path / "outbox" / "new").iterdir())
