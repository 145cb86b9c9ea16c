"""What leaves is counted: a leak in many small pieces suspends whoever leaks it, work does not (P3-P5)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from runloopd.broker.tool_testing import ScriptedTools, offer
from runloopd.broker.tripwires import Limits, TrippedError, Tripwires
from runloopd.runtime.breaker import Breaker
from runloopd.runtime.quarantine import KINDS, Quarantine
from tests.standard_day import BASELINE, Sent, limits_hold

from .world import OPERATOR, World, until

TEXT = {"type": "string"}
TRIPPED = "tripwire.tripped"
FEW = Limits(address=500, sends=8, bytes=1_000, private_bytes=300, places=5, names=3)
GRANTS = 'net = ["*.pages.example", "a.example"]\nkb_read = true\ntools = ["*"]'


def send(wires: Tripwires, place: str = "a.example", size: int = 1, now: int = 0, **more: Any) -> str | None:
    """The reason, if it trips."""
    try:
        wires.outbound("writer", place, size, now, **more)
    except TrippedError as error:
        return error.reason
    return None


# --- the shapes -----------------------------------------------------------------------------------


@pytest.mark.requirement("P5")
def test_many_small_sends_to_one_place_are_noticed_as_one_leak() -> None:
    wires = Tripwires(limits=FEW)
    reasons = [send(wires, size=120) for _ in range(9)]
    assert reasons[:8] == [None] * 8
    assert reasons[8] == "it sent 1080 bytes to a.example within 10 minutes; 1000 are usual at most"


@pytest.mark.requirement("P5")
def test_who_has_heard_what_is_private_may_send_less() -> None:
    wires = Tripwires(limits=FEW)
    assert send(wires, size=290) is None
    reason = send(wires, size=11, private=True)
    assert reason is not None and "301 bytes" in reason and "having heard what is private" in reason


@pytest.mark.requirement("P5")
@pytest.mark.parametrize(
    ("places", "reason"),
    [
        (["a.example"] * 9, "it sent to a.example 9 times"),
        ([f"{name}.example" for name in "abcdef"], "it sent to 6 places"),
        ([f"mcp:{name}" for name in "abcdef"], "it sent to 6 places"),
    ],
)
def test_spikes_trip_with_a_reason_in_words(places: list[str], reason: str) -> None:
    wires = Tripwires(limits=FEW)
    *before, last = [send(wires, place) for place in places]
    assert before == [None] * (len(places) - 1)
    assert last is not None and last.startswith(reason)


@pytest.mark.requirement("P4")
def test_names_that_a_guest_makes_up_below_one_are_counted() -> None:
    wires = Tripwires(limits=FEW)
    *before, last = [send(wires, f"w{n}.pages.example:844{n}") for n in range(4)]
    assert before == [None] * 3
    assert last == "it used 4 names below pages.example within 10 minutes, such as w0.pages.example:8440"


@pytest.mark.requirement("P5")
def test_one_long_address_trips_by_itself() -> None:
    assert send(Tripwires(limits=FEW), size=501, address=500) is None
    assert "an address of 501 bytes" in (send(Tripwires(limits=FEW), size=501, address=501) or "")


@pytest.mark.requirement("P5")
def test_what_is_older_than_the_window_counts_no_more_and_another_agent_never_did() -> None:
    wires = Tripwires(limits=FEW)
    for round_ in range(5):
        for _ in range(8):
            assert send(wires, now=round_ * (FEW.window_ms + 1)) is None
    for _ in range(8):
        wires.outbound("reader", "a.example", 1, 0)


@pytest.mark.requirement("P5")
def test_who_is_held_sends_nothing_and_begins_anew_when_released() -> None:
    held = Held()
    wires = held.wires()
    while send(wires) is None:
        pass
    assert held["writer"][0].startswith("it sent to a.example 9 times")
    assert send(wires, "b.example") == held["writer"][0]
    held.clear()
    assert send(wires) is None


class Held(dict[str, tuple[str, str | None]]):
    """Who is held, why, and for which tree of runs."""

    def wires(self) -> Tripwires:
        return Tripwires(limits=FEW, trip=self.trip, held=self.why, leaked=self.leaked)

    def trip(self, agent: str, reason: str, tree: str | None) -> None:
        self[agent] = (reason, tree)

    def why(self, agent: str) -> str | None:
        return self[agent][0] if agent in self else None

    def leaked(self, tree: str) -> str | None:
        return next((agent for agent, (_, of) in self.items() if of == tree), None)


@pytest.mark.requirement("P5")
def test_agents_of_one_run_that_share_a_leak_are_one_leak() -> None:
    held = Held()
    wires = held.wires()
    for number in range(8):
        wires.outbound(f"agent{number}", "a.example", 120, 0, tree="one")
    with pytest.raises(TrippedError, match="its run sent 1080 bytes"):
        wires.outbound("agent8", "a.example", 120, 0, tree="one")
    assert list(held) == ["agent8"]
    with pytest.raises(TrippedError, match="agent9 sends nothing while agent8 of the same run is suspended"):
        wires.outbound("agent9", "b.example", 1, 0, tree="one")
    wires.outbound("agent9", "b.example", 1, 0, tree="another")
    held.clear()
    wires.outbound("agent9", "b.example", 1, 0, tree="one")


@pytest.mark.requirement("P5")
def test_who_trips_alone_silences_its_whole_run_until_it_is_released() -> None:
    held = Held()
    wires = held.wires()
    with pytest.raises(TrippedError, match="writer is suspended"):
        wires.outbound("writer", "a.example", 501, 0, address=501, tree="one")
    for same in (wires, held.wires()):  # also in the eyes of a daemon that started since
        with pytest.raises(TrippedError, match="of the same run") as refused:
            same.outbound("helper", "b.example", 1, 0, tree="one")
        assert "501 bytes" in refused.value.reason and "release writer" in (refused.value.hint or "")
    held.clear()
    wires.outbound("helper", "b.example", 1, 0, tree="one")


@pytest.mark.requirement("P5")
def test_trees_that_send_nothing_any_more_are_forgotten_and_those_that_do_are_not() -> None:
    wires = Tripwires(limits=FEW)
    for number in range(50):
        wires.outbound(f"a{number}", "a.example", 1, number, tree=f"t{number}")
    for number in range(3):  # one goes on beside them
        wires.outbound("b", "a.example", 1, 40 + number * FEW.window_ms // 2, tree="t0")
    assert set(wires._trees) == {"t0"} | {f"t{number}" for number in range(40, 50)}


# --- a day of work --------------------------------------------------------------------------------


@pytest.mark.requirement("P5")
@pytest.mark.parametrize(
    ("sends", "places", "size"),
    [(900, 1, 250), (600, 40, 400), (60, 60, 2_000), (24, 24, 4_000)],
    ids=["a poll", "a survey", "a crawl", "long questions"],
)
def test_the_shapes_of_honest_work_trip_nothing(sends: int, places: int, size: int) -> None:
    wires = Tripwires()
    for number in range(sends):
        place = f"site{number % places}.org"
        assert send(wires, place, size, number * 500, address=size, private=True) is None


@pytest.mark.requirement("P5")
@pytest.mark.parametrize("times", [1, 10])
@pytest.mark.parametrize("pace", [1, 100])
def test_a_recorded_day_of_honest_work_trips_nothing(pace: int, times: int) -> None:
    stream = Sent.read(BASELINE)
    assert len({one.agent for one in stream}) >= 2 and len(stream) >= 50
    assert limits_hold(stream, pace=pace, times=times)


@pytest.mark.requirement("P5")
def test_what_an_honest_agent_would_have_to_do_a_hundred_times_over_is_noticed() -> None:
    stream = Sent.read(BASELINE)
    assert not limits_hold(stream, times=100)
    carried = [msgspec.structs.replace(one, size=20_000, address=0) for one in stream]
    assert not limits_hold(carried)


# --- at the gate ----------------------------------------------------------------------------------


@pytest.fixture
def wired(world: World) -> Quarantine:
    quarantine = Quarantine(world.journal, world.mint, Breaker())
    _wire(world, quarantine)
    return quarantine


def _wire(world: World, quarantine: Quarantine) -> None:
    world.gate._wires = Tripwires(
        limits=FEW, trip=quarantine.trip, held=quarantine.why, leaked=quarantine.leaked
    )


@pytest.mark.requirement("P5")
async def test_a_trip_suspends_the_agent_at_once_and_the_operator_lets_it_go_on(
    world: World, wired: Quarantine
) -> None:
    caller = await world.caller(GRANTS)
    values = [
        (await world.call(caller, "http.fetch", {"url": f"https://a.example/{n}"})).value for n in range(9)
    ]
    assert [value.get("status") for value in values[:8]] == [200] * 8
    assert values[8]["code"] == "tripwire.tripped"
    assert len(world.web.requests) == 8
    await until(lambda: world.payloads("agent.quarantined") and world.payloads("token.revoked"))
    (shown,) = wired.show()
    assert (shown["agent"], shown["reason"]) == (
        "writer", "tripwire: it sent to a.example 9 times within 10 minutes; 8 are usual at most",
    )  # fmt: skip
    assert not (await world.call(caller, "time.now")).ok  # its token is void: nothing at all is answered
    await wired.lift(OPERATOR, "writer", "looked at it")
    fresh = await world.caller(GRANTS, node="again")
    assert (await world.call(fresh, "http.fetch", {"url": "https://a.example/"})).ok


@pytest.mark.requirement("P5")
async def test_agents_of_one_run_that_share_a_leak_are_stopped(world: World, wired: Quarantine) -> None:
    callers = [await world.caller(GRANTS, node=f"n{n}", agent=f"agent{n}") for n in range(10)]
    answers = [
        await world.call(caller, "http.fetch", {"url": f"https://a.example/{n}"})
        for n, caller in enumerate(callers)
    ]
    assert [answer.value.get("code") for answer in answers[8:]] == ["tripwire.tripped"] * 2
    assert len(world.web.requests) == 8
    await until(lambda: world.payloads("agent.quarantined"))
    assert [shown["agent"] for shown in wired.show()] == ["agent8"]


@pytest.mark.requirement("P5")
async def test_a_run_that_leaked_is_silent_after_a_restart_too_until_the_agent_is_released(
    world: World, wired: Quarantine
) -> None:
    leak = {"url": "https://a.example/" + "x" * 600}
    assert (await world.call(await world.caller(GRANTS), "http.fetch", leak)).value["code"] == TRIPPED
    await until(lambda: world.payloads("agent.quarantined"))
    await world.restart()
    after = Quarantine(world.journal, world.mint, Breaker())
    after.restore(world.reader.events(kinds=KINDS))
    _wire(world, after)
    helper = await world.caller(GRANTS, node="helper", agent="helper")
    refused = (await world.call(helper, "http.fetch", {"url": "https://a.example/"})).value
    assert refused["code"] == TRIPPED and "while writer of the same run is suspended" in refused["message"]
    assert world.web.requests == []
    await after.lift(OPERATOR, "writer", "looked at it")
    assert (await world.call(helper, "http.fetch", {"url": "https://a.example/"})).ok


@pytest.mark.requirement("P4")
async def test_words_in_the_names_of_a_granted_wildcard_trip(world: World, wired: Quarantine) -> None:
    caller = await world.caller(GRANTS)
    codes = [
        (await world.call(caller, "http.fetch", {"url": f"https://w{n}.pages.example/"})).value.get("code")
        for n in range(4)
    ]
    assert codes == [None, None, None, "tripwire.tripped"]
    assert len(world.web.requests) == 3


@pytest.mark.requirement("P5")
async def test_what_a_foreign_server_is_told_is_counted_too(world: World) -> None:
    source = ScriptedTools(
        [offer("mcp.far.look", {"text": TEXT}, effect="read", confirm=False, source="mcp")]
    )
    world.sources.append(source)
    await world.restart()
    tripped: list[str] = []
    world.gate._wires = Tripwires(limits=FEW, trip=lambda agent, reason, tree: tripped.append(reason))
    caller = await world.caller(GRANTS)
    call = {"tool": "mcp.far.look", "args": {"text": "x" * 200}}
    answers = [await world.call(caller, "tool.call", call) for _ in range(6)]
    assert [answer.value.get("code") for answer in answers][-3:].count("tripwire.tripped") >= 1
    assert tripped[0].startswith("it sent") and "mcp:far" in tripped[0]
    assert len(source.calls) < 6


@pytest.mark.requirement("P5")
async def test_calls_beside_one_another_are_all_counted(world: World, wired: Quarantine) -> None:
    world.web.gate = asyncio.Event()
    caller = await world.caller(GRANTS)
    tasks = [world.begin(caller, "http.fetch", {"url": f"https://a.example/{n}"}) for n in range(20)]
    await until(lambda: sum(task.done() for task in tasks) == 12)
    world.web.gate.set()
    answers = await asyncio.gather(*tasks)
    assert sum(answer.ok for answer in answers) <= 8 == len(world.web.requests)
    codes = {cast(Any, answer).value.get("code") for answer in answers if not answer.ok}
    assert "tripwire.tripped" in codes
