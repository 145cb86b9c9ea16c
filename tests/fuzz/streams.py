"""Bytes into streams of nearly legal frames, and the verdict that every way of reading must agree on.

Knows: how to make a stream from a fuzzer's bytes, what must hold of a reader whatever arrives. Does not know:
which fuzzer drives it (``fuzz_frames`` and the tests do).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress

from runloop.errors import RunloopError
from runloop.rmp.envelope import open_frame
from runloop.rmp.frame import HEADER_LEN, PREFIX_LEN, Frame, FrameReader, WireError, encode_frame

__all__ = ["MAX_BODY", "Verdict", "judge", "stream"]

MAX_BODY = 4_096
"""Small, so that lengths around the cap are met often."""
_WHOLE = PREFIX_LEN + HEADER_LEN
_HEADER = struct.Struct(">I4sHHIHHIQQ16sQI")
_BODIES = (
    b"\x82\xa4type\xb6observation.generic.v1\xa7payload\x01",
    b"\x83\xa4type\xb6observation.generic.v1\xa7payload\xc4\x02hi\xa4meta\x81\xa5topic\xa3a/b",
    b"\x83\xa4type\xb6observation.generic.v1\xa7payload\x81\xa1k\x91\xc0\xa4meta\x82\xa5topic\xa1t\xa8reply_to\xa1r",
    b"\x82\xa4type\xaeintent.init.v1\xa7payload\x80",
    b"",
)
_FIELDS = (
    (0, 4),
    (4, 4),
    (8, 2),
    (10, 2),
    (12, 4),
    (16, 2),
    (18, 2),
    (20, 4),
    (24, 8),
    (32, 8),
    (40, 24),
    (64, 4),
)
"""Offset and length of what one mutation may change: the prefix, every field of the header."""


class Verdict:
    """What one reader made of a stream."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.error: str | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Verdict) and (self.frames, self.error) == (other.frames, other.error)

    __hash__ = None  # type: ignore[assignment]


def stream(seed: bytes) -> bytes:
    """Frames one after another, most of them legal; each byte of ``seed`` chooses or spoils something."""
    made = []
    choices = iter(seed)
    for number, choice in enumerate(choices, 1):
        body = _BODIES[choice % len(_BODIES)]
        if choice & 0x40:
            body = _spoilt(body, choices)
        frame = bytearray(
            encode_frame(
                schema_id=1 + (choice >> 3 & 1) * 101,
                body=body,
                created_at_ms=1_000_000,
                msg_id=number,
                ttl_ms=30_000,
                max_body=MAX_BODY,
            )
        )
        if choice & 0x80:
            at, length = _FIELDS[next(choices, 0) % len(_FIELDS)]
            where = at + next(choices, 0) % length
            if where < len(frame):
                frame[where] = next(choices, 0)
        made.append(bytes(frame))
    return b"".join(made)


def judge(data: bytes, cuts: bytes) -> int:
    """Read ``data`` in every way there is and compare; return how many frames were judged.

    Raises AssertionError where two ways disagree, where a refusal has no name, or where the reader keeps
    more than one frame may have.
    """
    whole = _read([data])
    assert _read(list(_chunks(data, cuts))) == whole, "chunks change what is read"
    assert _read_by_the_book(data) == whole, "the specification reads something else"
    for frame in whole.frames:
        try:
            open_frame(frame)
        except RunloopError as error:
            assert isinstance(error, WireError), f"{type(error).__name__} is no error of the wire"
            assert error.name
    return len(whole.frames) + (whole.error is not None)


def _read(chunks: list[bytes]) -> Verdict:
    reader, verdict = FrameReader(max_body=MAX_BODY), Verdict()
    for chunk in chunks:
        with suppress(WireError):  # it stays in reader.error, where it is looked for below
            verdict.frames += reader.feed(chunk)
        assert reader.pending <= MAX_BODY + _WHOLE, "the reader keeps more than one frame"
    error = reader.error
    if error is None:
        try:
            reader.close()
        except WireError as found:
            error = found
    verdict.error = None if error is None else error.name
    return verdict


def _read_by_the_book(data: bytes) -> Verdict:
    """The same bytes read by a second reader that shares no code with the first: spec/rmp.md's rules."""
    verdict, at = Verdict(), 0
    while at < len(data) and verdict.error is None:
        frame = data[at : at + _WHOLE]
        (length,) = struct.unpack(">I", frame[:4]) if len(frame) >= 4 else (HEADER_LEN,)
        verdict.error = _fault(length, frame, len(data) - at)
        if verdict.error is None:
            _, _, _, _, _, schema, _, _, created, ttl, trace, number, _ = _HEADER.unpack(frame)
            body = data[at + _WHOLE : at + PREFIX_LEN + length]
            verdict.frames.append(Frame(schema, created, ttl, int.from_bytes(trace, "big"), number, body))
        at += PREFIX_LEN + length
    return verdict


def _fault(length: int, frame: bytes, left: int) -> str | None:
    """The name of what is wrong with a frame, the rules in the order of the table."""
    if length < HEADER_LEN:
        return "TruncatedHeader"
    if length > HEADER_LEN + MAX_BODY:
        return "BodyTooLarge"
    if len(frame) < _WHOLE:
        return "TruncatedHeader"
    _, magic, version, header_len, flags, schema, reserved, body_len, created, ttl, _, _, tail = (
        _HEADER.unpack(frame)
    )
    rules = (
        (magic != b"RMP0", "InvalidMagic"),
        (version != 0, "UnsupportedVersion"),
        (header_len != HEADER_LEN, "LengthMismatch"),
        (flags or reserved or tail, "InvalidHeaderFlags"),
        (body_len != length - HEADER_LEN, "LengthMismatch"),
        (schema == 0, "UnknownSchema"),
        (ttl == 0, "InvalidTtl"),
        (created + ttl >= 2**64, "InvalidExpiry"),
        (left < PREFIX_LEN + length, "Incomplete"),
    )
    return next((name for broken, name in rules if broken), None)


def _chunks(data: bytes, cuts: bytes) -> Iterator[bytes]:
    at = 0
    for cut in cuts:
        yield data[at : at + cut + 1]
        at += cut + 1
    yield data[at:]


def _spoilt(body: bytes, choices: Iterator[int]) -> bytes:
    """The body with a byte changed, a tail cut off or something appended."""
    how, where, what = next(choices, 0), next(choices, 0), next(choices, 0)
    if not body or how % 3 == 0:
        return body + bytes([what]) * (where % 96)
    where %= len(body)
    return body[:where] if how % 3 == 1 else body[:where] + bytes([what]) + body[where + 1 :]
