"""The Unix socket against real connections: identity, places, slow, greedy and lying peers."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from runloop import __version__
from runloop.client import AsyncClient, BlockingClient
from runloop.errors import ConflictError, RefusedError, RunloopError, UnreachableError, UsageError
from runloop.rmp import hello
from runloop.rmp.envelope import encode_message, open_frame
from runloop.rmp.frame import Frame, FrameReader
from runloop.testing import ManualClock
from runloopd.bus.bus import Bus
from runloopd.bus.socket import PeerLimits, SocketServer

from .support import GENERIC, NOW, OPERATOR

CREDENTIAL = bytes(range(32))
pytestmark = pytest.mark.usefixtures("either_step")


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """The loops a daemon may run on."""
    if request.param == "asyncio":
        return asyncio.DefaultEventLoopPolicy()
    uvloop = pytest.importorskip("uvloop", reason="pip install 'runloop[fast]'")
    policy: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
    return policy


class House:
    """A bus and its server in a directory of the test, on a clock of the test."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock(NOW)
        self.bus = Bus(self.clock)
        self.path = directory / "run" / "rmp.sock"
        self.lost: list[str] = []
        self.opened: list[Any] = []
        self.servers: list[SocketServer] = []

    async def start(self, limits: PeerLimits | None = None, **more: Any) -> SocketServer:
        server = SocketServer(
            self.bus,
            self.path,
            credential=CREDENTIAL,
            build=__version__,
            clock=self.clock,
            limits=limits,
            on_lost=self.lost.append,
            **more,
        )
        await server.start()
        self.servers.append(server)
        return server

    async def client(self, credential: bytes | None = CREDENTIAL) -> AsyncClient:
        client = await AsyncClient.connect(self.path, credential)
        client._session._now_ms = self.clock.now_ms
        self.opened.append(client)
        return client

    async def raw(self) -> Raw:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, os.fspath(self.path))
        raw = Raw(sock)
        self.opened.append(raw)
        return raw

    async def tick(self, ms: int) -> None:
        """Move the clock and let everybody who waits for it run."""
        await settle()
        self.clock.advance(ms)
        await settle()

    @property
    def balanced(self) -> bool:
        counters = self.bus.counters
        return counters.addressed == counters.delivered + sum(counters.dropped.values()) + self.bus.queued


