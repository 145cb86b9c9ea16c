"""Python source on the shared runner, in the real sandbox: it answers, it is bounded, and it repeats itself
exactly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from runloop.digest import blob_digest
from runloopd.broker.calls import HostCall
from runloopd.runtime.orders import MIB
from tests.integration.runtime.conftest import Bench, Script
from tests.unit.runtime.guests import component

COLLATZ = """
import json
from runloop.agent import handler

@handler
def handle(task, host):
    seen = {}
    for n in range(task.with_["n"]):
        now = host.now_ms()
        words = {f"w{now % 7}{k}": k / 3 for k in range(20)}
        seen[str(n)] = sorted(words.items()), list({"b", "a", "c"}), 0.1 + 0.2, float("nan") != float("nan")
    return {"ports": {"out": [json.loads(json.dumps(seen))]}}
"""
GREEDY = """
from runloop.agent import handler

@handler
def handle(task, host):
    held = []
    while True:
        held.append(bytearray(1 << 20))
"""
ENDLESS = """
from runloop.agent import handler

@handler
def handle(task, host):
    while True:
        pass
"""


@pytest.fixture
async def python(
    make_bench: Callable[..., Awaitable[Bench]], compiled: Path, runner: bytes
) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    bench = await make_bench()

    async def run(source: str, script: Script, **overrides: Any) -> Any:
        given = {
            "op": "handle",
            "message": {"type": "intent.generic.v1", "payload": {}, "meta": {}},
            "ports": {},
            "with": {"n": 4},
            "context": {"agent": "tester", "node": "n", "attempt": 1, "run": "r", "trace_id": "r"},
        }
        return await bench.run(runner, script, source={"agent": source}, input=given, **overrides)

    yield run
    await bench.runtime.close()


def ticking() -> Script:
    return Script(lambda call: {"now_ms": 1_750_000_000_000 + 13 * call.index})


@pytest.mark.requirement("I2.sandbox.4")
async def test_the_same_source_input_and_answers_give_the_same_fuel_at_every_call(
    python: Callable[..., Awaitable[Any]],
) -> None:
    marks: set[str] = set()
    for _ in range(5):
        script = ticking()
        result = await python(COLLATZ, script)
        assert result.ok, result
        marks.add(
            json.dumps([[[c.op, c.args_digest, c.fuel] for c in script.calls], result.output, result.fuel])
        )
    assert len(marks) == 1
    assert len(script.calls) >= 4


async def test_waiting_for_answers_does_not_change_the_fuel(python: Callable[..., Awaitable[Any]]) -> None:
    async def late(call: HostCall) -> dict[str, int]:
        await asyncio.sleep(0.03)
        return {"now_ms": 1_750_000_000_000 + 13 * call.index}

    swift, slow = ticking(), Script(late)
    assert (await python(COLLATZ, swift)).fuel == (await python(COLLATZ, slow)).fuel
    assert [c.fuel for c in swift.calls] == [c.fuel for c in slow.calls]


async def test_a_python_guest_that_hoards_memory_fails_alone(python: Callable[..., Awaitable[Any]]) -> None:
    result = await python(GREEDY, Script(), limits={"memory_bytes": 32 * MIB})
    assert not result.ok
    assert "MemoryError" in result.error.message or result.error.code == "guest.memory"


async def test_a_python_guest_that_loops_is_cut(python: Callable[..., Awaitable[Any]]) -> None:
    assert (await python(ENDLESS, Script(), limits={"guest_ms": 300})).error.code == "guest.deadline"
    burnt = await python(ENDLESS, Script(), limits={"fuel": 30_000_000})
    assert (burnt.error.code, burnt.fuel) == ("guest.fuel", 30_000_000)


async def test_the_outside_changes_nothing(
    python: Callable[..., Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await python(COLLATZ, ticking())
    for name, value in (("TZ", "Asia/Tokyo"), ("LANG", "tr_TR.UTF-8"), ("PYTHONHASHSEED", "1")):
        monkeypatch.setenv(name, value)
    assert await python(COLLATZ, ticking()) == before


async def test_an_instance_made_ahead_behaves_as_one_made_when_it_is_needed(
    make_bench: Callable[..., Awaitable[Bench]], runner: bytes
) -> None:
    told: list[object] = []
    for ours in ((), (blob_digest(runner),)):
        bench = await make_bench(ours=ours)
        script, given = ticking(), {"op": "handle", "with": {"n": 3}}
        for _ in range(2):  # the second worker is forked from the same instance
            result = await bench.run(runner, script, source={"agent": COLLATZ}, input=given)
            assert result.ok, result
            told.append((result.output, result.fuel, [call.fuel for call in script.calls[-3:]]))
        burnt = await bench.run(
            runner, Script(), source={"agent": ENDLESS}, input=given, limits={"fuel": 30_000_000}
        )
        assert (burnt.error.code, burnt.fuel) == ("guest.fuel", 30_000_000)
        small = await bench.run(
            runner, Script(), source={"agent": COLLATZ}, input=given, limits={"memory_bytes": 8 * MIB}
        )
        assert small.error.code == "guest.memory", "what was made ahead is larger than this guest may be"
        await bench.runtime.close()
    assert told[0] == told[2]
    assert told[1] == told[3]


async def test_a_foreign_component_runs_no_instruction_before_its_worker(
    make_bench: Callable[..., Awaitable[Bench]], runner: bytes
) -> None:
    """Its start function would stop the process that all workers are forked from."""
    bench = await make_bench(ours=(blob_digest(runner),))
    looping = component("(unreachable)", extra="(func $spin (loop $more (br $more))) (start $spin)")
    result = await bench.run(looping, limits={"guest_ms": 200})
    assert result.error is not None
    assert result.error.code == "guest.deadline"
    await bench.runtime.close()


async def test_a_syntax_error_is_told_with_its_line(python: Callable[..., Awaitable[Any]]) -> None:
    result = await python("x = 1\ndef handle(:\n    pass\n", Script())
    assert (result.error.code, result.error.message) == ("agent.syntax", "invalid syntax (agent.py:2)")


async def test_an_agent_describes_its_tools_and_is_called_by_them(
    make_bench: Callable[..., Awaitable[Bench]], runner: bytes
) -> None:
    source = (
        "from runloop.agent import handler, tool\n\n\n@tool('words.count')\n"
        "def count(text: str) -> int:\n    return len(text.split())\n\n\n"
        "@handler\ndef handle(text: str) -> dict:\n    return {'out': count(text)}\n"
    )
    bench = await make_bench()
    asked = {"op": "tool", "tool": "words.count", "args": {"text": "a b c"}}
    answered = await bench.run(runner, Script(), source={"agent": source}, input=asked)
    assert answered.output == {"ports": {"result": [3]}, "artifacts": []}
    handled = await bench.run(
        runner, Script(), source={"agent": source}, input={"op": "handle", "ports": {"text": ["a b"]}}
    )
    assert handled.output == {"ports": {"out": [2]}, "artifacts": []}
    await bench.runtime.close()


async def test_a_waiting_python_guest_has_little_memory_of_its_own(
    make_bench: Callable[..., Awaitable[Bench]], runner: bytes
) -> None:
    """A guard for what is shared by fork: one import with a hook on fork in the zygote costs 0.4 MiB."""
    bench = await make_bench(ours=(blob_digest(runner),))
    both = asyncio.Barrier(2)  # two guests, so that the pages of the component count as shared
    sizes: list[int] = []

    async def measure(_: HostCall) -> dict[str, int]:
        if await both.wait() == 0:
            sizes.extend(private_kib(worker.pid) for worker in bench.runtime._workers)
        await both.wait()
        return {"now_ms": 1}

    source = "from runloop.agent import handler\n\n\n@handler\ndef handle(task, host):\n    host.now_ms()\n"
    order = await bench.order(
        runner,
        source={"agent": source + '    return {"ports": {}}\n'},
        input={
            "op": "handle",
            "message": {"type": "intent.generic.v1", "payload": {}, "meta": {}},
            "ports": {},
            "with": {},
            "context": {"agent": "tester", "node": "n", "attempt": 1, "run": "r", "trace_id": "r"},
        },
    )
    for _ in range(3):
        pair = (bench.runtime.run_attempt(order, Script(measure)) for _ in range(2))
        results = await asyncio.gather(*pair)
        assert all(result.ok for result in results), results
    await bench.runtime.close()
    # The least: a page that the other one has not touched yet counts as private for a moment.
    assert min(sizes) < 4.4 * 1024, sizes


def private_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except PermissionError:
        return 0  # a worker is not dumpable: its memory is for root to read
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
