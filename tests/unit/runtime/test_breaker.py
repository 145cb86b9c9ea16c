"""When an agent's failures are too many: so many, within so long, counted for each agent by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runloopd.runtime.breaker import Breaker


def test_it_trips_at_the_last_of_so_many_and_names_them_all() -> None:
    breaker = Breaker(failures=3, window_ms=1_000)
    assert breaker.note("a", 0, 1) == ()
    assert breaker.note("a", 500, 2) == ()
    assert breaker.note("a", 1_000, 3) == (1, 2, 3)


def test_failures_that_are_far_apart_are_not_counted_together() -> None:
    breaker = Breaker(failures=3, window_ms=1_000)
    assert not any(breaker.note("a", at, at) for at in range(0, 100_000, 501))


def test_every_agent_is_counted_by_itself() -> None:
    breaker = Breaker(failures=2, window_ms=1_000)
    assert breaker.note("a", 0, 1) == ()
    assert breaker.note("b", 0, 2) == ()
    assert breaker.note("b", 0, 3) == (2, 3)


def test_after_a_release_the_count_starts_anew() -> None:
    breaker = Breaker(failures=2, window_ms=1_000)
    breaker.note("a", 0, 1)
    assert breaker.note("a", 0, 2) == (1, 2)
    breaker.forget("a")
    assert breaker.note("a", 0, 3) == ()
    assert breaker.note("a", 0, 4) == (3, 4)


@given(
    gaps=st.lists(st.integers(0, 400), min_size=1, max_size=60),
    failures=st.integers(1, 6),
    window=st.integers(1, 1_000),
)
def test_it_trips_exactly_when_some_window_holds_so_many(gaps: list[int], failures: int, window: int) -> None:
    breaker = Breaker(failures=failures, window_ms=window)
    moments: list[int] = []
    for number, gap in enumerate(gaps):
        moments.append((moments[-1] if moments else 0) + gap)
        within = [m for m in moments if moments[-1] - m <= window]
        assert bool(breaker.note("a", moments[-1], number)) == (len(within) >= failures)
