"""The durable step and the ledger as it grows.

    python -m tests.bench ledger                    everything, some five minutes
    python -m tests.bench ledger --quick            under a minute: fewer events, and ten thousand at most

A *step* decodes a MessagePack envelope of 64-300 B, looks the capability up in a cache, states one event
through the daemon's journal (validated, canonical, chained, inserted), folds it into the views, and queues
the envelope for a receiver once its event is durable. A read brings 64 envelopes, eight reads are under way,
and transactions form as in the daemon: what waits is one. "Transactions of a read" hold 64 events, with three
reads under way. The rate is of all of it: the clock stops when the views contain the last event. Measured in
the same run, interleaved: the bare insert of the same rows with the standard library's sqlite3 (no
validation, no chain, no views), and fsync. ``us`` is processor time per event, all threads: it moves less
than the rate when others work on the machine.
Median (min - max).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pog.ledger import Ledger
from pog.maintain import verify
from pog.materializer import Materializer
from pog.query import Knowledge
from pog.reader import Reader
from pog.trace import Trace
from pog.why import why
from runloop.clock import SystemClock
from runloop.digest import blob_digest
from runloop.events import (
    AgentPin,
    ArtifactCreated,
    DocumentImported,
    Draft,
    HostcallAdmitted,
    HostcallDelivered,
    MessageSent,
    ModelCalled,
    NodeScheduled,
    Payload,
    Provenance,
    RunFinished,
    RunStarted,
)
from runloopd.journal import Journal

RUN = "0b7c1d2e-0000-4000-8000-000000000001"
ZERO = "0" * 64
GROUP = 64
AHEAD = 8
"""Reads under way: what a bus has read while those before are on their way to the disk. 8 of 64 are what one
transaction of the daemon's journal may hold."""
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
        msg_id=number, size=len(body) + 60, body_digest=ZERO, node="draft", attempt=1,
    )  # fmt: skip
    return Draft(payload=sent, actor="daemon", run=RUN, provenance=Provenance(node="draft"))


class Steps:
    """Whole steps through a journal; ``views`` False leaves the fold out."""

    def __init__(
        self,
        folder: Path,
        synchronous: str,
        group: int,
        *,
        views: bool = True,
        ahead: int = AHEAD,
        most: int | None = None,
    ) -> None:
        self.ledger = Ledger.open(
            folder / "events.db",
            signing_key=Ed25519PrivateKey.generate(),
            synchronous=synchronous,
            anchor=folder / "ledger.anchor",
        )
        self.views: TimedViews | None = None
        if views:
            opened = TimedViews.open(folder / "views.db", folder / "events.db")
            assert isinstance(opened, TimedViews)
            self.views = opened
        # As the daemon makes it: what waits is one transaction. ``most`` bounds it for comparison.
        self.journal = Journal(self.ledger, self.views, SystemClock(), **({"group": most} if most else {}))
        self.group = group
        self._ahead = ahead
        self.committed: list[tuple[float, int]] = []
        self.journal.listen(lambda events: self.committed.append((time.perf_counter(), events[-1].id)))
        self._decode = msgspec.msgpack.Decoder(Envelope).decode
        self._allowed = {("writer", "intent.data.v1"): True}
        self._queue: deque[tuple[str, bytes]] = deque(maxlen=1024)

    async def run(self, bodies: list[bytes]) -> None:
        """Steps of all bodies; returns when the views contain them."""
        ahead = asyncio.Semaphore(self._ahead)
        async with asyncio.TaskGroup() as tasks:
            for start in range(0, len(bodies), self.group):
                await ahead.acquire()
                tasks.create_task(self._one_group(bodies[start : start + self.group], start, ahead))
        if self.views is not None:
            await self.journal.views_at(self.journal.head_id)

    async def _one_group(self, bodies: list[bytes], start: int, ahead: asyncio.Semaphore) -> None:
        drafts = []
        for number, body in enumerate(bodies, start):
            envelope = self._decode(body)
            if self._allowed["writer", envelope.type]:
                drafts.append(draft(envelope, body, number))
        await self.journal.append(*drafts)
        for body in bodies:
            self._queue.append(("agent/w", body))
        ahead.release()

    def lags(self) -> list[float]:
        """Seconds from an event's commit, as the loop heard of it, until the views contained it."""
        assert self.views is not None
        folds = iter(self.views.folded)
        when, cursor = next(folds)
        lags = []
        for committed, event in self.committed:
            while cursor < event:
                when, cursor = next(folds)
            lags.append(max(0.0, when - committed))
        return lags


