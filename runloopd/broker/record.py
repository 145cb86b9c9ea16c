"""What the gate remembers of a run: a fold of its events, the same live and after a restart.

Knows: which calls an attempt has made, which effects were admitted and which delivered, what was spent,
which files were made. Does not know: how to do anything. Feed it every committed batch
(``journal.listen(record.fold)``) and, at start, the events of unfinished runs in order.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from openings.state import base
from runloop.digest import digest
from runloop.events import (
    ActionDecided,
    ActionRequested,
    AgentTransition,
    ArtifactCreated,
    CapAudit,
    Event,
    HostcallAdmitted,
    HostcallDelivered,
    ModelCalled,
    NodeFinished,
    NodeScheduled,
    Provenance,
    QuotaWarned,
    RunFinished,
    RunResumed,
    RunStarted,
    ToolCalled,
)
from runloop.ops import OPS
from runloopd.authority.faces import asker_of, first_word, is_program
from runloopd.broker.flows import OWN, whose
from runloopd.broker.labels import lowest, may_be_private
from runloopd.broker.quotas import RESOURCES, Allowance, Hold, Limits, Purse, Quotas, Usage
from runloopd.broker.threshold import Threshold

__all__ = ["UNKNOWN_OUTCOME", "Attempt", "Delivered", "Effect", "Record", "Run", "effect_key"]


UNKNOWN_OUTCOME = "unknown_outcome"
"""How a model call ended whose end nobody knows: booked at all that was held for it."""


def effect_key(run: str, node: str, op: str, ordinal: int, args_digest: str) -> str:
    """Idempotency key: the same effect of a later attempt, or after a restart, has the same key.

    ``ordinal`` counts the calls of this op with the same arguments in one attempt, from 0.
    """
    return digest([run, node, op, ordinal, args_digest])


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """A call whose answer is on record."""

    event: int
    op: str
    effect: str
    args_digest: str
    ok: bool
    result_digest: str


@dataclass(slots=True)
class Attempt:
    """One attempt of a node."""

    calls: dict[int, Delivered] = field(default_factory=dict)
    turn: int = 0
    """It was the agent's so-maniest in this run, from 1; 0 if nobody scheduled it."""
    fuel_before: int = 0
    """Fuel that the agent's attempts had burnt when this one was scheduled."""

    _alike: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    """Op and digest of the arguments -> numbers of the calls, in order. An attempt may make very many calls,
    and none should look at all those before it."""
    _seen: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    """Numbers, in order, and ledger ids of the answers apart from clock, chance and log."""

    def ordinal(self, op: str, args_digest: str, before: int) -> int:
        """How many calls before call number ``before`` had this op and these arguments."""
        return bisect_left(self._alike.get((op, args_digest), ()), before)

    def seen(self, before: int) -> tuple[int, ...]:
        """Ledger ids of the answers the guest has seen, apart from clock, chance and log."""
        numbers, events = self._seen
        return tuple(events[: bisect_left(numbers, before)])

    def hear(self, number: int, answer: Delivered) -> None:
        """An answer is on record; one for the same call, if there was one, counts no more."""
        before = self.calls.get(number)
        if before is not None:
            self._alike[before.op, before.args_digest].remove(number)
        self.calls[number] = answer
        insort(self._alike.setdefault((answer.op, answer.args_digest), []), number)
        numbers, events = self._seen
        place = bisect_left(numbers, number)
        if place < len(numbers) and numbers[place] == number:
            del numbers[place], events[place]
        if answer.effect != "pure":
            numbers.insert(place, number)
            events.insert(place, answer.event)


@dataclass(slots=True)
class Effect:
    """One effect, across attempts."""

    key: str
    admitted: int
    """Ledger id of the newest ``hostcall.admitted``."""
    place: tuple[str, int, int]
    """Node, attempt, call of that mark."""
    delivered: Delivered | None = None
    """The answer to that mark; None: the outcome is not on record."""
    reserved_micro_usd: int = 0
    reserved_for: str = ""
    """``provider:model`` of the reservation; empty where the mark says nothing of one."""
    price_version: str = ""
    lost: bool = False
    """It was booked as a call nobody knows the end of."""
    hold: Hold | None = None
    """What a daemon that died had reserved for it: held until somebody books it."""
    outcome: Literal["done", "absent", "unknown"] | None = None
    """Of a tool: what became of it, as far as it is on record."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Tree:
    """What a run and those nested in it have in common: an agent's quota is for all of them together."""

    usages: dict[str, Usage] = field(default_factory=dict)
    """Agent -> what it has used."""
    warned_agents: dict[str, set[str]] = field(default_factory=dict)
    """Agent -> resources of its quota that were warned of."""
    floor: str | None = None
    """Lowest trust label among the answers its agents have heard: what one run hears, others are given."""
    private: bool = False
    """Whether one of its agents has heard what may be the user's own."""
    origins: set[str] = field(default_factory=set)
    """Whose words they have heard, of those that are not for everybody (``flows``). Never shrinks."""
    threshold: Threshold = field(default_factory=Threshold)
    """From where on a person is asked before it spends more."""
    root: str = ""
    """The outermost run: the tree's name, the same after a restart."""


