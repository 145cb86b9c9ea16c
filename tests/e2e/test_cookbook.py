"""Every opening of the cookbook, run by one real daemon on the example data."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.home import EXAMPLES, ROOT, Done, Home

AGENTS = ("finder", "digest", "triage", "table_check", "report", "folder")
PAGE = ROOT / "docs" / "howto" / "cookbook.md"
CSV = """id;item;qty
1;Hand truck;12
2;Pallet jack;14
3;;11
3;;11
4;Scale;twelve
5;Ramp;13
6;Crane;9000
"""


@pytest.fixture(scope="module")
def home(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One home and one daemon for all: the agents and openings of the cookbook, the example data."""
    path = tmp_path_factory.mktemp("c")
    for part in ("keys", "cache"):
        shutil.copytree(seed / part, path / part, copy_function=os.link if part == "cache" else shutil.copy2)
    (path / "keys" / "ledger.head").unlink(missing_ok=True)
    path.chmod(0o700)
    for name in AGENTS:
        shutil.copytree(EXAMPLES / "agents" / name, path / "agents" / name)
    inbox = tmp_path_factory.mktemp("inbox")
    policy = path / "agents" / "folder" / "policy.caps"
    policy.write_text(policy.read_text().replace("/srv/inbox", str(inbox)))
    (inbox / "2026-11-01 order.txt").write_text(
        "The pallets arrive on 4 November. Who signs for the pallets?\n"
    )
    (inbox / "2026-11-02 note.md").write_text("# Keys\n\nThe keys of the depot lie with Mara, as ever.\n")
    (inbox / "ignored.bin").write_bytes(b"\x00")
    shutil.copytree(EXAMPLES / "openings", path / "openings")
    with Home(path) as fresh:
        fresh.env |= {"RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS": "true", "INBOX": str(inbox)}
        imports = [EXAMPLES / "imports" / name for name in ("calendar.ics", "address-book.csv")]
        paths = [EXAMPLES / "contacts.vcf", EXAMPLES / "notes", EXAMPLES / "mail", *imports]
        fresh.rlp("import", *map(str, paths)).check()
        yield fresh


def run(home: Home, opening: str, *params: str, code: int = 0) -> tuple[Done, str]:
    """Run it to its end; what was seen of it, and the page it wrote."""
    words = [word for param in params for word in ("-p", param)]
    done = home.rlp("run", opening, *words, "--json", "--no-input").check(code)
    pages = [
        output["ports"]["page"][-1]
        for event in events(done, "node.finished")
        if "page" in (output := event["payload"].get("output") or {"ports": {}})["ports"]
    ]
    return done, str(pages[-1]) if pages else ""


def events(done: Done, kind: str) -> list[dict[str, Any]]:
    return [line["event"] for line in done.ndjson if "event" in line and line["event"]["kind"] == kind]


def test_a_mail_is_written_from_the_notes_and_waits_for_a_person(home: Home) -> None:
    done, _ = run(home, "compose_email", "recipient=john", "topic=Q4 plan", code=5)
    (draft,) = [e for e in events(done, "node.finished") if e["payload"]["node"] == "draft"]
    (mail,) = draft["payload"]["output"]["ports"]["out"]
    assert mail["to"] == ["john.carter@example.org"]
    assert "240 000 euros" in mail["body"]


def test_the_morning_brief_names_the_appointments_and_what_the_notes_say(home: Home) -> None:
    _, page = run(home, "morning_brief", "from=2026-11-04", "days:=2")
    assert "- 2026-11-05 10:00 Q4 planning" in page
    assert "Collect the figures for Q4" in page
    assert "**Q4 plan**" in page
    assert "open: Open question: does operations need a second training week before wave two?" in page


