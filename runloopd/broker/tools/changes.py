"""Files that get another name, or none, and texts that are looked for: what ``providers.files`` does not do.

Knows: how a file is moved and deleted by descriptor, so that what was checked is what goes, and how a tree is
searched within bounds. Does not know: who may (``tools.file_tools``).

What is deleted first gets a name that agents cannot use, is looked at again under it, and only then ends:
whatever was put in its place meanwhile stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from runloop.digest import blob_digest
from runloop.errors import RunloopError
from runloopd.broker.ports import Outcome
from runloopd.broker.providers.walk import (
    WALK,
    Identity,
    Place,
    allow,
    changed,
    identities,
    is_plain,
    is_reserved,
    name_anew,
    no_file,
    no_folder,
    open_name,
    opened,
    regular,
    reopened,
    translated,
    unreserved,
)

__all__ = ["Changes", "Found"]

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)
_NOREPLACE = 1

MAX_FILES = 5_000
MAX_FILE_BYTES = 1 << 20
MAX_READ_BYTES = 64 << 20
MAX_LINE = 400
MAX_DEPTH = 24
_OURS_DEPTH = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a search came to."""

    matches: tuple[tuple[str, int, str], ...]
    """Path, line (from 1), the line itself, cut where it is long."""
    files: int
    """Files that were read."""
    truncated: bool
    """There may be more: of matches, or of files that were not looked at."""


