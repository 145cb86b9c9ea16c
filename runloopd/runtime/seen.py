"""What was read of a folder once, good for as long as nothing in it has changed.

Knows: that a change of a file, of its names or of a directory sets a ctime, which nobody but root can set
back. Does not know: what was read, or who may be started.

A file that is changed within the tick of the clock in which it was read looks unchanged (git calls such an
index racy). What was touched less than :data:`SETTLED_NS` before it was read is therefore not remembered.
"""

from __future__ import annotations

import os
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

__all__ = ["SETTLED_NS", "Seen"]

SETTLED_NS = 2_000_000_000
"""Longer than the coarsest clock a file system of Debian stamps changes with."""
_MAX_ENTRIES = 4_096
"""Files and folders of one place; what has more is read each time."""

T = TypeVar("T")
_Facts = tuple[str, int, int, int, int, int, int]


class Seen(Generic[T]):
    """Remembers the newest ``size`` readings."""

    def __init__(self, size: int = 256, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._size = size
        self._now_ns = now_ns
        self._read: OrderedDict[tuple[Path, Hashable], tuple[tuple[_Facts, ...], T]] = OrderedDict()

    def of(self, place: Path, read: Callable[[], T], *, key: Hashable = None) -> T:
        """What ``read`` gives of ``place``, or gave when everything there was as it is now.

        ``key`` tells readings of one place apart. Raises what ``read`` raises, and remembers no failure.
        """
        now_ns, before = self._now_ns(), _signature(place)
        known = self._read.get((place, key))
        if known is not None and before is not None and known[0] == before:
            self._read.move_to_end((place, key))
            return known[1]
        found = read()
        if before is not None and _settled(before, now_ns) and _signature(place) == before:
            self._read[place, key] = (before, found)
            self._read.move_to_end((place, key))
            if len(self._read) > self._size:
                self._read.popitem(last=False)
        return found


def _settled(signature: tuple[_Facts, ...], now_ns: int) -> bool:
    return all(facts[-1] <= now_ns - SETTLED_NS for facts in signature)


def _signature(place: Path) -> tuple[_Facts, ...] | None:
    """What changes when anything in a place does; None when it cannot be said."""
    found: list[_Facts] = []
    try:
        for facts in _walk(str(place), os.lstat(place)):
            found.append(facts)
            if len(found) > _MAX_ENTRIES:
                return None
    except OSError:
        return None
    return tuple(found)


def _walk(path: str, facts: os.stat_result) -> Iterator[_Facts]:
    yield (
        path,
        facts.st_dev,
        facts.st_ino,
        facts.st_mode,
        facts.st_size,
        facts.st_mtime_ns,
        facts.st_ctime_ns,
    )
    if not stat.S_ISDIR(facts.st_mode):
        return
    with os.scandir(path) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        yield from _walk(entry.path, entry.stat(follow_symlinks=False))
