"""The fast roads of the bus: the one in Python and the compiled one read every stream alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runloop.errors import RunloopError, UsageError
from runloop.rmp.envelope import encode_envelope
from runloop.rmp.frame import FrameReader, decode_frame, encode_frame
from runloop.rmp.topics import matches
from runloop.testing import ManualClock
from runloopd.bus import gather
from runloopd.bus.address import FRONTS, AddressBook, after_payload, read_slowly
from runloopd.bus.bus import Bus
from runloopd.bus.gather import Gatherer, Seen, choose, implementations
from runloopd.bus.parts import Delivery
from runloopd.bus.principal import Principal
from runloopd.bus.queues import Run

from .support import GENERIC, NOW, OPERATOR, PEER, FakeSession, message

NATIVE = "native" in implementations()
needs_native = pytest.mark.skipif(not NATIVE, reason="not built: apt install gcc libc6-dev python3-dev")
TAG = bytes(8)


@pytest.fixture(params=["python", pytest.param("native", marks=needs_native)])
def seen(request: pytest.FixtureRequest) -> Gatherer:
    made: Gatherer = implementations()[request.param]()
    return made


# --- which one ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wish", ["0", "1", "", None])
def test_the_environment_forbids_the_compiled_step_or_insists_on_it(wish: str | None) -> None:
    if wish == "1" and not NATIVE:
        with pytest.raises(UsageError):
            choose(wish)
    else:
        assert choose(wish) == ("native" if NATIVE and wish != "0" else "python")


def test_a_step_built_for_another_version_of_the_bus_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "_INTERFACE", -1)
    assert list(implementations()) == ["python"]
    with pytest.raises(UsageError, match="not built"):
        choose("1")


# --- runs -----------------------------------------------------------------------------------------------


def known(*topics: str) -> dict[bytes, Any]:
    """What the bus writes down for these topics; the route is the topic."""
    book, found = AddressBook(), {}
    for topic in topics:
        _, memo = book.read(1, message(1, topic)[68:])
        assert memo is not None
        found[memo] = topic
    return found


def gathered(seen: Gatherer, data: bytes, routes: dict[bytes, Any], now: int = NOW) -> tuple[int, list[Any]]:
    return seen.gather(data, 0, 1 << 20, now, TAG, routes)


def test_frames_for_one_route_become_one_run_however_many(seen: Gatherer) -> None:
    frames = [message(n, "a", bytes([n % 256]) * 64, ttl_ms=1_000 + n % 7) for n in range(1, 1_001)]
    data = b"".join(frames)
    assert gathered(seen, data, known("a")) == (len(data), [("a", 0, len(data), 1_000, NOW + 1_000)])
    assert len(seen) == 1_000


def test_the_road_ends_where_something_else_begins(seen: Gatherer) -> None:
    plain = [message(n, "a") for n in range(1, 41)]
    size = len(plain[0])
    odd = {
        "unknown topic": message(99, "b"),
        "receipt": message(99, "a", meta={"receipt": True}),
        "seen": plain[3],
        "expired": message(99, "a", ttl_ms=1, now_ms=NOW - 1),
        "another schema": message(99, "a", type="intent.generic.v1"),
        "seen in this read": plain[38],
        "an extension": message(99, "a", b"xyz").replace(b"\xc4\x03xyz", b"\xc7\x02xyz"),
        "a byte that means nothing": message(99, "a", 1).replace(b"\x01\xa4meta", b"\xc1\xa4meta"),
        "text that is none": message(99, "a", "xyz").replace(b"\xa3xyz", b"\xa3x\xffz"),
        "a map as a key": message(99, "a", {"xyz": 1}).replace(
            b"\x81\xa3xyz\x01", b"\x81\x81\x01\x02\xcc\x03"
        ),
        "an array as a key": message(99, "a", {"xyz": 1}).replace(
            b"\x81\xa3xyz\x01", b"\x81\x92\x01\x02\xcc\x03"
        ),
        "flags": plain[0][:15] + b"\x01" + plain[0][16:],
        "a reserved field": plain[0][:19] + b"\x01" + plain[0][20:],
        "the last reserved field": message(99, "a")[:67] + b"\x01" + message(99, "a")[68:],
        "half a frame": plain[0][:-1],
        "magic": plain[0].replace(b"RMP0", b"RMPX"),
    }
    for what, frame in odd.items():
        fresh = type(seen)(**_fresh(seen))
        data = b"".join(plain) + frame + message(41, "a")
        at, runs = gathered(fresh, data, known("a"))
        assert (at, runs) == (40 * size, [("a", 0, 40 * size, 40, NOW + 30_000)]), what


def test_one_illegal_text_among_many_alike_ends_the_road(seen: Gatherer) -> None:
    frames = [message(n, "a", "some text") for n in range(1, 60)]
    spoiled = [*frames[:29], frames[29].replace(b"some text", b"some \xff\xfext"), *frames[30:]]
    assert gathered(seen, b"".join(spoiled), known("a"))[0] == 29 * len(frames[0])


def test_an_id_of_the_older_generation_is_known_to_the_road(seen: Gatherer) -> None:
    small = type(seen)(**{**_fresh(seen), "capacity": 40})
    frames = [message(n, "a") for n in range(1, 70)]
    size = len(frames[1])
    first, later = frames[:40], [*frames[40:60], frames[4], frames[60]]
    assert gathered(small, b"".join(first), known("a"))[0] == 40 * size
    assert gathered(small, b"".join(later), known("a"))[0] == 20 * size


def _fresh(seen: Gatherer) -> dict[str, Any]:
    return {} if isinstance(seen, Seen) else {"capacity": 65_536, "max_age_ms": 30_000, "seed": bytes(16)}


def test_ids_that_were_passed_over_are_not_remembered(seen: Gatherer) -> None:
    first, other, last = message(1, "a"), message(2, "b"), message(3, "a")
    at, _ = gathered(seen, first + other + last, known("a"))
    assert (at, len(seen)) == (len(first), 1)
    assert seen.first(TAG, last[40:64], NOW) is None
    assert seen.first(TAG, first[40:64], NOW) is not None


def test_an_id_is_forgotten_by_age_and_by_number_and_not_sooner(seen: Gatherer) -> None:
    ids = [n.to_bytes(24, "big") for n in range(200_000)]
    assert seen.first(TAG, ids[0], NOW) is None
    assert seen.first(TAG, ids[0], NOW + 30_000) is not None
    assert seen.first(TAG, ids[0], NOW + 30_001) is None
    for one in ids[1:65_536]:
        assert seen.first(TAG, one, NOW + 30_001) is None
    assert seen.first(TAG, ids[0], NOW + 30_001) is not None
    for one in ids[65_536:]:
        seen.first(TAG, one, NOW + 30_001)
    assert len(seen) <= 2 * 65_536
    assert seen.first(TAG, ids[0], NOW + 30_001) is None
    assert seen.first(TAG, ids[-65_536], NOW + 30_001) is not None


def test_stamps_grow_even_when_the_clock_does_not(seen: Gatherer) -> None:
    stamps = [seen.stamp(NOW), seen.stamp(NOW), seen.stamp(NOW - 5), seen.stamp(NOW + 1)]
    assert stamps == sorted(set(stamps))


@needs_native
@pytest.mark.parametrize(
    "arguments",
    [
        (b"x", 2, 100, NOW, TAG, {}),
        (b"x", -1, 100, NOW, TAG, {}),
        (b"x", 0, -1, NOW, TAG, {}),
        (b"x", 0, 1 << 40, NOW, TAG, {}),
        (b"x", 0, 100, NOW, b"short", {}),
        (b"x", 0, 100, NOW, TAG, []),
        (bytearray(b"x"), 0, 100, NOW, TAG, {}),
        (b"x", 0, 100, 1 << 60, TAG, {}),
        (b"x", 0, 100, -1, TAG, {}),
        (b"x", 0, 100, NOW, TAG),
    ],
)
def test_the_compiled_step_refuses_arguments_that_make_no_sense(arguments: tuple[Any, ...]) -> None:
    compiled = implementations()["native"]()
    with pytest.raises((ValueError, TypeError, OverflowError)):
        compiled.gather(*arguments)
    with pytest.raises((ValueError, TypeError)):
        compiled.first(TAG, b"short", NOW)
    for capacity, age, seed in ((0, 1, bytes(16)), (65_537, 1, bytes(16)), (1, -1, bytes(16)), (1, 1, b"")):
        with pytest.raises(ValueError, match="Seen"):
            type(compiled)(capacity, age, seed)  # type: ignore[call-arg]


# --- any stream, any cut --------------------------------------------------------------------------------


class Listener:
    """A receiver that is no handler of the daemon: what it gets may come by the fast road."""

    def __init__(self, bus: Bus, pattern: str) -> None:
        self.bus = bus
        self.principal = PEER
        self.queued = 0
        self.heard: list[Any] = []
        self.ident, self.born = bus.enlist()
        bus.add(self, pattern)

    def deliver(self, run: Run, sender: Principal) -> None:
        for start, end in run.frames():
            told = Delivery(sender, run.topic, decode_frame(run.data[start:end]))
            self.heard.append((told.topic, told.msg_id, told.body_digest))
        self.bus.delivered(run.count)


class Recorder:
    """A bus with three listeners and one publisher; everything that becomes visible is written down."""

    def __init__(self, seen: Gatherer) -> None:
        self.bus = Bus(ManualClock(NOW), seen=seen)
        self.listeners = [Listener(self.bus, pattern) for pattern in ("a", "a/*", "b")]
        self.session = FakeSession(self.bus, PEER)
        self.reader = FrameReader(max_body=4_096)

    def feed(self, data: bytes, cuts: list[int]) -> Any:
        """What one could tell from outside after reading the stream in these pieces."""
        ended: Any = None
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            try:
                self.bus.ingest(self.session, self.reader, data[start:end], NOW)
            except RunloopError as error:
                ended = type(error)
            ended = ended or (self.reader.error and type(self.reader.error))
            if ended:
                break
        session, counters = self.session, self.bus.counters
        return {
            "heard": [one.heard for one in self.listeners],
            "refused": [(number, type(error), receipt) for number, error, receipt in session.refusals],
            "receipts": session.receipts,
            "controls": session.controls,
            "requests": session.requests,
            "counters": (counters.published, counters.addressed, counters.delivered),
            "dropped": counters.dropped,
            "refusals": counters.refused,
            "ended": ended,
            "pending": 0 if ended else (self.reader.pending, self.reader.missing),
        }


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=40)
    | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)
metas = st.sampled_from(
    [
        {},
        {},
        {"receipt": True},
        {"reply_to": "rlp/clients/s2/reply"},
        {"reply_to": "b"},
        {"correlation": "c"},
        {"x": 1},
    ]
)
one_frame = st.builds(
    lambda number, topic, payload, meta, ttl: message(
        number, topic, payload, meta=meta, ttl_ms=ttl, now_ms=NOW - 5
    ),
    st.integers(1, 30),
    st.sampled_from(["a", "a/b", "b", "rlp/no"]),
    values,
    metas,
    st.sampled_from([30_000, 30_000, 6, 5]),
)
alike = st.builds(
    lambda first, topic, count, size: b"".join(
        message(first + n, topic, bytes([n]) * size, now_ms=NOW - n % 2) for n in range(count)
    ),
    st.integers(1, 200),
    st.sampled_from(["a", "b"]),
    st.integers(1, 60),
    st.integers(0, 300),
)
raw_bodies = st.builds(
    lambda number, body: encode_frame(schema_id=1, body=body, created_at_ms=NOW, msg_id=number),
    st.integers(1, 30),
    st.builds(
        lambda payload: FRONTS[1][2:] + payload + b"\xa4meta\x81\xa5topic\xa1a", st.binary(max_size=12)
    ),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Frames of a publisher, alike and not, perhaps with some spoiled bytes."""
    warm = message(1_000, "a") + message(1_001, "b") + message(1_002, "a/b")
    data = bytearray(warm + b"".join(draw(st.lists(one_frame | alike | alike | raw_bodies, max_size=8))))
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        data[draw(st.integers(len(warm), len(data)) if len(data) > len(warm) else st.just(0)) - 1] = draw(
            st.integers(0, 255)
        )
    return bytes(data)


