"""One attempt, seen from the daemon: carry the calls, keep the bounds, judge the ending.

Knows: the conversation with a worker and what to believe of it (nothing that is out of order, out of bounds
or not JSON). Does not know: how workers are made, what a host call means (the answerer does), who stores
transitions.

The worker keeps the guest's time by itself; here is the second clock, with a grace, which kills the process.
"""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec

from runloop.digest import canonical, digest
from runloop.errors import RunloopError, UsageError
from runloop.events import GuestError
from runloop.ids import run_id_to_int
from runloop.rmp.frame import Frame, FrameReader, WireError
from runloopd.broker.calls import Answer, Answerer, HostCall
from runloopd.broker.quotas import EXCEEDED
from runloopd.runtime.failures import BREACH, CRASHED, NO_WORKER, RESERVED, RETRYABLE
from runloopd.runtime.orders import AttemptOrder, AttemptResult
from runloopd.runtime.wire import (
    END,
    FRAME_OVERHEAD,
    CallRequest,
    CallResponse,
    End,
    Message,
    Start,
    WorkerProtocolError,
    decode,
    encode,
)

__all__ = ["LONG_S", "Session", "Waiting"]

Waiting = Callable[[bool], Awaitable[None]]
"""Told True before an attempt is seen to wait for an answer, False before it goes on."""

LONG_S = 0.1
"""Seconds a guest may compute on end before its neighbours go first: an honest one takes milliseconds."""

_CODE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_EXIT_UNHARDENED = 90
_WORKERS_OWN = frozenset({"guest.trap", "guest.fuel", "guest.deadline", "guest.memory", "guest.output"})
"""Ends a worker may state; the others are the daemon's to state of a worker."""


