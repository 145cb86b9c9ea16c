"""Begin sessions with brokers, each in its own protocol, and describe frames to the load generator.

Knows: the hello, the subscription and the frame of RMP v0, RESP2, the NATS client protocol, MQTT 3.1.1,
ZMTP 3.0 and D-Bus, each written from its public description. Does not know: how to start a broker, what is
measured.

A session is handed on as a connected socket with nothing left to read. Whoever subscribed is subscribed: an
answer of the broker proves it, or (ZeroMQ, which answers nothing) a message that came through.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.load import dbus

__all__ = ["Address", "Dbus", "Frame", "Mqtt", "Nats", "Redis", "Rmp", "Wire", "Zmtp", "exactly"]

Address = Path | tuple[str, int]
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Frame:
    """What surrounds a payload. ``patch`` is ``offset:kind:base`` of the message's number, or ``-``."""

    prefix: bytes
    suffix: bytes = b""
    patch: str = "-"

    def order(self) -> str:
        """The three fields as the load generator reads them."""
        return f"{self.prefix.hex() or '-'} {self.suffix.hex() or '-'} {self.patch}"


def reach(address: Address, *, bound_s: float = PATIENCE_S) -> socket.socket:
    """Connect, while the broker is still starting as well."""
    deadline = time.monotonic() + bound_s
    while True:
        sock = socket.socket(socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET)
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect(str(address) if isinstance(address, Path) else address)
        except (ConnectionRefusedError, FileNotFoundError):
            sock.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
            continue
        if not isinstance(address, Path):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock


def exactly(sock: socket.socket, count: int) -> bytes:
    """The next ``count`` bytes."""
    data = b""
    while len(data) < count:
        got = sock.recv(count - len(data))
        if not got:
            raise OSError(f"closed after {data!r}")
        data += got
    return data


def until(sock: socket.socket, end: bytes) -> bytes:
    """Everything up to and including ``end``, and nothing after it."""
    data = b""
    while not data.endswith(end):
        data += exactly(sock, 1)
    return data


class Wire:
    """One protocol, one broker."""

    letter: str

    def __init__(self, address: Address) -> None:
        self.address = address
        self._kept: list[Any] = []

    def publisher(self) -> socket.socket:
        """A session that may publish."""
        raise NotImplementedError

    def subscriber(self, topic: str) -> socket.socket:
        """A session that is subscribed to ``topic``."""
        raise NotImplementedError

    def published(self, topic: str, size: int) -> Frame:
        """What a publisher writes around a payload of ``size`` bytes."""
        raise NotImplementedError

    def delivered(self, topic: str, size: int) -> Frame:
        """What arrives; in most protocols what was sent."""
        return self.published(topic, size)

    def settle(self, publishers: list[socket.socket], subscribers: dict[str, list[socket.socket]]) -> None:
        """Make sure of subscriptions that are not acknowledged."""

    def close(self) -> None:
        """Forget what sessions needed to stay alive."""
        self._kept.clear()


class Rmp(Wire):
    """Ours. A peer without the operator credential may publish and read topics outside ``rlp/``."""

    letter = "r"
    first_id = 1_000_000

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._frames: dict[tuple[str, int], Frame] = {}

    def _session(self, topic: str | None) -> socket.socket:
        from runloop.client import BlockingClient
        from tests.bench.load.serve import CREDENTIAL

        reach(self.address).close()
        client = BlockingClient.connect(self.address, CREDENTIAL)  # type: ignore[arg-type]
        self._kept.append(client)
        if topic is not None:
            client.subscribe(topic)
        return socket.socket(fileno=os.dup(client.fileno()))

    def publisher(self) -> socket.socket:
        return self._session(None)

    def subscriber(self, topic: str) -> socket.socket:
        return self._session(topic)

    def published(self, topic: str, size: int) -> Frame:
        from runloop.rmp.envelope import encode_message

        known = self._frames.get((topic, size))
        if known is not None:  # the time of writing is part of a frame
            return known
        payload = b"\xa5" * size
        frame = encode_message(
            "observation.generic.v1",
            payload,
            msg_id=self.first_id,
            now_ms=time.time_ns() // 1_000_000,
            topic=topic,
            ttl_ms=600_000,
        )
        at = frame.index(payload)
        made = Frame(frame[:at], frame[at + size :], f"56:b8:{self.first_id}")
        self._frames[topic, size] = made
        return made

    def close(self) -> None:
        for client in self._kept:
            client.close()
        self._frames.clear()
        super().close()


