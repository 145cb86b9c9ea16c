"""Which model answers, at what price: routes, reservations, retries and fall-backs behind one port.

Knows: the order of routes (the configured one, what it falls back to, an Ollama found on this machine, the
offline rules), prices and their bounds, when another attempt is safe for the purse, and when a failing
server is left alone for a while. Does not know: who asks and whether they may (the gate's ``permits``), what
a run has spent (``quotas``), or any protocol (``providers``).

Money: a request that may have been billed is never silently repeated on a priced route beyond what was
reserved (attacks.md K6). Everything that failed on the way is reported in the answer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from runloop.clock import Clock
from runloop.config import Models, Price, Provider
from runloop.errors import RefusedError, RunloopError, UsageError
from runloop.ops import ModelComplete
from runloopd.broker.ports import Budget, ModelAnswer, ModelCallError, Reservation
from runloopd.broker.providers.anthropic import Anthropic
from runloopd.broker.providers.completion import (
    Completion,
    ModelProvider,
    estimated_tokens,
    prompt_bytes,
)
from runloopd.broker.providers.dialect import Dialect, HttpProvider
from runloopd.broker.providers.http import Http, check_url, is_loopback
from runloopd.broker.providers.ollama import Ollama, list_models
from runloopd.broker.providers.openai_compat import OpenAICompat
from runloopd.broker.providers.rules import RULES_MODEL, RulesProvider
from runloopd.broker.secrets import SecretRef, SecretStore

__all__ = ["ModelBroker", "Patience", "RouteInfo", "price_of"]

OLLAMA_URL = "http://127.0.0.1:11434"
_OPENAI_URL = "https://api.openai.com/v1"
_ANTHROPIC_URL = "https://api.anthropic.com"
_FALLBACK = ("ollama", "rules")
"""What answers when the chosen provider does not: nothing that sends the user's facts anywhere else."""
_MAX_TOKENS = 1_000_000
_MAX_MESSAGES = 2_000
_MAX_PATTERN = 200


# --- prices ---------------------------------------------------------------------------------------

_FREE = Price(version="local")


