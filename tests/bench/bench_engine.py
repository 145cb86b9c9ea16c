"""What a node costs: to decide about it, and to have it done durably, in runs of 100, 1 000 and 10 000 nodes.

    python -m tests.bench engine [--pure] [--live 100,1000] [--rounds 1] [--recover 1000]

``--pure``: the engine alone. Facts are stated as a runner would, at most 1 024 attempts under way; per node,
microseconds of folding events and of asking what is due, least of the rounds. Growth is the last over the
first: 1.0 means that a node of a large run costs what one of a small run costs.

``--live``: an opening of no-op Python agents through a real daemon, journal, gate and sandbox in a home of
its own, as a chain (nothing runs beside another) and as a fan (all at once). From ``run.started`` to
``run.finished`` by the ledger's own clock. CPU is the daemon's loop and all its threads, its workers not
counted; memory is the daemon's resident set before and at most. The bare call is a no-op Python guest in the
same sandbox without engine, ledger, token and gate, one after another: what a node of the chain takes beyond
it is the price of durability.

``--recover``: the daemon is killed with SIGKILL when half of a fan is done, and started again: seconds until
it answers, to the next node that is done, and to the end.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import re
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from openings import engine
from openings.definition import Edge, Node, Opening
from openings.expressions import Ref
from openings.testing import Play
from runloop.digest import blob_digest
from runloop.events import Event
from runloopd.runtime.supervisor import Runtime
from tests.bench.bench_agents import KEY, told
from tests.bench.bench_durable import cpu_s
from tests.bench.bench_runtime import FirstCall
from tests.bench.languages import agents
from tests.home import Home

Shape = Callable[[int], tuple[list[Node], list[Edge]]]
ROOM = 1_024
_DOTS = re.compile(r"^VmRSS:\s+(\d+) kB", re.MULTILINE)


# --- shapes ---------------------------------------------------------------------------------------


def _node(number: int) -> Node:
    return Node(id=f"n{number}", use="agent:noop", requires=())


def _edge(source: int, target: int) -> Edge:
    return Edge(source=Ref(f"n{source}", ("out",)), node=f"n{target}", port="in")


def chain(size: int) -> tuple[list[Node], list[Edge]]:
    """Each node follows the one before."""
    return [_node(i) for i in range(size)], [_edge(i - 1, i) for i in range(1, size)]


def fan(size: int) -> tuple[list[Node], list[Edge]]:
    """One node, all but two at once after it, one that waits for all."""
    last = size - 1
    edges = [edge for i in range(1, last) for edge in (_edge(0, i), _edge(i, last))]
    return [_node(i) for i in range(size)], edges


def layered(size: int, width: int = 10) -> tuple[list[Node], list[Edge]]:
    """Layers of ten, each node after three of the layer before."""
    edges = [_edge(i - width - i % width + (i + k) % width, i) for i in range(width, size) for k in range(3)]
    return [_node(i) for i in range(size)], edges


SHAPES: dict[str, Shape] = {"chain": chain, "fan": fan, "layered": layered}


def opening(shape: str, size: int) -> Opening:
    nodes, edges = SHAPES[shape](size)
    return Opening(name=shape, nodes=tuple(nodes), edges=tuple(edges))


def text(shape: str, size: int) -> str:
    """The same as an author writes it, in braces: YAML takes four times as long to read."""
    nodes, edges = SHAPES[shape](size)
    lines = [f"opening {shape} {{"]
    lines += [f"  node {node.id} = {node.use};" for node in nodes]
    lines += [f"  {edge.source} -> {edge.node}.{edge.port};" for edge in edges]
    return "\n".join([*lines, "}", ""])


# --- the engine alone -----------------------------------------------------------------------------


def decide_all(made: Opening) -> float:
    """Seconds that folding and asking took, for a whole run that succeeds."""
    spent = 0.0
    running: list[str] = []
    play = Play(made)

    def say(name: str | None) -> None:
        nonlocal spent
        if name is not None:
            play.succeed(name, out=1)
            event = play.events[-1]
            begun = time.perf_counter()
            engine.apply(before, event)
            spent += time.perf_counter() - begun

    while not play.state.finished:
        begun = time.perf_counter()
        due = engine.due(play.state, room=ROOM - play.state.running)
        spent += time.perf_counter() - begun
        for command in due:
            before = play.state
            play.carry_out([command])
            event = play.events[-1]
            begun = time.perf_counter()
            engine.apply(before, event)
            spent += time.perf_counter() - begun
            if isinstance(command, engine.ScheduleNode):
                running.append(command.node)
        if running:
            before = play.state
            say(running.pop())
    return spent


def pure(sizes: list[int], rounds: int) -> None:
    print(f"the engine alone, µs per node, least of {rounds}")
    for shape in SHAPES:
        costs = []
        for size in sizes:
            made = opening(shape, size)
            gc.collect()
            costs.append(min(decide_all(made) for _ in range(rounds)) / size * 1e6)
        shown = "   ".join(f"{size:>6,} nodes {cost:6.1f}" for size, cost in zip(sizes, costs, strict=True))
        print(f"{shape:<8} {shown}   growth {costs[-1] / costs[0]:.2f}", flush=True)


# --- through a daemon -----------------------------------------------------------------------------

MANIFEST = """\
name = "noop"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Does nothing."

[ports.in.in]
type = "any"

[ports.out.out]
type = "any"
"""
SOURCE = """\
from runloop.agent import Result, handler


@handler
def handle(task, host):
    return Result.of(out=1)
