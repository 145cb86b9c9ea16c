"""The bus: topics, receivers, time to live, duplicates, counters.

Knows: who subscribed to what, and how a frame reaches them. Does not know: openings, policy, tools, sockets.
Everything runs on the event loop's thread and nothing here waits: a full queue is the receiver's matter
(``queues``), a slow peer the socket's. Handlers of the daemon itself are called one after the other, never
inside one another, so that each receiver sees frames in the order they were published.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from blake3 import blake3

from runloop.clock import Clock
from runloop.digest import blob_digest
from runloop.errors import RunloopError, UnreachableError, UsageError
from runloop.rmp import topics
from runloop.rmp.envelope import (
    Envelope,
    check_type,
    decode_envelope,
    encode_envelope,
    schema_id,
)
from runloop.rmp.frame import (
    DEFAULT_TTL_MS,
    HEADER_LEN,
    MAX_BODY,
    PREFIX_LEN,
    BodyDecodeError,
    Duplicate,
    Expired,
    Frame,
    Scanned,
    decode_frame,
    encode_frame,
)
from runloop.rmp.registry import TYPES
from runloopd.bus.acl import check_publish, check_subscribe, may_receive
from runloopd.bus.dedupe import Dedupe
from runloopd.bus.principal import DAEMON, Principal
from runloopd.bus.queues import DeliveryClass, Run, Source, class_of

__all__ = [
    "Bus",
    "ComposedFrame",
    "Counters",
    "Delivery",
    "Publisher",
    "Receipt",
    "Receiver",
    "Route",
    "Subscription",
]

_LOG = logging.getLogger(__name__)
_WHOLE = PREFIX_LEN + HEADER_LEN
_SESSION_SCHEMAS = frozenset((9, 100))
"""Frames that a session addresses to its own server: controls and the hello. They are never routed."""
_NOTICE_BURST = 20
_NOTICE_REFILL_MS = 100
_MAX_ROUTES = 4_096
_FLAT_HEADS = frozenset(
    [*range(0x80), 0xC0, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6, *range(0xCA, 0xD4), *range(0xE0, 0x100)]
)
"""First bytes of payloads that cannot hold anything illegal: numbers, booleans, nil, bytes."""


class _Body(msgspec.Struct, gc=False):
    """Enough to know where the payload ends; nothing is built."""

    payload: msgspec.Raw
    meta: msgspec.Raw


_DECODE = msgspec.msgpack.Decoder(_Body).decode
_Address = tuple[str, str | None, bool]
"""topic, reply_to, receipt."""
_KNOWN_META = 160
"""Longest ``meta`` remembered, in bytes; addresses repeat, longer ones carry what changes every time."""
# With the prefix, one comparison proves key order, the type and its agreement with the schema id.
_PREFIXES = {
    number: msgspec.msgpack.encode({"type": name, "payload": 0})[1:-1] for number, name in TYPES.items()
}


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
    tag: bytes
    reply_topic: str
    routes: dict[tuple[int, str], Route]
    generation: int

    def control(self, frame: Frame) -> None:
        """A frame addressed to the session's server."""
        ...

    def requested(self, count: int) -> None:
        """So many control requests of this session are on their way and will be answered."""
        ...

    def receipt(self, msg_id: int, receivers: int) -> None:
        """The frame asked for a receipt, and was routed."""
        ...

    def refused(self, msg_id: int, error: RunloopError, *, receipt: bool) -> None:
        """The frame was not routed."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """Where frames of one publisher, topic and schema go."""

    topic: str
    receivers: tuple[Receiver, ...]
    klass: DeliveryClass


class Subscription:
    """A handler of the daemon on a pattern, until :meth:`close`."""

    def __init__(
        self,
        bus: Bus,
        pattern: str,
        handler: Callable[[Delivery], None],
        principal: Principal,
        ident: int,
        born: int,
    ) -> None:
        self._bus = bus
        self.pattern = pattern
        self.handler = handler
        self.principal = principal
        self.ident = ident
        self.born = born
        self.queued = 0
        self.closed = False

    def deliver(self, run: Run, sender: Principal) -> None:
        self.queued += run.count
        self._bus.enqueue(self, run, sender)

    def close(self) -> None:
        """No handler call begins after this returns."""
        if not self.closed:
            self.closed = True
            self._bus.remove(self, self.pattern)


class Bus:
    """All topics of one daemon.

    ``on_handler_error(delivery, error)`` hears of handlers that raise; by default they are logged.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        on_handler_error: Callable[[Delivery, Exception], None] | None = None,
        max_body: int = MAX_BODY,
    ) -> None:
        self._clock = clock
        self._max_body = max_body
        self._on_handler_error = on_handler_error or _log_handler_error
        self._dedupe = Dedupe()
        self._read = _Reader().read
        self._exact: dict[str, list[Receiver]] = {}
        self._prefixes: dict[str, list[Receiver]] = {}
        self._receivers: dict[int, tuple[Receiver, int]] = {}
        self._generation = 0
        self._routes: dict[tuple[str, int, str], Route] = {}
        self._tags: dict[str, bytes] = {}
        self._idents = 0
        self._msg_id = 0
        self._local: deque[tuple[Subscription, Run, Principal]] = deque()
        self._draining = False
        self._notices = _NOTICE_BURST
        self._refilled_ms = 0
        self.counters = Counters()

    # --- the daemon's own face -------------------------------------------------------------------

    def subscribe(
        self, pattern: str, handler: Callable[[Delivery], None], *, principal: Principal = DAEMON
    ) -> Subscription:
        """Call ``handler`` for every frame on topics that ``pattern`` covers, until closed."""
        ident, born = self.enlist()
        subscription = Subscription(self, topics.pattern(pattern), handler, principal, ident, born)
        self.add(subscription, pattern)
        return subscription

    def compose(
        self,
        principal: Principal,
        topic: str,
        type: str,
        payload: Any,
        *,
        trace_id: int = 0,
        ttl_ms: int = DEFAULT_TTL_MS,
        meta: dict[str, Any] | None = None,
    ) -> ComposedFrame:
        """Build a frame without publishing it, so that it can be recorded first."""
        number = schema_id(type)
        body = encode_envelope(type, payload, {**(meta or {}), "topic": topics.topic(topic)})
        self._msg_id += 1
        now = self._clock.now_ms()
        data = encode_frame(
            schema_id=number,
            body=body,
            created_at_ms=now,
            msg_id=self._msg_id,
            trace_id=trace_id,
            ttl_ms=ttl_ms,
            max_body=self._max_body,
        )
        return ComposedFrame(
            principal=principal,
            topic=topic,
            type=type,
            schema_id=number,
            msg_id=self._msg_id,
            trace_id=trace_id,
            created_at_ms=now,
            ttl_ms=ttl_ms,
            data=data,
            body_digest=blob_digest(body),
        )

    def publish(self, frame: ComposedFrame) -> Receipt:
        """Route a composed frame; raises BusRefusal, Expired or Duplicate when it is not routed."""
        principal = frame.principal
        try:
            route = self._route(principal, frame.schema_id, frame.topic)
        except RunloopError as error:
            self.counters.refuse(error.named_code)
            raise
        tag = self.tag(principal)
        expires = frame.created_at_ms + frame.ttl_ms
        run = Run(frame.data, 1, expires, frame.topic, route.klass, tag, None)
        receivers = self._admit(run, route, principal, frame.data[40:64], self._clock.now_ms())
        self._emit(run, receivers, principal)
        self._drain()
        return Receipt(receivers=len(receivers), msg_id=frame.msg_id)

    def send(
        self,
        principal: Principal,
        topic: str,
        type: str,
        payload: Any,
        *,
        trace_id: int = 0,
        ttl_ms: int = DEFAULT_TTL_MS,
        meta: dict[str, Any] | None = None,
    ) -> Receipt:
        """Compose and publish."""
        return self.publish(
            self.compose(principal, topic, type, payload, trace_id=trace_id, ttl_ms=ttl_ms, meta=meta)
        )

    def reply(
        self,
        delivery: Delivery,
        result: Any = None,
        *,
        error: RunloopError | None = None,
        principal: Principal = DAEMON,
    ) -> Receipt | None:
        """Answer a request with 2002 on its ``reply_to``; None when it awaits no answer.

        The answer's ``id`` is the payload's own id, else ``meta.correlation``, else the message id as text.
        """
        if delivery.reply_to is None:
            return None
        payload = delivery.payload
        ident = payload.get("id") if isinstance(payload, dict) else None
        if not isinstance(ident, str):
            ident = delivery.meta.get("correlation") or str(delivery.msg_id)
        answer: dict[str, Any] = {"id": ident, "ok": error is None}
        if error is None:
            answer["result"] = result
        else:
            answer["error"] = error.to_wire()
        return self.send(
            principal, delivery.reply_to, "toolresult.ctrl.response.v1", answer, trace_id=delivery.trace_id
        )

    @property
    def queued(self) -> int:
        """Frames accepted and neither delivered nor dropped yet, over all receivers."""
        return sum(receiver.queued for receiver, _ in self._receivers.values())

    # --- the face of sessions ----------------------------------------------------------------------

    def enlist(self) -> tuple[int, int]:
        """A fresh receiver number and birth stamp."""
        self._idents += 1
        return self._idents, self._dedupe.stamp(self._clock.now_ms())

    def add(self, receiver: Receiver, pattern: str) -> None:
        """Deliver frames on ``pattern`` to ``receiver`` from now on; raises BusRefusal or UsageError."""
        topics.pattern(pattern)
        check_subscribe(receiver.principal, pattern)
        table, key = self._slot(pattern)
        table.setdefault(key, []).append(receiver)
        _, count = self._receivers.get(receiver.ident, (receiver, 0))
        self._receivers[receiver.ident] = (receiver, count + 1)
        self._changed()

    def remove(self, receiver: Receiver, pattern: str) -> None:
        """Undo one :meth:`add`."""
        table, key = self._slot(pattern)
        held = table.get(key, [])
        if receiver not in held:
            return
        held.remove(receiver)
        if not held:
            del table[key]
        _, count = self._receivers.pop(receiver.ident)
        if count > 1 or receiver.queued:
            self._receivers[receiver.ident] = (receiver, count - 1)
        self._changed()

    def forget(self, receiver: Receiver) -> None:
        """A receiver is gone and holds nothing any more."""
        self._receivers.pop(receiver.ident, None)

    def tag(self, principal: Principal) -> bytes:
        """Eight bytes standing for a publisher's identity in duplicate keys."""
        tag = self._tags.get(principal.name)
        if tag is None:
            if len(self._tags) >= _MAX_ROUTES:
                self._tags.clear()
            tag = self._tags[principal.name] = blake3(principal.name.encode()).digest(8)
        return tag

    def ingest(self, publisher: Publisher, buffer: bytes, headers: Sequence[Scanned]) -> None:
        """Route the frames of one read (``FrameReader.scan``).

        Frames that are refused are reported to the publisher and harm no other; :class:`BodyDecodeError` is
        raised after the frames before it were routed: the session must end.
        """
        now = self._clock.now_ms()
        tag = publisher.tag
        first, read = self._dedupe.first, self._read
        start = at = count = earliest = 0
        current: Route | None = None
        if publisher.generation != self._generation:
            self._refresh(publisher)
        for header in headers:
            frame_len, _, _, number, _, _, created, ttl, key, _ = header
            end = at + PREFIX_LEN + frame_len
            receipt = False
            try:
                if number in _SESSION_SCHEMAS:
                    raise _SessionFrame
                topic, reply_to, receipt = read(number, buffer[at + _WHOLE : end])
                route = publisher.routes.get((number, topic)) or self._session_route(publisher, number, topic)
                if reply_to is not None and reply_to != publisher.reply_topic:
                    raise _foreign_reply(publisher)
                expires = created + ttl
                if receipt or now >= expires or first(tag + key, now) is not None:
                    raise _Alone(route)
            except Exception as why:
                # Not the common case: route what was gathered, then deal with this frame alone.
                if current is not None:
                    self._emit_run(publisher, current, buffer[start:at], count, earliest)
                    current = None
                try:
                    self._single(publisher, why, buffer[at:end], header, now, receipt)
                except BaseException:
                    self._drain()
                    raise
                if publisher.generation != self._generation:
                    self._refresh(publisher)
                at = end
                continue
            if route is not current:
                if current is not None:
                    self._emit_run(publisher, current, buffer[start:at], count, earliest)
                current, start, count, earliest = route, at, 0, expires
            count += 1
            earliest = min(earliest, expires)
            at = end
        if current is not None:
            self._emit_run(publisher, current, buffer[start:at], count, earliest)
        self._drain()

    # --- what receivers report -----------------------------------------------------------------------

    def delivered(self, count: int) -> None:
        """``count`` frames reached a receiver."""
        self.counters.delivered += count

    def dropped(self, run: Run, receiver: Receiver, reason: str, *, retry: bool = True) -> None:
        """A receiver could not take a run. Unless told otherwise, the ids are given back for a retry."""
        self.counters.drop(reason, run.count)
        for start, _ in run.frames():
            if retry:
                self._dedupe.give_back(run.tag + run.data[start + 40 : start + 64], receiver.ident)
            if reason in _NOTICE_REASONS:
                self._notice(reason, run.topic, run.data, start)

    # --- inside ----------------------------------------------------------------------------------------

    def _emit_run(self, publisher: Publisher, route: Route, data: bytes, count: int, expires_ms: int) -> None:
        """Hand consecutive new frames of a session to their receivers."""
        receivers = route.receivers
        self.counters.published += count
        self.counters.addressed += count * len(receivers)
        run = Run(data, count, expires_ms, route.topic, route.klass, publisher.tag, publisher)
        if route.topic == topics.CTRL:
            publisher.requested(count)
        self._emit(run, receivers, publisher.principal)

    @staticmethod
    def _emit(run: Run, receivers: Sequence[Receiver], sender: Principal) -> None:
        for receiver in receivers:
            receiver.deliver(run, sender)

    def _single(
        self,
        publisher: Publisher,
        why: Exception,
        data: bytes,
        header: Scanned,
        now_ms: int,
        receipt: bool,
    ) -> None:
        """One frame that needs a second look; ``why`` tells which. Raises what must end the session."""
        created, ttl, key = header[6], header[7], header[8]
        msg_id = int.from_bytes(key[16:], "big")
        if isinstance(why, _SessionFrame):
            publisher.control(decode_frame(data, max_body=self._max_body))
            return
        try:
            if not isinstance(why, _Alone):
                raise why
            route = why.route
            run = Run(data, 1, created + ttl, route.topic, route.klass, publisher.tag, publisher)
            receivers = self._admit(run, route, publisher.principal, key, now_ms)
        except BodyDecodeError:
            raise
        except RunloopError as error:
            self.counters.refuse(error.named_code)
            publisher.refused(msg_id, error, receipt=receipt)
            return
        if route.topic == topics.CTRL:
            publisher.requested(1)
        self._emit(run, receivers, publisher.principal)
        if receipt:
            publisher.receipt(msg_id, len(receivers))

    def _admit(
        self, run: Run, route: Route, principal: Principal, key: bytes, now_ms: int
    ) -> Sequence[Receiver]:
        """Count one frame, and tell who gets it; raises Expired or Duplicate when nobody does."""
        everyone = route.receivers
        self.counters.published += 1
        self.counters.addressed += len(everyone)
        if now_ms >= run.expires_ms:
            self.counters.drop("ttl_expired", len(everyone))
            self._notice("ttl_expired", run.topic, run.data, 0)
            raise Expired(
                f"the frame expired at {run.expires_ms}, it is {now_ms}", hint="send it as a new frame"
            )
        seen = self._dedupe.first(run.tag + key, now_ms)
        if seen is None:
            return everyone
        failed = self._dedupe.failed(run.tag + key)
        receivers = [one for one in everyone if one.ident in failed or one.born > seen]
        self.counters.drop("duplicate", len(everyone) - len(receivers))
        if not receivers:
            self._notice("duplicate", run.topic, run.data, 0)
            raise Duplicate(
                f"{principal.label} already sent message {int.from_bytes(key[16:], 'big')} of this trace",
                hint="count msg_id upwards",
            )
        return receivers

    def enqueue(self, subscription: Subscription, run: Run, sender: Principal) -> None:
        """Remember a handler call; it happens before the bus is left."""
        self._local.append((subscription, run, sender))

    def _drain(self) -> None:
        if self._draining:
            return  # a handler published: its frames come after those already waiting
        self._draining = True
        try:
            while self._local:
                subscription, run, sender = self._local.popleft()
                for start, end in run.frames():
                    self._call(subscription, run, start, end, sender)
        finally:
            self._draining = False

    def _call(self, subscription: Subscription, run: Run, start: int, end: int, sender: Principal) -> None:
        subscription.queued -= 1
        key = run.tag + run.data[start + 40 : start + 64]
        if subscription.closed:
            self.counters.drop("receiver_gone", 1)
            return
        delivery = Delivery(sender, run.topic, decode_frame(run.data[start:end], max_body=self._max_body))
        try:
            subscription.handler(delivery)
        except Exception as error:
            self.counters.drop("handler_failed", 1)
            self._dedupe.give_back(key, subscription.ident)
            self._on_handler_error(delivery, error)
        else:
            self.counters.delivered += 1

    def _slot(self, pattern: str) -> tuple[dict[str, list[Receiver]], str]:
        return (self._prefixes, pattern[:-1]) if pattern.endswith("*") else (self._exact, pattern)

    def _changed(self) -> None:
        self._generation += 1
        self._routes.clear()

    def _refresh(self, publisher: Publisher) -> None:
        publisher.routes.clear()
        publisher.generation = self._generation

    def _session_route(self, publisher: Publisher, number: int, topic: str) -> Route:
        route = self._route(publisher.principal, number, topic)
        if topic == topics.CTRL and not route.receivers:
            raise UnreachableError(
                "the daemon does not take requests now", hint="try again in a moment", code="bus.no_control"
            )
        if len(publisher.routes) >= _MAX_ROUTES:
            publisher.routes.clear()
        publisher.routes[(number, topic)] = route
        return route

    def _route(self, principal: Principal, number: int, topic: str) -> Route:
        """Who gets frames of this schema on this topic; raises UsageError or BusRefusal."""
        cached = self._routes.get((principal.kind, number, topic))
        if cached is not None:
            return cached
        check_publish(principal, topics.topic(topic), number)
        found = {receiver.ident: receiver for receiver in self._exact.get(topic, ())}
        for prefix in self._prefixes_of(topic):
            found.update((receiver.ident, receiver) for receiver in self._prefixes.get(prefix, ()))
        receivers = tuple(one for one in found.values() if may_receive(one.principal, topic))
        if len(self._routes) >= _MAX_ROUTES:
            self._routes.clear()
        route = self._routes[(principal.kind, number, topic)] = Route(topic, receivers, class_of(topic))
        return route

    @staticmethod
    def _prefixes_of(topic: str) -> list[str]:
        if not (segments := topic.split("/")[:-1]):
            return [""]
        return ["", *("/".join(segments[: n + 1]) + "/" for n in range(len(segments)))]

    def _notice(self, reason: str, topic: str, data: bytes, start: int) -> None:
        """Tell rlp/sys/drops, at most ten times a second after a burst of twenty."""
        if topic == topics.DROPS:
            return
        now = self._clock.now_ms()
        self._notices = min(
            _NOTICE_BURST, self._notices + max(0, now - self._refilled_ms) // _NOTICE_REFILL_MS
        )
        self._refilled_ms = now - max(0, now - self._refilled_ms) % _NOTICE_REFILL_MS
        if not self._notices:
            return
        self._notices -= 1
        created, ttl = (int.from_bytes(data[start + at : start + at + 8], "big") for at in (24, 32))
        self.send(
            DAEMON,
            topics.DROPS,
            "error.bus.drop.notice.v1",
            {
                "v": 1,
                "reason": reason,
                "topic": topic,
                "trace_id": data[start + 40 : start + 56].hex(),
                "msg_id": int.from_bytes(data[start + 56 : start + 64], "big"),
                "expires_at_ms": created + ttl,
                "observed_at_ms": now,
            },
            ttl_ms=5_000,
        )


