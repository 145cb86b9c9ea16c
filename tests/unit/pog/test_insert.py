"""Rows of the ledger as one INSERT: the same rows, whatever they share and however many there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pog import sql
from pog.chain import GENESIS, linker, relink
from pog.insert import insert, is_one
from pog.prepare import Prepared, prepare
from runloop.digest import blob_hash, hasher
from runloop.events import Draft

from . import facts

COLUMNS = "id, ts_ms, actor, kind, version, scope, run, payload, provenance, hash, prev_hash"


def row(number: int, speaker: int) -> Prepared:
    """Rows of one speaker are alike: of one actor, kind, version, scope and run."""
    return prepare(
        Draft(
            payload=facts.note(text=f"note {number}") if speaker % 2 else facts.contact(f"c{number}"),
            actor=f"agent:a{speaker}",
            scope="user" if speaker % 3 else "system",
            run=None if speaker == 1 else facts.RUN,
        )
    )


def empty() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(sql.load("ledger.sql"))
    return connection


def chained(rows: list[Prepared], first_id: int, before: bytes) -> Iterator[bytes]:
    for number, item in enumerate(rows, first_id):
        before = relink(before, number, 5, item.setting, item.payload_text, item.provenance_text)
        yield before


def one_by_one(connection: sqlite3.Connection, first_id: int, before: bytes, rows: list[Prepared]) -> None:
    statement = sql.named("statements.sql")["append_event"]
    for number, (item, own) in enumerate(zip(rows, chained(rows, first_id, before), strict=True), first_id):
        draft, payload = item.draft, item.payload
        texts = item.payload_text.decode(), item.provenance_text.decode()
        place = draft.actor, payload.kind, payload.version, draft.scope, draft.run
        connection.execute(statement, (number, 5, *place, *texts, own, before))
        before = own


def same(speakers: list[int], first_id: int, before: bytes) -> None:
    rows = [row(number, speaker) for number, speaker in enumerate(speakers)]
    with closing(empty()) as at_once, closing(empty()) as single:
        insert(at_once, first_id, 5, before, rows, list(chained(rows, first_id, before)))
        one_by_one(single, first_id, before, rows)
        found, expected = (
            each.execute(f"SELECT {COLUMNS} FROM events ORDER BY id").fetchall() for each in (at_once, single)
        )
    assert found == expected
    assert len(found) == len(rows)


@given(
    st.lists(st.integers(0, 4), max_size=90),
    st.integers(1, 2**40),
    st.binary(min_size=32, max_size=32),
)
def test_rows_at_once_are_the_rows_one_by_one(speakers: list[int], first_id: int, before: bytes) -> None:
    same(speakers, first_id, before)


@pytest.mark.parametrize("size", [1, 17, 64, 65, 512, 513 + 64 + 3])
@pytest.mark.parametrize("speakers", [1, 2])
def test_groups_of_every_size_are_the_rows_one_by_one(size: int, speakers: int) -> None:
    same([number % speakers for number in range(size)], 7, GENESIS)


def test_a_place_that_is_taken_is_not_written_over() -> None:
    rows = [row(number, 0) for number in range(3)]
    with closing(empty()) as connection:
        insert(connection, 3, 5, GENESIS, rows[:1], [b"h" * 32])
        with pytest.raises(sqlite3.IntegrityError):
            insert(connection, 1, 5, GENESIS, rows, [b"h" * 32] * 3)
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (1,)


def test_a_group_of_a_common_size_is_one_statement() -> None:
    assert [size for size in range(70) if is_one([None] * size)] == [*range(1, 17), 64]


@given(st.lists(st.binary(max_size=3_000), max_size=5))
def test_a_kept_hasher_is_the_same_hash_each_time(texts: list[bytes]) -> None:
    hash_of = hasher()
    link = linker(hasher())
    for text in texts:
        assert hash_of(text) == blob_hash(text)
        assert link(GENESIS, 1, 2, b"s", text, b"{}") == relink(GENESIS, 1, 2, b"s", text, b"{}")
