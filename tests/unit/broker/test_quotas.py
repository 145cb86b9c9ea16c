"""Purses and limits: exact, for a whole run, never in part."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop import config
from runloopd.broker.quotas import RESOURCES, Limit, Purse, QuotaError, Quotas, check


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


# --- of one agent ---------------------------------------------------------------------------------


def test_a_soft_limit_is_a_part_of_the_hard_one_unless_it_is_set() -> None:
    quotas = Quotas(config.Quotas(calls=10, mails=5, mails_soft=1, turns=3, turns_soft=9))
    limits = quotas.of("writer")
    assert set(limits) == set(RESOURCES)
    assert limits["calls"] == Limit(8, 10)
    assert limits["mails"] == Limit(1, 5)
    assert limits["turns"] == Limit(3, 3), "a warning never comes behind the end"


def test_an_agent_may_have_a_limit_of_its_own() -> None:
    quotas = Quotas(config.Quotas(calls=10, agents={"writer": {"calls": 4, "fuel_soft": 1}}))
    assert quotas.of("writer")["calls"] == Limit(4, 4)
    assert quotas.of("writer")["fuel"].soft == 1
    assert quotas.of("mailer")["calls"] == Limit(8, 10)


def test_a_run_is_judged_by_the_limits_it_was_started_with() -> None:
    then = Quotas(config.Quotas(calls=10))
    now = Quotas(config.Quotas(calls=99, mails=77))
    policy = {"quotas": then.to_json(["writer"])}
    del policy["quotas"]["writer"]["mails"]  # a record of before there was such a resource
    assert now.recorded(policy, "writer")["calls"] == Limit(8, 10)
    assert now.recorded(policy, "writer")["mails"].hard == 77
    assert now.recorded({}, "writer") == now.of("writer")
    assert now.recorded({"quotas": None}, "writer") == now.of("writer")


def test_an_agents_money_and_tokens_are_a_part_of_the_runs() -> None:
    limits = Quotas(config.Quotas(micro_usd=6, tokens=50)).of("a")
    purse = Purse(limit_micro_usd=100, limit_tokens=1_000)
    hold = purse.reserve("n", 6, 50, agent="a", limits=limits)
    for micro_usd, tokens, resource in ((1, 0, "micro_usd"), (0, 1, "tokens")):
        with pytest.raises(QuotaError, match=rf"QUOTA_EXCEEDED: {resource}: ") as caught:
            purse.reserve("m", micro_usd, tokens, agent="a", limits=limits)
        assert caught.value.named_code == "quota.exceeded"
    purse.reserve("m", 6, 50, agent="b", limits=limits)
    hold.keep()
    with pytest.raises(QuotaError):
        purse.reserve("n", 1, 0, agent="a", limits=limits)
    assert [w.resource for w in purse.agent_warnings("a", limits, set())] == ["micro_usd", "tokens"]
