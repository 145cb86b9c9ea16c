"""What a hostile peer costs its neighbours: their request/reply alone, and beside each kind of attack.

    python -m tests.bench neighbours [--rounds 5] [--calls 400] [--only 'slow loris,half frames']
                                     [--placement natural|onecore|apart]

A real daemon in a home of its own. A neighbour pings it and talks to another neighbour (publish with receipt,
delivered to a subscriber), one after the other; in every round once alone and once beside each hostile peer,
who works in its own process. Printed are p50 and p99 in microseconds, their ratio to the same round alone
(median, least and largest of the rounds), and the daemon's resident memory. On two cores the attacker, the
neighbours and the daemon share what there is: part of every ratio is the processor's, not the bus's. To tell
them apart, the CPU is printed that the attacker and the daemon took, in cores (1 is a whole one), and what
the daemon spent on one step of the attacker's beyond its work for the neighbours. ``waiting`` is an attacker
that only sleeps and wakes as often: what the scheduler alone does. ``spinning`` never speaks to it and
computes without a pause, on the daemon's core: what any busy program of the same user costs.

``--placement onecore`` puts all of them on one core, ``apart`` the attacker on another than the daemon and
the neighbours. Left to itself (``natural``) a busy scheduler moves neighbour and daemon apart, and every
wake-up across the cores of a virtual machine costs 40 to 50 microseconds, six times in an exchange.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, NamedTuple

from runloop.client import BlockingClient
from tests.home import Home
from tests.hostile_peers import HOSTILE, Hostile

PAUSE_S = 0.0005
"""Between two steps of an attacker: a process that only spins measures the scheduler."""


class Waiting(Hostile):
    """Does nothing, as often as the others do something."""

    def step(self) -> None:
        return None


class Spinning(Hostile):
    """Any other busy program: it says nothing to the daemon, and leaves its core only when made to."""

    def step(self) -> None:
        sum(range(20_000))


ATTACKERS: dict[str, Callable[[Path, bytes], Hostile]] = {
    "waiting": Waiting,
    "spinning": Spinning,
    **HOSTILE,
}


class Spent(NamedTuple):
    """What an attacker's process did so far."""

    steps: int
    cpu_s: float


def attack(
    name: str, path: str, credential: bytes, ready: Event, over: Event, spent: Any, cores: set[int]
) -> None:
    """The attacker's process: step after step until told to stop."""
    if cores:
        os.sched_setaffinity(0, cores)
    hostile = ATTACKERS[name](Path(path), credential)
    while not over.is_set():
        try:
            hostile.step()
        except OSError:
            hostile.begin()
        spent[0] += 1
        spent[1] = time.process_time()
        ready.set()
        if name != "spinning":
            time.sleep(PAUSE_S)


@contextmanager
def beside(name: str | None, path: Path, credential: bytes, cores: set[int]) -> Iterator[Callable[[], Spent]]:
    """Under attack, or (None) alone; what the attacker has spent, when asked."""
    if name is None:
        yield lambda: Spent(0, 0.0)
        return
    context = multiprocessing.get_context("fork")
    ready, over, spent = context.Event(), context.Event(), context.Array("d", 2, lock=False)
    process = context.Process(target=attack, args=(name, str(path), credential, ready, over, spent, cores))
    process.start()
    try:
        if not ready.wait(30):
            raise SystemExit(f"{name} did not begin")
        yield lambda: Spent(int(spent[0]), spent[1])
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


def cpu_s(pid: int) -> float:
    """Seconds that all threads of a process have run."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


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
    parser.add_argument("--only", default=",".join(ATTACKERS))
    parser.add_argument("--placement", choices=("natural", "onecore", "apart"), default="natural")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    theirs = {"natural": set(), "onecore": {cores[0]}, "apart": {cores[-1]}}[args.placement]
    ours = {"natural": set[int](), "onecore": {cores[0]}, "apart": {cores[0]}}[args.placement]
    if ours:
        os.sched_setaffinity(0, ours)
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
                    alone, quiet_us = None, 0.0
                    for name in (None, *args.only.split(",")):
                        with beside(name, path, key, ours if name == "spinning" else theirs) as spent:
                            began, before, cpu = time.perf_counter(), spent(), cpu_s(pid)
                            taken = measure(near, far, args.calls)
                            took, after, cpu = time.perf_counter() - began, spent(), cpu_s(pid) - cpu
                        p50, p99 = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
                        if alone is None:
                            alone, quiet_us = (p50, p99), cpu / args.calls * 1e6
                        steps = after.steps - before.steps
                        beyond_us = cpu * 1e6 - quiet_us * args.calls
                        row = figures.setdefault(name or "alone", {})
                        for key_, value in (
                            ("p50_us", p50),
                            ("p99_us", p99),
                            ("p50_to_alone", p50 / alone[0]),
                            ("p99_to_alone", p99 / alone[1]),
                            ("attacker_cores", (after.cpu_s - before.cpu_s) / took),
                            ("daemon_cores", cpu / took),
                            ("daemon_us_per_step", beyond_us / steps if steps else 0.0),
                            ("steps_per_s", steps / took),
                            ("resident_mib", resident_kib(pid) / 1024),
                        ):
                            row.setdefault(key_, []).append(value)
    shown: dict[str, Any] = {
        name: {key: spread(values) for key, values in row.items()} for name, row in figures.items()
    }
    print(
        json.dumps(
            {"rounds": args.rounds, "calls": args.calls, "placement": args.placement, **shown}, indent=2
        )
    )


if __name__ == "__main__":
    main()
