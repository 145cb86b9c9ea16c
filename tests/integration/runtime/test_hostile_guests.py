"""A guest that loops, grows, traps or lies harms only its own attempt (attacks.md W)."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from pathlib import Path

import pytest

from runloop.digest import digest
from runloopd.broker.calls import Answer
from runloopd.runtime.supervisor import AttemptResult
from tests.integration.runtime.conftest import Bench, Script
from tests.unit.runtime.guests import EMPTY, LOOP, Texts, calling, component, saying

GOOD = saying({"ports": {"out": [1]}})


def failure(result: AttemptResult) -> str:
    assert not result.ok
    assert result.output is None
    assert result.error is not None
    return result.error.code


@pytest.mark.requirement("W3", "I2.sandbox.5")
async def test_an_endless_loop_is_cut_by_its_own_clock(bench: Bench) -> None:
    result = await bench.run(component(LOOP), limits={"guest_ms": 50})
    assert failure(result) == "guest.deadline"
    assert (
        result.error is not None and "killed" not in result.error.message
    )  # the epoch did it, not the daemon
    assert bench.moves[-2:] == ["ACTIVE error FAULTED", "FAULTED abandon TERMINATED"]


@pytest.mark.requirement("W3", "I2.sandbox.5")
async def test_four_endless_loops_at_once_are_all_cut_and_a_fifth_guest_lives(bench: Bench) -> None:
    loop = await bench.order(component(LOOP), limits={"guest_ms": 400})
    good = await bench.order(GOOD)
    async with asyncio.timeout(30):  # bounded; the figure itself is the bench's matter
        *loops, fine = await asyncio.gather(
            *(bench.runtime.run_attempt(loop, Script()) for _ in range(4)),
            bench.runtime.run_attempt(good, Script()),
        )
    assert [failure(result) for result in loops] == ["guest.deadline"] * 4
    assert fine.ok
    assert bench.runtime.workers == 0


@pytest.mark.requirement("I2.sandbox.4")
async def test_fuel_is_an_exact_budget(bench: Bench) -> None:
    for _ in range(3):
        result = await bench.run(component(LOOP), limits={"fuel": 100_000})
        assert failure(result) == "guest.fuel"
        assert result.fuel == 100_000


async def test_a_loop_in_a_start_function_is_cut_before_handle_is_ever_called(bench: Bench) -> None:
    start = "(func $forever (loop $l (br $l))) (start $forever)"
    result = await bench.run(component("(unreachable)", extra=start), limits={"guest_ms": 50})
    assert failure(result) == "guest.deadline"


@pytest.mark.parametrize(
    ("body", "extra", "reason"),
    [
        ("(unreachable)", "", "unreachable"),
        ("(i32.div_s (i32.const 1) (i32.const 0))", "", "divide by zero"),
        ("(i32.load (i32.const -4))", "", "out of bounds memory access"),
        (
            "(call $deep)",
            "(func $deep (result i32) (i32.add (call $deep) (i32.const 1)))",
            "call stack exhausted",
        ),
    ],
)
async def test_a_trap_ends_the_attempt_with_its_reason(
    bench: Bench, body: str, extra: str, reason: str
) -> None:
    result = await bench.run(component(body, extra=extra))
    assert failure(result) == "guest.trap"
    assert result.error is not None and reason in result.error.message
    assert not result.error.retryable


@pytest.mark.requirement("W5", "I2.sandbox.6")
async def test_a_guest_that_loops_stands_back_and_its_clock_does_not(bench: Bench) -> None:
    """Neighbours compute first; the thread that cuts the guest stays as prompt as before."""
    attempt = asyncio.create_task(bench.run(component(LOOP), limits={"guest_ms": 20_000}))
    async with asyncio.timeout(15):
        while [nice_of(worker.pid) for worker in bench.runtime._workers] != [(0, [10])]:
            await asyncio.sleep(0.01)
    attempt.cancel()
    await asyncio.gather(attempt, return_exceptions=True)


def nice_of(pid: int) -> tuple[int, list[int]]:
    """Niceness of a process's first thread, and of its others."""
    threads = sorted(int(path.name) for path in Path(f"/proc/{pid}/task").iterdir())
    own, *others = (os.getpriority(os.PRIO_PROCESS, thread) for thread in threads)
    return own, others


