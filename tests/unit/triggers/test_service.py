"""What falls due is fired once or reported, whatever happens meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from runloop.errors import ConflictError, NotFoundError, RefusedError, UsageError
from runloopd.bus.acl import BusRefusal, check_publish, may_receive
from runloopd.bus.principal import Principal
from runloopd.triggers.wish import TriggerWish
from tests.unit.triggers.conftest import Make
from tests.unit.triggers.house import DAY, HOUR, MINUTE, OPENING, OPERATOR, START, House, refusal

AGENT = Principal(kind="agent", name="agent:writer#1")
PEER = Principal(kind="peer", name="operator:1000#2", uid=1000, pid=2)
SCHEDULE = Principal(kind="schedule", name="schedule:daily")


def missed(house: House) -> list[tuple[int, str]]:
    return [(fact.times, fact.reason) for fact in house.facts("trigger.missed")]


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.requirement("I5.triggers.1")
async def test_a_schedule_fires_at_its_times_and_its_runs_are_its_own(house: House) -> None:
    await house.set(cron="0 * * * *")
    for _ in range(3):
        await house.move(HOUR)
        (run,) = house.running()
        await house.end(run)
    fired = house.facts("trigger.fired")
    assert [fact.due_ms for fact in fired] == [START + HOUR, START + 2 * HOUR, START + 3 * HOUR]
    started = house.events("run.started")
    assert [event.run for event in started] == [fact.starts for fact in fired]
    assert {event.payload.principal for event in started} == {"schedule:daily"}  # type: ignore[attr-defined]
    assert not any(event.payload.origin["interactive"] for event in started)  # type: ignore[attr-defined]
    assert [event.provenance.causes for event in started] == [
        (event.id,) for event in house.events("trigger.fired")
    ]
    assert missed(house) == []


@pytest.mark.requirement("S3")
async def test_thousands_of_missed_times_are_one_report_and_no_run(house: House) -> None:
    await house.set(cron="* * * * *")
    await house.kill()
    house.clock.advance(10 * DAY - MINUTE // 2)
    await house.start()
    (fact,) = house.facts("trigger.missed")
    # The newest is half a minute old: that is within the grace, and fires.
    assert (fact.times, fact.reason) == (10 * 1440 - 2, "down")
    assert (fact.first_due_ms, fact.last_due_ms) == (START + MINUTE, START + 10 * DAY - 2 * MINUTE)
    assert [one.due_ms for one in house.facts("trigger.fired")] == [START + 10 * DAY - MINUTE]


@pytest.mark.requirement("S3")
@pytest.mark.parametrize(("policy", "runs", "times"), [("skip", 0, 5), ("once", 1, 4)])
async def test_missed_times_are_reported_or_made_up_for_by_one_run(
    house: House, policy: Any, runs: int, times: int
) -> None:
    await house.set(cron="0 8 * * *", missed=policy)
    await house.kill()
    house.clock.advance(5 * DAY)
    await house.start()
    assert len(house.events("run.started")) == runs
    assert missed(house) == [(times, "down")]
    await house.kill()
    await house.start()  # and it stays so
    assert len(house.events("run.started")) == runs
    assert missed(house) == [(times, "down")]


@pytest.mark.requirement("S3")
async def test_a_clock_that_jumps_forward_is_reported_as_late(house: House) -> None:
    await house.set(cron="0 * * * *")
    await house.move(7 * HOUR + 5 * MINUTE)
    assert missed(house) == [(7, "late")]
    assert house.events("run.started") == []


@pytest.mark.requirement("S3")
async def test_a_clock_that_is_set_back_fires_nothing_twice(house: House) -> None:
    await house.set(cron="0 * * * *", overlap="parallel")
    await house.move(HOUR)
    await house.move(HOUR)
    await house.move(-90 * MINUTE)
    await house.move(HOUR)
    await house.move(30 * MINUTE)
    await house.move(HOUR)
    assert [one.due_ms for one in house.facts("trigger.fired")] == [START + n * HOUR for n in (1, 2, 3)]
    assert missed(house) == []


@pytest.mark.requirement("S3")
async def test_a_clock_that_was_years_ahead_does_not_silence_a_schedule(house: House) -> None:
    await house.set(cron="0 * * * *", missed="once")
    await house.move(400 * DAY)
    assert missed(house) == [(400 * 24 - 1, "late")]
    (run,) = house.running()
    await house.move(-400 * DAY)
    await house.end(run)
    await house.kill()
    house.clock.advance(3 * HOUR + 5 * MINUTE)
    await house.start()  # what fell due meanwhile, by the corrected clock, is accounted for too
    assert missed(house)[1:] == [(2, "down")]
    assert [one.due_ms for one in house.facts("trigger.fired")] == [START + 400 * DAY, START + 3 * HOUR]
    await house.kill()
    await house.start()
    assert len(house.facts("trigger.fired")) == 2


async def test_no_wake_ups_without_triggers_and_one_until_the_next_due_time(house: House) -> None:
    await house.move(3 * DAY)
    assert house.clock.waits == []
    await house.set(cron="0 8 * * *")
    assert house.clock.waits == [START + 3 * DAY + 8 * HOUR]


# --- crashes --------------------------------------------------------------------------------------


@pytest.mark.requirement("S3")
async def test_a_daemon_that_dies_between_firing_and_starting_starts_exactly_that_run(house: House) -> None:
    await house.set(cron="0 * * * *")
    house.runs.hangs = True
    await house.move(HOUR)
    assert house.events("run.started") == []
    (fired,) = house.facts("trigger.fired")
    for _ in range(2):
        await house.kill()
        house.clock.advance(MINUTE)
        await house.start()
        assert [event.run for event in house.events("run.started")] == [fired.starts]
    assert len(house.facts("trigger.fired")) == 1
    assert missed(house) == []


async def test_a_run_that_cannot_start_is_reported_with_the_reason_and_not_tried_again(house: House) -> None:
    await house.set(cron="0 * * * *")
    house.runs.refuses = refusal()
    await house.move(HOUR)
    assert missed(house) == [(1, "agent.held: the agent writer is held")]
    house.runs.refuses = None
    await house.kill()
    await house.start()
    assert house.events("run.started") == []
    assert house.running() == []


async def test_an_opening_that_no_longer_fits_its_agents_is_reported_before_anything_is_fired(
    house: House,
) -> None:
    await house.set(cron="0 * * * *")
    house.runs.broken = refusal()
    await house.move(HOUR)
    assert house.facts("trigger.fired") == []
    assert missed(house) == [(1, "agent.held: the agent writer is held")]


# --- overlap, pause, replacement ------------------------------------------------------------------


async def test_while_a_run_goes_on_a_due_time_is_reported_unless_runs_may_overlap(house: House) -> None:
    await house.set("alone", cron="0 * * * *")
    await house.set("beside", cron="0 * * * *", overlap="parallel")
    await house.move(HOUR)
    await house.move(HOUR)
    assert len(house.running("alone")) == 1
    assert len(house.running("beside")) == 2
    assert missed(house) == [(1, "overlap")]
    await house.kill()
    await house.start()
    await house.move(HOUR)
    assert (len(house.running("alone")), len(house.running("beside"))) == (1, 3)


@pytest.mark.requirement("S3")
async def test_what_fell_due_in_a_pause_is_reported_and_not_made_up_for(house: House) -> None:
    await house.set(cron="0 * * * *", missed="once")
    await house.orders.pause(OPERATOR, "daily")
    with pytest.raises(ConflictError):
        await house.orders.pause(OPERATOR, "daily")
    await house.move(5 * HOUR)
    await house.kill()
    await house.start()
    await house.move(HOUR + MINUTE)
    assert missed(house) == []
    await house.orders.resume(OPERATOR, "daily")
    await house.settle()
    assert missed(house) == [(6, "paused")]
    await house.move(HOUR)
    assert len(house.running()) == 1


async def test_a_removed_trigger_settles_its_account_and_is_gone(house: House) -> None:
    await house.set(cron="0 * * * *")
    await house.orders.pause(OPERATOR, "daily")
    await house.move(2 * HOUR)
    await house.orders.remove(OPERATOR, "daily")
    assert missed(house) == [(2, "paused")]
    await house.kill()
    await house.start()
    await house.move(DAY)
    assert (house.triggers.all(), house.events("run.started")) == ([], [])
    with pytest.raises(NotFoundError):
        await house.orders.remove(OPERATOR, "daily")


async def test_the_text_that_was_set_runs_whatever_the_file_says_now(house: House) -> None:
    file = house.path / "digest.yaml"
    file.write_text(OPENING)
    await house.set(cron="0 * * * *", path=str(file), params={"topic": "bees"})
    file.write_text("version: 0\nname: other\n")
    await house.move(HOUR)
    (asked,) = house.runs.asked
    assert (asked.source, asked.params) == (OPENING, {"topic": "bees"})


# --- who may --------------------------------------------------------------------------------------


@pytest.mark.requirement("C10")
@pytest.mark.parametrize("principal", [AGENT, PEER, SCHEDULE], ids=lambda one: one.kind)
async def test_nobody_but_the_operator_sets_or_moves_a_trigger(house: House, principal: Principal) -> None:
    wish = TriggerWish(trigger="mine", source=OPENING, name="digest", cron="* * * * *", zone="UTC")
    await house.set(cron="0 * * * *")
    for asked in (
        house.orders.set(principal, wish),
        house.orders.remove(principal, "daily"),
        house.orders.pause(principal, "daily"),
        house.orders.resume(principal, "daily"),
        house.orders.run_now(principal, "daily"),
    ):
        with pytest.raises(RefusedError) as refused:
            await asked
        assert refused.value.named_code == "operator.required"
    assert [trigger.name for trigger in house.triggers.all()] == ["daily"]
    assert house.events("run.started", "trigger.paused", "trigger.removed") == []


@pytest.mark.requirement("C10")
@pytest.mark.parametrize("topic", ["rlp/actions/decision", "rlp/ctrl", "rlp/runs/r", "agent/writer", "notes"])
@pytest.mark.parametrize("schema", [3006, 2001, 3001, 4000, 1])
def test_a_schedule_says_nothing_on_the_bus_and_hears_nothing(topic: str, schema: int) -> None:
    with pytest.raises(BusRefusal):
        check_publish(SCHEDULE, topic, schema)
    assert not may_receive(SCHEDULE, topic)


@pytest.mark.requirement("C10")
async def test_a_run_that_the_operator_asks_for_now_has_no_more_authority(house: House) -> None:
    await house.set(cron="0 8 * * *")
    run = await house.orders.run_now(OPERATOR, "daily")
    (started,) = house.events("run.started")
    assert started.run == run
    assert started.payload.principal == "schedule:daily"  # type: ignore[attr-defined]
    assert started.payload.origin["interactive"] is False  # type: ignore[attr-defined]
    await house.end(run)
    await house.kill()
    await house.start()
    await house.move(8 * HOUR)  # and it accounts for no due time
    assert [fact.due_ms for fact in house.facts("trigger.fired")] == [START, START + 8 * HOUR]


async def test_a_run_now_that_cannot_be_is_told_and_never_comes_by_itself(house: House) -> None:
    await house.set(cron="0 8 * * *")
    house.runs.refuses = refusal()
    with pytest.raises(ConflictError):
        await house.orders.run_now(OPERATOR, "daily")
    house.runs.refuses = None
    await house.kill()
    await house.start()
    assert house.events("run.started") == []
    await house.move(8 * HOUR)
    assert [fact.due_ms for fact in house.facts("trigger.fired")] == [START, START + 8 * HOUR]


# --- money ----------------------------------------------------------------------------------------


@pytest.mark.requirement("K8")
async def test_an_idle_day_costs_no_more_than_configured(make: Make) -> None:
    house = await make(day_micro_usd=100_000, run_micro_usd=30_000)
    await house.set(cron="*/20 * * * *", overlap="parallel")
    spent: list[tuple[int, int]] = []
    for _ in range(2 * 72):
        await house.move(20 * MINUTE)
        for run in house.running():
            cost = 30_000 if len(spent) % 2 else 7_000
            await house.spend(run, cost)
            spent.append((house.clock.now_ms(), cost))
            await house.end(run)
        now = house.clock.now_ms()
        assert sum(cost for at, cost in spent if at > now - DAY) <= 100_000
    assert len(spent) > 6
    reasons = {reason for _, reason in missed(house)}
    assert reasons == {"budget"}
    assert len(spent) + len(missed(house)) == 2 * 72
    # Asked for its next time once for each; nothing ticks in between.
    assert len(house.clock.waits) < 2 * 72 * 4


@pytest.mark.requirement("K8")
async def test_money_is_set_aside_before_a_run_starts_and_for_as_long_as_it_may_spend(make: Make) -> None:
    house = await make(day_micro_usd=100_000, run_micro_usd=40_000)
    await house.set(cron="0 * * * *", overlap="parallel")
    for _ in range(4):
        await house.move(HOUR)
    first, second = house.running()
    assert missed(house) == [(1, "budget"), (1, "budget")]
    await house.kill()
    await house.start()  # what is set aside is set aside after a restart too
    await house.move(2 * DAY)
    assert set(house.running()) == {first, second}
    await house.spend(first, 10_000)
    await house.end(first)
    await house.move(HOUR)
    assert len(house.running()) == 2
    await house.end(house.running()[0])
    await house.kill()
    await house.start()
    assert house.triggers.allowance.charged(house.clock.now_ms()) == 50_000


@pytest.mark.requirement("K8")
async def test_an_opening_that_may_cost_nothing_is_never_held_back_for_money(make: Make) -> None:
    house = await make(day_micro_usd=0)
    await house.set(cron="0 * * * *", overlap="parallel")
    house.runs.costs = 0
    for _ in range(3):
        await house.move(HOUR)
    assert len(house.running()) == 3


async def test_no_more_runs_are_unfinished_than_configured(make: Make) -> None:
    house = await make(max_runs=2)
    await house.set(cron="0 * * * *", overlap="parallel")
    for _ in range(3):
        await house.move(HOUR)
    assert len(house.running()) == 2
    assert missed(house) == [(1, "busy")]
    with pytest.raises(ConflictError) as refused:
        await house.orders.run_now(OPERATOR, "daily")
    assert refused.value.named_code == "schedule.busy"


async def test_the_grace_is_what_the_configuration_says(make: Make) -> None:
    house = await make(grace_ms=10 * MINUTE)
    await house.set(cron="0 * * * *", overlap="parallel")
    await house.move(HOUR + 10 * MINUTE)
    await house.move(HOUR + MINUTE)
    assert [fact.due_ms for fact in house.facts("trigger.fired")] == [START + HOUR]
    assert missed(house) == [(1, "late")]


async def test_a_schedule_without_a_zone_is_read_in_the_configured_one(make: Make) -> None:
    house = await make(zone="Asia/Tokyo")
    await house.set(cron="0 8 * * *", zone=None)
    assert house.triggers.find("daily").fact.zone == "Asia/Tokyo"
    assert house.triggers.next_due() == ("daily", START + 23 * HOUR)


# --- what is refused when it is set ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"cron": "0 8 * * *", "trigger": "../x"}, "schedule.name"),
        ({"cron": "0 8 * * *", "trigger": "a" * 65}, "schedule.name"),
        ({}, "schedule.when"),
        ({"cron": "0 8 * * *", "watch": ("/tmp",)}, "schedule.when"),
        ({"cron": "0 8 * * *", "patterns": ("*.md",)}, "schedule.when"),
        ({"watch": ("/tmp",), "zone": "UTC"}, "schedule.when"),
        ({"cron": "nonsense"}, "schedule.cron"),
        ({"cron": "0 8 * * *", "zone": "Mars/Olympus"}, "schedule.zone"),
        ({"cron": "0 8 * * *", "source": "version: 0\nname: x\n"}, "opening.invalid"),
    ],
)
async def test_a_wish_that_cannot_be_meant_changes_nothing(
    house: House, said: dict[str, Any], code: str
) -> None:
    with pytest.raises(UsageError) as refused:
        await house.set(**{"trigger": "daily", **said})
    assert refused.value.named_code == code
    assert house.events("trigger.set") == []


async def test_there_are_only_so_many(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runloopd.triggers.orders.MAX_TRIGGERS", 2)
    for name in ("one", "two", "two"):
        await house.set(name, cron="0 8 * * *")
    with pytest.raises(ConflictError):
        await house.set("three", cron="0 8 * * *")


async def test_a_ledger_that_takes_nothing_starts_nothing_and_is_asked_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pog.errors import LedgerWriteError

    await house.set(cron="0 * * * *")
    real = house.journal.append

    async def full(*_: Any, **__: Any) -> Any:
        raise LedgerWriteError("the disk is full", hint="make room")

    monkeypatch.setattr(house.journal, "append", full)
    await house.move(HOUR)
    assert (house.runs.asked, house.running()) == ([], [])
    monkeypatch.setattr(house.journal, "append", real)
    await house.move(5_000)
    assert [fact.due_ms for fact in house.facts("trigger.fired")] == [START + HOUR]
    assert len(house.running()) == 1


@pytest.mark.requirement("S3")
async def test_a_run_asked_for_in_a_pause_hides_nothing_that_fell_due(house: House) -> None:
    await house.set(cron="0 * * * *")
    await house.orders.pause(OPERATOR, "daily")
    await house.move(5 * HOUR + MINUTE)
    await house.end(await house.orders.run_now(OPERATOR, "daily"))
    await house.orders.resume(OPERATOR, "daily")
    assert missed(house) == [(5, "paused")]
