"""What a run may use up: calls, bytes, tokens, money.

Knows: limits, what is spent and reserved, when to warn and when to stop. Does not know: where the figures
come from (``broker.record`` folds them out of the ledger, so that they are the same after a restart and in
a replay) or what a call does. Pure bookkeeping, without awaits: between a question and its reservation
nothing else can happen.

One purse per run, whatever the number of its agents. Money is exact: a reservation is an upper bound, and
reservations plus spendings never pass the limit. Tokens before a call are an estimate (two bytes of a
prompt count as one), because a strict bound would refuse most prompts that fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from runloop import config
from runloop.errors import RefusedError
from runloop.events import QuotaExceeded, QuotaWarned

__all__ = ["Hold", "Purse", "QuotaError", "Quotas", "Usage", "check"]


class Quotas:
    """The limits themselves: of one attempt of a node, and of one run."""

    def __init__(
        self,
        attempt: config.Quotas | None = None,
        run: config.Budgets | None = None,
        *,
        warn_percent: int = 80,
    ) -> None:
        self.attempt = attempt or config.Quotas()
        self.run = run or config.Budgets()
        """Where the run's own policy says nothing."""
        self.warn_percent = warn_percent
        """Part of a limit at which the soft warning is stated, once."""


class QuotaError(RefusedError):
    """A hard limit was reached; the call was not made."""

    code: ClassVar[str] = "quota.exceeded"

    def __init__(self, resource: str, limit: int, used: int, asked: int) -> None:
        money = resource.endswith("micro_usd")
        super().__init__(
            f"{resource}: {used} of {limit} used or reserved, {asked} more would pass the limit",
            hint="raise the budget of the opening's policy, within the operator's"
            if money or resource.endswith("tokens")
            else "raise [quotas] in the configuration",
            code="budget.exceeded" if money else None,
            resource=resource,
            limit=limit,
            used=used,
        )
        self.resource, self.limit, self.used = resource, limit, used

    def fact(self, agent: str) -> QuotaExceeded:
        """The event that states it."""
        return QuotaExceeded(agent=agent, resource=self.resource, limit=self.limit, used=self.used)


@dataclass(slots=True)
class Usage:
    """What one attempt has used, according to its record."""

    calls: int = 0
    bytes: int = 0
    """Of requests and answers together."""
    mails: int = 0


def check(
    resource: str, used: int, asked: int, limit: int, *, agent: str, warned: set[str], percent: int = 80
) -> list[QuotaWarned]:
    """Raise :class:`QuotaError` if ``asked`` more pass the limit; else the warning that is due, if any.

    ``warned`` remembers what was warned of; the caller's record restores it from the ledger.
    """
    if used + asked > limit:
        raise QuotaError(resource, limit, used, asked)
    if (used + asked) * 100 >= limit * percent and resource not in warned:
        warned.add(resource)
        return [QuotaWarned(agent=agent, resource=resource, limit=limit, used=used + asked)]
    return []


@dataclass(slots=True)
class Hold:
    """A reservation. Released exactly once, when what it became is in the purse's record."""

    purse: Purse
    node: str
    micro_usd: int
    tokens: int
    open: bool = True

    def release(self) -> None:
        """Give back what was held."""
        if self.open:
            self.open = False
            self.purse.held_micro_usd -= self.micro_usd
            self.purse.held_tokens[self.node] -= self.tokens

    def keep(self) -> None:
        """Book the whole reservation as spent: nobody can tell what became of it."""
        if self.open:
            self.release()
            self.purse.spend(self.node, self.micro_usd, self.tokens)


@dataclass(slots=True)
class Purse:
    """Money and tokens of one run."""

    limit_micro_usd: int
    limit_tokens: int
    node_tokens: Mapping[str, int] = field(default_factory=dict)
    """Node -> its own, narrower limit of tokens."""
    spent_micro_usd: int = 0
    spent_tokens: dict[str, int] = field(default_factory=dict)
    """Node -> tokens."""
    held_micro_usd: int = 0
    held_tokens: dict[str, int] = field(default_factory=dict)

    def reserve(self, node: str, micro_usd: int, tokens: int) -> Hold:
        """Set money and tokens aside, or raise :class:`QuotaError`. Never negative, never in part."""
        if micro_usd < 0 or tokens < 0:
            raise ValueError("a reservation is not negative")
        used = self.spent_micro_usd + self.held_micro_usd
        if used + micro_usd > self.limit_micro_usd:
            raise QuotaError("run.micro_usd", self.limit_micro_usd, used, micro_usd)
        all_tokens = sum(self.spent_tokens.values()) + sum(self.held_tokens.values())
        if all_tokens + tokens > self.limit_tokens:
            raise QuotaError("run.tokens", self.limit_tokens, all_tokens, tokens)
        own = self.spent_tokens.get(node, 0) + self.held_tokens.get(node, 0)
        if node in self.node_tokens and own + tokens > self.node_tokens[node]:
            raise QuotaError(f"node.{node}.tokens", self.node_tokens[node], own, tokens)
        self.held_micro_usd += micro_usd
        self.held_tokens[node] = self.held_tokens.get(node, 0) + tokens
        return Hold(self, node, micro_usd, tokens)

    def spend(self, node: str, micro_usd: int, tokens: int) -> None:
        """Book what the record says was spent."""
        self.spent_micro_usd += max(0, micro_usd)
        self.spent_tokens[node] = self.spent_tokens.get(node, 0) + max(0, tokens)

    def warnings(self, agent: str, warned: set[str], percent: int) -> list[QuotaWarned]:
        """The soft warnings that are due after a reservation."""
        tokens = sum(self.spent_tokens.values()) + sum(self.held_tokens.values())
        money = self.spent_micro_usd + self.held_micro_usd
        found: list[QuotaWarned] = []
        for resource, used, limit in (
            ("run.micro_usd", money, self.limit_micro_usd),
            ("run.tokens", tokens, self.limit_tokens),
        ):
            if used:
                found += check(
                    resource, used, 0, max(limit, used), agent=agent, warned=warned, percent=percent
                )
        return found