@pytest.mark.requirement("I5.language.7")
def test_every_mail_is_triaged_on_its_own(home: Home) -> None:
    done, page = run(home, "triage_mail")
    (expanded,) = events(done, "node.expanded")
    mails = len([path for part in ("cur", "new") for path in (EXAMPLES / "mail" / part).glob("[0-9]*")])
    assert expanded["payload"]["items"] == mails
    labels = re.findall(r"^- (\w+): ", page, re.MULTILINE)
    assert len(labels) == mails
    assert labels == sorted(labels)
    assert set(labels) <= {"urgent", "answer", "read", "bulk"}
    assert len(set(labels)) > 1


def test_the_notes_on_a_topic_are_shortened_side_by_side_and_joined(home: Home) -> None:
    done, page = run(home, "digest_topic", "topic=warehouse rollout")
    assert page.startswith("# Notes on warehouse rollout\n")
    assert "**Warehouse rollout**" in page
    assert "the label printers in Luleå still run the old firmware" in page
    assert "offsite" not in page
    assert events(done, "node.gathered")[0]["payload"]["status"] == "succeeded"


def test_a_meeting_is_prepared_with_the_person_the_facts_and_the_date(home: Home) -> None:
    _, page = run(home, "meeting_prep", "person=john", "topic=Q4 plan", "from=2026-11-02")
    assert "John Carter john.carter@example.org" in page
    assert "three waves" in page
    assert "2026-11-05 10:00 Q4 planning" in page


def test_contacts_without_an_address_are_listed(home: Home) -> None:
    _, page = run(home, "clean_contacts")
    assert re.search(r"^- email: \d+ of \d+ rows are empty$", page, re.MULTILINE)


def test_a_table_is_checked_and_one_with_problems_fails_the_run(home: Home) -> None:
    _, page = run(home, "check_table", f"text={CSV}", 'unique:=["id"]', code=1)
    for problem in (
        "- item: 2 of 7 rows are empty",
        "- row 4 repeats row 3",
        "- id: '3' occurs 2 times",
        "- qty: row 5 has 'twelve' among numbers",
        "- qty: row 7 has 9000, the median is 12.5",
    ):
        assert problem in page
    run(home, "check_table", "text=a,b\n1,2\n3,4\n")


@pytest.mark.requirement("I5.language.7")
def test_the_weekly_review_nests_two_other_openings_and_is_replayed(home: Home) -> None:
    before = len(home.events("run.started"))
    done, page = run(home, "weekly_review", "topic=warehouse", "from=2026-11-02")
    assert len(home.events("run.started")) - before == 3
    assert "### By urgency" in page
    assert "**Warehouse rollout**" in page
    assert "2026-11-05 10:00 Q4 planning" in page
    run_id = done.ndjson[-1]["result"]["run"]
    assert home.rlp("replay", run_id, "--json").check().json["identical"] is True


def test_an_opening_is_mapped_over_a_list_of_topics(home: Home) -> None:
    done, page = run(home, "digest_many", f"topics:={json.dumps(['warehouse', 'offsite'])}")
    assert events(done, "node.expanded")[0]["payload"]["items"] == 2
    assert "**Warehouse rollout**" in page
    assert "Mara collects proposals" in page


def test_the_texts_in_a_directory_are_put_on_one_page(home: Home) -> None:
    _, page = run(home, "folder_digest", f"path={home.env['INBOX']}")
    assert re.findall(r"\*\*(.+?)\*\*", page) == ["2026-11-02 note", "2026-11-01 order"]
    assert "open: Who signs for the pallets?" in page


@pytest.mark.requirement("I5.language.7")
def test_the_cookbook_shows_every_opening_and_every_one_is_fit_to_run(home: Home) -> None:
    page = PAGE.read_text(encoding="utf-8")
    names = sorted(path.stem for path in (EXAMPLES / "openings").iterdir())
    assert len(names) >= 8
    for name in names:
        assert f"`{name}`" in page, name
        home.rlp("plan", name).check()
    listed = {row["name"] for row in home.rlp("list", "--json").ndjson if row["kind"] == "opening"}
    assert {*names, "compose_email"} <= listed