class Changes:
    """Implements what the file tools need beside ``FilePort``. Every method raises families of errors."""

    def __init__(self, ours: Iterable[Path], *, workers: int = 2) -> None:
        """``ours``: files and directories that no grant reaches, whatever name leads there."""
        self._ours = tuple(ours)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="changes")

    async def close(self) -> None:
        """Take no more work."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def delete(self, place: Place, key: str) -> None:
        """Let a regular file go."""
        await self._off_loop(place, lambda: self._delete(place, key))

    async def deleted(self, place: Place, key: str) -> Outcome:
        """What became of :meth:`delete` with that key."""
        return await self._off_loop(place, lambda: self._deleted(place, key))

    async def move(self, place: Place, to: Place) -> None:
        """Give a regular file another name, which nothing has yet, on the same disk."""
        await self._off_loop(place, lambda: self._move(place, to))

    async def search(self, place: Place, wanted: str, *, fold: bool, most: int) -> Found:
        """The lines that hold a text, in a file or a tree, in the order of the paths."""
        return await self._off_loop(place, lambda: self._search(place, wanted, fold, most))

    async def _off_loop(self, place: Place, work: Callable[[], T]) -> T:
        def worded() -> T:
            try:
                return work()
            except OSError as error:
                raise translated(place, error) from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, worded)

    def _identities(self) -> frozenset[Identity]:
        return frozenset(found for path in self._ours for found in identities(path, _OURS_DEPTH))

    # --- names ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _parent(self, place: Place, ours: frozenset[Identity]) -> Iterator[tuple[int, bytes]]:
        if not place.parts:
            raise no_file(place)
        unreserved(place.parts[-1], place)
        with (
            opened(place, ours, up_to=len(place.parts) - 1) as handle,
            reopened(handle, os.O_RDONLY | os.O_DIRECTORY) as folder,
        ):
            yield folder, place.parts[-1]

    def _delete(self, place: Place, key: str) -> None:
        ours = self._identities()
        with self._parent(place, ours) as (folder, name):
            before = _look(folder, name, place, ours)
            aside = _aside(key)
            name_anew(folder, name, aside)
            self._same_or_back(before, (folder, aside), (folder, name), place, ours)
            os.unlink(aside, dir_fd=folder)
            os.fsync(folder)

    def _deleted(self, place: Place, key: str) -> Outcome:
        with self._parent(place, self._identities()) as (folder, name):
            if _is_there(folder, _aside(key)):
                # It lost its name and not yet its life: it gets the name back, if that is free.
                name_anew(folder, _aside(key), name)
                os.fsync(folder)
                return "absent"
            # Where there is a file, it may be another one by now.
            return "unknown" if _is_there(folder, name) else "done"

    def _move(self, place: Place, to: Place) -> None:
        ours = self._identities()
        with self._parent(place, ours) as (folder, name), self._parent(to, ours) as (target, new):
            before = _look(folder, name, place, ours)
            _rename_anew(folder, name, target, new)
            self._same_or_back(before, (target, new), (folder, name), place, ours)
            os.fsync(folder)
            os.fsync(target)

    def _same_or_back(
        self,
        before: Identity,
        now: tuple[int, bytes],
        old: tuple[int, bytes],
        place: Place,
        ours: frozenset[Identity],
    ) -> None:
        """Raise, with the old name back, unless what has the new name is what was looked at."""
        try:
            same = _look(*now, place, ours) == before
        except (OSError, RunloopError):
            same = False
        if not same:
            _rename_anew(*now, *old)
            raise changed(place)

    # --- searching --------------------------------------------------------------------------------

    def _search(self, place: Place, wanted: str, fold: bool, most: int) -> Found:
        ours = self._identities()
        hunt = _Hunt(wanted.casefold() if fold else wanted, fold, most)
        with opened(place, ours) as handle:
            mode = os.fstat(handle).st_mode
            if stat.S_ISREG(mode):
                regular(os.fstat(handle), place)
                hunt.read(handle, place.path)
            elif stat.S_ISDIR(mode):
                _through(handle, place, ours, hunt, 0)
            else:
                raise no_folder(place)
        return Found(matches=tuple(hunt.matches), files=hunt.files, truncated=hunt.truncated)


class _Hunt:
    """One search under way."""

    def __init__(self, wanted: str, fold: bool, most: int) -> None:
        self._wanted = wanted
        self._fold = fold
        self._most = most
        self._read = 0
        self.matches: list[tuple[str, int, str]] = []
        self.files = 0
        self.truncated = False

    @property
    def over(self) -> bool:
        return self.truncated

    def read(self, handle: int, path: str) -> None:
        """Look through one file; what is no text, or too large, is passed over."""
        size = os.fstat(handle).st_size
        if self.files >= MAX_FILES or self._read + size > MAX_READ_BYTES:
            self.truncated = True
            return
        if size > MAX_FILE_BYTES:
            return
        with reopened(handle, os.O_RDONLY | os.O_NONBLOCK) as file:
            data = os.read(file, MAX_FILE_BYTES)
        self.files += 1
        self._read += len(data)
        if b"\0" in data:
            return
        for number, line in enumerate(data.decode(errors="replace").splitlines(), start=1):
            if self._wanted in (line.casefold() if self._fold else line):
                if len(self.matches) >= self._most:
                    self.truncated = True
                    return
                self.matches.append((path, number, line[:MAX_LINE]))


def _through(folder: int, place: Place, ours: frozenset[Identity], hunt: _Hunt, depth: int) -> None:
    with reopened(folder, os.O_RDONLY | os.O_DIRECTORY) as listing:
        names = sorted(os.fsencode(name) for name in os.listdir(listing))  # noqa: PTH208 - a descriptor
        for name in names:
            if hunt.over or depth > MAX_DEPTH:
                hunt.truncated = True
                return
            if not is_plain(name) or is_reserved(name):
                continue
            with contextlib.suppress(OSError, RunloopError, UnicodeDecodeError):
                path = f"{place.path.rstrip('/')}/{name.decode()}"
                below = Place(place.root, (*place.parts, name), path)
                found = open_name(listing, name, WALK, cross=False)
                try:
                    allow(found, ours, below)
                    status = os.fstat(found)
                    if stat.S_ISDIR(status.st_mode):
                        _through(found, below, ours, hunt, depth + 1)
                    elif stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                        hunt.read(found, path)
                finally:
                    os.close(found)


# --- steps ----------------------------------------------------------------------------------------


def _look(folder: int, name: bytes, place: Place, ours: frozenset[Identity]) -> Identity:
    """The regular file with one name that has this one."""
    handle = open_name(folder, name, WALK, cross=False)
    try:
        allow(handle, ours, place)
        found = os.fstat(handle)
        regular(found, place)
        return (found.st_dev, found.st_ino)
    finally:
        os.close(handle)


def _is_there(folder: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _aside(key: str) -> bytes:
    return b".runloop-gone-" + blob_digest(key.encode())[:32].encode() + b".tmp"


def _rename_anew(folder: int, old: bytes, target: int, new: bytes) -> None:
    """As ``name_anew``, into another directory of the same disk. Raises :class:`OSError`."""
    done = _libc.renameat2(
        ctypes.c_int(folder),
        ctypes.c_char_p(old),
        ctypes.c_int(target),
        ctypes.c_char_p(new),
        ctypes.c_uint(_NOREPLACE),
    )
    if done != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
