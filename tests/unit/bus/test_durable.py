"""Durable topics on a real ledger: recorded first, delivered in order, at least once, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pog.errors import LedgerWriteError
from runloop.client import AsyncClient, Delivery
from runloop.errors import ConflictError, NotFoundError, RefusedError, RunloopError, UsageError
from runloop.events import TopicPublished
from runloop.rmp.envelope import decode_envelope, encode_envelope, encode_message, schema_id
from runloop.rmp.frame import Expired, encode_frame
from runloop.rmp.session import ClientSession
from runloopd.bus.durable import DELIVERY_TTL_MS, OVERHEAD, STAMP_ROOM, DurableFull, Kept, frame_of

from .ledger_house import CREDENTIAL, LedgerHouse
from .support import GENERIC, NOW
from .test_socket import Raw, eventually, settle

pytestmark = pytest.mark.requirement("I4.semantics.1")

TOPIC = "durable/one"
Client = Callable[..., Awaitable[AsyncClient]]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[LedgerHouse]:
    made = await LedgerHouse(tmp_path).start()
    yield made
    await made.stop()


@pytest.fixture
async def client(house: LedgerHouse) -> AsyncIterator[Client]:
    opened: list[AsyncClient] = []

    async def connect(credential: bytes | None = CREDENTIAL, **more: Any) -> AsyncClient:
        made = await AsyncClient.connect(house.path, credential, **more)
        made._session._now_ms = house.clock.now_ms
        opened.append(made)
        return made

    yield connect
    for one in opened:
        one.close()


async def taken(client: AsyncClient, count: int, *, ack: bool = True) -> list[Delivery]:
    found = []
    for _ in range(count):
        delivery = await client.next_delivery(10)
        assert delivery is not None
        if ack:
            client.ack(delivery)
        found.append(delivery)
    return found


async def test_a_receipt_comes_when_the_message_is_in_the_ledger_and_names_its_place(
    house: LedgerHouse, client: Client
) -> None:
    publisher = await client()
    receipt = await publisher.publish(TOPIC, GENERIC, {"n": 1}, {"tags": ["t"]}, trace_id=7, durable=True)
    event = house.reader.event(receipt.seq)
    payload = event.payload
    assert isinstance(payload, TopicPublished)
    assert (payload.topic, payload.publisher, payload.trace_id) == (TOPIC, publisher_label(), f"{7:032x}")
    assert (receipt.receivers, receipt.duplicate, event.actor) == (0, False, publisher_label())
    assert house.reader.blob(payload.body_blob) == encode_envelope(
        GENERIC, {"n": 1}, {"topic": TOPIC, "tags": ["t"], "receipt": True}
    )


def publisher_label() -> str:
    import os

    return f"operator:{os.geteuid()}"


async def test_a_consumer_gets_everything_in_order_with_the_daemons_stamps(client: Client) -> None:
    publisher, consumer = await client(), await client()
    for number in range(3):
        await publisher.publish(TOPIC, GENERIC, number, durable=True)
    await consumer.consume("c", "durable/*")
    for number in range(3, 6):
        await publisher.publish("durable/two/deep", GENERIC, number, durable=True)
    found = await taken(consumer, 6)
    assert [one.payload for one in found] == list(range(6))
    assert [one.seq for one in found] == sorted({one.seq for one in found})
    assert {(one.consumer, one.publisher) for one in found} == {("c", publisher_label())}
    assert [one.topic for one in found] == [TOPIC] * 3 + ["durable/two/deep"] * 3


async def test_what_was_not_acknowledged_comes_again_to_the_next_session(
    house: LedgerHouse, client: Client
) -> None:
    publisher, first = await client(), await client()
    await first.consume("c", "durable/*")
    for number in range(5):
        await publisher.publish(TOPIC, GENERIC, number, durable=True)
    found = await taken(first, 5, ack=False)
    first.ack(found[1])
    await first.ping()
    first.close()
    await eventually(lambda: house.server.peers().__len__() == 1)
    second = await client()
    await second.consume("c", "durable/*")
    assert [one.payload for one in await taken(second, 3)] == [2, 3, 4]


@pytest.mark.parametrize("crash", [False, True])
async def test_a_restart_of_the_daemon_loses_no_message_and_no_stated_position(
    house: LedgerHouse, client: Client, crash: bool
) -> None:
    publisher, consumer = await client(), await client()
    await consumer.consume("c", "durable/*")
    for number in range(4):
        await publisher.publish(TOPIC, GENERIC, number, durable=True)
    for delivery in (await taken(consumer, 4, ack=False))[:2]:
        consumer.ack(delivery)
    await consumer.ping()
    if crash:  # the position is stated in its time; later acknowledgements are not
        await settle()
        house.clock.advance(house.limits.state_ms)  # type: ignore[attr-defined]
        await eventually(lambda: next(iter(house.consumers._consumers.values())).stated > 0)
    await house.stop(crash=crash)
    await house.start()
    again, publisher = await client(), await client()
    await again.consume("c", "durable/*")
    assert [one.payload for one in await taken(again, 2)] == [2, 3]
    await settle()  # it has read the disk to its end; what comes now it hears of from memory
    await publisher.publish(TOPIC, GENERIC, 4, durable=True)
    assert [one.payload for one in await taken(again, 1)] == [4]


async def test_a_message_sent_again_by_the_same_program_is_recorded_once_even_after_a_restart(
    house: LedgerHouse, client: Client
) -> None:
    secret = b"i" * 32
    first = await client(instance=secret)
    receipt = await first.publish(TOPIC, GENERIC, 1, durable=True)
    first.close()
    for restart in (False, True):
        if restart:
            await house.stop()
            await house.start()
        again = await client(instance=secret)
        again._session._msg_id = receipt.msg_id - 1
        repeated = await again.publish(TOPIC, GENERIC, 1, durable=True)
        assert (repeated.seq, repeated.duplicate) == (receipt.seq, True)
    other = await client(instance=b"o" * 32)
    other._session._msg_id = receipt.msg_id - 1
    assert not (await other.publish(TOPIC, GENERIC, 1, durable=True)).duplicate
    assert len(house.published()) == 2


async def test_a_message_twice_in_one_read_is_recorded_once(house: LedgerHouse, client: Client) -> None:
    publisher = await client()
    frame = encode_message(GENERIC, 1, msg_id=500, now_ms=NOW, topic=TOPIC, meta={"receipt": True})
    assert publisher._transport is not None
    publisher._transport.write(frame * 3)
    await eventually(lambda: house.durable.duplicates == 2)
    assert len(house.published()) == 1


async def test_a_peer_cannot_speak_in_an_operators_name_even_with_its_secret(
    house: LedgerHouse, client: Client
) -> None:
    from runloop.rmp import hello

    assert hello.instance("peer:0", b"s" * 32, b"") != hello.instance("operator:0", b"s" * 32, b"")
    peer = await client(None)
    with pytest.raises(RefusedError, match="written into the ledger"):
        await peer.publish(TOPIC, GENERIC, 1)
    with pytest.raises(RefusedError):
        await peer.consume("c", "durable/*")
    assert house.published() == []


async def test_an_unwritable_ledger_is_a_refusal_and_nobody_is_told(
    house: LedgerHouse, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, listener, consumer = await client(), await client(), await client()
    await listener.subscribe("durable/*")
    await consumer.consume("c", "durable/*")

    def full(*_: Any) -> Any:
        raise LedgerWriteError("the disk is full", hint="free space")

    with monkeypatch.context() as broken:
        broken.setattr(house.journal._ledger, "commit", full)
        with pytest.raises(LedgerWriteError.__mro__[1], match="the disk is full"):
            await publisher.publish(TOPIC, GENERIC, "lost", durable=True)
    receipt = await publisher.publish(TOPIC, GENERIC, "kept", durable=True)
    assert receipt.receivers == 2
    for one in (listener, consumer):
        delivery = await one.next_delivery(10)
        assert delivery is not None
        assert (delivery.payload, delivery.seq) == ("kept", receipt.seq)
    assert house.durable.usage()[publisher_label()] < 2 * OVERHEAD + 200


async def test_a_frame_that_dies_before_the_ledger_took_it_is_refused(
    house: LedgerHouse, client: Client
) -> None:
    publisher = await client()
    with pytest.raises(RunloopError) as caught:
        publisher._session._now_ms = lambda: NOW - 100
        await publisher.publish(TOPIC, GENERIC, 1, ttl_ms=100)
    assert caught.value.named_code == Expired("").named_code
    assert house.published() == []


async def test_a_publisher_may_keep_so_many_bytes_and_no_more(tmp_path: Path) -> None:
    house = await LedgerHouse(tmp_path, publisher_bytes=3 * OVERHEAD).start()
    publisher = await AsyncClient.connect(house.path, CREDENTIAL)
    publisher._session._now_ms = house.clock.now_ms
    await publisher.publish(TOPIC, GENERIC, 1, durable=True)
    await publisher.publish(TOPIC, GENERIC, 2, durable=True)
    for _ in range(3):
        with pytest.raises(RefusedError) as caught:
            await publisher.publish(TOPIC, GENERIC, 3, durable=True)
        assert caught.value.named_code == DurableFull.code
    publisher.close()
    await house.stop()
    await house.start()  # a restart is no way around it
    publisher = await AsyncClient.connect(house.path, CREDENTIAL)
    publisher._session._now_ms = house.clock.now_ms
    with pytest.raises(RefusedError):
        await publisher.publish(TOPIC, GENERIC, 3, durable=True)
    assert len(house.published()) == 2
    publisher.close()
    await house.stop()


async def test_a_consumer_that_acknowledges_nothing_gets_one_window_and_then_nothing(tmp_path: Path) -> None:
    house = await LedgerHouse(tmp_path, window=4).start()
    publisher = await AsyncClient.connect(house.path, CREDENTIAL)
    consumer = await AsyncClient.connect(house.path, CREDENTIAL)
    for one in (publisher, consumer):
        one._session._now_ms = house.clock.now_ms
    await consumer.consume("c", "durable/*")
    for number in range(11):
        await publisher.publish(TOPIC, GENERIC, number, durable=True)
    for start in (0, 4, 8):
        found = await taken(consumer, min(4, 11 - start), ack=False)
        assert [one.payload for one in found] == list(range(start, min(start + 4, 11)))
        await settle()
        assert not consumer._session.deliveries
        assert house.balanced
        consumer.ack(found[-1])
    publisher.close()
    consumer.close()
    await house.stop()


async def test_what_the_window_does_not_hold_stays_on_the_disk(
    house: LedgerHouse, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon keeps a bounded tail in memory; a consumer that is far behind reads the ledger."""
    monkeypatch.setattr("runloopd.bus.durable._RECENT", 8)
    publisher, consumer = await client(), await client()
    sent = [publisher.publish(TOPIC, GENERIC, number, durable=True) for number in range(300)]
    await asyncio.gather(*sent)
    assert len(house.durable.recent._kept) == 8
    await consumer.consume("c", "durable/*")
    assert [one.payload for one in await taken(consumer, 300)] == list(range(300))