@dataclass(slots=True)
class Run:
    """One run that is not over."""

    id: str
    purse: Purse
    agents: Mapping[str, str] = field(default_factory=dict)
    """Node -> name of its agent; ``<opening>/<node>`` for those that may be nested."""
    limits: Mapping[str, Limits] = field(default_factory=dict)
    """Agent -> its quotas, as the run was started with."""
    asked_by: str = ""
    """Who started its tree: ``operator:<uid>``, ``schedule:<trigger>`` or ``face:<client>``."""
    tree: Tree = field(default_factory=Tree)
    attempts: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    effects: dict[str, Effect] = field(default_factory=dict)
    admitted: dict[tuple[str, int, int], list[Effect]] = field(default_factory=dict)
    """Node, attempt and call -> effects whose answer is not on record yet."""
    artifacts: set[str] = field(default_factory=set)
    warned_run: set[str] = field(default_factory=set)
    """Resources of the run that were warned of."""
    warned: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    """Node and attempt -> resources that were warned of."""
    tools: dict[tuple[str, str], set[tuple[str, int, int]]] = field(default_factory=dict)
    """Agent and tool -> node, attempt and call of every use that was let through."""
    called: dict[tuple[str, int, int], str] = field(default_factory=dict)
    """Node, attempt and call -> resource of a tool's effect that has ended and is not answered yet."""

    @property
    def floor(self) -> str | None:
        """Lowest trust label among the answers that the agents of its tree have heard."""
        return self.tree.floor

    def usage(self, agent: str) -> Usage:
        """What an agent has used in the tree; nothing yet, if it has done nothing."""
        return self.tree.usages.setdefault(agent, Usage())

    def allowance(self, agent: str, node: str, number: int, limits: Limits) -> Allowance:
        """What was left of the agent's fuel when this attempt was scheduled: the same in a replay."""
        return Allowance(fuel=limits["fuel"], fuel_used=self.attempt(node, number).fuel_before)

    def attempt(self, node: str, number: int) -> Attempt:
        """The record of one attempt; an empty one if it has made no call."""
        return self.attempts.setdefault((node, number), Attempt())

    def heard(self, node: str, number: int) -> list[int]:
        """Ledger ids of the answers of one attempt, in order."""
        made = self.attempts.get((node, number))
        return [] if made is None else sorted(answer.event for answer in made.calls.values())

    def warned_of(self, node: str, number: int) -> set[str]:
        """What was warned of in one attempt; the caller adds to it."""
        return self.warned.setdefault((node, number), set())

    def warned_agent(self, agent: str) -> set[str]:
        """What an agent was warned of; the caller adds to it."""
        return self.tree.warned_agents.setdefault(agent, set())


