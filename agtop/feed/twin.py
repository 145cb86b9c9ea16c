"""The feed in memory: a list of facts, and a note of every order. The twin of the live feed.

What it is told with :meth:`TwinFeed.tell` is heard as if a daemon had stated it. Orders are kept in
``orders`` and change nothing, but where :attr:`TwinFeed.refusals` names one, it fails with that error.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agtop.model.facts import Fact, fact_of
from agtop.model.reduce import fold
from agtop.model.state import RunState
from agtop.ports import Change, Link, RunRow, Submitted
from runloop.digest import blob_digest
from runloop.errors import ConflictError, NotFoundError, RunloopError
from runloop.events import Event, RunStarted

__all__ = ["TwinFeed"]


class TwinFeed:
    """Serves :class:`agtop.ports.Desk` from memory."""

    def __init__(self, events: Iterable[Event | Mapping[str, Any] | Fact] = ()) -> None:
        self._facts: dict[str, list[Fact]] = {}
        """Run -> its facts and those of the runs inside it."""
        self._root: dict[str, str] = {}
        self._link = Link(how="live", words="twin")
        self._pending = Change()
        self._news = asyncio.Event()
        self.blobs: dict[str, bytes] = {}
        self.shown_approvals: dict[str, dict[str, Any]] = {}
        """Approval id -> what :meth:`approval` answers."""
        self.shown_questions: list[dict[str, Any]] = []
        self.shown_metrics: dict[str, Any] = {}
        self.submitted = Submitted(kind="run", run=None, words="twin")
        self.orders: list[tuple[Any, ...]] = []
        """Every order, in order: its name and what came with it."""
        self.refusals: dict[str, RunloopError] = {}
        """Name of an order, or of a question -> the error it ends in."""
        self.tell(events)

    # --- what happens ----------------------------------------------------------------------------

    def tell(self, events: Iterable[Event | Mapping[str, Any] | Fact]) -> None:
        """More facts, oldest first."""
        touched: set[str] = set()
        for event in events:
            fact = event if isinstance(event, Fact) else fact_of(event)
            if fact.run is None:
                continue
            if isinstance(fact.payload, RunStarted) and fact.payload.parent is not None:
                self._root[fact.run] = fact.payload.parent.root
            for run in {fact.run, self._root.get(fact.run, fact.run)}:
                self._facts.setdefault(run, []).append(fact)
                touched.add(run)
        if touched:
            self._changed(Change(runs=frozenset(touched), approvals=True))

    def relink(self, link: Link) -> None:
        """The connection stands otherwise now."""
        self._link = link
        self._changed(Change(link=link))

    def keep(self, data: bytes) -> str:
        """Bytes that a digest of facts may name; returns the digest."""
        digest = blob_digest(data)
        self.blobs[digest] = data
        return digest

    def _changed(self, change: Change) -> None:
        self._pending = Change(
            runs=self._pending.runs | change.runs,
            link=change.link or self._pending.link,
            approvals=self._pending.approvals or change.approvals,
        )
        self._news.set()

    # --- reading ---------------------------------------------------------------------------------

    @property
    def link(self) -> Link:
        return self._link

    async def change(self) -> Change:
        await self._news.wait()
        self._news.clear()
        change, self._pending = self._pending, Change()
        return change

    async def runs(self, limit: int = 200) -> Sequence[RunRow]:
        rows = [
            _row(fold(RunState(run=run), facts))
            for run, facts in self._facts.items()
            if run not in self._root
        ]
        return sorted(rows, key=lambda row: -row.started_ms)[:limit]

    async def find_run(self, prefix: str) -> str:
        found = [run for run in self._facts if run.startswith(prefix)]
        if len(found) > 1:
            raise ConflictError(f"{prefix!r} may be any of {', '.join(found)}", hint="type more characters")
        if not found:
            raise NotFoundError(f"no run is named {prefix!r}", hint="the run picker lists them")
        return found[0]

    async def facts(self, run: str, after: int = 0, limit: int = 2_000) -> Sequence[Fact]:
        self._may("facts")
        return [fact for fact in self._facts.get(run, []) if fact.id > after][:limit]

    def again(self, run: str, after: int, upto: int, limit: int) -> Sequence[Fact]:
        self._may("again")
        facts = self._facts.get(run, [])
        first, last = (bisect_right(facts, each, key=lambda fact: fact.id) for each in (after, upto))
        return facts[first : min(last, first + limit)]

    async def blob(self, digest: str) -> bytes:
        self._may("blob")
        if digest not in self.blobs:
            raise NotFoundError(f"no bytes are stored for {digest}", code="blob.absent")
        return self.blobs[digest]

    async def approvals(self) -> Sequence[dict[str, Any]]:
        self._may("approvals")
        return [
            {key: value for key, value in shown.items() if key != "content"}
            for shown in self.shown_approvals.values()
            if shown.get("state", "open") in ("open", "active")
        ]

    async def approval(self, name: str) -> dict[str, Any]:
        self._may("approval")
        if name not in self.shown_approvals:
            raise NotFoundError(f"there is no approval {name!r}", code="approval.absent")
        return self.shown_approvals[name]

    async def questions(self) -> Sequence[dict[str, Any]]:
        return list(self.shown_questions)

    async def question(self, promise: str) -> dict[str, Any]:
        self._may("question")
        for shown in self.shown_questions:
            if shown["promise"] == promise:
                return shown
        raise NotFoundError(f"there is no promise {promise!r}", code="promise.unknown")

    async def metrics(self) -> dict[str, Any]:
        self._may("metrics")
        return self.shown_metrics

    # --- acting ----------------------------------------------------------------------------------

    async def decide(
        self, approval: dict[str, Any], word: str, note: str = "", confirm: str = ""
    ) -> dict[str, Any]:
        typed = (confirm,) if confirm else ()
        self._order("decide", approval["approval"], approval["action_digest"], word, note, *typed)
        return {**approval, "state": {"approve": "approved", "deny": "denied"}.get(word, "undone")}

    async def answer(self, promise: str, value: Any) -> dict[str, Any]:
        self._order("answer", promise, value)
        return {"promise": promise, "value": value}

    async def submit(self, line: str) -> Submitted:
        self._order("submit", line)
        return self.submitted

    async def fork(self, run: str, at: str | None = None) -> str:
        self._order("fork", run, at)
        return run

    async def cancel(self, run: str, reason: str) -> None:
        self._order("cancel", run, reason)

    async def quarantine(self, agent: str, reason: str) -> None:
        self._order("quarantine", agent, reason)

    async def release(self, agent: str, reason: str) -> None:
        self._order("release", agent, reason)

    async def kill(self, agent: str, reason: str) -> None:
        self._order("kill", agent, reason)

    async def restart(self, agent: str, reason: str) -> None:
        self._order("restart", agent, reason)

    async def close(self) -> None:
        return None

    def _may(self, name: str) -> None:
        if name in self.refusals:
            raise self.refusals[name]

    def _order(self, *order: Any) -> None:
        self.orders.append(order)
        self._may(str(order[0]))


def _row(state: RunState) -> RunRow:
    return RunRow(
        run=state.run,
        opening=state.opening,
        state=state.word,
        principal=state.principal,
        prompt=state.prompt,
        started_ms=state.started_ms or 0,
        finished_ms=state.finished_ms,
        parent=state.parent_run,
    )
