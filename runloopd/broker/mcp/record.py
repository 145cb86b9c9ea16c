"""Facts about MCP servers that the daemon states by itself: what was seen, what was suspended.

Knows: how they are written. Does not know: when (``mcp.source``), or what a person states (``mcp.keeper``).
"""

from __future__ import annotations

from typing import Literal

from runloop.digest import blob_digest
from runloop.events import Draft, McpToolsSeen, McpToolSuspended, Provenance
from runloopd.broker.mcp.definitions import Listing
from runloopd.broker.mcp.messages import Ready
from runloopd.broker.ports import JournalPort

__all__ = ["McpRecord"]


class McpRecord:
    """Writes into the ledger."""

    def __init__(self, journal: JournalPort) -> None:
        self._journal = journal

    async def seen(self, server: str, listing: Listing, ready: Ready) -> None:
        """State a list of tools, definitions and all."""
        blob = listing.blob()
        fact = McpToolsSeen(
            server=server,
            protocol=ready.protocol,
            identity=f"{ready.name} {ready.version}".strip()[:200],
            tools=listing.digests(),
            refused=[f"{name}: {why}"[:300] for name, why in listing.refused[:64]],
            definitions_blob=blob_digest(blob),
        )
        stamp = Provenance(label=f"mcp:{server}")
        await self._journal.append(Draft(payload=fact, actor="daemon", provenance=stamp), blobs=[blob])

    async def suspended(
        self,
        server: str,
        tool: str,
        reason: Literal["changed", "operator"],
        before: str,
        after: str | None,
        *,
        principal: str,
    ) -> None:
        """State that a tool may not be called any more."""
        fact = McpToolSuspended(
            server=server,
            tool=tool,
            reason=reason,
            before_digest=before,
            after_digest=after,
            principal=principal,
        )
        await self._journal.append(Draft(payload=fact, actor=principal))
