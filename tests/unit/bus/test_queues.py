"""The queue in front of one receiver: order, capacity, parking, and who pays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.testing import ManualClock
from runloopd.bus.bus import Bus
from runloopd.bus.queues import DeliveryClass, Outbox, Run, class_of, limits

from .support import NOW, PEER, FakeSession, message


def session() -> FakeSession:
    return FakeSession(Bus(ManualClock(NOW)), PEER)


def run(
    count: int,
    source: FakeSession | None = None,
    klass: DeliveryClass = DeliveryClass.BATCHED,
    first: int = 1,
    ttl_ms: int = 1_000,
) -> Run:
    data = b"".join(message(n, ttl_ms=ttl_ms) for n in range(first, first + count))
    return Run(data, count, NOW + ttl_ms, "demo/one", klass, b"t" * 8, source)


def ids(one: Run) -> list[int]:
    return [int.from_bytes(one.data[start + 56 : start + 64], "big") for start, _ in one.frames()]


@pytest.mark.requirement("I2.wire.6")
@pytest.mark.parametrize(
    ("topic", "klass"),
    [
        ("rlp/sys/metrics", DeliveryClass.REALTIME),
        ("rlp/agents/writer/metrics", DeliveryClass.REALTIME),
        ("rlp/runs/0b7c/events", DeliveryClass.BACKGROUND),
        ("rlp/runs/0b7c/replies/a/1", DeliveryClass.BATCHED),
        ("live/prices/gold", DeliveryClass.REALTIME),
        ("bulk/import", DeliveryClass.BACKGROUND),
        ("live", DeliveryClass.BATCHED),
        ("demo/live/a", DeliveryClass.BATCHED),
    ],
)
def test_the_topic_decides_the_class(topic: str, klass: DeliveryClass) -> None:
    assert class_of(topic) is klass


@pytest.mark.requirement("I2.wire.6")
def test_the_limits_are_those_of_the_specification() -> None:
    table = {klass: (limits(klass).capacity, limits(klass).wait_ms) for klass in DeliveryClass}
    assert table == {
        DeliveryClass.REALTIME: (64, 0),
        DeliveryClass.BATCHED: (1_024, 50),
        DeliveryClass.BACKGROUND: (4_096, None),
    }


def test_what_fits_is_queued_and_the_rest_comes_back() -> None:
    box = Outbox(max_bytes=1 << 20)
    rest = box.offer(run(70, klass=DeliveryClass.REALTIME))
    assert rest is not None
    assert (ids(rest), box.frames) == (list(range(65, 71)), 64)
    assert box.offer(run(1, klass=DeliveryClass.BATCHED)) is None


def test_bytes_are_bounded_but_a_single_run_always_fits_an_empty_queue() -> None:
    box = Outbox(max_bytes=10)
    assert box.offer(run(1)) is None
    rejected = run(1)
    assert box.offer(rejected) is rejected
    assert box.take() is not None
    assert box.offer(rejected) is None


def test_nobody_overtakes_a_parked_run() -> None:
    box = Outbox(max_bytes=1 << 20)
    box.offer(run(64, klass=DeliveryClass.REALTIME))
    box.park(run(1, klass=DeliveryClass.REALTIME, first=65), None)
    late = run(1, klass=DeliveryClass.BATCHED, first=66)  # its own class has room
    assert box.offer(late) is late
    box.park(late, None)
    taken = []
    while (one := box.take()) is not None:
        taken += ids(one)
    assert taken == list(range(1, 67))


def test_a_parked_publisher_is_held_until_its_run_moves_up() -> None:
    box, publisher = Outbox(max_bytes=10), session()
    box.offer(run(1))
    box.park(run(1, publisher), None)
    assert (publisher.holds, publisher.owed) == (1, len(message(1)))
    box.take()
    assert publisher.holds == 0
    assert publisher.owed == len(message(1))
    box.take()
    assert publisher.owed == 0


def test_a_parked_run_may_move_up_in_parts() -> None:
    box, publisher = Outbox(max_bytes=1 << 20), session()
    box.offer(run(64, klass=DeliveryClass.REALTIME))
    box.park(run(70, publisher, DeliveryClass.REALTIME, first=100), None)
    box.take()
    assert (box.frames, publisher.holds) == (70, 1)
    one = box.take()
    assert one is not None and ids(one) == list(range(100, 164))
    assert publisher.holds == 0
    assert publisher.owed == 6 * len(message(1))


def test_a_parked_run_is_given_up_at_its_deadline() -> None:
    box, publisher = Outbox(max_bytes=10), session()
    box.offer(run(1))
    box.park(run(1, publisher), NOW + 50)
    box.park(run(1, publisher), None)
    assert box.next_deadline == NOW + 50
    assert box.give_up(NOW + 49) == []
    assert len(box.give_up(NOW + 50)) == 1
    assert (publisher.holds, box.next_deadline) == (1, None)


def test_a_receiver_that_goes_leaves_no_debt() -> None:
    box, publisher = Outbox(max_bytes=1 << 20), session()
    box.offer(run(3, publisher))
    box.park(run(2, publisher), NOW)
    assert sum(one.count for one in box.clear()) == 5
    assert (publisher.owed, publisher.holds, box.frames, box.bytes) == (0, 0, 0, 0)


def test_frames_whose_time_is_over_are_parted_from_the_living() -> None:
    mixed = Run(
        message(1, ttl_ms=10) + message(2, ttl_ms=99) + message(3, ttl_ms=10),
        3,
        NOW + 10,
        "demo/one",
        DeliveryClass.BATCHED,
        b"",
        None,
    )
    assert mixed.parted(NOW + 9) == (mixed, None)
    alive, dead = mixed.parted(NOW + 10)
    assert alive is not None and dead is not None
    assert (ids(alive), ids(dead), alive.expires_ms) == ([2], [1, 3], NOW + 99)
    assert mixed.parted(NOW + 99)[0] is None


@pytest.mark.requirement("I2.wire.6")
@given(
    st.lists(st.tuples(st.integers(1, 90), st.sampled_from(list(DeliveryClass)), st.booleans()), max_size=40)
)
def test_nothing_is_lost_doubled_or_left_owed(steps: list[tuple[int, DeliveryClass, bool]]) -> None:
    box, publisher = Outbox(max_bytes=20_000), session()
    offered = taken = 0
    for count, klass, take in steps:
        offered += count
        rest = box.offer(run(count, publisher, klass))
        if rest is not None:
            box.park(rest, None)
        if take and (one := box.take()) is not None:
            taken += one.count
        assert box.frames == offered - taken
    while (one := box.take()) is not None:
        taken += one.count
    assert (taken, publisher.owed, publisher.holds, box.bytes) == (offered, 0, 0, 0)
