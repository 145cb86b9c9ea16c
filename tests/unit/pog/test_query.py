"""Asking the views: read-only, bounded, masked."""

from __future__ import annotations

from itertools import count

import pytest

from pog.errors import QueryLimitError, QueryRefusedError
from pog.folds import TABLES
from pog.query import Knowledge
from runloop.digest import canonical
from runloop.errors import NotFoundError, UsageError

from . import facts
from .conftest import Store
from .test_materializer import whole_history

ADDRESS = "john.doe@example.com"


@pytest.fixture
def knowledge(store: Store) -> Knowledge:
    return store.holding(*whole_history()).knowledge()


def test_rows_come_as_objects_with_the_names_of_their_columns(knowledge: Knowledge) -> None:
    found = knowledge.query(
        "SELECT contact, name, name FROM contacts WHERE name LIKE ? ORDER BY contact", ["J%"]
    )
    assert found.to_json() == {
        "columns": ["contact", "name", "name_2"],
        "rows": [{"contact": "c1", "name": "John Q. Doe", "name_2": "John Q. Doe"}],
        "truncated": False,
    }


def test_a_table_or_column_that_is_not_is_answered_with_those_that_are(knowledge: Knowledge) -> None:
    def hint(sql: str, tables: tuple[str, ...] | None = None) -> str:
        with pytest.raises(QueryRefusedError) as refused:
            knowledge.query(sql, tables=tables)
        return refused.value.hint or ""

    assert "contacts" in hint("SELECT 1 FROM people") and "documents" in hint("SELECT 1 FROM people")
    assert hint("SELECT 1 FROM people", ("contacts",)) == "the tables are: contacts"
    assert hint("SELECT mail FROM contacts").startswith("contacts has contact, ")
    assert "contacts has" not in hint("SELECT mail FROM documents d, contacts", ("documents",))


def test_more_rows_than_asked_for_are_cut_and_that_is_said(knowledge: Knowledge) -> None:
    found = knowledge.query("SELECT contact FROM contacts", limit=1)
    assert (len(found.rows), found.truncated) == (1, True)
    assert not knowledge.query("SELECT contact FROM contacts", limit=2).truncated
    for limit in (0, -1, 10_001):
        with pytest.raises(QueryRefusedError):
            knowledge.query("SELECT 1", limit=limit)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM contacts",
        "UPDATE contacts SET name = ''",
        "INSERT INTO contacts DEFAULT VALUES",
        "DROP TABLE contacts",
        "CREATE TEMP TABLE x (y)",
        "ATTACH 'x.db' AS x",
        "PRAGMA user_version",
        "PRAGMA query_only = OFF",
        "SELECT * FROM pragma_table_info('contacts')",
        "BEGIN",
        "VACUUM INTO 'x.db'",
        "SELECT 1; SELECT 2",
        "SELECT * FROM sqlite_schema",
        "SELECT load_extension('x')",
        "SELECT writefile('x', 'y')",
        "SELECT * FROM cursor",
        "SELECT",
        "",
        "SELECT ?",
        "SELECT 1 -- " + "x" * 70_000,
    ],
)
def test_nothing_but_one_reading_statement_runs(knowledge: Knowledge, sql: str, raw: bool) -> None:
    with pytest.raises(QueryRefusedError) as refused:
        knowledge.query(sql, raw=raw)
    assert refused.value.message
    assert len(knowledge.query("SELECT * FROM contacts").rows) == 2


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT email FROM contact_emails",
        "SELECT email AS id FROM contact_emails",
        "SELECT 'x' || email || 'y' FROM contact_emails",
        "SELECT upper(email) FROM contact_emails",
        "SELECT hex(email) FROM contact_emails",
        "SELECT replace(email, '@', ' at ') FROM contact_emails",
        "SELECT substr(email, 1, 4), substr(email, 5) FROM contact_emails",
        "SELECT group_concat(email) FROM contact_emails",
        "SELECT json_group_array(email) FROM contact_emails",
        "SELECT unicode(substr(email, 2, 1)) FROM contact_emails",
        "SELECT emails FROM contacts",
        "SELECT value FROM contacts, json_each(contacts.emails)",
        "WITH c AS (SELECT * FROM contact_emails) SELECT email FROM c",
        "SELECT (SELECT max(email) FROM contact_emails)",
        "SELECT body FROM searchables",
        "SELECT action FROM approvals",
        "SELECT recipients FROM emails",
        "SELECT people FROM documents",
    ],
)
def test_no_spelling_of_a_query_brings_an_address_back(knowledge: Knowledge, sql: str) -> None:
    text = canonical(knowledge.query(sql).rows).decode().lower()
    for secret in (ADDRESS, ADDRESS.encode().hex(), "john.doe", "doe@", "example.com", str(ord("o"))):
        assert secret not in text
    assert knowledge.query(sql, raw=True).rows != knowledge.query(sql).rows


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT email FROM main.contact_emails",
        "SELECT 1 FROM main.contacts WHERE emails LIKE '%john%'",
        "SELECT * FROM search",
        "SELECT rowid FROM search WHERE search MATCH 'doe'",
        "SELECT * FROM search_content",
        "SELECT * FROM main.searchables",
        "SELECT _masked(email) FROM main.contact_emails",
    ],
)
def test_there_is_no_way_around_the_mask(knowledge: Knowledge, sql: str) -> None:
    with pytest.raises(QueryRefusedError):
        knowledge.query(sql)


