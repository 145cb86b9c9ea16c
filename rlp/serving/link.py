"""Many questions to the daemon at once, for a program that serves others.

Knows: that a connection serves one question at a time, how many there are, that nothing of ours may reach a
stdout that carries a protocol. Does not know: any protocol, or what is asked.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rlp.output import Console, Style
from rlp.session import Session
from runloop.errors import FailedError, RunloopError, UnreachableError

__all__ = ["Busy", "Link"]

T = TypeVar("T")


class Busy(FailedError):
    """Too much is asked at once. Nothing was done; ask again later."""

    code = "face.busy"


class Link:
    """Sessions with the daemon, opened as they are needed."""

    def __init__(self, session: Session, *, most: int = 16) -> None:
        """``session``: the command's own, whose home, environment and flags are taken over. ``most``: pieces
        of work at once that take their time."""
        self._like = session
        self._free: queue.SimpleQueue[Session] = queue.SimpleQueue()
        self._room = threading.Semaphore(most)
        # Two: questions are answered while all the work there may be goes on.
        self._workers = ThreadPoolExecutor(most, thread_name_prefix="work")
        self._askers = ThreadPoolExecutor(4, thread_name_prefix="ask")
        self._stopping = threading.Event()

    @property
    def stopping(self) -> bool:
        """Whether whoever serves is about to leave."""
        return self._stopping.is_set()

    def session(self) -> Session:
        """A session like the command's own, which says nothing on stdout and asks nobody."""
        console = Console(sys.stderr, sys.stderr, Style(quiet=True))
        return Session(
            console=console, environ=self._like.environ, home=str(self._like.home.home), may_ask=False
        )

    async def ask(self, question: Callable[[Session], T]) -> T:
        """Put a question that is answered soon; waits for its turn."""
        return await asyncio.wrap_future(self._askers.submit(self._with_session, question))

    async def do(self, work: Callable[[Session, threading.Event], T]) -> T:
        """Do ``work`` in a thread, with a session of its own and an event that says: nobody waits any more.

        Raises :class:`Busy` at once when there is no room. When the caller is cancelled, the event is set and
        the thread goes on to its own end.
        """
        if self.stopping or not self._room.acquire(blocking=False):
            raise Busy("too much is asked at once", hint="wait for an answer before you ask for more")
        gone = threading.Event()
        try:
            future = self._workers.submit(self._with_session, lambda session: work(session, gone))
        except BaseException:
            self._room.release()
            raise
        future.add_done_callback(lambda _: self._room.release())
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            gone.set()
            raise

    def close(self) -> None:
        """Hang up; what is at work looks up within half a second, and ends without cancelling its run."""
        self._stopping.set()
        self._askers.shutdown(cancel_futures=True)
        self._workers.shutdown(cancel_futures=True)
        while True:
            try:
                self._free.get_nowait().hang_up()
            except queue.Empty:
                return

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
