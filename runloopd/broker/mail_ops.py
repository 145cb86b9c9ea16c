"""Sending mail: render, show, have it approved, send those very bytes once.

Knows: the order of an external effect and how a crash at any point of it is resolved. Does not know: how
mail is rendered or carried (``broker.mail``), or how people are asked (``authority.approvals``).

The message is rendered before the question, from the recorded time of the first asking, and again right
before the dispatch: what leaves is compared byte for byte, recipient for recipient, with what was approved.
"""

from __future__ import annotations

from typing import Any, cast

import structlog

from runloop.clock import Clock
from runloop.digest import blob_digest
from runloop.errors import FailedError, RefusedError, RunloopError
from runloop.events import EmailSent, Event
from runloop.ops import MailSend
from runloopd.authority.approvals import Approval, Approvals, Question
from runloopd.broker.asks import Ask, Done, UnknownOutcomeError, require
from runloopd.broker.effects import OverdueError, admitted, asked_by, bounded, insist, provenance
from runloopd.broker.ports import MailPort, MailReceipt, Outcome, PreparedMail, ProviderError

__all__ = ["MailOps"]

log = structlog.get_logger(__name__)

CONTENT_TYPE = "message/rfc822"
MAX_RECIPIENTS = 100


class MailOps:
    """``mail.send``."""

    def __init__(
        self, *, mail: MailPort, approvals: Approvals, clock: Clock, deadline_ms: int = 60_000
    ) -> None:
        self._mail = mail
        self._approvals = approvals
        self._clock = clock
        self._deadline_ms = deadline_ms

    async def send(self, ask: Ask) -> Done:
        """``{status, message_id, location, recipients, provider}``, after a person approved."""
        asked = self._approvals.asked(ask.caller.run, ask.caller.node, ask.key, ask.args_digest)
        now = int(asked.action["prepared_ms"]) if asked is not None else self._clock.now_ms()
        mail = self._prepare(ask, now)
        for recipient in mail.recipients:
            require(ask, "mail", recipient)
        approval = await self._approvals.request(self._question(ask, mail, now))
        await insist(ask, self._approvals, approval, self._clock, name="mail.send", instead="the draft")
        return await self._dispatch(ask, approval)

    def _prepare(self, ask: Ask, now: int) -> PreparedMail:
        mail = self._mail.prepare(cast(MailSend, ask.args), key=ask.key, now_ms=now, sender=None)
        if not 0 < len(mail.recipients) <= MAX_RECIPIENTS:
            raise RefusedError(
                f"mail.send: {len(mail.recipients)} recipients; 1 to {MAX_RECIPIENTS} are sent at once",
                code="mail.recipients",
            )
        return mail

    def _question(self, ask: Ask, mail: PreparedMail, now: int) -> Question:
        return Question(
            run=ask.caller.run,
            node=ask.caller.node,
            attempt=ask.caller.attempt,
            call=ask.call.index,
            op=ask.op.name,
            effect=ask.op.effect,
            key=ask.key,
            args_digest=ask.args_digest,
            action=_action(ask, mail, now),
            content=mail.content,
            content_type=CONTENT_TYPE,
            provenance=provenance(ask, causes=ask.known, label=ask.run.floor),
        )

    # --- after the decision -----------------------------------------------------------------------

    async def _dispatch(self, ask: Ask, approval: Approval) -> Done:
        """Claim and send. A dispatch that has begun is brought to its end, even if the attempt is stopped."""
        now = int(approval.action["prepared_ms"])
        mail = self._prepare(ask, now)
        begun = ask.run.effects.get(ask.key)
        if begun is not None or approval.state == "dispatching":
            outcome = await self._reconcile(mail)
            log.warning("effect_reconciled", run=ask.caller.run, node=ask.caller.node, outcome=outcome)
            if outcome == "done":
                return self._sent(ask, approval, mail, _found(mail), causes=(approval.decided,))
            if outcome == "unknown":
                raise _unknown(mail)
        events = await self._approvals.claim(
            approval.id,
            _action(ask, mail, now),
            mail.content,
            admitted(ask, causes=(approval.decided,)),
            (ask.args_blob,),
            check=ask.check,
        )
        try:
            return await self._carry(ask, approval, mail, events)
        except BaseException:
            self._approvals.release(approval.id)
            raise

    async def _carry(self, ask: Ask, approval: Approval, mail: PreparedMail, events: list[Event]) -> Done:
        causes = (approval.decided, *(event.id for event in events))
        due = self._clock.now_ms() + self._deadline_ms
        outcome: Outcome = "unknown"
        error: RunloopError = FailedError(f"{mail.resource} did not take the message in time")
        try:
            receipt = await bounded(self._mail.dispatch(mail), self._clock, due_ms=due, abandoned=None)
            return self._sent(ask, approval, mail, receipt, causes=causes)
        except ProviderError as failed:
            error, outcome = failed, failed.outcome
        except OverdueError:
            pass
        if outcome == "unknown":
            outcome = await self._reconcile(mail)
        if outcome == "done":
            return self._sent(ask, approval, mail, _found(mail), causes=causes)
        if outcome == "unknown":
            raise _unknown(mail) from error
        raise error

    async def _reconcile(self, mail: PreparedMail) -> Outcome:
        """Ask the provider what became of a dispatch; whatever goes wrong with that, nobody knows."""
        due = self._clock.now_ms() + self._deadline_ms
        try:
            return await bounded(self._mail.reconcile(mail), self._clock, due_ms=due, abandoned=None)
        except (RunloopError, OverdueError) as error:
            log.warning("effect_reconcile_failed", resource=mail.resource, why=str(error))
            return "unknown"

    def _sent(
        self,
        ask: Ask,
        approval: Approval,
        mail: PreparedMail,
        receipt: MailReceipt,
        *,
        causes: tuple[int, ...],
    ) -> Done:
        sent = EmailSent(
            approval=approval.id,
            provider=receipt.provider,
            message_id=mail.message_id,
            recipients=list(mail.recipients),
            subject=mail.subject,
            content_blob=blob_digest(mail.content),
            location=receipt.location,
        )
        value = {
            "status": "sent",
            "message_id": mail.message_id,
            "recipients": list(mail.recipients),
            "provider": receipt.provider,
            "location": receipt.location,
        }
        return Done(
            value=value,
            facts=[sent],
            blobs=[mail.content],
            causes=causes,
            label=f"agent:{ask.agent}",
            recorded=lambda: self._approvals.consumed(approval.id),
            unrecorded=lambda: self._approvals.release(approval.id),
        )


