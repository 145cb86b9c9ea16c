"""How bytes travel between the bridge and its server: bounded, over descriptors the daemon opened.

Knows: lines over two pipes; HTTP over sockets that the daemon dialled and judged. Opens nothing itself: the
bridge's sandbox has no network, so where it may connect is decided where descriptors come from.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import httpcore2
import httpx2
import mcp_types as types
import msgspec
from httpcore2._backends.anyio import AnyIOStream  # the one stream that speaks TLS over a given socket
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from runloopd.broker.mcp.messages import MAX_FRAME

__all__ = ["Channel", "WireFault", "http_wires", "pipe_wires"]

MAX_LINE = MAX_FRAME - 64 * 1024
"""Bytes of one message of a server; with the frame around it, it fits to the daemon."""
MAX_NONSENSE_BYTES = 256 * 1024
"""What a server may write on its standard output that is no message (log lines, a banner)."""
MAX_STREAM = 64 * 1024 * 1024
"""Bytes of one HTTP response that goes on (an event stream)."""
CONNECT_S = 20.0


class WireFault(Exception):
    """The server broke the bounds; nothing it says is read any more."""


class Channel:
    """Where descriptors come from: one question, one answer, one at a time."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = anyio.Lock()

    async def ask(self, question: dict[str, Any], count: int) -> list[int]:
        """``count`` descriptors; raises OSError with the daemon's words when it refuses."""
        async with self._lock:
            return await anyio.to_thread.run_sync(self._ask, msgspec.json.encode(question), count)

    def _ask(self, question: bytes, count: int) -> list[int]:
        self._channel.send(question)
        answer, descriptors, _, _ = socket.recv_fds(self._channel, 4_096, count)
        if len(descriptors) != count:
            raise OSError(answer.decode("utf-8", "replace") or "the daemon hung up")
        return descriptors


# --- standard input and output ----------------------------------------------------------------------


@asynccontextmanager
async def pipe_wires(channel: Channel, faults: list[str]) -> AsyncIterator[tuple[Any, Any]]:
    """The streams of a server that reads and writes lines. The bound that it broke is added to ``faults``."""
    to_server, from_server = await channel.ask({"want": "pipes"}, 2)
    os.set_blocking(to_server, False)
    os.set_blocking(from_server, False)
    read_writer, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, write_reader = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_read_lines, from_server, read_writer, faults)
        tasks.start_soon(_write_lines, to_server, write_reader)
        try:
            yield read, write
        finally:
            tasks.cancel_scope.cancel()
            for stream in (read_writer, read, write, write_reader):
                stream.close()
    os.close(to_server)
    os.close(from_server)


async def _read_lines(descriptor: int, into: Any, faults: list[str]) -> None:
    """One message after the other; closes the stream at the end, or when a bound is broken."""
    nonsense = 0
    async with into:
        try:
            async for line in _lines(descriptor):
                try:
                    message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    nonsense += len(line)
                    if nonsense > MAX_NONSENSE_BYTES:
                        raise WireFault(f"{MAX_NONSENSE_BYTES} bytes that are no messages") from None
                    continue
                await into.send(SessionMessage(message))
        except WireFault as fault:
            faults.append(str(fault))  # and the session sees the end of the stream
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return


async def _lines(descriptor: int) -> AsyncIterator[bytes]:
    held = bytearray()
    while True:
        await anyio.wait_readable(descriptor)
        piece = os.read(descriptor, 256 * 1024)
        if not piece:
            return
        begin = len(held)
        held += piece
        if held.find(b"\n", begin) < 0:
            if len(held) > MAX_LINE:
                raise WireFault(f"a message of more than {MAX_LINE} bytes")
            continue
        *lines, rest = held.split(b"\n")
        held = bytearray(rest)
        for line in lines:
            if len(line) > MAX_LINE:
                raise WireFault(f"a message of more than {MAX_LINE} bytes")
            if line.strip():
                yield bytes(line)


async def _write_lines(descriptor: int, messages: Any) -> None:
    async with messages:
        try:
            async for message in messages:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                left = memoryview(text.encode() + b"\n")
                while left:
                    await anyio.wait_writable(descriptor)
                    left = left[os.write(descriptor, left) :]
        except (OSError, anyio.ClosedResourceError):
            return  # the reader sees the end, too


# --- HTTP -------------------------------------------------------------------------------------------


@asynccontextmanager
async def http_wires(
    channel: Channel, url: str, bearer: str | None, authorities: str | None
) -> AsyncIterator[tuple[Any, Any]]:
    """The streams of a server over streamable HTTP."""
    tls = httpx2.create_ssl_context(trust_env=False)
    if authorities is not None:
        tls.load_verify_locations(cadata=authorities)
    headers = {"User-Agent": "runloop", "Accept-Encoding": "identity"}
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    timeout = httpx2.Timeout(30.0, connect=CONNECT_S, read=300.0)
    async with (
        httpx2.AsyncClient(
            transport=_Bounded(channel, tls), headers=headers, timeout=timeout, trust_env=False
        ) as client,
        streamable_http_client(url, http_client=client) as (read, write),
    ):
        yield read, write


class _Dialled(httpcore2.AsyncNetworkBackend):
    """Connections that the daemon makes."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            (descriptor,) = await self._channel.ask({"want": "socket", "host": host, "port": port}, 1)
            stream = await anyio.abc.SocketStream.from_socket(descriptor)
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error
        return AnyIOStream(stream)

    async def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore2.AsyncNetworkStream:
        raise httpcore2.ConnectError("no local sockets")

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class _Bounded(httpx2.AsyncHTTPTransport):
    """HTTP whose answers have an end and are what they look like."""

    def __init__(self, channel: Channel, tls: ssl.SSLContext) -> None:
        super().__init__(verify=tls, trust_env=False)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=16,
            max_keepalive_connections=4,
            keepalive_expiry=30.0,
            http1=True,
            http2=False,
            network_backend=_Dialled(channel),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = await super().handle_async_request(request)
        coding = answer.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            await answer.aclose()
            # A few bytes can unpack to gigabytes; nobody asked for it.
            raise httpx2.DecodingError(f"the answer is packed ({coding[:32]})", request=request)
        streamed = answer.headers.get("content-type", "").lower().startswith("text/event-stream")
        assert isinstance(answer.stream, httpx2.AsyncByteStream)
        answer.stream = _Counted(answer.stream, MAX_STREAM if streamed else MAX_LINE, request)
        return answer


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, most: int, request: httpx2.Request) -> None:
        self._inner = inner
        self._most = most
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._most
        async for piece in self._inner:
            left -= len(piece)
            if left < 0:
                raise httpx2.ReadError(f"an answer of more than {self._most} bytes", request=self._request)
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()
