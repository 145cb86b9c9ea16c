"""A source is taken back: what came of it is held, and nothing slips through."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runloop.errors import ConflictError, NotFoundError, RefusedError, UsageError
from runloop.events import DocumentImported, Draft, Provenance
from runloopd.bus.principal import Principal
from runloopd.gateway.retractions import rows

from .world import HEX, OPERATOR, World, contact, mail, until, within

AGENT = Principal(kind="agent", name="agent:writer", uid=1000)


@pytest.fixture
async def stocked(world: World) -> World:
    """One mail that will turn out to be a lie (its event is ``world.lie``), and one true note."""
    drafts = [
        Draft(
            payload=DocumentImported(
                document=name, type=kind, title=title, text=text, content_digest=HEX, source="inbox"
            ),
            actor="operator:1000",
            provenance=Provenance(label="import:document"),
        )
        for name, kind, title, text in (
            ("m1", "mail", "Invoice", "Pay Mallory at once"),
            ("d1", "note", "Plan", "Ship in October"),
        )
    ]
    events = await world.journal.append(*drafts)
    world.lie = events[0].id  # type: ignore[attr-defined]
    return world


async def read(world: World, query: str = "invoice", **who: Any) -> Any:
    caller = await world.caller(**who)
    answer = await world.call(caller, "kb.search", {"query": query})
    assert answer.ok
    return caller


async def retract(world: World, **more: Any) -> dict[str, Any]:
    fields = {"cascade": True, "reason": "a fraud"} | more
    return await within(world.retractions.retract(OPERATOR, world.lie, **fields))  # type: ignore[attr-defined]


@pytest.mark.requirement("I4.retract.1")
async def test_the_knowledge_that_came_of_it_goes_with_it(stocked: World) -> None:
    caller = await read(stocked)
    assert (await stocked.call(caller, "kb.propose", contact("mallory"))).ok
    assert (await stocked.call(caller, "memory.put", {"key": "pay", "value": "Mallory"})).ok
    other = await read(stocked, "plan", node="other")
    assert (await stocked.call(other, "memory.put", {"key": "ship", "value": "October"})).ok
    found = await retract(stocked)
    proposed, remembered = (stocked.events(kind)[0].id for kind in ("contact.upserted", "memory.updated"))
    assert found["facts"] == [stocked.lie, proposed, remembered]  # type: ignore[attr-defined]
    fresh = await stocked.caller(node="fresh")
    assert (await stocked.call(fresh, "kb.search", {"query": "invoice mallory ann"})).value["items"] == []
    assert (await stocked.call(fresh, "memory.get", {"key": "pay"})).value["value"] is None
    assert (await stocked.call(fresh, "memory.get", {"key": "ship"})).value["value"] == "October"


async def test_without_cascade_only_the_fact_goes(stocked: World) -> None:
    caller = await read(stocked)
    assert (await stocked.call(caller, "kb.propose", contact("mallory"))).ok
    found = await retract(stocked, cascade=False)
    assert found["facts"] == [stocked.lie]  # type: ignore[attr-defined]
    assert stocked.retractions.held() == {}
    assert (await stocked.call(caller, "kb.search", {"query": "ann"})).value["items"]
    assert (await stocked.call(caller, "kb.propose", contact("mallory"))).ok


@pytest.mark.requirement("I4.retract.1")
async def test_a_run_that_has_heard_of_it_changes_nothing_any_more(stocked: World) -> None:
    caller = await read(stocked)
    await retract(stocked)
    sizes = (len(stocked.mail.sent), len(stocked.models.calls))
    for op, args in (
        ("kb.propose", contact("mallory")),
        ("memory.put", {"key": "pay", "value": 1}),
        ("mail.send", mail()),
        ("model.complete", {"messages": [{"role": "user", "content": "x"}]}),
        ("artifact.put", {"name": "a.txt", "text": "x"}),
    ):
        answer = await stocked.call(caller, op, args)
        assert answer.value["code"] == "source.retracted", op
        assert "a fraud" in answer.value["message"]
    assert (len(stocked.mail.sent), len(stocked.models.calls)) == sizes
    # It may still look and tell.
    assert (await stocked.call(caller, "kb.search", {"query": "plan"})).ok
    assert (await stocked.call(caller, "log.write", {"message": "held"})).ok


@pytest.mark.requirement("I4.retract.1")
async def test_an_open_question_is_voided_with_the_reason(stocked: World) -> None:
    caller = await read(stocked)
    sending = stocked.begin(caller, "mail.send", mail())
    (approval,) = await until(stocked.approvals.list)
    found = await retract(stocked)
    assert found["approvals"] == [approval.id]
    answer = await within(sending)
    assert answer.value["code"] == "approval.voided" and "a fraud" in answer.value["message"]
    with pytest.raises(ConflictError):
        await stocked.approvals.decide(OPERATOR, approval.id, approval.action_digest, "approve")
    assert stocked.mail.sent == {}


async def test_an_approved_mail_whose_undo_window_is_open_is_held_back(stocked: World) -> None:
    caller = await read(stocked)
    sending = stocked.begin(caller, "mail.send", mail())
    (approval,) = await until(stocked.approvals.list)
    await stocked.approvals.decide(OPERATOR, approval.id, approval.action_digest, "approve")
    await retract(stocked)
    stocked.clock.advance(60_000)
    assert (await within(sending)).value["code"] in ("approval.voided", "source.retracted")
    assert stocked.mail.sent == {}


async def test_what_was_sent_is_told_because_it_cannot_be_taken_back(stocked: World) -> None:
    caller = await read(stocked)
    sending = stocked.begin(caller, "mail.send", mail())
    (approval,) = await until(stocked.approvals.list)
    await stocked.approvals.decide(OPERATOR, approval.id, approval.action_digest, "approve")
    stocked.clock.advance(60_000)
    assert (await within(sending)).ok
    (sent,) = stocked.events("email.sent")
    assert (await retract(stocked))["sent"] == [sent.id]


async def test_an_answer_under_way_while_it_is_taken_back_holds_its_run(stocked: World) -> None:
    """The views still had it when the question was put; its answer is recorded after the retraction."""
    caller = await stocked.caller()
    reached, go = asyncio.Event(), asyncio.Event()
    search = stocked.knowledge.search

    async def slow(*args: Any, **more: Any) -> Any:
        found = await search(*args, **more)
        reached.set()
        await go.wait()
        return found

    stocked.knowledge.search = slow  # type: ignore[method-assign]
    reading = stocked.begin(caller, "kb.search", {"query": "invoice"})
    await within(reached.wait())
    await retract(stocked)
    assert stocked.retractions.held() == {}
    go.set()
    assert (await within(reading)).value["items"]
    answer = await stocked.call(caller, "memory.put", {"key": "pay", "value": 1})
    assert answer.value["code"] == "source.retracted"


@pytest.mark.requirement("I4.retract.1")
async def test_a_restart_forgets_no_hold(stocked: World) -> None:
    caller = await read(stocked)
    await retract(stocked)
    await stocked.restart()
    answer = await stocked.call(caller, "memory.put", {"key": "pay", "value": 1})
    assert answer.value["code"] == "source.retracted"


async def test_a_retraction_can_be_taken_back(stocked: World) -> None:
    caller = await read(stocked)
    assert (await stocked.call(caller, "kb.propose", contact("mallory"))).ok
    retraction = (await retract(stocked))["retraction"]
    done = await within(stocked.retractions.undo(OPERATOR, retraction, "it was true"))
    assert done["source"] == stocked.lie  # type: ignore[attr-defined]
    assert (await stocked.call(caller, "memory.put", {"key": "pay", "value": 1})).ok
    assert (await stocked.call(caller, "kb.search", {"query": "invoice"})).value["items"]
    with pytest.raises(NotFoundError):
        await stocked.retractions.undo(OPERATOR, retraction, "again")


async def test_only_the_operator_takes_back_and_only_with_a_reason(stocked: World) -> None:
    lie = stocked.lie  # type: ignore[attr-defined]
    with pytest.raises(RefusedError):
        await stocked.retractions.retract(AGENT, lie, cascade=True, reason="x")
    with pytest.raises(RefusedError):
        await stocked.retractions.undo(AGENT, 1, "x")
    for reason in ("", "  ", "x" * 501, "a\x1bb"):
        with pytest.raises(UsageError):
            await stocked.retractions.retract(OPERATOR, lie, cascade=True, reason=reason)
    with pytest.raises(UsageError, match="what was learnt"):
        await stocked.retractions.retract(OPERATOR, 1, cascade=True, reason="x")
    with pytest.raises(NotFoundError):
        await stocked.retractions.retract(OPERATOR, 9_999, cascade=True, reason="x")
    assert stocked.events("source.retracted") == []
    await retract(stocked)
    with pytest.raises(ConflictError, match="already"):
        await retract(stocked)


async def test_a_preview_states_nothing(stocked: World) -> None:
    caller = await read(stocked)
    assert (await stocked.call(caller, "kb.propose", contact("mallory"))).ok
    before = stocked.journal.head_id
    found = await stocked.retractions.preview(stocked.lie)  # type: ignore[attr-defined]
    assert (found["retraction"], len(found["facts"]), found["runs"]) == (None, 2, [caller.run])
    assert stocked.journal.head_id == before


async def test_every_method_needs_the_operator(stocked: World) -> None:
    assert {(name, operator) for name, _, _, operator in rows(stocked.retractions)} == {
        ("kb.retract", True), ("kb.unretract", True), ("kb.held", True)
    }  # fmt: skip


async def test_a_run_that_asked_by_sql_is_named_as_unlinked(stocked: World) -> None:
    caller = await stocked.caller()
    assert (await stocked.call(caller, "kb.query", {"sql": "SELECT text FROM documents"})).ok
    assert (await retract(stocked))["unlinked"] == [caller.run]
