"""A person's word before a run spends more than a threshold (``budgets.ask_micro_usd``).

Knows: when to ask, what is shown, that one question at a time is open for a tree of runs and its answer holds
for every call of it. Does not know: what a call costs (``broker.models``), how people are asked
(``authority.approvals``), or the hard limits (``quotas``), which no word moves.

The threshold counts what is spent and what is held, the call in question included. A yes raises it: to twice
what it was, or to what this call needs, if that is more; the question says to how much. A no is the last
word: calls that fit under the threshold go on, others are refused, and nobody is asked again. What costs
nothing never asks. The open question, a yes and a no are in the ledger, so that a restart asks nothing twice.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from runloop.clock import Clock
from runloop.errors import NotFoundError, RefusedError
from runloop.quantities import dollars
from runloopd.authority.approvals import Approval, Approvals, Question
from runloopd.broker.asks import Ask
from runloopd.broker.effects import asked_by, bounded, provenance
from runloopd.broker.ports import Reservation
from runloopd.broker.quotas import Purse
from runloopd.broker.threshold import SPEND, Threshold

__all__ = ["Spending"]

CONTENT_TYPE = "application/json"


class Spending:
    """Asks before the threshold is passed."""

    def __init__(self, approvals: Approvals, clock: Clock) -> None:
        self._approvals = approvals
        self._clock = clock
        self._asking: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()

    def fits(self, ask: Ask, bound: Reservation) -> bool:
        """Whether nobody need be asked at this moment. No await may come between this and the reservation."""
        limit = ask.run.tree.threshold.at(self._clock.now_ms())
        if not bound.micro_usd or limit is None or _used(ask) + bound.micro_usd <= limit:
            return True
        # Others may have used up what its own yes brought; the yes was for this call.
        own = self._own(ask)
        return (
            own is not None
            and own.dispatch_after_ms <= self._clock.now_ms()
            and own.action["resource"] == _resource(bound)
            and own.action["amount_micro_usd"] >= bound.micro_usd
        )

    async def settle(self, ask: Ask, bound: Reservation) -> None:
        """Come back when asking :meth:`fits` again makes sense: something was decided.

        Raises :class:`RefusedError` ``approval.denied`` (or ``expired``, ``undone``) when nothing more may
        be spent, ``AbandonedError`` when the attempt was stopped.
        """
        threshold = ask.run.tree.threshold
        if threshold.closed is not None:
            raise _refused(bound, threshold)
        async with self._asking.setdefault(ask.run.tree, asyncio.Lock()):
            if self.fits(ask, bound) or threshold.closed is not None:
                return
            name = threshold.pending(self._clock.now_ms())
            if name is None:
                name = (await self._approvals.request(self._question(ask, bound, threshold))).id
        try:
            await bounded(self._approvals.wait(name), self._clock, due_ms=None, abandoned=ask.abandoned)
        except NotFoundError:
            return  # asked by a nested run that is over: the question went with it

    async def used(self, ask: Ask, bound: Reservation) -> None:
        """Take the one use of the yes that this very call was asked about, if it was."""
        approval = self._own(ask)
        if approval is not None:
            await self._approvals.claim(approval.id, approval.action, ask.args_blob, check=ask.check)
            self._approvals.consumed(approval.id)

    def _own(self, ask: Ask) -> Approval | None:
        """The yes to this very call, if it was not used yet."""
        found = self._approvals.asked(ask.caller.run, ask.caller.node, ask.key, ask.args_digest)
        is_yes = found is not None and found.state == "active" and found.action.get("kind") == SPEND
        return found if is_yes else None

    def _question(self, ask: Ask, bound: Reservation, threshold: Threshold) -> Question:
        return Question(
            run=ask.caller.run,
            node=ask.caller.node,
            attempt=ask.caller.attempt,
            call=ask.call.index,
            op=ask.op.name,
            effect=ask.op.effect,
            key=ask.key,
            args_digest=ask.args_digest,
            action=self._action(ask, bound, threshold),
            content=ask.args_blob,
            content_type=CONTENT_TYPE,
            provenance=provenance(ask, causes=ask.known),
        )

    def _action(self, ask: Ask, bound: Reservation, threshold: Threshold) -> dict[str, Any]:
        """The canonical action: what the person decides on, apart from the words to the model."""
        limit, used = threshold.at(self._clock.now_ms()) or 0, _used(ask)
        after = max(2 * limit, used + bound.micro_usd)
        return {
            "kind": SPEND,
            "summary": (
                f"ask {bound.target} for at most {dollars(bound.micro_usd)}: {dollars(used)} of the run's"
                f" money is spent or held, and from {dollars(limit)} on a person is asked; the next time from"
                f" {dollars(after)} on"
            ),
            "recipients": [],
            "resource": _resource(bound),
            "agent": ask.agent,
            "bundle": ask.caller.pin.bundle_digest,
            "run": ask.caller.run,
            "node": ask.caller.node,
            "key": ask.key,
            **asked_by(ask),
            "amount_micro_usd": bound.micro_usd,
            "spent_micro_usd": used,
            "threshold_micro_usd": limit,
            "next_micro_usd": after,
            "price_version": bound.price_version,
        }


def _resource(bound: Reservation) -> str:
    return f"model:{bound.target}"


def _outermost(purse: Purse) -> Purse:
    while purse.within is not None:
        purse = purse.within
    return purse


def _used(ask: Ask) -> int:
    purse = _outermost(ask.run.purse)
    return purse.spent_micro_usd + purse.held_micro_usd


def _refused(bound: Reservation, threshold: Threshold) -> RefusedError:
    words = {
        "denied": "the operator said no to spending more",
        "expired": "nobody said yes to spending more in time",
        "undone": "the operator took back the yes to spending more",
    }
    closed = threshold.closed or "denied"
    return RefusedError(
        f"{bound.target} may cost {bound.micro_usd} micro-dollars: {words[closed]}",
        hint="go on with a model that costs nothing, or report what is done so far",
        code=f"approval.{closed}",
    )