class Channel(asyncio.Protocol):
    """The daemon's end of a worker's socket pair. Holds at most one frame: a worker waits for its answer."""

    def __init__(self, max_body: int) -> None:
        self._reader = FrameReader(max_body=max_body)
        self._frames: deque[Frame] = deque()
        self._arrived = asyncio.Event()
        self._error: WireError | WorkerProtocolError | None = None
        self._closed = False
        self._transport: asyncio.Transport | None = None
        self._sent = 0

    @classmethod
    async def over(cls, connection: socket.socket, max_body: int) -> Channel:
        """Take over a connected socket."""
        _, channel = await asyncio.get_running_loop().create_connection(
            lambda: cls(max_body), sock=connection
        )
        return channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its type

    def data_received(self, data: bytes) -> None:
        if self._error is not None:
            return
        try:
            self._frames.extend(self._reader.feed(data))
        except WireError as error:
            self._error = error
        if len(self._frames) > 1:
            self._error = WorkerProtocolError("the worker spoke out of turn")
        self._arrived.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self._closed = True
        self._arrived.set()

    async def receive(self) -> Frame | None:
        """The next frame, None when the worker is gone. Raises what was wrong with the stream."""
        while True:
            if self._error is not None:
                raise self._error
            if self._frames:
                return self._frames.popleft()
            if self._closed:
                return None
            self._arrived.clear()
            await self._arrived.wait()

    def send(self, message: Message, trace_id: int) -> None:
        self._sent += 1
        assert self._transport is not None
        self._transport.write(encode(message, msg_id=self._sent, trace_id=trace_id))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Session:
    """The life of one attempt after its worker exists."""

    def __init__(
        self,
        order: AttemptOrder,
        answerer: Answerer,
        *,
        kill: Callable[[], None],
        exited: Awaitable[int],
        waiting: Waiting,
        give_way: Callable[[], None],
        grace_ms: int,
        waiting_after_ms: int,
    ) -> None:
        """``grace_ms``: how long after its time a worker that did not stop its guest lives.
        ``waiting_after_ms``: an answer that takes longer makes the instance WAITING. ``give_way``: called
        each time the guest has computed for :data:`LONG_S` without a break."""
        self._order = order
        self._limits = order.limits
        self._answerer = answerer
        self._kill = kill
        self._exited = exited
        self._waiting = waiting
        self._give_way = give_way
        self._waiting_after = waiting_after_ms / 1000
        self._left = (order.limits.guest_ms + grace_ms) / 1000
        self._since = 0.0
        self._timers: tuple[asyncio.TimerHandle, ...] = ()
        """Of the guest while it computes: when its neighbours go first, and when its time is up."""
        self._overdue = False
        self._loop = asyncio.get_running_loop()
        self._frames = 0
        self._exceeded: GuestError | None = None
        """The quota that ends the attempt, once an answer said so."""
        self.calls = 0
        """Calls that reached the answerer."""
        self.fuel = 0
        """Fuel burnt at the last boundary."""
        self.breached: str | None = None
        """Why the worker is no longer believed, if it is not."""

    async def run(self, connection: socket.socket) -> AttemptResult:
        """Hand over the order, serve the calls, return how it ended.

        Raises what the answerer raises, and :class:`UsageError` for an order that is not JSON.
        """
        start = self._start()
        trace = run_id_to_int(self._order.run)  # type: ignore[arg-type]
        longest = max(self._limits.request_bytes, self._limits.output_bytes)
        channel = await Channel.over(connection, longest + FRAME_OVERHEAD)
        try:
            channel.send(start, trace)
            while True:
                self._clock_runs()
                frame = await channel.receive()
                self._clock_stands()
                if frame is None:
                    return await self._gone()
                if frame.schema_id == END:
                    return self._ended(decode(frame, End))
                response = await self._call(decode(frame, CallRequest), frame.size)
                if self._exceeded is not None:
                    return self._result(self._exceeded)
                channel.send(response, trace)
        except (WireError, WorkerProtocolError) as error:
            self.breached = f"the worker broke the protocol: {error.message}"
            return self._failed(BREACH, self.breached)
        finally:
            self._clock_stands()
            channel.close()

    def _start(self) -> Start:
        order, limits = self._order, self._limits
        source = None
        if order.source is not None:
            source = canonical({"modules": order.source, "entrypoint": order.entrypoint}).decode()
        text = canonical(order.input).decode()
        size = len(text) + len(source or "")
        if size > 7 * 1024 * 1024:
            raise UsageError(f"input and source have {size} characters", code="guest.input")
        return Start(
            input=text,
            source=source,
            fuel=limits.fuel,
            memory_bytes=limits.memory_bytes,
            guest_ms=limits.guest_ms,
            host_calls=limits.host_calls,
            request_bytes=limits.request_bytes,
            output_bytes=limits.output_bytes,
        )

    # --- the second clock -------------------------------------------------------------------------

    def _clock_runs(self) -> None:
        self._since = self._loop.time()
        self._timers = (
            self._loop.call_later(LONG_S, self._give_way),
            self._loop.call_later(max(self._left, 0), self._time_is_up),
        )

    def _clock_stands(self) -> None:
        if self._timers:
            for timer in self._timers:
                timer.cancel()
            self._timers = ()
            self._left -= self._loop.time() - self._since

    def _time_is_up(self) -> None:
        self._overdue = True
        self._kill()

    # --- one call ---------------------------------------------------------------------------------

    async def _call(self, request: CallRequest, size: int) -> CallResponse:
        if request.index != self._frames or request.index >= self._limits.host_calls:
            raise WorkerProtocolError(f"call {request.index} when {self._frames} was due")
        self._frames += 1
        self._believe_fuel(request.fuel)
        answer = await self._answer(request, size)
        if not answer.ok and isinstance(answer.value, dict) and answer.value.get("code") == EXCEEDED:
            # The answer is on record, so that a replay ends in the same place.
            self._exceeded = GuestError(code=EXCEEDED, message=str(answer.value.get("message"))[:2000])
        text = answer.text
        if len(text) > 7 * 1024 * 1024 or len(text.encode()) > 7 * 1024 * 1024:
            answer = Answer.refusal(
                UsageError("the answer is too large for one call", code="answer.too_large")
            )
            text = answer.text
        return CallResponse(index=request.index, ok=answer.ok, text=text)

    async def _answer(self, request: CallRequest, size: int) -> Answer:
        try:
            args = msgspec.json.decode(request.args)
            args_digest = digest(args)
        except (msgspec.DecodeError, RecursionError) as error:
            return Answer.refusal(UsageError(f"the arguments are not JSON: {error}", code="op.args"))
        except RunloopError as error:
            return Answer.refusal(
                UsageError(f"the arguments are not accepted: {error.message}", code="op.args")
            )
        call = HostCall(
            index=self.calls,
            op=request.op,
            args=args,
            args_digest=args_digest,
            fuel=request.fuel,
            request_bytes=size,
        )
        self.calls += 1
        return await self._patiently(self._answerer.answer(call))

    async def _patiently(self, answering: Awaitable[Answer]) -> Answer:
        """Await an answer; one that takes its time makes the instance WAITING, visibly, until it is there."""
        stated: list[asyncio.Future[None]] = []
        patience = self._loop.call_later(
            self._waiting_after, lambda: stated.append(asyncio.ensure_future(self._waiting(True)))
        )
        try:
            answer = await answering
        except BaseException:
            for each in stated:
                each.cancel()
            raise
        finally:
            patience.cancel()
        for each in stated:
            await each
            await self._waiting(False)
        return answer

    def _believe_fuel(self, fuel: int) -> None:
        if not self.fuel <= fuel <= self._limits.fuel:
            raise WorkerProtocolError(f"{fuel} units of fuel after {self.fuel} of {self._limits.fuel}")
        self.fuel = fuel

    # --- the ending -------------------------------------------------------------------------------

    def _ended(self, end: End) -> AttemptResult:
        self._believe_fuel(end.fuel)
        if end.code == "ok":
            return self._output(end.text)
        if end.code == "err":
            return self._result(guest_error(end.text))
        if end.code not in _WORKERS_OWN:
            raise WorkerProtocolError(f"an ending called {end.code[:40]!r}")
        return self._failed(end.code, end.text[:500])

    def _output(self, text: str) -> AttemptResult:
        try:
            describes = self._order.input.get("op") == "describe"
            return self._result(None, checked_description(text) if describes else checked_output(text))
        except ValueError as error:
            return self._failed("guest.output", f"the result is not as the ABI demands: {error}")

    async def _gone(self) -> AttemptResult:
        if self._overdue:
            return self._failed("guest.deadline", "the guest ran longer than its time and was killed")
        try:
            status = await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(self._exited)), 5)
        except TimeoutError:
            return self._failed(CRASHED, "the worker closed its connection")
        if status == -signal.SIGSYS:
            self.breached = "the worker made a forbidden system call and was killed"
            return self._failed(BREACH, self.breached)
        if status == _EXIT_UNHARDENED:
            return self._failed(NO_WORKER, "the worker could not be sandboxed; see 'rlp doctor'")
        if status < 0:
            return self._failed(CRASHED, f"the worker was killed by {signal_name(-status)}")
        return self._failed(CRASHED, f"the worker ended with status {status} and no result")

    def _failed(self, code: str, message: str) -> AttemptResult:
        if code in self._order.quota_ends:
            return self._result(self._order.quota_ends[code])
        return self._result(GuestError(code=code, message=message, retryable=code in RETRYABLE))

    def _result(self, error: GuestError | None, output: dict[str, Any] | None = None) -> AttemptResult:
        return AttemptResult(ok=error is None, output=output, error=error, fuel=self.fuel, calls=self.calls)


