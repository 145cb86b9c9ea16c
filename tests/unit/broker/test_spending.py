"""A person's word before a run spends more, and money nobody knows the end of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runloop.testing import ManualClock
from runloopd.authority.approvals import Approval

from .world import OPERATOR, RUN, World, ask, quotas, until, within

UNDO_MS = 5_000


async def begun(tmp_path: Path, **limits: int) -> World:
    made = {"run_ask_micro_usd": 100, "run_micro_usd": 1_000} | limits
    world = await World(tmp_path, ManualClock(), quotas=quotas(**made)).start()
    await world.run()
    world.models.micro_usd = 60
    return world


def open_questions(world: World) -> list[Approval]:
    return [approval for approval in world.approvals.list() if approval.state == "open"]


async def question(world: World) -> Approval:
    found: list[Approval] = await until(lambda: open_questions(world))
    (approval,) = found
    return approval


async def decide(world: World, approval: Approval, word: str = "approve") -> None:
    await world.approvals.decide(OPERATOR, approval.id, approval.action_digest, word)


async def approve(world: World, approval: Approval) -> None:
    await decide(world, approval)
    world.clock.advance(UNDO_MS)


@pytest.mark.requirement("I6.policy.3")
async def test_the_call_that_would_pass_the_threshold_waits_for_a_person(tmp_path: Path) -> None:
    world = await begun(tmp_path)
    caller = await world.caller()
    assert (await world.call(caller, "model.complete", ask("one"))).ok
    assert open_questions(world) == []
    waiting = world.begin(caller, "model.complete", ask("two"))
    asked = await question(world)
    assert asked.action["kind"] == "spend" and asked.action["resource"] == "model:local:echo"
    assert (asked.action["spent_micro_usd"], asked.action["amount_micro_usd"]) == (60, 60)
    assert (asked.action["threshold_micro_usd"], asked.action["next_micro_usd"]) == (100, 200)
    assert b"two" in world.reader.blob(asked.content_blob)
    assert len(world.models.calls) == 1, "nothing is sent before the word"
    await approve(world, asked)
    assert (await within(waiting)).ok
    assert world.approvals.find(asked.id).state == "consumed"
    await world.stop()


@pytest.mark.requirement("I6.policy.3")
async def test_a_yes_holds_until_twice_the_threshold_and_no_further(tmp_path: Path) -> None:
    world = await begun(tmp_path)
    caller = await world.caller()
    await world.call(caller, "model.complete", ask("one"))
    second = world.begin(caller, "model.complete", ask("two"))
    await approve(world, await question(world))
    await within(second)
    assert (await world.call(caller, "model.complete", ask("three"))).ok  # 180 of 200
    assert len(world.payloads("action.requested")) == 1
    fourth = world.begin(caller, "model.complete", ask("four"))
    again = await question(world)
    assert (again.action["threshold_micro_usd"], again.action["next_micro_usd"]) == (200, 400)
    await approve(world, again)
    assert (await within(fourth)).ok
    await world.stop()


@pytest.mark.requirement("I6.policy.3")
async def test_a_no_is_the_last_word_and_what_fits_goes_on(tmp_path: Path) -> None:
    world = await begun(tmp_path)
    caller = await world.caller()
    await world.call(caller, "model.complete", ask("one"))
    second = world.begin(caller, "model.complete", ask("two"))
    await decide(world, await question(world), "deny")
    assert (await within(second)).value["code"] == "approval.denied"
    assert (await world.call(caller, "model.complete", ask("three"))).value["code"] == "approval.denied"
    world.models.micro_usd = 40
    assert (await world.call(caller, "model.complete", ask("small"))).ok
    world.models.micro_usd = 0
    assert (await world.call(caller, "model.complete", ask("free"))).ok
    assert len(world.payloads("action.requested")) == 1
    await world.stop()


async def test_a_yes_that_is_taken_back_spends_nothing(tmp_path: Path) -> None:
    world = await begun(tmp_path, run_ask_micro_usd=10)
    waiting = world.begin(await world.caller(), "model.complete", ask("one"))
    asked = await question(world)
    await decide(world, asked)
    await decide(world, asked, "undo")
    assert (await within(waiting)).value["code"] == "approval.undone"
    assert world.models.calls == [] and world.payloads("model.called") == []
    await world.stop()


async def test_nobody_is_asked_about_what_the_hard_limit_forbids_anyway(tmp_path: Path) -> None:
    world = await begun(tmp_path, run_micro_usd=50, run_ask_micro_usd=10)
    answer = await world.call(await world.caller(), "model.complete", ask("one"))
    assert answer.value["code"] == "budget.exceeded"
    assert world.payloads("action.requested") == []
    await world.stop()


@pytest.mark.requirement("I6.policy.3", "K7")
async def test_twenty_agents_at_the_threshold_ask_one_question(tmp_path: Path) -> None:
    world = await begun(tmp_path, run_micro_usd=10_000)
    callers = [await world.caller(node=f"n{n}", agent=f"agent{n}") for n in range(20)]
    calls = [world.begin(caller, "model.complete", ask(f"q{n}")) for n, caller in enumerate(callers)]
    asked_of = 0
    while sum(call.done() for call in calls) < 20:
        found = await until(lambda: open_questions(world) or all(call.done() for call in calls))
        if found is True:
            break
        assert len(found) == 1
        asked_of += 1
        await approve(world, found[0])
        await until(lambda: open_questions(world) or all(map(_done, calls)))
    answers = await within(asyncio.gather(*calls))
    assert all(answer.ok for answer in answers)
    # 100, 200, 400, 800: 1 200 micro-dollars are spent, and every doubling was asked about once.
    assert asked_of == 4 == len(world.payloads("action.requested"))
    await world.stop()


def _done(call: asyncio.Task[Any]) -> bool:
    return call.done()


Crash = Callable[[World], Any]


@pytest.mark.requirement("I6.policy.3")
async def test_a_crash_while_the_question_is_open_finds_the_same_question(tmp_path: Path) -> None:
    world = await begun(tmp_path, run_ask_micro_usd=10)
    world.begin(await world.caller(), "model.complete", ask("one"))
    before = (await question(world)).id
    await world.restart()
    waiting = world.begin(await world.caller(attempt=2), "model.complete", ask("one"), index=0)
    asked = await question(world)
    assert asked.id == before
    await approve(world, asked)
    assert (await within(waiting)).ok
    assert len(world.payloads("action.requested")) == 1
    await world.stop()


@pytest.mark.requirement("I6.policy.3")
async def test_a_crash_after_the_yes_asks_nobody_again(tmp_path: Path) -> None:
    world = await begun(tmp_path, run_ask_micro_usd=10)
    world.begin(await world.caller(), "model.complete", ask("one"))
    await decide(world, await question(world))
    await world.restart()  # within the time to undo it
    waiting = world.begin(await world.caller(attempt=2), "model.complete", ask("one"), index=0)
    other = world.begin(await world.caller(node="review"), "model.complete", ask("other"))
    await until(lambda: len(world.models.askers) == 3)
    assert not waiting.done() and not other.done() and open_questions(world) == []
    world.clock.advance(UNDO_MS)
    assert (await within(waiting)).ok
    first, *_ = world.payloads("action.requested")
    assert [a.action["node"] for a in open_questions(world)] == ["review"] and first.node == "draft"
    await approve(world, await question(world))
    assert (await within(other)).ok
    await world.stop()


@pytest.mark.requirement("I6.policy.3")
async def test_a_yes_holds_for_its_own_call_also_when_others_used_the_money_up(tmp_path: Path) -> None:
    world = await begun(tmp_path, run_ask_micro_usd=10)
    world.begin(await world.caller(), "model.complete", ask("one"))
    await decide(world, await question(world))
    await world.restart()
    world.clock.advance(UNDO_MS)
    assert (await world.call(await world.caller(node="review"), "model.complete", ask("other"))).ok
    again = await world.call(await world.caller(attempt=2), "model.complete", ask("one"), index=0)
    assert again.ok and len(world.payloads("action.requested")) == 1
    await world.stop()


@pytest.mark.requirement("I6.policy.3")
async def test_a_no_outlives_a_crash(tmp_path: Path) -> None:
    world = await begun(tmp_path, run_ask_micro_usd=10)
    waiting = world.begin(await world.caller(), "model.complete", ask("one"))
    await decide(world, await question(world), "deny")
    await within(waiting)
    await world.restart()
    answer = await world.call(await world.caller(attempt=2), "model.complete", ask("more"))
    assert answer.value["code"] == "approval.denied"
    assert len(world.payloads("action.requested")) == 1
    await world.stop()


# --- money nobody knows the end of ----------------------------------------------------------------


@pytest.mark.requirement("K6")
async def test_a_call_cut_by_a_crash_holds_its_money_until_it_is_booked(tmp_path: Path) -> None:
    world = await begun(tmp_path, run_ask_micro_usd=10**9, run_micro_usd=100)
    world.models.gate = asyncio.Event()
    world.begin(await world.caller(), "model.complete", ask("cut"))
    await until(lambda: world.models.calls)
    await world.restart()
    world.models.gate = None
    # Another node may not have the money that may be spent already.
    other = await world.call(await world.caller(node="review"), "model.complete", ask("other"))
    assert other.value["code"] == "budget.exceeded"
    world.models.micro_usd = 40
    assert (await world.call(await world.caller(node="third"), "model.complete", ask("small"))).ok
    assert sum(called.cost_micro_usd for called in world.payloads("model.called")) == 40
    await world.stop()


@pytest.mark.requirement("K6")
async def test_a_lost_call_is_booked_at_the_price_of_then(tmp_path: Path) -> None:
    world = await begun(tmp_path, run_ask_micro_usd=10**9)
    world.models.gate = asyncio.Event()
    world.begin(await world.caller(), "model.complete", ask("cut"))
    await until(lambda: world.models.calls)
    await world.restart()
    world.models.gate, world.models.micro_usd, world.models.target = None, 7, "dear:new"  # another price list
    assert (await world.call(await world.caller(attempt=2), "model.complete", ask("cut"), index=0)).ok
    lost, called = world.payloads("model.called")
    assert (lost.finish, lost.cost_micro_usd, lost.provider, lost.model) == (
        "unknown_outcome",
        60,
        "local",
        "echo",
    )
    assert (called.cost_micro_usd, called.provider) == (7, "dear")
    run = world.gate._record.run(RUN)
    assert run is not None and (run.purse.spent_micro_usd, run.purse.held_micro_usd) == (67, 0)
    await world.stop()


@pytest.mark.requirement("K6")
async def test_a_lost_call_is_booked_once_however_often_it_is_asked_again(tmp_path: Path) -> None:
    world = await begun(tmp_path, run_ask_micro_usd=10**9, run_micro_usd=100)
    world.models.gate = asyncio.Event()
    world.begin(await world.caller(), "model.complete", ask("cut"))
    await until(lambda: world.models.calls)
    await world.restart()
    for attempt in (2, 3):  # 60 may be spent, 60 more do not fit
        caller = await world.caller(attempt=attempt)
        answer = await world.call(caller, "model.complete", ask("cut"), index=0)
        assert answer.value["code"] == "budget.exceeded"
    assert [called.finish for called in world.payloads("model.called")] == ["unknown_outcome"]
    await world.restart()
    world.models.gate, world.models.micro_usd = None, 40
    assert (await world.call(await world.caller(node="other"), "model.complete", ask("rest"))).ok
    assert sum(called.cost_micro_usd for called in world.payloads("model.called")) == 100
    await world.stop()
