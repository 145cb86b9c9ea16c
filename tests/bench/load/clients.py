"""Each broker's own Python client, asked two questions: how long is a request, how fast is publishing?

    python clients.py KIND ADDRESS... serve                 answers on bench/ask until it is ended
    python clients.py KIND ADDRESS... ask SECONDS [many]    measures against a server, prints JSON

Runs in the bench's own virtual environment (peers) or in the project's (ours), and imports one client only.

A request is a message of 64 bytes there and one back, each through the broker, in the way the client's
documentation shows. Publishing goes in chunks: CHUNK messages of 64 bytes, the last of which asks for an
answer, so that nobody drops, whatever its limits. The server compares number and fill of each message and
answers with an error when one is missing, repeated, out of order or altered.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

CHUNK = 256
FILL = bytes(range(100, 155))
ASK, ANSWER = "bench/ask", "bench/answer"
_QUESTION, _MESSAGE, _LAST = b"q", b"m", b"e"


def message(kind: bytes, number: int) -> bytes:
    """64 bytes: what it is, its number, fill."""
    return kind + struct.pack("<Q", number) + FILL


class Server:
    """What an answering program does with each message: the answer, or None."""

    def __init__(self) -> None:
        self.due = 0

    def __call__(self, data: bytes) -> bytes | None:
        kind, number = data[:1], struct.unpack_from("<Q", data, 1)[0]
        if data[9:] != FILL:
            return b"altered"
        if kind == _QUESTION:
            return data
        if number == 0:
            self.due = 0
        if number != self.due:
            return b"message %d came where %d was due" % (number, self.due)
        self.due += 1
        return data if kind == _LAST else None


def report(latencies: list[float], published: int, seconds: float, cpu_s: float) -> None:
    """The figures, as JSON."""
    latencies.sort()
    print(
        json.dumps(
            {
                "p50_us": latencies[len(latencies) // 2] * 1e6,
                "p99_us": latencies[len(latencies) * 99 // 100] * 1e6,
                "per_s": published / seconds,
                "cpu_us": cpu_s / published * 1e6,
            }
        )
    )


def checked(answer: bytes, expected: bytes) -> None:
    if bytes(answer) != expected:
        raise SystemExit(f"the server says: {bytes(answer)!r}")


def measure(ask: Callable[[bytes], bytes], publish: Callable[[list[bytes]], bytes], seconds: float) -> None:
    """For blocking clients: ``ask`` waits for the answer, ``publish`` for the answer to the last message."""
    for number in range(200):
        ask(message(_QUESTION, number))
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while (at := time.perf_counter()) < until:
        question = message(_QUESTION, len(taken))
        checked(ask(question), question)
        taken.append(time.perf_counter() - at)
    sent, cpu, begun = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() < begun + seconds:
        chunk = chunk_from(sent)
        checked(publish(chunk), chunk[-1])
        sent += CHUNK
    report(taken, sent, time.perf_counter() - begun, time.process_time() - cpu)


async def measure_async(ask: Any, publish: Any, seconds: float) -> None:
    """The same for asyncio."""
    for number in range(200):
        await ask(message(_QUESTION, number))
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while (at := time.perf_counter()) < until:
        question = message(_QUESTION, len(taken))
        checked(await ask(question), question)
        taken.append(time.perf_counter() - at)
    sent, cpu, begun = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() < begun + seconds:
        chunk = chunk_from(sent)
        checked(await publish(chunk), chunk[-1])
        sent += CHUNK
    report(taken, sent, time.perf_counter() - begun, time.process_time() - cpu)


def chunk_from(first: int) -> list[bytes]:
    chunk = [message(_MESSAGE, number) for number in range(first, first + CHUNK - 1)]
    return [*chunk, message(_LAST, first + CHUNK - 1)]


def ready() -> None:
    print("ready", flush=True)


# --- ours --------------------------------------------------------------------------------------------------


def ours(address: str, role: str, seconds: float, many: bool) -> None:
    """The blocking client; each publish waits for its receipt, or (``many``) for nothing."""
    from runloop.client import BlockingClient

    client = BlockingClient.connect(address, b"b" * 32)
    receipt = not many

    def send(topic: str, data: bytes) -> None:
        client.publish(topic, "observation.generic.v1", data, receipt=receipt)

    def receive() -> bytes:
        delivery = client.next_delivery(30)
        if delivery is None:
            raise SystemExit("no delivery")
        return bytes(delivery.payload)

    if role == "serve":
        client.subscribe(ASK)
        ready()
        answer = Server()
        while (delivery := client.next_delivery(None)) is not None:
            if (back := answer(delivery.payload)) is not None:
                send(ANSWER, back)
        return
    client.subscribe(ANSWER)

    def ask(data: bytes) -> bytes:
        send(ASK, data)
        return receive()

    def publish(chunk: list[bytes]) -> bytes:
        for data in chunk:
            send(ASK, data)
        return receive()

    measure(ask, publish, seconds)


async def ours_asyncio(address: str, role: str, seconds: float, many: bool) -> None:
    """The asyncio client; a chunk's receipts are awaited together, or (``many``) there are none."""
    from runloop.client import AsyncClient

    client = await AsyncClient.connect(address, b"b" * 32)
    receipt = not many

    async def send(topic: str, data: bytes) -> None:
        await client.publish(topic, "observation.generic.v1", data, receipt=receipt)

    async def receive() -> bytes:
        delivery = await client.next_delivery(30)
        if delivery is None:
            raise SystemExit("no delivery")
        return bytes(delivery.payload)

    if role == "serve":
        await client.subscribe(ASK)
        ready()
        answer = Server()
        while (delivery := await client.next_delivery(None)) is not None:
            if (back := answer(delivery.payload)) is not None:
                await send(ANSWER, back)
        return
    await client.subscribe(ANSWER)

    async def ask(data: bytes) -> bytes:
        await send(ASK, data)
        return await receive()

    async def publish(chunk: list[bytes]) -> bytes:
        if receipt:
            await asyncio.gather(*(send(ASK, data) for data in chunk))
        else:
            for data in chunk:
                await send(ASK, data)
        return await receive()

    await measure_async(ask, publish, seconds)


