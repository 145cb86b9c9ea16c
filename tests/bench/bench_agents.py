"""Agents in every language: how fast they start, what they weigh, what a right and a host call cost.

``python -m tests.bench agents``; ``python -m tests.bench.bench_agents --starts 5 --resident 1 10`` for less.

*Cold start* is counted from the order to the first host call as the daemon sees it, the nearest observable of
the first guest instruction: everything the guest did before it is in the figure. The ways to start are
measured in turn, round by round, so that a ratio compares neighbours in time:

- precompiled: the component is loaded, a worker is forked for the order;
- pooled: the same, with a spare worker standing ready;
- plain: wasmtime's Python API as its manual shows it, in one process: deserialize once, then Store,
  instantiate, call. No limits, no sandbox, no second process (tests/bench/plain.py);
- process: the same in a fresh process for every start.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from runloop.digest import blob_digest, canonical
from runloop.ops import OPS, Args
from runloop.testing import ManualClock
from runloopd.broker.asks import Ask
from runloopd.broker.calls import Answer, Answerer, HostCall
from runloopd.runtime.supervisor import AttemptOrder, Runtime
from tests.bench.bench_run import line
from tests.bench.bench_runtime import INPUT, FirstCall, cold_starts, order, resident, spare_ready, spread
from tests.bench.languages import Agent, agents
from tests.unit.broker.world import RUN, World, caps, quotas

KEY = b"b" * 32
PLAIN = Path(__file__).with_name("plain.py")
AT_ONCE = 100
GRANTS = 'time = true\nkb_read = ["contacts", "notes"]\nnet = ["api.example.org:443"]'


class Moments:
    """Notes when each host call arrives; the time between two is one round trip: answer, guest, next call."""

    def __init__(self, answerer: Answerer | None = None) -> None:
        self.at: list[float] = []
        self._answerer = answerer or FirstCall()

    async def answer(self, call: HostCall) -> Answer:
        self.at.append(time.perf_counter())
        answer = await self._answerer.answer(call)
        assert answer.ok, answer
        return answer


class Plain:
    """The reference for one agent: its compiled form, and a process that starts it again and again."""

    def __init__(self, scratch: Path, agent: Agent) -> None:
        self._compiled, self._start = str(scratch / "plain.cwasm"), str(scratch / "start.json")
        self._wasm = str(agent.wasm)
        source = canonical({"modules": agent.source or {}, "entrypoint": agent.entrypoint}).decode()
        Path(self._start).write_text(json.dumps({"source": source, "input": {**INPUT, "with": {"calls": 1}}}))
        self.compile()
        self._server = subprocess.Popen(
            self._command("serve", self._compiled, self._start),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.start()  # the first one pays for pages that the others find

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def compile(self) -> float:
        """Seconds."""
        return float(self._run("compile", self._wasm, self._compiled))

    def start(self, calls: int = 1) -> dict[str, Any]:
        """``first``, ``whole`` and ``moments`` of one start in the process that goes on."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{calls}\n")
        self._server.stdin.flush()
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer

    def process(self) -> float:
        """Seconds from nothing to the first host call, in a process of its own."""
        began = time.perf_counter()
        return float(self._run("once", self._compiled, self._start)) - began

    def _run(self, *words: str) -> str:
        return subprocess.run(self._command(*words), check=True, capture_output=True, text=True).stdout

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-I", str(PLAIN), *words]


def ratios(label: str, one: Sequence[float], other: Sequence[float]) -> None:
    """Round by round, so that what disturbs the machine disturbs both."""
    found = [a / b for a, b in zip(one, other, strict=True)]
    print(
        f"    ratio {label:<40} p50 {statistics.median(found):6.2f} x"
        f"   (min {min(found):.2f}, max {max(found):.2f}, n {len(found)})"
    )


def told(component: str, agent: Agent, calls: int = 1) -> AttemptOrder:
    """The order for one attempt that makes so many host calls."""
    made = order(component, agent.source, agent.entrypoint)
    return replace(made, input={**INPUT, "with": {"calls": calls}})


async def started(runtime: Runtime, what: AttemptOrder) -> float:
    (first,), _ = await cold_starts(runtime, what, 1)
    return first


# --- cold start -----------------------------------------------------------------------------------


