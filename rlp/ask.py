"""Asking a person one question on a terminal, while the world goes on.

Knows: what was typed before the question does not count as its answer; the question may become moot while it
stands. Does not know: what the question means.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

__all__ = ["MOOT", "ask"]

MOOT = "\n"
"""Returned when the question no longer needs an answer; no line that somebody types is this."""

LOOK_S = 0.5


def ask(
    stdin: TextIO,
    stderr: TextIO,
    question: str,
    *,
    moot: Callable[[], bool] = lambda: False,
    as_typed: bool = False,
) -> str | None:
    """Show the question, return the line typed after it (stripped, and unless ``as_typed`` in lower case),
    None at end of input.

    ``moot`` is asked about twice a second; when true, :data:`MOOT` is returned. ``question`` must be safe
    text.
    """
    number = stdin.fileno()
    _forget_typed_ahead(number)
    stderr.write(question)
    stderr.flush()
    line = b""
    while True:
        ready, _, _ = select.select([number], [], [], LOOK_S)
        if ready:
            # os.read, not readline: the text layer may hold lines back that select cannot see
            piece = os.read(number, 4096)
            line += piece
            if b"\n" in line or not piece:
                break
        elif moot():
            stderr.write("\n")
            return MOOT
    if not line:
        stderr.write("\n")
        return None
    words = line.partition(b"\n")[0].decode(sys.getfilesystemencoding(), "replace").strip()
    return words if as_typed else words.lower()


def _forget_typed_ahead(number: int) -> None:
    """Drop what waits on the terminal: a stray Enter or 'y' must not approve what was not shown yet."""
    import termios

    with suppress(termios.error):
        termios.tcflush(number, termios.TCIFLUSH)
