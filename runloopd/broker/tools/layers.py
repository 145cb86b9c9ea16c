"""Which walls of the sandbox this machine can build.

Knows: bubblewrap and what it must be able to do, and how to ask the kernel for the rest. Does not know:
programs. Every layer is tried, not inferred from a version; every one is required.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
from pathlib import Path

from runloopd.broker.tools import syscalls
from runloopd.broker.tools.sandbox import Layer, Layers, SandboxError

__all__ = ["bubblewrap", "kernels", "landlock_version", "look"]

_PLACES = "/usr/bin:/usr/local/bin:/bin"
_NEEDED = ("--bind-fd", "--ro-bind-fd", "--disable-userns", "--size", "--perms", "--info-fd")
_LANDLOCK_CREATE = 444
_VERSION = 1
_TRIAL_S = 20


@functools.cache
def bubblewrap() -> str:
    """Its path. Raises :class:`SandboxError`."""
    found = shutil.which("bwrap", path=_PLACES)
    if found is None:
        raise SandboxError("bubblewrap is not installed", hint="install the package 'bubblewrap'")
    return found


def look() -> Layers:
    """Try each layer. Waits for short-lived processes."""
    return Layers(each=(_bubblewrap(), _namespaces(), *kernels()))


def kernels() -> tuple[Layer, ...]:
    """The layers that no bubblewrap and no engine brings."""
    return (_seccomp(), _landlock(), _watching())


def landlock_version() -> int:
    """What the kernel speaks; 0: it has none, or it is off."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    found = call(ctypes.c_long(_LANDLOCK_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    return max(0, int(found))


def _bubblewrap() -> Layer:
    try:
        path = bubblewrap()
        version = _said(path, "--version").strip()
        words = _said(path, "--help").split()
    except (SandboxError, OSError, subprocess.SubprocessError) as error:
        return Layer(name="bubblewrap", holds=False, found=str(error))
    missing = [word for word in _NEEDED if word not in words]
    if missing:
        return Layer(name="bubblewrap", holds=False, found=f"{version} lacks {', '.join(missing)}")
    return Layer(name="bubblewrap", holds=True, found=version)


def _namespaces() -> Layer:
    """A sandbox of every namespace that does nothing: where the system forbids one, it says so here."""
    try:
        trial = subprocess.run(
            [
                bubblewrap(), "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc",
                "--unshare-uts", "--unshare-cgroup", "--disable-userns", "--ro-bind", "/", "/",
                "--proc", "/proc", "--dev", "/dev", "--", "/usr/bin/env", "-i", "true",
            ],
            capture_output=True, timeout=_TRIAL_S, check=False, env={}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (SandboxError, OSError, subprocess.SubprocessError) as error:
        return Layer(name="namespaces", holds=False, found=str(error))
    if trial.returncode != 0:
        why = trial.stderr.decode(errors="replace").strip()[:300] or f"exit {trial.returncode}"
        return Layer(name="namespaces", holds=False, found=why)
    return Layer(name="namespaces", holds=True, found="user, pid, net, ipc, uts, cgroup, mount")


def _seccomp() -> Layer:
    """The kernel's word that filters exist, and a table of calls for this architecture."""
    machine = os.uname().machine
    if not syscalls.supported():
        return Layer(name="seccomp", holds=False, found=f"no table of system calls for {machine}")
    if not any(line.startswith("Seccomp:") for line in Path("/proc/self/status").read_text().splitlines()):
        return Layer(name="seccomp", holds=False, found="the kernel has none")
    return Layer(name="seccomp", holds=True, found=f"filters for {machine}")


def _landlock() -> Layer:
    version = landlock_version()
    if not version:
        return Layer(name="Landlock", holds=False, found="the kernel has none, or it is off (lsm=landlock,…)")
    return Layer(name="Landlock", holds=True, found=f"version {version}")


def _watching() -> Layer:
    """What a tree of processes holds is counted from /proc."""
    place = f"/proc/self/task/{os.getpid()}/children"
    if not os.access(place, os.R_OK):
        return Layer(name="counting", holds=False, found="/proc has no list of children")
    return Layer(name="counting", holds=True, found="memory and processes of the whole tree")


def _said(*words: str) -> str:
    done = subprocess.run(
        words, capture_output=True, timeout=_TRIAL_S, check=False, env={}, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:  # what it then does not say is not what it lacks
        why = done.stderr.decode(errors="replace").strip()[:300] or f"exit {done.returncode}"
        raise SandboxError(f"{' '.join(words)}: {why}")
    return done.stdout.decode(errors="replace")
