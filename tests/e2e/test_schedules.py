"""Schedules and watched folders as a user meets them: the installed commands, a real daemon, real files."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from runloop.events import ActionDecided, RunStarted, TriggerFired
from tests.home import Home, example_paths, wait_gone, wait_until

FIND = """\
version: 0
name: look_up
params:
  changed: {type: list, default: []}
nodes:
  - {id: find, use: "agent:contact_resolver", with: {query: "john"}}
"""


@pytest.fixture
def known(home: Home) -> Home:
    """A home with contacts, so that runs succeed."""
    home.rlp("import", *map(str, example_paths())).check()
    (home.path / "look_up.yaml").write_text(FIND)
    return home


def kill(home: Home) -> None:
    pid = home.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)


def runs_of(home: Home, schedule: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = home.rlp("runs", "--schedule", schedule, "--json").check().ndjson
    return found


def ended(home: Home, schedule: str) -> list[dict[str, Any]]:
    return [run for run in runs_of(home, schedule) if run["outcome"] is not None]


@pytest.mark.requirement("I5.triggers.1", "S3")
def test_a_schedule_runs_by_itself_through_pauses_a_dead_daemon_and_a_rebuild(known: Home) -> None:
    home = known
    added = home.rlp(
        "schedule", "add", "tick", "look_up.yaml", "--cron", "*/2 * * * * *", "--zone", "Asia/Tokyo"
    )
    assert "Asia/Tokyo" in added.check().err
    wait_until(lambda: ended(home, "tick"), "a run by itself")
    (first, *_) = ended(home, "tick")[-1:]
    assert (first["outcome"], first["principal"]) == ("succeeded", "schedule:tick")
    assert home.rlp("runs", "--schedule", "other", "--json").check().ndjson == []
    coming = home.rlp("schedule", "next", "tick", "-n", "3", "--json").check().ndjson
    assert [one["at"][-6:] for one in coming] == ["+09:00"] * 3
    assert [b["due_ms"] - a["due_ms"] for a, b in itertools.pairwise(coming)] == [2_000, 2_000]
    status = home.rlp("daemon", "status", "--json").check().json["schedules"]
    assert (status["set"], status["next"]["trigger"]) == (1, "tick")

    kill(home)
    home.rlp("daemon", "start").check()
    before = len(ended(home, "tick"))
    wait_until(lambda: len(ended(home, "tick")) > before, "the schedule to go on")
    home.rlp("schedule", "pause", "tick").check()
    (home.path / "look_up.yaml").write_text(FIND + "# changed\n")
    (shown,) = home.rlp("schedule", "list", "--json").check().ndjson
    assert (shown["paused_ms"] is not None, shown["next_ms"], shown["file"]) == (True, None, "differs")
    assert home.rlp("schedule", "show", "tick", "--json").check().json["source"] == FIND
    home.rlp("schedule", "pause", "tick").check(8)
    home.rlp("daemon", "stop").check()
    fired = [event.payload for event in home.events("trigger.fired")]
    assert all(isinstance(fact, TriggerFired) for fact in fired)
    dues = [fact.due_ms for fact in fired if isinstance(fact, TriggerFired)]
    assert len(set(dues)) == len(dues)
    assert {fact.starts for fact in fired if isinstance(fact, TriggerFired)} == {
        event.run for event in home.events("run.started")
    }
    was = triggers_view(home)
    home.rlp("kb", "rebuild").check()
    home.rlp("daemon", "stop").check()
    assert triggers_view(home) == was != []
    home.rlp("verify").check()
    home.rlp("schedule", "rm", "tick").check()
    home.rlp("schedule", "show", "tick").check(7)


def triggers_view(home: Home) -> list[tuple[Any, ...]]:
    with sqlite3.connect(f"file:{home.path}/pog/views.db?mode=ro", uri=True) as views:
        return views.execute("SELECT * FROM triggers").fetchall()


@pytest.mark.requirement("I5.triggers.2")
def test_a_file_that_is_dropped_into_a_folder_starts_a_run_that_hears_its_path(
    known: Home, tmp_path: Path
) -> None:
    home, folder = known, tmp_path / "in"
    folder.mkdir()
    home.rlp(
        "schedule",
        "add",
        "drop",
        "look_up.yaml",
        "--watch",
        str(folder),
        "--pattern",
        "*.md",
        "--settle",
        "300ms",
    ).check()
    (folder / "ignored.txt").write_text("x")
    (folder / "note.md").write_text("x")
    wait_until(lambda: ended(home, "drop"), "the run of a changed file")
    (run,) = ended(home, "drop")
    assert run["params"] == {"changed": [str(folder / "note.md")]}
    refused = home.rlp("schedule", "add", "own", "look_up.yaml", "--watch", str(home.path / "pog")).check(4)
    assert "keeps its own state" in refused.err
    why = home.rlp("kb", "why", str(run["run"]), "--json").check().json
    assert {"trigger.fired", "trigger.set"} <= {hop["kind"] for hop in why["hops"]}
    assert why["severed"] == []


@pytest.mark.requirement("C10")
def test_a_mail_of_an_unattended_run_waits_for_a_person_expires_and_is_never_sent(home: Home) -> None:
    home.env["RUNLOOP__SECURITY__APPROVAL_EXPIRY_MS"] = "3000"
    home.rlp("import", *map(str, example_paths())).check()
    home.rlp(
        "schedule", "add", "mailing", "compose_email", "--cron", "0 0 1 1 *",
        "-p", "recipient=john", "-p", "topic=Q4 plan",
    ).check()  # fmt: skip
    started = home.rlp("schedule", "run-now", "mailing", "--json").check().json
    wait_until(lambda: home.events("action.requested"), "the mail to be held")
    (waiting,) = home.rlp("approvals", "--all", "--json").check().ndjson
    assert waiting["run"] == started["run"]
    wait_until(lambda: home.events("run.finished"), "the approval to expire")
    decided = home.events("action.decided")[0].payload
    assert isinstance(decided, ActionDecided)
    assert decided.decision == "expired"
    assert home.outbox() == []
    begun = home.events("run.started")[0].payload
    assert isinstance(begun, RunStarted)
    assert (begun.principal, begun.origin["interactive"], begun.origin["via"]) == (
        "schedule:mailing", False, "schedule",
    )  # fmt: skip
    assert begun.policy["budget_micro_usd"] == 50_000


@pytest.mark.requirement("C10")
def test_a_schedule_needs_the_operators_proof(known: Home) -> None:
    home = known
    key = home.path / "keys" / "operator.key"
    hidden = key.rename(key.with_suffix(".away"))
    refused = home.rlp("schedule", "add", "tick", "look_up.yaml", "--cron", "* * * * *").check(4)
    assert "needs the operator" in refused.err
    hidden.rename(key)
    assert home.events("trigger.set") == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("add", "x", "look_up.yaml"), 2, "neither"),
        (("add", "x", "look_up.yaml", "--cron", "every day"), 2, "no schedule"),
        (("add", "x", "look_up.yaml", "--cron", "0 8 * * *", "--zone", "Europe/Berln"), 2, "Europe/Berlin"),
        (("add", "x", "look_up.yaml", "--watch", "/nowhere"), 7, "cannot be watched"),
        (("add", "X", "look_up.yaml", "--cron", "0 8 * * *"), 2, "no name"),
        (("add", "x", "nothing_like_it", "--cron", "0 8 * * *"), 7, "nothing_like_it"),
        (("add", "x", "look_up.yaml", "--cron", "0 8 * * *", "-p", "no=1"), 2, "no"),
        (("add", "x", "look_up.yaml", "--cron", "0 8 * * *", "--missed", "twice"), 2, "skip, once"),
        (("add", "x", "look_up.yaml", "--watch", "/tmp", "--settle", "soon"), 2, "500ms"),
        (("add", "x", "look_up.yaml", "--cron", "@daily", "--settle", "5s"), 2, "without --watch"),
        (("add", "x", "look_up.yaml", "--cron", "@daily", "--pattern", "*.md"), 2, "without --watch"),
        (("add", "x", "look_up.yaml", "--watch", "/tmp", "--zone", "UTC"), 2, "without --cron"),
        (("rm", "x"), 7, "no schedule"),
        (("run-now", "x"), 7, "no schedule"),
        (("next", "x"), 7, "no schedule"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes_are_told_and_change_nothing(
    shared: Home, words: tuple[str, ...], code: int, said: str
) -> None:
    done = shared.rlp("schedule", *words).check(code)
    assert said in done.err
    assert shared.rlp("schedule", "list", "--json").check().ndjson == []


@pytest.fixture(scope="module")
def shared(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One home for all the mistakes."""
    import shutil

    path = tmp_path_factory.mktemp("s")
    for part in ("keys", "cache"):
        shutil.copytree(seed / part, path / part)
    (path / "keys" / "ledger.head").unlink(missing_ok=True)
    path.chmod(0o700)
    (path / "look_up.yaml").write_text(FIND)
    with Home(path) as home:
        yield home
