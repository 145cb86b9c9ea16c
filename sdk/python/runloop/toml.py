"""TOML as strangers write it: what ``tomllib`` takes beyond the standard, and stumbles over, is refused.

Knows: how far an integer may go. Does not know: what any document means. Pure.
"""

from __future__ import annotations

import datetime
import tomllib
from typing import Any

__all__ = ["loads"]

_INTEGERS = range(-(2**63), 2**63)


def loads(text: str, *, times: bool = True) -> dict[str, Any]:
    """The document; raises :class:`tomllib.TOMLDecodeError`, or RecursionError for endless nesting.

    An integer beyond 64 bits is an error in TOML, and ``tomllib`` takes it all the same: from 4300 digits on
    Python refuses to print it, which would turn every message about it into an exception of another kind.
    ``times``: False refuses dates and times, for documents that become JSON.
    """
    try:
        top = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # a number that cannot even be read
        raise tomllib.TOMLDecodeError("a number is out of range") from error
    left: list[Any] = [top]
    while left:
        match left.pop():
            case dict() as table:
                left += table.values()
            case list() as items:
                left += items
            case int() as number if number not in _INTEGERS:
                raise tomllib.TOMLDecodeError("an integer is beyond 64 bits")
            case datetime.date() | datetime.time() if not times:
                raise tomllib.TOMLDecodeError("dates and times have no place here; write them in quotes")
    return top
