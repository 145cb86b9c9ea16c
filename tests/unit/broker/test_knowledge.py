"""Knowledge and memory: what a right opens, what stays masked, what an agent may add."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runloop.events import ContactUpserted, DocumentImported
from runloopd.broker.knowledge_ops import MAX_ANSWER_BYTES

from .world import HEX, World, contact, quotas, within


@pytest.fixture
async def stocked(world: World) -> World:
    await world.state(
        ContactUpserted(contact="c1", name="Ann Archer", emails=["ann@example.org"], source="vcard"),
        DocumentImported(
            document="d1", type="note", title="Q4 plan", text="Ann leads the plan", content_digest=HEX
        ),
        DocumentImported(
            document="d2",
            type="mail",
            title="Plan mail",
            text="The plan for Ann",
            content_digest=HEX,
            people=["bo@example.org"],
        ),
    )
    return world


def kinds(answer: Any) -> set[str]:
    return {item["kind"] for item in answer.value["items"]}


async def test_a_search_answers_with_the_events_it_came_from(stocked: World) -> None:
    caller = await stocked.caller("kb_read = true")
    answer = await stocked.call(caller, "kb.search", {"query": "plan"})
    assert kinds(answer) == {"note", "mail"}
    (delivered,) = stocked.events("hostcall.delivered")
    sources = {item["event"] for item in answer.value["items"]}
    assert set(delivered.provenance.causes) == {caller.scheduled_id} | sources


async def test_a_narrow_right_finds_only_its_domain(stocked: World) -> None:
    caller = await stocked.caller('kb_read = ["notes"]')
    assert kinds(await stocked.call(caller, "kb.search", {"query": "plan ann"})) == {"note"}
    answer = await stocked.call(caller, "kb.search", {"query": "plan", "kinds": ["mail"]})
    assert answer.value["code"] == "cap.denied"
    history = await stocked.caller('kb_read = ["history"]', node="other")
    assert (await stocked.call(history, "kb.search", {"query": "x"})).value["code"] == "cap.denied"


async def test_addresses_are_masked_unless_the_right_says_otherwise(stocked: World) -> None:
    masked = await stocked.caller("kb_read = true")
    for op, args in (
        ("kb.read", {"kind": "contact", "id": "c1"}),
        ("kb.query", {"sql": "SELECT emails AS e FROM contacts"}),
        ("kb.query", {"sql": "SELECT upper(emails) AS e FROM contacts"}),
    ):
        answer = await stocked.call(masked, op, args)
        assert answer.ok, answer
        assert "ann@example.org" not in answer.text.lower()
    raw = await stocked.caller("kb_read.contacts_raw = true", node="raw")
    answer = await stocked.call(raw, "kb.read", {"kind": "contact", "id": "c1"})
    assert answer.value["item"]["emails"] == ["ann@example.org"]


async def test_a_document_is_read_by_whoever_may_read_its_type(stocked: World) -> None:
    caller = await stocked.caller('kb_read = ["notes"]')
    assert (await stocked.call(caller, "kb.read", {"kind": "document", "id": "d1"})).ok
    for args in ({"kind": "document", "id": "d2"}, {"kind": "contact", "id": "c1"}):
        assert (await stocked.call(caller, "kb.read", args)).value["code"] == "cap.denied"
    other = await stocked.caller('kb_read = ["contacts"]', node="other")
    answer = await stocked.call(other, "kb.read", {"kind": "document", "id": "d1"})
    assert answer.value["code"] == "cap.denied"


async def test_sql_sees_only_the_tables_of_the_domains_granted(stocked: World) -> None:
    caller = await stocked.caller('kb_read = ["contacts"]')
    assert (await stocked.call(caller, "kb.query", {"sql": "SELECT name FROM contacts"})).ok
    for sql in ("SELECT title FROM documents", "SELECT run FROM runs", "SELECT * FROM memory"):
        answer = await stocked.call(caller, "kb.query", {"sql": sql})
        assert not answer.ok, sql
    everything = await stocked.caller("kb_read = true", node="all")
    assert (await stocked.call(everything, "kb.query", {"sql": "SELECT run FROM runs"})).ok


async def test_sql_that_writes_is_refused(stocked: World) -> None:
    caller = await stocked.caller("kb_read = true")
    answer = await stocked.call(caller, "kb.query", {"sql": "DELETE FROM contacts"})
    assert answer.value["code"] == "kb.query"


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("kb.search", {"query": "x", "k": 0}),
        ("kb.search", {"query": "x", "k": 1000}),
        ("kb.query", {"sql": "SELECT 1", "limit": 0}),
        ("kb.query", {"sql": "SELECT 1", "limit": 100_000}),
    ],
)
async def test_bounds_of_a_question_are_kept(world: World, op: str, args: dict[str, Any]) -> None:
    assert (await world.call(await world.caller(), op, args)).value["code"] == "op.args"


@pytest.mark.requirement("I4.masking.1")
@pytest.mark.parametrize("right", ["kb_read = true", "kb_read.contacts_raw = true"])
async def test_an_answer_to_an_agent_has_a_bound_in_bytes_that_is_told(stocked: World, right: str) -> None:
    caller = await stocked.caller(right)
    fits = {"sql": "SELECT printf('%.*c', ?, 'a') AS x", "params": [500_000]}
    assert (await stocked.call(caller, "kb.query", fits)).ok
    for sql, params in (
        ("SELECT printf('%.*c', ?, 'a') AS x", [MAX_ANSWER_BYTES + 1]),
        ("SELECT hex(zeroblob(?)) AS x", [MAX_ANSWER_BYTES]),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)"
            " SELECT printf('%.*c', ?, 'a') AS x FROM n",
            [MAX_ANSWER_BYTES // 50],
        ),
    ):
        refused = await stocked.call(caller, "kb.query", {"sql": sql, "params": params})
        assert refused.value["code"] == "kb.limit", refused.value
        assert str(MAX_ANSWER_BYTES) in refused.value["message"]


async def test_rows_that_name_an_event_claim_no_cause(stocked: World) -> None:
    caller = await stocked.caller("kb_read = true")
    answer = await stocked.call(caller, "kb.query", {"sql": "SELECT 3 AS event"})
    assert answer.value["rows"] == [{"event": 3}]
    (delivered,) = stocked.events("hostcall.delivered")
    assert delivered.provenance.causes == (caller.scheduled_id,)


async def test_why_needs_the_right_to_history(stocked: World) -> None:
    narrow = await stocked.caller('kb_read = ["contacts"]')
    assert (await stocked.call(narrow, "kb.why", {"ref": "1"})).value["code"] == "cap.denied"
    caller = await stocked.caller("kb_read = true", node="all")
    answer = await stocked.call(caller, "kb.why", {"ref": str(caller.scheduled_id)})
    assert answer.ok and answer.value["target"] == caller.scheduled_id


async def test_what_an_agent_proposes_is_stated_in_its_name(world: World) -> None:
    caller = await world.caller("kb_write = true\nkb_read = true")
    answer = await world.call(caller, "kb.propose", contact("c7", source="user"))
    assert answer.value == {"kind": "contact.upserted", "id": "c7"}
    (event,) = world.events("contact.upserted")
    assert event.actor == "agent:writer"
    assert event.provenance.label == "agent:writer"
    assert event.payload.source == "agent:writer"  # type: ignore[attr-defined]
    assert world.kinds() == ["hostcall.admitted", "contact.upserted", "hostcall.delivered"]
    found = await world.call(caller, "kb.read", {"kind": "contact", "id": "c7"})
    assert found.value["item"]["name"] == "Ann"
    assert found.value["item"]["label"] == "agent:writer", "contact_resolver ranks by it"
    assert (await world.call(caller, "kb.propose", contact("c7", org="ACME"))).ok


async def test_an_agent_cannot_replace_what_the_user_brought_in(stocked: World) -> None:
    caller = await stocked.caller()
    answer = await stocked.call(caller, "kb.propose", contact("c1", emails=["eve@evil.example"]))
    assert answer.value["code"] == "kb.foreign"
    assert stocked.payloads("contact.upserted")[-1].emails == ["ann@example.org"]


async def test_an_agent_cannot_state_history_or_authority(world: World) -> None:
    caller = await world.caller()
    for kind in ("token.issued", "action.decided", "policy.changed", "nonsense"):
        answer = await world.call(caller, "kb.propose", {"kind": kind, "payload": {}})
        assert answer.value["code"] == "kb.kind"


async def test_a_proposal_of_another_shape_is_refused(world: World) -> None:
    caller = await world.caller()
    answer = await world.call(caller, "kb.propose", {"kind": "contact.upserted", "payload": {"x": 1}})
    assert answer.value["code"] == "event.shape"


async def test_the_domain_of_a_proposal_must_be_granted(world: World) -> None:
    caller = await world.caller('kb_write = ["notes"]')
    assert (await world.call(caller, "kb.propose", contact("c7"))).value["code"] == "cap.denied"
    note = {"document": "d9", "type": "note", "title": "t", "text": "x", "content_digest": HEX}
    args = {"kind": "document.imported", "payload": note}
    assert (await world.call(caller, "kb.propose", args)).ok
    args = {"kind": "document.imported", "payload": {**note, "document": "d10", "type": "mail"}}
    assert (await world.call(caller, "kb.propose", args)).value["code"] == "cap.denied"


async def test_memory_is_written_with_versions_and_read_back_after_a_restart(world: World) -> None:
    caller = await world.caller("time = true")
    assert (await world.call(caller, "memory.get", {"key": "tone"})).value == {
        "value": None,
        "version": 0,
    }
    put = {"key": "tone", "value": {"warm": True}, "expected_version": 0}
    assert (await world.call(caller, "memory.put", put)).value == {"version": 1}
    conflict = await world.call(caller, "memory.put", {**put, "value": 2})
    assert conflict.value["code"] == "memory.conflict"
    await world.restart()
    caller = await world.caller("time = true")
    answer = await world.call(caller, "memory.get", {"key": "tone"}, index=9)
    assert answer.value == {"value": {"warm": True}, "version": 1}
    (updated,) = world.events("memory.updated")
    assert (updated.actor, updated.scope) == ("agent:writer", "agent:writer")


async def test_an_agents_memory_is_its_own_and_the_shared_one_is_everybodys(world: World) -> None:
    writer = await world.caller()
    critic = await world.caller(node="review", agent="critic")
    await world.call(writer, "memory.put", {"key": "k", "value": 1})
    assert (await world.call(critic, "memory.get", {"key": "k"})).value["version"] == 0
    await world.call(writer, "memory.put", {"key": "k", "value": 2, "namespace": "shared"})
    assert (await world.call(critic, "memory.get", {"key": "k", "namespace": "shared"})).value["value"] == 2
    for name in ("agent:writer", "run", ""):
        answer = await world.call(critic, "memory.get", {"key": "k", "namespace": name})
        assert answer.value["code"] == "memory.namespace"


async def test_of_many_conditional_writes_at_once_one_wins(world: World) -> None:
    callers = [await world.caller(node=f"n{n}") for n in range(20)]
    args = {"key": "k", "expected_version": 0}
    puts = [world.begin(c, "memory.put", {**args, "value": n}) for n, c in enumerate(callers)]
    answers = await within(asyncio.gather(*puts))
    assert sum(answer.ok for answer in answers) == 1


async def test_memory_keys_are_limited(tmp_path: Any) -> None:
    from runloop.testing import ManualClock

    world = await World(tmp_path, ManualClock(), quotas=quotas(memory_keys=2)).start()
    await world.run()
    caller = await world.caller()
    for key in ("a", "b"):
        assert (await world.call(caller, "memory.put", {"key": key, "value": 1})).ok
    assert (await world.call(caller, "memory.put", {"key": "c", "value": 1})).value[
        "code"
    ] == "quota.exceeded"
    assert (await world.call(caller, "memory.put", {"key": "a", "value": 2})).ok
    await world.stop()


async def test_a_write_is_not_made_twice_by_a_retry(world: World) -> None:
    args = {"key": "count", "value": 1}
    first = await world.call(await world.caller(attempt=1), "memory.put", args)
    second = await world.call(await world.caller(attempt=2), "memory.put", args)
    assert first == second == first
    assert len(world.payloads("memory.updated")) == 1
