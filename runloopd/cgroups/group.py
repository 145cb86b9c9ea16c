"""One control group: made with its bounds, entered, ended with all that is in it, removed.

Knows: the files of a group of version 2. Does not know: whose processes they are (:mod:`.tree`), or what
follows when a bound was met. Every method waits for the kernel, a move for several milliseconds: never called
on an event loop.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Bounds", "Group", "Used", "sweep"]

_GONE_S = 2.0
"""Longest time that the processes of a group which was killed may take to be gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What a group may have; what its controllers were not handed over for is not bounded here."""

    memory: int | None = None
    """Bytes, those of files in memory (tmpfs) included. Past it the kernel ends the group."""
    tasks: int | None = None
    """Processes and threads. Past it no more can be started."""
    weight: int | None = None
    """Of the processor, 1 to 10000, against its neighbours; 100 is the kernel's own choice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """What a group came to."""

    peak: int | None = None
    """Most bytes at any time; None: this kernel does not keep that, or memory is not bounded here."""
    cpu_us: int = 0
    """Microseconds of processor time."""
    ooms: int = 0
    """Processes that the kernel ended for want of memory."""


class Group:
    """A group, made by its constructor."""

    def __init__(
        self,
        path: Path,
        controllers: tuple[str, ...],
        bounds: Bounds,
        *,
        leaf: bool,
        numbered: bool = False,
    ) -> None:
        """``leaf``: processes come into it; otherwise groups do, and ``controllers`` are handed on to them.
        ``numbered``: it is new, or it is none.

        Raises OSError, and then nothing of it is left: a group without its bounds is none.
        """
        self.path = path
        # The kernel may not be done with what was killed in a group that has a name of its own.
        path.mkdir(exist_ok=not numbered)
        try:
            self._bound(controllers, bounds, leaf=leaf)
        except OSError:
            with contextlib.suppress(OSError):
                path.rmdir()
            raise

    def _bound(self, controllers: tuple[str, ...], bounds: Bounds, *, leaf: bool) -> None:
        if "memory" in controllers:
            if bounds.memory is not None:
                self._write("memory.max", str(bounds.memory))
                # What was bounded is not had from the disk instead, slowly and at everybody's cost.
                with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                    self._write("memory.swap.max", "0")
            if leaf:
                self._write("memory.oom.group", "1")  # the half of a sandbox is none
        if "pids" in controllers and bounds.tasks is not None:
            self._write("pids.max", str(bounds.tasks))
        if "cpu" in controllers and bounds.weight is not None:
            self._write("cpu.weight", str(bounds.weight))
        if not leaf and controllers:
            self._write("cgroup.subtree_control", " ".join(f"+{one}" for one in controllers))

    def take(self, pid: int) -> None:
        """Move a process in, with all its threads; what it starts from now on is in it too. Raises OSError:
        ProcessLookupError when it is gone."""
        self._write("cgroup.procs", str(pid))

    def kill(self) -> None:
        """End everything in it at once, whatever it starts meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            self._write("cgroup.kill", "1")

    def used(self) -> Used:
        """What it has come to so far."""
        peak = self._read("memory.peak").strip()
        ooms = _figures(self._read("memory.events")).get("oom_kill", 0)
        cpu = _figures(self._read("cpu.stat")).get("usage_usec", 0)
        return Used(peak=int(peak) if peak.isdecimal() else None, cpu_us=cpu, ooms=ooms)

    def end(self) -> Used:
        """Kill it, wait until it is empty, remove it; what it came to. Raises OSError for one that stays."""
        self.kill()
        self._emptied()
        used = self.used()
        remove(self.path)
        return used

    def _emptied(self) -> None:
        until = time.monotonic() + _GONE_S
        while _figures(self._read("cgroup.events")).get("populated", 0) and time.monotonic() < until:
            time.sleep(0.002)

    def _write(self, name: str, value: str) -> None:
        # Without O_CREAT: a file that is not there is a controller that is not.
        file = os.open(self.path / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, value.encode())
        finally:
            os.close(file)

    def _read(self, name: str) -> str:
        try:
            return (self.path / name).read_text()
        except OSError:
            return ""


def remove(path: Path) -> None:
    """A group whose processes have ended; the kernel may need a moment to see it."""
    until = time.monotonic() + _GONE_S
    while True:
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.002)
        else:
            return


def sweep(path: Path) -> None:
    """Kill all that lives in a group and below it, and remove it. Raises OSError for what stays."""
    with contextlib.suppress(FileNotFoundError):
        file = os.open(path / "cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, b"1")
        finally:
            os.close(file)
    for below, _, _ in os.walk(path, topdown=False):
        remove(Path(below))


def _figures(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdecimal():
            found[name] = int(value)
    return found
