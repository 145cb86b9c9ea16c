"""Quotas of agents in a running daemon: warned, then FAULTED, and a replay comes to the same end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.hostile.conftest import Den
from tests.integration.hostile.corpus import good, storm
from tests.unit.runtime.guests import LOOP, component


def set_quota(den: Den, **limits: int) -> None:
    """Limit the agent ``greedy``, and nobody else."""
    for resource, limit in limits.items():
        den.home.env[f"RUNLOOP__QUOTAS__AGENTS__GREEDY__{resource.upper()}"] = str(limit)
    den.home.rlp("daemon", "stop").check()
    den.home.rlp("daemon", "start").check()


def replayed(den: Den) -> dict[str, Any]:
    (run,) = [str(event.run) for event in den.of("run.finished")]
    report: dict[str, Any] = den.home.rlp("replay", run, "--json").check().json
    return report


def faulted(den: Den, node: str = "greedy") -> str:
    (move,) = [m for m in den.facts("agent.transition") if m.node == node and m.after == "FAULTED"]
    return str(move.reason)


@pytest.mark.requirement("I3.sandbox.5")
@pytest.mark.parametrize(
    ("resource", "limit", "op", "args", "caps"),
    [
        ("calls", 7, "log.write", {"message": "x"}, ""),
        ("bytes", 20_000, "random.bytes", {"n": 4_096}, "random = true\n"),
        ("memory_keys", 0, "memory.put", {"key": "a", "value": 1}, ""),
        ("fuel", 2_000, "log.write", {"message": "x"}, ""),
    ],
)
def test_a_hard_limit_ends_the_attempt_where_a_replay_ends_it_too(
    den: Den, resource: str, limit: int, op: str, args: dict[str, Any], caps: str
) -> None:
    set_quota(den, **{resource: limit})
    agents = {"greedy": storm(op, json.dumps(args)), "good": good()}
    den.run(den.place(agents, where="quota", ops=(op,), caps=caps, calls=10_000)).check(1)
    end = den.ends()["greedy"]
    assert end.error is not None
    assert (end.error.code, end.error.retryable) == ("quota.exceeded", False)
    assert end.error.message.startswith(f"QUOTA_EXCEEDED: {resource}: ")
    assert f"of {limit} used" in end.error.message
    assert faulted(den) == f"quota.exceeded: {end.error.message}"
    facts = [e.payload for e in den.home.events("quota.warned", "quota.exceeded")]
    assert [(f.kind, f.agent, f.resource, f.limit) for f in facts] == [  # type: ignore[attr-defined]
        ("quota.warned", "greedy", resource, limit),
        ("quota.exceeded", "greedy", resource, limit),
    ]
    assert den.ends()["good"].error is None
    # Another configuration now: the replay judges by the record.
    set_quota(den, **{resource: 10**6})
    assert replayed(den)["identical"] is True


def test_fuel_between_two_calls_ends_exactly_at_the_limit(den: Den) -> None:
    set_quota(den, fuel=2_000_000)
    den.run(den.place({"greedy": component(LOOP)}, where="fuel", guest_ms=60_000)).check(1)
    end = den.ends()["greedy"]
    assert end.error is not None and end.error.message.startswith("QUOTA_EXCEEDED: fuel: ")
    assert (end.error.code, end.fuel) == ("quota.exceeded", 2_000_000)
    (fact,) = den.facts("quota.exceeded")
    assert (fact.resource, fact.limit, fact.used) == ("fuel", 2_000_000, 2_000_000)
    assert replayed(den)["identical"] is True


def test_time_ends_a_loop_that_makes_no_call(den: Den) -> None:
    set_quota(den, wall_ms=500)
    den.run(den.place({"greedy": component(LOOP), "good": good()}, where="wall", guest_ms=60_000)).check(1)
    end = den.ends()["greedy"]
    assert end.error is not None
    assert end.error.message.startswith("QUOTA_EXCEEDED: wall_ms: ")
    assert not end.error.retryable
    (fact,) = den.facts("quota.exceeded")
    assert (fact.resource, fact.limit) == ("wall_ms", 500)
    assert den.ends()["good"].error is None
    assert replayed(den)["identical"] is True


def test_a_turn_too_many_is_refused_before_anything_of_it_runs(den: Den) -> None:
    set_quota(den, turns=2)
    folder = den.place({"greedy": good()}, where="turns")
    nodes = "".join(f'  - {{id: n{n}, use: "agent:greedy"}}\n' for n in range(3))
    (folder / "hostile.yaml").write_text(f"version: 0\nname: hostile\nnodes:\n{nodes}")
    den.run(folder)
    errors = {node: end.error and end.error.code for node, end in den.ends().items()}
    assert errors == {"n0": None, "n1": None, "n2": "quota.exceeded"}
    assert {m.node for m in den.facts("agent.transition")} == {"n0", "n1"}
    assert replayed(den)["identical"] is True


ENDLESS_SQL = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"
DEAREST = {
    "kb.query": ({"sql": ENDLESS_SQL}, "kb_read = true\n"),
    "kb.search": ({"query": " ".join(f"w{n}" for n in range(400)), "k": 50}, "kb_read = true\n"),
    "random.bytes": ({"n": 65_536}, "random = true\n"),
    "log.write": ({"message": "x" * 40_000}, ""),
    "artifact.put": ({"name": "a.txt", "text": "x" * 40_000}, ""),
    "memory.put": ({"key": "k", "value": "x" * 40_000}, ""),
}


@pytest.mark.timeout(300)
@pytest.mark.requirement("W4")
@pytest.mark.parametrize("op", DEAREST)
def test_a_guest_that_loops_over_a_dear_call_is_bounded_and_its_neighbours_are_served(
    den: Den, op: str
) -> None:
    """None of the guest's own fuel and time goes into these calls: what bounds them is the agent's quota."""
    set_quota(den, wall_ms=4_000, bytes=4_000_000, calls=60)
    args, caps = DEAREST[op]
    agents = {"greedy": storm(op, json.dumps(args)), "good": good()}
    folder = den.place(agents, where="dear", ops=(op,), caps=caps, calls=10_000, guest_ms=10_000)
    den.run(folder).check(1)
    end = den.ends()["greedy"]
    assert end.error is not None
    assert end.error.code == "quota.exceeded", end.error
    assert end.error.message.split(":")[1].strip() in ("wall_ms", "bytes", "calls")
    calls = [c for c in den.facts("hostcall.delivered") if c.node == "greedy"]
    assert 0 < len(calls) <= 61
    largest = max(c.request_bytes + c.response_bytes for c in calls)
    assert sum(c.request_bytes + c.response_bytes for c in calls) <= 4_000_000 + largest
    assert den.ends()["good"].error is None
    order = [p.node for p in den.facts("node.finished")]
    assert order == ["good", "greedy"], "the neighbour did not wait for it"
    den.serves()