def _action(ask: Ask, mail: PreparedMail, now: int) -> dict[str, Any]:
    """The canonical action: what the person decides on, apart from the content itself."""
    return {
        "kind": "mail.send",
        "summary": f"send “{mail.subject}” to {', '.join(mail.recipients)}",
        "recipients": list(mail.recipients),
        "sender": mail.sender,
        "subject": mail.subject,
        "message_id": mail.message_id,
        "resource": mail.resource,
        "agent": ask.agent,
        "bundle": ask.caller.pin.bundle_digest,
        "run": ask.caller.run,
        "node": ask.caller.node,
        "key": ask.key,
        **asked_by(ask),
        "amount_micro_usd": 0,
        "prepared_ms": now,
    }


def _found(mail: PreparedMail) -> MailReceipt:
    """A receipt for a message that an earlier dispatch had delivered."""
    return MailReceipt(location=mail.resource, provider=mail.resource.partition(":")[0])


def _unknown(mail: PreparedMail) -> UnknownOutcomeError:
    return UnknownOutcomeError(
        f"the message {mail.message_id} may or may not have reached {', '.join(mail.recipients)}: the"
        f" dispatch to {mail.resource} was begun and its end is not known",
        hint="look into the sent folder or ask the recipient; Runloop will not send it again by itself",
    )
