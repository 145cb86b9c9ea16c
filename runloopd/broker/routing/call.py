"""One completion on its way along the routes: what it has spent, shown and met.

Knows: when another attempt is safe for the purse, what may be booked, and how several failures are told as
one. Does not know: which routes there are (``catalogue``), or any protocol (``providers``).

Money: a request that may have been billed is never silently repeated on a priced route beyond what was
reserved (attacks.md K6). Everything that failed on the way is reported in the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from runloop.clock import Clock
from runloop.errors import RefusedError, RunloopError, UsageError
from runloop.ops import ModelComplete
from runloopd.broker.ports import Asker, Budget, ModelAnswer, ModelCallError
from runloopd.broker.providers.completion import (
    Completion,
    estimated_prompt_tokens,
    estimated_tokens,
    prompt_bytes,
)
from runloopd.broker.routing.cassette import Recorder
from runloopd.broker.routing.kept import KeptAnswers, key_of
from runloopd.broker.routing.latency import FirstWord
from runloopd.broker.routing.patience import Breaker, Patience
from runloopd.broker.routing.policy import Decision
from runloopd.broker.routing.prices import price_of
from runloopd.broker.routing.route import Route, unpriced
from runloopd.broker.routing.told import Told

__all__ = ["Attempts", "Call", "over_budget"]


class Attempts:
    """Asks one route, again where that is safe; remembers who fails."""

    def __init__(
        self,
        clock: Clock,
        jitter: Callable[[], float],
        patience: Patience,
        *,
        first_word: FirstWord | None = None,
        kept: KeptAnswers | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._patience = patience
        self._breakers: dict[str, Breaker] = {}
        self.first_word = first_word or FirstWord()
        self.kept = kept
        """None: every request is asked."""
        self.recorder = recorder

    def now_ms(self) -> int:
        """The present moment, for times beside an answer."""
        return self._clock.now_ms()

    def resting(self, route: Route) -> bool:
        """Whether its provider is left alone at this moment."""
        return self._breaker(route).open(self._clock.now_ms())

    def _breaker(self, route: Route) -> Breaker:
        return self._breakers.setdefault(route.name, Breaker(self._patience))

    async def attempt(
        self, route: Route, ask: Callable[[float], Awaitable[Completion]], call: Call
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
                self.first_word.note(route.target, route.timeout_ms)
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


class Call:
    """One completion on its way along the routes."""

    def __init__(
        self,
        attempts: Attempts,
        request: ModelComplete,
        budget: Budget,
        on_delta: Callable[[str], None] | None,
        key: str,
        asker: Asker,
    ) -> None:
        self._attempts = attempts
        self._request = request
        self._key = key
        self._asker = asker
        self._show = on_delta
        self._lost_micro_usd = 0
        """Bound of attempts that may have been billed and brought nothing."""
        self._met: list[str] = []
        self._codes: list[str] = []
        """The same, as ``provider:model (code)``: without a word of a server."""
        self._began_ms = 0
        self._pieces: list[tuple[int, str]] = []
        self._failures: list[RunloopError] = []
        self.budget = budget
        self.shown = False

    async def run(self, decision: Decision) -> ModelAnswer:
        """The first answer; raises what stood in the way where there is none."""
        for route in decision.routes:
            kept = await self._kept(route)
            if kept is not None:
                return await self._again(route, kept, decision)
            completion = await self._try(route)
            if completion is not None:
                return await self._answered(route, completion, decision)
        raise self._nobody_answered()

    async def _kept(self, route: Route) -> Told | None:
        """What the same agent was told before on an equal request."""
        kept = self._attempts.kept
        key = key_of(self._request, route, self._asker) if kept is not None else None
        return None if kept is None or key is None else await kept.find(key)

    async def _again(self, route: Route, told: Told, decision: Decision) -> ModelAnswer:
        """An answer from the cache: shown piece by piece, and paid for already."""
        for _, text in told.pieces:
            if self._show is not None:
                self._on_delta(text)
        answer = ModelAnswer(
            text=told.completion.text,
            provider=route.name,
            model=route.model,
            generated=True,
            input_tokens=0,
            output_tokens=0,
            estimated=False,
            cost_micro_usd=self._lost_micro_usd,
            price_version=told.price.version,
            finish=told.completion.finish,
            parts=told.completion.parts if self._request.stream else (),
            tool_calls=told.completion.tool_calls,
            fallbacks=tuple(self._met),
            route=f"{self._words(route, decision)}; from the cache, saved {told.cost_micro_usd}",
            source="cache",
            saved_micro_usd=told.cost_micro_usd,
        )
        await self._record(lambda: told, answer.cost_micro_usd)
        return answer

    async def _answered(self, route: Route, completion: Completion, decision: Decision) -> ModelAnswer:
        """The answer of a model; kept and recorded where that is wanted."""
        answer = self._answer(route, completion, self._words(route, decision))
        kept = self._attempts.kept
        key = None if kept is None else key_of(self._request, route, self._asker)
        if kept is not None and key is not None and answer.finish == "stop":
            await kept.keep(self._told(key, route, completion, answer))
        await self._record(lambda: self._told("", route, completion, answer), answer.cost_micro_usd)
        return answer

    async def _record(self, told: Callable[[], Told], cost_micro_usd: int) -> None:
        """On the cassette, if there is one. What cannot be recorded fails with what it cost: it is booked."""
        recorder = self._attempts.recorder
        if recorder is None:
            return
        try:
            await recorder.record(self._request, told())
        except UsageError as error:
            raise ModelCallError(
                f"the answer came and could not be recorded: {error.message}",
                hint=error.hint,
                code="model.cassette",
                cost_micro_usd=cost_micro_usd,
            ) from error

    def _words(self, route: Route, decision: Decision) -> str:
        return decision.words(self._request, route, self._codes)

    def _told(self, key: str, route: Route, completion: Completion, answer: ModelAnswer) -> Told:
        assert route.price is not None
        whole = [(self._attempts.now_ms() - self._began_ms, completion.text)] if completion.text else []
        return Told(
            key=key,
            provider=route.name,
            model=route.model,
            kind=route.kind,
            completion=completion,
            pieces=self._pieces or whole,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            estimated=answer.estimated,
            cost_micro_usd=answer.cost_micro_usd - self._lost_micro_usd,
            price=route.price,
            at_ms=self._attempts.now_ms(),
        )

    async def _try(self, route: Route) -> Completion | None:
        if route.price is None:
            self._note(route, unpriced(route))
            return None
        bound = route.bound(self._request)
        if bound > self.budget.micro_usd - self._lost_micro_usd:
            self._note(route, over_budget(f"{route.target} may cost more than what is reserved"))
            return None
        try:
            return await self._attempts.attempt(route, lambda seconds: self._ask(route, seconds), self)
        except ModelCallError as error:
            if error.cost_micro_usd is None:
                self._lost_micro_usd += bound
            self._note(route, error)
            optional = route.detected or route.kind == "rules"
            if self.shown or not (error.retryable or optional):
                raise self._nobody_answered(error) from error
            return None
        except RefusedError as error:
            if not self._lost_micro_usd:
                raise
            # Nothing was sent now, but an earlier route may have been billed: that must be booked.
            self._note(route, error)
            raise self._nobody_answered() from error

    async def _ask(self, route: Route, timeout_s: float) -> Completion:
        self._began_ms = self._attempts.now_ms()
        self._pieces.clear()
        completion = await route.provider.complete(
            self._request,
            model=route.model,
            timeout_s=timeout_s,
            on_delta=self._on_delta if self._show is not None else None,
            idempotency_key=self._key,
        )
        first_ms = self._pieces[0][0] if self._pieces else self._attempts.now_ms() - self._began_ms
        self._attempts.first_word.note(route.target, first_ms)
        return completion

    def _on_delta(self, text: str) -> None:
        self.shown = True
        self._pieces.append((max(0, self._attempts.now_ms() - self._began_ms), text))
        assert self._show is not None
        self._show(text)

    def _note(self, route: Route, error: RunloopError) -> None:
        self._met.append(f"{route.target}: {error.message}")
        self._codes.append(f"{route.target[:80]} ({error.named_code})")
        self._failures.append(error)

    def _answer(self, route: Route, completion: Completion, words: str) -> ModelAnswer:
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
            tool_calls=completion.tool_calls,
            fallbacks=tuple(self._met),
            route=words,
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


def _counted(route: Route, request: ModelComplete, completion: Completion) -> tuple[int, int, bool]:
    """Tokens to book, and whether they are an estimate.

    A count is believed inside the bounds of the reservation. Negative, absurd or, where money is at stake,
    zero ones are not (attacks.md K6): then the bound is booked, or a fair guess where it is free.
    """
    most_in, most_out = prompt_bytes(request), request.max_tokens
    usage = completion.usage
    if usage is not None:
        fits = 0 <= usage.input_tokens <= most_in and 0 <= usage.output_tokens <= most_out
        told = usage.input_tokens > 0 and (usage.output_tokens > 0 or not completion.said)
        if fits and (told or route.free):
            return usage.input_tokens, usage.output_tokens, route.kind == "rules"
    if route.free:
        guess = estimated_prompt_tokens(request)
        return min(guess, most_in), min(estimated_tokens(completion.said), most_out), True
    # Thinking that is billed but not shown cannot be counted from the text.
    return most_in, most_out, True


def _insist_on_schema(route: Route, request: ModelComplete, completion: Completion, cost: int) -> None:
    if request.json_schema is None or completion.tool_calls:
        return  # who asks for a function has not answered yet
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


def over_budget(why: str) -> RefusedError:
    """The refusal of what may pass the reservation."""
    return RefusedError(why, hint="raise the budget of the run, or lower max_tokens", code="budget.exceeded")


def _no_time(route: Route) -> ModelCallError:
    return ModelCallError(
        f"no time is left to ask {route.target}",
        hint="give the node a longer timeout",
        code="model.timeout",
        retryable=True,
    )