async def test_stamps_of_the_daemon_are_refused_from_anybody_else(house: LedgerHouse, client: Client) -> None:
    publisher = await client()
    for topic in (TOPIC, "demo/one"):
        for key, value in (("publisher", "operator:0"), ("seq", 10**9), ("consumer", "c")):
            with pytest.raises(UsageError, match="the daemon alone sets"):
                await publisher.publish(topic, GENERIC, 1, {key: value})
    assert house.published() == []


async def test_the_payload_is_delivered_byte_for_byte(house: LedgerHouse, client: Client) -> None:
    """A reader that decodes and encodes would write 1 in one byte."""
    consumer, publisher = await client(), await client()
    await consumer.consume("c", "durable/*")
    long_one = b"\xd3" + (1).to_bytes(8, "big")
    body = encode_envelope(GENERIC, 1, {"topic": TOPIC}).replace(b"payload\x01", b"payload" + long_one)
    assert publisher._transport is not None
    publisher._transport.write(encode_frame(schema_id=1, body=body, created_at_ms=NOW, msg_id=900))
    frames: list[bytes] = []
    monitor = ClientSession._take

    def watch(self: ClientSession, header: Any, body: bytes) -> None:
        frames.append(body)
        assert header[7] == DELIVERY_TTL_MS
        monitor(self, header, body)

    consumer._session._take = watch.__get__(consumer._session)  # type: ignore[method-assign]
    await taken(consumer, 1)
    assert long_one in frames[0]


