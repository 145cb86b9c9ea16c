"""Append events to a durable store from Python, for some seconds; prints what came of it as JSON.

    python stores.py KIND ADDRESS SETTING GROUP SECONDS PIDS

Runs in the bench's own virtual environment (peers) or in the project's (ours), and imports one store only.
An event is durable, in the sense of its setting, before the next group begins. Peers are handed finished
bodies of 450 bytes; ours makes its own: it decodes an envelope, checks a capability, validates, writes
canonical text, links the chain, inserts, and routes. A peer whose SETTING ends in ``+step`` is handed what
the very same code makes, up to and with the link: the store alone differs. ``PIDS``: the server's processes,
by commas, or ``-``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.load.brokers import cpu_ns

SIZE = 450
RUN = "0b7c1d2e-0000-4000-8000-000000000001"


def bodies(count: int) -> list[bytes]:
    """Events as our ledger's columns would make them in JSON, of exactly 450 bytes."""
    made = []
    for number in range(count):
        event = {
            "id": number, "ts_ms": 1_700_000_000_000 + number, "actor": "daemon",
            "kind": "message.sent", "run": RUN,
            "payload": {
                "attempt": 1, "body_digest": f"{number:064x}", "msg_id": number, "node": "draft",
                "receiver": "agent:writer", "sender": "daemon", "topic": "agent/w", "type": "intent.data.v1",
            },
            "hash": f"{number * 7919:064x}", "pad": "",
        }  # fmt: skip
        short = SIZE - len(json.dumps(event))
        assert short >= 0
        event["pad"] = "x" * short
        made.append(json.dumps(event).encode())
    return made


class Clock:
    """Wall time, our CPU and the server's over the timed part."""

    def __init__(self, pids: list[int], seconds: float) -> None:
        self._pids = pids
        self._seconds = seconds

    def start(self) -> None:
        self._server, self._client = cpu_ns(self._pids), time.process_time()
        self._begun = time.perf_counter()

    @property
    def running(self) -> bool:
        return time.perf_counter() < self._begun + self._seconds

    def stop(self, events: int) -> dict[str, float]:
        """Per event, and in all."""
        spent = time.perf_counter() - self._begun
        client, server = time.process_time() - self._client, cpu_ns(self._pids) - self._server
        return {
            "events": events,
            "per_s": events / spent,
            "client_us": client / events * 1e6,
            "server_us": server / events / 1e3,
            "cpu_us": (client * 1e6 + server / 1e3) / events,
        }


