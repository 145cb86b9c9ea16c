"""``rlp acp``: Runloop as an agent in an editor, over the pipes of the editor that starts it."""

from __future__ import annotations

import asyncio
from typing import cast

from rlp.session import Session
from runloop.exits import Exit

__all__ = ["serve"]

MAX_MESSAGE = 4 * 1024 * 1024


def serve(session: Session, *, client: str) -> Exit:
    """Serve until the editor closes the pipe. ``client``: what it is called on record."""
    import acp

    from rlp.serving.acp_agent import EditorAgent
    from rlp.serving.link import Link

    link = Link(session)
    try:
        # The library asks for more than editors do; what is missing it answers with 'no such method'.
        agent = cast(acp.Agent, EditorAgent(link, client))
        asyncio.run(acp.run_agent(agent, stdio_buffer_limit_bytes=MAX_MESSAGE))
    finally:
        link.close()
    return Exit.OK
