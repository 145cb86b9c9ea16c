"""Who stands before a face that is reached over HTTP: name, page, token, pace, body.

Knows: what a request must bring before anything reads it (a Host that is ours, no Origin, a token that
counts, room, a body of bounded size in bounded time). Does not know: what the face behind it speaks. Who is
refused is told as little as possible, and what is refused costs as little as possible: no question to the
daemon for a stranger who comes too often, no thread, no connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple, cast

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlp.serving.door import CONNECTION
from rlp.serving.limits import Allowance
from rlp.serving.link import Link
from runloop.digest import blob_digest
from runloop.errors import RefusedError, RunloopError

__all__ = ["Caller", "Keeper", "Pace", "caller_of"]

MAX_BODY = 1024 * 1024
MAX_AT_ONCE = 32
"""Requests of one client that are being answered."""
BODY_S = 20.0
"""Longest time a body may take to arrive."""
SEND_S = 30.0
"""Longest time a client may let a piece of its answer lie."""
LEARN_S = 5.0
"""However many strangers come: so often at most the daemon is asked on their account who has a token."""
_DRAIN_S = 1.0
_MAX_TOKEN = 256
_STRANGER = ""
"""The name under which everybody is counted who brought no token that counts."""
_CALLER = "runloop.caller"


class Caller(NamedTuple):
    """Who asks, and what it may reach."""

    client: str
    items: tuple[str, ...]


class Pace(NamedTuple):
    """How much is served."""

    asked: Allowance
    """Requests, per client."""
    strangers: Allowance
    """Requests without a token that counts, all together."""

    @classmethod
    def of(cls, rate: float) -> Pace:
        """``rate``: requests of one client per second."""
        return cls(Allowance(per_s=rate, burst=max(1, int(rate * 2))), Allowance(per_s=2, burst=20))


class _TooMuch(Exception):
    """The body is larger than what is read here."""

    def __init__(self, more: bool) -> None:
        """``more``: whether there is more to come."""
        self.more = more


class _Book:
    """Tokens and the allow-list, as the daemon has them at this moment."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._names: Mapping[str, str] = {}
        """Digest -> name, as it was the last time. A guess: it says whose pace counts, and nothing else."""
        self._old_at = 0.0

    @property
    def old(self) -> bool:
        """Whether the guesses are so old that a token may have been made since."""
        return monotonic() >= self._old_at

    def guess(self, digest: str) -> str | None:
        """Whose the token was, when the daemon was asked the last time."""
        return self._names.get(digest)

    async def known(self, digest: str) -> Caller | None:
        """Asked for each request: what was revoked is worth nothing at once."""
        self._old_at = monotonic() + LEARN_S
        try:
            state = await self._link.ask(lambda session: session.ask("face.state"))
        except RunloopError:
            return None  # nobody can tell: closed
        self._names = {one["digest"]: one["name"] for one in state["tokens"]}
        named = [one["name"] for one in state["tokens"] if hmac.compare_digest(one["digest"], digest)]
        return Caller(named[0], tuple(state["exposed"])) if named else None


