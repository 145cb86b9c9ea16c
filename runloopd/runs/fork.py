"""Makes a fork: another run of what a run was, but for the changes that somebody asked for.

Knows: which place a point of a run means, which changes there are and that they are judged before the fork
exists, and that a fork has no right and no limit that its origin's agents, policy and the operator's word do
not give. Does not know: how its attempts hear the record (``runs.branch``) or how a run is driven.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from openings.cone import below
from openings.definition import Node, Opening, PortTable
from openings.engine import LOGIC
from openings.errors import OpeningError
from openings.state import base
from openings.validate import complete, findings
from pog.reader import Reader
from runloop.caps.policy import CAPABILITIES
from runloop.config import Budgets
from runloop.digest import canonical
from runloop.errors import ConflictError, NotFoundError, UsageError
from runloop.events import (
    Draft,
    Event,
    Provenance,
    RunFinished,
    RunFork,
    RunStarted,
)
from runloop.ids import RunId, new_run_id
from runloop.spelling import did_you_mean
from runloopd.authority.faces import asker_of, outside
from runloopd.broker.quotas import Quotas
from runloopd.bus.principal import Principal
from runloopd.journal import Journal
from runloopd.runs.point import Place, find_place, lost_nodes
from runloopd.runs.recorded import RecordedAnswers
from runloopd.runtime.quarantine import Quarantine
from runloopd.runtime.registry import InstalledAgent, Registry

__all__ = ["ForkWish", "Forks"]

MAX_PARAMS_BYTES = 256 * 1024
MAX_MODEL_CHARS = 200
MACHINE = ("sandbox", "wasmtime")
"""What ``run.started.engine`` says of where guests run; all else is what the run was decided by, and what its
agents were served."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForkWish:
    """What a client asks to fork."""

    run: RunId
    at: str | None = None
    """A node (``draft``, ``n[3]``), a message (``msg_…``, or the number of a ``message.sent``) or an event
    (``#123``); None: nothing is tried anew but what comes of the changes."""
    set: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    agents: Mapping[str, str] = field(default_factory=dict)
    """Node -> reference of the agent that serves it instead."""
    deny: Sequence[str] = ()
    answers: Literal["recorded", "live"] = "recorded"
    origin: Mapping[str, Any] = field(default_factory=dict)


