"""What is said to a container engine: podman, or docker where that is rootless.

Knows: the words of both command lines, and which of them an engine understands. Does not know: programs and
what they are granted (``tools.container``), or whether an engine did as it was told: nobody believes it, the
first process inside looks (``tools.entry``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runloopd.broker.tools.sandbox import Limits, SandboxError

__all__ = ["Bind", "Engine", "begin", "find_engine", "image_by_digest", "new_name", "remove"]

ENGINES = ("podman", "docker")
"""In the order in which they are looked for: podman needs no service, and has a user namespace of its own."""
_PLACES = "/usr/bin:/usr/local/bin:/bin"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INHERITED = ("HOME", "XDG_RUNTIME_DIR", "DOCKER_HOST", "DBUS_SESSION_BUS_ADDRESS")
"""All of the daemon's environment that an engine sees: where a user's containers are."""
_DIGEST = re.compile(r"([a-z0-9][a-z0-9._/:-]{0,200}@)?sha256:[0-9a-f]{64}\Z")
_UNSAYABLE = re.compile(r'[,:"\\\s=]')
_SPARE = 64 << 20
"""Bytes above a program's own limit where the engine's begins: counting ends it first, and says why."""
_TASKS = 4_096
_ASK_S = 30
_REMOVE_S = 20.0


@dataclass(frozen=True, slots=True)
class Bind:
    """A place of the host, as an engine is told."""

    source: str
    path: str
    writable: bool = False

    def word(self) -> str:
        """As ``--mount`` takes it. Raises :class:`SandboxError` for a name that a command line cannot say."""
        for name in (self.source, self.path):
            if _UNSAYABLE.search(name):
                raise SandboxError(
                    f'{name!r} cannot be mounted in a container: a blank or one of , : " \\ = in a name '
                    "would be read as an option",
                    hint='rename it, or use security.sandbox = "bubblewrap"',
                )
        return f"type=bind,src={self.source},dst={self.path}" + ("" if self.writable else ",ro=true")


def new_name() -> str:
    """A name that no container has."""
    return f"runloop-{secrets.token_hex(8)}"


def image_by_digest(image: str | None) -> str:
    """The image, if it is named by what is in it. Raises :class:`SandboxError`: a tag is whatever somebody
    makes of it tomorrow."""
    if not image:
        raise SandboxError(
            "no image is named for the container sandbox",
            hint="set security.sandbox_image to an image by digest: name@sha256:… or sha256:…",
        )
    if not _DIGEST.match(image):
        raise SandboxError(
            f"{image[:200]!r} does not name an image by digest",
            hint="security.sandbox_image is name@sha256:… or sha256:…; 'podman images --digests' shows both",
        )
    return image


def find_engine(given: str | None) -> str:
    """The path of an engine. Raises :class:`SandboxError`."""
    if given is not None:
        if not (Path(given).is_absolute() and os.access(given, os.X_OK) and Path(given).is_file()):
            raise SandboxError(
                f"security.sandbox_engine {given[:200]!r} is not the absolute path of a program",
                hint="name podman or docker by its absolute path, or leave it out",
            )
        return given
    for name in ENGINES:
        if found := shutil.which(name, path=_PLACES):
            return found
    raise SandboxError(
        "no container engine is installed", hint='install podman, or set security.sandbox = "bubblewrap"'
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """One engine and the image it starts."""

    path: str
    kind: Literal["podman", "docker"]
    version: str
    image: str
    root: bool
    """Whether it works for the user who owns the machine."""
    bounds: bool = True
    """Whether it can bound memory and processes itself (a cgroup was delegated to it)."""

    @classmethod
    def ask(cls, path: str, image: str) -> Engine:
        """Which engine a path is. Raises :class:`SandboxError`."""
        said = _said(path, "--version").strip()
        kind = next((kind for kind in ENGINES if kind in said.lower()), None)
        if kind is None:
            raise SandboxError(f"{path} is neither podman nor docker: it calls itself {said[:100]!r}")
        return cls(
            path=path,
            kind="podman" if kind == "podman" else "docker",
            version=said[:100],
            image=image,
            root=os.geteuid() == 0,
        )

    def has_image(self) -> None:
        """Raise :class:`SandboxError` unless the image is there: nothing is ever fetched."""
        _said(self.path, "image", "inspect", "--format", "{{.Id}}", self.image)

    def run(
        self,
        name: str,
        limits: Limits,
        binds: Sequence[Bind],
        scratch: Sequence[str],
        command: Sequence[str],
    ) -> list[str]:
        """The words that start one container. ``scratch``: folders that begin empty, in memory.

        No word of them shows what a program is told, lent or reads.
        """
        size = max(limits.file_bytes, 1 << 16)
        words = [
            *("run", "--rm", "--pull", "never", "--name", name, "--log-driver", "none"),
            *("--network", "none", "--ipc", "private", "--hostname", "sandbox", "--workdir", "/"),
            *("--read-only", "--cap-drop", "ALL"),
            *("--security-opt", "no-new-privileges", "--security-opt", "label=disable"),
            *("--ulimit", "core=0:0", "--ulimit", "nofile=1024:1024", *_tasks()),
            *("--shm-size", str(max(size // 4, 1 << 16)), "--no-healthcheck"),
            *self._user(),
        ]
        for folder in ("/tmp", *scratch):  # noqa: S108 - inside, where it is its own
            words += ["--tmpfs", f"{folder}:rw,nosuid,nodev,exec,mode=1777,size={size}"]
        words += self._bounds(limits)
        words += self._own_words()
        for bind in binds:
            words += ["--mount", bind.word() + self._shallow()]
        return [*words, "--entrypoint", command[0], self.image, *command[1:]]

    def most(self, limits: Limits) -> int:
        """Bytes that the engine itself bounds a container to, where it can: a little above a program's own
        limit."""
        return limits.memory + _SPARE

    def environment(self) -> dict[str, str]:
        """Of the engine itself; none of it reaches a container."""
        return {"PATH": _PATH, **{name: os.environ[name] for name in _INHERITED if name in os.environ}}

    def remove(self, name: str) -> list[str]:
        """The words that end a container, whatever state it is in."""
        return ["rm", "--force", *(("--time", "0", "--ignore") if self.kind == "podman" else ()), name]

    def _bounds(self, limits: Limits) -> list[str]:
        if not self.bounds:
            return ["--cgroups", "disabled"] if self.kind == "podman" else []
        most = self.most(limits)
        return [
            *("--memory", f"{most}b", "--memory-swap", f"{most}b"),
            *("--pids-limit", str(limits.processes + 8)),
        ]

    def _user(self) -> list[str]:
        """A user namespace in which the program is the user who granted its folders, and nobody is more."""
        if self.kind == "docker":
            return ["--user", "0:0"]  # of a rootless engine: the user who runs it
        if self.root:
            ids = ("0:100000:1000", "1000:0:1")
            maps = [word for one in ids for word in ("--uidmap", one, "--gidmap", one)]
            return [*maps, "--user", "1000:1000"]
        return ["--userns", "keep-id", "--user", f"{os.geteuid()}:{os.getegid()}"]

    def _own_words(self) -> list[str]:
        if self.kind == "docker":
            return ["--cgroupns", "private"]
        return [
            *("--cgroupns", "private", "--pid", "private", "--uts", "private", "--systemd", "false"),
            *("--http-proxy=false", "--env-host=false", "--unsetenv-all"),
            *("--read-only-tmpfs=false", "--image-volume", "ignore", "--no-hosts"),
        ]

    def _shallow(self) -> str:
        """What is mounted below a granted folder lies outside the grant."""
        major = re.search(r"version (\d+)\.", self.version)
        # docker has called it otherwise since 25, and 20.10, which Debian 12 has, knows the old name only.
        renamed = self.kind == "docker" and major is not None and int(major[1]) >= 25
        return ",bind-recursive=disabled" if renamed else ",bind-nonrecursive=true"


def _tasks() -> tuple[str, ...]:
    """A limit of processes that the daemon has itself: an engine's own default it may not be allowed to set.
    The program's is put on inside, where its user namespace counts its own."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    most = _TASKS if hard == resource.RLIM_INFINITY else min(hard, _TASKS)
    return ("--ulimit", f"nproc={most}:{most}")


