"""The clock by which a key was meant or not, and when a key was pressed that waited for its turn.

Knows: clocks and keys. Does not know: how long a pause has to be (``model.guard``), or what is decided.
"""

from __future__ import annotations

import time

from textual.events import Key

__all__ = ["QUEUED_MS", "steady_ms", "waited_ms"]

QUEUED_MS = 100
"""A key that waited longer for its turn is judged by when it was pressed."""


def steady_ms() -> int:
    """A clock for pauses between keys: nobody can set it back."""
    return time.monotonic_ns() // 1_000_000


def waited_ms(event: Key) -> int:
    """How long a key lay in the queue while the screen was busy: whoever pressed it saw what stood there
    then. A moment is none: keys are read in a thread of their own."""
    waited = int((time.monotonic() - event.time) * 1_000)
    return waited if waited > QUEUED_MS else 0