async def starts(bare: Runtime, ready: Runtime, plain: Plain, agent: Agent, rounds: int) -> None:
    what = told(await bare.prepare(agent.wasm), agent)
    await ready.prepare(agent.wasm)

    async def precompiled() -> float:
        return await started(bare, what)

    async def pooled() -> float:
        (first,), _ = await cold_starts(ready, what, 1, spare=True)
        await spare_ready(ready, what)  # the next one is made in nobody else's time
        return first

    async def reference() -> float:
        return float(plain.start()["first"])

    async def fresh() -> float:
        return plain.process()

    await started(bare, what)
    await started(ready, what)
    taken = await in_turn(
        {"precompiled": precompiled, "pooled": pooled, "plain": reference, "process": fresh}, rounds
    )
    for way, seconds in taken.items():
        spread(f"{agent.name}: {way}, to the first host call", seconds)
    ratios("precompiled / plain", taken["precompiled"], taken["plain"])
    ratios("pooled / plain", taken["pooled"], taken["plain"])
    ratios("process / pooled", taken["process"], taken["pooled"])


async def in_turn(ways: dict[str, Callable[[], Awaitable[float]]], rounds: int) -> dict[str, list[float]]:
    """Every way once, then again."""
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, measure in ways.items():
            taken[way].append(await measure())
    return taken


async def from_nothing(scratch: Path, plain: Plain, agent: Agent, ours: set[str], rounds: int) -> None:
    """By a daemon that has just started: with an empty cache, then with the form it left there."""

    async def prepared_and_started(cache: Path) -> float:
        runtime = Runtime(cache_dir=cache, mac_key=KEY, max_spares=0, ours=ours)
        await runtime.start()
        try:
            began = time.perf_counter()
            what = told(await runtime.prepare(agent.wasm), agent)
            prepared = time.perf_counter() - began
            return prepared + await started(runtime, what)
        finally:
            await runtime.close()

    empty, full, plainly = [], [], []
    for number in range(rounds):
        cache = scratch / f"cache-{agent.wasm.stem}-{number}"
        empty.append(await prepared_and_started(cache))
        full.append(await prepared_and_started(cache))
        plainly.append(plain.compile() + float(plain.start()["first"]))
    spread(f"{agent.name}: compile included, to the first host call", empty)
    spread(f"{agent.name}: from the cache on disk, new daemon", full)
    spread(f"{agent.name}: plain, compile included", plainly)
    ratios("compile included / plain", empty, plainly)


# --- memory ---------------------------------------------------------------------------------------


async def memory(runtime: Runtime, agent: Agent, counts: Sequence[int]) -> None:
    what = told(await runtime.prepare(agent.wasm), agent)
    for count in counts:
        try:
            weights, gone = await resident(runtime, what, count)
        except PermissionError:
            print(f"{agent.name}: private memory needs root to read (workers are not dumpable)")
            return
        sizes = [each.own + each.code for each in weights]
        machine = f"; the machine gave {gone / count:,.0f} KiB for each" if count >= 1_000 else ""
        print(
            f"{agent.name}: private memory, {count} resident: p50 {statistics.median(sizes):,.0f} KiB"
            f" (min {min(sizes):,}, max {max(sizes):,}), without code that the"
            f" next one shares {statistics.median(each.own for each in weights):,.0f}{machine}",
            flush=True,
        )


# --- host calls -----------------------------------------------------------------------------------


async def round_trips(runtime: Runtime, plain: Plain, agent: Agent, calls: int, scratch: Path) -> None:
    if not agent.counts:
        print(f"{agent.name}: makes one call; no round trip to measure")
        return
    what = told(await runtime.prepare(agent.wasm), agent, calls)
    moments = Moments()
    assert (await runtime.run_attempt(what, moments)).ok
    spread(f"{agent.name}: host call round trip to the daemon", gaps(moments.at), "µs")
    spread(f"{agent.name}: plain, in one process", gaps(plain.start(calls)["moments"]), "µs")
    for synchronous in ("NORMAL", "FULL"):
        with tempfile.TemporaryDirectory(dir=scratch) as home:
            world = await world_of(Path(home), synchronous)
            moments = Moments(world.gate.answerer(await world.caller(GRANTS)))
            assert (await runtime.run_attempt(replace(what, run=RUN, node="draft"), moments)).ok
            recorded = len(world.payloads("hostcall.delivered"))
            assert recorded == calls, recorded
            await world.stop()
        spread(f"{agent.name}: … through the gate, recorded, {synchronous}", gaps(moments.at), "µs")


def gaps(moments: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(moments)]


async def world_of(home: Path, synchronous: str = "FULL") -> World:
    """The daemon's own gate, ledger, mint and approvals over files, with a run under way."""
    world = World(home, ManualClock(), quotas=quotas(calls=10_000_000, bytes=10**12), synchronous=synchronous)
    await world.start()
    await world.run()
    return world


