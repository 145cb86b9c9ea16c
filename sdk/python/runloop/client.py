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
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from runloop import __version__
from runloop.errors import UnreachableError
from runloop.rmp.frame import DEFAULT_TTL_MS
from runloop.rmp.session import ClientSession, Delivery, Receipt

if TYPE_CHECKING:
    import asyncio

__all__ = ["AsyncClient", "BlockingClient", "Delivery", "Receipt"]

_READ = 65_536
_START = "start it with 'rlp daemon start'"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class BlockingClient:
    """A connected session on a plain socket. Not for several threads at once.

    Every wait has a timeout in seconds and ends in :class:`UnreachableError`; errors that the daemon answers
    are raised as the family they were (:func:`runloop.errors.from_wire`).
    """

    def __init__(self, sock: socket.socket, session: ClientSession) -> None:
        self._socket = sock
        self._session = session

    @classmethod
    def connect(
        cls,
        path: str | os.PathLike[str],
        credential: bytes | None = None,
        timeout_s: float = 5.0,
        *,
        client: str = "rlp",
        build: str = __version__,
    ) -> BlockingClient:
        """Connect and say hello. ``credential``: the 32 bytes that make this session an operator's.

        Raises :class:`UnreachableError` when nobody answers, :class:`RefusedError` for another build.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.settimeout(timeout_s)
            try:
                sock.connect(os.fspath(path))
            except OSError as error:
                raise _nobody(path, error) from error
            sock.setblocking(False)
            made = cls(sock, ClientSession(credential=credential, now_ms=_now_ms, client=client, build=build))
            made._wait_until(lambda: made._session.ready, timeout_s, "the daemon did not say hello")
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

    def call(self, method: str, params: dict[str, Any] | None = None, timeout_s: float = 30.0) -> Any:
        """Ask the daemon and return its result."""
        return self._answer(self._session.call(method, params), timeout_s, f"no answer to {method}")

    def subscribe(self, pattern: str, timeout_s: float = 5.0) -> None:
        """Have frames on ``pattern`` delivered; in force when this returns."""
        self._answer(self._session.control("subscribe", pattern), timeout_s, "no answer to subscribe")

    def unsubscribe(self, pattern: str, timeout_s: float = 5.0) -> None:
        """Undo :meth:`subscribe`."""
        self._answer(self._session.control("unsubscribe", pattern), timeout_s, "no answer to unsubscribe")

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
    ) -> Receipt:
        """Publish one frame and wait until the bus has routed it; the receipt counts receivers."""
        ident, msg_id = self._session.publish(
            topic, type, payload, meta=meta, trace_id=trace_id, ttl_ms=ttl_ms
        )
        answer = self._answer(ident, timeout_s, "no receipt")
        return Receipt(int(answer["receivers"]), msg_id)

    def request(
        self, topic: str, type: str, payload: Any, *, trace_id: int = 0, timeout_s: float = 30.0
    ) -> Any:
        """Publish with ``reply_to`` and return the answer of whoever serves the topic."""
        ident = self._session.request(topic, type, payload, trace_id=trace_id)
        return self._answer(ident, timeout_s, f"no answer from {topic}")

    def next_delivery(self, timeout_s: float | None = None) -> Delivery | None:
        """The oldest delivery not taken yet; None when none comes within ``timeout_s`` (None: wait on)."""
        waiting = self._session.deliveries
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not waiting:
            if not self._pump(deadline):
                return None
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
        try:
            self._wait_until(lambda: self._session.has_answer(ident), timeout_s, what)
            return self._session.answer(ident)
        finally:
            self._session.give_up(ident)

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
        if not data:
            raise self._session.lost()
        self._session.feed(data)
        return True

    def _write(self) -> None:
        outgoing = self._session.outgoing
        while outgoing:
            try:
                del outgoing[: self._socket.send(outgoing)]
            except BlockingIOError:
                return
            except OSError:
                # The reason, if the daemon gave one, is still to be read.
                outgoing.clear()
                return


class AsyncClient:
    """The same session for an event loop. All methods belong to the loop it was connected on."""

    def __init__(self, session: ClientSession) -> None:
        self._session = session
        self._transport: asyncio.Transport | None = None
        self._failure: Exception | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    @classmethod
    async def connect(
        cls,
        path: str | os.PathLike[str],
        credential: bytes | None = None,
        timeout_s: float = 5.0,
        *,
        client: str = "runloop",
        build: str = __version__,
    ) -> AsyncClient:
        """As :meth:`BlockingClient.connect`."""
        import asyncio

        made = cls(ClientSession(credential=credential, now_ms=_now_ms, client=client, build=build))
        loop = asyncio.get_running_loop()
        try:
            await loop.create_unix_connection(lambda: _Port(made), os.fspath(path))  # type: ignore[type-var]
        except OSError as error:
            raise _nobody(path, error) from error
        try:
            await made._wait_until(lambda: made._session.ready, timeout_s, "the daemon did not say hello")
        except BaseException:
            made.close()
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

    async def call(self, method: str, params: dict[str, Any] | None = None, timeout_s: float = 30.0) -> Any:
        """Ask the daemon and return its result."""
        return await self._answer(self._session.call(method, params), timeout_s, f"no answer to {method}")

    async def subscribe(self, pattern: str, timeout_s: float = 5.0) -> None:
        """Have frames on ``pattern`` delivered; in force when this returns."""
        await self._answer(self._session.control("subscribe", pattern), timeout_s, "no answer to subscribe")

    async def unsubscribe(self, pattern: str, timeout_s: float = 5.0) -> None:
        """Undo :meth:`subscribe`."""
        await self._answer(
            self._session.control("unsubscribe", pattern), timeout_s, "no answer to unsubscribe"
        )

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
    ) -> Receipt:
        """Publish one frame and wait until the bus has routed it; the receipt counts receivers."""
        ident, msg_id = self._session.publish(
            topic, type, payload, meta=meta, trace_id=trace_id, ttl_ms=ttl_ms
        )
        answer = await self._answer(ident, timeout_s, "no receipt")
        return Receipt(int(answer["receivers"]), msg_id)

    async def request(
        self, topic: str, type: str, payload: Any, *, trace_id: int = 0, timeout_s: float = 30.0
    ) -> Any:
        """Publish with ``reply_to`` and return the answer of whoever serves the topic."""
        ident = self._session.request(topic, type, payload, trace_id=trace_id)
        return await self._answer(ident, timeout_s, f"no answer from {topic}")

    async def next_delivery(self, timeout_s: float | None = None) -> Delivery | None:
        """The oldest delivery not taken yet; None when none comes within ``timeout_s`` (None: wait on)."""
        waiting = self._session.deliveries
        if not waiting:
            try:
                await self._wait_until(lambda: bool(waiting), timeout_s, "no delivery")
            except UnreachableError as error:
                if error.named_code != "client.timeout":
                    raise
                return None
        return waiting.popleft()

    async def deliveries(self, timeout_s: float | None = None) -> AsyncIterator[Delivery]:
        """Yield deliveries until none comes for ``timeout_s`` seconds; raises when the daemon goes away."""
        while (delivery := await self.next_delivery(timeout_s)) is not None:
            yield delivery

    def close(self) -> None:
        """Hang up; what was asked and not written yet is written first."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    # --- inside ----------------------------------------------------------------------------------------

    async def _answer(self, ident: str, timeout_s: float, what: str) -> Any:
        try:
            await self._wait_until(lambda: self._session.has_answer(ident), timeout_s, what)
            return self._session.answer(ident)
        finally:
            self._session.give_up(ident)

    async def _wait_until(self, done: Callable[[], bool], timeout_s: float | None, what: str) -> None:
        import asyncio

        self._flush()
        try:
            async with asyncio.timeout(timeout_s):
                while not done():
                    if self._failure is not None:
                        raise self._failure
                    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiters.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._waiters.discard(waiter)
        except TimeoutError as error:
            raise _late(what, timeout_s) from error

    def _flush(self) -> None:
        if self._session.outgoing and self._transport is not None and not self._transport.is_closing():
            self._transport.write(bytes(self._session.outgoing))
            self._session.outgoing.clear()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _fed(self, data: bytes) -> None:
        try:
            self._session.feed(data)
        except Exception as error:
            self._failure = self._failure or error
            self.close()
        self._flush()
        self._wake()

    def _gone(self) -> None:
        self._failure = self._failure or self._session.lost()
        self._wake()


class _Port:
    """asyncio's protocol by shape, not by base class, so that this module need not import asyncio."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._client._transport = transport

    def data_received(self, data: bytes) -> None:
        self._client._fed(data)

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._client._gone()

    def pause_writing(self) -> None:
        return None

    def resume_writing(self) -> None:
        return None


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
