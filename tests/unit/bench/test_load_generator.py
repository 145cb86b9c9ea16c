"""The load generator's verdict: a figure of a broker that loses, repeats or alters something never appears.

A relay in this process stands for the broker. It reads real frames of each protocol and passes them on, one
of them not as it should.
"""

from __future__ import annotations

import contextlib
import selectors
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.load import generator, wire
from tests.bench.load.wire import Frame

pytestmark = [
    pytest.mark.skipif(shutil.which("cc") is None, reason="no cc: apt install gcc libc6-dev"),
    pytest.mark.requirement("I4.figures.1"),
]

SIZE = 64
AFTERTHOUGHTS = ("echo", "stray byte")
WIRES: dict[str, type[wire.Wire]] = {
    "rmp": wire.Rmp,
    "resp": wire.Redis,
    "nats": wire.Nats,
    "mqtt": wire.Mqtt,
    "zmtp": wire.Zmtp,
    "dbus": wire.Dbus,
}


class Relay(wire.Wire):
    """A broker of one protocol; its ``fault`` befalls message 100 of the last topic, at one subscriber."""

    def __init__(self, protocol: str, fault: str = "", size: int = SIZE) -> None:
        nowhere = Path("nowhere")
        kind = WIRES[protocol]
        self.spoken = wire.Zmtp(nowhere, nowhere) if kind is wire.Zmtp else kind(nowhere)
        super().__init__(nowhere)
        self.letter = self.spoken.letter
        self.fault = fault
        self.size = size
        self.publishers: list[socket.socket] = []
        self.subscribers: dict[str, list[socket.socket]] = {}
        self._last: bytes | None = None
        self._waker, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def publisher(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.publishers.append(ours)
        return theirs

    def subscriber(self, topic: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.subscribers.setdefault(topic, []).append(ours)
        return theirs

    def published(self, topic: str, size: int) -> Frame:
        return self.spoken.published(topic, size)

    def delivered(self, topic: str, size: int) -> Frame:
        return self.spoken.delivered(topic, size)

    def settle(self, publishers: list[socket.socket], subscribers: dict[str, list[socket.socket]]) -> None:
        self._thread.start()

    def close(self) -> None:
        self._waker.close()
        self._thread.join(10)
        for sock in [*self.publishers, *(one for some in self.subscribers.values() for one in some)]:
            sock.close()
        self._woken.close()

    def _serve(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._woken, selectors.EVENT_READ)
        pending = dict.fromkeys(self.publishers, b"")
        counts = dict.fromkeys(self.publishers, 0)
        for sock in self.publishers:
            selector.register(sock, selectors.EVENT_READ)
        with contextlib.suppress(OSError):  # the generator hangs up when it has seen enough
            while True:
                idle = self.fault in AFTERTHOUGHTS and self._last is not None
                ready = selector.select(0.005 if idle else None)
                if not ready:
                    self._afterthought()
                for key, _ in ready:
                    sock = key.fileobj
                    if sock is self._woken:
                        return
                    assert isinstance(sock, socket.socket)
                    data = sock.recv(65_536)
                    if not data:
                        selector.unregister(sock)
                    pending[sock] += data
                    at = self.publishers.index(sock)
                    topic = list(self.subscribers)[at]
                    length = self._length(topic)
                    whole = len(pending[sock]) // length
                    for number in range(whole):
                        frame = pending[sock][number * length : (number + 1) * length]
                        self._deliver(topic, frame, counts[sock])
                        counts[sock] += 1
                    pending[sock] = pending[sock][whole * length :]

    def _length(self, topic: str) -> int:
        frame = self.published(topic, self.size)
        return len(frame.prefix) + self.size + len(frame.suffix)

    def _deliver(self, topic: str, data: bytes, number: int) -> None:
        waiting = self.subscribers[topic]
        made = self._rewritten(topic, data)
        if self.fault == "last one late" and (made := self._swapped(made)) is None:
            return
        if self.fault in AFTERTHOUGHTS:
            self._last = made
        last = topic == list(self.subscribers)[-1]
        for sock in waiting[:-1]:
            sock.sendall(made)
        unlucky = waiting[-1]
        if not last or number < 100 or not self.fault:
            unlucky.sendall(made)
            return
        fault, self.held = self.fault, getattr(self, "held", made)
        if fault == "silence":
            return
        head = len(made) - self.size - len(self.published(topic, self.size).suffix)
        sent = {
            ("lost", 100): b"",
            ("duplicate", 100): made + made,
            ("overtaken", 100): b"",
            ("overtaken", 101): made + self.held,
            ("payload", 100): flipped(made, head + 20),
            ("number", 100): flipped(made, head + 7),
            ("header", 100): flipped(made, head - 1),
            ("identity", 100): flipped(made, 63),
            ("address", 100): flipped(made, len(made) - 1),
            ("cut", 100): made[:-1],
            ("extra", 100): made + b"\0",
        }.get((fault, number), made)
        unlucky.sendall(sent)
        if fault == "closed":
            unlucky.shutdown(socket.SHUT_RDWR)

    def _swapped(self, made: bytes) -> bytes | None:
        """The message before; so the last one never comes."""
        before, self._last = self._last, made
        return before

    def _afterthought(self) -> None:
        """Nothing was asked for a while: say something nevertheless."""
        last, self._last = self._last, None
        if last is not None and self.fault != "last one late":
            next(reversed(self.subscribers.values()))[-1].sendall(last if self.fault == "echo" else b"\0")

    def _rewritten(self, topic: str, data: bytes) -> bytes:
        """What RESP and NATS call a delivery differs from what they call a publish."""
        if self.letter not in "Rn":
            return data
        was, becomes = self.published(topic, self.size), self.delivered(topic, self.size)
        return becomes.prefix + data[len(was.prefix) : len(was.prefix) + self.size] + becomes.suffix


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.fixture(scope="module", autouse=True)
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The generator compiled once, away from the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def run(relay: Relay, pattern: str = "1→1", size: int = SIZE) -> dict[str, float]:
    # Short only where nothing more is ever to come: a busy machine may hold an honest broker up for long.
    patience_s = 0.3 if relay.fault in ("silence", "last one late") else 10.0
    return generator.measure(relay, pattern, size, warm_s=0.005, measure_s=0.02, patience_s=patience_s)


@pytest.mark.parametrize("pattern", ["1→1", "1→8", "8→8", "call"])
@pytest.mark.parametrize("protocol", WIRES)
def test_an_honest_broker_gets_its_figure(protocol: str, pattern: str) -> None:
    result = run(Relay(protocol), pattern)
    assert result["per_s"] > 0


@pytest.mark.parametrize("protocol", WIRES)
def test_large_payloads_are_compared_too(protocol: str) -> None:
    assert run(Relay(protocol, size=65_536), size=65_536)["messages"] > 0


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        ("lost", "gap"),
        ("overtaken", "gap"),
        ("duplicate", "duplicate"),
        ("payload", "altered"),
        ("number", "altered"),
        ("header", "altered"),
        ("silence", "lost"),
        ("closed", "closed"),
    ],
)
@pytest.mark.parametrize("protocol", WIRES)
def test_one_bad_message_of_many_is_a_fault(protocol: str, fault: str, verdict: str) -> None:
    with pytest.raises(generator.Fault) as caught:
        run(Relay(protocol, fault))
    assert caught.value.kind == verdict


