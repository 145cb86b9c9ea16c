"""The client's half of a session, without I/O: bytes in, answers and deliveries out.

Knows: the hello, message ids, which answer belongs to which question. Does not know: sockets, threads, event
loops; ``runloop.client`` has one thin face for each of those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from runloop import __version__
from runloop.errors import FailedError, RefusedError, RunloopError, UnreachableError, from_wire
from runloop.rmp import hello, topics
from runloop.rmp.envelope import encode_message, open_frame
from runloop.rmp.frame import DEFAULT_TTL_MS, BodyDecodeError, Frame, FrameReader

__all__ = ["ClientSession", "Delivery", "Receipt"]

_MAX_DELIVERIES = 65_536


class Delivery(NamedTuple):
    """One frame that the daemon delivered."""

    topic: str
    type: str
    payload: Any
    meta: dict[str, Any]
    trace_id: int
    msg_id: int
    schema_id: int


class Receipt(NamedTuple):
    """What became of a publish."""

    receivers: int
    msg_id: int


class ClientSession:
    """One connection's state. Feed it what was read, write what its methods return."""

    def __init__(
        self,
        *,
        credential: bytes | None,
        now_ms: Callable[[], int],
        client: str = "runloop",
        build: str = __version__,
    ) -> None:
        self._credential = credential
        self._now_ms = now_ms
        self._client = client
        self._build = build
        self._reader = FrameReader()
        self._msg_id = 0
        self._answers: dict[str, dict[str, Any]] = {}
        self._awaited: set[str] = set()
        self._last_report: dict[str, Any] | None = None
        self.deliveries: deque[Delivery] = deque()
        """What was delivered and not yet taken, oldest first."""
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
        for frame in self._reader.feed(data):
            self._take(frame)
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

    # --- out -----------------------------------------------------------------------------------------

    def call(self, method: str, params: dict[str, Any] | None) -> str:
        """Ask on rlp/ctrl; returns the id to wait for."""
        ident = self._await()
        self._send(
            "intent.ctrl.request.v1",
            {"id": ident, "method": method, "params": params or {}},
            topic=topics.CTRL,
            meta={"reply_to": self.reply_topic},
        )
        return ident

    def control(self, action: str, pattern: str | None = None) -> str:
        """Subscribe, unsubscribe or ping; returns the id to wait for."""
        ident = self._await()
        payload = {"id": ident, "action": action}
        if pattern is not None:
            payload["pattern"] = topics.pattern(pattern)
        self._send("intent.control.v1", payload)
        return ident

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
    ) -> tuple[str, int]:
        """Publish; returns the id of the receipt to wait for, if one was wanted, and the msg_id."""
        meta = dict(meta or {})
        ident = str(self._msg_id + 1)
        if receipt:
            meta["receipt"] = True
            self._awaited.add(ident)
        self._send(type, payload, topic=topics.topic(topic), meta=meta, trace_id=trace_id, ttl_ms=ttl_ms)
        return ident, self._msg_id

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

    def _send(
        self,
        type: str,
        payload: Any,
        *,
        topic: str | None = None,
        meta: dict[str, Any] | None = None,
        trace_id: int = 0,
        ttl_ms: int = DEFAULT_TTL_MS,
    ) -> None:
        self._msg_id += 1
        self.outgoing += encode_message(
            type,
            payload,
            msg_id=self._msg_id,
            now_ms=self._now_ms(),
            topic=topic,
            meta=meta,
            trace_id=trace_id,
            ttl_ms=ttl_ms,
        )

    def _take(self, frame: Frame) -> None:
        try:
            envelope = open_frame(frame)
        except BodyDecodeError:
            raise
        except RunloopError:
            return  # a schema newer than ours: not for us
        payload, topic = envelope.payload, envelope.topic or ""
        if frame.schema_id == 101 and not self.ready:
            self._greet(payload)
        elif frame.schema_id == 10 and isinstance(payload, dict) and topic in ("", self.reply_topic):
            self._report(payload)
        elif (
            frame.schema_id == 2002
            and isinstance(payload, dict)
            and (not self.ready or topic == self.reply_topic)
        ):
            self._answered(payload)
        elif len(self.deliveries) >= _MAX_DELIVERIES:
            raise FailedError(
                f"{_MAX_DELIVERIES} deliveries wait and nobody takes them",
                hint="read deliveries while waiting for answers",
                code="client.overrun",
            )
        else:
            self.deliveries.append(
                Delivery(
                    topic,
                    envelope.type,
                    payload,
                    envelope.meta,
                    frame.trace_id,
                    frame.msg_id,
                    frame.schema_id,
                )
            )

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
            {"protocol": hello.PROTOCOL, "build": self._build, "client": self._client, "proof": proof},
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
        elif ident in self._awaited:
            self._answers[ident] = payload

    def _report(self, payload: dict[str, Any]) -> None:
        self._last_report = payload
        ident = str(payload.get("msg_id"))
        if ident in self._awaited:
            error = payload.get("wire")
            self._answers[ident] = {"ok": False, "error": error if isinstance(error, dict) else payload}
