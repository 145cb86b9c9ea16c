"""Layers around a process that executes foreign code, and the proof that they hold.

Knows: how to give up privileges, one layer after the other, and how to name them. Does not know: which
process it is in, or who insists on which layer (see :mod:`runloopd.runtime.supervisor`).
"""

from __future__ import annotations

import _thread
import ctypes
import os
import resource
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from runloopd.runtime import landlock, seccomp

__all__ = ["MANDATORY", "OPTIONAL", "HardeningError", "harden_thread", "harden_worker", "isolate_zygote"]

MANDATORY: tuple[str, ...] = (
    "parent_death", "descriptors", "rlimits", "not_dumpable", "capabilities", "no_new_privs", "seccomp",
)  # fmt: skip
"""Layers without which no guest runs, unless an operator waives one by name."""

OPTIONAL: tuple[str, ...] = ("network_namespace", "ipc_namespace", "oom_first", "landlock")
"""Layers that add depth where the kernel grants them; seccomp already refuses what they fence off. Where the
kernel has Landlock, no worker is without."""

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CLONE_NEWIPC = 0x0800_0000
_CLONE_NEWUSER = 0x1000_0000
_CLONE_NEWNET = 0x4000_0000
_CAPABILITY_VERSION_3 = 0x2008_0522


class HardeningError(OSError):
    """A mandatory layer could not be put in place. Nothing foreign may run in this process."""


# Looked up at import, in the zygote: whatever a forked worker makes for itself is memory of its own.
_libc = ctypes.CDLL(None, use_errno=True)
_prctl_call = _libc.prctl
_prctl_call.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_capset_call = _libc.capset
_CAP_HEADER = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
_NO_CAPS = (ctypes.c_uint32 * 6)()


def _prctl(option: int, argument: int = 0) -> None:
    if _prctl_call(option, argument, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise HardeningError(error, f"prctl {option}: {os.strerror(error)}")


def die_with_parent(parent: int) -> None:
    """SIGKILL for this process when ``parent`` ends; at once if it already did."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def isolate_zygote() -> list[str]:
    """Leave the machine's network and IPC behind; return the layers that worked. Single-threaded callers
    only."""
    layers: list[str] = []
    libc = _libc
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC) == 0:
        layers += ["network_namespace", "ipc_namespace"]
    elif libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC) == 0:
        layers += ["network_namespace", "ipc_namespace"]
        with suppress(OSError):  # without a mapping the ids are 65534: harmless, everything is opened already
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
            Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with suppress(OSError):  # a container may forbid it
        Path("/proc/self/oom_score_adj").write_text("900")
        layers.append("oom_first")
    return layers


def close_descriptors(keep: Collection[int]) -> None:
    """Close everything but ``keep``; standard input, output and error become ``/dev/null``."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        if standard not in keep:
            os.dup2(null, standard)
    edge = 3
    for wanted in sorted(fd for fd in keep if fd >= edge):
        os.closerange(edge, wanted)
        edge = wanted + 1
    os.closerange(edge, max(edge, resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 16))


def limit(*, data_bytes: int, cpu_seconds: int, file_bytes: int = 0, processes: bool = False) -> None:
    """Resource limits; ``data_bytes`` counts from what the process has now."""
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_DATA: data_in_use() + data_bytes,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_NOFILE: 256,
    }
    if not processes:
        wanted[resource.RLIMIT_NPROC] = 0
    for which, value in wanted.items():
        hard = resource.getrlimit(which)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (bound, bound))


def data_in_use(statm: int | None = None) -> int:
    """Bytes of private writable memory of this process; ``statm`` is an open ``/proc/self/statm``."""
    opened = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC) if statm is None else statm
    try:
        text = os.pread(opened, 256, 0)
    finally:
        if statm is None:
            os.close(opened)
    return int(text.split()[5]) * resource.getpagesize()


def drop_capabilities() -> None:
    """No capability in any set, none to be had again.

    A service manager may have taken them all, and the call that takes them too: then there is nothing to do.
    """
    if _has_none():
        return
    with suppress(HardeningError):
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except HardeningError:
            break  # past the last one, or none to drop from
    if _capset_call(_CAP_HEADER, _NO_CAPS) != 0:
        error = ctypes.get_errno()
        raise HardeningError(error, f"capset: {os.strerror(error)}")


