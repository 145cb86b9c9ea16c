"""Runs programs in containers of an engine. Implements ``ProgramSandbox``, as bubblewrap does.

Knows: what a container is given of the machine, how the first process inside is let in, which programs an
image has. Does not know: an engine's words (``tools.container_engine``), what is kept of what a program says
(``tools.starting``), how it is counted and ended (``tools.running``).

The root is that of an image named by digest. Everything else is held as it is without an engine, by the same
first process (``tools.entry``), the same filter of calls, Landlock and counting. An engine is told what to do
and is not believed: before the program exists, the first process has looked at every wall and at every mount.

An engine only starts. The program's words, environment, secrets and streams go by descriptor, over a socket
that the first process finds mounted: no command line, no log and no database of an engine shows one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import platform
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runloop.errors import RunloopError
from runloopd.broker.providers.walk import Place, identities, names_of, opened
from runloopd.broker.tools.aliases import aliases, read_mounts
from runloopd.broker.tools.container_engine import (
    Bind,
    Engine,
    begin,
    find_engine,
    image_by_digest,
    new_name,
    remove,
)
from runloopd.broker.tools.container_first import HERE, first, first_binds, userland
from runloopd.broker.tools.enclosure import DEVICES, OURS_DEPTH, ROOT_LINKS, checked, limits_of, unmoved
from runloopd.broker.tools.layers import kernels
from runloopd.broker.tools.running import Running
from runloopd.broker.tools.sandbox import SAFE_ENV, Layer, Layers, Limits, Mount, Program, SandboxError
from runloopd.broker.tools.starting import PIPE, SET_UP_S, Starting, no_program, runnable
from runloopd.broker.tools.syscalls import program_filter

__all__ = ["Container"]

_DOOR = f"{HERE}/door"
_ASIDE = (".runloop", "dev", "proc", "run", "sys", "tmp")
"""What lies in a container's root and is not its image's."""
_SYSTEM = frozenset({"dev", "etc", "proc", "run", "sys", "usr", *ROOT_LINKS})
_NAMESPACES = ("user", "pid", "net", "ipc", "uts", "mnt", "cgroup")
_TRIAL_S = 60
_MAX_WHY = 2_000


@dataclass(frozen=True, slots=True)
class _Room:
    """What one container is given."""

    binds: list[Bind]
    scratch: list[str]
    told: bytes


class Container(Starting):
    """A sandbox that an engine builds."""

    def __init__(
        self, ours: Iterable[Path], *, door: Path, image: str | None, engine: str | None = None
    ) -> None:
        """``door``: a folder of the daemon's, where it is asked for descriptors. ``engine``: its absolute
        path; None: podman, else docker, where one is installed."""
        super().__init__(ours)
        self._door, self._image, self._given = door, image, engine
        self._engine: Engine | None = None
        self._programs: dict[str, str] = {}

    # --- layers -----------------------------------------------------------------------------------

    def look(self) -> Layers:
        """See the base. A container is really started, and looked at from inside."""
        try:
            engine = Engine.ask(find_engine(self._given), image_by_digest(self._image))
        except SandboxError as error:
            return Layers(each=(Layer(name="engine", holds=False, found=_words(error)), *kernels()))
        found = [Layer(name="engine", holds=True, found=engine.version)]
        try:
            engine.has_image()
        except SandboxError as error:
            why = f"{error.message}; nothing is fetched: pull or build it first"
            return Layers(each=(*found, Layer(name="image", holds=False, found=why), *kernels()))
        found.append(Layer(name="image", holds=True, found=engine.image[-71:]))
        return Layers(each=(*found, self._trial(engine), *kernels()))

    def _trial(self, engine: Engine) -> Layer:
        """With an engine's own bounds of memory and processes if it can, without if it cannot."""
        why = ""
        for one in (engine, replace(engine, bounds=False)):
            try:
                programs, memory = _tried(one)
            except SandboxError as error:
                why = error.message
                continue
            if one.bounds and memory != one.most(Limits()):
                continue  # it was told to, and did not: it is not said to do it
            self._programs, self._engine = programs, one
            cgroup = "and a cgroup of its own" if one.bounds else "without a cgroup: counting alone bounds it"
            return Layer(name="container", holds=True, found=f"every namespace, {cgroup}")
        return Layer(name="container", holds=False, found=why)

    # --- programs ---------------------------------------------------------------------------------

    def resolve(self, program: str) -> str:
        """See the port: a program of the image, or one of a granted folder by its absolute path."""
        self.layers().require()
        if "\0" in program or ("/" in program and not program.startswith("/")):
            raise no_program(program, "in the image")
        if program.startswith("/"):
            if program in self._programs:
                return program
            # Whether it is mounted is seen when it is started; what is not there cannot be run.
            place = Path(program).parent.resolve() / Path(program).name
            system = len(place.parts) < 3 or place.parts[1] in _SYSTEM
            if not system and runnable(place):
                return str(place)
            raise no_program(program, "in the image")
        for folder in SAFE_ENV["PATH"].split(":"):
            if f"{folder}/{program}" in self._programs:
                return f"{folder}/{program}"
        raise no_program(program, "in the image")

    def stands_for(self, path: str) -> str:
        """See the port."""
        return self._programs.get(path) or str(Path(path).resolve())

    # --- starting ---------------------------------------------------------------------------------

    async def start(self, program: Program, stdin: int, stdout: int, stderr: int, look_s: float) -> Running:
        """See the base."""
        (await asyncio.to_thread(self.layers)).require()
        engine = self._engine
        assert engine is not None
        with contextlib.ExitStack() as kept:
            name = new_name()
            room = await asyncio.to_thread(self._room, program)
            listener = self._listening(name, kept)
            said = os.memfd_create("engine", os.MFD_CLOEXEC)
            kept.callback(os.close, said)
            door = Bind(str(self._door / name), _DOOR)
            words = engine.run(name, program.limits, [*room.binds, door], room.scratch, first("door", _DOOR))
            process, stopped = await begin(engine, words, said)
            child = Running(
                process,
                program.limits,
                self._running.discard,
                own_tasks=1,
                cleared=functools.partial(remove, engine, name),
            )
            self._running.add(child)
            try:
                if stopped is not None:
                    raise stopped
                async with asyncio.timeout(SET_UP_S):
                    await _let_in(child, listener, program, room, (stdin, stdout, stderr), look_s)
            except BaseException as error:
                listener.close()
                await asyncio.shield(child.kill())
                if isinstance(error, TimeoutError):
                    raise SandboxError(f"the container could not be made in time{_rest(said)}") from error
                if isinstance(error, SandboxError):
                    error.args = (f"{error.message}{_rest(said)}",)
                raise
        return child

    def _listening(self, name: str, kept: contextlib.ExitStack) -> socket.socket:
        """Where the first process inside asks. The folder's name may be longer than a socket's address."""
        folder = os.open(self._door, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        kept.callback(os.close, folder)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        kept.callback(listener.close)
        listener.bind(f"/proc/self/fd/{folder}/{name}")
        kept.callback((self._door / name).unlink, missing_ok=True)
        listener.listen(1)
        listener.setblocking(False)
        return listener

    # --- what it is given -------------------------------------------------------------------------

    def _room(self, program: Program) -> _Room:
        """Waits for the disk. Raises :class:`SandboxError`, or what the walk to a folder raises."""
        checked(program)
        unmoved(self._ours)
        binds = [*first_binds()]
        expected: list[tuple[str, int, int, bool]] = []
        files: dict[str, str] = {}
        own = frozenset(found for path in self._ours for found in identities(path, OURS_DEPTH))
        for mount in program.mounts:
            if mount.data is not None:
                files[mount.path] = mount.data.hex()
                continue
            device, inode = self._granted(mount, own)
            binds.append(Bind(mount.origin, mount.path, mount.writable))
            expected.append((mount.path, device, inode, mount.writable))
        if program.own:
            binds += userland()
        machine = {name: Path(f"/proc/self/ns/{name}").stat().st_ino for name in _NAMESPACES}
        handed = {f"{name}_FD": str(number) for number, name in enumerate(program.secrets, start=3)}
        told = {
            "argv": program.argv,
            "env": {**SAFE_ENV, **program.env, **handed},
            "cwd": program.cwd,
            "readable": ["/proc", *(mount.path for mount in program.mounts if not mount.writable)],
            "writable": [
                *("/tmp", "/dev/shm"),  # noqa: S108 - inside, where both are its own
                *(mount.path for mount in program.mounts if mount.writable),
            ],
            "executable": list(program.executables),
            "devices": [f"/dev/{name}" for name in DEVICES],
            "limits": limits_of(program.limits),
            "kept": [],
            "listen": program.egress is not None,
            "walls": {"namespaces": machine, "mounts": expected},
            "aside": list(_ASIDE),
            "files": files,
            "filter": program_filter(platform.machine(), egress=program.egress is not None).hex(),
        }
        return _Room(binds, _tops(files), json.dumps(told).encode())

    def _granted(self, mount: Mount, own: frozenset[Any]) -> tuple[int, int]:
        """Which folder or file it is. The walk to it follows no link; that it is this one which is mounted,
        the first process inside sees."""
        if mount.trusted:
            found = Path(mount.origin).stat()
            return found.st_dev, found.st_ino
        if not names_of(mount.path) or not names_of(mount.origin):
            raise SandboxError(
                "a container is not given the whole machine",
                hint='name the folders, or use security.sandbox = "bubblewrap"',
            )
        for name in self._own_names():
            if name.is_relative_to(mount.origin) or Path(mount.origin).is_relative_to(name):
                raise SandboxError(
                    f"{mount.origin!r} holds what is Runloop's own, and a container cannot leave it out",
                    hint='grant a folder beside it, or use security.sandbox = "bubblewrap"',
                )
        with opened(Place(mount.origin, (), mount.origin), own) as handle:
            found = os.fstat(handle)
        return found.st_dev, found.st_ino

    def _own_names(self) -> Iterator[Path]:
        table = read_mounts()
        for path in self._ours:
            if path.exists():
                yield from aliases(path.resolve(), table)


async def _let_in(
    child: Running,
    listener: socket.socket,
    program: Program,
    room: _Room,
    streams: tuple[int, int, int],
    look_s: float,
) -> None:
    """The first process inside, met and given what it needs; returns once the program was started."""
    loop = asyncio.get_running_loop()
    asked = asyncio.ensure_future(loop.sock_accept(listener))
    gone = asyncio.ensure_future(child.process.wait())
    try:
        await asyncio.wait((asked, gone), return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise SandboxError("the engine did not start a container")
        channel, _ = asked.result()
    finally:
        for waiting in (asked, gone):
            waiting.cancel()
    # The kernel's word for who connected, as this machine counts processes: the first one inside.
    pid, _, _ = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    child.found(pid, channel)
    with contextlib.ExitStack() as kept:
        here, there = socket.socketpair()
        kept.callback(here.close)
        here.setblocking(False)
        with contextlib.ExitStack() as handed:
            handed.callback(there.close)
            ends = await _ends(child, streams, handed)
            lent = [_memory(value, handed) for value in program.secrets.values()]
            told = _memory(room.told, handed)
            await asyncio.to_thread(socket.send_fds, channel, [b"S"], [*ends, told, there.fileno(), *lent])
        await child.begun(here, None, program, look_s)


async def _ends(
    child: Running, streams: tuple[int, int, int], handed: contextlib.ExitStack
) -> tuple[int, int, int]:
    """The program's ends of its streams: the caller's, or new ones whose other ends are the child's."""
    if PIPE not in streams:
        return streams
    ours, theirs = socket.socketpair()
    handed.callback(theirs.close)
    _, stdin = await asyncio.open_connection(sock=ours)
    stdout, out = await _reading(handed)
    stderr, err = await _reading(handed)
    child.talks(stdin, stdout, stderr)
    return theirs.fileno(), out, err


async def _reading(handed: contextlib.ExitStack) -> tuple[asyncio.StreamReader, int]:
    read, write = os.pipe()
    handed.callback(os.close, write)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", buffering=0)
    )
    return reader, write


# --- small hands ----------------------------------------------------------------------------------


def _tried(engine: Engine) -> tuple[dict[str, str], int | None]:
    """Which programs an image has, and the bytes that the engine bounds it to; :class:`SandboxError` unless
    every wall stands."""
    machine = {name: Path(f"/proc/self/ns/{name}").stat().st_ino for name in _NAMESPACES}
    expected = json.dumps({"namespaces": machine, "mounts": []})
    name = new_name()
    words = engine.run(name, Limits(), list(first_binds()), (), first("trial", expected, SAFE_ENV["PATH"]))
    quiet: Any = {
        "env": engine.environment(),
        "cwd": "/",
        "stdin": subprocess.DEVNULL,
        "capture_output": True,
    }
    try:
        done = subprocess.run((engine.path, *words), timeout=_TRIAL_S, check=False, **quiet)
    except (OSError, subprocess.SubprocessError) as error:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run((engine.path, *engine.remove(name)), timeout=_TRIAL_S, check=False, **quiet)
        raise SandboxError(f"a container could not be tried: {error}") from error
    try:
        if done.returncode == 0:
            found = json.loads(done.stdout)
            programs = {str(path): str(real) for path, real in found["programs"].items()}
            return programs, found["memory"]
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise SandboxError("a container was tried and said nothing of use") from error
    said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit {done.returncode}"]
    raise SandboxError(said[-1][:300])


def _tops(files: dict[str, str]) -> list[str]:
    """Where files that are made up lie: folders of their own, in memory."""
    tops = sorted({"/" + path.split("/")[1] for path in files})
    for top in tops:
        if top[1:] in _SYSTEM or top[1:] in _ASIDE or top in files:
            raise SandboxError(f"a file is not made up in {top!r}, which is the image's")
    return tops


def _memory(data: bytes, kept: contextlib.ExitStack) -> int:
    made = os.memfd_create("runloop", os.MFD_CLOEXEC)
    kept.callback(os.close, made)
    view = memoryview(data)
    while view:
        view = view[os.write(made, view) :]
    os.lseek(made, 0, os.SEEK_SET)
    return made


def _rest(said: int) -> str:
    """What an engine said."""
    words = " ".join(os.pread(said, _MAX_WHY, 0).decode(errors="replace").split())
    return f": {words}" if words else ""


def _words(error: RunloopError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message
