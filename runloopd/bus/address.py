"""Where the body of a frame wants to go: topic, reply_to and receipt, the whole body checked on the way.

Knows: which bodies are legal, and what of them may be remembered. Does not know: who may publish there.

Addresses repeat while payloads change, so what was once read from a ``meta`` is remembered by its very
bytes, together with the bytes before the payload: these prove the order of keys, the type, and its agreement
with the schema id. Then only the payload has to be looked at. Everything else is decoded in full; both agree.
"""

from __future__ import annotations

from typing import NamedTuple, NoReturn

import msgpack  # type: ignore[import-untyped]
import msgspec

from runloop.errors import UsageError
from runloop.rmp.envelope import check_type, decode_envelope
from runloop.rmp.registry import TYPES

__all__ = [
    "FRONTS",
    "MEMO_BYTES",
    "STAMPS",
    "TEXTS",
    "Address",
    "AddressBook",
    "after_payload",
    "content_of",
    "read_slowly",
]

STAMPS = frozenset(("consumer", "publisher", "seq"))
"""Keys of ``meta`` that the daemon sets on durable topics. Nobody else may, on any topic: whoever receives
them must be able to believe them."""

FRONTS: dict[int, bytes] = {
    number: number.to_bytes(2, "big") + b"\x83" + msgspec.msgpack.encode({"type": name, "payload": 0})[1:-1]
    for number, name in TYPES.items()
}
"""By schema id: its two bytes, then everything of a body before the payload."""
MEMO_BYTES = 160
"""Longest ``meta`` remembered; longer ones carry what changes every time."""
_UNREPEATED = frozenset(("correlation", "traceparent"))
_MAX_BOOK = 4_096

_CONTAINERS = bytes([*range(0x80, 0xA0), *range(0xDC, 0xE0)])
_EXTENSIONS = bytes([0xC1, 0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9)])
_HARMLESS = bytes(set(range(256)) - set(_CONTAINERS + _EXTENSIONS))
_MAX_HEADS = 60
_MAX_SMALL = 4_096


class Address(NamedTuple):
    topic: str
    reply_to: str | None
    receipt: bool


class AddressBook:
    """Reads addresses, and remembers those that may come again."""

    def __init__(self) -> None:
        self._known: dict[bytes, Address] = {}

    def read(self, number: int, body: bytes) -> tuple[Address, bytes | None]:
        """The address, and the bytes it may be known by the next time; raises what is wrong with the body."""
        front = FRONTS.get(number)
        if front is None or not body.startswith(front[2:]):
            return read_slowly(number, body)[0], None
        meta = after_payload(body, len(front) - 2, len(body))
        if meta < 0 or len(body) - meta > MEMO_BYTES:
            return read_slowly(number, body)[0], None
        memo = front + body[meta:]
        known = self._known.get(memo)
        if known is not None:
            return known, memo
        known, repeats = read_slowly(number, body)
        if not repeats:
            return known, None
        if len(self._known) >= _MAX_BOOK:
            self._known.clear()
        self._known[memo] = known
        return known, memo


def read_slowly(number: int, body: bytes) -> tuple[Address, bool]:
    """The address by way of a full decode, and whether it may well come again."""
    envelope = decode_envelope(body)
    check_type(number, envelope)
    meta = envelope.meta
    if "topic" not in meta:
        raise UsageError("the frame names no topic", hint="put it into meta.topic", code="bus.topic")
    if not STAMPS.isdisjoint(meta):
        raise UsageError(
            f"the daemon alone sets {', '.join(sorted(STAMPS))} of meta",
            hint="leave them out",
            code="bus.meta",
        )
    address = Address(meta["topic"], meta.get("reply_to"), meta.get("receipt", False))
    return address, _UNREPEATED.isdisjoint(meta)


class _Split(msgspec.Struct, array_like=True, gc=False):
    """Enough to know where the payload ends; nothing is built."""

    payload: msgspec.Raw


_SPLIT = msgspec.msgpack.Decoder(_Split).decode
_DECODE = msgspec.msgpack.Decoder().decode


def _scalars() -> tuple[tuple[int, int, bool] | None, ...]:
    found: dict[int, tuple[int, int, bool]] = {}
    found.update((head, (1, 0, False)) for head in (*range(0x80), *range(0xE0, 0x100), 0xC0, 0xC2, 0xC3))
    found.update((0xCC + n, (1, 1 << (n & 3), False)) for n in range(8))
    found.update({0xCA: (1, 4, False), 0xCB: (1, 8, False)})
    found.update((0xA0 + size, (1, size, True)) for size in range(32))
    for n in range(3):
        found[0xC4 + n], found[0xD9 + n] = (1 + (1 << n), -1, False), (1 + (1 << n), -1, True)
    return tuple(found.get(head) for head in range(256))


_SCALARS = _scalars()
"""By first byte: bytes before the content, bytes of it (-1: told before it), whether it is a text."""
TEXTS = frozenset(head for head, scalar in enumerate(_SCALARS) if scalar is not None and scalar[2])


def after_payload(buffer: bytes, at: int, end: int) -> int:
    """Where the payload that begins at ``at`` ends; -1 when it is not surely legal.

    ``end`` is where the body does. The result may lie beyond it: what is found there is then no ``meta``.
    """
    if at >= end:
        return -1
    scalar = _SCALARS[buffer[at]]
    if scalar is None:
        return _after_container(buffer, at, end)
    before, size, is_text = scalar
    start = at + before
    stop = start + (size if size >= 0 else int.from_bytes(buffer[at + 1 : start], "big"))
    return -1 if is_text and not _is_utf8(buffer[start:stop]) else stop


def content_of(buffer: bytes, at: int) -> int:
    """Where the content of a checked scalar payload begins, behind its head and length; -1 in a container."""
    scalar = _SCALARS[buffer[at]]
    return -1 if scalar is None else at + scalar[0]


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _after_container(buffer: bytes, at: int, end: int) -> int:
    """Step over the container, and have it decoded; nesting is counted only if bytes look like much of it."""
    try:
        payload = bytes(_SPLIT(b"\x93" + buffer[at:end]).payload)  # the body's rest: payload, "meta", its map
        heads = payload.translate(None, _HARMLESS)
        if len(heads) == 1 and heads in _CONTAINERS:
            _DECODE(payload)  # but for containers as keys and for extensions it agrees with msgpack
            return at + len(payload)
        value = msgpack.unpackb(payload, raw=False, strict_map_key=False, max_ext_len=0, ext_hook=_no_ext)
    except (ValueError, TypeError, RecursionError, msgspec.MsgspecError, msgpack.UnpackException):
        return -1
    return at + len(payload) if len(heads) <= _MAX_HEADS or _is_small(value) else -1


def _is_small(value: object) -> bool:
    """Whether it has at most some values, at most 60 deep: the body's own limits are not near."""
    level = [value]
    seen = 0
    for _ in range(_MAX_HEADS):
        inner: list[object] = []
        for one in level:
            if type(one) is dict:
                inner += one.values()
                seen += len(one)
            elif type(one) is list:
                inner += one
        if not inner:
            return True
        seen += len(inner)
        if seen > _MAX_SMALL:
            return False
        level = inner
    return False


def _no_ext(code: int, data: bytes) -> NoReturn:
    raise ValueError("extension types are not allowed")
