"""What is asked of whoever runs a foreign program: the shapes and the promises of the port.

Knows: what a program is given and what comes back. Does not know: how a program is shut in
(``tools.bubblewrap``), who may run which program (``tools.programs``), what an agent is.

The promise: a program sees the system's own programs, what was mounted for it, and nothing else; it reaches
no network but through :class:`Egress`; it ends, with everything it started, at its limits, when it is
cancelled, and when the daemon does. A layer that is missing is a refusal (``tool.sandbox``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from runloopd.broker.toolbox import ToolError

__all__ = [
    "SAFE_ENV",
    "Child",
    "Egress",
    "KilledBy",
    "Layer",
    "Layers",
    "Limits",
    "Mount",
    "Output",
    "Program",
    "ProgramResult",
    "ProgramSandbox",
    "SandboxError",
]

KilledBy = Literal["deadline", "cpu", "memory", "processes", "cancelled"]
Output = Callable[[Literal["stdout", "stderr"], bytes], None]
"""Called with each piece as it arrives, within the bound of what is kept; never raises."""

SAFE_ENV: Mapping[str, str] = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
    "HOME": "/tmp",  # noqa: S108 - inside, where it is its own
    "TMPDIR": "/tmp",  # noqa: S108
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}
"""The environment of a program that brings none of its own. Nothing of the daemon's is in it."""


class SandboxError(ToolError):
    """The sandbox could not be made: nothing was run."""

    code = "tool.sandbox"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """A folder or a file of the host that a program sees."""

    path: str
    """Absolute, as seen inside."""
    source: str | None = None
    """On the host; None: the same. No link on the way is followed."""
    writable: bool = False
    trusted: bool = False
    """The daemon's own choice (a part of this program, say): links are followed, and what is Runloop's own is
    not kept from it. Never set for what an agent, a model or a policy names."""

    data: bytes | None = None
    """A file that is made up, with this in it; nothing of the host is looked at. Not below another mount."""

    @property
    def origin(self) -> str:
        """Where it lies on the host."""
        return self.path if self.source is None else self.source


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Where a program ends."""

    wall_ms: int | None = 60_000
    """None: when it is killed."""
    cpu_s: int | None = 60
    """Of each process."""
    memory: int = 1 << 30
    """Bytes that all its processes hold together; and the private data of each."""
    processes: int = 128
    """Threads of all its processes together."""
    file_bytes: int = 256 << 20
    """Of each file it writes, and of its private ``/tmp``."""
    output: int = 1 << 20
    """Bytes that are kept of each of stdout and stderr; the rest is read and dropped."""


class Egress(Protocol):
    """Which servers a program reaches. It finds an HTTP proxy that knows ``CONNECT`` (``HTTPS_PROXY``)."""

    async def connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection. Raises families of :mod:`runloop.errors` to refuse; the words reach the program."""
        ...

    def sending(self, host: str, port: int, size: int) -> None:
        """So many bytes are about to go there. Raises like :meth:`connect`: then the connection ends."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """One program, to be run once."""

    argv: tuple[str, ...]
    """``argv[0]`` is absolute. No shell ever reads it."""
    stdin: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)
    """Beside :data:`SAFE_ENV`; handed over by descriptor, never on a command line."""
    cwd: str = "/tmp"  # noqa: S108
    mounts: tuple[Mount, ...] = ()
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    """Name -> value; ``NAME_FD`` in the environment is a descriptor to read it from, once."""
    egress: Egress | None = None
    """None: it cannot even make a socket."""
    executables: tuple[str, ...] = ()
    """Files and folders, as seen inside: nothing else can be executed. Empty: whatever can be read."""
    limits: Limits = Limits()
    run: str = ""
    """On whose behalf; empty: a server, which belongs to no run."""
    agent: str = ""
    """Whose call it serves; empty: nobody's."""
    own: bool = False
    """Runloop's own code, which needs the interpreter and the libraries of this machine. Never set for what
    an agent, a model or a policy names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramResult:
    """How it ended."""

    exit: int
    """128 + n: ended by signal n."""
    stdout: bytes
    stderr: bytes
    truncated: bool
    """More was written than is kept."""
    killed_by: KilledBy | None
    wall_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One of the walls."""

    name: str
    holds: bool
    found: str
    """Its version, or what is wrong with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """Every wall. All of them are required."""

    each: tuple[Layer, ...]

    @property
    def missing(self) -> tuple[Layer, ...]:
        return tuple(layer for layer in self.each if not layer.holds)

    def require(self) -> None:
        """Raise :class:`SandboxError` unless every wall stands."""
        for layer in self.missing:
            raise SandboxError(
                f"no program is run: the sandbox has no {layer.name} ({layer.found})",
                hint="'rlp doctor' shows every layer; all of them are required",
            )


class Child(Protocol):
    """A program that goes on until it ends or is killed."""

    @property
    def pid(self) -> int:
        """Of the outermost process, outside."""
        ...

    @property
    def killed_by(self) -> KilledBy | None: ...

    async def wait(self) -> int:
        """Its exit; 128 + n: ended by signal n."""
        ...

    async def kill(self) -> None:
        """End it and everything it started; returns when they are gone."""
        ...


class ProgramSandbox(Protocol):
    """Runs programs, shut in."""

    def layers(self) -> Layers:
        """What there is; looked at once."""
        ...

    def resolve(self, program: str) -> str:
        """A name or an absolute path as the absolute path of a program that can be run.

        Raises :class:`ToolError` (``tool.unavailable``).
        """
        ...

    def stands_for(self, path: str) -> str:
        """The file that an absolute path leads to inside, links followed; itself where there is none."""
        ...

    async def run(self, program: Program, *, on_output: Output | None = None) -> ProgramResult:
        """Run it to its end, whatever that is: an exit other than 0 is no error here.

        Raises :class:`SandboxError` when nothing was run. Cancellation kills the whole tree first.
        """
        ...

    async def spawn(self, program: Program, *, stdin: int, stdout: int, stderr: int) -> Child:
        """Start a server on three descriptors, which stay the caller's; returns once it was started inside.

        ``program.stdin`` and ``limits.output`` mean nothing here. Raises :class:`SandboxError`.
        """
        ...
