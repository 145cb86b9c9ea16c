"""What a control method is: parameters as a closed type, a call, and whether it needs the operator.

Knows: the shape of a row. Does not know: any method (``gateway.control`` and the modules by noun beside it).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from runloopd.bus.principal import Principal

__all__ = ["Params", "Row"]


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every method's parameters."""


Row = tuple[str, type[Params], Callable[[Principal, Any], Awaitable[Any]], bool]
"""Name, parameters, call; True: only the owning user's own programs may call it, having proved the operator
credential."""