def test_a_masked_value_cannot_be_tested_for(knowledge: Knowledge) -> None:
    assert knowledge.query("SELECT 1 FROM contact_emails WHERE email = ?", [ADDRESS]).rows == []
    assert knowledge.query("SELECT 1 FROM contact_emails WHERE email = ?", [ADDRESS], raw=True).rows != []


@pytest.mark.parametrize("table", ["runs", "nodes", "hostcalls"])
def test_one_run_is_looked_up_by_its_index_behind_the_mask(knowledge: Knowledge, table: str) -> None:
    plan = knowledge._masked.execute(f"EXPLAIN QUERY PLAN SELECT * FROM {table} WHERE run = 'r'").fetchall()
    assert [step[3].partition(" USING ")[0] for step in plan] == [f"SEARCH main.{table}"]


def test_every_table_can_be_asked_masked_and_raw(knowledge: Knowledge) -> None:
    for table in TABLES:
        masked, raw = (knowledge.query(f"SELECT * FROM {table}", raw=raw) for raw in (False, True))
        assert masked.columns == raw.columns
        assert len(masked.rows) == len(raw.rows)


def test_a_caller_may_be_held_to_some_tables(knowledge: Knowledge) -> None:
    tables = {"contacts"}
    for raw in (False, True):
        assert knowledge.query("SELECT name FROM contacts", raw=raw, tables=tables).rows
        with pytest.raises(QueryRefusedError, match="read approvals"):
            knowledge.query("SELECT * FROM contacts, approvals", raw=raw, tables=tables)
        with pytest.raises(QueryRefusedError):
            knowledge.query("SELECT * FROM search", raw=raw, tables=tables)


def test_a_query_that_takes_too_long_is_stopped(store: Store) -> None:
    ticks = count()
    knowledge = store.holding(facts.draft(facts.contact())).knowledge(
        time_cap_ms=5_000, monotonic=lambda: float(next(ticks))
    )
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    for raw in (False, True):
        with pytest.raises(QueryLimitError, match="5000 ms"):
            knowledge.query(endless, raw=raw)


def test_large_values_and_results_are_refused(knowledge: Knowledge) -> None:
    with pytest.raises(QueryLimitError):
        knowledge.query("SELECT zeroblob(900000000)")
    twenty = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20)"
    many = f"{twenty} SELECT zeroblob(2000000) FROM n"
    with pytest.raises(QueryLimitError, match="result"):
        knowledge.query(many)


def test_every_cell_has_a_canonical_form(knowledge: Knowledge) -> None:
    (row,) = knowledge.query("SELECT 1 a, 9007199254740993 b, 9e999 c, x'00ff' d, NULL e, 1.5 f").rows
    assert row == {"a": 1, "b": "9007199254740993", "c": "inf", "d": "00ff", "e": None, "f": 1.5}
    canonical(row)


# --- in words -------------------------------------------------------------------------------------


