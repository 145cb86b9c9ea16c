"""The files that prove who one is: keys of 32 raw bytes that only their owner can read.

Knows when a key file is safe to use. Does not know what a key is for.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from runloop.config import Paths
from runloop.errors import RefusedError

__all__ = ["read_credential", "read_key"]

KEY_BYTES = 32


def read_credential(paths: Paths) -> bytes | None:
    """The operator credential; None where there is none yet."""
    return read_key(paths.operator_key)


def read_key(path: Path) -> bytes | None:
    """A key of 32 raw bytes; None where there is none. Refuses a file that others could have read or
    written."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RefusedError(
            f"the key {path} cannot be read: {error.strerror}",
            hint="it must be a regular file of yours with mode 0600",
            code="key.unsafe",
        ) from error
    try:
        found = os.fstat(file)
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid() or mode & 0o077:
            raise RefusedError(
                f"the key {path} is open to others (mode {mode:04o}, owner {found.st_uid})",
                hint=f"chmod 600 {path}, if you are sure nobody else touched it",
                code="key.unsafe",
            )
        data = os.read(file, KEY_BYTES + 1)
    finally:
        os.close(file)
    if len(data) != KEY_BYTES:
        raise RefusedError(
            f"the key {path} has {len(data)} bytes, not {KEY_BYTES}",
            hint="restore it from a backup",
            code="key.unsafe",
        )
    return data
