"""A connection with much to do gets as much of a turn as others have, and nothing of it is lost or overtaken.

Turns of the loop and frames are counted; no test looks at a clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.rmp.envelope import encode_message
from runloop.rmp.frame import Frame, FrameReader
from runloop.testing import ManualClock
from runloopd.bus.bus import Bus
from runloopd.bus.gather import make
from runloopd.bus.parts import Publisher
from runloopd.bus.socket import PeerLimits
from runloopd.bus.turns import AT_ONCE, FEW, Turns, cost

from .support import NOW, PEER, FakeSession, message
from .test_socket import House, Raw

pytestmark = [pytest.mark.requirement("I4.turns.1"), pytest.mark.usefixtures("either_step")]
MANY = 2_000


class Shelf:
    """A keeper that remembers what was given to it, in order, and whose it was."""

    def __init__(self, bus: Bus) -> None:
        self.kept: list[tuple[Publisher, int]] = []
        bus.keeper = self

    def covers(self, topic: str) -> bool:
        return topic.startswith("durable/")

    def accept(self, publisher: Publisher, topic: str, frame: Frame, *, receipt: bool) -> None:
        self.kept.append((publisher, frame.msg_id))

    def of(self, publisher: Any) -> list[int]:
        return [number for whose, number in self.kept if whose is publisher]


def durable(count: int, first: int = 10) -> bytes:
    return b"".join(message(number, "durable/x") for number in range(first, first + count))


def ping(number: int) -> bytes:
    return encode_message("intent.control.v1", {"action": "ping"}, msg_id=number, now_ms=NOW)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    yield made
    for one in made.opened:
        one.close()
    for server in made.servers:
        await server.close()


async def joined(house: House) -> tuple[Any, Raw]:
    """A greeted connection: the daemon's end, whose reads the test makes up, and the program's."""
    before = set(house.servers[0]._sessions)
    raw = await house.raw()
    await raw.greet()
    (session,) = house.servers[0]._sessions - before
    return session, raw


async def turn() -> None:
    await asyncio.sleep(0)


async def test_beside_two_thousand_durable_frames_a_neighbours_request_is_answered_in_its_turn(
    house: House,
) -> None:
    await house.start()
    shelf = Shelf(house.bus)
    flooder, _ = await joined(house)
    neighbour, _ = await joined(house)
    flooder.data_received(durable(MANY))
    assert 0 < len(shelf.kept) <= AT_ONCE
    said = neighbour.info().bytes_out
    neighbour.data_received(ping(2))
    assert neighbour.info().bytes_out > said  # in the very turn the flood came in
    assert not flooder.info().reading  # nothing more is read until it had its turns
    turns = 0
    while len(shelf.kept) < MANY:
        before = len(shelf.kept)
        await turn()
        turns += 1
        assert len(shelf.kept) - before <= AT_ONCE
        assert turns <= 2 * MANY // AT_ONCE
    assert shelf.of(flooder) == list(range(10, 10 + MANY))
    await turn()
    assert flooder.info().reading


async def test_connections_with_much_to_do_take_turns(house: House) -> None:
    await house.start()
    shelf = Shelf(house.bus)
    flooders = [(await joined(house))[0] for _ in range(3)]
    for flooder in flooders:
        flooder.data_received(durable(500))
    assert len(shelf.kept) <= AT_ONCE + 2 * FEW
    while len(shelf.kept) < 3 * 300:
        await turn()
        done = [len(shelf.of(flooder)) for flooder in flooders]
        assert max(done) - min(done) <= 2 * AT_ONCE
    for _ in range(200):
        await turn()
    assert [shelf.of(flooder) for flooder in flooders] == [list(range(10, 510))] * 3


async def test_many_connections_at_once_each_get_a_little_of_a_turn(house: House) -> None:
    await house.start()
    shelf = Shelf(house.bus)
    flooders = [(await joined(house))[0] for _ in range(10)]
    for flooder in flooders:
        flooder.data_received(durable(100))
    assert len(shelf.kept) <= AT_ONCE + 9 * FEW
    assert all(len(shelf.of(flooder)) >= FEW for flooder in flooders)


async def test_requests_that_the_daemon_handles_itself_are_counted_too(house: House) -> None:
    await house.start(PeerLimits(open_requests=10**6))
    asked: list[int] = []
    house.bus.subscribe("rlp/ctrl", lambda delivery: asked.append(delivery.msg_id))
    asker, _ = await joined(house)
    asker.data_received(
        b"".join(
            encode_message(
                "intent.ctrl.request.v1",
                {"id": "a", "method": "status"},
                msg_id=number,
                now_ms=NOW,
                topic="rlp/ctrl",
                meta={"reply_to": asker.reply_topic},
            )
            for number in range(10, 510)
        )
    )
    assert 0 < len(asked) <= AT_ONCE
    for _ in range(100):
        await turn()
    assert asked == list(range(10, 510))


async def test_what_waits_for_its_turn_waits_while_its_publisher_is_held_back(house: House) -> None:
    await house.start(PeerLimits(owed_bytes=1_000))
    shelf = Shelf(house.bus)
    flooder, _ = await joined(house)
    flooder.data_received(durable(100))
    flooder.charge(2_000)  # what the ledger has not taken yet
    for _ in range(20):
        await turn()
    held = len(shelf.kept)
    assert held <= 2 * AT_ONCE
    flooder.charge(-2_000)
    for _ in range(20):
        await turn()
    assert shelf.of(flooder) == list(range(10, 110))
    assert flooder.info().reading


async def test_more_that_is_read_meanwhile_comes_after_what_waits(house: House) -> None:
    await house.start()
    shelf = Shelf(house.bus)
    flooder, _ = await joined(house)
    more = durable(50, first=110)
    flooder.data_received(durable(100) + more[:150])
    flooder.data_received(more[150:])
    for _ in range(50):
        await turn()
    assert shelf.of(flooder) == list(range(10, 160))


async def test_a_broken_frame_ends_the_session_after_all_before_it_had_their_turns(house: House) -> None:
    await house.start()
    shelf = Shelf(house.bus)
    flooder, raw = await joined(house)
    flooder.data_received(durable(200) + b"\x00\x00\x00\x50" + b"JUNK" * 30 + durable(5, first=900))
    assert not flooder.closing
    for _ in range(50):
        await turn()
    assert shelf.of(flooder) == list(range(10, 210))
    assert flooder.closing
    schema, report = await raw.read()
    assert (schema, report["error"]) == (10, "InvalidMagic")


async def test_who_is_cut_while_its_frames_wait_has_no_more_turns(house: House) -> None:
    await house.start()
    shelf = Shelf(house.bus)
    flooder, _ = await joined(house)
    flooder.data_received(durable(500))
    flooder.cut()
    kept = len(shelf.kept)
    for _ in range(50):
        await turn()
    assert len(shelf.kept) == kept < 500
    assert house.balanced
    other, _ = await joined(house)
    other.data_received(durable(50))
    for _ in range(10):
        await turn()
    assert len(shelf.of(other)) == 50


async def test_a_stranger_pays_for_what_waits(house: House) -> None:
    server = await house.start()
    stranger, _ = await joined(house)
    house.bus.subscribe("demo/one", lambda _: None)
    data = b"".join(message(number) for number in range(10, 510))
    stranger.data_received(data)
    assert 0 < stranger.held == server._partial_bytes < len(data)
    for _ in range(100):
        await turn()
    assert stranger.held == server._partial_bytes == 0


async def test_over_a_socket_all_of_a_flood_arrives_once_and_in_order(house: House) -> None:
    await house.start()
    shelf = Shelf(house.bus)
    flooder, raw = await joined(house)
    data = durable(5_000)
    sending = asyncio.create_task(raw.send(data))
    while len(shelf.kept) < 5_000:
        before = len(shelf.kept)
        await turn()
        assert len(shelf.kept) - before <= AT_ONCE + FEW
    await sending
    assert shelf.of(flooder) == list(range(10, 5_010))


def test_a_large_frame_costs_more_than_a_small_one() -> None:
    assert (cost(64), cost(300)) == (1, 1)
    assert cost(1 << 16) >= AT_ONCE


@given(
    frames=st.lists(
        st.builds(
            message,
            st.integers(1, 40),
            st.sampled_from(["durable/a", "a", "b", "rlp/no"]),
            st.sampled_from([b"x", {"a": 1}, "text", b"y" * 9_000]),
            meta=st.sampled_from([{}, {"receipt": True}, {"correlation": "c"}]),
        )
        | st.just(ping(7)),
        max_size=60,
    ),
    tail=st.sampled_from([b"", b"\x00\x00", b"JUNK" * 40]),
    room=st.integers(1, 20),
)
def test_cut_into_turns_a_stream_does_what_it_does_at_once(
    frames: list[bytes], tail: bytes, room: int
) -> None:
    def told(sliced: bool) -> Any:
        bus = Bus(ManualClock(NOW), seen=make())
        shelf, heard = Shelf(bus), []
        bus.subscribe("a", lambda delivery: heard.append((delivery.topic, delivery.msg_id)))
        session, reader = FakeSession(bus, PEER), FrameReader()
        data = b"".join(frames) + tail
        if not sliced:
            bus.ingest(session, reader, data, NOW)
        else:
            turns, buffer, at = Turns(), reader.join(data), 0
            while not reader.pending and reader.error is None and at < len(buffer):
                turns.left = room
                before, at = at, bus.advance(session, reader, buffer, at, NOW, turns)
                assert at > before or reader.pending or reader.error
        return (
            heard,
            [number for _, number in shelf.kept],
            [(number, type(error)) for number, error, _ in session.refusals],
            session.receipts,
            len(session.controls),
            bus.counters,
            reader.pending,
            type(reader.error),
        )

    assert told(sliced=True) == told(sliced=False)
