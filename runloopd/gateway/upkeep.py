"""The operator's hand on the ledger of a running daemon: state a fact, fold the views anew, sign the head.

Knows: the shapes of the methods. Does not know: how it is done (``broker.statements``, ``pog``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec

from runloopd.broker.statements import Statements
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import Nothing, Params, Row
from runloopd.journal import Journal

__all__ = ["rows"]


class WriteEvent(Params, frozen=True, kw_only=True):
    kind: str
    payload: dict[str, Any]
    causes: list[Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]] = []


def rows(
    statements: Statements,
    journal: Journal,
    rebuild: Callable[[], int],
    quarantined: Callable[[], Sequence[object]],
) -> list[Row]:
    """``kb.write_event``, ``kb.rebuild`` and ``kb.sign``."""

    async def write_event(principal: Principal, params: WriteEvent) -> Any:
        event = await statements.state(principal.label, params.kind, params.payload, params.causes)
        await journal.views_at(event)
        return {"event": event, "kind": params.kind}

    async def rebuild_views(_: Principal, __: Nothing) -> Any:
        events = await asyncio.to_thread(rebuild)
        return {"events": events, "quarantined": len(await asyncio.to_thread(quarantined))}

    async def sign(_: Principal, __: Nothing) -> Any:
        return {"event": await journal.sign_head()}

    return [
        ("kb.write_event", WriteEvent, write_event, True),
        ("kb.rebuild", Nothing, rebuild_views, True),
        ("kb.sign", Nothing, sign, True),
    ]
