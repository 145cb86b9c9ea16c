"""The clients against a real server: answers, errors as they were, bounded waits, light imports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runloop import __version__
from runloop.client import AsyncClient, BlockingClient
from runloop.clock import SystemClock
from runloop.errors import (
    ConflictError,
    FailedError,
    NotFoundError,
    RefusedError,
    RunloopError,
    UnreachableError,
    UsageError,
)
from runloop.rmp.envelope import encode_message, open_frame
from runloop.rmp.frame import FrameReader
from runloop.rmp.session import ClientSession
from runloopd.bus.bus import Bus
from runloopd.bus.parts import Delivery
from runloopd.bus.principal import DAEMON
from runloopd.bus.socket import SocketServer

CREDENTIAL = b"c" * 32
GENERIC = "observation.generic.v1"


class Daemon(threading.Thread):
    """A bus on a loop of its own, with a few methods to call."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.stopped = asyncio.Event()

    def run(self) -> None:
        self.loop.run_until_complete(self.serve())
        self.loop.close()

    async def serve(self) -> None:
        clock = SystemClock()
        self.bus = Bus(clock)
        server = SocketServer(self.bus, self.path, credential=CREDENTIAL, build=__version__, clock=clock)
        self.bus.subscribe("rlp/ctrl", self.answer)
        await server.start()
        self.ready.set()
        await self.stopped.wait()
        await server.close()

    def answer(self, delivery: Delivery) -> None:
        method, params = delivery.payload["method"], delivery.payload["params"]
        if method == "echo":
            self.bus.reply(delivery, params)
        elif method == "refuse":
            self.bus.reply(
                delivery, error=ConflictError("taken", hint="look again", code="x.taken", version=3)
            )
        elif method == "tell":
            for number in range(params["times"]):
                self.bus.send(DAEMON, "demo/told", GENERIC, number)
            self.bus.reply(delivery, None)
        elif method == "leave":
            self.stopped.set()

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.stopped.set)
        self.join(10)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "run" / "rmp.sock")
    made.start()
    assert made.ready.wait(10)
    yield made
    made.stop()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[BlockingClient]:
    with BlockingClient.connect(daemon.path, CREDENTIAL) as made:
        yield made


def test_a_call_returns_what_the_daemon_answers(client: BlockingClient) -> None:
    assert client.principal == "operator"
    assert client.call("echo", {"a": [1, None, b"x", "ö"]}) == {"a": [1, None, b"x", "ö"]}
    assert client.call("echo") == {}


def test_a_large_answer_arrives_whole(client: BlockingClient) -> None:
    text = "x" * 3_000_000
    assert client.call("echo", {"text": text})["text"] == text


def test_an_error_of_the_daemon_is_raised_as_the_family_it_was(client: BlockingClient) -> None:
    with pytest.raises(ConflictError) as caught:
        client.call("refuse")
    error = caught.value
    assert (error.message, error.hint, error.named_code, error.data) == (
        "taken",
        "look again",
        "x.taken",
        {"version": 3},
    )


def test_deliveries_that_come_while_an_answer_is_awaited_are_kept_in_order(client: BlockingClient) -> None:
    client.subscribe("demo/*")
    client.call("tell", {"times": 50})
    client.call("echo")
    assert [delivery.payload for delivery in client.deliveries(0.2)] == list(range(50))


def test_a_receipt_counts_receivers(client: BlockingClient, daemon: Daemon) -> None:
    with BlockingClient.connect(daemon.path) as other:
        other.subscribe("demo/a")
        assert client.publish("demo/a", GENERIC, 1, {"tags": ["t"]}, trace_id=9).receivers == 1
        delivery = other.next_delivery(5)
        assert delivery is not None
        assert (delivery.payload, delivery.meta["tags"], delivery.trace_id) == (1, ["t"], 9)
        other.unsubscribe("demo/a")
    assert client.publish("demo/a", GENERIC, 1).receivers == 0


