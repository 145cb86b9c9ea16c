"""Programs that abuse the bus, one step at a time: for tests of what holds, and for measuring what it costs.

A step never waits: it does as much harm as the daemon takes at once. So neighbour and attacker can be
interleaved in one thread, and a test does not depend on who was scheduled when.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runloop import __version__
from runloop.rmp import hello
from runloop.rmp.envelope import encode_envelope, encode_message, open_frame
from runloop.rmp.frame import FrameReader, encode_frame

__all__ = ["HOSTILE", "Hostile", "Raw", "other_user"]

GENERIC = "observation.generic.v1"
FLOOD = "demo/flood"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Raw:
    """A connection that speaks bytes; what it captured of itself can be sent elsewhere."""

    def __init__(self, path: Path, credential: bytes | None = None, *, greet: bool = True) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(path))
        self.reader = FrameReader()
        self.sent: list[bytes] = []
        self.reply_topic = ""
        self.waiting: list[Any] = []
        if greet:
            nonce = self.answer()["nonce"]
            proof = None if credential is None else hello.proof(credential, nonce)
            self.greet(proof)

    def greet(self, proof: bytes | None) -> Any:
        said = {"protocol": 0, "build": __version__, "client": "hostile", "proof": proof}
        self.send(encode_message("observation.agent.hello.v1", said, msg_id=1, now_ms=now_ms()))
        return self.greeted()

    def greeted(self) -> Any:
        answer = self.answer()
        if answer.get("ok"):
            self.reply_topic = answer["result"]["reply_to"]
        return answer

    def send(self, data: bytes) -> None:
        self.sent.append(data)
        self.sock.sendall(data)

    def answer(self) -> Any:
        """The next frame's payload; None when the daemon hung up."""
        while not self.waiting:
            try:
                data = self.sock.recv(65_536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.waiting += self.reader.feed(data)
        return open_frame(self.waiting.pop(0)).payload

    def close(self) -> None:
        self.sock.close()


class Hostile:
    """Base: connections it holds, and what it does next."""

    def __init__(self, path: Path, credential: bytes) -> None:
        self.path = path
        self.credential = credential
        self.held: list[socket.socket] = []
        self.sent = 0
        """Bytes the daemon took from it."""
        self.begin()

    def begin(self) -> None:
        """Connect."""

    def step(self) -> None:
        """Do some harm."""
        raise NotImplementedError

    def close(self) -> None:
        for sock in self.held:
            sock.close()

    def operator(self) -> socket.socket:
        raw = Raw(self.path, self.credential)
        raw.sock.setblocking(False)
        self.held.append(raw.sock)
        return raw.sock

    def stranger(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        sock.connect(str(self.path))
        sock.setblocking(False)
        self.held.append(sock)
        return sock

    def push(self, sock: socket.socket, data: bytes) -> bytes:
        """Send what is taken at once; return the rest."""
        with contextlib.suppress(BlockingIOError):
            while data:
                taken = sock.send(data)
                self.sent += taken
                data = data[taken:]
        return data

    def drain(self, sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while sock.recv(1 << 20):
                pass


class Flood(Hostile):
    """Publishes without pause and reads what it is told. ``topic`` and ``receipts`` make its variants."""

    topic = FLOOD
    meta: dict[str, Any] = {}
    reads = True

    def begin(self) -> None:
        self.sock = self.operator()
        self.rest = b""
        self.number = 10
        body = encode_envelope(GENERIC, b"x" * 200, {"topic": self.topic, **self.meta})
        self.frame = bytearray(encode_frame(schema_id=1, body=body, created_at_ms=now_ms(), msg_id=1))

    def step(self) -> None:
        try:
            if self.reads:
                self.drain(self.sock)
            if not self.rest:
                self.rest = self.more(1_000)
            self.rest = self.push(self.sock, self.rest)
        except OSError:  # it was cut: that is the daemon's right, and no reason to stop
            self.begin()

    def more(self, count: int) -> bytes:
        struct.pack_into(">Q", self.frame, 24, now_ms())
        made = []
        for _ in range(count):
            self.number += 1
            struct.pack_into(">Q", self.frame, 56, self.number)
            made.append(bytes(self.frame))
        return b"".join(made)


class DurableFlood(Flood):
    """Fills the ledger."""

    topic = "durable/flood"


class Asker(Flood):
    """Asks, and never reads the answers."""

    reads = False

    def more(self, count: int) -> bytes:
        made = []
        for _ in range(count):
            self.number += 1
            ask = {"id": str(self.number), "action": "ping"}
            made.append(encode_message("intent.control.v1", ask, msg_id=self.number, now_ms=now_ms()))
        return b"".join(made)


class NeverReads(Flood):
    """One connection floods a topic, another has it delivered and never reads."""

    def begin(self) -> None:
        super().begin()
        raw = Raw(self.path, self.credential)
        ask = {"id": "s", "action": "subscribe", "pattern": "demo/*"}
        raw.send(encode_message("intent.control.v1", ask, msg_id=2, now_ms=now_ms()))
        raw.answer()
        self.held.append(raw.sock)


class Loris(Hostile):
    """Many connections, each a byte of a large frame at a time."""

    def begin(self) -> None:
        self.at = 0
        self.begun: list[socket.socket] = []

    def step(self) -> None:
        if len(self.begun) < 80:
            with contextlib.suppress(OSError):
                self.begun.append(self.stranger())
        frame = encode_message(GENERIC, b"x" * 3_500, msg_id=1, now_ms=now_ms(), topic=FLOOD)
        for sock in list(self.begun):
            try:
                self.push(sock, frame[self.at % 3_000 :][:1])
            except OSError:
                self.begun.remove(sock)
        self.at += 1


class HalfFrames(Hostile):
    """Connects, sends half of something, hangs up."""

    def step(self) -> None:
        frame = encode_message(GENERIC, b"x" * 200, msg_id=2, now_ms=now_ms(), topic=FLOOD)
        for cut in (1, 4, 40, 67, 70, len(frame) - 1):
            try:
                sock = self.operator()
                self.push(sock, frame[:cut])
            except (OSError, TypeError):  # turned away
                continue
            finally:
                self.held.pop().close() if self.held else None


HOSTILE: dict[str, Callable[[Path, bytes], Hostile]] = {
    "flood": Flood,
    "durable flood": DurableFlood,
    "asks and never reads": Asker,
    "subscribed and never reads": NeverReads,
    "slow loris": Loris,
    "half frames": HalfFrames,
}


def other_user(path: Path) -> str:
    """What a process of another uid gets when it connects: run as root."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        told = b"nothing"
        try:
            os.setgroups([])
            os.setgid(65_534)
            os.setuid(65_534)
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(20)
            sock.connect(str(path))
            told = sock.recv(4_096)[68:] or b"closed"
        except OSError as error:
            told = type(error).__name__.encode()
        finally:
            os.write(write, told)
            os._exit(0)
    os.close(write)
    try:
        select.select([read], [], [], 30)
        return os.read(read, 4_096).decode("latin1")
    finally:
        os.close(read)
        os.waitpid(child, 0)