class Raw:
    """A connection that speaks bytes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = FrameReader()
        self.frames: list[Frame] = []

    def close(self) -> None:
        self.sock.close()

    async def send(self, data: bytes) -> None:
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self.sock, data), 10)

    async def read(self) -> tuple[int, Any]:
        """Schema id and payload of the next frame; ``(0, None)`` when the other side hung up."""
        while not self.frames:
            try:
                data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 65_536), 10)
            except ConnectionResetError:
                data = b""
            if not data:
                return 0, None
            self.frames += self.reader.feed(data)
        frame = self.frames.pop(0)
        return frame.schema_id, open_frame(frame).payload

    async def greet(self, **change: Any) -> Any:
        _, server = await self.read()
        answer = {"protocol": 0, "build": __version__, "client": "raw", "proof": None, **change}
        if callable(answer["proof"]):
            answer["proof"] = answer["proof"](server["nonce"])
        await self.send(encode_message("observation.agent.hello.v1", answer, msg_id=1, now_ms=NOW))
        return (await self.read())[1]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def eventually(true: Callable[[], bool]) -> None:
    """Wait, within bounds, for what other tasks are about to do."""

    async def poll() -> None:
        while not true():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), 10)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    yield made
    for one in made.opened:
        one.close()
    for server in made.servers:
        await server.close()


def flood(count: int, size: int, topic: str = "demo/flood", first: int = 10, ttl_ms: int = 10**9) -> bytes:
    return b"".join(
        encode_message(GENERIC, b"x" * size, msg_id=n, now_ms=NOW, topic=topic, ttl_ms=ttl_ms)
        for n in range(first, first + count)
    )


# --- place and mode ---------------------------------------------------------------------------------


@pytest.mark.requirement("B2")
async def test_directory_and_socket_belong_to_this_user_alone_whatever_the_umask(house: House) -> None:
    before = os.umask(0)
    try:
        await house.start()
    finally:
        os.umask(before)
    assert stat.S_IMODE(house.path.parent.stat().st_mode) == 0o700
    status = house.path.stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, os.geteuid())
    assert stat.S_IMODE(house.path.with_name("rmp.sock.lock").stat().st_mode) == 0o600


@pytest.mark.requirement("B1")
async def test_the_daemon_listens_on_no_network_socket(house: House) -> None:
    await house.start()
    inodes = {os.fspath(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            assert not (fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes)


@pytest.mark.requirement("B2")
async def test_a_symlinked_runtime_directory_is_refused(house: House, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    house.path.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="not a directory of its own"):
        await house.start()


@pytest.mark.requirement("B2")
@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
async def test_a_runtime_directory_open_to_others_is_refused(house: House, mode: int) -> None:
    house.path.parent.mkdir()
    house.path.parent.chmod(mode)
    with pytest.raises(RefusedError, match="0700"):
        await house.start()


async def test_a_path_too_long_for_a_socket_is_named(house: House, tmp_path: Path) -> None:
    house.path = tmp_path / ("x" * 120) / "s"
    with pytest.raises(UsageError, match="107"):
        await house.start()


@pytest.mark.requirement("B2")
async def test_what_is_not_a_socket_is_not_removed(house: House) -> None:
    house.path.parent.mkdir(mode=0o700)
    house.path.write_text("precious")
    with pytest.raises(RefusedError, match="not a socket"):
        await house.start()
    assert house.path.read_text() == "precious"


async def test_a_dead_socket_is_replaced(house: House) -> None:
    house.path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(house.path))
    await house.start()
    await house.client()


@pytest.mark.requirement("B3")
async def test_a_live_socket_is_not_stolen_even_without_a_lock(house: House) -> None:
    house.path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(os.fspath(house.path))
        live.listen()
        with pytest.raises(ConflictError, match="a daemon answers"):
            await house.start()
        assert house.path.exists()


@pytest.mark.requirement("B3")
async def test_a_second_daemon_is_turned_away_by_the_lock(house: House) -> None:
    await house.start()
    house.path.unlink()
    with pytest.raises(ConflictError, match="another daemon holds"):
        await house.start()


async def test_a_symlinked_lock_is_refused(house: House, tmp_path: Path) -> None:
    house.path.parent.mkdir(mode=0o700)
    house.path.with_name("rmp.sock.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(RefusedError, match="lock"):
        await house.start()
    assert not (tmp_path / "victim").exists()


async def test_the_socket_is_gone_after_closing_and_can_be_bound_again(house: House) -> None:
    server = await house.start()
    await server.close()
    assert not house.path.exists()
    await house.start()
    await house.client()


@pytest.mark.requirement("B3")
async def test_a_replaced_socket_is_noticed_once_and_left_alone(house: House) -> None:
    server = await house.start()
    house.path.unlink()
    house.path.write_text("somebody else's")
    await house.tick(1_000)
    await house.tick(1_000)
    assert len(house.lost) == 1 and "replaced" in house.lost[0]
    await server.close()
    assert house.path.exists()


async def test_a_credential_of_the_wrong_length_is_refused_before_anything_is_bound(house: House) -> None:
    with pytest.raises(UsageError, match="32"):
        SocketServer(house.bus, house.path, credential=b"short", build="b", clock=house.clock)


# --- identity -----------------------------------------------------------------------------------------


@pytest.mark.requirement("I2.wire.3")
async def test_the_right_proof_makes_an_operator_and_no_proof_a_peer(house: House) -> None:
    server = await house.start()
    operator, peer, liar = await house.client(), await house.client(None), await house.client(b"w" * 32)
    assert (operator.principal, peer.principal, liar.principal) == ("operator", "peer", "peer")
    kinds = sorted(info.principal.kind for info in server.peers())
    assert kinds == ["operator", "peer", "peer"]
    info = next(info for info in server.peers() if info.principal.kind == "operator")
    assert info.principal.uid == os.geteuid()
    assert info.principal.pid == os.getpid()
    assert info.principal.label == f"operator:{os.geteuid()}"
    assert info.reading and info.client == "'runloop'"


@pytest.mark.requirement("B6")
async def test_a_captured_proof_is_worth_nothing_in_another_session(house: House) -> None:
    await house.start()
    captured: list[bytes] = []

    def capture(nonce: bytes) -> bytes:
        captured.append(hello.proof(CREDENTIAL, nonce))
        return captured[0]

    first, second = await house.raw(), await house.raw()
    assert (await first.greet(proof=capture))["result"]["principal"] == "operator"
    assert (await second.greet(proof=captured[0]))["result"]["principal"] == "peer"


@pytest.mark.requirement("B6")
async def test_a_kind_claimed_in_the_hello_is_ignored(house: House) -> None:
    await house.start()
    raw = await house.raw()
    assert (await raw.greet(principal="operator", kind="operator"))["result"]["principal"] == "peer"


@pytest.mark.requirement("S4", "I2.wire.4")
@pytest.mark.parametrize(
    "change", [{"build": "0.0.9"}, {"protocol": 1}, {"build": None}, {"build": "\x1b[2J"}]
)
async def test_another_build_or_protocol_is_refused_naming_both(house: House, change: dict[str, Any]) -> None:
    await house.start()
    raw = await house.raw()
    answer = await raw.greet(**change)
    assert (answer["ok"], answer["error"]["code"]) == (False, "hello.version")
    assert f"build {__version__}" in answer["error"]["message"]
    assert "\x1b" not in answer["error"]["message"]
    assert "rlp daemon stop" in answer["error"]["hint"]
    assert await raw.read() == (0, None)


async def test_the_client_raises_the_refusal_of_another_build(house: House) -> None:
    await house.start()
    with pytest.raises(RefusedError, match=r"0\.0\.9"):
        await AsyncClient.connect(house.path, build="0.0.9")


@pytest.mark.requirement("B2", "I2.wire.3")
async def test_another_uid_is_refused_by_kernel_credentials(house: House) -> None:
    await house.start(uid=os.geteuid() + 1)
    raw = await house.raw()
    schema, answer = await raw.read()
    assert (schema, answer["error"]["code"]) == (2002, "bus.uid")
    assert await raw.read() == (0, None)


@pytest.mark.requirement("B2")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs another uid")
async def test_another_user_s_process_gets_nowhere_even_where_modes_were_loosened(
    house: House, tmp_path: Path
) -> None:
    await house.start()
    script = (
        "import os,socket,sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "s=socket.socket(socket.AF_UNIX)\n"
        "try: s.connect(sys.argv[1]); print(s.recv(4096)[68:].decode('latin1'))\n"
        "except PermissionError: print('denied')\n"
    )

    async def attempt() -> str:
        command = [sys.executable, "-c", script, os.fspath(house.path)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=20)
        return done.stdout

    assert await attempt() == "denied\n"
    for place in (house.path, house.path.parent, *house.path.parents):
        if os.fspath(place) in ("/", "/tmp"):
            break
        place.chmod(0o777)
    assert "bus.uid" in await attempt()


async def test_nothing_is_routed_before_the_hello(house: House) -> None:
    await house.start()
    raw = await house.raw()
    await raw.read()
    await raw.send(encode_message(GENERIC, 1, msg_id=1, now_ms=NOW, topic="demo/a"))
    _, answer = await raw.read()
    assert answer["error"]["code"] == "hello.expected"
    assert await raw.read() == (0, None)
    assert house.bus.counters.published == 0


@pytest.mark.parametrize("payload", [None, [], "hello"])
async def test_a_hello_of_another_shape_is_refused(house: House, payload: Any) -> None:
    await house.start()
    raw = await house.raw()
    await raw.read()
    await raw.send(encode_message("observation.agent.hello.v1", payload, msg_id=1, now_ms=NOW))
    assert (await raw.read())[1]["error"]["code"] == "hello.shape"


async def test_frames_behind_the_hello_in_the_same_read_are_routed(house: House) -> None:
    await house.start()
    raw = await house.raw()
    await raw.read()
    answer = {"protocol": 0, "build": __version__, "client": "raw", "proof": None}
    ping = encode_message("intent.control.v1", {"action": "ping", "id": "p"}, msg_id=2, now_ms=NOW)
    await raw.send(encode_message("observation.agent.hello.v1", answer, msg_id=1, now_ms=NOW) + ping)
    assert [(await raw.read())[1]["id"] for _ in range(2)] == ["hello", "p"]


async def test_one_more_peer_than_allowed_is_turned_away(house: House) -> None:
    await house.start(PeerLimits(peers=1))
    await house.client()
    raw = await house.raw()
    assert (await raw.read())[1]["error"]["code"] == "bus.peers"


# --- lies and sloth -----------------------------------------------------------------------------------


@pytest.mark.requirement("B4")
async def test_a_broken_frame_closes_that_connection_with_a_reason_and_harms_nobody_else(
    house: House,
) -> None:
    await house.start()
    good, raw = await house.client(), await house.raw()
    await raw.greet()
    await raw.send(b"GET / HTTP/1.1\r\n\r\n")
    schema, report = await raw.read()
    assert (schema, report["error"]) == (10, "BodyTooLarge")
    assert await raw.read() == (0, None)
    assert (await good.publish("demo/a", GENERIC, 1)).receivers == 0
    await eventually(lambda: len(house.servers[0].peers()) == 1)


async def test_a_body_that_is_none_closes_the_connection_too(house: House) -> None:
    await house.start()
    raw = await house.raw()
    await raw.greet()
    spoiled = bytearray(encode_message(GENERIC, 1, msg_id=2, now_ms=NOW, topic="demo/a"))
    spoiled[68] = 0xC1
    await raw.send(bytes(spoiled))
    assert (await raw.read())[1]["error"] == "BodyDecodeError"
    assert await raw.read() == (0, None)


async def test_a_peer_that_says_nothing_is_cut_after_the_time_for_its_hello(house: House) -> None:
    await house.start(PeerLimits(hello_ms=5_000))
    raw = await house.raw()
    await raw.read()
    await house.tick(4_000)
    await house.tick(1_000)
    assert (await raw.read())[1]["error"] == "Incomplete"
    assert await raw.read() == (0, None)


@pytest.mark.requirement("B4")
async def test_a_frame_begun_and_never_finished_is_cut_however_slowly_it_drips(house: House) -> None:
    server = await house.start(PeerLimits(frame_ms=3_000))
    raw = await house.raw()
    await raw.greet()
    whole = encode_message(GENERIC, b"x" * 200, msg_id=2, now_ms=NOW, topic="demo/a")
    for at in range(2):
        await raw.send(whole[at : at + 1])
        await settle()
        await house.tick(1_000)
    assert len(server.peers()) == 1
    await raw.send(whole[2:3])
    await settle()
    await house.tick(1_000)
    assert (await raw.read())[1]["error"] == "Incomplete"
    assert await raw.read() == (0, None)


@pytest.mark.requirement("B5", "I2.wire.6")
async def test_a_peer_that_never_reads_is_cut_and_does_not_grow_the_daemon(house: House) -> None:
    server = await house.start(PeerLimits(outbox_bytes=500_000, stall_ms=10_000))
    deaf, _ = await house.raw(), await house.client()
    await deaf.greet()
    await deaf.send(
        encode_message(
            "intent.control.v1", {"action": "subscribe", "pattern": "demo/*"}, msg_id=2, now_ms=NOW
        )
    )
    await deaf.read()
    for _ in range(300):
        house.bus.send(publisher_principal(server), "demo/x", GENERIC, b"x" * 10_000)
        await asyncio.sleep(0)
    info = next(info for info in server.peers() if info.client == "'raw'")
    assert info.queued_bytes <= 500_000
    assert house.bus.counters.dropped["backpressure_timeout"] > 0
    assert house.balanced
    await house.tick(10_000)
    await eventually(lambda: len(server.peers()) == 1)
    assert house.bus.queued == 0
    assert house.balanced


def publisher_principal(server: SocketServer) -> Any:
    return next(info.principal for info in server.peers() if info.principal.kind == "operator")


async def prepare_deaf(house: House, pattern: str) -> Raw:
    deaf = await house.raw()
    await deaf.greet()
    await deaf.send(
        encode_message("intent.control.v1", {"action": "subscribe", "pattern": pattern}, msg_id=2, now_ms=NOW)
    )
    await deaf.read()
    return deaf


@pytest.mark.requirement("B5")
async def test_a_flooding_publisher_is_not_read_any_more_and_others_are(house: House) -> None:
    server = await house.start(PeerLimits(outbox_bytes=200_000, stall_ms=10**9))
    deaf = await prepare_deaf(house, "demo/flood")
    greedy = await house.raw()
    await greedy.greet()
    sending = asyncio.create_task(greedy.send(flood(2_000, 1_000)))
    await eventually(lambda: any(not info.reading for info in server.peers() if info.client == "'raw'"))
    other = await house.client()
    house.bus.subscribe("rlp/ctrl", lambda delivery: house.bus.reply(delivery, "fine") and None)
    assert await other.call("status") == "fine"
    assert max(info.queued_bytes for info in server.peers()) <= 200_000
    assert not sending.done()
    got = 0
    while (
        got < 2_000 and house.bus.counters.dropped == {}
    ):  # the deaf one listens at last: all comes, in order
        schema, _ = await deaf.read()
        got += schema == 1
    assert got == 2_000
    await asyncio.wait_for(sending, 10)
    assert house.balanced


async def test_a_batched_publisher_waits_50_ms_and_is_told(house: House) -> None:
    await house.start(PeerLimits(outbox_bytes=50_000, stall_ms=10**9, owed_bytes=10**9))
    await prepare_deaf(house, "demo/flood")
    notices: list[Any] = []
    house.bus.subscribe("rlp/sys/drops", lambda delivery: notices.append(delivery.payload["reason"]))
    greedy = await house.raw()
    await greedy.greet()
    sending = asyncio.create_task(greedy.send(flood(1_500, 1_000)))
    await eventually(lambda: any(not info.reading for info in house.servers[0].peers()))
    assert house.bus.counters.dropped == {}
    await house.tick(49)
    assert house.bus.counters.dropped == {}
    await house.tick(1)
    schema, report = await greedy.read()
    assert (schema, report["error"]) == (10, "BackpressureTimeout")
    assert notices and set(notices) == {"backpressure_timeout"}
    assert house.balanced
    sending.cancel()


async def test_a_peer_that_asks_and_never_listens_is_not_read_any_more(house: House) -> None:
    server = await house.start(PeerLimits(stall_ms=10**9))
    raw = await house.raw()
    await raw.greet()
    pings = b"".join(
        encode_message("intent.control.v1", {"action": "ping"}, msg_id=n, now_ms=NOW)
        for n in range(2, 60_000)
    )
    sending = asyncio.create_task(raw.send(pings))
    await eventually(lambda: not server.peers()[0].reading or sending.done())
    assert not sending.done()
    sending.cancel()


async def test_a_slow_reader_is_not_a_dead_one(house: House) -> None:
    server = await house.start(PeerLimits(stall_ms=10_000))
    slow = await prepare_deaf(house, "demo/flood")
    for _ in range(60):
        house.bus.send(OPERATOR, "demo/flood", GENERIC, b"x" * 50_000, ttl_ms=10**9)
        await asyncio.sleep(0)
    assert house.bus.queued > 0
    for _ in range(4):
        for _ in range(5):
            await slow.read()
        await house.tick(6_000)
    assert house.bus.queued > 0
    assert len(server.peers()) == 1


async def test_frames_that_die_in_the_queue_are_not_delivered(house: House) -> None:
    await house.start(PeerLimits(stall_ms=10**9))
    deaf = await prepare_deaf(house, "demo/flood")
    client = await house.client()
    for number in range(800):
        house.bus.send(publisher_principal(house.servers[0]), "demo/flood", GENERIC, b"x" * 1_000, ttl_ms=500)
        if number % 50 == 0:
            await asyncio.sleep(0)
    queued = house.bus.queued
    assert queued > 0
    house.clock.advance(500)
    got = 0
    while house.bus.queued:
        await deaf.read()
        got += 1
    assert house.bus.counters.dropped == {"ttl_expired": queued}
    assert house.balanced
    client.close()


async def test_a_peer_with_too_many_open_requests_is_not_read_until_some_are_answered(house: House) -> None:
    server = await house.start(PeerLimits(open_requests=10))
    asked: list[Any] = []
    house.bus.subscribe("rlp/ctrl", asked.append)
    raw = await house.raw()
    greeting = await raw.greet()
    reply_to = greeting["result"]["reply_to"]

    def request(n: int) -> bytes:
        payload = {"id": str(n), "method": "m", "params": {}}
        meta = {"reply_to": reply_to}
        return encode_message(
            "intent.ctrl.request.v1", payload, msg_id=n, now_ms=NOW, topic="rlp/ctrl", meta=meta
        )

    await raw.send(b"".join(request(n) for n in range(2, 13)))
    await eventually(lambda: not server.peers()[0].reading)
    house.bus.reply(asked[0], {})
    assert server.peers()[0].reading
    await raw.send(request(20))
    await eventually(lambda: len(asked) == 12)
    assert not server.peers()[0].reading
    await house.tick(30_000)  # answers that never come do not hold it for ever
    assert server.peers()[0].reading


# --- session control ----------------------------------------------------------------------------------


@pytest.mark.requirement("I2.wire.3")
async def test_subscribe_deliver_unsubscribe(house: House) -> None:
    server = await house.start()
    listener, speaker = await house.client(None), await house.client()
    await listener.subscribe("demo/*")
    await listener.subscribe("demo/*")
    assert (await speaker.publish("demo/a", GENERIC, {"n": 1}, {"tags": ["t"]}, trace_id=7)).receivers == 1
    delivery = await listener.next_delivery(5)
    assert delivery is not None
    assert (delivery.topic, delivery.type, delivery.payload, delivery.trace_id) == (
        "demo/a",
        GENERIC,
        {"n": 1},
        7,
    )
    assert delivery.meta["tags"] == ["t"]
    await listener.unsubscribe("demo/*")
    assert (await speaker.publish("demo/a", GENERIC, 2)).receivers == 0
    assert await listener.next_delivery(0.01) is None
    assert all("demo/*" not in info.patterns for info in server.peers())


async def test_two_patterns_that_meet_one_topic_deliver_once(house: House) -> None:
    await house.start()
    client = await house.client()
    await client.subscribe("demo/*")
    await client.subscribe("demo/a")
    assert (await client.publish("demo/a", GENERIC, 1)).receivers == 1
    await client.unsubscribe("demo/*")
    assert (await client.publish("demo/a", GENERIC, 2)).receivers == 1


@pytest.mark.parametrize(
    ("pattern", "error"),
    [("agent/writer", RefusedError), ("rlp/ctrl", RefusedError), ("rlp/clients/x/reply", RefusedError)],
)
async def test_private_topics_cannot_be_subscribed(
    house: House, pattern: str, error: type[RunloopError]
) -> None:
    await house.start()
    peer = await house.client(None)
    with pytest.raises(error):
        await peer.subscribe(pattern)


async def test_a_wide_subscription_does_not_see_other_sessions_answers(house: House) -> None:
    await house.start()
    house.bus.subscribe("rlp/ctrl", lambda delivery: house.bus.reply(delivery, "secret") and None)
    spy, victim = await house.client(None), await house.client()
    await spy.subscribe("*")
    assert await victim.call("x") == "secret"
    house.bus.send(OPERATOR, "demo/mark", GENERIC, "end")
    delivery = await spy.next_delivery(5)
    assert delivery is not None and delivery.payload == "end"


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {"action": "dance"},
        {"action": "subscribe"},
        {"action": "subscribe", "pattern": "a b"},
    ],
)
async def test_a_control_frame_of_another_shape_is_answered_with_an_error(house: House, payload: Any) -> None:
    await house.start()
    raw = await house.raw()
    await raw.greet()
    await raw.send(encode_message("intent.control.v1", payload, msg_id=5, now_ms=NOW))
    schema, answer = await raw.read()
    assert (schema, answer["id"], answer["ok"], answer["error"]["family"]) == (2002, "5", False, "usage")


async def test_subscriptions_are_counted(house: House) -> None:
    await house.start()
    client = await house.client()
    for number in range(255):
        await client.subscribe(f"demo/{number}")
    with pytest.raises(RefusedError, match="256"):
        await client.subscribe("demo/more")


async def test_a_peer_that_leaves_leaves_nothing_behind(house: House) -> None:
    server = await house.start()
    client = await house.client()
    await client.subscribe("demo/*")
    client.close()
    await eventually(lambda: not server.peers())
    assert house.bus._receivers == {}
    assert house.bus._prefixes == {} and house.bus._exact == {}


async def test_an_operator_s_decision_is_answered_by_whoever_serves_it(house: House) -> None:
    await house.start()

    def decide(delivery: Any) -> None:
        house.bus.reply(delivery, {"by": delivery.principal.label})

    house.bus.subscribe("rlp/actions/decision", decide)
    operator, peer = await house.client(), await house.client(None)
    args = ("rlp/actions/decision", "toolresult.action.decision.v1", {"approval": "a"})
    assert await operator.request(*args) == {"by": f"operator:{os.geteuid()}"}
    with pytest.raises(RefusedError, match="only the owning user"):
        await peer.request(*args)


async def test_the_daemon_s_end_is_told_to_clients(house: House) -> None:
    server = await house.start()
    client = await house.client()
    await server.close()
    with pytest.raises(UnreachableError, match="closed the connection"):
        await client.call("x")


async def test_a_blocking_client_that_publishes_without_pause_is_answered(house: House) -> None:
    """Both sides write at once and neither may wait for the other to read first."""
    await house.start()
    house.clock.advance(10**15 // 1000)

    def work() -> int:
        with BlockingClient.connect(house.path, CREDENTIAL) as client:
            client._session._now_ms = house.clock.now_ms
            client.subscribe("demo/*")
            for _ in range(200):
                client._session.publish("demo/a", GENERIC, b"x" * 20_000, receipt=False)
            assert client.ping() > 0
            return sum(1 for _ in client.deliveries(0))

    assert await asyncio.to_thread(work) == 200


@pytest.mark.requirement("B4")
async def test_fuzzed_connections_never_stop_the_server(house: House) -> None:
    await house.start()
    rng = __import__("random").Random(7)
    good = await house.client()
    legal = encode_message(GENERIC, {"a": 1}, msg_id=2, now_ms=NOW, topic="demo/a", meta={"receipt": True})
    for _ in range(150):
        raw = await house.raw()
        await raw.greet()
        spoiled = bytearray(legal * 3)
        for _ in range(rng.randrange(1, 4)):
            spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
        await raw.send(bytes(spoiled[: rng.randrange(1, len(spoiled) + 1)]))
        raw.close()
    assert (await good.publish("demo/a", GENERIC, 1)).receivers == 0
    await eventually(lambda: len(house.servers[0].peers()) == 1)
    assert house.balanced


def test_peer_credentials_are_three_ints() -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        raw = left.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    assert struct.unpack("3i", raw)[1] == os.geteuid()


# --- strangers do not lock out the operator ---------------------------------------------------------------


def begun(size: int, sent: int) -> bytes:
    """The first ``sent`` bytes of a frame with a body of ``size`` bytes."""
    return encode_message(GENERIC, b"x" * size, msg_id=2, now_ms=NOW, topic="demo/a")[:sent]


@pytest.mark.requirement("B5")
async def test_connections_that_say_nothing_do_not_keep_the_operator_out(house: House) -> None:
    server = await house.start(PeerLimits(peers=16, strangers=8))
    idle = [await house.raw() for _ in range(40)]
    await settle()
    assert sum(not session.closing for session in server._sessions) <= 8
    assert [(await idle[0].read())[0], (await idle[0].read())[1]["error"]["code"]] == [101, "bus.peers"]
    operators = [await house.client() for _ in range(8)]
    assert {client.principal for client in operators} == {"operator"}
    assert (await operators[0].publish("demo/a", GENERIC, 1)).receivers == 0


async def test_whoever_holds_most_connections_gives_way_first(house: House) -> None:
    server = await house.start(PeerLimits(strangers=8))
    patient = await house.raw()
    script = (
        "import socket,sys\n"
        "held=[]\n"
        "for _ in range(40):\n"
        "    s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); held.append(s)\n"
        "print('done', flush=True); sys.stdin.read()\n"
    )
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    crowd = await asyncio.create_subprocess_exec(sys.executable, "-c", script, os.fspath(house.path), **pipes)
    try:
        assert crowd.stdout is not None
        assert await asyncio.wait_for(crowd.stdout.readline(), 20) == b"done\n"
        await eventually(lambda: house.bus.counters.refused.get("bus.peers", 0) >= 33)
        assert (await patient.greet())["result"]["principal"] == "peer"
    finally:
        crowd.kill()
        await crowd.wait()
    assert len(server.peers()) == 1


@pytest.mark.requirement("B5")
async def test_peers_leave_room_for_whoever_must_still_say_hello(house: House) -> None:
    server = await house.start(PeerLimits(strangers=8))
    peers = [await house.raw() for _ in range(6)]
    for peer in peers:
        assert (await peer.greet())["result"]["principal"] == "peer"
    late = await house.raw()
    assert (await late.greet())["error"]["code"] == "bus.peers"
    assert (await house.client()).principal == "operator"
    assert len(server.peers()) == 7  # nobody who was in had to leave


async def test_a_frame_before_the_hello_is_small_and_one_behind_it_may_be_large(house: House) -> None:
    await house.start()
    early = await house.raw()
    await early.read()
    await early.send(begun(5_000, 100))
    assert (await early.read())[1]["error"] == "BodyTooLarge"
    assert await early.read() == (0, None)

    raw = await house.raw()
    await raw.read()
    heard: list[Any] = []
    house.bus.subscribe("demo/a", lambda delivery: heard.append(delivery.payload))
    answer = {"protocol": 0, "build": __version__, "client": "raw", "proof": None}
    greeting = encode_message("observation.agent.hello.v1", answer, msg_id=1, now_ms=NOW)
    large = encode_message(GENERIC, b"x" * 100_000, msg_id=2, now_ms=NOW, topic="demo/a")
    await raw.send(greeting + large)
    await eventually(lambda: bool(heard))
    assert heard == [b"x" * 100_000]


@pytest.mark.requirement("B4")
async def test_begun_frames_of_all_peers_share_one_budget_and_the_greediest_is_cut(house: House) -> None:
    server = await house.start(PeerLimits(partial_bytes=100_000))
    modest, greedy, operator = await house.raw(), await house.raw(), await house.raw()
    for peer in (modest, greedy):
        await peer.greet()
    await operator.greet(proof=lambda nonce: hello.proof(CREDENTIAL, nonce))
    await operator.send(begun(300_000, 200_000))
    await greedy.send(begun(300_000, 70_000))
    await eventually(lambda: server._partial_bytes == 70_000)
    await modest.send(begun(45_000, 40_000))
    assert (await greedy.read())[1]["error"] == "RefusedError"
    assert await greedy.read() == (0, None)
    await eventually(lambda: server._partial_bytes == 40_000)
    await modest.send(begun(45_000, 50_000)[40_000:])  # finished: nothing is held for it any more
    await eventually(lambda: server._partial_bytes == 0)
    assert len(server.peers()) == 2


async def test_a_peer_that_is_cut_and_takes_nothing_more_is_gone_all_the_same(house: House) -> None:
    server = await house.start(PeerLimits(hello_ms=5_000))
    deaf = await prepare_deaf(house, "demo/flood")
    while not any(session._transport.get_write_buffer_size() for session in server._sessions):
        house.bus.send(OPERATOR, "demo/flood", GENERIC, b"x" * 20_000)
        await settle()
    await deaf.send(b"GET / HTTP/1.1\r\n\r\n")
    await eventually(lambda: any(session.closing for session in server._sessions))
    await house.tick(5_000)
    await eventually(lambda: not server._sessions)
