"""What a program finds around it: the arguments of bubblewrap, and what the first process inside is told.

Knows: the minimal root, how granted folders are opened and bound by descriptor, how Runloop's own places are
kept out of them whatever name leads there. Does not know: processes, time (``tools.bubblewrap``), who granted
what (``tools.folders``).

A folder is walked to as the file tools walk (``providers.walk``): one name after the other, no link followed,
nothing of Runloop's or the kernel's entered. What is bound is the descriptor that was checked.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runloop.errors import RunloopError
from runloopd.broker.providers.walk import Identity, Place, identities, identity, names_of, opened
from runloopd.broker.tools.aliases import Mounted, aliases, read_mounts
from runloopd.broker.tools.sandbox import SAFE_ENV, Limits, Mount, Program, SandboxError
from runloopd.broker.tools.syscalls import program_filter

__all__ = ["DEVICES", "OURS_DEPTH", "ROOT_LINKS", "Enclosure", "checked", "enclose", "limits_of", "unmoved"]

MAX_WORDS = 4_096
MAX_WORDS_BYTES = 1 << 20
MAX_MOUNTS = 64
OURS_DEPTH = 2
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_HERE = "/.runloop"
"""Where the first process inside finds what it needs; behind Landlock nobody reads there."""
_NEVER = frozenset({"dev", "proc", "run", "sys", "tmp"})
"""What a grant of ``/`` does not bring: made anew inside, or a place of sockets."""
ROOT_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC = (
    "alternatives", "ca-certificates.conf", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "mime.types", "protocols", "services", "ssl/certs", "ssl/openssl.cnf", "timezone",
)  # fmt: skip
_MADE = {
    "/etc/passwd": "user:x:1000:1000:user:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "/etc/group": "user:x:1000:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


@dataclass(frozen=True, kw_only=True, slots=True)
class Enclosure:
    """Ready to be started. Its descriptors are closed with the stack that it was made on."""

    args: int
    """For ``--args``."""
    command: tuple[str, ...]
    """The first process inside; two more words follow: its descriptors of config and status."""
    config: int
    descriptors: tuple[int, ...]
    """To be inherited."""


def enclose(program: Program, ours: Mapping[Path, Identity | None], stack: contextlib.ExitStack) -> Enclosure:
    """Everything that is opened, opened; everything that is said, said. Waits for the disk.

    ``ours``: what no program sees, with what it was when the daemon began.
    Raises :class:`SandboxError`, or what the walk to a folder raises.
    """
    checked(program)
    unmoved(ours)
    making = _Making(stack, tuple(ours))
    making.root(program.limits)
    # Outer folders first; what the daemon itself adds lies over everything, the masks too.
    mounts = sorted(program.mounts, key=lambda mount: len(names_of(mount.path)))
    for mount in (mount for mount in mounts if not mount.trusted and mount.data is None):
        making.bind(mount)
    making.lay()
    for mount in (mount for mount in mounts if mount.trusted or mount.data is not None):
        making.bind(mount)
    python = making.interpreter()
    seccomp = making.keep(program_filter(platform.machine(), egress=program.egress is not None))
    args = [
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc"),
        *("--unshare-uts", "--unshare-cgroup", "--disable-userns"),
        *("--uid", "1000", "--gid", "1000", "--hostname", "sandbox", "--cap-drop", "ALL"),
        *("--die-with-parent", "--new-session", "--clearenv"),
        *making.args,
        *("--remount-ro", "/dev", "--remount-ro", "/"),
        *("--seccomp", str(seccomp)),
    ]
    secrets = {name: making.keep(value) for name, value in program.secrets.items()}
    config = making.keep(json.dumps(_told(program, making, secrets)).encode())
    return Enclosure(
        args=making.keep(b"".join(word.encode() + b"\0" for word in args)),
        command=(python, "-I", "-S", f"{_HERE}/entry.py"),
        config=config,
        descriptors=tuple(making.descriptors),
    )


def unmoved(ours: Mapping[Path, Identity | None]) -> None:
    """Raise if another thing has the name of one of Runloop's own: then nobody knows where that one is."""
    for path, before in ours.items():
        try:
            now = identity(path.stat())
        except OSError:
            now = None
        if before is not None and now != before:
            raise SandboxError(f"{path} is not what it was when the daemon began", hint="restart the daemon")


def checked(program: Program) -> None:
    """Raise :class:`SandboxError` for what no kernel and no list of arguments could carry."""
    words = [*program.argv, *program.env, *program.env.values(), program.cwd]
    if not program.argv or not program.argv[0].startswith("/"):
        raise SandboxError("a program is named by its absolute path")
    if any("\0" in word for word in words):
        raise SandboxError("an argument or a variable holds a NUL character")
    if len(words) > MAX_WORDS or sum(map(len, words)) > MAX_WORDS_BYTES:
        raise SandboxError(f"more than {MAX_WORDS} arguments and variables, or {MAX_WORDS_BYTES} characters")
    for name in (*program.env, *program.secrets):
        if not _NAME.match(name):
            raise SandboxError(f"{name[:64]!r} is not the name of a variable")
    if len(program.mounts) > MAX_MOUNTS:
        raise SandboxError(f"more than {MAX_MOUNTS} folders")
    names_of(program.cwd)


