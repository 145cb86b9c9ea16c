"""How fast is the bus? Frames per second through the Unix socket, one publisher to one subscriber.

    python tests/bench/bench_bus.py [--frames 200000] [--rounds 5] [--size 64]

One load process holds both ends, keeps a window of undelivered bytes, and compares every byte that
arrives with what was sent: nothing lost, nothing twice, nothing out of order. Two brokers take turns, each in
a process of its own: the bus, and ``relay``, an asyncio Protocol that copies bytes from one socket to the
other and looks at nothing, which is the ceiling for any broker on this interpreter. A third figure is
request/reply: ``call`` of the blocking client through the bus to a handler in the daemon and back. CPU is the
broker's own, user and system.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runloop.client import BlockingClient
from runloop.clock import SystemClock
from runloop.rmp.envelope import encode_envelope
from runloop.rmp.frame import encode_frame

CREDENTIAL = b"b" * 32
WINDOW = 1 << 20
TOPIC = "bench/one"


async def serve_bus(path: Path) -> None:
    """The bus as the daemon runs it, with a handler for control requests."""
    from runloop import __version__
    from runloopd.bus.bus import Bus
    from runloopd.bus.socket import SocketServer

    clock = SystemClock()
    bus = Bus(clock)
    server = SocketServer(bus, path, credential=CREDENTIAL, build=__version__, clock=clock)
    bus.subscribe("rlp/ctrl", lambda delivery: void(bus.reply(delivery, {})))
    await server.start()
    await stopped()
    await server.close()
    print(json.dumps({"published": bus.counters.published, "dropped": bus.counters.dropped}))


def void(_: object) -> None:
    return None


async def serve_relay(path: Path) -> None:
    """Copy from the first connection to the second."""
    connections: list[asyncio.Transport] = []

    class Relay(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.max_size = 65_536  # type: ignore[attr-defined]
            connections.append(transport)  # type: ignore[arg-type]

        def data_received(self, data: bytes) -> None:
            connections[1].write(data)

        def pause_writing(self) -> None:
            connections[0].pause_reading()

        def resume_writing(self) -> None:
            connections[0].resume_reading()

    server = await asyncio.get_running_loop().create_unix_server(Relay, os.fspath(path))
    await stopped()
    server.close()


async def stopped() -> None:
    """Until SIGTERM."""
    gone = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, gone.set)
    await gone.wait()


def frames(count: int, size: int, first: int) -> bytes:
    """``count`` frames with a payload of ``size`` bytes, ids from ``first``."""
    body = encode_envelope("observation.generic.v1", b"x" * size, {"topic": TOPIC})
    one = bytearray(
        encode_frame(
            schema_id=1, body=body, created_at_ms=time.time_ns() // 1_000_000, msg_id=1, ttl_ms=600_000
        )
    )
    made = []
    for number in range(first, first + count):
        struct.pack_into(">Q", one, 56, number)
        made.append(bytes(one))
    return b"".join(made)


def push(sender: socket.socket, receiver: socket.socket, data: bytes) -> float:
    """Send everything, receive and compare everything; seconds."""
    sent = received = 0
    whole = memoryview(data)
    began = time.perf_counter()
    while received < len(data):
        want = [sender] if sent < len(data) and sent - received < WINDOW else []
        readable, writable, _ = select.select([receiver], want, [], 30)
        if not readable and not writable:
            raise SystemExit(f"stuck after {received} of {len(data)} bytes")
        if writable:
            sent += sender.send(whole[sent : sent + 131_072])
        if readable:
            got = receiver.recv(262_144)
            if got != data[received : received + len(got)]:
                raise SystemExit(f"wrong bytes at {received}")
            received += len(got)
    return time.perf_counter() - began


def start(kind: str, path: Path) -> subprocess.Popen[str]:
    broker = subprocess.Popen(
        [sys.executable, __file__, "--serve", kind, "--path", os.fspath(path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(500):
        if path.exists():
            return broker
        time.sleep(0.02)
    raise SystemExit(f"{kind} did not start")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connect(path: Path) -> socket.socket:
    for _ in range(500):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(os.fspath(path))
        except ConnectionRefusedError:  # bound, and not listening yet
            sock.close()
            time.sleep(0.02)
            continue
        sock.setblocking(False)
        return sock
    raise SystemExit(f"nobody listens on {path}")


def one_round(kind: str, count: int, size: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "run" / "s"
        path.parent.mkdir(mode=0o700)
        broker = start(kind, path)
        try:
            result: dict[str, float] = {}
            if kind == "bus":
                connect(path).close()
                publisher = BlockingClient.connect(path, CREDENTIAL)
                subscriber = BlockingClient.connect(path, CREDENTIAL)
                subscriber.subscribe("bench/*")
                ends = (
                    socket.socket(fileno=os.dup(publisher.fileno())),
                    socket.socket(fileno=os.dup(subscriber.fileno())),
                )
            else:
                ends = connect(path), connect(path)
                time.sleep(0.1)
            push(*ends, frames(2_000, size, 10))
            data = frames(count, size, 1_000_000)
            before = cpu_s(broker.pid)
            seconds = push(*ends, data)
            result["frames_per_s"] = count / seconds
            result["broker_us"] = (cpu_s(broker.pid) - before) / count * 1e6
            if kind == "bus":
                caller = BlockingClient.connect(path, CREDENTIAL)
                taken = []
                for _ in range(1_000):
                    began = time.perf_counter()
                    caller.call("nothing")
                    taken.append(time.perf_counter() - began)
                taken.sort()
                result["call_p50_us"], result["call_p99_us"] = taken[500] * 1e6, taken[990] * 1e6
            return result
        finally:
            broker.terminate()
            broker.wait(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--serve", choices=("bus", "relay"))
    parser.add_argument("--path", type=Path)
    args = parser.parse_args()
    if args.serve:
        asyncio.run({"bus": serve_bus, "relay": serve_relay}[args.serve](args.path))
        return
    rounds: dict[str, list[dict[str, float]]] = {"bus": [], "relay": []}
    for _ in range(args.rounds):
        for kind, results in rounds.items():
            results.append(one_round(kind, args.frames, args.size))
    summary: dict[str, object] = {"frames": args.frames, "payload_bytes": args.size, "rounds": args.rounds}
    for kind, results in rounds.items():
        for key in results[0]:
            values = sorted(result[key] for result in results)
            summary[f"{kind}_{key}"] = {
                "median": round(statistics.median(values), 2),
                "min": round(values[0], 2),
                "max": round(values[-1], 2),
            }
    pairs = zip(rounds["bus"], rounds["relay"], strict=True)
    summary["bus_to_relay"] = round(
        statistics.median(bus["frames_per_s"] / relay["frames_per_s"] for bus, relay in pairs), 3
    )
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
