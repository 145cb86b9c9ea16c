"""Which models there are, for people: what each costs, what it can do, and whether it answers.

Knows: how a route is put into words, and the smallest question that shows it works. Does not know: how routes
are found or chosen (``broker.routing``), or who may ask (``gateway``).

A check asks for one token. Where that costs money it is asked only on the operator's explicit word, and what
it cost is told, and stated as any other spending is (``model.called`` of no run, its source ``check``);
nothing of the user's is in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import structlog
from msgspec import to_builtins
from msgspec.structs import replace

from runloop.clock import Clock
from runloop.digest import blob_digest, canonical
from runloop.errors import RunloopError
from runloop.events import Draft, ModelCalled
from runloop.ops import ModelComplete, ModelMessage, ModelTool
from runloopd.broker.booking import MAX_ROUTE, sane
from runloopd.broker.models import ModelBroker, RouteInfo
from runloopd.broker.ports import Asker, Budget, JournalPort, ModelCallError, Reservation
from runloopd.broker.providers.completion import prompt_bytes

__all__ = ["CHECK", "Survey"]

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
            await self._state(_booked(request, bound, cost, finish=error.named_code), actor)
            raise
        told = sane(answer, bound)
        called = _booked(request, bound, told.cost_micro_usd, finish=told.finish)
        tokens = {"input_tokens": told.input_tokens, "output_tokens": told.output_tokens}
        await self._state(replace(called, **tokens, estimated=told.estimated), actor)
        return told.cost_micro_usd

    async def _state(self, called: ModelCalled, actor: str) -> None:
        if called.cost_micro_usd:
            await self._journal.append(Draft(payload=called, actor=actor, scope="system"))


def _booked(request: ModelComplete, bound: Reservation, cost: int, *, finish: str) -> ModelCalled:
    """A check as it stands among what models cost."""
    return ModelCalled(
        node="",
        attempt=0,
        call=0,
        provider=bound.provider,
        model=bound.model,
        generated=False,
        request_digest=blob_digest(canonical(to_builtins(request))),
        answer_digest=blob_digest(b""),
        input_tokens=0,
        output_tokens=0,
        estimated=True,
        reserved_micro_usd=bound.micro_usd,
        cost_micro_usd=cost,
        price_version=bound.price_version,
        finish=finish,
        route=bound.route[:MAX_ROUTE],
        source=CHECK,
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