def limits_of(limits: Limits) -> dict[str, int]:
    """What the first process inside puts on itself: the name of each resource -> its limit."""
    most = {
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 1_024,
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_DATA": limits.memory,
        "RLIMIT_FSIZE": limits.file_bytes,
    }
    if limits.cpu_s is not None:
        most["RLIMIT_CPU"] = limits.cpu_s
    return most


def _told(program: Program, making: _Making, secrets: dict[str, int]) -> dict[str, Any]:
    handed = {f"{name}_FD": str(number) for number, name in enumerate(secrets, start=3)}
    return {
        "argv": program.argv,
        "env": {**SAFE_ENV, **program.env, **handed},
        "cwd": program.cwd,
        "readable": making.readable,
        "writable": making.writable,
        "executable": [*program.executables, *_loaders()] if program.executables else [],
        "devices": [f"/dev/{name}" for name in DEVICES],
        "limits": limits_of(program.limits),
        "kept": list(secrets.values()),
        "listen": program.egress is not None,
    }


def _loaders() -> list[str]:
    """What the kernel executes beside a program: the system's dynamic loaders."""
    return [str(path) for folder in ("/lib64", "/lib") for path in sorted(Path(folder).glob("ld-*.so.*"))]


def _word(mount: Mount) -> str:
    return "--bind-fd" if mount.writable else "--ro-bind-fd"