"""


def prepared(home: Home, size: int) -> None:
    """The agent, and quotas that let one agent take every turn."""
    home.env |= {
        "RUNLOOP__QUOTAS__TURNS": str(2 * size),
        "RUNLOOP__QUOTAS__WALL_MS": "100000000",
    }
    home.write_agent("noop", MANIFEST, SOURCE)
    home.rlp("daemon", "start", timeout=300).check()
    while not home.agents_ready():
        time.sleep(0.2)  # the compiler is no part of it


def resident_mib(pid: int) -> float:
    found = _DOTS.search(Path(f"/proc/{pid}/status").read_text())
    return 0.0 if found is None else int(found.group(1)) / 1024


def submit(home: Home, shape: str, size: int) -> str:
    path = home.path / f"{shape}_{size}.opening"
    path.write_text(text(shape, size))
    begun = time.perf_counter()
    done = home.rlp("run", str(path), "--detach", "--json", "--no-input", timeout=600).check()
    print(f"    submitted in {time.perf_counter() - begun:.1f} s", flush=True)
    return str(done.json["run"])


def ends(home: Home, run: str, kind: str) -> list[Event]:
    return [event for event in home.events(kind) if event.run == run]


def follow(home: Home, run: str, pid: int, limit_s: float) -> float:
    """Wait for the end; the most memory seen, in MiB."""
    most, until = 0.0, time.monotonic() + limit_s
    while not ends(home, run, "run.finished"):
        if time.monotonic() > until:
            raise SystemExit(f"run {run} is not at its end after {limit_s:.0f} s")
        most = max(most, resident_mib(pid))
        time.sleep(0.2)
    return max(most, resident_mib(pid))


async def bare_ms(scratch: Path, calls: int = 40) -> float:
    """One attempt of a no-op guest in its sandbox and nothing else, milliseconds, median."""
    agent = next(each for each in agents(scratch) if each.source is not None and "ython" in each.name)
    runtime = Runtime(cache_dir=scratch / "cache", mac_key=KEY, ours={blob_digest(agent.wasm.read_bytes())})
    await runtime.start()
    try:
        what = told(await runtime.prepare(agent.wasm), agent, calls=0)
        spent = []
        for _ in range(calls):
            begun = time.perf_counter()
            result = await runtime.run_attempt(what, FirstCall())
            assert result.ok, result.error
            spent.append((time.perf_counter() - begun) * 1000)
        return statistics.median(spent[2:])
    finally:
        await runtime.close()


def live(sizes: list[int], rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="be") as folder:
        print(f"bare call of a no-op guest: {asyncio.run(bare_ms(Path(folder))):.2f} ms", flush=True)
    for size in sizes:
        for shape in ("chain", "fan"):
            rates = []
            for _ in range(rounds):
                with tempfile.TemporaryDirectory(prefix="be") as folder:
                    Path(folder).chmod(0o700)
                    with Home(Path(folder)) as home:
                        rates.append(one_live(home, shape, size))
            print(f"{shape:<6} {size:>6,} nodes  {statistics.median(rates):8.1f} durable nodes/s", flush=True)


def one_live(home: Home, shape: str, size: int) -> float:
    prepared(home, size)
    pid = home.pid()
    assert pid is not None
    submit(home, "fan", 10)  # warm
    before = resident_mib(pid)
    loop_s, all_s = cpu_s(pid)
    run = submit(home, shape, size)
    most = follow(home, run, pid, 120 + size / 4)
    after = cpu_s(pid)
    (start,), (end,) = ends(home, run, "run.started"), ends(home, run, "run.finished")
    if end.payload.outcome != "succeeded":  # type: ignore[attr-defined]
        raise SystemExit(f"the run ended as {end.payload.outcome}: {end.payload.error}")
    took = (end.ts_ms - start.ts_ms) / 1000
    print(
        f"    {shape} {size:,}: {took:.1f} s, {took / size * 1000:.2f} ms per node; CPU per node: loop "
        f"{(after[0] - loop_s) / size * 1000:.2f} ms, all threads {(after[1] - all_s) / size * 1000:.2f} ms; "
        f"daemon {before:.0f} MiB before, {most:.0f} at most",
        flush=True,
    )
    return size / took


def recover(size: int) -> None:
    """Kill in the middle, start again."""
    with tempfile.TemporaryDirectory(prefix="be") as folder:
        Path(folder).chmod(0o700)
        with Home(Path(folder)) as home:
            prepared(home, size)
            run = submit(home, "fan", size)
            while len(ends(home, run, "node.finished")) < size // 2:
                time.sleep(0.1)
            pid = home.pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            done = len(ends(home, run, "node.finished"))
            begun = time.perf_counter()
            home.rlp("daemon", "start", timeout=600).check()
            up = time.perf_counter() - begun
            while len(ends(home, run, "node.finished")) <= done:
                time.sleep(0.05)
            first = time.perf_counter() - begun
            pid = home.pid()
            assert pid is not None
            follow(home, run, pid, 120 + size / 4)
            scheduled = [(e.payload.node, e.payload.attempt) for e in ends(home, run, "node.scheduled")]  # type: ignore[attr-defined]
            print(
                f"killed at {done:,} of {size:,}: daemon answers after {up:.1f} s, next node done after "
                f"{first:.1f} s, all after {time.perf_counter() - begun:.1f} s; attempts {len(scheduled):,}, "
                f"twice {len(scheduled) - len(set(scheduled))}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pure", action="store_true", help="only the engine alone")
    parser.add_argument("--live", default="100,1000", help="sizes, e.g. 100,1000,10000; empty for none")
    parser.add_argument("--recover", type=int, default=1_000, help="size; 0 for none")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    pure([100, 1_000, 10_000], max(2, args.rounds))
    if args.pure:
        return
    live([int(size) for size in args.live.split(",") if size], args.rounds)
    if args.recover:
        recover(args.recover)


if __name__ == "__main__":
    main()
