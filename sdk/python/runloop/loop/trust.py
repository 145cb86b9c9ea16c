"""Labels of where content came from, as a guest sees them.

Knows: the order of labels, the same as the daemon's, which stamps what is on record by itself and believes
no guest. Does not know: rights; a label grants nothing.
"""

from __future__ import annotations

__all__ = ["lowest"]

_RANKS = {
    "user": 4,
    "host": 4,
    "agent": 3,
    "model": 2,
    "import": 1,
    "file": 1,
    "web": 1,
    "tool": 1,
    "site": 1,
    "face": 1,
}


def _rank(label: str) -> int:
    return _RANKS.get(label.partition(":")[0], 0)


def lowest(*labels: str | None) -> str:
    """The label that is trusted least, the first among equals; ``user`` where there is none."""
    found = [label for label in labels if label]
    return min(found, key=_rank) if found else "user"
