"""Rows at the bottom of a terminal that stay where they are: painted over, in one write, never scrolled away.

Knows: how far up its rows begin, also after the window changed its width or the process was stopped for a
while. Does not know: what the rows say. Uses what every terminal of the last thirty years has (up, erase to
the end); the cursor is neither hidden nor moved away, so that a process that is killed leaves nothing behind
but its last rows.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from runloop.escape import columns_of

if TYPE_CHECKING:
    from rlp.board import Row
    from rlp.output import Console

__all__ = ["LEAST_COLUMNS", "LEAST_ROWS", "Live", "rewraps"]

LEAST_COLUMNS, LEAST_ROWS = 40, 8
"""A terminal smaller than this gets one passing line instead."""


def rewraps(environ: Mapping[str, str]) -> bool:
    """Whether the terminal breaks lines anew when it is made narrower. Most do; those that cut instead say
    who they are, and where nobody knows, erasing too little is better than erasing what was said."""
    if "TMUX" in environ:
        return True
    if "XTERM_VERSION" in environ or "STY" in environ:
        return False
    return environ.get("TERM", "").startswith(("xterm", "foot", "alacritty", "tmux", "vte"))


class Live:
    """The rows. A context manager: leaving it takes them away and gives the signal handler back."""

    def __init__(
        self,
        console: Console,
        *,
        size: Callable[[], tuple[int, int]],
        rewraps: bool = False,
        foreground: Callable[[], bool] = lambda: True,
    ) -> None:
        """``size``: columns and rows of the terminal now; ``foreground``: whether the terminal is ours to
        write to, and not the shell's."""
        self._console = console
        self._size = size
        self._rewraps = rewraps
        self._foreground = foreground
        self._painted: list[Row] = []
        self._columns = 0
        """Of the terminal, when the rows were painted."""
        self._lost = False
        """Whether others may have written below our rows: they are left alone and painted anew."""
        self._torn = False
        """Whether a painting began and did not end: nobody knows how many rows there are."""
        self._before: Any = None

    def __enter__(self) -> Live:
        self._console.below = self
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGCONT, self._went_on)
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()
        self._console.below = None
        if self._before is not None:
            signal.signal(signal.SIGCONT, self._before)

    def _went_on(self, number: int, frame: Any) -> None:
        self._lost = True  # the shell wrote its prompt meanwhile
        if callable(self._before):
            self._before(number, frame)

    def room(self) -> tuple[int, int]:
        """Columns and rows that may be painted; ``(0, 0)`` where the terminal is too small for any. The
        console goes by the new width from now on."""
        columns, rows = self._size()
        self._console.width = max(24, columns)
        if columns < LEAST_COLUMNS or rows < LEAST_ROWS:
            return 0, 0
        return columns, rows // 2

    def paint(self, rows: Sequence[Row]) -> None:
        """Have these rows stand there. Each is safe and narrower than the terminal."""
        if not self._foreground():
            return
        columns = self._size()[0]
        if list(rows) == self._painted and columns == self._columns and not self._lost:
            return
        back = self._back(columns)
        painted = [self._console.paint(row.text, row.color) + "\x1b[K" for row in rows]
        self._torn = True
        self._console.err.write(back + "\n".join(painted) + "\x1b[J")
        self._console.err.flush()
        self._painted, self._columns = list(rows), columns
        self._torn = False

    def wipe(self) -> None:
        """Take the rows away; what is written next stands in their place."""
        if not self._painted and not self._torn:
            return
        back = self._back(self._size()[0])
        self._painted = []  # first: whoever interrupts us must not have it done twice
        if self._foreground():
            self._console.err.write(back + "\x1b[J")
            self._console.err.flush()

    def _back(self, columns: int) -> str:
        """To the beginning of the first row that was painted."""
        if self._lost or self._torn:
            stands = bool(self._painted) or self._torn
            self._lost = self._torn = False
            return "\r\n" if stands else "\r"
        up = sum(self._height(row.text, columns) for row in self._painted) - 1
        return f"\r\x1b[{up}A" if up > 0 else "\r"

    def _height(self, text: str, columns: int) -> int:
        """Rows of the terminal that one of ours takes by now."""
        if not self._rewraps or columns >= self._columns:
            return 1
        return max(1, -(-columns_of(text) // max(1, columns)))


def watching(console: Console, environ: Mapping[str, str]) -> Live | None:
    """The rows for this process's terminal; None where lines are the better way to tell."""
    style = console.style
    if not style.color or style.quiet or style.json:
        return None
    try:
        number = console.err.fileno()
        columns, rows = os.get_terminal_size(number)
    except (OSError, ValueError):
        return None
    if columns < LEAST_COLUMNS or rows < LEAST_ROWS:
        return None

    def size() -> tuple[int, int]:
        with suppress(OSError):
            found = os.get_terminal_size(number)
            return found.columns or columns, found.lines or rows
        return columns, rows

    def foreground() -> bool:
        with suppress(OSError):
            return os.tcgetpgrp(number) == os.getpgrp()
        return True  # not our controlling terminal: there is no shell that would write to it

    return Live(console, size=size, rewraps=rewraps(environ), foreground=foreground)
