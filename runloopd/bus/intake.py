"""The way of published frames into the ledger: judged a few at a time, stated at once, told in order.

While the disk works on some frames the next are judged, so a commit takes what came meanwhile; and a turn of
the event loop holds only a few frames, so that a neighbour's request waits for those and not for a whole
commit's worth. Knows: turns, order, what is under way, that everybody gets an answer. Does not know: who may
publish what, where a message was seen before, who is told of it (:class:`Rules`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from runloop.digest import blob_digest
from runloop.errors import RunloopError
from runloop.events import Draft, Event, TopicPublished
from runloop.rmp.frame import Frame
from runloopd.bus.parts import Publisher
from runloopd.bus.principal import Principal

__all__ = ["OVERHEAD", "Intake", "Offer", "Rules"]

OVERHEAD = 512
"""Bytes an event costs the ledger beside the body, as quotas count it: row, hashes, indexes, views."""
_AT_ONCE = 8
"""Frames judged, or told of, in one turn of the loop: 10 to 20 us each."""
_UNDER_WAY = 256
"""Frames judged and not told of, at most: what a commit that waits for the disk may take together."""
_BYTES = 1024 * 1024
"""… and bytes of them; one frame is always allowed."""


@dataclass(slots=True, eq=False)
class Offer:
    """A frame on its way to the ledger."""

    publisher: Publisher
    principal: Principal
    instance: str
    topic: str
    type: str
    frame: Frame
    receipt: bool
    same_as: Offer | None = None
    """The same message, which is under way."""
    seq: int | None = None
    """The event that holds it, once it is durable."""
    error: RunloopError | None = None
    """Why it was refused."""
    settled: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        return self.instance, f"{self.frame.msg_id:016x}", f"{self.frame.trace_id:032x}"

    @property
    def cost(self) -> int:
        return len(self.frame.body) + OVERHEAD

    def refuse(self, error: RunloopError) -> None:
        self.settled, self.error = True, error
        self.publisher.refused(self.frame.msg_id, error, receipt=self.receipt)

    def confirm(self, receivers: int, seq: int, *, duplicate: bool) -> None:
        self.settled = True
        if self.receipt:
            self.publisher.receipt(self.frame.msg_id, receivers, seq=seq, duplicate=duplicate)

    def draft(self) -> Draft:
        """The fact that states it."""
        instance, msg_id, trace_id = self.key
        return Draft(
            payload=TopicPublished(
                topic=self.topic,
                type=self.type,
                schema_id=self.frame.schema_id,
                publisher=self.principal.label,
                instance=instance,
                trace_id=trace_id,
                msg_id=msg_id,
                size=len(self.frame.body),
                body_blob=blob_digest(self.frame.body),
            ),
            actor=self.principal.label,
        )


class Rules(Protocol):
    """What is asked about a frame, and who is told what became of it."""

    async def ready(self) -> None:
        """Return when there is an answer to everything; raises what keeps it from that."""
        ...

    async def judge(self, offer: Offer) -> int | None:
        """None: it is new, and what it costs is charged; else the event that holds it already. Raises."""
        ...

    def give_back(self, label: str, size: int) -> None:
        """What was charged was not recorded."""
        ...

    def recorded(self, offer: Offer, seq: int) -> None:
        """It is durable: deliver and confirm it."""
        ...

    def repeated(self, offer: Offer, seq: int) -> None:
        """It was durable before: confirm it."""
        ...

    def refused(self, offer: Offer, error: RunloopError) -> None:
        """It will not be recorded: say so."""
        ...


class Facts(Protocol):
    """The journal's pen."""

    async def append(self, *drafts: Draft, blobs: Iterable[bytes] = ()) -> list[Event]: ...


@dataclass(slots=True)
class _Stated:
    """Some frames that were judged together."""

    all: list[Offer]
    new: list[Offer]
    """Those the statement is made of."""
    statement: asyncio.Task[list[Event]] | None
    """None: all of them are the same as others, which are under way."""

    @property
    def over(self) -> bool:
        return self.statement is None or self.statement.done()


