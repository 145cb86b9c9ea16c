"""What would have been: the installed commands on a real daemon, real guests, a real outbox."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runloop.caps.policy import parse_override, parse_policy
from runloop.client import BlockingClient
from runloop.digest import digest
from runloop.errors import RefusedError
from tests.e2e.test_files import keeper
from tests.e2e.test_forks import newest, sent_once, waiting
from tests.home import Home, wait_until

HERALD = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host, HostRefused


@handler
def handle(task: Task, host: Host) -> Result:
    for name in ("ann", "bob"):
        suffix = f" ({task.context['attempt']})" if task.param("numbered") else ""
        body = "It is so." + suffix
        host.call("mail.send", {"to": [f"{name}@example.org"], "subject": "News", "body": body})
    return Result.of(out={"told": 2})
"""
HERALD_MANIFEST = """\
name = "herald"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Tells two people."
ops = ["mail.send", "time.now"]

[ports.out.out]
type = "object"
required = true
"""
OPENING = """\
version: 0
name: news
nodes:
  - id: tell
    use: "agent:herald"
    with: {numbered: %s}
    retry: {max_attempts: 2, backoff_ms: 10}
"""


def agent(home: Home, name: str, manifest: str, source: str, caps: str) -> None:
    home.env["RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS"] = "true"
    folder = home.path / "agents" / name
    folder.mkdir(parents=True)
    (folder / "manifest.toml").write_text(manifest)
    (folder / "agent.py").write_text(source)
    (folder / "tools.json").write_text('{"version": 1, "tools": []}')
    for page in ("README.md", "LICENSE"):
        (folder / page).write_text("A test's own.")
    (folder / "policy.caps").write_text(f"[capabilities]\n{caps}\n")


def caps(folder: Path, text: str, name: str | None = None) -> Path:
    place = folder / (name or f"{digest(text)[:8]}.caps")
    place.write_text(f"[capabilities]\n{text}\n")
    return place


def told(home: Home, file: Path, *more: str, code: int = 6) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = home.rlp("policy", "test", str(file), *more, "--json").check(code).ndjson
    return found


def news(home: Home, *, numbered: bool = False) -> str:
    """A good run that told two people by mail."""
    agent(home, "herald", HERALD_MANIFEST, HERALD, "mail = true\ntime = true")
    path = home.path / "news.yaml"
    path.write_text(OPENING % str(numbered).lower())
    home.rlp("run", str(path), "--no-input").check(5)
    run = newest(home)
    home.rlp("approve", waiting(home), "--wait").check()
    wait_until(lambda: len(home.events("action.requested")) == 2, "the second mail to be asked for")
    home.rlp("approve", waiting(home), "--wait").check()
    wait_until(lambda: home.events("run.finished"), "the run to finish")
    assert len(home.outbox()) == 2
    return run


@pytest.mark.requirement("I5.whatif.1", "I5.whatif.2")
def test_history_is_tested_under_another_policy_and_driven_on_past_what_changes(
    home: Home, tmp_path: Path
) -> None:
    run = sent_once(home)
    facts = len(home.events())
    every = caps(tmp_path, "")  # an override that says nothing
    (same,) = told(home, every, "--rerun", code=0)
    assert same["same"] and same["executed"] and same["run"] == run

    no_mail = caps(tmp_path, "mail = []")
    (changed,) = told(home, no_mail, "--agent", "mailer")
    (change,) = changed["changes"]
    assert (change["node"], change["before"], change["after"]) == ("send", "allowed", "denied")
    assert changed["failing"] == ["send"]
    assert (changed["before"], changed["after"]) == ("succeeded", "succeeded")
    assert changed["needs_live"] == []
    assert "allowed->denied" in home.rlp("policy", "test", str(no_mail), "--agent", "mailer").check(6).out

    (blind,) = told(home, caps(tmp_path, "kb_read = []"), "--agent", "contact_resolver")
    assert blind["after"] == "failed"
    assert set(blind["failing"]) == {"contacts", "context", "draft", "review", "send"}

    (masked,) = told(home, caps(tmp_path, 'kb_read = ["contacts"]'), "--agent", "contact_resolver")
    assert masked["needs_live"][0]["kind"] == "open"
    assert masked["after"] is None

    # A policy asks for more than the manifest's ceiling reaches: that grants nothing, and changes nothing.
    told(home, caps(tmp_path, 'mail = true\nnet = ["a.example"]'), "--agent", "mailer", code=0)
    # An override of the operator holds, whatever the policy would grant.
    folder = tmp_path / "overrides"
    folder.mkdir()
    caps(folder, "mail = false", "mailer.toml")
    assert told(home, folder)[0]["failing"] == ["send"]
    assert told(home, no_mail, "--since", "2999-01-01", code=0) == []

    once = home.rlp("policy", "test", str(no_mail), "--json").check(6).out
    assert home.rlp("policy", "test", str(no_mail), "--json").check(6).out == once
    assert len(home.events()) == facts
    assert len(home.outbox()) == 1