@pytest.mark.requirement("I4.clients.5")
async def test_a_name_belongs_to_its_owner_and_one_session_holds_it_at_a_time(
    house: LedgerHouse, client: Client
) -> None:
    publisher, first, second = await client(), await client(), await client()
    await first.consume("c", "durable/*")
    with pytest.raises(ConflictError, match="the consumer c reads"):
        await second.consume("c", "durable/one")
    await publisher.publish(TOPIC, GENERIC, 0, durable=True)
    await eventually(lambda: bool(first._session.deliveries))
    waiting = asyncio.ensure_future(taken(first, 2, ack=False))
    await second.consume("c", "durable/*")
    with pytest.raises(ConflictError, match="another session took up") as caught:
        await waiting
    assert (caught.value.named_code, caught.value.data) == ("bus.consumer_taken", {"consumer": "c"})
    await publisher.publish(TOPIC, GENERIC, 1, durable=True)
    assert [one.payload for one in await taken(second, 2)] == [0, 1]
    assert await first.next_delivery(0.05) is None, "it is said once"


async def test_a_consumer_that_the_daemon_cannot_go_on_with_ends_and_says_so(
    house: LedgerHouse, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> bool:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(house.consumers, "_send_some", broken)
    consumer = await client()
    await consumer.consume("c", "durable/*")
    with pytest.raises(RunloopError, match="cannot go on") as caught:
        await consumer.next_delivery(10)
    assert (caught.value.named_code, caught.value.data) == ("bus.consumer_failed", {"consumer": "c"})


async def test_an_acknowledgement_of_what_was_never_delivered_is_refused(client: Client) -> None:
    consumer = await client()
    with pytest.raises(NotFoundError):
        await consumer._answer(consumer._session._control({"action": "ack", "durable": "c", "seq": 1}), 5, "")
    await consumer.consume("c", "durable/*")
    for seq in (10**6, -1, "1", None, True):
        with pytest.raises(UsageError):
            ident = consumer._session._control({"action": "ack", "durable": "c", "seq": seq})
            await consumer._answer(ident, 5, "")


async def test_only_what_is_wholly_durable_can_be_consumed(client: Client) -> None:
    consumer = await client()
    for pattern in ("*", "demo/*", "durable", "durablex/*"):
        with pytest.raises(UsageError, match="is not durable"):
            await consumer.consume("c", pattern)
    for name in ("", "a b", "x" * 65, "a/b"):
        with pytest.raises(UsageError, match="has a name"):
            await consumer.consume(name, "durable/*")


async def test_a_consumer_that_starts_at_the_next_message_sees_nothing_older(client: Client) -> None:
    publisher, consumer = await client(), await client()
    await publisher.publish(TOPIC, GENERIC, "old", durable=True)
    await consumer.consume("c", "durable/*", start="next")
    await publisher.publish(TOPIC, GENERIC, "new", durable=True)
    assert [one.payload for one in await taken(consumer, 1)] == ["new"]


async def test_a_consumer_that_is_forgotten_begins_anew(house: LedgerHouse, client: Client) -> None:
    publisher, consumer = await client(), await client()
    await publisher.publish(TOPIC, GENERIC, 1, durable=True)
    await consumer.consume("c", "durable/*")
    await taken(consumer, 1)
    await consumer.leave("c", forget=True)
    assert house.consumers.shown() == []
    with pytest.raises(NotFoundError):
        await consumer.leave("c")
    await consumer.consume("c", "durable/*")
    assert [one.payload for one in await taken(consumer, 1)] == [1]


async def test_consumers_of_one_owner_are_counted(tmp_path: Path) -> None:
    house = await LedgerHouse(tmp_path, consumers=2).start()
    client = await AsyncClient.connect(house.path, CREDENTIAL)
    for name in "ab":
        await client.consume(name, "durable/*")
    with pytest.raises(RefusedError, match="2 durable consumers already"):
        await client.consume("c", "durable/*")
    await client.leave("a", forget=True)
    await client.consume("c", "durable/*")
    client.close()
    await house.stop()


async def test_a_consumer_that_does_not_read_holds_one_window_and_is_served_when_it_reads(
    house: LedgerHouse, client: Client
) -> None:
    publisher = await client()
    raw = await raw_operator(house)
    await raw.send(
        encode_message(
            "intent.control.v1",
            {"id": "s", "action": "subscribe", "durable": "slow", "pattern": "durable/*"},
            msg_id=2,
            now_ms=NOW,
        )
    )
    assert (await raw.read())[1]["ok"]
    big = b"x" * 300_000
    for _ in range(20):
        await publisher.publish(TOPIC, GENERIC, big, durable=True)
    await settle()
    (shown,) = house.consumers.shown()
    assert shown["unacknowledged"] * len(big) <= house.limits.window_bytes + len(big)
    assert (await publisher.publish("demo/one", GENERIC, 1)).receivers == 0
    await publisher.ping()
    assert house.balanced
    for _ in range(shown["unacknowledged"]):
        number, payload = await raw.read()
        assert (number, len(payload)) == (1, len(big))
    raw.close()


async def raw_operator(house: LedgerHouse) -> Raw:
    import os
    import socket

    from runloop.rmp import hello

    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, os.fspath(house.path))
    raw = Raw(sock)
    await raw.greet(proof=lambda nonce: hello.proof(CREDENTIAL, nonce))
    return raw