def price_of(price: Price, input_tokens: int, output_tokens: int) -> int:
    """Micro-dollars for so many tokens, rounded up."""
    exact: int = (
        price.input_micro_usd_per_mtok * input_tokens + price.output_micro_usd_per_mtok * output_tokens
    )
    return -(-exact // 1_000_000)


# --- patience -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How often, how soon, and when to leave a server alone."""

    attempts: int = 3
    backoff_ms: int = 250
    """First pause; doubles, and is shortened by up to half at random."""
    max_pause_ms: int = 20_000
    """Longest pause, also where the server asks for more."""
    breaker_failures: int = 5
    """Failures in a row after which a provider is left alone…"""
    breaker_rest_ms: int = 30_000
    """…for this long; then one call may try."""
    detect_ms: int = 150
    """What looking for Ollama may take."""
    detected_for_ms: int = 60_000
    absent_for_ms: int = 10_000

    def pause_ms(self, attempt: int, jitter: float, asked_ms: int) -> int:
        """Pause after failed ``attempt`` (from 1); ``jitter`` in [0, 1); ``asked_ms`` is Retry-After."""
        own = (self.backoff_ms << (attempt - 1)) * (1 - jitter / 2)
        return min(math.ceil(max(own, asked_ms)), self.max_pause_ms)


class _Breaker:
    """Counts failures in a row; opens, and lets one trial through after each rest."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failures = 0
        self._closed_from_ms = 0

    def open(self, now_ms: int) -> bool:
        return now_ms < self._closed_from_ms

    def admit(self, now_ms: int) -> bool:
        """Whether a call may go; the one that may after a rest makes the others wait for another."""
        if self.open(now_ms):
            return False
        if self._failures >= self._patience.breaker_failures:
            self._closed_from_ms = now_ms + self._patience.breaker_rest_ms
        return True

    def failed(self, now_ms: int) -> None:
        self._failures += 1
        if self._failures >= self._patience.breaker_failures:
            self._closed_from_ms = now_ms + self._patience.breaker_rest_ms

    def succeeded(self) -> None:
        self._failures = 0
        self._closed_from_ms = 0


# --- routes ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteInfo:
    """One route, for people."""

    target: str
    kind: str
    local: bool
    price_version: str | None
    """None: unpriced, and refused."""
    resting: bool
    """Left alone for now, after failures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Route:
    name: str
    model: str
    kind: str
    provider: ModelProvider
    price: Price | None
    local: bool
    timeout_ms: int
    detected: bool = False
    """Found, not configured: whatever it does wrong, the next route is tried."""
    ask_models_at: str | None = None
    """Where to ask which models there are, when the configuration names none."""

    @property
    def target(self) -> str:
        return f"{self.name}:{self.model}"

    @property
    def free(self) -> bool:
        return self.price is not None and not any(self.price[:2])

    def bound(self, request: ModelComplete) -> int:
        """Most micro-dollars one attempt can cost."""
        assert self.price is not None
        return price_of(self.price, prompt_bytes(request), request.max_tokens)

    def matches(self, pattern: str) -> bool:
        return any(fnmatchcase(text, pattern) for text in (self.target, self.name, self.model))


class ModelBroker:
    """Implements :class:`runloopd.broker.ports.ModelPort`. One per daemon; :meth:`close` at the end."""

    def __init__(
        self,
        config: Models,
        *,
        secrets: SecretStore,
        clock: Clock,
        jitter: Callable[[], float],
        patience: Patience | None = None,
        http: Http | None = None,
        ollama_url: str = OLLAMA_URL,
    ) -> None:
        """``jitter`` gives numbers in [0, 1). Raises :class:`UsageError` (``config.models``)."""
        self._secrets = secrets
        self._clock = clock
        self._jitter = jitter
        self._patience = patience or Patience()
        self._http = http or Http()
        self._breakers: dict[str, _Breaker] = {}
        self._found: dict[str, tuple[int, list[str]]] = {}
        self._finding = asyncio.Lock()
        self._configured = {name: self._configure(provider) for name, provider in config.providers.items()}
        if config.detect_ollama and "ollama" not in self._configured:
            self._configured["ollama"] = self._ollama("ollama", ollama_url, detected=True)
        self._configured["rules"] = _Route(
            name="rules",
            model=RULES_MODEL,
            kind="rules",
            provider=RulesProvider(),
            price=Price(version="rules"),
            local=True,
            timeout_ms=60_000,
        )
        # The first provider of the file where none is named: what the operator wrote is what is asked.
        default = config.default or next(iter(config.providers), "ollama")
        self._order = ("rules",) if default == "rules" else (default, *_FALLBACK)

    async def close(self) -> None:
        """Close the connections to model servers."""
        await self._http.close()

    async def routes(self) -> list[RouteInfo]:
        """Every route there is now, in the order they are tried."""
        now = self._clock.now_ms()
        return [
            RouteInfo(
                target=route.target,
                kind=route.kind,
                local=route.local,
                price_version=route.price.version if route.price else None,
                resting=self._breaker(route).open(now),
            )
            for route in await self._chain("*")
        ]

    async def estimate(self, request: ModelComplete, permits: Callable[[str], bool]) -> Reservation:
        """See :meth:`ModelPort.estimate`."""
        _check_request(request)
        routes = await self._permitted(request, permits)
        if routes[0].price is None:
            raise _unpriced(routes[0])
        first = routes[0]
        dearest = max((r for r in routes if r.price is not None), key=lambda route: route.bound(request))
        return Reservation(
            provider=first.name,
            model=first.model,
            micro_usd=dearest.bound(request),
            input_tokens=prompt_bytes(request),
            output_tokens=request.max_tokens,
            price_version=routes[0].price.version,
        )

    async def complete(
        self,
        request: ModelComplete,
        *,
        budget: Budget,
        on_delta: Callable[[str], None] | None,
        idempotency_key: str,
    ) -> ModelAnswer:
        """See :meth:`ModelPort.complete`."""
        _check_request(request)
        if prompt_bytes(request) + request.max_tokens > budget.tokens:
            raise _over_budget(f"{budget.tokens} tokens are reserved, and this call may take more")
        call = _Call(self, request, budget, on_delta, idempotency_key)
        return await call.run(await self._permitted(request, budget.permits))

    # --- used by _Call

    async def attempt(
        self, route: _Route, ask: Callable[[float], Awaitable[Completion]], call: _Call
    ) -> Completion:
        """Ask one route, again where that is safe; raises the last :class:`ModelCallError`."""
        breaker, patience, now_ms = self._breaker(route), self._patience, self._clock.now_ms
        attempt = 0
        while True:
            attempt += 1
            left_ms = min(route.timeout_ms, call.budget.deadline_ms - now_ms())
            if left_ms <= 0:
                raise _no_time(route)
            if not breaker.admit(now_ms()):
                raise ModelCallError(
                    f"{route.target} is left alone for a while after failing several times in a row",
                    hint="try again in a minute",
                    code="model.resting",
                    retryable=True,
                )
            try:
                completion = await ask(left_ms / 1000)
            except ModelCallError as error:
                if route.free:
                    error.cost_micro_usd = 0
                if error.retryable:
                    breaker.failed(now_ms())
                pause_ms = patience.pause_ms(attempt, self._jitter(), error.data.get("retry_after_ms", 0))
                due_ms = now_ms() + pause_ms
                last = attempt >= patience.attempts or due_ms >= call.budget.deadline_ms
                # Repeated only while nothing was shown, and nothing can have been billed.
                if last or not error.retryable or call.shown or error.cost_micro_usd is None:
                    raise
            except RunloopError as error:
                # The key is missing or malformed: nothing was sent, and falling back would hide it.
                raise RefusedError(error.message, hint=error.hint, code=error.named_code) from error
            else:
                breaker.succeeded()
                return completion
            await self._clock.sleep_until(due_ms)

    # --- finding routes

    def _breaker(self, route: _Route) -> _Breaker:
        return self._breakers.setdefault(route.name, _Breaker(self._patience))

    def _configure(self, provider: Provider) -> _Route:
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

    def _ollama(
        self, name: str, url: str, *, provider: Provider | None = None, detected: bool = False
    ) -> _Route:
        provider = provider or Provider(name=name, kind="ollama", timeout_ms=120_000)
        route = self._http_route(provider, Ollama(url), url)
        return replace(route, detected=detected, ask_models_at=None if provider.model else url)

    def _http_route(self, provider: Provider, dialect: Dialect, url: str) -> _Route:
        ref = (
            SecretRef(env=provider.api_key_env, name=provider.secret)
            if provider.api_key_env or provider.secret
            else None
        )
        local = is_loopback(urlsplit(url).hostname or "")
        return _Route(
            name=provider.name,
            model=provider.model or "",
            kind=provider.kind,
            provider=HttpProvider(
                name=provider.name,
                dialect=dialect,
                http=self._http,
                key=lambda: None if ref is None else self._secrets.find(ref),
            ),
            price=provider.price or (_FREE if local else None),
            local=local,
            timeout_ms=provider.timeout_ms,
        )

    async def _permitted(self, request: ModelComplete, permits: Callable[[str], bool]) -> list[_Route]:
        routes = await self._chain(request.model)
        if not routes:
            known = ", ".join(route.target for route in await self._chain("*"))
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

    async def _chain(self, pattern: str | None) -> list[_Route]:
        """The routes in the order they are tried: all that match a pattern, else the default and what
        it falls back to."""
        names = self._order if pattern is None else (*self._order, *self._configured)
        chain: list[_Route] = []
        for name in dict.fromkeys(names):
            route = self._configured.get(name)
            if route is None:
                continue
            if route.ask_models_at is None:
                chain.append(route)
                continue
            models = await self._models_at(route.ask_models_at)
            # Without a pattern the first model speaks for its server.
            chain += [replace(route, model=model) for model in (models[:1] if pattern is None else models)]
        return chain if pattern is None else [route for route in chain if route.matches(pattern)]

    async def _models_at(self, url: str) -> list[str]:
        async with self._finding:
            until_ms, models = self._found.get(url, (0, []))
            if self._clock.now_ms() >= until_ms:
                models = await list_models(self._http, url, timeout_s=self._patience.detect_ms / 1000)
                keep_ms = self._patience.detected_for_ms if models else self._patience.absent_for_ms
                self._found[url] = (self._clock.now_ms() + keep_ms, models)
            return models


def _default_url(kind: str) -> str:
    return {"anthropic": _ANTHROPIC_URL, "ollama": OLLAMA_URL}.get(kind, _OPENAI_URL)


class _Call:
    """One completion on its way along the routes: what it has spent, shown and met."""

    def __init__(
        self,
        broker: ModelBroker,
        request: ModelComplete,
        budget: Budget,
        on_delta: Callable[[str], None] | None,
        key: str,
    ) -> None:
        self._broker = broker
        self._request = request
        self._key = key
        self._show = on_delta
        self._lost_micro_usd = 0
        """Bound of attempts that may have been billed and brought nothing."""
        self._met: list[str] = []
        self._failures: list[RunloopError] = []
        self.budget = budget
        self.shown = False

    async def run(self, routes: list[_Route]) -> ModelAnswer:
        for route in routes:
            completion = await self._try(route)
            if completion is not None:
                return self._answer(route, completion)
        raise self._nobody_answered()

    async def _try(self, route: _Route) -> Completion | None:
        if route.price is None:
            self._note(route, _unpriced(route))
            return None
        bound = route.bound(self._request)
        if bound > self.budget.micro_usd - self._lost_micro_usd:
            self._note(route, _over_budget(f"{route.target} may cost more than what is reserved"))
            return None
        try:
            return await self._broker.attempt(route, lambda seconds: self._ask(route, seconds), self)
        except ModelCallError as error:
            if error.cost_micro_usd is None:
                self._lost_micro_usd += bound
            self._note(route, error)
            optional = route.detected or route.kind == "rules"
            if self.shown or not (error.retryable or optional):
                raise self._nobody_answered(error) from error
            return None

    async def _ask(self, route: _Route, timeout_s: float) -> Completion:
        return await route.provider.complete(
            self._request,
            model=route.model,
            timeout_s=timeout_s,
            on_delta=self._on_delta if self._show is not None else None,
            idempotency_key=self._key,
        )

    def _on_delta(self, text: str) -> None:
        self.shown = True
        assert self._show is not None
        self._show(text)

    def _note(self, route: _Route, error: RunloopError) -> None:
        self._met.append(f"{route.target}: {error.message}")
        self._failures.append(error)

    def _answer(self, route: _Route, completion: Completion) -> ModelAnswer:
        assert route.price is not None
        input_tokens, output_tokens, estimated = _counted(route, self._request, completion)
        cost = price_of(route.price, input_tokens, output_tokens) + self._lost_micro_usd
        if route.kind != "rules":
            _insist_on_schema(route, self._request, completion, cost)
        return ModelAnswer(
            text=completion.text,
            provider=route.name,
            model=route.model,
            generated=route.kind != "rules",
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            estimated=estimated,
            cost_micro_usd=cost,
            price_version=route.price.version,
            finish=completion.finish,
            parts=completion.parts,
            fallbacks=tuple(self._met),
        )

    def _nobody_answered(self, final: ModelCallError | None = None) -> RunloopError:
        """The failure to raise: the only one as it is, several told together; with what they cost."""
        failures = self._failures
        cost = None if self._lost_micro_usd else 0
        if len(failures) == 1:
            only = failures[0]
            if isinstance(only, ModelCallError) and only.cost_micro_usd is None:
                only.cost_micro_usd = cost
            return only
        first = final or failures[0]
        message = "no model answered: " + "; ".join(self._met)
        if isinstance(first, RefusedError) and cost == 0:
            return RefusedError(message, hint=first.hint, code=first.named_code)
        return ModelCallError(
            message,
            hint=first.hint,
            code=first.named_code,
            retryable=any(getattr(failure, "retryable", False) for failure in failures),
            cost_micro_usd=cost,
        )


def _check_request(request: ModelComplete) -> None:
    from runloopd.broker.providers.answer_schema import check

    why = None
    if not 1 <= request.max_tokens <= _MAX_TOKENS:
        why = f"max_tokens is {request.max_tokens}, not 1 to {_MAX_TOKENS}"
    elif not 0 <= request.temperature <= 2:  # also refuses NaN
        why = "temperature is not between 0 and 2"
    elif not 1 <= len(request.messages) <= _MAX_MESSAGES:
        why = f"there are {len(request.messages)} messages, not 1 to {_MAX_MESSAGES}"
    elif request.model is not None and not 1 <= len(request.model) <= _MAX_PATTERN:
        why = "the model pattern is empty or too long"
    if why:
        raise UsageError(f"model.complete: {why}", code="op.args")
    if request.json_schema is not None:
        check(request.json_schema)


def _counted(route: _Route, request: ModelComplete, completion: Completion) -> tuple[int, int, bool]:
    """Tokens to book, and whether they are an estimate.

    A count is believed inside the bounds of the reservation. Negative, absurd or, where money is at stake,
    zero ones are not (attacks.md K6): then the bound is booked, or a fair guess where it is free.
    """
    most_in, most_out = prompt_bytes(request), request.max_tokens
    usage = completion.usage
    if usage is not None:
        fits = 0 <= usage.input_tokens <= most_in and 0 <= usage.output_tokens <= most_out
        told = usage.input_tokens > 0 and (usage.output_tokens > 0 or not completion.text)
        if fits and (told or route.free):
            return usage.input_tokens, usage.output_tokens, route.kind == "rules"
    if route.free:
        guess = sum(estimated_tokens(message.content) for message in request.messages)
        return min(guess, most_in), min(estimated_tokens(completion.text), most_out), True
    # Thinking that is billed but not shown cannot be counted from the text.
    return most_in, most_out, True


def _insist_on_schema(route: _Route, request: ModelComplete, completion: Completion, cost: int) -> None:
    if request.json_schema is None:
        return
    import orjson

    from runloopd.broker.providers.answer_schema import misfit

    try:
        why = misfit(request.json_schema, orjson.loads(completion.text))
    except orjson.JSONDecodeError:
        why = "it is cut off at max_tokens" if completion.finish == "length" else "it is not JSON"
    if why is not None:
        raise ModelCallError(
            f"the answer of {route.target} does not fit the schema: {why}",
            hint="raise max_tokens, or choose a model that keeps to schemas",
            code="model.schema",
            retryable=True,
            cost_micro_usd=cost,
        )


def _unpriced(route: _Route) -> RefusedError:
    return RefusedError(
        f"{route.target} is remote and has no price, so its cost cannot be bounded",
        hint=f"add a table [models.providers.{route.name}.price]",
        code="model.unpriced",
    )


def _over_budget(why: str) -> RefusedError:
    return RefusedError(why, hint="raise the budget of the run, or lower max_tokens", code="budget.exceeded")


def _no_time(route: _Route) -> ModelCallError:
    return ModelCallError(
        f"no time is left to ask {route.target}",
        hint="give the node a longer timeout",
        code="model.timeout",
        retryable=True,
    )
