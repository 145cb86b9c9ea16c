"""What the engine asked for and no fact has stated yet, for whoever holds recorded facts against it.

Knows: which command a recorded fact states. A fact may be stated a little after its command fell due, when
others came between (the engine is level-triggered), never before. Does not know: what it means when there is
none (``replay``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openings import comparers as compare
from openings.commands import Command, fact
from runloop.events import Payload

__all__ = ["Offers"]


class Offers:
    """Of one run."""

    def __init__(self) -> None:
        self._open: dict[tuple[Any, ...], list[tuple[Command, Payload]]] = {}
        """What a fact is about -> commands, in the order they fell due, with the facts that state them."""

    def add(self, commands: Iterable[Command]) -> None:
        """These are due. One that is open already stays the one it was."""
        for command in commands:
            would = fact(command)
            offers = self._open.setdefault(_about(would), [])
            if all(command != other for other, _ in offers):
                offers.append((command, would))

    def take(self, recorded: Payload) -> Command | None:
        """The command that a recorded fact states, which is no more open then; None: there is none."""
        wanted = compare.comparable(recorded)
        offers = self._open.get(_about(recorded), [])
        for place, (command, would) in enumerate(offers):
            if compare.comparable(would) == wanted:
                del offers[place]
                return command
        return None

    def instead(self, recorded: Payload) -> Payload | None:
        """The fact that the engine would state about the same thing first."""
        offers = self._open.get(_about(recorded), [])
        return offers[0][1] if offers else None


def _about(payload: Payload) -> tuple[Any, ...]:
    parts = (getattr(payload, name, None) for name in ("node", "attempt", "timer"))
    return (payload.kind, *parts)
