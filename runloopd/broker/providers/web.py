"""One HTTP exchange on behalf of a guest: checked at every hop, pinned to the checked address, bounded.

Knows: the order of a hop (permission → resolve once → judge every address → dial one of exactly those) and
the bounds of an answer. Does not know: what an agent is or may (the :class:`Permission` it is given does),
who records what, or model servers and their keys (``providers.http``).

What was checked is what is dialled: the request goes to the *address*, with the name in ``Host`` and in the
TLS handshake, so that no second look-up can answer otherwise (DNS rebinding). Nothing is taken from the
surroundings: no proxy, no ``.netrc``, no cookies, no connection of an earlier exchange.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from runloop.caps.destination import Destination, redirected
from runloop.errors import RunloopError
from runloopd.broker.ports import ProviderError
from runloopd.broker.providers.http import hush
from runloopd.broker.providers.unpack import ACCEPTED, broken, unpacker
from runloopd.broker.secrets import Secret

if TYPE_CHECKING:
    import httpx2

__all__ = ["KeyHeader", "Permission", "Resolver", "Web", "WebLimits", "WebPort", "WebRequest", "WebResponse"]

Address = IPv4Address | IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to addresses as text; raises OSError when there is none."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAFE = ("GET", "HEAD")
_TRAVELS = frozenset({"accept", "accept-language"})
"""Headers of a guest that follow it to another server."""
_SHOWN = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-language",
        "content-type",
        "date",
        "etag",
        "expires",
        "last-modified",
        "link",
        "location",
        "retry-after",
    }
)
"""Headers of an answer that a guest sees. Never a cookie."""
_MAX_ADDRESSES = 16
_DIALLED = 3
_RATIO_FREE_BYTES = 64 * 1024
_MAX_RATIO = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class WebLimits:
    """Bounds of one exchange, redirects included."""

    total_ms: int = 30_000
    connect_ms: int = 5_000
    """For each address that is tried, TLS included."""
    idle_ms: int = 10_000
    """Longest silence between two pieces of an answer."""
    redirects: int = 5
    header_bytes: int = 64 * 1024
    headers: int = 128
    at_once: int = 16
    """Exchanges under way; the next one waits."""
    at_once_each: int = 4
    """Of these, exchanges of one owner: who meets slow servers does not stop the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyHeader:
    """A header whose value ends with a secret."""

    name: str
    prefix: str
    secret: Secret


