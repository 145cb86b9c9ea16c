"""Who turns texts into vectors, at what price.

Knows: the configured embedding models, the lexical embedder that is always there, prices and their bounds,
when another try is safe. Does not know: who asks (the gate, ``broker.indexing``) or any wire
(``providers.embeddings``).

A model and the lexical embedder are never exchanged for one another: their vectors do not compare. A remote
model is used when it is named, by an agent's pattern or by ``kb.embedder``, and never by default.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, Protocol, cast
from urllib.parse import urlsplit

from pog.embed import LEXICAL, Vector, quantised
from runloop.clock import Clock
from runloop.config import Models, Price, Provider
from runloop.errors import NotFoundError, RefusedError, UsageError
from runloop.ops import ModelEmbed
from runloopd.broker.models import OLLAMA_URL, Patience, price_of
from runloopd.broker.ports import Budget, ModelCallError, Reservation
from runloopd.broker.providers.embeddings import HttpEmbedder
from runloopd.broker.providers.http import Http, check_url
from runloopd.broker.routing.place import placed
from runloopd.broker.secrets import SecretStore

__all__ = ["LEXICAL_TARGET", "EmbedAnswer", "EmbedBroker", "EmbedPort"]

_OPENAI_URL = "https://api.openai.com/v1"
_FREE = Price(version="local")


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedAnswer:
    """Vectors, and what they cost."""

    vectors: tuple[Vector, ...]
    provider: str
    model: str
    input_tokens: int
    estimated: bool
    cost_micro_usd: int
    price_version: str

    @property
    def target(self) -> str:
        """``provider:model``: what the vectors may be compared with is what has the same."""
        return f"{self.provider}:{self.model}"


class EmbedPort(Protocol):
    """Which model embeds, at what price."""

    async def estimate(self, request: ModelEmbed, permits: Callable[[str], bool]) -> Reservation:
        """Choose the route and bound its cost; sends nothing. Raises as ``ModelPort.estimate``."""
        ...

    async def embed(self, request: ModelEmbed, *, budget: Budget) -> EmbedAnswer:
        """One vector for each text. Raises :class:`ModelCallError` with what it cost."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class _Route:
    name: str
    model: str
    embedder: HttpEmbedder | None
    """None: the lexical one."""
    price: Price | None
    local: bool
    timeout_ms: int
    stays: bool = True
    """Whether what is sent there stays with the operator."""

    @property
    def target(self) -> str:
        return f"{self.name}:{self.model}"

    def matches(self, pattern: str) -> bool:
        return any(fnmatchcase(text, pattern) for text in (self.target, self.name, self.model))


_LEXICAL_ROUTE = _Route(
    name="lexical",
    model=LEXICAL.name,
    embedder=None,
    price=Price(version=LEXICAL.name),
    local=True,
    timeout_ms=60_000,
)
LEXICAL_TARGET = _LEXICAL_ROUTE.target


