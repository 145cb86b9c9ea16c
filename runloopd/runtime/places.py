"""Where guests are at this moment: one place per execution that was asked for, from the asking to the end.

Knows: whose attempt or tool has which process, since when, what it has burnt by its last word, and how much
processor time the processes that ended have used. Does not know: how a worker is made or ended
(``supervisor``), what becomes of an attempt whose worker is gone, who looks (``observe``).

A place costs an object and a row of a dictionary; nothing is measured here, so that nobody pays who does not
look.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from runloopd.runtime.orders import AttemptOrder
from runloopd.runtime.session import Session
from runloopd.runtime.workers import Worker

__all__ = ["Place", "Places", "Work"]

Work = Literal["attempt", "tool", "replay"]
"""An attempt of a run; a tool served for another agent; an execution of what the ledger tells already."""


@dataclass(slots=True, eq=False)
class Place:
    """One execution. Only the supervisor writes to it."""

    order: AttemptOrder
    since: float = field(default_factory=time.monotonic)
    """Seconds of the monotonic clock when it was asked for."""
    state: str = "QUEUED"
    """As the lifecycle table names it; QUEUED while there is no room for its worker."""
    worker: Worker | None = None
    session: Session | None = None
    restart: str | None = None
    """Why its worker was ended by the operator, to go on in another one; None again once it does."""

    @property
    def agent(self) -> str:
        """Whose program it is."""
        return self.order.agent or self.order.node

    @property
    def work(self) -> Work:
        """What the execution is for."""
        if self.order.input.get("op") == "tool":
            return "tool"
        return "replay" if self.order.recorded else "attempt"

    @property
    def key(self) -> tuple[str, str, int]:
        """Run, node and attempt it belongs to, or serves."""
        return self.order.run, self.order.node, self.order.attempt

    @property
    def fuel(self) -> int:
        """Units burnt at the guest's last word."""
        return 0 if self.session is None else self.session.fuel


class Places:
    """Every execution under way. One per runtime; used from one event loop."""

    def __init__(self) -> None:
        self._taken: set[Place] = set()
        self._spent_us: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Place]:
        return iter(tuple(self._taken))

    def of(self, agent: str) -> list[Place]:
        """The places of one agent, the oldest first."""
        return sorted((place for place in self._taken if place.agent == agent), key=lambda one: one.since)

    def spent_us(self, agent: str) -> int:
        """Microseconds of processor time of those of its processes that have ended, since the start."""
        return self._spent_us[agent]

    def agents(self) -> set[str]:
        """Whoever has a place, or had a process."""
        return {place.agent for place in self._taken} | set(self._spent_us)

    @contextmanager
    def taken(self, order: AttemptOrder) -> Iterator[Place]:
        """A place for as long as the execution takes."""
        place = Place(order)
        self._taken.add(place)
        try:
            yield place
        finally:
            self._taken.discard(place)

    @contextmanager
    def served_by(self, place: Place, worker: Worker, session: Session) -> Iterator[None]:
        """The worker that executes it, until it is done with; what it used is booked when it is reaped."""
        place.worker, place.session = worker, session
        agent = place.agent
        worker.exited.add_done_callback(lambda _: self._book(agent, worker))
        try:
            yield
        finally:
            place.worker = None

    def _book(self, agent: str, worker: Worker) -> None:
        self._spent_us[agent] += worker.cpu_us
