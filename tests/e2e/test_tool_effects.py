"""A tool that changes something elsewhere, as a user meets it: asked, allowed for good, undone, replayed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from runloop.digest import blob_digest, canonical
from runloop.events import HostcallDelivered, NodeFinished, ToolCalled
from tests.e2e.test_tools import WeatherService, service
from tests.home import Home, wait_until

__all__ = ["service"]

MANIFEST = """\
name = "poster"
version = "1.0.0"
description = "Posts a note."
language = "python"
entrypoint = "agent:handle"
min_runloop = "0.1.0"
ops = ["tool.call"]

[ports.out.out]
type = "object"
"""
SOURCE = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    return Result.of(out=host.call_tool("notes.add", {"board": "team", "text": task.param("text")}))
"""


def tools(port: int) -> str:
    tool = {
        "id": "notes.add",
        "description": "Adds a note to a board.",
        "transport": {
            "kind": "http",
            "method": "POST",
            "url": f"https://127.0.0.1:{port}/v1/{{board}}/notes",
        },
        "input_schema": {
            "type": "object",
            "properties": {"board": {"type": "string"}, "text": {"type": "string"}},
            "required": ["board", "text"],
        },
        "result_schema": {"type": "object", "required": ["id"]},
        "capabilities": [f"net:127.0.0.1:{port}"],
    }
    return json.dumps({"version": 1, "tools": [tool]})


@pytest.fixture
def opening(home: Home, service: WeatherService) -> Iterator[Path]:
    folder = home.write_agent("poster", MANIFEST, SOURCE, caps=f'net = ["127.0.0.1:{service.port}"]\n')
    (folder / "tools.json").write_text(tools(service.port))
    path = home.path / "post.yaml"
    path.write_text(
        "version: 0\nname: post\nparams:\n  text: {type: string}\nnodes:\n"
        '  - id: post\n    use: "agent:poster"\n    with: {text: "{{params.text}}"}\n'
    )
    yield path


def finished(home: Home) -> int:
    return len(home.events("run.finished"))


@pytest.mark.requirement("I6.tools.1", "I6.tools.4", "I6.tools.7", "I6.tools.10")
def test_a_request_that_changes_something_is_asked_once_allowed_for_good_and_replayed(
    home: Home, service: WeatherService, opening: Path
) -> None:
    run = ("run", str(opening), "--no-input", "--json", "-p")
    home.rlp(*run, "text=one").check(5)
    assert service.posted == []
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    body = blob_digest(canonical({"text": "one"}))
    place = f"https://127.0.0.1:{service.port}/v1/team/notes"
    assert waiting["action"]["resource"] == f"POST {place} body:{body}"
    unasked = home.rlp("approve", waiting["approval"], "--always", "--yes", stdin="notes.add\n").check(4)
    assert "at a terminal" in unasked.err and home.events("action.decided") == []
    name = str(waiting["action"]["tool"])
    typed = {r"type .* to allow it": f"{name}\r"}
    shown = home.terminal("approve", waiting["approval"], "--always", "--wait", answers=typed).check()
    assert '"text": "one"' in shown.out or '"text":"one"' in shown.out, "the very body was shown"
    assert service.posted == [("/v1/team/notes", {"text": "one"})]
    wait_until(lambda: finished(home) == 1, "the run to finish")

    # The very same request is not asked about again; one that says something else is.
    home.rlp(*run, "text=one").check()
    home.rlp(*run, "text=two").check(5)
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    home.rlp("deny", waiting["approval"]).check()
    (grant,) = home.rlp("grant", "list", "--json").check().ndjson
    calls = [e.payload for e in home.events("tool.called") if isinstance(e.payload, ToolCalled)]
    assert [(c.outcome, c.approval is not None, c.grant) for c in calls] == [
        ("done", True, None),
        ("done", False, grant["grant"]),
    ]

    # Taken back, it is asked about again.
    home.rlp("grant", "revoke", grant["grant"]).check()
    home.rlp(*run, "text=one").check(5)
    (waiting,) = home.rlp("approvals", "--json").check().ndjson
    home.rlp("deny", waiting["approval"]).check()
    assert len(service.posted) == 2

    # Effects are on record as what they were; a replay and a fork hear them, and send nothing.
    first, second = (str(e.run) for e in home.events("run.started")[:2])
    heard = [e.payload for e in home.events("hostcall.delivered") if isinstance(e.payload, HostcallDelivered)]
    assert {answer.effect for answer in heard} == {"send"}
    service.stop()
    for name in (first, second):
        assert home.rlp("replay", name, "--json").check().json["identical"] is True
    home.rlp("fork", first, "--json").check()
    assert len(service.posted) == 2


SERVED = """\
from runloop.agent import Result, Task, handler, tool
from runloop.host import Host, HostRefused


@tool("words.count", description="Counts the words of a text.")
def count(text: str) -> int:
    return len(text.split())


@handler
def handle(task: Task, host: Host) -> Result:
    found = {"words": host.call_tool("words.count", {"text": "one two three"})}
    try:
        host.call_tool("sky.look", {})
    except HostRefused as refused:
        found["code"] = refused.code
    return Result.of(out=found)
"""


def served(id: str, agent: str | None = None) -> dict[str, object]:
    return {
        "id": id,
        "description": "Served by an agent.",
        "transport": {"kind": "wasm", "tool": id, **({"agent": agent} if agent else {})},
        "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}},
        "result_schema": {"type": "integer"},
        "capabilities": [f"spawn:{agent}"] if agent else [],
        "effect": "read",
    }


@pytest.mark.requirement("I6.tools.7")
def test_a_tool_that_an_agent_implements_is_served_in_a_sandbox_of_its_own(home: Home) -> None:
    manifest = MANIFEST.replace('name = "poster"', 'name = "counter"')
    folder = home.write_agent("counter", manifest, SERVED, caps='spawn = ["nobody"]\n')
    listed = [served("words.count"), served("sky.look", "nobody")]
    (folder / "tools.json").write_text(json.dumps({"version": 1, "tools": listed}))
    path = home.path / "count.yaml"
    path.write_text('version: 0\nname: count\nnodes:\n  - id: count\n    use: "agent:counter"\n')
    home.rlp("run", str(path), "--no-input", "--json").check()
    (end,) = [e.payload for e in home.events("node.finished")]
    assert isinstance(end, NodeFinished) and end.output is not None
    assert end.output["ports"]["out"] == [{"words": 3, "code": "tool.unavailable"}]
    run = str(home.events("run.started")[0].run)
    assert home.rlp("replay", run, "--json").check().json["identical"] is True
