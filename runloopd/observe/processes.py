"""What a process has used, as the kernel tells it.

Knows: the two figures of ``/proc/<pid>/stat`` that are shown. Does not know: whose process it is, or whether
the number still names it: the caller asks for processes that it holds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Process", "of", "parsed"]

_TICK_MS = 1_000 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_UTIME, _STIME, _RSS = 11, 12, 21
"""Places behind the name in parentheses, from 0 (proc_pid_stat(5): fields 14, 15 and 24)."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment."""

    cpu_ms: int
    """Processor time of all its threads since it began, in the kernel's ticks (10 ms each)."""
    rss_bytes: int
    """Memory it has resident. Pages it shares with the process it was forked from are counted in each."""


def of(pid: int, proc: Path = Path("/proc")) -> Process | None:
    """What a process has used; None when there is none, or the kernel does not tell."""
    try:
        return parsed((proc / str(pid) / "stat").read_bytes())
    except OSError:
        return None


def parsed(stat: bytes) -> Process | None:
    """The content of ``/proc/<pid>/stat``; None for anything else. The name in it is the program's choice."""
    _, name, rest = stat.rpartition(b")")
    fields = rest.split()
    try:
        ticks = int(fields[_UTIME]) + int(fields[_STIME])
        pages = int(fields[_RSS])
    except (IndexError, ValueError):
        return None
    if not name or ticks < 0 or pages < 0:
        return None
    return Process(round(ticks * _TICK_MS), pages * _PAGE)
