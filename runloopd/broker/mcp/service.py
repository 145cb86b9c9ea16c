"""Everything about foreign MCP servers, put together: one per daemon.

Knows: how the parts fit. Does not know: what they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from runloop.clock import Clock
from runloop.events import Event
from runloopd.authority.approvals import Approvals
from runloopd.authority.desk import Desk
from runloopd.broker.mcp.book import MCP_KINDS, Book
from runloopd.broker.mcp.keeper import Keeper
from runloopd.broker.mcp.launching import Launcher
from runloopd.broker.mcp.questions import Questions
from runloopd.broker.mcp.record import McpRecord
from runloopd.broker.mcp.source import McpSource
from runloopd.broker.ports import Delta, FactPort, JournalPort
from runloopd.broker.promises import Promises
from runloopd.broker.secrets import SecretStore
from runloopd.broker.tools.sandbox import ProgramSandbox

__all__ = ["MCP_KINDS", "McpClient"]


class McpClient:
    """The source of offers and the operator's keeper, over one book. Close it at the end."""

    def __init__(
        self,
        *,
        journal: JournalPort,
        facts: FactPort,
        blob: Callable[[str], bytes],
        approvals: Approvals,
        desk: Desk,
        promises: Promises,
        sandbox: ProgramSandbox,
        secrets: SecretStore,
        clock: Clock,
        authorities: str | None = None,
        on_delta: Callable[[Delta], None] = lambda _: None,
        known: Iterable[Event] = (),
    ) -> None:
        """``known``: the events of :data:`MCP_KINDS` so far, in order; later ones are heard from the journal.
        ``blob`` is asked from the event loop."""
        book = Book(blob)
        book.apply(known)
        journal.listen(book.apply)
        record = McpRecord(journal)
        self.source = McpSource(
            book,
            Launcher(sandbox, secrets, authorities=authorities),
            record,
            Questions(promises, journal, facts, clock),
            clock,
            on_delta,
        )
        self.keeper = Keeper(book, self.source, record, journal, approvals, desk)

    async def close(self) -> None:
        """End every server."""
        await self.source.close()
