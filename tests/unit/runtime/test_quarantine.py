"""Quarantine over a real ledger: stated before it is heard, kept over restarts, lifted by the operator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pog.errors import LedgerWriteError
from runloop.errors import ConflictError, NotFoundError, UsageError
from runloop.events import AgentTransition, Draft, Event, GuestError, NodeFinished, Provenance
from runloop.testing import ManualClock
from runloopd.runtime.breaker import Breaker
from runloopd.runtime.quarantine import KINDS, AgentQuarantinedError, Quarantine
from tests.unit.broker.world import OPERATOR, RUN, World

Fails = Callable[..., Awaitable[Event]]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(tmp_path, ManualClock()).start()
    await made.run()
    yield made
    await made.stop()


def guard(world: World) -> Quarantine:
    made = Quarantine(world.journal, world.mint, Breaker(failures=3, window_ms=60_000))
    made.restore(world.reader.events(kinds=KINDS))
    return made


def failed(code: str = "guest.trap", agent: str = "writer") -> Draft:
    finished = NodeFinished(
        node="n", attempt=1, status="failed", error=GuestError(code=code, message="unreachable")
    )
    where = Provenance(agent=agent, bundle="ab" * 32, node="n", attempt=1)
    return Draft(payload=finished, actor="daemon", run=RUN, provenance=where)


def recovered(
    agent: str = "writer", reason: str = "guest.crashed: the worker was killed by SIGSEGV"
) -> Draft:
    moved = AgentTransition(
        agent=agent,
        instance="n.1#1",
        before="FAULTED",
        after="RECOVERING",
        trigger="recover",
        reason=reason,
    )
    return Draft(payload=moved, actor="daemon", run=RUN)


async def told(world: World) -> list[Any]:
    return [event.payload for event in world.reader.events(kinds=("agent.quarantined", "agent.released"))]


async def test_an_agent_that_flaps_is_refused_with_the_line_to_type_once_that_is_in_the_ledger(
    world: World,
) -> None:
    quarantine = guard(world)
    evidence = [(await world.journal.append(draft))[0].id for draft in (failed(), recovered())]
    await quarantine.check("writer")
    evidence += [(await world.journal.append(failed("guest.breach")))[0].id]
    with pytest.raises(AgentQuarantinedError, match="3 failures within 60 s") as refused:
        await quarantine.check("writer")
    assert refused.value.named_code == "agent.quarantined"
    assert refused.value.hint is not None and "'rlp agent release writer'" in refused.value.hint
    (fact,) = await told(world)
    assert (fact.name, fact.bundle, fact.by, fact.evidence) == ("writer", "ab" * 32, "breaker", evidence)
    assert "guest.breach: unreachable" in fact.reason
    await quarantine.check("mailer")


async def test_what_the_operator_restarts_or_kills_is_no_failure_of_the_agents(world: World) -> None:
    quarantine = guard(world)
    for _ in range(3):
        await world.journal.append(recovered(reason="guest.restarted: restarted by operator:1000: stuck"))
        await world.journal.append(failed("guest.killed"))
    await quarantine.check("writer")


@pytest.mark.parametrize(
    "code", ["guest.error", "guest.deadline", "guest.no_worker", "quota.exceeded", "x.y"]
)
async def test_failures_that_are_no_crash_trap_or_breach_count_for_nothing(world: World, code: str) -> None:
    quarantine = guard(world)
    for _ in range(20):
        await world.journal.append(failed(code))
    await quarantine.check("writer")
    assert await told(world) == []


async def test_failures_that_are_far_apart_harm_nobody(world: World) -> None:
    quarantine = guard(world)
    for _ in range(20):
        await world.journal.append(failed())
        world.clock.advance(31_000)
    await quarantine.check("writer")


async def test_a_quarantine_survives_a_restart_and_so_does_its_end(world: World) -> None:
    await guard(world).impose(OPERATOR, "writer", "it wrote nonsense")
    await world.restart()
    quarantine = guard(world)
    with pytest.raises(AgentQuarantinedError, match="it wrote nonsense"):
        await quarantine.check("writer")
    assert [held["agent"] for held in quarantine.show()] == ["writer"]
    await quarantine.lift(OPERATOR, "writer", "mended")
    await world.restart()
    await guard(world).check("writer")
    assert [type(fact).__name__ for fact in await told(world)] == ["AgentQuarantined", "AgentReleased"]


async def test_a_crash_between_the_last_failure_and_its_verdict_frees_nobody(world: World) -> None:
    for _ in range(3):
        await world.journal.append(failed())  # nobody listens: as if the daemon died right after
    quarantine = guard(world)
    with pytest.raises(AgentQuarantinedError):
        await quarantine.check("writer")
    assert len(await told(world)) == 1


async def test_after_a_release_the_failures_are_counted_anew(world: World) -> None:
    quarantine = guard(world)
    for _ in range(3):
        await world.journal.append(failed())
    with pytest.raises(AgentQuarantinedError):
        await quarantine.check("writer")
    await quarantine.lift(OPERATOR, "writer", "mended")
    for _ in range(2):
        await world.journal.append(failed())
    await quarantine.check("writer")
    await world.journal.append(failed())
    with pytest.raises(AgentQuarantinedError):
        await quarantine.check("writer")
    assert len(await told(world)) == 3


async def test_a_ledger_that_takes_no_more_facts_frees_nobody(world: World) -> None:
    quarantine = guard(world)
    for _ in range(2):
        await world.journal.append(failed())
    honest = world.ledger.commit

    def full(prepared: Any, blobs: Any = ()) -> Any:
        if any(item.draft.payload.kind == "agent.quarantined" for item in prepared):
            raise LedgerWriteError("disk full", hint="make room")
        return honest(prepared, blobs)

    world.ledger.commit = full  # type: ignore[method-assign]
    await world.journal.append(failed())
    for _ in range(2):
        with pytest.raises(AgentQuarantinedError):
            await quarantine.check("writer")
    world.ledger.commit = honest  # type: ignore[method-assign]
    with pytest.raises(AgentQuarantinedError):
        await quarantine.check("writer")
    assert len(await told(world)) == 1, "it is stated as soon as the ledger takes facts again"


async def test_what_a_quarantined_agent_asks_for_in_a_run_under_way_is_refused(world: World) -> None:
    caller = await world.caller("time = true")
    assert (await world.call(caller, "time.now")).ok
    done = await guard(world).impose(OPERATOR, "writer", "stop it")
    assert done["tokens_voided"] == 1
    assert (await world.call(caller, "time.now")).value["code"] == "token.revoked"


async def test_twice_is_a_conflict_and_nobody_is_released_who_is_free(world: World) -> None:
    quarantine = guard(world)
    await quarantine.impose(OPERATOR, "writer", "x")
    with pytest.raises(ConflictError, match="already"):
        await quarantine.impose(OPERATOR, "writer", "y")
    with pytest.raises(NotFoundError, match="is not quarantined"):
        await quarantine.lift(OPERATOR, "mailer", "x")
    for reason in ("", "  ", "x" * 501):
        with pytest.raises(UsageError, match="reason"):
            await quarantine.impose(OPERATOR, "mailer", reason)
    with pytest.raises(UsageError, match="not an agent name"):
        await quarantine.impose(OPERATOR, "../x", "x")


async def test_many_who_ask_at_once_are_all_refused_and_it_is_stated_once(world: World) -> None:
    quarantine = guard(world)
    for _ in range(3):
        await world.journal.append(failed())
    outcomes = await asyncio.gather(*(quarantine.check("writer") for _ in range(50)), return_exceptions=True)
    assert all(isinstance(outcome, AgentQuarantinedError) for outcome in outcomes)
    assert len(await told(world)) == 1
