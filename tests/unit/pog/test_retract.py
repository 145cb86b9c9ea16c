"""Taking facts back: the views as if they had never been there, and what came of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pog.folds import TABLES, Folds
from pog.maintain import verify
from pog.retract import dependants, retracted
from pog.trace import Trace
from pog.why import impact, why
from runloop.errors import UsageError
from runloop.events import (
    Draft,
    MemoryForgotten,
    MemoryUpdated,
    SourceRestored,
    SourceRetracted,
)

from . import facts
from .conftest import Store

LEARNT = ("contacts", "contact_emails", "documents", "calendar", "imports", "searchables", "memory")


def gone(source: int, *more: int, cascade: bool = True, **fields: Any) -> Draft:
    payload = SourceRetracted(
        source=source,
        facts=[source, *more],
        cascade=cascade,
        runs=fields.get("runs", []),
        approvals=fields.get("approvals", []),
        reason="it was wrong",
        principal="operator:1000",
    )
    return facts.draft(payload, source, actor="operator:1000")


def back(retraction: int) -> Draft:
    payload = SourceRestored(retraction=retraction, reason="it was right", principal="operator:1000")
    return facts.draft(payload, retraction, actor="operator:1000")


def memory(key: str, value: Any, version: int, *causes: int) -> Draft:
    payload = MemoryUpdated(namespace="agent:writer", key=key, value=value, entry_version=version)
    return facts.draft(payload, *causes, label="agent:writer")


def tables(store: Store) -> dict[str, list[Any]]:
    with sqlite3.connect(store.views_db) as views:
        return {
            table: views.execute(f"SELECT * FROM {table} ORDER BY {TABLES[table]}").fetchall()
            for table in LEARNT
        }


def words(store: Store) -> list[Any]:
    with sqlite3.connect(store.views_db) as views:
        views.execute("CREATE VIRTUAL TABLE temp.words USING fts5vocab('main', 'search', 'row')")
        return views.execute("SELECT * FROM temp.words ORDER BY term").fetchall()


def is_the_fold(store: Store) -> None:
    report = verify(store.events_db, views_path=store.views_db)
    assert report.views_checked and not [found for found in report.findings if found.where == "views"]
    kept = tables(store)
    with store.materializer() as materializer:
        materializer.rebuild()
    assert tables(store) == kept


@pytest.mark.requirement("I4.retract.1")
def test_a_retracted_source_leaves_the_views_as_if_it_had_never_been_learnt(
    stores: Callable[[str], Store],
) -> None:
    kept = [
        facts.draft(facts.contact("c1", "John Doe"), label="import:contact"),
        facts.draft(facts.note("d1", "Plan", "October.")),
    ]
    told = stores("told").holding(
        *kept,
        facts.draft(facts.contact("c1", "John Fraud", "evil@bad.example")),
        facts.draft(facts.contact("c2", "Mallory", "m@bad.example")),
        facts.draft(facts.note("d9", "Lie", "Never true.", type="mail")),
        gone(3, 4, 5),
    )
    never = stores("never").holding(*kept)
    assert tables(told) == tables(never)
    assert words(told) == words(never)
    assert told.knowledge().search("fraud mallory lie") == []
    is_the_fold(told)
    # The ledger still tells all of it.
    assert [event.kind for event in told.reader().events()].count("contact.upserted") == 3


def test_an_older_fact_counts_again_and_a_restored_one_too(store: Store) -> None:
    store.holding(
        facts.draft(facts.contact("c1", "John One")), facts.draft(facts.contact("c1", "John Two")), gone(2)
    )
    knowledge = store.knowledge()
    assert knowledge.read("contact", "c1")["name"] == "John One"
    is_the_fold(store)
    store.holding(back(3))
    assert knowledge.read("contact", "c1")["name"] == "John Two"
    is_the_fold(store)


def test_a_fact_retracted_twice_counts_when_both_are_taken_back(store: Store) -> None:
    store.holding(facts.draft(facts.note("d1")), gone(1), gone(1), back(2))
    assert store.knowledge().search("plan") == []
    assert set(retracted(store.reader())) == {1}
    store.holding(back(3))
    assert store.knowledge().search("plan")
    assert retracted(store.reader()) == {}
    is_the_fold(store)


def test_a_later_import_is_learnt_all_the_same(store: Store) -> None:
    store.holding(
        facts.draft(facts.note("d1", "Plan", "old")), gone(1), facts.draft(facts.note("d1", "Plan", "new"))
    )
    assert store.knowledge().read("document", "d1")["text"] == "new"
    is_the_fold(store)


def test_memory_goes_back_and_its_versions_go_on(store: Store) -> None:
    store.holding(memory("tone", "warm", 1), memory("tone", "poisoned", 2), memory("other", 1, 1))
    read = "SELECT key, value, entry_version FROM memory ORDER BY key"
    store.holding(gone(2))
    rows = store.knowledge().query(read, raw=True).rows
    # Whoever holds version 2 must not be able to write over what is there now.
    assert rows == [
        {"key": "other", "value": "1", "entry_version": 1},
        {"key": "tone", "value": '"warm"', "entry_version": 3},
    ]
    store.holding(gone(1))
    assert store.knowledge().query(read, raw=True).rows[1] == {
        "key": "tone", "value": None, "entry_version": 4
    }  # fmt: skip
    spaces = store.knowledge().query("SELECT keys, bytes FROM memory_spaces", raw=True).rows
    assert spaces == [{"keys": 1, "bytes": len("other") + 1}]
    is_the_fold(store)


def test_a_retraction_cannot_be_folded_without_the_ledger(store: Store) -> None:
    from pog.folds import create_tables

    with store.ledger() as ledger:
        ledger.append([facts.draft(facts.note()), gone(1)])
    connection = sqlite3.connect(":memory:", isolation_level=None)
    create_tables(connection)
    with pytest.raises(LookupError):
        for event in store.reader().events():
            Folds().apply(connection, event)


FACTS = st.one_of(
    st.tuples(st.just("contact"), st.sampled_from(["c1", "c2"]), st.text("abc ", min_size=1, max_size=8)),
    st.tuples(st.just("note"), st.sampled_from(["d1", "d2"]), st.text("abc ", min_size=1, max_size=8)),
    st.tuples(st.just("memory"), st.sampled_from(["k1", "k2"]), st.integers(0, 9)),
    st.tuples(st.just("forget"), st.sampled_from(["k1", "k2"]), st.none()),
    st.tuples(st.just("gone"), st.lists(st.integers(0, 30), min_size=1, max_size=4), st.none()),
    st.tuples(st.just("back"), st.integers(0, 30), st.none()),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FACTS, min_size=1, max_size=24), st.integers(1, 8))
def test_whatever_was_learnt_and_taken_back_the_views_are_the_fold(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any], batch: int
) -> None:
    """Folded in pieces, folded at once, and folded without the facts that do not count: one and the same."""
    store = Store(tmp_path_factory.mktemp("any"))
    drafts: list[Draft] = []
    learnt: list[int] = []
    retractions: list[int] = []
    versions: dict[str, int] = {}
    for what, one, two in steps:
        number = len(drafts) + 1
        if what == "contact":
            drafts.append(facts.draft(facts.contact(one, two)))
        elif what == "note":
            drafts.append(facts.draft(facts.note(one, two, two)))
        elif what in ("memory", "forget"):
            versions[one] = versions.get(one, 0) + 1
            fields = {"namespace": "agent:writer", "key": one, "entry_version": versions[one]}
            made = MemoryUpdated(value=two, **fields) if what == "memory" else MemoryForgotten(**fields)
            drafts.append(facts.draft(made))
        elif what == "gone" and learnt:
            chosen = sorted({learnt[place % len(learnt)] for place in one})
            drafts.append(gone(chosen[0], *chosen[1:]))
            retractions.append(number)
            continue
        elif what == "back" and retractions:
            drafts.append(back(retractions[one % len(retractions)]))
            continue
        else:
            continue
        learnt.append(number)
    for start in range(0, len(drafts), batch):
        store.holding(*drafts[start : start + batch])
    if drafts:
        is_the_fold(store)
        void = set(retracted(store.reader()))
        never = Store(tmp_path_factory.mktemp("never"))
        # The same places in the ledger, told by facts that change no view.
        kept = [
            draft if number not in void and draft.payload.kind not in ("source.retracted", "source.restored")
            else facts.draft(facts.daemon_started())
            for number, draft in enumerate(drafts, 1)
        ]  # fmt: skip
        never.holding(*kept)
        told, expected = tables(store), tables(never)
        for table in LEARNT[:-1]:
            assert told[table] == expected[table], table
        values = {(row[0], row[1]): row[2] for row in expected["memory"] if row[2] is not None}
        assert {(row[0], row[1]): row[2] for row in told["memory"] if row[2] is not None} == values
        never.close()
    store.close()


# --- what came of it ------------------------------------------------------------------------------


@pytest.fixture
def laundered(store: Store) -> Store:
    """A mail is read, remembered, noted down, and asked about."""
    run, other = facts.RUN, facts.OTHER
    return store.holding(
        facts.draft(facts.note("m1", "Offer", "Pay at once.", type="mail"), label="import:document"),  # 1
        facts.draft(facts.note("d2", "Plan", "Nothing to do with it.")),  # 2
        facts.draft(facts.run_started(), run=run),  # 3
        facts.draft(facts.scheduled(), 3, run=run),  # 4
        facts.draft(facts.delivered(result=b"found"), 4, 1, run=run),  # 5
        memory("offer", "pay", 1, 4, 5),  # 6
        facts.draft(facts.note("a1", "Summary", "Pay."), 4, 5, run=run, actor="agent:writer"),  # 7
        facts.draft(facts.action_requested(), 4, 5, run=run),  # 8
        facts.draft(facts.run_started(), run=other),  # 9
        facts.draft(facts.scheduled(), 9, run=other),  # 10
        facts.draft(facts.delivered(result=b"remembered"), 10, 6, run=other),  # 11
        facts.draft(facts.note("a2", "Copy", "Pay!"), 10, 11, run=other, actor="agent:writer"),  # 12
        facts.draft(facts.email_sent(), 8, run=run),  # 13
        blobs=[b"{}", b"found", b"remembered", facts.MAIL],
    )


@pytest.fixture
def trace(laundered: Store) -> Trace:
    return laundered._kept(Trace.open(laundered.folder / "trace.db", laundered.reader()))


@pytest.mark.requirement("I4.retract.1")
def test_everything_that_names_the_source_as_a_cause_is_found_and_nothing_else(
    laundered: Store, trace: Trace
) -> None:
    found = dependants(laundered.reader(), trace, 1)
    assert found.facts == (1, 6, 7, 12)
    assert found.effects == (5, 6, 7, 8, 11, 12, 13)
    assert found.runs == (facts.RUN, facts.OTHER)
    assert (found.approvals, found.sent) == (("ap-1",), (13,))
    assert dependants(laundered.reader(), trace, 2).effects == ()


def test_only_what_was_learnt_can_be_taken_back(laundered: Store, trace: Trace) -> None:
    for event in (3, 5, 8, 13):
        with pytest.raises(UsageError, match="what was learnt"):
            dependants(laundered.reader(), trace, event)


def test_a_run_that_asked_by_sql_is_told_of_because_nobody_can_say(laundered: Store, trace: Trace) -> None:
    import msgspec

    asked = facts.delivered(result=b"rows")
    laundered.holding(facts.draft(msgspec.structs.replace(asked, op="kb.query"), 10, run=facts.OTHER))
    assert dependants(laundered.reader(), trace, 2).unlinked == (facts.OTHER,)


@pytest.mark.requirement("I4.why.1")
def test_an_explanation_tells_of_the_retraction(laundered: Store, trace: Trace) -> None:
    laundered.holding(gone(1, 6, 7, 12))
    reader = laundered.reader()
    back_to = why(reader, 12, trace)
    assert [(one.event, one.retraction) for one in back_to.retracted] == [(1, 14), (6, 14), (12, 14)]
    assert back_to.retracted[0].reason == "it was wrong"
    assert [one.event for one in impact(reader, 1, trace).retracted] == [1, 6, 7, 12]
    assert [hop.event for hop in why(reader, 14, trace).hops] == [14, 1]
    laundered.holding(back(14))
    assert why(reader, 12, trace).retracted == ()


@pytest.mark.requirement("I4.why.1")
def test_an_explanation_tells_who_asked_and_what_a_person_was_shown(laundered: Store, trace: Trace) -> None:
    laundered.holding(facts.draft(facts.action_decided(), 8, run=facts.RUN, actor="operator:1000"))
    found = why(laundered.reader(), 14, trace)
    assert [(asked.event, asked.prompt) for asked in found.asked] == [(3, "mail john")]
    (shown,) = found.decisions
    assert (shown.approval, shown.decision, shown.decided_event) == ("ap-1", "approved", 14)
    assert shown.content_blob == facts.action_requested().content_blob


# --- the index of causes --------------------------------------------------------------------------


@pytest.mark.requirement("I4.why.1")
def test_the_index_holds_the_recorded_edges_and_no_other(laundered: Store, trace: Trace) -> None:
    assert trace.catch_up()
    reader = laundered.reader()
    recorded = {(cause, event.id) for event in reader.events() for cause in event.provenance.causes}
    indexed = {
        (cause, effect)
        for event in reader.events()
        for effect, causes in trace.effects([event.id]).items()
        for cause in causes
    }
    assert indexed == recorded


def test_the_index_follows_and_is_made_anew_for_another_ledger(
    laundered: Store, trace: Trace, stores: Callable[[str], Store]
) -> None:
    assert not trace.catch_up(limit=0) and trace.cursor == 0
    assert trace.catch_up() and trace.cursor == 13
    laundered.holding(gone(1))
    assert trace.catch_up() and trace.effects([1]) == {5: [1], 14: [1]}
    trace.close()
    other = stores("other").holding(facts.draft(facts.note("z")))
    (other.folder / "trace.db").write_bytes((laundered.folder / "trace.db").read_bytes())
    moved = other._kept(Trace.open(other.folder / "trace.db", other.reader()))
    assert moved.catch_up() and moved.cursor == 1 and moved.effects([1]) == {}


@pytest.mark.parametrize("content", [b"", b"no database" * 100])
def test_a_damaged_index_is_made_anew(laundered: Store, content: bytes) -> None:
    (laundered.folder / "trace.db").write_bytes(content)
    made = laundered._kept(Trace.open(laundered.folder / "trace.db", laundered.reader()))
    assert made.catch_up() and made.effects([4])


def test_an_explanation_reads_no_more_events_of_a_longer_ledger(laundered: Store, trace: Trace) -> None:
    reader, read = laundered.reader(), []
    original = reader.event
    reader.event = lambda number: read.append(number) or original(number)  # type: ignore[method-assign]
    why(reader, "ap-1", trace)
    impact(reader, 1, trace)
    short = len(read)
    laundered.holding(*(facts.draft(facts.note(f"n{number}")) for number in range(3_000)))
    assert trace.catch_up()
    read.clear()
    why(reader, "ap-1", trace)
    impact(reader, 1, trace)
    assert len(read) == short
