"""Imports as a user meets them: a mixed folder, again, changed, and with something gone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.home import EXAMPLES, Home


def brought(home: Home, *args: object, code: int = 0) -> Any:
    return home.rlp("import", *map(str, args), "--json").check(code).json


@pytest.mark.requirement("I4.import.1")
def test_a_mixed_folder_again_changes_nothing_and_a_change_states_itself(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(EXAMPLES / "imports", folder)
    shutil.copytree(EXAMPLES / "mail", folder / "mail")
    shutil.copy(EXAMPLES / "contacts.vcf", folder)

    told = brought(home, folder, "--dry-run")
    assert (told["appended"], home.events("contact.upserted")) == (sum(told["kinds"].values()), [])
    first = brought(home, folder)
    assert first["appended"] == told["appended"]
    assert first["problems"] == []
    assert set(first["kinds"]) == {"contact", "event", "todo", "mail", "note", "record"}
    head = len(home.events())
    again = brought(home, folder)
    assert (again["appended"], again["skipped"]) == (0, first["appended"])
    assert len(home.events()) == head, "identical sources append no event"

    book = folder / "address-book.csv"
    book.write_text(book.read_text().replace("Grace,Hopper", "Grace,B. Hopper"))
    changed = brought(home, folder)
    assert changed["appended"] == 1
    assert changed["vanished"][0]["title"] == "Grace Hopper", "its name was its only identity"

    (folder / "journal.jsonl").unlink()
    gone = brought(home, folder)
    assert gone["appended"] == 0
    assert {item["origin"] for item in gone["vanished"]} == {str(book), str(folder / "journal.jsonl")}
    assert "no longer there" in home.rlp("import", str(folder)).check().err

    events = home.rlp("kb", "query", "SELECT title, starts, status FROM calendar ORDER BY start_ms", "--json")
    titles = [row["title"] for row in events.check().ndjson]
    assert "Q4 planning" in titles
    found = home.rlp("kb", "search", "planning", "--kind", "event", "--json").check().json["items"]
    assert {hit["kind"] for hit in found} == {"event"}
    for event in home.events("calendar.upserted", "contact.upserted", "document.imported"):
        assert (event.provenance.label or "").startswith("import:")
        assert Path(event.provenance.origin or "").is_relative_to(folder)
    back = brought(home, folder, "--retract-vanished")
    assert (back["retracted_now"], back["appended"]) == (len(gone["vanished"]), 0)
    assert brought(home, folder)["vanished"] == []
    assert home.rlp("kb", "search", "carrier", "--json").check().json["items"] == []
    shutil.copy(EXAMPLES / "imports" / "journal.jsonl", folder)
    learnt = brought(home, folder)
    assert (learnt["appended"], learnt["retracted"]) == (0, 4), "what was taken back is not learnt again"
    home.rlp("verify").check()


@pytest.mark.requirement("I4.import.2")
def test_what_cannot_be_read_is_told_with_its_line_and_the_rest_is_imported(
    home: Home, tmp_path: Path
) -> None:
    (tmp_path / "b.csv").write_text("Who,Mail\nAnn,ann@example.org\n,nobody\n")
    (tmp_path / "x.jsonl").write_text('{"a":1}\nnope\n')
    told = brought(home, tmp_path, "--column", "name=Who", "--column", "email=Mail", code=1)
    assert told["appended"] == 2
    where = tmp_path.name
    assert told["problems"][0] == f"{where}/b.csv:3: 'nobody' is not an address"
    assert told["problems"][-1].startswith(f"{where}/x.jsonl:2: JSON is malformed")
    wrong = home.rlp("import", str(tmp_path / "b.csv"), "--column", "mail=Mail").check(2)
    assert "no field of a contact" in wrong.err