def signal_name(number: int) -> str:
    """``SIGSEGV`` for 11; the number itself when it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def checked_description(text: str) -> dict[str, Any]:
    """What the guest says of itself: an object with a list of tools, believed in nothing else."""
    value = _object(text)
    if not isinstance(value.get("tools"), list):
        raise ValueError("'tools' must be a list")
    return value


def checked_output(text: str) -> dict[str, Any]:
    """The result of ``handle`` as ``{ports, artifacts}``; raises :class:`ValueError` saying what is wrong."""
    value = _object(text)
    unknown = set(value) - {"ports", "artifacts"}
    if unknown:
        raise ValueError(f"unknown field {sorted(unknown)[0][:80]!r}")
    ports = value.get("ports")
    if not isinstance(ports, dict) or not all(isinstance(values, list) for values in ports.values()):
        raise ValueError("'ports' must be an object of lists")
    artifacts = value.get("artifacts", [])
    if not isinstance(artifacts, list) or not all(
        isinstance(item, str) and _DIGEST.match(item) for item in artifacts
    ):
        raise ValueError("'artifacts' must be a list of BLAKE3 digests")
    return {"ports": ports, "artifacts": artifacts}


def _object(text: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
        canonical(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    except RunloopError as error:
        raise ValueError(error.message) from error
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def guest_error(text: str) -> GuestError:
    """What a guest returned as its error: ``{code, message, retryable}``, or any text at all."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return GuestError(code="guest.error", message=text[:2000] or "the guest gave no reason")
    code = value.get("code")
    if not isinstance(code, str) or len(code) > 64 or not _CODE.match(code) or code in RESERVED:
        code = "guest.error"
    message = value.get("message")
    return GuestError(
        code=code,
        message=message[:2000] if isinstance(message, str) and message else f"the guest failed with {code}",
        retryable=value.get("retryable") is True,
    )
