"""Cold start and memory of isolated guests.

Cold start is counted from the order (what the bus message becomes) to the first host call as the daemon sees
it: the guest has been forked, sandboxed, instantiated and has run its first instructions by then. ``python -m
tests.bench runtime``.

Memory is counted twice: as it is, one process per agent, and as it would be if instances shared one worker
(each on a thread of its own; nothing in the house does that).
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
import threading
import time
from pathlib import Path
from typing import NamedTuple

from runloop.digest import blob_digest, canonical
from runloopd.broker.calls import Answer, HostCall
from runloopd.runtime.supervisor import AttemptOrder, GuestLimits, Runtime, _spare_key
from tests.unit.runtime.guests import calling

RUNNER = Path(__file__).parents[2] / "sdk" / "runner" / "runner.wasm.xz"
RUNNER_JS = Path(__file__).parents[2] / "sdk" / "js" / "runner" / "runner.wasm.xz"
RUN = "0b7c0b7c-0000-4000-8000-000000000001"
SOURCE = """
from runloop.agent import handler

@handler
def handle(task, host):
    host.now_ms()
    return {"ports": {}}
"""
SOURCE_JS = """
exports.handle = (task, host) => {
  host.nowMs();
  return {};
};
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


def spread(label: str, seconds: list[float], unit: str = "ms") -> None:
    """One line: the least, the median, the 99th percentile, the most. ``unit``: s, ms or µs."""
    made = sorted(value * {"s": 1, "ms": 1e3, "µs": 1e6}[unit] for value in seconds)
    p99 = made[min(len(made) - 1, int(len(made) * 0.99))]
    print(
        f"{label:<66} min {made[0]:.2f}  p50 {statistics.median(made):.2f}  p99 {p99:.2f}"
        f"  max {made[-1]:.2f} {unit}  (n={len(made)})",
        flush=True,
    )


def order(component: str, source: dict[str, str] | None, entrypoint: str = "agent:handle") -> AttemptOrder:
    return AttemptOrder(
        run=RUN,
        node="n",
        attempt=1,
        component_digest=component,
        source=source,
        entrypoint=entrypoint,
        input=INPUT,
        limits=GuestLimits(),
    )


async def spare_ready(runtime: Runtime, what: AttemptOrder) -> None:
    """Wait until a worker stands ready for such an order; one was executed before."""
    while _spare_key(what) not in runtime._spares:
        await asyncio.sleep(0.001)


async def cold_starts(
    runtime: Runtime, what: AttemptOrder, count: int, *, spare: bool = False
) -> tuple[list[float], list[float]]:
    first, whole = [], []
    for _ in range(count):
        if spare:
            await spare_ready(runtime, what)
        answerer = FirstCall()
        began = time.perf_counter()
        result = await runtime.run_attempt(what, answerer)
        whole.append(time.perf_counter() - began)
        assert result.ok, result
        first.append(answerer.at - began)
    return first, whole


class Weight(NamedTuple):
    """KiB of one process that no other process maps."""

    own: int
    """What every process like this has for itself."""
    code: int
    """Compiled code and data that only it has touched so far; a second agent of the kind shares them."""


def weight(pid: int) -> Weight:
    """``private_kib``, told apart: pages of the compiled image that nobody has written are code."""
    total = code = private = 0
    image = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, rest = line.split(maxsplit=1)
        if not name.endswith(":"):
            image, private = "/memfd:" in rest, 0
        elif name in ("Private_Clean:", "Private_Dirty:"):
            private += int(rest.split()[0])
        elif name == "Anonymous:":
            total += private
            code += max(0, private - int(rest.split()[0])) if image else 0
    return Weight(total - code, code)


def private_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))


