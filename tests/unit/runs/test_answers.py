"""Answers from the record: served in order, compared at every call, and then silence or the gate."""

from __future__ import annotations

from typing import Any

import pytest

from openings.replay import recorded_calls
from runloop.digest import blob_digest, canonical, digest
from runloop.events import Event, HostcallDelivered, Provenance
from runloopd.broker.calls import Answer, HostCall
from runloopd.runs.answers import RecordedAnswerer, ResumingAnswerer

BLOBS: dict[str, bytes] = {}


def delivered(index: int, op: str = "time.now", args: Any = None, result: Any = None) -> HostcallDelivered:
    text = canonical({"ms": index} if result is None else result)
    BLOBS[blob_digest(text)] = text
    return HostcallDelivered(
        node="a",
        attempt=1,
        call=index,
        op=op,
        effect="pure",
        args_digest=digest(args or {}),
        args_blob=digest(args or {}),
        ok=True,
        result_digest=blob_digest(text),
        result_blob=blob_digest(text),
        request_bytes=10,
        response_bytes=len(text),
        fuel=100 * (index + 1),
    )


def asked(index: int, op: str = "time.now", args: Any = None, fuel: int | None = None) -> HostCall:
    return HostCall(
        index=index,
        op=op,
        args=args or {},
        args_digest=digest(args or {}),
        fuel=100 * (index + 1) if fuel is None else fuel,
        request_bytes=10,
    )


class Live:
    """The gate's place; remembers what reached it."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    async def answer(self, call: HostCall) -> Answer:
        self.calls.append(call.index)
        return Answer(ok=True, value="live")


def event(number: int, payload: HostcallDelivered) -> Event:
    return Event(
        id=number,
        ts_ms=0,
        actor="daemon",
        kind=payload.kind,
        scope="user",
        run="r",
        payload=payload,
        provenance=Provenance(),
        hash=b"",
        prev_hash=b"",
    )


async def test_recorded_answers_come_back_as_they_were() -> None:
    answerer = RecordedAnswerer([delivered(0), delivered(1)], BLOBS.__getitem__)
    assert [(await answerer.answer(asked(i))).value for i in (0, 1)] == [{"ms": 0}, {"ms": 1}]
    assert answerer.mismatch is None
    assert answerer.served == 2


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (asked(0, op="random.bytes"), "replay.arguments"),
        (asked(0, args={"n": 1}), "replay.arguments"),
        (asked(0, fuel=101), "replay.result"),
        (asked(1), "replay.missing"),
    ],
    ids=["another op", "other arguments", "other fuel", "one call too many"],
)
async def test_the_first_difference_is_kept_and_nothing_is_served_after_it(call: HostCall, code: str) -> None:
    answerer = RecordedAnswerer([delivered(0)], BLOBS.__getitem__)
    refused = await answerer.answer(call)
    assert not refused.ok
    assert refused.value["code"] == code
    assert answerer.mismatch is not None
    assert answerer.mismatch.code == code
    assert not (await answerer.answer(asked(0))).ok
    assert answerer.served == 0


async def test_an_attempt_taken_up_again_hears_the_record_first_and_then_the_gate() -> None:
    live = Live()
    answerer = ResumingAnswerer(lambda: [delivered(0)], BLOBS.__getitem__, live)
    values = [(await answerer.answer(asked(i))).value for i in (0, 1, 2)]
    assert values == [{"ms": 0}, "live", "live"]
    assert live.calls == [1, 2]


async def test_an_attempt_that_left_its_record_reaches_the_gate_no_more() -> None:
    live = Live()
    answerer = ResumingAnswerer(lambda: [delivered(0)], BLOBS.__getitem__, live)
    await answerer.answer(asked(0, args={"n": 9}))
    assert not (await answerer.answer(asked(1))).ok
    assert live.calls == []


def test_the_record_of_an_attempt_ends_at_its_first_gap() -> None:
    events = [event(n, delivered(index)) for n, index in enumerate((1, 0, 3), start=1)]
    assert [call.call for call in recorded_calls(events, "a", 1)] == [0, 1]
    assert recorded_calls(events, "a", 2) == ()
    assert recorded_calls(events, "b", 1) == ()


async def test_an_attempt_that_starts_again_hears_what_was_answered_meanwhile_and_asks_nothing_twice() -> (
    None
):
    live = Live()
    ledger: list[HostcallDelivered] = []
    answerer = ResumingAnswerer(lambda: tuple(ledger), BLOBS.__getitem__, live)
    assert (await answerer.answer(asked(0))).value == "live"
    ledger.append(delivered(0, result="live"))
    await answerer.rewind()
    assert (await answerer.answer(asked(0))).value == "live"
    assert (await answerer.answer(asked(1))).value == "live"
    assert live.calls == [0, 1]


async def test_an_attempt_that_left_its_record_stays_cut_off_when_it_starts_again() -> None:
    live = Live()
    answerer = ResumingAnswerer(lambda: [delivered(0)], BLOBS.__getitem__, live)
    assert not (await answerer.answer(asked(0, "random.bytes"))).ok
    await answerer.rewind()
    assert not (await answerer.answer(asked(1))).ok
    assert live.calls == []


async def test_a_replay_serves_its_record_again_to_a_guest_whose_worker_was_lost() -> None:
    answerer = RecordedAnswerer([delivered(0)], BLOBS.__getitem__)
    first = await answerer.answer(asked(0))
    await answerer.rewind()
    assert await answerer.answer(asked(0)) == first
    assert (answerer.served, answerer.mismatch) == (1, None)
