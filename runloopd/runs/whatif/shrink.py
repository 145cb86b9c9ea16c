"""The smallest policy under which every recorded run of an agent is the run it was.

Three steps, and none on trust: what the record shows to have been used is written down as narrow as the
grammar can (``used``); every single grant is taken away in turn, and stays away where no verdict changes; and
what is left is proven, by driving every run again under it. Each grant that stays is named with a call that
needs it.

Never more than the agent may do at present. Knows: one agent. Does not know: where the text is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runloop import toml
from runloop.caps.grants import Entry, NetRule
from runloop.caps.policy import CAPABILITIES, Override, Policy, effective
from runloop.errors import ConflictError, NotFoundError
from runloopd.runs.recorded import RecordedAnswer
from runloopd.runs.whatif.answering import Change
from runloopd.runs.whatif.library import Library
from runloopd.runs.whatif.policy import PolicyTest, Proposal, Rulings
from runloopd.runs.whatif.tape import Tape
from runloopd.runs.whatif.used import Use, needs, policy_of
from runloopd.runtime.registry import InstalledAgent

__all__ = ["Shrink", "Shrunk"]

Grant = tuple[str, Entry | bool]
"""Capability and one entry of its value; True where it is granted whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shrunk:
    """A policy and its proof."""

    agent: str
    policy: Policy
    text: str
    """As a file: a ``policy.caps``, and an override just as well."""
    before: Policy
    runs: int
    calls: int
    """Calls of the agent in them."""
    needed: tuple[tuple[str, Change], ...]
    """Each grant, in words, and the first call that would change without it."""

    def to_json(self) -> dict[str, Any]:
        return {
            "agent": self.agent,
            "runs": self.runs,
            "calls": self.calls,
            "before": self.before.to_json(),
            "policy": self.policy.to_json(),
            "text": self.text,
            "needed": [{"grant": grant, "by": change.to_json()} for grant, change in self.needed],
        }


class Shrink:
    """Finds the smallest policy of an agent."""

    def __init__(
        self, library: Library, test: PolicyTest, override: Callable[[str], Override | None]
    ) -> None:
        self._library = library
        self._test = test
        self._override = override

    async def shrink(self, agent: InstalledAgent, since_ms: int) -> Shrunk:
        """Raises :class:`NotFoundError` without runs, :class:`ConflictError` where a run would not even pass
        under what the agent may do at present."""
        name = agent.manifest.name
        runs = await self._library.runs(since_ms, name)
        if not runs:
            raise NotFoundError(
                f"no finished run of {name} is on record since {_day(since_ms)}: nothing shows what it needs",
                hint="--since 90d looks further back",
                code="whatif.no_runs",
            )
        present = effective(agent.ceiling, agent.policy, self._override(name)).policy
        calls = await self._calls(runs, name)
        await self._insist(calls, name, present)
        least = await self._least(calls, name, present)
        needed = [(_shown(grant), await self._needs(calls, name, least, grant)) for grant in _grants(least)]
        await self._prove(runs, name, least)
        text = _text(name, least, present, runs=len(runs), calls=len(calls), since_ms=since_ms)
        return Shrunk(
            agent=name,
            policy=least,
            text=text,
            before=present,
            runs=len(runs),
            calls=len(calls),
            needed=tuple(needed),
        )

    # --- the record -------------------------------------------------------------------------------

    async def _calls(self, runs: list[str], agent: str) -> list[tuple[Tape, RecordedAnswer]]:
        """Every call of the agent."""
        found = []
        for run in runs:
            for tape in await self._library.whole(run):
                for answer in tape.calls():
                    pin = tape.pin(answer.call.node)
                    if pin is not None and pin.name == agent:
                        found.append((tape, answer))
        return found

    async def _changed(
        self, calls: list[tuple[Tape, RecordedAnswer]], agent: str, policy: Policy
    ) -> Change | None:
        """The first call that would meet another verdict."""
        rulings: Rulings = self._test.rulings(Proposal(agent=agent, policy=policy))
        for tape, answer in calls:
            change = await rulings.change(tape, answer)
            if change is not None:
                return change
        return None

    async def _insist(self, calls: list[tuple[Tape, RecordedAnswer]], agent: str, present: Policy) -> None:
        change = await self._changed(calls, agent, present)
        if change is not None:
            raise ConflictError(
                f"what {agent} may do at present is not what run {change.run} had: call {change.call} of"
                f" {change.node} ({change.op}) was {change.before} and would be {change.after}",
                hint="--since a later day leaves that run out; 'rlp policy test' shows them all",
                code="whatif.present",
            )

    # --- the policy -------------------------------------------------------------------------------

    async def _least(self, calls: list[tuple[Tape, RecordedAnswer]], agent: str, present: Policy) -> Policy:
        rulings = self._test.rulings(Proposal(agent=agent, policy=present))
        uses: list[Use] = []
        for tape, answer in calls:
            pin = tape.pin(answer.call.node)
            if pin is not None and tape.refusal(answer) is None:
                tools = rulings.agent(pin).tools
                uses += needs(answer.call.op, tape.args(answer.call), tape.world(answer), tools)
        left = policy_of(uses, present)
        while (change := await self._changed(calls, agent, left)) is not None:
            left = _given_back(left, present, change)
        for grant in _grants(left):
            without = _without(left, grant)
            if await self._changed(calls, agent, without) is None:
                left = without
        return left

    async def _needs(
        self, calls: list[tuple[Tape, RecordedAnswer]], agent: str, policy: Policy, grant: Grant
    ) -> Change:
        change = await self._changed(calls, agent, _without(policy, grant))
        if change is None:
            raise ConflictError(f"{_shown(grant)} is not needed after all", code="whatif.not_minimal")
        return change

    async def _prove(self, runs: list[str], agent: str, policy: Policy) -> None:
        """Drive every run again under the policy."""
        rulings = self._test.rulings(Proposal(agent=agent, policy=policy))
        for run in runs:
            verdict = await self._test.judge(run, rulings, execute=True)
            if not verdict.same:
                what = verdict.problem or next((stop.why for stop in verdict.needs_live), "it ends otherwise")
                raise ConflictError(
                    f"run {run} does not come out the same when it is driven again: {what}",
                    hint=f"'rlp replay {run[:8]}' says where; --since a later day leaves it out",
                    code="whatif.not_proven",
                )


