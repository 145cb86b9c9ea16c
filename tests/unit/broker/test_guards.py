"""Guards that no other test missed when they were taken out (docs/internals/mutation.md)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runloopd.broker.quotas import Purse

from .world import OPERATOR, World, mail, until, within


@pytest.mark.requirement("S2")
async def test_an_op_that_the_manifest_does_not_declare_is_refused_whatever_was_granted(world: World) -> None:
    caller = replace(await world.caller("time = true"), ops=frozenset({"log.write"}))
    answer = await world.call(caller, "time.now")
    assert not answer.ok
    assert "does not declare time.now" in answer.value["message"]
    (audit,) = world.payloads("cap.audit")
    assert (audit.capability, audit.target, audit.decision) == ("ops", "time.now", "denied")


@pytest.mark.requirement("S2")
async def test_a_yes_to_a_run_that_is_over_by_then_sends_nothing(world: World) -> None:
    call = world.begin(await world.caller(), "mail.send", mail())
    approval = await until(lambda: next(iter(world.approvals.list()), None))
    await world.approvals.decide(OPERATOR, approval.id, approval.action_digest, "approve")
    await world.end_run()
    world.clock.advance(5_000)
    answer = await within(call)
    assert not answer.ok
    assert "the run is over" in answer.value["message"]
    assert world.mail.dispatched == []
    assert "action.claimed" not in world.kinds()


@pytest.mark.requirement("S2")
def test_what_a_provider_says_was_spent_fills_no_purse() -> None:
    purse = Purse(limit_micro_usd=100, limit_tokens=100)
    purse.spend("draft", 60, 60, agent="writer")
    purse.spend("draft", -50, -50, agent="writer")
    assert (purse.spent_micro_usd, purse.tokens) == (60, 60)
    assert (purse.pot("writer").micro_usd, purse.pot("writer").tokens) == (60, 60)
