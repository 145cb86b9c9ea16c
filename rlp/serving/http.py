"""The MCP face over HTTP: the SDK's transport behind the keeper of the door.

Knows: how the SDK's application is put together. Does not know: who comes in and at what pace (``keeper``),
the socket (``door``), or what is answered (``mcp_face``).
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable

from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.routing import Route

from rlp.serving.door import keep_open, names_of
from rlp.serving.keeper import MAX_BODY, Caller, Keeper, Pace, caller_of
from rlp.serving.limits import Allowance
from rlp.serving.link import Link
from rlp.serving.mcp_face import Context, McpFace

__all__ = ["serve"]

PATH = "/mcp"


def _caller(ctx: Context) -> Caller:
    return caller_of(getattr(ctx.request, "scope", {}))


def application(link: Link, *, hosts: frozenset[str], runs: Allowance) -> Starlette:
    """The ASGI application behind the keeper."""
    manager = StreamableHTTPSessionManager(
        app=McpFace(link, _caller, runs=runs).server(),
        security_settings=TransportSecuritySettings(allowed_hosts=sorted(hosts)),
        max_request_body_size=MAX_BODY,
        stateless=True,  # nothing is kept between requests that somebody could use up, or take over
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with manager.run():
            yield

    return Starlette(routes=[Route(PATH, endpoint=StreamableHTTPASGIApp(manager))], lifespan=lifespan)


async def serve(link: Link, door: socket.socket, *, ready: Callable[[str], None], rate: float) -> None:
    """Serve until a signal says otherwise. ``ready`` is told the URL; ``rate``: of a client, per second."""
    place, hosts = names_of(door)
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # it names what strangers send
    app = Keeper(
        application(link, hosts=hosts, runs=Allowance(per_s=1, burst=16)),
        link=link,
        hosts=hosts,
        pace=Pace.of(rate),
    )
    await keep_open(app, door, ready=lambda: ready(f"http://{place}{PATH}"))
