"""The bus: topics, receivers, time to live, duplicates, counters.

Knows: who subscribed to what, and how a frame reaches them. Does not know: openings, policy, tools, sockets.
Everything runs on the event loop's thread and nothing here waits: a full queue is the receiver's matter
(``queues``), a slow peer the socket's. Handlers of the daemon itself are called one after the other, never
inside one another, so that each receiver sees frames in the order they were published.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from blake3 import blake3

from runloop.clock import Clock
from runloop.digest import blob_digest
from runloop.errors import RunloopError, UnreachableError, UsageError
from runloop.rmp import topics
from runloop.rmp.envelope import encode_envelope, schema_id
from runloop.rmp.frame import (
    DEFAULT_TTL_MS,
    HEADER_LEN,
    MAX_BODY,
    PREFIX_LEN,
    BodyDecodeError,
    Duplicate,
    Expired,
    FrameReader,
    Scanned,
    decode_frame,
    encode_frame,
)
from runloopd.bus.acl import check_publish, check_subscribe, may_receive
from runloopd.bus.address import AddressBook
from runloopd.bus.dedupe import GivenBack
from runloopd.bus.gather import Gathered, Gatherer, Seen, make
from runloopd.bus.parts import (
    ComposedFrame,
    Counters,
    Delivery,
    Keeper,
    Publisher,
    Receipt,
    Receiver,
    Route,
)
from runloopd.bus.principal import DAEMON, Principal
from runloopd.bus.queues import Run, class_of
from runloopd.bus.turns import Turns, cost

__all__ = ["Bus", "Subscription"]

_LOG = logging.getLogger(__name__)
_WHOLE = PREFIX_LEN + HEADER_LEN
_SESSION_SCHEMAS = frozenset((9, 100))
"""Frames that a session addresses to its own server: controls and the hello. They are never routed."""
_NOTICE_BURST = 20
_NOTICE_REFILL_MS = 100
_MAX_ROUTES = 4_096
_MANY_RUNS = 8
"""Runs of one read from which on it pays to look whether a route's can be handed on together."""


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
        seen: Gatherer | None = None,
    ) -> None:
        self._clock = clock
        self._max_body = max_body
        self._on_handler_error = on_handler_error or _log_handler_error
        self._seen = make() if seen is None else seen
        self.step = "python" if isinstance(self._seen, Seen) else "native"
        """Which fast road is taken: ``python`` or ``native``."""
        self._given_back = GivenBack()
        self._addresses = AddressBook()
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
        self.keeper: Keeper | None = None
        """Set once, before the door is opened."""
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
            if self.keeper is not None and self.keeper.covers(frame.topic):
                raise UsageError(
                    f"{frame.topic} is durable: its frames are recorded first", code="bus.durable"
                )
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

    def relay(
        self,
        principal: Principal,
        topic: str,
        number: int,
        data: bytes,
        expires_ms: int,
        *,
        without: Collection[int] = (),
    ) -> int:
        """Route one frame that is recorded already, whatever its id; the number of its receivers."""
        route = self._route(principal, number, topic)
        receivers = [one for one in route.receivers if one.ident not in without]
        self.counters.published += 1
        self.counters.addressed += len(receivers)
        run = Run(data, 1, expires_ms, topic, route.klass, self.tag(principal), None)
        self._emit(run, receivers, principal)
        self._drain()
        return len(receivers)

    def hand(self, receiver: Receiver, run: Run, sender: Principal) -> None:
        """Deliver to one receiver what is its own: a durable consumer's frames."""
        self.counters.addressed += run.count
        receiver.deliver(run, sender)

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
        return self._idents, self._seen.stamp(self._clock.now_ms())

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

    def ingest(self, publisher: Publisher, reader: FrameReader, data: bytes, now_ms: int) -> bool:
        """Route the frames that ``data`` completes, however many; False when there was none. See
        :meth:`advance`."""
        return self.advance(publisher, reader, reader.join(data), 0, now_ms, None) > 0

    def advance(
        self,
        publisher: Publisher,
        reader: FrameReader,
        buffer: bytes,
        at: int,
        now_ms: int,
        turns: Turns | None,
    ) -> int:
        """Route frames of what ``reader`` joined, from ``at`` on; returns where the last one of them ended.

        There may be more behind it when the turn's room for judged frames is used up: whole frames, which the
        reader has not seen yet. Otherwise what is left is the begin of a frame, and the reader keeps it.

        Frames that are refused are reported to the publisher and harm no other. A broken stream is told by
        ``reader.error`` after the frames before it were routed; a body that is none raises
        :class:`BodyDecodeError`, likewise: the session must end.
        """
        if publisher.generation != self._generation:
            self._refresh(publisher)
        size = len(buffer)
        floor: int | None = None
        judged: _OpenRun | None = None
        while at < size:
            start = at
            at, runs = self._seen.gather(buffer, at, reader.max_frame, now_ms, publisher.tag, publisher.known)
            if runs:
                if judged is not None:
                    judged.close(start)
                self._emit_all(runs, buffer, publisher)
            if at == size:
                break
            # What the fast road left is the begin of the next frame, or a frame to be judged.
            if turns is not None:
                if floor is None:
                    floor = turns.floor()
                if turns.left <= floor:
                    break
            header = reader.next(buffer, at)
            if header is None:
                break
            judged = judged or _OpenRun(self, publisher, buffer)
            if turns is not None:
                turns.left -= cost(header[0])
            self._judge(judged, at, header, now_ms)
            at += PREFIX_LEN + header[0]
        if judged is not None:
            judged.close(at)
        if self._local:
            self._drain()
        return at

    # --- what receivers report -----------------------------------------------------------------------

    def delivered(self, count: int) -> None:
        """``count`` frames reached a receiver."""
        self.counters.delivered += count

    def dropped(self, run: Run, receiver: Receiver, reason: str, *, retry: bool = True) -> None:
        """A receiver could not take a run. Unless told otherwise, the ids are given back for a retry."""
        self.counters.drop(reason, run.count)
        for start, _ in run.frames():
            if retry:
                self._given_back.add(run.tag + run.data[start + 40 : start + 64], receiver.ident)
            if reason in _NOTICE_REASONS:
                self._notice(reason, run.topic, run.data, start)

    # --- inside ----------------------------------------------------------------------------------------

    def _judge(self, run: _OpenRun, at: int, header: Scanned, now_ms: int) -> None:
        """One frame that the fast road left joins the run, or is dealt with alone; may teach ``known``."""
        publisher, number, end = run.publisher, header[3], at + PREFIX_LEN + header[0]
        expires, receipt = header[6] + header[7], False
        try:
            if number in _SESSION_SCHEMAS:
                raise _SessionFrame
            address, memo = self._addresses.read(number, run.buffer[at + _WHOLE : end])
            topic, reply_to, receipt = address
            route = publisher.routes.get((number, topic)) or self._session_route(publisher, number, topic)
            if reply_to is not None and reply_to != publisher.reply_topic:
                raise _foreign_reply(publisher)
            if memo is not None and not receipt and not route.handled:
                self._know(publisher, memo, route)
            if receipt or now_ms >= expires or self._seen.first(publisher.tag, header[8], now_ms) is not None:
                raise _Alone(route)
        except Exception as why:
            run.close(at)
            try:
                self._single(publisher, why, run.buffer[at:end], header, now_ms, receipt)
            except BaseException:
                self._drain()
                raise
            if publisher.generation != self._generation:
                self._refresh(publisher)
        else:
            run.add(route, at, expires)

    def _emit_all(self, runs: list[Gathered], buffer: bytes, publisher: Publisher) -> None:
        """What the fast road found in one read."""
        if len(runs) >= _MANY_RUNS and (together := _by_route(runs)) is not None:
            for ones in together:
                pieces = [buffer[begin:end] for _, begin, end, _, _ in ones]
                count = sum([one[3] for one in ones])
                expires = min([one[4] for one in ones])
                self.emit(ones[0][0], b"".join(pieces), count, expires, publisher)
        else:
            for route, begin, end, count, expires in runs:
                self.emit(route, buffer[begin:end], count, expires, publisher)

    def emit(self, route: Route, data: bytes, count: int, expires_ms: int, publisher: Publisher) -> None:
        """Hand consecutive new frames of a session to their receivers."""
        counters, receivers, sender = self.counters, route.receivers, publisher.principal
        counters.published += count
        counters.addressed += count * len(receivers)
        if route.topic == topics.CTRL:
            publisher.requested(count)
        run = Run(data, count, expires_ms, route.topic, route.klass, publisher.tag, publisher)
        for receiver in receivers:
            receiver.deliver(run, sender)

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
            if isinstance(why, _ToBeKept):
                frame = decode_frame(data, max_body=self._max_body)
                why.keeper.accept(publisher, why.topic, frame, receipt=receipt)
                return
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
        seen = self._seen.first(run.tag, key, now_ms)
        if seen is None:
            return everyone
        failed = self._given_back.take(run.tag + key)
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
            self._given_back.add(key, subscription.ident)
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
        publisher.known.clear()
        publisher.generation = self._generation

    @staticmethod
    def _know(publisher: Publisher, memo: bytes, route: Route) -> None:
        if len(publisher.known) >= _MAX_ROUTES:
            publisher.known.clear()
        publisher.known[memo] = route

    def _session_route(self, publisher: Publisher, number: int, topic: str) -> Route:
        route = self._route(publisher.principal, number, topic)
        if topic == topics.CTRL and not route.receivers:
            raise UnreachableError(
                "the daemon does not take requests now", hint="try again in a moment", code="bus.no_control"
            )
        if self.keeper is not None and self.keeper.covers(topic):
            raise _ToBeKept(self.keeper, topic)  # never cached: every frame of it takes this way
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
        route = self._routes[(principal.kind, number, topic)] = Route(
            topic, receivers, class_of(topic), any(isinstance(one, Subscription) for one in receivers)
        )
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


