"""The client's half of a session, without I/O: bytes in, answers and deliveries out.

Knows: the hello, message ids, which answer belongs to which question; and, over several connections, what was
subscribed, consumed and not finished (:meth:`ClientSession.disconnected`). Does not know: sockets, threads,
event loops; ``runloop.client`` has one thin face for each of those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from runloop import __version__
from runloop.errors import FailedError, RefusedError, RunloopError, UnreachableError, UsageError, from_wire
from runloop.rmp import hello, topics
from runloop.rmp.envelope import encode_message
from runloop.rmp.frame import DEFAULT_TTL_MS, HEADER_LEN, PREFIX_LEN, BodyDecodeError, FrameReader, Scanned
from runloop.rmp.memo import Bodies, Frames

__all__ = ["Backoff", "ClientSession", "Delivery", "Receipt"]

_MAX_DELIVERIES = 65_536
_MAX_REFUSALS = 1_024
_OWN = frozenset((10, 101, 2002))
"""Schemas of the session itself: report, hello, answer."""
_WHOLE = PREFIX_LEN + HEADER_LEN


class Delivery(NamedTuple):
    """One frame that the daemon delivered."""

    topic: str
    type: str
    payload: Any
    meta: dict[str, Any]
    trace_id: int
    msg_id: int
    schema_id: int
    consumer: str = ""
    """The durable consumer it is for; empty for an ordinary subscription."""
    seq: int = 0
    """Place in the ledger, on durable topics: what :meth:`ClientSession.ack` takes."""
    publisher: str = ""
    """Who published it, on durable topics, as the daemon stamped it."""


class Receipt(NamedTuple):
    """What became of a publish."""

    receivers: int
    """Whom it was routed to; -1 where no receipt was asked for."""
    msg_id: int
    seq: int = 0
    """Place in the ledger, on durable topics."""
    duplicate: bool = False
    """It was recorded by an earlier attempt already."""


class Backoff:
    """How long to wait before the next try: doubling, bounded, with full jitter. ``random``: 0 up to 1."""

    def __init__(self, random: Callable[[], float], *, first_s: float = 0.05, most_s: float = 5.0) -> None:
        self._random = random
        self._first_s = first_s
        self._most_s = most_s
        self._tries = 0

    def next_s(self) -> float:
        """Seconds to wait now."""
        bound = min(self._most_s, self._first_s * float(2 ** min(self._tries, 30)))
        self._tries += 1
        return bound * self._random()


class _Consumer:
    """A durable consumer over all connections of this client."""

    __slots__ = ("acked", "pattern", "received", "seen", "start", "told")

    def __init__(self, pattern: str, start: str) -> None:
        self.pattern = pattern
        self.start = start
        self.acked = 0
        """What the program has acknowledged."""
        self.seen = 0
        """Newest delivery handed to the program; what is not newer came again."""
        self.received = 0
        """Newest delivery of this connection, repeated ones too: the daemon lets nothing beyond be acked."""
        self.told = 0
        """Acknowledged on this connection."""


class ClientSession:
    """One connection's state. Feed it what was read, write what its methods return."""

    def __init__(
        self,
        *,
        credential: bytes | None,
        now_ms: Callable[[], int],
        client: str = "runloop",
        build: str = __version__,
        instance: bytes | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """``instance``: the secret of :func:`runloop.rmp.hello.instance`, the same for every connection of
        this publisher. ``about``: ``version``, ``serves``, ``capabilities``, ``heartbeat_ms`` for the
        directory."""
        self._instance = instance
        self._about = dict(about or {})
        self._again: dict[str, Callable[[], None]] = {}
        """What is asked again on the next connection, by the id of its answer, in the order it was asked."""
        self._then: dict[str, Callable[[dict[str, Any]], None]] = {}
        """What an answer changes here, whoever waits for it."""
        self._patterns: dict[str, None] = {}
        self._consumers: dict[str, _Consumer] = {}
        self._credential = credential
        self._now_ms = now_ms
        self._client = client
        self._build = build
        self._reader = FrameReader()
        self._bodies = Bodies()
        self._frames = Frames()
        self._msg_id = 0
        self._quiet = self._read = 0
        """Published without receipts in all, and as many of them as the daemon is known to have read."""
        self._answers: dict[str, dict[str, Any]] = {}
        self._awaited: set[str] = set()
        self._last_report: dict[str, Any] | None = None
        self.deliveries: deque[Delivery] = deque()
        """What was delivered and not yet taken, oldest first."""
        self.refusals: deque[RunloopError] = deque(maxlen=_MAX_REFUSALS)
        """Why publishes without a receipt came to nothing, oldest first; ``data["msg_id"]`` tells which. The
        newest 1,024."""
        self.ended: deque[RunloopError] = deque()
        """Why durable consumers ended, each for the program to hear of once."""
        self.outgoing = bytearray()
        """Bytes to be written; the owner takes them away."""
        self.ready = False
        """True once the daemon accepted the hello."""
        self.principal = ""
        """``operator`` or ``peer``, as the daemon decided."""
        self.session = ""
        self.reply_topic = ""

    # --- in ------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take bytes from the daemon; raises what ends the session."""
        buffer, headers = self._reader.scan(data)
        at = _WHOLE
        for header in headers:
            end = at + header[0] - HEADER_LEN
            self._take(header, buffer[at:end])
            at = end + _WHOLE
        if self._reader.error is not None:
            raise self._reader.error

    def lost(self) -> UnreachableError:
        """The error for a connection that the daemon closed, with the reason it gave, if any."""
        report = self._last_report
        if report is None:
            return UnreachableError(
                "the daemon closed the connection",
                hint="look at it with 'rlp daemon status'",
                code="client.lost",
            )
        return UnreachableError(
            f"the daemon closed the connection: {report.get('message')}",
            hint=str(report.get("hint") or "look at it with 'rlp daemon status'"),
            code="client.lost",
        )

    def answered(self) -> list[str]:
        """Ids whose answers are there and not taken yet."""
        return list(self._answers)

    def has_answer(self, ident: str) -> bool:
        """Whether the answer to ``ident`` is there."""
        return ident in self._answers

    def answer(self, ident: str) -> Any:
        """The answer to ``ident``; raises the error it carries, :class:`KeyError` while it is not there."""
        answer = self._answers.pop(ident)
        self._awaited.discard(ident)
        if answer.get("ok"):
            return answer.get("result")
        error = answer.get("error")
        raise from_wire(error if isinstance(error, dict) else {})

    def give_up(self, ident: str) -> None:
        """Nobody waits for this answer any more."""
        self._awaited.discard(ident)
        self._answers.pop(ident, None)
        self._again.pop(ident, None)

    def disconnected(self) -> None:
        """The connection is gone and another will be made: what can be asked again will be, once the next
        hello is accepted; everything else under way fails with ``client.lost``, its outcome unknown."""
        self._reader = FrameReader()
        self.outgoing.clear()
        self.ready = False
        error = UnreachableError(
            "the connection was lost before the answer came; whether it was done is not known",
            hint="ask again, if doing it twice does no harm",
            code="client.lost",
        ).to_wire()
        for ident in self._awaited - set(self._answers) - set(self._again) - {hello.HELLO_ID}:
            self._answers[ident] = {"ok": False, "error": error}
        self._then = {ident: then for ident, then in self._then.items() if ident in self._again}
        if unsure := self._quiet - self._read:
            self._read = self._quiet
            self.refusals.append(
                UnreachableError(
                    f"the connection was lost: the last {unsure} messages published without a receipt "
                    "may not have been read",
                    hint="ask for receipts, or publish on a durable topic",
                    code="client.lost",
                    messages=unsure,
                )
            )
        self._last_report = None
        for consumer in self._consumers.values():
            consumer.received = consumer.told = 0

    # --- out -----------------------------------------------------------------------------------------

    def call(self, method: str, params: dict[str, Any] | None, *, idempotent: bool = False) -> str:
        """Ask on rlp/ctrl; returns the id to wait for. ``idempotent``: asked again after a reconnect."""
        ident = self._await()

        def ask() -> None:
            self._send(
                "intent.ctrl.request.v1",
                {"id": ident, "method": method, "params": params or {}},
                topic=topics.CTRL,
                meta={"reply_to": self.reply_topic},
            )

        ask()
        if idempotent:
            self._again[ident] = ask
        return ident

    def control(self, action: str, pattern: str | None = None, **fields: Any) -> str:
        """Subscribe, unsubscribe, ping, announce; returns the id to wait for. Asked again on reconnect."""
        payload = {"action": action, **fields}
        if pattern is not None:
            payload["pattern"] = topics.pattern(pattern)
        ident = self._control(payload)
        if action == "subscribe" and pattern is not None:
            self._then[ident] = lambda answer: _note(
                self._patterns, pattern, present=answer.get("ok") is True
            )
        elif action == "unsubscribe" and pattern is not None:
            self._patterns.pop(pattern, None)
        elif action == "announce":
            self._about = {**fields}
        return ident

    def consume(self, name: str, pattern: str, *, start: str = "first") -> str:
        """Take up the durable consumer ``name``; returns the id to wait for.

        Its deliveries bear its name, come in order, each once, and wait for :meth:`ack`. ``start``: where a
        new one begins, at the ``first`` message or the ``next``.
        """
        consumer = _Consumer(topics.pattern(pattern), start)
        fresh = name not in self._consumers
        if not fresh and self._consumers[name].pattern != pattern:
            raise UsageError(
                f"the consumer {name} reads {self._consumers[name].pattern}", hint="leave it first"
            )
        consumer = self._consumers.setdefault(name, consumer)
        ident = self._control(lambda: self._consumption(name, consumer))

        def then(answer: dict[str, Any]) -> None:
            if not answer.get("ok") and fresh:
                self._consumers.pop(name, None)

        self._then[ident] = then
        return ident

    def leave(self, name: str, *, forget: bool = False) -> str:
        """Give a durable consumer up: for now, or (``forget``) for ever; returns the id to wait for."""
        self._consumers.pop(name, None)
        return self._control({"action": "unsubscribe", "durable": name, "forget": forget})

    def ack(self, name: str, seq: int) -> None:
        """Everything that ``name`` was delivered up to ``seq`` is done with. Nothing comes back for it."""
        consumer = self._consumers.get(name)
        if consumer is None:
            return  # given up, or taken by another session, which gets it again
        consumer.acked = max(consumer.acked, seq)
        self._tell(name, consumer)

    def publish(
        self,
        topic: str,
        type: str,
        payload: Any,
        *,
        meta: dict[str, Any] | None = None,
        trace_id: int = 0,
        ttl_ms: int = DEFAULT_TTL_MS,
        receipt: bool = True,
        durable: bool = False,
    ) -> tuple[str, int]:
        """Publish; returns the id of the receipt to wait for, if one was wanted, and the msg_id.

        ``durable``: the topic is, and the message is sent again, under the same ids, until it is in the
        ledger: once; it has a receipt always. Without ``receipt`` a refusal comes into :attr:`refusals`.
        """
        receipt = receipt or durable
        number = self._msg_id + 1

        def send() -> None:
            if meta is None:
                self.outgoing += self._frames.encode(
                    topic,
                    type,
                    payload,
                    receipt=receipt,
                    msg_id=number,
                    now_ms=self._now_ms(),
                    trace_id=trace_id,
                    ttl_ms=ttl_ms,
                )
            else:
                self._send(
                    type,
                    payload,
                    topic=topics.topic(topic),
                    meta={**meta, "receipt": True} if receipt else meta,
                    trace_id=trace_id,
                    ttl_ms=ttl_ms,
                    msg_id=number,
                )

        send()
        self._msg_id = number  # not before: what cannot be encoded was never sent
        if not receipt:
            self._quiet += 1
            return "", number
        ident = str(number)
        self._awaited.add(ident)
        if durable:
            self._again[ident] = send
        return ident, number

    def all_read(self) -> str:
        """Ask whether everything before this was read; returns the id to wait for. By the time of the answer
        every refusal of an earlier publish is in :attr:`refusals`."""
        ident, quiet = self.control("ping"), self._quiet

        def then(answer: dict[str, Any]) -> None:
            self._read = max(self._read, quiet)

        self._then[ident] = then
        return ident

    def take_refusals(self) -> list[RunloopError]:
        """What came into :attr:`refusals` since the last time."""
        taken = list(self.refusals)
        self.refusals.clear()
        return taken

    def request(self, topic: str, type: str, payload: Any, *, trace_id: int = 0) -> str:
        """Publish and await an answer (2002) from whoever serves the topic; returns the id to wait for."""
        ident = self._await()
        self._send(
            type,
            payload,
            topic=topics.topic(topic),
            meta={"reply_to": self.reply_topic, "correlation": ident},
            trace_id=trace_id,
        )
        return ident

    # --- inside ----------------------------------------------------------------------------------------

    def _await(self) -> str:
        # The msg_id of the frame that asks: a refusal names it, so one id serves for both.
        ident = str(self._msg_id + 1)
        self._awaited.add(ident)
        return ident

    def _control(self, payload: dict[str, Any] | Callable[[], dict[str, Any]]) -> str:
        ident = self._await()

        def ask() -> None:
            asked = payload() if callable(payload) else payload
            self._send("intent.control.v1", {"id": ident, **asked})

        ask()
        self._again[ident] = ask
        return ident

    @staticmethod
    def _consumption(name: str, consumer: _Consumer) -> dict[str, Any]:
        return {
            "action": "subscribe",
            "pattern": consumer.pattern,
            "durable": name,
            "start": consumer.start,
            "after": consumer.acked,
        }

    def _tell(self, name: str, consumer: _Consumer) -> None:
        """Acknowledge what the program is done with and this connection has seen."""
        seq = min(consumer.acked, consumer.received)
        if self.ready and seq > consumer.told:
            consumer.told = seq
            self._send("intent.control.v1", {"action": "ack", "durable": name, "seq": seq})

    def _resume(self) -> None:
        """A new connection: everything stands as it stood, then what was under way goes on."""
        for pattern in self._patterns:
            self._resumed({"action": "subscribe", "pattern": pattern})
        for name, consumer in self._consumers.items():
            self._resumed(self._consumption(name, consumer))
        for ask in list(self._again.values()):
            ask()

    def _resumed(self, payload: dict[str, Any]) -> None:
        ident = str(self._msg_id + 1)

        def then(answer: dict[str, Any]) -> None:
            if not answer.get("ok"):
                error = answer.get("error")
                raise from_wire(error if isinstance(error, dict) else {})

        self._then[ident] = then  # what stood and stands no more is never passed over in silence
        self._send("intent.control.v1", {"id": ident, **payload})

    def _send(
        self,
        type: str,
        payload: Any,
        *,
        topic: str | None = None,
        meta: dict[str, Any] | None = None,
        trace_id: int = 0,
        ttl_ms: int = DEFAULT_TTL_MS,
        msg_id: int | None = None,
    ) -> None:
        number = self._msg_id + 1 if msg_id is None else msg_id
        self.outgoing += encode_message(
            type,
            payload,
            msg_id=number,
            now_ms=self._now_ms(),
            topic=topic,
            meta=meta,
            trace_id=trace_id,
            ttl_ms=ttl_ms,
        )
        if msg_id is None:
            self._msg_id = number  # not before: what cannot be encoded was never sent

    def _take(self, header: Scanned, body: bytes) -> None:
        schema_id = header[3]
        try:
            type, payload, meta = self._bodies.open(schema_id, body)
        except BodyDecodeError:
            raise
        except RunloopError:
            return  # a schema newer than ours: not for us
        topic = meta.get("topic", "")
        if schema_id in _OWN and self._own(schema_id, payload, topic):
            return
        if len(self.deliveries) >= _MAX_DELIVERIES:
            raise FailedError(
                f"{_MAX_DELIVERIES} deliveries wait and nobody takes them",
                hint="read deliveries while waiting for answers",
                code="client.overrun",
            )
        key = header[8]
        ids = int.from_bytes(key[:16], "big"), int.from_bytes(key[16:], "big")
        if "seq" not in meta:
            self.deliveries.append(Delivery(topic, type, payload, meta, *ids, schema_id))
            return
        name, seq, publisher = meta.get("consumer", ""), meta["seq"], meta.get("publisher", "")
        if not name or self._is_new(name, seq):
            self.deliveries.append(
                Delivery(topic, type, payload, meta, *ids, schema_id, name, seq, publisher)
            )

    def _own(self, schema_id: int, payload: Any, topic: str) -> bool:
        """Take what the daemon says to this session; False for what is a delivery after all."""
        if schema_id == 101:
            if self.ready:
                return False
            self._greet(payload)
        elif not isinstance(payload, dict):
            return False
        elif schema_id == 10 and topic in ("", self.reply_topic):
            self._report(payload)
        elif schema_id == 2002 and (not self.ready or topic == self.reply_topic):
            self._answered(payload)
        else:
            return False
        return True

    def _is_new(self, name: str, seq: int) -> bool:
        """Whether the program has not had this delivery of a consumer, or has given the consumer up."""
        consumer = self._consumers.get(name)
        if consumer is None:
            return False  # given up meanwhile
        consumer.received = max(consumer.received, seq)
        if seq <= consumer.seen:
            self._tell(name, consumer)  # came again: the daemon had not heard that it was acknowledged
            return False
        consumer.seen = seq
        return True

    def _greet(self, payload: Any) -> None:
        if not isinstance(payload, dict) or not isinstance(payload.get("nonce"), bytes):
            raise RefusedError(
                "the daemon's hello is not one", hint="is this Runloop's socket?", code="hello.shape"
            )
        self.reply_topic = topics.client_reply(str(payload.get("session")))
        proof = None if self._credential is None else hello.proof(self._credential, payload["nonce"])
        self._awaited.add(hello.HELLO_ID)
        self._send(
            "observation.agent.hello.v1",
            {
                "protocol": hello.PROTOCOL,
                "build": self._build,
                "client": self._client,
                "proof": proof,
                **({} if self._instance is None else {"instance": self._instance}),
                **self._about,
            },
        )

    def _answered(self, payload: dict[str, Any]) -> None:
        ident = payload.get("id")
        if ident == hello.HELLO_ID and not self.ready:
            if not payload.get("ok"):
                error = payload.get("error")
                raise from_wire(error if isinstance(error, dict) else {})
            result = payload.get("result") or {}
            self.principal = str(result.get("principal"))
            self.session = str(result.get("session"))
            self.ready = True
            self._awaited.discard(hello.HELLO_ID)
            self._resume()
            return
        if not isinstance(ident, str):
            return
        if (ident in self._again or ident in self._then) and _is_closing(payload):
            return  # the daemon goes away; the next one is asked
        self._again.pop(ident, None)
        then = self._then.pop(ident, None)
        if ident in self._awaited:
            self._answers[ident] = payload
        if then is not None:
            then(payload)

    def _report(self, payload: dict[str, Any]) -> None:
        self._last_report = payload
        msg_id, wire = payload.get("msg_id"), payload.get("wire")
        wire = wire if isinstance(wire, dict) else payload
        if msg_id is not None:
            ident = str(msg_id)
            self._again.pop(ident, None)
            if ident in self._awaited:
                self._answers[ident] = {"ok": False, "error": wire}
            else:
                error = from_wire(wire)
                error.data = {**error.data, "msg_id": msg_id}
                self.refusals.append(error)
        else:
            self._ended(from_wire(wire))

    def _ended(self, error: RunloopError) -> None:
        """A consumer is no longer ours: whoever takes it up gets again what was not acknowledged."""
        name = error.data.get("consumer")
        if not isinstance(name, str) or self._consumers.pop(name, None) is None:
            return
        left = [delivery for delivery in self.deliveries if delivery.consumer != name]
        self.deliveries.clear()
        self.deliveries.extend(left)
        self.ended.append(error)


def _note(known: dict[str, None], name: str, *, present: bool) -> None:
    known.pop(name, None)
    if present:
        known[name] = None


def _is_closing(answer: dict[str, Any]) -> bool:
    error = answer.get("error")
    return isinstance(error, dict) and error.get("code") == "bus.closing"
