"""The body of a frame: a MessagePack map ``type``, ``payload``, optional ``meta``, in order (spec/rmp.md).

Knows: legal bodies, the typed keys of ``meta`` (the topic is one of them, docs/adr/0001), types against
schema ids. Does not know: what a payload means (``payloads``), where a topic leads (the bus). Uses the
``msgpack`` module alone, so that a command line pays 5 ms and not 26.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, NoReturn

import msgpack  # type: ignore[import-untyped]

from runloop.rmp.frame import (
    DEFAULT_TTL_MS,
    BodyDecodeError,
    BodyTypeMismatch,
    Frame,
    UnknownSchema,
    encode_frame,
)
from runloop.rmp.registry import FAMILIES, IDS, THIRD_PARTY, TYPES

__all__ = [
    "MAX_DEPTH",
    "MAX_VALUES",
    "Envelope",
    "check_schema",
    "check_structure",
    "check_type",
    "decode_envelope",
    "decode_value",
    "encode_envelope",
    "encode_message",
    "is_flat",
    "open_frame",
    "schema_id",
]

MAX_DEPTH = 64
"""Maps and arrays inside one another, the body's own map included."""
MAX_VALUES = 262_144
"""Values walked before a body is refused as abusive; reached only by bodies with more than 64 containers."""
MAX_META_TEXT = 1_024
"""Characters of a text in ``meta``."""

_CONTAINER_HEADS = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
_EXT_HEADS = bytes([0xC1, 0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9)])
_SUSPECT = frozenset(_CONTAINER_HEADS + _EXT_HEADS)
_NOT_CONTAINER = bytes(set(range(256)) - set(_CONTAINER_HEADS))
_NOT_EXT = bytes(set(range(256)) - set(_EXT_HEADS))
_TYPE = re.compile(r"([a-z]+)(\.[a-z][a-z0-9_]*)+\.v[1-9][0-9]*\Z")


class Envelope(NamedTuple):
    """A decoded body. Unknown keys of ``meta`` are kept."""

    type: str
    payload: Any
    meta: dict[str, Any]

    @property
    def topic(self) -> str | None:
        """Where the envelope is published to; None on traffic of the session itself."""
        return self.meta.get("topic")


def encode_envelope(type: str, payload: Any, meta: dict[str, Any] | None = None) -> bytes:
    """The body's bytes; raises :class:`BodyDecodeError` for what no reader would accept."""
    body = {"type": type, "payload": payload}
    if meta:
        _check_meta(meta)
        body["meta"] = meta
    try:
        packed: bytes = msgpack.packb(body, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise BodyDecodeError(
            f"{type}: not MessagePack: {error}", hint="use JSON values and bytes"
        ) from error
    check_structure(packed)
    return packed


def decode_envelope(body: bytes) -> Envelope:
    """Read a body; raises :class:`BodyDecodeError` unless it is exactly what the protocol describes."""
    value = decode_value(body)
    if type(value) is not dict:
        _refuse("the body is not a map")
    keys = list(value)
    if keys not in (["type", "payload"], ["type", "payload", "meta"]) or len(keys) != _map_len(body):
        _refuse("the keys of a body are type, payload and perhaps meta, once each and in this order")
    if type(value["type"]) is not str:
        _refuse("type is not a text")
    meta = value.get("meta", {})
    if type(meta) is not dict:
        _refuse("meta is not a map")
    _check_meta(meta)
    return Envelope(value["type"], value["payload"], meta)


def decode_value(data: bytes) -> Any:
    """Read one bounded MessagePack value (depth, extension types, trailing bytes are refused)."""
    check_structure(data)
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=False, max_ext_len=0, ext_hook=_no_ext)
    except BodyDecodeError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        # ValueError covers truncation, trailing bytes and bad UTF-8; TypeError a map as a key.
        raise BodyDecodeError(f"not a MessagePack value: {error or type(error).__name__}") from error


def open_frame(frame: Frame) -> Envelope:
    """Decode a frame's body and hold its type against the header's schema id."""
    envelope = decode_envelope(frame.body)
    check_type(frame.schema_id, envelope)
    return envelope


def check_schema(schema_id: int) -> None:
    """Raise :class:`UnknownSchema` unless the registry, or the range of third parties, has this id."""
    if schema_id not in TYPES and schema_id < THIRD_PARTY:
        raise UnknownSchema(f"schema id {schema_id} is not in the registry", hint="upgrade the older side")


def check_type(schema_id: int, envelope: Envelope) -> None:
    """Raise unless ``envelope.type`` is what ``schema_id`` stands for (UnknownSchema, BodyTypeMismatch)."""
    check_schema(schema_id)
    expected = TYPES.get(schema_id)
    if expected is None:
        _check_third_party(schema_id, envelope)
    elif envelope.type != expected:
        raise BodyTypeMismatch(f"schema {schema_id} is {expected}, the body says {envelope.type[:80]!r}")


def schema_id(type: str) -> int:
    """The registry's id of a type; raises :class:`UnknownSchema`."""
    try:
        return IDS[type]
    except KeyError:
        raise UnknownSchema(
            f"{type!r} is not in the registry", hint="see docs/reference/registry.md"
        ) from None


