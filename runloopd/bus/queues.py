"""Bounded queue in front of one receiver, and the delivery classes.

Knows: order, capacity, time to live, what to do when full, whose bytes they are. Does not know: what is
inside an envelope, whether the sender may send it (``acl``), how bytes leave (``socket``).

The unit is a *run*: consecutive frames of one read with the same receivers, kept as one slice. That is what
makes a Python bus fast (lab/bus-store.md: "runs, not frames").
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import takewhile
from typing import Protocol

from runloop.errors import FailedError
from runloop.rmp.frame import PREFIX_LEN

__all__ = [
    "BackpressureTimeout",
    "DeliveryClass",
    "Outbox",
    "QueueLimits",
    "Run",
    "Source",
    "class_of",
    "limits",
]


class BackpressureTimeout(FailedError):
    """A receiver's queue stayed full for as long as its class lets a publisher wait. Retry, same id."""

    code = "bus.backpressure"


class DeliveryClass(Enum):
    """How much a topic may pile up in front of a slow receiver, and who pays."""

    REALTIME = "realtime"
    BATCHED = "batched"
    BACKGROUND = "background"


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueLimits:
    capacity: int
    """Frames held in front of one receiver before the overflow rule applies."""
    wait_ms: int | None
    """How long a publisher is held back when full; 0 sheds at once, None waits for ever."""


_LIMITS = {
    DeliveryClass.REALTIME: QueueLimits(capacity=64, wait_ms=0),
    DeliveryClass.BATCHED: QueueLimits(capacity=1_024, wait_ms=50),
    DeliveryClass.BACKGROUND: QueueLimits(capacity=4_096, wait_ms=None),
}


_REALTIME = ("live/", "rlp/sys/")


def limits(klass: DeliveryClass) -> QueueLimits:
    """The limits of a class (spec/rmp.md, "Delivery classes")."""
    return _LIMITS[klass]


def class_of(topic: str) -> DeliveryClass:
    """The class of a topic, which its name tells alone, so that everybody can see it.

    Realtime: ``live/*`` and gauges of the system; background: ``bulk/*`` and run events; the rest batched.
    """
    if topic.startswith(_REALTIME) or (topic.startswith("rlp/agents/") and topic.endswith("/metrics")):
        return DeliveryClass.REALTIME
    if topic.startswith("bulk/") or (topic.startswith("rlp/runs/") and topic.endswith("/events")):
        return DeliveryClass.BACKGROUND
    return DeliveryClass.BATCHED


class Source(Protocol):
    """Who published a run: pays for the bytes that wait because of it."""

    def charge(self, size: int) -> None:
        """``size`` bytes of this publisher wait somewhere; negative when they are gone."""
        ...

    def hold(self, change: int) -> None:
        """+1: a run of this publisher found no room and waits; -1: no more. Held publishers are not read."""
        ...

    def timed_out(self, run: Run) -> None:
        """The run was dropped because a receiver stayed full."""
        ...


class Run:
    """Consecutive frames for the same receivers: one buffer, whole frames, length prefixes included."""

    __slots__ = ("count", "data", "expires_ms", "klass", "source", "tag", "topic")

    def __init__(
        self,
        data: bytes,
        count: int,
        expires_ms: int,
        topic: str,
        klass: DeliveryClass,
        tag: bytes,
        source: Source | None,
    ) -> None:
        self.data = data
        self.count = count
        self.expires_ms = expires_ms
        """Earliest expiry of its frames."""
        self.topic = topic
        self.klass = klass
        self.tag = tag
        """Publisher identity, first part of every duplicate key."""
        self.source = source

    def frames(self) -> Iterator[tuple[int, int]]:
        """``(start, end)`` of each frame in :attr:`data`."""
        data, at = self.data, 0
        for _ in range(self.count):
            end = at + PREFIX_LEN + int.from_bytes(data[at : at + PREFIX_LEN], "big")
            yield at, end
            at = end

    def expiries(self) -> Iterator[int]:
        """Unix milliseconds at which each frame dies, in order."""
        for start, _ in self.frames():
            yield int.from_bytes(self.data[start + 24 : start + 32], "big") + int.from_bytes(
                self.data[start + 32 : start + 40], "big"
            )

    def within(self, size: int) -> int:
        """How many of its frames, from the first, have at most ``size`` bytes together."""
        return sum(1 for _ in takewhile(lambda one: one[1] <= size, self.frames()))

    def split(self, count: int) -> tuple[Run, Run]:
        """The first ``count`` frames, and the rest."""
        cut = 0
        for number, (_, end) in enumerate(self.frames(), 1):
            if number == count:
                cut = end
                break
        return self._part(self.data[:cut], count), self._part(self.data[cut:], self.count - count)

    def parted(self, now_ms: int) -> tuple[Run | None, Run | None]:
        """The frames still alive, and those whose time is over."""
        if now_ms < self.expires_ms:
            return self, None
        alive: list[bytes] = []
        dead: list[bytes] = []
        for (start, end), expires in zip(self.frames(), self.expiries(), strict=True):
            (dead if now_ms >= expires else alive).append(self.data[start:end])
        return (
            self._part(b"".join(alive), len(alive)) if alive else None,
            self._part(b"".join(dead), len(dead)) if dead else None,
        )

    def _part(self, data: bytes, count: int) -> Run:
        part = Run(data, count, self.expires_ms, self.topic, self.klass, self.tag, self.source)
        part.expires_ms = min(part.expiries(), default=self.expires_ms)
        return part


