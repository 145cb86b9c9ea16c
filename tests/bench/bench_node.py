"""Where the time of one node goes: a guest that makes host calls, through the gate, recorded, by stage.

    python -m tests.bench node                  [--calls 1000] [--rounds 3]

A Python agent in its sandboxed worker makes so many host calls, one after another, against the daemon's own
gate, mint, ledger, journal and views over files. Every stage is timed where it happens; the stages together
are the round trip, and ``rest`` is what no stage names: tasks, the event loop's turns, the clocks of the
attempt. Microseconds per call: mean over the calls of an attempt, median of the rounds. The last lines tell
whether the price of a call grows with those before it, and what the same guest costs without a record.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import inspect
import lzma
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import runloopd.broker.calls as calls_module
import runloopd.broker.gate as gate_module
import runloopd.runtime.session as session_module
from pog.ledger import Ledger
from runloop.digest import blob_digest
from runloopd.broker.calls import Answer, Answerer, HostCall
from runloopd.broker.gate import Gate
from runloopd.journal import Journal
from runloopd.runtime.session import Channel
from runloopd.runtime.supervisor import AttemptOrder, Runtime
from tests.bench.bench_agents import GRANTS, KEY, told, world_of
from tests.bench.bench_runtime import FirstCall
from tests.bench.languages import SDK, Agent
from tests.unit.broker.world import RUN

CALLS = {
    "time.now (no effect: one mark)": "host.now_ms()",
    "memory.put (a write: two marks, one transaction)": "host.memory_put('k', i)",
}
SOURCE = """
from runloop.agent import Result, handler

@handler
def handle(task, host):
    for i in range(task.param("calls")):
        {call}
    return Result()
"""
GUEST, DECODE, TEXTS, CHECK, OP, PREPARE, COMMIT, LISTEN, HOPS, SEND = STAGES = (
    "guest, and the socket both ways",
    "frame in: decode",
    "canonical texts, digests, the effect's key",
    "check: token, ops, grant, quota",
    "the op itself, within its deadline",
    "journal: validate, canonical text",
    "journal: chain, SQLite, disk",
    "journal: who listens",
    "journal: way there and back",
    "frame out: encode, write",
)


class Stages:
    """Adds up what each stage takes; a stage inside another is taken out of it."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._inside.append(0.0)
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begun
            self.spent[name] += spent - self._inside.pop()
            if self._inside:
                self._inside[-1] += spent

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """``work``, timed; one call is under way at a time, so what runs meanwhile is its own."""
        if inspect.iscoroutinefunction(work):

            @functools.wraps(work)
            async def waited(*args: Any, **more: Any) -> Any:
                with self.stage(name):
                    return await work(*args, **more)

            return waited

        @functools.wraps(work)
        def called(*args: Any, **more: Any) -> Any:
            with self.stage(name):
                return work(*args, **more)

        return called


def watch(stages: Stages, stack: ExitStack) -> None:
    """Put the clocks in."""

    def put(owner: Any, name: str, stage: str) -> None:
        stack.enter_context(mock.patch.object(owner, name, stages.timed(stage, getattr(owner, name))))

    put(Channel, "receive", GUEST)
    put(session_module, "decode", DECODE)
    put(session_module, "digest", TEXTS)
    for name in ("canonical", "blob_digest", "effect_key"):
        put(gate_module, name, TEXTS)
    put(calls_module, "canonical", TEXTS)
    put(Gate, "_authorise", CHECK)
    put(Gate, "_limit", CHECK)
    put(Gate, "_perform", OP)
    put(Ledger, "prepare", PREPARE)
    put(Gate, "_observe", LISTEN)
    put(Journal, "append", HOPS)
    put(Channel, "send", SEND)

    commit = Ledger.commit

    def timed(ledger: Ledger, *args: Any, **more: Any) -> Any:
        # It may run in a thread while the loop waits inside append: taken out of that by hand.
        begun = time.perf_counter()
        try:
            return commit(ledger, *args, **more)
        finally:
            spent = time.perf_counter() - begun
            stages.spent[COMMIT] += spent
            stages.spent[HOPS] -= spent

    stack.enter_context(mock.patch.object(Ledger, "commit", timed))


