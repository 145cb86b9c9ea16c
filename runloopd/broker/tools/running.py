"""A program that was started: counted while it runs, and ended with everything it started.

Knows: the processes of one sandbox from outside, and when what they hold is too much. Does not know: how they
came to be (``tools.bubblewrap``). Implements ``Child``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable

from runloopd.broker.tools.confine import Confined
from runloopd.broker.tools.proxy import Proxy
from runloopd.broker.tools.sandbox import KilledBy, Limits, Program, SandboxError
from runloopd.broker.tools.watch import held

__all__ = ["Running"]

MAX_SAID = 1_024
_PATIENCE_S = 2.0
_MAKING_S = 10.0


class Running:
    """One sandbox and what runs in it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        limits: Limits,
        over: Callable[[Running], None],
        *,
        own_tasks: int = 2,
        cleared: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``over`` is told once everything is gone. ``own_tasks``: what the sandbox itself has inside.
        ``cleared`` sees to it that nothing is left where the starter was killed before it knew its child."""
        self.process = process
        self._own_tasks = own_tasks
        self._cleared = cleared
        self._line: socket.socket | None = None
        self._confined: Confined | None = None
        self._ends: tuple[asyncio.StreamWriter, asyncio.StreamReader, asyncio.StreamReader] | None = None
        self._limits = limits
        self._over = over
        self._killed_by: KilledBy | None = None
        self._proxy: Proxy | None = None
        self._inside: int | None = None
        """A descriptor of the first process inside: when it is gone, all are."""
        self._first = 0
        self._info: int | None = None
        """Where bubblewrap says which process that is; open until it is known."""
        self._tasks: list[asyncio.Task[None]] = []
        self._ended: asyncio.Task[int] | None = None

    @property
    def pid(self) -> int:
        """See the port."""
        return self.process.pid

    @property
    def killed_by(self) -> KilledBy | None:
        """See the port."""
        return self._killed_by

    @property
    def streams(self) -> tuple[asyncio.StreamWriter, asyncio.StreamReader, asyncio.StreamReader]:
        """The program's standard streams, where it was started with ends of its own."""
        if self._ends is not None:
            return self._ends
        made = self.process
        assert made.stdin is not None and made.stdout is not None and made.stderr is not None
        return made.stdin, made.stdout, made.stderr

    # --- beginning --------------------------------------------------------------------------------

    def talks(
        self, stdin: asyncio.StreamWriter, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader
    ) -> None:
        """Its streams are these, and not those of its starter."""
        self._ends = (stdin, stdout, stderr)

    def confined(self, group: Confined | None) -> None:
        """The control group it is in, where there is one."""
        self._confined = group

    def found(self, first: int, line: socket.socket) -> None:
        """Which process is the first inside, where the starter does not say it; and what it lives by: the
        line is closed with the daemon, whatever becomes of that. Raises :class:`OSError`."""
        self._line = line
        self._first = first
        self._inside = os.pidfd_open(first)

    async def begun(self, status: socket.socket, info: int | None, program: Program, look_s: float) -> None:
        """Return once the program was started inside; raises :class:`SandboxError` saying what was not."""
        self._info = info
        if info is not None:
            os.set_blocking(info, False)
        try:
            await self._set_up(status, program)
        finally:
            if self._inside is not None:
                self._info = None
        self._tasks.append(asyncio.ensure_future(self._look(look_s)))

    async def _set_up(self, status: socket.socket, program: Program) -> None:
        await _readable(status)
        said, handed, _, _ = socket.recv_fds(status, 1, 1)
        listeners = [socket.socket(fileno=number) for number in handed]
        try:
            if said != b"R":
                raise SandboxError("the sandbox could not be made")
            self._learn()
            if why := await _rest(status):
                raise SandboxError(f"{program.argv[0]} could not be started in the sandbox: {why}")
            if program.egress is not None and listeners:
                self._proxy = Proxy(program.egress)
                await self._proxy.start(listeners.pop())
        finally:
            for listener in listeners:
                listener.close()

    def _learn(self) -> None:
        """Which process is the first inside, once bubblewrap has said so: before it lets that one go on."""
        if self._inside is None and self._info is not None:
            with contextlib.suppress(OSError, ValueError):
                self._first = int(json.loads(os.read(self._info, 4_096))["child-pid"])
                self._inside = os.pidfd_open(self._first)

    def due(self, seconds: float) -> None:
        """It ends then at the latest."""

        async def later() -> None:
            await asyncio.sleep(seconds)
            self._kill("deadline")

        self._tasks.append(asyncio.ensure_future(later()))

    async def _look(self, every_s: float) -> None:
        while self.process.returncode is None:
            now = await asyncio.to_thread(held, self._first)
            if now.memory > self._limits.memory:
                self._kill("memory")
            elif now.tasks > self._limits.processes + self._own_tasks:
                self._kill("processes")
            await asyncio.sleep(every_s)

    # --- the end ----------------------------------------------------------------------------------

    async def wait(self) -> int:
        """See the port."""
        if self._ended is None:
            self._ended = asyncio.ensure_future(self._end())
        return await asyncio.shield(self._ended)

    async def kill(self) -> None:
        """See the port."""
        await self.end("cancelled")

    async def end(self, by: KilledBy) -> None:
        """End it and everything it started."""
        self._kill(by)
        await self.wait()

    def _kill(self, by: KilledBy) -> None:
        if self.process.returncode is not None:
            return
        self._killed_by = self._killed_by or by
        if self._confined is not None:
            self._confined.kill()
        self._learn()
        if self._inside is not None:
            # The kernel ends all that is inside with it; bubblewrap then ends by itself.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._inside, signal.SIGKILL)
            asyncio.get_running_loop().call_later(_PATIENCE_S, self._kill_group)
        elif self._cleared is not None:
            # An engine that is killed while it makes a container leaves half of one: it is let finish first,
            # and what it makes finds nobody who lets it in.
            asyncio.get_running_loop().call_later(_MAKING_S, self._kill_group)
        else:
            self._kill_group()

    def _kill_group(self) -> None:
        """Bubblewrap, and its first process as long as that waits to be let in: neither is alone yet."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    async def _end(self) -> int:
        code = await self.process.wait()
        unknown = self._inside is None or code < 0
        if self._inside is not None:
            await _readable(self._inside)
            os.close(self._inside)
            self._inside = None
        if unknown and self._cleared is not None:
            await self._cleared()
        if self._confined is not None and (await self._confined.left()).ooms:
            self._killed_by = self._killed_by or "memory"
        if self._line is not None:
            self._line.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._proxy is not None:
            await self._proxy.close()
        self._over(self)
        return code if code >= 0 else 128 - code


async def _rest(status: socket.socket) -> str:
    """What the first process inside says before the end of its stream: nothing, if it became the program."""
    loop = asyncio.get_running_loop()
    said = b""
    while len(said) < MAX_SAID and (more := await loop.sock_recv(status, MAX_SAID)):
        said += more
    return said.decode(errors="replace")


async def _readable(descriptor: socket.socket | int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    number = descriptor if isinstance(descriptor, int) else descriptor.fileno()

    def seen() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(number, seen)
    try:
        await ready
    finally:
        loop.remove_reader(number)
