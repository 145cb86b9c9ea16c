"""Promises of the runs that are not over: waited for, kept once, or timed out.

Knows: who waits, whose word is under way, when time is over (by the clock it is given). Does not know: who
may promise or resolve (``promise_ops``, ``gateway.promises``), or what the value means. Every move is in the
ledger before anybody hears of it; after a restart the same events give the same promises
(:meth:`Promises.restore`), and what expired meanwhile times out then.

Approvals are promises about bytes: they keep their own record (``authority.approvals``), see ADR 14.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog

from pog.errors import PromiseError
from pog.promises import Promise, check_open, check_value, fold
from runloop.clock import Clock
from runloop.errors import NotFoundError, RunloopError
from runloop.events import Draft, Event, PromiseResolved, PromiseTimedOut, Provenance, RunFinished
from runloopd.broker.ports import JournalPort
from runloopd.waiting import Moves, first

__all__ = ["Promises", "Word"]

log = structlog.get_logger(__name__)

_PREFIX = 6
"""Fewest characters that name a promise."""
_AGAIN_MS = 1_000
"""Pause before a timeout is stated again that could not be."""


@dataclass(kw_only=True, slots=True)
class _Live:
    promise: Promise
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    held: bool = False
    """Somebody's word, or its timeout, is on its way into the ledger."""


class Word:
    """The one word on a promise, on its way into the ledger: nobody else has a say until :meth:`end`."""

    def __init__(self, live: _Live, payload: PromiseResolved, ended: Callable[[], None]) -> None:
        self._live = live
        self._ended = ended
        self.payload = payload

    @property
    def promise(self) -> Promise:
        """What it is about."""
        return self._live.promise

    def end(self) -> None:
        """The fact is stated, or will not be."""
        self._live.held = False
        self._ended()