@pytest.mark.requirement("I5.whatif.2")
def test_what_was_denied_and_would_be_let_in_needs_somebody_to_be_asked_for_real(
    home: Home, tmp_path: Path
) -> None:
    home.rlp("daemon", "stop")
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    for folder in (there, elsewhere):
        folder.mkdir()
        (folder / "a.txt").write_text("hello")
    keeper(home, there, name="fs_ro")
    asks = [
        ["in", "fs.read", {"path": str(there / "a.txt")}],
        ["out", "fs.read", {"path": str(elsewhere / "a.txt")}],
    ]
    path = home.path / "keep.yaml"
    path.write_text(
        "version: 0\nname: keep\nnodes:\n"
        f'  - id: keep\n    use: "agent:keeper"\n    with: {{asks: {json.dumps(asks)}}}\n'
    )
    home.rlp("run", str(path), "--no-input", "--json").check()
    wide = caps(tmp_path, f"fs_ro = {json.dumps([str(there), str(elsewhere)])}")
    (told_,) = told(home, wide, "--agent", "keeper")
    (change,) = told_["changes"]
    assert (change["before"], change["after"], change["call"]) == ("denied", "allowed", 1)
    assert told_["needs_live"][0]["kind"] == "granted"
    assert told_["after"] is None

    # Under no right at all the guest hears two refusals and says so: it goes on, without the record.
    (none,) = told(home, caps(tmp_path, ""), "--agent", "keeper")
    assert [c["after"] for c in none["changes"]] == ["denied"]
    assert none["differing"] == ["keep"]
    assert none["after"] == "succeeded"

    shrunk = home.rlp("cap", "shrink", "keeper", "--json").check().json
    assert shrunk["policy"] == {"fs_ro": [str(there)]}


@pytest.mark.requirement("I5.whatif.3")
def test_the_smallest_policy_is_proven_by_driving_every_run_again_and_holds_live(
    home: Home, tmp_path: Path
) -> None:
    home.rlp("cap", "shrink", "mailer").check(7)
    run = sent_once(home)
    leasts: dict[str, dict[str, Any]] = {
        "mailer": {"mail": ["john.carter@example.org"]},
        "contact_resolver": {"kb_read": ["contacts"], "kb_read.contacts_raw": True},
        "context_gatherer": {"kb_read": ["mail", "notes"], "kb_read.contacts_raw": True},
        "writer": {"model": ["rules:template-1"]},
        "critic": {},
    }
    for name, least in leasts.items():
        shrunk = home.rlp("cap", "shrink", name, "--json").check().json
        assert shrunk["policy"] == least, name
        assert len(shrunk["needed"]) == sum(len(v) if isinstance(v, list) else 1 for v in least.values())
        file = tmp_path / f"{name}.toml"
        home.rlp("cap", "shrink", name, "-o", str(file)).check()
        home.rlp("cap", "shrink", name, "-o", str(file)).check(8)
        assert parse_policy(file.read_text()).to_json() == least
        told(home, file, "--agent", name, "--rerun", code=0)
        override = home.path / "caps" / "overrides" / f"{name}.toml"
        override.parent.mkdir(parents=True, exist_ok=True)
        parse_override(file.read_text())
        override.write_text(file.read_text())

    # Minimal: without any one of its grants something changes.
    (changed,) = told(home, caps(tmp_path, 'kb_read = ["mail"]\n"kb_read.contacts_raw" = true'),
                      "--agent", "context_gatherer")  # fmt: skip
    assert changed["changes"]
    # As overrides they hold, live: the same job under them does what it did.
    home.play().check(5)
    home.rlp("approve", waiting(home), "--wait").check()
    wait_until(lambda: len(home.events("run.finished")) == 2, "the second run to finish")
    again = newest(home)
    assert again != run
    assert [e.payload.outcome for e in home.events("run.finished")] == ["succeeded"] * 2  # type: ignore[attr-defined]
    assert len(home.outbox()) == 2