@pytest.mark.requirement("B4", "I4.road.1")
@needs_native
@settings(max_examples=400, deadline=None)
@given(streams(), st.lists(st.integers(0, 3_000), max_size=4))
@example(message(1, "a", b"") * 2, [])
def test_both_roads_tell_the_same_of_any_stream_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    cuts = sorted(min(cut, len(data)) for cut in cuts)
    whole = [Recorder(make()).feed(data, []) for make in implementations().values()]
    pieces = [Recorder(make()).feed(data, cuts) for make in implementations().values()]
    assert whole[0] == whole[1]
    assert pieces[0] == pieces[1]
    assert whole[0]["heard"] == pieces[0]["heard"]


@settings(max_examples=300, deadline=None)
@given(streams())
def test_the_road_in_python_tells_what_reading_one_by_one_tells(data: bytes) -> None:
    class OneByOne(Seen):
        def gather(self, buffer: bytes, at: int, *_: Any) -> tuple[int, list[Any]]:
            return at, []

    assert Recorder(Seen()).feed(data, []) == Recorder(OneByOne()).feed(data, [])


@pytest.mark.requirement("I4.road.2")
@settings(max_examples=600, deadline=None)
@given(
    st.builds(lambda value: encode_envelope(GENERIC, value, {"topic": "a"}), values)
    | st.builds(
        lambda payload: FRONTS[1][2:] + payload + b"\xa4meta\x81\xa5topic\xa1a", st.binary(max_size=16)
    ),
    st.data(),
)
def test_no_body_passes_the_short_check_of_payloads_and_fails_the_full_one(
    body: bytes, data: st.DataObject
) -> None:
    spoiled = bytearray(body)
    spoiled[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    front = len(FRONTS[1]) - 2
    for one in (body, bytes(spoiled)):
        end = after_payload(one, front, len(one)) if one.startswith(FRONTS[1][2:]) else -1
        if end >= 0 and one[end:] == b"\xa4meta\x81\xa5topic\xa1a":
            assert read_slowly(1, one)[0].topic == "a"


# --- one topic after the other --------------------------------------------------------------------------


class Ear:
    """A receiver that keeps every run as it came."""

    def __init__(self, bus: Bus, *patterns: str) -> None:
        self.principal = OPERATOR
        self.bus = bus
        self.ident, self.born = bus.enlist()
        self.runs: list[Run] = []
        self.queued = 0
        for pattern in patterns:
            bus.add(self, pattern)

    def deliver(self, run: Run, sender: Principal) -> None:
        self.runs.append(run)
        self.bus.delivered(run.count)

    @property
    def data(self) -> bytes:
        return b"".join(run.data for run in self.runs)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(["t/0", "t/1", "t/2", "u/0"]), min_size=1, max_size=40).map(
        lambda some: some * 3
    ),
    st.lists(
        st.lists(st.sampled_from(["t/0", "t/1", "t/*", "u/0", "*"]), max_size=3, unique=True), max_size=4
    ),
    st.booleans(),
)
def test_whoever_listens_gets_what_is_his_in_the_order_it_was_published(
    published: list[str], ears: list[list[str]], local: bool
) -> None:
    for make in implementations().values():
        bus = Bus(ManualClock(NOW), seen=make())
        heard: list[int] = []
        for topic in ("t/0", "t/1") if local else ():  # two handlers of the daemon may share what they know
            bus.subscribe(topic, lambda delivery, heard=heard: heard.append(delivery.msg_id))  # type: ignore[misc]
        listeners = [(Ear(bus, *patterns), patterns) for patterns in ears]
        session = FakeSession(bus, PEER)
        session.send(*(message(1_000 + n, topic) for n, topic in enumerate(("t/0", "t/1", "t/2", "u/0"))))
        for ear, _ in listeners:
            ear.runs.clear()
        heard.clear()
        frames = [message(n, topic, bytes([n]) * n) for n, topic in enumerate(published)]
        before = bus.counters.addressed
        session.send(*frames)
        for ear, patterns in listeners:
            mine = [
                frame
                for frame, topic in zip(frames, published, strict=True)
                if any(matches(pattern, topic) for pattern in patterns)
            ]
            assert ear.data == b"".join(mine)
            for run in ear.runs:
                inside = FrameReader().feed(run.data)
                assert (run.count, run.expires_ms) == (len(inside), min(one.expires_at_ms for one in inside))
        assert heard == ([n for n, topic in enumerate(published) if topic in ("t/0", "t/1")] if local else [])
        assert session.refusals == []
        received = sum(run.count for ear, _ in listeners for run in ear.runs) + len(heard)
        assert bus.counters.addressed - before == received
        assert bus.counters.published == 4 + len(frames)


