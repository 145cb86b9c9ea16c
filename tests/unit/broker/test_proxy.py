"""What a program sends through its only way out, counted before it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from runloop.errors import RefusedError
from runloopd.broker.tools.proxy import COUNTED_BYTES, Proxy


class Counting:
    """Leads everywhere to one server, and lets so many bytes through."""

    def __init__(self, port: int, most: int) -> None:
        self.port = port
        self.most = most
        self.sent: list[int] = []

    async def connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def sending(self, host: str, port: int, size: int) -> None:
        if sum(self.sent) + size > self.most:
            raise RefusedError("it looks like a leak", code="tripwire")
        self.sent.append(size)


async def arrives(tmp_path: Path, size: int, most: int) -> tuple[int, list[int]]:
    """Bytes of ``size`` that reach a server, and how they were counted."""
    heard = bytearray()
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                heard.extend(data)
        writer.close()
        over.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    egress = Counting(server.sockets[0].getsockname()[1], most)
    proxy = Proxy(egress)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    await proxy.start(listener)
    reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
    writer.write(b"CONNECT a.example:443 HTTP/1.1\r\n\r\n")
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    with contextlib.suppress(OSError):
        for start in range(0, size, 1_000):
            writer.write(b"x" * min(1_000, size - start))
            await writer.drain()
        writer.write_eof()
    await asyncio.wait_for(over.wait(), 20)
    writer.close()
    await proxy.close()
    server.close()
    return len(heard), egress.sent


@pytest.mark.requirement("P5")
async def test_what_leaves_through_a_tunnel_is_counted_in_pieces_and_at_its_end(tmp_path: Path) -> None:
    size = 3 * COUNTED_BYTES + 123
    arrived, counted = await arrives(tmp_path, size, most=size)
    assert (arrived, sum(counted)) == (size, size)
    assert len(counted) <= 4, "a message of many pieces is not many messages"


@pytest.mark.requirement("P5")
async def test_a_tunnel_ends_when_what_it_carries_comes_to_look_like_a_leak(tmp_path: Path) -> None:
    arrived, counted = await arrives(tmp_path, 100 * COUNTED_BYTES, most=2 * COUNTED_BYTES)
    assert sum(counted) <= 2 * COUNTED_BYTES
    assert arrived < 4 * COUNTED_BYTES
