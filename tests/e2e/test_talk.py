"""Agents of one run that talk, as a user meets them: without an edge between them, through a crash."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Mapping
from typing import Any

import pytest

from runloop.events import MessagePosted, NodeFinished
from tests.home import Done, Home, wait_gone, wait_until

MANIFEST = """\
name = "{name}"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Talks with other agents of its run."
ops = ["msg.publish", "msg.subscribe", "msg.request", "msg.reply", "msg.next", "input.ask"]

[ports.in.go]
type = "object"

[ports.out.out]
type = "object"
required = true
"""
ASKER = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host, HostRefused


@handler
def handle(task: Task, host: Host) -> Result:
    heard = []
    for to, content in task.param("ask"):
        try:
            args = {"to": to, "content": content, "timeout_ms": task.param("timeout_ms", 60_000)}
            heard.append(host.call("msg.request", args)["content"])
        except HostRefused as refused:
            heard.append(refused.code)
    return Result.of(out={"heard": heard})
"""
ANSWERER = """\
from runloop import speech
from runloop.agent import Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    stream = host.call("msg.subscribe", {"topics": list(task.param("topics", []))})["stream"]
    heard = []
    while not (answer := host.call("msg.next", {"stream": stream})).get("done"):
        item = answer["item"]
        heard.append([item["from"], item["act"], item["content"]])
        if speech.may_answer("inform", item["act"]) and task.param("answers", True):
            host.call("msg.reply", {"message": item["message"], "content": {"you said": item["content"]}})
    return Result.of(out={"heard": heard})
"""


def agent(home: Home, name: str, source: str, caps: str = "talk = true\n") -> None:
    home.write_agent(name, MANIFEST.format(name=name), source, caps)


def run(home: Home, nodes: Mapping[str, tuple[str, Mapping[str, Any]]], *flags: str, more: str = "") -> Done:
    """``{node: (agent, with)}``, no edges."""
    path = home.path / "talk.yaml"
    lines = [
        f'  - {{id: {node}, use: "agent:{name}", with: {json.dumps(dict(args))}}}'
        for node, (name, args) in nodes.items()
    ]
    path.write_text("\n".join(["version: 0", "name: talk", "nodes:", *lines, more]))
    return home.rlp("run", str(path), *(flags or ("--no-input", "--json")))


def outputs(home: Home) -> dict[str, Any]:
    """What each node gave."""
    found: dict[str, Any] = {}
    for event in home.events("node.finished"):
        assert isinstance(event.payload, NodeFinished)
        assert event.payload.output is not None, event.payload.error
        found[event.payload.node] = event.payload.output["ports"]["out"][0]
    return found


def outputs_of(home: Home, node: str) -> Any:
    """What one node gave, whatever attempts of others failed."""
    ends = [
        event.payload for event in home.events("node.finished") if isinstance(event.payload, NodeFinished)
    ]
    (end,) = [end for end in ends if end.node == node and end.output is not None]
    assert end.output is not None
    return end.output["ports"]["out"][0]


def posts(home: Home) -> list[MessagePosted]:
    return [e.payload for e in home.events("message.posted") if isinstance(e.payload, MessagePosted)]


@pytest.fixture
def pair(home: Home) -> Home:
    agent(home, "asker", ASKER)
    agent(home, "answerer", ANSWERER)
    return home


@pytest.mark.requirement("I5.talk.1")
def test_two_nodes_without_an_edge_talk_and_every_word_is_in_the_ledger(pair: Home) -> None:
    home = pair
    asked = [["node/bob", {"n": 1}], ["node/bob", {"n": 2}]]
    done = run(home, {"ann": ("asker", {"ask": asked}), "bob": ("answerer", {})})
    done.check()
    said = outputs(home)
    assert said["ann"] == {"heard": [{"you said": {"n": 1}}, {"you said": {"n": 2}}]}
    assert said["bob"] == {"heard": [["node/ann", "request", {"n": 1}], ["node/ann", "request", {"n": 2}]]}
    assert [(p.node, p.to, p.act) for p in posts(home)] == [
        ("ann", "node/bob", "request"),
        ("bob", "node/ann", "inform"),
        ("ann", "node/bob", "request"),
        ("bob", "node/ann", "inform"),
    ]
    frames = [e for e in home.events("message.sent") if "/node/" in e.payload.topic]  # type: ignore[attr-defined]
    assert len(frames) == 4
    (name,) = {event.run for event in home.events("run.started")}
    trace = home.rlp("trace", str(name)).check().out
    assert re.search(r"ann +-> node/bob .*request msg_[0-9a-f]{16}  #", trace)
    assert re.search(r"bob +-> node/ann .*inform msg_[0-9a-f]{16} to msg_[0-9a-f]{16}  #", trace)
    why = home.rlp("kb", "why", str(home.events("node.finished")[-1].id), "--json").check().json
    assert "message.posted" in {hop["kind"] for hop in why["hops"]}
    home.rlp("replay", str(name)).check()


@pytest.mark.requirement("I5.talk.1")
def test_a_request_that_nobody_answers_ends_by_its_time_and_the_stream_when_nobody_is_left(
    pair: Home,
) -> None:
    home = pair
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "ann": ("asker", {"ask": [["node/bob", 1], ["node/eve", 2]], "timeout_ms": 300}),
        "bob": ("answerer", {"answers": False}),
        "cid": ("answerer", {"topics": ["talk/nothing"]}),
    }
    run(home, nodes).check()
    said = outputs(home)
    assert said["ann"] == {"heard": ["msg.timed_out", "msg.unknown"]}
    assert said["bob"] == {"heard": [["node/ann", "request", 1]]}
    assert said["cid"] == {"heard": []}
    (name,) = {event.run for event in home.events("run.started")}
    home.rlp("replay", str(name)).check()