def _said(path: str, *words: str) -> str:
    environment = {"PATH": _PATH, **{name: os.environ[name] for name in _INHERITED if name in os.environ}}
    try:
        done = subprocess.run(
            (path, *words), capture_output=True, timeout=_ASK_S, check=False, env=environment, cwd="/",
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxError(f"{path} could not be asked: {error}") from error
    if done.returncode != 0:
        why = " ".join(done.stderr.decode(errors="replace").split())[:300]
        raise SandboxError(f"{path} {words[0]}: {why or f'exit {done.returncode}'}")
    return done.stdout.decode(errors="replace")


# --- at work --------------------------------------------------------------------------------------


async def begin(
    engine: Engine, words: list[str], said: int
) -> tuple[asyncio.subprocess.Process, asyncio.CancelledError | None]:
    """An engine at work, and whether whoever wanted it was stopped meanwhile: somebody has to end it then."""
    making = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            engine.path,
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=engine.environment(),
            cwd="/",
            start_new_session=True,
        )
    )
    stopped = None
    try:
        await asyncio.wait((making,))
    except asyncio.CancelledError as error:
        stopped = error
    return await making, stopped


async def remove(engine: Engine, name: str) -> None:
    """A container whose starter was killed, gone in whatever state it is."""
    process = await asyncio.create_subprocess_exec(
        engine.path,
        *engine.remove(name),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=engine.environment(),
        cwd="/",
        start_new_session=True,
    )
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REMOVE_S):
            await process.wait()
