"""When a key counts as a person's yes.

A yes is bound to bytes that were on the screen to their last line, and to a key that was pressed on purpose:
after the screen had stood for a while, and after a pause in typing. What was typed ahead, a key that is held
down and a pasted text are no answers (attacks.md C6, C7). Pure: time is an argument, in milliseconds of any
clock that only goes forward. Does not know: keys, screens, or what is decided.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["QUIET_MS", "STANDS_MS", "Guard", "Verdict"]

STANDS_MS = 600
"""How long the question stands before it can be answered: nobody reads faster."""
QUIET_MS = 350
"""Pause in typing before a key that answers; a key that is held down repeats faster."""


class Verdict(NamedTuple):
    """Whether a yes counts now, and if not, why, for people."""

    counts: bool
    why: str = ""


class Guard:
    """Watches one question on one screen."""

    def __init__(self, opened_ms: int) -> None:
        self._opened = opened_ms
        self._typed: int | None = None
        self._seen = False
        self._seen_ms = opened_ms

    def saw_end(self, now_ms: int | None = None) -> None:
        """The last line was on the screen; ``now_ms``: since when, where that was not the beginning."""
        if not self._seen:
            self._seen, self._seen_ms = True, self._opened if now_ms is None else now_ms

    @property
    def seen(self) -> bool:
        """Whether the last line was on the screen."""
        return self._seen

    def typed(self, now_ms: int) -> None:
        """A key was pressed that is no answer, or one that did not count."""
        self._typed = now_ms

    def waits_ms(self, now_ms: int) -> int:
        """Milliseconds until a key can count; 0: now."""
        quiet = 0 if self._typed is None else self._typed + QUIET_MS - now_ms
        return max(0, self._opened + STANDS_MS - now_ms, quiet)

    def judge(self, now_ms: int) -> Verdict:
        """Whether a yes pressed now counts. One that does not begins the pause anew.

        ``now_ms`` is when the key was pressed, which may be a while before anybody gets to judge it.
        """
        if not self._seen or now_ms < self._seen_ms:
            self._typed = now_ms
            return Verdict(False, "read to the end first: G goes there")
        if self.waits_ms(now_ms):
            self._typed = now_ms
            return Verdict(False, "that came too quickly; read, then press it again")
        return Verdict(True)
