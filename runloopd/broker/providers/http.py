"""One HTTP exchange with a model server: bounded, timed, cancellable, and silent about the key.

Knows: httpx2, what its failures mean for money (nothing was billed, or nobody can tell), bounds on bytes as
they come out of the decoder (attacks.md W8). Does not know: what is in a request or an answer (the
dialects), whether to try again (``broker.models``).

Failures leave here without the foreign exception behind them: the frames of an HTTP library hold the headers
it sent, so a traceback with locals would print the key (attacks.md K1). The kind of failure is in ``data``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from runloop.errors import RunloopError, UsageError
from runloopd.broker.ports import ModelCallError
from runloopd.broker.providers.refusals import status_error
from runloopd.broker.scrubber import Scrubber
from runloopd.broker.secrets import Secret

if TYPE_CHECKING:
    import httpx2

__all__ = ["Http", "HttpLimits", "HttpRequest", "bare", "check_url", "hush", "is_loopback", "readable"]

_ERROR_BYTES = 16 * 1024
_MESSAGE_CHARS = 400
_RATIO_FREE_BYTES = 1024 * 1024
_MAX_RATIO = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpLimits:
    """Bounds of one exchange."""

    connect_ms: int = 5_000
    idle_ms: int = 60_000
    """Longest silence between two pieces of an answer."""
    max_bytes: int = 16 * 1024 * 1024
    """Bytes of an answer, decoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpRequest:
    """What a dialect wants sent. The key travels beside the headers, never in them."""

    url: str
    body: bytes
    headers: dict[str, str]
    key: Secret | None = None
    key_header: str = "Authorization"
    key_prefix: str = "Bearer "


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine by its name alone (no lookup)."""
    from ipaddress import ip_address

    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_url(url: str, *, where: str) -> str:
    """The base URL of a server, without its last slash; raises :class:`UsageError` for what must not be one.

    Plain HTTP is for this machine only: a key and the user's facts would cross the network in clear.
    """
    parts = urlsplit(url)
    why = None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        why = "it is not an http or https address"
    elif parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        why = "it carries a user, a query or a fragment"
    elif parts.scheme == "http" and not is_loopback(parts.hostname):
        why = "plain http leaves this machine unencrypted"
    if why:
        # The address itself is not repeated: it may carry a password.
        raise UsageError(f"{where} is refused: {why}", hint=f"set {where} to https://…", code="config.url")
    return url.rstrip("/")


def bare(error: RunloopError, scrubber: Scrubber) -> RunloopError:
    """The error as it may travel: scrubbed, without causes and frames that hold requests and answers."""
    # Scrubbed before it is shortened: half a key would not be recognised.
    error.message = readable(scrubber.text(error.message), _MESSAGE_CHARS)
    error.args = (error.message,)
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def readable(text: str, limit: int = 300) -> str:
    """Foreign text fit for a one-line message: no control characters, bounded."""
    cleaned = " ".join("".join(char if char.isprintable() else " " for char in text[: 64 * limit]).split())
    return cleaned if len(cleaned) <= limit else cleaned[: limit - 1] + "…"


class Http:
    """Owns the connections to model servers. Made once; :meth:`close` at the end."""

    def __init__(self, limits: HttpLimits | None = None) -> None:
        self.limits = limits or HttpLimits()
        self._client: httpx2.AsyncClient | None = None
        self._making = asyncio.Lock()

    async def close(self) -> None:
        """Close every connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def post(
        self,
        request: HttpRequest,
        feed: Callable[[bytes], None],
        *,
        name: str,
        timeout_s: float,
        scrubber: Scrubber,
    ) -> None:
        """Send, and feed the decoded body of a 2xx answer piece by piece.

        Raises :class:`ModelCallError`; its ``cost_micro_usd`` is None when the server may have worked on it.
        """
        failure = await self._post(request, feed, name=name, timeout_s=timeout_s, scrubber=scrubber)
        if failure is not None:
            raise bare(failure, scrubber)

    async def get(self, url: str, *, timeout_s: float, max_bytes: int) -> bytes | None:
        """The body of a 200 answer; None for anything else, of whatever kind."""
        import httpx2

        client = await self._open()
        try:
            async with asyncio.timeout(timeout_s), client.stream("GET", url) as response:
                if response.status_code != 200:
                    return None
                body = bytearray()
                async for piece in self._bounded(response, max_bytes):
                    body += piece
                return bytes(body)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ModelCallError, OSError):
            return None

    async def _open(self) -> httpx2.AsyncClient:
        async with self._making:
            if self._client is None:
                # Import and trust store take 100 ms: not on the event loop.
                self._client = await asyncio.to_thread(_make_client, self.limits)
            return self._client

    async def _post(
        self,
        request: HttpRequest,
        feed: Callable[[bytes], None],
        *,
        name: str,
        timeout_s: float,
        scrubber: Scrubber,
    ) -> RunloopError | None:
        """The failure, as a value, so that it can be raised outside every foreign ``except``."""
        client = await self._open()
        auth = None if request.key is None else _key_auth(request.key, request.key_header, request.key_prefix)
        answered = False
        try:
            async with (
                asyncio.timeout(timeout_s),
                client.stream(
                    "POST", request.url, content=request.body, headers=request.headers, auth=auth
                ) as response,
            ):
                if response.status_code >= 300:
                    return await self._refusal(response, name)
                answered = True
                async for piece in self._bounded(response, self.limits.max_bytes):
                    feed(piece)
        except RunloopError as error:
            return error
        except Exception as error:
            return _translated(error, name, answered=answered)
        return None

    async def _bounded(self, response: httpx2.Response, max_bytes: int) -> AsyncIterator[bytes]:
        """Decoded pieces, as long as their sum and their ratio to the bytes received stay in bounds."""
        decoded = 0
        async for piece in response.aiter_bytes():
            decoded += len(piece)
            received = response.num_bytes_downloaded
            if decoded > max_bytes or (decoded > _RATIO_FREE_BYTES and decoded > received * _MAX_RATIO):
                raise ModelCallError(
                    f"an answer grew beyond {max_bytes} bytes, or was compressed beyond reason",
                    hint="ask for fewer tokens, or look at that server",
                    code="model.too_large",
                    cost_micro_usd=None,
                )
            yield piece

    async def _refusal(self, response: httpx2.Response, name: str) -> ModelCallError:
        body = bytearray()
        async for piece in self._bounded(response, 64 * _ERROR_BYTES):
            body += piece
            if len(body) > _ERROR_BYTES:
                break
        return status_error(name, response.status_code, bytes(body), response.headers)