class Forks:
    """Forks and retries of the runs of this daemon."""

    def __init__(
        self,
        *,
        journal: Journal,
        reader: Reader,
        registry: Registry,
        quarantine: Quarantine,
        prepare: Callable[[InstalledAgent], Awaitable[None]],
        engine_versions: Callable[[], dict[str, Any]],
        budgets: Budgets,
        quotas: Quotas,
    ) -> None:
        """``prepare`` makes an agent's component ready in the sandbox."""
        self._journal = journal
        self._reader = reader
        self._registry = registry
        self._quarantine = quarantine
        self._prepare = prepare
        self._engine_versions = engine_versions
        self._budgets = budgets
        self._quotas = quotas

    async def fork(self, principal: Principal, wish: ForkWish) -> dict[str, Any]:
        """Start a fork: ``{run, fork_of, at, call, changes, answers}``.

        Raises :class:`NotFoundError` for a run or place that is not there, :class:`UsageError` for a change
        that does not fit, and what speaks against its agents. Then nothing was done.
        """
        events = await self._events(wish.run)
        origin = events[0].payload
        assert isinstance(origin, RunStarted)
        _insist_on_whole(wish.run, origin)
        opening = Opening.from_json(origin.definition)
        place = Place(nodes=()) if wish.at is None else find_place(opening, events, wish.at)
        changes = await self._changes(opening, origin, wish)
        return await self._start(principal, events, origin, opening, place, changes, wish)

    async def retry(
        self, principal: Principal, run: RunId, node: str | None, origin: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Start a fork that tries anew, and live, what failed. As :meth:`fork`.

        Raises :class:`ConflictError` for a run that goes on or that succeeded.
        """
        events = await self._events(run)
        started = events[0].payload
        assert isinstance(started, RunStarted)
        _insist_on_whole(run, started)
        ended = next((e.payload for e in reversed(events) if isinstance(e.payload, RunFinished)), None)
        if ended is None:
            raise ConflictError(
                f"run {run} goes on",
                hint=f"'rlp resume {run[:8]}' shows it, 'rlp cancel {run[:8]}' ends it",
                code="retry.goes_on",
            )
        opening = Opening.from_json(started.definition)
        lost = await asyncio.to_thread(lost_nodes, opening, self._record(events), self._record_of)
        if ended.outcome == "succeeded" and node is None:
            hint = f"'rlp retry {run[:8]} {lost[0]}' tries what failed all the same" if lost else None
            raise ConflictError(
                f"run {run} succeeded; there is nothing to try again",
                hint=hint or f"'rlp fork {run[:8]}@<node> --live' repeats a part of it",
                code="retry.succeeded",
            )
        nodes = tuple(each for each in lost if node is None or _is_of(opening, node, each))
        if node is not None and not nodes:
            raise UsageError(
                f"node {node!r} did not fail in run {run}",
                hint=f"what can be tried again: {', '.join(lost) or 'nothing'}",
                code="retry.node",
            )
        wish = ForkWish(run=run, answers="live", origin=origin)
        if not nodes:  # everything was done, and yet it was no success: all of it may be tried again
            nodes = tuple(each.id for each in opening.nodes if not opening.inbound(each.id))
        return await self._start(principal, events, started, opening, Place(nodes=nodes), {}, wish)

    async def _events(self, run: RunId) -> list[Event]:
        events = await asyncio.to_thread(lambda: list(self._reader.events(run=run)))
        if not events or not isinstance(events[0].payload, RunStarted):
            raise NotFoundError(f"no run {run}", hint="'rlp runs' lists them", code="run.absent")
        return events

    def _record(self, events: Sequence[Event]) -> RecordedAnswers:
        return RecordedAnswers(events, self._reader.blob)

    def _record_of(self, run: str) -> RecordedAnswers:
        return self._record(list(self._reader.events(run=run)))

    # --- the changes ------------------------------------------------------------------------------

    async def _changes(self, opening: Opening, origin: RunStarted, wish: ForkWish) -> dict[str, Any]:
        """What is to be different, judged; without what is not."""
        changes: dict[str, Any] = {}
        if wish.set:
            changes["set"] = _params(opening, origin, wish.set)
        if wish.model is not None:
            if not 0 < len(wish.model) <= MAX_MODEL_CHARS or not wish.model.isprintable():
                raise UsageError(
                    "the model is empty or too long", hint="--model openai:gpt-4o", code="fork.model"
                )
            changes["model"] = wish.model
        if wish.agents:
            changes["agents"] = dict(wish.agents)
        if wish.deny:
            for name in wish.deny:
                if name not in CAPABILITIES:
                    raise UsageError(
                        f"there is no capability {name!r}",
                        hint=did_you_mean(name, CAPABILITIES, "") or f"known: {', '.join(CAPABILITIES)}",
                        code="cap.unknown",
                    )
            changes["deny"] = sorted(set(wish.deny))
        return changes

    def _served(
        self, opening: Opening, origin: RunStarted, agents: Mapping[str, str]
    ) -> tuple[Opening, dict[str, InstalledAgent]]:
        """The opening with its changed agents written in, and the agent behind every pin of the fork."""
        served: dict[str, InstalledAgent] = {}
        changed: dict[str, Node] = {}
        for name, reference in agents.items():
            node = opening.node(name)
            if node is None or node.nests is not None:
                raise UsageError(
                    f"there is no node {name!r} that an agent serves",
                    hint=did_you_mean(name, (n.id for n in opening.nodes), "") or None,
                    code="fork.agent",
                )
            agent = self._registry.resolve(f"agent:{reference.removeprefix('agent:')}")
            use = f"agent:{agent.manifest.name}@{agent.manifest.version}"
            requires = tuple(sorted(port for port, spec in agent.ports.in_.items() if spec.required))
            changed[name] = replace(node, use=use, requires=requires)
            served[name] = agent
        for name, pin in origin.agents.items():
            if name not in served:
                served[name] = self._registry.pinned(pin, library=origin.engine.get("library"))
        if not changed:
            return opening, served
        fresh = replace(opening, nodes=tuple(changed.get(node.id, node) for node in opening.nodes))
        _judge(fresh, {node.use: served[node.id].ports for node in fresh.nodes if node.id in served})
        return fresh, served

    # --- the start --------------------------------------------------------------------------------

    async def _start(
        self,
        principal: Principal,
        events: Sequence[Event],
        origin: RunStarted,
        opening: Opening,
        place: Place,
        changes: dict[str, Any],
        wish: ForkWish,
    ) -> dict[str, Any]:
        if origin.engine.get("logic", LOGIC) != LOGIC:
            raise UsageError(
                f"run {wish.run} was made by engine logic {origin.engine['logic']}, this is {LOGIC}",
                hint="fork it with the build that made it",
                code="fork.logic",
            )
        fresh, served = await asyncio.to_thread(self._served, opening, origin, changes.get("agents", {}))
        for name in sorted({agent.pin.name for agent in served.values()}):
            await self._quarantine.check(name)
        for agent in served.values():
            await self._prepare(agent)
            await asyncio.to_thread(self._registry.keep, agent)
        same = fresh is opening
        changes = _still_denied(origin, changes)
        made = RunStarted(
            opening=origin.opening,
            definition=origin.definition if same else fresh.to_json(),
            definition_digest=origin.definition_digest if same else fresh.digest,
            params={**origin.params, **changes.get("set", {})},
            agents={name: agent.pin for name, agent in served.items()},
            engine=self._engine(origin),
            policy=self._policy(origin, served.values()),
            principal=principal.label,
            origin=_origin(origin, wish, served.values()),
            fork=RunFork(
                run=wish.run, at=list(place.nodes), call=place.call, changes=changes, answers=wish.answers
            ),
            lineage=origin.lineage or wish.run,
        )
        run = new_run_id()
        await self._journal.append(
            Draft(
                payload=made,
                actor=principal.label,
                run=run,
                provenance=Provenance(causes=(events[0].id,)),
            )
        )
        return {
            "run": run,
            "fork_of": wish.run,
            "at": list(place.nodes),
            "call": place.call,
            "changes": changes,
            "answers": wish.answers,
        }

    def _engine(self, origin: RunStarted) -> dict[str, Any]:
        """As the origin's, on this machine. Of what is served to agents the origin's is taken if it is kept:
        where it is not, none of the origin's agents uses it."""
        here = self._engine_versions()
        engine = {**origin.engine, **_machine(here)}
        if "library" in here and not self._registry.has_library(str(engine.get("library"))):
            engine["library"] = here["library"]
        return engine

    def _policy(self, origin: RunStarted, agents: Any) -> dict[str, Any]:
        """The limits of the origin, and never more than the configuration gives now."""
        policy = dict(origin.policy)
        for name, ceiling in (
            ("budget_micro_usd", self._budgets.run_micro_usd),
            ("budget_tokens", self._budgets.run_tokens),
        ):
            had = policy.get(name)
            policy[name] = ceiling if had is None else min(had, ceiling)
        if self._budgets.ask_micro_usd is not None:
            had = policy.get("ask_micro_usd")
            asks = self._budgets.ask_micro_usd
            policy["ask_micro_usd"] = asks if had is None else min(had, asks)
        quotas = policy.get("quotas")
        names = sorted({agent.pin.name for agent in agents})
        policy["quotas"] = _stricter(quotas if isinstance(quotas, dict) else {}, self._quotas.to_json(names))
        return policy


# --- small judgements -----------------------------------------------------------------------------


def _still_denied(origin: RunStarted, changes: dict[str, Any]) -> dict[str, Any]:
    """What a fork goes without, whatever is made of it goes without too: to have the right again, fork the
    run that had it. A second send would else be no repetition, for the fork's record has none."""
    before = () if origin.fork is None else origin.fork.changes.get("deny", ())
    denied = sorted({*changes.get("deny", ()), *before})
    return {**changes, "deny": denied} if denied else changes


def _stricter(had: Mapping[str, Any], now: Mapping[str, Mapping[str, list[int]]]) -> dict[str, Any]:
    """Quotas by agent and resource, each ``[soft, hard]``: those of the record, within those of now."""
    made: dict[str, Any] = dict(had)
    for agent, limits in now.items():
        recorded = had.get(agent, {})
        made[agent] = {
            resource: [min(pair) for pair in zip(limit, recorded.get(resource, limit), strict=True)]
            for resource, limit in limits.items()
        }
    return made


def _is_of(opening: Opening, node: str, lost: str) -> bool:
    """Whether somebody who names a node means a lost one: itself, what it came of, or what is inside it."""
    if "/" in node:
        return lost == node or lost.startswith(f"{node}/")
    return base(node) in below(opening, (lost.partition("/")[0],))


def _insist_on_whole(run: str, started: RunStarted) -> None:
    if started.parent is not None:
        parent = started.parent
        raise UsageError(
            f"run {run} is a part of run {parent.root}",
            hint=f"fork the whole: {parent.root[:8]}@{parent.node}",
            code="fork.nested",
        )


def _params(opening: Opening, origin: RunStarted, given: Mapping[str, Any]) -> dict[str, Any]:
    """The changed parameters as the opening declares them; those that are as they were are no change."""
    every = {**origin.params, **given}
    wrong = [f for f in findings(opening, {}, every) if f.file == "<parameters>" and f.severity == "error"]
    if wrong:
        raise OpeningError(wrong)
    if len(canonical(every)) > MAX_PARAMS_BYTES:
        raise UsageError("the parameters are larger than 256 KiB", hint="put large inputs in a file")
    read = complete(opening, every)
    return {name: read[name] for name in given if canonical(read[name]) != canonical(origin.params.get(name))}


def _judge(opening: Opening, ports: Mapping[str, PortTable]) -> None:
    """Whether the agents that were put in fit their places. Raises :class:`OpeningError`."""
    about = {f"opening.{word}" for word in ("type", "unknown_port", "unconnected")}
    wrong = [f for f in findings(opening, ports) if f.code in about and f.severity == "error"]
    if wrong:
        raise OpeningError(wrong)


def _machine(versions: Mapping[str, Any]) -> dict[str, Any]:
    """What this machine is; what the engine decides by stays the origin's."""
    return {name: value for name, value in versions.items() if name in MACHINE}


def _origin(origin: RunStarted, wish: ForkWish, agents: Any) -> dict[str, Any]:
    dev = sorted({agent.manifest.name for agent in agents if agent.dev})
    # Whoever forks it, what a program outside said in it stays that program's word, and so do its wishes.
    asker = outside(asker_of(origin.principal, origin.origin))
    foreign = {"asked_by": asker, "names_files": origin.origin.get("names_files")} if asker else {}
    return {
        **foreign,
        "via": "cli",
        "prompt": None,
        "interactive": False,
        "source_path": origin.origin.get("source_path"),
        **{name: value for name, value in wish.origin.items() if name in ("via", "interactive")},
        **({"dev": dev} if dev else {}),
    }