class TimedViews(Materializer):
    """Remembers when the views were how far."""

    folded: list[tuple[float, int]]

    def catch_up(self, *, up_to: int | None = None, fresh: Any = ()) -> int:
        found = super().catch_up(up_to=up_to, fresh=fresh)
        if not hasattr(self, "folded"):
            self.folded = []
        self.folded.append((time.perf_counter(), found))
        return found


CPU: dict[str, list[float]] = {}
"""Processor time per event of the measures that note it, in microseconds."""


def step(synchronous: str, *, views: bool = True, bounded: bool = False, note: str = "") -> Measure:
    """decode + cached check + append + view + route, through the journal; steps per second.

    ``bounded``: a transaction is one read's events and no more, three reads under way (as measured first).
    """

    def measure(folder: Path, events: int, group: int) -> float:
        async def run() -> float:
            bounds: dict[str, Any] = {"ahead": 3, "most": group} if bounded else {}
            steps = Steps(folder, synchronous, group, views=views, **bounds)
            await steps.run(envelopes(group))  # threads, statements, room in the log
            bodies = envelopes(events)
            begun, cpu = time.perf_counter(), time.process_time()
            await steps.run(bodies)
            spent, cpu = time.perf_counter() - begun, time.process_time() - cpu
            if note:
                CPU.setdefault(note, []).append(cpu / events * 1e6)
            await steps.journal.close()
            return events / spent

        return asyncio.run(run())

    return measure


