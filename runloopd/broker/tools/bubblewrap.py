"""Runs programs under bubblewrap. Implements ``ProgramSandbox``.

Knows: the order of a start (layers → enclosure → bubblewrap → first process inside → the program). Does not
know: what is kept of what a program says (``tools.starting``), what a program finds around it
(``tools.enclosure``), how it is counted and ended (``tools.running``), who may run what.

Whether a program was started is known for certain: the first process inside says when it runs, and its socket
closes in the very moment it becomes the program. Everything before that is a :class:`SandboxError`, and then
nothing was run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

from runloopd.broker.tools import layers as walls
from runloopd.broker.tools.confine import Confined
from runloopd.broker.tools.enclosure import enclose
from runloopd.broker.tools.running import Running
from runloopd.broker.tools.sandbox import SAFE_ENV, Layers, Program, SandboxError
from runloopd.broker.tools.starting import SET_UP_S, Starting, no_program, runnable
from runloopd.cgroups import Groups

__all__ = ["Bubblewrap"]

_MAX_WHY = 2_000


class Bubblewrap(Starting):
    """The real sandbox."""

    def __init__(self, ours: Iterable[Path] = (), groups: Groups | None = None) -> None:
        """``groups``: each program gets one, with all it starts; None: there are none."""
        super().__init__(ours)
        self._groups = groups

    def look(self) -> Layers:
        """See the base."""
        return walls.look()

    def resolve(self, program: str) -> str:
        """See the port. Links of folders are resolved, the program's own name is kept: what a program with
        many names does hangs on the one it is called by."""
        found = program if program.startswith("/") else shutil.which(program, path=SAFE_ENV["PATH"])
        if found is None or "\0" in program or ("/" in program and not program.startswith("/")):
            raise no_program(program)
        place = Path(found).parent.resolve() / Path(found).name
        if not runnable(place):
            raise no_program(program)
        return str(place)

    def stands_for(self, path: str) -> str:
        """See the port."""
        return str(Path(path).resolve())

    async def start(self, program: Program, stdin: int, stdout: int, stderr: int, look_s: float) -> Running:
        """See the base."""
        (await asyncio.to_thread(self.layers)).require()
        with contextlib.ExitStack() as kept:
            held = kept.enter_context(contextlib.ExitStack())
            status, info, process = await self._enclosed(program, stdin, stdout, stderr, kept, held)
            child = Running(process, program.limits, self._running.discard)
            self._running.add(child)
            try:
                async with asyncio.timeout(SET_UP_S):
                    child.confined(await Confined.of(self._groups, process.pid, program))
                    held.close()
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
        self,
        program: Program,
        stdin: int,
        stdout: int,
        stderr: int,
        kept: contextlib.ExitStack,
        held: contextlib.ExitStack,
    ) -> tuple[socket.socket, int, asyncio.subprocess.Process]:
        """Bubblewrap, started; with the ends on which it and the first process inside speak. It starts
        nothing before ``held`` is closed: until then it reads its arguments."""
        here, there = socket.socketpair()
        kept.callback(here.close)
        here.setblocking(False)
        told, tells = os.pipe()
        kept.callback(os.close, told)
        with contextlib.ExitStack() as handed:
            handed.callback(os.close, tells)
            handed.callback(there.close)
            plan = await asyncio.to_thread(enclose, program, self._ours, handed)
            waits, goes_on = os.pipe()
            handed.callback(os.close, waits)
            held.callback(os.close, goes_on)
            # From the loop's own thread: the sandbox dies with the thread that started it.
            process = await asyncio.create_subprocess_exec(
                walls.bubblewrap(),
                *("--args", str(waits), "--args", str(plan.args), "--info-fd", str(tells), "--"),
                *(*plan.command, str(plan.config), str(there.fileno())),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(*plan.descriptors, there.fileno(), tells, waits),
                env={},
                cwd="/",
                start_new_session=True,
            )
        return here, told, process


async def _with_words(error: SandboxError, stderr: asyncio.StreamReader) -> str:
    """With what bubblewrap said."""
    said = (await stderr.read(_MAX_WHY)).decode(errors="replace").strip()
    return f"{error.message}: {said}" if said else error.message
