"""What systemd and a service say to each other: a socket that is handed over, "I am ready", "I am alive".

Knows: the protocol of sd_listen_fds(3) and sd_notify(3), which needs no library. Does not know: what the
socket is for or what the daemon does. Without systemd nothing of it happens.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, suppress

from runloop.errors import UsageError

__all__ = ["Notifier", "take_listener"]

_FIRST = 3
"""The first descriptor that is handed over (sd_listen_fds(3))."""
_LONGER_S = 30.0
"""More time that is asked for at once; asked for again when a third of it is over."""


def take_listener(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The socket that systemd listens on for us; None where it does not. What says so is taken out of
    ``environ``, so that no child believes it too. Raises :class:`UsageError` for more sockets than one, or
    for another kind."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or count in ("", "0"):
        return None
    if count != "1":
        raise UsageError(
            f"systemd handed over {count} sockets, and there is one to listen on",
            hint="leave one ListenStream= in the socket unit",
            code="systemd.sockets",
        )
    try:
        os.set_inheritable(_FIRST, False)
        listener = socket.socket(fileno=_FIRST)
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise UsageError(
            f"what systemd handed over is no socket: {error.strerror}", code="systemd.sockets"
        ) from error
    if listener.family != socket.AF_UNIX or listener.type != socket.SOCK_STREAM or not listens:
        raise UsageError(
            "systemd handed over something else than a listening Unix stream socket",
            hint="the socket unit needs ListenStream=/a/path",
            code="systemd.sockets",
        )
    return listener


class Notifier:
    """Tells the service manager how we are; to nobody, where nobody asked (``NOTIFY_SOCKET``)."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Takes what concerns it out of ``environ``: no child speaks in our name."""
        self._path = environ.pop("NOTIFY_SOCKET", "")
        period, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        ours = pid in ("", str(os.getpid()))
        self.alive_every_s = int(period) / 2e6 if period.isdecimal() and ours and self._path else 0.0
        """Seconds between two signs of life, half of what the manager waits for; 0: it waits for none."""
        self._living: asyncio.Task[None] | None = None

    def ready(self) -> None:
        """The daemon serves. From here on a sign of life comes from the event loop: a loop that hangs gives
        none, and the manager starts the daemon anew."""
        self.tell("READY=1")
        if self.alive_every_s:
            self._living = asyncio.get_running_loop().create_task(self._live(), name="watchdog")

    @asynccontextmanager
    async def longer(self) -> AsyncIterator[None]:
        """What is done in the block takes longer than the unit gives a start, and is not to be killed for it:
        a large ledger that is migrated would never come through. A loop that hangs asks for nothing."""

        async def ask() -> None:
            while True:
                self.tell(f"EXTEND_TIMEOUT_USEC={_LONGER_S * 1e6:.0f}")
                await asyncio.sleep(_LONGER_S / 3)

        asking = asyncio.get_running_loop().create_task(ask(), name="longer")
        try:
            yield
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    def stopping(self) -> None:
        """The daemon ends what it does; it goes on giving signs of life."""
        self.tell("STOPPING=1")

    async def close(self) -> None:
        """No more signs of life."""
        if self._living is not None:
            self._living.cancel()
            await asyncio.gather(self._living, return_exceptions=True)

    def tell(self, state: str) -> None:
        """One datagram; a manager that is gone is no reason to end."""
        if not self._path:
            return
        path = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to, suppress(OSError):
            to.setblocking(False)
            to.sendto(state.encode(), path)

    async def _live(self) -> None:
        while True:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self.alive_every_s)
