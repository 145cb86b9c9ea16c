"""A long text as numbered rows: words of ours, foreign text folded to a width, bytes in hexadecimal.

Knows: that every foreign character that acts or hides is escaped, that a row of foreign text begins with a
bar, so that none looks like one of ours, and how many rows there are before any of them is made. Does not
know: the screen. Pure.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from agtop.model.bytes import PER_ROW, hex_row, is_text
from runloop.escape import block, fold, json_text, visible
from runloop.quantities import size

__all__ = ["BAR", "MAX_TEXT_BYTES", "Document", "Row"]

BAR = "| "
"""Begins every row of foreign text."""
MAX_TEXT_BYTES = 262_144
"""Of one piece that are folded as text, where not every byte has to be read."""
NARROWEST = 20


class Row(NamedTuple):
    """One row, and what it is: ``head`` (ours), ``field`` (our name, foreign value), ``text``, ``hex``,
    ``note`` (ours, worth a colour), ``rule``."""

    text: str
    kind: str = "text"


class Document:
    """Rows, in pieces of which some are made only when they are looked at."""

    def __init__(self, width: int) -> None:
        self.width = max(NARROWEST, width)
        self._starts: list[int] = []
        self._pieces: list[Callable[[int], Row]] = []
        self.count = 0

    def row(self, number: int) -> Row:
        """One row; raises IndexError beyond the last."""
        if not 0 <= number < self.count:
            raise IndexError(number)
        piece = bisect_right(self._starts, number) - 1
        return self._pieces[piece](number - self._starts[piece])

    def rows(self, rows: list[Row]) -> None:
        """Rows that are made already, and safe."""
        self._add(len(rows), lambda number: rows[number])

    def head(self, words: str, kind: str = "head") -> None:
        """A line of ours."""
        self.rows([Row(line, kind) for line in fold("", words, self.width)])

    def field(self, name: str, value: str) -> None:
        """A name of ours and a foreign value, folded so that no part of it begins a row."""
        self.rows([Row(line, "field") for line in fold(f"{name:<14} ", value, self.width)])

    def text(self, text: str) -> None:
        """Foreign text, line by line."""
        self.rows([Row(BAR + line) for line in block(text, width=self.width - len(BAR))])

    def hex(self, data: bytes) -> None:
        """Bytes, sixteen a row; none of them is made before it is seen."""
        self._add(-(-len(data) // PER_ROW), lambda number: Row("  ".join(hex_row(data, number)), "hex"))

    def content(self, data: bytes, *, hexadecimal: bool = False, whole: bool = False) -> None:
        """Bytes of any kind: text where they are text, JSON with a line for each value. ``whole``: as they
        are, to the last byte."""
        if not data:
            self.head("(no bytes)", "note")
        elif hexadecimal or not (whole or is_text(data)):
            self.hex(data)
        elif whole:
            self.text(data.decode("utf-8", "backslashreplace"))
        else:
            self.text(readable(data[:MAX_TEXT_BYTES]))
            if len(data) > MAX_TEXT_BYTES:
                self.head(
                    f"the first {size(MAX_TEXT_BYTES)} of {size(len(data))}; x shows every byte", "note"
                )

    def fields(self, says: Mapping[str, Any]) -> None:
        """A JSON object, one field a row; inner values compact."""
        for name, value in says.items():
            self.field(visible(name), value if isinstance(value, str) else json_text(value))

    def _add(self, count: int, row: Callable[[int], Row]) -> None:
        if count:
            self._starts.append(self.count)
            self._pieces.append(row)
            self.count += count


def readable(data: bytes) -> str:
    """Text; JSON laid out so that every value has a line of its own."""
    text = data.decode("utf-8", "backslashreplace")
    if text[:1] in "{[":
        try:
            return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            return text
    return text
