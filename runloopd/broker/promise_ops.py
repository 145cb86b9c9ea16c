"""Ops on promises: make one, wait for one, keep one, ask a person.

Knows: who may do which, quotas, and which words a guest hears. Does not know: how promises wait or time out
(``broker.promises``).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal, cast

from pog.promises import Promise, check_question
from runloop.clock import Clock
from runloop.errors import NotFoundError, RefusedError, RunloopError
from runloop.events import PromiseCreated, PromiseResolved
from runloop.ops import InputAsk, PromiseAwait, PromiseCreate, PromiseResolve
from runloopd.broker.asks import Ask, Done, require
from runloopd.broker.effects import bounded, draft
from runloopd.broker.phishing import names_secret
from runloopd.broker.ports import FactPort, JournalPort
from runloopd.broker.promises import Promises
from runloopd.broker.quotas import Quotas, check

__all__ = ["PromiseOps", "judge"]


def judge(ask: Ask) -> None:
    """What is refused without looking at any promise; raises."""
    args = ask.args
    require(ask, "promises", ask.op.name.partition(".")[2])
    if isinstance(args, (PromiseCreate, InputAsk)):
        check_question(args.question, args.choices, args.timeout_ms)
        # Among choices nothing can be typed; whatever else is answered, the agent and its model read.
        if not args.choices and names_secret([args.question]):
            raise RefusedError(
                "the question asks, or seems to ask, for a secret, and no agent is told one",
                hint="use a secret by its name (secret.use), or ask in other words, or with choices",
                code="promise.secret",
            )


class PromiseOps:
    """``promise.create|await|resolve`` and ``input.ask``."""

    def __init__(
        self, *, promises: Promises, journal: JournalPort, facts: FactPort, clock: Clock, quotas: Quotas
    ) -> None:
        self._promises = promises
        self._journal = journal
        self._facts = facts
        self._clock = clock
        self._quotas = quotas

    async def create(self, ask: Ask) -> Done:
        """``{promise, expires_ms}``."""
        judge(ask)
        args = cast(PromiseCreate, ask.args)
        fact = self._made(ask, args, args.resolver)
        return Done(
            value={"promise": fact.promise, "expires_ms": fact.expires_ms},
            facts=[fact],
            causes=ask.known,
            label=f"agent:{ask.agent}",
        )

    async def wait(self, ask: Ask) -> Done:
        """``{value, by}``, once it is resolved."""
        judge(ask)
        promise = self._mine(ask, cast(PromiseAwait, ask.args).promise)
        return await self._heard(await self._promises.wait(promise.id, ask.caller.run, ask.caller.node))

    async def resolve(self, ask: Ask) -> Done:
        """``{promise}``. The word is this call's alone until the answer is recorded."""
        judge(ask)
        args = cast(PromiseResolve, ask.args)
        promise = self._mine(ask, args.promise)
        if promise.resolver == "operator":
            raise RefusedError(
                f"promise {promise.id} is for a person to resolve",
                hint=f"rlp promise resolve {promise.id} VALUE",
                code="promise.operator",
            )
        word = self._promises.word(promise.id, args.value, f"agent:{ask.agent}")
        return Done(
            value={"promise": promise.id},
            facts=[word.payload],
            causes=(*ask.known, promise.created),
            label=f"agent:{ask.agent}",
            recorded=word.end,
            unrecorded=word.end,
        )

    async def ask(self, ask: Ask) -> Done:
        """``{value, by}``: a promise that only the operator resolves, made and awaited in one call.

        Asked again after a crash or a retry, the open question, or its answer, is found again.
        """
        judge(ask)
        args = cast(InputAsk, ask.args)
        try:
            promise = self._promises.find(_name(ask))
        except NotFoundError:
            fact = self._made(ask, args, "operator")
            ask.check()
            stated = draft(ask, fact, causes=ask.known, label=f"agent:{ask.agent}")
            await self._journal.append(stated)
            promise = self._promises.find(fact.promise)
        settled = await bounded(
            self._promises.wait(promise.id, ask.caller.run, ask.caller.node),
            self._clock,
            due_ms=None,
            abandoned=ask.abandoned,
        )
        return await self._heard(settled)

    # --- parts ------------------------------------------------------------------------------------

    def _made(
        self, ask: Ask, args: PromiseCreate | InputAsk, resolver: Literal["run", "operator"]
    ) -> PromiseCreated:
        limits = ask.run.limits.get(ask.agent) or self._quotas.of(ask.agent)
        made = self._promises.made_by(ask.caller.run, ask.agent)
        warned = ask.run.warned_agent(ask.agent)
        ask.facts += check("promises", made, 1, limits["promises"], agent=ask.agent, warned=warned)
        return PromiseCreated(
            promise=_name(ask),
            node=ask.caller.node,
            attempt=ask.caller.attempt,
            call=ask.call.index,
            agent=ask.agent,
            resolver=resolver,
            question=args.question,
            choices=args.choices,
            expires_ms=self._clock.now_ms() + args.timeout_ms,
        )

    def _mine(self, ask: Ask, name: str) -> Promise:
        """A promise of the caller's own run, by its whole id; of any other it does not even learn that it is
        there."""
        promise: Promise | None = None
        with suppress(RunloopError):
            promise = self._promises.find(name)
        if promise is None or promise.id != name or promise.run != ask.caller.run:
            raise NotFoundError(
                f"this run has no promise {name[:80]!r}",
                hint="await and resolve what promise.create answered",
                code="promise.unknown",
            )
        return promise

    async def _heard(self, promise: Promise) -> Done:
        """What the guest hears of a promise that is settled: from the ledger, whoever was awake then."""
        if promise.state != "resolved" or promise.settled is None:
            late = RefusedError(
                f"promise {promise.id} timed out: nobody resolved it", code="promise.timed_out"
            )
            causes = () if promise.settled is None else (promise.created, promise.settled)
            return Done.failed(late, causes=causes)
        event = await self._facts.fact(promise.settled)
        said = cast(PromiseResolved, event.payload)
        value: dict[str, Any] = {"value": said.value, "by": said.principal}
        return Done(value=value, causes=(promise.created, event.id))


def _name(ask: Ask) -> str:
    """The id of the promise a call makes: the same in a later attempt and after a restart."""
    return f"pr_{ask.key[:20]}"
