"""Which models there are, for people: what each costs, what it can do, and whether it answers.

Knows: how a route is put into words, and the smallest question that shows it works. Does not know: how routes
are found or chosen (``broker.routing``), or who may ask (``gateway``).

A check asks for one token. Where that costs money it is asked only on the operator's explicit word, and what
it cost is told; nothing of the user's is in it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import structlog

from runloop.clock import Clock
from runloop.errors import RunloopError
from runloop.ops import ModelComplete, ModelMessage, ModelTool
from runloopd.broker.models import ModelBroker, RouteInfo
from runloopd.broker.ports import Asker, Budget, ModelCallError
from runloopd.broker.providers.completion import prompt_bytes

__all__ = ["Survey"]

log = structlog.get_logger(__name__)

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

    def __init__(self, models: ModelBroker, clock: Clock) -> None:
        self._models = models
        self._clock = clock

    async def rows(self) -> list[dict[str, Any]]:
        """Every route in the order it is tried, then the servers that have none: ``{target, kind, local,
        price, tools, json, stream, state, why}``; ``price`` is ``{input_micro_usd_per_mtok, …}`` or None."""
        rows = [_row(route) for route in await self._models.routes()]
        absent = [
            _named(name, kind) | {"local": True, "price": None, "state": "absent", "why": why}
            for name, kind, why in await self._models.absent()
        ]
        return rows + absent

    async def checked(self, *, spend: bool) -> AsyncIterator[dict[str, Any]]:
        """The same rows, each route asked for one token; priced ones only with ``spend``. ``cost_micro_usd``
        and ``took_ms`` are added where it was asked."""
        for row in await self.rows():
            if row["state"] not in ("ready", "resting") or row["kind"] == "rules":
                yield row
            elif _priced(row) and not spend:
                yield row | {"state": "not asked", "why": "asking costs money: --yes asks all the same"}
            else:
                yield row | await self._ask(row)

    async def _ask(self, row: dict[str, Any]) -> dict[str, Any]:
        """Whether it answers, and, where trying is free, whether it takes tools."""
        tools = [] if _priced(row) else [_TOOL]
        began = self._clock.now_ms()
        found: dict[str, Any] = {}
        try:
            try:
                cost = await self._complete(row["target"], tools)
                found = {"tools": "yes"} if tools else {}
            except ModelCallError as error:
                if error.named_code != "model.no_tools":
                    raise
                cost = await self._complete(row["target"], [])
                found = {"tools": "no"}
        except RunloopError as error:
            cost = getattr(error, "cost_micro_usd", 0)
            found |= {"state": "fails", "why": error.message}
        else:
            found |= {"state": "answers", "why": ""}
        log.info("model_checked", target=row["target"], state=found["state"], cost_micro_usd=cost)
        return found | {"cost_micro_usd": cost, "took_ms": self._clock.now_ms() - began}

    async def _complete(self, target: str, tools: list[ModelTool]) -> int:
        # Not at temperature 0: an answer that was kept would prove nothing.
        request = ModelComplete(messages=[_WORD], model=target, max_tokens=1, temperature=1.0, tools=tools)
        bound = await self._models.estimate(request, lambda named: named == target, asker=_ASKER)
        budget = Budget(
            micro_usd=bound.micro_usd,
            tokens=prompt_bytes(request) + request.max_tokens,
            deadline_ms=self._clock.now_ms() + _CHECK_MS,
            permits=lambda named: named == target,
        )
        answer = await self._models.complete(
            request,
            budget=budget,
            on_delta=None,
            idempotency_key=f"check-{self._clock.now_ms()}",
            asker=_ASKER,
        )
        return answer.cost_micro_usd


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
