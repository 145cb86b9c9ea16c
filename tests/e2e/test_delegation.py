"""An agent that has another one do something: with no more rights than its own, through a crash."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from runloop.events import RunStarted, TokenIssued
from runloop.ids import delegated_run_id
from tests.home import Home, wait_gone, wait_until

MANIFEST = """\
name = "{name}"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "{name} of a pair: one delegates, the other does."
ops = [{ops}]

[ports.in.go]
type = "any"

[ports.out.out]
type = "any"
"""
BOSS = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host, HostRefused


@handler
def handle(task: Task, host: Host) -> Result:
    heard = []
    for wish in task.param("wishes"):
        try:
            heard.append(host.call("agent.delegate", wish)["ports"])
        except HostRefused as refused:
            heard.append({"code": refused.code, "message": refused.message})
    return Result.of(out={"heard": heard})
"""
HAND = """\
from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host, HostRefused


@handler
def handle(task: Task, host: Host) -> Result:
    match task.param("do"):
        case "clock":
            return Result.of(out={"now": host.now_ms() > 0})
        case "dice":
            try:
                return Result.of(out={"dice": len(host.random_bytes(4))})
            except HostRefused as refused:
                return Result.of(out={"refused": refused.code})
        case "ask":
            return Result.of(out={"said": host.ask("What shall I say?")})
        case "fail":
            raise Fail("hand.tired", "I cannot")
        case "on":
            use = {"use": "agent:hand", "params": {"do": "on"}}
            try:
                return Result.of(out={"below": host.call("agent.delegate", use)["ports"]["out"][0]["below"]})
            except HostRefused as refused:
                return Result.of(out={"below": refused.code + ": " + refused.message})
    return Result.of(out=task.param("do"))
"""
OPENING = """\
version: 0
name: errand
params:
  wishes: {type: list}
nodes:
  - {id: boss, use: "agent:boss", with: {wishes: "{{params.wishes}}"}}
artifacts: {save: [boss.out]}
"""
RIGHTS = 'time = true\nrandom = true\npromises = true\nspawn = ["hand"]\n'


@pytest.fixture
def pair(home: Home) -> Home:
    ops = '"agent.delegate", "time.now", "random.bytes", "input.ask"'
    home.write_agent("boss", MANIFEST.format(name="boss", ops=ops), BOSS, RIGHTS)
    home.write_agent("hand", MANIFEST.format(name="hand", ops=ops), HAND, RIGHTS)
    (home.path / "errand.yaml").write_text(OPENING)
    return home


def delegate(home: Home, *wishes: dict[str, Any], code: int = 0, detach: bool = False) -> list[Any]:
    flags = ("--detach",) if detach else ()
    path = str(home.path / "errand.yaml")
    home.rlp("run", path, "-p", f"wishes={json.dumps(wishes)}", "--no-input", "--json", *flags).check(code)
    if detach:
        return []
    last = [event.payload for event in home.events("node.finished")][-1]
    heard: list[Any] = last.output["ports"]["out"][0]["heard"]  # type: ignore[attr-defined]
    return heard


def root_of(home: Home) -> str:
    (root,) = [event.run for event in home.events("run.started") if event.payload.parent is None]  # type: ignore[attr-defined]
    return str(root)


def do(what: str, **more: Any) -> dict[str, Any]:
    return {"use": "agent:hand", "params": {"do": what}, **more}


