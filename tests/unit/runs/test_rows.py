"""Rows of a run: every byte of every column is bound, and a changed one is located."""

from __future__ import annotations

from typing import Any

import pytest

from pog.chain import GENESIS, RawRow, Row
from pog.maintain.locate import relink
from runloop.digest import canonical
from runloop.events import RunCancelRequested, RunResumed, encode_payload
from runloopd.runs.rows import read

RUN = b"00000000-0000-4000-8000-000000000001"


def row(number: int, prev: bytes, payload: Any) -> RawRow:
    raw: RawRow = (
        number, 1_750_000_000_000, b"daemon", payload.kind.encode(), payload.version, b"user", RUN,
        canonical(encode_payload(payload)), b"{}", b"", prev,
    )  # fmt: skip
    made = relink(raw, prev)
    assert made is not None
    return (*raw[:9], made, prev)


def chain() -> list[RawRow]:
    first = row(1, GENESIS, RunResumed(reason="one"))
    second = row(2, first[9], RunCancelRequested(principal="operator:1", reason="enough"))
    return [first, second, row(7, b"7" * 32, RunResumed(reason="two"))]


def test_rows_that_are_as_they_were_are_read() -> None:
    found = read(chain())
    assert (found.count, found.hashes, found.divergence, found.unreadable) == (3, 3, None, None)
    assert [event.id for event in found.events] == [1, 2, 7]


@pytest.mark.requirement("I5.replay.2")
@pytest.mark.parametrize("column", Row._fields)
def test_one_changed_byte_of_any_column_is_located(column: str) -> None:
    rows = chain()
    place = Row._fields.index(column)
    cell = rows[2][place]
    changed = cell ^ 1 if isinstance(cell, int) else bytes((cell[0] ^ 1, *cell[1:]))
    rows[2] = (*rows[2][:place], changed, *rows[2][place + 1 :])
    found = read(rows)
    assert found.divergence is not None
    assert (found.divergence.code, found.divergence.column) == ("replay.result", column)
    assert found.divergence.event == (6 if column == "id" else 7)
    assert found.divergence.expected != found.divergence.actual
    assert (found.hashes, found.count, len(found.events)) == (2, 3, 2)


def test_a_row_put_in_the_place_of_another_does_not_follow_the_one_before_it() -> None:
    rows = chain()
    rows[1] = row(2, b"x" * 32, RunResumed(reason="forged"))
    found = read(rows)
    assert found.divergence is not None
    assert (found.divergence.event, found.divergence.column) == (2, "prev_hash")


def test_a_row_out_of_order_is_told() -> None:
    rows = chain()
    found = read([rows[0], rows[2], rows[1]])
    assert found.divergence is not None
    assert (found.divergence.event, found.divergence.column) == (2, "id")


def test_a_row_of_a_kind_this_build_does_not_know_is_no_difference_and_cannot_be_read() -> None:
    first = chain()[0]
    unknown: RawRow = (2, 1, b"daemon", b"run.danced", 1, b"user", RUN, b"{}", b"{}", b"", first[9])
    made = relink(unknown, first[9])
    found = read([first, (*unknown[:9], made, first[9])])
    assert found.divergence is None
    assert found.unreadable is not None
    assert "run.danced" in found.unreadable
