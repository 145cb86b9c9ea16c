"""What the daemon and a worker say to each other over their private socket pair: four frames.

Knows: the payloads of host calls (schemas 110 and 111) and of the order and the ending that enclose them
(generic schemas 2 and 4). Does not know: sockets, processes, what a call means.

Sequence: ``Start`` → any number of (``CallRequest`` → ``CallResponse``) → ``End``. One call at a time; a
worker that breaks the sequence is not believed any further.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from runloop.errors import FailedError
from runloop.rmp.frame import HEADER_LEN, Frame, encode_frame

__all__ = [
    "CallRequest",
    "CallResponse",
    "End",
    "Message",
    "Start",
    "WorkerProtocolError",
    "decode",
    "encode",
]

FRAME_OVERHEAD = 4 + HEADER_LEN + 512
"""Bytes that frame, envelope and field names may add to the strings they carry."""

_FOREVER_MS = 2**62  # a private pair has no clock; its frames do not expire


class WorkerProtocolError(FailedError):
    """The other end of the pair does not speak as it should. It is killed, never argued with."""

    code = "guest.crashed"


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the four payloads."""


class Start(Message, frozen=True, kw_only=True):
    """Daemon → worker, once: what to run."""

    input: str
    """JSON text for ``handle``."""
    source: str | None
    """JSON text answered to ``agent.source``; None where the component is the agent."""
    fuel: int
    memory_bytes: int
    guest_ms: int
    host_calls: int
    request_bytes: int
    output_bytes: int


class CallRequest(Message, frozen=True, kw_only=True):
    """Worker → daemon: the guest calls, and waits."""

    index: int
    """Counts the frames of this kind from 0."""
    op: str
    args: str
    """JSON text as the guest wrote it."""
    fuel: int
    """Fuel burnt so far."""


class CallResponse(Message, frozen=True, kw_only=True):
    """Daemon → worker: what the guest is going to see."""

    index: int
    ok: bool
    text: str


class End(Message, frozen=True, kw_only=True):
    """Worker → daemon, once: how it ended."""

    code: str
    """``ok``, ``err`` or a code of the ``guest.`` family."""
    text: str
    fuel: int


_SCHEMAS: dict[type[Message], tuple[int, str]] = {
    Start: (2, "intent.generic.v1"),
    End: (4, "toolresult.generic.v1"),
    CallRequest: (110, "intent.hostcall.request.v1"),
    CallResponse: (111, "toolresult.hostcall.response.v1"),
}

END = _SCHEMAS[End][0]
"""Schema id by which the daemon knows an ending from a call."""

M = TypeVar("M", bound=Message)


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    payload: msgspec.Raw


# Made once, in the zygote: whatever a worker makes for itself is memory of its own.
_encoder = msgspec.msgpack.Encoder()
_envelopes = msgspec.msgpack.Decoder(_Envelope)
_decoders: dict[type[Message], msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in _SCHEMAS
}


def encode(message: Message, *, msg_id: int, trace_id: int = 0) -> bytes:
    """The bytes of one frame."""
    schema_id, name = _SCHEMAS[type(message)]
    return encode_frame(
        schema_id=schema_id,
        body=_encoder.encode({"type": name, "payload": message}),
        created_at_ms=0,
        ttl_ms=_FOREVER_MS,
        msg_id=msg_id,
        trace_id=trace_id,
    )


def decode(frame: Frame, expected: type[M]) -> M:
    """The message in ``frame``; raises :class:`WorkerProtocolError` unless it is what is expected here."""
    schema_id, name = _SCHEMAS[expected]
    if frame.schema_id != schema_id:
        raise WorkerProtocolError(f"schema {frame.schema_id} where {schema_id} was due")
    try:
        envelope = _envelopes.decode(frame.body)
        if envelope.type != name:
            raise WorkerProtocolError(f"schema {schema_id} carries type {envelope.type[:80]!r}")
        message: M = _decoders[expected].decode(envelope.payload)
        return message
    except (msgspec.MsgspecError, RecursionError) as error:
        raise WorkerProtocolError(f"broken {name}: {error}") from error