class Redis(Wire):
    """RESP2 publish and subscribe; replies to PUBLISH are switched off, so that nobody acknowledges."""

    letter = "R"

    def publisher(self) -> socket.socket:
        sock = reach(self.address)
        sock.sendall(_resp(b"PING"))
        _expect(sock, b"+PONG\r\n")
        sock.sendall(_resp(b"CLIENT", b"REPLY", b"OFF"))
        return sock

    def subscriber(self, topic: str) -> socket.socket:
        sock = reach(self.address)
        sock.sendall(_resp(b"SUBSCRIBE", topic.encode()))
        _expect(sock, b"*3\r\n" + _resp(b"subscribe", topic.encode()).removeprefix(b"*2\r\n") + b":1\r\n")
        return sock

    def published(self, topic: str, size: int) -> Frame:
        return Frame(_resp(b"PUBLISH", topic.encode(), bytes(size))[: -size - 2], b"\r\n")

    def delivered(self, topic: str, size: int) -> Frame:
        return Frame(_resp(b"message", topic.encode(), bytes(size))[: -size - 2], b"\r\n")


class Nats(Wire):
    """NATS core, not verbose."""

    letter = "n"

    def publisher(self) -> socket.socket:
        sock = reach(self.address)
        until(sock, b"\r\n")  # INFO
        sock.sendall(b'CONNECT {"verbose":false,"pedantic":false,"lang":"c","version":"0"}\r\nPING\r\n')
        _expect(sock, b"PONG\r\n")
        return sock

    def subscriber(self, topic: str) -> socket.socket:
        sock = self.publisher()
        sock.sendall(b"SUB %s 1\r\nPING\r\n" % self._subject(topic))
        _expect(sock, b"PONG\r\n")
        return sock

    def published(self, topic: str, size: int) -> Frame:
        return Frame(b"PUB %s %d\r\n" % (self._subject(topic), size), b"\r\n")

    def delivered(self, topic: str, size: int) -> Frame:
        return Frame(b"MSG %s 1 %d\r\n" % (self._subject(topic), size), b"\r\n")

    @staticmethod
    def _subject(topic: str) -> bytes:
        return topic.replace("/", ".").encode()


class Mqtt(Wire):
    """MQTT 3.1.1 at QoS 0."""

    letter = "m"
    _clients = 0

    def publisher(self) -> socket.socket:
        sock = reach(self.address)
        Mqtt._clients += 1
        name = b"lg%d" % Mqtt._clients
        # Protocol level 4, clean session, no keep-alive.
        sock.sendall(_mqtt(0x10, b"\0\4MQTT\4\2\0\0" + struct.pack(">H", len(name)) + name))
        _expect(sock, b"\x20\2\0\0")
        return sock

    def subscriber(self, topic: str) -> socket.socket:
        sock = self.publisher()
        name = topic.encode()
        sock.sendall(_mqtt(0x82, b"\0\1" + struct.pack(">H", len(name)) + name + b"\0"))
        _expect(sock, b"\x90\3\0\1\0")
        return sock

    def published(self, topic: str, size: int) -> Frame:
        name = topic.encode()
        whole = _mqtt(0x30, struct.pack(">H", len(name)) + name + bytes(size))
        return Frame(whole[: len(whole) - size])


