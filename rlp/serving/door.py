"""A socket on this machine, and how long whoever connects to it may take.

Knows: where it may listen, how many connections there are, how slowly a request may arrive. Does not know:
any protocol above HTTP, or tokens (``keeper``; it says of a connection whose it is). Whoever has proven
nothing holds little: such a connection is ended when its request does not come, and the oldest of them when
there are too many, so that connections of strangers never keep out a client that has a token.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from runloop.errors import UsageError

__all__ = ["CONNECTION", "Rooms", "keep_open", "listener", "names_of"]

CONNECTION = "runloop.connection"
"""Where the scope of a request has its connection."""
MAX_UNPROVEN = 48
"""Connections over which no token came yet."""
MAX_OF_ONE = 48
"""Connections of one client."""
MAX_CONNECTIONS = 256
HEAD_S = 10.0
"""Longest time from a connection, or from the first byte of a request, to the end of its head."""
IDLE_S = 30
MAX_HEAD = 64 * 1024


def listener(place: str) -> socket.socket:
    """A socket that listens at ``HOST:PORT``, on this machine only. Raises :class:`UsageError`."""
    host, _, port = place.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        number = int(port)
        if not 0 <= number <= 65_535:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--http {place[:100]!r} is no address and port",
            hint="for example 127.0.0.1:8707",
            code="cli.option",
        ) from None
    if not address.is_loopback:
        raise UsageError(
            f"{address} can be reached from outside this machine, and this server has no encryption",
            hint="listen on 127.0.0.1, and let 'ssh -L' or a proxy of yours reach it",
            code="face.not_loopback",
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    # By name: only then does asyncio send small answers at once, instead of 40 ms later.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((str(address), number))
        made.listen(64)
    except OSError as error:
        made.close()
        raise UsageError(
            f"nothing can listen at {place}: {error.strerror}", hint="choose another port", code="face.listen"
        ) from error
    return made


def names_of(door: socket.socket) -> tuple[str, frozenset[str]]:
    """``HOST:PORT`` as people write it, and every ``Host`` a client of ours may send."""
    host, port = door.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}", frozenset(
        f"{name}:{port}" for name in (shown, "localhost", "127.0.0.1", "[::1]")
    )


class Rooms:
    """Every connection there is, and whose."""

    def __init__(
        self,
        *,
        unproven: int = MAX_UNPROVEN,
        of_one: int = MAX_OF_ONE,
        most: int = MAX_CONNECTIONS,
        head_s: float = HEAD_S,
    ) -> None:
        self.head_s = head_s
        self._max_unproven = unproven
        self._max_of_one = of_one
        self._most = most
        self._unproven: dict[_Connection, None] = {}  # oldest first
        self._proven: dict[_Connection, str] = {}
        self._of: Counter[str] = Counter()

    def enter(self, connection: _Connection) -> None:
        """Take one in. Where there is no room, the oldest that has proven nothing goes; perhaps this one."""
        self._unproven[connection] = None
        full = len(self._unproven) + len(self._proven) > self._most
        if len(self._unproven) > self._max_unproven or full:
            next(iter(self._unproven)).end()

    def prove(self, connection: _Connection, client: str) -> bool:
        """A token came over it; False when its client has too many connections."""
        if self._proven.get(connection) == client:
            return True
        if connection not in self._unproven and connection not in self._proven:
            return False  # it ended while somebody looked whose the token is
        self.leave(connection)
        self._proven[connection] = client
        self._of[client] += 1
        return self._of[client] <= self._max_of_one

    def leave(self, connection: _Connection) -> None:
        """It is over."""
        self._unproven.pop(connection, None)
        client = self._proven.pop(connection, None)
        if client is not None:
            self._of[client] -= 1
            self._of += Counter()  # forgets who has none left


class _Connection(H11Protocol):
    """One connection; it ends when the head of a request takes too long."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        rooms: Rooms,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._rooms = rooms
        self._due: asyncio.TimerHandle | None = None
        served = self.app

        async def named(scope: Any, receive: Any, send: Any) -> None:
            scope[CONNECTION] = self
            await served(scope, receive, send)

        self.app = named

    def prove(self, client: str) -> bool:
        """See :meth:`Rooms.prove`."""
        return self._rooms.prove(self, client)

    def end(self) -> None:
        """Hang up at once."""
        self._rooms.leave(self)
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()
        self._rooms.enter(self)

    def data_received(self, data: bytes) -> None:
        # Counted from the first byte: whoever sends one now and then gains no time.
        self._wait_for_head()
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._have_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        self._rooms.leave(self)
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self._due is None and self.conn.their_state is h11.IDLE:
            self._due = self.loop.call_later(self._rooms.head_s, self.end)

    def _have_head(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None


async def keep_open(
    app: ASGIApp, door: socket.socket, *, ready: Callable[[], None], rooms: Rooms | None = None
) -> None:
    """Serve ``app`` at ``door`` until a signal says otherwise."""
    shared = rooms or Rooms()

    class Connection(_Connection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs, rooms=shared)

    config = uvicorn.Config(
        app,
        http=Connection,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=MAX_HEAD,
    )
    serving = asyncio.create_task(uvicorn.Server(config).serve(sockets=[door]))
    ready()
    await serving