def single(synchronous: str) -> Measure:
    """Steps one by one, each durable before the next begins."""

    def measure(folder: Path, events: int, group: int) -> float:
        async def run() -> float:
            steps = Steps(folder, synchronous, 1)
            bodies = envelopes(max(500, events // 20))
            await steps.run(bodies[:10])
            begun = time.perf_counter()
            for body in bodies:
                await steps._one_group([body], 0, asyncio.Semaphore(0))
            spent = time.perf_counter() - begun
            await steps.journal.close()
            return len(bodies) / spent

        return asyncio.run(run())

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


def appenders(writers: int) -> Measure:
    """Concurrent appenders of one event each through the journal, views folded beside it, FULL."""

    def measure(folder: Path, events: int, group: int) -> float:
        async def run() -> float:
            steps = Steps(folder, "FULL", 1)
            body = envelopes(1)[0]
            fact = draft(msgspec.msgpack.decode(body, type=Envelope), body, 1)

            async def write(count: int) -> None:
                for _ in range(count):
                    await steps.journal.append(fact)

            begun = time.perf_counter()
            await asyncio.gather(*(write(max(20, events // 4 // writers)) for _ in range(writers)))
            rate = steps.journal.head_id / (time.perf_counter() - begun)
            await steps.journal.close()
            return rate

        return asyncio.run(run())

    return measure


MEASURES: dict[str, Measure] = {
    name: step(synchronous, views=views, bounded=bounded, note=name)
    for name, synchronous, views, bounded in (
        ("whole step with views, FULL", "FULL", True, False),
        ("whole step with views, NORMAL", "NORMAL", True, False),
        ("... without views, FULL", "FULL", False, False),
        ("... without views, NORMAL", "NORMAL", False, False),
        ("... with views, transactions of a read, FULL", "FULL", True, True),
        ("... with views, transactions of a read, NORMAL", "NORMAL", True, True),
    )
} | {
    "whole step, FULL, one by one": single("FULL"),
    "whole step, NORMAL, one by one": single("NORMAL"),
    "64 appenders of one event, FULL": appenders(64),
    "reference: bare sqlite3 insert, FULL, groups": bare("FULL"),
    "reference: bare sqlite3 insert, NORMAL, groups": bare("NORMAL"),
    "reference: 4 KiB + fdatasync": flushing,
}


# --- how far behind the views are -----------------------------------------------------------------


def view_lag(folder: Path, synchronous: str, events: int, *, pace: float | None) -> list[float]:
    """Seconds; at full speed, or ``pace`` events per second in groups of ten."""

    async def run() -> list[float]:
        steps = Steps(folder, synchronous, GROUP if pace is None else 10)
        bodies = envelopes(events)
        if pace is None:
            await steps.run(bodies)
        else:
            begun = time.perf_counter()
            for start in range(0, events, 10):
                await asyncio.sleep(max(0.0, begun + start / pace - time.perf_counter()))
                await steps._one_group(bodies[start : start + 10], start, asyncio.Semaphore(0))
        await steps.journal.close()
        return steps.lags()

    return asyncio.run(run())


# --- a ledger that grows --------------------------------------------------------------------------

WORDS = [f"w{number:x}ord" for number in range(4096)]
PIN = AgentPin(
    name="writer",
    version="1",
    variant="",
    bundle_digest="b" * 64,
    component_digest="c" * 64,
    language="python",
)


def run_name(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000001"


def artifact_of(number: int) -> str:
    return blob_digest(b"artifact %d" % number)


def arguments(number: int, call: int) -> bytes:
    """What a host call of a life asks, and hears: the bytes that are kept beside its events."""
    return b'{"path":"/home/me/notes/%d-%d.md","text":"%s"}' % (number, call, b"lorem ipsum " * 12)


def blobs_of(number: int) -> list[bytes]:
    return [b"{}", b"artifact %d" % number, *(arguments(number, call) for call in range(15))]


def life(number: int, first: int, chance: random.Random) -> Iterator[Draft]:
    """Fifty events of one run and what it learnt; ``first`` is the ledger id of the first of them."""
    run, agent = run_name(number), "agent:writer"

    def fact(payload: Payload, *causes: int, actor: str = "daemon", **stamp: Any) -> Draft:
        place = Provenance(causes=tuple(first + cause for cause in causes), node="draft", attempt=1, **stamp)
        return Draft(payload=payload, actor=actor, run=run, provenance=place)

    nothing = blob_digest(b"{}")
    text = " ".join(WORDS[min(4095, int(chance.paretovariate(0.6)))] for _ in range(48))
    note = DocumentImported(
        document=f"d{number}", type="note", title=f"note {number}", text=text, content_digest=ZERO
    )
    yield Draft(payload=note, actor="operator:1", provenance=Provenance(label="import:note"))
    yield fact(
        RunStarted(
            opening="compose_email", definition={"nodes": []}, definition_digest=ZERO, params={"n": number},
            agents={"draft": PIN}, engine={"logic": 1}, policy={}, principal="operator:1",
            origin={"via": "rlp", "prompt": f"mail {number}"},
        )
    )  # fmt: skip
    yield fact(NodeScheduled(node="draft", attempt=1, key="k", input_digest=nothing, input_blob=nothing), 1)
    for call in range(15):
        place: dict[str, Any] = {
            "node": "draft",
            "attempt": 1,
            "call": call,
            "op": "files.write",
            "effect": "write",
        }
        asked = blob_digest(arguments(number, call))
        yield fact(
            HostcallAdmitted(
                **place, key=asked, args_digest=asked, args_blob=asked, request_bytes=200, fuel=10 * call
            ),
            2,
        )
        yield fact(
            HostcallDelivered(
                **place, args_digest=asked, args_blob=asked, ok=True, result_digest=asked, result_blob=asked,
                request_bytes=200, response_bytes=100, fuel=10 * call,
            ),
            3 + 3 * call,
            2,
        )  # fmt: skip
        yield fact(
            MessageSent(
                sender=agent, receiver="daemon", topic="agent/w", type="intent.data.v1", schema_id=1,
                msg_id=number * 100 + call, size=300, body_digest=asked, node="draft", attempt=1,
            ),
            4 + 3 * call,
        )  # fmt: skip
    yield fact(
        ModelCalled(
            node="draft", attempt=1, call=15, provider="rules", model="template", generated=False,
            request_digest=ZERO, answer_digest=ZERO, input_tokens=9, output_tokens=9, estimated=False,
            reserved_micro_usd=0, cost_micro_usd=0, price_version="1", finish="stop",
        ),
        46,
    )  # fmt: skip
    yield fact(
        ArtifactCreated(
            name="a.md", node="draft", port="out", media_type="text/plain", blob=artifact_of(number), size=9
        ),
        48, 46,
    )  # fmt: skip
    yield fact(RunFinished(outcome="succeeded", clause=None, outputs={}, output_digest=ZERO), 49)


LIFE = 51


class Grown:
    """A ledger that is filled further and further."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lives = 0
        self._chance = random.Random(4)

    @property
    def events(self) -> int:
        return self.lives * LIFE

    def grow(self, to: int) -> tuple[list[float], list[float]]:
        """Live until there are ``to`` events, views abreast. Microseconds per event of the last two hundred
        lives, each one transaction: of the append, and of the fold."""
        lives = to // LIFE - self.lives
        appends: deque[float] = deque(maxlen=200)
        folds: deque[float] = deque(maxlen=200)
        with (
            Ledger.open(
                self.folder / "events.db", signing_key=Ed25519PrivateKey.from_private_bytes(b"k" * 32),
                synchronous="NORMAL",
            ) as ledger,
            Materializer.open(self.folder / "views.db", self.folder / "events.db") as views,
        ):  # fmt: skip
            for _ in range(lives):
                facts = list(life(self.lives, self.events + 1, self._chance))
                kept = blobs_of(self.lives)
                begun = time.perf_counter()
                events = ledger.append(facts, kept)
                appended = time.perf_counter()
                views.catch_up(fresh=events)
                appends.append((appended - begun) / LIFE * 1e6)
                folds.append((time.perf_counter() - appended) / LIFE * 1e6)
                self.lives += 1
                if self.lives % 100 == 0:
                    ledger.checkpoint()
        return list(appends), list(folds)

    def ask(self, times: int) -> dict[str, list[float]]:
        """Seconds each question took."""
        found: dict[str, list[float]] = {}
        chance = random.Random(7)

        def timed(name: str, ask: Callable[[], Any]) -> None:
            for _ in range(times):
                begun = time.perf_counter()
                assert ask() is not None
                found.setdefault(name, []).append(time.perf_counter() - begun)

        with (
            Reader(self.folder / "events.db") as reader,
            Trace.open(self.folder / "trace.db", reader) as trace,
            Knowledge(self.folder / "views.db", reader, time_cap_ms=60_000) as knowledge,
        ):
            trace.catch_up()

            def some() -> int:
                return chance.randrange(self.lives)

            def why_artifact() -> Any:
                explained = why(reader, artifact_of(some()), trace)
                assert len(explained.hops) >= 5
                return explained

            timed("why, an artifact by its digest", why_artifact)
            timed("why, an event by its id", lambda: why(reader, (some() + 1) * LIFE - 1, trace))
            timed(
                "kb query, one run's nodes and calls",
                lambda: knowledge.query(
                    "SELECT nodes.state, count(*) FROM nodes JOIN hostcalls USING (run, node) WHERE run = ?",
                    (run_name(some()),),
                ),
            )
            timed(
                "kb query, all runs counted by state",
                lambda: knowledge.query("SELECT state, count(*) FROM runs GROUP BY state"),
            )
            timed(
                "kb search, a rare word",
                lambda: knowledge.search(WORDS[chance.randrange(1500, 4000)]),
            )
            timed(
                "kb search, two common words",
                lambda: knowledge.search(
                    f"{WORDS[chance.randrange(4, 20)]} {WORDS[chance.randrange(4, 20)]}"
                ),
            )
        return found

    def bytes_per_event(self) -> dict[str, float]:
        return {
            name: (self.folder / name).stat().st_size / self.events
            for name in ("events.db", "views.db", "trace.db")
        }


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.bench.bench_ledger import draft, envelopes, Envelope
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pog.ledger import Ledger
key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
ledger = Ledger.open(sys.argv[1], synchronous="NORMAL", signing_key=key)
ledger._connection.execute("PRAGMA wal_autocheckpoint = 0")
body = envelopes(1)[0]
fact = draft(msgspec.msgpack.decode(body, type=Envelope), body, 1)
log = Path(sys.argv[1] + "-wal")
while not log.exists() or log.stat().st_size < int(sys.argv[2]):
    ledger.append([fact] * 64)
print(ledger.head.id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def recovery(folder: Path, log_bytes: int) -> tuple[float, float, float]:
    """Milliseconds: the writer opens after kill -9; its first append; the reader's first question."""
    script = [sys.executable, "-c", KILLED, str(folder / "events.db"), str(log_bytes)]
    killed = subprocess.run(script, stdout=subprocess.PIPE, check=False)
    assert killed.returncode == -signal.SIGKILL
    begun = time.perf_counter()
    with Ledger.open(folder / "events.db", synchronous="NORMAL") as ledger:
        opened = time.perf_counter()
        assert ledger.head.id == int(killed.stdout), "an acknowledged event is lost"
        with Reader(folder / "events.db") as reader:
            assert reader.event(ledger.head.id).id == ledger.head.id
        read = time.perf_counter()
        body = envelopes(1)[0]
        ledger.append([draft(msgspec.msgpack.decode(body, type=Envelope), body, 1)])
        return (opened - begun) * 1e3, (time.perf_counter() - read) * 1e3, (read - opened) * 1e3


# --- the report -----------------------------------------------------------------------------------


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f}  ({min(values):,.0f} - {max(values):,.0f})"


def quantiles(values: list[float], times: float = 1e3) -> str:
    ordered = sorted(values)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * q))] * times for q in (0.5, 0.99))
    return f"{p50:.2f} / {p99:.2f}"


def rates(args: argparse.Namespace) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    for _ in range(args.rounds):
        for name, measure in MEASURES.items():
            with tempfile.TemporaryDirectory(prefix=".bench-", dir=args.dir) as folder:
                found[name].append(measure(Path(folder), args.events, args.group))
    print(f"\nper second, {args.events} events, {args.group} in a read, {args.rounds} rounds: median (range)")
    for name, values in found.items():
        cpu = f"   {statistics.median(CPU[name]):.1f} us" if name in CPU else ""
        print(f"{name:46} {spread(values):>32}{cpu}", flush=True)
    return found


def lags(args: argparse.Namespace) -> dict[str, list[float]]:
    found = {}
    print("\nview lag, ms from the commit until the views contain it: p50 / p99")
    for name, synchronous, events, pace in (
        ("at full speed, NORMAL", "NORMAL", args.events, None),
        ("at full speed, FULL", "FULL", args.events, None),
        ("1 000 events/s in tens, FULL", "FULL", 2_000, 1_000.0),
    ):
        with tempfile.TemporaryDirectory(prefix=".bench-", dir=args.dir) as folder:
            found[name] = view_lag(Path(folder), synchronous, events, pace=pace)
        print(f"{name:46} {quantiles(found[name]):>20}", flush=True)
    return found


def growth(args: argparse.Namespace) -> dict[str, Any]:
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=args.dir) as folder:
        grown = Grown(Path(folder))
        for size in args.sizes:
            print(f"\na ledger of {size:,} events (runs of {LIFE} events of 10 kinds)", flush=True)
            appends, folds = grown.grow(size)
            for name, values in (("append", appends), ("fold", folds)):
                label = f"{name}, us per event in transactions of {LIFE}, p50 / p99"
                print(f"{label:58} {quantiles(values, 1):>18}")
            answers = grown.ask(args.questions)
            for name, seconds in answers.items():
                print(f"{name + ', ms p50 / p99':58} {quantiles(seconds):>18}", flush=True)
            each = grown.bytes_per_event()
            print(f"{'bytes per event':58} " + ", ".join(f"{name} {size:.0f}" for name, size in each.items()))
            table[str(size)] = {"append": appends, "fold": folds, "answers": answers, "bytes": each}
        table["whole"] = whole(grown)
    return table


def whole(grown: Grown) -> dict[str, float]:
    begun = time.perf_counter()
    assert verify(grown.folder / "events.db").ok
    verified = grown.events / (time.perf_counter() - begun)
    with Materializer.open(grown.folder / "views.db", grown.folder / "events.db") as views:
        begun = time.perf_counter()
        views.rebuild()
        rebuilt = grown.events / (time.perf_counter() - begun)
    begun = time.perf_counter()
    with Reader(grown.folder / "events.db") as reader:
        read = sum(1 for _ in reader.events()) / (time.perf_counter() - begun)
    print(f"{'verify / rebuild / read, per second':50} {verified:,.0f} / {rebuilt:,.0f} / {read:,.0f}")
    return {"verify": verified, "rebuild": rebuilt, "read": read}


def recoveries(args: argparse.Namespace) -> dict[str, list[tuple[float, float, float]]]:
    found: dict[str, list[tuple[float, float, float]]] = {}
    print("\nafter kill -9, ms: the writer opens / first question / first append (median)")
    for megabytes in (1, 16, 64):
        for _ in range(args.rounds):
            with tempfile.TemporaryDirectory(prefix=".bench-", dir=args.dir) as folder:
                found.setdefault(str(megabytes), []).append(recovery(Path(folder), megabytes << 20))
        opened, append, question = (
            statistics.median(values) for values in zip(*found[str(megabytes)], strict=True)
        )
        name = f"log of {megabytes} MiB"
        print(f"{name:46} {opened:>8.1f} / {question:.1f} / {append:.1f}", flush=True)
    return found


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--only", choices=("rates", "lag", "growth", "recovery"))
    parser.add_argument("--events", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--group", type=int, default=GROUP)
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="a folder on the disk that is meant")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    args = parser.parse_args(argv)
    args.events = args.events or (20_000 if args.quick else 64_000)
    args.rounds = args.rounds or (2 if args.quick else 5)
    args.sizes = args.sizes or ([10_000] if args.quick else [10_000, 100_000, 1_000_000])
    print(f"SQLite {sqlite3.sqlite_version}")
    parts: dict[str, Callable[[argparse.Namespace], Any]] = {
        "rates": rates,
        "lag": lags,
        "growth": growth,
        "recovery": recoveries,
    }
    measured = {name: part(args) for name, part in parts.items() if args.only in (None, name)}
    if args.json:
        args.json.write_text(json.dumps(measured))


if __name__ == "__main__":
    main(sys.argv[1:])
