"""What a session has met before: bodies begin and end alike, so their ends are made, and read, once.

Knows: the bytes around a payload, and which of them were found legal. Does not know: any rule of its own;
whatever is not plainly the same goes the long way through ``envelope``, which names every refusal. Holds at
most a bounded number of things, and only of one session.
"""

from __future__ import annotations

from typing import Any

import msgpack  # type: ignore[import-untyped]

from runloop.rmp import topics
from runloop.rmp.envelope import (
    check_structure,
    check_type,
    decode_envelope,
    encode_envelope,
    is_flat,
    schema_id,
)
from runloop.rmp.frame import encode_frame
from runloop.rmp.registry import TYPES

__all__ = ["Bodies", "Frames"]

_MOST = 256
"""Topics, or metas, remembered; then it begins anew."""
_META = b"\xa4meta"
_SCALARS = frozenset((bytes, str, int, float, bool, type(None)))
_PASSING = frozenset(("correlation", "traceparent", "seq", "opening_id"))
"""Keys whose values are hardly met twice."""


def _front(type: str) -> bytes:
    packed: bytes = msgpack.packb(type)
    return b"\x83\xa4type" + packed + b"\xa7payload"


_FRONTS = {number: _front(name) for number, name in TYPES.items()}
"""Schema id -> the bytes of a body before its payload, if the body has a ``meta``."""


class Frames:
    """Makes the frames of publishes that say no more than a topic and whether a receipt is wanted."""

    def __init__(self) -> None:
        self._pack = msgpack.Packer(use_bin_type=True).pack
        self._ends: dict[tuple[str, str, bool], tuple[int, bytes, bytes]] = {}

    def encode(
        self,
        topic: str,
        type: str,
        payload: Any,
        *,
        receipt: bool,
        msg_id: int,
        now_ms: int,
        trace_id: int,
        ttl_ms: int,
    ) -> bytes:
        """One whole frame, byte for byte as :func:`runloop.rmp.envelope.encode_message` makes it."""
        number, front, tail = self._ends.get((topic, type, receipt)) or self._learn(topic, type, receipt)
        try:
            packed: bytes = self._pack(payload)
        except (TypeError, ValueError, OverflowError):
            packed = encode_envelope(type, payload)  # which says what is wrong with it
        body = front + packed + tail
        if payload.__class__ not in _SCALARS:
            check_structure(body)
        return encode_frame(
            schema_id=number,
            body=body,
            created_at_ms=now_ms,
            msg_id=msg_id,
            trace_id=trace_id,
            ttl_ms=ttl_ms,
        )

    def _learn(self, topic: str, type: str, receipt: bool) -> tuple[int, bytes, bytes]:
        meta: dict[str, Any] = {"topic": topics.topic(topic)}
        if receipt:
            meta["receipt"] = True
        number = schema_id(type)
        ends = number, _FRONTS[number], _META + self._pack(meta)
        if len(self._ends) >= _MOST:
            self._ends.clear()
        self._ends[topic, type, receipt] = ends
        return ends


class Bodies:
    """Opens the bodies of frames."""

    def __init__(self) -> None:
        self._metas: dict[bytes, dict[str, Any]] = {}
        """The bytes of a body after its payload -> what they were found to mean."""

    def open(self, number: int, body: bytes) -> tuple[str, Any, dict[str, Any]]:
        """Type, payload and meta, held against the header's schema id; raises as ``envelope`` does.

        A body that begins with a registered front and ends with a meta met before is legal if what lies
        between is one legal value: MessagePack says where a value ends, so there is one way to read it.
        """
        front = _FRONTS.get(number, b"?")
        at = body.rfind(_META)
        if body.startswith(front) and (meta := self._metas.get(body[at:])) is not None:
            begin = len(front)
            if body[begin] == 0xC4 and body[begin + 1] == at - begin - 2:
                return TYPES[number], body[begin + 2 : at], meta.copy()
            if is_flat(body):
                try:
                    return TYPES[number], _value(body[begin:at]), meta.copy()
                except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
                    pass  # the long way finds the same, and says so
        envelope = decode_envelope(body)
        check_type(number, envelope)
        self._learn(front, at, body, envelope.meta)
        return envelope.type, envelope.payload, envelope.meta

    def _learn(self, front: bytes, at: int, body: bytes, meta: dict[str, Any]) -> None:
        if at < 0 or not body.startswith(front) or not _PASSING.isdisjoint(meta):
            return
        if not all(value.__class__ in _SCALARS for value in meta.values()):
            return  # a copy would share its lists
        try:
            _value(body[len(front) : at])
        except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
            return  # what looked like the meta's begin lies within it, or within the payload
        if len(self._metas) >= _MOST:
            self._metas.clear()
        self._metas[body[at:]] = meta.copy()


def _value(data: bytes) -> Any:
    return msgpack.unpackb(data, raw=False, strict_map_key=False, max_ext_len=0)
