"""The two frames of an attempt: the request to an agent's mailbox, and the response from there.

Knows: from whom to whom, on which topic, what is in the body. Does not know: the bus that carries them
(``mailbox``, ``runs.attempts``) or the record they are compared with in a replay (``runs.replayer``): both
make them here, so they are the same byte for byte, but for clocks and counters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from runloop.rmp import topics
from runloopd.bus.principal import DAEMON, Principal
from runloopd.runtime.orders import AttemptOrder, AttemptResult

__all__ = ["REQUEST", "RESPONSE", "Letter", "host", "request", "response"]

REQUEST = "intent.executor.agent.request.v1"
RESPONSE = "toolresult.executor.agent.response.v1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Letter:
    """A frame before it has an id and a time."""

    sender: Principal
    receiver: str
    """Label, fit for the ledger."""
    topic: str
    type: str
    payload: dict[str, Any]
    meta: dict[str, Any]


def host(order: AttemptOrder) -> Principal:
    """Whoever speaks for the guest of this attempt."""
    return Principal(kind="agent", name=f"agent:{order.agent}#{order.run}/{order.node}/{order.attempt}")


def request(order: AttemptOrder) -> Letter:
    """What the agent is asked: the input of its guest."""
    return Letter(
        sender=DAEMON,
        receiver=host(order).label,
        topic=topics.agent(order.agent),
        type=REQUEST,
        payload={"run": order.run, "node": order.node, "attempt": order.attempt, "input": order.input},
        meta={"reply_to": topics.run_reply(order.run, order.node, order.attempt)},
    )


def response(order: AttemptOrder, result: AttemptResult) -> Letter:
    """What the agent answers: how its guest ended."""
    return Letter(
        sender=host(order),
        receiver=DAEMON.label,
        topic=topics.run_reply(order.run, order.node, order.attempt),
        type=RESPONSE,
        payload={
            "run": order.run,
            "node": order.node,
            "attempt": order.attempt,
            "ok": result.ok,
            "output": result.output,
            "error": msgspec.to_builtins(result.error),
            "fuel": result.fuel,
            "calls": result.calls,
        },
        meta={},
    )
