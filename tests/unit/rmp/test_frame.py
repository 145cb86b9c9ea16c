"""The frame reader: every cut of the stream, every bound, nothing buffered that will be refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.errors import UsageError
from runloop.rmp import frame as wire
from runloop.rmp.frame import Frame, FrameReader, decode_frame, encode_frame

U64 = 2**64 - 1


def make(body: bytes = b"body", **fields: int) -> bytes:
    header = {"schema_id": 1, "created_at_ms": 1, "msg_id": 1, **fields}
    return encode_frame(body=body, **header)  # type: ignore[arg-type]


frames = st.builds(
    Frame,
    st.integers(1, 0xFFFF),
    st.integers(0, 2**63),
    st.integers(1, 2**62),
    st.integers(0, 2**128 - 1),
    st.integers(0, U64),
    st.binary(max_size=200),
)


@pytest.mark.requirement("I2.wire.1")
@given(st.lists(frames, max_size=5), st.integers(1, 300))
def test_frames_survive_any_cut_of_the_stream(sent: list[Frame], size: int) -> None:
    stream = b"".join(encode_frame(**one._asdict()) for one in sent)
    reader = FrameReader()
    got = [one for at in range(0, len(stream), size) for one in reader.feed(stream[at : at + size])]
    assert got == sent
    assert (reader.pending, reader.error) == (0, None)
    reader.close()


@pytest.mark.requirement("B4", "I2.wire.1")
@given(st.binary(max_size=300))
def test_garbage_is_refused_by_name_or_waited_for(data: bytes) -> None:
    try:
        decode_frame(data)
    except wire.WireError as error:
        assert isinstance(error, wire.NAMED_ERRORS)


@pytest.mark.requirement("B4")
@given(frames, st.data())
def test_one_flipped_bit_never_escapes_as_another_exception(sent: Frame, data: st.DataObject) -> None:
    broken = bytearray(encode_frame(**sent._asdict()))
    bit = data.draw(st.integers(0, len(broken) * 8 - 1))
    broken[bit // 8] ^= 1 << bit % 8
    try:
        decode_frame(bytes(broken))
    except wire.WireError as error:
        assert isinstance(error, wire.NAMED_ERRORS)


@pytest.mark.requirement("B4")
def test_the_cap_is_judged_by_the_prefix_before_a_body_byte_is_held() -> None:
    reader = FrameReader(max_body=10)
    with pytest.raises(wire.BodyTooLarge):
        reader.feed((64 + 11).to_bytes(4, "big"))
    assert reader.pending == 0


def test_a_bad_header_is_judged_before_its_body_arrives() -> None:
    whole = bytearray(make(b"x" * 1000))
    whole[4] = ord("X")
    reader = FrameReader()
    assert reader.feed(bytes(whole[:67])) == []
    with pytest.raises(wire.InvalidMagic):
        reader.feed(bytes(whole[67:68]))


def test_frames_before_a_broken_one_are_returned_and_the_refusal_waits() -> None:
    reader = FrameReader()
    assert len(reader.feed(make() + b"\0\0\0\0")) == 1
    assert isinstance(reader.error, wire.TruncatedHeader)
    with pytest.raises(wire.TruncatedHeader):
        reader.feed(make())
    reader.close()


def test_a_reader_says_how_much_it_lacks() -> None:
    reader = FrameReader()
    whole = make(b"x" * 100)
    assert reader.missing == 4
    reader.feed(whole[:4])
    assert reader.missing == 64
    reader.feed(whole[4:70])
    assert (reader.missing, reader.pending) == (len(whole) - 70, 70)


def test_two_frames_are_not_one() -> None:
    with pytest.raises(wire.LengthMismatch):
        decode_frame(make() + make())
    with pytest.raises(wire.LengthMismatch):
        decode_frame(make() + b"\0")


@pytest.mark.requirement("I2.wire.5")
def test_a_frame_is_dead_at_the_very_millisecond_of_its_expiry() -> None:
    frame = decode_frame(make(created_at_ms=100, ttl_ms=10))
    frame.check_expiry(109)
    assert (frame.expires_at_ms, frame.size) == (110, 72)
    with pytest.raises(wire.Expired):
        frame.check_expiry(110)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"schema_id": 0}, wire.UnknownSchema),
        ({"schema_id": 65_536}, wire.UnknownSchema),
        ({"ttl_ms": 0}, wire.InvalidTtl),
        ({"created_at_ms": U64, "ttl_ms": 1}, wire.InvalidExpiry),
        ({"max_body": 3}, wire.BodyTooLarge),
        ({"trace_id": 2**128}, UsageError),
        ({"msg_id": -1}, UsageError),
        ({"created_at_ms": -1}, UsageError),
    ],
)
def test_a_writer_refuses_what_a_reader_would(fields: dict[str, int], error: type[Exception]) -> None:
    with pytest.raises(error):
        make(**fields)


def test_every_refusal_says_what_it_is_called_and_has_its_own_code() -> None:
    codes = {error.code for error in wire.NAMED_ERRORS}
    assert len(codes) == len(wire.NAMED_ERRORS) == 14
    assert wire.Duplicate("again").name == "Duplicate"
