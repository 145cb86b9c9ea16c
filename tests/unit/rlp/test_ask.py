"""One question to a person on a terminal: what was typed is the answer, whatever it says."""

from __future__ import annotations

import io
import os
import pty

import pytest

from rlp.ask import MOOT, ask


class Screen(io.StringIO):
    """Where questions are shown; somebody types as soon as one stands there."""

    def __init__(self, keyboard: int, line: bytes) -> None:
        super().__init__()
        self._keyboard, self._line = keyboard, line

    def flush(self) -> None:
        line, self._line = self._line, b""
        if line:
            os.write(self._keyboard, line)


@pytest.mark.parametrize("word", ["moot", "Moot", "", "none", "ja, gern"])
def test_no_answer_is_taken_for_a_question_that_needs_none(word: str) -> None:
    master, slave = pty.openpty()
    try:
        with os.fdopen(slave) as stdin:
            told = ask(stdin, Screen(master, word.encode() + b"\n"), "your answer? ", as_typed=True)
    finally:
        os.close(master)
    assert told == word
    assert told != MOOT


def test_a_question_that_became_moot_is_told_apart() -> None:
    master, slave = pty.openpty()
    try:
        with os.fdopen(slave) as stdin:
            assert ask(stdin, Screen(master, b""), "still? ", moot=lambda: True) is MOOT
    finally:
        os.close(master)
