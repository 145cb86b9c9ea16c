"""Many questions to the daemon at once, for a program that serves others.

Knows: that a connection serves one question at a time, how many there are, whose share of them is used up,
that nothing of ours may reach a stdout that carries a protocol. Does not know: any protocol, or what is
asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rlp.output import Console, Style
from rlp.session import Session
from runloop.errors import FailedError, RunloopError, UnreachableError

__all__ = ["Busy", "Link"]

T = TypeVar("T")

MOST = 16
"""Pieces of work at once that take their time."""
ASKERS = 4
"""Questions at once that are answered soon."""
OWN_ASKERS = 2
"""The same for questions of the face itself: who has the token that just came."""


class Busy(FailedError):
    """Too much is asked at once. Nothing was done; ask again later."""

    code = "face.busy"


class Link:
    """Sessions with the daemon, opened as they are needed."""

    def __init__(self, session: Session, *, most: int = MOST, share: int | None = None) -> None:
        """``session``: the command's own, whose home, environment and flags are taken over. ``share``: of
        ``most``, what one client may have; all of it, where there is only one."""
        self._like = session
        self._free: queue.SimpleQueue[Session] = queue.SimpleQueue()
        self._most = most
        self._share = most if share is None else share
        self._ask_share = ASKERS if share is None else max(1, ASKERS // 2)
        self._at_work: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._turns: dict[str, asyncio.Semaphore] = {}
        # Apart: questions are answered while all the work there may be goes on, and the door is kept while
        # clients ask as much as they may.
        self._workers = ThreadPoolExecutor(most, thread_name_prefix="work")
        self._askers = ThreadPoolExecutor(ASKERS, thread_name_prefix="ask")
        self._own = ThreadPoolExecutor(OWN_ASKERS, thread_name_prefix="own")
        self._stopping = threading.Event()

    @property
    def stopping(self) -> bool:
        """Whether whoever serves is about to leave."""
        return self._stopping.is_set()

    def session(self) -> Session:
        """A session like the command's own, which says nothing on stdout and asks nobody."""
        console = Console(sys.stderr, sys.stderr, Style(quiet=True))
        return self._like.for_others(console)

    async def ask(self, question: Callable[[Session], T], who: str | None = None) -> T:
        """Put a question that is answered soon; waits for its turn, behind others of the same client.

        ``who``: the client it is for; None for what the face itself must know.
        """
        if who is None:
            return await asyncio.wrap_future(self._own.submit(self._with_session, question))
        # As many as there are clients, and those are named by the operator.
        turn = self._turns.setdefault(who, asyncio.Semaphore(self._ask_share))
        await turn.acquire()
        try:
            future = self._askers.submit(self._with_session, question)
        except BaseException:
            turn.release()
            raise
        # Not when the caller leaves: the thread is as busy then as before.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: _later(loop, turn.release))
        return await asyncio.wrap_future(future)

    async def do(self, work: Callable[[Session, threading.Event], T], who: str) -> T:
        """Do ``work`` for a client in a thread, with a session of its own and an event that says: nobody
        waits any more.

        Raises :class:`Busy` at once when there is no room, or this client has its share of it. When the
        caller is cancelled, the event is set and the thread goes on to its own end.
        """
        self._take(who)
        gone = threading.Event()
        try:
            future = self._workers.submit(self._with_session, lambda session: work(session, gone))
        except BaseException:
            self._give_back(who)
            raise
        future.add_done_callback(lambda _: self._give_back(who))
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            gone.set()
            raise

    def close(self) -> None:
        """Hang up; what is at work looks up within half a second, and ends without cancelling its run."""
        self._stopping.set()
        for pool in (self._own, self._askers, self._workers):
            pool.shutdown(cancel_futures=True)
        while True:
            try:
                self._free.get_nowait().hang_up()
            except queue.Empty:
                return

    def _take(self, who: str) -> None:
        with self._lock:
            full = self._at_work.total() >= self._most or self._at_work[who] >= self._share
            if self.stopping or full:
                raise Busy("too much is asked at once", hint="wait for an answer before you ask for more")
            self._at_work[who] += 1

    def _give_back(self, who: str) -> None:
        with self._lock:
            self._at_work[who] -= 1
            self._at_work += Counter()  # forgets who has none left

    def _with_session(self, work: Callable[[Session], T]) -> T:
        try:
            session = self._free.get_nowait()
        except queue.Empty:
            session = self.session()
        try:
            return work(session)
        except UnreachableError:
            session.hang_up()
            raise
        except RunloopError:
            raise
        except BaseException:
            session.hang_up()  # a question may have been cut in half
            raise
        finally:
            self._free.put(session)


def _later(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is over, and everybody with it
        loop.call_soon_threadsafe(what)
