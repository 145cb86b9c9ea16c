"""Comparing two records: what is a difference, what is none, and in which order they are told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openings.cone import below, is_within
from openings.definition import Edge, ForEach, Node, Opening
from openings.diff import Comparison, Told, compare
from openings.expressions import Ref
from openings.shown import MAX_LINES, lines, unified
from openings.testing import Play
from runloop.digest import digest
from runloop.errors import UsageError
from runloop.events import (
    ActionDecided,
    ActionRequested,
    GuestError,
    HostcallDelivered,
    MessageSent,
    NodeFinished,
)
from tests.unit.pog.facts import model_called

PAIR = Opening(
    name="pair",
    nodes=(Node(id="a", use="agent:a"), Node(id="b", use="agent:b")),
    edges=(Edge(source=Ref("a", ("out",)), node="b", port="in"),),
)
OTHER = "00000000-0000-4000-8000-000000000002"


def played(*, a: Any = 1, b: Any = 2, run: str | None = None) -> Play:
    play = Play(PAIR) if run is None else Play(PAIR, run=run)
    play.settle()
    play.succeed("a", out=a).settle()
    play.succeed("b", out=b).settle()
    return play


def told(play: Play, **children: Told) -> Told:
    return Told(
        run=play.run, events=play.events, children={(name, 1): child for name, child in children.items()}
    )


def between(one: Play, other: Play) -> Comparison:
    return compare(told(one), told(other))


def places(found: Comparison) -> list[str]:
    return [str(difference.place) for difference in found.differences]


def call(answer: Any, recorded_in: str | None = None, *, fuel: int = 7) -> HostcallDelivered:
    return HostcallDelivered(
        node="a",
        attempt=1,
        call=0,
        op="kb.search",
        effect="read",
        args_digest=digest("x"),
        args_blob=digest("x"),
        ok=True,
        result_digest=digest(answer),
        result_blob=digest(answer),
        request_bytes=1,
        response_bytes=1,
        fuel=fuel,
        recorded_in=recorded_in,
    )


def test_two_runs_that_did_the_same_are_identical_whatever_their_ids_and_times() -> None:
    one, other = Play(PAIR), Play(PAIR, run=OTHER)
    other.now_ms += 1_000_000
    for fuel, play in enumerate((one, other)):
        play.settle()
        play.say(call("y", fuel=fuel)).succeed("a", out=1).settle()
        play.succeed("b", out=2).settle()
    found = between(one, other)
    assert found.identical
    assert found.same["call"] == 1


def test_the_first_difference_is_first_and_the_rest_stands_behind_what_it_came_of() -> None:
    found = between(played(), played(a=5, b=6, run=OTHER))
    assert places(found) == ["output a", "input b", "output b", "outcome"]
    assert [list(map(str, difference.causes)) for difference in found.differences] == [
        [],
        ["output a"],
        ["input b"],
        ["output a", "output b"],
    ]
    assert found.nodes == {"a", "b"}


def test_a_run_that_has_not_come_so_far_lacks_places_and_nothing_else_differs() -> None:
    short = Play(PAIR, run=OTHER)
    short.settle()
    short.succeed("a", out=1).settle()
    found = between(played(), short)
    assert [(str(d.place), d.verdict) for d in found.differences] == [
        ("output b", "only_one"),
        ("outcome", "only_one"),
    ]


def asked_and_paid(run: str) -> list[Any]:
    return [
        ActionRequested(
            approval="ap_1",
            node="a",
            attempt=1,
            call=0,
            op="mail.send",
            effect="send",
            key="k",
            args_digest=digest("x"),
            action={"kind": "mail.send", "run": run, "summary": "send"},
            action_digest=digest("z"),
            content_blob=digest("c"),
            content_type="message/rfc822",
            expires_ms=1,
        ),
        ActionDecided(
            approval="ap_1", node="a", decision="approved", principal="operator:1", action_digest=digest("z")
        ),
        model_called(cost=5, node="a", call=0),
    ]


def test_an_approval_and_a_spending_behind_a_heard_answer_are_no_difference() -> None:
    one, heard, anew = Play(PAIR), Play(PAIR, run=OTHER), Play(PAIR, run=OTHER)
    for play in (one, heard, anew):
        play.settle()
    one.say(*asked_and_paid(one.run), call("y"))
    heard.say(call("y", recorded_in=one.run))
    anew.say(call("y"))
    found = between(one, heard)
    assert found.identical
    assert found.spent == (5, 0)
    assert places(between(one, anew)) == ["approval a #0", "spend a #0"]


def test_a_request_that_was_sent_again_after_a_crash_is_one_request() -> None:
    frame = MessageSent(
        sender="daemon",
        receiver="agent:a",
        topic="agent/a",
        type="t",
        schema_id=1,
        msg_id=1,
        size=9,
        body_digest=digest("f"),
        node="a",
        attempt=1,
    )
    one, other = Play(PAIR), Play(PAIR, run=OTHER)
    one.settle()
    one.say(frame)
    other.settle()
    other.say(frame, msgspec.structs.replace(frame, msg_id=2, body_digest=digest("g")))
    assert between(one, other).identical


def test_what_the_clock_ended_is_the_same_end_when_it_is_stated_from_the_record() -> None:
    one, other = Play(PAIR), Play(PAIR, run=OTHER)
    for play, message in ((one, "after 5001 ms"), (other, "after 5002 ms")):
        play.settle()
        error = GuestError(code="guest.deadline", message=message)
        play.say(NodeFinished(node="a", attempt=1, status="failed", error=error))
    assert "output a" not in places(between(one, other))


NESTED = Opening(
    name="outer",
    nodes=(Node(id="n", use="opening:pair"), Node(id="z", use="agent:z")),
    edges=(Edge(source=Ref("n", ("a_out",)), node="z", port="in"),),
    openings={"pair": PAIR},
)


def test_nested_runs_are_compared_inside_the_node_they_serve() -> None:
    def outer(run: str, child: Play, value: int) -> Told:
        play = Play(NESTED, run=run)
        play.settle()
        play.succeed("n", a_out=value).settle()
        play.succeed("z", out=0).settle()
        return told(play, n=told(child))

    one = outer(OTHER, played(), 1)
    assert compare(one, outer(played().run, played(run=OTHER), 1)).identical
    found = compare(one, outer(played().run, played(a=5, b=2, run=OTHER), 5))
    assert places(found) == ["output n/a", "input n/b", "outcome n/", "output n", "input z", "outcome"]
    assert found.nodes == {"n", "z"}
    assert found.differences[0].causes == ()


def test_runs_of_different_openings_are_refused_and_a_record_without_beginning_too() -> None:
    stranger = Play(Opening(name="stranger", nodes=PAIR.nodes))
    with pytest.raises(UsageError, match="of stranger"):
        between(played(), stranger)
    with pytest.raises(UsageError, match=r"run\.started"):
        compare(told(played()), Told(run=OTHER, events=played().events[1:]))


def test_the_cone_of_an_item_is_the_item_and_what_is_below_the_whole_node() -> None:
    opening = Opening(
        name="mapped",
        nodes=(Node(id="m", use="agent:a", for_each=ForEach(port="in")), Node(id="z", use="agent:z")),
        edges=(Edge(source=Ref("m", ("out",)), node="z", port="in"),),
    )
    cone = below(opening, ["m[1]"])
    assert cone == {"m[1]", "z"}
    assert is_within("m[1]", cone)
    assert not is_within("m[0]", cone)
    assert not is_within("m", cone)
    assert is_within("m[0]", below(opening, ["m"]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, JSON)
def test_whatever_differs_is_shown_within_bounds_and_what_is_equal_is_not(one: Any, other: Any) -> None:
    assert unified(one, one) == []
    assert len(unified(one, other)) <= MAX_LINES + 1
    if lines(one) != lines(other):
        assert unified(one, other)