async def test_memory_stops_growing_at_its_limit(bench: Bench) -> None:
    greedy = component(
        "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)"
    )
    result = await bench.run(greedy, limits={"memory_bytes": 16 << 20})
    assert failure(result) == "guest.memory"


@pytest.mark.requirement("I2.sandbox.6")
async def test_a_guest_that_starts_larger_than_its_limit_is_refused(bench: Bench) -> None:
    result = await bench.run(component("(unreachable)", pages=1024), limits={"memory_bytes": 16 << 20})
    assert failure(result) == "guest.memory"
    assert result.fuel == 0


@pytest.mark.requirement("W1", "W5", "I2.sandbox.6")
@pytest.mark.parametrize(
    "storm",
    [
        "(table 100000000 funcref)",
        "(table 0 funcref) (func $g (drop (table.grow (ref.null func) (i32.const 99999999))))",
    ],
)
async def test_tables_are_bounded(bench: Bench, storm: str) -> None:
    texts = Texts()
    result = await bench.run(component(f"(call $ok {texts(EMPTY)})", texts, extra=storm))
    assert result.ok or failure(result) in ("guest.memory", "guest.trap")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 20  # KiB: the daemon did not grow


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("no JSON", "not JSON"),
        ("[]", "not an object"),
        ("{}", "'ports'"),
        ('{"ports":{"out":1}}', "'ports'"),
        ('{"ports":{},"surprise":1}', "surprise"),
        ('{"ports":{},"artifacts":["x"]}', "'artifacts'"),
        ('{"ports":{"out":[1e400]}}', "out of range"),
        ('{"ports":{"out":[9007199254740993]}}', "2^53"),
        ("[" * 5000 + "]" * 5000, "JSON"),
    ],
)
async def test_a_result_that_is_not_as_the_abi_demands_is_the_guests_fault(
    bench: Bench, said: str, why: str
) -> None:
    result = await bench.run(saying(said))
    assert failure(result) == "guest.output"
    assert result.error is not None and why in result.error.message


async def test_a_result_may_not_be_longer_than_its_limit(bench: Bench) -> None:
    result = await bench.run(saying({"ports": {"out": ["x" * 2000]}}), limits={"output_bytes": 1000})
    assert failure(result) == "guest.output"


@pytest.mark.parametrize(
    ("said", "code", "retryable"),
    [
        (
            json.dumps({"code": "contact.ambiguous", "message": "two Johns", "retryable": True}),
            "contact.ambiguous",
            True,
        ),
        (json.dumps({"code": "guest.deadline", "message": "not mine to say"}), "guest.error", False),
        (json.dumps({"code": "Bad Code!", "message": "m"}), "guest.error", False),
        (json.dumps({"message": 5}), "guest.error", False),
        ("plain words", "guest.error", False),
        ("", "guest.error", False),
    ],
)
async def test_a_guests_own_error_keeps_its_code(bench: Bench, said: str, code: str, retryable: bool) -> None:
    texts = Texts()
    result = await bench.run(component(f"(call $err {texts(said)})", texts))
    assert failure(result) == code
    assert result.error is not None and result.error.retryable is retryable
    assert result.error.message


@pytest.mark.parametrize("address", ["(i32.const -8) (i32.const 4)", "(i32.const 16) (i32.const -1)"])
async def test_a_wild_pointer_as_result_is_a_clean_trap(bench: Bench, address: str) -> None:
    assert failure(await bench.run(component(f"(call $ok {address})"))) == "guest.trap"


