"""Durable consumers: who gets what was recorded, from where on, and how much at once.

Knows: names and owners, positions, windows of unacknowledged deliveries, reading the ledger on demand. Does
not know: how a message got there (``durable``), or what is in it.

A consumer is ``(owner's label, name)`` with a pattern. It gets every message after its position, in order. An
acknowledgement is cumulative. What was sent and not acknowledged is sent again to the next session that
takes the consumer up; positions are stated in the ledger now and then, so a crash repeats a little more.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Collection
from typing import Any

from runloop.clock import Clock
from runloop.errors import (
    ConflictError,
    NotFoundError,
    RefusedError,
    RunloopError,
    UnreachableError,
    UsageError,
)
from runloop.events import ConsumerAdvanced, ConsumerRemoved, Draft, TopicPublished
from runloop.rmp import topics
from runloopd.bus.acl import check_durable
from runloopd.bus.bus import Bus
from runloopd.bus.durable import (
    DELIVERY_TTL_MS,
    OVERHEAD,
    Durable,
    Facts,
    Index,
    Kept,
    Store,
    frame_of,
)
from runloopd.bus.parts import Peer
from runloopd.bus.principal import DAEMON, Principal
from runloopd.bus.queues import DeliveryClass, Run
from runloopd.waiting import Moves

__all__ = ["Consumers"]

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_PAGE = 64
_PAGE_BYTES = 1024 * 1024


class _Consumer:
    """Its place, and the session that has it, if any."""

    def __init__(self, owner: str, name: str, pattern: str, position: int, stated: int) -> None:
        self.owner = owner
        self.name = name
        self.pattern = pattern
        self.position = position
        """Everything up to this event is acknowledged, or was nothing for it."""
        self.stated = stated
        """What the ledger says of the position; -1: nothing yet."""
        self.feed: _Feed | None = None

    def to_json(self, head: int) -> dict[str, Any]:
        return {
            "consumer": self.name,
            "owner": self.owner,
            "pattern": self.pattern,
            "position": self.position,
            "unacknowledged": len(self.feed.unacknowledged) if self.feed is not None else 0,
            "session": self.feed.peer.session if self.feed is not None else None,
            "behind": max(0, head - self.position),
        }


class _Feed:
    """One session's hold of a consumer."""

    def __init__(self, peer: Peer, position: int) -> None:
        self.peer = peer
        self.after = position
        """It began behind this event."""
        self.sent = position
        """Everything up to this event was sent in this session, or was nothing for it."""
        self.unacknowledged: deque[tuple[int, int]] = deque()
        """``(seq, bytes)``, oldest first."""
        self.bytes = 0
        self.wake = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Consumers:
    """Serves ``subscribe`` and ``unsubscribe`` with ``durable``, and ``ack``."""

    actions = frozenset(("subscribe", "unsubscribe", "ack"))

    def __init__(
        self, bus: Bus, durable: Durable, facts: Facts, store: Store, index: Index, clock: Clock
    ) -> None:
        self._bus = bus
        self._durable = durable
        self._facts = facts
        self._store = store
        self._index = index
        self._clock = clock
        self._limits = durable.limits
        self._consumers: dict[tuple[str, str], _Consumer] = {}
        self._opened = False
        self._opening = asyncio.Lock()
        self._dirty: set[_Consumer] = set()
        self._stating: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._moves = Moves()
        self._closed = False
        durable.on_kept = self._kept

    # --- a session's face -----------------------------------------------------------------------------

    def greeted(self, peer: Peer, payload: dict[str, Any]) -> None:
        """Nothing in a hello is about consumers."""

    def act(self, peer: Peer, action: str, payload: dict[str, Any]) -> Any:
        name = payload.get("durable")
        if name is None and action != "ack":
            return NotImplemented
        if not isinstance(name, str) or not _NAME.match(name):
            raise UsageError(
                "a durable consumer has a name of letters, digits and _.-, at most 64",
                hint='durable: "my-program"',
                code="bus.consumer",
            )
        check_durable(peer.principal, f"use the consumer {name}")
        key = (peer.principal.label, name)
        if action == "subscribe":
            return self._subscribe(peer, key, payload)
        if action == "unsubscribe":
            return self._unsubscribe(peer, key, forget=payload.get("forget") is True)
        return self._ack(peer, key, payload.get("seq"))

    def roomy(self, peer: Peer) -> None:
        for consumer in self._consumers.values():
            if consumer.feed is not None and consumer.feed.peer is peer:
                consumer.feed.wake.set()

    def left(self, peer: Peer) -> None:
        for consumer in self._consumers.values():
            if consumer.feed is not None and consumer.feed.peer is peer:
                self._detach(consumer)

    async def close(self) -> None:
        """Send nothing more, and state every position."""
        self._closed = True
        for consumer in self._consumers.values():
            self._detach(consumer)
        await self._moves.close()
        for task in (*self._tasks, self._stating):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._state()

    def shown(self) -> list[dict[str, Any]]:
        """Every consumer, for people."""
        head = self._facts.head_id
        return [consumer.to_json(head) for _, consumer in sorted(self._consumers.items())]

    # --- actions ----------------------------------------------------------------------------------------

    async def _subscribe(self, peer: Peer, key: tuple[str, str], payload: dict[str, Any]) -> dict[str, Any]:
        pattern, start = payload.get("pattern"), payload.get("start", "first")
        if not isinstance(pattern, str) or start not in ("first", "next"):
            raise UsageError(
                "a durable subscription has a pattern, and starts at the first or the next message",
                hint='start: "first" or "next"',
                code="bus.control",
            )
        self._check_pattern(pattern)
        # A session that leaves meanwhile must not leave half a consumer behind.
        consumer = await self._moves.whole(self._found(key, pattern, start))
        # What its owner knows to have acknowledged counts, even where the ledger was not told yet.
        after = payload.get("after", 0)
        if type(after) is not int or not 0 <= after <= self._facts.head_id:
            raise UsageError(
                f"the ledger has no event {ascii(after)[:40]}",
                hint="after: the seq acknowledged last",
                code="bus.ack",
            )
        consumer.position = max(consumer.position, after)
        self._attach(consumer, peer)
        return {"consumer": key[1], "position": consumer.position, "window": self._limits.window}

    async def _found(self, key: tuple[str, str], pattern: str, start: str) -> _Consumer:
        """The consumer of this name, made when there is none."""
        await self.open()
        async with self._opening:
            if self._closed:
                raise UnreachableError("the daemon stops", hint="ask the next one", code="bus.closing")
            consumer = self._consumers.get(key)
            if consumer is None:
                consumer = await self._create(key, pattern, start)
            elif consumer.pattern != pattern:
                raise ConflictError(
                    f"the consumer {key[1]} reads {consumer.pattern}",
                    hint="take another name, or unsubscribe with forget first",
                    code="bus.consumer_pattern",
                )
            return consumer

    def _check_pattern(self, pattern: str) -> None:
        """Only what is wholly durable can be consumed: the rest would be silently missing."""
        topics.pattern(pattern)
        if not any(
            one == pattern or (one.endswith("*") and pattern.startswith(one[:-1]))
            for one in self._limits.patterns
        ):
            raise UsageError(
                f"{pattern} is not durable",
                hint=f"durable are {' '.join(self._limits.patterns) or 'no topics'} (bus.durable_topics)",
                code="bus.not_durable",
            )

    async def _create(self, key: tuple[str, str], pattern: str, start: str) -> _Consumer:
        owner, name = key
        if sum(1 for held, _ in self._consumers if held == owner) >= self._limits.consumers:
            raise RefusedError(
                f"{owner} has {self._limits.consumers} durable consumers already",
                hint="unsubscribe with forget those that are needed no more",
                code="bus.consumers",
            )
        position = 0 if start == "first" else self._facts.head_id
        consumer = _Consumer(owner, name, pattern, position, -1)
        await self._state_charged(_advanced(consumer))
        consumer.stated = position
        self._consumers[key] = consumer
        return consumer

    async def _unsubscribe(self, peer: Peer, key: tuple[str, str], *, forget: bool) -> dict[str, Any]:
        await self.open()
        consumer = self._consumers.get(key)
        if consumer is None:
            raise _absent(key)
        if forget:
            await self._moves.whole(self._remove(consumer))
        elif consumer.feed is not None and consumer.feed.peer is peer:
            self._detach(consumer)
        return {"position": consumer.position}

    async def _remove(self, consumer: _Consumer) -> None:
        async with self._opening:
            if self._consumers.get((consumer.owner, consumer.name)) is not consumer:
                return
            removed = ConsumerRemoved(consumer=consumer.name, owner=consumer.owner)
            await self._state_charged(Draft(payload=removed, actor=consumer.owner))
            self._detach(consumer)
            self._dirty.discard(consumer)
            del self._consumers[consumer.owner, consumer.name]

    async def _state_charged(self, fact: Draft) -> None:
        """State a fact that counts against what its actor may keep."""
        self._durable.charge(fact.actor, OVERHEAD)
        try:
            await self._facts.append(fact)
        except RunloopError:
            self._durable.give_back(fact.actor, OVERHEAD)
            raise

    def _ack(self, peer: Peer, key: tuple[str, str], seq: Any) -> dict[str, Any]:
        consumer = self._consumers.get(key)
        feed = consumer.feed if consumer is not None else None
        if consumer is None or feed is None or feed.peer is not peer:
            raise NotFoundError(
                f"this session does not hold the consumer {key[1]}",
                hint="subscribe with durable first",
                code="bus.consumer_absent",
            )
        if type(seq) is not int or seq < 0 or seq > feed.sent:
            raise UsageError(
                f"{ascii(seq)[:40]} was not delivered in this session: the last was {feed.sent}",
                hint="acknowledge the seq of a delivery",
                code="bus.ack",
            )
        while feed.unacknowledged and feed.unacknowledged[0][0] <= seq:
            feed.bytes -= feed.unacknowledged.popleft()[1]
        self._advance(consumer, feed, seq)
        feed.wake.set()
        return {"position": consumer.position}

    def _advance(self, consumer: _Consumer, feed: _Feed, seq: int) -> None:
        # With nothing outstanding, what lay behind the last delivery was nothing for this consumer.
        consumer.position = max(consumer.position, feed.sent if not feed.unacknowledged else seq)
        self._dirty.add(consumer)
        if self._stating is None and not self._closed:
            self._stating = asyncio.get_running_loop().create_task(
                self._state_later(), name="durable-positions"
            )

    # --- sessions come and go -----------------------------------------------------------------------------

    def _attach(self, consumer: _Consumer, peer: Peer) -> None:
        """The newest session has it: the older one may be a connection that is dead and does not know."""
        before = consumer.feed
        if before is not None:
            if before.peer is not peer:
                before.peer.complain(
                    ConflictError(
                        f"another session took up the consumer {consumer.name}",
                        hint="one session at a time; give each its own name",
                        code="bus.consumer_taken",
                        consumer=consumer.name,
                    )
                )
            self._detach(consumer)
        consumer.feed = feed = _Feed(peer, consumer.position)
        feed.task = asyncio.get_running_loop().create_task(
            self._run(consumer, feed), name=f"durable-{consumer.name}"
        )
        self._tasks.add(feed.task)
        feed.task.add_done_callback(self._tasks.discard)

    def _detach(self, consumer: _Consumer) -> None:
        feed, consumer.feed = consumer.feed, None
        if feed is not None and feed.task is not None:
            feed.task.cancel()

    def _kept(self, kept: Kept) -> Collection[int]:
        """A message was recorded: wake whom it concerns."""
        concerned = []
        for consumer in self._consumers.values():
            feed = consumer.feed
            if feed is not None and feed.after < kept.seq and topics.matches(consumer.pattern, kept.topic):
                feed.wake.set()
                concerned.append(feed.peer.ident)
        return set(concerned)

    async def _run(self, consumer: _Consumer, feed: _Feed) -> None:
        try:
            while True:
                feed.wake.clear()
                while self._room(feed) and await self._send_some(consumer, feed):
                    pass
                await feed.wake.wait()
        except Exception as error:
            # The ledger cannot be read: it is not passed over, and nobody waits for what will not come.
            if not isinstance(error, RunloopError):
                _LOG.exception("consumer_failed consumer=%s", consumer.name)
                error = RunloopError(
                    f"{consumer.name} cannot go on", hint="see the daemon's log", code="bus.consumer_failed"
                )
            error.data = {**error.data, "consumer": consumer.name}
            if consumer.feed is feed:
                consumer.feed = None
                feed.peer.complain(error)

    def _room(self, feed: _Feed) -> bool:
        return (
            feed.peer.idle
            and len(feed.unacknowledged) < self._limits.window
            and (feed.bytes < self._limits.window_bytes or not feed.unacknowledged)
        )

    async def _send_some(self, consumer: _Consumer, feed: _Feed) -> bool:
        """Send what there is and what there is room for; False when there was nothing new."""
        floor = self._durable.recent.floor
        if feed.sent >= floor:
            found, upto = self._durable.recent.after(feed.sent), 0
        else:
            found, upto = await asyncio.to_thread(self._read, consumer.pattern, feed.sent)
            if not upto:
                feed.sent = floor  # the disk had nothing up to there; what is newer is in memory
                return True
        for kept in found:
            if topics.matches(consumer.pattern, kept.topic):
                if not self._room(feed):
                    return False  # the next room wakes us; nothing after this one was sent
                self._send(consumer, feed, kept)
            feed.sent = kept.seq
        feed.sent = max(feed.sent, upto)
        return bool(found or upto)

    def _read(self, pattern: str, after: int) -> tuple[list[Kept], int]:
        """The next messages for a pattern, and how far was looked (0: there is nothing). In a thread."""
        found: list[Kept] = []
        size = upto = 0
        for event in self._store.events(after=after, kinds=(TopicPublished.kind,), limit=_PAGE):
            payload = event.payload
            assert isinstance(payload, TopicPublished)
            if topics.matches(pattern, payload.topic):
                if found and size + payload.size > _PAGE_BYTES:
                    break
                size += payload.size
                found.append(_kept_of(event.id, payload, self._store.blob(payload.body_blob)))
            upto = event.id
        return found, upto

    def _send(self, consumer: _Consumer, feed: _Feed, kept: Kept) -> None:
        now = self._clock.now_ms()
        data = frame_of(kept, now_ms=now, consumer=consumer.name)
        feed.unacknowledged.append((kept.seq, len(data)))
        feed.bytes += len(data)
        tag = self._bus.tag(DAEMON)
        run = Run(data, 1, now + DELIVERY_TTL_MS, kept.topic, DeliveryClass.BACKGROUND, tag, None)
        self._bus.hand(feed.peer, run, Principal(kind="daemon", name=kept.publisher))

    # --- positions -----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Learn which consumers the ledger holds; at once when it is known."""
        await self._durable.open()
        async with self._opening:
            if not self._opened:
                for owner, name, pattern, position in await asyncio.to_thread(self._index.consumers):
                    self._consumers[(owner, name)] = _Consumer(owner, name, pattern, position, position)
                self._opened = True

    async def _state_later(self) -> None:
        try:
            while self._dirty:
                await self._clock.sleep_until(self._clock.now_ms() + self._limits.state_ms)
                await self._state()
        finally:
            self._stating = None

    async def _state(self) -> None:
        """State the positions that moved, in one transaction. Where that fails they are stated another time:
        what is not stated is delivered again."""
        moved = {one: one.position for one in self._dirty if one.position > one.stated}
        self._dirty.clear()
        try:
            await self._facts.append(*map(_advanced, moved))
        except RunloopError:
            self._dirty.update(moved)
        else:
            for one, position in moved.items():
                one.stated = position


def _kept_of(seq: int, payload: TopicPublished, body: bytes) -> Kept:
    return Kept(
        seq,
        payload.topic,
        payload.type,
        payload.schema_id,
        payload.publisher,
        int(payload.trace_id, 16),
        int(payload.msg_id, 16),
        body,
    )


def _advanced(consumer: _Consumer) -> Draft:
    return Draft(
        payload=ConsumerAdvanced(
            consumer=consumer.name,
            owner=consumer.owner,
            pattern=consumer.pattern,
            position=consumer.position,
        ),
        actor=consumer.owner,
    )


def _absent(key: tuple[str, str]) -> NotFoundError:
    return NotFoundError(
        f"{key[0]} has no durable consumer {key[1]}", hint="rlp peers", code="bus.consumer_absent"
    )
