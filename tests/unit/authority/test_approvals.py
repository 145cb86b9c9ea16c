"""Approvals: asked once, decided by an operator, used once, durable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from pog.errors import LedgerWriteError
from runloop.approval import WIDENING, confirming_word
from runloop.errors import NotFoundError, RefusedError, UsageError
from runloop.events import Draft, EmailSent, Provenance
from runloop.testing import ManualClock
from runloopd.authority.approval import FINAL, MOVES, STATE_OF
from runloopd.authority.approvals import Approval, ApprovalError, Approvals, Question
from runloopd.bus.principal import DAEMON, Principal

from .journal import MemoryJournal

T = TypeVar("T")

OPERATOR = Principal(kind="operator", name="operator:1000#s1", uid=1000)
STRANGERS = [
    Principal(kind="peer", name="operator:1000#forged", uid=1000),
    Principal(kind="agent", name="agent:mailer#1"),
    DAEMON,
]
ACTION = {"kind": "mail.send", "recipients": ["ann@example.org"], "resource": "outbox:/x"}


class Office:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.journal = MemoryJournal(self.clock)
        self.approvals = self.open()

    def open(self) -> Approvals:
        return Approvals(self.journal, self.clock, expiry_ms=60_000, undo_window_ms=5_000)

    def restart(self) -> None:
        self.approvals = self.open()
        self.approvals.restore(self.journal.events)

    async def ask(self, **more: Any) -> Approval:
        return await self.approvals.request(question(**more))

    async def decide(self, approval: Approval, decision: str = "approve", **more: Any) -> Any:
        principal = more.get("principal", OPERATOR)
        seen = more.get("digest", approval.action_digest)
        said = more.get("confirm", "")
        return await self.approvals.decide(principal, approval.id, seen, decision, confirm=said)

    async def approved(self, **more: Any) -> Approval:
        approval = await self.ask(**more)
        await self.decide(approval)
        self.clock.advance(5_000)
        return approval

    async def claim(self, approval: Approval, **more: Any) -> Any:
        action, content = more.get("action", ACTION), more.get("content", b"hello")
        return await self.approvals.claim(approval.id, action, content)

    def decisions(self) -> list[str]:
        return [decided.decision for decided in self.journal.payloads("action.decided")]


@pytest.fixture
def office() -> Office:
    return Office()


def question(**more: Any) -> Question:
    base = Question(
        run="r1",
        node="send",
        attempt=1,
        call=0,
        op="mail.send",
        effect="send",
        key="k1",
        args_digest="a1",
        action=ACTION,
        content=b"hello",
        content_type="message/rfc822",
        provenance=Provenance(causes=(1,)),
    )
    return replace(base, **more)


async def within(work: Awaitable[T], seconds: float = 10.0) -> T:
    return await asyncio.wait_for(work, seconds)


def code(caught: pytest.ExceptionInfo[Any]) -> str:
    return str(caught.value.named_code)


# --- asking ---------------------------------------------------------------------------------------


async def test_a_question_is_durable_with_its_exact_content_before_anybody_can_answer(
    office: Office,
) -> None:
    approval = await office.ask()
    (requested,) = office.journal.payloads("action.requested")
    assert requested.approval == approval.id and approval.state == "open"
    assert office.journal.blobs == [b"hello"]
    assert approval.to_request()["action"] == ACTION
    assert approval.to_json()["state"] == "open"


async def test_a_question_the_ledger_refuses_was_never_put(office: Office) -> None:
    office.journal.broken = True
    with pytest.raises(LedgerWriteError):
        await office.ask()
    assert office.approvals.list(all=True) == []


async def test_the_same_effect_is_asked_once_however_often(office: Office) -> None:
    approvals = await asyncio.gather(*(office.ask(attempt=n) for n in range(1, 6)))
    assert len({a.id for a in approvals}) == 1
    assert len(office.journal.events) == 1


@pytest.mark.parametrize("more", [{"run": "r2"}, {"node": "other"}, {"key": "k2"}, {"args_digest": "a2"}])
async def test_another_effect_is_another_question(office: Office, more: dict[str, str]) -> None:
    assert (await office.ask()).id != (await office.ask(**more)).id


@pytest.mark.parametrize("more", [{"content": b"hullo"}, {"action": {**ACTION, "resource": "smtp:x:25"}}])
async def test_a_changed_action_voids_the_old_question_and_puts_a_new_one(
    office: Office, more: dict[str, Any]
) -> None:
    old = await office.ask()
    new = await office.ask(**more)
    assert (old.state, new.state) == ("voided", "open") and old.id != new.id
    assert office.approvals.asked("r1", "send", "k1", "a1") is new
    assert (await office.ask(**more)) is new


async def test_reordered_keys_are_the_same_action(office: Office) -> None:
    first = await office.ask()
    assert (await office.ask(action=dict(reversed(ACTION.items())))) is first


@pytest.mark.parametrize("decision", ["deny", "undo"])
async def test_a_no_is_final_for_that_effect(office: Office, decision: str) -> None:
    approval = await office.ask()
    if decision == "undo":
        await office.decide(approval)
    await office.decide(approval, decision)
    assert (await office.ask()) is approval
    assert (await office.ask(content=b"other")) is approval


# --- deciding -------------------------------------------------------------------------------------


@pytest.mark.requirement("I2.wire.8")
@pytest.mark.parametrize("stranger", STRANGERS)
async def test_only_an_operator_decides_and_whoever_tries_is_audited(
    office: Office, stranger: Principal
) -> None:
    approval = await office.ask()
    with pytest.raises(RefusedError) as caught:
        await office.decide(approval, principal=stranger)
    assert code(caught) == "approval.principal"
    assert approval.state == "open"
    (audit,) = office.journal.payloads("cap.audit")
    assert (audit.agent, audit.decision, audit.target) == (stranger.label, "denied", approval.id)


@pytest.mark.requirement("C1")
async def test_a_decision_on_something_else_than_was_shown_decides_nothing(office: Office) -> None:
    approval = await office.ask()
    with pytest.raises(ApprovalError) as caught:
        await office.decide(approval, digest="0" * 64)
    assert code(caught) == "approval.digest"
    assert approval.state == "open"


async def test_a_question_is_decided_once(office: Office) -> None:
    approval = await office.ask()
    results = await asyncio.gather(
        *(office.decide(approval, "approve" if n % 2 else "deny") for n in range(10)),
        return_exceptions=True,
    )
    assert sum(not isinstance(r, Exception) for r in results) == 1
    assert {code_of(r) for r in results if isinstance(r, Exception)} == {"approval.decided"}
    assert len(office.decisions()) == 1


def code_of(error: Any) -> str:
    return str(error.named_code)


async def test_what_is_no_decision_is_refused(office: Office) -> None:
    approval = await office.ask()
    with pytest.raises(UsageError):
        await office.decide(approval, "maybe")


async def test_a_decision_the_ledger_refuses_has_not_been_made(office: Office) -> None:
    approval = await office.ask()
    office.journal.broken = True
    with pytest.raises(LedgerWriteError):
        await office.decide(approval)
    assert approval.state == "open"


async def test_a_decision_whose_sender_hangs_up_is_still_made_whole(office: Office) -> None:
    approval = await office.ask()
    deciding = asyncio.ensure_future(office.decide(approval))
    await asyncio.sleep(0)
    deciding.cancel()
    decided = await within(waited(office, approval, advance=5_000))
    assert decided.approved and office.decisions() == ["approved"]


async def waited(office: Office, approval: Approval, *, advance: int) -> Any:
    waiting = asyncio.ensure_future(office.approvals.wait(approval.id))
    while approval.state == "open":
        await asyncio.sleep(0)
    office.clock.advance(advance)
    return await waiting


async def test_waiting_ends_with_the_undo_window(office: Office) -> None:
    approval = await office.ask()
    waiting = asyncio.ensure_future(office.approvals.wait(approval.id))
    await office.decide(approval)
    office.clock.advance(4_999)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting.done()
    office.clock.advance(1)
    decided = await within(waiting)
    assert decided.approved and decided.principal == "operator:1000" and decided.event == approval.decided


@pytest.mark.requirement("I2.mail.4")
async def test_an_undo_within_the_window_ends_the_waiting(office: Office) -> None:
    approval = await office.ask()
    waiting = [asyncio.ensure_future(office.approvals.wait(approval.id)) for _ in range(3)]
    await office.decide(approval)
    await office.decide(approval, "undo")
    for decided in await within(asyncio.gather(*waiting)):
        assert decided.state == "undone" and not decided.approved
    with pytest.raises(ApprovalError):
        await office.claim(approval)


async def test_an_undo_is_too_late_once_the_use_is_taken(office: Office) -> None:
    approval = await office.approved()
    await office.claim(approval)
    with pytest.raises(ApprovalError) as caught:
        await office.decide(approval, "undo")
    assert code(caught) == "approval.too_late"


async def test_an_undo_before_a_decision_is_refused(office: Office) -> None:
    approval = await office.ask()
    with pytest.raises(ApprovalError):
        await office.decide(approval, "undo")


async def test_a_decision_after_the_expiry_is_refused_and_the_expiry_stated(office: Office) -> None:
    approval = await office.ask()
    office.clock.advance(60_000)
    with pytest.raises(ApprovalError) as caught:
        await office.decide(approval)
    assert code(caught) == "approval.expired"
    assert office.decisions() == ["expired"]


async def test_questions_expire_by_themselves_in_the_loop(office: Office) -> None:
    loop = asyncio.ensure_future(office.approvals.expire_loop())
    await asyncio.sleep(0)
    approval = await office.ask()
    waiting = asyncio.ensure_future(office.approvals.wait(approval.id))
    for _ in range(5):
        await asyncio.sleep(0)
    office.clock.advance(60_000)
    decided = await within(waiting)
    assert decided.state == "expired" and decided.principal == "daemon"
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop


# --- using ----------------------------------------------------------------------------------------


@pytest.mark.requirement("C5")
async def test_of_two_hundred_concurrent_claims_exactly_one_wins(office: Office) -> None:
    approval = await office.approved()
    results = await asyncio.gather(*(office.claim(approval) for _ in range(200)), return_exceptions=True)
    won = [r for r in results if not isinstance(r, Exception)]
    assert len(won) == 1 and won[0][0].kind == "action.claimed"
    assert {code_of(r) for r in results if isinstance(r, Exception)} == {"approval.used"}
    assert len(office.journal.payloads("action.claimed")) == 1


@pytest.mark.parametrize("state", ["open", "denied", "undone", "expired", "voided", "consumed"])
async def test_only_an_approved_action_can_be_used(office: Office, state: str) -> None:
    approval = await office.ask()
    if state in ("undone", "consumed"):
        await office.decide(approval)
    if state == "undone":
        await office.decide(approval, "undo")
    elif state == "denied":
        await office.decide(approval, "deny")
    elif state == "expired":
        office.clock.advance(60_000)
        await office.approvals.expire_due()
    elif state == "voided":
        await office.approvals.void("r1")
    elif state == "consumed":
        office.clock.advance(5_000)
        await office.claim(approval)
        office.approvals.consumed(approval.id)
    assert approval.state == state
    with pytest.raises(ApprovalError):
        await office.claim(approval)


async def test_a_use_within_the_undo_window_is_refused(office: Office) -> None:
    approval = await office.ask()
    await office.decide(approval)
    with pytest.raises(ApprovalError) as caught:
        await office.claim(approval)
    assert code(caught) == "approval.window"
    assert approval.state == "active"


BOUND = [
    {"content": b"hello!"},
    {"action": {**ACTION, "recipients": ["eve@evil.example"]}},
    {"action": {**ACTION, "resource": "smtp:evil.example:25"}},
    {"action": {**ACTION, "agent": "other"}},
]


@pytest.mark.requirement("C1")
@pytest.mark.parametrize("more", BOUND)
async def test_any_difference_from_what_was_approved_voids_it_for_good(
    office: Office, more: dict[str, Any]
) -> None:
    approval = await office.approved()
    with pytest.raises(ApprovalError) as caught:
        await office.claim(approval, **more)
    assert code(caught) == "approval.voided"
    with pytest.raises(ApprovalError):
        await office.claim(approval)
    assert office.decisions() == ["approved", "voided"]
    assert office.journal.payloads("action.claimed") == []


async def test_an_approval_that_lay_too_long_is_not_used(office: Office) -> None:
    approval = await office.approved()
    office.clock.advance(60_000)
    with pytest.raises(ApprovalError) as caught:
        await office.claim(approval)
    assert code(caught) == "approval.expired"


async def test_a_claim_the_ledger_refuses_is_not_taken(office: Office) -> None:
    approval = await office.approved()
    office.journal.broken = True
    with pytest.raises(LedgerWriteError):
        await office.claim(approval)
    office.journal.broken = False
    assert approval.state == "active"
    assert await office.claim(approval)


async def test_the_last_check_is_made_before_the_claim_and_may_refuse_it(office: Office) -> None:
    approval = await office.approved()

    def no() -> None:
        raise RefusedError("revoked")

    with pytest.raises(RefusedError):
        await office.approvals.claim(approval.id, ACTION, b"hello", check=no)
    assert approval.state == "active"


async def test_the_mark_of_the_effect_is_in_the_transaction_of_the_claim(office: Office) -> None:
    approval = await office.approved()
    mark = Draft(payload=office.journal.events[0].payload, actor="daemon")
    events = await office.approvals.claim(approval.id, ACTION, b"hello", mark)
    assert [event.kind for event in events] == ["action.claimed", "action.requested"]


async def test_a_claim_whose_caller_is_gone_is_let_go(office: Office) -> None:
    approval = await office.approved()
    claiming = asyncio.ensure_future(office.claim(approval))
    await asyncio.sleep(0)
    claiming.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert approval.state == "dispatching" and not approval.held


async def test_a_released_claim_can_be_taken_again_for_the_same_bytes_only(office: Office) -> None:
    approval = await office.approved()
    await office.claim(approval)
    with pytest.raises(ApprovalError):
        await office.claim(approval)
    office.approvals.release(approval.id)
    with pytest.raises(ApprovalError) as caught:
        await office.claim(approval, content=b"other")
    assert code(caught) == "approval.voided"
    assert approval.state == "dispatching"
    assert await office.claim(approval) == []


async def test_a_question_about_an_effect_under_way_with_another_content_is_refused(
    office: Office,
) -> None:
    approval = await office.approved()
    await office.claim(approval)
    with pytest.raises(ApprovalError) as caught:
        await office.ask(content=b"other")
    assert code(caught) == "approval.used"


# --- restarts, ends, names ------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["open", "active", "denied", "undone", "expired", "voided", "dispatching"])
async def test_every_state_survives_a_restart(office: Office, state: str) -> None:
    approval = await office.ask()
    if state in ("active", "undone", "dispatching"):
        await office.decide(approval)
    if state in ("undone", "denied"):
        await office.decide(approval, "undo" if state == "undone" else "deny")
    if state == "expired":
        office.clock.advance(60_000)
        await office.approvals.expire_due()
    if state == "voided":
        await office.approvals.void("r1")
    if state == "dispatching":
        office.clock.advance(5_000)
        await office.claim(approval)
    before = approval.to_json()
    office.restart()
    assert office.approvals.find(approval.id).to_json() == before
    assert before["state"] == state


async def test_a_mail_on_record_means_consumed_after_a_restart(office: Office) -> None:
    approval = await office.approved()
    await office.claim(approval)
    sent = EmailSent(
        approval=approval.id,
        provider="outbox",
        message_id="<x>",
        recipients=[],
        subject="",
        content_blob="",
        location="",
    )
    await office.journal.append(Draft(payload=sent, actor="daemon", run="r1"))
    office.restart()
    assert office.approvals.find(approval.id).state == "consumed"


async def test_a_crash_before_the_claim_was_durable_leaves_it_unused(office: Office) -> None:
    approval = await office.approved()
    office.restart()
    again = office.approvals.find(approval.id)
    assert again.state == "active" and await office.claim(again)


async def test_what_a_stopped_attempt_asked_is_voided_and_what_is_under_way_is_not(
    office: Office,
) -> None:
    waiting = await office.ask()
    decided = await office.approved(key="k2")
    used = await office.approved(key="k3")
    other = await office.ask(key="k4", node="other")
    await office.claim(used)
    assert set(await office.approvals.void("r1", "send", 1)) == {waiting.id, decided.id}
    assert (used.state, other.state) == ("dispatching", "open")
    assert office.approvals.list() == [other]
    office.approvals.forget("r1")
    assert office.approvals.list(all=True) == []


async def test_a_stopped_retry_voids_the_question_of_the_attempt_before_it(office: Office) -> None:
    approval = await office.ask(attempt=1)
    assert await office.ask(attempt=2) is approval
    assert await office.approvals.void("r1", "send", 2) == (approval.id,)
    later = await office.ask(attempt=3)
    assert await office.approvals.void("r1", "send", 2) == () and later.state == "open"


async def test_an_approval_is_found_by_an_unambiguous_beginning_of_its_id(office: Office) -> None:
    approval = await office.ask()
    assert office.approvals.find(approval.id[3:10]) is approval
    assert office.approvals.find(approval.id[:10]) is approval
    for name in ("", "ap_", approval.id[:4], "ap_ffffffffff"):
        with pytest.raises(NotFoundError):
            office.approvals.find(name)


async def test_a_beginning_that_several_ids_share_is_ambiguous(office: Office) -> None:
    approval = await office.ask()
    office.approvals._approvals[approval.id + "0"] = replace(approval, id=approval.id + "0")
    with pytest.raises(ApprovalError) as caught:
        office.approvals.find(approval.id[:-1])
    assert code(caught) == "approval.ambiguous"


def test_the_table_of_moves_leads_every_state_to_an_end_and_no_end_anywhere() -> None:
    states = {state for move in MOVES for state in move}
    assert set(STATE_OF.values()) <= states
    assert not [move for move in MOVES if move[0] in FINAL]
    reached = set(FINAL)
    while more := {a for a, b in MOVES if b in reached} - reached:
        reached |= more
    assert reached == states


# --- what widens: C8 --------------------------------------------------------------------------------


@pytest.mark.requirement("C8")
@pytest.mark.parametrize("op", WIDENING)
async def test_what_widens_takes_its_name_or_its_digest_whoever_brings_the_yes(
    office: Office, op: str
) -> None:
    action = {**ACTION, "name": "weather"}
    approval = await office.ask(op=op, action=action)
    other = await office.ask(op=op, action={**action, "name": "wether"}, key="another")
    digest = approval.action_digest
    for said in ("", "yes", "y", "Weather ", "wether", digest[:16], digest.upper(), other.action_digest):
        with pytest.raises(RefusedError) as caught:
            await office.decide(approval, confirm=said)
        assert (caught.value.named_code, approval.state) == ("approval.unconfirmed", "open"), said
    assert (await office.decide(approval, confirm="weather")).approved
    assert (await office.decide(other, confirm=other.action_digest)).approved


async def test_a_no_to_what_widens_and_a_yes_to_anything_else_take_no_word(office: Office) -> None:
    assert (await office.decide(await office.ask(op="agent.install"), "deny")).state == "denied"
    assert (await office.decide(await office.ask(key="another"))).approved


@pytest.mark.requirement("C8")
@pytest.mark.parametrize("name", ["yes", "Y", "OK", "view", "v", "", "approve"])
async def test_no_name_makes_a_plain_yes_the_word_that_widens(office: Office, name: str) -> None:
    approval = await office.ask(op="agent.install", action={**ACTION, "name": name})
    assert confirming_word(approval.to_json()) == approval.action_digest[:8]
    with pytest.raises(RefusedError):
        await office.decide(approval, confirm=name)
    assert (await office.decide(approval, confirm=approval.action_digest[:8])).approved
