"""What scheduled runs may cost together in any 24 hours, and how many there may be (attacks.md K8).

Knows: what is set aside for runs that are not over, and what those cost that ended within a day. Does not
know: how a run is kept within its own budget (``broker.quotas``). Pure bookkeeping, without awaits: between a
question and its reservation nothing else can happen.

A run is charged with the most it may cost while it goes on, and for a day after its end with what it did
cost. So in whatever 24 hours one looks at, no more was spent than the limit: every run that spent in them was
charged when the last of them was let in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["DAY_MS", "Allowance"]

DAY_MS = 86_400_000


@dataclass(slots=True)
class _Charge:
    trigger: str
    reserved: int
    spent: int = 0
    ended_ms: int | None = None

    @property
    def amount(self) -> int:
        return max(self.reserved, self.spent) if self.ended_ms is None else self.spent


class Allowance:
    """The purse of everything that starts by itself. Money is in millionths of a US dollar."""

    def __init__(self, *, day_micro_usd: int, max_runs: int) -> None:
        self.day_micro_usd = day_micro_usd
        self.max_runs = max_runs
        self._charges: dict[str, _Charge] = {}
        self._before: list[tuple[int, int]] = []
        """When runs of an earlier life of the daemon ended, and what they cost."""

    def remember(self, ended: Iterable[tuple[int, int]]) -> None:
        """Runs that ended before this daemon started: when, and what each cost."""
        self._before.extend(ended)

    def refusal(self, micro_usd: int, now_ms: int) -> str | None:
        """Why a run that may cost so much must not start now: ``busy``, ``budget``, or None."""
        if sum(1 for charge in self._charges.values() if charge.ended_ms is None) >= self.max_runs:
            return "busy"
        return "budget" if self.charged(now_ms) + micro_usd > self.day_micro_usd else None

    def charged(self, now_ms: int) -> int:
        """What is set aside and what was spent in the last 24 hours."""
        since = now_ms - DAY_MS
        self._before = [(ended, cost) for ended, cost in self._before if ended > since]
        over = [run for run, c in self._charges.items() if c.ended_ms is not None and c.ended_ms <= since]
        for run in over:
            del self._charges[run]
        return sum(charge.amount for charge in self._charges.values()) + sum(c for _, c in self._before)

    def begin(self, run: str, trigger: str, micro_usd: int) -> None:
        """Set aside what a run may cost; said again, it is what was said first."""
        self._charges.setdefault(run, _Charge(trigger, micro_usd))

    def abandon(self, run: str) -> None:
        """The run was not started after all."""
        self._charges.pop(run, None)

    def spend(self, run: str, micro_usd: int) -> None:
        """What a run is on record to have cost."""
        if run in self._charges:
            self._charges[run].spent += max(0, micro_usd)

    def end(self, run: str, now_ms: int) -> None:
        """The run is over: what it did not spend is free again."""
        if run in self._charges and self._charges[run].ended_ms is None:
            self._charges[run].ended_ms = now_ms

    def running(self, trigger: str) -> list[str]:
        """Runs of a trigger that are not over, oldest first."""
        return [run for run, c in self._charges.items() if c.trigger == trigger and c.ended_ms is None]
