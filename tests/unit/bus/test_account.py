"""Every frame is accounted for, at every moment and to the last one; nobody owes what nobody holds.

The machine drives real sockets: peers that read at once, late or never, come and go, subscribe in the middle,
publish in all classes, with short lives, on durable topics too. After every step
``addressed = delivered + dropped + queued``; in the end what was counted as delivered was received.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runloop.client import AsyncClient
from runloop.rmp import hello
from runloop.rmp.envelope import encode_message, open_frame
from runloop.rmp.frame import FrameReader
from runloopd.bus.socket import PeerLimits
from tests.memory import quick

from .ledger_house import CREDENTIAL, LedgerHouse
from .support import GENERIC
from .test_socket import settle

LIMITS = PeerLimits(
    write_buffer=8_192, outbox_bytes=65_536, owed_bytes=32_768, stall_ms=10**9, frame_ms=10**9
)
TOPICS = ("demo/a", "demo/b/c", "live/a", "bulk/a", "durable/a")
PATTERNS = (*TOPICS, "demo/*", "*", "durable/*")


class Peer:
    """A program that reads when it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = FrameReader()
        self.msg_id = 1
        self.got = 0
        """Frames on topics."""
        self.unsent = b""
        self.nonce = b""

    def heard_hello(self) -> bool:
        """Whether the daemon's hello is there."""
        try:
            data = self.sock.recv(4_096)
        except BlockingIOError:
            return False
        for frame in self.reader.feed(data):
            self.nonce = open_frame(frame).payload["nonce"]
            return True
        return False

    def read(self) -> int:
        """Everything that is there; how many bytes it was."""
        size = 0
        while True:
            try:
                data = self.sock.recv(1 << 16)
            except (BlockingIOError, ConnectionError):
                return size
            if not data:
                return size
            size += len(data)
            for frame in self.reader.feed(data):
                topic = open_frame(frame).topic or ""
                self.got += bool(topic) and not topic.startswith("rlp/clients/")

    def write(self, data: bytes = b"") -> None:
        self.unsent += data
        try:
            while self.unsent:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            pass
        except ConnectionError:
            self.unsent = b""  # it was cut: nobody will take that


PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""No shrinking: a history that fails may wait half a minute, each time."""


class Account(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ac", dir=quick()))
        self.loop = asyncio.new_event_loop()
        self.peers: list[Peer] = []
        self.left_unread = False
        self.got_by_leavers = 0

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 30))

    @initialize()
    def begin(self) -> None:
        async def start() -> None:
            self.house = await LedgerHouse(self.folder, window=3).start(LIMITS)

        self.do(start())
        self.join()

    @precondition(lambda self: len(self.peers) < 5)
    @rule()
    def join(self) -> None:
        async def connect() -> None:
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            await asyncio.get_running_loop().sock_connect(sock, os.fspath(self.house.path))
            peer = Peer(sock)
            while not peer.heard_hello():
                await asyncio.sleep(0)
            answer = {
                "protocol": 0,
                "build": self.house.server.build,
                "client": "p",
                "proof": hello.proof(CREDENTIAL, peer.nonce),
            }
            peer.write(encode_message("observation.agent.hello.v1", answer, msg_id=1, now_ms=self.now))
            self.peers.append(peer)
            await settle()

        self.do(connect())

    @property
    def now(self) -> int:
        return self.house.clock.now_ms()

    def _control(self, which: int, **payload: Any) -> None:
        peer = self.peers[which % len(self.peers)]
        peer.msg_id += 1
        peer.write(encode_message("intent.control.v1", payload, msg_id=peer.msg_id, now_ms=self.now))
        self.do(settle())

    @precondition(lambda self: self.peers)
    @rule(which=st.integers(0, 9), pattern=st.sampled_from(PATTERNS))
    def subscribe(self, which: int, pattern: str) -> None:
        self._control(which, action="subscribe", pattern=pattern)

    @precondition(lambda self: self.peers)
    @rule(which=st.integers(0, 9), pattern=st.sampled_from(PATTERNS))
    def unsubscribe(self, which: int, pattern: str) -> None:
        self._control(which, action="unsubscribe", pattern=pattern)

    @precondition(lambda self: self.peers)
    @rule(which=st.integers(0, 9), name=st.sampled_from("ab"), forget=st.booleans())
    def consume(self, which: int, name: str, forget: bool) -> None:
        self._control(which, action="subscribe", pattern="durable/*", durable=name)
        if forget:
            self._control(which, action="unsubscribe", durable=name, forget=True)

    @precondition(lambda self: self.peers)
    @rule(which=st.integers(0, 9), name=st.sampled_from("ab"), seq=st.integers(0, 40))
    def ack(self, which: int, name: str, seq: int) -> None:
        self._control(which, action="ack", durable=name, seq=seq)

    @precondition(lambda self: self.peers)
    @rule(
        which=st.integers(0, 9),
        topic=st.sampled_from(TOPICS),
        count=st.integers(1, 90),
        size=st.sampled_from([1, 300, 6_000]),
        ttl_ms=st.sampled_from([1, 40, 30_000]),
        again=st.booleans(),
        receipt=st.booleans(),
    )
    def publish(
        self, which: int, topic: str, count: int, size: int, ttl_ms: int, again: bool, receipt: bool
    ) -> None:
        peer = self.peers[which % len(self.peers)]
        if again:
            peer.msg_id = max(1, peer.msg_id - count // 2)  # some are duplicates
        frames = []
        for _ in range(count):
            peer.msg_id += 1
            meta = {"receipt": True} if receipt else None
            frames.append(
                encode_message(
                    GENERIC, b"x" * size, msg_id=peer.msg_id, now_ms=self.now, topic=topic, ttl_ms=ttl_ms,
                    meta=meta,
                )
            )  # fmt: skip
        peer.write(b"".join(frames))
        self.do(settle())

    @precondition(lambda self: self.peers)
    @rule(which=st.integers(0, 9))
    def read(self, which: int) -> None:
        peer = self.peers[which % len(self.peers)]
        peer.read()
        peer.write()
        self.do(settle())

    @rule(ms=st.sampled_from([1, 60, 31_000]))
    def later(self, ms: int) -> None:
        self.house.clock.advance(ms)  # type: ignore[attr-defined]
        self.do(settle())

    @precondition(lambda self: self.peers)
    @rule(which=st.integers(0, 9))
    def leave(self, which: int) -> None:
        peer = self.peers.pop(which % len(self.peers))
        peer.read()
        self.left_unread = True  # what is in the kernel was delivered, and nobody will read it
        peer.sock.close()
        self.do(settle())

    @invariant()
    def addressed_is_delivered_and_dropped_and_queued(self) -> None:
        if hasattr(self, "house"):
            assert self.house.balanced

    @invariant()
    def what_is_owed_is_what_waits(self) -> None:
        if hasattr(self, "house"):
            sessions = self.house.server._sessions
            owed = sum(session._owed for session in sessions)
            queued = sum(session.outbox.bytes for session in sessions)
            parked = sum(len(run.data) for session in sessions for run, _ in session.outbox._parked)
            if self.house.durable._working is None:  # else some of it is on its way to the ledger
                assert 0 <= owed <= queued + parked
            assert all(session.outbox.bytes <= LIMITS.outbox_bytes + 8_192 for session in sessions)

    def teardown(self) -> None:
        try:
            if hasattr(self, "house"):
                self.do(self._end())
        finally:
            for peer in self.peers:
                peer.sock.close()
            self.loop.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _end(self) -> None:
        # Until nothing moves any more, however busy the machine: the ledger commits in a thread, which a
        # number of turns of the loop would not wait for. ``do`` bounds it.
        while True:
            moved = 0
            for peer in self.peers:
                moved += peer.read()
                peer.write()
                moved += len(peer.unsent)
            await settle()
            if self.house.durable._working is not None:
                await asyncio.sleep(0.001)
            elif not moved and not self.house.bus.queued:
                break
        for peer in self.peers:
            peer.read()
        assert self.house.balanced
        assert self.house.bus.queued == 0
        assert all(session._owed == 0 for session in self.house.server._sessions)
        received = sum(peer.got for peer in self.peers)
        if self.left_unread:
            assert received <= self.house.bus.counters.delivered
        else:
            assert received == self.house.bus.counters.delivered
        await self.house.stop()


Account.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None, phases=PHASES)


class TestAccount(Account.TestCase):  # type: ignore[misc,valid-type]
    """Runs the machine."""

    pytestmark = [pytest.mark.requirement("I4.semantics.4")]


@pytest.mark.requirement("I4.semantics.5")
async def test_whoever_joins_in_the_middle_hears_the_rest_and_whoever_leaves_nothing_more(
    tmp_path: Path,
) -> None:
    house = await LedgerHouse(tmp_path).start()
    speaker, early, late = [await AsyncClient.connect(house.path, CREDENTIAL) for _ in range(3)]
    for one in (speaker, early, late):
        one._session._now_ms = house.clock.now_ms

    async def say(number: int) -> int:
        receipt = await speaker.publish("demo/thread", GENERIC, number, {"conversation": "k"})
        return receipt.receivers

    await early.subscribe("demo/*")
    assert [await say(number) for number in (1, 2)] == [1, 1]
    await late.subscribe("demo/thread")
    assert [await say(number) for number in (3, 4)] == [2, 2]
    await early.unsubscribe("demo/*")
    assert [await say(number) for number in (5, 6)] == [1, 1]
    for one, heard in ((early, [1, 2, 3, 4]), (late, [3, 4, 5, 6])):
        await one.ping()
        assert [delivery.payload for delivery in one._session.deliveries] == heard
        assert {delivery.meta["conversation"] for delivery in one._session.deliveries} == {"k"}
    counters = house.bus.counters
    assert (counters.addressed, counters.delivered, counters.dropped) == (8, 8, {})
    for one in (speaker, early, late):
        one.close()
    await house.stop()