def hush() -> None:
    """The library's debug lines quote headers, also those in which a server says the key back."""
    logging.getLogger("httpcore2").setLevel(logging.WARNING)


def _make_client(limits: HttpLimits) -> httpx2.AsyncClient:
    import httpx2

    hush()
    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(limits.idle_ms / 1000, connect=limits.connect_ms / 1000),
        limits=httpx2.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=30),
        # Not from the environment: no proxy, no .netrc password the operator did not put in our config.
        trust_env=False,
        follow_redirects=False,
        headers={"User-Agent": "runloop", "Accept-Encoding": "identity"},
    )


def _key_auth(key: Secret, header: str, prefix: str) -> httpx2.Auth:
    """Sets the key inside the library, so that none of our frames holds it as text."""
    import httpx2

    class _KeyAuth(httpx2.Auth):
        def auth_flow(self, request: httpx2.Request) -> Any:
            request.headers[header] = prefix + key.reveal()
            yield request

    return _KeyAuth()


def _translated(error: Exception, name: str, *, answered: bool) -> RunloopError:
    """What a failure of the library means: for the user, for another attempt, and for the purse."""
    import httpx2

    cost: int | None = None
    match error:
        case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.PoolTimeout():
            why, code, cost = "nobody answers at its address", "model.unreachable", 0
        case TimeoutError() | httpx2.TimeoutException():
            why, code = "it took too long", "model.timeout"
        case httpx2.NetworkError() | httpx2.RemoteProtocolError() | OSError():
            why, code = "its answer was cut" if answered else "it hung up without an answer", "model.cut"
        case httpx2.DecodingError():
            why, code = "its answer cannot be decompressed", "model.protocol"
        case _:
            why, code = f"the exchange broke down ({type(error).__name__})", "model.protocol"
    return ModelCallError(
        f"the model provider {name} failed: {why}",
        hint="try again, or choose another with models.default",
        code=code,
        retryable=code != "model.protocol",
        cost_micro_usd=cost,
        cause=type(error).__name__,
    )
