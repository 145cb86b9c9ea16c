"""Compile the optional step of the bus for the package's architecture (``CC``), by the wheel's own hook."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

import hatch_build

sys.exit(hatch_build.build(hatch_build.SOURCE, Path(sys.argv[1], hatch_build.BUILT.name)))
