"""The gate: the one door between a guest and the world.

Knows: the order of the checks (capability → quota → idempotency → confirmation → admitted mark → provider →
delivered mark) and that nothing passes unrecorded. Does not know: what any op does (``*_ops``), who talks to
the guest (``runtime``), or how answers are served from the record (``runs``).

``Gate.call`` never raises: every end is an answer. Whatever the guest is told is durable before it is told;
when the ledger refuses, nothing is dispatched and the guest hears that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from heapq import merge

import msgspec
import structlog

from runloop.caps.policy import Policy, Verdict
from runloop.caps.token import TokenError
from runloop.clock import Clock
from runloop.digest import blob_digest, canonical
from runloop.errors import FailedError, RefusedError, RunloopError
from runloop.events import (
    Draft,
    Event,
    HostcallDelivered,
    MemoryForgotten,
    MemoryUpdated,
    Payload,
    QuotaExceeded,
    QuotaWarned,
    RunFinished,
)
from runloop.ops import OPS, Args, Op, decode_args
from runloopd.authority.approvals import Approvals
from runloopd.authority.mint import Mint
from runloopd.authority.standing import Standing
from runloopd.broker.asks import Ask, CapabilityError, Done, GateError, Handler, audit
from runloopd.broker.calls import Answer, Answerer, Caller, HostCall
from runloopd.broker.delegate_ops import DelegateOps
from runloopd.broker.effects import AbandonedError, OverdueError, admitted, bounded, draft
from runloopd.broker.embedding import EmbedPort
from runloopd.broker.flows import Flows
from runloopd.broker.fs_ops import FileOps
from runloopd.broker.http_ops import HttpOps
from runloopd.broker.knowledge_ops import KnowledgeOps
from runloopd.broker.labels import heard, lowest
from runloopd.broker.mail_ops import MailOps
from runloopd.broker.model_ops import ModelOps
from runloopd.broker.msg_ops import TalkOps
from runloopd.broker.plain_ops import PlainOps
from runloopd.broker.ports import BlobPort, Delta, JournalPort, KnowledgePort, MailPort, ModelPort
from runloopd.broker.promise_ops import PromiseOps
from runloopd.broker.promises import Promises
from runloopd.broker.providers.files import FilePort
from runloopd.broker.providers.web import WebPort
from runloopd.broker.quotas import RESOURCES, Allowance, QuotaError, Quotas, check
from runloopd.broker.record import Record, Run, effect_key
from runloopd.broker.rights import authorise
from runloopd.broker.secret_ops import Lending
from runloopd.broker.spending import Spending
from runloopd.broker.talk import Talk
from runloopd.broker.tool_errands import ToolGuests
from runloopd.broker.tool_ops import ToolOps, ToolPorts
from runloopd.broker.toolbox import ToolSource
from runloopd.broker.tools.sandbox import ProgramSandbox
from runloopd.broker.tripwires import Tripwires

__all__ = ["Gate", "GateOptions"]

log = structlog.get_logger(__name__)

MAX_ANSWER_BYTES = 6 * 1024 * 1024
"""An answer must fit a frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GateOptions:
    """How the gate behaves, beyond policy and quotas."""

    read_deadline_ms: int = 10_000
    """Longest answer of an op without effect."""
    model_deadline_ms: int = 120_000
    mail_deadline_ms: int = 60_000
    web_deadline_ms: int = 40_000
    """Longest exchange with a web server; the provider's own bound is shorter and says more."""
    tool_deadline_ms: int = 90_000
    """Longest call of a tool, from where nothing holds it up any more; its own bounds are shorter."""
    file_deadline_ms: int = 30_000
    """Longest step of a write to a file."""
    audit_allows: bool = False
    """True: every allowed call is a ``cap.audit``, not only the denied ones."""


