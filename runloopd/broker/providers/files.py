"""Files of this machine below a granted directory: read in slices, listed, replaced whole.

Knows: what is done with a file once it was walked to, and how a write is prepared, put in place, and told
apart from one that never happened. Does not know: how a path is walked (``providers.walk``), who may use
which root (``broker.fs_ops``), recording (the gate).

A write is prepared beside its target (``prepare``), admitted by the gate, and then put in place (``commit``)
by exchanging the two names, which is undone when the file that comes out is not the one that was checked. The
prepared file's name follows from the call's key, so that a daemon that comes back can tell what happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from runloop.digest import blob_digest
from runloop.errors import FailedError, RunloopError, UsageError
from runloopd.broker.providers.walk import (
    WALK,
    FileError,
    Identity,
    Place,
    allow,
    changed,
    exchange,
    identities,
    identity,
    is_plain,
    is_reserved,
    name_anew,
    no_file,
    no_folder,
    odd,
    open_name,
    opened,
    regular,
    reopened,
    translated,
    unreserved,
)  # fmt: skip

__all__ = [
    "ABSENT", "MAX_ENTRIES", "MAX_READ_BYTES", "MAX_WRITE_BYTES", "FilePort", "Files", "Listing", "Outcome",
    "Seen", "Slice", "Write",
]  # fmt: skip

T = TypeVar("T")

MAX_READ_BYTES = 1024 * 1024
MAX_WRITE_BYTES = 4 * 1024 * 1024
MAX_ENTRIES = 1_000
MAX_SCAN = 100_000
"""Names of one directory that are looked through."""
_OURS_DEPTH = 2
"""Levels of Runloop's own directories that are known file by file: a mount may lead past the top."""
ABSENT = ""
"""The digest of a file that does not exist."""

Kind = Literal["file", "dir", "symlink", "other"]
Outcome = Literal["done", "absent", "unknown"]


# --- what is found --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A regular file or a directory."""

    kind: Literal["file", "dir"]
    size: int
    """Bytes; 0 for a directory."""
    mtime_ms: int
    digest: str | None = None
    """BLAKE3 of the content, when it was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Part of a file."""

    data: bytes
    offset: int
    size: int
    """Of the whole file, when it was opened."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """Names of a directory, sorted by their bytes."""

    entries: tuple[tuple[str, Kind, int], ...]
    """Name, kind, bytes (0 unless a regular file)."""
    truncated: bool
    skipped: int
    """Entries whose names are no text and cannot be given as a path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Write:
    """A file's new content."""

    place: Place
    data: bytes
    expected: str | None
    """BLAKE3 that the file must have now; :data:`ABSENT`: it must not exist; None: whatever is there."""
    key: str
    """Names the call: equal for the same call of a later attempt."""

    @property
    def beside(self) -> bytes:
        """Name of the prepared file."""
        return b".runloop-" + self.key[:32].encode() + b".tmp"


class FilePort(Protocol):
    """Files below granted roots. Every method raises families of :mod:`runloop.errors`."""

    async def read(self, place: Place, offset: int, length: int) -> Slice: ...
    async def stat(self, place: Place, *, digest: bool) -> Seen: ...
    async def list(self, place: Place, after: str, limit: int) -> Listing: ...
    async def prepare(self, write: Write) -> None:
        """Check, and lay the new content ready. The target is untouched."""
        ...

    async def commit(self, write: Write) -> None:
        """Put the prepared content in place: whole, or not at all."""
        ...

    async def discard(self, write: Write) -> None:
        """Take the prepared content away. Never raises."""
        ...

    async def outcome(self, write: Write) -> Outcome:
        """What became of a write that was admitted and whose end is not known."""
        ...


# --- the port -------------------------------------------------------------------------------------


