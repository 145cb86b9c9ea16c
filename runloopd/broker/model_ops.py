"""Asking a model: reserve, admit, ask, book what it cost.

Knows: the money side of a completion and how a streamed answer is read back. Does not know: routes, prices
or wires (``broker.models``), nor who may ask (the gate and ``require``).

A completion is stated as ``model.called`` in the transaction of its answer. One that was cut by a crash is
booked at its whole reservation when it is asked again, and says so: nothing is spent silently.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

import msgspec
import structlog

from runloop.clock import Clock
from runloop.digest import blob_digest, canonical
from runloop.errors import NotFoundError, UsageError
from runloop.events import ModelCalled
from runloop.ops import ModelComplete, ModelEmbed, MsgNext
from runloopd.broker.asks import Ask, Done, require
from runloopd.broker.booking import MAX_ROUTE, sane, tokens_of, unanswered, unwritable
from runloopd.broker.effects import AbandonedError, OverdueError, admitted, bounded, draft
from runloopd.broker.embedding import EmbedPort
from runloopd.broker.ports import (
    Asker,
    BlobPort,
    Budget,
    Delta,
    JournalPort,
    ModelAnswer,
    ModelCallError,
    ModelPort,
    Reservation,
)
from runloopd.broker.providers.tool_calls import check_tools
from runloopd.broker.quotas import Hold, Limits, QuotaError, Quotas
from runloopd.broker.record import UNKNOWN_OUTCOME
from runloopd.broker.shown import Shown
from runloopd.broker.spending import Spending

__all__ = ["ModelOps", "to_embed"]

log = structlog.get_logger(__name__)

T = TypeVar("T")

MAX_OUTPUT_TOKENS = 65_536
MAX_TEXTS = 64
MAX_TEXT_BYTES = 262_144


class ModelOps:
    """``model.complete``, ``model.embed`` and ``msg.next``."""

    def __init__(
        self,
        *,
        models: ModelPort,
        embeddings: EmbedPort,
        journal: JournalPort,
        blobs: BlobPort,
        clock: Clock,
        on_delta: Callable[[Delta], None],
        deadline_ms: int = 120_000,
        quotas: Quotas,
        spending: Spending,
    ) -> None:
        self._spending = spending
        self._models = models
        self._embeddings = embeddings
        self._journal = journal
        self._blobs = blobs
        self._clock = clock
        self._on_delta = on_delta
        self._deadline_ms = deadline_ms
        self._quotas = quotas

    async def complete(self, ask: Ask) -> Done:
        """``{text, provider, model, generated, finish, …}``, or ``{stream, …}`` when asked to stream.

        Either has ``tool_calls`` when the model asked for functions.
        """
        request = _checked(cast(ModelComplete, ask.args))
        if ask.caller.model is not None:
            request = msgspec.structs.replace(request, model=ask.caller.model)
        require(ask, "model", "")
        bound = await self._models.estimate(request, lambda target: _permits(ask, target), asker=_asker(ask))
        return await self._held(ask, bound, partial(self._ask, ask, request))

    async def embed(self, ask: Ask) -> Done:
        """``{vectors, embedder, provider, model, dimensions, …}``."""
        request = to_embed(cast(ModelEmbed, ask.args))
        require(ask, "model", "")
        bound = await self._embeddings.estimate(request, lambda target: _permits(ask, target))
        return await self._held(ask, bound, partial(self._vectors, ask, request))

    async def _held(
        self, ask: Ask, bound: Reservation, call: Callable[[Reservation, Hold, int], Awaitable[Done]]
    ) -> Done:
        """Make a call with what it may cost held and its first mark stated."""
        require(ask, "model", bound.target)
        try:
            hold = await self._affordable(ask, bound)
        except QuotaError:
            if (lost := self._lost(ask, bound)) is not None:
                ask.facts.append(lost)  # stated with the refusal
            raise
        try:
            mark = await self._admit(ask, bound)
            return await call(bound, hold, mark)
        except BaseException:
            hold.release()
            raise

    async def _affordable(self, ask: Ask, bound: Reservation) -> Hold:
        """What the call may cost, held: within every limit, and with a person's word where one is asked."""
        while not self._spending.fits(ask, bound):
            self._reserve(ask, bound.micro_usd, tokens_of(bound)).release()  # nobody is asked in vain
            await self._spending.settle(ask, bound)
        hold = self._reserve(ask, bound.micro_usd, tokens_of(bound))
        try:
            await self._spending.used(ask, bound)
        except BaseException:
            hold.release()
            raise
        return hold

    async def _bounded(
        self, ask: Ask, bound: Reservation, hold: Hold, call: Callable[[Budget], Coroutine[Any, Any, T]]
    ) -> T | Done:
        """What the broker answers within the call's budget, or the failure, booked."""
        due = self._clock.now_ms() + self._deadline_ms
        budget = Budget(
            micro_usd=bound.micro_usd,
            tokens=bound.input_tokens + bound.output_tokens,
            deadline_ms=due,
            permits=lambda target: _permits(ask, target),
        )
        try:
            return await bounded(call(budget), self._clock, due_ms=due, abandoned=ask.abandoned)
        except ModelCallError as error:
            return self._failed(ask, bound, hold, error)
        except OverdueError:
            return self._failed(ask, bound, hold, self._late(bound))
        except AbandonedError:
            cut = ModelCallError("the attempt was stopped", code="model.cancelled", cost_micro_usd=None)
            return self._failed(ask, bound, hold, cut)

    async def _vectors(
        self, ask: Ask, request: ModelEmbed, bound: Reservation, hold: Hold, mark: int
    ) -> Done:
        answer = await self._bounded(
            ask, bound, hold, lambda budget: self._embeddings.embed(request, budget=budget)
        )
        if isinstance(answer, Done):
            return answer
        vectors = [list(memoryview(vector.numbers).cast("b")) for vector in answer.vectors]
        value = {
            "vectors": vectors,
            "embedder": answer.target,
            "provider": answer.provider,
            "model": answer.model,
            "dimensions": len(vectors[0]),
            "input_tokens": answer.input_tokens,
            "estimated": answer.estimated,
            "cost_micro_usd": answer.cost_micro_usd,
        }
        spent = unanswered(ask, bound, "embedded", answer.cost_micro_usd, tokens=False)
        called = msgspec.structs.replace(
            spent,
            answer_digest=blob_digest(canonical(vectors)),
            input_tokens=answer.input_tokens,
            estimated=answer.estimated,
        )
        return Done(
            value=value,
            facts=[called],
            causes=(mark,),
            label=f"model:{answer.provider}",
            recorded=hold.release,
            unrecorded=hold.keep,
        )

    def _late(self, bound: Reservation) -> ModelCallError:
        return ModelCallError(
            f"{bound.target} did not answer within {self._deadline_ms} ms",
            hint="try again, or a faster model",
            code="model.deadline",
            retryable=True,
            cost_micro_usd=None,
        )

    def _limits(self, ask: Ask) -> Limits:
        return ask.run.limits.get(ask.agent) or self._quotas.of(ask.agent)

    def _reserve(self, ask: Ask, micro_usd: int, tokens: int) -> Hold:
        """Within the run's budget, the node's, and the agent's quota."""
        return ask.run.purse.reserve(
            ask.caller.node, micro_usd, tokens, agent=ask.agent, limits=self._limits(ask)
        )

    async def _admit(self, ask: Ask, bound: Reservation) -> int:
        """State the first mark, and with it what an earlier, lost try of the same call may have cost."""
        marks, lost_hold = [admitted(ask, bound=bound)], None
        lost = self._lost(ask, bound)
        if lost is not None:
            # The money of a call that died with its daemon is held already.
            money = 0 if ask.run.effects[ask.key].hold is not None else lost.cost_micro_usd
            try:
                lost_hold = self._reserve(ask, money, lost.input_tokens + lost.output_tokens)
            except QuotaError:
                ask.facts.append(lost)  # stated with the refusal
                raise
            marks.insert(0, draft(ask, lost, causes=(ask.run.effects[ask.key].admitted,)))
        try:
            ask.facts += ask.run.purse.warnings(ask.agent, ask.run.warned_run, self._quotas.warn_percent)
            ask.facts += ask.run.purse.agent_warnings(
                ask.agent, self._limits(ask), ask.run.warned_agent(ask.agent)
            )
            ask.check()
            (*_, mark) = await self._journal.append(*marks, blobs=(ask.args_blob,))
            return mark.id
        finally:
            if lost_hold is not None:
                lost_hold.release()

    async def _ask(self, ask: Ask, request: ModelComplete, bound: Reservation, hold: Hold, mark: int) -> Done:
        shown = Shown(ask, self._clock, self._on_delta)

        def complete(budget: Budget) -> Coroutine[Any, Any, ModelAnswer]:
            return self._models.complete(
                request,
                budget=budget,
                on_delta=shown.add,
                idempotency_key=ask.key,
                asker=_asker(ask),
            )

        try:
            answer = await self._bounded(ask, bound, hold, complete)
        finally:
            shown.flush()
        if isinstance(answer, Done):
            return answer
        answer = sane(answer, bound)
        if (unfit := unwritable(answer)) is not None:
            return self._failed(ask, bound, hold, unfit)
        return self._answered(ask, bound, hold, answer, mark)

    def _answered(self, ask: Ask, bound: Reservation, hold: Hold, answer: ModelAnswer, mark: int) -> Done:
        text = answer.text.encode()
        called = ModelCalled(
            node=ask.caller.node,
            attempt=ask.caller.attempt,
            call=ask.call.index,
            provider=answer.provider,
            model=answer.model,
            generated=answer.generated,
            request_digest=ask.args_digest,
            answer_digest=blob_digest(text),
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            estimated=answer.estimated,
            reserved_micro_usd=bound.micro_usd,
            cost_micro_usd=answer.cost_micro_usd,
            price_version=answer.price_version,
            finish=answer.finish,
            route=answer.route[:MAX_ROUTE],
            source=answer.source,
            tool_calls=len(answer.tool_calls),
            saved_micro_usd=answer.saved_micro_usd,
        )
        value = {
            "provider": answer.provider,
            "model": answer.model,
            "generated": answer.generated,
            "finish": answer.finish,
            "input_tokens": answer.input_tokens,
            "output_tokens": answer.output_tokens,
            "estimated": answer.estimated,
            "cost_micro_usd": answer.cost_micro_usd,
        }
        if answer.route:
            value["route"] = answer.route[:MAX_ROUTE]
        if answer.source != "asked":
            value |= {"source": answer.source, "saved_micro_usd": answer.saved_micro_usd}
        if answer.tool_calls:
            value["tool_calls"] = [call.as_json() for call in answer.tool_calls]
        if answer.fallbacks:
            value["fallbacks"] = list(answer.fallbacks)
        blobs = [text]
        if cast(ModelComplete, ask.args).stream:
            parts = canonical(list(answer.parts or (answer.text,)))
            value |= {"stream": f"s{ask.call.index}", "parts_digest": blob_digest(parts)}
            blobs.append(parts)
        else:
            value["text"] = answer.text
        return Done(
            value=value,
            facts=[called],
            blobs=blobs,
            causes=(mark,),
            label=f"model:{answer.provider}",
            recorded=hold.release,
            unrecorded=hold.keep,
        )

    def _failed(self, ask: Ask, bound: Reservation, hold: Hold, error: ModelCallError) -> Done:
        """Tell the guest, and book what the failure cost: all that was reserved when nobody knows."""
        cost = bound.micro_usd if error.cost_micro_usd is None else max(0, error.cost_micro_usd)
        unknown = error.cost_micro_usd is None
        facts = []
        if cost or unknown:
            facts.append(unanswered(ask, bound, error.named_code, cost, tokens=unknown))
        return Done.failed(
            error, facts=list(facts), recorded=hold.release, unrecorded=hold.keep if cost else hold.release
        )

    def _lost(self, ask: Ask, bound: Reservation) -> ModelCalled | None:
        """The booking of the same completion begun before and never answered, if there was one.

        A local or offline model that died with the daemon cost nobody anything: its loss is stated, and
        books no tokens that the run could then not spend.
        """
        before = ask.run.effects.get(ask.key)
        if before is None or before.delivered is not None or before.lost:
            return None
        log.warning("model_call_lost", run=ask.caller.run, node=ask.caller.node, admitted=before.admitted)
        if before.reserved_for:  # at the price of then, whatever the list says now
            provider, _, model = before.reserved_for.partition(":")
            bound = replace(
                bound,
                provider=provider,
                model=model,
                micro_usd=before.reserved_micro_usd,
                price_version=before.price_version,
            )
        lost = unanswered(ask, bound, UNKNOWN_OUTCOME, bound.micro_usd, tokens=bound.micro_usd > 0)
        node, attempt, call = before.place
        return msgspec.structs.replace(lost, node=node, attempt=attempt, call=call)

    async def next(self, ask: Ask) -> Done:
        """``{item}`` or ``{done: true}``: the next piece of a streamed answer, a function of the record."""
        name = cast(MsgNext, ask.args).stream
        attempt = ask.run.attempt(ask.caller.node, ask.caller.attempt)
        number = int(name[1:]) if name[:1] == "s" and name[1:].isascii() and name[1:].isdigit() else -1
        source = attempt.calls.get(number)
        if source is None or source.op != "model.complete" or not source.ok or number >= ask.call.index:
            raise NotFoundError(f"msg.next: there is no stream {name!r}", code="stream.absent")
        answer = msgspec.json.decode(await self._blobs.blob(source.result_digest))
        if not isinstance(answer, dict) or answer.get("stream") != name:
            raise NotFoundError(f"msg.next: call {number} was not streamed", code="stream.absent")
        parts = msgspec.json.decode(await self._blobs.blob(str(answer["parts_digest"])), type=list[str])
        at = attempt.ordinal("msg.next", ask.args_digest, ask.call.index)
        return Done(value={"item": parts[at]} if at < len(parts) else {"done": True}, causes=(source.event,))