class Outbox:
    """What waits for one receiver: first in, first out over all classes, bounded per class and in bytes.

    Runs that found no room may be *parked* behind it while their publisher is held back; parked bytes are
    bounded by one read per publisher.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._queue: deque[Run] = deque()
        self._parked: deque[tuple[Run, int | None]] = deque()
        self._counts = dict.fromkeys(DeliveryClass, 0)
        self.bytes = 0
        """Bytes queued, parked ones not included."""
        self.frames = 0
        """Frames queued or parked."""

    @property
    def next_deadline(self) -> int | None:
        """When the first parked run must be given up, in unix milliseconds."""
        return min((due for _, due in self._parked if due is not None), default=None)

    def offer(self, run: Run) -> Run | None:
        """Queue what fits; return the rest. A single frame always fits an empty queue."""
        if self._parked:
            return run  # order: nobody overtakes a parked run
        return self._admit(run)

    def park(self, run: Run, deadline_ms: int | None) -> None:
        """Keep a run that found no room until there is, or until ``deadline_ms``; holds its publisher."""
        self._parked.append((run, deadline_ms))
        self.frames += run.count
        if run.source is not None:
            run.source.charge(len(run.data))
            run.source.hold(+1)

    def take(self) -> Run | None:
        """The oldest run, out of the queue; parked runs move up."""
        if not self._queue:
            return None
        run = self._queue.popleft()
        self._counts[run.klass] -= run.count
        self._account(run, -1)
        self._move_up()
        return run

    def give_up(self, now_ms: int) -> list[Run]:
        """Take out the parked runs whose deadline passed."""
        late = [run for run, due in self._parked if due is not None and now_ms >= due]
        if late:
            self._parked = deque(item for item in self._parked if item[1] is None or now_ms < item[1])
            for run in late:
                self._unpark(run)
            self._move_up()
        return late

    def clear(self) -> list[Run]:
        """Take everything out: the receiver is gone."""
        gone = []
        while self._parked:
            run, _ = self._parked.popleft()
            self._unpark(run)
            gone.append(run)
        while (queued := self.take()) is not None:
            gone.append(queued)
        return gone

    def _admit(self, run: Run) -> Run | None:
        room = min(run.count, limits(run.klass).capacity - self._counts[run.klass])
        if self.bytes + len(run.data) > self._max_bytes:  # an event loop's reads may be longer than that
            room = 0 if self.bytes else min(room, run.within(self._max_bytes) or 1)
        if room <= 0:
            return run
        rest = None
        if run.count > room:
            run, rest = run.split(room)
        self._queue.append(run)
        self._counts[run.klass] += run.count
        self._account(run, +1)
        return rest

    def _move_up(self) -> None:
        while self._parked:
            run, due = self._parked[0]
            rest = self._admit(run)
            if rest is run:
                return
            self.frames -= run.count  # _admit counted what it took
            if run.source is not None:
                run.source.charge(-len(run.data))
            if rest is not None:
                self.frames += rest.count
                if rest.source is not None:
                    rest.source.charge(len(rest.data))
                self._parked[0] = (rest, due)
                return
            self._parked.popleft()
            if run.source is not None:
                run.source.hold(-1)

    def _account(self, run: Run, sign: int) -> None:
        self.bytes += sign * len(run.data)
        self.frames += sign * run.count
        if run.source is not None:
            run.source.charge(sign * len(run.data))

    def _unpark(self, run: Run) -> None:
        self.frames -= run.count
        if run.source is not None:
            run.source.charge(-len(run.data))
            run.source.hold(-1)