class Files:
    """The files of this machine. Implements :class:`FilePort`."""

    def __init__(self, ours: Iterable[Path], *, workers: int = 4) -> None:
        """``ours``: files and directories that no grant reaches, whatever name leads there."""
        self._ours = tuple(ours)
        # Of its own: a file system that hangs takes these threads and nobody else's.
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="files")

    async def close(self) -> None:
        """Take no more work."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def read(self, place: Place, offset: int, length: int) -> Slice:
        """See the port."""
        return await self._off_loop(place, lambda: self._read(place, offset, length))

    async def stat(self, place: Place, *, digest: bool) -> Seen:
        """See the port."""
        return await self._off_loop(place, lambda: self._stat(place, digest))

    async def list(self, place: Place, after: str, limit: int) -> Listing:
        """See the port."""
        return await self._off_loop(place, lambda: self._list(place, after, limit))

    async def prepare(self, write: Write) -> None:
        """See the port."""
        await self._off_loop(write.place, lambda: self._prepare(write))

    async def commit(self, write: Write) -> None:
        """See the port."""
        await self._off_loop(write.place, lambda: self._commit(write))

    async def discard(self, write: Write) -> None:
        """See the port."""
        with contextlib.suppress(RunloopError):
            await self._off_loop(write.place, lambda: self._discard(write))

    async def outcome(self, write: Write) -> Outcome:
        """See the port."""
        return await self._off_loop(write.place, lambda: self._outcome(write))

    async def _off_loop(self, place: Place, work: Callable[[], T]) -> T:
        def worded() -> T:
            try:
                return work()
            except OSError as error:
                raise translated(place, error) from error

        return await asyncio.get_running_loop().run_in_executor(self._threads, worded)

    def _identities(self) -> frozenset[Identity]:
        """Runloop's own, as it is now."""
        return frozenset(found for path in self._ours for found in identities(path, _OURS_DEPTH))

    # --- reading ------------------------------------------------------------------------------

    def _read(self, place: Place, offset: int, length: int) -> Slice:
        with opened(place, self._identities()) as handle, _content(handle, place) as file:
            size = os.fstat(file).st_size
            return Slice(data=_pread(file, offset, length), offset=offset, size=size)

    def _stat(self, place: Place, digest: bool) -> Seen:
        with opened(place, self._identities()) as handle:
            found = os.fstat(handle)
            if stat.S_ISDIR(found.st_mode):
                return Seen(kind="dir", size=0, mtime_ms=found.st_mtime_ns // 1_000_000)
            regular(found, place)
            made = None
            if digest:
                with _content(handle, place) as file:
                    made = blob_digest(_whole(file, place))
            return Seen(kind="file", size=found.st_size, mtime_ms=found.st_mtime_ns // 1_000_000, digest=made)

    def _list(self, place: Place, after: str, limit: int) -> Listing:
        ours = self._identities()
        with opened(place, ours) as handle:
            if not stat.S_ISDIR(mode := os.fstat(handle).st_mode):
                raise no_folder(place) if stat.S_ISREG(mode) else odd(mode, place)
            with reopened(handle, os.O_RDONLY | os.O_DIRECTORY) as folder:
                return _listed(folder, ours, after.encode(), limit, place)

    # --- writing ------------------------------------------------------------------------------

    def _prepare(self, write: Write) -> None:
        with self._parent(write.place) as (folder, name, ours):
            found = _target(folder, name, write.place, ours)
            _expect(write, found)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(write.beside, dir_fd=folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            made = os.open(write.beside, flags, 0o600, dir_fd=folder)
            try:
                _pwrite(made, write.data)
                if found is not None:
                    _as_before(made, found.status, write.place)
                os.fsync(made)
            except BaseException:
                os.unlink(write.beside, dir_fd=folder)
                raise
            finally:
                os.close(made)

    def _commit(self, write: Write) -> None:
        with self._parent(write.place) as (folder, name, ours):
            found = _target(folder, name, write.place, ours)
            _expect(write, found)
            if found is None:
                name_anew(folder, write.beside, name)
            else:
                exchange(folder, write.beside, name)
                out = _glance(folder, write.beside, write.place, ours)
                if out is None or (out.identity, out.digest) != (found.identity, found.digest):
                    exchange(folder, write.beside, name)
                    raise changed(write.place)
                os.unlink(write.beside, dir_fd=folder)
            os.fsync(folder)

    def _discard(self, write: Write) -> None:
        with self._parent(write.place) as (folder, _, _), contextlib.suppress(FileNotFoundError):
            os.unlink(write.beside, dir_fd=folder)

    def _outcome(self, write: Write) -> Outcome:
        wanted = blob_digest(write.data)
        with self._parent(write.place) as (folder, name, ours):
            found = _glance(folder, name, write.place, ours)
            if found is not None and found.digest == wanted:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(write.beside, dir_fd=folder)
                return "done"
            ready = _glance(folder, write.beside, write.place, ours)
            # The new content still waits: it never took the name. Otherwise somebody came after it.
            return "absent" if ready is not None and ready.digest == wanted else "unknown"

    @contextlib.contextmanager
    def _parent(self, place: Place) -> Iterator[tuple[int, bytes, frozenset[Identity]]]:
        """The directory that holds the place, open for use, the place's name in it, and what is Runloop's."""
        if not place.parts:
            raise no_file(place)
        name = place.parts[-1]
        unreserved(name, place)
        ours = self._identities()
        with (
            opened(place, ours, up_to=len(place.parts) - 1) as handle,
            reopened(handle, os.O_RDONLY | os.O_DIRECTORY) as folder,
        ):
            yield folder, name, ours


# --- steps ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Target:
    """A file that is going to be replaced."""

    status: os.stat_result
    digest: str

    @property
    def identity(self) -> Identity:
        return (self.status.st_dev, self.status.st_ino)


def _target(folder: int, name: bytes, place: Place, ours: frozenset[Identity]) -> _Target | None:
    """The regular file of that name, which may be written; None when there is none."""
    try:
        handle = open_name(folder, name, WALK, cross=False)
    except FileNotFoundError:
        return None
    try:
        allow(handle, ours, place)
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            raise no_file(place)
        with _content(handle, place, flags=os.O_RDWR) as file:
            return _Target(os.fstat(file), blob_digest(_whole(file, place)))
    finally:
        os.close(handle)


def _glance(folder: int, name: bytes, place: Place, ours: frozenset[Identity]) -> _Target | None:
    """As :func:`_target`; None for anything else that has the name, too."""
    with contextlib.suppress(RunloopError, OSError):
        return _target(folder, name, place, ours)
    return None


@contextlib.contextmanager
def _content(handle: int, place: Place, *, flags: int = os.O_RDONLY) -> Iterator[int]:
    """The bytes of a walked-to descriptor, once it proved to be a regular file with one name."""
    regular(os.fstat(handle), place)
    with reopened(handle, flags | os.O_NONBLOCK) as file:
        # A second name may have appeared since; the descriptor is the same file for certain.
        regular(os.fstat(file), place)
        yield file


def _expect(write: Write, found: _Target | None) -> None:
    if write.expected is None:
        return
    now = ABSENT if found is None else found.digest
    if now != write.expected:
        raise changed(write.place)


def _as_before(made: int, found: os.stat_result, place: Place) -> None:
    """The owner and the permissions of the file that is replaced; no set-id bits."""
    new = os.fstat(made)
    if (new.st_uid, new.st_gid) != (found.st_uid, found.st_gid):
        try:
            os.fchown(made, found.st_uid, found.st_gid)
        except PermissionError as error:
            raise FileError(
                f"{place.path!r} belongs to somebody else, and would not any more",
                hint="its owner can write it",
                code="fs.permission",
            ) from error
    os.fchmod(made, stat.S_IMODE(found.st_mode) & 0o777)


def _listed(folder: int, ours: frozenset[Identity], after: bytes, limit: int, place: Place) -> Listing:
    names: list[bytes] = []
    inodes = {inode for _, inode in ours}
    skipped = seen = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            seen += 1
            if seen > MAX_SCAN:
                raise FailedError(f"{place.path!r} has more than {MAX_SCAN} entries", code="fs.entries")
            name = os.fsencode(entry.name)
            if not _is_text(name):
                skipped += 1
            elif (
                name > after
                and not is_reserved(name)
                and not (entry.inode() in inodes and _is_ours(entry, ours))
            ):
                names.append(name)
    found: list[tuple[str, Kind, int]] = []
    chosen = heapq.nsmallest(limit + 1, names)
    for name in chosen[:limit]:
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        found.append((name.decode(), _kind(status.st_mode), size))
    return Listing(entries=tuple(found), truncated=len(chosen) > limit, skipped=skipped)


def _is_ours(entry: os.DirEntry[str], ours: frozenset[Identity]) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return identity(entry.stat(follow_symlinks=False)) in ours
    return True


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return is_plain(name)


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "dir"
    return "symlink" if stat.S_ISLNK(mode) else "other"


def _pread(file: int, offset: int, length: int) -> bytes:
    parts: list[bytes] = []
    while length > 0 and (part := os.pread(file, length, offset)):
        parts.append(part)
        offset, length = offset + len(part), length - len(part)
    return b"".join(parts)


def _pwrite(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _whole(file: int, place: Place) -> bytes:
    data = _pread(file, 0, MAX_WRITE_BYTES + 1)
    if len(data) > MAX_WRITE_BYTES:
        raise UsageError(
            f"{place.path!r} has more than {MAX_WRITE_BYTES} bytes",
            hint="read it in slices; what is larger is neither digested nor replaced",
            code="fs.size",
        )
    return data