def _given_back(left: Policy, present: Policy, change: Change) -> Policy:
    """What was taken too narrow is whole again, as it is at present; never more."""
    name = change.capability
    if name not in CAPABILITIES or left.value(name) == present.value(name):
        return present
    return effective(present, Policy({**left.grants, name: present.value(name)})).policy


def _grants(policy: Policy) -> Iterator[Grant]:
    for name, value in policy.grants.items():
        yield from [(name, True)] if isinstance(value, bool) else [(name, entry) for entry in value]


def _without(policy: Policy, grant: Grant) -> Policy:
    name, entry = grant
    value = policy.value(name)
    left = False if isinstance(value, bool) else tuple(one for one in value if one != entry) or False
    return Policy({**policy.grants, name: left})


def _shown(grant: Grant) -> str:
    name, entry = grant
    if entry is True:
        return name
    return f"{name} {toml.value(entry.to_json() if isinstance(entry, NetRule) else entry)}"


def _text(agent: str, policy: Policy, present: Policy, *, runs: int, calls: int, since_ms: int) -> str:
    """The policy as a file. What the agent has at present and does not need is said to be nothing: in an
    override, a key that is absent would leave it."""
    lines = [
        f"# What {agent} needed, and nothing else: {runs} runs with {calls} calls since {_day(since_ms)},",
        "# driven again under this policy. Taking away any one grant changes at least one of them.",
        "[capabilities]",
    ]
    granted = policy.to_json()
    for name in CAPABILITIES:
        if name in granted:
            lines.append(f"{toml.key(name)} = {toml.value(granted[name])}")
        elif name in present.grants and not (name == "kb_read.contacts_raw" and "kb_read" not in granted):
            lines.append(f"{toml.key(name)} = {_nothing(name)}")
    return "\n".join(lines) + "\n"


def _nothing(name: str) -> str:
    try:
        CAPABILITIES[name].parse([])
    except ValueError:
        return "false"
    return "[]"


def _day(since_ms: int) -> str:
    return datetime.fromtimestamp(since_ms / 1000, UTC).strftime("%Y-%m-%d")
