"""Files that nobody else may read: read with every check, written whole or not at all.

Knows: symbolic links, owners, modes, the order of writing. Does not know: what is in a file.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from runloop.durable import sync_folder
from runloop.errors import FailedError, RefusedError

__all__ = ["MAX_BYTES", "read_private", "remove_private", "unfit", "write_private"]

MAX_BYTES = 1 << 20


def read_private(path: Path, *, handed: bool = False) -> bytes | None:
    """The bytes of a regular file of ours that others cannot read; None where there is none.

    ``handed``: a service manager made it for us; then it may be root's, and a group may be let in.
    Raises :class:`RefusedError` (``secret.file``).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unfit(path, error.strerror or "it cannot be opened") from error
    try:
        status = os.fstat(descriptor)
        owners = {os.geteuid(), 0} if handed else {os.geteuid()}
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in owners:
            raise unfit(path, "it is not a regular file of yours")
        if status.st_mode & (0o007 if handed else 0o077):
            raise unfit(path, f"others can read it (mode {stat.S_IMODE(status.st_mode):o})")
        if status.st_size > MAX_BYTES:
            raise unfit(path, f"it has more than {MAX_BYTES} bytes")
        return os.read(descriptor, MAX_BYTES)
    finally:
        os.close(descriptor)


def write_private(path: Path, content: bytes) -> None:
    """Replace ``path``, durable when this returns; after a crash the old or the new content is there.

    Raises :class:`FailedError` (``secret.place``): then the old content is untouched.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _failed(path, error) from error
    passing = f".{path.name}.{secrets.token_hex(8)}.new"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(passing, flags, 0o600, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.rename(passing, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(passing, dir_fd=folder)
            raise
        os.fsync(folder)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        os.close(folder)


def remove_private(path: Path) -> None:
    """Remove it, durably."""
    try:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise _failed(path, error) from error


def unfit(path: Path, why: str, hint: str | None = None) -> RefusedError:
    """The refusal of a file as it is. ``why`` never holds what is in it."""
    return RefusedError(
        f"the secrets file {path} cannot be used: {why}",
        hint=hint or f"it must be a regular file, owned by you: chmod 600 {path}",
        code="secret.file",
    )


def _failed(path: Path, error: OSError) -> FailedError:
    return FailedError(
        f"{path} cannot be written: {error.strerror}", hint="nothing was changed", code="secret.place"
    )
