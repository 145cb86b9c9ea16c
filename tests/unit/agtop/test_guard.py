"""When a key counts as a yes, and what waits for one; without a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agtop.model.guard import QUIET_MS, STANDS_MS, Guard
from agtop.model.inbox import items, risks, standing
from tests.snapshots.frames import NOW_MS, approval, question


@pytest.mark.requirement("I7.inbox.2")
def test_a_yes_counts_once_the_end_was_seen_and_the_question_stood_for_a_while() -> None:
    guard = Guard(1_000)
    assert "end" in guard.judge(5_000).why
    guard.saw_end()
    assert not guard.judge(5_000 + QUIET_MS - 1).counts
    assert guard.judge(5_000 + 2 * QUIET_MS).counts


@pytest.mark.requirement("I7.inbox.2")
def test_what_was_typed_ahead_is_no_answer() -> None:
    eager = Guard(0)
    eager.saw_end()
    assert not eager.judge(0).counts
    assert not eager.judge(200).counts  # sooner than anybody reads
    guard = Guard(0)
    guard.saw_end()
    assert not guard.judge(STANDS_MS - 1).counts
    assert not guard.judge(STANDS_MS + 10).counts  # the pause begins anew with every key that did not count
    assert guard.judge(STANDS_MS + 10 + QUIET_MS).counts


@pytest.mark.requirement("I7.inbox.2")
@given(st.lists(st.integers(1, QUIET_MS - 1), min_size=1, max_size=60))
def test_a_key_that_is_held_down_never_counts(gaps: list[int]) -> None:
    guard, now = Guard(0), 0
    guard.saw_end()
    guard.typed(0)
    for gap in gaps:
        now += gap
        assert not guard.judge(now).counts


def test_what_waits_stands_in_the_order_it_was_asked_whatever_becomes_of_it() -> None:
    first = approval("ap_a", requested_ms=1, state="active", dispatch_after_ms=NOW_MS + 3_500)
    found = items([approval("ap_c", requested_ms=3), first], [question("pr_b", created_ms=2)])
    assert [item.name for item in found] == ["ap_a", "pr_b", "ap_c"]
    assert [standing(item, NOW_MS) for item in found] == [
        "leaves in 4 s",
        "waits, 60 min left",
        "waits, 7 days left",
    ]
    assert found[0].undoable(NOW_MS)
    assert not found[0].undoable(NOW_MS + 3_500)
    assert standing(found[0], NOW_MS + 4_000) == "approved"


def test_why_to_look_twice_is_told_gravest_first() -> None:
    held = approval(
        op="agent.install", label="import:mail", action={"private": ["user"], "amount_micro_usd": 5}
    )
    told = risks(held)
    assert "widens" in told[0]
    assert any("strangers" in line for line in told)
    assert any("private" in line for line in told)
    assert any("$0.000005" in line for line in told)
    assert risks(approval()) == ["something leaves this machine, and nobody can call it back"]
