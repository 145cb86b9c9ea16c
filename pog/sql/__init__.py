"""The SQL of the store, in files one can read and run by hand.

``load`` gives a whole file (a schema); ``named`` cuts a file at its ``-- name: <name>`` lines; ``steps``
finds the migrations of a file, ``migrations/<file>_<from>.sql``; ``statements`` cuts a script up.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

__all__ = ["load", "named", "statements", "steps"]

_NAME = re.compile(r"^-- name: (\S+)[^\n]*\n", re.MULTILINE)


def load(file: str) -> str:
    """Text of ``pog/sql/<file>``."""
    return (Path(__file__).parent / file).read_text(encoding="utf-8")


def named(file: str) -> dict[str, str]:
    """Statements of ``pog/sql/<file>`` by name, in the order of the file."""
    parts = _NAME.split(load(file))[1:]
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def steps(file: str) -> dict[int, str]:
    """Version a migration of ``file`` starts from -> its SQL; empty where there are none."""
    folder = Path(__file__).parent / "migrations"
    found = {int(path.stem.rpartition("_")[2]): path for path in folder.glob(f"{file}_*.sql")}
    return {version: found[version].read_text(encoding="utf-8") for version in sorted(found)}


def statements(script: str) -> list[str]:
    """The statements of a script, in order; a trigger's body is one with it."""
    found, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            found.append(pending.strip())
            pending = ""
    return found
