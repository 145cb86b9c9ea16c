"""Where files of a test lie that are synced all the time: in memory, where there is room.

A ledger syncs at every commit, and a test of one commits a thousand times: on a disk that is mostly waiting.
What is tested is the order of the writes and what is left of them; no test takes the power away for real.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile

__all__ = ["quick"]

ROOM = 1 << 30
_SHARED = "/dev/shm"


@functools.cache
def quick() -> str:
    """The directory to make temporary ones in."""
    try:
        roomy = os.access(_SHARED, os.W_OK | os.X_OK) and shutil.disk_usage(_SHARED).free > ROOM
    except OSError:
        roomy = False
    return _SHARED if roomy else tempfile.gettempdir()
