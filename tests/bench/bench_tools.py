"""Ten thousand calls of tools through the real gate: how many end as nobody expects, and what the gate adds.

    python -m tests.bench tools                  10 000 calls of each kind, a tenth of programs: minutes
    python -m tests.bench tools --calls 1000     less

Real parts: ledger, views, mint, approvals, sandbox. Four kinds in turn, so that whatever the machine does
beside is spread over all: a read and a write of the host, an ``exec`` tool in bubblewrap, and calls that must
be refused (unknown, not granted, arguments that do not fit). Printed: the codes that came back, the rate of
unexpected ones (expected: 0), and the time of a call, the gate's own beside that of the bare source.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from runloop.bundle.tools import parse_tools
from runloop.caps.policy import parse_policy
from runloop.testing import ManualClock
from runloopd.broker.tool_testing import ScriptedTools, offer
from runloopd.broker.toolbox import ToolContext
from runloopd.broker.tools.bubblewrap import Bubblewrap
from runloopd.broker.tools.sandbox import Program
from tests.unit.broker.world import World, quotas

TEXT = {"type": "string"}
ECHO = {
    "id": "box.echo",
    "description": "Gives back what it was given.",
    "transport": {"kind": "exec", "argv": ["cat"]},
    "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}},
    "result_schema": {"type": "object", "required": ["n"]},
    "capabilities": ["exec:cat"],
    "effect": "read",
}
POLICY = '[capabilities]\ntools = ["host.*"]\nexec = ["cat"]\n'
REFUSED: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("host.lok", {"n": 1}, "tool.unknown"),
    ("other.look", {}, "cap.denied"),
    ("host.look", {"n": "x"}, "tool.args"),
)


async def timed(work: Awaitable[Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = await work
    return (time.perf_counter() - began) * 1e3, found


def shown(name: str, times: list[float]) -> None:
    p99 = sorted(times)[int(len(times) * 0.99)]
    print(f"  {name:<28} p50 {statistics.median(times):8.3f} ms   p99 {p99:8.3f} ms")


async def bench(calls: int, execs: int, home: Path) -> int:
    """Returns the number of answers that were not the expected ones."""
    source = ScriptedTools(
        [
            offer("host.look", {"n": {"type": "integer"}}, effect="read", confirm=False),
            offer("host.keep", {"n": {"type": "integer"}}, effect="write", confirm=False),
            offer("other.look", effect="read", confirm=False),
        ],
        answer=lambda name, args: {"n": args.get("n")},
    )
    sandbox = Bubblewrap([home])
    world = World(home, ManualClock(), quotas=quotas(calls=1_000_000, bytes=2**40))
    world.sources, world.programs = [source], sandbox
    await world.start()
    await world.run()
    caller = replace(
        await world.caller(parse_policy(POLICY)),
        tools=parse_tools(json.dumps({"version": 1, "tools": [ECHO]})),
    )
    codes: Counter[str] = Counter()
    wrong: list[str] = []
    times: dict[str, list[float]] = {}

    async def once(kind: str, tool: str, args: dict[str, Any], expected: str) -> None:
        took, answer = await timed(world.call(caller, "tool.call", {"tool": tool, "args": args}))
        code = "ok" if answer.ok else str(answer.value["code"])
        codes[code] += 1
        times.setdefault(kind, []).append(took)
        if code != expected or (answer.ok and answer.value["result"] != {"n": args["n"]}):
            wrong.append(f"{tool} {args}: {answer.value}")

    kinds: list[Callable[[int], Awaitable[None]]] = [
        lambda n: once("host, read", "host.look", {"n": n}, "ok"),
        lambda n: once("host, write (two marks)", "host.keep", {"n": n}, "ok"),
        lambda n: once("refused", *REFUSED[n % 3][:2], REFUSED[n % 3][2]),
    ]
    bare_exec: list[float] = []
    for n in range(calls):
        for kind in kinds:
            await kind(n)
        bare, _ = await timed(source.call(source.each[0], {"n": n}, _context()))
        times.setdefault("host, bare source", []).append(bare)
        if n * execs // calls != (n + 1) * execs // calls:
            await once("exec in the sandbox", "box.echo", {"n": n}, "ok")
            if n % 10 == 0:
                took, _ = await timed(sandbox.run(Program(argv=("/bin/cat",), stdin=b'{"n":1}')))
                bare_exec.append(took)
    print(f"codes of {sum(codes.values())} calls: {dict(sorted(codes.items()))}")
    print(f"unexpected: {len(wrong)} ({len(wrong) / sum(codes.values()):.4%})")
    for one in wrong[:5]:
        print(f"  {one}")
    for name, found in times.items():
        shown(name, found)
    if bare_exec:
        shown("sandbox alone", bare_exec)
    await world.stop()
    await sandbox.close()
    return len(wrong)


def _context() -> ToolContext:
    return ToolContext(agent="bench", run="r", node="n", key="k", deadline_ms=0)


def main() -> int:
    """Exit 1 when an answer was not the expected one."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--calls", type=int, default=10_000, help="of each kind")
    options.add_argument("--execs", type=int, default=None, help="of programs; a tenth of that otherwise")
    given = options.parse_args()
    execs = given.calls // 10 if given.execs is None else given.execs
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        return 1 if asyncio.run(bench(given.calls, execs, home)) else 0


if __name__ == "__main__":
    raise SystemExit(main())
