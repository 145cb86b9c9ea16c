"""The Agent2Agent face over HTTP: one address for JSON-RPC, one for the card.

Knows: what an answer looks like in HTTP, once and as a stream of events. Does not know: who comes in and at
what pace (``keeper``), or what is answered (``a2a_face``).
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rlp.serving import a2a_wire as wire
from rlp.serving.a2a_face import A2AFace
from rlp.serving.door import keep_open, names_of
from rlp.serving.keeper import Keeper, Pace, caller_of
from rlp.serving.limits import Allowance
from rlp.serving.link import Link
from runloop.errors import RefusedError, RunloopError

__all__ = ["serve"]

PATH = "/a2a"
_STREAMS = ("SendStreamingMessage", "SubscribeToTask")

log = logging.getLogger(__name__)


class _Http:
    """The two endpoints."""

    def __init__(self, face: A2AFace) -> None:
        self._face = face

    async def card(self, request: Request) -> Response:
        """``GET`` of the card: with a token it names the skills."""
        try:
            caller = caller_of(request.scope)
        except RefusedError:
            caller = None
        try:
            card = await self._face.card(caller)
        except RunloopError as error:
            return JSONResponse({"error": error.message}, status_code=503)
        return JSONResponse(card, headers={"Cache-Control": "no-store"})

    async def call(self, request: Request) -> Response:
        """``POST`` of one JSON-RPC request."""
        name: str | int | None = None
        try:
            asked = wire.call_of(await request.body())
            name = asked.id
            _speaks(request)
            caller = caller_of(request.scope)
            if asked.method not in _STREAMS:
                return _answer(name, result=await self._face.answer(caller, asked))
            updates = self._face.stream(caller, asked)
            first = await anext(updates)  # what is wrong with the request is told before anything is begun
        except RunloopError as error:
            return _answer(name, error=wire.error_of(error))
        except Exception:
            log.exception("a2a_broke")
            return _answer(name, error=wire.error_of(wire.A2AError("it broke inside")))
        return StreamingResponse(
            _events(name, first, updates), media_type="text/event-stream", headers=_STREAM
        )


_STREAM = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def _speaks(request: Request) -> None:
    """Raises for another version; none named means 0.3, by the protocol."""
    named = request.headers.getlist(wire.VERSION_HEADER)
    version = named[0] if len(named) == 1 else ""
    if version != wire.VERSION and not version.startswith(f"{wire.VERSION}."):
        raise wire.VersionError(
            f"version {version[:20] or '0.3'} is not spoken here", hint=f"send A2A-Version: {wire.VERSION}"
        )


def _answer(name: str | int | None, **outcome: Any) -> JSONResponse:
    return JSONResponse({"jsonrpc": "2.0", "id": name, **outcome})


async def _events(
    name: str | int | None, first: dict[str, Any], updates: AsyncGenerator[dict[str, Any], None]
) -> AsyncIterator[bytes]:
    async with aclosing(updates):
        yield _event({"jsonrpc": "2.0", "id": name, "result": first})
        try:
            async for update in updates:
                yield _event({"jsonrpc": "2.0", "id": name, "result": update})
        except RunloopError as error:
            yield _event({"jsonrpc": "2.0", "id": name, "error": wire.error_of(error)})


def _event(told: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(told, ensure_ascii=True).encode() + b"\n\n"


def application(face: A2AFace) -> Starlette:
    """The ASGI application behind the keeper."""
    http = _Http(face)
    return Starlette(
        routes=[
            Route(wire.CARD_PATH, endpoint=http.card, methods=["GET"]),
            Route(PATH, endpoint=http.call, methods=["POST"]),
        ]
    )


async def serve(link: Link, door: socket.socket, *, ready: Callable[[str], None], rate: float) -> None:
    """Serve until a signal says otherwise. ``ready`` is told the URL; ``rate``: of a client, per second."""
    place, hosts = names_of(door)
    url = f"http://{place}{PATH}"
    face = A2AFace(link, runs=Allowance(per_s=1, burst=16), url=url)
    app = Keeper(application(face), link=link, hosts=hosts, pace=Pace.of(rate), open_to_all=[wire.CARD_PATH])
    await keep_open(app, door, ready=lambda: ready(url))
