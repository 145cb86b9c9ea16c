"""The answers of a record, found by place and by question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from openings.definition import Edge, Node, Opening
from openings.expressions import Ref
from openings.replay import Divergence
from openings.testing import Play
from runloop.digest import blob_digest, canonical, digest
from runloop.errors import UsageError
from runloop.events import HostcallAdmitted, HostcallDelivered, PromiseResolved, RunCancelRequested
from runloop.ops import OPS
from runloopd.runs.branch import asks_for
from runloopd.runs.recorded import Hearing, RecordedAnswers

OPENING = Opening(
    name="pair",
    nodes=(Node(id="a", use="agent:a"), Node(id="b", use="agent:b")),
    edges=(Edge(source=Ref("a", ("out",)), node="b", port="in"),),
)
NOW, SEARCH, PUT = digest("now"), digest("search"), digest("put")


class Made:
    """A run in miniature, with the bytes of its answers."""

    def __init__(self) -> None:
        self.play = Play(OPENING)
        self.play.settle()
        self.blobs: dict[str, bytes] = {}

    def hear(self, call: int, op: str, args: str, value: Any, *, attempt: int = 1, node: str = "a") -> Made:
        text = canonical(value)
        self.blobs[blob_digest(text)] = text
        self.play.say(
            HostcallDelivered(
                node=node,
                attempt=attempt,
                call=call,
                op=op,
                effect=OPS[op].effect,
                args_digest=args,
                args_blob=args,
                ok=True,
                result_digest=blob_digest(text),
                result_blob=blob_digest(text),
                request_bytes=1,
                response_bytes=len(text),
                fuel=call,
            )
        )
        return self

    @property
    def record(self) -> RecordedAnswers:
        return RecordedAnswers(self.play.events, self.blobs.__getitem__)

    def told(self, hearing: Hearing, asked: Sequence[tuple[str, str]]) -> list[Any]:
        """What a guest hears that asks this; None where the record knows nothing."""
        heard: list[Any] = []
        for index, (op, args) in enumerate(asked):
            found = hearing.hear(index, op, args)
            if found is None:
                hearing.passed(index, op, args)
            heard.append(None if found is None else self.record.value(found))
        return heard


def times() -> Made:
    return Made().hear(0, "time.now", NOW, 1).hear(1, "kb.search", SEARCH, 2).hear(2, "time.now", NOW, 3)


def test_in_step_every_answer_is_the_one_at_its_place() -> None:
    made = times()
    hearing = made.record.hearing("a", 1)
    asked = [("time.now", NOW), ("kb.search", SEARCH), ("time.now", NOW)]
    assert made.told(hearing, asked) == [1, 2, 3]
    assert hearing.in_step


def test_out_of_step_the_same_question_hears_the_next_answer_and_each_is_heard_once() -> None:
    made = times()
    hearing = made.record.hearing("a", 1)
    asked = [("kb.search", SEARCH), ("time.now", NOW), ("time.now", NOW), ("time.now", NOW)]
    assert made.told(hearing, asked) == [2, 1, 3, None]
    assert not hearing.in_step


def test_a_question_the_record_does_not_know_leaves_the_step_for_good() -> None:
    made = times()
    hearing = made.record.hearing("a", 1)
    assert made.told(hearing, [("time.now", digest("other")), ("kb.search", SEARCH)]) == [None, 2]
    assert not hearing.in_step


def test_strictly_nothing_is_heard_but_at_its_place() -> None:
    hearing = times().record.hearing("a", 1)
    assert not isinstance(hearing.strictly(0, "time.now", NOW, 0), Divergence)
    other = hearing.strictly(1, "time.now", NOW, 1)
    assert isinstance(other, Divergence)
    assert other.code == "replay.arguments"
    late = times().record.hearing("a", 1).strictly(3, "time.now", NOW)
    assert isinstance(late, Divergence)
    assert late.code == "replay.missing"
    burnt = times().record.hearing("a", 1).strictly(0, "time.now", NOW, 99)
    assert isinstance(burnt, Divergence)


def test_an_effect_that_was_made_is_known_however_often_it_is_asked_for() -> None:
    made = Made().hear(0, "memory.put", PUT, {"version": 1})
    first = made.record.hearing("a", 1)
    assert first.effect(0, "memory.put", PUT) is not None
    heard = made.record.calls("a", 1)[0].call
    again = made.record.hearing("a", 2, [_heard(heard, "origin")])
    assert made.told(again, [("memory.put", PUT)]) == [{"version": 1}]
    assert made.told(again, [("memory.put", PUT)]) == [None]  # a second one in one attempt is another effect


def test_a_hearing_that_is_made_anew_after_a_crash_goes_on_where_it_was() -> None:
    made = times()
    asked = [("kb.search", SEARCH), ("time.now", NOW)]
    before = [
        _heard(made.record.calls("a", 1)[1].call, "origin", call=0),
        _heard(made.record.calls("a", 1)[0].call, "origin", call=1),
    ]
    hearing = made.record.hearing("a", 1, before)
    assert not hearing.in_step
    found = hearing.hear(len(asked), "time.now", NOW)
    assert found is not None
    assert made.record.value(found) == 3
    live = made.record.hearing("a", 1, [_heard(made.record.calls("a", 1)[0].call, None)])
    assert live.in_step  # the recorded question, answered by somebody else
    assert made.told(live, []) == []
    next_one = live.hear(1, "kb.search", SEARCH)
    assert next_one is not None


def _heard(told: HostcallDelivered, recorded_in: str | None, /, **changes: Any) -> HostcallDelivered:
    return msgspec.structs.replace(told, recorded_in=recorded_in, **changes)


def test_an_effect_that_was_begun_and_never_answered_is_told_apart() -> None:
    made = Made()
    mark = HostcallAdmitted(
        node="a",
        attempt=1,
        call=0,
        op="mail.send",
        effect="send",
        key="k",
        args_digest=PUT,
        args_blob=PUT,
        request_bytes=1,
        fuel=1,
    )
    made.play.say(mark)
    assert made.record.begun("a", "mail.send", PUT) == mark
    assert made.record.begun("b", "mail.send", PUT) is None
    assert made.hear(0, "mail.send", PUT, {}).record.begun("a", "mail.send", PUT) is None


def test_a_promise_that_nobody_kept_is_worth_nothing_to_another_run() -> None:
    made = Made().hear(0, "promise.create", PUT, {"promise": "pr_1"})
    assert not made.record.keeps_promises("a")
    made.play.say(PromiseResolved(promise="pr_1", value=1, principal="operator:1"))
    assert made.record.keeps_promises("a")


def test_where_the_record_stops_a_node_is_open() -> None:
    made = Made()
    assert not made.record.is_closed("a")
    made.play.succeed("a", out=1).settle()
    assert made.record.is_closed("a")
    assert not made.record.is_closed("b")
    made.play.say(RunCancelRequested(principal="operator:1", reason="enough")).settle()
    assert made.record.is_finished
    assert not made.record.is_closed("b")
    assert made.record.is_lost("b")
    assert not made.record.is_lost("a")


def no_bytes(digest_hex: str) -> bytes:
    raise AssertionError(f"nobody asks for the bytes of {digest_hex}")


def test_no_record_has_no_answer_and_half_of_one_is_refused() -> None:
    nothing = RecordedAnswers([], no_bytes)
    assert nothing.hearing("a", 1).hear(0, "time.now", NOW) is None
    assert nothing.run == ""
    with pytest.raises(UsageError, match=r"run\.started"):
        RecordedAnswers(times().play.events[1:], no_bytes)


@pytest.mark.parametrize("op", sorted(OPS))
def test_an_answer_depends_on_the_capability_its_op_is_named_with(op: str) -> None:
    row = OPS[op]
    assert {row.capability, *row.also} - {None} <= asks_for(op)
