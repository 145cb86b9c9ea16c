"""What a hostile peer costs its neighbours: their request/reply alone, and beside each kind of attack.

    python -m tests.bench neighbours [--rounds 5] [--calls 400]

A real daemon in a home of its own. A neighbour pings it and talks to another neighbour (publish with receipt,
delivered to a subscriber), one after the other; in every round once alone and once beside each hostile peer,
who works in its own process. Printed are p50 and p99 in microseconds, their ratio to the same round alone
(median, least and largest of the rounds), and the daemon's resident memory. On two cores the attacker, the
neighbours and the daemon share what there is: part of every ratio is the processor's, not the bus's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from runloop.client import BlockingClient
from tests.home import Home
from tests.hostile_peers import HOSTILE


def attack(name: str, path: str, credential: bytes, ready: Event, over: Event) -> None:
    """The attacker's process: step after step until told to stop."""
    hostile = HOSTILE[name](Path(path), credential)
    while not over.is_set():
        try:
            hostile.step()
        except OSError:
            hostile.begin()
        ready.set()
        time.sleep(0.0005)  # a process that only spins measures the scheduler


@contextmanager
def beside(name: str | None, path: Path, credential: bytes) -> Iterator[None]:
    """Under attack, or (None) alone."""
    if name is None:
        yield
        return
    context = multiprocessing.get_context("fork")
    ready, over = context.Event(), context.Event()
    process = context.Process(target=attack, args=(name, str(path), credential, ready, over))
    process.start()
    try:
        if not ready.wait(30):
            raise SystemExit(f"{name} did not begin")
        yield
    finally:
        over.set()
        process.join(10)
        if process.is_alive():
            process.kill()


def measure(near: BlockingClient, far: BlockingClient, calls: int) -> list[float]:
    """Microseconds of each exchange: a ping, and a message that is delivered."""
    taken = []
    for number in range(calls):
        began = time.perf_counter()
        near.ping(timeout_s=60)
        near.publish("quiet/talk", "observation.generic.v1", number, timeout_s=60)
        heard = far.next_delivery(60)
        taken.append((time.perf_counter() - began) * 1e6)
        if heard is None or heard.payload != number:
            raise SystemExit(f"a neighbour lost message {number}")
    return sorted(taken)


def resident_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=400)
    args = parser.parse_args()
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="bn") as folder:
        place = Path(folder)
        place.chmod(0o700)
        with Home(place) as home:
            home.env["RUNLOOP__BUS__DURABLE_BYTES"] = "50000000"
            home.rlp("daemon", "start", timeout=300).check()
            while not home.agents_ready():
                time.sleep(0.2)  # the compiler is no neighbour
            pid = home.pid()
            assert pid is not None
            path, key = place / "run" / "rmp.sock", (place / "keys" / "operator.key").read_bytes()
            with BlockingClient.connect(path, key) as near, BlockingClient.connect(path, key) as far:
                far.subscribe("quiet/*")
                measure(near, far, 200)
                for _ in range(args.rounds):
                    alone = None
                    for name in (None, *HOSTILE):
                        with beside(name, path, key):
                            taken = measure(near, far, args.calls)
                        p50, p99 = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
                        alone = alone or (p50, p99)
                        row = figures.setdefault(name or "alone", {})
                        for key_, value in (
                            ("p50_us", p50),
                            ("p99_us", p99),
                            ("p50_to_alone", p50 / alone[0]),
                            ("p99_to_alone", p99 / alone[1]),
                            ("resident_mib", resident_kib(pid) / 1024),
                        ):
                            row.setdefault(key_, []).append(value)
    shown: dict[str, Any] = {
        name: {key: spread(values) for key, values in row.items()} for name, row in figures.items()
    }
    print(json.dumps({"rounds": args.rounds, "calls": args.calls, **shown}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
