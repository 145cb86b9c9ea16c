"""What a model call is booked as: bounds, figures of servers that cannot be true, calls without an answer.

Knows: ``model.called`` where nobody answered. Does not know: when that is stated (``model_ops``),
or what a budget allows (``quotas``).
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from runloop.digest import blob_digest, canonical
from runloop.errors import RunloopError
from runloop.events import ModelCalled
from runloopd.broker.asks import Ask
from runloopd.broker.ports import ModelAnswer, ModelCallError, Reservation

__all__ = ["MAX_ROUTE", "sane", "tokens_of", "unanswered", "unwritable"]

log = structlog.get_logger(__name__)

MAX_ROUTE = 2_000
"""Characters of a reason on record."""


def tokens_of(bound: Reservation) -> int:
    """What the token budget holds: half the bytes of the prompt, and the longest answer."""
    return (bound.input_tokens + 1) // 2 + bound.output_tokens


def sane(answer: ModelAnswer, bound: Reservation) -> ModelAnswer:
    """A server's figures are foreign: negative ones are replaced by the bound, excessive ones are told."""
    if min(answer.cost_micro_usd, answer.input_tokens, answer.output_tokens) < 0:
        log.warning("model_usage_negative", provider=answer.provider, model=answer.model)
        return _replace(answer, bound)
    if answer.cost_micro_usd > bound.micro_usd:
        log.error(
            "model_cost_beyond_reservation",
            provider=answer.provider,
            cost=answer.cost_micro_usd,
            reserved=bound.micro_usd,
        )
    return answer


def unwritable(answer: ModelAnswer) -> ModelCallError | None:
    """The failure that an answer is which cannot be kept, as half of a surrogate pair cannot; it was paid
    for."""
    try:
        canonical([answer.text, [call.as_json() for call in answer.tool_calls], list(answer.fallbacks)])
    except RunloopError as error:
        return ModelCallError(
            f"the model provider {answer.provider} answered what cannot be kept: {error.message[:200]}",
            hint="ask again, or choose another model: 'rlp providers'",
            code="model.protocol",
            cost_micro_usd=answer.cost_micro_usd,
        )
    return None


def _replace(answer: ModelAnswer, bound: Reservation) -> ModelAnswer:
    return replace(
        answer,
        cost_micro_usd=bound.micro_usd,
        input_tokens=bound.input_tokens,
        output_tokens=bound.output_tokens,
        estimated=True,
    )


def unanswered(ask: Ask, bound: Reservation, finish: str, cost: int, *, tokens: bool) -> ModelCalled:
    """A completion without an answer."""
    return ModelCalled(
        node=ask.caller.node,
        attempt=ask.caller.attempt,
        call=ask.call.index,
        provider=bound.provider,
        model=bound.model,
        generated=False,
        request_digest=ask.args_digest,
        answer_digest=blob_digest(b""),
        input_tokens=tokens_of(bound) - bound.output_tokens if tokens else 0,
        output_tokens=bound.output_tokens if tokens else 0,
        estimated=True,
        reserved_micro_usd=bound.micro_usd,
        cost_micro_usd=cost,
        price_version=bound.price_version,
        finish=finish,
        route=bound.route[:MAX_ROUTE],
    )
