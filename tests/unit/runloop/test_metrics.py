"""Columns of the table of agents: how a figure is written, what stands first, what fits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.errors import UsageError
from runloop.metrics import COLUMNS, column, count, fitting, matching, ordered
from tests.unit.agtop.samples import agent

ROWS = [
    agent("b", state="idle", cpu_percent=None, cpu_ms=9, input_tokens=5),
    agent("a", state="idle", cpu_percent=None),
    agent("d", state="running", cpu_percent=80.0, cost_micro_usd=1_234_567),
    agent("c", state="asking", cpu_percent=0.0, rss_bytes=41 << 20),
]


def names(by: str, *, reverse: bool = False) -> str:
    return "".join(str(row["agent"]) for row in ordered(ROWS, column(by), reverse=reverse))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "-"), (0, "0"), (0.04, "0.0"), (2.8, "2.8"), (9.96, "10"), (999, "999"), (1_000, "1.0k"),
        (9_999, "10k"), (999_499, "999k"), (999_500, "1.0M"), (3_140_000, "3.1M"), (5e9, "5.0G"),
        (7e12, "7.0T"), (2**53, "9.0P"),
    ],
)  # fmt: skip
def test_a_count_is_written_short(value: float | None, written: str) -> None:
    assert count(value) == written


@given(st.floats(0, 2**53))
def test_no_count_is_longer_than_its_column(value: float) -> None:
    assert len(count(value)) <= 5


def test_the_busiest_stands_first_and_then_who_does_something_then_by_name() -> None:
    assert names("cpu") == "dbca"
    assert names("name") == "abcd"
    assert names("name", reverse=True) == "dcba"
    assert names("state") == "dcab"
    assert names("in")[0] == "b"
    assert names("cost")[0] == "d"


@pytest.mark.parametrize("one", COLUMNS, ids=[one.name for one in COLUMNS])
def test_every_column_writes_and_sorts_rows_of_which_nothing_is_known(one: object) -> None:
    by = column(one.name)  # type: ignore[attr-defined]
    nothing = dict.fromkeys(ROWS[0]) | {
        "agent": "x", "state": "new", "rss_bytes": 0, "cost_micro_usd": 0,
    }  # fmt: skip
    assert len(ordered([*ROWS, nothing], by)) == 5
    assert isinstance(by.write(nothing), str)
    assert column(by.title) is by


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(UsageError) as refused:
        column("beauty")
    assert refused.value.hint is not None and "cpu" in refused.value.hint


def test_words_narrow_the_rows_by_name_and_state() -> None:
    assert [row["agent"] for row in matching(ROWS, "")] == ["b", "a", "d", "c"]
    assert [row["agent"] for row in matching(ROWS, "ASKS")] == ["c"]
    assert [row["agent"] for row in matching(ROWS, "d run")] == ["d"]
    assert matching(ROWS, "nobody") == []


@pytest.mark.parametrize("width", [0, 15, 16, 29, 40, 80, 200])
def test_columns_fit_into_the_width_and_none_is_cut(width: int) -> None:
    shown = fitting(width)
    assert sum(one.width for one in shown) + 2 * max(0, len(shown) - 1) <= width
    assert list(shown) == list(COLUMNS[: len(shown)])


def test_money_and_memory_are_written_as_people_write_them() -> None:
    rows = {row["agent"]: row for row in ROWS}
    assert column("cost").write(rows["d"]) == "$1.2346"
    assert column("cost").write(rows["a"]) == "-"
    assert column("rss").write(rows["c"]) == "41.0 M"