@pytest.mark.requirement("I4.clients.6")
def test_publishes_without_receipts_arrive_in_order_and_refusals_are_told_with_their_ids(
    client: BlockingClient, daemon: Daemon
) -> None:
    with BlockingClient.connect(daemon.path) as other:
        other.subscribe("demo/*")
        for number in range(3_000):
            assert client.publish("demo/a", GENERIC, number, receipt=False).receivers == -1
        refused = client.publish("agent/writer", GENERIC, "x", receipt=False)
        large = client.publish("demo/b", GENERIC, b"x" * 70_000, {"tags": ["t"]}, receipt=False)
        (refusal,) = client.flush()
        assert isinstance(refusal, RefusedError)
        assert refusal.data["msg_id"] == refused.msg_id
        assert client.flush() == []
        heard = [other.next_delivery(5) for _ in range(3_001)]
        assert [one and one.payload for one in heard[:-1]] == list(range(3_000))
        assert heard[-1] is not None
        assert (heard[-1].msg_id, heard[-1].meta["tags"]) == (large.msg_id, ["t"])
        other.unsubscribe("demo/*")
    assert client.publish("demo/a", GENERIC, 1).receivers == 0


def test_what_is_wrong_with_a_publish_is_raised_at_once_and_uses_up_no_id(client: BlockingClient) -> None:
    before = client.publish("demo/a", GENERIC, 1, receipt=False)
    for topic, kind, payload in (
        ("no topic", GENERIC, 1),
        ("demo/a", "no.such.v1", 1),
        ("demo/a", GENERIC, object()),
        ("demo/a", GENERIC, "\ud800"),
        ("demo/a", GENERIC, 2**64),
        ("demo/a", GENERIC, deep(64)),
    ):
        with pytest.raises(UsageError):
            client.publish(topic, kind, payload, receipt=False)
    assert client.publish("demo/a", GENERIC, deep(63), receipt=False).msg_id == before.msg_id + 1
    assert client.flush() == []


def deep(levels: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(levels - 1):
        made = [made]
    return made


def test_without_receipts_a_daemon_that_takes_nothing_is_waited_for_to_the_bound(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp_path / "s"))
        listener.listen()
        welcome = {"id": "hello", "ok": True, "result": {"principal": "peer", "session": "s1"}}
        hello = {"protocol": 0, "build": __version__, "session": "s1", "nonce": bytes(32)}
        accepted: list[socket.socket] = []

        def serve() -> None:
            accepted.append(listener.accept()[0])
            accepted[0].sendall(
                encode_message("observation.runtime.hello.v1", hello, msg_id=1, now_ms=1) + say(welcome)
            )

        thread = threading.Thread(target=serve)
        thread.start()
        client = BlockingClient.connect(tmp_path / "s")
        thread.join(10)
        with pytest.raises(UnreachableError, match="did not take"):
            for _ in range(1_000):
                client.publish("demo/a", GENERIC, b"x" * 30_000, receipt=False, timeout_s=0.05)
        assert len(client._session.outgoing) < 200_000
        accepted[0].close()
        with pytest.raises(UnreachableError, match="closed"):
            for _ in range(1_000):
                client.publish("demo/a", GENERIC, b"x" * 30_000, receipt=False, timeout_s=0.05)
        client.close()


@pytest.mark.requirement("I4.clients.6")
async def test_the_asyncio_client_publishes_without_receipts_and_writes_once_per_turn(daemon: Daemon) -> None:
    async with (
        await AsyncClient.connect(daemon.path, CREDENTIAL) as client,
        await AsyncClient.connect(daemon.path) as other,
    ):
        await other.subscribe("demo/*")
        for number in range(40):
            await client.publish("demo/a", GENERIC, number, receipt=False)
        assert client._session.outgoing, "nothing is written before the turn of the loop ends"
        heard = [await other.next_delivery(5) for _ in range(40)]
        assert [one and one.payload for one in heard] == list(range(40))
        for number in range(3_000):
            await client.publish("demo/b", GENERIC, b"%d" % number * 100, receipt=False)
            assert len(client._session.outgoing) < 40_000
        refused = await client.publish("agent/writer", GENERIC, "x", receipt=False)
        (refusal,) = await client.flush()
        assert (type(refusal), refusal.data["msg_id"]) == (RefusedError, refused.msg_id)
        heard = [await other.next_delivery(5) for _ in range(3_000)]
        assert [one and one.payload for one in heard] == [b"%d" % number * 100 for number in range(3_000)]


def test_a_wait_ends_at_its_bound(client: BlockingClient) -> None:
    with pytest.raises(UnreachableError, match=r"no answer to sleep within 0\.05 s"):
        client.call("sleep", timeout_s=0.05)
    assert client.next_delivery(0.01) is None
    assert client.call("echo", {"still": "here"}) == {"still": "here"}


