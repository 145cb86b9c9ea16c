"""A terminal as a grid of letters: what a person would see of what was written.

Knows the few sequences that ``rlp`` writes, and fails at any other. Lines that scroll out are kept.
"""

from __future__ import annotations

import io
import re

_PIECE = re.compile(r"\x1b\[(?P<number>\d*)(?P<final>[A-Za-z])|(?P<char>[^\x1b])", re.DOTALL)


class Screen(io.StringIO):
    """A stream that is a terminal of some columns and rows."""

    def __init__(self, columns: int = 60, rows: int = 12) -> None:
        super().__init__()
        self.columns, self.height = columns, rows
        self.gone: list[str] = []
        """Lines that scrolled out at the top."""
        self._grid = [""]
        self._row = self._column = 0
        self.writes = 0

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """All lines, those that scrolled out first, without blanks at the ends."""
        return [line.rstrip() for line in (*self.gone, *self._grid)]

    def write(self, text: str) -> int:
        self.writes += 1
        position = 0
        while position < len(text):
            found = _PIECE.match(text, position)
            assert found, f"an unknown sequence: {text[position : position + 8]!r}"
            position = found.end()
            if found["char"]:
                self._letter(found["char"])
            else:
                self._act(found["final"], int(found["number"] or 0))
        return len(text)

    def _act(self, final: str, number: int) -> None:
        if final == "A":
            self._row = max(0, self._row - number)
        elif final == "K":
            self._grid[self._row] = self._grid[self._row][: self._column]
        elif final == "J":
            self._grid[self._row] = self._grid[self._row][: self._column]
            del self._grid[self._row + 1 :]
        else:
            assert final == "m", f"an unknown sequence ends with {final}"

    def _letter(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n":
            self._down()
        else:
            assert char.isprintable(), ascii(char)
            if self._column == self.columns:
                self._down()
            line = self._grid[self._row].ljust(self._column)
            self._grid[self._row] = line[: self._column] + char + line[self._column + 1 :]
            self._column += 1

    def _down(self) -> None:
        self._row, self._column = self._row + 1, 0
        if self._row == len(self._grid):
            self._grid.append("")
        if len(self._grid) > self.height:
            self.gone.append(self._grid.pop(0))
            self._row -= 1

    def narrow(self, columns: int) -> None:
        """Make it narrower, as terminals do that break long lines anew."""
        before, self._grid = self._grid, []
        for number, line in enumerate(before):
            parts = [line[at : at + columns] for at in range(0, max(1, len(line)), columns)]
            if number == self._row:
                self._row = len(self._grid) + len(parts) - 1
                self._column = min(columns, self._column - columns * (len(parts) - 1))
            self._grid += parts
        while len(self._grid) > self.height:
            self.gone.append(self._grid.pop(0))
            self._row -= 1
        self.columns = columns
