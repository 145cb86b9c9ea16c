"""Names on the disk: a file that was made, moved or removed is so for good once its folder is synced.

Knows: fsync of a folder. Does not know: what lies in it, or when that matters.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["sync_folder"]


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk. Raises OSError."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
