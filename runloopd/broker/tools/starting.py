"""What every sandbox of programs has in common, however it shuts a program in.

Knows: a program that runs to its end, with its bounds and what is kept of what it says; a server that lives
on; how many at once; what the layers say. Does not know: how one is started (:meth:`Starting.start`), how it
is counted and ended (``tools.running``).
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from runloopd.broker.providers.walk import Identity, identity
from runloopd.broker.toolbox import ToolError
from runloopd.broker.tools.running import Running
from runloopd.broker.tools.sandbox import Child, Layers, Output, Program, ProgramResult

__all__ = ["PIPE", "SET_UP_S", "Starting", "no_program"]

SET_UP_S = 20.0
"""Longest time until the program is started."""
AT_ONCE = 16
"""Programs that run to their end at the same time; the next one waits. Servers are not among them."""
LOOK_S = 0.1
LOOK_SERVER_S = 1.0
"""How often a tree is counted; of a server, which lives long, less often."""
PIPE = asyncio.subprocess.PIPE
_CHUNK = 65_536


class Starting(abc.ABC):
    """A sandbox but for its walls. Implements ``ProgramSandbox`` with what a wall-builder adds."""

    def __init__(self, ours: Iterable[Path] = ()) -> None:
        """``ours``: files and directories that no program sees, whatever it was granted."""
        self._ours = {path: _identity(path) for path in ours}
        self._layers: Layers | None = None
        self._running: set[Running] = set()
        self._places = asyncio.Semaphore(AT_ONCE)

    @abc.abstractmethod
    def look(self) -> Layers:
        """Try each layer. Waits for short-lived processes."""

    @abc.abstractmethod
    async def start(self, program: Program, stdin: int, stdout: int, stderr: int, look_s: float) -> Running:
        """The program, begun; :data:`PIPE` asks for ends of its own (``Running.streams``).

        Raises :class:`SandboxError`, and then nothing was run.
        """

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
            self._layers = self.look()
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

    async def run(self, program: Program, *, on_output: Output | None = None) -> ProgramResult:
        """See the port."""
        async with self._places:
            return await self._run(program, on_output)

    async def _run(self, program: Program, on_output: Output | None) -> ProgramResult:
        began = time.monotonic()
        child = await self.start(program, PIPE, PIPE, PIPE, LOOK_S)
        limits = program.limits
        out, err = (_Kept(name, limits.output, on_output) for name in ("stdout", "stderr"))
        stdin, stdout, stderr = child.streams
        feeding = asyncio.ensure_future(_feed(stdin, program.stdin))
        reading = asyncio.gather(out.drain(stdout), err.drain(stderr), child.wait())
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
            stdin.close()
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
        child = await self.start(program, stdin, stdout, stderr, LOOK_SERVER_S)
        if program.limits.wall_ms is not None:
            child.due(program.limits.wall_ms / 1000)
        return child


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


def _identity(path: Path) -> Identity | None:
    try:
        return identity(path.stat()) if path.is_dir() else None  # a socket is made anew at each start
    except OSError:
        return None


def no_program(name: str, where: str = "on this machine") -> ToolError:
    """The refusal of a program that is not there."""
    return ToolError(
        f"there is no program {name[:200]!r} {where}",
        hint="name a program of the system by its name or its absolute path",
        code="tool.unavailable",
    )


def runnable(path: Path) -> bool:
    """Whether a file of the host can be run."""
    return path.is_file() and os.access(path, os.X_OK)
