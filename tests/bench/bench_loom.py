"""Loom's load on a real daemon: 20 agents, 10 topics, three delivery classes, one slow consumer.

    python -m tests.bench loom [--minutes 1] [--burst] [--json]      # 10 000 events a minute; --burst: 60 000

Twenty programs hold a connection each. Together they publish 10 000 events a minute on ten topics: six
realtime, three batched, one background, so that classes stand 60/30/10. Every program subscribes to every
topic. One more consumer takes 60 % of what arrives and no faster. An event carries its publisher's count for
its topic and the time it was published; receivers keep what they saw of every count.

Told at the end: latency from publish to receipt at the twenty, by class; for every receiver the events that
never came, by class, held against the daemon's own counters. The run fails when an event is missing that the
daemon does not count as dropped, when one came twice or out of order, or when anything but realtime was
dropped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import sys
import tempfile
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from runloop.client import AsyncClient
from runloop.rmp.session import ClientSession, Delivery
from tests.home import Home

AGENTS = 20
PER_MINUTE = 10_000
BURST_PER_MINUTE = 60_000
TOPICS = (
    *(f"live/loom/{number}" for number in range(6)),
    *(f"loom/{number}" for number in range(3)),
    "bulk/loom/0",
)
"""By their names realtime, batched and background (``runloopd.bus.queues``)."""
SLOW_SHARE = 0.6
SLICE_S = 0.02


def class_name(topic: str) -> str:
    return {"live": "realtime", "bulk": "background"}.get(topic.split("/", 1)[0], "batched")


@dataclass
class Seen:
    """What one receiver got."""

    last: dict[tuple[int, str], int] = field(default_factory=lambda: defaultdict(int))
    missing: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    taken: int = 0
    latency_us: dict[str, array[int]] = field(default_factory=lambda: defaultdict(lambda: array("L")))

    def take(self, delivery: Delivery, *, timed: bool) -> None:
        publisher, count, sent_ns = delivery.payload
        place, name = (publisher, delivery.topic), class_name(delivery.topic)
        gap = count - self.last[place] - 1
        if gap < 0:
            self.wrong += 1
        self.missing[name] += max(0, gap)
        self.last[place] = max(count, self.last[place])
        self.taken += 1
        if timed:
            self.latency_us[name].append((time.monotonic_ns() - sent_ns) // 1_000)

    def end(self, published: dict[tuple[int, str], int]) -> None:
        """Count what is missing after the last event of each publisher and topic."""
        for place, count in published.items():
            self.missing[class_name(place[1])] += count - self.last[place]
            self.last[place] = count


async def consume(client: AsyncClient, seen: Seen) -> None:
    """Take deliveries as they come."""
    while True:
        delivery = await client.next_delivery()
        if delivery is not None and delivery.topic in TOPICS:
            seen.take(delivery, timed=True)


def greet(path: Path, credential: bytes) -> tuple[socket.socket, ClientSession]:
    """A connection of which every byte is read by hand, subscribed to every topic."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    session = ClientSession(credential=credential, now_ms=lambda: time.time_ns() // 1_000_000, client="slow")

    def until(done: Callable[[], bool]) -> None:
        while not done():
            sock.sendall(session.outgoing)
            session.outgoing.clear()
            session.feed(sock.recv(65_536))

    until(lambda: session.ready)
    for topic in TOPICS:
        ident = session.control("subscribe", topic)
        until(partial(session.has_answer, ident))
    return sock, session


def consume_slowly(sock: socket.socket, session: ClientSession, seen: Seen, pace: Pace) -> None:
    """In a thread: take events no faster than ``pace`` allows; the rest waits in the daemon and before it."""
    sock.settimeout(1)
    while not pace.over:
        while seen.taken < pace.allowed():
            try:
                data = sock.recv(2_048)
            except TimeoutError:
                break
            session.feed(data)
            while session.deliveries:
                delivery = session.deliveries.popleft()
                if delivery.topic in TOPICS:
                    seen.take(delivery, timed=False)
        time.sleep(SLICE_S)


class Pace:
    """So many events a second since it began, without limit once ``free``."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._begun = time.monotonic()
        self.free = self.over = False

    def allowed(self) -> float:
        return float("inf") if self.free else (time.monotonic() - self._begun) * self._per_second


async def publish(client: AsyncClient, publisher: int, plan: Plan, counts: dict[tuple[int, str], int]) -> int:
    """This agent's share of the load, evenly spaced; topics in an order of its own. Returns the receivers."""
    choose = random.Random(publisher)
    receivers = 0
    for number in range(plan.events_each):
        due = plan.begins + (number + publisher / AGENTS) * plan.pause_s
        await asyncio.sleep(max(0, due - time.monotonic()))
        topic = choose.choice(TOPICS)
        counts[publisher, topic] += 1
        payload = [publisher, counts[publisher, topic], time.monotonic_ns()]
        receivers += (await client.publish(topic, "observation.generic.v1", payload)).receivers
    return receivers


