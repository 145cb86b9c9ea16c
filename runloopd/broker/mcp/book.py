"""Which MCP servers there are, what was seen of them and what a person approved: folded from the ledger.

Knows: the facts and what they leave. Does not know: how a server is reached, or who may state a fact. After a
restart the same facts give the same book.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from runloop.digest import digest
from runloop.errors import NotFoundError, RunloopError
from runloop.events import (
    Event,
    McpServerAdded,
    McpServerRemoved,
    McpToolsApproved,
    McpToolsSeen,
    McpToolSuspended,
)
from runloop.spelling import did_you_mean
from runloopd.broker.mcp.definitions import Definition, read_definition
from runloopd.broker.mcp.spec import ServerSpec

__all__ = ["MCP_KINDS", "Approved", "Book", "Seen", "Server"]

MCP_KINDS = (
    McpServerAdded.kind,
    McpServerRemoved.kind,
    McpToolsSeen.kind,
    McpToolsApproved.kind,
    McpToolSuspended.kind,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Approved:
    """A definition a person said yes to."""

    definition: Definition
    effect: Any
    principal: str
    event: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a server offered when it was last looked at on record."""

    protocol: str
    identity: str
    tools: dict[str, Definition]
    refused: tuple[str, ...]
    ts_ms: int


@dataclass(kw_only=True, slots=True)
class Server:
    """One server that was added."""

    name: str
    spec: ServerSpec
    event: int
    seen: Seen | None = None
    approved: dict[str, Approved] = field(default_factory=dict)
    suspended: dict[str, str] = field(default_factory=dict)
    """Tool -> why, in words; it stays among the approved, for the difference to be shown."""

    def definition(self, tool: str) -> str:
        """Digest of all that a person's yes to a call of an approved tool is about: the definition, and whose
        it is. Another program, address, environment, folder or secret under the same name is another server,
        however alike its tools are."""
        return digest([self.name, self.spec.digest, tool, self.approved[tool].definition.digest])


class Book:
    """Feed it every commit."""

    def __init__(self, blob: Callable[[str], bytes]) -> None:
        self._blob = blob
        self._servers: dict[str, Server] = {}
        self.version = 0
        """Counts changes."""

    def apply(self, events: Iterable[Event]) -> None:
        """Take committed events in, in order; others than :data:`MCP_KINDS` are passed over."""
        for event in events:
            if event.kind in MCP_KINDS:
                self._take(event)
                self.version += 1

    def servers(self) -> list[Server]:
        """By name."""
        return [self._servers[name] for name in sorted(self._servers)]

    def get(self, name: str) -> Server | None:
        """The server, if there is one."""
        return self._servers.get(name)

    def find(self, name: str) -> Server:
        """The server; raises :class:`NotFoundError` (``mcp.unknown``)."""
        found = self._servers.get(name)
        if found is None:
            raise NotFoundError(
                f"no MCP server is called {name[:64]!r}",
                hint=did_you_mean(name, self._servers, "'rlp mcp ls' lists them"),
                code="mcp.unknown",
            )
        return found

    def _take(self, event: Event) -> None:
        payload = event.payload
        if isinstance(payload, McpServerAdded):
            spec = ServerSpec.from_json(payload.spec)
            self._servers[payload.server] = Server(name=payload.server, spec=spec, event=event.id)
            return
        if isinstance(payload, McpServerRemoved):
            self._servers.pop(payload.server, None)
            return
        server = self._servers.get(getattr(payload, "server", ""))
        if server is None:
            return
        if isinstance(payload, McpToolsSeen):
            server.seen = Seen(
                protocol=payload.protocol,
                identity=payload.identity,
                tools=self._definitions(payload.definitions_blob, payload.tools),
                refused=tuple(payload.refused),
                ts_ms=event.ts_ms,
            )
        elif isinstance(payload, McpToolsApproved):
            found = self._definitions(payload.definitions_blob, payload.tools)
            for tool, definition in found.items():
                server.suspended.pop(tool, None)
                server.approved[tool] = Approved(
                    definition=definition,
                    effect=payload.effect,
                    principal=payload.principal,
                    event=event.id,
                )
        elif isinstance(payload, McpToolSuspended):
            words = {
                "changed": "its definition changed since it was approved",
                "operator": f"by {payload.principal}",
            }
            server.suspended[payload.tool] = words[payload.reason]

    def _definitions(self, blob: str, tools: dict[str, str]) -> dict[str, Definition]:
        """Definitions by name. One that is not what the fact says it is is left out: it is not offered."""
        try:
            raw = orjson.loads(self._blob(blob))
        except (RunloopError, orjson.JSONDecodeError):
            return {}
        found = {tool: read_definition(raw[tool]) for tool in tools if tool in raw}
        return {tool: one for tool, one in found.items() if one.digest == tools[tool]}
