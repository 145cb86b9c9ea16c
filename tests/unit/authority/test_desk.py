"""Questions outside of any run: asked once, answered once, carried out by whoever they belong to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runloop.errors import ConflictError, NotFoundError, RunloopError
from runloop.events import AgentIndexSeen, Draft
from runloop.testing import ManualClock
from runloopd.authority.approval import Approval, Decided
from runloopd.authority.approvals import Approvals
from runloopd.authority.desk import Desk, Outcome
from runloopd.bus.principal import Principal

from .journal import MemoryJournal

OPERATOR = Principal(kind="operator", name="operator:1000#s1", uid=1000)
FACT = AgentIndexSeen(publisher="acme", serial=1, expires="", index_digest="0" * 64)


class Clerk:
    """A handler that claims what it is granted."""

    def __init__(self, approvals: Approvals) -> None:
        self.approvals = approvals
        self.error: Exception | None = None
        self.done: list[str] = []
        self.cleaned: list[str] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def granted(self, approval: Approval, decided: Decided) -> dict[str, Any]:
        await self.hold.wait()
        if self.error is not None:
            raise self.error
        await self.approvals.claim(
            approval.id, approval.action, b"words", Draft(payload=FACT, actor=decided.principal)
        )
        self.approvals.consumed(approval.id)
        self.done.append(approval.id)
        return {"did": approval.action["what"]}

    async def refused(self, approval: Approval) -> None:
        self.cleaned.append(approval.id)


class Office:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.journal = MemoryJournal(self.clock)
        self.open()

    def open(self) -> None:
        self.approvals = Approvals(self.journal, self.clock, expiry_ms=60_000, undo_window_ms=5_000)
        self.approvals.restore(self.journal.events)
        self.desk = Desk(self.approvals)
        self.clerk = Clerk(self.approvals)
        self.desk.serve("test.op", self.clerk)

    async def ask(self, what: str = "this", subject: str = "one") -> Approval:
        return await self.desk.ask("test.op", subject, {"what": what}, "words")

    async def decide(self, approval: Approval, decision: str = "approve") -> Outcome:
        await self.approvals.decide(OPERATOR, approval.id, approval.action_digest, decision)
        outcome = await self.desk.outcome(approval.id, 10.0)
        assert outcome is not None
        return outcome


@pytest.fixture
async def office() -> Office:
    return Office()


async def test_a_yes_is_carried_out_at_once_without_an_undo_window(office: Office) -> None:
    approval = await office.ask()
    outcome = await office.decide(approval)
    assert (outcome.state, outcome.result) == ("done", {"did": "this"})
    assert approval.state == "consumed"
    assert office.clerk.cleaned == []


async def test_what_is_carried_out_is_no_question_any_more(office: Office) -> None:
    approval = await office.ask()
    await office.decide(approval)
    assert office.desk.open() == []
    with pytest.raises(NotFoundError):
        office.approvals.find(approval.id)
    assert (await office.desk.outcome(approval.id, 0.0)).state == "done"  # type: ignore[union-attr]


@pytest.mark.parametrize("decision", ["deny"])
async def test_a_no_is_cleaned_up_after(office: Office, decision: str) -> None:
    approval = await office.ask()
    outcome = await office.decide(approval, decision)
    assert outcome.state == "denied"
    assert outcome.error is not None
    assert office.clerk.cleaned == [approval.id]
    assert office.clerk.done == []


async def test_the_same_question_is_put_once_while_it_is_open(office: Office) -> None:
    first, second = await asyncio.gather(office.ask(), office.ask())
    assert first.id == second.id


async def test_a_question_that_was_answered_may_be_put_again(office: Office) -> None:
    first = await office.ask()
    await office.decide(first, "deny")
    second = await office.ask()
    assert first.id != second.id
    assert (await office.decide(second)).state == "done"


async def test_another_question_of_the_subject_voids_the_older_one(office: Office) -> None:
    old, new = await office.ask("this"), await office.ask("that")
    outcome = await office.desk.outcome(old.id, 10.0)
    assert outcome is not None
    assert outcome.state == "voided"
    assert office.desk.open("test.op", "one") == [new]


async def test_questions_of_different_subjects_stand_beside_each_other(office: Office) -> None:
    await office.ask("this", "one")
    await office.ask("that", "two")
    assert len(office.desk.open()) == 2


async def test_what_cannot_be_carried_out_is_void_and_says_why(office: Office) -> None:
    office.clerk.error = ConflictError("it changed", hint="look again")
    approval = await office.ask()
    outcome = await office.decide(approval)
    assert outcome.state == "failed"
    assert outcome.error is office.clerk.error
    assert outcome.to_json()["error"]["message"] == "it changed"
    assert [one.decision for one in office.journal.payloads("action.decided")] == ["approved", "voided"]
    assert office.clerk.cleaned == [approval.id]


async def test_a_mistake_of_our_own_is_told_in_one_sentence(office: Office) -> None:
    office.clerk.error = ZeroDivisionError("secret detail")
    outcome = await office.decide(await office.ask())
    assert isinstance(outcome.error, RunloopError)
    assert "secret detail" not in outcome.error.message


async def test_an_open_question_is_taken_up_after_a_restart(office: Office) -> None:
    approval = await office.ask()
    await office.desk.close()
    office.open()
    assert office.desk.resume() == 1
    assert (await office.decide(office.approvals.find(approval.id))).state == "done"


async def test_a_yes_that_was_not_carried_out_is_carried_out_after_a_restart(office: Office) -> None:
    office.clerk.hold.clear()
    approval = await office.ask()
    await office.approvals.decide(OPERATOR, approval.id, approval.action_digest, "approve")
    await office.desk.close()
    office.open()
    office.desk.resume()
    outcome = await office.desk.outcome(approval.id, 10.0)
    assert outcome is not None
    assert outcome.state == "done"


async def test_what_is_settled_is_not_taken_up_again(office: Office) -> None:
    await office.decide(await office.ask(), "deny")
    await office.desk.close()
    office.open()
    assert office.desk.resume() == 0
    assert office.approvals.list(all=True) == []


async def test_a_question_without_an_answer_has_no_outcome_yet(office: Office) -> None:
    approval = await office.ask()
    assert await office.desk.outcome(approval.id, 0.0) is None
    with pytest.raises(NotFoundError):
        await office.desk.outcome("ap_0000000000000000", 0.0)


async def test_only_the_operator_answers(office: Office) -> None:
    approval = await office.ask()
    agent = Principal(kind="agent", name="agent:writer#1")
    with pytest.raises(RunloopError) as caught:
        await office.approvals.decide(agent, approval.id, approval.action_digest, "approve")
    assert caught.value.named_code == "approval.principal"
    assert office.desk.open() == [approval]
