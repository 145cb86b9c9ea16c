"""The way of a call through the gate: rights, quotas, records."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pog.errors import LedgerWriteError
from runloop.caps.policy import NOTHING as NO_RIGHTS
from runloop.ops import OPS
from runloop.testing import ManualClock
from runloopd.broker.gate import GateOptions

from .world import World, ask, contact, quotas, until, within


async def test_a_call_without_effect_is_answered_and_recorded(world: World) -> None:
    caller = await world.caller("time = true")
    answer = await world.call(caller, "time.now")
    assert answer.ok and answer.value == {"now_ms": world.clock.now_ms()}
    (delivered,) = world.payloads("hostcall.delivered")
    assert (delivered.op, delivered.ok, delivered.fuel) == ("time.now", True, 1000)
    assert world.reader.blob(delivered.result_blob) == answer.text.encode()


async def test_random_bytes_come_from_the_injected_source(world: World) -> None:
    caller = await world.caller("random = true")
    answer = await world.call(caller, "random.bytes", {"n": 4})
    assert base64.b64decode(answer.value["base64"]) == b"\x01" * 4


@pytest.mark.requirement("I2.caps.2", "I2.caps.3")
async def test_a_call_without_the_capability_is_refused_and_audited(world: World) -> None:
    caller = await world.caller("random = true")
    answer = await world.call(caller, "time.now")
    assert not answer.ok
    assert answer.value["code"] == "cap.denied"
    assert "rlp cap grant writer time" in answer.value["hint"]
    (audit,) = world.payloads("cap.audit")
    assert (audit.capability, audit.decision, audit.agent) == ("time", "denied", "writer")
    assert world.kinds() == ["cap.audit", "hostcall.delivered"]


@pytest.mark.requirement("I2.caps.2")
async def test_an_unknown_op_is_refused_and_recorded(world: World) -> None:
    caller = await world.caller()
    answer = await world.call(caller, "exec.run", {"argv": ["rm"]})
    assert answer.value["code"] == "op.unknown"
    (delivered,) = world.payloads("hostcall.delivered")
    assert (delivered.op, delivered.ok) == ("exec.run", False)


REACHING = ("agent.spawn", "agent.call")


@pytest.mark.requirement("W9")
@pytest.mark.parametrize("op", REACHING)
async def test_no_agent_can_start_or_call_another_beside_its_run(world: World, op: str) -> None:
    """They meet in messages, or in runs inside runs: both have ends (``test_talk``, ``test_delegation``)."""
    assert op not in OPS
    caller = await world.caller("spawn = true")
    answer = await world.call(caller, op, {"agent": "writer"})
    assert (answer.ok, answer.value["code"]) == (False, "op.unknown")
    assert "action.requested" not in world.kinds()


async def test_arguments_with_an_unknown_field_are_refused(world: World) -> None:
    caller = await world.caller()
    answer = await world.call(caller, "random.bytes", {"n": 1, "approved": True})
    assert answer.value["code"] == "op.args"
    assert "approved" in answer.value["message"]


async def test_every_op_of_the_table_has_a_handler_and_answers_something(world: World) -> None:
    caller = await world.caller(NO_RIGHTS)
    for op in OPS:
        answer = await world.call(caller, op, {})
        assert isinstance(answer.value, dict)
    recorded = [delivered.op for delivered in world.payloads("hostcall.delivered")]
    assert recorded == list(OPS)


async def test_an_agent_left_with_nothing_may_still_log_and_is_audited(world: World) -> None:
    caller = await world.caller(NO_RIGHTS)
    assert (await world.call(caller, "log.write", {"message": "hello"})).ok
    (audit,) = world.payloads("cap.audit")
    assert (audit.decision, audit.op) == ("empty", "caps.empty")
    assert world.deltas[0].text == "hello"


async def test_a_token_of_another_node_opens_nothing(world: World) -> None:
    theirs = await world.caller("time = true", node="other")
    mine = await world.caller("random = true")
    forged = replace(mine, token=theirs.token, token_id=theirs.token_id)
    answer = await world.call(forged, "time.now")
    assert answer.value["code"] == "token.invalid"
    assert [audit.capability for audit in world.payloads("cap.audit")] == ["token"]


async def test_a_forged_token_opens_nothing(world: World) -> None:
    caller = await world.caller("time = true")
    altered = bytearray(caller.token)
    altered[len(altered) // 2] ^= 1
    answer = await world.call(replace(caller, token=bytes(altered)), "time.now")
    assert answer.value["code"] == "token.invalid"


@pytest.mark.requirement("C12")
async def test_nothing_is_admitted_after_a_revocation_in_a_storm_of_calls(world: World) -> None:
    caller = await world.caller("model = true")
    world.models.gate = asyncio.Event()
    storm = [world.begin(caller, "model.complete", ask(f"q{n}")) for n in range(20)]
    await until(lambda: len(world.models.calls) == 20)
    revoking = asyncio.ensure_future(world.mint.revoke(caller.token_id, "test"))
    storm += [world.begin(caller, "model.complete", ask(f"late{n}")) for n in range(20)]
    await revoking
    world.models.gate.set()
    answers = [await within(task) for task in storm]
    assert [answer.ok for answer in answers] == [True] * 20 + [False] * 20
    assert {answer.value["code"] for answer in answers[20:]} == {"token.revoked"}
    revoked = next(event.id for event in world.events("token.revoked"))
    assert all(event.id < revoked for event in world.events("hostcall.admitted"))


@pytest.mark.requirement("C12")
async def test_a_token_revoked_while_the_route_is_chosen_admits_nothing(world: World) -> None:
    caller = await world.caller()
    honest = world.models.estimate

    async def slow(*args: Any, **more: Any) -> Any:
        await world.mint.revoke(caller.token_id, "test")
        return await honest(*args, **more)

    world.models.estimate = slow  # type: ignore[method-assign]
    answer = await world.call(caller, "model.complete", ask("hello"))
    assert answer.value["code"] == "token.revoked"
    assert world.models.calls == [] and world.payloads("hostcall.admitted") == []
    run = world.gate._record.run(caller.run)
    assert run is not None and run.purse.held_micro_usd == 0


async def test_a_write_whose_token_was_revoked_meanwhile_is_not_made(world: World) -> None:
    caller = await world.caller("kb_write = true\nkb_read = true")
    call = world.begin(caller, "kb.propose", contact("c9"))
    # The call has passed its first check and reads the knowledge base on another thread.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await world.mint.revoke(caller.token_id, "test")
    answer = await within(call)
    assert not answer.ok and answer.value["code"] == "token.revoked"
    assert world.payloads("contact.upserted") == []


@pytest.mark.requirement("C12")
async def test_the_revocation_of_the_runs_token_cascades_to_its_nodes(world: World) -> None:
    caller = await world.caller("time = true")
    root = world.payloads("token.issued")[0].token
    await world.mint.revoke(root, "the operator said so")
    assert (await world.call(caller, "time.now")).value["code"] == "token.revoked"


async def test_a_run_that_is_over_has_no_say_any_more(world: World) -> None:
    caller = await world.caller("time = true")
    await world.end_run()
    answer = await world.call(caller, "time.now")
    assert answer.value["code"] == "gate.no_run"
    assert world.payloads("hostcall.delivered") == []


async def test_the_call_limit_refuses_and_states_it_after_one_warning(tmp_path: Path) -> None:
    world = await World(tmp_path, ManualClock(), quotas=quotas(calls=5)).start()
    await world.run()
    caller = await world.caller("time = true")
    answers = [await world.call(caller, "time.now") for _ in range(6)]
    assert [answer.ok for answer in answers] == [True] * 5 + [False]
    assert answers[5].value["code"] == "quota.exceeded"
    (warned,) = world.payloads("quota.warned")
    assert (warned.resource, warned.limit, warned.used) == ("calls", 5, 4)
    (exceeded,) = world.payloads("quota.exceeded")
    assert (exceeded.resource, exceeded.limit, exceeded.used) == ("calls", 5, 5)
    await world.stop()


async def test_limits_count_on_where_they_were_after_a_restart(tmp_path: Path) -> None:
    world = await World(tmp_path, ManualClock(), quotas=quotas(calls=5)).start()
    await world.run()
    caller = await world.caller("time = true")
    for _ in range(4):
        await world.call(caller, "time.now")
    await world.restart()
    caller = await world.caller("time = true")
    assert (await world.call(caller, "time.now")).ok
    assert not (await world.call(caller, "time.now")).ok
    assert len(world.payloads("quota.warned")) == 1
    await world.stop()


async def test_bytes_of_requests_and_answers_are_limited(tmp_path: Path) -> None:
    world = await World(tmp_path, ManualClock(), quotas=quotas(bytes=600)).start()
    await world.run()
    caller = await world.caller("random = true")
    assert (await world.call(caller, "random.bytes", {"n": 300})).ok
    answer = await world.call(caller, "random.bytes", {"n": 1})
    assert answer.value["code"] == "quota.exceeded"
    assert "QUOTA_EXCEEDED: bytes" in answer.value["message"]
    await world.stop()


@pytest.mark.requirement("L1", "I2.ledger.2")
async def test_when_the_ledger_refuses_nothing_is_dispatched_and_the_guest_hears_it(world: World) -> None:
    caller = await world.caller()

    def broken(*_: Any, **__: Any) -> Any:
        raise LedgerWriteError("disk full", hint="make room")

    world.ledger.commit = broken  # type: ignore[method-assign]
    answer = await world.call(caller, "model.complete", ask("hello"))
    assert answer.value["code"] == "ledger.write"
    assert world.models.calls == []
    answer = await world.call(caller, "time.now")
    assert answer.value["code"] == "ledger.write"


async def test_a_broken_handler_is_an_answer_and_on_record(world: World) -> None:
    caller = await world.caller()
    world.models.fails.append(RuntimeError("a bug with a secret sk-123"))
    answer = await world.call(caller, "model.complete", ask("hello"))
    assert answer.value["code"] == "gate.internal"
    assert "sk-123" not in answer.text
    assert world.kinds() == ["hostcall.admitted", "hostcall.delivered"]


async def test_an_answer_that_fits_no_frame_is_refused_but_its_cost_is_on_record(tmp_path: Path) -> None:
    world = await World(tmp_path, ManualClock(), quotas=quotas(run_tokens=10**7, tokens=10**7)).start()
    await world.run()
    caller = await world.caller()
    answer = await world.call(caller, "model.complete", ask("x" * (7 * 1024 * 1024)))
    assert answer.value["code"] == "gate.answer_size"
    assert world.payloads("hostcall.delivered")[-1].ok is False
    assert len(world.payloads("model.called")) == 1
    await world.stop()


async def test_provenance_names_schedule_agent_bundle_token_and_call(world: World) -> None:
    caller = await world.caller("time = true")
    await world.call(caller, "time.now")
    (event,) = world.events("hostcall.delivered")
    assert event.provenance.causes == (caller.scheduled_id,)
    assert event.provenance.agent == "writer"
    assert event.provenance.bundle == caller.pin.bundle_digest
    assert event.provenance.token == caller.token_id
    assert event.provenance.call == 0


async def test_allowed_calls_are_audited_when_asked_for(tmp_path: Path) -> None:
    world = await World(tmp_path, ManualClock(), options=GateOptions(audit_allows=True)).start()
    await world.run()
    caller = await world.caller("time = true")
    await world.call(caller, "time.now")
    (audit,) = world.payloads("cap.audit")
    assert (audit.capability, audit.decision) == ("time", "allowed")
    await world.stop()


async def test_closing_waits_for_the_effects_under_way(world: World) -> None:
    caller = await world.caller()
    world.models.gate = asyncio.Event()
    call = world.begin(caller, "model.complete", ask("hello"))
    await until(lambda: world.models.calls)
    closing = asyncio.ensure_future(world.gate.close())
    await asyncio.sleep(0)
    assert not closing.done()
    world.models.gate.set()
    await within(closing)
    assert (await within(call)).ok
