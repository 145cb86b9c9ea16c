"""Files that appear whole or not at all, and are on the disk when they do. For their owner only.

Knows: temporary names, fsync, rename. Does not know: what is in the files.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from runloop.digest import stream_digest
from runloop.errors import ConflictError, NotFoundError

__all__ = ["appearing_folder", "copy_new", "digest_of", "sync", "write_new"]

_CHUNK = 1024 * 1024


@contextmanager
def appearing_folder(final: Path) -> Iterator[Path]:
    """A folder to fill, 0700; it gets its name when the block ends well and is gone when it does not.

    Raises :class:`ConflictError` when the name is taken, :class:`NotFoundError` when its parent is absent.
    """
    final = final.absolute()
    if os.path.lexists(final):
        raise ConflictError(f"{final} exists already", hint="name a place where nothing is", code="kb.exists")
    if not final.parent.is_dir():
        raise NotFoundError(
            f"there is no folder {final.parent}", hint=f"mkdir -p {final.parent}", code="kb.folder"
        )
    passing = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
    passing.mkdir(mode=0o700)
    try:
        yield passing
        for file in passing.iterdir():
            sync(file)
        sync(passing)
        if os.path.lexists(final):
            raise ConflictError(f"{final} appeared meanwhile", hint="name another place", code="kb.exists")
        passing.rename(final)
        sync(final.parent)
    except BaseException:
        shutil.rmtree(passing, ignore_errors=True)
        raise


def write_new(path: Path, data: bytes) -> None:
    """A file that was not there, 0600, on the disk."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def copy_new(source: Path, target: Path) -> str:
    """Copy a file (no link is followed) to where nothing is; returns the digest of what was copied."""
    with _regular(source) as read:
        made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(made, "wb") as out:

            def chunks() -> Iterator[bytes]:
                while chunk := read.read(_CHUNK):
                    out.write(chunk)
                    yield chunk

            found = stream_digest(chunks())
            out.flush()
            os.fsync(out.fileno())
    return found


def digest_of(path: Path) -> str:
    """Digest of a file's bytes; no link is followed."""
    with _regular(path) as read:
        return stream_digest(iter(lambda: read.read(_CHUNK), b""))


def _regular(path: Path) -> BinaryIO:
    """A file to read, and nothing that keeps the reader waiting for ever (a FIFO); raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, f"{path} is not a regular file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
