"""Human decisions: asked for, answered once, bound to the exact bytes, used once.

Knows: the states of an approval and the legal moves between them, who may decide, when a decision takes
effect and when it is too late. Does not know: what the content means, how it is shown (``rlp``), or how the
effect is carried out (the gate). Every move is in the ledger before anybody sees it; after a restart the
same events give the same states (:meth:`Approvals.restore`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

from runloop.approval import confirming_word, confirms, widens
from runloop.clock import Clock
from runloop.digest import blob_digest, digest
from runloop.errors import NotFoundError, RefusedError, UsageError
from runloop.events import (
    ActionClaimed,
    ActionDecided,
    ActionRequested,
    AgentInstalled,
    CapAudit,
    Draft,
    EmailSent,
    Event,
    McpServerAdded,
    McpToolsApproved,
    Provenance,
    ToolCalled,
    TrustChanged,
)
from runloopd.authority.approval import (
    FINAL,
    MOVES,
    STATE_OF,
    Approval,
    ApprovalError,
    Decided,
    Question,
    State,
    action_digest,
)
from runloopd.authority.mint import Appender
from runloopd.bus.principal import DAEMON, Principal
from runloopd.waiting import Moves, first

__all__ = ["APPROVAL_KINDS", "Approval", "ApprovalError", "Approvals", "Decided", "Question"]

APPROVAL_KINDS = (
    ActionRequested.kind,
    ActionDecided.kind,
    ActionClaimed.kind,
    EmailSent.kind,
    AgentInstalled.kind,
    TrustChanged.kind,
    McpServerAdded.kind,
    McpToolsApproved.kind,
)
"""What the state of an approval is folded from."""
_CARRIED_OUT = (EmailSent, ToolCalled, AgentInstalled, TrustChanged, McpServerAdded, McpToolsApproved)
"""Facts that name the approval they carry out."""
_PREFIX = 6
"""Fewest characters that name an approval."""
_WORDS = {"approve": "approved", "deny": "denied", "undo": "undone"}


class Approvals:
    """Every approval of the runs that are not over."""

    def __init__(
        self, journal: Appender, clock: Clock, *, expiry_ms: int = 604_800_000, undo_window_ms: int = 5_000
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._expiry_ms = expiry_ms
        self._undo_window_ms = undo_window_ms
        self._approvals: dict[str, Approval] = {}
        self._asking = asyncio.Lock()
        self._woken = asyncio.Event()
        self._moves = Moves()

    # --- asking -----------------------------------------------------------------------------------

    async def request(self, question: Question) -> Approval:
        """Put a question to the operator, or find it already put.

        The same effect (run, node, key, arguments) is asked once: after a crash or a retry the open question,
        or its answer, is found again, as long as action and content are the same to the byte. When they are
        not, the old question is voided and a new one is put. Durable when it returns.
        """
        return await self._moves.whole(self._request(question))

    async def _request(self, question: Question) -> Approval:
        async with self._asking:
            same = self._of_effect(question.run, question.node, question.key, question.args_digest)
            if same and await self._still_good(same[-1], question.action_digest):
                return same[-1]
            return await self._ask(question, len(same))

    async def _still_good(self, last: Approval, wanted: str) -> bool:
        """Whether the newest approval of an effect answers for it now; voids one that no longer fits."""
        async with last.lock:
            if last.state == "voided":
                return False
            if last.state in FINAL or last.action_digest == wanted:
                return True
            if last.state == "dispatching":
                raise ApprovalError(
                    f"approval {last.id} is being used for another content",
                    hint="'rlp approvals --all' shows where it stands",
                    code="approval.used",
                )
            await self._void(last, "the action changed after it was shown")
            return False

    def asked(self, run: str, node: str, key: str, args_digest: str) -> Approval | None:
        """The newest approval of an effect that was not voided, if it was asked for before."""
        same = self._of_effect(run, node, key, args_digest)
        return same[-1] if same and same[-1].state != "voided" else None

    def _of_effect(self, *effect: str | None) -> list[Approval]:
        """Every approval of ``(run, node, key, args_digest)``, oldest first."""
        return [a for a in self._approvals.values() if (a.run, a.node, a.key, a.args_digest) == effect]

    async def _ask(self, question: Question, rounds: int) -> Approval:
        name = digest([question.run, question.node, question.key, question.args_digest, rounds])
        asked = ActionRequested(
            approval=f"ap_{name[:16]}",
            node=question.node,
            attempt=question.attempt,
            call=question.call,
            op=question.op,
            effect=question.effect,
            key=question.key,
            args_digest=question.args_digest,
            action=question.action,
            action_digest=question.action_digest,
            content_blob=blob_digest(question.content),
            content_type=question.content_type,
            expires_ms=self._clock.now_ms() + self._expiry_ms,
        )
        (event,) = await self._journal.append(
            Draft(payload=asked, actor="daemon", run=question.run, provenance=question.provenance),
            blobs=(question.content,),
        )
        approval = self._take_request(event, asked)
        self._woken.set()
        return approval

    async def wait(self, name: str) -> Decided:
        """Return once the approval is decided and, when approved, its undo window is over.

        Safe to cancel, and to call again: waiting changes nothing.
        """
        approval = self.find(name)
        while approval.state == "open":
            approval.changed.clear()
            await approval.changed.wait()
        while approval.state == "active" and self._clock.now_ms() < approval.dispatch_after_ms:
            approval.changed.clear()
            await first(approval.changed.wait(), self._clock.sleep_until(approval.dispatch_after_ms))
        return approval.answer()

    # --- deciding ---------------------------------------------------------------------------------

    async def decide(
        self,
        principal: Principal,
        name: str,
        digest_seen: str,
        decision: str,
        note: str = "",
        confirm: str = "",
    ) -> Decided:
        """Record what a person said: ``approve``, ``deny`` or ``undo``.

        ``digest_seen`` is the ``action_digest`` of what the person was shown; ``confirm`` what they typed
        out, for a yes to what widens what this machine does or believes. Raises :class:`RefusedError`
        for anybody but an operator (and audits it) and for such a yes without its word,
        :class:`ConflictError` when something else was shown, when it is already decided, expired or too
        late, :class:`NotFoundError` for an unknown name.
        """
        if principal.kind != "operator":
            await self._audit(principal, name)
            raise RefusedError(
                f"{principal.label} may not decide: only the operator can",
                hint="use 'rlp approve' as the user who owns the daemon",
                code="approval.principal",
            )
        if decision not in _WORDS:
            raise UsageError(
                f"{decision!r} is not a decision", hint="approve, deny or undo", code="approval.decision"
            )
        approval = self.find(name)
        return await self._moves.whole(
            self._decide(approval, principal.label, digest_seen, decision, note, confirm)
        )

    async def _decide(
        self, approval: Approval, principal: str, digest_seen: str, decision: str, note: str, confirm: str
    ) -> Decided:
        async with approval.lock:
            if approval.action_digest != digest_seen:
                raise ApprovalError(
                    f"approval {approval.id} is for another action than the one you were shown",
                    hint="look at it again: 'rlp approvals' lists what waits",
                    code="approval.digest",
                )
            await self._expire(approval)
            self._check_decision(approval, decision)
            if decision == "approve":
                _check_confirmed(approval, confirm)
            window = self._undo_window_ms if approval.undoable else 0
            due = self._clock.now_ms() + window if decision == "approve" else 0
            await self._settle(approval, _WORDS[decision], principal, note, dispatch_after_ms=due)
            return approval.answer()

    def _check_decision(self, approval: Approval, decision: str) -> None:
        wanted: State = "active" if decision == "undo" else "open"
        if approval.state == wanted:
            return
        if decision == "undo":
            raise ApprovalError(
                f"approval {approval.id} is {approval.state}; only an approved action that has not been"
                " dispatched can be undone",
                hint="'rlp approvals --all' shows where it stands",
                code="approval.too_late",
            )
        raise ApprovalError(
            f"approval {approval.id} is already {approval.state}"
            + (f" (by {approval.principal})" if approval.principal else ""),
            hint="'rlp approvals --all' shows where it stands",
            code="approval.expired" if approval.state == "expired" else "approval.decided",
        )

    async def void(self, run: str, node: str | None = None, attempt: int | None = None) -> tuple[str, ...]:
        """Void what nobody waits for any more: a run, node or attempt that ended. Returns the ids.

        An approval whose one use is taken stays as it is: its outcome is the gate's matter.
        """
        return await self._moves.whole(self._void_all(run, node, attempt))

    async def _void_all(self, run: str, node: str | None, attempt: int | None) -> tuple[str, ...]:
        voided = []
        for approval in list(self._approvals.values()):
            mine = approval.run == run and node in (None, approval.node)
            # A question of an earlier attempt may be waited for by this one, see `request`.
            if mine and (attempt is None or approval.attempt <= attempt):
                async with approval.lock:
                    if approval.state in ("open", "active"):
                        await self._void(approval, "the run no longer waits for it")
                        voided.append(approval.id)
        return tuple(voided)

    # --- using ------------------------------------------------------------------------------------

    async def claim(
        self,
        name: str,
        action: dict[str, Any],
        content: bytes,
        admitted: Draft | None = None,
        blobs: Sequence[bytes] = (),
        *,
        check: Callable[[], object] = lambda: None,
    ) -> list[Event]:
        """Take the one use of an approval, to dispatch exactly ``action`` and ``content``.

        Compare and swap: of any number of concurrent callers exactly one returns. ``admitted`` is written in
        the same transaction as the claim; the events written are returned. ``check`` is called in the same
        breath as they are handed to the journal, and may raise: the linearisation point.

        The claim is held until :meth:`consumed` or :meth:`release`. Taking it again after that, or after a
        restart, is possible for the same bytes only, and for the caller to justify (the provider said that
        nothing had left).

        Raises :class:`ApprovalError` for a lost race or a wrong state; a difference from what was approved
        voids the approval for good.
        """
        approval = self.find(name)
        claiming = asyncio.ensure_future(
            self._claim(approval, action_digest(action, content), admitted, blobs, check)
        )
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # The claim may still be on its way into the ledger; whoever wanted it is gone.
            claiming.add_done_callback(lambda done: self._let_go(approval, done))
            raise

    async def _claim(
        self,
        approval: Approval,
        wanted: str,
        admitted: Draft | None,
        blobs: Sequence[bytes],
        check: Callable[[], object],
    ) -> list[Event]:
        async with approval.lock:
            again = approval.state == "dispatching" and not approval.held
            if approval.state != "active" and not again:
                raise ApprovalError(
                    f"approval {approval.id} cannot be used: it is "
                    + ("being used" if approval.held else approval.state),
                    hint="'rlp approvals --all' shows where it stands",
                    code="approval.used" if approval.state in ("dispatching", "consumed") else None,
                )
            await self._check_use(approval, wanted, again=again)
            drafts = [] if again else [self._claim_draft(approval)]
            if admitted is not None:
                drafts.append(admitted)
            check()
            approval.held = True
            try:
                events = await self._journal.append(*drafts, blobs=blobs) if drafts else []
            except BaseException:
                approval.held = False
                raise
            if not again:
                self._move(approval, "dispatching")
            return events

    async def _check_use(self, approval: Approval, wanted: str, *, again: bool) -> None:
        """With the lock held: the last look before the effect."""
        now = self._clock.now_ms()
        if wanted != approval.action_digest:
            if not again:
                await self._void(approval, "the action differs from the one that was approved")
            raise ApprovalError(
                f"approval {approval.id} is void: what would be done differs from what was approved",
                hint="run it again and look at what it asks",
                code="approval.voided",
            )
        if now < approval.dispatch_after_ms:
            raise ApprovalError(
                f"approval {approval.id} can still be undone", hint="wait", code="approval.window"
            )
        if not again and now >= approval.expires_ms:
            await self._settle(approval, "expired", DAEMON.label, "it was not used in time")
            raise ApprovalError(
                f"approval {approval.id} was not used in time", hint="run it again", code="approval.expired"
            )

    def _let_go(self, approval: Approval, claiming: asyncio.Future[Any]) -> None:
        if not claiming.cancelled() and claiming.exception() is None:
            approval.held = False

    def release(self, name: str) -> None:
        """The dispatch under this claim is over without a delivery on record."""
        approval = self._approvals.get(name)
        if approval is not None:
            approval.held = False

    def consumed(self, name: str) -> None:
        """The effect was delivered, and that is in the ledger."""
        approval = self.find(name)
        if approval.state == "dispatching":
            self._move(approval, "consumed")
        approval.held = False

    def _claim_draft(self, approval: Approval) -> Draft:
        return Draft(
            payload=ActionClaimed(approval=approval.id, action_digest=approval.action_digest),
            actor="daemon",
            run=approval.run,
            provenance=Provenance(
                causes=(approval.requested, approval.decided), node=approval.node, attempt=approval.attempt
            ),
        )

    # --- looking ----------------------------------------------------------------------------------

    def find(self, name: str) -> Approval:
        """By id or an unambiguous beginning of it; raises NotFoundError or :class:`ApprovalError`."""
        exact = self._approvals.get(name)
        if exact is not None:
            return exact
        wanted = name if name.startswith("ap_") else f"ap_{name}"
        found = (
            [a for a in self._approvals.values() if a.id.startswith(wanted)] if len(name) >= _PREFIX else []
        )
        if len(found) == 1:
            return found[0]
        if found:
            raise ApprovalError(
                f"{name!r} names {len(found)} approvals",
                hint="type more of the id",
                code="approval.ambiguous",
            )
        raise NotFoundError(
            f"no approval is called {name!r}", hint="'rlp approvals' lists them", code="approval.unknown"
        )

    def list(self, *, all: bool = False) -> list[Approval]:
        """Oldest first: those that wait for a person or may still be undone; ``all``: every one known."""
        return [a for a in self._approvals.values() if all or a.state in ("open", "active")]

    # --- time and restarts ------------------------------------------------------------------------

    def restore(self, events: Iterable[Event]) -> None:
        """Fold the ledger's events of unfinished runs, and those outside of any run, in order: call once,
        before anything else."""
        for event in events:
            if event.kind == ActionRequested.kind:
                self._take_request(event, cast(ActionRequested, event.payload))
            elif event.kind == ActionDecided.kind:
                decided = cast(ActionDecided, event.payload)
                approval = self._approvals.get(decided.approval)
                if approval is not None:
                    self._take(approval, decided, event.id)
            elif event.kind == ActionClaimed.kind:
                approval = self._approvals.get(cast(ActionClaimed, event.payload).approval)
                if approval is not None and approval.state == "active":
                    self._move(approval, "dispatching")
            elif isinstance(event.payload, _CARRIED_OUT):
                done = event.payload.approval
                if isinstance(event.payload, ToolCalled) and event.payload.outcome != "done":
                    continue
                approval = self._approvals.get(done) if done is not None else None
                if approval is not None and approval.state == "dispatching":
                    self._move(approval, "consumed")

    def forget(self, run: str) -> None:
        """Drop the approvals of a run that is over; the ledger keeps them."""
        for name in [a.id for a in self._approvals.values() if a.run == run]:
            del self._approvals[name]

    def retire(self, name: str) -> None:
        """Drop one approval outside of any run whose end has come; the ledger keeps it."""
        approval = self._approvals.get(name)
        if approval is not None and approval.run is None and approval.state in FINAL:
            del self._approvals[name]

    async def void_one(self, name: str, why: str) -> None:
        """Void an approval nobody may use any more; one that is settled, or in use, stays as it is."""
        approval = self.find(name)

        async def void() -> None:
            async with approval.lock:
                if approval.state in ("open", "active"):
                    await self._void(approval, why)

        await self._moves.whole(void())

    async def expire_loop(self) -> None:
        """Expire questions as their time comes; runs until cancelled. For the daemon's task group."""
        while True:
            self._woken.clear()
            await self.expire_due()
            due = min((a.expires_ms for a in self._approvals.values() if a.state == "open"), default=None)
            if due is None:
                await self._woken.wait()
            else:
                await first(self._woken.wait(), self._clock.sleep_until(due))

    async def expire_due(self) -> tuple[str, ...]:
        """Expire what is due now; returns the ids."""
        expired = []
        for approval in list(self._approvals.values()):
            if approval.state == "open" and approval.expires_ms <= self._clock.now_ms():
                async with approval.lock:
                    if await self._expire(approval):
                        expired.append(approval.id)
        return tuple(expired)

    # --- inside -----------------------------------------------------------------------------------

    async def _expire(self, approval: Approval) -> bool:
        """With the lock held: expire an open question whose time is over."""
        if approval.state != "open" or approval.expires_ms > self._clock.now_ms():
            return False
        await self._settle(approval, "expired", DAEMON.label, "nobody answered in time")
        return True

    async def _void(self, approval: Approval, why: str) -> None:
        await self._settle(approval, "voided", DAEMON.label, why)

    async def _settle(
        self,
        approval: Approval,
        decision: str,
        principal: str,
        note: str,
        *,
        dispatch_after_ms: int = 0,
    ) -> None:
        """Journal first, then move."""
        payload = ActionDecided(
            approval=approval.id,
            node=approval.node,
            decision=cast(Any, decision),
            principal=principal,
            action_digest=approval.action_digest,
            note=note[:2_000],
            dispatch_after_ms=dispatch_after_ms,
        )
        actor = principal if principal.startswith("operator") else DAEMON.label
        causes = (approval.requested, *((approval.decided,) if approval.decided else ()))
        (event,) = await self._journal.append(
            Draft(
                payload=payload,
                actor=actor,
                run=approval.run,
                provenance=Provenance(causes=causes, node=approval.node, attempt=approval.attempt),
            )
        )
        self._take(approval, payload, event.id)

    def _take(self, approval: Approval, decided: ActionDecided, event: int) -> None:
        state = STATE_OF[decided.decision]
        if (approval.state, state) not in MOVES:
            return
        approval.decided = event
        approval.principal = decided.principal
        approval.note = decided.note
        approval.dispatch_after_ms = decided.dispatch_after_ms
        self._move(approval, state)

    def _move(self, approval: Approval, state: State) -> None:
        assert (approval.state, state) in MOVES, (approval.state, state)
        approval.state = state
        approval.changed.set()

    def _take_request(self, event: Event, asked: ActionRequested) -> Approval:
        approval = self._approvals[asked.approval] = Approval(
            id=asked.approval,
            run=event.run,
            node=asked.node,
            attempt=asked.attempt,
            call=asked.call,
            op=asked.op,
            effect=asked.effect,
            key=asked.key,
            args_digest=asked.args_digest,
            action=asked.action,
            action_digest=asked.action_digest,
            content_blob=asked.content_blob,
            content_type=asked.content_type,
            requested_ms=event.ts_ms,
            expires_ms=asked.expires_ms,
            requested=event.id,
            label=event.provenance.label,
        )
        return approval

    async def _audit(self, principal: Principal, name: str) -> None:
        await self._journal.append(
            Draft(
                payload=CapAudit(
                    agent=principal.label,
                    capability="approve",
                    op="action.decide",
                    target=name[:128],
                    args_digest=blob_digest(name.encode()),
                    decision="denied",
                    reason=f"{principal.label} is no operator; only an operator decides",
                ),
                actor="daemon",
            )
        )


def _check_confirmed(approval: Approval, confirm: str) -> None:
    """Here and not in a front end: whichever forgets to ask for the word has no yes (attacks.md C8, C9)."""
    shown = approval.to_json()
    if widens(shown) and not confirms(shown, confirm):
        raise RefusedError(
            f"{approval.id} widens what this machine does or believes: a plain yes is not enough",
            hint=f"in a terminal, 'rlp approve {approval.id}' asks for {confirming_word(shown)}, typed out",
            code="approval.unconfirmed",
        )
