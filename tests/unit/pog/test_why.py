"""Explanations: from any fact to the root, over recorded edges only."""

from __future__ import annotations

import pytest

from pog.why import impact, why
from runloop.digest import blob_digest, canonical
from runloop.errors import ConflictError, NotFoundError, UsageError
from runloop.events import KINDS, ActionClaimed, DaemonStarted, MessageSent

from . import facts
from .conftest import Store

ANSWER = b"Dear John"
SENT = MessageSent(
    sender="daemon", receiver="agent:writer", topic="agent/writer", type="intent.executor.agent.request.v1",
    schema_id=4000, msg_id=990077, size=300, body_digest="e" * 64,
)  # fmt: skip


@pytest.fixture
def told(store: Store) -> Store:
    """A mail, and everything that led to it: ids are the places in this list."""
    run = facts.RUN
    return store.holding(
        facts.draft(facts.contact(source="contacts.vcf")),  # 1
        facts.draft(facts.note()),  # 2: nobody asked
        facts.draft(facts.run_started(), run=run),  # 3
        facts.draft(facts.token("t-run", None), 3, run=run),  # 4
        facts.draft(facts.token("t-node", "t-run"), 4, run=run),  # 5
        facts.draft(facts.scheduled(), 3, run=run),  # 6
        facts.draft(SENT, 6, run=run),  # 7
        facts.draft(
            facts.delivered(result=b"found"), 6, 1, run=run, node="draft", attempt=1, token="t-node"
        ),  # 8
        facts.draft(
            facts.model_called(ANSWER), 8, run=run, node="draft", token="t-node", bundle="b" * 64
        ),  # 9
        facts.draft(facts.finished(output={"artifacts": [blob_digest(b"report")]}), 9, run=run),  # 10
        facts.draft(facts.scheduled("send"), 10, run=run),  # 11
        facts.draft(facts.action_requested(), 11, run=run),  # 12
        facts.draft(facts.action_decided(), 12, run=run, actor="operator:1000"),  # 13
        facts.draft(ActionClaimed(approval="ap-1", action_digest="a" * 64), 13, run=run),  # 14
        facts.draft(facts.email_sent(), 11, 13, run=run),  # 15
        facts.draft(facts.artifact(), 9, run=run),  # 16
        facts.draft(facts.run_finished(), 15, run=run),  # 17
        blobs=[b"{}", b"found", facts.MAIL, b"report"],
    )


@pytest.mark.requirement("I2.ledger.6")
def test_a_mail_is_explained_back_to_prompt_contact_answer_and_decision(told: Store) -> None:
    found = why(told.reader(), "john.doe@example.com")
    assert found.target == 15
    assert [hop.event for hop in found.hops] == [15, 13, 12, 11, 10, 9, 8, 6, 3, 1]
    assert found.complete
    by_event = {hop.event: hop for hop in found.hops}
    assert "mail john" in by_event[3].summary
    assert "contacts.vcf" in by_event[1].summary
    assert by_event[13].summary == "operator:1000 approved it"
    assert by_event[12].digests["content_blob"] == blob_digest(facts.MAIL)
    assert by_event[9].digests["answer_digest"] == blob_digest(ANSWER)
    assert by_event[9].digests["bundle"] == "b" * 64
    assert "no language model" in by_event[9].summary
    assert [(grant.token, grant.parent, grant.event) for grant in found.grants] == [
        ("t-node", "t-run", 5),
        ("t-run", None, 4),
    ]
    canonical(found.to_json())


def test_what_did_not_lead_to_it_is_not_in_it(told: Store) -> None:
    events = {hop.event for hop in why(told.reader(), 15).hops}
    assert not events & {2, 7, 14, 16, 17}


@pytest.mark.parametrize(
    ("ref", "target"),
    [
        ("15", 15),
        (15, 15),
        ("event:15", 15),
        ("#9", 9),
        (facts.RUN, 17),
        (facts.RUN[:8], 17),
        ("ap-1", 14),
        ("ap-", 14),
        ("<k@runloop>", 15),
        ("JOHN.DOE@example.com", 15),
        ("990077", 7),
        ("msg:990077", 7),
        (blob_digest(b"report"), 16),
        (blob_digest(b"report")[:8], 16),
        (blob_digest(ANSWER), 9),
        (blob_digest(b"found"), 8),
        (blob_digest(facts.MAIL), 15),
        ("b" * 64, 3),
    ],
)
def test_many_things_can_be_asked_about(told: Store, ref: str | int, target: int) -> None:
    assert why(told.reader(), ref).target == target


