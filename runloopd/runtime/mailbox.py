"""The mailbox of every agent: one request envelope in, one attempt in the sandbox, one response out.

Agents never hold a socket; this module speaks for them on the bus. Orders arrive by two roads that must
meet: the frame on ``agent/<name>`` says what is asked, and the in-process order says who answers the
guest's host calls (an object that cannot and must not cross a bus). Knows nothing of engines or ledgers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from runloop.errors import RunloopError
from runloop.ids import RunId, run_id_to_int
from runloopd.broker.calls import Answerer
from runloopd.bus.bus import Bus
from runloopd.bus.parts import ComposedFrame, Delivery
from runloopd.bus.principal import DAEMON
from runloopd.runtime.exchange import REQUEST, response
from runloopd.runtime.orders import AttemptOrder
from runloopd.runtime.supervisor import Runtime

__all__ = ["Mailbox", "Order"]

log = structlog.get_logger(__name__)

Announce = Callable[[ComposedFrame, str, str], Awaitable[None]]
"""Called with a frame, its sender and its receiver before the frame is published."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What the runs service hands over beside the frame."""

    attempt: AttemptOrder
    answerer: Answerer
    announce: Announce
    failed: Callable[[RunloopError], None]
    """Told when no response will come, because the attempt could not be performed or recorded."""


class Mailbox:
    """Serves ``agent/*``."""

    def __init__(self, bus: Bus, runtime: Runtime) -> None:
        self._bus = bus
        self._runtime = runtime
        self._orders: dict[tuple[str, str, int], Order] = {}
        self._serving: dict[tuple[str, str, int], asyncio.Task[None]] = {}
        self._subscription = bus.subscribe("agent/*", self._received, principal=DAEMON)

    def expect(self, key: tuple[str, str, int], order: Order) -> None:
        """Accept the request frame of attempt ``(run, node, attempt)``; any other is dropped and logged."""
        self._orders[key] = order

    def forget(self, key: tuple[str, str, int]) -> None:
        """Stop the attempt, if it runs: its worker is killed."""
        self._orders.pop(key, None)
        task = self._serving.pop(key, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop listening and kill every worker still serving."""
        self._subscription.close()
        tasks = list(self._serving.values())
        self._orders.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _received(self, delivery: Delivery) -> None:
        payload = delivery.payload
        if delivery.type != REQUEST or not isinstance(payload, dict):
            return
        key = (str(payload.get("run")), str(payload.get("node")), int(payload.get("attempt", 0)))
        order = self._orders.pop(key, None)
        if order is None:
            log.warning("agent_request_unexpected", topic=delivery.topic, publisher=delivery.principal.label)
            return
        reply_to = str(delivery.meta.get("reply_to", ""))
        task = asyncio.create_task(self._serve(key, order, payload["input"], reply_to))
        self._serving[key] = task
        task.add_done_callback(lambda _: self._serving.pop(key, None))

    async def _serve(
        self, key: tuple[str, str, int], order: Order, guest_input: dict[str, Any], reply_to: str
    ) -> None:
        attempt_order = order.attempt.with_input(guest_input)
        try:
            result = await self._runtime.run_attempt(attempt_order, order.answerer)
            letter = response(attempt_order, result)
            frame = self._bus.compose(
                letter.sender, reply_to, letter.type, letter.payload, trace_id=run_id_to_int(RunId(key[0]))
            )
            await order.announce(frame, letter.sender.label, letter.receiver)
            self._bus.publish(frame)
        except RunloopError as error:
            order.failed(error)
