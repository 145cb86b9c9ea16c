"""Attempts that are made at this moment, by agent, and the word that ends one from outside.

Knows: which attempt is under way, from before its agent was looked up to the fact of its end, and who is to
be told that it shall not go on. Does not know: who says so or why (``runs.stops``), how a worker is ended:
whoever waits for the answer of its guest raises what it is told here, and its worker goes as in any other
failure. So the end of an attempt has one writer, whoever caused it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from runloop.errors import RunloopError

__all__ = ["Attempt", "Key", "UnderWay"]

Key = tuple[str, str, int]
"""Run, node, attempt."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt under way."""

    key: Key
    agent: str
    scheduled: int
    """Ledger id of its ``node.scheduled``."""
    reply: asyncio.Future[dict[str, Any]] | None = None
    """Where the answer of its guest is waited for; None before the guest was asked."""
    ended: RunloopError | None = None
    """What it was told to end with."""
    stated: tuple[int, ...] = ()
    """Ledger ids of the facts that ended it."""


class UnderWay:
    """Every attempt of every run that is made now. Used from one event loop."""

    def __init__(self) -> None:
        self._attempts: dict[Key, Attempt] = {}

    @contextmanager
    def made(self, key: Key, agent: str, scheduled: int) -> Iterator[Attempt]:
        """An attempt from its beginning to its end."""
        attempt = self._attempts[key] = Attempt(key, agent, scheduled)
        try:
            yield attempt
        finally:
            if self._attempts.get(key) is attempt:
                del self._attempts[key]

    def heed(self, key: Key) -> None:
        """Raise what an attempt was told to end with, if it was."""
        attempt = self._attempts.get(key)
        if attempt is not None and attempt.ended is not None:
            raise attempt.ended

    def waits(self, key: Key, reply: asyncio.Future[dict[str, Any]]) -> None:
        """Its guest is asked now; raises as :meth:`heed`."""
        self.heed(key)
        if (attempt := self._attempts.get(key)) is not None:
            attempt.reply = reply

    def of(self, agent: str) -> list[Attempt]:
        """The attempts of one agent that nobody has ended yet."""
        return [one for one in self._attempts.values() if one.agent == agent and one.ended is None]

    def counts(self) -> Counter[str]:
        """Agent -> how many of its attempts are under way."""
        return Counter(one.agent for one in self._attempts.values())

    @staticmethod
    def end(attempt: Attempt, error: RunloopError, stated: int) -> bool:
        """Have it end with ``error``; False when its guest has answered already. ``stated``: the fact that
        says so."""
        if attempt.ended is not None or (attempt.reply is not None and attempt.reply.done()):
            return False
        attempt.ended = error
        attempt.stated = (stated,)
        if attempt.reply is not None:
            attempt.reply.set_exception(error)
        return True
