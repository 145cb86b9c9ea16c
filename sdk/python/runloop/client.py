"""Talk to the daemon: a blocking client for the command line, and the same for asyncio.

Knows: connecting, waiting with a bound, errors of the other side raised as they were. Does not know: how
frames look (``rmp.session``), where the socket is (``config``). Importing this costs neither asyncio nor
msgspec, so that ``rlp`` answers at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from runloop import __version__
from runloop.errors import RunloopError, UnreachableError
from runloop.rmp.frame import DEFAULT_TTL_MS
from runloop.rmp.hello import INSTANCE_BYTES
from runloop.rmp.session import Backoff, ClientSession, Delivery, Receipt

if TYPE_CHECKING:
    import asyncio

__all__ = ["AsyncClient", "BlockingClient", "Delivery", "Receipt", "Reconnect"]

_READ = 65_536
_SPILL = 32_768
"""Bytes of publishes without receipts that are gathered before they are written."""
_PATIENCE_S = 1.0
"""A wait that may last longer than this is one system call; the kernel ends it after this time."""
_START = "start it with 'rlp daemon start'"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _random() -> float:
    return int.from_bytes(os.urandom(7), "big") / (1 << 56)


class Reconnect(NamedTuple):
    """How a client comes back when its connection is lost: subscriptions stand, durable consumers go on where
    they were, durable publishes under way are sent again under the same ids; other calls fail, unless they
    were said to be idempotent. The blocking client comes back within the call that noticed the loss, however
    short that call was to wait."""

    give_up_s: float = 60.0
    """Seconds without a daemon after which it does not come back any more."""
    first_s: float = 0.05
    """Upper bound of the first wait; it doubles, with full jitter."""
    most_s: float = 5.0
    random: Callable[[], float] = _random
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    """Of the blocking client; the other one sleeps on its loop."""

    def backoff(self) -> Backoff:
        return Backoff(self.random, first_s=self.first_s, most_s=self.most_s)


class BlockingClient:
    """A connected session on a plain socket. Not for several threads at once.

    Every wait has a timeout in seconds and ends in :class:`UnreachableError`; errors that the daemon answers
    are raised as the family they were (:func:`runloop.errors.from_wire`).
    """

    def __init__(
        self,
        sock: socket.socket,
        session: ClientSession,
        *,
        path: str | os.PathLike[str] = "",
        timeout_s: float = 5.0,
        reconnect: Reconnect | None = None,
    ) -> None:
        self._socket = sock
        self._session = session
        self._path = path
        self._timeout_s = timeout_s
        self._reconnect = reconnect
        self._ends: UnreachableError | None = None
        """While a connection is made its end is an error, and no reason to make another."""

    @classmethod
    def connect(
        cls,
        path: str | os.PathLike[str],
        credential: bytes | None = None,
        timeout_s: float = 5.0,
        *,
        client: str = "rlp",
        build: str = __version__,
        reconnect: Reconnect | None = None,
        instance: bytes | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> BlockingClient:
        """Connect and say hello. ``credential``: the 32 bytes that make this session an operator's.

        ``reconnect``: come back when the connection is lost; None: every loss is an error. ``instance``: the
        32 secret bytes that make this publisher one over all its connections; drawn anew when there is none.
        ``about``: what the directory shows (``version``, ``serves``, ``capabilities``, ``heartbeat_ms``).

        Raises :class:`UnreachableError` when nobody answers, :class:`RefusedError` for another build.
        """
        session = _session(credential, client, build, instance, about)
        sock = _dial(path, timeout_s)
        made = cls(sock, session, path=path, timeout_s=timeout_s, reconnect=reconnect)
        try:
            made._greet()
        except BaseException:
            sock.close()
            raise
        return made

    @property
    def principal(self) -> str:
        """``operator`` or ``peer``: what the daemon takes this session for."""
        return self._session.principal

    @property
    def reply_topic(self) -> str:
        """This session's private topic, for ``meta.reply_to``."""
        return self._session.reply_topic

    def call(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        timeout_s: float = 30.0,
        *,
        idempotent: bool = False,
    ) -> Any:
        """Ask the daemon and return its result. ``idempotent``: ask again when the connection was lost."""
        ident = self._session.call(method, params, idempotent=idempotent)
        return self._answer(ident, timeout_s, f"no answer to {method}")

    def subscribe(self, pattern: str, timeout_s: float = 5.0) -> None:
        """Have frames on ``pattern`` delivered; in force when this returns."""
        self._answer(self._session.control("subscribe", pattern), timeout_s, "no answer to subscribe")

    def unsubscribe(self, pattern: str, timeout_s: float = 5.0) -> None:
        """Undo :meth:`subscribe`."""
        self._answer(self._session.control("unsubscribe", pattern), timeout_s, "no answer to unsubscribe")

    def consume(self, name: str, pattern: str, *, start: str = "first", timeout_s: float = 5.0) -> None:
        """Take up a durable consumer: see :meth:`ClientSession.consume`."""
        self._answer(self._session.consume(name, pattern, start=start), timeout_s, "no answer to consume")

    def leave(self, name: str, *, forget: bool = False, timeout_s: float = 5.0) -> None:
        """Give a durable consumer up, for now or for ever."""
        self._answer(self._session.leave(name, forget=forget), timeout_s, "no answer to leave")

    def ack(self, delivery: Delivery) -> None:
        """This delivery of a durable consumer, and all before it, are done with."""
        self._session.ack(delivery.consumer, delivery.seq)
        self._write()

    def announce(self, timeout_s: float = 5.0, **about: Any) -> None:
        """Say anew what the directory shows of this program."""
        self._answer(self._session.control("announce", None, **about), timeout_s, "no answer to announce")

    def ping(self, timeout_s: float = 5.0) -> int:
        """The daemon's clock, unix milliseconds."""
        answer = self._answer(self._session.control("ping"), timeout_s, "no answer to ping")
        return int(answer["now_ms"])

    def publish(
        self,
        topic: str,
        type: str,
        payload: Any,
        meta: dict[str, Any] | None = None,
        *,
        trace_id: int = 0,
        ttl_ms: int = DEFAULT_TTL_MS,
        timeout_s: float = 30.0,
        receipt: bool = True,
        durable: bool = False,
    ) -> Receipt:
        """Publish one frame and wait until the bus has routed it; the receipt counts receivers.

        ``durable``: the topic is, and the receipt means that the message is in the ledger, once, however
        often the connection was lost on the way.

        ``receipt=False`` returns at once: frames are gathered, and written when there are 32 KiB of them or
        when this client waits for anything, is flushed or closed. What came to nothing, :meth:`refusals`
        tells. It waits only where the daemon does not take more, ``timeout_s`` at most.
        """
        ident, msg_id = self._session.publish(
            topic,
            type,
            payload,
            meta=meta,
            trace_id=trace_id,
            ttl_ms=ttl_ms,
            receipt=receipt,
            durable=durable,
        )
        if ident:
            return _receipt(self._answer(ident, timeout_s, "no receipt"), msg_id)
        if len(self._session.outgoing) >= _SPILL:
            self._spill(timeout_s)
        return Receipt(-1, msg_id)

    def flush(self, timeout_s: float = 30.0) -> list[RunloopError]:
        """Write everything, wait until the daemon has read it, and return :meth:`refusals`."""
        self._answer(self._session.all_read(), timeout_s, "the daemon has not read everything")
        return self.refusals()

    def refusals(self) -> list[RunloopError]:
        """Why publishes without receipts came to nothing, as far as it is known: each once, oldest first.

        ``data["msg_id"]`` tells which it was. The newest 1,024 are kept. A ``client.lost`` among them stands
        for ``data["messages"]`` publishes of which nobody knows whether they were read.
        """
        return self._session.take_refusals()

    def request(
        self, topic: str, type: str, payload: Any, *, trace_id: int = 0, timeout_s: float = 30.0
    ) -> Any:
        """Publish with ``reply_to`` and return the answer of whoever serves the topic."""
        ident = self._session.request(topic, type, payload, trace_id=trace_id)
        return self._answer(ident, timeout_s, f"no answer from {topic}")

    def next_delivery(self, timeout_s: float | None = None) -> Delivery | None:
        """The oldest delivery not taken yet; None when none comes within ``timeout_s`` (None: wait on).

        Raises, once, what ended a durable consumer: ``bus.consumer_taken`` when another session took it up.
        """
        session = self._session
        waiting = session.deliveries
        if waiting and not session.ended:
            return waiting.popleft()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not (waiting or session.ended):
            if not self._pump(deadline):
                return None
        if session.ended:
            raise session.ended.popleft()
        return waiting.popleft()

    def deliveries(self, timeout_s: float | None = None) -> Iterator[Delivery]:
        """Yield deliveries until none comes for ``timeout_s`` seconds; raises when the daemon goes away."""
        while (delivery := self.next_delivery(timeout_s)) is not None:
            yield delivery

    def fileno(self) -> int:
        """For ``select`` beside a terminal; look at :meth:`next_delivery` with timeout 0 first."""
        return self._socket.fileno()

    def close(self) -> None:
        """Write what is left, as far as the daemon takes it at once, and hang up."""
        with contextlib.suppress(OSError, UnreachableError):
            self._write()
        self._socket.close()

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- inside ----------------------------------------------------------------------------------------

    def _answer(self, ident: str, timeout_s: float, what: str) -> Any:
        session = self._session
        try:
            self._wait_until(lambda: session.has_answer(ident), timeout_s, what)
            return session.answer(ident)
        finally:
            session.give_up(ident)

    def _spill(self, timeout_s: float) -> None:
        """Write what was gathered, and look whether the daemon says anything, or has gone."""
        self._pump(time.monotonic())
        outgoing = self._session.outgoing
        self._wait_until(
            lambda: len(outgoing) < _SPILL, timeout_s, "the daemon did not take what was published"
        )

    def _wait_until(self, done: Callable[[], bool], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            if not self._pump(deadline):
                raise _late(what, timeout_s)

    def _pump(self, deadline: float | None) -> bool:
        """Write and read once; False when the deadline passed first.

        Reads while writing: the daemon stops reading from a peer that does not take its answers.
        """
        self._write()
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if self._session.outgoing or (left is not None and left <= _PATIENCE_S):
            writers = [self._socket] if self._session.outgoing else []
            readable, writable, _ = select.select([self._socket], writers, [], left)
            if not readable:
                return bool(writable)
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if data:
            self._session.feed(data)
        else:
            self._lost()
        return True

    def _greet(self) -> None:
        self._ends = self._session.lost()
        try:
            self._wait_until(lambda: self._session.ready, self._timeout_s, "the daemon did not say hello")
        finally:
            self._ends = None

    def _lost(self) -> None:
        """The connection is gone: make another, or say so."""
        how = self._reconnect
        if how is None or self._ends is not None:
            raise self._session.lost()
        first = self._session.lost()
        deadline, backoff = how.monotonic() + how.give_up_s, how.backoff()
        while True:
            self._socket.close()
            self._session.disconnected()
            try:
                self._socket = _dial(self._path, self._timeout_s)
                self._greet()
                return
            except RunloopError as error:
                if not _may_pass(error):
                    raise
                if how.monotonic() >= deadline:
                    raise first from error
            how.sleep(backoff.next_s())

    def _write(self) -> None:
        outgoing = self._session.outgoing
        while outgoing:
            try:
                del outgoing[: self._socket.send(outgoing, socket.MSG_DONTWAIT)]
            except BlockingIOError:
                return
            except OSError:
                # The reason, if the daemon gave one, is still to be read.
                outgoing.clear()
                return


class AsyncClient:
    """The same session for an event loop. All methods belong to the loop it was connected on."""

    def __init__(
        self,
        session: ClientSession,
        *,
        path: str | os.PathLike[str] = "",
        timeout_s: float = 5.0,
        reconnect: Reconnect | None = None,
    ) -> None:
        self._session = session
        self._path = path
        self._timeout_s = timeout_s
        self._reconnect = reconnect
        self._ended = False
        self._healing: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._failure: Exception | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._asked: dict[str, asyncio.Future[None]] = {}
        """Who waits for which answer."""
        self._flushing = False
        """What is gathered will be written at the end of this turn of the loop."""
        self._full: asyncio.Event | None = None
        """Set again once the daemon takes more; None while it does."""

    @classmethod
    async def connect(
        cls,
        path: str | os.PathLike[str],
        credential: bytes | None = None,
        timeout_s: float = 5.0,
        *,
        client: str = "runloop",
        build: str = __version__,
        reconnect: Reconnect | None = None,
        instance: bytes | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> AsyncClient:
        """As :meth:`BlockingClient.connect`."""
        session = _session(credential, client, build, instance, about)
        made = cls(session, path=path, timeout_s=timeout_s, reconnect=reconnect)
        try:
            await made._dial()
        except BaseException:
            made.close()
            raise
        return made

    async def _dial(self) -> None:
        """One connection, up to the accepted hello."""
        import asyncio

        loop = asyncio.get_running_loop()
        port = _Port(self)
        try:
            await loop.create_unix_connection(lambda: port, os.fspath(self._path))  # type: ignore[type-var]
        except OSError as error:
            raise _nobody(self._path, error) from error
        await self._wait_until(
            lambda: self._session.ready, self._timeout_s, "the daemon did not say hello", port
        )

    @property
    def principal(self) -> str:
        """``operator`` or ``peer``: what the daemon takes this session for."""
        return self._session.principal

    @property
    def reply_topic(self) -> str:
        """This session's private topic, for ``meta.reply_to``."""
        return self._session.reply_topic

    async def call(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        timeout_s: float = 30.0,
        *,
        idempotent: bool = False,
    ) -> Any:
        """Ask the daemon and return its result. ``idempotent``: ask again when the connection was lost."""
        await self._connected()
        ident = self._session.call(method, params, idempotent=idempotent)
        return await self._answer(ident, timeout_s, f"no answer to {method}")

    async def subscribe(self, pattern: str, timeout_s: float = 5.0) -> None:
        """Have frames on ``pattern`` delivered; in force when this returns."""
        await self._connected()
        await self._answer(self._session.control("subscribe", pattern), timeout_s, "no answer to subscribe")

    async def unsubscribe(self, pattern: str, timeout_s: float = 5.0) -> None:
        """Undo :meth:`subscribe`."""
        await self._connected()
        await self._answer(
            self._session.control("unsubscribe", pattern), timeout_s, "no answer to unsubscribe"
        )

    async def consume(self, name: str, pattern: str, *, start: str = "first", timeout_s: float = 5.0) -> None:
        """Take up a durable consumer: see :meth:`ClientSession.consume`."""
        await self._connected()
        ident = self._session.consume(name, pattern, start=start)
        await self._answer(ident, timeout_s, "no answer to consume")

    async def leave(self, name: str, *, forget: bool = False, timeout_s: float = 5.0) -> None:
        """Give a durable consumer up, for now or for ever."""
        await self._connected()
        await self._answer(self._session.leave(name, forget=forget), timeout_s, "no answer to leave")

    def ack(self, delivery: Delivery) -> None:
        """This delivery of a durable consumer, and all before it, are done with."""
        self._session.ack(delivery.consumer, delivery.seq)
        self._flush()

    async def announce(self, timeout_s: float = 5.0, **about: Any) -> None:
        """Say anew what the directory shows of this program."""
        await self._connected()
        ident = self._session.control("announce", None, **about)
        await self._answer(ident, timeout_s, "no answer to announce")

    async def ping(self, timeout_s: float = 5.0) -> int:
        """The daemon's clock, unix milliseconds; also a heartbeat."""
        await self._connected()
        answer = await self._answer(self._session.control("ping"), timeout_s, "no answer to ping")
        return int(answer["now_ms"])

    async def publish(
        self,
        topic: str,
        type: str,
        payload: Any,
        meta: dict[str, Any] | None = None,
        *,
        trace_id: int = 0,
        ttl_ms: int = DEFAULT_TTL_MS,
        timeout_s: float = 30.0,
        receipt: bool = True,
        durable: bool = False,
    ) -> Receipt:
        """As :meth:`BlockingClient.publish`; what one turn of the loop gathers is written at its end."""
        if self._failure is not None or self._healing is not None:
            await self._connected()
        if self._full is not None and not (receipt or durable):
            await self._taken(self._full, timeout_s)
        ident, msg_id = self._session.publish(
            topic,
            type,
            payload,
            meta=meta,
            trace_id=trace_id,
            ttl_ms=ttl_ms,
            receipt=receipt,
            durable=durable,
        )
        if ident:
            return _receipt(await self._answer(ident, timeout_s, "no receipt"), msg_id)
        if len(self._session.outgoing) >= _SPILL:
            self._flush()
        else:
            self._flush_soon()
        return Receipt(-1, msg_id)

    async def flush(self, timeout_s: float = 30.0) -> list[RunloopError]:
        """As :meth:`BlockingClient.flush`."""
        await self._connected()
        await self._answer(self._session.all_read(), timeout_s, "the daemon has not read everything")
        return self.refusals()

    def refusals(self) -> list[RunloopError]:
        """As :meth:`BlockingClient.refusals`."""
        return self._session.take_refusals()

    async def request(
        self, topic: str, type: str, payload: Any, *, trace_id: int = 0, timeout_s: float = 30.0
    ) -> Any:
        """Publish with ``reply_to`` and return the answer of whoever serves the topic."""
        await self._connected()
        ident = self._session.request(topic, type, payload, trace_id=trace_id)
        return await self._answer(ident, timeout_s, f"no answer from {topic}")

    async def next_delivery(self, timeout_s: float | None = None) -> Delivery | None:
        """As :meth:`BlockingClient.next_delivery`."""
        session = self._session
        waiting = session.deliveries
        if not waiting and not session.ended:
            try:
                await self._wait_until(lambda: bool(waiting or session.ended), timeout_s, "no delivery")
            except UnreachableError as error:
                if error.named_code != "client.timeout":
                    raise
                return None
        if session.ended:
            raise session.ended.popleft()
        return waiting.popleft()

    async def deliveries(self, timeout_s: float | None = None) -> AsyncIterator[Delivery]:
        """Yield deliveries until none comes for ``timeout_s`` seconds; raises when the daemon goes away."""
        while (delivery := await self.next_delivery(timeout_s)) is not None:
            yield delivery

    def close(self) -> None:
        """Hang up; what was asked and not written yet is written first."""
        self._ended = True
        if self._healing is not None:
            self._healing.cancel()
        if self._transport is not None:
            self._flush()
            self._transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    # --- inside ----------------------------------------------------------------------------------------

    async def _answer(self, ident: str, timeout_s: float, what: str) -> Any:
        import asyncio

        session = self._session
        self._flush_soon()
        loop, late = asyncio.get_running_loop(), False
        deadline = loop.time() + timeout_s
        try:
            while not session.has_answer(ident):
                if self._failure is not None:
                    raise self._failure
                if late:
                    raise _late(what, timeout_s)
                waiter = self._asked[ident] = loop.create_future()
                clock = loop.call_at(deadline, _wake, waiter)
                try:
                    await waiter
                finally:
                    clock.cancel()
                late = loop.time() >= deadline
            return session.answer(ident)
        finally:
            self._asked.pop(ident, None)
            session.give_up(ident)

    async def _taken(self, full: asyncio.Event, timeout_s: float) -> None:
        """Return once the daemon takes more, or the connection is another one."""
        import asyncio

        try:
            async with asyncio.timeout(timeout_s):
                await full.wait()
        except TimeoutError as error:
            raise _late("the daemon did not take what was published", timeout_s) from error
        await self._connected()

    async def _connected(self) -> None:
        """Return once the session is there to be asked; at once unless it is being made anew."""
        if self._failure is not None:
            raise self._failure
        if self._healing is not None:
            await self._wait_until(lambda: self._healing is None, None, "no connection")

    async def _wait_until(
        self, done: Callable[[], bool], timeout_s: float | None, what: str, port: _Port | None = None
    ) -> None:
        """Wait for what the daemon says; with ``port`` on that connection alone."""
        import asyncio

        self._flush()
        loop, late = asyncio.get_running_loop(), False
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while not done():
            failure = self._failure if port is None else port.failure
            if failure is not None:
                raise failure
            if late:
                raise _late(what, timeout_s)
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.add(waiter)
            clock = None if deadline is None else loop.call_at(deadline, _wake, waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
                if clock is not None:
                    clock.cancel()
            late = deadline is not None and loop.time() >= deadline

    def _flush_soon(self) -> None:
        if not self._flushing and self._session.outgoing:
            import asyncio

            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._session.outgoing and self._transport is not None and not self._transport.is_closing():
            self._transport.write(bytes(self._session.outgoing))
            self._session.outgoing.clear()

    def _wake(self) -> None:
        for waiter in (*self._waiters, *self._asked.values()):
            _wake(waiter)

    def _fed(self, port: _Port, data: bytes) -> None:
        try:
            self._session.feed(data)
        except Exception as error:
            port.failure = port.failure or error
            if self._healing is None:
                self._failure = self._failure or error
                self._ended = True
            if self._transport is not None:
                self._transport.close()
        self._flush()
        if self._failure is not None or port.failure is not None:
            self._wake()
            return
        for waiter in self._waiters:
            _wake(waiter)
        for ident in self._session.answered():
            if ident in self._asked:
                _wake(self._asked[ident])

    def _hold(self, full: bool) -> None:
        """The daemon takes no more for now, or takes more again."""
        import asyncio

        if full:
            self._full = self._full or asyncio.Event()
        elif self._full is not None:
            self._full.set()
            self._full = None

    def _gone(self, port: _Port) -> None:
        import asyncio

        port.failure = port.failure or self._session.lost()
        self._transport = None
        self._hold(False)
        if self._healing is None:
            if self._reconnect is None or self._ended or not self._session.ready:
                self._failure = self._failure or port.failure
            else:
                self._healing = asyncio.get_running_loop().create_task(self._heal(port.failure))
        self._wake()

    async def _heal(self, lost: Exception) -> None:
        """Come back, or fail everything that waits."""
        import asyncio

        how = self._reconnect
        assert how is not None
        deadline, backoff = how.monotonic() + how.give_up_s, how.backoff()
        try:
            while True:
                self._session.disconnected()
                self._wake()
                try:
                    await self._dial()
                    if self._transport is not None:
                        break  # else it was lost again before we came to know that it was there
                except RunloopError as error:
                    if not _may_pass(error):
                        raise
                    if self._transport is not None:
                        self._transport.abort()
                        self._transport = None
                    if how.monotonic() >= deadline:
                        lost.__cause__ = error
                        self._failure = lost
                        break
                await asyncio.sleep(backoff.next_s())
        except RunloopError as error:
            self._failure = error
        finally:
            self._healing = None
            self._flush()
            self._wake()


class _Port:
    """asyncio's protocol by shape, not by base class, so that this module need not import asyncio."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self.failure: Exception | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._client._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._client._transport is self._transport:  # else a connection that was given up
            self._client._fed(self, data)

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._client._transport is self._transport:
            self._client._gone(self)

    def pause_writing(self) -> None:
        if self._client._transport is self._transport:
            self._client._hold(True)

    def resume_writing(self) -> None:
        if self._client._transport is self._transport:
            self._client._hold(False)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _session(
    credential: bytes | None,
    client: str,
    build: str,
    instance: bytes | None,
    about: Mapping[str, Any] | None,
) -> ClientSession:
    return ClientSession(
        credential=credential,
        now_ms=_now_ms,
        client=client,
        build=build,
        instance=instance or os.urandom(INSTANCE_BYTES),
        about=about,
    )


def _dial(path: str | os.PathLike[str], timeout_s: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout_s)
        sock.connect(os.fspath(path))
        # Reading blocks, for this long; writing does not (``MSG_DONTWAIT``).
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(_PATIENCE_S), 0))
    except OSError as error:
        sock.close()
        raise _nobody(path, error) from error
    return sock


def _receipt(answer: dict[str, Any], msg_id: int) -> Receipt:
    return Receipt(
        int(answer["receivers"]), msg_id, int(answer.get("seq", 0)), answer.get("duplicate") is True
    )


def _may_pass(error: RunloopError) -> bool:
    """Whether another try may be met otherwise: nobody answered, or too many came at once."""
    return isinstance(error, UnreachableError) or error.named_code == "bus.peers"


def _late(what: str, timeout_s: float | None) -> UnreachableError:
    return UnreachableError(
        f"{what} within {timeout_s:g} s", hint="look at it with 'rlp daemon status'", code="client.timeout"
    )


def _nobody(path: str | os.PathLike[str], error: OSError) -> UnreachableError:
    return UnreachableError(
        f"no daemon answers on {os.fspath(path)}: {error.strerror or error}",
        hint=_START,
        code="client.unreachable",
    )
