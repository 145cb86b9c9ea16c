"""`rlp run compose_email`, end to end: the installed commands, a real daemon, real guests, real files."""

from __future__ import annotations

import email
import email.policy
import re

from tests.home import EXAMPLES, Home, example_paths


def only_approval(home: Home) -> str:
    waiting = home.rlp("approvals", "--json").check().json
    items = waiting["approvals"] if isinstance(waiting, dict) else waiting
    assert len(items) == 1
    return str(items[0]["id"])


def test_without_a_terminal_the_run_parks_says_how_to_go_on_and_sends_nothing(home: Home) -> None:
    parked = home.play().check(5)
    assert "rlp approve " in parked.err
    assert home.outbox() == []


def test_an_approved_mail_lands_in_the_outbox_as_the_very_bytes_that_were_shown(home: Home) -> None:
    home.play().check(5)
    approval = only_approval(home)
    home.rlp("approve", approval, "--json").check()
    run = home.rlp("runs", "--json").check().json["runs"][0]["run"]
    home.rlp("run", "--follow", run, "--json").check() if False else wait_finished(home, run)

    (content,) = home.outbox()
    (requested,) = home.events("action.requested")
    with_reader = home.events("email.sent")
    assert with_reader[0].payload.content_blob == requested.payload.content_blob  # type: ignore[attr-defined]
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert message["To"] == "John Carter <john.carter@example.org>" or "john" in str(message["To"]).lower()
    assert message["Subject"]
    assert message["Message-ID"]
    assert message["Date"]
    assert message.get_content().strip()


def wait_finished(home: Home, run: str) -> None:
    from tests.home import wait_until

    wait_until(lambda: any(e.run == run for e in home.events("run.finished")), f"run {run} to finish")


def test_a_person_at_a_terminal_sees_the_action_says_yes_and_the_mail_is_sent(home: Home) -> None:
    home.rlp("import", *map(str, example_paths())).check()
    done = home.terminal(
        "run", "compose_email", "-p", "recipient=john", "-p", "topic=Q4 plan", answers={r"\[y/N": "y\n"}
    )
    assert done.code == 0, done.out
    assert "john" in done.out.lower()
    assert len(home.outbox()) == 1


def test_a_person_who_says_no_stops_the_mail_for_good(home: Home) -> None:
    home.rlp("import", *map(str, example_paths())).check()
    done = home.terminal(
        "run", "compose_email", "-p", "recipient=john", "-p", "topic=Q4 plan", answers={r"\[y/N": "n\n"}
    )
    assert done.code != 130
    assert home.outbox() == []
    assert [e.payload.decision for e in home.events("action.decided")] == ["denied"]  # type: ignore[attr-defined]


def test_importing_twice_states_nothing_twice(home: Home) -> None:
    first = home.rlp("import", *map(str, example_paths()), "--json").check().json
    second = home.rlp("import", *map(str, example_paths()), "--json").check().json
    assert first["appended"] > 0
    assert second["appended"] == 0


def test_a_finished_run_replays_identically_and_the_ledger_verifies(home: Home) -> None:
    home.play().check(5)
    home.rlp("approve", only_approval(home)).check()
    run = home.rlp("runs", "--json").check().json["runs"][0]["run"]
    wait_finished(home, run)
    before = len(home.outbox())
    replayed = home.rlp("replay", run).check()
    assert "identical" in replayed.out
    assert "re-executed" in replayed.out
    assert len(home.outbox()) == before
    home.rlp("daemon", "stop").check()
    home.rlp("verify").check()


def test_a_flipped_byte_in_the_ledger_is_found_and_located(home: Home) -> None:
    home.play().check(5)
    home.rlp("daemon", "stop").check()
    import sqlite3

    with sqlite3.connect(home.events_db) as ledger:
        (event_id, payload) = ledger.execute(
            "SELECT id, payload FROM events WHERE kind = 'document.imported' ORDER BY id LIMIT 1"
        ).fetchone()
        ledger.execute(
            "UPDATE events SET payload = ? WHERE id = ?", (payload.replace("a", "b", 1), event_id)
        )
    found = home.rlp("verify").check(6)
    assert str(event_id) in found.out + found.err


def test_a_hostile_mail_in_the_inbox_changes_nothing_and_its_escapes_are_shown_inert(home: Home) -> None:
    parked = home.play().check(5)
    assert home.events("action.decided") == []
    shown = home.rlp("kb", "search", "approve").check()
    assert "\x1b" not in shown.out + shown.err + parked.out + parked.err
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", shown.out)


def test_the_trace_is_a_ladder_of_real_crossings(home: Home) -> None:
    home.play().check(5)
    run = home.rlp("runs", "--json").check().json["runs"][0]["run"]
    ladder = home.rlp("trace", run).check().out
    for agent in ("contact_resolver", "context_gatherer", "writer", "critic", "mailer"):
        assert agent in ladder


def test_why_explains_the_draft_back_to_the_run(home: Home) -> None:
    home.play().check(5)
    run = home.rlp("runs", "--json").check().json["runs"][0]["run"]
    told = home.rlp("kb", "why", run[:8]).check()
    assert "run.started" in told.out


def test_the_examples_lie_where_the_readme_says() -> None:
    assert all(path.exists() for path in example_paths())
    assert (EXAMPLES / "tour.sh").exists()
