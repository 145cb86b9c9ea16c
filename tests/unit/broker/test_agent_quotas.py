"""Quotas of one agent in one run: soft first, then the end, counted from the record and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from runloop.events import AgentTransition, Draft, NodeFinished, Provenance
from runloop.testing import ManualClock
from runloopd.broker.quotas import QuotaError, Quotas
from runloopd.broker.record import Record

from .world import RUN, World, ask, pin, quotas, within

AGENTS = {"draft": pin(), "review": pin(), "send": pin("mailer")}


async def world_of(tmp_path: Path, **limits: int) -> World:
    world = await World(tmp_path, ManualClock(), quotas=quotas(**limits)).start()
    await world.run(agents=AGENTS, policy={"quotas": world.quotas.to_json(["writer", "mailer"])})
    return world


def warned(world: World) -> list[tuple[str, str, int, int]]:
    return [(w.agent, w.resource, w.limit, w.used) for w in world.payloads("quota.warned")]


def exceeded(world: World) -> list[tuple[str, str, int, int]]:
    return [(e.agent, e.resource, e.limit, e.used) for e in world.payloads("quota.exceeded")]


async def finish(world: World, node: str, attempt: int, fuel: int) -> None:
    ended = NodeFinished(node=node, attempt=attempt, status="failed", fuel=fuel)
    where = Provenance(agent="writer", node=node, attempt=attempt)
    await world.journal.append(Draft(payload=ended, actor="daemon", run=RUN, provenance=where))


async def moved(world: World, after: str, *, instance: str = "i") -> None:
    fact = AgentTransition(
        agent="writer", instance=instance, before="X", after=after, trigger="t", node="draft", attempt=1
    )
    await world.journal.append(Draft(payload=fact, actor="daemon", run=RUN))


async def test_all_nodes_and_attempts_of_an_agent_share_its_quota_and_no_other_agent_does(
    tmp_path: Path,
) -> None:
    world = await world_of(tmp_path, calls=4)
    callers = [
        await world.caller("time = true"),
        await world.caller("time = true", attempt=2),
        await world.caller("time = true", node="review"),
    ]
    for n in range(4):
        assert (await world.call(callers[n % 3], "time.now")).ok
    refused = await world.call(callers[0], "time.now")
    assert refused.value["code"] == "quota.exceeded"
    assert refused.value["message"].startswith("QUOTA_EXCEEDED: calls: 4 of 4 used")
    assert "quotas.agents.<name>.calls" in refused.value["hint"]
    other = await world.caller("time = true", node="send", agent="mailer")
    assert (await world.call(other, "time.now")).ok
    assert (warned(world), exceeded(world)) == ([("writer", "calls", 4, 4)], [("writer", "calls", 4, 4)])
    await world.stop()


async def test_a_limit_that_is_passed_in_one_leap_is_warned_of_first_all_the_same(tmp_path: Path) -> None:
    world = await world_of(tmp_path, bytes=200)
    await world.call(await world.caller("random = true"), "random.bytes", {"n": 300})
    assert not (await world.call(await world.caller("random = true"), "random.bytes", {"n": 3})).ok
    facts = [e.kind for e in world.events() if e.kind.startswith("quota.")]
    assert facts == ["quota.warned", "quota.exceeded"]
    await world.stop()


async def test_calls_at_once_cannot_pass_a_limit_that_calls_in_turn_cannot(tmp_path: Path) -> None:
    world = await world_of(tmp_path, calls=20)
    callers = [await world.caller("time = true", attempt=n) for n in range(1, 41)]
    answers = await within(asyncio.gather(*(world.call(caller, "time.now") for caller in callers)))
    assert sum(answer.ok for answer in answers) == 20
    assert {a.value["code"] for a in answers if not a.ok} == {"quota.exceeded"}
    await world.stop()


@pytest.mark.parametrize(
    ("resource", "limits"), [("micro_usd", {"micro_usd": 9}), ("tokens", {"tokens": 34})]
)
async def test_an_agents_money_and_tokens_end_its_attempt_where_the_runs_budget_only_refuses(
    tmp_path: Path, resource: str, limits: dict[str, int]
) -> None:
    world = await world_of(tmp_path, **limits)
    world.models.micro_usd = 5
    first = await world.call(await world.caller(), "model.complete", ask("hello!", max_tokens=30))
    assert first.ok
    second = await world.call(await world.caller(), "model.complete", ask("other!", max_tokens=30))
    assert second.value["code"] == "quota.exceeded"
    assert exceeded(world)[0][:2] == ("writer", resource)
    other = await world.caller(node="send", agent="mailer")
    assert (await world.call(other, "model.complete", ask("hello!", max_tokens=30))).ok
    await world.stop()


async def test_own_memory_has_a_quota_and_shared_memory_is_only_full(tmp_path: Path) -> None:
    world = await world_of(tmp_path, memory_keys=1)
    caller = await world.caller()
    other = await world.caller(node="send", agent="mailer")
    put: dict[str, Any] = {"key": "a", "value": 1}
    assert (await world.call(caller, "memory.put", put)).ok
    assert (await world.call(other, "memory.put", {**put, "namespace": "shared"})).ok
    full = await world.call(caller, "memory.put", {"key": "b", "value": 1, "namespace": "shared"})
    assert full.value["code"] == "memory.full", "what another agent filled ends nobody"
    assert (await world.call(caller, "memory.put", {"key": "b", "value": 1})).value[
        "code"
    ] == "quota.exceeded"
    await world.stop()


async def test_turns_are_numbered_as_they_were_scheduled(tmp_path: Path) -> None:
    world = await world_of(tmp_path, turns=2)
    for node, attempt in (("draft", 1), ("review", 1), ("draft", 2)):
        await world.caller(node=node, attempt=attempt)
    world.gate.allowance(RUN, "writer", "draft", 1)
    _, warnings = world.gate.allowance(RUN, "writer", "review", 1)
    assert [w.resource for w in warnings] == ["turns"]
    with pytest.raises(QuotaError, match="QUOTA_EXCEEDED: turns: 2 of 2"):
        world.gate.allowance(RUN, "writer", "draft", 2)
    world.gate.allowance(RUN, "writer", "draft", 1)  # asking again, as after a restart, takes no turn
    await world.stop()


async def test_fuel_that_was_burnt_narrows_the_next_attempt_the_same_way_in_a_replay(tmp_path: Path) -> None:
    world = await world_of(tmp_path, fuel=1_000)
    await world.caller()
    await finish(world, "draft", 1, 700)
    await world.caller(attempt=2)
    await finish(world, "review", 1, 200)  # ended after attempt 2 was scheduled: it had not been burnt then
    left, _ = world.gate.allowance(RUN, "writer", "draft", 2)
    assert left.fuel_left == 300
    replayed = Record(Quotas())
    replayed.fold(world.events())
    run = replayed.run(RUN)
    assert run is not None
    again = run.allowance("writer", "draft", 2, replayed.limits(run, "writer"))
    assert (again.fuel_left, again.wall_left) == (300, None)
    await world.caller(attempt=3)
    assert world.gate.allowance(RUN, "writer", "draft", 3)[0].fuel_left == 100
    await finish(world, "draft", 3, 100)
    await world.caller(attempt=4)
    with pytest.raises(QuotaError, match="fuel"):
        world.gate.allowance(RUN, "writer", "draft", 4)
    await world.stop()


async def test_time_counts_in_which_the_agent_or_the_daemon_for_it_is_busy(tmp_path: Path) -> None:
    world = await world_of(tmp_path, wall_ms=1_000)
    caller = await world.caller()
    await moved(world, "ACTIVE")
    world.clock.advance(200)
    await moved(world, "WAITING")
    world.clock.advance(86_400_000)  # a model thinks
    assert (await world.call(caller, "model.complete", ask("hello"))).ok
    await moved(world, "ACTIVE")
    world.clock.advance(200)
    await moved(world, "WAITING")
    world.clock.advance(400)  # a long query
    assert (await world.call(caller, "time.now")).ok
    await moved(world, "ACTIVE")
    world.clock.advance(100)
    assert (await world.call(caller, "time.now")).ok
    assert warned(world) == [("writer", "wall_ms", 1_000, 900)]
    assert world.gate.allowance(RUN, "writer", "draft", 1)[0].wall_left == 100
    world.clock.advance(200)
    assert (await world.call(caller, "time.now")).value["message"].startswith("QUOTA_EXCEEDED: wall_ms")
    with pytest.raises(QuotaError, match="wall_ms"):
        world.gate.allowance(RUN, "writer", "draft", 1)
    await world.stop()


async def test_a_daemon_that_stops_while_a_person_is_asked_charges_nobody_for_the_silence(
    tmp_path: Path,
) -> None:
    world = await world_of(tmp_path, wall_ms=1_000)
    await world.caller()
    await moved(world, "ACTIVE")
    world.clock.advance(200)
    await moved(world, "WAITING")
    world.clock.advance(86_400_000)
    await moved(world, "FAULTED")
    await world.restart()
    assert world.gate.allowance(RUN, "writer", "draft", 1)[0].wall_left == 800
    await world.stop()


async def test_a_restart_under_another_configuration_changes_nothing_for_a_run_under_way(
    tmp_path: Path,
) -> None:
    world = await world_of(tmp_path, calls=2)
    assert (await world.call(await world.caller("time = true"), "time.now")).ok
    world.quotas = quotas(calls=1_000)
    await world.restart()
    caller = await world.caller("time = true")
    assert (await world.call(caller, "time.now")).ok
    assert not (await world.call(caller, "time.now")).ok
    assert warned(world) == [("writer", "calls", 2, 2)]
    await world.stop()
