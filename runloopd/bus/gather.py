"""The fast road of one read: consecutive plain frames of a session become runs.

A frame is *plain* when its header is legal and its time not over, when its front and ``meta`` are byte for
byte what was judged before (``known``), its payload is one legal value, and its id is new. The road ends at
the first frame that is not; ``Bus.ingest`` judges that one, and may write it into ``known``. Knows: bytes and
ids. Does not know: topics, receivers, rules; a route is a thing to be handed back. Nothing is refused here.

There are two of it, and they agree frame by frame: :class:`Seen` here, and the optional compiled one
(``_gather.c``). What makes the one here quick: frames of a stream are mostly alike. From one plain frame it
foretells what the next ones look like but for time, id and content, puts that together, and compares once.
"""

from __future__ import annotations

import importlib
import os
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol, cast

from runloop.errors import UsageError
from runloop.rmp.frame import HEADER_LEN, PREFIX_LEN
from runloopd.bus.address import FRONTS, TEXTS, after_payload, content_of
from runloopd.bus.dedupe import CAPACITY, MAX_AGE_MS, Dedupe

__all__ = ["Gathered", "Gatherer", "Seen", "choose", "implementations", "make"]

Gathered = tuple[Any, int, int, int, int]
"""A run: its route, where it starts and ends in the buffer, how many frames, the earliest expiry."""

_WHOLE = PREFIX_LEN + HEADER_LEN
_U64 = 2**64 - 1
_SCAN = struct.Struct(">IQIHHIQQ24sI")
_HEAD = int.from_bytes(b"RMP0\x00\x00\x00\x40", "big")
_TIMES = struct.Struct(">QQ")
_OPENING = 24
"""Length prefix and header up to ``created_at_ms``: the same in frames of one size and schema."""
_FEWEST, _MOST = 8, 256
"""How many frames are foretold together: more with every success. After a failure as many as the fewest are
read one by one, so what failed comparisons cost stays in proportion to what was read."""
_ALIKE_BYTES = 4_096
"""Largest frame worth being put together for a comparison."""


_INTERFACE = 1


class Gatherer(Protocol):
    """Ids seen lately (``Dedupe``), and the reader of plain frames that asks them."""

    def first(self, tag: bytes, key: bytes, now_ms: int, /) -> int | None: ...
    def stamp(self, now_ms: int, /) -> int: ...
    def __len__(self) -> int: ...

    def gather(
        self, buffer: bytes, at: int, max_frame: int, now_ms: int, tag: bytes, known: dict[bytes, Any], /
    ) -> tuple[int, list[Gathered]]:
        """The runs of plain frames from ``at`` on, and where the first other one begins; remembers their ids.

        ``known``: routes by the schema id's two bytes, the front and the ``meta`` of bodies.
        """
        ...