def test_a_refused_publish_or_subscription_raises(client: BlockingClient) -> None:
    with pytest.raises(RefusedError):
        client.publish("agent/writer", GENERIC, 1)
    with pytest.raises(RefusedError):
        client.subscribe("rlp/ctrl")
    with pytest.raises(UsageError):
        client.publish("no topic", GENERIC, 1)
    with pytest.raises(UsageError):
        client.subscribe("a/*/b")
    with pytest.raises(UsageError):
        client.publish("demo/a", "intent.unregistered.v1", 1)
    assert client.ping() > 0


def test_nobody_there_is_said_with_the_next_thing_to_type(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError) as caught:
        BlockingClient.connect(tmp_path / "nothing.sock")
    assert "rlp daemon start" in str(caught.value.hint)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(tmp_path / "dead.sock"))
    with pytest.raises(UnreachableError):
        BlockingClient.connect(tmp_path / "dead.sock")
    with pytest.raises(UnreachableError):
        BlockingClient.connect(tmp_path / ("x" * 200))


def test_a_server_that_stays_silent_is_not_waited_for_beyond_the_bound(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(os.fspath(tmp_path / "s"))
        silent.listen()
        with pytest.raises(UnreachableError, match="did not say hello"):
            BlockingClient.connect(tmp_path / "s", timeout_s=0.05)


def test_a_server_of_another_protocol_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp_path / "s"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            connection.sendall(
                b"220 mail.example ESMTP ready, and more bytes to fill a whole header........."
            )
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(UsageError) as caught:
            BlockingClient.connect(tmp_path / "s")
        thread.join(10)
    assert caught.value.named_code.startswith("wire.")


def test_a_daemon_that_goes_away_is_reported(client: BlockingClient) -> None:
    with pytest.raises(UnreachableError, match="closed the connection"):
        client.call("leave")
    with pytest.raises(UnreachableError):
        client.call("echo")


async def test_the_asyncio_client_does_the_same(daemon: Daemon) -> None:
    async with await AsyncClient.connect(daemon.path, CREDENTIAL) as client:
        assert client.principal == "operator"
        assert await client.call("echo", {"a": 1}) == {"a": 1}
        with pytest.raises(ConflictError):
            await client.call("refuse")
        await client.subscribe("demo/*")
        answers = await asyncio.gather(*(client.call("echo", {"n": n}) for n in range(20)))
        assert answers == [{"n": n} for n in range(20)]
        await client.call("tell", {"times": 5})
        assert [delivery.payload async for delivery in client.deliveries(0.2)] == list(range(5))
        with pytest.raises(UnreachableError, match="within"):
            await client.call("sleep", timeout_s=0.05)
        with pytest.raises(UnreachableError, match="closed"):
            await client.call("leave")
        with pytest.raises(UnreachableError, match="closed"):
            await client.next_delivery(1)


async def test_the_asyncio_client_says_when_nobody_is_there(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError):
        await AsyncClient.connect(tmp_path / "nothing")


def test_importing_the_client_costs_neither_asyncio_nor_msgspec() -> None:
    heavy = ("asyncio", "msgspec", "typer", "orjson", "dataclasses")
    code = f"import sys, runloop.client; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip() == "[]"


# --- the session without a socket ----------------------------------------------------------------------


def greeted() -> ClientSession:
    session = ClientSession(credential=None, now_ms=lambda: 1)
    hello = {"protocol": 0, "build": __version__, "session": "s1", "nonce": bytes(32)}
    session.feed(encode_message("observation.runtime.hello.v1", hello, msg_id=1, now_ms=1))
    welcome = {"id": "hello", "ok": True, "result": {"principal": "peer", "session": "s1"}}
    session.feed(say(welcome))
    assert session.ready
    session.outgoing.clear()
    return session


def say(
    payload: Any, type: str = "toolresult.ctrl.response.v1", topic: str = "rlp/clients/s1/reply"
) -> bytes:
    return encode_message(type, payload, msg_id=2, now_ms=1, topic=topic)


def test_an_answer_nobody_awaits_is_not_kept() -> None:
    session = greeted()
    session.feed(say({"id": "99", "ok": True, "result": 1}))
    assert session._answers == {}
    ident = session.call("m", {})
    session.give_up(ident)
    session.feed(say({"id": ident, "ok": True, "result": 1}))
    assert session._answers == {}


@pytest.mark.requirement("I4.clients.6")
def test_what_was_published_without_receipts_and_lost_is_told_as_a_number() -> None:
    session = greeted()
    for number in range(3):
        session.publish("demo/a", GENERIC, number, receipt=False)
    read = session.all_read()
    for number in range(2):
        session.publish("demo/a", GENERIC, number, receipt=False)
    session.feed(say({"id": read, "ok": True, "result": {"now_ms": 1}}))
    session.disconnected()
    session.disconnected()
    (told,) = session.take_refusals()
    assert (told.named_code, told.data) == ("client.lost", {"messages": 2})


def test_a_durable_publish_has_a_receipt_even_when_none_is_wanted() -> None:
    session = greeted()
    ident, _ = session.publish("durable/a", GENERIC, 1, receipt=False, durable=True)
    assert ident
    (frame,) = FrameReader().feed(bytes(session.outgoing))
    assert open_frame(frame).meta == {"topic": "durable/a", "receipt": True}


def test_a_standing_subscription_that_a_closing_daemon_refuses_is_asked_of_the_next_one() -> None:
    session = greeted()
    ident = session.control("subscribe", "demo/*")
    session.feed(say({"id": ident, "ok": True, "result": {}}))
    for name in ("s2", "s3"):
        session.disconnected()
        hello = {"protocol": 0, "build": __version__, "session": name, "nonce": bytes(32)}
        session.feed(encode_message("observation.runtime.hello.v1", hello, msg_id=1, now_ms=1))
        session.outgoing.clear()
        welcome = {"id": "hello", "ok": True, "result": {"principal": "peer", "session": name}}
        session.feed(say(welcome, topic=session.reply_topic))
        (frame,) = FrameReader().feed(bytes(session.outgoing))
        asked = open_frame(frame).payload
        assert (asked["action"], asked["pattern"]) == ("subscribe", "demo/*")
        closing = UnreachableError("going", code="bus.closing").to_wire()
        answer = {"id": asked["id"], "ok": False, "error": closing}
        session.feed(say(answer, topic=session.reply_topic))
    refused = {"id": asked["id"], "ok": False, "error": RefusedError("no").to_wire()}
    with pytest.raises(RefusedError):
        session.feed(say(refused, topic=session.reply_topic))


def test_an_answer_on_another_topic_is_a_delivery_and_answers_nothing() -> None:
    session = greeted()
    ident = session.call("m", {})
    session.feed(say({"id": ident, "ok": True, "result": "forged"}, topic="demo/a"))
    with pytest.raises(KeyError):
        session.answer(ident)
    assert session.deliveries.popleft().topic == "demo/a"


def test_a_schema_newer_than_this_build_is_passed_over() -> None:
    session = greeted()
    future = bytearray(say({}, GENERIC, "demo/a"))
    future[16:18] = (4999).to_bytes(2, "big")
    session.feed(bytes(future) + say({}, GENERIC, "demo/b"))
    assert [delivery.topic for delivery in session.deliveries] == ["demo/b"]


def test_deliveries_nobody_takes_end_in_an_error_and_not_in_the_memory() -> None:
    session = greeted()
    session.deliveries.extend([None] * 65_536)  # type: ignore[list-item]
    with pytest.raises(FailedError, match="nobody takes them"):
        session.feed(say(1, GENERIC, "demo/a"))


def test_the_reason_of_a_closed_connection_is_kept() -> None:
    session = greeted()
    session.feed(say({"error": "Incomplete", "message": "too slow", "hint": "be quick"}, "error.report.v1"))
    lost = session.lost()
    assert ("too slow" in lost.message, lost.hint) == (True, "be quick")


def test_a_report_about_a_question_is_its_answer() -> None:
    session = greeted()
    ident = session.request("demo/a", GENERIC, 1)
    wire = NotFoundError("nothing").to_wire()
    report = {
        "error": "NotFoundError",
        "message": "nothing",
        "hint": None,
        "msg_id": int(ident),
        "wire": wire,
    }
    session.feed(say(report, "error.report.v1"))
    with pytest.raises(NotFoundError):
        session.answer(ident)


@pytest.mark.parametrize("payload", [None, {}, {"nonce": "text"}])
def test_a_hello_without_a_nonce_is_refused(payload: Any) -> None:
    session = ClientSession(credential=None, now_ms=lambda: 1)
    with pytest.raises(RunloopError):
        session.feed(encode_message("observation.runtime.hello.v1", payload, msg_id=1, now_ms=1))
