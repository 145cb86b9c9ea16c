"""How much all the processes of a sandbox hold together, seen from outside.

Knows: ``/proc``. Does not know: what happens when it is too much (``tools.bubblewrap``).

Resource limits count for each process, and not at all for the user who owns the machine; this counts the
tree. What is orphaned inside hangs on the sandbox's first process, so nothing drops out of it.
"""

# What is looked at ten times a second is looked at directly.
# ruff: noqa: PTH123, PTH208

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

__all__ = ["Held", "held"]

MAX_SEEN = 10_000
"""Processes that are looked at; who has more has too many."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a tree of processes holds."""

    tasks: int
    """Processes and threads."""
    memory: int
    """Bytes: their own pages, and the largest view of what they share."""


def held(pid: int) -> Held:
    """What ``pid`` and everything below it hold now; what ended meanwhile counts nothing."""
    tasks = private = shared = seen = 0
    waiting = [str(pid)]
    while waiting and seen < MAX_SEEN:
        name = waiting.pop()
        seen += 1
        with contextlib.suppress(OSError, ValueError):
            for task in os.listdir(f"/proc/{name}/task"):
                tasks += 1
                with contextlib.suppress(OSError):
                    waiting += _read(f"/proc/{name}/task/{task}/children").split()
            own, common = _memory(name)
            private += own
            shared = max(shared, common)
    return Held(tasks, private + shared)


def _memory(name: str) -> tuple[int, int]:
    own = common = 0
    for line in _read(f"/proc/{name}/status").splitlines():
        if line.startswith("RssAnon:"):
            own = int(line.split()[1]) * 1024
        elif line.startswith("RssShmem:"):
            common = int(line.split()[1]) * 1024
    return own, common


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()
