"""The operator's word on what was learnt: taken back, or let count again.

Knows: the shapes of the methods. Does not know: what it leads to (``authority.retractions``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runloopd.authority.retractions import Retractions
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import Nothing, Params, Row

__all__ = ["rows"]


class Retract(Params, frozen=True, kw_only=True):
    event: int
    cascade: bool = False
    reason: str = ""
    preview: bool = False
    """True: tell what it would lead to, and state nothing."""


class Undo(Params, frozen=True, kw_only=True):
    retraction: int
    reason: str


def rows(retractions: Retractions) -> Sequence[Row]:
    """``kb.retract``, ``kb.unretract`` and ``kb.held``."""

    async def retract(principal: Principal, params: Retract) -> Any:
        if params.preview:
            return await retractions.preview(params.event)
        return await retractions.retract(
            principal, params.event, cascade=params.cascade, reason=params.reason
        )

    async def undo(principal: Principal, params: Undo) -> Any:
        return await retractions.undo(principal, params.retraction, params.reason)

    async def held(_: Principal, __: Nothing) -> Any:
        return {"runs": retractions.held()}

    return [
        ("kb.retract", Retract, retract, True),
        ("kb.unretract", Undo, undo, True),
        ("kb.held", Nothing, held, True),
    ]
