"""Names of servers and of their tools: which are taken, and which are refused because they deceive.

Knows: how a qualified name is written, when two names look alike. Does not know: servers. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from runloop.errors import UsageError

__all__ = ["FAMILY", "check_server", "fault_of", "lookalikes", "qualified", "split"]

FAMILY = "mcp"
RESERVED = ("resources.", "prompts.")
"""Beginnings of the names under which a server's resources and prompts are reached."""

_SERVER = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
_TOOL = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}\Z")
_ALIKE = str.maketrans({"-": "_", ".": "_", "0": "o", "1": "l", "i": "l", "5": "s"})


def check_server(name: str) -> str:
    """``name``, if a server may be called so; raises :class:`UsageError` (``mcp.name``)."""
    if not _SERVER.match(name):
        raise UsageError(
            f"{name[:64]!r} is no name for a server",
            hint="use up to 32 small letters, digits and '_', a letter first",
            code="mcp.name",
        )
    return name


def qualified(server: str, tool: str) -> str:
    """``mcp.<server>.<tool>``."""
    return f"{FAMILY}.{server}.{tool}"


def split(name: str) -> tuple[str, str]:
    """Server and tool of a qualified name; empty texts where it is none."""
    family, _, rest = name.partition(".")
    server, _, tool = rest.partition(".")
    return (server, tool) if family == FAMILY else ("", "")


def fault_of(tool: object) -> str | None:
    """Why a server's tool cannot be called by the name it gives; None when it can."""
    if not isinstance(tool, str) or not tool:
        return "it has no name"
    if not _TOOL.match(tool):
        return "its name has characters that can be mistaken, or is longer than 64"
    if tool.startswith(RESERVED):
        return "its name is one of Runloop's own"
    return None


def lookalikes(tools: Iterable[str]) -> dict[str, str]:
    """Tool -> another one of the same server that a person could take it for. Equal names count."""
    seen: dict[str, list[str]] = {}
    for tool in tools:
        seen.setdefault(tool.casefold().translate(_ALIKE), []).append(tool)
    found: dict[str, str] = {}
    for group in seen.values():
        for tool in group:
            others = [other for other in group if other != tool]
            if others or len(group) > 1:
                found[tool] = others[0] if others else tool
    return found