class Gate:
    """Decides, performs and records host calls."""

    def __init__(
        self,
        *,
        journal: JournalPort,
        mint: Mint,
        approvals: Approvals,
        promises: Promises,
        talk: Talk,
        quotas: Quotas,
        models: ModelPort,
        embeddings: EmbedPort,
        mail: MailPort,
        web: WebPort,
        files: FilePort,
        knowledge: KnowledgePort,
        clock: Clock,
        entropy: Callable[[int], bytes],
        lending: Lending,
        on_delta: Callable[[Delta], None],
        options: GateOptions | None = None,
        objection: Callable[[str], RunloopError | None] = lambda run: None,
        standing: Standing | None = None,
        sources: Sequence[ToolSource] = (),
        programs: ProgramSandbox | None = None,
        guests: ToolGuests | None = None,
        private_ok: Sequence[str] = (),
        wires: Tripwires | None = None,
    ) -> None:
        """``objection`` says why a run may change nothing any more; None when it may. ``sources`` offer tools
        beside those of bundles; ``programs`` runs programs, ``guests`` the tools that agents implement: None
        refuses them by name. ``private_ok``: places outside that may be told what is private."""
        self._journal = journal
        self._mint = mint
        self._promises = promises
        self._talk = talk
        self._objection = objection
        self._wires = wires or Tripwires()
        self._quotas = quotas
        self._blobs: BlobPort = knowledge
        self._clock = clock
        self._options = options or GateOptions()
        self._record = Record(quotas)
        self._under_way: set[asyncio.Task[Answer]] = set()
        plain = PlainOps(clock=clock, entropy=entropy, blobs=knowledge, on_delta=on_delta)
        know = KnowledgeOps(knowledge=knowledge, quotas=quotas)
        model = ModelOps(
            models=models,
            embeddings=embeddings,
            journal=journal,
            blobs=knowledge,
            clock=clock,
            on_delta=on_delta,
            deadline_ms=self._options.model_deadline_ms,
            quotas=quotas,
            spending=Spending(approvals, clock),
        )
        post = MailOps(
            mail=mail, approvals=approvals, clock=clock, deadline_ms=self._options.mail_deadline_ms
        )
        promised = PromiseOps(promises=promises, journal=journal, facts=knowledge, clock=clock, quotas=quotas)
        said = TalkOps(
            talk=talk, journal=journal, blobs=knowledge, clock=clock, quotas=quotas, model_next=model.next
        )
        flows = Flows(private_ok)
        http = HttpOps(web=web, lending=lending, flows=flows)
        tools = self._tools = ToolOps(
            ToolPorts(
                web=web,
                sources=sources,
                programs=programs,
                guests=guests,
                lending=lending,
                flows=flows,
            ),
            journal=journal,
            approvals=approvals,
            standing=standing or Standing(journal),
            clock=clock,
            deadline_ms=self._options.tool_deadline_ms,
            warn_percent=quotas.warn_percent,
        )
        disk = FileOps(
            files=files,
            journal=journal,
            blobs=knowledge,
            clock=clock,
            deadline_ms=self._options.file_deadline_ms,
        )
        self.delegates = DelegateOps(clock=clock)
        self._handlers: dict[str, Handler] = {
            "time.now": plain.now,
            "random.bytes": plain.random,
            "log.write": plain.log,
            "progress": plain.progress,
            "artifact.put": plain.put_artifact,
            "blob.read": plain.read_blob,
            "kb.query": know.query,
            "kb.search": know.search,
            "kb.read": know.read,
            "kb.why": know.why,
            "kb.propose": know.propose,
            "memory.get": know.get,
            "memory.list": know.list,
            "memory.delete": know.forget,
            "memory.put": know.put,
            "promise.create": promised.create,
            "promise.await": promised.wait,
            "promise.resolve": promised.resolve,
            "input.ask": promised.ask,
            "model.complete": model.complete,
            "model.embed": model.embed,
            "msg.publish": said.publish,
            "msg.subscribe": said.subscribe,
            "msg.request": said.request,
            "msg.reply": said.publish,
            "msg.next": said.next,
            "http.fetch": http.fetch,
            "fs.read": disk.read,
            "fs.write": disk.write,
            "fs.list": disk.list,
            "fs.stat": disk.stat,
            "tool.list": tools.list,
            "tool.call": tools.call,
            "secret.use": lending.use,
            "agent.delegate": self.delegates.delegate,
            "mail.send": post.send,
        }
        assert self._handlers.keys() == OPS.keys()
        journal.listen(self._observe)

    def restore(self, events: Iterable[Event], spent: Iterable[Event] = ()) -> None:
        """Take in the events of unfinished runs, in order: once, before the first call.

        ``spent``: those of finished runs in the same trees, in order; what they used is not to be had again.
        """
        events = list(events)
        self._record.fold(merge(events, spent, key=lambda event: event.id))
        self._record.hold_what_is_in_doubt()
        self._promises.restore(events)
        self._talk.restore(events)

    @property
    def promises(self) -> Promises:
        """What guests wait for, and who may be told."""
        return self._promises

    @property
    def talk(self) -> Talk:
        """What the agents of each run say to one another."""
        return self._talk

    def parked(self) -> frozenset[tuple[str, str]]:
        """Run and node of every guest that waits for a person's or another agent's word at this moment."""
        return self._promises.parked() | self._talk.parked()

    def answerer(self, caller: Caller) -> Answerer:
        """Who answers the host calls of one attempt."""
        return _Answerer(self, caller)

    async def close(self) -> None:
        """Wait for the effects that are under way; each has a deadline."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def allowance(self, run: str, agent: str, node: str, attempt: int) -> tuple[Allowance, list[QuotaWarned]]:
        """What is left to an attempt that starts now, and the warnings that are due and to be stated.

        Raises :class:`QuotaError` when nothing is left: the attempt must not start then.
        """
        known = self._record.run(run)
        if known is None:
            raise RefusedError(f"run {run} is not under way", code="gate.no_run")
        limits, usage = self._record.limits(known, agent), known.usage(agent)
        left = replace(
            known.allowance(agent, node, attempt, limits),
            wall_ms=limits["wall_ms"],
            wall_used=usage.wall_at(self._clock.now_ms()),
        )
        turn = known.attempt(node, attempt).turn
        warnings: list[QuotaWarned] = []
        for resource, used, asked in (
            ("turns", max(0, turn - 1), 1),
            ("fuel", left.fuel_used, 1),
            ("wall_ms", left.wall_used, 1),
        ):
            warned = known.warned_agent(agent)
            warnings += check(resource, used, asked, limits[resource], agent=agent, warned=warned)
        return left, warnings

    def heard(self, run: str, node: str, attempt: int) -> list[int]:
        """Ledger ids of the answers of an attempt that are on record, in order; none when its run is over."""
        known = self._record.run(run)
        return [] if known is None else known.heard(node, attempt)

    def exceeded(self, run: str, agent: str, fact: QuotaExceeded) -> list[Payload]:
        """The facts of a hard limit, to be stated together: the warning first, if none was given."""
        known = self._record.run(run)
        if known is None or fact.resource not in RESOURCES:
            return [fact]
        return [*_late_warning(known, fact), fact]

    async def call(self, caller: Caller, call: HostCall) -> Answer:
        """Answer one host call. Raises nothing but cancellation, which means that the attempt was stopped:
        a call without effect is dropped, an effect is brought to a recorded end."""
        try:
            return await self._call(caller, call)
        except AbandonedError:
            return Answer.refusal(GateError("the attempt was stopped", code="gate.stopped"))
        except RunloopError as error:
            # Only what could not be recorded comes here: a refusing ledger, a caller without a run.
            log.warning(
                "call_refused", run=caller.run, node=caller.node, op=call.op[:64], code=error.named_code
            )
            return Answer.refusal(error)
        except Exception:
            log.exception("gate_failed", run=caller.run, node=caller.node, op=call.op[:64])
            return Answer.refusal(
                GateError("the gate failed; nothing more is known", hint="rlp logs", code="gate.internal")
            )

    # --- the way through --------------------------------------------------------------------------

    async def _call(self, caller: Caller, call: HostCall) -> Answer:
        run = self._record.run(caller.run)
        if run is None:
            raise RefusedError(
                f"run {caller.run} is not under way; its agents have no say any more", code="gate.no_run"
            )
        args_blob = canonical(call.args)
        args_digest = blob_digest(args_blob)
        ordinal = run.attempt(caller.node, caller.attempt).ordinal(call.op, args_digest, call.index)
        op = OPS.get(call.op) or Op(name=call.op, args=Args, effect="pure", capability=None)
        if op.name == "tool.call":
            # What a call of a tool does is the tool's matter; so is how long it may take.
            op = replace(op, effect=self._tools.effect(caller, call.args, run), waits=True)
        ask = Ask(
            caller=caller,
            call=call,
            op=op,
            args=Args(),
            args_blob=args_blob,
            args_digest=args_digest,
            key=effect_key(caller.run, caller.node, call.op, ordinal, args_digest),
            grants=Policy(),
            run=run,
            check=lambda: self._let(caller, run, op),
            outbound=partial(self._outbound, caller, run),
        )
        if ask.op.effect in ("pure", "read"):
            return await self._finish(ask)
        task = asyncio.ensure_future(self._finish(ask))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            ask.abandoned.set()
            raise

    async def _finish(self, ask: Ask) -> Answer:
        """Perform, then record, then answer."""
        try:
            return await self._performed(ask)
        finally:
            self._no_longer_asks(ask)

    async def _performed(self, ask: Ask) -> Answer:
        done = await self._perform(ask)
        try:
            text = self._last_look(ask, done)
        except RunloopError as error:
            done = self._taken_back(ask, done, error)
            text = canonical(done.value)
        return await self._deliver(ask, done, text)

    async def _perform(self, ask: Ask) -> Done:
        """The checks, then the op; every error a guest may see becomes an end."""
        try:
            ask.args = decode_args(ask.call.op, ask.call.args)
            self._authorise(ask)
            self._limit(ask)
            known = await self._known(ask)
            if known is not None:
                return known
            work = self._handlers[ask.op.name](ask)
            if ask.op.effect != "read" or ask.op.waits:
                return await work  # an effect has deadlines of its own; a pure op waits for nothing
            far, near = self._options.web_deadline_ms, self._options.read_deadline_ms
            due = self._clock.now_ms() + (far if ask.op.far else near)
            return await bounded(work, self._clock, due_ms=due, abandoned=None)
        except AbandonedError:
            raise
        except OverdueError:
            return Done.failed(
                FailedError(f"{ask.op.name} took too long", hint="ask for less", code="gate.deadline")
            )
        except RunloopError as error:
            return self._refused(ask, error)
        except Exception:
            log.exception("op_failed", run=ask.caller.run, node=ask.caller.node, op=ask.op.name)
            return Done.failed(
                GateError(f"{ask.op.name} broke inside", hint="rlp logs", code="gate.internal")
            )

    def _taken_back(self, ask: Ask, done: Done, error: RunloopError) -> Done:
        """The guest hears ``error`` instead. A write has not happened then; money spent or mail sent has."""
        refused = self._refused(ask, error)
        if ask.op.effect == "write":
            if done.unrecorded is not None:
                done.unrecorded()
            return refused
        return replace(done, ok=False, value=refused.value, facts=[*done.facts, *refused.facts])

    def _refused(self, ask: Ask, error: RunloopError) -> Done:
        """The end of a call that an error ended, with the fact that states the reason."""
        facts: list[Payload] = []
        if isinstance(error, CapabilityError):
            facts.append(audit(ask.agent, error.verdict, ask.caller, ask.call))
        elif isinstance(error, QuotaError):
            fact = error.fact(ask.agent)
            facts += [*_late_warning(ask.run, fact), fact] if fact.resource in RESOURCES else [fact]
        return Done.failed(error, facts=facts)

    def _authorise(self, ask: Ask) -> None:
        """The token holds, is this caller's, and grants the op at all. Targets are the op's own matter."""
        ask.grants = self._let(ask.caller, ask.run, ask.op)
        verdict = authorise(ask.agent, ask.caller.ops, ask.op, ask.grants)
        if verdict is not None and self._options.audit_allows:
            ask.facts.append(audit(ask.agent, verdict, ask.caller, ask.call))

    def _outbound(self, caller: Caller, run: Run, place: str, size: int, address: int) -> None:
        """Count what is about to leave. Raises what suspends the agent."""
        now, private = self._clock.now_ms(), bool(run.tree.origins)
        name, tree = caller.pin.name, run.tree.root
        self._wires.outbound(name, place, size, now, address=address, private=private, tree=tree)

    def _let(self, caller: Caller, run: Run, op: Op) -> Policy:
        """What the caller may, unless something is said against its run. The linearisation point of every
        admission is a call of this with no await before the journal has the fact.

        Raises :class:`CapabilityError`, or what is said against a run that may change nothing any more.
        """
        grants = self._admissible(caller, run)
        objection = self._objection(run.id) if op.effect not in ("pure", "read") else None
        if objection is not None:
            raise objection
        return grants

    def _admissible(self, caller: Caller, run: Run) -> Policy:
        """What the caller's token grants at this moment, revocations included.

        Raises :class:`CapabilityError`.
        """
        try:
            verified = self._mint.verify(caller.token)
        except TokenError as error:
            raise _token_denied(error.message, error.hint, error.named_code) from error
        mine = (verified.run, verified.node, verified.holder, verified.token_id)
        if mine != (caller.run, caller.node, f"agent:{caller.pin.name}", caller.token_id):
            raise _token_denied("the token is for another agent, run or node", "start the run again")
        if self._record.run(caller.run) is not run:
            raise _token_denied("the run is over", None)
        return verified.grants

    def _limit(self, ask: Ask) -> None:
        """What the agent has used in this run, by its record and by its calls that are under way.

        Raises :class:`QuotaError`, which ends the attempt: the same in a replay, from the recorded answer.
        """
        limits = self._record.limits(ask.run, ask.agent)
        usage = ask.run.usage(ask.agent)
        rows = [
            ("calls", usage.calls + len(usage.asking), 1),
            ("bytes", usage.bytes + sum(usage.asking.values()), ask.call.request_bytes),
            ("fuel", usage.fuel, ask.call.fuel),
            ("wall_ms", usage.wall_at(self._clock.now_ms()), 0),
        ]
        if ask.op.name == "mail.send":
            rows.append(("mails", usage.mails, 1))
        warned = ask.run.warned_agent(ask.agent)
        for resource, used, asked in rows:
            ask.facts += check(resource, used, asked, limits[resource], agent=ask.agent, warned=warned)
        usage.asking[ask.run.id, ask.caller.node, ask.caller.attempt, ask.call.index] = ask.call.request_bytes

    def _no_longer_asks(self, ask: Ask) -> None:
        place = (ask.run.id, ask.caller.node, ask.caller.attempt, ask.call.index)
        ask.run.usage(ask.agent).asking.pop(place, None)

    async def _known(self, ask: Ask) -> Done | None:
        """The recorded answer of an effect that was delivered before, in whatever attempt."""
        if ask.op.effect in ("pure", "read"):
            return None
        effect = ask.run.effects.get(ask.key)
        if effect is None or effect.delivered is None or not effect.delivered.ok:
            return None
        value = msgspec.json.decode(await self._blobs.blob(effect.delivered.result_digest))
        return Done(value=value, causes=(effect.delivered.event,))

    # --- the record -------------------------------------------------------------------------------

    def _last_look(self, ask: Ask, done: Done) -> bytes:
        """Before a write becomes a fact: the answer's text, if it fits and the token still holds."""
        text = canonical(done.value)
        if len(text) > MAX_ANSWER_BYTES:
            raise GateError(
                f"the answer to {ask.op.name} has {len(text)} bytes, more than {MAX_ANSWER_BYTES}",
                hint="ask for less",
                code="gate.answer_size",
            )
        if ask.op.effect == "write" and done.facts:
            ask.check()
        return text

    async def _deliver(self, ask: Ask, done: Done, text: bytes) -> Answer:
        """State the answer and everything that goes with it in one transaction, then give it."""
        causes = (ask.caller.scheduled_id, *done.causes)
        drafts = [draft(ask, fact, causes=(ask.caller.scheduled_id,)) for fact in ask.facts]
        if ask.op.effect == "write" and done.ok and done.facts:
            # A write's effect is its fact: both marks and the fact are one transaction.
            drafts.append(admitted(ask))
        label = _label(ask, done)
        drafts += [_stated(ask, fact, causes, label) for fact in done.facts]
        drafts.append(draft(ask, self._delivered(ask, done, text), causes=causes, label=label))
        after = done.unrecorded
        try:
            await self._journal.append(*drafts, blobs=(ask.args_blob, text, *done.blobs))
            after = done.recorded
        finally:
            if after is not None:
                after()
        return Answer(ok=done.ok, value=done.value)

    def _delivered(self, ask: Ask, done: Done, text: bytes) -> HostcallDelivered:
        return HostcallDelivered(
            node=ask.caller.node,
            attempt=ask.caller.attempt,
            call=ask.call.index,
            op=ask.call.op,
            effect=ask.op.effect,
            args_digest=ask.args_digest,
            args_blob=ask.args_digest,
            ok=done.ok,
            result_digest=blob_digest(text),
            result_blob=blob_digest(text),
            request_bytes=ask.call.request_bytes,
            response_bytes=len(text),
            fuel=ask.call.fuel,
        )

    def _observe(self, events: list[Event]) -> None:
        self._record.fold(events)
        for event in events:
            if event.kind == RunFinished.kind and event.run is not None:
                self._mint.forget(event.run)


