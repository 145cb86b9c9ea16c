"""Purses and limits: exact, for a whole run, never in part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloopd.broker.quotas import Purse, QuotaError, check


def test_a_reservation_that_does_not_fit_takes_nothing() -> None:
    purse = Purse(limit_micro_usd=10, limit_tokens=100)
    purse.reserve("a", 6, 50)
    with pytest.raises(QuotaError) as caught:
        purse.reserve("b", 5, 1)
    assert (caught.value.resource, caught.value.limit, caught.value.used) == ("run.micro_usd", 10, 6)
    assert caught.value.named_code == "budget.exceeded"
    with pytest.raises(QuotaError, match=r"run\.tokens"):
        purse.reserve("b", 4, 51)
    assert purse.held_micro_usd == 6
    purse.reserve("b", 4, 50)


def test_a_hold_is_given_back_once() -> None:
    purse = Purse(limit_micro_usd=10, limit_tokens=100)
    hold = purse.reserve("a", 6, 50)
    hold.release()
    hold.release()
    hold.keep()
    assert (purse.held_micro_usd, purse.spent_micro_usd) == (0, 0)


def test_a_kept_hold_is_spent() -> None:
    purse = Purse(limit_micro_usd=10, limit_tokens=100)
    purse.reserve("a", 6, 50).keep()
    assert (purse.held_micro_usd, purse.spent_micro_usd, purse.spent_tokens) == (0, 6, {"a": 50})


def test_a_negative_reservation_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="negative"):
        Purse(limit_micro_usd=10, limit_tokens=10).reserve("a", -1, 0)


def test_a_warning_is_given_at_its_part_of_the_limit_once() -> None:
    warned: set[str] = set()
    assert check("x", 78, 1, 100, agent="a", warned=warned) == []
    (fact,) = check("x", 79, 1, 100, agent="a", warned=warned)
    assert (fact.used, fact.limit) == (80, 100)
    assert check("x", 80, 1, 100, agent="a", warned=warned) == []
    with pytest.raises(QuotaError):
        check("x", 100, 1, 100, agent="a", warned=warned)


@given(
    limit=st.integers(0, 100),
    moves=st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["release", "keep", "hold"])), max_size=40),
)
def test_spent_and_held_never_pass_the_limit(limit: int, moves: list[tuple[int, str]]) -> None:
    purse = Purse(limit_micro_usd=limit, limit_tokens=10**9)
    for micro_usd, end in moves:
        try:
            hold = purse.reserve("a", micro_usd, 1)
        except QuotaError:
            continue
        if end == "release":
            hold.release()
            purse.spend("a", micro_usd, 1)
        elif end == "keep":
            hold.keep()
        assert 0 <= purse.spent_micro_usd + purse.held_micro_usd <= limit