class Watched:
    """Notes when each call arrives; the stages are counted from the first to the last arrival."""

    def __init__(self, answerer: Answerer, stages: Stages, calls: int) -> None:
        self.at: list[float] = []
        self.found: dict[str, float] = {}
        self._answerer, self._stages, self._calls = answerer, stages, calls

    async def answer(self, call: HostCall) -> Answer:
        self.at.append(time.perf_counter())
        if len(self.at) == 1:
            self._stages.spent.clear()
        elif len(self.at) == self._calls:
            self.found = {name: self._stages.spent[name] for name in STAGES}
        answer = await self._answerer.answer(call)
        assert answer.ok, answer
        return answer

    def per_call(self) -> dict[str, float]:
        """Microseconds."""
        gaps = [after - before for before, after in pairwise(self.at)]
        quarter = len(gaps) // 4
        found = {name: spent / len(gaps) * 1e6 for name, spent in self.found.items()}
        whole = sum(gaps) / len(gaps) * 1e6
        return {
            **found,
            "rest": whole - sum(found.values()),
            "round trip": whole,
            "round trip, p50": statistics.median(gaps) * 1e6,
            "... mean of the first quarter": sum(gaps[:quarter]) / quarter * 1e6,
            "... mean of the last quarter": sum(gaps[-quarter:]) / quarter * 1e6,
        }


async def recorded(
    runtime: Runtime, what: AttemptOrder, synchronous: str, calls: int, scratch: Path
) -> dict[str, float]:
    """One attempt through the gate."""
    with tempfile.TemporaryDirectory(dir=scratch) as home:
        stages = Stages()
        with ExitStack() as stack:
            watch(stages, stack)
            world = await world_of(Path(home), synchronous)
            watched = Watched(world.gate.answerer(await world.caller(GRANTS)), stages, calls)
            result = await runtime.run_attempt(replace(what, run=RUN, node="draft"), watched)
        assert result.ok, result
        assert len(world.payloads("hostcall.delivered")) == calls
        await world.stop()
    return watched.per_call()


async def unrecorded(runtime: Runtime, what: AttemptOrder, calls: int) -> float:
    """Microseconds, p50: the same guest, answered at once."""
    watched = Watched(FirstCall(), Stages(), calls)
    assert (await runtime.run_attempt(what, watched)).ok
    return watched.per_call()["round trip, p50"]


async def bench(scratch: Path, wanted: argparse.Namespace) -> None:
    wasm = scratch / "runner.wasm"
    wasm.write_bytes(lzma.decompress((SDK / "runner" / "runner.wasm.xz").read_bytes()))
    runtime = Runtime(
        cache_dir=scratch / "cache", mac_key=KEY, ours={blob_digest(wasm.read_bytes())}, max_spares=0
    )
    await runtime.start()
    component = await runtime.prepare(wasm)
    for title, call in CALLS.items():
        agent = Agent(
            name="Python", wasm=wasm, source={"agent": SOURCE.format(call=call)}, entrypoint="agent:handle"
        )
        what = told(component, agent, wanted.calls)
        rounds: dict[str, list[dict[str, float]]] = {"NORMAL": [], "FULL": []}
        plain: list[float] = []
        for _ in range(wanted.rounds):
            for synchronous, found in rounds.items():
                found.append(await recorded(runtime, what, synchronous, wanted.calls, scratch))
            if call == CALLS[next(iter(CALLS))]:
                plain.append(await unrecorded(runtime, what, wanted.calls))
        print(f"\n{title}; {wanted.calls} calls, {wanted.rounds} rounds, us per call")
        print(f"{'':46} {'NORMAL':>10} {'FULL':>10}")
        for name in rounds["FULL"][0]:
            cells = [statistics.median(each[name] for each in found) for found in rounds.values()]
            print(f"{name:46} " + " ".join(f"{cell:>10,.1f}" for cell in cells), flush=True)
        if plain:
            print(f"{'reference: answered without a record, p50':46} {statistics.median(plain):>10,.1f}")
    await runtime.close()


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    with tempfile.TemporaryDirectory(prefix="rl-bench") as scratch:
        asyncio.run(bench(Path(scratch), parser.parse_args(argv)))


if __name__ == "__main__":
    main(sys.argv[1:])