@pytest.mark.parametrize("fault", ["identity", "address"])
def test_header_and_tail_of_our_own_frames_are_compared(fault: str) -> None:
    with pytest.raises(generator.Fault) as caught:
        run(Relay("rmp", fault))
    assert caught.value.kind == "altered"


@pytest.mark.parametrize("fault", ["cut", "extra"])
@pytest.mark.parametrize("protocol", WIRES)
def test_a_byte_too_few_or_too_many_is_a_fault(protocol: str, fault: str) -> None:
    with pytest.raises(generator.Fault):
        run(Relay(protocol, fault))


@pytest.mark.parametrize(("pattern", "fault"), [("1→8", "lost"), ("8→8", "duplicate"), ("call", "payload")])
def test_one_of_many_subscribers_is_enough(pattern: str, fault: str) -> None:
    with pytest.raises(generator.Fault):
        run(Relay("rmp", fault), pattern)


@pytest.mark.parametrize(
    ("fault", "verdict"), [("last one late", "lost"), ("echo", "duplicate"), ("stray byte", "altered")]
)
@pytest.mark.parametrize("pattern", ["1→1", "call"])
def test_the_end_is_watched_as_well(pattern: str, fault: str, verdict: str) -> None:
    with pytest.raises(generator.Fault) as caught:
        run(Relay("rmp", fault), pattern)
    assert caught.value.kind == verdict


def test_a_message_of_another_publisher_is_a_fault() -> None:
    class Crossing(Relay):
        def _deliver(self, topic: str, data: bytes, number: int) -> None:
            names = list(self.subscribers)
            other = names[names.index(topic) ^ 1] if number == 100 else topic
            self.subscribers[other][0].sendall(data)

    with pytest.raises(generator.Fault):
        run(Crossing("rmp"), "8→8")
