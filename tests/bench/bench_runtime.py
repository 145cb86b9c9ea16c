"""Cold start and memory of isolated guests.

Cold start is counted from the order (what the bus message becomes) to the first host call as the daemon sees
it: the guest has been forked, sandboxed, instantiated and has run its first instructions by then. ``python -m
tests.bench runtime``.
"""

from __future__ import annotations

import asyncio
import json
import lzma
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runloopd.broker.calls import Answer, HostCall
from runloopd.runtime.supervisor import AttemptOrder, GuestLimits, Runtime
from tests.unit.runtime.guests import calling

RUNNER = Path(__file__).parents[2] / "sdk" / "runner" / "runner.wasm.xz"
RUN = "0b7c0b7c-0000-4000-8000-000000000001"
SOURCE = """
from runloop.agent import handler

@handler
def handle(task, host):
    host.now_ms()
    return {"ports": {}}
"""
INPUT = {
    "op": "handle",
    "message": {"type": "intent.generic.v1", "payload": {}, "meta": {}},
    "ports": {},
    "with": {},
    "context": {"agent": "bench", "node": "n", "attempt": 1, "run": RUN, "trace_id": RUN},
}


class FirstCall:
    """Notes when the first host call arrived; answers at once, or when told to."""

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        self.at = 0.0
        self.arrived = asyncio.Event()
        self._gate = gate

    async def answer(self, call: HostCall) -> Answer:
        self.at = self.at or time.perf_counter()
        self.arrived.set()
        if self._gate is not None:
            await self._gate.wait()
        return Answer(ok=True, value={"now_ms": 1})


def spread(label: str, seconds: list[float]) -> None:
    ms = sorted(1000 * value for value in seconds)
    p99 = ms[min(len(ms) - 1, int(len(ms) * 0.99))]
    print(
        f"{label:<66} min {ms[0]:.2f}  p50 {statistics.median(ms):.2f}  p99 {p99:.2f}  max {ms[-1]:.2f} ms"
        f"  (n={len(ms)})"
    )


def order(component: str, source: dict[str, str] | None) -> AttemptOrder:
    return AttemptOrder(
        run=RUN,
        node="n",
        attempt=1,
        component_digest=component,
        source=source,
        entrypoint="agent:handle",
        input=INPUT,
        limits=GuestLimits(),
    )


async def cold_starts(
    runtime: Runtime, what: AttemptOrder, count: int, *, spare: bool = False
) -> tuple[list[float], list[float]]:
    first, whole = [], []
    for _ in range(count):
        while spare and not runtime._spares:
            await asyncio.sleep(0.001)
        answerer = FirstCall()
        began = time.perf_counter()
        result = await runtime.run_attempt(what, answerer)
        whole.append(time.perf_counter() - began)
        assert result.ok, result
        first.append(answerer.at - began)
    return first, whole


def private_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


async def resident(runtime: Runtime, what: AttemptOrder, count: int) -> list[int]:
    gate = asyncio.Event()
    answerers = [FirstCall(gate) for _ in range(count)]
    attempts = [asyncio.create_task(runtime.run_attempt(what, answerer)) for answerer in answerers]
    await asyncio.wait_for(asyncio.gather(*(answerer.arrived.wait() for answerer in answerers)), 120)
    sizes = [private_kib(worker.pid) for worker in runtime._workers]
    gate.set()
    await asyncio.gather(*attempts)
    return sizes


async def bench(scratch: Path) -> None:
    runner = scratch / "runner.wasm"
    runner.write_bytes(lzma.decompress(RUNNER.read_bytes()))
    small = scratch / "small.wasm"
    small.write_bytes(calling("time.now", "{}"))

    runtime = Runtime(cache_dir=scratch / "cache", mac_key=b"b" * 32, max_spares=0)
    began = time.perf_counter()
    await runtime.start()
    print(
        f"runtime start, zygote and four probes of the sandbox: {1000 * (time.perf_counter() - began):.0f} ms"
    )
    agents = []
    for name, path, source in (
        ("C-sized component", small, None),
        ("Python source", runner, {"agent": SOURCE}),
    ):
        began = time.perf_counter()
        component = await runtime.prepare(path)
        print(f"prepare {name}, nothing in the cache: {1000 * (time.perf_counter() - began):.0f} ms")
        agents.append((name, path, order(component, source)))
    for name, _, what in agents:
        await cold_starts(runtime, what, 5)
        first, whole = await cold_starts(runtime, what, 200)
        spread(f"{name}: order to first host call", first)
        spread(f"{name}: order to result", whole)
    for name, _, what in agents:
        try:
            sizes = await resident(runtime, what, 20)
        except PermissionError:
            print(f"{name}: private memory needs root to read (workers are not dumpable)")
            continue
        print(
            f"{name}: private memory per agent blocked in a host call:"
            f" p50 {statistics.median(sizes) / 1024:.2f}, max {max(sizes) / 1024:.2f} MiB (n={len(sizes)})"
        )
    began = time.perf_counter()
    gate = [runtime.run_attempt(agents[1][2], FirstCall()) for _ in range(100)]
    await asyncio.gather(*gate)
    print(f"Python source: {100 / (time.perf_counter() - began):.0f} attempts per second, all at once")
    await runtime.close()

    warm = []
    for _ in range(5):
        runtime = Runtime(cache_dir=scratch / "cache", mac_key=b"b" * 32)
        await runtime.start()
        began = time.perf_counter()
        await runtime.prepare(runner)
        warm.append(time.perf_counter() - began)
        await runtime.close()
    runtime = Runtime(cache_dir=scratch / "cache", mac_key=b"b" * 32, max_spares=1)
    await runtime.start()
    for name, path, what in agents:
        await runtime.prepare(path)
        await cold_starts(runtime, what, 1)
        first, _ = await cold_starts(runtime, what, 200, spare=True)
        spread(f"{name}, a spare worker ready: order to first host call", first)
    await runtime.close()
    spread("prepare the Python runner from the cache, new daemon", warm)


def reference() -> None:
    """The named reference: a fresh interpreter that imports the engine, per agent."""
    times = []
    for _ in range(10):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-c", "import wasmtime.component"], check=True)
        times.append(time.perf_counter() - began)
    spread("reference: a fresh interpreter that imports wasmtime", times)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="rl-bench") as scratch:
        asyncio.run(bench(Path(scratch)))
    reference()
    print(json.dumps({"load": os.getloadavg()}))


if __name__ == "__main__":
    main()
