"""The daemon's pen: every fact goes through here, in one order, durable before anybody hears of it.

Knows: grouping (all that waits goes into one transaction), order, who listens, how far the views are. Does
not know: what is stated or why.

The loop never waits for a disk. Where a commit waits for one (``synchronous`` FULL) a thread commits, and the
next group is made ready meanwhile; where it does not, a small group is committed by the loop itself, at the
end of the turn that brought it: it takes less than the way to a thread and back. Another thread folds the
views, a third folds the log into the file and writes the anchor.

Append before effect: ``append`` returns only after the transaction is on the disk, and listeners are called
before it returns. When a commit fails every appender in it gets the error, and nobody is told anything.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from queue import Empty, SimpleQueue
from threading import Thread

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
_CHECKPOINT_EVERY, _CHECKPOINT_COMMITS = 8_000, 400
"""Events, or transactions, between two foldings of the write-ahead log: some 6 MiB of it."""
_BEHIND = 8_192
"""Events kept for the views, at most; views that are further behind read the ledger."""
_QUICK_BYTES = 256 * 1024
"""Blobs that the loop stores itself, at most; hashing and copying more takes too long."""
_FOLD_AT, _FOLD_AFTER_S = 512, 0.002
"""The views get so many events at once, or what there is after so long; what somebody waits for, at once."""
_ANCHOR_AFTER_S = 0.05
"""The anchor waits for the disk twice; under load it names the newest of several signed heads."""
_LOG_PAGES = 4_000
"""Log (16 MiB) at which commits stand back for one checkpoint, so that the log begins anew."""
_NUDGE: list[Event] = []
"""Makes the folding thread look at the ledger when it has nothing else to do."""
_GAP: list[Event] = []
"""Stands for events that were not kept."""


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
    """Used from one event loop. Owns the ledger and the materializer it is given: ``close`` closes both.

    ``group`` is how many events go into one transaction, at most (one append is never divided).
    """

    def __init__(
        self, ledger: Ledger, materializer: Materializer | None, clock: Clock, *, group: int = _GROUP
    ) -> None:
        self._ledger = ledger
        self._materializer = materializer
        self._clock = clock
        self._group = group
        self._listeners: list[Listener] = []
        self._order = count()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads: list[Thread] = []
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="log")
        self._closed = False

        self._pending: list[_Waiting] = []
        """Appended in this turn of the loop; handed over at its end."""
        self._to_commit: SimpleQueue[list[_Waiting] | None] = SimpleQueue()
        self._in_thread = 0
        """Appends that the thread has, or that are on the way back."""
        self._unsettled = 0
        """Appends whose end the loop has not heard of."""
        self._held = False
        """Commits stand back for a checkpoint."""
        self._settled: asyncio.Event | None = None

        self._fresh: list[Event] = []
        """Committed, and not yet given to the views."""
        self._to_fold: SimpleQueue[list[Event] | None] = SimpleQueue()
        self._told = self._taken = 0
        """Events ever put into that queue, by the loop, and taken from it, by the folding thread."""
        self._views: list[_ViewsWaiter] = []
        self._events_since = self._commits_since = 0
        """… the last checkpoint was asked for."""
        self._checkpoints: list[Future[None]] = []
        """Asked for and perhaps not done."""
        self._anchoring = False
        """Whether a signed head waits for its anchor."""
        ledger.defers_anchor = True

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
        loop = self._running()
        waiting = _Waiting(prepared, data, loop.create_future())
        self._unsettled += 1
        if not self._pending and not self._held:
            loop.call_soon(self._hand_over)
        self._pending.append(waiting)
        return await waiting.done  # a cancelled caller cancels its future, never the group it is in

    async def views_at(self, event_id: int) -> None:
        """Return once the views contain ``event_id``.

        Raises :class:`ViewsError` when they cannot be brought there.
        """
        if self._materializer is None or self._materializer.cursor >= event_id:
            return
        if self._closed:
            raise ViewsError("the journal is closed", hint="rlp daemon start", code="views.closed")
        waiter = _ViewsWaiter(event_id, next(self._order), self._running().create_future())
        heapq.heappush(self._views, waiter)
        # The folding thread moves the cursor, then looks for who waits; here it is the other way round.
        self._wake_views()
        if not waiter.done.done():
            self._give_views()
            self._to_fold.put(_NUDGE)
        await waiter.done

    async def sign_head(self) -> int:
        """Have the newest event signed now; its id. Raises :class:`LedgerWriteError`."""

        def sign() -> int:
            head = self._ledger.sign_head()
            self._ledger.keep_anchor()
            return head

        return await asyncio.to_thread(sign)

    async def close(self) -> None:
        """Commit what waits, bring the views up to date, close both files. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._unsettled:
            self._settled = asyncio.Event()
            await self._settled.wait()
        self._give_views()
        self._to_commit.put(None)
        self._to_fold.put(None)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._finish)

    def _finish(self) -> None:
        for thread in self._threads:
            thread.join()
        self._keeper.shutdown()
        try:
            self._ledger.close()
        finally:
            if self._materializer is not None:
                self._materializer.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop; the first call starts the threads that work for it."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._threads = [Thread(target=self._commit_all, name="journal", daemon=True)]
            if self._materializer is not None:
                self._threads.append(Thread(target=self._fold_all, name="views", daemon=True))
            for thread in self._threads:
                thread.start()
            if self._ledger.waits:
                self._keep(self._ledger.make_room)
        return self._loop

    def _tell(self, callback: Callable[..., None], *values: object) -> None:
        """From a thread: call on the loop, if it is still there to hear it."""
        assert self._loop is not None
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *values)

    # --- committing ------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """At the end of a turn: commit what came in it, here or in the thread."""
        if self._held:
            return  # what waits is handed over after the checkpoint
        pending, self._pending = self._pending, []
        if not pending:
            return
        if self._ledger.waits or self._in_thread or _bytes(pending) > _QUICK_BYTES:
            self._in_thread += len(pending)
            self._to_commit.put(pending)
            return
        waiting = deque(pending)
        while waiting:
            group = self._take_group(waiting)
            try:
                events = self._commit(group)
            except Exception as error:
                self._failed(group, error)
            else:
                self._committed(group, events)

    def _commit(self, group: list[_Waiting]) -> list[Event]:
        prepared = [item for each in group for item in each.prepared]
        return self._ledger.commit(prepared, [blob for each in group for blob in each.blobs])

    def _commit_all(self) -> None:
        """The committing thread: what has come meanwhile is the next group."""
        waiting: deque[_Waiting] = deque()
        while True:
            if not waiting:
                handed = self._to_commit.get()
                if handed is None:  # comes when everything is settled, so alone
                    return
                waiting.extend(handed)
            with suppress(Empty):
                while len(waiting) < self._group:
                    waiting.extend(self._to_commit.get_nowait() or ())
            group = self._take_group(waiting)
            try:
                events = self._commit(group)
            except BaseException as error:  # whatever it is: nobody may believe that the facts are recorded
                self._tell(self._back, self._failed, group, error)
            else:
                self._tell(self._back, self._committed, group, events)

    def _take_group(self, waiting: deque[_Waiting]) -> list[_Waiting]:
        group = [waiting.popleft()]
        size = len(group[0].prepared)
        while waiting and size + len(waiting[0].prepared) <= self._group:
            size += len(waiting[0].prepared)
            group.append(waiting.popleft())
        return group

    def _back(self, end: Callable[..., None], group: list[_Waiting], outcome: object) -> None:
        self._in_thread -= len(group)
        end(group, outcome)
        if self._held and not self._in_thread:
            self._keep(self._begin_log_anew)

    def _committed(self, group: list[_Waiting], events: list[Event]) -> None:
        if events:
            for listener in tuple(self._listeners):
                try:
                    listener(events)
                except Exception as error:  # a broken listener is its own trouble
                    _report(f"a listener of the journal failed at event {events[-1].id}", error)
            self._fold(events)
            self._keep_log_short(len(events))
        start = 0
        for waiting in group:
            end = start + len(waiting.prepared)
            if not waiting.done.done():
                waiting.done.set_result(events[start:end])
            start = end
        self._settle(len(group))

    def _failed(self, group: list[_Waiting], error: BaseException) -> None:
        if not isinstance(error, RunloopError):
            reason = error
            error = LedgerWriteError(f"the facts were not recorded: {reason}", hint="rlp doctor")
            error.__cause__ = reason
        for waiting in group:
            if not waiting.done.done():
                waiting.done.set_exception(error)
                waiting.done.exception()  # seen: a cancelled caller may have left
        self._settle(len(group))

    def _settle(self, appends: int) -> None:
        self._unsettled -= appends
        if not self._unsettled and self._settled is not None:
            self._settled.set()

    # --- the log ---------------------------------------------------------------------------------

    def _keep_log_short(self, events: int) -> None:
        if self._ledger.anchor_due and not self._anchoring:
            self._anchoring = True
            self._running().call_later(_ANCHOR_AFTER_S, self._write_anchor)
        self._events_since += events
        self._commits_since += 1
        if self._events_since < _CHECKPOINT_EVERY and self._commits_since < _CHECKPOINT_COMMITS:
            return
        self._checkpoints = [asked for asked in self._checkpoints if not asked.done()]
        if (
            len(self._checkpoints) < 2
        ):  # one under way and one that waits: they do what is asked for meanwhile
            self._events_since = self._commits_since = 0
            self._checkpoints.append(self._keep(self._checkpoint))

    def _write_anchor(self) -> None:
        self._anchoring = False
        if not self._closed:  # the ledger writes it when it is closed
            self._keep(self._ledger.keep_anchor)

    def _keep(self, work: Callable[[], None]) -> Future[None]:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # the log grows until the writer folds it itself
                self._tell(_report, "the write-ahead log could not be folded, or the anchor written", error)

        return self._keeper.submit(guarded)

    def _checkpoint(self) -> None:
        if (self._ledger.checkpoint() or 0) >= _LOG_PAGES:
            self._tell(self._hold)

    def _hold(self) -> None:
        """Beside a busy writer a checkpoint never reaches the log's end, and the log only grows."""
        if self._held or self._closed:
            return
        self._held = True
        if not self._in_thread:
            self._keep(self._begin_log_anew)

    def _begin_log_anew(self) -> None:
        try:
            self._ledger.checkpoint()
        finally:
            self._tell(self._release)

    def _release(self) -> None:
        self._held = False
        self._hand_over()

    # --- views -----------------------------------------------------------------------------------

    def _fold(self, events: list[Event]) -> None:
        if self._materializer is None:
            return
        if not self._fresh and not self._views:
            assert self._loop is not None
            self._loop.call_later(_FOLD_AFTER_S, self._give_views)
        self._fresh += events
        if self._views or len(self._fresh) >= _FOLD_AT:
            self._give_views()

    def _give_views(self) -> None:
        fresh, self._fresh = self._fresh, []
        if not fresh:
            return
        if self._told - self._taken > _BEHIND:
            self._to_fold.put(_GAP)
            return
        self._told += len(fresh)
        self._to_fold.put(fresh)

    def _fold_all(self) -> None:
        """The folding thread: everything that has come meanwhile is folded in one transaction."""
        assert self._materializer is not None
        while (events := self._to_fold.get()) is not None:
            batches: list[list[Event]] = [events]
            last = False
            with suppress(Empty):
                while not last:
                    more = self._to_fold.get_nowait()
                    last = more is None
                    batches.append(more or _NUDGE)
            fresh = [event for batch in batches for event in batch]
            self._taken += len(fresh)
            if any(batch is _GAP for batch in batches):
                fresh = []
            begun = next(self._order)
            try:
                self._materializer.catch_up(fresh=fresh)
            except Exception as error:  # the ledger goes on without views; whoever waits for them hears it
                self._tell(self._fail_views, error, begun)
            else:
                if self._views:
                    self._tell(self._wake_views)
            if last:
                return

    def _wake_views(self) -> None:
        while self._views and self._views[0].event <= self.views_cursor:
            waiter = heapq.heappop(self._views)
            if not waiter.done.done():
                waiter.done.set_result(None)

    def _fail_views(self, error: Exception, begun: int) -> None:
        """Tell who waited when the fold began; whoever came later has asked for another one."""
        told = _views_error(error)
        failed = [waiter for waiter in self._views if waiter.order < begun]
        self._views = [waiter for waiter in self._views if waiter.order > begun]
        heapq.heapify(self._views)
        for waiter in failed:
            if not waiter.done.done():
                waiter.done.set_exception(told)
        _report("the views could not be brought up to date", error)


def _bytes(appends: list[_Waiting]) -> int:
    return sum(len(blob) for waiting in appends for blob in waiting.blobs)


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
