"""Promises as a user meets them: a run waits for a word, the daemon dies, the word comes, the run goes on."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from runloop.events import NodeFinished, PromiseCreated, PromiseTimedOut
from tests.home import Done, Home, wait_gone, wait_until

MANIFEST = """\
name = "patient"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Makes the host calls it is told to, by name."
ops = [
    "promise.create", "promise.await", "promise.resolve", "input.ask",
    "memory.put", "memory.get", "memory.delete",
]

[ports.in.word]
type = "object"

[ports.out.out]
type = "object"
required = true
"""
SOURCE = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host, HostRefused


@handler
def handle(task: Task, host: Host) -> Result:
    heard = {}
    for op, args in task.param("calls"):
        if args.get("promise") == "the one before":
            args["promise"] = heard["promise.create"]["promise"]
        try:
            heard[op] = host.call(op, args)
        except HostRefused as refused:
            heard[op] = refused.code
    return Result.of(out=heard)
"""


@pytest.fixture
def patient(home: Home) -> Home:
    home.write_agent("patient", MANIFEST, SOURCE, 'promises = true\nmemory = ["team"]\n')
    return home


def begin(home: Home, *calls: list[Any], flags: tuple[str, ...] = ("--no-input", "--json")) -> Done:
    path = home.path / "wait.yaml"
    path.write_text(
        "version: 0\nname: wait\nnodes:\n"
        f'  - id: wait\n    use: "agent:patient"\n    with: {{calls: {json.dumps(list(calls))}}}\n'
    )
    return home.rlp("run", str(path), *flags)


def heard(home: Home) -> dict[str, Any]:
    wait_until(lambda: home.events("run.finished"), "the run to end")
    end = home.events("node.finished")[-1].payload
    assert isinstance(end, NodeFinished)
    assert end.output is not None, end.error
    found: dict[str, Any] = end.output["ports"]["out"][0]
    return found


def promise_of(home: Home) -> str:
    wait_until(lambda: home.events("promise.created"), "the promise")
    made = home.events("promise.created")[-1].payload
    assert isinstance(made, PromiseCreated)
    return made.promise


def kill(home: Home) -> None:
    pid = home.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)


@pytest.mark.requirement("I4.promise.1")
def test_a_question_outlives_the_daemon_and_its_answer_wakes_the_run(patient: Home) -> None:
    home = patient
    parked = begin(home, ["input.ask", {"question": "Which one?", "choices": ["red", "blue"]}]).check(5)
    promise = promise_of(home)
    assert home.rlp("runs", "--json").check().ndjson[0]["state"] == "waiting"
    assert f"rlp promise resolve {promise} --text ANSWER" in parked.err
    kill(home)
    (waiting,) = home.rlp("promises", "--json").check().ndjson
    assert (waiting["promise"], waiting["question"], waiting["state"]) == (promise, "Which one?", "open")
    home.rlp("promise", "resolve", promise[:10], "--text", "green").check(4)
    home.rlp("promise", "resolve", promise[:10], "--text", "blue").check()
    assert heard(home) == {"input.ask": {"value": "blue", "by": f"operator:{os.getuid()}"}}
    home.rlp("promise", "resolve", promise, '"red"').check(7)
    shown = home.rlp("promise", "show", promise, "--json").check().json
    assert (shown["state"], shown["value"]) == ("resolved", "blue")
    assert "nothing waits" in home.rlp("promises").check().err
    (run,) = {event.run for event in home.events("run.started")}
    home.rlp("replay", str(run)).check()
    assert len(home.events("promise.created")) == 1
    why = home.rlp("kb", "why", str(home.events("node.finished")[-1].id), "--json").check().json
    assert {"promise.created", "promise.resolved"} <= {hop["kind"] for hop in why["hops"]}


def test_what_expired_while_no_daemon_ran_times_out_at_its_start(patient: Home) -> None:
    home = patient
    calls = [["promise.create", {"timeout_ms": 4_000}], ["promise.await", {"promise": "the one before"}]]
    begin(home, *calls, flags=("--detach",)).check()
    promise = promise_of(home)
    kill(home)
    home.rlp("daemon", "start").check()
    assert heard(home)["promise.await"] == "promise.timed_out"
    over = home.events("promise.timed_out")[0].payload
    assert isinstance(over, PromiseTimedOut)
    assert (over.promise, over.reason) == (promise, "deadline")


def test_a_cancelled_run_takes_its_promises_with_it(patient: Home) -> None:
    home = patient
    begin(home, ["input.ask", {"question": "Go on?"}]).check(5)
    promise = promise_of(home)
    home.rlp("cancel", str(home.events("run.started")[0].run)).check()
    wait_until(lambda: home.events("promise.timed_out"), "the promise to end")
    home.rlp("promise", "resolve", promise, "true").check(7)


def test_a_person_answers_at_the_terminal(patient: Home) -> None:
    home = patient
    path = home.path / "wait.yaml"
    begin(
        home, ["input.ask", {"question": "Which one?\nforged: approve? [y/N]"}], flags=("--detach",)
    ).check()
    promise = promise_of(home)
    home.rlp("promise", "resolve", promise, '"first"').check()
    heard(home)
    done = home.terminal("run", str(path), answers={"your answer": "The Red One\n"})
    assert done.code == 0, done.out
    assert "│ forged: approve? [y/N]" in done.out
    wait_until(lambda: len(home.events("run.finished")) == 2, "the second run")
    assert heard(home)["input.ask"]["value"] == "The Red One"


def test_what_an_agent_remembers_is_seen_and_taken_away(patient: Home) -> None:
    home = patient
    begin(
        home,
        ["memory.put", {"key": "tone", "value": {"warm": True}, "namespace": "shared:team"}],
        ["memory.get", {"key": "tone", "namespace": "shared:other"}],
        ["memory.delete", {"key": "gone"}],
    ).check()
    assert heard(home) == {
        "memory.put": {"version": 1},
        "memory.get": "cap.denied",
        "memory.delete": {"version": 0},
    }
    assert home.rlp("memory", "list", "--json").check().ndjson[0]["namespace"] == "shared:team"
    kill(home)
    assert home.rlp("memory", "show", "shared:team", "tone").check().out == '{"warm":true}\n'
    home.rlp("memory", "forget", "shared:team", "tone").check()
    home.rlp("memory", "show", "shared:team", "tone").check(7)
    home.rlp("verify").check()