class Intake:
    """Takes offers, in order. Used from one event loop."""

    def __init__(self, facts: Facts, rules: Rules) -> None:
        self._facts = facts
        self._rules = rules
        self._inbox: deque[Offer] = deque()
        self._stated: deque[_Stated] = deque()
        self._under_way: dict[tuple[str, str, str], Offer] = {}
        self._bytes = 0
        self._news = asyncio.Event()
        """Something came, or became durable."""
        self._working: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether something is on its way."""
        return self._working is not None

    @property
    def waiting(self) -> int:
        """Frames that were not judged yet."""
        return len(self._inbox)

    def add(self, offer: Offer) -> None:
        """Queue a frame. Its bytes count as owed by the publisher until it is settled: whoever publishes
        faster than the disk takes it is not read."""
        offer.publisher.charge(len(offer.frame.body))
        self._inbox.append(offer)
        self._news.set()
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work(), name="durable-topics")

    async def end(self) -> None:
        """Return when everything that was added is settled."""
        if self._working is not None:
            await asyncio.gather(self._working, return_exceptions=True)

    async def _work(self) -> None:
        """One thing in a turn: tell of what is durable, or judge a few more; neighbours between."""
        try:
            while self._inbox or self._stated:
                if self._stated and self._stated[0].over:
                    await self._tell(self._stated[0])
                    self._stated.popleft()
                elif self._has_room():
                    await self._judge_some(self._take())
                else:
                    self._news.clear()
                    await self._news.wait()
                await asyncio.sleep(0)
        finally:
            self._working = None

    def _has_room(self) -> bool:
        return bool(self._inbox) and len(self._under_way) < _UNDER_WAY and self._bytes < _BYTES

    def _take(self) -> list[Offer]:
        some: list[Offer] = []
        size = self._bytes
        while self._inbox and len(some) < _AT_ONCE and (size < _BYTES or not some):
            some.append(self._inbox.popleft())
            size += some[-1].cost
        return some

    async def _judge_some(self, some: list[Offer]) -> None:
        """Judge each, and have the good ones stated in one transaction."""
        good = [offer for offer in some if await self._is_good(offer)]
        if not good:
            return
        new = [offer for offer in good if offer.same_as is None]
        statement = None
        if new:
            drafts, bodies = [offer.draft() for offer in new], [offer.frame.body for offer in new]
            statement = asyncio.create_task(self._facts.append(*drafts, blobs=bodies), name="durable-facts")
            statement.add_done_callback(lambda _: self._news.set())
        self._stated.append(_Stated(good, new, statement))

    async def _is_good(self, offer: Offer) -> bool:
        """Whether it waits for the ledger now; whoever does not is told at once."""
        try:
            await self._rules.ready()
            offer.same_as = self._under_way.get(offer.key)
            known = None if offer.same_as is not None else await self._rules.judge(offer)
            if known is not None:
                self._rules.repeated(offer, known)
        except Exception as error:  # nobody may be left without an answer
            self._refuse(offer, error)
        if offer.settled:
            offer.publisher.charge(-len(offer.frame.body))
            return False
        self._bytes += offer.cost
        if offer.same_as is None:
            self._under_way[offer.key] = offer
        return True

    async def _tell(self, stated: _Stated) -> None:
        """Wait for a statement, then answer everybody in it."""
        try:
            events = await stated.statement if stated.statement is not None else []
        except Exception as error:
            for offer in stated.new:
                self._rules.give_back(offer.principal.label, offer.cost)
            for offer in stated.all:
                self._refuse(offer, error)
        else:
            for offer, event in zip(stated.new, events, strict=True):
                offer.seq = event.id
            for offer in stated.all:
                self._answer(offer)
        finally:
            for offer in stated.all:
                self._settle(offer)

    def _answer(self, offer: Offer) -> None:
        try:
            if offer.same_as is None:
                assert offer.seq is not None
                self._rules.recorded(offer, offer.seq)
            elif offer.same_as.seq is not None:
                self._rules.repeated(offer, offer.same_as.seq)
            else:
                assert offer.same_as.error is not None
                raise offer.same_as.error
        except Exception as error:
            self._refuse(offer, error)

    def _refuse(self, offer: Offer, error: Exception) -> None:
        if not offer.settled:
            self._rules.refused(offer, error if isinstance(error, RunloopError) else _ours(error))

    def _settle(self, offer: Offer) -> None:
        self._bytes -= offer.cost
        if self._under_way.get(offer.key) is offer:
            del self._under_way[offer.key]
        offer.publisher.charge(-len(offer.frame.body))


def _ours(error: Exception) -> RunloopError:
    wrapped = RunloopError("the message was not recorded", hint="see the daemon's log", code="bus.durable")
    wrapped.__cause__ = error
    return wrapped
