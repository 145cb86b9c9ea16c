"""History under another policy: which calls would meet another verdict, and what would become of the runs.

Every recorded call is judged again by the check that the gate uses (``broker.hindsight``). A run in which no
verdict changes is the run it was: its guests hear the same. One in which a verdict changes is driven on past
it: where a call would be denied, the guest hears so; where one would be let in that was not, nobody knows
what it would have heard, and that is said.

Knows: what would be granted to an agent. Does not know: how runs are driven (``simulator``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runloop.caps.policy import NOTHING, Override, Policy, effective
from runloop.errors import RunloopError
from runloop.events import AgentPin, CapAudit
from runloopd.broker.calls import Answer, Caller, HostCall
from runloopd.broker.hindsight import Judgement, World, judge
from runloopd.runs.recorded import RecordedAnswer
from runloopd.runs.replayer import Source
from runloopd.runs.whatif.answering import Asked, Change, Ruling, Stop
from runloopd.runs.whatif.library import Library
from runloopd.runs.whatif.simulator import Played, Simulator, ends
from runloopd.runs.whatif.tape import Tape
from runloopd.runtime.registry import InstalledAgent
from runloopd.runtime.supervisor import Runtime

__all__ = ["PolicyTest", "Proposal", "Rulings", "RunVerdict"]

_ALWAYS = frozenset({"ops", "token"})
"""Refusals that no policy has a say in."""


_UNDER_WAY = ("pending", "ready", "running", "waiting")


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """A policy that might hold. One of three: an agent's own, one override laid on every agent, or a set of
    overrides instead of the present ones."""

    agent: str | None = None
    policy: Policy | None = None
    """Instead of the ``policy.caps`` of ``agent``."""
    override: Override | None = None
    """On every agent, on top of what narrows it already."""
    overrides: Mapping[str, Override] | None = None
    """By agent; agents without one are not narrowed."""

    def grants(self, agent: InstalledAgent, present: Override | None) -> Policy:
        """What the agent could do: the ceiling of its manifest and the operator narrow it as ever."""
        name, own = agent.manifest.name, agent.policy
        if self.overrides is not None:
            present = self.overrides.get(name)
        if self.policy is not None and self.agent == name:
            own = self.policy
        left = effective(agent.ceiling, own, present).policy
        return left if self.override is None else effective(left, left, self.override).policy


@dataclass(frozen=True, kw_only=True, slots=True)
class RunVerdict:
    """What would have become of one run."""

    run: str
    opening: str
    calls: int
    """Recorded calls that were judged."""
    changes: tuple[Change, ...]
    before: str | None
    """Outcome on record."""
    after: str | None
    """Outcome then; None: nobody can tell."""
    failing: tuple[str, ...] = ()
    """Nodes that fail or are not reached then and did before."""
    differing: tuple[str, ...] = ()
    """Nodes that end otherwise."""
    needs_live: tuple[Stop, ...] = ()
    """What would have to be asked for real."""
    executed: bool = False
    """Whether its guests were executed; where no verdict changes they need not be."""
    problem: str | None = None
    """Why it could not be judged at all."""

    @property
    def same(self) -> bool:
        """Whether nothing at all changes."""
        return not (self.changes or self.differing or self.needs_live or self.problem) and (
            self.before == self.after
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "opening": self.opening,
            "same": self.same,
            "calls": self.calls,
            "changes": [change.to_json() for change in self.changes],
            "before": self.before,
            "after": self.after,
            "failing": list(self.failing),
            "differing": list(self.differing),
            "needs_live": [stop.to_json() for stop in self.needs_live],
            "executed": self.executed,
            "problem": self.problem,
        }


@dataclass
class Rulings:
    """Rules on calls as the gate would under a proposal. A ``Ruler``."""

    source: Source
    proposal: Proposal
    override: Callable[[str], Override | None]
    """The operator's present one, by agent."""
    _agents: dict[AgentPin, InstalledAgent] = field(default_factory=dict)
    _grants: dict[tuple[AgentPin, frozenset[str]], Policy] = field(default_factory=dict)

    def concerns(self, tape: Tape, node: str) -> bool:
        """See ``Ruler``: a policy is about every call."""
        return True

    async def rule(self, asked: Asked) -> Ruling | None:
        """See ``Ruler``."""
        found = asked.found
        world = None if found is None else asked.tape.world(found)
        before = None if found is None else asked.tape.refusal(found)
        if before is not None and before.capability in _ALWAYS:
            return None
        judged = await self._judge(asked.tape, asked.pin, asked.node, asked.attempt, asked.call, world)
        return _ruling(asked, before, judged, known=found is not None)

    async def changes(self, tape: Tape) -> tuple[int, list[Change]]:
        """How many calls a record has, and the verdicts on them that would change."""
        count, changes = 0, []
        for answer in tape.calls():
            count += 1
            change = await self.change(tape, answer)
            if change is not None:
                changes.append(change)
        return count, changes

    async def change(self, tape: Tape, answer: RecordedAnswer) -> Change | None:
        """How the verdict on a recorded call would change; None: it would not."""
        asked = self._asked(tape, answer)
        ruling = None if asked is None else await self.rule(asked)
        return None if ruling is None else ruling.change

    def granted(self, tape: Tape, pin: AgentPin) -> Policy:
        """What an agent of a run could do then; as a fork, without what it went without."""
        key = (pin, tape.denied)
        if key not in self._grants:
            agent = self.agent(pin)
            left = self.proposal.grants(agent, self.override(agent.manifest.name))
            if tape.denied:
                left = effective(left, left, Override(NOTHING, tape.denied)).policy
            self._grants[key] = left
        return self._grants[key]

    def agent(self, pin: AgentPin) -> InstalledAgent:
        """The agent behind a pin. Raises a :class:`RunloopError` where it is not kept any more."""
        if pin not in self._agents:
            self._agents[pin] = self.source.pinned(pin)
        return self._agents[pin]

    def _asked(self, tape: Tape, answer: RecordedAnswer) -> Asked | None:
        call = answer.call
        pin = tape.pin(call.node)
        if pin is None:
            return None
        host_call = HostCall(
            index=call.call,
            op=call.op,
            args=tape.args(call),
            args_digest=call.args_digest,
            fuel=call.fuel,
            request_bytes=call.request_bytes,
        )
        return Asked(tape=tape, pin=pin, node=call.node, attempt=call.attempt, call=host_call, found=answer)

    async def _judge(
        self, tape: Tape, pin: AgentPin, node: str, attempt: int, call: HostCall, world: World | None
    ) -> Judgement:
        agent = self.agent(pin)
        caller = Caller(
            run=tape.run,
            node=node,
            attempt=attempt,
            pin=pin,
            token=b"",
            token_id="",
            ops=frozenset(agent.manifest.ops),
            scheduled_id=0,
            tools=agent.tools,
        )
        return await judge(caller, self.granted(tape, pin), call, world)


