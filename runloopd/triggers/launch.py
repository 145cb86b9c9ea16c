"""From something due to a run, or to a reason: what is stated, in which order.

Knows: that a firing is stated before its run, and names it; who the run belongs to; what it may cost; what
becomes of a run that cannot be started. Does not know: when something is due (``service``).

Whoever finds a firing without its run, after a crash, calls :meth:`Launcher.start` with it: the run has the
id that was stated, and is started once however often that is done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from openings.definition import Opening
from openings.load import parse
from pog.errors import LedgerWriteError
from runloop.config import Scheduler
from runloop.errors import RunloopError
from runloop.events import Draft, Provenance, TriggerFired, TriggerMissed, TriggerSet
from runloop.ids import RunId
from runloopd.bus.principal import Principal
from runloopd.journal import Journal
from runloopd.runs.service import Submission
from runloopd.triggers.allowance import Allowance
from runloopd.triggers.book import Trigger, label, run_of
from runloopd.triggers.wish import CHANGED

__all__ = ["Launcher", "Starter", "asks_for_changes", "missed"]

_REASON_CHARS = 300


class Starter(Protocol):
    """Starts runs: ``runs.service.Runs``."""

    def examine(self, wish: Submission) -> tuple[Opening, dict[str, Any]]:
        """The opening as it would run and the limits it would have; raises what is wrong with it."""
        ...

    async def submit(
        self,
        principal: Principal,
        wish: Submission,
        *,
        run: RunId | None = None,
        causes: tuple[int, ...] = (),
    ) -> RunId:
        """Start it under this id, unless it was started before."""
        ...


class Launcher:
    """Fires triggers."""

    def __init__(
        self,
        *,
        journal: Journal,
        runs: Starter,
        now: Callable[[], int],
        allowance: Allowance,
        config: Scheduler,
    ) -> None:
        self._journal = journal
        self._runs = runs
        self._now = now
        self._allowance = allowance
        self._config = config
        self.closing = False

    def examine(self, fact: TriggerSet, changed: list[str]) -> tuple[Opening, int]:
        """The opening, and the most that a run of it may cost; raises what is wrong with it."""
        opening, limits = self._runs.examine(self._submission(fact, changed, {}))
        return opening, int(limits["budget_micro_usd"])

    async def fire(
        self, trigger: Trigger, due_ms: int, cause: dict[str, Any], before: list[Draft], why: str | None
    ) -> str | None:
        """Start a run for a due time, or state the reason why not; ``before`` is stated with either.

        ``why``: a reason that is known already. Returns the run, None where none was started. Raises what
        the ledger raises; then nothing was done.
        """
        money = 0
        if why is None:
            try:
                _, money = self.examine(trigger.fact, list(cause.get("paths", ())))
                why = self._allowance.refusal(money, self._now())
            except RunloopError as error:
                why = _said(error)
        if why is not None:
            reason = f"{why}: {cause['count']} files" if "count" in cause else why
            await self._journal.append(*before, missed(trigger, due_ms, due_ms, 1, reason))
            return None
        fired = TriggerFired(trigger=trigger.name, due_ms=due_ms, starts=run_of(trigger, due_ms), cause=cause)
        self._allowance.begin(fired.starts, trigger.name, money)
        said = Draft(payload=fired, actor="daemon", provenance=Provenance(causes=(trigger.event,)))
        try:
            *_, event = await self._journal.append(*before, said)
        except BaseException:
            self._allowance.abandon(fired.starts)
            raise
        return await self.start(trigger, event.id, fired)

    async def start(self, trigger: Trigger, event: int, fired: TriggerFired) -> str | None:
        """Start the run a firing names. Where it can never be started, that is stated; where it cannot be
        started now (no room in the ledger, the daemon drains), the firing stays open."""
        cause = fired.cause
        origin = {
            "via": "schedule",
            "interactive": False,
            "schedule": trigger.name,
            "due_ms": fired.due_ms,
            "hop": cause.get("hop", 0),
        }
        principal = Principal(kind="schedule", name=label(trigger.name))
        wish = self._submission(trigger.fact, list(cause.get("paths", ())), origin)
        try:
            await self._runs.submit(principal, wish, run=RunId(fired.starts), causes=(event,))
        except LedgerWriteError:
            raise
        except RunloopError as error:
            if self.closing:
                return None
            self._allowance.abandon(fired.starts)
            times = 0 if "by" in cause else 1
            lost = missed(trigger, fired.due_ms, fired.due_ms, times, _said(error))
            await self._journal.append(lost)
            return None
        return fired.starts

    def _submission(self, fact: TriggerSet, changed: list[str], origin: dict[str, Any]) -> Submission:
        """What is run: the text as it was set, and the files that changed where the opening asks for them."""
        params = dict(fact.params)
        if fact.watch is not None and asks_for_changes(fact):
            params[CHANGED] = changed
        return Submission(
            source=fact.source,
            name=fact.source_path or fact.opening,
            path=fact.source_path,
            agents_dir=fact.agents_dir,
            params=params,
            origin=origin,
            openings=fact.openings,
            micro_usd=self._config.run_micro_usd,
        )


def asks_for_changes(fact: TriggerSet) -> bool:
    """Whether the opening declares the parameter that hears of changed files."""
    opening = parse(fact.source, name=fact.source_path or fact.opening).opening
    declared = opening.params.get(CHANGED) if opening is not None else None
    return declared is not None and declared.type == "list"


def missed(trigger: Trigger, first_ms: int, last_ms: int, times: int, reason: str) -> Draft:
    """The fact that due times led to no run."""
    return Draft(
        payload=TriggerMissed(
            trigger=trigger.name, first_due_ms=first_ms, last_due_ms=last_ms, times=times, reason=reason
        ),
        actor="daemon",
        provenance=Provenance(causes=(trigger.event,)),
    )


def _said(error: RunloopError) -> str:
    return f"{error.named_code}: {error.message}"[:_REASON_CHARS]
