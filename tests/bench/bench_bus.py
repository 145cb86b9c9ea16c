"""How fast is the bus? Frames through the Unix socket, every byte of every delivery compared.

    python -m tests.bench.bench_bus [--rounds 5] [--seconds 0.4] [--sizes 64,1024] [--only uvloop+native]

Four of ours take turns: asyncio or uvloop, Python or the compiled step (``RUNLOOP_NATIVE``). Broker and load
generator (``tests/bench/load``, in C, window of 4096 messages and 2 MiB) are pinned to the same core, so
frames/s contain the generator's own work; broker CPU (schedstat, all threads) does not. Payloads are bytes;
``map`` rows carry the same bytes as a value of a map. Pipelined: 1→1, 1→8, 8→8, 1→8 topics; ``call`` is
ping-pong, there and back. ``python -m tests.bench peers`` does the same with Redis, NATS and others.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from runloop.rmp.envelope import encode_message
from tests.bench.load import brokers, generator, wire
from tests.bench.load.build import Unavailable

OURS = {
    "asyncio": ("asyncio", "0"),
    "uvloop": ("uvloop", "0"),
    "asyncio+native": ("asyncio", "1"),
    "uvloop+native": ("uvloop", "1"),
}
MAP = "map"


class MapRmp(wire.Rmp):
    """Payloads that are maps of an agent's kind, the generator's bytes among the values."""

    def published(self, topic: str, size: int) -> wire.Frame:
        known = self._frames.get((topic, size))
        if known is None:
            payload = {"seq": 7, "kind": "tick", "ok": True, "at": 1.5, "data": b"\xa5" * size}
            whole = encode_message(
                "observation.generic.v1",
                payload,
                msg_id=self.first_id,
                now_ms=time.time_ns() // 1_000_000,
                topic=topic,
                ttl_ms=600_000,
            )
            at = whole.index(b"\xa5" * size)
            known = wire.Frame(whole[:at], whole[at + size :], f"56:b8:{self.first_id}")
            self._frames[topic, size] = known
        return known


@contextlib.contextmanager
def serving(loop: str, native: str, core: int, shape: str) -> Iterator[tuple[wire.Wire, list[int]]]:
    """One of ours, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "run" / "s"
        path.parent.mkdir(mode=0o700)
        argv = [sys.executable, "-m", "tests.bench.load.serve", os.fspath(path), loop]
        env = {"RUNLOOP_NATIVE": native, "PYTHONPATH": brokers.PYTHONPATH}
        with brokers.run(argv, folder=folder, core=core, env=env) as process:
            yield (MapRmp if shape == MAP else wire.Rmp)(path), [process.pid]


def idlest() -> int:
    """The core that did least in a tenth of a second."""

    def idle() -> dict[int, int]:
        rows = (line.split() for line in Path("/proc/stat").read_text().splitlines())
        return {int(row[0][3:]): int(row[4]) for row in rows if row[0][:3] == "cpu" and row[0] != "cpu"}

    before = idle()
    time.sleep(0.1)
    after = idle()
    return max(os.sched_getaffinity(0), key=lambda core: after[core] - before[core])


def spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--sizes", default="64,256,1024,65536")
    parser.add_argument("--patterns", default=",".join(generator.PATTERNS))
    parser.add_argument("--only", default=",".join(OURS))
    parser.add_argument("--shapes", default=f"bytes,{MAP}")
    args = parser.parse_args()
    ours = {name: OURS[name] for name in args.only.split(",")}
    cells = [
        (pattern, int(size), shape)
        for shape in args.shapes.split(",")
        for size in args.sizes.split(",")
        for pattern in args.patterns.split(",")
        if shape != MAP or (size == "64" and pattern in ("1→1", "call"))
    ]
    rows: dict[tuple[str, int, str, str], list[dict[str, float]]] = {}
    for _ in range(args.rounds):
        for pattern, size, shape in cells:
            for name, (loop, native) in ours.items():
                core = idlest()
                try:
                    with serving(loop, native, core, shape) as (spoken, pids):
                        result = generator.measure(
                            spoken, pattern, size, pids=pids, core=core, measure_s=args.seconds
                        )
                except Unavailable as why:
                    raise SystemExit(f"bench: {why}") from None
                rows.setdefault((pattern, size, shape, name), []).append(result)
    head = ("thousand/s", "broker us", "p50 us")
    print(
        f"{'pattern':<11}{'payload':>10} {'ours':<15}" + "".join(f"{one:>24}" for one in head) + f"{'p99':>9}"
    )
    for (pattern, size, shape, name), results in rows.items():
        cpu = spread([one["cpu_us"] for one in results], 3)
        rate = spread([one["per_s"] / 1e3 for one in results], 1)
        line = f"{pattern:<11}{size:>6} {shape[:3]} {name:<15}{rate:>24}{cpu:>24}"
        if pattern == "call":
            line += f"{spread([one['p50_us'] for one in results], 1):>24}"
            line += f"{statistics.median(one['p99_us'] for one in results):>9.1f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
