"""Courses of figures: taken in once, of those that are told of, and drawn in as many columns as there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agtop.model.metrics import History, spark
from tests.unit.agtop.samples import agent, sample


def test_a_sample_is_taken_in_once_however_often_it_is_shown() -> None:
    history = History()
    one = sample(1, agent("writer", cpu_percent=10.0))
    assert [history.take(one), history.take(one)] == [True, False]
    assert history.take(sample(2, agent("writer", cpu_percent=20.0)))
    assert history.agent("writer", "cpu_percent") == (10.0, 20.0)
    assert history.daemon("events_s") == (12.0, 12.0)


def test_a_daemon_that_was_started_again_counts_its_samples_anew() -> None:
    history = History()
    history.take(sample(1, agent("writer")))
    again = {**sample(1, agent("writer")), "at_ms": 5}
    assert history.take(again)


def test_what_is_not_known_is_a_gap_and_who_is_gone_is_forgotten() -> None:
    history = History()
    history.take(sample(1, agent("writer", cpu_percent=None), agent("other")))
    history.take(sample(2, agent("writer", cpu_percent=3.0)))
    assert history.agent("writer", "cpu_percent") == (None, 3.0)
    assert history.agent("other", "cpu_percent") == ()
    history.take(sample(3, agent("other", cpu_percent=1.0)))
    assert history.agent("other", "cpu_percent") == (1.0,)


def test_a_course_is_as_long_as_is_kept_and_no_longer() -> None:
    history = History(kept=5)
    for number in range(1, 20):
        history.take(sample(number, agent("writer", cpu_percent=float(number))))
    assert history.agent("writer", "cpu_percent") == (15.0, 16.0, 17.0, 18.0, 19.0)


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ((), "    "),
        ((0.0, 0.0), "  ▁▁"),
        ((1.0, None, 8.0), " ▂ █"),
        ((9.0, 0.0, 4.0, 8.0, 2.0), "▁▅█▃"),
    ],
    ids=["nothing", "zeros", "a-gap", "the-newest"],
)
def test_the_newest_values_are_drawn_the_highest_of_them_as_a_full_bar(
    values: tuple[float | None, ...], drawn: str
) -> None:
    assert spark(values, 4) == drawn


def test_a_flicker_does_not_look_like_a_storm() -> None:
    assert spark((0.1, 0.2), 2, least_top=5.0) == "▁▁"
    assert spark((0.1, 50.0), 2, least_top=5.0) == "▁█"


@given(
    st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)), max_size=300),
    st.integers(-3, 200),
)
def test_a_course_takes_exactly_its_columns_whatever_is_in_it(values: list[float | None], width: int) -> None:
    assert len(spark(values, width)) == max(0, width)
