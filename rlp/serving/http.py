"""The MCP face over HTTP: on loopback, behind a token, within limits.

Knows: what a request must bring before anything reads it (a Host that is ours, no Origin, a token, room, a
body of bounded size). Does not know: MCP itself (``mcp_face`` and the SDK). Who is refused is told as little
as possible, and what is refused costs as little as possible.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import uvicorn
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from rlp.serving.limits import Allowance
from rlp.serving.link import Link
from rlp.serving.mcp_face import Caller, Context, McpFace
from runloop.digest import blob_digest
from runloop.errors import RefusedError, RunloopError, UsageError

__all__ = ["listener", "serve"]

PATH = "/mcp"
MAX_BODY = 1024 * 1024
MAX_AT_ONCE = 32
"""Requests of one client that are being answered."""
_MAX_TOKEN = 256
_STRANGER = ""
"""The name under which everybody is counted who brought no token that counts."""


def listener(place: str) -> socket.socket:
    """A socket that listens at ``HOST:PORT``, on this machine only. Raises :class:`UsageError`."""
    host, _, port = place.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        number = int(port)
        if not 0 <= number <= 65_535:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--http {place[:100]!r} is no address and port",
            hint="for example 127.0.0.1:8707",
            code="cli.option",
        ) from None
    if not address.is_loopback:
        raise UsageError(
            f"{address} can be reached from outside this machine, and this server has no encryption",
            hint="listen on 127.0.0.1, and let 'ssh -L' or a proxy of yours reach it",
            code="face.not_loopback",
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    # By name: only then does asyncio send small answers at once, instead of 40 ms later.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((str(address), number))
        made.listen(64)
    except OSError as error:
        made.close()
        raise UsageError(
            f"nothing can listen at {place}: {error.strerror}", hint="choose another port", code="face.listen"
        ) from error
    return made


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is served."""

    asked: Allowance
    """Requests, per client."""
    strangers: Allowance
    """Requests without a token that counts, all together."""


class _Book:
    """Tokens and the allow-list, as the daemon has them at this moment."""

    def __init__(self, link: Link, pace: Pace) -> None:
        self._link = link
        self._pace = pace

    async def verify_token(self, token: str) -> AccessToken | None:
        """See the SDK's protocol. Asked for each request: what was revoked is worth nothing at once."""
        if not token or len(token) > _MAX_TOKEN:
            return None
        found = blob_digest(token.encode("utf-8", "replace"))
        try:
            state = await self._link.ask(lambda session: session.ask("face.state"))
        except RunloopError:
            return None  # nobody can tell: closed
        named = [one["name"] for one in state["tokens"] if hmac.compare_digest(one["digest"], found)]
        if not named:
            return None
        claims = {"items": state["exposed"]}
        return AccessToken(token="", client_id=named[0], scopes=[], claims=claims)


def _caller(ctx: Context) -> Caller:
    user = getattr(ctx.request, "scope", {}).get("user")
    if not isinstance(user, AuthenticatedUser):
        raise RefusedError("no token came with this", hint="'rlp mcp serve --new-token NAME' makes one")
    return Caller(user.access_token.client_id, tuple((user.access_token.claims or {})["items"]))


class _Guard:
    """Stands before everything: a name of ours, no page of a browser, few strangers."""

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], pace: Pace) -> None:
        self._app = app
        self._hosts = hosts
        self._pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        hosts = [value.decode("latin-1") for value in headers.get(b"host", [])]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            # A page whose name was rebound to this machine sends its own (attacks.md B1).
            await _refuse(421, "this is not served under that name")(scope, receive, send)
        elif b"origin" in headers:
            await _refuse(403, "pages of a browser are not served")(scope, receive, send)
        elif len(headers.get(b"authorization", [])) != 1:
            await self._stranger(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _stranger(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _unknown(self._pace)(scope, receive, send)


class _Known:
    """Behind the tokens: whoever brought none that counts leaves here; whoever did is served at a pace."""

    def __init__(self, app: ASGIApp, *, pace: Pace) -> None:
        self._app = app
        self._pace = pace
        self._busy: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        user = scope.get("user")
        if not isinstance(user, AuthenticatedUser):
            await _unknown(self._pace)(scope, receive, send)
            return
        client = user.access_token.client_id
        if self._busy[client] >= MAX_AT_ONCE or not self._pace.asked.take(client):
            await _refuse(429, "too many requests", {"Retry-After": "1"})(scope, receive, send)
            return
        self._busy[client] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._busy[client] -= 1


def _unknown(pace: Pace) -> ASGIApp:
    if not pace.strangers.take(_STRANGER):
        return _refuse(429, "too many requests", {"Retry-After": "5"})
    return _refuse(401, "a token is needed", {"WWW-Authenticate": "Bearer"})


def _refuse(status: int, why: str, headers: dict[str, str] | None = None) -> ASGIApp:
    return JSONResponse({"error": why}, status_code=status, headers=headers)


def application(link: Link, *, hosts: frozenset[str], pace: Pace, runs: Allowance) -> Starlette:
    """The ASGI application: guard, tokens, pace, and the SDK's own transport behind."""
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

    served = _Known(RequireAuthMiddleware(StreamableHTTPASGIApp(manager), []), pace=pace)
    return Starlette(
        routes=[Route(PATH, endpoint=served)],
        middleware=[
            Middleware(_Guard, hosts=hosts, pace=pace),
            Middleware(AuthenticationMiddleware, backend=BearerAuthBackend(_Book(link, pace))),
            Middleware(AuthContextMiddleware),
        ],
        lifespan=lifespan,
    )


async def serve(link: Link, door: socket.socket, *, ready: Callable[[str], None], rate: float) -> None:
    """Serve until a signal says otherwise. ``ready`` is told the URL; ``rate``: of a client, per second."""
    host, port = door.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    hosts = frozenset(f"{name}:{port}" for name in (shown, "localhost", "127.0.0.1", "[::1]"))
    pace = Pace(
        asked=Allowance(per_s=rate, burst=max(1, int(rate * 2))), strangers=Allowance(per_s=2, burst=20)
    )
    runs = Allowance(per_s=1, burst=16)
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # it names what strangers send
    config = uvicorn.Config(
        application(link, hosts=hosts, pace=pace, runs=runs),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        ws="none",
        limit_concurrency=128,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[door]))
    ready(f"http://{shown}:{port}{PATH}")
    await serving
