"""What goes over the bus and who takes part: frames, receipts, counters, publishers, receivers, peers.

Knows: shapes. Does not know: who gets what (``bus``), how bytes come and go (``socket``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from runloop.digest import blob_digest
from runloop.errors import RunloopError
from runloop.rmp.envelope import Envelope, decode_envelope
from runloop.rmp.frame import HEADER_LEN, PREFIX_LEN, Frame
from runloop.rmp.registry import TYPES
from runloopd.bus.principal import Principal
from runloopd.bus.queues import DeliveryClass, Run, Source

__all__ = [
    "ComposedFrame",
    "Counters",
    "Delivery",
    "Keeper",
    "Peer",
    "PeerInfo",
    "Publisher",
    "Receipt",
    "Receiver",
    "Route",
    "SessionService",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ComposedFrame:
    """A frame of the daemon's own making, ready to be recorded and published."""

    principal: Principal
    topic: str
    type: str
    schema_id: int
    msg_id: int
    trace_id: int
    created_at_ms: int
    ttl_ms: int
    data: bytes
    """The whole frame, length prefix included."""
    body_digest: str

    @property
    def size(self) -> int:
        """Bytes of header and body."""
        return len(self.data) - PREFIX_LEN


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What became of a publish. Publishing to nobody is not an error; it says so."""

    receivers: int
    msg_id: int


@dataclass(kw_only=True, slots=True)
class Counters:
    """``addressed = delivered + dropped + queued`` at every moment between two calls of the bus."""

    published: int = 0
    """Frames accepted for routing, expired and duplicate ones included."""
    addressed: int = 0
    """Sum of receivers over all published frames."""
    delivered: int = 0
    """Handed to a handler, or to a peer's socket."""
    dropped: dict[str, int] = field(default_factory=dict)
    """By reason."""
    refused: dict[str, int] = field(default_factory=dict)
    """Frames never accepted, by error code."""

    def drop(self, reason: str, count: int) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def refuse(self, code: str) -> None:
        self.refused[code] = self.refused.get(code, 0) + 1


class Delivery:
    """One frame as a handler of the daemon sees it; payload and meta are decoded when first asked for."""

    __slots__ = (
        "_body",
        "_envelope",
        "msg_id",
        "principal",
        "schema_id",
        "size",
        "topic",
        "trace_id",
        "type",
    )

    def __init__(self, principal: Principal, topic: str, frame: Frame) -> None:
        self.principal = principal
        self.topic = topic
        self.schema_id = frame.schema_id
        self.type = TYPES.get(frame.schema_id) or decode_envelope(frame.body).type
        self.msg_id = frame.msg_id
        self.trace_id = frame.trace_id
        self.size = HEADER_LEN + len(frame.body)
        """Bytes of header and body."""
        self._body = frame.body
        self._envelope: Envelope | None = None

    @property
    def envelope(self) -> Envelope:
        if self._envelope is None:
            self._envelope = decode_envelope(self._body)
        return self._envelope

    @property
    def payload(self) -> Any:
        return self.envelope.payload

    @property
    def meta(self) -> dict[str, Any]:
        return self.envelope.meta

    @property
    def reply_to(self) -> str | None:
        """Where an answer is awaited; checked by the bus to be the publisher's own topic."""
        return self.meta.get("reply_to")

    @property
    def body_digest(self) -> str:
        return blob_digest(self._body)


class Receiver(Protocol):
    """Somebody frames are delivered to: a handler of the daemon, or a socket peer."""

    principal: Principal
    ident: int
    born: int
    """Stamp of the dedupe; a message first seen before it is new to this receiver."""

    def deliver(self, run: Run, sender: Principal) -> None:
        """Take the run, or drop it through :meth:`Bus.dropped`. Never raises."""
        ...

    @property
    def queued(self) -> int:
        """Frames accepted and not yet delivered or dropped."""
        ...


class Publisher(Source, Protocol):
    """A session that publishes through :meth:`Bus.ingest`."""

    principal: Principal
    instance: str
    """Who it is over all its sessions (``rmp.hello.instance``)."""
    tag: bytes
    reply_topic: str
    routes: dict[tuple[int, str], Route]
    known: dict[bytes, Route]
    """Routes by the bytes of bodies that lead there (``address``): the fast road's only rule."""
    generation: int

    def control(self, frame: Frame) -> None:
        """A frame addressed to the session's server."""
        ...

    def requested(self, count: int) -> None:
        """So many control requests of this session are on their way and will be answered."""
        ...

    def receipt(self, msg_id: int, receivers: int, **more: Any) -> None:
        """The frame asked for a receipt, and was routed. ``more``: what a durable topic adds."""
        ...

    def refused(self, msg_id: int, error: RunloopError, *, receipt: bool) -> None:
        """The frame was not routed."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerInfo:
    """A connected peer, for people."""

    principal: Principal
    session: str
    client: str
    patterns: tuple[str, ...]
    queued_frames: int
    queued_bytes: int
    reading: bool
    """False while the peer is held back."""
    owed_bytes: int
    """Bytes it published that wait in front of others, or for the ledger."""
    open_requests: int
    """Control requests that are not answered yet."""
    bytes_in: int
    bytes_out: int


class Peer(Publisher, Receiver, Protocol):
    """One connected program, as the services of its session see it."""

    principal: Principal
    session: str
    instance: str
    heard_ms: int

    @property
    def idle(self) -> bool:
        """Whether a frame written now would go out at once."""
        ...

    def complain(self, error: RunloopError) -> None:
        """Tell it, outside of any answer."""
        ...

    def info(self) -> PeerInfo: ...


class SessionService(Protocol):
    """What sessions may ask of the server beside subscribing: durable consumers, the directory."""

    actions: frozenset[str]
    """Control actions it answers."""

    def greeted(self, peer: Peer, payload: dict[str, Any]) -> None:
        """A valid hello; raises when its fields are not."""
        ...

    def act(self, peer: Peer, action: str, payload: dict[str, Any]) -> Any:
        """Answer a control action, now or (an awaitable) later. Raises what the peer is told.

        :data:`NotImplemented`: the action is not meant for this service, although it bears the name."""
        ...

    def roomy(self, peer: Peer) -> None:
        """It takes frames again."""
        ...

    def left(self, peer: Peer) -> None:
        """Its connection is over."""
        ...


class Keeper(Protocol):
    """Records frames of durable topics before anybody gets them (``runloopd.bus.durable``)."""

    def covers(self, topic: str) -> bool:
        """Whether the topic is durable."""
        ...

    def accept(self, publisher: Publisher, topic: str, frame: Frame, *, receipt: bool) -> None:
        """Take a frame to be recorded and then delivered; raises when it is refused at once."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """Where frames of one publisher, topic and schema go."""

    topic: str
    receivers: tuple[Receiver, ...]
    klass: DeliveryClass
    handled: bool = False
    """A handler of the daemon is among them: what it does with a frame costs more than judging it, so its
    frames never take the fast road, where nobody counts them."""