class Seen(Dedupe):
    """The fast road in Python."""

    def gather(
        self, buffer: bytes, at: int, max_frame: int, now_ms: int, tag: bytes, known: dict[bytes, Any], /
    ) -> tuple[int, list[Gathered]]:
        """See :class:`Gatherer`."""
        runs: list[Gathered] = []
        size, unpack, first = len(buffer), _SCAN.unpack_from, self.first
        current: Any = None
        start = count = earliest = singly = 0
        while size - at >= _WHOLE:
            frame_len, head, flags, number, reserved, body_len, created, ttl, key, tail = unpack(buffer, at)
            end, expires = at + PREFIX_LEN + frame_len, created + ttl
            if (
                head != _HEAD
                or flags
                or reserved
                or tail
                or not ttl
                or body_len != frame_len - HEADER_LEN
                or not HEADER_LEN <= frame_len <= max_frame
                or end > size
                or not now_ms < expires <= _U64
            ):
                break
            front = FRONTS.get(number)
            if front is None or not buffer.startswith(front[2:], at + _WHOLE, end):
                break
            payload = at + _WHOLE + len(front) - 2
            meta = after_payload(buffer, payload, end)
            if meta < 0:
                break
            route = known.get(front + buffer[meta:end])
            if route is None or first(tag, key, now_ms) is not None:
                break
            if route is not current:
                if current is not None:
                    runs.append((current, start, at, count, earliest))
                current, start, count, earliest = route, at, 0, expires
            count += 1
            earliest = min(earliest, expires)
            if singly:
                singly -= 1
            elif (
                size - end >= _FEWEST * (end - at)
                and buffer.startswith(buffer[at : at + _OPENING], end)
                and buffer.startswith(buffer[meta:end], end + meta - at)
            ):
                more, soonest = self._alike(buffer, (at, payload, meta, end), now_ms, tag)
                count += more
                earliest = min(earliest, soonest)
                end += more * (end - at)
                singly = _FEWEST
            at = end
        if current is not None:
            runs.append((current, start, at, count, earliest))
        return at, runs

    def _alike(
        self, buffer: bytes, plain: tuple[int, int, int, int], now_ms: int, tag: bytes
    ) -> tuple[int, int]:
        """How many frames behind a plain one differ from it in times, id and content alone; earliest expiry.

        ``plain`` is where that frame, its payload, its meta and the next frame begin.
        """
        at, payload, meta, end = plain
        size, content = end - at, content_of(buffer, payload)
        if size > _ALIKE_BYTES or content < 0:
            return 0, _U64
        cut = _cutter(content - at - _WHOLE + PREFIX_LEN, meta - content, end - meta).iter_unpack
        opening, rest = buffer[at : at + _OPENING], buffer[meta:end]
        middle = buffer[at + _WHOLE - PREFIX_LEN : content]
        is_text = buffer[payload] in TEXTS
        frame = [b"", b"", middle, b"", rest + opening]
        soonest, alike, most = _U64, 0, _FEWEST
        while (most := min(most, _MOST, (len(buffer) - end) // size)) >= _FEWEST:
            part = buffer[end : end + most * size]
            times, keys, contents = zip(*cut(part), strict=True)
            foretold = [opening, *frame * most]
            foretold[1::5], foretold[2::5], foretold[4::5] = times, keys, contents
            foretold[-1] = rest
            if b"".join(foretold) != part or (is_text and not all(map(bytes.isascii, contents))):
                break
            expires = _soonest(times)
            if not now_ms < expires or not self.first_all(tag, keys, now_ms):
                break
            soonest = min(soonest, expires)
            alike += most
            end += most * size
            most *= 2
        return alike, soonest


def _soonest(times: tuple[bytes, ...]) -> int:
    """The earliest expiry; 0 when one of them is illegal."""
    soonest = _U64
    for both in set(times):
        created, ttl = _TIMES.unpack(both)
        if not ttl or created + ttl > _U64:
            return 0
        soonest = min(soonest, created + ttl)
    return soonest


@lru_cache(maxsize=256)
def _cutter(middle: int, content: int, rest: int) -> struct.Struct:
    """Cuts times, key and content out of a frame."""
    return struct.Struct(f">{_OPENING}x16s24s{middle}x{content}s{rest}x")


# --- which of the two ---------------------------------------------------------------------------------


def implementations() -> dict[str, Callable[[], Gatherer]]:
    """What can be had here, by name: ``python``, and ``native`` where it was built."""
    found: dict[str, Callable[[], Gatherer]] = {"python": Seen}
    try:
        native = importlib.import_module("runloopd.bus._gather")
    except ImportError:
        return found
    if native.INTERFACE == _INTERFACE:
        found["native"] = lambda: cast(Gatherer, native.Seen(CAPACITY, MAX_AGE_MS, os.urandom(16)))
    return found


def choose(wish: str | None) -> str:
    """The name of the implementation to use; ``wish`` is what ``RUNLOOP_NATIVE`` says.

    ``0`` forbids the compiled one, ``1`` insists on it (UsageError where it was not built); else it is used
    where it is there.
    """
    if wish == "0":
        return "python"
    if "native" in implementations():
        return "native"
    if wish == "1":
        raise UsageError(
            "RUNLOOP_NATIVE=1, and the compiled step of the bus was not built",
            hint="install gcc and python3-dev, then install runloop again with RUNLOOP_NATIVE=1",
            code="bus.native",
        )
    return "python"


def make() -> Gatherer:
    """A fresh one, of the implementation chosen for this process."""
    return implementations()[choose(os.environ.get("RUNLOOP_NATIVE"))]()
