"""What holds when processes die, stop, or were never trusted: one worker, one attempt."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runloop.errors import NotFoundError, UsageError
from runloopd.broker.calls import HostCall
from runloopd.runtime.hardening import MANDATORY
from runloopd.runtime.supervisor import AttemptOrder, Runtime, SandboxRefused
from runloopd.runtime.workers import Worker, ZygoteGone, ZygoteProcess
from tests.integration.runtime.conftest import MAC_KEY, RUN, Bench, Script
from tests.unit.runtime.guests import LOOP, calling, component, saying

CALLER = calling("time.now", "{}")
GOOD = saying({"ports": {"out": [1]}})
UNPREPARED = AttemptOrder(
    run=RUN, node="n", attempt=1, component_digest="0" * 64, source=None, entrypoint="", input={}
)


class Held:
    """An answerer that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    def script(self) -> Script:
        async def says(_: HostCall) -> int:
            self.asked.set()
            await self.go.wait()
            return 1

        return Script(says)


def only_worker(bench: Bench) -> int:
    (worker,) = bench.runtime._workers
    return worker.pid


async def gone(pid: int) -> None:
    """Wait until a process is no more."""
    async with asyncio.timeout(10):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.005)


@pytest.mark.requirement("S1")
async def test_every_layer_is_active_here_and_was_proven(bench: Bench) -> None:
    layers = bench.runtime.layers()
    assert {name for name, active in layers.items() if active} >= set(MANDATORY)


