"""Agents' memory as it grows: what a daemon holds of it, and what one call costs; and imports, again.

    python -m tests.bench memory                    a million entries, some three minutes
    python -m tests.bench memory --entries 100000   less

For each size the ledger is filled, the views are folded, and a fresh process opens the memory as a daemon
does when it starts: its resident memory before and after, the time to open, and the time of a ``get`` and of
a claimed ``put`` of random keys. ``all in memory`` is what this build does not do: the same entries in a
dictionary, folded from the ledger. Processor time would say less here: a call waits for one page at most.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pog.importers import Import
from pog.ledger import Ledger
from pog.materializer import Materializer
from pog.memory import Memory
from pog.reader import Reader
from runloop.events import Draft, MemoryUpdated
from runloop.testing import ManualClock

GROUP = 1_000
SPACES = 10
CALLS = 2_000
CONTACTS = 20_000


def fill(home: Path, start: int, count: int) -> None:
    """State ``count`` entries and fold them."""
    with Ledger.open(
        home / "events.db", signing_key=None, clock=ManualClock(), synchronous="NORMAL"
    ) as ledger:
        for group in range(start, start + count, GROUP):
            drafts = [
                Draft(
                    payload=MemoryUpdated(
                        namespace=f"agent:a{n % SPACES}",
                        key=f"k{n}",
                        value={"n": n, "text": f"what was learnt of {n}", "tags": ["a", "b"]},
                        entry_version=1,
                    ),
                    actor="bench",
                )
                for n in range(group, min(group + GROUP, start + count))
            ]
            ledger.append(drafts)
    with Materializer.open(home / "views.db", home / "events.db") as views:
        views.catch_up()


def resident() -> int:
    """KiB of memory that are this process's own."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return int(next(row.split()[1] for row in rows if row.startswith("VmRSS")))


def look(home: Path, entries: int, held: bool) -> dict[str, Any]:
    """In a process of its own: open, and ask."""
    before, begun = resident(), time.perf_counter()
    if held:
        with Reader(home / "events.db") as reader:
            kept = {
                (e.payload.namespace, e.payload.key): e.payload  # type: ignore[attr-defined]
                for e in reader.events(kinds={MemoryUpdated.kind})
            }
        return {"kib": resident() - before, "open_ms": (time.perf_counter() - begun) * 1e3, "n": len(kept)}
    memory = Memory(home / "views.db", lambda: entries)
    space = memory.put("agent:a1", "new", 1).after
    opened = (time.perf_counter() - begun) * 1e3
    dice = random.Random(4)
    gets, puts = [], []
    for _ in range(CALLS):
        n = dice.randrange(entries)
        begun = time.perf_counter()
        memory.get(f"agent:a{n % SPACES}", f"k{n}")
        gets.append((time.perf_counter() - begun) * 1e6)
        begun = time.perf_counter()
        memory.put(f"agent:a{n % SPACES}", f"k{n}", 1, 1).end()
        puts.append((time.perf_counter() - begun) * 1e6)
    return {
        "kib": resident() - before,
        "open_ms": opened,
        "keys": space.keys,
        "get": [statistics.median(gets), sorted(gets)[int(CALLS * 0.99)]],
        "put": [statistics.median(puts), sorted(puts)[int(CALLS * 0.99)]],
    }


def in_a_process(home: Path, entries: int, held: bool) -> dict[str, Any]:
    words = ["--look", str(home), str(entries), *(["held"] if held else [])]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_memory", *words], check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def imports() -> None:
    """How fast tables are read; the second reading is what a re-import costs before anything is asked."""
    with tempfile.TemporaryDirectory() as folder:
        rows = (f"Ann,N{n},ann{n}@example.org,+1 {n},Acme\n" for n in range(CONTACTS))
        path = Path(folder) / "book.csv"
        path.write_text(
            "First Name,Last Name,E-mail 1 - Value,Phone 1 - Value,Organization Name\n" + "".join(rows)
        )
        begun = time.process_time()
        count = sum(1 for _ in Import(lambda _: None).items([path]))
        took = time.process_time() - begun
        print(f"csv: {count} contacts read in {took:.2f} s of processor time, {count / took:,.0f}/s")


def main(argv: list[str]) -> int:
    if argv[:1] == ["--look"]:
        print(json.dumps(look(Path(argv[1]), int(argv[2]), argv[3:] == ["held"])))
        return 0
    parser = argparse.ArgumentParser()
    parser.add_argument("--entries", type=int, default=1_000_000)
    most = parser.parse_args(argv).entries
    titles = ("memory held", "all in memory", "open", "get p50/p99", "put p50/p99")
    print("  entries" + "".join(f"{title:>15}" for title in titles))
    with tempfile.TemporaryDirectory() as folder:
        home, there = Path(folder), 0
        for entries in (most // 100, most // 10, most):
            fill(home, there, entries - there)
            there = entries
            ours, held = in_a_process(home, entries, False), in_a_process(home, entries, True)
            cells = [
                f"{ours['kib'] / 1024:.1f} MiB",
                f"{held['kib'] / 1024:.1f} MiB",
                f"{ours['open_ms']:.1f} ms",
                *("/".join(f"{us:.0f}" for us in ours[call]) + " us" for call in ("get", "put")),
            ]
            print(f"{entries:>9}" + "".join(f"{cell:>15}" for cell in cells), flush=True)
    imports()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
