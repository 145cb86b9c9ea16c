"""TOML as strangers write it, read strictly; and values written so that every reader reads them back.

Knows: how far an integer may go, what a string must escape. Does not know: what any document means. Pure.
"""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from typing import Any

__all__ = ["key", "loads", "value"]

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
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


def key(name: str) -> str:
    """A key, bare where it may be."""
    return name if _BARE.match(name) else value(name)


def value(given: Any) -> str:
    """A text, number, boolean, date, list or inline table in TOML."""
    match given:
        case dict():
            return "{ " + ", ".join(f"{key(name)} = {value(item)}" for name, item in given.items()) + " }"
        case list() | tuple():
            return f"[{', '.join(map(value, given))}]"
        case datetime.date() | datetime.time():
            return given.isoformat()
    # JSON and TOML write the rest alike, but for one control character that JSON leaves as it is.
    return json.dumps(given, ensure_ascii=False).replace("\x7f", "\\u007f")
