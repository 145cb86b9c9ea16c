"""The frame on the byte stream: ``u32 length · 64-byte header · body`` (spec/rmp.md).

Knows: where a frame starts and ends, which header is legal, how each refusal is called. Does not know: what
is in the body (``envelope``), what time it is (the caller compares), who sent it (the bus).

Checks happen as early as their bytes are there, in this order, so that every implementation names the same
mistake alike: length prefix below 64 (TruncatedHeader) or above the cap (BodyTooLarge), magic, version,
header length, flags and reserved fields, body length, schema 0, ttl 0, expiry beyond u64.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, NoReturn

from runloop.errors import UsageError

__all__ = [
    "DEFAULT_TTL_MS",
    "HEADER_LEN",
    "MAGIC",
    "MAX_BODY",
    "NAMED_ERRORS",
    "PREFIX_LEN",
    "BodyDecodeError",
    "BodyTooLarge",
    "BodyTypeMismatch",
    "Duplicate",
    "Expired",
    "Frame",
    "FrameReader",
    "Incomplete",
    "InvalidExpiry",
    "InvalidHeaderFlags",
    "InvalidMagic",
    "InvalidTtl",
    "LengthMismatch",
    "TruncatedHeader",
    "UnknownSchema",
    "UnsupportedVersion",
    "WireError",
    "decode_frame",
    "encode_frame",
]

MAGIC = b"RMP0"
HEADER_LEN = 64
PREFIX_LEN = 4
MAX_BODY = 8 * 1024 * 1024
"""Largest body accepted by default, in bytes."""
DEFAULT_TTL_MS = 30_000

_U64 = 2**64 - 1
_WHOLE = PREFIX_LEN + HEADER_LEN
_PREFIX = struct.Struct(">I")
# Length prefix and header in one unpack; magic, version and header_len are one integer to compare, trace_id
# and msg_id one 24-byte key for the duplicate check (lab/bus-store.md, "one unpack per frame").
_SCAN = struct.Struct(">IQIHHIQQ24sI")
_HEAD = int.from_bytes(MAGIC + b"\x00\x00\x00\x40", "big")

Scanned = tuple[int, int, int, int, int, int, int, int, bytes, int]
"""frame_len, magic·version·len, flags, schema_id, reserved, body_len, created, ttl, trace·msg, reserved."""


class WireError(UsageError):
    """A frame or a body that the protocol refuses. ``name`` is its name in every language."""

    code = "wire"

    @property
    def name(self) -> str:
        return type(self).__name__


class InvalidMagic(WireError):
    """The header does not begin with ``RMP0``: the other side speaks something else."""

    code = "wire.invalid_magic"


class UnsupportedVersion(WireError):
    """A header version this build does not know."""

    code = "wire.unsupported_version"


class TruncatedHeader(WireError):
    """The length prefix promises less than a header, or the stream ended inside one."""

    code = "wire.truncated_header"


class InvalidHeaderFlags(WireError):
    """Flags or a reserved field are not zero."""

    code = "wire.invalid_header_flags"


class LengthMismatch(WireError):
    """Two lengths of one frame contradict each other."""

    code = "wire.length_mismatch"


class UnknownSchema(WireError):
    """A schema id or type that is not in the registry."""

    code = "wire.unknown_schema"


class BodyTooLarge(WireError):
    """The length prefix promises more than the cap. Nothing of it was buffered."""

    code = "wire.body_too_large"


class InvalidTtl(WireError):
    """A time to live of 0."""

    code = "wire.invalid_ttl"


class InvalidExpiry(WireError):
    """``created_at_ms + ttl_ms`` does not fit in 64 bits."""

    code = "wire.invalid_expiry"


class Expired(WireError):
    """The frame's time to live is over."""

    code = "wire.expired"


class Duplicate(WireError):
    """The same publisher already sent this trace and message id."""

    code = "wire.duplicate"


class BodyDecodeError(WireError):
    """The body is not a legal envelope."""

    code = "wire.body_decode"


class BodyTypeMismatch(WireError):
    """The body's type is not the one the header's schema id stands for."""

    code = "wire.body_type_mismatch"


class Incomplete(WireError):
    """Not an offence: the bytes end before the frame does. ``data['missing']`` tells how many lack."""

    code = "wire.incomplete"


NAMED_ERRORS: tuple[type[WireError], ...] = (
    InvalidMagic,
    UnsupportedVersion,
    TruncatedHeader,
    InvalidHeaderFlags,
    LengthMismatch,
    UnknownSchema,
    BodyTooLarge,
    InvalidTtl,
    InvalidExpiry,
    Expired,
    Duplicate,
    BodyDecodeError,
    BodyTypeMismatch,
    Incomplete,
)
"""Every refusal of spec/rmp.md, in its order."""