class Promises:
    """Feed it every commit: it listens to the journal by itself."""

    def __init__(self, journal: JournalPort, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._known: dict[str, Promise] = {}
        self._live: dict[str, _Live] = {}
        self._parked: Counter[tuple[str, str]] = Counter()
        self._woken = asyncio.Event()
        self._moves = Moves()
        journal.listen(self._observe)

    def restore(self, events: Iterable[Event]) -> None:
        """Fold the events of unfinished runs, in order: once, before anything else. Then
        :meth:`expire_loop` ends what expired while nobody was there."""
        self._take(events)

    async def close(self) -> None:
        """Wait for what is being stated."""
        await self._moves.close()

    # --- looking ----------------------------------------------------------------------------------

    def find(self, name: str) -> Promise:
        """By id or an unambiguous beginning of it; raises NotFoundError or :class:`PromiseError`."""
        return self._find(name).promise

    def waiting(self, *, all: bool = False) -> list[Promise]:
        """Oldest first: those that are open; ``all``: every one of the runs that are not over."""
        return [p for p in self._known.values() if all or p.state == "open"]

    def made_by(self, run: str, agent: str) -> int:
        """How many promises an agent has made in a run, whatever became of them."""
        return sum(1 for p in self._known.values() if p.run == run and p.agent == agent)

    # --- waiting and resolving --------------------------------------------------------------------

    def parked(self) -> frozenset[tuple[str, str]]:
        """Run and node of every guest that waits for a word at this moment."""
        return frozenset(self._parked)

    async def wait(self, name: str, run: str, node: str) -> Promise:
        """Return once it is resolved or timed out; meanwhile the node is :meth:`parked`. Safe to cancel, and
        to call again."""
        live = self._find(name)
        self._parked[run, node] += 1
        try:
            await live.settled.wait()
        finally:
            self._parked[run, node] -= 1
            if not self._parked[run, node]:
                del self._parked[run, node]
        return live.promise

    def word(self, name: str, value: Any, principal: str) -> Word:
        """The only word on an open promise; state its ``payload``, then :meth:`Word.end`.

        Raises :class:`PromiseError` when it is resolved, being resolved, or its time is over, and what
        ``check_value`` raises. Of any number of concurrent callers exactly one gets it.
        """
        live = self._find(name)
        check_open(live.promise, held=live.held, now_ms=self._clock.now_ms())
        check_value(live.promise, value)
        live.held = True
        payload = PromiseResolved(promise=live.promise.id, value=value, principal=principal)
        return Word(live, payload, self._woken.set)  # a word that failed may have been past its time

    async def resolve(self, name: str, value: Any, principal: str) -> Promise:
        """Say it, durably: for a principal that is no guest. Raises what :meth:`word` raises."""
        word = self.word(name, value, principal)
        return await self._moves.whole(self._say(word, principal))

    async def _say(self, word: Word, principal: str) -> Promise:
        promise = word.promise
        try:
            await self._journal.append(
                Draft(
                    payload=word.payload,
                    actor=principal,
                    run=promise.run,
                    provenance=Provenance(causes=(promise.created,), node=promise.node, label="user"),
                )
            )
        finally:
            word.end()
        return promise

    # --- time -------------------------------------------------------------------------------------

    async def expire_loop(self) -> None:
        """Time promises out as their time comes; runs until cancelled. For the daemon's task group."""
        while True:
            self._woken.clear()
            try:
                await self.expire_due()
            except RunloopError as error:  # a ledger that takes nothing now may take it later
                log.warning("promises_not_expired", why=error.message)
                await self._clock.sleep_until(self._clock.now_ms() + _AGAIN_MS)
                continue
            due = min((live.promise.expires_ms for live in self._open()), default=None)
            if due is None:
                await self._woken.wait()
            else:
                await first(self._woken.wait(), self._clock.sleep_until(due))

    async def expire_due(self) -> tuple[str, ...]:
        """Time out what is due now; returns the ids. What somebody is resolving right now is left to him."""
        now = self._clock.now_ms()
        due = [live for live in self._open() if live.promise.expires_ms <= now]
        for live in due:
            await self._moves.whole(self._time_out(live, "deadline"))
        return tuple(live.promise.id for live in due if live.promise.state == "timed_out")

    def _open(self) -> list[_Live]:
        return [live for live in self._live.values() if live.promise.state == "open" and not live.held]

    async def _time_out(self, live: _Live, reason: Any) -> None:
        promise = live.promise
        if promise.state != "open" or live.held:
            return
        live.held = True
        try:
            await self._journal.append(
                Draft(
                    payload=PromiseTimedOut(promise=promise.id, reason=reason),
                    actor="daemon",
                    run=promise.run,
                    provenance=Provenance(causes=(promise.created,), node=promise.node),
                )
            )
        finally:
            live.held = False

    # --- inside -----------------------------------------------------------------------------------

    def _find(self, name: str) -> _Live:
        exact = self._live.get(name)
        if exact is not None:
            return exact
        wanted = name if name.startswith("pr_") else f"pr_{name}"
        found = [live for key, live in self._live.items() if key.startswith(wanted)]
        if len(name) >= _PREFIX and len(found) == 1:
            return found[0]
        if len(name) >= _PREFIX and found:
            raise PromiseError(
                f"{name!r} names {len(found)} promises", hint="type more of the id", code="promise.ambiguous"
            )
        raise NotFoundError(
            f"no promise that is waited for is called {name[:80]!r}",
            hint="'rlp promises' lists them",
            code="promise.unknown",
        )

    def _observe(self, events: list[Event]) -> None:
        self._take(events)
        for event in events:
            if event.kind == RunFinished.kind and event.run is not None:
                self._forget(event.run)

    def _take(self, events: Iterable[Event]) -> None:
        for promise in fold(self._known, events):
            live = self._live.setdefault(promise.id, _Live(promise=promise))
            if promise.state == "open":
                self._woken.set()
            else:
                live.settled.set()

    def _forget(self, run: str) -> None:
        """The run is over: nobody may wait any more. What is open is ended on record, then dropped."""
        mine = [live for live in self._live.values() if live.promise.run == run]
        for live in mine:
            del self._live[live.promise.id]
            self._known.pop(live.promise.id, None)
        still = [live for live in mine if live.promise.state == "open"]
        if still:
            self._moves.begin(self._end_all(still))

    async def _end_all(self, lives: list[_Live]) -> None:
        for live in lives:
            try:
                await self._time_out(live, "run_over")
            except RunloopError:
                log.warning("promise_left_open", promise=live.promise.id)
            finally:
                live.settled.set()
