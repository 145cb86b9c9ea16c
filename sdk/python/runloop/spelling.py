"""What somebody may have meant by a word nobody knows.

Knows: how near two words must be. Does not know: what the words are for, or how the rest of a message reads.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]

_MOST = 128
"""Letters of a foreign word that are compared: the cost grows with them, and no word of ours is as long."""


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known word that comes closest; None when none is close. ``cutoff``: how close it must be, from 0 to
    1; names that people type from memory want less than keys that they copy."""
    found = difflib.get_close_matches(word[:_MOST], list(known), n=1, cutoff=cutoff)
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """``did you mean 'x'?``; where nothing is close ``otherwise``, or else all that is known."""
    words = list(known)
    near = nearest(word, words)
    if near is not None:
        return f"did you mean {near!r}?"
    return f"known: {', '.join(words)}" if otherwise is None else otherwise