@dataclass(frozen=True, kw_only=True, slots=True)
class WebRequest:
    """What is sent."""

    method: str
    place: Destination
    headers: tuple[tuple[str, str], ...] = ()
    """Checked already; none that frames a message or names a host."""
    body: bytes = b""
    max_bytes: int = 256 * 1024
    """Of the unpacked body; what is beyond is cut off."""
    owner: str = ""
    """The run it belongs to."""
    keys: tuple[KeyHeader, ...] = ()
    """Checked for the place, and revealed as the bytes leave. No redirect of such a request is followed: the
    answer says where it leads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WebResponse:
    """What came back, of whatever status."""

    status: int
    place: Destination
    """Who answered, after redirects."""
    headers: dict[str, str]
    """The few that describe the body; names in lower case."""
    body: bytes
    truncated: bool


class Permission(Protocol):
    """The rights of whoever asks, consulted anew at every hop."""

    def check(self, method: str, place: Destination) -> None:
        """Raise unless this request may be made. Called before the name is resolved."""
        ...

    def dial(self, place: Destination, address: Address) -> None:
        """Raise unless ``place`` may be reached at ``address``, one of those its name resolves to."""
        ...


class WebPort(Protocol):
    """How the web is reached."""

    async def exchange(self, request: WebRequest, permission: Permission) -> WebResponse:
        """Send and receive. Raises :class:`ProviderError` (``http.*``), or what ``permission`` raises.

        Redirects of GET and HEAD are followed. ``outcome="unknown"`` when the server may have acted.
        """
        ...


class Web:
    """The real web. Implements :class:`WebPort`. Close it at the end."""

    def __init__(
        self,
        limits: WebLimits | None = None,
        *,
        resolver: Resolver | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
        authorities: str | None = None,
    ) -> None:
        """``tls`` makes the context that judges servers; None: the system's trust store, and ``authorities``
        (a PEM file) beside it."""
        self.limits = limits or WebLimits()
        # A pool of its own: names that hang must not stop what else waits for a thread.
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="names")
        self._resolver = resolver or self._look_up
        self._make_tls = tls or (lambda: _system_tls(authorities))
        self._tls: ssl.SSLContext | None = None
        self._making = asyncio.Lock()
        self._places = asyncio.Semaphore(self.limits.at_once)
        self._own: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def exchange(self, request: WebRequest, permission: Permission) -> WebResponse:
        """See the protocol."""
        own = self._own.setdefault(request.owner, asyncio.Semaphore(self.limits.at_once_each))
        try:
            async with asyncio.timeout(self.limits.total_ms / 1000), own, self._places:
                return await self._follow(request, permission)
        except TimeoutError:
            raise _failed(request.place, "it took too long", "http.timeout", retryable=True) from None

    async def _follow(self, request: WebRequest, permission: Permission) -> WebResponse:
        for _ in range(self.limits.redirects + 1):
            answer = await self._hop(request, permission)
            location = answer.headers.get("location")
            follows = request.method in _SAFE and not request.keys
            if not follows or answer.status not in _REDIRECTS or location is None:
                return answer
            request = _redirect(request, location)
        raise _failed(request.place, f"more than {self.limits.redirects} redirects", "http.redirects")

    async def _hop(self, request: WebRequest, permission: Permission) -> WebResponse:
        place = request.place
        permission.check(request.method, place)
        addresses = await self._addresses(place)
        for address in addresses:
            # One address that may not be dialled condemns the name: it is not who it was granted as.
            permission.dial(place, address)
        failure: RunloopError | None = None
        for address in addresses[:_DIALLED]:
            try:
                return await self._dial(request, address)
            except ProviderError as error:
                if error.named_code != "http.unreachable":
                    raise
                failure = error
        assert failure is not None
        raise failure

    # --- names ------------------------------------------------------------------------------------

    async def _addresses(self, place: Destination) -> list[Address]:
        literal = place.address
        if literal is not None:
            return [literal]
        try:
            texts = await self._resolver(place.host, place.port)
            found = [ip_address(text) for text in dict.fromkeys(texts)][:_MAX_ADDRESSES]
        except (OSError, ValueError, UnicodeError):
            found = []
        if not found:
            raise _failed(place, "its name has no address", "http.unreachable", retryable=True)
        return found

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        import socket

        def ask() -> list[str]:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            return [str(entry[4][0]) for entry in found]

        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)

    # --- one connection ---------------------------------------------------------------------------

    async def _dial(self, request: WebRequest, address: Address) -> WebResponse:
        import httpx2

        begun = False
        try:
            async with await self._client() as client:
                sent = _request(client, request, address)
                answer = await client.send(sent, stream=True)
                begun = True
                try:
                    return await self._read(request, answer)
                finally:
                    await answer.aclose()
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, ssl.SSLError, OSError) as error:
            failure = _translated(error, request, begun=begun)
        # Outside the handler: the frames of an HTTP library hold what was sent.
        raise failure

    async def _client(self) -> httpx2.AsyncClient:
        """A client for one exchange: no cookie and no connection outlives it."""
        import httpx2

        async with self._making:
            if self._tls is None:
                try:
                    self._tls = await asyncio.to_thread(self._make_tls)  # reads the trust store: 100 ms
                except (OSError, ssl.SSLError) as error:
                    raise ProviderError(
                        f"the certificates that servers are judged by cannot be read: {error}",
                        hint="look at security.web_authorities",
                        code="http.tls",
                    ) from error
        hush()
        return httpx2.AsyncClient(
            verify=self._tls,
            timeout=httpx2.Timeout(self.limits.idle_ms / 1000, connect=self.limits.connect_ms / 1000),
            limits=httpx2.Limits(max_connections=1, max_keepalive_connections=0),
            trust_env=False,
            follow_redirects=False,
            headers={"User-Agent": "runloop", "Accept-Encoding": ACCEPTED, "Connection": "close"},
        )

    async def _read(self, request: WebRequest, answer: httpx2.Response) -> WebResponse:
        pairs = answer.headers.raw
        if (
            len(pairs) > self.limits.headers
            or sum(len(name) + len(value) for name, value in pairs) > self.limits.header_bytes
        ):
            raise _failed(request.place, "its headers are larger than any should be", "http.headers")
        headers = _shown(answer)
        body, truncated = b"", False
        if request.method != "HEAD" and not (answer.status_code in _REDIRECTS and request.method in _SAFE):
            body, truncated = await _body(request, answer)
        return WebResponse(
            status=answer.status_code,
            place=request.place,
            headers=headers,
            body=body,
            truncated=truncated,
        )


def _system_tls(authorities: str | None) -> ssl.SSLContext:
    import httpx2

    context = httpx2.create_ssl_context(trust_env=False)
    if authorities is not None:
        context.load_verify_locations(cafile=authorities)
    return context


def _request(client: httpx2.AsyncClient, request: WebRequest, address: Address) -> httpx2.Request:
    """The request, addressed to ``address`` and to nobody else."""
    place = request.place
    host = f"[{address}]" if address.version == 6 else str(address)
    built = client.build_request(
        request.method,
        f"{place.scheme}://{host}:{place.port}{place.target}",
        headers=[
            ("Host", place.authority),
            *request.headers,
            *((key.name, key.prefix + key.secret.reveal()) for key in request.keys),
        ],
        content=request.body or None,
        extensions={"sni_hostname": place.host},
    )
    if built.url.raw_path != place.target.encode() or ip_address(built.url.host) != address:
        # The library reads the URL in another way than we did when we checked it.
        raise _failed(place, "its address can be read in two ways", "http.url")
    return built


def _redirect(request: WebRequest, location: str) -> WebRequest:
    place = redirected(request.place, location)
    if request.place.scheme == "https" and place.scheme != "https":
        raise _failed(request.place, "it redirects to where nothing is encrypted", "http.redirects")
    if place.origin == request.place.origin:
        return replace(request, place=place)
    kept = tuple(pair for pair in request.headers if pair[0].lower() in _TRAVELS)
    return replace(request, place=place, headers=kept)


def _shown(answer: httpx2.Response) -> dict[str, str]:
    found = ((name, answer.headers[name]) for name in sorted(_SHOWN) if name in answer.headers)
    return {name: value for name, value in found if value.isprintable() and len(value) <= 8_192}


async def _body(request: WebRequest, answer: httpx2.Response) -> tuple[bytes, bool]:
    """The unpacked body up to the bound, and whether there was more."""
    coding = unpacker(answer.headers.get("content-encoding", ""))
    body = bytearray()
    received = 0
    async for piece in answer.aiter_raw():
        received += len(piece)
        body += coding.feed(piece, request.max_bytes + 1 - len(body))
        if len(body) > _RATIO_FREE_BYTES and len(body) > received * _MAX_RATIO:
            raise _failed(request.place, "its answer is packed beyond reason", "http.bomb")
        if len(body) > request.max_bytes:
            return bytes(body[: request.max_bytes]), True
        if received > request.max_bytes + request.max_bytes // 8 + _RATIO_FREE_BYTES:
            raise _failed(request.place, "its answer is larger packed than unpacked", "http.bomb")
    if not coding.complete:
        raise broken()
    return bytes(body), False


# --- failures -------------------------------------------------------------------------------------


def _failed(
    place: Destination, why: str, code: str, *, retryable: bool = False, unknown: bool = False
) -> ProviderError:
    return ProviderError(
        f"{place.authority} failed: {why}",
        hint="try again later" if retryable else "look at that server",
        code=code,
        retryable=retryable,
        outcome="unknown" if unknown else "absent",
    )


def _translated(error: Exception, request: WebRequest, *, begun: bool) -> ProviderError:
    """What a failure of the library means. A server that got the request may have acted on it."""
    import httpx2

    unknown = request.method not in _SAFE
    match error:
        case httpx2.ConnectError() | httpx2.ConnectTimeout() if _is_tls(error):
            why, code, retry, unknown = "no trusted TLS connection can be made", "http.tls", False, False
        case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.PoolTimeout():
            why, code, retry, unknown = "nobody answers at its address", "http.unreachable", True, False
        case httpx2.TimeoutException():
            why, code, retry = "it fell silent", "http.timeout", True
        case httpx2.NetworkError() | httpx2.RemoteProtocolError() | OSError():
            why, code, retry = (
                "its answer was cut" if begun else "it hung up or talked nonsense",
                "http.cut",
                True,
            )
        case _:
            why, code, retry = f"the exchange broke down ({type(error).__name__})", "http.protocol", False
    return _failed(request.place, why, code, retryable=retry, unknown=unknown)


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