async def test_bytes_that_are_not_text_are_a_clean_trap(bench: Bench) -> None:
    texts = Texts()
    assert (
        failure(await bench.run(component(f"(call $ok {texts(bytes([0xFF, 0xFE]))})", texts))) == "guest.trap"
    )
    script = Script()
    assert failure(await bench.run(calling("time.now", bytes([0xC3, 0x28])), script)) == "guest.trap"
    assert script.calls == []


# --- host calls that are wrong: refused, and the guest lives on ------------------------------------


@pytest.mark.parametrize(
    "args", ["", "{", "nonsense", "NaN", "[1e999]", '{"n":9007199254740993}', "[" * 200 + "]" * 200]
)
async def test_arguments_that_are_not_json_are_refused_and_never_reach_the_gate(
    bench: Bench, args: str
) -> None:
    script = Script()
    result = await bench.run(calling("time.now", args), script)
    assert result.ok and result.output is not None
    assert result.output["ports"]["out"][0]["code"] == "op.args"
    assert script.calls == []
    assert result.calls == 0


async def test_a_call_larger_than_its_limit_is_refused(bench: Bench) -> None:
    script = Script()
    result = await bench.run(
        calling("log.write", json.dumps("x" * 500)), script, limits={"request_bytes": 200}
    )
    assert result.ok and result.output is not None
    assert result.output["ports"]["out"][0]["code"] == "request.too_large"
    assert script.calls == []


async def test_more_calls_than_allowed_are_refused_without_troubling_the_daemon(bench: Bench) -> None:
    script = Script({"t": 1})
    result = await bench.run(calling("time.now", "{}", times=500), script, limits={"host_calls": 7})
    assert result.ok and result.output is not None
    assert result.output["ports"]["out"][0]["code"] == "quota.calls"
    assert len(script.calls) == result.calls == 7


async def test_the_source_is_for_the_runner_and_not_without_end(bench: Bench) -> None:
    refused = await bench.run(calling("agent.source", "{}"))
    assert refused.output is not None and refused.output["ports"]["out"][0]["code"] == "op.unknown"
    served = await bench.run(calling("agent.source", "{}"), source={"agent": "x = 1"})
    assert served.output is not None
    assert served.output["ports"]["out"] == [{"modules": {"agent": "x = 1"}, "entrypoint": "agent:handle"}]
    assert served.calls == 0
    spammed = await bench.run(calling("agent.source", "{}", times=100), source={"agent": "x = 1"})
    assert spammed.output is not None and spammed.output["ports"]["out"][0]["code"] == "op.unknown"


async def test_an_answer_too_large_for_a_frame_becomes_a_refusal(bench: Bench) -> None:
    result = await bench.run(calling("blob.read", "{}"), Script("x" * (8 << 20)))
    assert result.ok and result.output is not None
    assert result.output["ports"]["out"][0]["code"] == "answer.too_large"


async def test_refusals_of_the_gate_are_seen_by_the_guest_as_they_are(bench: Bench) -> None:
    no = {"code": "cap.denied", "message": "no", "hint": "ask", "retryable": False}
    result = await bench.run(calling("mail.send", "{}"), Script(Answer(ok=False, value=no)))
    assert result.output is not None and result.output["ports"]["out"] == [no]
    assert result.calls == 1


async def test_a_call_says_what_it_is(bench: Bench) -> None:
    script = Script({"now_ms": 1})
    result = await bench.run(calling("time.now", '{"b":1,"a":2}', times=3), script)
    assert result.ok and result.calls == 3
    assert [call.index for call in script.calls] == [0, 1, 2]
    first = script.calls[0]
    assert (first.op, first.args) == ("time.now", {"a": 2, "b": 1})
    assert first.args_digest == digest({"a": 2, "b": 1})
    assert 0 < first.fuel < script.calls[1].fuel < result.fuel
    assert first.request_bytes > 68
