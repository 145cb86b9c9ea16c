"""The writer's lock: one program at a time may write, replace or rewrite a ledger's files.

Knows: the lock's file, how to tell from outside whether somebody holds it, and the mark that says a ledger's
files are being exchanged (``pog.maintain.exchange``): nobody becomes the writer while it lies there. The
kernel lets go of a lock when the holder dies. Does not know: what the holder does.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pog.errors import LedgerLockedError, LedgerUncertainError

__all__ = ["exchange_mark", "has_writer", "held", "take", "untouched"]


def exchange_mark(path: Path) -> Path:
    """Where it is noted that another ledger is being put in the place of ``path``."""
    return path.with_name(path.name + ".exchange")


def take(path: Path, *, exchanging: bool = False) -> int:
    """Become the only writer of the ledger at ``path``; closing the descriptor lets the next one in.

    Raises :class:`LedgerLockedError` when another process, or another part of this one, holds the lock;
    :class:`LedgerUncertainError` when an exchange of the files was interrupted, unless that is what is to be
    finished (``exchanging``); OSError when the lock's file cannot be made.
    """
    lock = os.open(_name(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise LedgerLockedError(
            f"another process writes {path}", hint="rlp daemon status", path=str(path)
        ) from error
    if not exchanging and os.path.lexists(exchange_mark(path)):
        os.close(lock)
        raise LedgerUncertainError(
            f"{path} was being replaced when something stopped it; it may be the old one or none at all",
            hint="'rlp kb restore --resume' finishes it",
            code="ledger.exchange",
            path=str(path),
        )
    return lock


@contextmanager
def held(path: Path, *, what: str, exchanging: bool = False) -> Iterator[None]:
    """Keep every writer out while ``what`` (``restoring``) goes on; refused while one is in."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        lock = take(path, exchanging=exchanging)
    except LedgerLockedError as error:
        raise LedgerLockedError(
            f"{what} needs {path} for itself, and a daemon writes it",
            hint="'rlp daemon stop' first",
            path=str(path),
        ) from error
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def untouched(path: Path) -> Iterator[None]:
    """Keep writers out while the files are read, without making or changing anything beside them.

    Raises :class:`LedgerLockedError` while a writer is in.
    """
    try:
        lock = os.open(_name(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield  # nobody ever wrote it from here: a copy, on a disk of its own
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise LedgerLockedError(
            f"a daemon writes {path}; it is not read from under its hands",
            hint="'rlp daemon stop' first",
            path=str(path),
        ) from error
    try:
        yield
    finally:
        os.close(lock)


def has_writer(path: Path) -> bool:
    """Whether somebody holds the lock now: then the last transaction may just be arriving."""
    try:
        inode = _name(path).stat().st_ino
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    return any("FLOCK" in line and line.split()[5].endswith(f":{inode}") for line in locks)


def _name(path: Path) -> Path:
    return path.with_name(path.name + ".lock")
