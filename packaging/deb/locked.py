"""Print a hash-locked requirements file without some of its distributions: ``locked.py FILE NAME ...``."""

from __future__ import annotations

import sys
from pathlib import Path


def main(path: str, *left_out: str) -> None:
    keep = True
    for line in Path(path).read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            keep = line.partition("==")[0].strip() not in left_out
        if keep and not line.lstrip().startswith("#"):
            print(line)


main(*sys.argv[1:])