def kill(home: Home) -> None:
    pid = home.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)


SPEAKER = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    for number in range(5):
        host.publish("node/bob", number)
    host.request("node/bob", "and?", timeout_ms=600_000)
    return Result.of(out={})
"""
SLOW = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    stream = host.subscribe()
    heard = [host.hear(stream)["content"] for _ in range(3)]
    host.ask("Go on?", timeout_ms=600_000)
    for message in host.listen():
        heard.append(message["content"])
        if message["act"] == "request":
            host.reply(message, "yes")
    while (message := host.hear(stream)) is not None:
        heard.append(message["content"])
    return Result.of(out={"heard": heard})
"""


@pytest.mark.requirement("I5.talk.2")
def test_a_daemon_killed_between_the_word_and_the_hearing_loses_nothing_and_says_nothing_twice(
    home: Home,
) -> None:
    agent(home, "speaker", SPEAKER)
    agent(home, "slow", SLOW, caps="talk = true\npromises = true\n")
    run(home, {"ann": ("speaker", {}), "bob": ("slow", {})}, "--detach").check()
    wait_until(lambda: len(posts(home)) == 6 and home.events("promise.created"), "six words, three heard")
    kill(home)
    home.rlp("daemon", "start").check()
    (promise,) = {event.payload.promise for event in home.events("promise.created")}  # type: ignore[attr-defined]
    home.rlp("promise", "resolve", promise, "true").check()
    wait_until(lambda: home.events("run.finished"), "the run to end")
    # The second stream begins with the first message; the first one goes on where it was, and so has the
    # rest of them once.
    assert outputs(home)["bob"] == {"heard": [0, 1, 2, 0, 1, 2, 3, 4, "and?", 3, 4, "and?"]}
    assert [(p.node, p.act) for p in posts(home)] == [("ann", "inform")] * 5 + [
        ("ann", "request"),
        ("bob", "inform"),
    ]
    (name,) = {event.run for event in home.events("run.started")}
    home.rlp("replay", str(name)).check()


STUMBLER = """\
from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    host.publish("node/bob", "once")
    answer = host.request("node/bob", "and?")
    if task.context["attempt"] == 1:
        raise Fail("test.stumble", "again", retryable=True)
    host.publish("node/bob", "twice")
    return Result.of(out={"heard": answer["content"]})
"""


@pytest.mark.requirement("I5.talk.2")
def test_a_retried_attempt_says_nothing_again_and_its_replay_is_identical(home: Home) -> None:
    agent(home, "stumbler", STUMBLER)
    agent(home, "answerer", ANSWERER)
    path = home.path / "talk.yaml"
    path.write_text(
        "version: 0\nname: talk\nnodes:\n"
        '  - {id: ann, use: "agent:stumbler", retry: {max_attempts: 2, backoff_ms: 1}}\n'
        '  - {id: bob, use: "agent:answerer"}\n'
    )
    home.rlp("run", str(path), "--no-input", "--json").check()
    heard = [content for _, _, content in outputs_of(home, "bob")["heard"]]
    assert heard == ["once", "and?", "twice"]
    (name,) = {event.run for event in home.events("run.started")}
    home.rlp("replay", str(name)).check()


PLAYER = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host, HostRefused


@handler
def handle(task: Task, host: Host) -> Result:
    played, other = 0, task.param("other")
    if task.param("serves", False):
        host.publish(other, "ping")
    for message in host.listen():
        try:
            if task.param("anew", False):
                host.publish(other, "another")
            else:
                host.reply(message, "pong")
        except HostRefused as refused:
            if refused.code != "msg.hops":
                raise
            return Result.of(out={"played": played, "code": refused.code})
        played += 1
    return Result.of(out={"played": played})
"""


def match(home: Home, *, more: str = "", **args: Any) -> Done:
    agent(home, "player", PLAYER)
    nodes = {
        "ann": ("player", {"other": "node/bob", "serves": True, **args}),
        "bob": ("player", {"other": "node/ann", **args}),
    }
    return run(home, nodes, more=more)


@pytest.mark.requirement("W9")
def test_ping_pong_in_one_conversation_ends_by_its_hops(home: Home) -> None:
    match(home).check()
    said = outputs(home)
    assert sorted(one.get("code", "") for one in said.values()) == ["", "msg.hops"]
    assert sum(one["played"] for one in said.values()) == 64
    assert len(posts(home)) == 65


@pytest.mark.requirement("W9", "I5.talk.6")
def test_ping_pong_in_ever_new_conversations_ends_by_the_quota(home: Home) -> None:
    home.env["RUNLOOP__QUOTAS__MESSAGES"] = "40"
    match(home, anew=True).check(1)
    assert 40 <= len(posts(home)) <= 41
    assert {e.payload.resource for e in home.events("quota.exceeded")} == {"messages"}  # type: ignore[attr-defined]


@pytest.mark.requirement("W9")
def test_ping_pong_in_ever_new_conversations_ends_by_the_wall_clock(home: Home) -> None:
    match(home, anew=True, more="policy: {timeout_ms: 1500}").check(1)
    assert len(posts(home)) > 2
    assert {e.payload.timer for e in home.events("timer.fired")} == {"run:timeout"}  # type: ignore[attr-defined]