class Frame(NamedTuple):
    """One frame, header checked, body not looked at."""

    schema_id: int
    created_at_ms: int
    ttl_ms: int
    trace_id: int
    """128 bits; 0 for traffic that belongs to no run."""
    msg_id: int
    body: bytes

    @property
    def expires_at_ms(self) -> int:
        """Unix milliseconds; the frame is dead when ``now >= expires_at_ms``."""
        return self.created_at_ms + self.ttl_ms

    @property
    def size(self) -> int:
        """Bytes on the wire, length prefix included."""
        return _WHOLE + len(self.body)

    def check_expiry(self, now_ms: int) -> None:
        """Raise :class:`Expired` when the time to live is over."""
        if now_ms >= self.expires_at_ms:
            raise Expired(
                f"the frame expired at {self.expires_at_ms}, it is {now_ms}",
                hint="send it again, as a new frame",
            )


def encode_frame(
    *,
    schema_id: int,
    body: bytes,
    created_at_ms: int,
    msg_id: int,
    trace_id: int = 0,
    ttl_ms: int = DEFAULT_TTL_MS,
    max_body: int = MAX_BODY,
) -> bytes:
    """The bytes of one frame, length prefix included; refuses what a reader would refuse."""
    if len(body) > max_body:
        _too_large(len(body), max_body)
    if not 0 < schema_id <= 0xFFFF:
        raise UnknownSchema(f"schema id {schema_id} is not in 1..65535")
    _check_times(created_at_ms, ttl_ms)
    try:
        return (
            _SCAN.pack(
                HEADER_LEN + len(body),
                _HEAD,
                0,
                schema_id,
                0,
                len(body),
                created_at_ms,
                ttl_ms,
                trace_id.to_bytes(16, "big") + msg_id.to_bytes(8, "big"),
                0,
            )
            + body
        )
    except (struct.error, OverflowError) as error:
        raise UsageError(
            f"a header field is out of range (created {created_at_ms}, trace {trace_id}, msg {msg_id})",
            code="wire.header_field",
        ) from error


def decode_frame(data: bytes, *, max_body: int = MAX_BODY) -> Frame:
    """Read exactly one frame; raises the named error, :class:`Incomplete` when bytes are missing."""
    reader = FrameReader(max_body=max_body)
    frames = reader.feed(data)
    if reader.error is not None:
        raise reader.error
    if not frames:
        raise Incomplete(f"{len(data)} bytes, at least {reader.missing} more needed", missing=reader.missing)
    if len(frames) > 1 or reader.pending:
        raise LengthMismatch(f"{len(data)} bytes hold more than one frame")
    return frames[0]


