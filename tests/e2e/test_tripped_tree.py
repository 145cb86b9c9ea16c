"""A tree of runs that a tripwire silenced stays silent when its daemon is killed, until a person looks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from runloop.events import AgentQuarantined, NodeFinished, PromiseCreated
from tests.home import Home, wait_until

MANIFEST = """\
name = "{name}"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Calls what it is told to, and tells what it heard."
ops = ["http.fetch", "input.ask"]

[ports.out.out]
type = "object"
required = true
"""
SOURCE = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host, HostRefused


@handler
def handle(task: Task, host: Host) -> Result:
    heard = []
    for op, args in task.param("asks"):
        try:
            heard.append(host.call(op, args).get("status", "answered"))
        except HostRefused as refused:
            heard.append(refused.code)
    return Result.of(out={"heard": heard})
"""


@pytest.fixture
def site() -> Iterator[tuple[str, list[str]]]:
    """``host:port`` of a server, and what it was asked for."""
    asked: list[str] = []

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.requirement("P5")
def test_a_run_that_leaked_sends_nothing_after_the_daemon_was_killed(
    home: Home, site: tuple[str, list[str]]
) -> None:
    place, asked = site
    home.env["RUNLOOP__SECURITY__PRIVATE_OK"] = place  # answers are the person's word: another guard's matter
    for name in ("leaker", "helper"):
        home.write_agent(
            name, MANIFEST.format(name=name), SOURCE,
            f'net = [{{hosts = ["{place}"], allow_http = true}}]\npromises = ["ask"]\n',
        )  # fmt: skip
    short, go_on = {"url": f"http://{place}/short"}, {"question": "Go on?", "choices": ["yes"]}
    leak = [["http.fetch", {"url": f"http://{place}/{'x' * 5_000}"}]]
    help_out = [["input.ask", go_on], ["http.fetch", short], ["input.ask", go_on], ["http.fetch", short]]
    path = home.path / "two.yaml"
    path.write_text(
        "version: 0\nname: two\nnodes:\n"
        f'  - {{id: helps, use: "agent:helper", with: {{asks: {json.dumps(help_out)}}}}}\n'
        f'  - {{id: leaks, use: "agent:leaker", with: {{asks: {json.dumps(leak)}}}}}\n'
    )
    home.rlp("run", str(path), "--no-input").check(5)
    wait_until(lambda: bool(home.events("agent.quarantined")), "the trip to be on record")
    (held,) = home.events("agent.quarantined")
    (run,) = {event.run for event in home.events("run.started")}
    assert isinstance(held.payload, AgentQuarantined)
    assert (held.payload.name, held.payload.tree) == ("leaker", run)

    home.kill()
    home.rlp("daemon", "start").check()
    _go_on(home, 1)
    wait_until(lambda: len(home.events("promise.created")) == 2, "the helper to ask again")
    assert asked == [], "silent still"
    home.rlp("agent", "release", "leaker", "--reason", "looked at it").check()
    _go_on(home, 2)
    wait_until(lambda: bool(home.events("run.finished")), "the run to end")
    ends = {
        e.payload.node: e.payload for e in home.events("node.finished") if isinstance(e.payload, NodeFinished)
    }
    output = ends["helps"].output
    assert output is not None
    assert output["ports"]["out"][0]["heard"] == ["answered", "tripwire.tripped", "answered", 204]
    assert asked == ["/short"]


def _go_on(home: Home, number: int) -> None:
    """Answer the helper's newest question, of so many."""
    made = home.events("promise.created")
    assert len(made) == number
    promise = made[-1].payload
    assert isinstance(promise, PromiseCreated)
    home.rlp("promise", "resolve", promise.promise, "yes", "--text").check()
