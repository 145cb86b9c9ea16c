"""Which models there are, for people: what each costs, what it can do, and whether it answers.

Knows: how a route is put into words, and the smallest question that shows it works. Does not know: how routes
are found or chosen (``broker.routing``), or who may ask (``gateway``).

A check asks for one token. Where that costs money it is asked only on the operator's explicit word, and what
it cost is told, and stated as any other spending is (``model.called`` of no run, its source ``check``);
nothing of the user's is in it. What it may cost at most is on record before it is asked (``model.reserved``):
where the daemon dies meanwhile, the next one books all of it (:func:`book_lost`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any, Protocol, cast

import structlog
from msgspec import to_builtins
from msgspec.structs import replace

from runloop.clock import Clock
from runloop.digest import blob_digest, canonical
from runloop.errors import RunloopError
from runloop.events import Draft, Event, ModelCalled, ModelReserved, Provenance
from runloop.ops import ModelComplete, ModelMessage, ModelTool
from runloopd.broker.booking import MAX_ROUTE, sane
from runloopd.broker.models import ModelBroker, RouteInfo
from runloopd.broker.ports import Asker, Budget, JournalPort, ModelCallError, Reservation
from runloopd.broker.providers.completion import prompt_bytes
from runloopd.broker.record import UNKNOWN_OUTCOME

__all__ = ["CHECK", "Survey", "book_lost"]

log = structlog.get_logger(__name__)

CHECK = "check"
"""``source`` of a call that somebody made to see whether a model answers."""
_CHECK_MS = 30_000
_ASKER = Asker(agent="", bundle="", private=False)
_TOOL = ModelTool(name="clock", description="Tells the time.")
_WORD = ModelMessage(role="user", content="Say yes.")

_CAN: Mapping[str, Mapping[str, str]] = {
    "rules": {"tools": "no", "json": "from facts", "stream": "yes"},
    "anthropic": {"tools": "yes", "json": "yes", "stream": "yes"},
    # The protocols have them; whether a model does is up to it, and to how its server was started.
    "openai": {"tools": "by model", "json": "by model", "stream": "yes"},
    "ollama": {"tools": "by model", "json": "yes", "stream": "yes"},
}


class Survey:
    """Lists the routes of a broker, and asks them."""

    def __init__(self, models: ModelBroker, clock: Clock, journal: JournalPort) -> None:
        self._models = models
        self._clock = clock
        self._journal = journal

    async def rows(self) -> list[dict[str, Any]]:
        """Every route in the order it is tried, then the servers that have none: ``{target, kind, local,
        price, tools, json, stream, state, why}``; ``price`` is ``{input_micro_usd_per_mtok, …}`` or None."""
        rows = [_row(route) for route in await self._models.routes()]
        absent = [
            _named(name, kind) | {"local": True, "price": None, "state": "absent", "why": why}
            for name, kind, why in await self._models.absent()
        ]
        return rows + absent

    async def checked(self, *, spend: bool, actor: str) -> AsyncIterator[dict[str, Any]]:
        """The same rows, each route asked for one token; priced ones only with ``spend``. ``cost_micro_usd``
        and ``took_ms`` are added where it was asked. What it cost is ``actor``'s spending on record."""
        for row in await self.rows():
            if row["state"] not in ("ready", "resting") or row["kind"] == "rules":
                yield row
            elif _priced(row) and not spend:
                yield row | {"state": "not asked", "why": "asking costs money: --yes asks all the same"}
            else:
                yield row | await self._ask(row, actor)

    async def _ask(self, row: dict[str, Any], actor: str) -> dict[str, Any]:
        """Whether it answers, and, where trying is free, whether it takes tools."""
        tools = [] if _priced(row) else [_TOOL]
        began = self._clock.now_ms()
        found: dict[str, Any] = {}
        try:
            try:
                cost = await self._complete(row["target"], tools, actor)
                found = {"tools": "yes"} if tools else {}
            except ModelCallError as error:
                if error.named_code != "model.no_tools":
                    raise
                cost = await self._complete(row["target"], [], actor)
                found = {"tools": "no"}
        except RunloopError as error:
            cost = getattr(error, "cost_micro_usd", 0)
            found |= {"state": "fails", "why": error.message}
        else:
            found |= {"state": "answers", "why": ""}
        log.info("model_checked", target=row["target"], state=found["state"], cost_micro_usd=cost)
        return found | {"cost_micro_usd": cost, "took_ms": self._clock.now_ms() - began}

    async def _complete(self, target: str, tools: list[ModelTool], actor: str) -> int:
        # Not at temperature 0: an answer that was kept would prove nothing.
        request = ModelComplete(messages=[_WORD], model=target, max_tokens=1, temperature=1.0, tools=tools)
        bound = await self._models.estimate(request, lambda named: named == target, asker=_ASKER)
        budget = Budget(
            micro_usd=bound.micro_usd,
            tokens=prompt_bytes(request) + request.max_tokens,
            deadline_ms=self._clock.now_ms() + _CHECK_MS,
            permits=lambda named: named == target,
        )
        held = _held(request, bound)
        reserved = await self._reserve(held, actor)
        try:
            answer = await self._models.complete(
                request,
                budget=budget,
                on_delta=None,
                idempotency_key=f"check-{self._clock.now_ms()}",
                asker=_ASKER,
            )
        except ModelCallError as error:
            # As everywhere: where nobody knows what it cost, all that was set aside is booked.
            cost = bound.micro_usd if error.cost_micro_usd is None else max(0, error.cost_micro_usd)
            await self._state(_called(held, cost, finish=error.named_code), actor, reserved)
            raise
        told = sane(answer, bound)
        called = _called(held, told.cost_micro_usd, finish=told.finish)
        tokens = {"input_tokens": told.input_tokens, "output_tokens": told.output_tokens}
        await self._state(replace(called, **tokens, estimated=told.estimated), actor, reserved)
        return told.cost_micro_usd

    async def _reserve(self, held: ModelReserved, actor: str) -> tuple[int, ...]:
        """Say what is set aside, before it can be spent; its ledger id. What costs nothing needs none."""
        if not held.reserved_micro_usd:
            return ()
        (event,) = await self._journal.append(Draft(payload=held, actor=actor, scope="system"))
        return (event.id,)

    async def _state(self, called: ModelCalled, actor: str, reserved: tuple[int, ...]) -> None:
        if called.cost_micro_usd or reserved:
            stamp = Provenance(causes=reserved)
            await self._journal.append(Draft(payload=called, actor=actor, scope="system", provenance=stamp))


