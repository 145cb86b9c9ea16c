"""The SQL of the store, in files one can read and run by hand.

``load`` gives a whole file (a schema); ``named`` cuts a file at its ``-- name: <name>`` lines.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["load", "named"]

_NAME = re.compile(r"^-- name: (\S+)[^\n]*\n", re.MULTILINE)


def load(file: str) -> str:
    """Text of ``pog/sql/<file>``."""
    return (Path(__file__).parent / file).read_text(encoding="utf-8")


def named(file: str) -> dict[str, str]:
    """Statements of ``pog/sql/<file>`` by name, in the order of the file."""
    parts = _NAME.split(load(file))[1:]
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}
