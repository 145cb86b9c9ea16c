"""``tool.list`` and ``tool.call``: an agent's own tools, the host's, and those of MCP servers, by name.

Knows: the order in which a tool call is judged (known → permitted → well-formed → in budget → its secrets
there → approved → admitted → done once → its result well-formed), and how a crash at any point of it is
resolved. Does not know: what a tool is (``tool_plan``), how it is carried out (``tool_errands``), how people
are asked (``authority.approvals``), what exactly a yes is bound to (``tool_bound``), recording (the gate).

Every call that is let through is stated as an allowed ``cap.audit`` of the capability ``tools``: what a run
used is then on record, and the budget of a tool is counted from the record alone, so that it holds across
attempts and restarts. An effect is stated once more when it has ended, as ``tool.called``.

What a person approved is rebuilt right before it leaves, from the tool as it is then: a definition, a bundle,
an argument, a secret's name or a resource that changed in between voids the approval (attacks.md C1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import structlog

from runloop.caps.policy import Policy
from runloop.clock import Clock
from runloop.errors import RefusedError, RunloopError
from runloop.events import Event
from runloop.ops import Effect
from runloopd.authority.approvals import Approvals, Question
from runloopd.authority.standing import Grant, Standing
from runloopd.broker.asks import Ask, CapabilityError, Done
from runloopd.broker.calls import Caller
from runloopd.broker.effects import OverdueError, admitted, bounded, insist, provenance
from runloopd.broker.flows import honest
from runloopd.broker.ports import JournalPort, Outcome
from runloopd.broker.quotas import QuotaError
from runloopd.broker.record import Run
from runloopd.broker.secret_ops import Lent
from runloopd.broker.tool_bench import Bench, Judged, ToolPorts, misfit
from runloopd.broker.tool_bound import Word, action_of, called, content_of, scope_of
from runloopd.broker.tool_plan import Plan, missing
from runloopd.broker.tool_results import failed, result_of, unfit
from runloopd.broker.toolbox import TOOL_CODES, ToolError
from runloopd.broker.tripwires import TrippedError

__all__ = ["ToolOps", "ToolPorts"]

log = structlog.get_logger(__name__)

CONTENT_TYPE = "application/json"
_MAX_WHY = 1_000
_TOLD = {"http.timeout": "tool.timeout", "http.unreachable": "tool.unavailable"}


class ToolOps:
    """``tool.list`` and ``tool.call``."""

    def __init__(
        self,
        ports: ToolPorts,
        *,
        journal: JournalPort,
        approvals: Approvals,
        standing: Standing,
        clock: Clock,
        deadline_ms: int = 90_000,
        warn_percent: int = 80,
    ) -> None:
        self._ports = ports
        self._bench = Bench(ports, warn_percent=warn_percent)
        self._journal = journal
        self._approvals = approvals
        self._standing = standing
        self._clock = clock
        self._deadline_ms = deadline_ms

    def effect(self, caller: Caller, args: Any, run: Run) -> Effect:
        """What a ``tool.call`` with these arguments is on record as, in this run at this moment."""
        return self._bench.effect(caller, args, run.tree)

    async def list(self, ask: Ask) -> Done:
        """``{tools: [{id, description, kind, source, effect, input_schema, granted, missing, …}]}``."""
        return self._bench.list(ask)

    async def call(self, ask: Ask) -> Done:
        """``{result}``, which fits the tool's ``result_schema``."""
        judged = await self._bench.judge(ask)
        plan = judged.plan
        if plan.effect != ask.op.effect:
            raise ToolError(f"{plan.name} has just changed", hint="call it again", code="tool.unavailable")
        self._bench.count(ask, plan)
        if plan.effect == "read":
            value, label = await self._read(judged, await self._lend(ask, judged))
            return Done(value={"result": value}, label=label)
        await self._there(ask, judged)
        await self._unfinished(ask, judged)
        word = await self._word(ask, judged)
        return await self._perform(ask, word)

    async def _lend(self, ask: Ask, judged: Judged) -> Lent | None:
        """The secrets of the call; None where it needs none."""
        names = judged.plan.secrets
        if not names:
            return None
        if self._ports.lending is None:
            raise ToolError(
                f"{judged.plan.name} needs {names[0]}, and no secrets are lent here",
                hint="'rlp secret set' keeps one",
                code="tool.secrets",
            )
        try:
            return await self._ports.lending.lend(ask, names, to=judged.errand.to)
        except CapabilityError:
            raise
        except RunloopError as error:
            raise _told(judged.plan, error, None) from error

    async def _there(self, ask: Ask, judged: Judged) -> None:
        """Look whether the secrets are there before anybody is asked. They are lent when they are used: a
        person may take days, and a loan that is not used is no news."""
        stated = len(ask.facts)
        await self._lend(ask, judged)
        del ask.facts[stated:]

    # --- a person's word --------------------------------------------------------------------------

    async def _word(self, ask: Ask, judged: Judged) -> Word:
        """Wait for whoever must say yes; nobody, where nobody must."""
        if not judged.plan.asks(ask.grants):
            return Word()
        grant = self._covering(ask, judged)
        if grant is not None:
            return Word(grant=grant, causes=(grant.event,))
        heard = self._heard(ask)
        approval = await self._approvals.request(
            Question(
                run=ask.caller.run,
                node=ask.caller.node,
                attempt=ask.caller.attempt,
                call=ask.call.index,
                op=ask.op.name,
                effect=ask.op.effect,
                key=ask.key,
                args_digest=ask.args_digest,
                action=action_of(ask, judged, heard, self._private(ask, judged)),
                content=content_of(judged),
                content_type=CONTENT_TYPE,
                provenance=provenance(ask, causes=ask.known),
            )
        )
        name, instead = judged.plan.name, "what you wanted to do"
        await insist(ask, self._approvals, approval, self._clock, name=name, instead=instead)
        return Word(approval=approval, causes=(approval.decided,))

    def _heard(self, ask: Ask) -> str | None:
        """Trust label of the worst the agents had heard when this was first asked: part of the question."""
        asked = self._approvals.asked(ask.caller.run, ask.caller.node, ask.key, ask.args_digest)
        return cast("str | None", asked.action.get("heard")) if asked is not None else ask.run.floor

    def _private(self, ask: Ask, judged: Judged) -> Sequence[str]:
        """Whose words the call may hold, as it was when this was first asked: part of the question."""
        asked = self._approvals.asked(ask.caller.run, ask.caller.node, ask.key, ask.args_digest)
        return list(judged.private) if asked is None else list(asked.action.get("private", ()))

    def _covering(self, ask: Ask, judged: Judged) -> Grant | None:
        return self._standing.covering(scope_of(ask, judged)) if judged.plan.grantable else None

    # --- doing it ---------------------------------------------------------------------------------

    async def _read(self, judged: Judged, loan: Lent | None) -> tuple[Any, str | None]:
        try:
            return await self._run(judged, loan)
        except OverdueError:
            raise failed(judged.plan.name, "it took too long", code="tool.timeout", retryable=True) from None

    async def _unfinished(self, ask: Ask, judged: Judged) -> None:
        """What an earlier attempt, or a daemon that died, began: only what certainly did not happen is begun
        again."""
        begun = ask.run.effects.get(ask.key)
        if begun is None:
            return
        outcome: Outcome = begun.outcome or "unknown"
        if outcome == "unknown":
            outcome = await self._reconcile(judged)
            log.warning("effect_reconciled", run=ask.caller.run, node=ask.caller.node, outcome=outcome)
        if outcome == "absent":
            return
        approved = self._approvals.asked(ask.caller.run, ask.caller.node, ask.key, ask.args_digest)
        word = Word(approval=approved)
        error = _lost(judged.plan) if outcome == "done" else _unknown(judged, None)
        ask.facts.append(called(ask, judged, word, outcome, error.named_code))
        raise error

    async def _perform(self, ask: Ask, word: Word) -> Done:
        """Once more, as things are now; then the mark, and the effect. What has begun is brought to its end,
        even if the attempt is stopped."""
        now = ask.check()
        ask.grants = now if isinstance(now, Policy) else ask.grants
        judged = await self._bench.judge(ask)
        loan = await self._lend(ask, judged)
        events = await self._admit(ask, judged, word)
        try:
            return await self._carry(ask, judged, word, loan, events)
        except BaseException:
            if word.approval is not None:
                self._approvals.release(word.approval.id)
            raise

    async def _admit(self, ask: Ask, judged: Judged, word: Word) -> Sequence[Event]:
        """The first mark. The linearisation point is the check in the same breath as it is handed over."""

        def now() -> None:
            grants = ask.check()
            policy = grants if isinstance(grants, Policy) else ask.grants
            for verdict in missing(judged.plan, policy, ask.agent):
                raise CapabilityError(verdict)
            alone = word.approval is None and judged.plan.asks(policy)
            if alone and (word.grant is None or self._covering(ask, judged) != word.grant):
                raise RefusedError(
                    f"{judged.plan.name}: what let it through without a question does so no more",
                    hint="call it again: a person is asked then",
                    code="approval.voided",
                )

        mark = admitted(ask, causes=word.causes)
        if word.approval is not None:
            asked = word.approval.action
            private = list(asked.get("private", ()))
            action = action_of(ask, judged, cast("str | None", asked.get("heard")), private)
            content = content_of(judged)
            return await self._approvals.claim(
                word.approval.id, action, content, mark, (ask.args_blob,), check=now
            )
        now()
        return await self._journal.append(mark, blobs=(ask.args_blob,))

    async def _carry(
        self, ask: Ask, judged: Judged, word: Word, loan: Lent | None, events: Sequence[Event]
    ) -> Done:
        causes = (*word.causes, *(event.id for event in events))
        value, label = None, None
        error: RunloopError | None = None
        outcome: Outcome = "done"
        try:
            value, label = await self._run(judged, loan)
        except OverdueError:
            error = failed(judged.plan.name, "it took too long", code="tool.timeout", outcome="unknown")
            outcome = "unknown"
        except RunloopError as caught:
            error, outcome = caught, getattr(caught, "outcome", "absent")
        if outcome == "unknown":
            outcome = await self._reconcile(judged)
            if outcome != "absent":
                log.warning("tool_outcome", tool=judged.plan.name, outcome=outcome, why=str(error))
                error = _unknown(judged, error) if outcome == "unknown" else _lost(judged.plan)
        ask.facts.append(called(ask, judged, word, outcome, None if error is None else error.named_code))
        if error is not None:
            raise error
        approval = word.approval
        return Done(
            value={"result": value},
            causes=causes,
            label=label or f"tool:{judged.plan.name}",
            recorded=None if approval is None else lambda: self._approvals.consumed(approval.id),
            unrecorded=None if approval is None else lambda: self._approvals.release(approval.id),
        )

    async def _run(self, judged: Judged, loan: Lent | None) -> tuple[Any, str | None]:
        """Carry it out; its result fits, and holds no secret. Raises :class:`OverdueError`, or an error with
        a code of the closed list."""
        plan = judged.plan
        due = self._clock.now_ms() + self._deadline_ms
        lent = loan if loan is not None else Lent()
        try:
            work = result_of(judged.errand.run(lent, due), plan.name)
            value, label = await bounded(work, self._clock, due_ms=due, abandoned=None)
        except RunloopError as error:
            told = _told(plan, error, loan)
            if told is error:
                raise
            raise told from error
        except (OverdueError, asyncio.CancelledError):
            raise
        except Exception:
            # The border between our own mistakes and a guest: logged whole here, one sentence there.
            log.exception("tool_broke", tool=plan.name)
            raise failed(
                plan.name, "it broke inside", outcome="absent" if plan.effect == "read" else "unknown"
            ) from None
        if loan is not None:
            value = loan.scrubber.value(value)
        if why := await misfit(plan.returns, value):
            raise unfit(plan.name, f"its result does not fit its schema{why}")
        return value, honest(plan, judged.args, label)

    async def _reconcile(self, judged: Judged) -> Outcome:
        """Ask what became of it; whatever goes wrong with that, nobody knows."""
        due = self._clock.now_ms() + self._deadline_ms
        try:
            return await bounded(judged.errand.outcome(due), self._clock, due_ms=due, abandoned=None)
        except (RunloopError, OverdueError) as error:
            log.warning("effect_reconcile_failed", tool=judged.plan.name, why=str(error))
            return "unknown"
        except Exception:
            log.exception("tool_broke", tool=judged.plan.name)
            return "unknown"


