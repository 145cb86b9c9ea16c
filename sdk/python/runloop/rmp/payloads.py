"""The payloads that Runloop's own programs exchange: one closed type per schema id.

Imported by the daemon and by whoever wants types; the clients get along with plain maps. Unknown fields are
kept out of the types and ignored, so that a newer side may add some (the wire's rule, unlike the ledger's).
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec

from runloop.rmp.frame import BodyDecodeError
from runloop.rmp.registry import TYPES

__all__ = [
    "PAYLOADS",
    "ActionDecision",
    "ActionRequest",
    "AgentHello",
    "AgentRequest",
    "AgentResponse",
    "Control",
    "CtrlRequest",
    "CtrlResponse",
    "Delta",
    "DropNotice",
    "ErrorReport",
    "HostcallRequest",
    "HostcallResponse",
    "RunEvent",
    "RuntimeHello",
    "WirePayload",
    "read",
    "write",
]


class WirePayload(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every payload type."""


class Control(WirePayload, frozen=True, kw_only=True, omit_defaults=True):
    """9: a session speaks to its server (docs/internals/session.md)."""

    action: Literal["subscribe", "unsubscribe", "ack", "announce", "ping"]
    pattern: str | None = None
    id: str | None = None
    durable: str | None = None
    """Name of a durable consumer: ``subscribe``, ``unsubscribe``, ``ack``."""
    start: Literal["first", "next"] | None = None
    """Where a new consumer begins."""
    after: int | None = None
    """What it knows to have acknowledged."""
    seq: int | None = None
    """``ack``: everything up to here."""
    forget: bool | None = None
    """``unsubscribe``: for ever."""


class ErrorReport(WirePayload, frozen=True, kw_only=True):
    """10: the server refuses something."""

    error: str
    """Name of the error, one of the wire's where it is one."""
    message: str
    hint: str | None = None


class AgentHello(WirePayload, frozen=True, kw_only=True, omit_defaults=True):
    """100: the client's answer to the hello."""

    protocol: int
    build: str
    client: str
    proof: bytes | None = None
    instance: bytes | None = None
    """32 secret bytes, the same in every session of one publisher (:func:`runloop.rmp.hello.instance`)."""
    version: str | None = None
    serves: list[str] | None = None
    """Patterns of topics it answers on; a claim, for the directory."""
    capabilities: list[str] | None = None
    heartbeat_ms: int | None = None


class RuntimeHello(WirePayload, frozen=True, kw_only=True):
    """101: the server speaks first."""

    protocol: int
    build: str
    session: str
    nonce: bytes


class HostcallRequest(WirePayload, frozen=True, kw_only=True):
    """110: a guest asks the host."""

    index: int
    """Counts the calls of this attempt from 0."""
    op: str
    args: str
    """JSON text, as the guest wrote it."""
    fuel: int
    """Burnt up to this call."""


class HostcallResponse(WirePayload, frozen=True, kw_only=True):
    """111: the host answers a guest."""

    index: int
    ok: bool
    text: str
    """Canonical JSON of the value, or of the error object."""


class CtrlRequest(WirePayload, frozen=True, kw_only=True):
    """2001: a control request; ``meta.reply_to`` names where the answer goes."""

    id: str
    method: str
    params: dict[str, Any] = {}


class CtrlResponse(WirePayload, frozen=True, kw_only=True, omit_defaults=True):
    """2002: the answer."""

    id: str
    ok: bool
    result: Any = None
    error: dict[str, Any] | None = None
    """``{code, family, message, hint, data}``, see :func:`runloop.errors.from_wire`."""


class Delta(WirePayload, frozen=True, kw_only=True):
    """A piece of progress that is kept nowhere."""

    node: str
    kind: str
    text: str


class RunEvent(WirePayload, frozen=True, kw_only=True, omit_defaults=True):
    """3002: exactly one of a committed event and a piece of progress."""

    event: dict[str, Any] | None = None
    """:meth:`runloop.events.Event.to_json`."""
    delta: Delta | None = None


class ActionRequest(WirePayload, frozen=True, kw_only=True):
    """3005: an external effect waits for a person."""

    v: Literal[1] = 1
    approval: str
    run: str
    node: str
    action: dict[str, Any]
    action_digest: str
    expires_ms: int


class ActionDecision(WirePayload, frozen=True, kw_only=True):
    """3006: a person's decision; the digest binds it to the exact action that was shown."""

    v: Literal[1] = 1
    approval: str
    action_digest: str
    decision: Literal["approve", "deny", "undo"]
    note: str = ""


class DropNotice(WirePayload, frozen=True, kw_only=True):
    """3007: the bus dropped a frame."""

    v: Literal[1] = 1
    reason: Literal["ttl_expired", "duplicate", "backpressure_timeout"]
    topic: str
    trace_id: str
    """32 hex digits."""
    msg_id: int
    expires_at_ms: int | None
    observed_at_ms: int


class AgentRequest(WirePayload, frozen=True, kw_only=True):
    """4000: an attempt of a node is handed to an agent."""

    run: str
    node: str
    attempt: int
    input: dict[str, Any]
    """``{ports, with}`` as the engine assembled it."""


class AgentResponse(WirePayload, frozen=True, kw_only=True):
    """4001: what the attempt gave."""

    run: str
    node: str
    attempt: int
    ok: bool
    output: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    fuel: int = 0
    calls: int = 0


PAYLOADS: dict[int, type[WirePayload]] = {
    9: Control,
    10: ErrorReport,
    100: AgentHello,
    101: RuntimeHello,
    110: HostcallRequest,
    111: HostcallResponse,
    2001: CtrlRequest,
    2002: CtrlResponse,
    3002: RunEvent,
    3005: ActionRequest,
    3006: ActionDecision,
    3007: DropNotice,
    4000: AgentRequest,
    4001: AgentResponse,
}
"""Schema id -> type, for every schema whose payload is not free."""

T = TypeVar("T", bound=WirePayload)


def read(kind: type[T], payload: Any) -> T:
    """Validate a decoded payload; raises :class:`BodyDecodeError` naming the field."""
    try:
        return msgspec.convert(payload, kind)
    except msgspec.ValidationError as error:
        raise BodyDecodeError(f"{kind.__name__}: {error}", hint="see docs/reference/registry.md") from error


def write(payload: WirePayload) -> tuple[str, Any]:
    """The type and the plain map to hand to ``compose`` or ``publish``."""
    for number, kind in PAYLOADS.items():
        if type(payload) is kind:
            return TYPES[number], msgspec.to_builtins(payload, builtin_types=(bytes,))
    raise TypeError(f"{type(payload).__name__} has no schema id")
