"""What a control method is: parameters as a closed type, a call, and whether it needs the operator.

Knows: the shape of a row. Does not know: any method (``gateway.control`` and the modules by noun beside it).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from runloopd.bus.principal import Principal

__all__ = ["MAX_PAGE", "Nothing", "Params", "Row", "within"]

MAX_PAGE = 1_000
"""Rows of one answer, at most."""


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every method's parameters."""


class Nothing(Params, frozen=True, kw_only=True):
    """The parameters of a method that takes none."""


Row = tuple[str, type[Params], Callable[[Principal, Any], Awaitable[Any]], bool]
"""Name, parameters, call; True: only the owning user's own programs may call it, having proved the operator
credential."""


def within(asked: int, most: int = MAX_PAGE) -> int:
    """How many rows an answer has: as many as asked for, within bounds."""
    return max(1, min(asked, most))