# --- theirs ------------------------------------------------------------------------------------------------


def redis(address: str, role: str, seconds: float, many: bool) -> None:
    """redis-py with hiredis; ``many``: a chunk is one pipeline."""
    import redis as library

    client = library.Redis(unix_socket_path=address)
    heard = client.pubsub(ignore_subscribe_messages=True)

    def receive() -> bytes:
        while True:
            got = heard.get_message(timeout=30)
            if got is not None:
                return bytes(got["data"])

    heard.subscribe(ASK if role == "serve" else ANSWER)
    heard.get_message(timeout=5)  # the confirmation
    if role == "serve":
        ready()
        answer = Server()
        while True:
            if (back := answer(receive())) is not None:
                client.publish(ANSWER, back)

    def ask(data: bytes) -> bytes:
        client.publish(ASK, data)
        return receive()

    def publish(chunk: list[bytes]) -> bytes:
        if many:
            pipeline = client.pipeline(transaction=False)
            for data in chunk:
                pipeline.publish(ASK, data)
            pipeline.execute()
        else:
            for data in chunk:
                client.publish(ASK, data)
        return receive()

    measure(ask, publish, seconds)


async def nats(address: str, role: str, seconds: float, many: bool) -> None:
    """nats-py: request, and publish (which gathers by itself)."""
    import nats as library

    client = await library.connect(address)
    if role == "serve":
        answer = Server()

        async def heard(got: Any) -> None:
            if (back := answer(got.data)) is not None:
                await got.respond(back)

        await client.subscribe(ASK, cb=heard)
        await client.flush()
        ready()
        await asyncio.Event().wait()

    async def ask(data: bytes) -> bytes:
        return bytes((await client.request(ASK, data, timeout=30)).data)

    async def publish(chunk: list[bytes]) -> bytes:
        for data in chunk[:-1]:
            await client.publish(ASK, data)
        return await ask(chunk[-1])

    await measure_async(ask, publish, seconds)


