"""Agents at work as the operator sees them, and his hand on them: ``rlp top``, ``agent kill|restart``."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from agtop.app import CockpitApp
from agtop.feed.live import LiveFeed
from agtop.panes.metrics import MetricsPane
from agtop.screens import ask
from runloop.client import BlockingClient
from runloop.config import Paths
from runloop.errors import RefusedError
from runloop.events import AgentStopped, AgentTransition, NodeFinished
from tests.home import Home, wait_until
from tests.snapshots.frames import seen

MANIFEST = """\
name = "{name}"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "For a test."
ops = ["time.now", "input.ask"]

[ports.out.out]
type = "object"
required = true

[limits]
guest_ms = 120000
fuel = 900000000000
"""
SPINNER = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    first = host.call("time.now", {})
    while task.context["attempt"] == 1:
        pass
    return Result.of(out={"attempt": task.context["attempt"], "first": first})
"""
ASKER = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host


@handler
def handle(task: Task, host: Host) -> Result:
    return Result.of(out={"said": host.call("input.ask", {"question": "go on?"})})
"""
OPENING = """\
version: 0
name: work
nodes:
  - {id: turn, use: "agent:spinner", retry: {max_attempts: 2, backoff_ms: 10}}
  - {id: ask, use: "agent:asker"}
"""


@pytest.fixture
def work(home: Home) -> Home:
    home.write_agent("spinner", MANIFEST.format(name="spinner"), SPINNER, "time = true\n")
    home.write_agent("asker", MANIFEST.format(name="asker"), ASKER, "promises = true\n")
    (home.path / "work.yaml").write_text(OPENING)
    home.rlp("run", "work.yaml", "--detach").check()
    return home


def connect(home: Home, *, operator: bool) -> BlockingClient:
    """Raw frames, as any program of this user could send them."""
    credential = (home.path / "keys" / "operator.key").read_bytes() if operator else None
    return BlockingClient.connect(home.path / "run" / "rmp.sock", credential)


class Watch:
    """Looks, each with rates since the one before."""

    def __init__(self, client: BlockingClient) -> None:
        self._client = client
        self._since: int | None = None

    def look(self) -> dict[str, dict[str, Any]]:
        """The agents by name, the daemon under an empty one."""
        sample = self._client.call("agents.metrics", {"since": self._since})
        self._since = sample["sample"]
        return {"": sample["daemon"], **{row["agent"]: row for row in sample["agents"]}}


@pytest.mark.requirement("I7.top.1", "I7.top.2", "C9")
def test_who_works_is_seen_restarted_and_killed_and_the_run_goes_on_as_its_opening_says(
    work: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(work, operator=True) as client:
        watch = Watch(client)
        wait_until(lambda: watch.look()["asker"]["state"] == "asking", "a person to be asked")
        wait_until(lambda: (watch.look()["spinner"]["cpu_percent"] or 0) > 0, "the guest to compute")
        daemon, *agents = work.rlp("top", "--once", "--interval", "0.2", "--json").check().ndjson
        spinner = next(row for row in agents if row["agent"] == "spinner")
        assert (spinner["state"], spinner["workers"], spinner["queue"]) == ("running", 1, 0)
        assert spinner["cpu_ms"] > 0 and spinner["rss_bytes"] > 1_000_000 and spinner["calls"] == 1
        assert (daemon["workers"], daemon["runs"], daemon["lag_ms"] >= 0) == (2, 1, True)

        with connect(work, operator=False) as stranger:
            for method in ("agent.kill", "agent.restart", "agents.metrics"):
                params = {} if method == "agents.metrics" else {"agent": "spinner", "reason": "mine"}
                with pytest.raises(RefusedError) as refused:
                    stranger.call(method, params)
                assert refused.value.named_code == "operator.required"
        assert work.events("agent.stopped") == []

        work.rlp("agent", "restart", "spinner", "--reason", "it looks stuck").check()
        wait_until(lambda: recovered(work), "the attempt to go on")
        assert watch.look()["spinner"]["calls"] == 1, "the answer came from the record"

        # Between two keys there is time enough for the second to be meant.
        monkeypatch.setattr(ask, "steady_ms", itertools.count(0, 1_000).__next__)
        asyncio.run(killed_in_the_cockpit(work, "spinner"))
        wait_until(lambda: len(ends(work)) == 2, "the second attempt to end")
        first, second = ends(work)
        assert first.error is not None and first.error.code == "guest.killed"
        assert (second.status, second.output is not None) == ("succeeded", True)
        assert watch.look()["spinner"]["failed"] == 1

    work.rlp("agent", "kill", "asker", "--reason", "enough").check()
    wait_until(lambda: work.events("run.finished"), "the run to end")
    assert work.rlp("agent", "kill", "asker").code == 7
    facts = [e.payload for e in work.events("agent.stopped") if isinstance(e.payload, AgentStopped)]
    assert [(fact.how, fact.reason, fact.node) for fact in facts] == [
        ("restarted", "it looks stuck", "turn"),
        ("killed", "asked for in the cockpit", "turn"),
        ("killed", "enough", "ask"),
    ]
    (run,) = {event.run for event in work.events("run.started")}
    assert run is not None
    work.rlp("replay", run).check()
    assert work.events("agent.quarantined") == []


async def killed_in_the_cockpit(home: Home, agent: str) -> None:
    """Look at the pane of a living daemon, put the cursor on the agent, press K, and say yes."""
    app = CockpitApp(LiveFeed(Paths.resolve(home.env)))
    async with app.run_test(size=(80, 24)) as pilot:
        app.show_pane("agents")
        pane = app.pane
        assert isinstance(pane, MetricsPane)
        await seen(pilot, lambda: pane._rows, "figures of a living daemon")
        await pilot.press("N", "g")
        while str(pane._rows[pane.lines.cursor]["agent"]) != agent:
            await pilot.press("j")
        await pilot.press("K", "y")
        await seen(pilot, lambda: len(home.events("agent.stopped")) == 2, "the order to be carried out")


def recovered(home: Home) -> bool:
    found = (event.payload for event in home.events("agent.transition"))
    return any(isinstance(one, AgentTransition) and one.trigger == "recovery_success" for one in found)


def ends(home: Home) -> list[NodeFinished]:
    found = (event.payload for event in home.events("node.finished"))
    return [one for one in found if isinstance(one, NodeFinished) and one.node == "turn"]
