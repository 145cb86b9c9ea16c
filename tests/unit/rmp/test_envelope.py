"""Bodies: what is written can be read, what is bounded stays bounded."""

from __future__ import annotations

from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.rmp import envelope as env
from runloop.rmp import payloads, topics
from runloop.rmp.envelope import decode_envelope, decode_value, encode_envelope, encode_message, open_frame
from runloop.rmp.frame import BodyDecodeError, BodyTypeMismatch, UnknownSchema, decode_frame
from runloop.rmp.registry import IDS, TYPES

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5), inner, max_size=20),
    max_leaves=60,
)


@given(values)
def test_what_is_written_is_read(payload: Any) -> None:
    assert decode_envelope(encode_envelope("a.b.v1", payload, {"topic": "a", "x": payload})) == (
        "a.b.v1",
        payload,
        {"topic": "a", "x": payload},
    )


@given(values)
def test_two_libraries_write_the_same_bytes(payload: Any) -> None:
    body = {"type": "a.b.v1", "payload": payload}
    assert msgpack.packb(body) == msgspec.msgpack.encode(body)


@given(st.binary(max_size=200))
def test_garbage_is_refused_by_its_name(data: bytes) -> None:
    for read in (decode_envelope, decode_value):
        try:
            read(data)
        except BodyDecodeError:
            continue


@given(values, st.data())
def test_the_walk_agrees_with_the_decoder_on_every_truncation(payload: Any, data: st.DataObject) -> None:
    packed = msgpack.packb(payload)
    env._walk(packed)
    short = packed[: data.draw(st.integers(0, len(packed) - 1))]
    with pytest.raises(BodyDecodeError):
        env._walk(short)


def nested(depth: int) -> Any:
    value: Any = None
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    return value


def test_the_body_itself_counts_as_one_level_of_64() -> None:
    encode_envelope("a.b.v1", nested(63))
    with pytest.raises(BodyDecodeError, match="deeper than 64"):
        encode_envelope("a.b.v1", nested(64))


def test_a_body_of_more_values_than_anyone_needs_is_refused_in_bounded_time() -> None:
    many = b"\xdd" + (1_000_000).to_bytes(4, "big") + b"\x90" * 1_000_000
    with pytest.raises(BodyDecodeError, match="more than 262144 values"):
        decode_value(many)


def test_a_long_list_of_numbers_is_no_abuse() -> None:
    assert decode_value(msgpack.packb([1] * 300_000)) == [1] * 300_000


@pytest.mark.parametrize("payload", [{1, 2}, object(), 2**64, -(2**63) - 1, "\ud800"])
def test_what_messagepack_cannot_hold_is_refused_when_written(payload: Any) -> None:
    with pytest.raises(BodyDecodeError):
        encode_envelope("a.b.v1", payload)


@pytest.mark.parametrize(
    "meta",
    [
        {"topic": 1},
        {"topic": "x" * 1025},
        {"priority": 256},
        {"priority": True},
        {"max_hops": -1},
        {"tags": "a"},
        {"tags": [1]},
        {"opening_id": b"short"},
        {"opening_id": -1},
        {"receipt": 1},
    ],
)
def test_known_keys_of_meta_keep_their_type(meta: dict[str, Any]) -> None:
    with pytest.raises(BodyDecodeError):
        encode_envelope("a.b.v1", 1, meta)


def test_a_message_is_a_whole_frame_with_its_topic_in_meta() -> None:
    data = encode_message(
        "intent.generic.v1", [1], msg_id=7, now_ms=5, topic="a/b", meta={"tags": ["x"]}, trace_id=9, ttl_ms=3
    )
    frame = decode_frame(data)
    assert (frame.schema_id, frame.msg_id, frame.created_at_ms, frame.trace_id, frame.ttl_ms) == (
        2,
        7,
        5,
        9,
        3,
    )
    opened = open_frame(frame)
    assert (opened.topic, opened.meta["tags"], opened.payload) == ("a/b", ["x"], [1])


def test_a_type_that_is_not_registered_cannot_be_sent() -> None:
    with pytest.raises(UnknownSchema):
        encode_message("intent.mine.v1", 1, msg_id=1, now_ms=1)


def test_the_type_must_be_the_one_of_the_schema_id() -> None:
    envelope = decode_envelope(encode_envelope("intent.generic.v1", 1))
    env.check_type(2, envelope)
    with pytest.raises(BodyTypeMismatch):
        env.check_type(1, envelope)
    with pytest.raises(UnknownSchema):
        env.check_schema(99)


def test_every_payload_type_belongs_to_a_registered_schema_and_survives_the_wire() -> None:
    decision = payloads.ActionDecision(approval="a", action_digest="0" * 64, decision="deny")
    type, plain = payloads.write(decision)
    assert IDS[type] == 3006
    assert payloads.read(payloads.ActionDecision, decode_value(msgpack.packb(plain))) == decision
    assert set(payloads.PAYLOADS) <= set(TYPES)
    hello = payloads.RuntimeHello(protocol=0, build="b", session="s", nonce=b"n")
    assert payloads.write(hello) == (
        "observation.runtime.hello.v1",
        {"protocol": 0, "build": "b", "session": "s", "nonce": b"n"},
    )
    with pytest.raises(TypeError):
        payloads.write(payloads.Delta(node="n", kind="k", text="t"))


def test_a_payload_of_another_shape_is_refused_with_the_field() -> None:
    with pytest.raises(BodyDecodeError, match=r"decision"):
        payloads.read(payloads.ActionDecision, {"approval": "a", "action_digest": "0", "decision": "maybe"})


@pytest.mark.parametrize("text", ["a", "agent/writer", "rlp/runs/0b7c-1/events", "x" * 255])
def test_a_topic_is_segments_of_plain_characters(text: str) -> None:
    assert topics.topic(text) == text


@pytest.mark.requirement("B7", "I2.wire.5")
@pytest.mark.parametrize(
    "text", ["", "/a", "a/", "a//b", "a b", "a\n", "a/*", "*", "\x1b[0m", "é", "x" * 256]
)
def test_a_topic_with_anything_else_is_refused(text: str) -> None:
    with pytest.raises(topics.UsageError):
        topics.topic(text)


@pytest.mark.parametrize("text", ["a/*/b", "**", "a*", "/*", ""])
def test_a_star_is_the_last_segment_or_nothing(text: str) -> None:
    with pytest.raises(topics.UsageError):
        topics.pattern(text)


@pytest.mark.requirement("I2.wire.5")
def test_a_star_stands_for_anything_strictly_below() -> None:
    assert topics.matches("a/*", "a/b") and topics.matches("a/*", "a/b/c") and topics.matches("*", "a")
    assert (
        not topics.matches("a/*", "a")
        and not topics.matches("a/*", "ab/c")
        and not topics.matches("a", "a/b")
    )


def test_the_system_s_topics_are_built_from_parsed_names() -> None:
    assert topics.run_events("r") == "rlp/runs/r/events"
    assert topics.run_reply("r", "draft", 2) == "rlp/runs/r/replies/draft/2"
    assert topics.agent("writer") == "agent/writer"
    for hostile in ("x\ny", "x\x1b", "*"):
        with pytest.raises(topics.UsageError):
            topics.agent(hostile)
