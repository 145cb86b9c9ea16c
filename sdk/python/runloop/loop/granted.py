"""The tools an agent was granted beside its own: of its bundle, of the host, of foreign servers.

Knows: what ``tool.list`` says and how ``tool.call`` is made. Does not know: who granted what. Each call goes
through the gate like any other; an effect waits for a person there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from runloop.host import Host, HostRefused
from runloop.loop.toolbox import Seen, Tool

__all__ = ["granted_tools"]


def granted_tools(host: Host) -> list[Tool]:
    """Every tool that ``tool.list`` says is granted; none where the op is refused."""
    try:
        found = host.tools()
    except HostRefused:
        return []
    return [
        _tool(host, one) for one in found if isinstance(one, Mapping) and one.get("granted") and one.get("id")
    ]


def _tool(host: Host, one: Mapping[str, Any]) -> Tool:
    name = str(one["id"])
    schema = one.get("input_schema")
    asks = one.get("effect", "send") != "read" or one.get("requires_confirmation") is not False
    return Tool(
        name=name,
        description=("Waits for the user's approval. " if asks else "") + str(one.get("description") or ""),
        parameters=schema if isinstance(schema, Mapping) else {"additionalProperties": True},
        run=partial(_call, host, name),
        label=f"tool:{name}",
        foreign=one.get("source") not in ("bundle", "host"),
        waits=asks,
    )


def _call(host: Host, name: str, args: dict[str, Any]) -> Seen:
    return Seen(host.call_tool(name, args), f"tool:{name}")