@dataclass(frozen=True)
class Plan:
    """When the load begins, and how much of it each agent publishes."""

    begins: float
    events_each: int
    pause_s: float

    @classmethod
    def of(cls, minutes: float, per_minute: int) -> Plan:
        events = round(minutes * per_minute / AGENTS)
        return cls(time.monotonic() + 0.5, events, minutes * 60 / events)


async def load(home: Home, minutes: float, per_minute: int) -> dict[str, Any]:
    """Run it; the report."""
    path, credential = home.path / "run" / "rmp.sock", (home.path / "keys" / "operator.key").read_bytes()
    plan = Plan.of(minutes, per_minute)
    agents = [await AsyncClient.connect(path, credential, client=f"loom-{n}") for n in range(AGENTS)]
    seen = [Seen() for _ in agents]
    before = await counters(agents[0])
    for client in agents:
        for topic in TOPICS:
            await client.subscribe(topic)
    slow, pace = Seen(), Pace(per_minute / 60 * SLOW_SHARE)
    sock, session = greet(path, credential)
    laggard = asyncio.create_task(asyncio.to_thread(consume_slowly, sock, session, slow, pace))
    readers = [asyncio.create_task(consume(c, s)) for c, s in zip(agents, seen, strict=True)]
    counts: dict[tuple[int, str], int] = defaultdict(int)
    addressed = sum(
        await asyncio.gather(*(publish(client, n, plan, counts) for n, client in enumerate(agents)))
    )
    pace.free = True
    await settled([*seen, slow], agents[0])
    after = await counters(agents[0])
    pace.over = True
    await laggard
    for reader in readers:
        reader.cancel()
    for client in agents:
        client.close()
    sock.close()
    return report(plan, counts, addressed, seen, slow, before, after)


async def counters(client: AsyncClient) -> dict[str, Any]:
    """The bus's own account."""
    counted: dict[str, Any] = await client.call("bus.show")
    return counted


async def settled(seen: list[Seen], client: AsyncClient) -> None:
    """Until nothing is queued and nobody takes anything any more."""
    for _ in range(600):
        before = sum(one.taken for one in seen)
        await asyncio.sleep(1)
        queued = (await counters(client))["queued"]
        if not queued and before == sum(one.taken for one in seen):
            return
    raise SystemExit("the bus did not come to rest within ten minutes")


def report(
    plan: Plan,
    counts: dict[tuple[int, str], int],
    addressed: int,
    seen: list[Seen],
    slow: Seen,
    before: dict[str, Any],
    after: dict[str, Any],
) -> dict[str, Any]:
    """Figures and verdict; ``faults`` is empty when everything held."""
    published = sum(counts.values())
    for one in (*seen, slow):
        one.end(counts)
    everyone = [*seen, slow]
    lost = sum((one.missing for one in everyone), Counter[str]())
    reasons = {
        reason: count - before["dropped"].get(reason, 0)
        for reason, count in after["dropped"].items()
        if count > before["dropped"].get(reason, 0)
    }
    taken = sum(one.taken for one in everyone)
    faults = [
        f"{what}: {left} against {right}"
        for what, left, right in (
            ("published by plan and by agents", plan.events_each * AGENTS, published),
            ("receivers by receipt and by subscription", addressed, published * (AGENTS + 1)),
            ("published x receivers and taken + missing", addressed, taken + lost.total()),
            ("missing events and the daemon's drops", lost.total(), sum(reasons.values())),
            ("events twice or out of order", sum(one.wrong for one in everyone), 0),
            ("events missing outside realtime", lost.total() - lost["realtime"], 0),
            ("events missing at a prompt consumer", sum(one.missing.total() for one in seen), 0),
        )
        if left != right
    ]
    latency = {
        name: spread(array("L", (t for one in seen for t in one.latency_us.get(name, ()))))
        for name in ("realtime", "batched", "background")
    }
    return {
        "seconds": round(plan.events_each * plan.pause_s, 1),
        "published": published,
        "deliveries": taken,
        "latency_ms": latency,
        "missing_at_the_slow_consumer": dict(slow.missing),
        "dropped_by_the_daemon": reasons,
        "faults": faults,
    }


def spread(values: array[int]) -> dict[str, float]:
    """p50, p99, p99.9 and the largest, in milliseconds."""
    ordered = sorted(values) or [0]
    at = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return {
        name: round(ordered[min(len(ordered) - 1, int(len(ordered) * part))] / 1_000, 2)
        for name, part in at.items()
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--burst", action="store_true", help="1 000 events a second")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, Home(Path(folder)) as home:
        home.rlp("daemon", "start", timeout=300).check()
        found = asyncio.run(load(home, args.minutes, BURST_PER_MINUTE if args.burst else PER_MINUTE))
    print(json.dumps(found, indent=None if args.json else 2))
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