@pytest.mark.requirement("I5.whatif.4")
def test_a_fault_at_each_effect_of_a_good_run_shows_what_would_be_left_half_done(home: Home) -> None:
    home.rlp("daemon", "stop")
    run = news(home)
    facts = len(home.events())
    report = home.rlp("replay", run, "--faults", "--json").check(6).json
    assert report["effects"] == 2
    found = {(one["call"], one["fault"]): one for one in report["faults"]}
    assert set(found) == {(c, f) for c in (0, 1) for f in ("before", "after", "crash")}

    # The provider was not there: the node is tried again, and what was sent already is not sent twice.
    assert found[1, "before"]["outcome"] == "succeeded"
    assert found[1, "before"]["clean"]
    assert [one["about"] for one in found[1, "before"]["made"]] == ["ann@example.org", "bob@example.org"]
    # The answer was lost: nobody sends it again, and one mail (perhaps two) are out.
    lost = found[1, "after"]
    assert lost["outcome"] == "failed"
    assert [(one["about"], one["state"]) for one in lost["half_done"]] == [
        ("ann@example.org", "done"),
        ("bob@example.org", "unknown"),
    ]
    # After a crash the outbox is looked at.
    assert found[1, "crash"]["clean"]

    again = home.rlp("replay", run, "--faults", "--json").check(6)
    assert again.json == report
    shown = home.rlp("replay", run, "--faults").check(6)
    assert "mail.send bob@example.org (perhaps)" in shown.out
    assert len(home.events()) == facts
    assert len(home.outbox()) == 2
    home.rlp("replay", run, "--every-call").check(2)


@pytest.mark.requirement("I5.whatif.4")
def test_an_agent_that_words_its_second_try_otherwise_is_found_out(home: Home) -> None:
    home.rlp("daemon", "stop")
    run = news(home, numbered=True)
    report = home.rlp("replay", run, "--faults", "--json").check(6).json
    found = {(one["call"], one["fault"]): one for one in report["faults"]}
    one = found[1, "before"]
    assert one["outcome"] is None
    assert [(o["op"], o["attempt"]) for o in one["otherwise"]] == [("mail.send", 2)]
    assert one["needs_live"][0]["kind"] == "parked"
    assert [e["about"] for e in one["half_done"]] == ["ann@example.org"]


@pytest.mark.requirement("I5.whatif.5")
def test_nobody_without_the_operator_credential_may_ask_what_would_have_been(home: Home) -> None:
    run = sent_once(home)
    socket = Path(home.rlp("config", "path", "--json").check().json["socket"])
    client = BlockingClient.connect(socket, None)
    try:
        for method, params in {
            "policy.runs": {},
            "policy.test": {"run": run, "policy": ""},
            "cap.shrink": {"agent": "mailer"},
            "run.faults": {"run": run},
        }.items():
            with pytest.raises(RefusedError):
                client.call(method, params)
    finally:
        client.close()
    for words in (
        ("policy", "test", str(home.path / "absent.caps")),
        ("cap", "shrink", "nobody"),
        ("replay", "ffff0000", "--faults"),
    ):
        home.rlp(*words).check(7)
    bad = caps(home.path, "mial = true")
    assert "mail" in home.rlp("policy", "test", str(bad)).check(2).err
    home.rlp("policy", "test", str(bad), "--since", "yesterday").check(2)