@pytest.mark.requirement("P8", "I6.delegate.1")
def test_a_delegated_agent_gets_what_was_passed_on_and_never_more_than_its_parent_has(pair: Home) -> None:
    heard = delegate(
        pair,
        do("clock"),
        do("dice", caps={"time": True}),
        do("clock", caps={"time": True, "net": ["example.org"]}),
        {"use": "agent:critic", "params": {}},
        do("fail"),
        {"use": "hand"},
        do("clock", caps={"time": 7}),
    )
    assert heard[0] == {"out": [{"now": True}]}
    assert heard[1] == {"out": [{"refused": "cap.denied"}]}, "its own policy grants it; its parent did not"
    assert heard[2]["code"] == "cap.denied"
    assert "net" in heard[2]["message"]
    assert heard[3]["code"] == "cap.denied"
    assert heard[4]["code"] == "delegate.failed"
    assert "I cannot" in heard[4]["message"]
    assert [one["code"] for one in heard[5:]] == ["op.args", "op.args"]

    root = root_of(pair)
    inside = [event for event in pair.events("run.started") if event.run != root]
    assert [event.run for event in inside] == [delegated_run_id(root, "boss", 1, call) for call in (0, 1, 4)]
    for event in inside:
        assert isinstance(event.payload, RunStarted)
        assert event.payload.parent is not None
        assert (event.payload.parent.root, event.payload.parent.node) == (root, "boss")
    tokens = [e.payload for e in pair.events("token.issued") if e.run == inside[1].run]
    assert all(isinstance(each, TokenIssued) and set(each.grants) <= {"time"} for each in tokens)
    denied = [e.payload for e in pair.events("cap.audit") if e.payload.decision == "denied"]  # type: ignore[attr-defined]
    assert {each.capability for each in denied} == {"net", "spawn", "random"}  # type: ignore[attr-defined]

    shown = pair.rlp("runs", "--tree", "--json").check().ndjson
    assert [row["depth"] for row in shown] == [0, 1, 1, 1]
    replayed = pair.rlp("replay", root, "--json").check().json
    assert replayed["identical"] is True
    assert replayed["runs"] == 4
    assert replayed["coverage"]["not_covered"] == 0


@pytest.mark.requirement("W9", "I6.delegate.2")
def test_agents_that_delegate_to_one_another_are_stopped_by_depth(pair: Home) -> None:
    (heard,) = delegate(pair, do("on"))
    assert "nested.depth" in json.dumps(heard)
    assert len(pair.events("run.started")) == 1 + 8


@pytest.mark.requirement("I6.delegate.3")
def test_a_delegated_run_survives_kill_and_is_started_once(pair: Home) -> None:
    delegate(pair, do("ask"), do("clock"), detach=True)
    for _ in range(2):
        wait_until(lambda: len(pair.events("promise.created")) == 1, "the question")
        pid = pair.pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
        pair.rlp("daemon", "start", timeout=120).check()
    (promise,) = pair.events("promise.created")
    pair.rlp("promise", "resolve", str(promise.payload.promise), "--text", "rather well").check()  # type: ignore[attr-defined]
    root = root_of(pair)
    wait_until(lambda: any(e.run == root for e in pair.events("run.finished")), "the end")
    assert {e.payload.outcome for e in pair.events("run.finished")} == {"succeeded"}  # type: ignore[attr-defined]
    assert len(pair.events("run.started")) == 3
    sealed = pair.path / "errand.rlrun"
    pair.rlp("export-run", root, "-o", str(sealed)).check()
    report = pair.rlp("verify", "--reexecute", "--json", str(sealed)).check().json
    assert report["sealed"]["runs"] == 3
    assert report["reexecution"]["identical"] is True
    derived = pair.path / "redacted.rlrun"
    pair.rlp("export-run", root, "-o", str(derived), "--redact", "value:rather well").check()
    assert b"rather well" not in derived.read_bytes()
    report = pair.rlp("verify", "--reexecute", "--json", str(derived)).check().json
    assert report["reexecution"]["identical"] is True


@pytest.mark.requirement("I6.delegate.4")
def test_what_was_delegated_ends_with_its_parent_and_with_its_own_time(pair: Home) -> None:
    delegate(pair, do("ask", timeout_ms=1_000), detach=True)
    wait_until(lambda: len(pair.events("run.finished")) == 2, "the delegated run to take too long")
    last = [event.payload for event in pair.events("node.finished")][-1]
    assert last.output["ports"]["out"][0]["heard"][0]["code"] == "delegate.timed_out"  # type: ignore
    delegate(pair, do("ask"), detach=True)
    wait_until(lambda: len(pair.events("promise.created")) == 2, "the second question")
    root = str(pair.rlp("runs", "--json").check().ndjson[0]["run"])
    pair.rlp("cancel", root).check()
    wait_until(lambda: len(pair.events("run.finished")) == 4, "every run to end")
    ended = {e.run: e.payload.outcome for e in pair.events("run.finished")}  # type: ignore[attr-defined]
    assert ended[root] == ended[delegated_run_id(root, "boss", 1, 0)] == "cancelled"