class _Answerer:
    """The gate as one attempt sees it."""

    def __init__(self, gate: Gate, caller: Caller) -> None:
        self._gate = gate
        self._caller = caller

    async def answer(self, call: HostCall) -> Answer:
        return await self._gate.call(self._caller, call)


def _late_warning(run: Run, fact: QuotaExceeded) -> list[QuotaWarned]:
    """A limit that was passed in one leap was not warned of; soft comes before hard all the same."""
    warned = run.warned_agent(fact.agent)
    if fact.resource in warned:
        return []
    warned.add(fact.resource)
    return [QuotaWarned(agent=fact.agent, resource=fact.resource, limit=fact.limit, used=fact.used)]


def _label(ask: Ask, done: Done) -> str | None:
    """What the guest hears is labelled for what it is; what it says, for the lowest its run has heard."""
    if not done.ok:
        return ask.speaker  # a stranger's error is a stranger's words
    if ask.op.effect in ("pure", "read"):
        return done.label if done.label is not None else heard(ask.args)
    own = done.label if done.label is not None or not done.facts else f"agent:{ask.agent}"
    return lowest(own, ask.run.floor)


def _stated(ask: Ask, fact: Payload, causes: tuple[int, ...], label: str | None) -> Draft:
    """A fact that a call brought about; what an agent writes is stated by the agent."""
    stated = draft(ask, fact, causes=causes, label=label)
    if ask.op.effect != "write":
        return stated
    actor = f"agent:{ask.agent}"
    scope = actor if isinstance(fact, (MemoryUpdated, MemoryForgotten)) else stated.scope
    return msgspec.structs.replace(stated, actor=actor, scope=scope)


def _token_denied(reason: str, hint: str | None, code: str = "token.invalid") -> CapabilityError:
    verdict = Verdict(allowed=False, capability="token", target="", reason=reason, how_to_obtain=hint)
    return CapabilityError(verdict, code=code)
