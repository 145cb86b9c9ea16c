"""Whole durable steps per second: decode an envelope, check a capability, append, route.

    python tests/bench/bench_ledger.py [--events 20000] [--rounds 5] [--group 64] [--json]

Each step decodes a MessagePack envelope of 64-300 B, looks the capability up in a cache, states one event
(validated, canonical, chained, inserted; a group is one transaction) and queues the envelope for a receiver.
References measured in the same run, interleaved: the bare insert of the same rows with the standard library's
sqlite3 (no validation, no chain), and `fsync` of 4 KiB. Also: the journal end to end, verification, folding.
Prints the median (min - max) of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pog.ledger import Ledger
from pog.maintain import verify
from pog.materializer import Materializer
from pog.reader import Reader
from runloop.clock import SystemClock
from runloop.events import Draft, MessageSent, Provenance
from runloopd.journal import Journal

RUN = "0b7c1d2e-0000-4000-8000-000000000001"
Measure = Callable[[Path, int, int], float]


class Envelope(msgspec.Struct):
    """What a step reads of a frame's body."""

    type: str
    payload: msgspec.Raw
    meta: dict[str, Any]


def envelopes(number: int) -> list[bytes]:
    """Bodies of 64 to 300 bytes."""
    encode = msgspec.msgpack.Encoder().encode
    bodies = [
        encode(
            {
                "type": "intent.data.v1",
                "payload": {"n": n, "x": "y" * (n * 37 % 231)},
                "meta": {"topic": "agent/w"},
            }
        )
        for n in range(997)
    ]
    assert {len(body) // 100 for body in bodies} == {0, 1, 2}
    return [bodies[n % len(bodies)] for n in range(number)]


def draft(envelope: Envelope, body: bytes, number: int) -> Draft:
    """The fact of one step."""
    sent = MessageSent(
        sender="daemon", receiver="agent:writer", topic="agent/w", type=envelope.type, schema_id=1,
        msg_id=number, size=len(body) + 60, body_digest="0" * 64, node="draft", attempt=1,
    )  # fmt: skip
    return Draft(payload=sent, actor="daemon", run=RUN, provenance=Provenance(node="draft"))


def step(synchronous: str) -> Measure:
    """decode + cached check + append + route."""

    def measure(folder: Path, events: int, group: int) -> float:
        bodies = envelopes(events)
        decode = msgspec.msgpack.Decoder(Envelope).decode
        allowed = {("writer", "intent.data.v1"): True}
        queue: deque[tuple[str, bytes]] = deque(maxlen=1024)
        key = Ed25519PrivateKey.generate()
        with Ledger.open(folder / "events.db", signing_key=key, synchronous=synchronous) as ledger:
            begun = time.perf_counter()
            for start in range(0, events, group):
                drafts = []
                for number, body in enumerate(bodies[start : start + group], start):
                    envelope = decode(body)
                    if allowed[("writer", envelope.type)]:
                        drafts.append(draft(envelope, body, number))
                ledger.append(drafts)
                for body in bodies[start : start + group]:
                    queue.append(("agent/w", body))
            return events / (time.perf_counter() - begun)

    return measure


def bare(synchronous: str) -> Measure:
    """The same rows, inserted and nothing else."""

    def measure(folder: Path, events: int, group: int) -> float:
        connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(
            "CREATE TABLE events (id INTEGER PRIMARY KEY, ts INTEGER, actor TEXT, kind TEXT, run TEXT, "
            "payload TEXT, hash BLOB, prev BLOB) STRICT"
        )
        rows = [
            (n + 1, n, "daemon", "message.sent", RUN, "x" * 330, b"h" * 32, b"p" * 32) for n in range(events)
        ]
        begun = time.perf_counter()
        for start in range(0, events, group):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO events VALUES (?,?,?,?,?,?,?,?)", rows[start : start + group])
            connection.execute("COMMIT")
        spent = time.perf_counter() - begun
        connection.close()
        return events / spent

    return measure


def single(synchronous: str) -> Measure:
    """Appends one by one."""

    def measure(folder: Path, events: int, group: int) -> float:
        return step(synchronous)(folder, max(500, events // 20), 1)

    return measure


def journal(writers: int) -> Measure:
    """Concurrent appenders through the journal, views folded beside it, FULL."""

    def measure(folder: Path, events: int, group: int) -> float:
        async def run() -> float:
            ledger = Ledger.open(folder / "events.db", signing_key=Ed25519PrivateKey.generate())
            views = Materializer.open(folder / "views.db", folder / "events.db")
            pen = Journal(ledger, views, SystemClock())
            body = envelopes(1)[0]
            fact = draft(msgspec.msgpack.decode(body, type=Envelope), body, 1)

            async def write(count: int) -> None:
                for _ in range(count):
                    await pen.append(fact)

            begun = time.perf_counter()
            await asyncio.gather(*(write(max(20, events // 4 // writers)) for _ in range(writers)))
            rate = pen.head_id / (time.perf_counter() - begun)
            await pen.close()
            return rate

        return asyncio.run(run())

    return measure


def filled(folder: Path, events: int) -> None:
    step("NORMAL")(folder, events, 512)


def verification(folder: Path, events: int, group: int) -> float:
    """Everything ``rlp verify`` checks but the views."""
    filled(folder, events)
    begun = time.perf_counter()
    assert verify(folder / "events.db").ok
    return events / (time.perf_counter() - begun)


def folding(folder: Path, events: int, group: int) -> float:
    """Views from nothing."""
    filled(folder, events)
    with Materializer.open(folder / "views.db", folder / "events.db") as views:
        begun = time.perf_counter()
        views.catch_up()
        return events / (time.perf_counter() - begun)


def reading(folder: Path, events: int, group: int) -> float:
    """Events read back and decoded."""
    filled(folder, events)
    with Reader(folder / "events.db") as reader:
        begun = time.perf_counter()
        assert sum(1 for _ in reader.events()) == events
        return events / (time.perf_counter() - begun)


def flushing(folder: Path, events: int, group: int) -> float:
    """fsync after 4 KiB: what the disk allows."""
    handle = os.open(folder / "raw", os.O_RDWR | os.O_CREAT)
    begun = time.perf_counter()
    for number in range(300):
        os.pwrite(handle, b"x" * 4096, number * 4096)
        os.fdatasync(handle)
    spent = time.perf_counter() - begun
    os.close(handle)
    return 300 / spent


MEASURES: dict[str, Measure] = {
    "whole step, FULL, groups": step("FULL"),
    "whole step, NORMAL, groups": step("NORMAL"),
    "whole step, FULL, one by one": single("FULL"),
    "whole step, NORMAL, one by one": single("NORMAL"),
    "journal, FULL, 1 appender": journal(1),
    "journal, FULL, 64 appenders": journal(64),
    "reference: bare sqlite3 insert, FULL, groups": bare("FULL"),
    "reference: bare sqlite3 insert, NORMAL, groups": bare("NORMAL"),
    "reference: 4 KiB + fdatasync": flushing,
    "read and decode": reading,
    "verify": verification,
    "fold views": folding,
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="a folder on the disk that is meant")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    rates: dict[str, list[float]] = {name: [] for name in MEASURES}
    for _ in range(args.rounds):
        for name, measure in MEASURES.items():
            with tempfile.TemporaryDirectory(prefix=".bench-", dir=args.dir) as folder:
                rates[name].append(measure(Path(folder), args.events, args.group))
    if args.json:
        print(json.dumps({name: [round(rate) for rate in found] for name, found in rates.items()}))
        return
    print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} CPUs; ",
        end="",
    )
    print(
        f"{args.events} events, groups of {args.group}, {args.rounds} rounds; per second, median (min - max)"
    )
    for name, found in rates.items():
        print(f"{name:48} {statistics.median(found):>10,.0f}  ({min(found):,.0f} - {max(found):,.0f})")


if __name__ == "__main__":
    main(sys.argv[1:])
