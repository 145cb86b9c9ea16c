"""``rlp agent held``, ``quarantine``, ``release``: what the daemon is asked, and what a person is told."""

from __future__ import annotations

from typing import Any

from runloop.errors import NotFoundError
from tests.unit.rlp.conftest import Rlp
from tests.unit.rlp.daemon_twin import DaemonTwin

HELD = {
    "agent": "writer",
    "bundle": None,
    "reason": "8 failures within 600 s",
    "evidence": [4, 5],
    "by": "breaker",
    "event": 9,
    "since_ms": 1,
}


def test_who_is_held_is_listed_with_the_reason(daemon: DaemonTwin, rlp: Rlp) -> None:
    daemon.methods["agent.held"] = lambda: {"agents": []}
    assert "no agent is quarantined" in rlp("agent", "held").err
    daemon.methods["agent.held"] = lambda: {"agents": [HELD]}
    assert "8 failures within 600 s" in rlp("agent", "held").out
    assert rlp("agent", "held", "--json").lines == [HELD]


def test_an_agent_is_stopped_and_let_go_with_a_reason(daemon: DaemonTwin, rlp: Rlp) -> None:
    asked: list[dict[str, Any]] = []

    def note(agent: str, reason: str) -> dict[str, Any]:
        asked.append({"agent": agent, "reason": reason})
        return {"agent": agent, "event": 3}

    daemon.methods["agent.quarantine"] = daemon.methods["agent.release"] = note
    daemon.methods["agents.list"] = lambda: {"agents": [{"name": "writer"}]}
    done = rlp("agent", "quarantine", "writer", "--reason", "odd")
    assert "'rlp agent release writer' lifts it" in done.err
    assert rlp("agent", "release", "writer", "--json").lines == [{"agent": "writer", "event": 3}]
    assert "no agent is called" not in done.err
    assert asked == [{"agent": "writer", "reason": "odd"}, {"agent": "writer", "reason": "asked to"}]


def test_a_name_nobody_has_is_held_and_a_slip_is_told(daemon: DaemonTwin, rlp: Rlp) -> None:
    daemon.methods["agents.list"] = lambda: {"agents": [{"name": "writer"}]}
    daemon.methods["agent.quarantine"] = lambda agent, reason: {"agent": agent, "event": 3}
    done = rlp("agent", "quarantine", "wirter")
    assert (done.code, "no agent is called wirter now" in done.err) == (0, True)


def test_an_agent_that_is_free_is_not_released(daemon: DaemonTwin, rlp: Rlp) -> None:
    def free(agent: str, reason: str) -> dict[str, Any]:
        raise NotFoundError(f"{agent} is not quarantined", code="agent.free")

    daemon.methods["agent.release"] = free
    assert rlp("agent", "release", "writer").code == 7
