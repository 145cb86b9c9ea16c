"""A file of an agent's as a file of the person's: a name that is safe to suggest, and a new file alone.

Knows: that names and contents are foreign. Does not know: who asked for it; nothing here happens by itself.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from runloop.errors import FailedError, UsageError
from runloop.escape import block, visible
from runloop.quantities import size

__all__ = ["pager_input", "plain_name", "written"]


def plain_name(name: str) -> str:
    """A file name of the agent's as one that is safe to suggest: no folders, nothing hidden."""
    return (
        re.sub(r"[^A-Za-z0-9._-]+", "_", name.replace("\\", "/").rpartition("/")[2]).lstrip("._-") or "file"
    )


def pager_input(name: str, data: bytes) -> bytes:
    """What a pager is given: text with everything that acts or hides written as an escape."""
    lines = [f"{visible(name)}, {size(len(data))}", "", *block(data.decode("utf-8", "backslashreplace"))]
    return ("\n".join(lines) + "\n").encode()


def written(path: Path, data: bytes) -> None:
    """A new file; what is there already is somebody's. Raises :class:`UsageError`, :class:`FailedError`."""
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise UsageError(
            f"{path} is there already", hint="name another file", code="artifact.exists"
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "that is no path"
        raise FailedError(f"{path} cannot be written: {reason}", code="artifact.write") from error
    with os.fdopen(opened, "wb") as file:
        file.write(data)
