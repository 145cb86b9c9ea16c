"""The words of a model on their way to whoever watches.

Knows: that each frame costs everybody, so pieces are gathered. Does not know: where they come from, or that
they are recorded.
"""

from __future__ import annotations

from collections.abc import Callable

from runloop.clock import Clock
from runloopd.broker.asks import Ask
from runloopd.broker.ports import Delta

__all__ = ["Shown"]

_SHOWN_EVERY_MS = 50
_SHOWN_CHARS = 4_096
"""A call shows what arrived this often, or whenever this much has gathered."""


class Shown:
    """The words of one call on their way to whoever watches: gathered, because each frame costs everybody.

    What is gathered waits for the next word or the end, not for a timer.
    """

    def __init__(self, ask: Ask, clock: Clock, publish: Callable[[Delta], None]) -> None:
        self._run, self._node = ask.caller.run, ask.caller.node
        self._clock = clock
        self._publish = publish
        self._gathered: list[str] = []
        self._size = 0
        self._shown_ms = -_SHOWN_EVERY_MS

    def add(self, text: str) -> None:
        """Take a piece; the first is shown at once."""
        self._gathered.append(text)
        self._size += len(text)
        since_ms = self._clock.now_ms() - self._shown_ms
        if self._size >= _SHOWN_CHARS or not 0 <= since_ms < _SHOWN_EVERY_MS:  # a clock may be set back
            self.flush()

    def flush(self) -> None:
        """Show everything that was gathered."""
        text = "".join(self._gathered)
        self._gathered.clear()
        self._size = 0
        for at in range(0, len(text), _SHOWN_CHARS):
            piece = text[at : at + _SHOWN_CHARS]
            self._publish(Delta(run=self._run, node=self._node, kind="text", text=piece))
        self._shown_ms = self._clock.now_ms()
