"""Mapped nodes and openings inside openings, as a user meets them: real agents, a real daemon, crashes."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from runloop.events import NodeFinished, NodeGathered, RunStarted
from runloop.ids import child_run_id
from tests.home import Done, Home, wait_gone, wait_until

MANIFEST = """\
name = "adder"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Adds one, refuses what it is told to refuse, waits for a word if it is asked to."
ops = ["promise.create", "promise.await"]

[ports.in.in]
type = "any"

[ports.out.out]
type = "any"
"""
SOURCE = """\
from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    given = task.port("in", None)
    if given is None:
        given = task.param("in")
    if given == "bad":
        raise Fail("adder.bad", "it is bad")
    if given == "wait":
        made = host.call("promise.create", {"timeout_ms": 600000})
        host.call("promise.await", {"promise": made["promise"]})
        given = "told"
    return Result.of(out=given + 1 if isinstance(given, int) else given)
"""
INNER = """\
version: 0
name: inner
params:
  x: {type: any}
nodes:
  - {id: first, use: "agent:adder", with: {in: "{{params.x}}"}}
  - {id: second, use: "agent:adder"}
edges:
  - {from: first.out, to: second.in}
artifacts: {save: [second.out]}
"""
OUTER = """\
version: 0
name: outer
params:
  xs: {type: list}
nodes:
  - {id: list, use: "agent:adder", with: {in: "{{params.xs}}"}}
  - id: each
    use: "opening:inner"
    retry: {max_attempts: 2}
    for_each: {port: x, concurrency: 2, max_failed: 1}
  - {id: last, use: "agent:adder"}
edges:
  - {from: list.out, to: each.x}
  - {from: each.out, to: last.in}
artifacts: {save: [last.out]}
"""


@pytest.fixture
def adding(home: Home) -> Home:
    home.write_agent("adder", MANIFEST, SOURCE, "promises = true\n")
    (home.path / "openings").mkdir()
    (home.path / "openings" / "inner.yaml").write_text(INNER)
    (home.path / "openings" / "outer.yaml").write_text(OUTER)
    return home


def begin(home: Home, xs: list[Any], *flags: str) -> Done:
    return home.rlp(
        "run", str(home.path / "openings" / "outer.yaml"), "-p", f"xs={json.dumps(xs)}", "--no-input",
        "--json", *flags
    )  # fmt: skip


def roots(home: Home) -> list[str]:
    return [e.run for e in home.events("run.started") if e.payload.parent is None]  # type: ignore


@pytest.mark.requirement("I5.engine.1", "I5.engine.2")
def test_each_item_of_a_list_is_served_by_a_run_of_its_own(adding: Home) -> None:
    begin(adding, [1, 2, 3]).check()
    (root,) = roots(adding)
    started = [e for e in adding.events("run.started") if e.run != root]
    assert [e.run for e in started] == [child_run_id(root, f"each[{i}]", 1) for i in range(3)]
    for event in started:
        assert isinstance(event.payload, RunStarted)
        assert event.payload.parent is not None
        assert event.payload.parent.root == root
        assert set(event.payload.agents) == {"first", "second"}
    (gathered,) = [e.payload for e in adding.events("node.gathered")]
    assert isinstance(gathered, NodeGathered)
    assert (gathered.status, gathered.items, gathered.failed) == ("succeeded", 3, 0)
    last = adding.events("node.finished")[-1].payload
    assert isinstance(last, NodeFinished)
    assert last.output == {"ports": {"out": [[3, 4, 5]]}, "artifacts": []}


@pytest.mark.requirement("I5.engine.2")
def test_a_nested_run_that_fails_is_tried_again_as_another_run_and_left_out_of_the_list(adding: Home) -> None:
    begin(adding, [1, "bad", 3]).check()
    (root,) = roots(adding)
    tried = [
        e
        for e in adding.events("run.finished")
        if e.run in {child_run_id(root, "each[1]", n) for n in (1, 2)}
    ]
    assert [e.payload.outcome for e in tried] == ["failed", "failed"]  # type: ignore[attr-defined]
    last = adding.events("node.finished")[-1].payload
    assert isinstance(last, NodeFinished)
    assert last.output == {"ports": {"out": [[3, 5]]}, "artifacts": []}


@pytest.mark.requirement("I5.engine.4")
def test_cancelling_a_run_ends_what_is_nested_in_it(adding: Home) -> None:
    begin(adding, ["wait", "wait", 1], "--detach").check()
    (root,) = roots(adding)
    wait_until(lambda: len(adding.events("promise.created")) == 2, "two nested runs to wait")
    adding.rlp("cancel", root).check()
    wait_until(lambda: len(adding.events("run.finished")) == 3, "every run of the tree to end")
    ended = {e.run: e.payload.outcome for e in adding.events("run.finished")}  # type: ignore[attr-defined]
    inside = [child_run_id(root, f"each[{i}]", 1) for i in range(2)]
    assert ended == dict.fromkeys([root, *inside], "cancelled")


@pytest.mark.requirement("I5.engine.5")
def test_a_tree_of_runs_survives_kill_at_any_depth_and_nothing_is_started_twice(adding: Home) -> None:
    begin(adding, [1, "wait", 3], "--detach").check()
    (root,) = roots(adding)
    for _ in range(3):
        wait_until(lambda: len(adding.events("promise.created")) == 1, "the nested run to wait")
        pid = adding.pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
        adding.rlp("daemon", "start", timeout=120).check()
    (promise,) = adding.events("promise.created")
    adding.rlp("promise", "resolve", str(promise.payload.promise), "1").check()  # type: ignore[attr-defined]
    wait_until(lambda: any(e.run == root for e in adding.events("run.finished")), "the whole run to end")
    assert {e.payload.outcome for e in adding.events("run.finished")} == {"succeeded"}  # type: ignore[attr-defined]
    started = [e.run for e in adding.events("run.started")]
    assert sorted(started) == sorted({root, *(child_run_id(root, f"each[{i}]", 1) for i in range(3))})
    scheduled = [(e.run, e.payload.node, e.payload.attempt) for e in adding.events("node.scheduled")]  # type: ignore[attr-defined]
    assert len(scheduled) == len(set(scheduled)) == 5 + 6


@pytest.mark.requirement("I5.engine.7")
def test_a_run_is_shown_with_the_runs_inside_it(adding: Home) -> None:
    shown = adding.rlp(
        "run", str(adding.path / "openings" / "outer.yaml"), "-p", "xs=[1, 2]", "--no-input"
    ).check()
    assert "each[1]/second" in shown.err
    (root,) = roots(adding)
    listed = adding.rlp("runs", "--json").check().ndjson
    assert [row["run"] for row in listed] == [root]
    tree = adding.rlp("runs", "--tree", "--json").check().ndjson
    assert [row["depth"] for row in tree] == [0, 1, 1]
    assert [row["parent"]["node"] for row in tree[1:]] == ["each[0]", "each[1]"]
    assert "each[1]: inner" in adding.rlp("runs", "--tree").check().out

    rows = adding.rlp("trace", root, "--json").check().ndjson
    assert {row["path"] for row in rows} == {"", "each[0]/", "each[1]/"}
    assert [row["event"] for row in rows] == sorted(row["event"] for row in rows)
    frames = [row for row in rows if row["kind"] == "message.sent"]
    assert {row["run"] for row in frames if row["path"] == "each[1]/"} == {child_run_id(root, "each[1]", 1)}
    assert "each[1]/  daemon" in adding.rlp("trace", root).check().out
    fork = adding.rlp("fork", root, "--no-input").check()
    assert f"fork of {root[:8]}" in fork.err