_CAP_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def _has_none() -> bool:
    """Whether every set of this thread is empty; False where that cannot be read."""
    try:
        told = dict(line.split(":", 1) for line in Path("/proc/thread-self/status").read_text().splitlines())
        return all(int(told[name], 16) == 0 for name in _CAP_SETS)
    except (OSError, KeyError, ValueError):
        return False


def harden_worker(
    *,
    parent: int,
    keep: Collection[int],
    data_bytes: int,
    cpu_seconds: int,
    program: bytes,
    waived: Collection[str] = (),
    file_bytes: int = 0,
    threads: bool = False,
    landlocked: int = 0,
) -> list[str]:
    """Give up everything but ``keep``; return the layers in place.

    ``program`` is the system call filter. ``threads``: the process will start more threads (the compile
    subprocess). ``landlocked``: the kernel's version of Landlock; 0: it has none. Landlock and capabilities
    are the calling thread's alone: others see to theirs themselves (:func:`harden_thread`).

    Raises :class:`HardeningError` for a layer that fails and is not in ``waived``.
    """
    steps: dict[str, Callable[[], object]] = {
        "parent_death": lambda: die_with_parent(parent),
        "descriptors": lambda: close_descriptors(keep),
        "rlimits": lambda: limit(
            data_bytes=data_bytes, cpu_seconds=cpu_seconds, file_bytes=file_bytes, processes=threads
        ),
        "not_dumpable": lambda: _prctl(_PR_SET_DUMPABLE, 0),
        "capabilities": drop_capabilities,
        "no_new_privs": lambda: _prctl(_PR_SET_NO_NEW_PRIVS, 1),
        "landlock": lambda: landlock.shut(landlocked),
        "seccomp": lambda: seccomp.install(program),
    }
    wanted = [*MANDATORY[:-1], *(["landlock"] if landlocked else []), MANDATORY[-1]]
    return _in_place(steps, wanted, waived)


def harden_thread(*, landlocked: int, waived: Collection[str] = ()) -> list[str]:
    """What each thread has of its own: capabilities, and what Landlock takes. For one that was started before
    :func:`harden_worker`, whose filter then covers it too. Raises :class:`HardeningError`."""
    steps: dict[str, Callable[[], object]] = {
        "capabilities": drop_capabilities,
        "no_new_privs": lambda: _prctl(_PR_SET_NO_NEW_PRIVS, 1),
        "landlock": lambda: landlock.shut(landlocked),
    }
    return _in_place(steps, [name for name in steps if name != "landlock" or landlocked], waived)


def _in_place(
    steps: dict[str, Callable[[], object]], wanted: Collection[str], waived: Collection[str]
) -> list[str]:
    done: list[str] = []
    for layer in wanted:
        try:
            steps[layer]()
        except (OSError, ValueError) as error:
            if layer in waived:
                continue
            raise HardeningError(f"layer {layer!r}: {error}") from error
        done.append(layer)
    return done


def attempt(what: str) -> None:
    """Try something a hardened process must not get away with; for probes. Exits 1 if it is not refused."""
    libc = _libc
    match what:
        case "open":
            forbidden: tuple[Callable[[], object], ...] = (
                lambda: os.open("/", os.O_RDONLY),
                lambda: os.kill(os.getpid(), 0),
                lambda: _prctl(_PR_SET_DUMPABLE, 1),
                lambda: _thread.start_new_thread(int, ()),
            )
            for try_it in forbidden:
                with suppress(OSError, RuntimeError):
                    try_it()
                    os._exit(1)
        case "read":  # behind the filter it shows nothing: for where that is waived
            with suppress(OSError):
                os.open("/etc/passwd", os.O_RDONLY)
                os._exit(1)
        case "socket":
            libc.socket(1, 1, 0)
        case "exec":
            libc.execve(b"/bin/true", None, None)
        case "exec_memory":
            libc.mmap(None, 4096, 1 | 4, 0x22, -1, 0)