def test_a_read_that_changes_its_topic_at_every_frame_is_one_piece_for_each_receiver(seen: Gatherer) -> None:
    bus = Bus(ManualClock(NOW), seen=seen)
    ears = [Ear(bus, f"t/{n}") for n in range(4)]
    session = FakeSession(bus, PEER)
    session.send(*(message(n, f"t/{n % 4}", ttl_ms=1_000 + n) for n in range(8)))
    for ear in ears:
        ear.runs.clear()
    session.send(*(message(n, f"t/{n % 4}", ttl_ms=1_000 - n) for n in range(100, 500)))
    assert [[(run.count, run.expires_ms) for run in ear.runs] for ear in ears] == [
        [(100, NOW + 504 - n)] for n in range(4)
    ]
    Ear(bus, "t/*")
    session.send(*(message(n, f"t/{n % 4}") for n in range(500, 508)))
    for ear in ears:
        ear.runs.clear()
    session.send(*(message(n, f"t/{n % 4}") for n in range(600, 800)))
    assert [len(ear.runs) for ear in ears] == [50] * 4, "one receiver hears them all, in their order"


def deep(levels: int) -> Callable[[bytes], bytes]:
    return lambda inner: b"\x91" * levels + inner


@pytest.mark.parametrize("levels", [1, 30, 31, 32, 62, 63, 64, 65, 200, 5_000])
@pytest.mark.parametrize("more", [0, 80])
def test_nesting_is_bounded_alike_on_every_road(seen: Gatherer, levels: int, more: int) -> None:
    """``more`` bytes that look like containers and are none."""
    payload = b"\x92" + b"\xc4" + bytes([more]) + b"\x91" * more + deep(levels - 1)(b"\x01")
    body = FRONTS[1][2:] + payload + b"\xa4meta\x81\xa5topic\xa1a"
    frame = encode_frame(schema_id=1, body=body, created_at_ms=NOW, msg_id=5)
    recorder = Recorder(seen)
    recorder.reader = FrameReader()
    told = recorder.feed(message(1, "a") + frame, [])
    legal = levels <= 63  # the body's own map is one
    assert (sum(map(len, told["heard"])), told["ended"] is None) == ((2, True) if legal else (1, False))
