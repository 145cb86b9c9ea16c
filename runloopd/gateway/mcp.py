"""Control methods about foreign MCP servers.

Knows: the shapes of the methods. Does not know: what is asked of a person and what becomes of it
(``broker.mcp.keeper``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from runloopd.broker.mcp.keeper import Keeper
from runloopd.broker.mcp.spec import ServerSpec
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import Nothing, Params, Row

__all__ = ["rows"]

Name = Annotated[str, msgspec.Meta(max_length=64)]
Tools = Annotated[list[str], msgspec.Meta(max_length=256)]


class Add(Params, frozen=True, kw_only=True):
    server: Name
    spec: dict[str, Any]


class Approve(Params, frozen=True, kw_only=True):
    server: Name
    tools: Tools = []
    effect: str = "send"


class Suspend(Params, frozen=True, kw_only=True):
    server: Name
    tools: Tools = []


class Show(Params, frozen=True, kw_only=True):
    server: Name
    look: bool = False
    """True: start it if need be, and read its list of tools anew."""


class Remove(Params, frozen=True, kw_only=True):
    server: Name
    reason: Annotated[str, msgspec.Meta(max_length=500)] = "not wanted any more"


def rows(keeper: Keeper) -> Sequence[Row]:
    """``mcp.add|approve|suspend|remove|list|show``."""

    async def add(_: Principal, params: Add) -> Any:
        return await keeper.ask_add(params.server, ServerSpec.from_json(params.spec))

    async def approve(_: Principal, params: Approve) -> Any:
        return await keeper.ask_approve(params.server, params.tools, params.effect)

    async def suspend(principal: Principal, params: Suspend) -> Any:
        return await keeper.suspend(params.server, params.tools, principal.label)

    async def remove(principal: Principal, params: Remove) -> Any:
        return await keeper.remove(params.server, params.reason, principal.label)

    async def listed(_: Principal, __: Nothing) -> Any:
        return {"servers": keeper.listed()}

    async def show(_: Principal, params: Show) -> Any:
        if params.look:
            await keeper.look(params.server)
        return keeper.show(params.server)

    return [
        ("mcp.add", Add, add, True),
        ("mcp.approve", Approve, approve, True),
        ("mcp.suspend", Suspend, suspend, True),
        ("mcp.remove", Remove, remove, True),
        ("mcp.list", Nothing, listed, True),
        ("mcp.show", Show, show, True),
    ]
