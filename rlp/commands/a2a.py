"""``rlp a2a serve``: exposed openings for agents outside. Nothing listens unless asked."""

from __future__ import annotations

from rlp.commands.mcp_serve import listening
from rlp.session import Session
from runloop.exits import Exit

__all__ = ["serve"]


def serve(session: Session, *, http: str, rate: int | None) -> Exit:
    """Serve over HTTP, to whoever brings a token of ``rlp mcp serve --new-token``."""
    from rlp.serving.a2a_http import serve as serve_a2a

    return listening(session, http, rate, serve_a2a)
