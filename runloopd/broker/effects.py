"""What every effect has in common: the first mark, a deadline, and being cut short.

Knows: how an effect is admitted, how long a provider may take, what happens when its attempt is stopped.
Does not know: any particular effect (``broker.model_ops``, ``broker.mail_ops``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from runloop.clock import Clock
from runloop.errors import RefusedError
from runloop.events import Draft, HostcallAdmitted, Payload, Provenance
from runloopd.authority.approvals import Approval, Approvals
from runloopd.broker.asks import Ask
from runloopd.broker.ports import Reservation

__all__ = [
    "AbandonedError",
    "OverdueError",
    "admitted",
    "asked_by",
    "bounded",
    "draft",
    "insist",
    "provenance",
]

T = TypeVar("T")


class OverdueError(Exception):
    """The provider did not answer in time and was cancelled."""


class AbandonedError(Exception):
    """The attempt that asked was stopped."""


def provenance(ask: Ask, *, causes: tuple[int, ...], label: str | None = None) -> Provenance:
    """Where a fact about a call comes from."""
    caller = ask.caller
    return Provenance(
        causes=tuple(dict.fromkeys(causes)),
        node=caller.node,
        attempt=caller.attempt,
        agent=caller.pin.name,
        bundle=caller.pin.bundle_digest,
        token=caller.token_id,
        call=ask.call.index,
        label=label,
    )


def asked_by(ask: Ask) -> dict[str, str]:
    """For the action a person decides on: who started the run, where that was not the user. It is bound with
    the rest: what is approved for one program outside is approved for no other."""
    name = ask.run.asked_by
    return {"asked_by": name} if name and not name.startswith("operator:") else {}


def draft(ask: Ask, payload: Payload, *, causes: tuple[int, ...], label: str | None = None) -> Draft:
    """A fact about a call."""
    return Draft(
        payload=payload,
        actor="daemon",
        run=ask.caller.run,
        provenance=provenance(ask, causes=causes, label=label),
    )


def admitted(ask: Ask, *, causes: tuple[int, ...] = (), bound: Reservation | None = None) -> Draft:
    """First mark of an effect; ``bound``: the money held for it."""
    payload = HostcallAdmitted(
        node=ask.caller.node,
        attempt=ask.caller.attempt,
        call=ask.call.index,
        op=ask.op.name,
        effect=ask.op.effect,
        key=ask.key,
        args_digest=ask.args_digest,
        args_blob=ask.args_digest,
        request_bytes=ask.call.request_bytes,
        fuel=ask.call.fuel,
        reserved_micro_usd=bound.micro_usd if bound is not None else 0,
        reserved_for=bound.target if bound is not None else "",
        price_version=bound.price_version if bound is not None else "",
    )
    return draft(ask, payload, causes=(*ask.known, *causes))


async def insist(
    ask: Ask, approvals: Approvals, approval: Approval, clock: Clock, *, name: str, instead: str
) -> None:
    """Wait for the person's word; raise :class:`RefusedError` (``approval.<state>``) unless it is a yes.

    ``name``: of what was asked for; ``instead``: what the agent had better report than ask again.
    """
    decided = await bounded(approvals.wait(approval.id), clock, due_ms=None, abandoned=ask.abandoned)
    if decided.approved:
        return
    note = f": {decided.note}" if decided.note else ""
    words = {
        "denied": f"the operator denied it{note}",
        "expired": "nobody approved it in time",
        "undone": "the operator took the approval back",
        "voided": f"the approval became void{note}",
    }
    raise RefusedError(
        f"{name} was not approved: {words[decided.state]}",
        hint=f"do not ask again for the same; report {instead} instead",
        code=f"approval.{decided.state}",
    )


async def bounded(
    work: Coroutine[Any, Any, T], clock: Clock, *, due_ms: int | None, abandoned: asyncio.Event | None
) -> T:
    """The result of ``work``, unless its time is over or nobody waits for it any more: then it is cancelled.

    Raises :class:`OverdueError`, :class:`AbandonedError`, or whatever ``work`` raises.
    """
    task = asyncio.ensure_future(work)
    due = asyncio.ensure_future(clock.sleep_until(due_ms)) if due_ms is not None else None
    gone = asyncio.ensure_future(abandoned.wait()) if abandoned is not None else None
    others = [other for other in (due, gone) if other is not None]
    try:
        await asyncio.wait([task, *others], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        # A provider that finished in the very moment it was cancelled has finished.
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            return task.result()
        raise OverdueError if due is not None and due.done() else AbandonedError
    finally:
        for other in (task, *others):
            other.cancel()
        for other in others:
            with suppress(asyncio.CancelledError):
                await other