def _by_route(runs: list[Gathered]) -> Collection[list[Gathered]] | None:
    """The runs of each route together, where nobody can tell the difference: no receiver has two of the
    routes, and none is a handler of the daemon. None where somebody could, or there is little to gather."""
    routes = {id(run[0]): run[0] for run in runs}
    if 2 * len(routes) > len(runs):
        return None
    receivers = [receiver for route in routes.values() for receiver in route.receivers]
    if len({receiver.ident for receiver in receivers}) != len(receivers):
        return None
    if any(isinstance(receiver, Subscription) for receiver in receivers):
        return None
    together: dict[int, list[Gathered]] = {key: [] for key in routes}
    for run in runs:
        together[id(run[0])].append(run)
    return together.values()


class _OpenRun:
    """Judged frames that follow each other and go the same way; they are handed on together."""

    __slots__ = ("_bus", "_count", "_expires", "_route", "_start", "buffer", "publisher")

    def __init__(self, bus: Bus, publisher: Publisher, buffer: bytes) -> None:
        self._bus = bus
        self.publisher = publisher
        self.buffer = buffer
        self._route: Route | None = None
        self._start = self._count = self._expires = 0

    def add(self, route: Route, start: int, expires_ms: int) -> None:
        """One frame more; the one before it ends where it starts."""
        if route is not self._route:
            self.close(start)
            self._route, self._start, self._count, self._expires = route, start, 1, expires_ms
        else:
            self._count += 1
            self._expires = min(self._expires, expires_ms)

    def close(self, end: int) -> None:
        """Hand on what there is."""
        route, self._route = self._route, None
        if route is not None:
            data = self.buffer[self._start : end]
            self._bus.emit(route, data, self._count, self._expires, self.publisher)


_NOTICE_REASONS = frozenset(("ttl_expired", "duplicate", "backpressure_timeout"))


class _Alone(Exception):
    """The frame is expired, has an id seen before, or wants a receipt."""

    def __init__(self, route: Route) -> None:
        super().__init__()
        self.route = route


class _ToBeKept(Exception):
    """The frame is on a durable topic."""

    def __init__(self, keeper: Keeper, topic: str) -> None:
        super().__init__()
        self.keeper = keeper
        self.topic = topic


class _SessionFrame(Exception):
    """The frame is for the session's server, not for a topic."""


def _foreign_reply(publisher: Publisher) -> UsageError:
    return UsageError(
        "meta.reply_to is not this session's own topic",
        hint=f"use {publisher.reply_topic}",
        code="bus.reply_to",
    )


def _log_handler_error(delivery: Delivery, error: Exception) -> None:
    _LOG.error("handler_failed topic=%s msg_id=%d", delivery.topic, delivery.msg_id, exc_info=error)