def available_kib() -> int:
    """What the machine could still give, by its own account."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


async def resident(runtime: Runtime, what: AttemptOrder, count: int) -> tuple[list[Weight], int]:
    """KiB while so many agents wait for an answer: private to each, and gone from the machine for all."""
    gate, before = asyncio.Event(), available_kib()
    answerers = [FirstCall(gate) for _ in range(count)]
    attempts = [asyncio.create_task(runtime.run_attempt(what, answerer)) for answerer in answerers]
    await asyncio.wait_for(asyncio.gather(*(answerer.arrived.wait() for answerer in answerers)), 120)
    sizes, gone = [weight(worker.pid) for worker in runtime._workers], before - available_kib()
    gate.set()
    await asyncio.gather(*attempts)
    return sizes, gone


def share(image: int, count: int, start: dict[str, str]) -> None:
    """Block ``count`` instances of one component in a host call, each on its own thread, in this process;
    print the private memory of each."""
    # not in the daemon's process, which never loads the engine
    from runloopd.runtime.sandbox import Guest, LoadedComponent, make_engine
    from runloopd.runtime.worker import STACK_BYTES, warm_up

    engine = make_engine()
    warm_up(engine)
    loaded = LoadedComponent.map(engine, f"/proc/self/fd/{image}")
    arrived, gate, limits = threading.Semaphore(0), threading.Event(), GuestLimits()

    def call(op: str, _payload: str) -> tuple[bool, str]:
        if op == "agent.source":
            return True, start["source"]
        arrived.release()
        gate.wait()
        return True, '{"now_ms":1}'

    def one() -> None:
        guest = Guest(
            loaded,
            fuel=limits.fuel,
            memory_bytes=limits.memory_bytes,
            output_bytes=limits.output_bytes,
            call=call,
            memory_in_use=lambda: 0,
        )
        ending = guest.run(start["input"])
        assert ending.code == "ok", ending

    threading.stack_size(STACK_BYTES)
    threads = [threading.Thread(target=one) for _ in range(1 + count)]
    threads[0].start()
    arrived.acquire()
    before = private_kib(os.getpid())
    for thread in threads[1:]:
        thread.start()
    for _ in range(count):
        arrived.acquire()
    print((private_kib(os.getpid()) - before) / count)
    gate.set()
    for thread in threads:
        thread.join()


def shared_kib(image: int, count: int, what: AttemptOrder) -> float:
    """Private memory per instance in KiB, of ``count`` instances in one process."""
    source = canonical({"modules": what.source, "entrypoint": what.entrypoint}).decode()
    start = json.dumps({"source": source, "input": canonical(what.input).decode()})
    code = "import json, sys; from tests.bench.bench_runtime import share;"
    code += "share(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(image), str(count), start],
        check=True,
        capture_output=True,
        text=True,
        pass_fds=[image],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )
    return float(done.stdout)


async def bench(scratch: Path) -> None:
    runner = scratch / "runner.wasm"
    runner.write_bytes(lzma.decompress(RUNNER.read_bytes()))
    small = scratch / "small.wasm"
    small.write_bytes(calling("time.now", "{}"))

    runner_js = scratch / "runner-js.wasm"
    runner_js.write_bytes(lzma.decompress(RUNNER_JS.read_bytes()))

    ours = {blob_digest(runner.read_bytes()), blob_digest(runner_js.read_bytes())}
    runtime = Runtime(cache_dir=scratch / "cache", mac_key=b"b" * 32, max_spares=0, ours=ours)
    began = time.perf_counter()
    await runtime.start()
    print(
        f"runtime start, zygote and four probes of the sandbox: {1000 * (time.perf_counter() - began):.0f} ms"
    )
    agents = []
    for name, path, source, entrypoint in (
        ("C-sized component", small, None, ""),
        ("Python source", runner, {"agent": SOURCE}, "agent:handle"),
        ("JavaScript source", runner_js, {"agent.js": SOURCE_JS}, "agent.js"),
    ):
        began = time.perf_counter()
        component = await runtime.prepare(path)
        print(f"prepare {name}, nothing in the cache: {1000 * (time.perf_counter() - began):.0f} ms")
        agents.append((name, path, order(component, source, entrypoint)))
    for name, _, what in agents:
        await cold_starts(runtime, what, 5)
        first, whole = await cold_starts(runtime, what, 200)
        spread(f"{name}: order to first host call", first)
        spread(f"{name}: order to result", whole)
    for name, _, what in agents:
        try:
            weights, _ = await resident(runtime, what, 20)
        except PermissionError:
            print(f"{name}: private memory needs root to read (workers are not dumpable)")
            continue
        sizes = [each.own + each.code for each in weights]
        print(
            f"{name}: private memory per agent blocked in a host call:"
            f" p50 {statistics.median(sizes) / 1024:.2f}, max {max(sizes) / 1024:.2f} MiB (n={len(sizes)})"
        )
    for name, _, what in agents:
        each = await asyncio.to_thread(shared_kib, runtime._images[what.component_digest], 50, what)
        print(
            f"{name}: private memory per instance blocked in a host call, one process for all:"
            f" {each / 1024:.2f} MiB (n=50)"
        )
    began = time.perf_counter()
    gate = [runtime.run_attempt(agents[1][2], FirstCall()) for _ in range(100)]
    await asyncio.gather(*gate)
    print(f"Python source: {100 / (time.perf_counter() - began):.0f} attempts per second, all at once")
    await runtime.close()

    warm = []
    for _ in range(5):
        runtime = Runtime(cache_dir=scratch / "cache", mac_key=b"b" * 32, ours=ours)
        await runtime.start()
        began = time.perf_counter()
        await runtime.prepare(runner)
        warm.append(time.perf_counter() - began)
        await runtime.close()
    runtime = Runtime(cache_dir=scratch / "cache", mac_key=b"b" * 32, max_spares=1, ours=ours)
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