@pytest.mark.requirement("I2.ledger.5")
def test_words_find_contacts_notes_and_mails_with_their_source(knowledge: Knowledge) -> None:
    (john,) = knowledge.search("john", kinds=["contact"])
    assert (john["kind"], john["id"], john["title"], john["event"]) == ("contact", "c1", "John Q. Doe", 5)
    (plan,) = knowledge.search("ships plans", kinds=["note"])
    assert (plan["id"], plan["event"]) == ("d1", 3)
    assert {item["kind"] for item in knowledge.search("plan")} == {"note", "mail"}


def test_a_changed_contact_is_no_longer_found_by_its_old_words(knowledge: Knowledge) -> None:
    assert knowledge.search("johnny") == []


def test_entries_with_every_word_come_first(store: Store) -> None:
    store.holding(
        facts.draft(facts.note("some", "plan plan plan", "plan plan plan plan")),
        facts.draft(
            facts.note("all", "a", "the quarterly budget and the plan, in a long text about other things")
        ),
        *[facts.draft(facts.note(f"n{number}", "filler", f"nothing {number}")) for number in range(5)],
    )
    assert [item["id"] for item in store.knowledge().search("plan budget", 2)] == ["all", "some"]


def test_among_equals_the_newer_comes_first(store: Store) -> None:
    year = 365 * 86_400_000
    store.holding(
        facts.draft(facts.note("old", "plan", "text", written_ms=store.clock.now_ms() - 5 * year)),
        facts.draft(facts.note("new", "plan", "text", written_ms=store.clock.now_ms())),
        facts.draft(facts.note("older", "plan", "text", written_ms=store.clock.now_ms() - 9 * year)),
        *[facts.draft(facts.note(f"n{number}", "filler", "nothing")) for number in range(9)],
    )
    assert [item["id"] for item in store.knowledge().search("plan")] == ["new", "old", "older"]


@pytest.mark.parametrize(
    "query", ["", "   ", '"', "*", "NEAR(", "-", "()", "\x00", "; DROP TABLE runs", "a" * 10_000]
)
def test_no_character_of_a_query_has_a_meaning(knowledge: Knowledge, query: str) -> None:
    assert knowledge.search(query) == []


def test_operators_are_words(store: Store) -> None:
    store.holding(
        facts.draft(facts.note("d1", "x", "to be OR not to be")), facts.draft(facts.note("d2", "x", "be"))
    )
    assert store.knowledge().search("title:x OR be NOT")[0]["id"] == "d1"


def test_search_masks_what_it_shows(knowledge: Knowledge) -> None:
    (masked,) = knowledge.search("john", kinds=["contact"])
    (raw,) = knowledge.search("john", kinds=["contact"], raw=True)
    assert ADDRESS in raw["snippet"]
    assert ADDRESS not in str(masked)
    assert "example" not in str(masked)


def test_search_takes_bounds_seriously(knowledge: Knowledge) -> None:
    assert knowledge.search("plan", 0) == []
    assert len(knowledge.search("plan", 1)) == 1
    with pytest.raises(UsageError, match="unknown kind"):
        knowledge.search("plan", kinds=["secret"])


# --- by id ----------------------------------------------------------------------------------------


def test_a_whole_record_is_read_by_id(knowledge: Knowledge) -> None:
    contact = knowledge.read("contact", "c1", raw=True)
    assert (contact["emails"], contact["event"], contact["kind"]) == ([ADDRESS], 5, "contact")
    assert knowledge.read("contact", "c1")["emails"] == ["j***@e***.com"]
    mail = knowledge.read("document", "d2")
    assert (mail["text"], mail["people"], mail["type"]) == (
        "Marketing will be late",
        ["a***@e***.org"],
        "mail",
    )
    for kind, id in (("contact", "nobody"), ("document", "c1")):
        with pytest.raises(NotFoundError):
            knowledge.read(kind, id)
    with pytest.raises(UsageError):
        knowledge.read("runs", "x")


def test_the_views_tell_how_far_they_are(knowledge: Knowledge) -> None:
    assert knowledge.cursor() == len(whole_history())
    assert knowledge.reader is not None


def test_without_views_the_way_out_is_said(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no views"):
        Knowledge(store.views_db)