def _checked(request: ModelComplete) -> ModelComplete:
    if not request.messages and request.template is None:
        raise UsageError("model.complete: no messages and no template", code="op.args")
    if not 1 <= request.max_tokens <= MAX_OUTPUT_TOKENS:
        raise UsageError(
            f"model.complete: max_tokens is {request.max_tokens}, not 1 to {MAX_OUTPUT_TOKENS}",
            code="op.args",
        )
    check_tools(request)
    return request


def to_embed(request: ModelEmbed) -> ModelEmbed:
    """The arguments, if they are fit; raises :class:`UsageError`."""
    if not 1 <= len(request.texts) <= MAX_TEXTS or not all(text.strip() for text in request.texts):
        raise UsageError(f"model.embed: 1 to {MAX_TEXTS} texts, none of them empty", code="op.args")
    size = sum(len(text.encode("utf-8", "replace")) for text in request.texts)
    if size > MAX_TEXT_BYTES:
        raise UsageError(f"model.embed: {size} bytes, more than {MAX_TEXT_BYTES}", code="op.args")
    if request.model is not None and not 1 <= len(request.model) <= 200:
        raise UsageError("model.embed: the model pattern is empty or too long", code="op.args")
    return request


def _asker(ask: Ask) -> Asker:
    return Asker(agent=ask.agent, bundle=ask.caller.pin.bundle_digest, private=ask.run.tree.private)


def _permits(ask: Ask, target: str) -> bool:
    return ask.grants.allows("model", target).allowed
