"""Sending mail: asked, approved, sent once, whatever happens in between."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from runloop.caps.policy import Policy
from runloop.testing import ManualClock
from runloopd.authority.approvals import Approval
from runloopd.broker.calls import Answer, Caller
from runloopd.broker.ports import ProviderError

from .world import OPERATOR, World, mail, quotas, until, within


async def asked(world: World) -> Approval:
    """The question that is open now."""
    return await until(lambda: next(iter(world.approvals.list()), None))  # type: ignore[no-any-return]


async def decide(world: World, decision: str = "approve", note: str = "") -> Approval:
    approval = await asked(world)
    await world.approvals.decide(OPERATOR, approval.id, approval.action_digest, decision, note)
    return approval


async def send(world: World, caller: Caller, args: Any = None, decision: str = "approve") -> Answer:
    """Ask, decide, let the undo window pass."""
    call = world.begin(caller, "mail.send", args or mail())
    await decide(world, decision)
    world.clock.advance(5_000)
    return await within(call)


async def crash(world: World) -> None:
    """Nothing reaches the ledger from now on; then a new daemon starts over the same files."""
    world.journal._closed = True
    await world.stop()
    world.journal._closed = False
    await world.journal.close()
    await world.start()


@pytest.mark.requirement("I2.ledger.2", "I2.ledger.3", "I2.mail.4")
async def test_mail_leaves_only_after_a_person_approved_and_the_undo_window_is_over(world: World) -> None:
    call = world.begin(await world.caller(), "mail.send", mail())
    await decide(world)
    assert world.mail.dispatched == []
    world.clock.advance(4_999)
    await asyncio.sleep(0.01)
    assert world.mail.dispatched == []
    world.clock.advance(1)
    answer = await within(call)
    assert answer.ok and answer.value["status"] == "sent"
    assert answer.value["recipients"] == ["ann@example.org"]
    assert world.kinds() == [
        "action.requested",
        "action.decided",
        "action.claimed",
        "hostcall.admitted",
        "email.sent",
        "hostcall.delivered",
    ]


@pytest.mark.requirement("M3", "I2.mail.3")
async def test_what_is_shown_is_what_is_sent_byte_for_byte(world: World) -> None:
    answer = await send(world, await world.caller(), mail(cc=["bo@example.org"], bcc=["cy@example.org"]))
    assert answer.ok
    (requested,) = world.payloads("action.requested")
    (sent,) = world.mail.sent.values()
    assert world.reader.blob(requested.content_blob) == sent.content
    assert requested.action["recipients"] == list(sent.recipients)
    assert requested.action["recipients"] == ["ann@example.org", "bo@example.org", "cy@example.org"]


@pytest.mark.requirement("I2.ledger.6")
async def test_the_causes_of_a_sent_mail_lead_to_the_persons_decision(world: World) -> None:
    caller = await world.caller()
    await send(world, caller)
    (sent,) = world.events("email.sent")
    (decided,) = world.events("action.decided")
    (admitted,) = world.events("hostcall.admitted")
    assert {decided.id, admitted.id, caller.scheduled_id} <= set(sent.provenance.causes)
    assert decided.actor == "operator:1000"


@pytest.mark.parametrize(("decision", "code"), [("deny", "approval.denied"), ("undo", "approval.undone")])
async def test_without_a_lasting_yes_nothing_leaves(world: World, decision: str, code: str) -> None:
    call = world.begin(await world.caller(), "mail.send", mail())
    if decision == "undo":
        approval = await decide(world, "approve")
        await world.approvals.decide(OPERATOR, approval.id, approval.action_digest, "undo")
    else:
        await decide(world, "deny", "not today")
    answer = await within(call)
    assert (answer.ok, answer.value["code"], answer.value["retryable"]) == (False, code, False)
    assert world.mail.dispatched == []
    assert "hostcall.admitted" not in world.kinds()


async def test_a_question_that_nobody_answers_expires(world: World) -> None:
    call = world.begin(await world.caller(), "mail.send", mail())
    approval = await asked(world)
    world.clock.advance(approval.expires_ms - world.clock.now_ms())
    assert await world.approvals.expire_due() == (approval.id,)
    assert (await within(call)).value["code"] == "approval.expired"


async def test_a_denied_mail_is_not_asked_again_by_a_retry(world: World) -> None:
    call = world.begin(await world.caller(attempt=1), "mail.send", mail())
    await decide(world, "deny")
    await within(call)
    answer = await world.call(await world.caller(attempt=2), "mail.send", mail())
    assert answer.value["code"] == "approval.denied"
    assert len(world.payloads("action.requested")) == 1


async def test_a_mail_that_was_sent_is_not_sent_again_by_a_retry(world: World) -> None:
    first = await send(world, await world.caller(attempt=1))
    second = await world.call(await world.caller(attempt=2), "mail.send", mail())
    assert second == first
    assert len(world.mail.dispatched) == 1
    assert len(world.payloads("email.sent")) == 1


async def test_recipients_beyond_the_grant_are_refused_before_anybody_is_asked(world: World) -> None:
    caller = await world.caller('mail = ["*@example.org"]')
    for args in (
        mail(to=["eve@evil.example"]),
        mail(bcc=["eve@evil.example"]),
        mail(to=["eve@evil.example,ann@example.org"]),
        mail(to=["ann@example.org.evil.example"]),
    ):
        answer = await world.call(caller, "mail.send", args)
        assert answer.value["code"] == "cap.denied"
    assert world.approvals.list() == []
    assert len(world.payloads("cap.audit")) == 4


@pytest.mark.requirement("M3")
async def test_a_recipient_that_the_provider_adds_is_checked_and_shown(world: World) -> None:
    world.mail.bcc = ("postmark@evil.example",)
    caller = await world.caller('mail = ["*@example.org"]')
    assert (await world.call(caller, "mail.send", mail())).value["code"] == "cap.denied"
    free = await world.caller(node="send")
    world.begin(free, "mail.send", mail())
    assert "postmark@evil.example" in (await asked(world)).action["recipients"]


@pytest.mark.requirement("C1", "M3")
@pytest.mark.parametrize("field", ["resource", "bcc"])
async def test_what_changes_between_approval_and_dispatch_voids_it(world: World, field: str) -> None:
    call = world.begin(await world.caller(), "mail.send", mail())
    await decide(world)
    if field == "resource":
        world.mail.resource = "smtp:evil.example:25"
    else:
        world.mail.bcc = ("eve@evil.example",)
    world.clock.advance(5_000)
    answer = await within(call)
    assert answer.value["code"] == "approval.voided"
    assert world.mail.dispatched == []
    assert [d.decision for d in world.payloads("action.decided")] == ["approved", "voided"]


@pytest.mark.requirement("C12")
async def test_a_token_revoked_while_waiting_stops_the_dispatch(world: World) -> None:
    caller = await world.caller()
    call = world.begin(caller, "mail.send", mail())
    await decide(world)
    await world.mint.revoke(caller.token_id, "second thoughts")
    world.clock.advance(5_000)
    answer = await within(call)
    assert answer.value["code"] == "token.revoked"
    assert world.mail.dispatched == []
    assert "action.claimed" not in world.kinds()


@pytest.mark.requirement("P9")
async def test_fields_that_look_like_a_decision_have_no_effect(world: World) -> None:
    caller = await world.caller()
    for field in ("approved", "approval", "decision", "confirm", "force", "confirm_external"):
        answer = await world.call(caller, "mail.send", mail(**{field: True}))
        assert answer.value["code"] == "op.args"
    assert world.mail.dispatched == []


async def test_a_crash_while_waiting_finds_the_same_question_open(world: World) -> None:
    world.begin(await world.caller(), "mail.send", mail())
    before = await asked(world)
    await crash(world)
    world.clock.advance(60_000)
    call = world.begin(await world.caller(), "mail.send", mail(), index=0)
    await decide(world)
    world.clock.advance(5_000)
    assert (await within(call)).ok
    assert len(world.payloads("action.requested")) == 1
    assert world.payloads("email.sent")[0].approval == before.id


async def test_a_decision_made_while_the_run_was_down_counts(world: World) -> None:
    world.begin(await world.caller(), "mail.send", mail())
    await asked(world)
    await crash(world)
    await decide(world)
    world.clock.advance(5_000)
    answer = await world.call(await world.caller(), "mail.send", mail(), index=0)
    assert answer.ok and len(world.mail.dispatched) == 1


async def test_an_approval_that_lay_unused_too_long_is_not_used(world: World) -> None:
    world.begin(await world.caller(), "mail.send", mail())
    approval = await decide(world)
    await crash(world)
    world.clock.advance(approval.expires_ms - world.clock.now_ms())
    answer = await world.call(await world.caller(), "mail.send", mail(), index=0)
    assert answer.value["code"] == "approval.expired"
    assert world.mail.dispatched == []


async def dispatching(world: World) -> None:
    """Bring a mail to the point where the provider has it."""
    world.mail.gate = asyncio.Event()
    world.begin(await world.caller(), "mail.send", mail())
    await decide(world)
    world.clock.advance(5_000)
    await until(lambda: world.mail.dispatched)


@pytest.mark.requirement("L6")
async def test_a_crash_after_the_dispatch_does_not_send_twice(world: World) -> None:
    await dispatching(world)
    (key,) = world.mail.dispatched
    outbox = world.mail
    await crash(world)
    outbox.sent[key] = outbox.prepare(_args(), key=key, now_ms=world.clock.now_ms() - 5_000, sender=None)
    answer = await world.call(await world.caller(), "mail.send", mail(), index=0)
    assert answer.ok and answer.value["status"] == "sent"
    assert outbox.dispatched == [key]
    assert len(world.payloads("email.sent")) == 1
    assert world.approvals.list(all=True)[0].state == "consumed"


@pytest.mark.requirement("C5", "L6")
async def test_a_crash_before_the_dispatch_sends_once_under_the_same_approval(world: World) -> None:
    await dispatching(world)
    await crash(world)
    world.mail.gate = None
    answer = await world.call(await world.caller(), "mail.send", mail(), index=0)
    assert answer.ok
    assert len(world.mail.sent) == 1
    assert len(world.payloads("action.requested")) == 1
    assert len(world.payloads("action.claimed")) == 1
    assert len(world.payloads("hostcall.admitted")) == 2


@pytest.mark.requirement("L6", "I2.faults.3")
async def test_a_crash_with_unknown_outcome_is_told_and_never_repeated(world: World) -> None:
    await dispatching(world)
    await crash(world)
    world.mail.knows = "unknown"
    answer = await world.call(await world.caller(), "mail.send", mail(), index=0)
    assert (answer.value["code"], answer.value["retryable"]) == ("effect.unknown_outcome", False)
    again = await world.call(await world.caller(attempt=2), "mail.send", mail())
    assert again.value["code"] == "effect.unknown_outcome"
    assert len(world.mail.dispatched) == 1


async def test_a_provider_that_cannot_tell_counts_as_unknown(world: World) -> None:
    await dispatching(world)
    await crash(world)

    async def silent(_: Any) -> Any:
        raise ProviderError("no connection")

    world.mail.reconcile = silent  # type: ignore[method-assign]
    answer = await world.call(await world.caller(), "mail.send", mail(), index=0)
    assert answer.value["code"] == "effect.unknown_outcome"


async def test_a_dispatch_that_failed_for_sure_may_be_tried_again_under_the_same_approval(
    world: World,
) -> None:
    world.mail.fails.append(ProviderError("greylisted", retryable=True, outcome="absent"))
    first = await send(world, await world.caller(attempt=1))
    assert (first.value["code"], first.value["retryable"]) == ("provider.failed", True)
    second = await world.call(await world.caller(attempt=2), "mail.send", mail())
    assert second.ok
    assert len(world.payloads("action.requested")) == 1
    assert len(world.mail.sent) == 1


async def test_a_dispatch_with_unknown_end_is_looked_up_at_once(world: World) -> None:
    world.mail.fails.append(ProviderError("cut", outcome="unknown"))
    world.mail.knows = "done"
    answer = await send(world, await world.caller())
    assert answer.ok
    assert len(world.payloads("email.sent")) == 1


async def test_a_provider_that_hangs_ends_as_unknown_at_its_deadline(world: World) -> None:
    world.mail.gate = asyncio.Event()
    world.mail.knows = "unknown"
    call = world.begin(await world.caller(), "mail.send", mail())
    await decide(world)
    world.clock.advance(5_000)
    await until(lambda: world.mail.dispatched)
    world.clock.advance(60_000)
    assert (await within(call)).value["code"] == "effect.unknown_outcome"


async def test_an_attempt_stopped_while_waiting_leaves_the_question_open(world: World) -> None:
    call = world.begin(await world.caller(), "mail.send", mail())
    await asked(world)
    call.cancel()
    await within(world.gate.close())
    assert world.kinds() == ["action.requested"]
    assert [a.state for a in world.approvals.list()] == ["open"]


async def test_an_attempt_stopped_while_dispatching_still_has_its_end_on_record(world: World) -> None:
    await dispatching(world)
    world.tasks[0].cancel()
    assert world.mail.gate is not None
    world.mail.gate.set()
    await within(world.gate.close())
    assert len(world.payloads("email.sent")) == 1
    assert world.payloads("hostcall.delivered")[0].ok


async def test_mails_of_one_attempt_are_limited(tmp_path: Path) -> None:
    world = await World(tmp_path, ManualClock(), quotas=quotas(mails=1)).start()
    await world.run()
    caller = await world.caller()
    assert (await send(world, caller)).ok
    answer = await world.call(caller, "mail.send", mail(subject="Another"))
    assert answer.value["code"] == "quota.exceeded"
    await world.stop()


async def test_too_many_recipients_are_refused(world: World) -> None:
    crowd = [f"p{n}@example.org" for n in range(101)]
    answer = await world.call(await world.caller(), "mail.send", mail(to=crowd))
    assert answer.value["code"] == "mail.recipients"


async def test_without_the_right_to_mail_nobody_is_asked(world: World) -> None:
    caller = await world.caller(Policy({"time": True}))
    assert (await world.call(caller, "mail.send", mail())).value["code"] == "cap.denied"
    assert world.approvals.list(all=True) == []


def _args() -> Any:
    from runloop.ops import decode_args

    return decode_args("mail.send", mail())
