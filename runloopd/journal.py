"""The daemon's pen: every fact goes through here, in one order, durable before anybody hears of it.

Knows: grouping (all that waits goes into one transaction), order, who listens, how far the views are. Does
not know: what is stated or why. One thread commits, another folds the views; the event loop never waits for
a disk.

Append before effect: ``append`` returns only after the transaction is on the disk, and listeners are called
before it returns. When a commit fails every appender in it gets the error, and nobody is told anything.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

from pog.errors import LedgerWriteError, ViewsError
from pog.ledger import Ledger, Prepared
from pog.materializer import Materializer
from runloop.clock import Clock
from runloop.errors import RunloopError
from runloop.events import Draft, Event

__all__ = ["Journal"]

Listener = Callable[[list[Event]], None]

_GROUP = 512
"""Events in one transaction, at most (one append is never divided)."""
_CHECKPOINT_EVERY = 2_000
"""Events between two foldings of the write-ahead log."""


@dataclass(slots=True)
class _Waiting:
    prepared: list[Prepared]
    blobs: list[bytes]
    done: asyncio.Future[list[Event]]


@dataclass(order=True, slots=True)
class _ViewsWaiter:
    event: int
    order: int
    done: asyncio.Future[None] = field(compare=False)


class Journal:
    """Used from one event loop. Owns the ledger and the materializer it is given: ``close`` closes both."""

    def __init__(self, ledger: Ledger, materializer: Materializer | None, clock: Clock) -> None:
        self._ledger = ledger
        self._materializer = materializer
        self._clock = clock
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._folder = ThreadPoolExecutor(1, thread_name_prefix="views")
        self._pending: list[_Waiting] = []
        self._listeners: list[Listener] = []
        self._views: list[_ViewsWaiter] = []
        self._order = count()
        self._committing: asyncio.Task[None] | None = None
        self._folding: asyncio.Task[None] | None = None
        self._stale = False
        self._since_checkpoint = 0
        self._closed = False

    @property
    def head_id(self) -> int:
        """Id of the newest durable event."""
        return self._ledger.head.id

    @property
    def views_cursor(self) -> int:
        """Id of the newest event the views contain."""
        return self._materializer.cursor if self._materializer is not None else 0

    def listen(self, callback: Listener) -> Callable[[], None]:
        """Call ``callback`` with the events of every commit, in order, on the loop. Returns how to stop."""
        self._listeners.append(callback)

        def stop() -> None:
            if callback in self._listeners:
                self._listeners.remove(callback)

        return stop

    async def append(self, *drafts: Draft, blobs: Iterable[bytes] = ()) -> list[Event]:
        """State facts; durable, and told to every listener, when it returns.

        All of ``drafts`` or none, in this order, with nothing in between. Appends are ordered as they were
        called. Cancelling the caller does not take the facts back.

        Raises :class:`UsageError` when a draft is wrong (others are unaffected), :class:`LedgerWriteError`
        when the facts are not recorded: then what depends on them must not be done.
        """
        if self._closed:
            raise LedgerWriteError("the journal is closed", hint="rlp daemon start", code="ledger.closed")
        prepared = self._ledger.prepare(drafts)
        data = [bytes(blob) for blob in blobs]
        if not prepared and not data:
            return []
        waiting = _Waiting(prepared, data, asyncio.get_running_loop().create_future())
        self._pending.append(waiting)
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_all(), name="journal-commit")
        return await waiting.done  # a cancelled caller cancels its future, never the group it is in

    async def views_at(self, event_id: int) -> None:
        """Return once the views contain ``event_id``.

        Raises :class:`ViewsError` when they cannot be brought there.
        """
        if self._materializer is None or self._materializer.cursor >= event_id:
            return
        if self._closed:
            raise ViewsError("the journal is closed", hint="rlp daemon start", code="views.closed")
        waiter = _ViewsWaiter(event_id, next(self._order), asyncio.get_running_loop().create_future())
        heapq.heappush(self._views, waiter)
        self._fold_soon()
        await waiter.done

    async def close(self) -> None:
        """Commit what waits, bring the views up to date, close both files. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._committing is not None:
            await asyncio.shield(self._committing)
        if self._folding is not None:
            await asyncio.shield(self._folding)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writer, self._ledger.close)
            if self._materializer is not None:
                await loop.run_in_executor(self._folder, self._materializer.close)
        finally:
            self._writer.shutdown(wait=False)
            self._folder.shutdown(wait=False)

    # --- committing ------------------------------------------------------------------------------

    async def _commit_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pending:
                group = self._take_group()
                prepared = [item for waiting in group for item in waiting.prepared]
                blobs = [blob for waiting in group for blob in waiting.blobs]
                try:
                    events = await loop.run_in_executor(self._writer, self._ledger.commit, prepared, blobs)
                except Exception as error:  # whatever it is: nobody may believe that the facts are recorded
                    _fail(group, error)
                else:
                    self._committed(group, events)
        finally:
            # In the same tick as the last look at the queue: an append after it starts a new task.
            self._committing = None

    def _take_group(self) -> list[_Waiting]:
        taken = size = 0
        for waiting in self._pending:
            if taken and size + len(waiting.prepared) > _GROUP:
                break
            taken += 1
            size += len(waiting.prepared)
        group, self._pending = self._pending[:taken], self._pending[taken:]
        return group

    def _committed(self, group: list[_Waiting], events: list[Event]) -> None:
        if events:
            for listener in tuple(self._listeners):
                try:
                    listener(events)
                except Exception as error:  # a broken listener is its own trouble
                    _report(f"a listener of the journal failed at event {events[-1].id}", error)
            self._since_checkpoint += len(events)
            self._fold_soon()
        start = 0
        for waiting in group:
            end = start + len(waiting.prepared)
            if not waiting.done.done():
                waiting.done.set_result(events[start:end])
            start = end

    # --- views -----------------------------------------------------------------------------------

    def _fold_soon(self) -> None:
        self._stale = True
        if self._folding is None:
            self._folding = asyncio.create_task(self._fold_all(), name="journal-views")

    async def _fold_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._stale:
                self._stale = False
                begun = next(self._order)
                try:
                    if self._materializer is not None:
                        await loop.run_in_executor(self._folder, self._materializer.catch_up)
                        self._wake_views()
                    if self._since_checkpoint >= _CHECKPOINT_EVERY:
                        self._since_checkpoint = 0
                        await loop.run_in_executor(self._folder, self._ledger.checkpoint)
                except (
                    Exception
                ) as error:  # the ledger goes on without views; whoever waits for them hears it
                    self._fail_views(_views_error(error), begun)
                    _report("the views could not be brought up to date", error)
        finally:
            self._folding = None

    def _wake_views(self) -> None:
        while self._views and self._views[0].event <= self.views_cursor:
            waiter = heapq.heappop(self._views)
            if not waiter.done.done():
                waiter.done.set_result(None)

    def _fail_views(self, error: ViewsError, begun: int) -> None:
        """Tell who waited when the fold began; whoever came later has asked for another one."""
        failed = [waiter for waiter in self._views if waiter.order < begun]
        self._views = [waiter for waiter in self._views if waiter.order > begun]
        heapq.heapify(self._views)
        for waiter in failed:
            if not waiter.done.done():
                waiter.done.set_exception(error)


def _fail(group: list[_Waiting], error: Exception) -> None:
    if not isinstance(error, RunloopError):
        reason = error
        error = LedgerWriteError(f"the facts were not recorded: {reason}", hint="rlp doctor")
        error.__cause__ = reason
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_exception(error)
            waiting.done.exception()  # seen: a cancelled caller may have left


def _views_error(error: Exception) -> ViewsError:
    if isinstance(error, ViewsError):
        return error
    wrapped = ViewsError(
        f"the views could not be brought up to date: {error}", hint="'rlp doctor' looks for causes"
    )
    wrapped.__cause__ = error
    return wrapped


def _report(message: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
