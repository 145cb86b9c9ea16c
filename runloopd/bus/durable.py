"""Durable topics: what is published there is in the ledger first, and reaches every consumer at least once.

Knows: publishers that may come back (duplicates, what they may keep), the order of stating and delivering,
who listens live. Consumers, their positions and windows are next door (``consumers``). Does not know: how
facts are grouped and stored (the journal, behind a port), sessions' bytes (``socket``).

Nothing is delivered and no receipt is sent before the event is durable; when it cannot be recorded the
publisher is refused. All of it happens on the event loop; only reading waits in a thread.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgpack  # type: ignore[import-untyped]
import msgspec

from runloop.clock import Clock
from runloop.digest import blob_digest
from runloop.errors import RefusedError, RunloopError, UnreachableError, UsageError
from runloop.events import Draft, Event, TopicPublished
from runloop.rmp import topics
from runloop.rmp.envelope import open_frame
from runloop.rmp.frame import BodyTooLarge, Expired, Frame, encode_frame
from runloopd.bus.acl import check_durable
from runloopd.bus.address import STAMPS
from runloopd.bus.bus import Bus
from runloopd.bus.parts import Publisher
from runloopd.bus.principal import Principal

__all__ = [
    "DELIVERY_TTL_MS",
    "OVERHEAD",
    "Durable",
    "DurableFull",
    "DurableLimits",
    "Facts",
    "Index",
    "Kept",
    "Recent",
    "Store",
    "frame_of",
]

OVERHEAD = 512
"""Bytes an event costs the ledger beside the body, as quotas count it: row, hashes, indexes, views."""
STAMP_ROOM = 1_024
"""Bytes a body may grow by when the daemon adds its stamps to ``meta``."""
DELIVERY_TTL_MS = 10 * 365 * 86_400_000
"""A delivery from the ledger does not die in a queue: its message waited there for whoever comes."""
_BATCH = 32
"""Frames in one commit: what making them ready takes of the loop at once is what a neighbour may wait."""
_AT_ONCE = 8
"""Frames judged, refused or delivered in one turn of the loop, 10 to 20 us each."""
_BATCH_BYTES = 1024 * 1024
_MAX_KNOWN = 65_536
_RECENT_BYTES = 4 * 1024 * 1024
_RECENT = 4_096


class DurableFull(RefusedError):
    """The publisher keeps as many bytes in the ledger as it may; the ledger is never emptied."""

    code = "bus.durable_full"


@dataclass(frozen=True, kw_only=True, slots=True)
class DurableLimits:
    patterns: tuple[str, ...] = ("durable/*",)
    publisher_bytes: int = 1_073_741_824
    """What one publisher (a principal's label) may keep in the ledger, bodies and :data:`OVERHEAD`."""
    window: int = 256
    """Deliveries of one consumer that are not acknowledged."""
    window_bytes: int = 1024 * 1024
    """Bytes of them; one delivery is always allowed."""
    consumers: int = 64
    """Consumers of one owner."""
    state_ms: int = 5_000
    """An acknowledged position is stated at most once in so many milliseconds."""


class Kept(NamedTuple):
    """A published message as the ledger has it."""

    seq: int
    topic: str
    type: str
    schema_id: int
    publisher: str
    trace_id: int
    msg_id: int
    body: bytes


class Facts(Protocol):
    """The journal, as this package needs it."""

    @property
    def head_id(self) -> int: ...

    async def append(self, *drafts: Draft, blobs: Iterable[bytes] = ()) -> list[Event]: ...

    async def views_at(self, event_id: int) -> None: ...


class Store(Protocol):
    """The ledger, read from threads."""

    def events(
        self, *, after: int = 0, kinds: Collection[str] | None = None, limit: int | None = None
    ) -> Iterable[Event]: ...

    def blob(self, digest_hex: str) -> bytes: ...


class Index(Protocol):
    """The views of durable topics (``pog.topics``), asked from threads."""

    def newest(self, instance: str) -> str | None: ...

    def find(self, instance: str, msg_id: str, trace_id: str) -> int | None: ...

    def usage(self) -> dict[str, tuple[int, int]]: ...

    def consumers(self) -> Sequence[tuple[str, str, str, int]]: ...


class Recent:
    """The newest messages, so that consumers who keep up need no disk."""

    def __init__(self, floor: int) -> None:
        self.floor = floor
        """Every message after this event is here."""
        self._kept: deque[Kept] = deque()
        self._bytes = 0

    def add(self, kept: Kept) -> None:
        self._kept.append(kept)
        self._bytes += len(kept.body)
        while len(self._kept) > _RECENT or (self._bytes > _RECENT_BYTES and len(self._kept) > 1):
            gone = self._kept.popleft()
            self._bytes -= len(gone.body)
            self.floor = gone.seq

    def after(self, seq: int) -> list[Kept]:
        """Messages after an event that is not before :attr:`floor`."""
        found: list[Kept] = []
        for kept in reversed(self._kept):
            if kept.seq <= seq:
                break
            found.append(kept)
        found.reverse()
        return found


@dataclass(slots=True)
class _Offer:
    """A frame on its way to the ledger."""

    publisher: Publisher
    principal: Principal
    instance: str
    topic: str
    type: str
    frame: Frame
    receipt: bool
    same_as: _Offer | None = None
    """The same message, earlier in this very batch."""
    settled: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        return self.instance, f"{self.frame.msg_id:016x}", f"{self.frame.trace_id:032x}"

    @property
    def cost(self) -> int:
        return len(self.frame.body) + OVERHEAD

    def refuse(self, error: RunloopError) -> None:
        self.settled = True
        self.publisher.refused(self.frame.msg_id, error, receipt=self.receipt)

    def confirm(self, receivers: int, seq: int, *, duplicate: bool) -> None:
        self.settled = True
        if self.receipt:
            self.publisher.receipt(self.frame.msg_id, receivers, seq=seq, duplicate=duplicate)


class Durable:
    """The bus's keeper. ``listeners(kept)`` is what consumers hook into: called once per recorded message, it
    returns the receivers' numbers that get it as consumers, and not again as ordinary subscribers."""

    def __init__(
        self,
        bus: Bus,
        facts: Facts,
        index: Index,
        clock: Clock,
        limits: DurableLimits | None = None,
        *,
        max_body: int,
    ) -> None:
        self._bus = bus
        self._facts = facts
        self._index = index
        self._clock = clock
        self.limits = limits or DurableLimits()
        self._max_body = max_body - STAMP_ROOM
        self._covered: dict[str, bool] = {}
        self._inbox: deque[_Offer] = deque()
        self._working: asyncio.Task[None] | None = None
        self._opened = False
        self._opening = asyncio.Lock()
        self._usage: dict[str, int] = {}
        self._newest: OrderedDict[str, int] = OrderedDict()
        self._latest = 0
        self.recent = Recent(0)
        self.on_kept: Callable[[Kept], Collection[int]] = lambda _kept: ()
        self.stored = 0
        """Messages recorded since the daemon started."""
        self.duplicates = 0
        """Messages that were recorded already, when they came."""
        self._closed = False
        bus.keeper = self

    # --- the bus's face ---------------------------------------------------------------------------

    def covers(self, topic: str) -> bool:
        known = self._covered.get(topic)
        if known is None:
            if len(self._covered) >= _MAX_KNOWN:
                self._covered.clear()
            known = any(topics.matches(pattern, topic) for pattern in self.limits.patterns)
            self._covered[topic] = known
        return known

    def accept(self, publisher: Publisher, topic: str, frame: Frame, *, receipt: bool) -> None:
        """Queue a frame for the ledger. Its bytes count as owed by the publisher until it is settled: whoever
        publishes faster than the disk takes it is not read."""
        check_durable(publisher.principal, f"publish on {topic}")
        envelope = open_frame(frame)
        if "reply_to" in envelope.meta:
            raise UsageError(
                f"{topic} is durable and takes no reply_to: whoever asks may be gone when it is read",
                hint="answer on a topic both sides know",
                code="bus.durable_reply",
            )
        if not all(type(key) is str for key in envelope.meta):
            raise UsageError(
                f"{topic} is durable, and the daemon stamps only a meta whose keys are texts",
                hint="name the keys of meta",
                code="bus.meta",
            )
        if len(frame.body) > self._max_body:
            raise BodyTooLarge(
                f"a body on a durable topic has at most {self._max_body} bytes, not {len(frame.body)}",
                hint="leave room for the daemon's stamps",
            )
        if self._closed:
            raise UnreachableError("the daemon stops", hint="ask the next one", code="bus.closing")
        offer = _Offer(
            publisher, publisher.principal, publisher.instance, topic, envelope.type, frame, receipt
        )
        publisher.charge(len(frame.body))
        self._inbox.append(offer)
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work(), name="durable-topics")

    @property
    def waiting(self) -> int:
        """Frames on their way to the ledger."""
        return len(self._inbox)

    def charge(self, label: str, size: int) -> None:
        """Count bytes that a principal adds to the ledger; raises :class:`DurableFull`."""
        used = self._usage.get(label, 0)
        if used + size > self.limits.publisher_bytes:
            raise DurableFull(
                f"{label} keeps {used} bytes on durable topics, and may keep {self.limits.publisher_bytes}",
                hint="raise bus.durable_bytes, if the disk has the room",
                used=used,
                limit=self.limits.publisher_bytes,
            )
        self._usage[label] = used + size

    def give_back(self, label: str, size: int) -> None:
        """What :meth:`charge` counted was not recorded."""
        self._usage[label] -= size

    def usage(self) -> dict[str, int]:
        """Bytes kept, by publisher."""
        return dict(self._usage)

    async def open(self) -> None:
        """Learn what the ledger holds; at once when it is known. Raises :class:`ViewsError`."""
        async with self._opening:
            if self._opened:
                return
            head = self._facts.head_id
            await self._facts.views_at(head)
            usage = await asyncio.to_thread(self._index.usage)
            self._usage = {label: size + count * OVERHEAD for label, (count, size) in usage.items()}
            self._latest = head
            self.recent = Recent(head)
            self._opened = True

    async def close(self) -> None:
        """Record what was taken; nothing more is."""
        self._closed = True
        if self._working is not None:
            await asyncio.gather(self._working, return_exceptions=True)

    # --- the way into the ledger --------------------------------------------------------------------

    async def _work(self) -> None:
        try:
            while self._inbox:
                batch = self._take()
                try:
                    await self._record(batch)
                except Exception as error:  # nobody may be left without an answer
                    known = error if isinstance(error, RunloopError) else _ours(error)
                    for offer in batch:
                        if not offer.settled:
                            self._bus.counters.refuse(known.named_code)
                            offer.refuse(known)
                finally:
                    for offer in batch:
                        offer.publisher.charge(-len(offer.frame.body))
                await asyncio.sleep(0)  # neighbours first
        finally:
            self._working = None

    def _take(self) -> list[_Offer]:
        batch: list[_Offer] = []
        size = 0
        while self._inbox and len(batch) < _BATCH and size < _BATCH_BYTES:
            batch.append(self._inbox.popleft())
            size += batch[-1].cost
        return batch

    async def _record(self, batch: list[_Offer]) -> None:
        """Judge each frame, state the good ones in one transaction, then tell everybody."""
        await self.open()
        fresh: dict[tuple[str, str, str], _Offer] = {}
        good: list[_Offer] = []
        again: list[tuple[_Offer, int]] = []
        for number, offer in enumerate(batch, 1):
            await _neighbours_first(number)
            try:
                known = await self._judge(offer, fresh)
            except RunloopError as error:
                self._bus.counters.refuse(error.named_code)
                offer.refuse(error)
                continue
            if known is not None:
                again.append((offer, known))
            else:
                good.append(offer)
        for offer, seq in again:
            self._repeated(offer, seq)
        if not good:
            return
        new = [offer for offer in good if offer.same_as is None]
        try:
            events = await self._facts.append(*map(_draft, new), blobs=[offer.frame.body for offer in new])
        except Exception:
            for offer in new:
                self.give_back(offer.principal.label, offer.cost)
            raise
        seqs = {id(offer): event.id for offer, event in zip(new, events, strict=True)}
        for number, offer in enumerate(good, 1):
            await _neighbours_first(number)
            if offer.same_as is not None:
                self._repeated(offer, seqs[id(offer.same_as)])
            else:
                self._recorded(offer, seqs[id(offer)])

    async def _judge(self, offer: _Offer, fresh: dict[tuple[str, str, str], _Offer]) -> int | None:
        """None: it is to be stated (or is the same as one that will be); else the event that states it."""
        frame = offer.frame
        if self._clock.now_ms() >= frame.created_at_ms + frame.ttl_ms:
            raise Expired(
                "the frame expired while it waited for the ledger", hint="send it anew, with a longer ttl_ms"
            )
        offer.same_as = fresh.get(offer.key)
        if offer.same_as is not None:
            return None
        known = await self._seen(offer)
        if known is None:
            self.charge(offer.principal.label, offer.cost)
            fresh[offer.key] = offer
        return known

    async def _seen(self, offer: _Offer) -> int | None:
        """The event that holds this message, if there is one.

        A publisher counts upwards: an id above its newest is new without looking. The rest is looked up.
        """
        instance, msg_id, trace_id = offer.key
        newest = self._newest.get(instance)
        if newest is None:
            await self._facts.views_at(self._latest)
            found = await asyncio.to_thread(self._index.newest, instance)
            newest = -1 if found is None else int(found, 16)
            self._remember(instance, newest)
        if offer.frame.msg_id > newest:
            return None
        await self._facts.views_at(self._latest)
        return await asyncio.to_thread(self._index.find, instance, msg_id, trace_id)

    def _remember(self, instance: str, newest: int) -> None:
        self._newest[instance] = newest
        self._newest.move_to_end(instance)
        while len(self._newest) > _MAX_KNOWN:
            self._newest.popitem(last=False)

    def _recorded(self, offer: _Offer, seq: int) -> None:
        frame = offer.frame
        self.stored += 1
        self._latest = max(self._latest, seq)
        newest = self._newest.get(offer.instance)
        if newest is not None:  # else it was pushed out, and is looked up again
            self._remember(offer.instance, max(newest, frame.msg_id))
        label = offer.principal.label
        kept = Kept(
            seq, offer.topic, offer.type, frame.schema_id, label, frame.trace_id, frame.msg_id, frame.body
        )
        self.recent.add(kept)
        consuming = self.on_kept(kept)
        now = self._clock.now_ms()
        data = frame_of(kept, now_ms=now)
        receivers = self._bus.relay(
            offer.principal, offer.topic, frame.schema_id, data, now + DELIVERY_TTL_MS, without=consuming
        )
        offer.confirm(receivers + len(consuming), seq, duplicate=False)

    def _repeated(self, offer: _Offer, seq: int) -> None:
        """It is recorded already: for the publisher that is as good as now."""
        self.duplicates += 1
        offer.confirm(0, seq, duplicate=True)


