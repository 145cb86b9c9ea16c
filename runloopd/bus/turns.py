"""How much of one turn of the event loop a connection gets, and who is next.

A read may bring a quarter of a megabyte. What of it takes the fast road is done in a millisecond; thousands
of frames that must be judged one by one are not, and whoever has one small request would wait behind them.
So judged frames are counted: a turn has room for :data:`AT_ONCE` of them, and a connection that has more goes
on in a later turn, when all others that wait have had theirs. Knows: counts and order. Does not know: frames,
sockets, or what time it is: a bound that looks at a clock would make what happens depend on the machine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

__all__ = ["AT_ONCE", "FEW", "Turns", "Waiting", "cost"]

AT_ONCE = 16
"""Frames judged in one turn: some 15 us each for a durable topic or a control frame."""
FEW = 2
"""Frames of a connection that are judged even when the turn is used up: a neighbour's request is one of them,
and a hundred neighbours' requests in one turn are not much."""
_BYTES = 4_096
"""A larger frame counts once for every so many bytes of it: it is decoded whole."""


class Waiting(Protocol):
    """Somebody who has more to do than a turn takes."""

    def go_on(self) -> None:
        """Do what a turn takes; ask for another one if there is more."""
        ...


def cost(size: int) -> int:
    """What judging a frame of so many bytes counts."""
    return 1 + size // _BYTES


class Turns:
    """Shares out turns. Used from one event loop."""

    def __init__(self) -> None:
        self.left = AT_ONCE
        """What this turn has room for; below zero where several connections were given :data:`FEW`."""
        self._waiting: deque[Waiting] = deque()
        self._due = False

    def floor(self) -> int:
        """How low :attr:`left` may go for the one that works now."""
        return min(0, self.left - FEW)

    def ask(self, one: Waiting) -> None:
        """Let ``one`` go on in a later turn, after those who asked before."""
        self._waiting.append(one)

    def spent(self) -> None:
        """To be called after work: makes sure that there will be another turn where one is needed."""
        if not self._due and (self._waiting or self.left < AT_ONCE):
            self._due = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._due = False
        self.left = AT_ONCE
        try:
            if self._waiting:
                self._waiting.popleft().go_on()
        finally:
            self.spent()