def zeromq(publishers: str, subscribers: str, role: str, seconds: float, many: bool) -> None:
    """pyzmq PUB and SUB, the topic at the beginning of each message."""
    import zmq

    context = zmq.Context()
    out, heard = context.socket(zmq.PUB), context.socket(zmq.SUB)
    out.sndhwm = heard.rcvhwm = 0
    out.connect(f"ipc://{publishers}")
    heard.connect(f"ipc://{subscribers}")
    mine = (ASK if role == "serve" else ANSWER).encode()
    heard.subscribe(mine)
    asking, answering = ASK.encode(), ANSWER.encode()

    def receive() -> bytes:
        return bytes(heard.recv()[len(mine) :])

    if role == "serve":
        ready()
        answer = Server()
        while True:
            if (back := answer(receive())) is not None:
                out.send(answering + back)

    hello = message(_QUESTION, 2**60)  # subscriptions are not acknowledged: ask until an answer comes
    while not heard.poll(20):
        out.send(asking + hello)
    while heard.poll(50):
        heard.recv()

    def ask(data: bytes) -> bytes:
        out.send(asking + data)
        return receive()

    def publish(chunk: list[bytes]) -> bytes:
        for data in chunk:
            out.send(asking + data)
        return receive()

    measure(ask, publish, seconds)


def mosquitto(address: str, role: str, seconds: float, many: bool) -> None:
    """paho-mqtt, QoS 0, its network loop turned by the caller."""
    import paho.mqtt.client as library

    client = library.Client(library.CallbackAPIVersion.VERSION2, transport="unix")
    inbox: list[bytes] = []
    answer = Server()

    def heard(_client: Any, _data: Any, got: Any) -> None:
        if role != "serve":
            inbox.append(got.payload)
        elif (back := answer(got.payload)) is not None:
            client.publish(ANSWER, back)

    subscribed: list[bool] = []
    client.on_message = heard
    client.on_connect = lambda *_: client.subscribe(ASK if role == "serve" else ANSWER)
    client.on_subscribe = lambda *_: subscribed.append(True)
    client.connect(address)
    while not subscribed:
        client.loop(1)
    if role == "serve":
        ready()
        client.loop_forever()

    def receive() -> bytes:
        while not inbox:
            client.loop(30)
        return inbox.pop()

    def ask(data: bytes) -> bytes:
        client.publish(ASK, data)
        return receive()

    def publish(chunk: list[bytes]) -> bytes:
        for data in chunk:
            client.publish(ASK, data)
        return receive()

    measure(ask, publish, seconds)


async def dbus(address: str, role: str, seconds: float, many: bool) -> None:
    """dbus-fast: a method call for a request; publishing calls without waiting for the reply."""
    from dbus_fast import Message, MessageFlag, MessageType
    from dbus_fast.aio import MessageBus

    bus = await MessageBus(bus_address=f"unix:path={address}").connect()
    name, path, interface = "org.runloop.Bench", "/bench", "org.runloop.Bench"
    if role == "serve":
        answer = Server()

        def heard(got: Message) -> Message | bool:
            if got.message_type is not MessageType.METHOD_CALL or got.path != path:
                return False
            back = answer(got.body[0])
            return Message.new_method_return(got, "ay", [back or b""])

        bus.add_message_handler(heard)
        await bus.request_name(name)
        ready()
        await asyncio.Event().wait()

    def order(data: bytes, flags: MessageFlag = MessageFlag.NONE) -> Message:
        return Message(
            destination=name,
            path=path,
            interface=interface,
            member="Ask",
            signature="ay",
            body=[data],
            flags=flags,
        )

    async def ask(data: bytes) -> bytes:
        got = await bus.call(order(data))
        return bytes(got.body[0])

    async def publish(chunk: list[bytes]) -> bytes:
        for data in chunk[:-1]:
            await bus.send(order(data, MessageFlag.NO_REPLY_EXPECTED))
        return await ask(chunk[-1])

    await measure_async(ask, publish, seconds)


KINDS: dict[str, Callable[..., Any]] = {
    "ours": ours,
    "ours-asyncio": ours_asyncio,
    "redis": redis,
    "nats": nats,
    "zeromq": zeromq,
    "mosquitto": mosquitto,
    "dbus": dbus,
}


def main(kind: str, *words: str) -> None:
    role_at = next(at for at, word in enumerate(words) if word in ("serve", "ask"))
    addresses, role, rest = words[:role_at], words[role_at], words[role_at + 1 :]
    seconds = float(rest[0]) if rest else 0.0
    run = KINDS[kind](*addresses, role, seconds, "many" in words)
    if run is not None:
        asyncio.run(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
