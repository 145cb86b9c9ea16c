"""Every route there is now: what the configuration names, what is found on this machine, the offline rules.

Knows: how a provider's table becomes a route, the order of trying, which routes a pattern and policy leave.
Does not know: what a route's server says (``providers``), or what happens on the way (``call``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from runloop.config import Models, Price, Provider
from runloop.errors import RefusedError, UsageError
from runloop.ops import ModelComplete
from runloopd.broker.providers.anthropic import Anthropic
from runloopd.broker.providers.dialect import Dialect, HttpProvider
from runloopd.broker.providers.discovery import LOCAL_SERVERS, Listing, LocalServer
from runloopd.broker.providers.http import Http, check_url
from runloopd.broker.providers.ollama import Ollama
from runloopd.broker.providers.openai_compat import OpenAICompat
from runloopd.broker.providers.rules import RULES_MODEL, RulesProvider
from runloopd.broker.routing.found import Found
from runloopd.broker.routing.place import placed
from runloopd.broker.routing.price_list import listed
from runloopd.broker.routing.prices import FREE
from runloopd.broker.routing.route import Route
from runloopd.broker.secrets import SecretStore

__all__ = ["OLLAMA_URL", "Catalogue"]

OLLAMA_URL = "http://127.0.0.1:11434"
_OPENAI_URL = "https://api.openai.com/v1"
_ANTHROPIC_URL = "https://api.anthropic.com"


class Catalogue:
    """The routes of one configuration."""

    def __init__(
        self,
        config: Models,
        *,
        secrets: SecretStore,
        http: Http,
        found: Found,
        servers: Sequence[LocalServer] = LOCAL_SERVERS,
    ) -> None:
        """``servers`` are looked for on this machine, as far as the configuration lets them be. Raises
        :class:`UsageError` (``config.models``, ``config.url``)."""
        self._secrets = secrets
        self._http = http
        self._found = found
        self._routes = {name: self._configure(provider) for name, provider in config.providers.items()}
        looked_for = [server for server in servers if server.name in config.looked_for]
        for server in looked_for:
            if server.name not in self._routes:
                self._routes[server.name] = self._detected(server)
        self._routes["rules"] = Route(
            name="rules",
            model=RULES_MODEL,
            kind="rules",
            provider=RulesProvider(),
            price=Price(version="rules"),
            local=True,
            stays=True,
            timeout_ms=60_000,
        )
        self._settings = config
        # The first provider of the file where none is named: what the operator wrote is what is asked.
        default = config.default or next(iter(config.providers), "ollama")
        # What answers when it does not: nothing that sends the user's facts anywhere else.
        fallback = ("ollama", *(server.name for server in looked_for), "rules")
        self._order = ("rules",) if default == "rules" else (default, *fallback)

    async def chain(self, pattern: str | None) -> list[Route]:
        """The routes in the order they are tried: all that match a pattern, else the default and what
        it falls back to."""
        names = self._order if pattern is None else (*self._order, *self._routes)
        chain: list[Route] = []
        await self._look(names)
        for name in dict.fromkeys(names):
            # Without a pattern the first model speaks for its server.
            chain += await self._of(name, only_first=pattern is None)
        return chain if pattern is None else [route for route in chain if route.matches(pattern)]

    async def _of(self, name: str, *, only_first: bool) -> list[Route]:
        """The routes of one provider: none where it has no model, or is none."""
        route = self._routes.get(name)
        if route is None or route.ask_models is None:
            return [] if route is None else [route]
        models = (await self._listing(route, route.ask_models)).models
        return [replace(route, model=model) for model in (models[:1] if only_first else models)]

    async def _look(self, names: Iterable[str]) -> None:
        """Ask all of them at once, so that several absent ones cost the patience of one."""
        routes = [self._routes[name] for name in dict.fromkeys(names) if name in self._routes]
        await asyncio.gather(*(self._listing(r, r.ask_models) for r in routes if r.ask_models is not None))

    async def _listing(self, route: Route, server: LocalServer) -> Listing:
        return await self._found.models_of(server, named=not route.detected)

    async def absent(self) -> list[tuple[Route, str]]:
        """Servers that were looked for, or configured without a model, and have none: with the reason."""
        await self._look(self._routes)
        asked = [(r, r.ask_models) for r in self._routes.values() if r.ask_models is not None]
        listings = [(route, await self._listing(route, server)) for route, server in asked]
        return [(route, listing.why) for route, listing in listings if not listing.models]

    async def considered(self, pattern: str | None) -> list[Route]:
        """The routes that may be asked for such a request, in the configured order: beyond ``chain``, also
        what else is configured, where privacy or a preference is to choose among it."""
        chain = await self.chain(pattern)
        if pattern is not None or self._order == ("rules",):
            return chain
        known = {route.name for route in chain}
        more = [
            route
            for name in self._routes
            if name not in known
            for route in await self._of(name, only_first=True)
            if self._settings.prefer != "order" or (self._settings.privacy != "cloud" and route.stays)
        ]
        return [*chain, *more]

    async def permitted(self, request: ModelComplete, permits: Callable[[str], bool]) -> list[Route]:
        """The routes of a request that policy leaves. Raises :class:`UsageError` ``model.unknown``,
        :class:`RefusedError` ``cap.denied``."""
        routes = await self.considered(request.model)
        if not routes:
            known = ", ".join(route.target for route in await self.chain("*"))
            raise UsageError(
                f"no model matches {request.model!r}", hint=f"there are: {known}", code="model.unknown"
            )
        permitted = [route for route in routes if permits(route.target)]
        if not permitted:
            raise RefusedError(
                f"policy permits none of the models {', '.join(route.target for route in routes)}",
                hint="grant the capability 'model' for one of them",
                code="cap.denied",
            )
        return permitted

    # --- a provider's table becomes a route

    def _configure(self, provider: Provider) -> Route:
        where = f"models.providers.{provider.name}"
        if provider.kind != "ollama" and not provider.model:
            raise UsageError(f"{where} names no model", hint="add model = …", code="config.models")
        url = check_url(provider.base_url or _default_url(provider.kind), where=f"{where}.base_url")
        dialect: Dialect
        match provider.kind:
            case "ollama":
                return self._ollama(provider.name, url, provider=provider)
            case "anthropic":
                dialect = Anthropic(url.removesuffix("/v1"))
            case "openai":
                hosted = urlsplit(url).hostname == "api.openai.com"
                limit_field = "max_completion_tokens" if hosted else "max_tokens"
                dialect = OpenAICompat(url if urlsplit(url).path else f"{url}/v1", limit_field=limit_field)
            case kind:
                raise UsageError(
                    f"{where}.kind is {kind!r}", hint="use openai, anthropic or ollama", code="config.models"
                )
        return self._http_route(provider, dialect, url)

    def _ollama(self, name: str, url: str, *, provider: Provider) -> Route:
        route = self._http_route(provider, Ollama(url), url)
        asked = LocalServer(name=name, kind="ollama", url=url)
        return replace(route, ask_models=None if provider.model else asked)

    def _detected(self, server: LocalServer) -> Route:
        provider = Provider(name=server.name, kind=server.kind, timeout_ms=120_000)
        dialect = Ollama(server.url) if server.kind == "ollama" else OpenAICompat(f"{server.url}/v1")
        route = self._http_route(provider, dialect, server.url)
        return replace(route, detected=True, ask_models=server)

    def _http_route(self, provider: Provider, dialect: Dialect, url: str) -> Route:
        place = placed(provider, url, provider.model or "", self._secrets)
        return Route(
            name=provider.name,
            model=provider.model or "",
            kind=provider.kind,
            provider=HttpProvider(
                name=provider.name,
                dialect=dialect,
                http=self._http,
                key=place.key,
            ),
            price=provider.price or (FREE if place.local else listed(provider.kind, url, provider.model)),
            local=place.local,
            stays=place.stays,
            quality=provider.quality,
            timeout_ms=provider.timeout_ms,
        )


def _default_url(kind: str) -> str:
    return {"anthropic": _ANTHROPIC_URL, "ollama": OLLAMA_URL}.get(kind, _OPENAI_URL)
