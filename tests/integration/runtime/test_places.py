"""Who has a process now, what it has used, and a process exchanged for a fresh one by a person's word."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from runloopd.broker.calls import Answer, HostCall
from runloopd.observe import processes
from runloopd.runtime.failures import MAX_RECOVERIES
from runloopd.runtime.places import Place
from tests.integration.runtime.conftest import Bench, Script
from tests.unit.runtime.guests import calling, component

CALLER = calling("time.now", "{}", times=3)
SPINNER = component("(loop $again (br $again)) (unreachable)")
RESTARTED = ["ACTIVE error FAULTED", "FAULTED recover RECOVERING", "RECOVERING recovery_success ACTIVE"]


class Held(Script):
    """Remembers its answers; a call waits until ``go`` is set, and tells that it came."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.came = asyncio.Event()
        self._given: dict[int, Answer] = {}

    async def answer(self, call: HostCall) -> Answer:
        self.calls.append(call)
        if call.index not in self._given:
            self.came.set()
            await self.go.wait()
            self._given[call.index] = Answer(ok=True, value={"n": call.index})
        return self._given[call.index]

    async def rewind(self) -> None:
        pass


async def place_of(bench: Bench, holds: Callable[[Place], bool] = lambda _: True) -> Place:
    async with asyncio.timeout(20):
        while not (found := [one for one in bench.runtime.places.of("tester") if holds(one)]):
            await asyncio.sleep(0.005)
    return found[0]


async def test_a_guest_that_computes_is_seen_with_its_process_and_is_booked_when_that_has_ended(
    bench: Bench,
) -> None:
    running = asyncio.ensure_future(bench.run(SPINNER, limits={"fuel": 10**12, "guest_ms": 300}))
    place = await place_of(bench, lambda one: one.state == "ACTIVE" and one.worker is not None)
    assert (place.work, place.key[1:]) == ("attempt", ("n", 1))
    assert place.worker is not None
    seen = processes.of(place.worker.pid)
    assert seen is not None and seen.rss_bytes > 1_000_000
    assert (await running).error is not None
    assert list(bench.runtime.places) == []
    async with asyncio.timeout(20):
        while not bench.runtime.places.spent_us("tester"):
            await asyncio.sleep(0.005)
    assert bench.runtime.places.agents() == {"tester"}


async def test_one_that_finds_no_room_waits_visibly_without_a_process(
    make_bench: Callable[..., Awaitable[Bench]],
) -> None:
    bench = await make_bench(max_workers=1, waiting_after_ms=60_000)
    held = Held()
    first = asyncio.ensure_future(bench.run(CALLER, held))
    await held.came.wait()
    second = asyncio.ensure_future(bench.run(CALLER, Script(1), node="m"))
    place = await place_of(bench, lambda one: one.order.node == "m")
    assert (place.state, place.worker) == ("QUEUED", None)
    assert not bench.runtime.end_worker(place, "nothing to end")
    held.go.set()
    assert (await first).ok and (await second).ok
    await bench.runtime.close()


async def test_a_guest_goes_on_in_a_fresh_process_as_often_as_a_person_says_and_ends_as_if_nothing_was(
    bench: Bench,
) -> None:
    times = MAX_RECOVERIES + 2
    caller = calling("time.now", "{}", times=times)
    undisturbed = await bench.run(caller, Script({"n": 0}))
    before = len(bench.moves)
    held = Held()
    running = asyncio.ensure_future(bench.run(caller, held))
    pids = []
    for _ in range(times):
        await held.came.wait()
        held.came.clear()
        place = await place_of(bench, lambda one: one.worker is not None and one.worker.pid not in pids)
        assert place.worker is not None
        pids.append(place.worker.pid)
        assert bench.runtime.end_worker(place, "restarted by operator: stuck")
        held.go.set()
        held.go.clear()
    result = await running
    assert result.ok and (result.fuel, result.calls) == (undisturbed.fuel, undisturbed.calls)
    told = {t.reason for t in bench.transitions[before:] if t.trigger == "recover"}
    assert told == {"guest.restarted: restarted by operator: stuck"}
    assert [move for move in bench.moves[before:] if move in RESTARTED] == RESTARTED * times
