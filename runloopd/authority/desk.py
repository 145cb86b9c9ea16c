"""Questions outside of any run: put to the operator, answered once, carried out by whoever they belong to.

What a run asks has a guest waiting for it; what the operator asks for himself (an install, a trust anchor)
has nobody, and must survive a restart all the same. Knows: which questions are open, who carries out a yes,
and how each ended. Does not know: what an install is (``runtime.installer``) or a trust anchor
(``authority.anchors``): they are handlers, one per op. The states and the one use are the matter of
``authority.approvals``.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from runloop.digest import digest
from runloop.errors import NotFoundError, RefusedError, RunloopError
from runloop.events import Provenance
from runloopd.authority.approval import Approval, Decided, Question, action_digest
from runloopd.authority.approvals import Approvals

__all__ = ["CONTENT_TYPE", "Desk", "Handler", "Outcome"]

log = structlog.get_logger(__name__)

CONTENT_TYPE = "text/plain; charset=utf-8"
_REMEMBERED = 256
"""Outcomes held for whoever asks how it ended; the ledger holds them all."""


class Handler(Protocol):
    """Carries out one kind of question."""

    async def granted(self, approval: Approval, decided: Decided) -> dict[str, Any]:
        """Do it, claiming the approval in the same transaction as the fact. Raises when it cannot be done:
        then the approval is void."""
        ...

    async def refused(self, approval: Approval) -> None:
        """It will not be done: clean up."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a question ended."""

    state: str
    """``done``, ``denied``, ``expired``, ``voided`` or ``failed``."""
    result: dict[str, Any] | None = None
    error: RunloopError | None = None

    def to_json(self) -> dict[str, Any]:
        """As a client sees it."""
        error = self.error.to_wire() if self.error is not None else None
        return {"state": self.state, "result": self.result, "error": error}


class Desk:
    """Every open question outside of a run."""

    def __init__(self, approvals: Approvals) -> None:
        self._approvals = approvals
        self._handlers: dict[str, Handler] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._ended: OrderedDict[str, Outcome] = OrderedDict()
        self._asking = asyncio.Lock()

    def serve(self, op: str, handler: Handler) -> None:
        """Name who carries out the questions of an op; before any is asked or resumed."""
        self._handlers[op] = handler

    async def ask(self, op: str, subject: str, action: dict[str, Any], content: str) -> Approval:
        """Put a question; one and the same question is put once, a different one of the same subject voids
        the older.

        ``action`` names everything the decision is bound to; ``content`` is what a person reads. Durable when
        it returns.
        """
        action = {"kind": op, "subject": subject, **action}
        text = content.encode()
        async with self._asking:
            for earlier in self.open(op, subject):
                if earlier.action_digest == action_digest(action, text):
                    self._watch(earlier)  # a yes that could not be carried out is tried again
                    return earlier
                await self._approvals.void_one(earlier.id, "a newer question took its place")
            approval = await self._approvals.request(
                Question(
                    run=None,
                    node="",
                    attempt=0,
                    call=0,
                    op=op,
                    effect=op,
                    # A wish that was denied may be wished again: no two questions are one.
                    key=f"{op}:{subject}:{secrets.token_hex(8)}",
                    args_digest=digest(action),
                    action=action,
                    content=text,
                    content_type=CONTENT_TYPE,
                    provenance=Provenance(),
                )
            )
            self._watch(approval)
            return approval

    def open(self, op: str | None = None, subject: str | None = None) -> list[Approval]:
        """Questions without an end yet: unanswered, or answered yes and not carried out."""
        return [
            approval
            for approval in self._approvals.list()
            if approval.run is None
            and op in (None, approval.op)
            and subject in (None, approval.action.get("subject"))
        ]

    def resume(self) -> int:
        """After a restart: take up every question that has no end yet; returns how many."""
        for approval in self._approvals.list(all=True):
            self._approvals.retire(approval.id)
        found = self.open()
        for approval in found:
            self._watch(approval)
        return len(found)

    async def outcome(self, name: str, timeout_s: float) -> Outcome | None:
        """How a question ended; None when it has not within ``timeout_s``.

        Raises :class:`NotFoundError` for one this daemon does not know (any more).
        """
        watching = self._watching.get(name)
        if watching is not None:
            await asyncio.wait([watching], timeout=timeout_s)
        elif name not in self._ended:
            raise NotFoundError(
                f"nobody waits for {name} here", hint="'rlp approvals --all' tells what became of it"
            )
        return self._ended.get(name)

    async def close(self) -> None:
        """Stop watching; what has no end yet is taken up by the next daemon."""
        tasks = list(self._watching.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- inside -----------------------------------------------------------------------------------

    def _watch(self, approval: Approval) -> None:
        if approval.id in self._watching or approval.op not in self._handlers:
            return
        task = asyncio.create_task(self._see(approval), name=f"question {approval.id}")
        self._watching[approval.id] = task
        task.add_done_callback(lambda _: self._watching.pop(approval.id, None))

    async def _see(self, approval: Approval) -> None:
        """From the question to its end."""
        handler = self._handlers[approval.op]
        decided = await self._approvals.wait(approval.id)
        if decided.approved:
            outcome = await self._carry(handler, approval, decided)
        else:
            words = f": {decided.note}" if decided.note else ""
            error = RefusedError(
                f"{approval.action.get('summary', approval.op)} was {decided.state}{words}",
                hint="ask for it again if it was meant after all",
                code=f"approval.{decided.state}",
            )
            outcome = Outcome(state=decided.state, error=error)
        if outcome.error is not None:
            await self._clean(handler, approval)
        self._ended[approval.id] = outcome
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        self._approvals.retire(approval.id)

    async def _carry(self, handler: Handler, approval: Approval, decided: Decided) -> Outcome:
        try:
            return Outcome(state="done", result=await handler.granted(approval, decided))
        except RunloopError as error:
            failed = error
        except Exception as error:
            # The border between our own mistakes and a client: logged whole here, one sentence there.
            log.exception("question_failed", approval=approval.id, op=approval.op)
            failed = RunloopError(f"{approval.op} failed inside the daemon", hint="see the daemon's log")
            failed.__cause__ = error
        log.warning("question_not_carried_out", approval=approval.id, op=approval.op, why=failed.message)
        try:
            await self._approvals.void_one(approval.id, failed.message[:500])
        except RunloopError as error:
            log.error("question_not_voided", approval=approval.id, why=error.message)
            # The ledger takes nothing at present: as far as it knows, a yes is waiting to be carried out.
            failed.hint = (
                f"mend that first; the yes stands, and is carried out when it is asked for again or the "
                f"daemon starts anew, unless 'rlp undo {approval.id}' takes it back"
            )
        return Outcome(state="failed", error=failed)

    async def _clean(self, handler: Handler, approval: Approval) -> None:
        try:
            await handler.refused(approval)
        except Exception:
            log.exception("question_not_cleaned", approval=approval.id, op=approval.op)