class EmbedBroker:
    """Implements :class:`EmbedPort`. One per daemon; :meth:`close` at the end."""

    def __init__(
        self,
        config: Models,
        *,
        secrets: SecretStore,
        clock: Clock,
        jitter: Callable[[], float],
        patience: Patience | None = None,
        http: Http | None = None,
    ) -> None:
        """Raises :class:`UsageError` (``config.models``, ``config.url``)."""
        self._clock = clock
        self._jitter = jitter
        self._patience = patience or Patience()
        self._http = http or Http()
        configured = [_configured(p, self._http, secrets) for p in config.providers.values() if p.embed_model]
        # What is turned into vectors is the user's own: where privacy counts, it stays.
        self._stays = config.privacy != "cloud"
        self._replays = config.mode == "replay"
        """A replay asks nobody: there is the lexical embedder alone."""
        self._routes = (*([] if self._replays else configured), _LEXICAL_ROUTE)

    async def close(self) -> None:
        """Close the connections to model servers."""
        await self._http.close()

    def default(self) -> str:
        """The target that is used when none is named: the first local one."""
        return next(route for route in self._routes if route.local).target

    def of_provider(self, name: str) -> tuple[str, bool]:
        """Target of a provider's embedding model, and whether it is on this machine."""
        if self._replays:
            return LEXICAL_TARGET, True
        for route in self._routes:
            if route.name == name and self._stays and not route.stays:
                raise UsageError(
                    f"'kb.embedder' names {name!r}, which would take everything that can be searched for away"
                    " from here, and 'models.privacy' is not cloud",
                    hint="set one of the two",
                    code="config.models",
                )
            if route.name == name:
                return route.target, route.local
        raise UsageError(
            f"'kb.embedder' names {name!r}, which has no embedding model",
            hint=f"add embed_model = … to [models.providers.{name}]",
            code="config.models",
        )

    async def estimate(self, request: ModelEmbed, permits: Callable[[str], bool]) -> Reservation:
        """See the port."""
        route = self._chosen(request, permits)
        if route.price is None:
            raise RefusedError(
                f"{route.target} is remote and has no price, so its cost cannot be bounded",
                hint=f"add a table [models.providers.{route.name}.price]",
                code="model.unpriced",
            )
        tokens = _bytes(request)
        return Reservation(
            provider=route.name,
            model=route.model,
            micro_usd=price_of(route.price, tokens, 0),
            input_tokens=tokens,
            output_tokens=0,
            price_version=route.price.version,
        )

    async def embed(self, request: ModelEmbed, *, budget: Budget) -> EmbedAnswer:
        """See the port."""
        route = self._chosen(request, budget.permits)
        bound = await self.estimate(request, budget.permits)
        if bound.micro_usd > budget.micro_usd or bound.input_tokens > budget.tokens:
            raise RefusedError(
                f"{route.target} may cost more than what is reserved",
                hint="raise the budget of the run, or embed less at once",
                code="budget.exceeded",
            )
        if route.embedder is None:
            vectors = tuple(await asyncio.to_thread(LEXICAL.embed, request.texts))
            return _answer(route, vectors, bound, 0, estimated=False)
        return await self._asked(route, route.embedder, request, bound, budget)

    async def _asked(
        self,
        route: _Route,
        embedder: HttpEmbedder,
        request: ModelEmbed,
        bound: Reservation,
        budget: Budget,
    ) -> EmbedAnswer:
        attempt = 0
        while True:
            attempt += 1
            left_ms = min(route.timeout_ms, budget.deadline_ms - self._clock.now_ms())
            if left_ms <= 0:
                raise ModelCallError(
                    f"no time is left to ask {route.target}", code="model.timeout", retryable=True
                )
            try:
                found = await embedder.embed(request.texts, timeout_s=left_ms / 1000)
                break
            except ModelCallError as error:
                if route.price is not None and not any(route.price[:2]):
                    error.cost_micro_usd = 0
                due_ms = self._clock.now_ms() + self._patience.pause_ms(
                    attempt, self._jitter(), error.data.get("retry_after_ms", 0)
                )
                last = attempt >= self._patience.attempts or due_ms >= budget.deadline_ms
                # Repeated only while nothing can have been billed.
                if last or not error.retryable or error.cost_micro_usd is None:
                    raise
            except NotFoundError as error:
                raise RefusedError(error.message, hint=error.hint, code=error.named_code) from error
            await self._clock.sleep_until(due_ms)
        vectors = tuple(quantised(vector) for vector in found.vectors)
        tokens = found.input_tokens
        told = tokens is not None and 0 < tokens <= bound.input_tokens
        return _answer(
            route, vectors, bound, cast(int, tokens) if told else bound.input_tokens, estimated=not told
        )

    def _chosen(self, request: ModelEmbed, permits: Callable[[str], bool]) -> _Route:
        wanted = request.model
        found = [
            route for route in self._routes if (route.matches(wanted) if wanted is not None else route.local)
        ]
        if not found:
            known = ", ".join(route.target for route in self._routes)
            raise UsageError(
                f"no embedding model matches {wanted!r}", hint=f"there are: {known}", code="model.unknown"
            )
        if self._stays and not found[0].stays:
            raise RefusedError(
                f"{found[0].target} would take the texts away from here, and models.privacy is not cloud",
                hint="use an embedding model on this machine, or set models.privacy",
                code="model.private",
            )
        if not permits(found[0].target):
            raise RefusedError(
                f"policy does not permit the model {found[0].target}",
                hint="grant the capability 'model' for it",
                code="cap.denied",
            )
        return found[0]


def _configured(provider: Provider, http: Http, secrets: SecretStore) -> _Route:
    where = f"models.providers.{provider.name}"
    if provider.kind not in ("ollama", "openai"):
        raise UsageError(
            f"{where}.embed_model: {provider.kind} serves no embeddings",
            hint="ollama and openai do",
            code="config.models",
        )
    default = OLLAMA_URL if provider.kind == "ollama" else _OPENAI_URL
    url = check_url(provider.base_url or default, where=f"{where}.base_url")
    if provider.kind == "openai" and not urlsplit(url).path:
        url = f"{url}/v1"
    model = provider.embed_model or ""
    place = placed(provider, url, model, secrets)
    return _Route(
        name=provider.name,
        model=model,
        embedder=HttpEmbedder(
            name=provider.name,
            kind=cast(Literal["ollama", "openai"], provider.kind),
            base_url=url,
            model=model,
            http=http,
            key=place.key or (lambda: None),
        ),
        price=provider.price or (_FREE if place.local else None),
        local=place.local,
        timeout_ms=provider.timeout_ms,
        stays=place.stays,
    )


def _bytes(request: ModelEmbed) -> int:
    return sum(len(text.encode()) for text in request.texts) + 8 * len(request.texts)


def _answer(
    route: _Route, vectors: tuple[Vector, ...], bound: Reservation, tokens: int, *, estimated: bool
) -> EmbedAnswer:
    assert route.price is not None
    return EmbedAnswer(
        vectors=vectors,
        provider=route.name,
        model=route.model,
        input_tokens=tokens,
        estimated=estimated,
        cost_micro_usd=price_of(route.price, tokens, 0),
        price_version=bound.price_version,
    )
