"""Failure classes on real workers: a lost one is replaced, a lying one is not, and the ledger hears first."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from runloop.events import AgentTransition
from runloopd.broker.calls import Answer, HostCall
from runloopd.runtime.failures import MAX_RECOVERIES
from tests.home import alive
from tests.integration.runtime.conftest import Bench, Script
from tests.unit.runtime.guests import calling, component

CALLER = calling("time.now", "{}", times=3)
RECOVERY = ["ACTIVE error FAULTED", "FAULTED recover RECOVERING", "RECOVERING recovery_success ACTIVE"]


async def crash(pid: int, number: int) -> None:
    """Let a process die of a signal, as of its own fault.

    The first one is met by ``faulthandler``, which steps aside and would raise it again, but the filter of a
    worker lets nobody send signals; a real fault repeats itself, and so does this.
    """
    async with asyncio.timeout(20):
        while alive(pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            await asyncio.sleep(0.005)


class Remembering(Script):
    """An answerer that gives the same answers to a guest that starts again, and can lose the worker."""

    def __init__(self, bench: Bench, *, kill: int, at: int, times: int) -> None:
        super().__init__()
        self._bench = bench
        self._kill, self._at, self._times = kill, at, times
        self._given: dict[int, Answer] = {}
        self.rewound = 0
        self.effects = 0

    async def answer(self, call: HostCall) -> Answer:
        self.calls.append(call)
        if call.index not in self._given:
            self.effects += 1
            self._given[call.index] = Answer(ok=True, value={"n": self.effects})
        if call.index == self._at and self._times:
            self._times -= 1
            (worker,) = self._bench.runtime._workers
            await crash(worker.pid, self._kill)
        return self._given[call.index]

    async def rewind(self) -> None:
        self.rewound += 1


@pytest.mark.requirement("W2")
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGKILL])
async def test_a_crash_of_the_engine_costs_one_worker_and_the_attempt_goes_on_from_its_record(
    bench: Bench, number: signal.Signals
) -> None:
    undisturbed = await bench.run(CALLER, Remembering(bench, kill=number, at=0, times=0))
    before = len(bench.moves)
    crashing = Remembering(bench, kill=number, at=1, times=1)
    result = await bench.run(CALLER, crashing)
    assert result == undisturbed, "output, fuel and number of calls are those of a run without a crash"
    assert (crashing.effects, crashing.rewound) == (3, 1)
    assert [call.index for call in crashing.calls] == [0, 1, 0, 1, 2]
    assert bench.moves[before:] == [
        "DEFINED spawn SPAWNED",
        "SPAWNED activate ACTIVE",
        *RECOVERY,
        "ACTIVE complete COMPLETING",
        "COMPLETING teardown_ok TERMINATED",
    ]
    told = next(t for t in bench.transitions if t.trigger == "recover")
    assert told.reason == f"guest.crashed: the worker was killed by {number.name}"


async def test_an_attempt_whose_worker_dies_again_and_again_is_given_up_after_three_recoveries(
    bench: Bench,
) -> None:
    doomed = Remembering(bench, kill=signal.SIGSEGV, at=0, times=99)
    result = await bench.run(CALLER, doomed)
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("guest.crashed", True)
    assert doomed.rewound == MAX_RECOVERIES == 3
    assert doomed.effects == 1
    assert bench.moves[2:] == [
        *(RECOVERY * 3),
        "ACTIVE error FAULTED",
        "FAULTED recover RECOVERING",
        "RECOVERING recovery_exhausted TERMINATED",
    ]
    assert (await bench.run(CALLER, Script(1))).ok


async def test_an_answerer_without_a_memory_is_never_asked_twice(bench: Bench) -> None:
    asked: list[HostCall] = []

    async def once(call: HostCall) -> int:
        asked.append(call)
        (worker,) = bench.runtime._workers
        await crash(worker.pid, signal.SIGSEGV)
        return 1

    result = await bench.run(CALLER, Script(once))
    assert result.error is not None and result.error.code == "guest.crashed"
    assert len(asked) == 1
    assert bench.moves[-2:] == ["ACTIVE error FAULTED", "FAULTED abandon TERMINATED"]


async def test_a_zygote_that_dies_takes_its_workers_and_every_attempt_is_recovered(bench: Bench) -> None:
    crashing = Remembering(bench, kill=signal.SIGKILL, at=1, times=0)

    async def kill_zygote(call: HostCall) -> Answer:
        if call.index == 1 and not crashing.rewound:
            (worker,) = bench.runtime._workers
            assert bench.runtime._zygote is not None
            os.kill(bench.runtime._zygote.pid, signal.SIGKILL)
            async with asyncio.timeout(20):
                while alive(worker.pid):  # no worker outlives it
                    await asyncio.sleep(0.005)
        return await Remembering.answer(crashing, call)

    crashing.answer = kill_zygote  # type: ignore[method-assign]
    assert (await bench.run(CALLER, crashing)).ok
    assert crashing.rewound == 1


async def test_a_trap_is_the_guests_own_doing_and_is_not_executed_again(bench: Bench) -> None:
    script = Remembering(bench, kill=signal.SIGKILL, at=0, times=0)
    result = await bench.run(component("(unreachable)"), script)
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("guest.trap", False)
    assert script.rewound == 0
    assert bench.moves[-2:] == ["ACTIVE error FAULTED", "FAULTED abandon TERMINATED"]


async def test_a_denial_leaves_the_instance_active(bench: Bench) -> None:
    no = {"code": "cap.denied", "message": "no", "hint": None, "retryable": False}
    assert (await bench.run(CALLER, Script(Answer(ok=False, value=no)))).ok
    assert bench.moves == [
        "DEFINED spawn SPAWNED",
        "SPAWNED activate ACTIVE",
        "ACTIVE complete COMPLETING",
        "COMPLETING teardown_ok TERMINATED",
    ]


async def test_a_worker_that_makes_a_forbidden_call_has_breached_and_is_not_recovered(bench: Bench) -> None:
    liar = Remembering(bench, kill=signal.SIGSYS, at=0, times=1)
    result = await bench.run(CALLER, liar)
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("guest.breach", False)
    assert liar.rewound == 0
    assert bench.moves[-1] == "ACTIVE breach TERMINATED"


async def test_a_recovery_that_cannot_be_stated_does_not_happen(
    make_bench: Callable[..., Awaitable[Bench]],
) -> None:
    async def full_when_recovering(_: object, transition: AgentTransition) -> None:
        if transition.after == "RECOVERING":
            raise OSError("no space left on device")

    bench = await make_bench(on_transition=full_when_recovering)
    crashing = Remembering(bench, kill=signal.SIGSEGV, at=0, times=1)
    with pytest.raises(OSError, match="no space"):
        await bench.run(CALLER, crashing)
    assert (crashing.rewound, bench.runtime.workers) == (0, 0)
    await bench.runtime.close()


async def test_a_move_is_stated_before_anything_follows_from_it(
    make_bench: Callable[..., Awaitable[Bench]],
) -> None:
    """The statement of each move is held up: nothing of what it announces may have happened meanwhile."""
    seen: list[tuple[str, int, int]] = []
    script = Script(1)

    async def slow(_: object, transition: AgentTransition) -> None:
        await asyncio.sleep(0.02)
        seen.append((transition.after, len(script.calls), bench.runtime.workers))

    bench = await make_bench(on_transition=slow)
    assert (await bench.run(CALLER, script)).ok
    assert seen == [("SPAWNED", 0, 0), ("ACTIVE", 0, 0), ("COMPLETING", 3, 0), ("TERMINATED", 3, 0)]
    await bench.runtime.close()
