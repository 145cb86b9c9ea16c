"""A wire that can be cut: it passes bytes between a client and the daemon, and stops at any of them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path


class Wire:
    """Listens on ``path`` and passes everything on to ``target``, until :meth:`cut_after` says otherwise."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.target = target
        self.cuts = 0
        self._left: dict[str, int] = {}
        self._pairs: set[_End] = set()
        self._server: asyncio.AbstractServer | None = None

    async def start(self) -> Wire:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _End(self, "up"), os.fspath(self.path))
        return self

    def cut_after(self, direction: str, count: int) -> None:
        """Pass ``count`` more bytes ``up`` (to the daemon) or ``down``, then cut the connection."""
        self._left[direction] = count

    def mend(self) -> None:
        self._left.clear()

    def cut(self) -> None:
        """Cut what is connected now."""
        for end in list(self._pairs):
            end.drop()

    def allowed(self, direction: str, data: bytes) -> bytes:
        left = self._left.get(direction)
        if left is None:
            return data
        self._left[direction] = left - len(data)
        return data[: max(0, left)]

    def spent(self, direction: str) -> bool:
        return self._left.get(direction, 1) <= 0

    async def close(self) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()


class _End(asyncio.Protocol):
    """One end of a pair; what it reads goes to the other."""

    def __init__(self, wire: Wire, direction: str, other: _End | None = None) -> None:
        self.wire = wire
        self.direction = direction
        self.other = other
        self.transport: asyncio.Transport | None = None
        self.waiting = bytearray()
        self.dialling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.wire._pairs.add(self)
        if self.other is None:
            self.dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        other = _End(self.wire, "down", self)
        try:
            await loop.create_unix_connection(lambda: other, os.fspath(self.wire.target))
        except OSError:
            self.drop()
            return
        self.other = other
        if self.waiting:
            self._pass(bytes(self.waiting))

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.waiting += data
        else:
            self._pass(data)

    def _pass(self, data: bytes) -> None:
        if (
            self.other is not None
            and self.other.transport is not None
            and not self.other.transport.is_closing()
        ):
            passed = self.wire.allowed(self.direction, data)
            if passed:
                self.other.transport.write(passed)
            if self.wire.spent(self.direction):
                self.wire._left.pop(self.direction, None)
                self.wire.cuts += 1
                self.drop()

    def drop(self) -> None:
        for end in (self, self.other):
            if end is not None and end.transport is not None:
                # close, not abort: what was passed arrives, and nothing after it.
                end.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.wire._pairs.discard(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()