def encode_message(
    type: str,
    payload: Any,
    *,
    msg_id: int,
    now_ms: int,
    topic: str | None = None,
    meta: dict[str, Any] | None = None,
    trace_id: int = 0,
    ttl_ms: int = DEFAULT_TTL_MS,
) -> bytes:
    """One whole frame of a registered type, length prefix included."""
    number = schema_id(type)
    if topic is not None:
        meta = {"topic": topic, **(meta or {}), "topic": topic}  # noqa: F601 - first in order, and last word
    return encode_frame(
        schema_id=number,
        body=encode_envelope(type, payload, meta),
        created_at_ms=now_ms,
        msg_id=msg_id,
        trace_id=trace_id,
        ttl_ms=ttl_ms,
    )


def check_structure(data: bytes) -> None:
    """Raise :class:`BodyDecodeError` for nesting beyond 64 or an extension type, without building anything.

    Two counts in C settle almost every body: fewer bytes that could open a container than the depth allows,
    and none that could be an extension. The rest is walked.
    """
    if not is_flat(data):
        _walk(data)


def is_flat(data: bytes) -> bool:
    """Whether two counts settle that nothing in ``data`` nests too deep or is an extension."""
    return len(data.translate(None, _NOT_CONTAINER)) <= MAX_DEPTH and not data.translate(None, _NOT_EXT)


def _walk(data: bytes) -> None:
    """Step over one value, keeping only how many items each open container still lacks."""
    size, at, walked = len(data), 0, 0
    open_items: list[int] = []
    lacking = 1
    try:
        while True:
            while not lacking:
                if not open_items:
                    return  # what follows the value is refused by the decoder
                lacking = open_items.pop()
            head = data[at]
            lacking -= 1
            walked += 1
            if walked > MAX_VALUES:
                _refuse(f"more than {MAX_VALUES} values")
            if head < 0x80 or head >= 0xE0 or head in (0xC0, 0xC2, 0xC3):
                at += 1
            elif head in _SUSPECT:
                if head in _EXT_HEADS:
                    _refuse("extension types and 0xc1 are not allowed")
                items, at = _container(data, at, head)
                open_items.append(lacking)
                if len(open_items) > MAX_DEPTH:
                    _refuse(f"nested deeper than {MAX_DEPTH}")
                lacking = items
            else:
                at = _after_scalar(data, at, head)
            if at > size:
                _refuse("the value is cut off")
    except IndexError:
        _refuse("the value is cut off")


_FIXED = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9, 0xCA: 5, 0xCB: 9}
_SIZED = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC4: 1, 0xC5: 2, 0xC6: 4}


def _after_scalar(data: bytes, at: int, head: int) -> int:
    if head < 0xC0:  # fixstr
        return at + 1 + (head & 0x1F)
    fixed = _FIXED.get(head)
    if fixed is not None:
        return at + fixed
    width = _SIZED[head]
    return at + 1 + width + int.from_bytes(data[at + 1 : at + 1 + width], "big")


def _container(data: bytes, at: int, head: int) -> tuple[int, int]:
    """Items of the container at ``at`` (two per pair of a map), and where the first one begins."""
    if head < 0x90:
        return 2 * (head & 0x0F), at + 1
    if head < 0xA0:
        return head & 0x0F, at + 1
    width = 2 if head in (0xDC, 0xDE) else 4
    count = int.from_bytes(data[at + 1 : at + 1 + width], "big")
    return count * (2 if head >= 0xDE else 1), at + 1 + width


def _map_len(body: bytes) -> int:
    return _container(body, 0, body[0])[0] // 2


def _no_ext(code: int, data: bytes) -> NoReturn:
    _refuse("extension types are not allowed")


def _refuse(why: str) -> NoReturn:
    raise BodyDecodeError(f"not a legal body: {why}")


_META_TEXTS = frozenset(("topic", "reply_to", "conversation", "correlation", "performative", "traceparent"))


def _check_meta(meta: dict[str, Any]) -> None:
    """Hold the keys we know against their types; whatever else is there is kept."""
    for key, value in meta.items():
        kind = type(value)
        if key in _META_TEXTS:
            legal = kind is str and len(value) <= MAX_META_TEXT
        elif key == "priority":
            legal = kind is int and 0 <= value <= 255
        elif key == "max_hops":
            legal = kind is int and 0 <= value <= 0xFFFF
        elif key == "tags":
            legal = kind is list and all(type(tag) is str for tag in value)
        elif key == "opening_id":
            legal = (kind is bytes and len(value) == 16) or (kind is int and value >= 0)
        elif key == "receipt":
            legal = kind is bool
        else:
            legal = True
        if not legal:
            _refuse(f"meta.{key} has a wrong type or size")


def _check_third_party(number: int, envelope: Envelope) -> None:
    match = _TYPE.match(envelope.type)
    if match is None or match[1] not in FAMILIES:
        raise BodyTypeMismatch(f"{envelope.type[:80]!r} is not family.kind.vN")
    payload = envelope.payload
    if envelope.type in IDS or not (
        type(payload) is dict
        and type(payload.get("vendor")) is str
        and type(payload.get("schema_hash")) in (str, bytes)
    ):
        raise BodyTypeMismatch(
            f"schema {number} belongs to third parties", hint="their payload carries vendor and schema_hash"
        )