_NOTICE_REASONS = frozenset(("ttl_expired", "duplicate", "backpressure_timeout"))


class _Alone(Exception):
    """The frame is expired, has an id seen before, or wants a receipt."""

    def __init__(self, route: Route) -> None:
        super().__init__()
        self.route = route


class _SessionFrame(Exception):
    """The frame is for the session's server, not for a topic."""


def _foreign_reply(publisher: Publisher) -> UsageError:
    return UsageError(
        "meta.reply_to is not this session's own topic",
        hint=f"use {publisher.reply_topic}",
        code="bus.reply_to",
    )


class _Reader:
    """Reads topic, reply_to and receipt of a body that a session sent, the whole body checked on the way.

    The fast way needs a payload that is a plain number, boolean or bytes, and a ``meta`` whose very bytes
    were read before; it agrees with :func:`decode_envelope` by construction. Everything else takes that road.
    """

    def __init__(self) -> None:
        self._metas: dict[bytes, _Address] = {}

    def read(self, number: int, body: bytes) -> _Address:
        prefix = _PREFIXES.get(number)
        if prefix is None or body[:1] != b"\x83" or not body.startswith(prefix, 1):
            return _read_slowly(number, body)
        try:
            payload = _DECODE(body).payload
        except (msgspec.MsgspecError, RecursionError):
            return _read_slowly(number, body)
        after = 1 + len(prefix)
        if body[after] not in _FLAT_HEADS:
            return _read_slowly(number, body)
        meta = body[after + len(payload) :]  # begins with its own key: another order cannot be mistaken
        known = self._metas.get(meta)
        if known is None:
            known = _read_slowly(number, body)
            if len(meta) <= _KNOWN_META:
                if len(self._metas) >= _MAX_ROUTES:
                    self._metas.clear()
                self._metas[meta] = known
        return known


def _read_slowly(number: int, body: bytes) -> _Address:
    envelope = decode_envelope(body)
    check_type(number, envelope)
    meta = envelope.meta
    if "topic" not in meta:
        raise UsageError("the frame names no topic", hint="put it into meta.topic", code="bus.topic")
    return meta["topic"], meta.get("reply_to"), meta.get("receipt", False)


def _log_handler_error(delivery: Delivery, error: Exception) -> None:
    _LOG.error("handler_failed topic=%s msg_id=%d", delivery.topic, delivery.msg_id, exc_info=error)
