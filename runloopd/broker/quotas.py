"""What a run and each of its agents may use up: turns, calls, bytes, memory, tokens, fuel, time, money.

Knows: limits, what is spent and reserved, when to warn and when to stop. Does not know: where the figures
come from (``broker.record`` folds them out of the ledger, so that they are the same after a restart and in
a replay) or what a call does. Pure bookkeeping, without awaits: between a question and its reservation
nothing else can happen.

Two kinds, and they end differently. The **budget** of a run and of its nodes belongs to the opening: what
passes it is refused, and the guest may go on with less. The **quota** of an agent belongs to the operator: at
its hard limit the attempt ends as FAULTED. The quotas of a run are part of ``run.started``, so that neither a
restart under another configuration nor a replay judges by other figures.

One purse per run, whatever the number of its agents, and those of nested runs within it. Money is exact: a
reservation is an upper bound, and reservations plus spendings never pass the limit. Tokens before a call are
an estimate (two bytes of a prompt count as one), because a strict bound would refuse most prompts that fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from openings.state import base
from runloop import config
from runloop.errors import RefusedError
from runloop.events import QuotaExceeded, QuotaWarned

__all__ = [
    "EXCEEDED",
    "RESOURCES",
    "Allowance",
    "Hold",
    "Limit",
    "Limits",
    "Purse",
    "QuotaError",
    "Quotas",
    "Usage",
    "check",
]

EXCEEDED = "quota.exceeded"
"""Code of a refusal that ends the attempt."""

RESOURCES = (
    "turns",
    "calls",
    "bytes",
    "memory_keys",
    "memory_bytes",
    "promises",
    "messages",
    "mails",
    "tokens",
    "fuel",
    "wall_ms",
    "micro_usd",
)
"""What is counted of one agent in one run (its memory: in all runs)."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Where a warning is due, and where the end is."""

    soft: int
    hard: int


Limits = Mapping[str, Limit]
"""Resource -> limit of one agent."""