def size_of(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


WARM = 8
"""Groups before the clock starts."""


def finished(group: int) -> Iterator[list[bytes]]:
    """Groups of bodies, made before."""
    ready = bodies(4096)
    while True:
        for at in range(0, 4096, group):
            yield ready[at : at + group]


def stepped(group: int) -> Iterator[list[bytes]]:
    """Groups of bodies as our own step makes them: decoded, checked, validated, canonical, linked."""
    from pog.chain import GENESIS, relink
    from pog.prepare import prepare

    steps = Steps(group)
    last, before = 0, GENESIS
    while True:
        now, made = time.time_ns() // 1_000_000, []
        for one in steps.decoded():
            item = prepare(one)
            last += 1
            after = relink(before, last, now, item.setting, item.payload_text, item.provenance_text)
            made.append(b"".join((item.setting, item.payload_text, item.provenance_text, after, before)))
            before = after
        yield made
        steps.routed()  # asked for the next one: this one is recorded


def groups(setting: str, group: int) -> Iterator[list[bytes]]:
    """What is to be appended."""
    return stepped(group) if setting.endswith("+step") else finished(group)


def repeat(clock: Clock, ready: Iterator[list[bytes]], append: Callable[[list[bytes]], Any]) -> int:
    """Groups until the time is over; how many events."""
    for _ in range(WARM):
        append(next(ready))
    done = 0
    clock.start()
    while clock.running:
        group = next(ready)
        append(group)
        done += len(group)
    return done


# --- ours ------------------------------------------------------------------------------------------------


class Steps:
    """What a daemon does with a message around recording it, one group after another."""

    def __init__(self, group: int) -> None:
        import msgspec

        from tests.bench.bench_ledger import Envelope, draft, envelopes

        self._group = group
        self._decode = msgspec.msgpack.Decoder(Envelope).decode
        self._draft = draft
        self._allowed = {("writer", "intent.data.v1"): True}
        self._ready = envelopes(4096)
        self._taken: list[bytes] = []
        self._number = 0
        self._queue: deque[tuple[str, bytes]] = deque(maxlen=1024)

    def decoded(self) -> list[Any]:
        """The next group: envelopes decoded, capabilities checked, facts made."""
        at = self._number % 4096
        self._taken = self._ready[at : at + self._group]
        drafts = []
        for body in self._taken:
            envelope = self._decode(body)
            if self._allowed[("writer", envelope.type)]:
                drafts.append(self._draft(envelope, body, self._number))
                self._number += 1
        return drafts

    def routed(self) -> None:
        """The group is recorded: hand it to its receiver."""
        for body in self._taken:
            self._queue.append(("agent/w", body))


def opened(folder: Path, setting: str) -> Any:
    """A new ledger of ours."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from pog.ledger import Ledger

    return Ledger.open(folder / "events.db", signing_key=Ed25519PrivateKey.generate(), synchronous=setting)


def ours(address: str, setting: str, group: int, clock: Clock) -> dict[str, float]:
    """The whole durable step, on the ledger alone."""
    folder, steps = Path(address), Steps(group)
    with opened(folder, setting) as ledger:

        def step(drafts: list[Any]) -> None:
            ledger.append(drafts)
            steps.routed()

        done = repeat(clock, iter(steps.decoded, None), step)
        result = clock.stop(done)
    result["bytes"] = (folder / "events.db").stat().st_size / (done + WARM * group)
    return result


async def journal(address: str, setting: str, group: int, clock: Clock) -> dict[str, float]:
    """The same through the daemon's journal, folding views beside; the time ends when they are abreast."""
    from pog.materializer import Materializer
    from runloop.clock import SystemClock
    from runloopd.journal import Journal

    folder, steps = Path(address), Steps(group)
    ledger = opened(folder, setting)
    pen = Journal(ledger, Materializer.open(folder / "views.db", folder / "events.db"), SystemClock())
    for _ in range(WARM):
        await pen.append(*steps.decoded())
    await pen.views_at(pen.head_id)
    done = 0
    clock.start()
    while clock.running:
        await pen.append(*steps.decoded())
        steps.routed()
        done += group
    await pen.views_at(pen.head_id)
    result = clock.stop(done)
    await pen.close()
    files = (folder / name for name in ("events.db", "views.db"))
    result["bytes"] = sum(file.stat().st_size for file in files) / (done + WARM * group)
    return result


# --- theirs ----------------------------------------------------------------------------------------------


def redis(address: str, setting: str, group: int, clock: Clock) -> dict[str, float]:
    """XADD; a group is one pipeline. The append-only file is in the socket's folder."""
    import redis as library

    client = library.Redis(unix_socket_path=address)
    files = Path(address).parent / "appendonlydir"
    client.delete("events")

    def append(group_of: list[bytes]) -> None:
        if len(group_of) == 1:
            client.xadd("events", {"b": group_of[0]})
            return
        pipeline = client.pipeline(transaction=False)
        for body in group_of:
            pipeline.xadd("events", {"b": body})
        pipeline.execute()

    before = size_of(files)
    done = repeat(clock, groups(setting, group), append)
    result = clock.stop(done)
    total = done + WARM * group
    assert client.xlen("events") == total
    result["bytes"] = (size_of(files) - before) / total
    client.delete("events")
    return result


async def jetstream(address: str, setting: str, group: int, clock: Clock) -> dict[str, float]:
    """Publish and wait for the acknowledgement; in a group for all of them together."""
    import nats as library

    url, _, store = address.partition("#")
    client = await library.connect(url)
    stream = client.jetstream()
    await stream.add_stream(name="events", subjects=["events"], storage="file")

    async def append(group_of: list[bytes]) -> None:
        if len(group_of) == 1:
            await stream.publish("events", group_of[0])
        else:
            acks = [await stream.publish_async("events", body, wait_stall=30) for body in group_of]
            await asyncio.gather(*acks)

    ready = groups(setting, group)
    for _ in range(WARM):
        await append(next(ready))
    done = 0
    clock.start()
    while clock.running:
        await append(next(ready))
        done += group
    result = clock.stop(done)
    total = done + WARM * group
    state = (await stream.stream_info("events")).state
    assert state.messages == total
    result["bytes"] = size_of(Path(store)) / total
    await stream.delete_stream("events")
    await client.close()
    return result


def postgresql(address: str, setting: str, group: int, clock: Clock) -> dict[str, float]:
    """A transaction per group, INSERT (psycopg pipelines it) or ``+copy``; ``SETTING`` begins on or off."""
    import psycopg

    synchronous, *ways = setting.split("+")
    with psycopg.connect(f"host={address} user=postgres dbname=postgres", autocommit=True) as connection:
        run = connection.execute
        run(f"SET synchronous_commit = {synchronous}")
        run("DROP TABLE IF EXISTS events")
        run("CREATE TABLE events (id bigserial PRIMARY KEY, body bytea NOT NULL)")
        cursor = connection.cursor()
        insert = "INSERT INTO events (body) VALUES (%b)"

        def append(group_of: list[bytes]) -> None:
            if len(group_of) == 1:
                cursor.execute(insert, (group_of[0],))
                return
            with connection.transaction():
                if "copy" in ways:
                    with cursor.copy("COPY events (body) FROM STDIN WITH (FORMAT BINARY)") as copy:
                        copy.set_types(["bytea"])
                        for body in group_of:
                            copy.write_row((body,))
                else:
                    cursor.executemany(insert, [(body,) for body in group_of])

        done = repeat(clock, groups(setting, group), append)
        result = clock.stop(done)
        total = done + WARM * group
        counted = run("SELECT count(*), pg_total_relation_size('events') FROM events").fetchone()
        assert counted is not None
        assert counted[0] == total
        result["bytes"] = counted[1] / total
        run("DROP TABLE events")
        return result


KINDS: dict[str, Callable[..., Any]] = {
    "ours": ours, "ours-journal": journal, "redis": redis, "jetstream": jetstream, "postgresql": postgresql,
}  # fmt: skip


def main(kind: str, address: str, setting: str, group: str, seconds: str, pids: str) -> None:
    clock = Clock([int(pid) for pid in pids.split(",") if pid != "-"], float(seconds))
    made = KINDS[kind](address, setting, int(group), clock)
    if isinstance(made, Awaitable):

        async def finish() -> Any:
            return await made

        made = asyncio.run(finish())
    print(json.dumps(made))


if __name__ == "__main__":
    os.umask(0o077)
    main(*sys.argv[1:])