class Zmtp(Wire):
    """ZMTP 3.0, NULL mechanism; the topic is the beginning of the one frame of a message.

    ``address`` is where publishers connect; subscribers connect to ``outlet``.
    """

    letter = "z"

    def __init__(self, address: Address, outlet: Address) -> None:
        super().__init__(address)
        self.outlet = outlet

    @staticmethod
    def _greet(address: Address, kind: bytes) -> socket.socket:
        sock = reach(address)
        sock.sendall(b"\xff" + bytes(8) + b"\x7f\3\0" + b"NULL".ljust(20, b"\0") + bytes(32))
        exactly(sock, 64)
        ready = b"\5READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
        sock.sendall(b"\4" + bytes([len(ready)]) + ready)
        head = exactly(sock, 2)
        if head[0] != 4:
            raise OSError("no READY")
        exactly(sock, head[1])
        return sock

    def publisher(self) -> socket.socket:
        return self._greet(self.address, b"PUB")

    def subscriber(self, topic: str) -> socket.socket:
        sock = self._greet(self.outlet, b"SUB")
        sock.sendall(self._message(b"\1" + topic.encode()))
        return sock

    def published(self, topic: str, size: int) -> Frame:
        whole = self._message(topic.encode() + bytes(size))
        return Frame(whole[: len(whole) - size])

    def settle(self, publishers: list[socket.socket], subscribers: dict[str, list[socket.socket]]) -> None:
        """Probe each topic until each of its subscribers has heard something, then up to a last word."""
        for topic, waiting in subscribers.items():
            probe = self._message(topic.encode() + b"probe")
            last = self._message(topic.encode() + b"final")
            deaf = list(waiting)
            deadline = time.monotonic() + PATIENCE_S
            while deaf:
                publishers[0].sendall(probe)
                heard = select.select(deaf, (), (), 0.01)[0]
                deaf = [sock for sock in deaf if sock not in heard]
                if time.monotonic() > deadline:
                    raise OSError(f"no message on {topic} comes through")
            publishers[0].sendall(last)
            for sock in waiting:
                while exactly(sock, len(last)) != last:
                    pass

    @staticmethod
    def _message(body: bytes) -> bytes:
        if len(body) < 256:
            return b"\0" + bytes([len(body)]) + body
        return b"\2" + struct.pack(">Q", len(body)) + body


class Dbus(Wire):
    """Broadcast signals: the topic is the object path, the payload an array of bytes."""

    letter = "d"
    interface = "org.runloop.Bench"
    member = "Message"

    def publisher(self) -> socket.socket:
        sock = reach(self.address)
        dbus.authenticate(sock)
        dbus.call(sock, 1, path="/org/freedesktop/DBus", interface="org.freedesktop.DBus", member="Hello")
        self._quiet(sock, 2)
        return sock

    def subscriber(self, topic: str) -> socket.socket:
        sock = self.publisher()
        path = self._path(topic).decode()
        rule = f"type='signal',interface='{self.interface}',member='{self.member}',path='{path}'"
        dbus.call(
            sock,
            3,
            path="/org/freedesktop/DBus",
            interface="org.freedesktop.DBus",
            member="AddMatch",
            signature="s",
            values=(rule,),
        )
        return sock

    @staticmethod
    def _quiet(sock: socket.socket, serial: int) -> None:
        """NameAcquired comes after Hello's answer, and before that of the next call."""
        dbus.call(
            sock, serial, path="/org/freedesktop/DBus", interface="org.freedesktop.DBus", member="GetId"
        )

    def published(self, topic: str, size: int) -> Frame:
        whole = dbus.signal(self._path(topic).decode(), self.interface, self.member, bytes(size))
        return Frame(whole[: len(whole) - size], b"", "8:l4:1")

    def delivered(self, topic: str, size: int) -> Frame:
        """The path; the broker writes a header of its own, with the sender in it."""
        return Frame(self._path(topic))

    @staticmethod
    def _path(topic: str) -> bytes:
        return b"/" + topic.encode()


def _resp(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _mqtt(kind: int, rest: bytes) -> bytes:
    left, length = len(rest), bytearray()
    while True:
        length.append(left & 0x7F | (0x80 if left > 0x7F else 0))
        left >>= 7
        if not left:
            return bytes([kind]) + bytes(length) + rest


def _expect(sock: socket.socket, answer: bytes) -> None:
    got = exactly(sock, len(answer))
    if got != answer:
        raise OSError(f"expected {answer!r}, got {got!r}")