def _ruling(asked: Asked, before: CapAudit | None, judged: Judgement, *, known: bool) -> Ruling | None:
    """What a judgement means for a call."""
    if judged.kind == "denied":
        assert judged.error is not None
        if before is not None:
            return None  # denied then, denied now: it hears what it heard
        verdict = judged.error.verdict
        was = "allowed" if known else "unasked"
        change = _change(asked, was, "denied", verdict.capability, verdict.target, judged.error.message)
        return Ruling(answer=Answer.refusal(judged.error), change=change, effect="none")
    if before is not None:
        why = "it was denied and would be let in"
        change = _change(asked, "denied", "allowed", before.capability, before.target, why)
        return Ruling(stop=_stop(asked, "granted", why), change=change)
    if judged.kind == "open":
        change = _change(asked, "allowed", "open", "", "", judged.why)
        return Ruling(stop=_stop(asked, "open", judged.why), change=change)
    return None


def _change(asked: Asked, before: str, after: str, capability: str, target: str, reason: str) -> Change:
    return Change(
        run=asked.tape.run,
        node=asked.node,
        attempt=asked.attempt,
        call=asked.call.index,
        agent=asked.pin.name,
        op=asked.call.op,
        before=before,
        after=after,
        capability=capability,
        target=target,
        reason=reason,
    )


def _stop(asked: Asked, kind: Any, why: str) -> Stop:
    return Stop(
        run=asked.tape.run,
        node=asked.node,
        attempt=asked.attempt,
        call=asked.call.index,
        op=asked.call.op,
        kind=kind,
        why=why,
    )


class PolicyTest:
    """Tests proposals on recorded runs."""

    def __init__(
        self, library: Library, runtime: Runtime, override: Callable[[str], Override | None]
    ) -> None:
        self._library = library
        self._runtime = runtime
        self._override = override

    def rulings(self, proposal: Proposal) -> Rulings:
        """Who rules under a proposal."""
        return Rulings(self._library.source, proposal, self._override)

    async def test(self, run: str, proposal: Proposal, *, execute: bool = False) -> RunVerdict:
        """What would have become of a finished run. ``execute``: even where no verdict changes."""
        return await self.judge(run, self.rulings(proposal), execute=execute)

    async def judge(self, run: str, rulings: Rulings, *, execute: bool = False) -> RunVerdict:
        """As :meth:`test`."""
        try:
            tapes = await self._library.whole(run)
            if not tapes:
                return _problem(run, "", None, "it is not on record")
        except RunloopError as error:
            return _problem(run, "", None, error.message)
        tape = tapes[0]
        before = None if tape.finished is None else tape.finished.outcome
        try:
            count = 0
            changes: list[Change] = []
            for one in tapes:
                calls, found = await rulings.changes(one)
                count, changes = count + calls, changes + found
            if not changes and not execute:
                return RunVerdict(
                    run=run, opening=tape.begun.opening, calls=count, changes=(), before=before, after=before
                )
            simulator = Simulator(self._library.source, self._runtime, self._library.tape)
            played = await simulator.play(tape, rulings)
        except RunloopError as error:
            return _problem(run, tape.begun.opening, before, error.message)
        return _told(tape, played, count, before)


def _told(tape: Tape, played: Played, calls: int, before: str | None) -> RunVerdict:
    recorded = ends(tape.state())
    differing = [
        name
        for name in sorted({*recorded, *played.nodes})
        if recorded.get(name) != played.nodes.get(name) and not _is_open(played, name)
    ]
    failing = [
        name
        for name in differing
        if name in played.nodes
        and played.nodes[name].state in ("failed", "skipped", "cancelled")
        and (name not in recorded or recorded[name].state != played.nodes[name].state)
    ]
    return RunVerdict(
        run=tape.run,
        opening=tape.begun.opening,
        calls=calls,
        changes=tuple(played.changes),
        before=before,
        after=played.outcome,
        failing=tuple(failing),
        differing=tuple(differing),
        needs_live=tuple(played.stops),
        executed=True,
    )


def _is_open(played: Played, name: str) -> bool:
    """Whether a node did not come to an end because the record did not carry that far."""
    node = played.nodes.get(name)
    return bool(played.stops) and node is not None and node.state in _UNDER_WAY


def _problem(run: str, opening: str, before: str | None, why: str) -> RunVerdict:
    return RunVerdict(run=run, opening=opening, calls=0, changes=(), before=before, after=None, problem=why)
