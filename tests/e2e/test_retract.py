"""Search, why and retract with the installed commands: a source is found, used, taken back, and let count."""

from __future__ import annotations

import pytest

from tests.home import EXAMPLES, Home


@pytest.mark.requirement("I4.search.1")
def test_a_misspelt_name_is_found_and_the_embedder_is_named(home: Home) -> None:
    home.rlp("import", str(EXAMPLES / "contacts.vcf")).check()
    (contact, *_) = home.rlp("kb", "search", "carter", "--json").check().json["items"]
    found = home.rlp("kb", "search", "johnn carterr", "--json").check().json
    assert contact["id"] in [item["id"] for item in found["items"]]
    assert found["embedders"] == ["lexical-1"]
    assert contact["label"].startswith("import:")


@pytest.mark.requirement("I4.retract.1", "I4.why.1")
def test_a_source_that_was_used_is_taken_back_with_the_question_it_led_to(home: Home) -> None:
    home.play().check(5)
    (asked,) = home.rlp("approvals", "--json").check().ndjson
    (run,) = home.events("run.started")
    # Which notes went into it is on record, forward and back.
    note = next(
        event
        for event in home.events("document.imported")
        if any(event.id in heard.provenance.causes for heard in home.events("hostcall.delivered"))
    )
    forward = home.rlp("kb", "why", str(note.id), "--impact", "--json").check().json
    kinds = {hop["kind"] for hop in forward["hops"]}
    assert {"document.imported", "hostcall.delivered", "node.finished", "action.requested"} <= kinds
    back = home.rlp("kb", "why", asked["approval"], "--json").check().json
    assert note.id in [hop["event"] for hop in back["hops"]]
    assert back["decisions"][0]["content_blob"] and back["asked"][0]["run"] == run.run

    preview = home.rlp("kb", "retract", str(note.id), "--dry-run", "--json").check().json
    assert preview["approvals"] == [asked["approval"]] and home.events("source.retracted") == []
    done = home.rlp("kb", "retract", str(note.id), "--cascade", "--reason", "it was a lie", "--json").check()
    assert done.json["approvals"] == [asked["approval"]] and done.json["runs"] == [run.run]
    assert home.rlp("approve", asked["approval"]).code == 8
    assert home.outbox() == []
    assert "it was a lie" in home.rlp("kb", "why", asked["approval"]).check().err
    gone = home.rlp("kb", "query", "SELECT event FROM documents", "--json").check().ndjson
    assert note.id not in [row["event"] for row in gone]

    home.rlp("kb", "retract", str(done.json["retraction"]), "--undo", "--reason", "it was true").check()
    again = home.rlp("kb", "query", "SELECT event FROM documents", "--json").check().ndjson
    assert note.id in [row["event"] for row in again]
    home.rlp("daemon", "stop").check()
    home.rlp("verify").check()


def test_the_log_tells_of_no_address(home: Home) -> None:
    home.play().check(5)
    (asked,) = home.rlp("approvals", "--json").check().ndjson
    home.rlp("approve", asked["approval"]).check()
    home.rlp("kb", "why", "nobody@secret-domain.example")
    log = (home.path / "log" / "runloopd.log").read_text()
    assert "example.org" not in log and "secret-domain" not in log