async def test_positions_are_stated_now_and_then_and_not_per_acknowledgement(
    house: LedgerHouse, client: Client
) -> None:
    publisher, consumer = await client(), await client()
    await consumer.consume("c", "durable/*")
    for number in range(50):
        await publisher.publish(TOPIC, GENERIC, number, durable=True)
    await taken(consumer, 50)
    await consumer.ping()
    stated = lambda: len(list(house.reader.events(kinds=("consumer.advanced",))))  # noqa: E731
    assert stated() == 1  # that it exists
    house.clock.advance(house.limits.state_ms)  # type: ignore[attr-defined]
    await eventually(lambda: stated() == 2)


async def test_the_daemons_own_code_cannot_slip_past_the_ledger(house: LedgerHouse) -> None:
    from runloopd.bus.principal import DAEMON

    with pytest.raises(UsageError, match="recorded first"):
        house.bus.send(DAEMON, TOPIC, GENERIC, 1)


@pytest.mark.parametrize("text", ["*", "agent/*", "rlp/x", "a/*/b", "durable/* rlp/*"])
def test_topics_of_the_system_are_never_durable(text: str) -> None:
    from runloop.rmp.topics import durable_patterns

    with pytest.raises(UsageError):
        durable_patterns(text)


async def test_a_receipt_for_somebody_who_left_is_written_to_nobody(
    house: LedgerHouse, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection's transport is dead before the ledger has its message: uvloop raises on such a write."""
    publisher = await client()
    (session,) = house.server._sessions
    held, append = asyncio.Event(), house.journal.append

    async def late(*drafts: Any, **more: Any) -> Any:
        await held.wait()
        return await append(*drafts, **more)

    monkeypatch.setattr(house.journal, "append", late)
    frame = encode_message(GENERIC, 1, msg_id=500, now_ms=NOW, topic=TOPIC, meta={"receipt": True})
    assert publisher._transport is not None
    publisher._transport.write(frame)
    await eventually(lambda: house.durable._working is not None)
    publisher.close()
    await eventually(lambda: not house.server._sessions)
    held.set()
    await eventually(lambda: house.durable.stored == 1)
    await settle()
    assert (session._pending, session in house.server._dirty) == ([], False)
    assert session._owed == 0


async def test_a_meta_that_cannot_be_stamped_is_refused_and_keeps_nobody_from_his_messages(
    house: LedgerHouse, client: Client
) -> None:
    consumer = await client()
    await consumer.consume("c", "durable/*")
    raw = await raw_operator(house)
    meta = {"topic": TOPIC, "receipt": True}
    bodies = [encode_envelope(GENERIC, n, {**meta, **more}) for n, more in enumerate(({}, {7: "x"}, {}))]
    for number, body in enumerate(bodies, 2):
        await raw.send(
            encode_frame(schema_id=schema_id(GENERIC), body=body, created_at_ms=NOW, msg_id=number)
        )
    answers = {int(answer["id"]): answer for answer in [(await raw.read())[1] for _ in bodies]}
    assert [answers[number]["ok"] for number in (2, 3, 4)] == [True, False, True]
    assert answers[3]["error"]["code"] == "bus.meta"
    assert [one.payload for one in await taken(consumer, 2)] == [0, 2]


def test_a_message_grows_by_the_stamps_alone_whatever_its_meta_holds() -> None:
    """Numbers of four bytes must not become numbers of eight on the way."""
    floats = b"\xca\x3f\xc0\x00\x00" * 400
    meta = b"\x82\xa5topic\xabdurable/one\xa1f\xdc\x01\x90" + floats
    body = b"\x83" + encode_envelope(GENERIC, "x")[1:] + b"\xa4meta" + meta
    assert decode_envelope(body).meta["f"] == [1.5] * 400
    kept = Kept(5, TOPIC, GENERIC, schema_id(GENERIC), "operator:1000", 0, 1, body)
    sent = frame_of(kept, now_ms=NOW, consumer="c" * 64)
    assert len(sent) - len(body) < STAMP_ROOM
    assert floats in sent
    assert decode_envelope(sent[68:]).meta["seq"] == 5


async def test_an_action_that_is_no_text_is_answered_and_the_session_goes_on(house: LedgerHouse) -> None:
    raw = await raw_operator(house)
    for number, action in enumerate((["ack"], {}, None, "ping"), 2):
        asked = {"id": str(number), "action": action}
        await raw.send(encode_message("intent.control.v1", asked, msg_id=number, now_ms=NOW))
    answers = [(await raw.read())[1] for _ in range(4)]
    assert [answer["ok"] for answer in answers] == [False, False, False, True]
