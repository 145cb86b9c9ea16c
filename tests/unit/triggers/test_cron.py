"""When a schedule is due, against a brute-force oracle that looks at every minute of the clocks."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from itertools import takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runloop.errors import UsageError
from runloopd.triggers import cron
from runloopd.triggers.cron import Cron, local_zone

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour
    "America/Havana",  # midnight comes twice
    "Asia/Beirut",  # midnight is left out
    "America/St_Johns",  # one minute past midnight, in its time
    "Africa/Casablanca",  # back and forth within weeks
    "Antarctica/Troll",  # two hours
    "Asia/Kathmandu",  # never, and 5:45 from Greenwich
)
YEARS = range(2008, 2031)
MINUTE = 60_000


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def shown(due_ms: int | None, zone: str) -> str:
    assert due_ms is not None
    return datetime.fromtimestamp(due_ms / 1000, UTC).astimezone(zoneinfo.ZoneInfo(zone)).isoformat()


# --- the oracle: every minute of the clocks around every change of them ---------------------------


@cache
def changes(zone: str) -> tuple[int, ...]:
    """The hours (unix) in which the clocks of a zone were changed."""
    info, found, before = zoneinfo.ZoneInfo(zone), [], None
    first = int(datetime(YEARS[0], 1, 1, tzinfo=UTC).timestamp())
    for at in range(first, int(datetime(YEARS[-1], 12, 31, tzinfo=UTC).timestamp()), 3600):
        offset = datetime.fromtimestamp(at, UTC).astimezone(info).utcoffset()
        if before is not None and offset != before:
            found.append(at)
        before = offset
    return tuple(found) or (first,)


@lru_cache(maxsize=64)
def clocks(zone: str, middle: int) -> tuple[tuple[int, datetime], ...]:
    """Every minute of four days, with what the clocks of a zone show."""
    info, begin = zoneinfo.ZoneInfo(zone), (middle - 2 * 86_400) // 60 * 60
    return tuple(
        (at * 1000, datetime.fromtimestamp(at, UTC).astimezone(info).replace(tzinfo=None))
        for at in range(begin, begin + 4 * 86_400, 60)
    )


def oracle(zone: str, middle: int, hours: set[int] | None, minutes: set[int]) -> list[int]:
    """Due times by looking at every minute. ``hours`` None: every hour, as time passes."""
    table = clocks(zone, middle)
    if hours is None:
        return [at for at, wall in table if wall.minute in minutes]
    first_shown: dict[datetime, int] = {}
    for at, wall in table:
        first_shown.setdefault(wall, at)
    due: set[int] = set()
    wall = table[0][1]
    while wall <= table[-1][1]:
        if wall.hour in hours and wall.minute in minutes:
            due.add(first_shown[wall] if wall in first_shown else past(table, wall))
        wall += timedelta(minutes=1)
    return sorted(due)


def past(table: tuple[tuple[int, datetime], ...], wall: datetime) -> int:
    """The first minute at which the clocks have come past a time that they never show."""
    return next(at for at, seen in table if seen > wall)


def inside(found: list[int], zone: str, middle: int) -> list[int]:
    """Without the edges: what lies before the table may map into its first minutes."""
    table = clocks(zone, middle)
    return [due for due in found if table[0][0] + 86_400_000 < due < table[-1][0] - 86_400_000]


@pytest.mark.requirement("S3")
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_around_every_change_of_clocks_each_time_is_due_exactly_once(data: st.DataObject) -> None:
    zone = data.draw(st.sampled_from(ZONES))
    middle = data.draw(st.sampled_from(changes(zone)))
    minutes = data.draw(st.sets(st.integers(0, 59), min_size=1, max_size=6))
    hours = data.draw(st.none() | st.sets(st.integers(0, 23) | st.integers(0, 4), min_size=1, max_size=5))
    said = ",".join(map(str, sorted(minutes)))
    seconds = data.draw(st.sampled_from(("", "0 ")))
    made = Cron(f"{seconds}{said} {'*' if hours is None else ','.join(map(str, sorted(hours)))} * * *", zone)
    table = clocks(zone, middle)
    after, until = table[0][0] + data.draw(st.integers(0, 86_400_000)), table[-1][0]
    found = list(takewhile(lambda due: due <= until, made.times(after)))
    wanted = [due for due in inside(oracle(zone, middle, hours, minutes), zone, middle) if due > after]
    assert inside(found, zone, middle) == wanted
    assert len(set(found)) == len(found)
    assert made.count(after, until) == len(found)
    assert made.newest(after, until) == (found[-1] if found else None)
    assert made.after(after) == (found[0] if found else made.after(until))


@settings(max_examples=20, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    after=st.integers(ms("2010-01-01T00:00Z"), ms("2026-01-01T00:00Z")),
    days=st.integers(0, 500),
    expression=st.sampled_from(
        (
            "30 2 * * *",
            "*/7 * * * *",
            "0 0 1 * *",
            "15 23,0 * * 1-5",
            "0 12 L * *",
            "5 1 13 * 5",
            "0 0 29 2 *",
        )
    ),
)
def test_counting_days_at_once_counts_as_one_by_one(
    zone: str, after: int, days: int, expression: str
) -> None:
    made, until = Cron(expression, zone), after + days * 86_400_000 + 12_345
    assert made.count(after, until) == sum(1 for _ in takewhile(lambda due: due <= until, made.times(after)))


# --- said in words --------------------------------------------------------------------------------


@pytest.mark.requirement("S3")
def test_a_time_that_the_clocks_leave_out_is_due_when_the_gap_is_over() -> None:
    made = Cron("30 2 * * *", "Europe/Berlin")
    assert shown(made.after(ms("2026-03-28T12:00Z")), made.zone) == "2026-03-29T03:00:00+02:00"
    assert shown(made.after(ms("2026-03-29T01:00Z")), made.zone) == "2026-03-30T02:30:00+02:00"


@pytest.mark.requirement("S3")
def test_a_time_that_the_clocks_show_twice_is_due_the_first_time() -> None:
    made = Cron("30 2 * * *", "Europe/Berlin")
    assert shown(made.after(ms("2026-10-24T12:00Z")), made.zone) == "2026-10-25T02:30:00+02:00"
    assert shown(made.after(ms("2026-10-25T00:30Z")), made.zone) == "2026-10-26T02:30:00+01:00"


def test_what_falls_together_is_due_once() -> None:
    made = Cron("0,30 2,3 * * *", "Europe/Berlin")
    day = []
    for due in made.times(ms("2026-03-28T20:00Z")):
        if due >= ms("2026-03-29T20:00Z"):
            break
        day.append(due)
    assert [shown(due, made.zone)[11:16] for due in day] == ["03:00", "03:30"]


def test_every_hour_means_every_hour_that_passes() -> None:
    made = Cron("@hourly", "Europe/Berlin")
    times = made.times(ms("2026-10-24T23:30Z"))
    assert [shown(next(times), made.zone)[11:19] for _ in range(4)] == [
        "02:00:00", "02:00:00", "03:00:00", "04:00:00",
    ]  # fmt: skip


def test_seconds_may_come_first() -> None:
    made = Cron("*/20 30 8 * * *", "UTC")
    times = made.times(ms("2026-01-01T00:00Z"))
    assert [shown(next(times), "UTC")[11:19] for _ in range(3)] == ["08:30:00", "08:30:20", "08:30:40"]


def test_years_of_seconds_are_counted_without_looking_at_each() -> None:
    made = Cron("* * * * * *", "Asia/Kathmandu")
    looked = 0
    real = made.times

    def counting(instant_ms: int) -> object:
        nonlocal looked
        looked += 1
        return real(instant_ms)

    made.times = counting  # type: ignore[assignment, method-assign]
    assert made.count(ms("2000-01-01T00:00Z"), ms("2020-01-01T00:00Z")) == (20 * 365 + 5) * 86_400
    assert looked == 0


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("* * * * * * *", "7 fields"),
        ("61 * * * *", "minute"),
        ("0 25 * * *", "hour"),
        ("0 0 30 2 *", "day-of-month"),
        ("0 0 * * 9", "day-of-week"),
        ("0 8 * * MON-", "day-of-week"),
        ("0 0 * 2 MON#9", "day-of-week"),
        ("@never", "@hourly"),
        ("*/0 * * * *", "minute"),
        ("\x1b[2J * * * *", "minute"),
        ("1," * 200 + "1 * * * *", "200 characters"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_reason(expression: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        Cron(expression, "UTC")
    assert refused.value.named_code == "schedule.cron"
    assert refused.value.hint


@pytest.mark.parametrize(
    "zone", ["", "Europe/Berln", "../../etc/passwd", "/etc/localtime", "a" * 5_000, "\x00"]
)
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(UsageError) as refused:
        Cron("0 8 * * *", zone)
    assert refused.value.named_code == "schedule.zone"
    assert len(refused.value.message) < 200


def test_a_misspelt_zone_gets_a_suggestion() -> None:
    with pytest.raises(UsageError) as refused:
        Cron("0 8 * * *", "Europe/Berln")
    assert refused.value.hint == "did you mean Europe/Berlin?"


@given(st.text(max_size=40))
def test_whatever_is_typed_is_a_schedule_or_refused(text: str) -> None:
    try:
        made = Cron(text, "Europe/Berlin")
    except UsageError:
        return
    due = made.after(ms("2026-01-01T00:00Z"))
    assert due is None or due > ms("2026-01-01T00:00Z")


def test_this_machines_zone_is_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert local_zone() == "Asia/Tokyo"
    monkeypatch.setenv("TZ", "no such zone")
    assert local_zone() in cron._zones()
