"""``rlp mcp serve`` and ``rlp mcp expose``: Runloop for programs outside. Nothing listens unless asked."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from rlp.session import Session
from runloop.errors import UsageError
from runloop.exits import Exit

if TYPE_CHECKING:
    from rlp.serving.link import Link

__all__ = ["expose", "listening", "serve"]

RATE = 20
"""Requests of one client per second."""
SHARE = 4
"""Runs of one client that go on at once, of the 16 there may be."""


def expose(session: Session, *, items: tuple[str, ...], hide: bool) -> Exit:
    """Show or change what ``rlp mcp serve --http`` exposes."""
    if hide and not items:
        raise UsageError("name what is to be hidden", hint="rlp mcp expose --hide kb", code="cli.argument")
    if items:
        found = session.ask(
            "face.expose", add=[] if hide else list(items), remove=list(items) if hide else []
        )
    else:
        found = session.ask("face.state")
    session.console.rows(
        [{"exposed": item} for item in found["exposed"]],
        ("exposed",),
        empty="nothing is exposed; 'rlp mcp expose kb' lets the knowledge be searched",
    )
    return Exit.OK


def serve(
    session: Session,
    *,
    stdio: bool,
    http: str | None,
    expose: tuple[str, ...],
    client: str,
    rate: int | None,
    new_token: str | None,
    revoke: str | None,
    tokens: bool,
) -> Exit:
    """Serve over the pipes of whoever started us, or over HTTP; or see to the tokens of the latter."""
    wanted = [bool(stdio), http is not None, new_token is not None, revoke is not None, tokens]
    if sum(wanted) != 1:
        raise UsageError(
            "say how to serve: --stdio, or --http 127.0.0.1:PORT",
            hint="--new-token, --revoke and --tokens stand alone too",
            code="cli.option",
        )
    if expose and not stdio:
        raise UsageError(
            "--expose goes with --stdio",
            hint="'rlp mcp expose' says what --http exposes, to every token",
            code="cli.option",
        )
    if stdio:
        return _stdio(session, expose, client)
    if http is not None:
        from rlp.serving.http import serve as serve_mcp

        return listening(session, http, rate, serve_mcp)
    return _tokens(session, new_token, revoke)


def _stdio(session: Session, items: tuple[str, ...], client: str) -> Exit:
    import mcp.server.stdio

    from rlp.serving.exposed import doors, items_of
    from rlp.serving.keeper import Caller
    from rlp.serving.limits import Allowance
    from rlp.serving.link import Link
    from rlp.serving.mcp_face import McpFace

    chosen = items_of(items)
    link = Link(session)
    with link.session() as quiet:
        quiet.console = session.console  # what is left out is said once, on stderr
        doors(quiet, chosen)
    if not chosen:
        session.console.note("rlp: nothing is exposed; give --expose kb, opening:NAME or tool:NAME", "yellow")
    caller = Caller(client, chosen)
    server = McpFace(link, lambda _: caller, runs=Allowance(per_s=2, burst=32)).server()

    async def run() -> None:
        async with mcp.server.stdio.stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())

    try:
        asyncio.run(run())
    finally:
        link.close()
    return Exit.OK


class Serve(Protocol):
    """Serves a face at a socket until a signal says otherwise."""

    def __call__(
        self, link: Link, door: socket.socket, *, ready: Callable[[str], None], rate: float
    ) -> Coroutine[Any, Any, None]: ...


def listening(session: Session, place: str, rate: int | None, serve: Serve) -> Exit:
    """Serve a face over HTTP, with the tokens and the allow-list that the ledger has."""
    from rlp.serving.door import listener
    from rlp.serving.link import Link

    rate = RATE if rate is None else rate
    if rate < 1:
        raise UsageError("--rate is at least 1", hint="requests per second of one client", code="cli.option")
    state = session.ask("face.state")
    if not state["tokens"]:
        raise UsageError(
            "there is no token, so nobody could come in",
            hint="'rlp mcp serve --new-token NAME' makes one",
            code="face.token",
        )
    door = listener(place)
    link = Link(session, share=SHARE)

    def ready(url: str) -> None:
        if session.json:
            session.console.json({"url": url})
        else:
            session.console.data(url)
            session.console.say(f"{len(state['exposed'])} things are exposed; Ctrl-C ends it")
        sys.stdout.flush()

    try:
        asyncio.run(serve(link, door, ready=ready, rate=rate))
    finally:
        link.close()
        door.close()
    return Exit.OK


def _tokens(session: Session, new: str | None, revoke: str | None) -> Exit:
    if new is not None:
        made = session.ask("face.issue", name=new)
        if session.json:
            session.console.json(made)
        else:
            session.console.data(made["token"])
            session.console.say("this is shown once; keep it where only that client reads it")
    elif revoke is not None:
        done = session.ask("face.revoke", name=revoke)
        if session.json:
            session.console.json(done)
        else:
            session.console.say(f"the token {revoke} is worth nothing any more")
    else:
        from runloop.quantities import moment

        rows = session.ask("face.state")["tokens"]
        if not session.json:
            rows = [{**one, "issued": moment(one["issued_ms"])} for one in rows]
        session.console.rows(rows, ("name", "issued"), empty="no tokens; --new-token NAME makes one")
    return Exit.OK