@pytest.mark.requirement("I2.sandbox.8")
async def test_a_worker_has_given_everything_up(bench: Bench) -> None:
    held = Held()
    attempt = asyncio.create_task(bench.run(CALLER, held.script()))
    await asyncio.wait_for(held.asked.wait(), 20)
    proc = Path(f"/proc/{only_worker(bench)}")
    status = dict(
        line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    limits = {line[:26].strip(): line[26:].split()[0] for line in (proc / "limits").read_text().splitlines()}
    assert limits["Max core file size"] == limits["Max file size"] == limits["Max processes"] == "0"
    assert limits["Max data size"] != "unlimited"
    with contextlib.suppress(PermissionError):  # readable by root only: it is not dumpable
        names = sorted(str(entry.readlink()) for entry in (proc / "fd").iterdir())
        assert [
            name for name in names if not name.startswith(("/dev/null", "socket:", "/memfd:runloop"))
        ] == [f"/proc/{proc.name}/statm"]
        assert len([name for name in names if name.startswith("socket:")]) == 1
        assert (proc / "ns" / "net").readlink() != Path("/proc/self/ns/net").readlink()
    held.go.set()
    assert (await attempt).ok
    await gone(int(proc.name))


@pytest.mark.requirement("I2.sandbox.9")
async def test_a_worker_killed_from_outside_fails_its_attempt_and_no_other(bench: Bench) -> None:
    held, other = Held(), Held()
    attempt = asyncio.create_task(bench.run(CALLER, held.script()))
    await asyncio.wait_for(held.asked.wait(), 20)
    pid = only_worker(bench)
    unharmed = asyncio.create_task(bench.run(CALLER, other.script()))
    await asyncio.wait_for(other.asked.wait(), 20)
    os.kill(pid, signal.SIGKILL)
    held.go.set()
    result = await attempt
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("guest.crashed", True)
    assert "SIGKILL" in result.error.message
    other.go.set()
    assert (await unharmed).ok


@pytest.mark.requirement("W3", "I2.sandbox.5")
async def test_a_worker_that_does_not_stop_its_guest_is_killed_by_the_daemon(bench: Bench) -> None:
    bench.runtime._grace_ms = 100

    async def freeze(_: HostCall) -> int:
        os.kill(only_worker(bench), signal.SIGSTOP)  # its own clock stands still now
        return 1

    result = await bench.run(CALLER, Script(freeze), limits={"guest_ms": 50})
    assert result.error is not None
    assert (result.error.code, result.error.message) == (
        "guest.deadline",
        "the guest ran longer than its time and was killed",
    )


async def test_waiting_for_an_answer_costs_the_guest_no_time(bench: Bench) -> None:
    async def slow(_: HostCall) -> int:
        await asyncio.sleep(0.4)
        return 1

    result = await bench.run(calling("time.now", "{}", times=3), Script(slow), limits={"guest_ms": 300})
    assert result.ok


async def test_a_zygote_that_dies_is_replaced_and_its_attempts_fail_cleanly(bench: Bench) -> None:
    held = Held()
    attempt = asyncio.create_task(bench.run(CALLER, held.script()))
    await asyncio.wait_for(held.asked.wait(), 20)
    worker = only_worker(bench)
    assert bench.runtime._zygote is not None
    first = bench.runtime._zygote.pid
    os.kill(first, signal.SIGKILL)
    await gone(worker)  # no worker outlives it
    held.go.set()
    result = await attempt
    assert result.error is not None and result.error.code == "guest.crashed"
    assert (await bench.run(GOOD)).ok
    assert bench.runtime._zygote.pid != first


async def test_cancelling_an_attempt_kills_its_worker(bench: Bench) -> None:
    held = Held()
    attempt = asyncio.create_task(bench.run(CALLER, held.script()))
    await asyncio.wait_for(held.asked.wait(), 20)
    pid = only_worker(bench)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    await gone(pid)
    assert bench.runtime.workers == 0
    assert bench.moves[-1].endswith("TERMINATED")


async def test_cancelling_a_guest_that_computes_kills_it_too(bench: Bench) -> None:
    order = await bench.order(component(LOOP))
    attempt = asyncio.create_task(bench.runtime.run_attempt(order, Script()))
    async with asyncio.timeout(20):
        while "SPAWNED activate ACTIVE" not in bench.moves:
            await asyncio.sleep(0.005)
    pid = only_worker(bench)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    await gone(pid)


async def test_an_answerer_that_raises_ends_the_attempt(bench: Bench) -> None:
    def diverge(_: HostCall) -> int:
        raise ValueError("the record says otherwise")

    with pytest.raises(ValueError, match="the record"):
        await bench.run(CALLER, Script(diverge))
    assert bench.runtime.workers == 0
    assert bench.moves[-2:] == ["ACTIVE error FAULTED", "FAULTED abandon TERMINATED"]


async def test_closing_the_runtime_leaves_no_process_behind(
    make_bench: Callable[..., Awaitable[Bench]],
) -> None:
    bench = await make_bench()
    held = Held()
    attempt = asyncio.create_task(bench.run(CALLER, held.script()))
    await asyncio.wait_for(held.asked.wait(), 20)
    worker = only_worker(bench)
    assert bench.runtime._zygote is not None
    zygote = bench.runtime._zygote.pid
    await bench.runtime.close()
    held.go.set()
    result = await attempt
    assert not result.ok
    await gone(worker)
    await gone(zygote)
    with pytest.raises(NotFoundError):
        await bench.runtime.run_attempt(UNPREPARED, Script())


async def test_a_component_that_was_not_prepared_is_not_run(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="not prepared"):
        await bench.runtime.run_attempt(UNPREPARED, Script())


async def test_more_attempts_than_workers_wait_their_turn(
    make_bench: Callable[..., Awaitable[Bench]],
) -> None:
    bench = await make_bench(max_workers=2)
    most = 0

    async def count(_: HostCall) -> int:
        nonlocal most
        most = max(most, bench.runtime.workers)
        await asyncio.sleep(0)
        return 1

    order = await bench.order(CALLER)
    results = await asyncio.gather(*(bench.runtime.run_attempt(order, Script(count)) for _ in range(12)))
    assert all(result.ok for result in results)
    assert most <= 2
    await bench.runtime.close()


async def test_a_guest_that_waits_for_its_answer_lends_its_place_to_others(
    make_bench: Callable[..., Awaitable[Bench]],
) -> None:
    bench = await make_bench(max_workers=1, waiting_after_ms=1)
    order = await bench.order(CALLER)
    held = Held()
    waits = asyncio.create_task(bench.runtime.run_attempt(order, held.script()))
    await asyncio.wait_for(held.asked.wait(), 20)
    async with asyncio.timeout(20):
        assert (await bench.runtime.run_attempt(order, Script(1))).ok
    held.go.set()
    assert (await asyncio.wait_for(waits, 20)).ok
    await bench.runtime.close()


async def test_no_more_than_so_many_guests_wait_at_once_beside_the_working_ones(
    make_bench: Callable[..., Awaitable[Bench]],
) -> None:
    bench = await make_bench(max_workers=1, max_parked=1, waiting_after_ms=1)
    order = await bench.order(CALLER)
    waiting = [Held(), Held()]
    tasks = []
    for held in waiting:
        tasks.append(asyncio.create_task(bench.runtime.run_attempt(order, held.script())))
        await asyncio.wait_for(held.asked.wait(), 20)
    late = Held()
    tasks.append(asyncio.create_task(bench.runtime.run_attempt(order, late.script())))
    waiting[1].go.set()  # the one that kept its place
    await asyncio.wait_for(late.asked.wait(), 20)
    for held in (*waiting, late):
        held.go.set()
    async with asyncio.timeout(20):
        assert all(result.ok for result in await asyncio.gather(*tasks))
    await bench.runtime.close()


# --- lifecycle -------------------------------------------------------------------------------------


async def test_an_attempt_walks_the_lifecycle_and_every_move_is_stated(bench: Bench) -> None:
    assert (await bench.run(CALLER, Script(1))).ok
    assert bench.moves == [
        "DEFINED spawn SPAWNED",
        "SPAWNED activate ACTIVE",
        "ACTIVE complete COMPLETING",
        "COMPLETING teardown_ok TERMINATED",
    ]
    assert {(t.agent, t.node, t.attempt) for t in bench.transitions} == {("tester", "n", 1)}
    assert len({t.instance for t in bench.transitions}) == 1


async def test_an_answer_that_takes_long_makes_the_instance_wait_visibly(
    make_bench: Callable[..., Awaitable[Bench]],
) -> None:
    bench = await make_bench(waiting_after_ms=20)
    held = Held()
    attempt = asyncio.create_task(bench.run(CALLER, held.script()))
    async with asyncio.timeout(20):
        while "ACTIVE await_tool WAITING" not in bench.moves:
            await asyncio.sleep(0.005)
    held.go.set()
    assert (await attempt).ok
    assert bench.moves[2:4] == ["ACTIVE await_tool WAITING", "WAITING resume ACTIVE"]
    await bench.runtime.close()


async def test_a_transition_that_cannot_be_stated_stops_the_attempt(compiled: Path, tmp_path: Path) -> None:
    async def full(_order: object, _transition: object) -> None:
        raise OSError("no space left on device")

    runtime = Runtime(cache_dir=compiled, mac_key=MAC_KEY, on_transition=full)
    await runtime.start()
    with pytest.raises(OSError, match="no space"):
        await Bench(runtime, [], tmp_path).run(GOOD)
    assert runtime.workers == 0
    await runtime.close()


# --- a sandbox that is not there -------------------------------------------------------------------


@pytest.mark.requirement("S1")
async def test_a_missing_layer_refuses_to_start(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(cache_dir=compiled, mac_key=MAC_KEY)
    real = ZygoteProcess.probe

    async def probe(self: ZygoteProcess, attempt: str) -> Worker:
        return await real(
            self, "nothing" if attempt == "socket" else attempt
        )  # as on a kernel that lets it pass

    monkeypatch.setattr(ZygoteProcess, "probe", probe)
    with pytest.raises(SandboxRefused, match="does not hold"):
        await runtime.start()


@pytest.mark.requirement("S1")
async def test_a_waived_layer_is_named_or_refused(compiled: Path) -> None:
    with pytest.raises(UsageError, match="unknown sandbox layer 'sekcomp'"):
        Runtime(cache_dir=compiled, mac_key=MAC_KEY, waived_layers=["sekcomp"])


async def test_a_closed_runtime_starts_no_second_zygote(make_bench: Callable[..., Awaitable[Bench]]) -> None:
    bench = await make_bench()
    path = bench.file(GOOD)
    await bench.runtime.close()
    with pytest.raises(ZygoteGone, match="closed"):
        await bench.runtime.prepare(path)


# --- spare workers ---------------------------------------------------------------------------------


async def spare_ready(bench: Bench) -> int:
    async with asyncio.timeout(20):
        while not bench.runtime._spares:
            await asyncio.sleep(0.005)
    (spare,) = bench.runtime._spares.values()
    return spare.pid


async def test_the_next_attempt_of_a_kind_gets_a_worker_that_is_ready(bench: Bench) -> None:
    assert (await bench.run(CALLER, Script(1))).ok
    ready = await spare_ready(bench)
    held = Held()
    attempt = asyncio.create_task(bench.run(CALLER, held.script()))
    await asyncio.wait_for(held.asked.wait(), 20)
    assert only_worker(bench) == ready
    held.go.set()
    assert (await attempt).ok
    await gone(ready)  # one attempt each, ever


async def test_a_spare_is_for_its_own_limits_only(bench: Bench) -> None:
    assert (await bench.run(CALLER, Script(1))).ok
    ready = await spare_ready(bench)
    held = Held()
    attempt = asyncio.create_task(bench.run(CALLER, held.script(), limits={"memory_bytes": 1 << 24}))
    await asyncio.wait_for(held.asked.wait(), 20)
    assert only_worker(bench) != ready
    held.go.set()
    assert (await attempt).ok


async def test_a_spare_that_died_is_not_used(bench: Bench) -> None:
    assert (await bench.run(CALLER, Script(1))).ok
    ready = await spare_ready(bench)
    os.kill(ready, signal.SIGKILL)
    await gone(ready)
    assert (await bench.run(CALLER, Script(1))).ok


async def test_spares_are_few(make_bench: Callable[..., Awaitable[Bench]]) -> None:
    bench = await make_bench(max_spares=2)
    for memory in range(4):
        assert (await bench.run(CALLER, Script(1), limits={"memory_bytes": (16 + memory) << 20})).ok
        await asyncio.gather(*bench.runtime._making)
    pids = {spare.pid for spare in bench.runtime._spares.values()}
    assert len(pids) == 2
    await bench.runtime.close()
    for pid in pids:
        await gone(pid)
