"""One INSERT for many rows: a fraction of the steps, and of the hand-overs between threads that each step is.

Knows: how to widen ``INSERT ... VALUES (one row) [ON CONFLICT ...]``. Does not know: what is inserted. The
standard library gives the interpreter away and takes it back for every row of ``executemany``; beside a busy
thread that costs more than the row (docs/adr/0011).
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from typing import Any

__all__ = ["SIZES", "Bulk"]

SIZES = (512, 64, *range(16, 0, -1))
"""Rows in one statement. SQLite's bound on values is 32 766 (compile option; Debian's is 250 000)."""
_SHAPE = re.compile(
    r"(INSERT\s[^()]*\([^()]*\)\s*VALUES\s*)(\(.*\))\s*(ON CONFLICT\b.*)?\Z", re.DOTALL | re.I
)
_NAME = re.compile(r":([a-z_]+)")


class Bulk:
    """An INSERT of one row, for as many rows as come.

    Raises :class:`ValueError` when the statement is of another shape.
    """

    def __init__(self, statement: str) -> None:
        shape = _SHAPE.fullmatch(statement.strip().rstrip(";").rstrip())
        if shape is None or ":" in (shape[3] or ""):
            raise ValueError(f"not an INSERT of one row: {statement}")
        self.names = tuple(_NAME.findall(shape[2]))
        """The row's values in order, where the statement names them."""
        row = _NAME.sub("?", shape[2])
        self._width = row.count("?")
        self._statements = [
            (size, f"{shape[1]}{', '.join([row] * size)} {shape[3] or ''}".rstrip()) for size in SIZES
        ]

    def is_one(self, cells: Sequence[Any]) -> bool:
        """Whether these rows, at least one, take a single statement."""
        return any(len(cells) == size * self._width for size, _ in self._statements)

    def insert(self, connection: sqlite3.Connection, cells: Sequence[Any]) -> None:
        """Insert rows, in order; ``cells`` holds their values one after another."""
        width, start, end = self._width, 0, len(cells)
        for size, statement in self._statements:
            step = size * width
            while end - start >= step:
                connection.execute(statement, cells if step == end else cells[start : start + step])
                start += step
