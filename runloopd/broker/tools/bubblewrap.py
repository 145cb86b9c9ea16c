"""Runs programs under bubblewrap. Implements ``ProgramSandbox``.

Knows: the order of a start (layers → enclosure → bubblewrap → first process inside → the program) and what is
kept of what a program says. Does not know: what a program finds around it (``tools.enclosure``), how it is
counted and ended (``tools.running``), who may run what.

Whether a program was started is known for certain: the first process inside says when it runs, and its socket
closes in the very moment it becomes the program. Everything before that is a :class:`SandboxError`, and then
nothing was run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from runloopd.broker.providers.walk import Identity, identity
from runloopd.broker.toolbox import ToolError
from runloopd.broker.tools import layers as walls
from runloopd.broker.tools.enclosure import enclose
from runloopd.broker.tools.running import Running
from runloopd.broker.tools.sandbox import (
    SAFE_ENV,
    Child,
    Layers,
    Output,
    Program,
    ProgramResult,
    SandboxError,
)

__all__ = ["Bubblewrap"]

SET_UP_S = 20.0
"""Longest time until the program is started."""
AT_ONCE = 16
"""Programs that run to their end at the same time; the next one waits. Servers are not among them."""
LOOK_S = 0.1
LOOK_SERVER_S = 1.0
"""How often a tree is counted; of a server, which lives long, less often."""
_CHUNK = 65_536
_MAX_WHY = 2_000


class Bubblewrap:
    """The real sandbox."""

    def __init__(self, ours: Iterable[Path] = ()) -> None:
        """``ours``: files and directories that no program sees, whatever it was granted."""
        self._ours = {path: _identity(path) for path in ours}
        self._layers: Layers | None = None
        self._running: set[Running] = set()
        self._places = asyncio.Semaphore(AT_ONCE)

    async def close(self) -> None:
        """End everything that still runs."""
        await asyncio.gather(*(child.kill() for child in list(self._running)))

    @property
    def running(self) -> int:
        """How many programs there are at this moment."""
        return len(self._running)

    def layers(self) -> Layers:
        """See the port. The first call tries each layer, which takes a moment."""
        if self._layers is None:
            self._layers = walls.look()
        return self._layers

    async def prepare(self) -> None:
        """Try the layers before somebody waits for them."""
        await asyncio.to_thread(self.layers)

    def told(self) -> list[dict[str, Any]] | None:
        """Each layer as ``{name, holds, found}``; None until they were tried."""
        if self._layers is None:
            return None
        return [
            {"name": layer.name, "holds": layer.holds, "found": layer.found} for layer in self._layers.each
        ]

    def resolve(self, program: str) -> str:
        """See the port. Links of folders are resolved, the program's own name is kept: what a program with
        many names does hangs on the one it is called by."""
        found = program if program.startswith("/") else shutil.which(program, path=SAFE_ENV["PATH"])
        if found is None or "\0" in program or ("/" in program and not program.startswith("/")):
            raise _no_program(program)
        place = Path(found).parent.resolve() / Path(found).name
        if not place.is_file() or not os.access(place, os.X_OK):
            raise _no_program(program)
        return str(place)

    async def run(self, program: Program, *, on_output: Output | None = None) -> ProgramResult:
        """See the port."""
        async with self._places:
            return await self._run(program, on_output)

    async def _run(self, program: Program, on_output: Output | None) -> ProgramResult:
        began = time.monotonic()
        pipe = asyncio.subprocess.PIPE
        child = await self._start(program, pipe, pipe, pipe, LOOK_S)
        limits = program.limits
        out, err = (_Kept(name, limits.output, on_output) for name in ("stdout", "stderr"))
        streams = child.process
        assert streams.stdin is not None and streams.stdout is not None and streams.stderr is not None
        feeding = asyncio.ensure_future(_feed(streams.stdin, program.stdin))
        reading = asyncio.gather(out.drain(streams.stdout), err.drain(streams.stderr), child.wait())
        try:
            wall = None if limits.wall_ms is None else limits.wall_ms / 1000
            done, _ = await asyncio.wait([reading], timeout=wall)
            if not done:
                await child.end("deadline")
            await reading
        except asyncio.CancelledError:
            await asyncio.shield(child.end("cancelled"))
            raise
        finally:
            feeding.cancel()
            reading.cancel()
            await asyncio.gather(feeding, reading, return_exceptions=True)
            streams.stdin.close()
        code = await child.wait()
        return ProgramResult(
            exit=code,
            stdout=bytes(out.data),
            stderr=bytes(err.data),
            truncated=out.truncated or err.truncated,
            killed_by=child.killed_by or ("cpu" if code == 128 + signal.SIGXCPU else None),
            wall_ms=int((time.monotonic() - began) * 1000),
        )

    async def spawn(self, program: Program, *, stdin: int, stdout: int, stderr: int) -> Child:
        """See the port."""
        child = await self._start(program, stdin, stdout, stderr, LOOK_SERVER_S)
        if program.limits.wall_ms is not None:
            child.due(program.limits.wall_ms / 1000)
        return child

    async def _start(self, program: Program, stdin: int, stdout: int, stderr: int, look_s: float) -> Running:
        (await asyncio.to_thread(self.layers)).require()
        with contextlib.ExitStack() as kept:
            status, info, process = await self._enclosed(program, stdin, stdout, stderr, kept)
            child = Running(process, program.limits, self._running.discard)
            self._running.add(child)
            try:
                async with asyncio.timeout(SET_UP_S):
                    await child.begun(status, info, program, look_s)
            except BaseException as error:
                await asyncio.shield(child.kill())
                if isinstance(error, TimeoutError):
                    raise SandboxError("the sandbox could not be made in time") from error
                if isinstance(error, SandboxError) and process.stderr is not None:
                    error.args = (await _with_words(error, process.stderr),)
                raise
        return child

    async def _enclosed(
        self, program: Program, stdin: int, stdout: int, stderr: int, kept: contextlib.ExitStack
    ) -> tuple[socket.socket, int, asyncio.subprocess.Process]:
        """Bubblewrap, started; with the ends on which it and the first process inside speak."""
        here, there = socket.socketpair()
        kept.callback(here.close)
        here.setblocking(False)
        told, tells = os.pipe()
        kept.callback(os.close, told)
        with contextlib.ExitStack() as handed:
            handed.callback(os.close, tells)
            handed.callback(there.close)
            plan = await asyncio.to_thread(enclose, program, self._ours, handed)
            # From the loop's own thread: the sandbox dies with the thread that started it.
            process = await asyncio.create_subprocess_exec(
                walls.bubblewrap(),
                *("--args", str(plan.args), "--info-fd", str(tells), "--"),
                *(*plan.command, str(plan.config), str(there.fileno())),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(*plan.descriptors, there.fileno(), tells),
                env={},
                cwd="/",
                start_new_session=True,
            )
        return here, told, process


class _Kept:
    """What is kept of one stream; the rest is read, so that the program goes on, and dropped."""

    def __init__(self, name: Literal["stdout", "stderr"], most: int, show: Output | None) -> None:
        self._name = name
        self._most = most
        self._show = show
        self.data = bytearray()
        self.truncated = False

    async def drain(self, stream: asyncio.StreamReader) -> None:
        while piece := await stream.read(_CHUNK):
            room = piece[: self._most - len(self.data)]
            self.truncated = self.truncated or len(room) < len(piece)
            if room:
                self.data += room
                if self._show is not None:
                    self._show(self._name, room)


async def _feed(stdin: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(OSError):  # it does not want to hear it
        stdin.write(data)
        await stdin.drain()
        stdin.close()


async def _with_words(error: SandboxError, stderr: asyncio.StreamReader) -> str:
    """With what bubblewrap said."""
    said = (await stderr.read(_MAX_WHY)).decode(errors="replace").strip()
    return f"{error.message}: {said}" if said else error.message


def _identity(path: Path) -> Identity | None:
    try:
        return identity(path.stat()) if path.is_dir() else None  # a socket is made anew at each start
    except OSError:
        return None


def _no_program(name: str) -> ToolError:
    return ToolError(
        f"there is no program {name[:200]!r} on this machine",
        hint="name a program of the system by its name or its absolute path",
        code="tool.unavailable",
    )