class Keeper:
    """An ASGI application in front of another."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        link: Link,
        hosts: frozenset[str],
        pace: Pace,
        open_to_all: Sequence[str] = (),
        body_s: float = BODY_S,
    ) -> None:
        """``open_to_all``: paths that are served without a token too, with no caller."""
        self._app = app
        self._book = _Book(link)
        self._hosts = hosts
        self._pace = pace
        self._open = frozenset(open_to_all)
        self._body_s = body_s
        self._busy: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        answer = await self._judged(scope, headers)
        if answer is None:
            await self._serve(scope, receive, send)
        else:
            await answer(scope, receive, send)

    async def _judged(self, scope: Scope, headers: Mapping[bytes, Sequence[bytes]]) -> ASGIApp | None:
        """The refusal; None for whoever may come in, whose name is then in the scope."""
        hosts = [value.decode("latin-1") for value in headers.get(b"host", ())]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            # A page whose name was rebound to this machine sends its own (attacks.md B1).
            return _refuse(421, "this is not served under that name")
        if b"origin" in headers:
            return _refuse(403, "pages of a browser are not served")
        brought = headers.get(b"authorization", ())
        if not brought and scope["path"] in self._open:
            return None if self._pace.strangers.take(_STRANGER) else _TOO_OFTEN
        token = _token(brought)
        if token is None:
            return self._unknown()
        return await self._with_token(scope, blob_digest(token))

    async def _with_token(self, scope: Scope, digest: str) -> ASGIApp | None:
        guess = self._book.guess(digest)
        if guess is None:
            # Strangers who leave no room are no reason to never hear of a client who has not been here yet.
            if not self._pace.strangers.take(_STRANGER) and not self._book.old:
                return _TOO_OFTEN
        elif self._busy[guess] >= MAX_AT_ONCE or not self._pace.asked.take(guess):
            return _refuse(429, "too many requests", {"Retry-After": "1"})
        caller = await self._book.known(digest)
        if caller is None:
            # A stranger that was none a moment ago has not been counted as one yet.
            return self._unknown() if guess is not None else _NO_TOKEN
        connection = scope.get(CONNECTION)
        if connection is not None and not connection.prove(caller.client):
            return _refuse(429, "too many connections")
        scope[_CALLER] = caller
        return None

    def _unknown(self) -> ASGIApp:
        return _NO_TOKEN if self._pace.strangers.take(_STRANGER) else _TOO_OFTEN

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller | None = scope.get(_CALLER)
        name = _STRANGER if caller is None else caller.client
        self._busy[name] += 1
        try:
            try:
                body = await asyncio.wait_for(_whole(receive), self._body_s)
            except _TooMuch as error:
                if error.more:
                    await _drained(receive)  # or the answer is lost on its way
                await _refuse(413, "the request is larger than 1 MiB")(scope, receive, send)
                return
            except TimeoutError:
                await _refuse(408, "the request did not come in time")(scope, receive, send)
                return
            if body is not None:
                await self._app(scope, _again(body, receive), _patient(scope, send))
        finally:
            self._busy[name] -= 1
            self._busy += Counter()  # forgets who has none left


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """Who asks. Raises :class:`RefusedError` where no token came."""
    caller = scope.get(_CALLER)
    if not isinstance(caller, Caller):
        raise RefusedError("no token came with this", hint="'rlp mcp serve --new-token NAME' makes one")
    return caller


def _token(brought: Sequence[bytes]) -> bytes | None:
    """What stands behind ``Bearer``, of exactly one header."""
    if len(brought) != 1:
        return None
    scheme, _, token = brought[0].partition(b" ")
    token = token.strip()
    return token if scheme.lower() == b"bearer" and 0 < len(token) <= _MAX_TOKEN else None


async def _whole(receive: Receive) -> bytes | None:
    """The body; None when whoever sent it has gone. Raises :class:`_TooMuch`."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        part = cast(bytes, message.get("body", b""))
        size += len(part)
        if size > MAX_BODY:
            raise _TooMuch(bool(message.get("more_body")))
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """What was read, once more; then whatever comes."""
    left = [body]

    async def next_message() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return next_message


async def _drained(receive: Receive) -> None:
    """Let a little more of it come, and throw it away."""
    with contextlib.suppress(_TooMuch, TimeoutError):
        await asyncio.wait_for(_whole(receive), _DRAIN_S)


def _patient(scope: Scope, send: Send) -> Callable[[Message], Awaitable[None]]:
    """Sends, as long as somebody reads."""

    async def within(message: Message) -> None:
        try:
            await asyncio.wait_for(send(message), SEND_S)
        except TimeoutError:
            if (connection := scope.get(CONNECTION)) is not None:
                connection.end()

    return within


def _refuse(status: int, why: str, headers: dict[str, str] | None = None) -> ASGIApp:
    # Nothing more is read from a connection that was refused.
    return JSONResponse(
        {"error": why}, status_code=status, headers={"Connection": "close", **(headers or {})}
    )


_TOO_OFTEN = _refuse(429, "too many requests", {"Retry-After": "5"})
_NO_TOKEN = _refuse(401, "a token is needed", {"WWW-Authenticate": "Bearer"})
