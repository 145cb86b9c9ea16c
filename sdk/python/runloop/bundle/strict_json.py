"""JSON as strangers write it: what two readers could read differently is refused.

Knows: that a key stands in an object once, and that a value has a canonical form. Does not know: what any
document means. Pure.
"""

from __future__ import annotations

import json
from typing import Any

from runloop.digest import canonical

__all__ = ["loads"]


def loads(text: str | bytes) -> Any:
    """The value; raises ValueError or RecursionError for what is no JSON or has a key twice, and
    :class:`RunloopError` for what has no canonical form: NaN, an endless number, a lone surrogate."""
    value = json.loads(text, object_pairs_hook=_once)
    canonical(value)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are there once: of two, readers disagree which one counts."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:64]!r} is there twice")
    return made