def frame_of(kept: Kept, *, now_ms: int, consumer: str | None = None) -> bytes:
    """The frame that is delivered: the payload's very bytes, the daemon's stamps in ``meta``, a new time."""
    return encode_frame(
        schema_id=kept.schema_id,
        body=_stamped(kept, consumer),
        created_at_ms=now_ms,
        msg_id=kept.msg_id,
        trace_id=kept.trace_id,
        ttl_ms=DELIVERY_TTL_MS,
    )


class _Body(msgspec.Struct, gc=False):
    payload: msgspec.Raw
    meta: dict[str, msgspec.Raw]


_DECODE = msgspec.msgpack.Decoder(_Body).decode
_PACKER = msgpack.Packer()
_PACK, _PACK_MAP = _PACKER.pack, _PACKER.pack_map_header


def _stamped(kept: Kept, consumer: str | None) -> bytes:
    # Payload and meta are spliced, not written anew: a consumer gets the bytes that were published and
    # recorded, and nothing grows but by the stamps (a short float written anew has twice its bytes).
    body = _DECODE(kept.body)
    stamps: dict[str, Any] = {"topic": kept.topic, "seq": kept.seq, "publisher": kept.publisher}
    if consumer is not None:
        stamps["consumer"] = consumer
    dropped = STAMPS | {"receipt"}
    meta = {key: bytes(value) for key, value in body.meta.items() if key not in dropped}
    meta |= {key: _PACK(value) for key, value in stamps.items()}
    return b"".join(
        (
            b"\x83",
            _PACK("type"),
            _PACK(kept.type),
            _PACK("payload"),
            bytes(body.payload),
            _PACK("meta"),
            _PACK_MAP(len(meta)),
            *(_PACK(key) + value for key, value in meta.items()),
        )
    )


def _draft(offer: _Offer) -> Draft:
    instance, msg_id, trace_id = offer.key
    return Draft(
        payload=TopicPublished(
            topic=offer.topic,
            type=offer.type,
            schema_id=offer.frame.schema_id,
            publisher=offer.principal.label,
            instance=instance,
            trace_id=trace_id,
            msg_id=msg_id,
            size=len(offer.frame.body),
            body_blob=blob_digest(offer.frame.body),
        ),
        actor=offer.principal.label,
    )


async def _neighbours_first(number: int) -> None:
    """Before the ``number``-th of many: now and then everybody else has a turn."""
    if number % _AT_ONCE == 0:
        await asyncio.sleep(0)


def _ours(error: Exception) -> RunloopError:
    wrapped = RunloopError("the message was not recorded", hint="see the daemon's log", code="bus.durable")
    wrapped.__cause__ = error
    return wrapped
