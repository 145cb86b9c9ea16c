"""Values as lines of text, and what differs between two of them.

Knows: how a JSON value reads line by line, and how much of a difference is worth showing. Does not know: the
terminal; whoever prints the lines makes them safe for it, for all of it is foreign.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from runloop.digest import canonical

__all__ = ["MAX_LINES", "lines", "unified"]

MAX_LINES = 60
"""Of one difference."""
MAX_COMPARED = 4_000
"""Lines of either value that are looked at."""
MAX_CHARS = 400
"""Of one line."""
_CONTEXT = 2


def lines(value: Any) -> list[str]:
    """A JSON value, one line for each leaf: ``path: value``; the lines of a text one below the other."""
    return [line[:MAX_CHARS] for line in _walk("", value)]


def unified(one: Any, other: Any, limit: int = MAX_LINES) -> list[str]:
    """What differs, as a unified diff without its head; what is beyond ``limit`` is counted, not shown."""
    before, after = lines(one)[:MAX_COMPARED], lines(other)[:MAX_COMPARED]
    found = list(difflib.unified_diff(before, after, lineterm="", n=_CONTEXT))[2:]
    if len(found) <= limit:
        return found
    return [*found[:limit], f"... {len(found) - limit} more lines"]


def _walk(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for name in sorted(value):
            yield from _walk(f"{path}.{name}" if path else str(name), value[name])
    elif isinstance(value, list | tuple) and value:
        for index, item in enumerate(value):
            yield from _walk(f"{path}[{index}]", item)
    elif isinstance(value, str):
        first, *more = value.split("\n")
        yield f"{path}: {first}" if path else first
        for line in more:
            yield f"{path}| {line}"
    else:
        text = canonical(value).decode()
        yield f"{path}: {text}" if path else text
