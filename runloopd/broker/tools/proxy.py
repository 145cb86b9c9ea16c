"""The only way out of a sandbox: ``CONNECT``, served by the daemon on a socket of the sandbox's own network.

Knows: enough of HTTP to be asked for a connection, and to carry bytes. Does not know: who may reach what
(:class:`Egress` does). The program's network has no interface but its own loopback; the first process inside
listens there and hands the listening socket out, so what connects to it is answered here.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket

from runloop.errors import RunloopError
from runloopd.broker.tools.sandbox import Egress

__all__ = ["Proxy"]

MAX_HEAD_BYTES = 8_192
MAX_AT_ONCE = 64
ASK_S = 10.0
CONNECT_S = 15.0
_CHUNK = 65_536
COUNTED_BYTES = 65_536
"""What leaves through one connection is counted at every so many bytes, and at its end."""
_CONNECT = re.compile(
    rb"CONNECT (\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5}) HTTP/1\.[01]\r\n"
)


class Proxy:
    """Serves one sandbox."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress
        self._server: asyncio.Server | None = None
        self._served: set[asyncio.Task[None]] = set()

    async def start(self, listener: socket.socket) -> None:
        """Answer what connects to ``listener``, which is the proxy's from now on."""
        listener.setblocking(False)
        self._server = await asyncio.start_server(self._accepted, sock=listener, limit=MAX_HEAD_BYTES)

    async def close(self) -> None:
        """Every connection ends."""
        if self._server is not None:
            self._server.close()
        for task in self._served:
            task.cancel()
        await asyncio.gather(*self._served, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._served) >= MAX_AT_ONCE:
            writer.close()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._served.add(task)
        task.add_done_callback(self._served.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # it went away, or never said what it wanted
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(ASK_S):
            head = await reader.readuntil(b"\r\n\r\n")
        asked = _CONNECT.match(head)
        if asked is None:
            await _refuse(writer, "405 Method Not Allowed", "only CONNECT to host:port is served here")
            return
        host, port = asked[1].decode().strip("[]").lower(), int(asked[2])
        try:
            async with asyncio.timeout(CONNECT_S):
                far_reader, far_writer = await self._egress.connect(host, port)
        except RunloopError as error:
            await _refuse(writer, "403 Forbidden", error.message)
            return
        except (OSError, TimeoutError):
            await _refuse(writer, "502 Bad Gateway", "the server could not be reached")
            return
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(self._carry_out(reader, far_writer, host, port), _carry(far_reader, writer))
        except RunloopError:
            pass  # what was sent there came to look like a leak; nobody is left to be told why
        finally:
            far_writer.close()

    async def _carry_out(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, host: str, port: int
    ) -> None:
        """As :func:`_carry`, and what leaves is counted: the pieces of one message together, since a
        handshake of many small ones is not many messages."""
        uncounted = 0
        try:
            while data := await source.read(_CHUNK):
                uncounted += len(data)
                if uncounted >= COUNTED_BYTES:
                    uncounted, size = 0, uncounted
                    self._egress.sending(host, port, size)
                sink.write(data)
                await sink.drain()
        finally:
            if uncounted:
                self._egress.sending(host, port, uncounted)
        with contextlib.suppress(OSError):
            sink.write_eof()


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Until the source ends; then the sink is told."""
    while data := await source.read(_CHUNK):
        sink.write(data)
        await sink.drain()
    with contextlib.suppress(OSError):
        sink.write_eof()


async def _refuse(writer: asyncio.StreamWriter, status: str, why: str) -> None:
    body = (" ".join(why.split())[:500] + "\n").encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
    await writer.drain()
