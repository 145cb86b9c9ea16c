"""``python -m tests.snapshots [WORDS]``: draw the views anew (those whose name contains all WORDS)."""

from __future__ import annotations

import os
import sys

import pytest

from tests.snapshots.frames import WRITE

if __name__ == "__main__":
    os.environ[WRITE] = "1"
    chosen = ["-k", " and ".join(sys.argv[1:])] if sys.argv[1:] else []
    sys.exit(pytest.main(["-q", "-n", "0", "tests/snapshots", *chosen]))