class Record:
    """Every run that is not over."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._runs: dict[str, Run] = {}
        self._over: dict[str, Run] = {}
        """Nested runs that ended before calls of theirs did: their money is that of the run around them."""

    def run(self, name: str) -> Run | None:
        """The run, or None when it was never started or is over."""
        return self._runs.get(name)

    def limits(self, run: Run, agent: str) -> Limits:
        """The quotas of an agent in a run."""
        return run.limits.get(agent) or self._quotas.of(agent)

    def hold_what_is_in_doubt(self) -> None:
        """Set aside again what a daemon that died had reserved for calls nobody knows the end of: once, after
        the events of unfinished runs were folded. Until each is booked, no other call may have the money."""
        for run in (*self._runs.values(), *self._over.values()):
            for (node, _, _), effects in run.admitted.items():
                for effect in effects:
                    if effect.reserved_micro_usd and not effect.lost and effect.hold is None:
                        agent = run.agents.get(base(node), "")
                        effect.hold = run.purse.hold(node, effect.reserved_micro_usd, agent=agent)

    def fold(self, events: Iterable[Event]) -> None:
        """Take in committed events, in order."""
        for event in events:
            if event.run is None:
                continue
            if event.kind == RunStarted.kind:
                self._runs[event.run] = self._started(event.run, cast(RunStarted, event.payload))
            elif event.kind == RunFinished.kind:
                self._finished(event.run)
            elif (run := self._runs.get(event.run) or self._over.get(event.run)) is not None:
                _fold(run, event)

    def _finished(self, name: str) -> None:
        run = self._runs.pop(name, None)
        if run is not None and run.purse.within is not None and run.admitted:
            self._over[name] = run
        elif run is not None and run.purse.within is None:
            self._over = {other: one for other, one in self._over.items() if one.tree is not run.tree}

    def _started(self, name: str, started: RunStarted) -> Run:
        money = started.policy.get("budget_micro_usd")
        tokens = started.policy.get("budget_tokens")
        purse = Purse(
            limit_micro_usd=self._quotas.run.run_micro_usd if money is None else int(money),
            limit_tokens=self._quotas.run.run_tokens if tokens is None else int(tokens),
            node_tokens=_node_tokens(started.definition),
        )
        # Unknown only where a nested run is looked at for itself, in a replay.
        around = None if started.parent is None else self._runs.get(started.parent.run)
        if around is not None and started.parent is not None:
            purse.within, purse.node = around.purse, base(started.parent.node)
            if (asks := started.policy.get("ask_micro_usd")) is not None:
                around.tree.threshold.bring_forward(int(asks))
        agents = {node: pin.name for node, pin in started.agents.items()}
        limits = {agent: self._quotas.recorded(started.policy, agent) for agent in set(agents.values())}
        tree = self._tree(name, started) if around is None else around.tree
        return Run(name, purse, agents, limits, asker_of(started.principal, started.origin), tree)

    def _tree(self, name: str, started: RunStarted) -> Tree:
        asks = started.policy.get("ask_micro_usd", self._quotas.run.ask_micro_usd)
        # What a watch hands over are names of the user's files. A client that is no person brings along what
        # it heard in calls before this one, of which this run knows nothing: ADR 31 holds across its calls.
        watched = started.principal.startswith("schedule:") and bool(started.params.get("changed"))
        asker = asker_of(started.principal, started.origin)
        foreign, label = is_program(asker), first_word(asker, started.origin)
        origins = {OWN} if watched or foreign or label is not None else set()
        threshold = Threshold(None if asks is None else int(asks))
        return Tree(threshold=threshold, origins=origins, floor=label, root=name)


def _node_tokens(definition: Mapping[str, Any]) -> dict[str, int]:
    nodes = definition.get("nodes")
    return {
        str(node["id"]): int(node["budget_tokens"])
        for node in (nodes if isinstance(nodes, list) else ())
        if isinstance(node, Mapping) and node.get("budget_tokens") is not None
    }


def _fold(run: Run, event: Event) -> None:
    if event.kind == HostcallAdmitted.kind:
        admitted = cast(HostcallAdmitted, event.payload)
        place = (admitted.node, admitted.attempt, admitted.call)
        effect = run.effects[admitted.key] = Effect(
            admitted.key,
            event.id,
            place,
            reserved_micro_usd=admitted.reserved_micro_usd,
            reserved_for=admitted.reserved_for,
            price_version=admitted.price_version,
        )
        run.admitted.setdefault(place, []).append(effect)
    elif event.kind == HostcallDelivered.kind:
        delivered = cast(HostcallDelivered, event.payload)
        _hear(run, delivered, event.provenance.label)
        _deliver(run, event.id, delivered)
        _use(run.id, run.usage(_agent(run, delivered.node, event)), delivered)
    elif event.kind == ModelCalled.kind:
        called = cast(ModelCalled, event.payload)
        tokens = called.input_tokens + called.output_tokens
        run.purse.spend(called.node, called.cost_micro_usd, tokens, agent=_agent(run, called.node, event))
        if called.finish == UNKNOWN_OUTCOME:
            _book_loss(run, called)
    elif event.kind == ToolCalled.kind:
        _end_tool(run, cast(ToolCalled, event.payload))
    elif event.kind == NodeScheduled.kind:
        _take_turn(run, cast(NodeScheduled, event.payload))
    elif event.kind == NodeFinished.kind:
        finished = cast(NodeFinished, event.payload)
        run.usage(_agent(run, finished.node, event)).fuel += finished.fuel
    elif event.kind == AgentTransition.kind:
        _pass_time(run, cast(AgentTransition, event.payload), event.ts_ms)
    elif event.kind == RunResumed.kind:
        for usage in run.tree.usages.values():
            usage.waiting.clear()
            usage.active.clear()  # what was active then died with its daemon, nobody knows when
    else:
        _fold_word(run, event)


def _hear(run: Run, delivered: HostcallDelivered, label: str | None) -> None:
    """Whatever one of its agents has heard, the whole tree has."""
    tree = run.tree
    tree.floor = lowest(tree.floor, label)
    tree.private |= may_be_private(delivered.op)
    resource = run.called.pop((delivered.node, delivered.attempt, delivered.call), None)
    told = whose(delivered.op, delivered.effect, label, resource)
    if told is not None:
        tree.origins.add(told)


def _fold_word(run: Run, event: Event) -> None:
    """What was said about a run, by a person or of a limit, and what it made."""
    if event.kind in (ActionRequested.kind, ActionDecided.kind):
        run.tree.threshold.take(event)
    elif event.kind == QuotaWarned.kind:
        _take_warning(run, cast(QuotaWarned, event.payload), event.provenance)
    elif event.kind == CapAudit.kind:
        _use_tool(run, cast(CapAudit, event.payload))
    elif event.kind == ArtifactCreated.kind:
        run.artifacts.add(cast(ArtifactCreated, event.payload).blob)


def _book_loss(run: Run, called: ModelCalled) -> None:
    """What was held for a call nobody knows the end of is spent now."""
    for effect in run.admitted.get((called.node, called.attempt, called.call), ()):
        effect.lost = True
        if effect.hold is not None:
            effect.hold.release()


def _take_warning(run: Run, warned: QuotaWarned, where: Provenance) -> None:
    if warned.resource in RESOURCES:
        run.warned_agent(warned.agent).add(warned.resource)
    elif warned.resource.startswith("run."):
        run.warned_run.add(warned.resource)
    elif where.node is not None and where.attempt is not None:
        run.warned_of(where.node, where.attempt).add(warned.resource)


def _use_tool(run: Run, said: CapAudit) -> None:
    if (said.capability, said.decision) != ("tools", "allowed"):
        return
    if said.node is not None and said.attempt is not None and said.call is not None:
        uses = run.tools.setdefault((said.agent, said.target), set())
        uses.add((said.node, said.attempt, said.call))


def _end_tool(run: Run, ended: ToolCalled) -> None:
    run.called[ended.node, ended.attempt, ended.call] = ended.resource
    begun = run.effects.get(ended.key)
    if begun is not None:
        begun.outcome = ended.outcome


def _agent(run: Run, node: str, event: Event) -> str:
    return run.agents.get(base(node)) or event.provenance.agent or ""


def _take_turn(run: Run, scheduled: NodeScheduled) -> None:
    agent = run.agents.get(base(scheduled.node))
    if agent is None:
        return  # another opening serves it: its agents take their own turns
    usage = run.usage(agent)
    usage.turns += 1
    attempt = run.attempt(scheduled.node, scheduled.attempt)
    attempt.turn, attempt.fuel_before = usage.turns, usage.fuel


def _is_patient(op: str | None) -> bool:
    """Whether a call waits for a person or a provider; their answers take the time they take."""
    row = None if op is None else OPS.get(op)
    return row is not None and (row.far or row.waits or row.effect in ("send", "spend"))


def _pass_time(run: Run, moved: AgentTransition, now_ms: int) -> None:
    usage = run.usage(moved.agent)
    since = usage.active.pop(moved.instance, None)
    if since is not None:
        usage.wall_ms += max(0, now_ms - since)
    asked = usage.waiting.pop(moved.instance, None)
    waited_for = usage.waited_for.get((run.id, moved.node or "", moved.attempt or 0))
    # Stopped while it waits, it had no answer: for what it waited, the record does not say, and a person's
    # silence of hours is nobody's work.
    if asked is not None and moved.after == "ACTIVE" and not _is_patient(waited_for):
        usage.wall_ms += max(0, now_ms - asked)  # the daemon was busy for it
    if moved.after == "ACTIVE":
        usage.active[moved.instance] = now_ms
    elif moved.after == "WAITING":
        usage.waiting[moved.instance] = now_ms


def _use(run: str, usage: Usage, answer: HostcallDelivered) -> None:
    usage.asking.pop((run, answer.node, answer.attempt, answer.call), None)
    usage.waited_for[run, answer.node, answer.attempt] = answer.op
    usage.calls += 1
    usage.bytes += answer.request_bytes + answer.response_bytes
    usage.mails += answer.ok and answer.op == "mail.send"


def _deliver(run: Run, event: int, answer: HostcallDelivered) -> None:
    attempt = run.attempt(answer.node, answer.attempt)
    delivered = Delivered(
        event=event,
        op=answer.op,
        effect=answer.effect,
        args_digest=answer.args_digest,
        ok=answer.ok,
        result_digest=answer.result_digest,
    )
    attempt.hear(answer.call, delivered)
    for effect in run.admitted.pop((answer.node, answer.attempt, answer.call), ()):
        if effect.delivered is None:
            effect.delivered = delivered