class FrameReader:
    """Cuts a byte stream into frames. No I/O, no clock; one instance per connection and direction.

    When legal frames precede a broken one in the same bytes, they are returned and the refusal waits in
    :attr:`error`; the next :meth:`feed` raises it. What a peer sends is therefore judged alike however the
    kernel happens to cut the stream.
    """

    __slots__ = ("_need", "_tail", "error", "max_frame")

    def __init__(self, *, max_body: int = MAX_BODY) -> None:
        self.max_frame = HEADER_LEN + max_body
        """Largest header and body together, in bytes."""
        self._tail = bytearray()
        self._need = PREFIX_LEN
        self.error: WireError | None = None
        """The refusal that ended this stream, if any."""

    @property
    def pending(self) -> int:
        """Bytes held of a frame that is not complete."""
        return len(self._tail)

    @property
    def missing(self) -> int:
        """How many more bytes are known to be needed before anything can be returned."""
        return self._need - len(self._tail)

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that ``data`` completes, oldest first; raise the named error of a broken one."""
        buffer, headers = self.scan(data)
        if not headers and self.error is not None:
            raise self.error
        frames = []
        at = _WHOLE
        for frame_len, _, _, schema_id, _, _, created, ttl, key, _ in headers:
            end = at + frame_len - HEADER_LEN
            frames.append(
                Frame(
                    schema_id,
                    created,
                    ttl,
                    int.from_bytes(key[:16], "big"),
                    int.from_bytes(key[16:], "big"),
                    buffer[at:end],
                )
            )
            at = end + _WHOLE
        return frames

    def scan(self, data: bytes) -> tuple[bytes, list[Scanned]]:
        """The fast face of :meth:`feed`: the buffer and one unpacked header per complete frame in it.

        The first frame begins at offset 0, each next one ``4 + frame_len`` bytes further. Never raises: see
        :attr:`error` after the frames were used.
        """
        buffer = self.join(data)
        headers: list[Scanned] = []
        at, size = 0, len(buffer)
        while at < size and (header := self.next(buffer, at)) is not None:
            headers.append(header)
            at += PREFIX_LEN + header[0]
        return buffer, headers

    def join(self, data: bytes) -> bytes:
        """The bytes not used yet, ``data`` at their end; none while a begun frame is known to lack some."""
        if self.error is not None:
            return b""
        if not self._tail:
            return data
        if len(self._tail) + len(data) < self._need:
            self._tail += data
            return b""
        joined = b"".join((self._tail, data))
        self._tail.clear()
        self._need = PREFIX_LEN
        return joined

    def next(self, buffer: bytes, at: int) -> Scanned | None:
        """The header of the whole frame at ``at`` of what :meth:`join` returned.

        None when there is none: what is left was kept for the next time, or refused (:attr:`error`).
        """
        size = len(buffer)
        try:
            if size - at >= _WHOLE:
                header: Scanned = _SCAN.unpack_from(buffer, at)
                frame_len, head, flags, schema_id, reserved, body_len, created, ttl, _, tail = header
                if (
                    head != _HEAD
                    or flags
                    or reserved
                    or tail
                    or not schema_id
                    or not ttl
                    or body_len != frame_len - HEADER_LEN
                    or frame_len > self.max_frame
                    or created + ttl > _U64
                ):
                    _refuse(header, self.max_frame)
                if frame_len + PREFIX_LEN <= size - at:
                    return header
                self._need = frame_len + PREFIX_LEN
            else:
                self._need = self._check_prefix(buffer, at) if size - at >= PREFIX_LEN else PREFIX_LEN
        except WireError as error:
            self.error = error
            return None
        self._tail += buffer[at:]
        return None

    def close(self) -> None:
        """Tell that the stream ended; raises TruncatedHeader or Incomplete inside a frame."""
        held = len(self._tail)
        if self.error is not None or not held:
            return
        if held < _WHOLE:
            raise TruncatedHeader(f"the stream ended {held} bytes into a frame's header")
        raise Incomplete(f"the stream ended {self.missing} bytes before its last frame", missing=self.missing)

    def _check_prefix(self, data: bytes, at: int) -> int:
        """Judge a length prefix whose header is not there yet; return how many bytes to wait for."""
        (frame_len,) = _PREFIX.unpack_from(data, at)
        _check_length(frame_len, self.max_frame)
        return _WHOLE  # the header is judged before its body is waited for


def _check_length(frame_len: int, max_frame: int) -> None:
    if frame_len < HEADER_LEN:
        raise TruncatedHeader(f"the length prefix says {frame_len}, a header alone has {HEADER_LEN} bytes")
    if frame_len > max_frame:
        _too_large(frame_len - HEADER_LEN, max_frame - HEADER_LEN)


def _too_large(body_len: int, max_body: int) -> NoReturn:
    raise BodyTooLarge(
        f"a body of {body_len} bytes, at most {max_body} are allowed",
        hint="put large content into an artifact and send its digest",
    )


def _check_times(created: int, ttl: int) -> None:
    if ttl == 0:
        raise InvalidTtl("a time to live of 0", hint=f"the default is {DEFAULT_TTL_MS} ms")
    if created + ttl > _U64:
        raise InvalidExpiry(f"created_at_ms {created} + ttl_ms {ttl} does not fit in 64 bits")


def _refuse(header: Scanned, max_frame: int) -> NoReturn:
    """Name what is wrong with a header, in the order of the module's docstring."""
    frame_len, head, flags, schema_id, reserved, body_len, created, ttl, _, tail = header
    _check_length(frame_len, max_frame)
    magic, version, header_len = head >> 32, head >> 16 & 0xFFFF, head & 0xFFFF
    if magic != _HEAD >> 32:
        raise InvalidMagic(
            f"the header begins with {magic:08x}, not with 'RMP0'", hint="is this Runloop's socket?"
        )
    if version != 0:
        raise UnsupportedVersion(
            f"header version {version}, this build knows 0", hint="upgrade the older side"
        )
    if header_len != HEADER_LEN:
        raise LengthMismatch(f"the header says it has {header_len} bytes, version 0 has {HEADER_LEN}")
    if flags or reserved or tail:
        raise InvalidHeaderFlags(f"flags {flags:#x} and reserved {reserved:#x}, {tail:#x} must be 0")
    if body_len != frame_len - HEADER_LEN:
        raise LengthMismatch(f"body_len says {body_len}, the length prefix {frame_len - HEADER_LEN}")
    if schema_id == 0:
        raise UnknownSchema("schema id 0 is never valid")
    _check_times(created, ttl)
    raise AssertionError("a legal header was refused")