class _Making:
    """An enclosure in the making."""

    def __init__(self, stack: contextlib.ExitStack, ours: tuple[Path, ...]) -> None:
        self._stack = stack
        self._ours = ours
        self._own: frozenset[Identity] = frozenset(
            found for path in ours for found in identities(path, OURS_DEPTH)
        )
        self._names: tuple[Path, ...] | None = None
        self._masked: list[Mount] = []
        self._table: tuple[Mounted, ...] | None = None
        self._binds: dict[str, tuple[str, ...]] = {}
        self.args: list[str] = []
        self.descriptors: list[int] = []
        self.readable = ["/usr", "/etc", "/proc"]
        self.writable = ["/tmp", "/dev/shm"]  # noqa: S108 - inside, where both are its own

    def keep(self, data: bytes) -> int:
        """A descriptor to read ``data`` from."""
        made = self._held(os.memfd_create("runloop", os.MFD_CLOEXEC))
        view = memoryview(data)
        while view:
            view = view[os.write(made, view) :]
        os.lseek(made, 0, os.SEEK_SET)
        return made

    def _held(self, descriptor: int) -> int:
        self._stack.callback(os.close, descriptor)
        self.descriptors.append(descriptor)
        return descriptor

    # --- the minimal root -------------------------------------------------------------------------

    def root(self, limits: Limits) -> None:
        """The system's programs and what they cannot do without."""
        self.args += ["--ro-bind", "/usr", "/usr"]
        for name in ROOT_LINKS:
            place = Path("/", name)
            if place.is_symlink():
                self.args += ["--symlink", str(place.readlink()), str(place)]
            elif place.is_dir():
                self.args += ["--ro-bind", str(place), str(place)]
                self.readable.append(str(place))
        for name in _ETC:
            self.args += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
        for path, text in _MADE.items():
            self.args += ["--perms", "0444", "--ro-bind-data", str(self.keep(text.encode())), path]
        self.args += ["--proc", "/proc", "--dev", "/dev"]
        for own, size in (("/tmp", limits.file_bytes), ("/dev/shm", limits.file_bytes // 4)):  # noqa: S108
            self.args += ["--size", str(max(size, 1 << 16)), "--perms", "1777", "--tmpfs", own]

    def interpreter(self) -> str:
        """The interpreter that runs the first process inside: the system's, or this one's, put aside."""
        entry = Path(__file__).with_name("entry.py").read_bytes()
        self.args += ["--ro-bind-data", str(self.keep(entry)), f"{_HERE}/entry.py"]
        program = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        if program.is_relative_to("/usr"):
            return str(program)
        base = Path(sys.base_prefix).resolve()
        if not program.is_relative_to(base):
            raise SandboxError(f"the interpreter {program} does not lie in its own prefix {base}")
        self.args += ["--ro-bind", str(base), f"{_HERE}/python"]
        return f"{_HERE}/python/{program.relative_to(base)}"

    # --- folders ----------------------------------------------------------------------------------

    def bind(self, mount: Mount) -> None:
        """A folder or file of the host."""
        if mount.data is not None:
            self.args += ["--perms", "0444", "--ro-bind-data", str(self.keep(mount.data)), mount.path]
            self.readable.append(mount.path)
            return
        if not names_of(mount.path):
            if mount.origin != "/":
                raise SandboxError("nothing but '/' is mounted at '/'")
            self._everything(mount)
            return
        if not mount.trusted and any(Path(mount.origin).is_relative_to(name) for name in self._own_names()):
            raise SandboxError(
                f"{mount.origin!r} is Runloop's own: no grant reaches there", hint="use a folder of your own"
            )
        with self._opened(mount) as handle:
            self._bind(mount, os.dup(handle))

    def _own_names(self) -> tuple[Path, ...]:
        """Runloop's own places, each under every name that leads there."""
        if self._names is None:
            table = self._mounts()
            self._names = tuple(name for path in self._ours for name in aliases(path.resolve(), table))
        return self._names

    def _everything(self, mount: Mount) -> None:
        """A grant of ``/``: what lies in it, but for the kernel's, Runloop's, and places of sockets."""
        for place in sorted(Path("/").iterdir()):
            if place.name not in _NEVER and stat.S_ISDIR(place.lstat().st_mode):
                with contextlib.suppress(RunloopError):
                    self.bind(Mount(path=str(place), writable=mount.writable))

    @contextlib.contextmanager
    def _opened(self, mount: Mount) -> Iterator[int]:
        if mount.trusted:
            try:
                handle = os.open(mount.origin, os.O_PATH | os.O_CLOEXEC)
            except OSError as error:
                raise SandboxError(f"{mount.origin!r} cannot be mounted: {error.strerror}") from error
            try:
                yield handle
            finally:
                os.close(handle)
            return
        with opened(Place(mount.origin, (), mount.origin), self._own) as handle:
            mode = os.fstat(handle).st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                raise SandboxError(f"{mount.origin!r} is neither a folder nor a file")
            yield handle

    def _bind(self, mount: Mount, handle: int) -> None:
        words = (_word(mount), str(self._held(handle)))
        (self.writable if mount.writable else self.readable).append(mount.path)
        if mount.trusted:
            self.args += [*words, mount.path]
        else:
            self._binds[mount.path] = words
            self._masked.append(mount)

    def lay(self) -> None:
        """Every folder in its place, and an empty one over everything of Runloop's that lies in it."""
        strange = [
            (mount, point)
            for mount in self._masked
            for point in self._points()
            if mount.origin != str(point) and point.is_relative_to(mount.origin)
        ]
        hidden = [
            (mount, name)
            for mount in self._masked
            for name in self._own_names()
            if name.is_relative_to(mount.origin)
            and name.exists()
            and not any(holder is mount and name.is_relative_to(point) for holder, point in strange)
        ]
        for mount, point in strange:
            self._leave_out(point, Path(mount.path) / point.relative_to(mount.origin))
        for mount, name in hidden:
            self._pin(Path(mount.path) / name.relative_to(mount.origin))
        for path, words in sorted(self._binds.items(), key=lambda bind: len(names_of(bind[0]))):
            self.args += [*words, path]
        for mount, name in hidden:
            self._mask(name, Path(mount.path) / name.relative_to(mount.origin))

    def _points(self) -> tuple[Path, ...]:
        """Where something is mounted on the host."""
        return tuple(Path(mounted.point) for mounted in self._mounts())

    def _mounts(self) -> tuple[Mounted, ...]:
        if self._table is None:
            self._table = read_mounts()
        return self._table

    def _leave_out(self, point: Path, inside: Path) -> None:
        """What is mounted below a granted folder lies outside the grant (docs/howto/files.md), unless it was
        granted itself."""
        if str(inside) in self._binds:
            return
        with contextlib.suppress(OSError):  # what the daemon may not look at, its programs may not either
            if point.is_dir():
                self._binds[str(inside)] = ("--size", "65536", "--tmpfs")
            else:
                self._binds[str(inside)] = ("--ro-bind-data", str(self.keep(b"")))

    def _pin(self, masked: Path) -> None:
        """Each folder on the way to a mask becomes a mount of its own: it cannot be renamed, and with it what
        the mask covers taken to where no mask is."""
        for folder in masked.parents:
            holders = [mount for mount in self._masked if folder.is_relative_to(mount.path)]
            if not holders or str(folder) in self._binds:
                continue
            mount = max(holders, key=lambda mount: len(names_of(mount.path)))
            source = Path(mount.origin) / folder.relative_to(mount.path)
            with self._opened(Mount(path=str(source))) as handle:
                self._binds[str(folder)] = (_word(mount), str(self._held(os.dup(handle))))

    def _mask(self, name: Path, inside: Path) -> None:
        mode = name.stat().st_mode
        if stat.S_ISDIR(mode):
            self.args += ["--size", "4096", "--tmpfs", str(inside), "--remount-ro", str(inside)]
        elif stat.S_ISREG(mode):
            self.args += ["--ro-bind-data", str(self.keep(b"")), str(inside)]
