"""Which model answers, at what price: routes, reservations, retries and fall-backs behind one port.

Knows: how the nouns of ``broker.routing`` come together, and which requests make no sense. Does not know:
who asks and whether they may (the gate's ``permits``), what a run has spent (``quotas``), or any protocol
(``providers``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from runloop.clock import Clock
from runloop.config import Models
from runloop.errors import UsageError
from runloop.ops import ModelComplete
from runloopd.broker.ports import NOBODY, Asker, Budget, ModelAnswer, Reservation
from runloopd.broker.providers.completion import prompt_bytes
from runloopd.broker.providers.discovery import LOCAL_SERVERS, LocalServer
from runloopd.broker.providers.http import Http
from runloopd.broker.routing.call import Attempts, Call, over_budget
from runloopd.broker.routing.cassette import Player, Recorder
from runloopd.broker.routing.catalogue import OLLAMA_URL, Catalogue
from runloopd.broker.routing.found import Found
from runloopd.broker.routing.kept import KeptAnswers
from runloopd.broker.routing.patience import Patience
from runloopd.broker.routing.policy import Decision, decide
from runloopd.broker.routing.prices import price_of
from runloopd.broker.routing.route import RouteInfo, unpriced
from runloopd.broker.secrets import SecretStore

__all__ = ["OLLAMA_URL", "ModelBroker", "Patience", "RouteInfo", "price_of"]

_MAX_TOKENS = 1_000_000
_MAX_MESSAGES = 2_000
_MAX_PATTERN = 200


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
        servers: Sequence[LocalServer] = LOCAL_SERVERS,
        home: Path | None = None,
    ) -> None:
        """``jitter`` gives numbers in [0, 1). ``home``: where a relative cassette and kept answers lie; None:
        nothing is kept. Raises :class:`UsageError` (``config.models``, ``model.cassette``)."""
        patience = patience or Patience()
        self._http = http or Http()
        self._settings = config
        tape = (home or Path()) / config.cassette if config.cassette is not None else None
        self._player: Player | None = None
        recorder = None
        if tape is not None and config.mode == "replay":
            self._player = Player(tape, clock, in_time=config.cassette_pace == "recorded")
        elif tape is not None and config.mode == "record":
            recorder = Recorder(tape)
        self._attempts = Attempts(
            clock,
            jitter,
            patience,
            kept=_kept(config, home, clock),
            recorder=recorder,
        )
        self._catalogue = Catalogue(
            config,
            secrets=secrets,
            http=self._http,
            found=Found(self._http, clock, patience),
            servers=servers,
        )

    async def close(self) -> None:
        """Close the connections to model servers."""
        await self._http.close()

    async def routes(self) -> list[RouteInfo]:
        """Every route there is now, in the order they are tried."""
        if self._player is not None:
            return [
                RouteInfo(target=target, kind=kind, local=True, price_version=version, resting=False)
                for target, kind, version in self._player.targets()
            ]
        return [
            RouteInfo(
                target=route.target,
                kind=route.kind,
                local=route.local,
                price_version=route.price.version if route.price else None,
                resting=self._attempts.resting(route),
                price=route.price,
                detected=route.detected,
            )
            for route in await self._catalogue.chain("*")
        ]

    async def absent(self) -> list[tuple[str, str, str]]:
        """Name, kind and reason of every server that was asked which models it has, and has none."""
        if self._player is not None:
            return []
        return [(route.name, route.kind, why) for route, why in await self._catalogue.absent()]

    async def estimate(
        self, request: ModelComplete, permits: Callable[[str], bool], *, asker: Asker = NOBODY
    ) -> Reservation:
        """See :meth:`ModelPort.estimate`."""
        _check_request(request)
        if self._player is not None:
            return self._player.estimate(request, permits)
        decision = await self._decided(request, permits, asker)
        first = decision.routes[0]
        if first.price is None:
            raise unpriced(first)
        return Reservation(
            provider=first.name,
            model=first.model,
            micro_usd=max(route.bound(request) for route in decision.routes if route.price is not None),
            input_tokens=prompt_bytes(request),
            output_tokens=request.max_tokens,
            price_version=first.price.version,
            route=decision.words(request),
        )

    async def complete(
        self,
        request: ModelComplete,
        *,
        budget: Budget,
        on_delta: Callable[[str], None] | None,
        idempotency_key: str,
        asker: Asker = NOBODY,
    ) -> ModelAnswer:
        """See :meth:`ModelPort.complete`."""
        _check_request(request)
        if prompt_bytes(request) + request.max_tokens > budget.tokens:
            raise over_budget(f"{budget.tokens} tokens are reserved, and this call may take more")
        if self._player is not None:
            return await self._player.complete(
                request, budget=budget, on_delta=on_delta, idempotency_key=idempotency_key
            )
        decision = await self._decided(request, budget.permits, asker)
        call = Call(self._attempts, request, budget, on_delta, idempotency_key, asker)
        return await call.run(decision)

    async def _decided(
        self, request: ModelComplete, permits: Callable[[str], bool], asker: Asker
    ) -> Decision:
        return decide(
            await self._catalogue.permitted(request, permits),
            request,
            self._settings,
            private=asker.private,
            first_word_ms=self._attempts.first_word.of,
        )


def _kept(config: Models, home: Path | None, clock: Clock) -> KeptAnswers | None:
    if home is None or not config.cache:
        return None
    folder = home / "cache" / "answers"
    return KeptAnswers(folder, clock, ttl_ms=config.cache_ttl_ms, most_bytes=config.cache_bytes)


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