# --- errors ---------------------------------------------------------------------------------------


def _told(plan: Plan, error: RunloopError, loan: Lent | None) -> RunloopError:
    """What went wrong with a code of the closed list, and without a secret in its words."""
    if isinstance(error, (CapabilityError, QuotaError, TrippedError)):
        return error
    code = error.named_code
    known = code if code in TOOL_CODES else _TOLD.get(code)
    if known is None:
        known = "tool.secrets" if code.startswith("secret.") else "tool.failed"
    message, hint = error.message, error.hint
    if not message.startswith(plan.name):
        message = f"{plan.name} failed: {message}"
    if loan is not None:
        message, hint = loan.scrubber.text(message), None if hint is None else loan.scrubber.text(hint)
    return ToolError(
        message[:2_000],
        hint=hint,
        code=known,
        retryable=bool(getattr(error, "retryable", False)),
        outcome=getattr(error, "outcome", "absent"),
    )


def _unknown(judged: Judged, why: RunloopError | None) -> RunloopError:
    """``why``: what came back instead of an end, if anything did."""
    came = "" if why is None else f": {why.message[:_MAX_WHY]}"
    return ToolError(
        f"{judged.plan.name} may or may not have happened: it was begun on {judged.errand.resource}, and its"
        f" end is not known{came}",
        hint="look there, or ask the recipient; Runloop will not do it again by itself",
        code="tool.unknown_outcome",
        outcome="unknown",
    )


def _lost(plan: Plan) -> RunloopError:
    return unfit(plan.name, "it was done, and its result is lost")