class Quotas:
    """The limits the configuration sets: of every agent, and of one run."""

    def __init__(
        self,
        agents: config.Quotas | None = None,
        run: config.Budgets | None = None,
        *,
        warn_percent: int = 80,
    ) -> None:
        self._agents = agents or config.Quotas()
        self.run = run or config.Budgets()
        """Where the run's own policy says nothing."""
        self.warn_percent = warn_percent
        """Part of a limit at which the soft warning is stated, once, where no other is set."""

    def of(self, agent: str) -> Limits:
        """The limits of one agent."""
        own = self._agents.agents.get(agent, {})
        return {resource: self._limit(resource, own) for resource in RESOURCES}

    def _limit(self, resource: str, own: Mapping[str, int]) -> Limit:
        hard = own.get(resource, getattr(self._agents, resource))
        soft = own.get(f"{resource}_soft", getattr(self._agents, f"{resource}_soft"))
        # Rounded up: a warning is due when the part is reached, and never behind the end.
        due = -(-hard * self.warn_percent // 100) if soft is None else min(soft, hard)
        return Limit(due, hard)

    def to_json(self, agents: Iterable[str]) -> dict[str, dict[str, list[int]]]:
        """As ``run.started`` keeps them: agent -> resource -> ``[soft, hard]``."""
        return {
            agent: {resource: [limit.soft, limit.hard] for resource, limit in self.of(agent).items()}
            for agent in agents
        }

    def recorded(self, policy: Mapping[str, Any], agent: str) -> Limits:
        """The limits a run was started with; what its record does not name is as configured now."""
        table = policy.get("quotas")
        found = table.get(agent) if isinstance(table, dict) else None
        kept = found if isinstance(found, dict) else {}
        return {
            resource: Limit(*map(int, kept[resource])) if resource in kept else limit
            for resource, limit in self.of(agent).items()
        }


class QuotaError(RefusedError):
    """A hard limit was reached; the call was not made."""

    code: ClassVar[str] = EXCEEDED

    def __init__(self, resource: str, limit: int, used: int, asked: int) -> None:
        budget = "." in resource
        words = f"{resource}: {used} of {limit} used or reserved, {asked} more would pass the limit"
        super().__init__(
            words if budget else f"QUOTA_EXCEEDED: {words}",
            hint="raise the budget of the opening's policy, within the operator's"
            if budget
            else f"raise quotas.{resource} in the configuration, or quotas.agents.<name>.{resource}",
            code="budget.exceeded" if budget else None,
            resource=resource,
            limit=limit,
            used=used,
        )
        self.resource, self.limit, self.used = resource, limit, used

    def fact(self, agent: str) -> QuotaExceeded:
        """The event that states it."""
        return QuotaExceeded(agent=agent, resource=self.resource, limit=self.limit, used=self.used)


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowance:
    """What is left to an attempt of its agent's fuel and time when it starts.

    Attempts of one agent that run side by side may each use what was left when they were scheduled.
    """

    fuel: Limit
    fuel_used: int
    wall_ms: Limit | None = None
    """None in a replay, where the clock decides nothing."""
    wall_used: int = 0

    @property
    def fuel_left(self) -> int:
        return self.fuel.hard - self.fuel_used

    @property
    def wall_left(self) -> int | None:
        return None if self.wall_ms is None else self.wall_ms.hard - self.wall_used


@dataclass(slots=True)
class Usage:
    """What one agent has used in one run and those nested in it, according to their record."""

    calls: int = 0
    bytes: int = 0
    """Of requests and answers together."""
    mails: int = 0
    turns: int = 0
    fuel: int = 0
    """Of attempts that have ended."""
    wall_ms: int = 0
    """Of instances that are not active any more."""
    active: dict[str, int] = field(default_factory=dict)
    """Instance -> since when it is active, unix milliseconds."""
    waiting: dict[str, int] = field(default_factory=dict)
    """Instance -> since when it waits for an answer."""
    waited_for: dict[tuple[str, str, int], str] = field(default_factory=dict)
    """Run, node and attempt -> host call of its newest answer."""
    asking: dict[tuple[str, str, int, int], int] = field(default_factory=dict)
    """Run, node, attempt, call of what is under way -> bytes of the request: counted, not yet on record."""

    def wall_at(self, now_ms: int) -> int:
        """Milliseconds of activity up to a moment."""
        return self.wall_ms + sum(max(0, now_ms - since) for since in self.active.values())


def check(
    resource: str,
    used: int,
    asked: int,
    limit: Limit | int,
    *,
    agent: str,
    warned: set[str],
    percent: int = 80,
) -> list[QuotaWarned]:
    """Raise :class:`QuotaError` if ``asked`` more pass the limit; else the warning that is due, if any.

    ``warned`` remembers what was warned of; the caller's record restores it from the ledger. ``percent`` is
    for a limit that is only a number: the part of it at which the warning is due.
    """
    if isinstance(limit, int):
        limit = Limit(-(-limit * percent // 100), limit)
    if used + asked > limit.hard:
        raise QuotaError(resource, limit.hard, used, asked)
    if used + asked and used + asked >= limit.soft and resource not in warned:
        warned.add(resource)
        return [QuotaWarned(agent=agent, resource=resource, limit=limit.hard, used=used + asked)]
    return []


@dataclass(slots=True)
class Pot:
    """Money and tokens of somebody within a run: spent, and held for what is under way."""

    micro_usd: int = 0
    tokens: int = 0
    held_micro_usd: int = 0
    held_tokens: int = 0


@dataclass(slots=True)
class Hold:
    """A reservation. Released exactly once, when what it became is in the purse's record."""

    purse: Purse
    node: str
    micro_usd: int
    tokens: int
    agent: str = ""
    open: bool = True

    def release(self) -> None:
        """Give back what was held."""
        if self.open:
            self.open = False
            self.purse.give_back(self.node, self.micro_usd, self.tokens, agent=self.agent)

    def keep(self) -> None:
        """Book the whole reservation as spent: nobody can tell what became of it."""
        if self.open:
            self.release()
            self.purse.spend(self.node, self.micro_usd, self.tokens, agent=self.agent)


@dataclass(slots=True)
class Purse:
    """Money and tokens of one run. That of a nested run lies in the purse of the run around it: whatever is
    held or spent here is held and spent there too, and no limit on the way up is passed."""

    limit_micro_usd: int
    limit_tokens: int
    node_tokens: Mapping[str, int] = field(default_factory=dict)
    """Node -> its own, narrower limit of tokens; of a mapped node, for all its items together."""
    spent_micro_usd: int = 0
    spent_tokens: dict[str, int] = field(default_factory=dict)
    """Node -> tokens."""
    held_micro_usd: int = 0
    held_tokens: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    """Spent and held, of all nodes."""
    pots: dict[str, Pot] = field(default_factory=dict)
    """Agent -> its part of all this; kept in the outermost purse."""
    within: Purse | None = None
    """Of the run around this one."""
    node: str = ""
    """The node of that run that this one serves."""

    def pot(self, agent: str) -> Pot:
        """An agent's part, in the whole tree of runs."""
        *_, (outermost, _) = self._levels("")
        return outermost.pots.setdefault(agent, Pot())

    def _levels(self, node: str) -> Iterator[tuple[Purse, str]]:
        """This purse and those around it, each with its node that spends."""
        purse = self
        yield purse, base(node)
        while purse.within is not None:
            node, purse = purse.node, purse.within
            yield purse, base(node)

    def reserve(
        self, node: str, micro_usd: int, tokens: int, *, agent: str = "", limits: Limits | None = None
    ) -> Hold:
        """Set money and tokens aside, or raise :class:`QuotaError`. Never negative, never in part."""
        if micro_usd < 0 or tokens < 0:
            raise ValueError("a reservation is not negative")
        levels = list(self._levels(node))
        for purse, spender in levels:
            purse._require(spender, micro_usd, tokens)
        pot = self.pot(agent)
        for resource, had, asked in (
            ("micro_usd", pot.micro_usd + pot.held_micro_usd, micro_usd),
            ("tokens", pot.tokens + pot.held_tokens, tokens),
        ):
            if limits is not None and had + asked > limits[resource].hard:
                raise QuotaError(resource, limits[resource].hard, had, asked)
        for purse, spender in levels:
            purse._hold(spender, micro_usd, tokens)
        pot.held_micro_usd += micro_usd
        pot.held_tokens += tokens
        return Hold(self, node, micro_usd, tokens, agent)

    def hold(self, node: str, micro_usd: int, *, agent: str = "") -> Hold:
        """Set aside what was held before: it was within the limits then, and is not asked about again."""
        for purse, spender in self._levels(node):
            purse._hold(spender, micro_usd, 0)
        self.pot(agent).held_micro_usd += micro_usd
        return Hold(self, node, micro_usd, 0, agent)

    def _require(self, node: str, micro_usd: int, tokens: int) -> None:
        used = self.spent_micro_usd + self.held_micro_usd
        if used + micro_usd > self.limit_micro_usd:
            raise QuotaError("run.micro_usd", self.limit_micro_usd, used, micro_usd)
        if self.tokens + tokens > self.limit_tokens:
            raise QuotaError("run.tokens", self.limit_tokens, self.tokens, tokens)
        own = self.spent_tokens.get(node, 0) + self.held_tokens.get(node, 0)
        if node in self.node_tokens and own + tokens > self.node_tokens[node]:
            raise QuotaError(f"node.{node}.tokens", self.node_tokens[node], own, tokens)

    def _hold(self, node: str, micro_usd: int, tokens: int) -> None:
        self.held_micro_usd += micro_usd
        self.held_tokens[node] = self.held_tokens.get(node, 0) + tokens
        self.tokens += tokens

    def give_back(self, node: str, micro_usd: int, tokens: int, *, agent: str) -> None:
        """Undo a reservation."""
        for purse, spender in self._levels(node):
            purse._hold(spender, -micro_usd, -tokens)
        pot = self.pot(agent)
        pot.held_micro_usd -= micro_usd
        pot.held_tokens -= tokens

    def spend(self, node: str, micro_usd: int, tokens: int, *, agent: str = "") -> None:
        """Book what the record says was spent."""
        micro_usd, tokens = max(0, micro_usd), max(0, tokens)
        for purse, spender in self._levels(node):
            purse.spent_micro_usd += micro_usd
            purse.spent_tokens[spender] = purse.spent_tokens.get(spender, 0) + tokens
            purse.tokens += tokens
        pot = self.pot(agent)
        pot.micro_usd += micro_usd
        pot.tokens += tokens

    def warnings(self, agent: str, warned: set[str], percent: int) -> list[QuotaWarned]:
        """The soft warnings of the run that are due after a reservation: by whichever limit is nearest."""
        levels = [purse for purse, _ in self._levels("")]
        money = [(purse.limit_micro_usd, purse.spent_micro_usd + purse.held_micro_usd) for purse in levels]
        tokens = [(purse.limit_tokens, purse.tokens) for purse in levels]
        found: list[QuotaWarned] = []
        for resource, pairs in (("run.micro_usd", money), ("run.tokens", tokens)):
            limit, used = min(pairs, key=lambda pair: pair[0] - pair[1])
            if used:
                top = max(limit, used)
                found += check(resource, used, 0, top, agent=agent, warned=warned, percent=percent)
        return found

    def agent_warnings(self, agent: str, limits: Limits, warned: set[str]) -> list[QuotaWarned]:
        """The soft warnings of one agent that are due after a reservation."""
        pot = self.pot(agent)
        found: list[QuotaWarned] = []
        for resource, used in (
            ("micro_usd", pot.micro_usd + pot.held_micro_usd),
            ("tokens", pot.tokens + pot.held_tokens),
        ):
            top = Limit(limits[resource].soft, max(limits[resource].hard, used))
            found += check(resource, used, 0, top, agent=agent, warned=warned)
        return found
