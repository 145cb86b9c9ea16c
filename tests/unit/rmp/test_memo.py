"""What is remembered is what the long way makes and reads: the same bytes, values and refusals."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.errors import RunloopError
from runloop.rmp.envelope import check_type, decode_envelope, encode_envelope, encode_message
from runloop.rmp.frame import BodyDecodeError
from runloop.rmp.memo import Bodies, Frames

GENERIC = "observation.generic.v1"
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
METAS = st.fixed_dictionaries(
    {"topic": st.sampled_from(["a", "demo/b", "a\xa4meta"])},
    optional={
        "receipt": st.booleans(),
        "tags": st.lists(st.text(max_size=3), max_size=2),
        "correlation": st.text(max_size=5),
        "x": SCALARS | st.just(b"\xa4meta\x81\xa5topic\xa1a"),
    },
)
PAYLOADS = VALUES | st.just(b"\xa4meta\x81\xa5topic\xa1a") | st.just({"meta": {"topic": "a"}})


@given(st.lists(st.tuples(st.sampled_from(["a", "demo/b"]), PAYLOADS, st.booleans()), max_size=6))
def test_frames_are_byte_for_byte_those_of_the_long_way(publishes: list[tuple[str, Any, bool]]) -> None:
    frames = Frames()
    for number, (topic, payload, receipt) in enumerate(publishes, 1):
        numbers = {"msg_id": number, "now_ms": 5, "trace_id": number << 70, "ttl_ms": 9}
        meta = {"receipt": True} if receipt else None
        assert frames.encode(topic, GENERIC, payload, receipt=receipt, **numbers) == encode_message(
            GENERIC, payload, topic=topic, meta=meta, **numbers
        )


@given(st.lists(st.tuples(PAYLOADS, METAS), min_size=1, max_size=6), st.data())
def test_bodies_mean_what_the_long_way_says_also_when_they_are_bent(
    said: list[tuple[Any, dict[str, Any]]], data: st.DataObject
) -> None:
    bodies = Bodies()
    for payload, meta in said:
        body = encode_envelope(GENERIC, payload, meta)
        for _ in range(2):
            same(bodies, body)
        at = data.draw(st.integers(0, len(body) - 1))
        byte = bytes([data.draw(st.integers(0, 255))])
        other, shorter = body[:at] + byte + body[at + 1 :], body[:at] + body[at + 1 :]
        for bent in (other, shorter, body[:at] + body[at : at + 9] + body[at:]):
            same(bodies, bent)
        same(bodies, body)


def same(bodies: Bodies, body: bytes) -> None:
    def outcome(read: Any) -> Any:
        try:
            return repr(tuple(read()))  # not-a-number is no number, and not equal to itself
        except RunloopError as error:
            return type(error).__name__

    def long_way() -> Any:
        envelope = decode_envelope(body)
        check_type(1, envelope)
        return envelope

    assert outcome(lambda: bodies.open(1, body)) == outcome(long_way)


def test_what_a_reader_does_to_a_meta_changes_nobody_elses() -> None:
    bodies, body = Bodies(), encode_envelope(GENERIC, 1, {"topic": "a"})
    for _ in range(3):
        bodies.open(1, body)[2].clear()
    assert bodies.open(1, body)[2] == {"topic": "a"}


def test_a_payload_may_nest_as_deep_as_on_the_long_way_and_no_deeper() -> None:
    bodies = Bodies()
    bodies.open(1, encode_envelope(GENERIC, 1, {"topic": "a"}))
    tail = b"\xa4meta\x81\xa5topic\xa1a"
    front = b"\x83\xa4type" + b"\xb6" + GENERIC.encode() + b"\xa7payload"
    assert bodies.open(1, front + b"\x91" * 63 + b"\x01" + tail)[2] == {"topic": "a"}
    with pytest.raises(BodyDecodeError):
        bodies.open(1, front + b"\x91" * 64 + b"\x01" + tail)


def test_what_is_remembered_is_bounded() -> None:
    bodies, frames = Bodies(), Frames()
    for number in range(2_000):
        bodies.open(1, encode_envelope(GENERIC, 1, {"topic": f"t/{number}"}))
        frames.encode(f"t/{number}", GENERIC, 1, receipt=False, msg_id=1, now_ms=1, trace_id=0, ttl_ms=1)
    assert len(bodies._metas) <= 256
    assert len(frames._ends) <= 256


def test_the_checked_topic_is_the_one_that_is_sent() -> None:
    frame = encode_message(GENERIC, 1, msg_id=1, now_ms=1, topic="demo/a", meta={"topic": "agent/other"})
    assert decode_envelope(frame[68:]).meta == {"topic": "demo/a"}