async def checks(scratch: Path, count: int) -> None:
    """The gate's own check of one call: the token, whose it is, the run, the declared ops, the grant."""
    with tempfile.TemporaryDirectory(dir=scratch) as home:
        world = await world_of(Path(home))
        caller = await world.caller(caps(GRANTS))
        run = world.gate._record.run(RUN)
        assert run is not None
        call = world.hostcall(caller, "time.now", {})
        ask = Ask(
            caller=caller, call=call, op=OPS["time.now"], args=Args(), args_blob=b"{}",
            args_digest=blob_digest(b"{}"), key="", grants=caps(""), run=run, check=lambda: None,
        )  # fmt: skip
        cached: list[float] = []
        uncached: list[float] = []
        for _ in range(count):
            world.mint.generation += 1  # what a revocation does: nothing verified before counts any more
            for into in (uncached, cached):
                began = time.perf_counter()
                world.gate._authorise(ask)
                into.append(time.perf_counter() - began)
        await world.stop()
    spread("capability check, cached", cached, "µs")
    spread("capability check, not cached: two signatures and a policy", uncached, "µs")


# --- rate -----------------------------------------------------------------------------------------


async def rates(runtime: Runtime, plain: Plain, agent: Agent, rounds: int) -> None:
    """Agents per second, each until its result is there; the runtime is set up as a daemon's."""
    what = told(await runtime.prepare(agent.wasm), agent)

    async def one_by_one() -> float:
        began = time.perf_counter()
        await cold_starts(runtime, what, AT_ONCE)
        return AT_ONCE / (time.perf_counter() - began)

    async def all_at_once() -> float:
        began = time.perf_counter()
        results = await asyncio.gather(*(runtime.run_attempt(what, FirstCall()) for _ in range(AT_ONCE)))
        assert all(result.ok for result in results)
        return AT_ONCE / (time.perf_counter() - began)

    async def plainly() -> float:
        return AT_ONCE / sum(float(plain.start()["whole"]) for _ in range(AT_ONCE))

    async def processes() -> float:
        began = time.perf_counter()
        for _ in range(5):
            plain.process()
        return 5 / (time.perf_counter() - began)

    taken = await in_turn(
        {"one by one": one_by_one, f"{AT_ONCE} at once": all_at_once, "plain": plainly, "process": processes},
        rounds,
    )
    for way, rate in taken.items():
        line(f"{agent.name}: {way}", rate, "/s")
    ratios("plain / one by one", taken["plain"], taken["one by one"])
    ratios("at once / process", taken[f"{AT_ONCE} at once"], taken["process"])


async def bench(scratch: Path, wanted: argparse.Namespace) -> None:
    made = [agent for agent in agents(scratch) if agent.name.startswith(tuple(wanted.languages))]
    ours = {blob_digest(agent.wasm.read_bytes()) for agent in made if agent.source is not None}

    def runtime(**settings: Any) -> Runtime:
        return Runtime(cache_dir=scratch / "cache", mac_key=KEY, ours=ours, **settings)

    bare, ready, usual = runtime(max_spares=0), runtime(max_spares=1), runtime()
    for each in (bare, ready, usual):
        await each.start()
    await checks(scratch, wanted.calls)
    for agent in made:
        print(f"\n{agent.name}; load average {os.getloadavg()[0]:.1f}", flush=True)
        plain = Plain(scratch, agent)
        await starts(bare, ready, plain, agent, wanted.starts)
        if wanted.compiles:
            await from_nothing(scratch, plain, agent, ours, wanted.compiles)
        await round_trips(bare, plain, agent, wanted.calls, scratch)
        await rates(usual, plain, agent, wanted.rounds)
        await memory(bare, agent, wanted.resident)
        plain.close()
    for each in (bare, ready, usual):
        await each.close()
    print(f"\nload average {os.getloadavg()[0]:.1f}")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--languages", nargs="*", default=[""], help="Python, JavaScript, Rust, C")
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--compiles", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5, help="of the rates")
    parser.add_argument("--calls", type=int, default=2_000, help="host calls of one attempt; checks")
    parser.add_argument("--resident", type=int, nargs="*", default=[1, 100, 1_000])
    with tempfile.TemporaryDirectory(prefix="rl-bench") as scratch:
        asyncio.run(bench(Path(scratch), parser.parse_args(argv)))


if __name__ == "__main__":
    main(sys.argv[1:])