def test_an_events_own_hash_names_it(told: Store) -> None:
    reader = told.reader()
    assert why(reader, reader.event(6).hash.hex()[:12]).target == 6


def test_what_cannot_be_found_is_said(told: Store) -> None:
    for absent in (
        "nobody@example.com",
        "feedfeed",
        "99999999999999999999",
        "ap-2",
        "no such thing",
        "<x@y>",
        "0",
    ):
        with pytest.raises(NotFoundError) as refused:
            why(told.reader(), absent)
        assert refused.value.hint
    with pytest.raises(UsageError):
        why(told.reader(), "  ")


def test_a_prefix_of_several_digests_is_not_guessed_at(store: Store) -> None:
    first, second = (facts.artifact(name=name) for name in ("one", "two"))
    store.holding(
        facts.draft(type(first)(**{**_fields(first), "blob": "abcdef" + "0" * 58})),
        facts.draft(type(second)(**{**_fields(second), "blob": "abcdef" + "1" * 58})),
    )
    with pytest.raises(ConflictError) as several:
        why(store.reader(), "abcdef")
    assert len(several.value.data["digests"]) == 2


def _fields(payload: object) -> dict[str, object]:
    return {name: getattr(payload, name) for name in payload.__struct_fields__}  # type: ignore[attr-defined]


def test_approvals_with_a_common_beginning_are_not_guessed_at(store: Store) -> None:
    store.holding(facts.draft(facts.action_requested("ap-1")), facts.draft(facts.action_requested("ap-11")))
    assert why(store.reader(), "ap-1").target == 1
    with pytest.raises(ConflictError):
        why(store.reader(), "ap-")


def test_severed_edges_are_reported_and_never_guessed(store: Store) -> None:
    run = facts.RUN
    store.holding(
        facts.draft(facts.run_started(), run=run),
        facts.draft(facts.scheduled(), run=run),  # 2 names no cause
        facts.draft(facts.model_called(), 1, 2, 99, 3, 5, run=run, token="t-lost"),
        facts.draft(facts.token("t-child", "t-nowhere"), run=run),
        facts.draft(facts.artifact(), 3, run=run, token="t-child"),
    )
    found = why(store.reader(), 5)
    assert not found.complete
    cut = {(edge.event, edge.missing) for edge in found.severed}
    assert cut == {
        (2, "cause"),
        (3, "event 99"),
        (3, "event 3"),
        (3, "event 5"),
        (3, "token t-lost"),
        (4, "token t-nowhere"),
    }
    assert found.to_json()["complete"] is False


def test_the_same_run_without_recorded_edges_explains_nothing(store: Store) -> None:
    store.holding(
        facts.draft(facts.run_started(), run=facts.RUN), facts.draft(facts.email_sent(), run=facts.RUN)
    )
    found = why(store.reader(), 2)
    assert [hop.event for hop in found.hops] == [2]
    assert found.severed[0].missing == "cause"


def test_impact_walks_forward(told: Store) -> None:
    found = impact(told.reader(), 1)
    assert [hop.event for hop in found.hops] == [1, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]
    assert found.direction == "forward"
    assert [hop.event for hop in impact(told.reader(), 2).hops] == [2]


def test_every_kind_is_told_in_words(store: Store) -> None:
    from pog.words import WORDS

    assert set(WORDS) == set(KINDS)
    store.holding(facts.draft(DaemonStarted(build="1", pid=2)))
    assert why(store.reader(), 1).hops[0].summary == "daemon 1 started"


def test_every_summary_of_a_whole_history_reads(store: Store) -> None:
    from .test_materializer import whole_history

    store.holding(*whole_history())
    for event in store.reader().events():
        summary = why(store.reader(), event.id).hops[0].summary
        assert summary != event.kind
        assert "{" not in summary