class _Ledger(Protocol):
    def events(self, *, after: int = 0, kinds: Collection[str] | None = None) -> Iterator[Event]: ...


async def book_lost(ledger: _Ledger, journal: JournalPort) -> int:
    """Book what was set aside and never reconciled, at the whole reservation; how many there were. Once, when
    the daemon starts: before that, a check under way would look like a lost one."""
    lost = [event for event in ledger.events(kinds=(ModelReserved.kind,)) if not _is_booked(ledger, event)]
    for event in lost:
        held = cast(ModelReserved, event.payload)
        called = _called(held, held.reserved_micro_usd, finish=UNKNOWN_OUTCOME)
        stamp = Provenance(causes=(event.id,))
        await journal.append(Draft(payload=called, actor="daemon", scope="system", provenance=stamp))
        log.warning("model_check_lost", provider=held.provider, cost_micro_usd=held.reserved_micro_usd)
    return len(lost)


def _is_booked(ledger: _Ledger, held: Event) -> bool:
    """Whether a call names it; that stands close behind it, or nowhere."""
    after = ledger.events(after=held.id, kinds=(ModelCalled.kind,))
    return any(held.id in event.provenance.causes for event in after)


def _held(request: ModelComplete, bound: Reservation) -> ModelReserved:
    return ModelReserved(
        provider=bound.provider,
        model=bound.model,
        request_digest=blob_digest(canonical(to_builtins(request))),
        reserved_micro_usd=bound.micro_usd,
        price_version=bound.price_version,
        route=bound.route[:MAX_ROUTE],
        source=CHECK,
    )


def _called(held: ModelReserved, cost: int, *, finish: str) -> ModelCalled:
    """A check as it stands among what models cost."""
    return ModelCalled(
        node="",
        attempt=0,
        call=0,
        provider=held.provider,
        model=held.model,
        generated=False,
        request_digest=held.request_digest,
        answer_digest=blob_digest(b""),
        input_tokens=0,
        output_tokens=0,
        estimated=True,
        reserved_micro_usd=held.reserved_micro_usd,
        cost_micro_usd=cost,
        price_version=held.price_version,
        finish=finish,
        route=held.route,
        source=held.source,
    )


def _row(route: RouteInfo) -> dict[str, Any]:
    state, why = "ready", "found on this machine" if route.detected else "configured"
    if route.kind == "rules":
        why = "fills templates and schemas from facts; answers no open question"
    if route.price_version is None:
        state, why = "unpriced", "remote, without a price: refused"
    elif route.resting:
        state, why = "resting", "left alone for a while after failing several times in a row"
    price = None
    if route.price is not None:
        price = route.price._asdict()
    return _named(route.target, route.kind) | {
        "local": route.local,
        "price": price,
        "state": state,
        "why": why,
    }


def _named(target: str, kind: str) -> dict[str, Any]:
    return {"target": target, "kind": kind, **_CAN.get(kind, {"tools": "", "json": "", "stream": ""})}


def _priced(row: Mapping[str, Any]) -> bool:
    price = row["price"]
    return price is None or any(value for name, value in price.items() if name != "version")
