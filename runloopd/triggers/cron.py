"""When a schedule is due: a cron expression, read on the clocks of a time zone.

Knows: which instants an expression names, also where the clocks are put forward or back, and how many there
are between two instants. Does not know: what time it is, what is done at a due time. Pure: no clock is read.

An expression has five fields, or six with the seconds first; ``@hourly`` and its kin are written out. Where
the hour is ``*`` it follows time as it passes: an hour that the clocks repeat counts twice, one that they
leave out not at all. Every other expression names times of the wall clock, and each of them is due exactly
once: what exists twice at its first time, what does not exist when the gap is over, and what then falls
together is due once.
"""

from __future__ import annotations

import os
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

from cronsim import CronSim, CronSimError

from runloop.errors import UsageError
from runloop.spelling import nearest

__all__ = ["Cron", "local_zone", "zone_named"]

_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MISTAKES = {
    "Bad second": "its second is not from 0 to 59",
    "Bad minute": "its minute is not from 0 to 59",
    "Bad hour": "its hour is not from 0 to 23",
    "Bad day-of-month": "its day-of-month is not from 1 to 31, or its months have no such day",
    "Bad month": "its month is not from 1 to 12, or JAN to DEC",
    "Bad day-of-week": "its day-of-week is not from 0 to 7, or SUN to SAT, or from #1 to #5 of a month",
}
"""What cronsim says of a field, and what we say."""
_SOON_S = 26 * 3600
"""A change of clocks within this time may repeat times of the wall clock that have just passed."""
_EPOCH = datetime(1970, 1, 1)
"""Times of the wall clock carry no zone in here."""
_DAY_MS = 86_400_000
_LAST_S = 253_370_764_800
"""The year 9999 and what lies beyond it has no dates."""
_MAX_CHARS = 200


class Cron:
    """One expression in one zone. Instants are unix milliseconds, always whole seconds."""

    def __init__(self, expression: str, zone: str) -> None:
        """Raises :class:`UsageError` for what is no expression, names no time at all, or for an unknown
        zone."""
        self.expression = _written_out(expression)
        self.zone = zone
        self._zone = zone_named(zone)
        fields = self.expression.split()
        if len(fields) not in (5, 6):
            raise _wrong(expression, f"it has {len(fields)} fields, not five or six")
        self._follows_time = fields[-4] == "*"
        try:
            self._cron = CronSim(self.expression, _EPOCH)
        except CronSimError as error:
            raise _wrong(expression, _MISTAKES.get(str(error), str(error))) from error
        if next(self._walls(datetime(2000, 1, 1)), None) is None:
            raise _wrong(expression, "no date ever fits it")

    def after(self, instant_ms: int) -> int | None:
        """The first due time behind an instant; None where there is none in fifty years."""
        return next(self.times(instant_ms), None)

    def times(self, instant_ms: int) -> Iterator[int]:
        """Every due time behind an instant, in order."""
        seconds = instant_ms // 1000
        found = self._passing(seconds) if self._follows_time else self._of_the_wall(seconds)
        return (due * 1000 for due in found)

    def newest(self, after_ms: int, until_ms: int) -> int | None:
        """The last due time behind ``after_ms``, up to and with ``until_ms``."""
        span = 60_000
        while True:
            begin = max(after_ms, until_ms - span)
            last = None
            for due in self.times(begin):
                if due > until_ms:
                    break
                last = due
            if last is not None or begin == after_ms:
                return last
            span *= 4

    def count(self, after_ms: int, until_ms: int) -> int:
        """How many due times lie behind ``after_ms``, up to and with ``until_ms``.

        Days on which the clocks stay as they are, are multiplied, so that years of seconds take no time.
        """
        day = self._wall(after_ms // 1000).date() - timedelta(days=1)
        last = self._wall(until_ms // 1000).date() + timedelta(days=1)
        found, begin = 0, self._begin(day)
        while day <= last:
            tomorrow = day + timedelta(days=1)
            end = self._begin(tomorrow)
            low, high = max(after_ms, begin - 1000), min(until_ms, end - 1000)
            if low < high:
                found += self._of_a_day(day, begin, end, low, high)
            day, begin = tomorrow, end
        return found

    # --- days -------------------------------------------------------------------------------------

    def _of_a_day(self, day: date, begin: int, end: int, after: int, until: int) -> int:
        """Due times behind ``after``, up to ``until``, both within a day (or one second before it)."""
        offsets = {self._offset(place // 1000) for place in (begin - 1000, begin, end)}
        if len(offsets) > 1 or end - begin != _DAY_MS:  # the clocks are changed: one by one
            return sum(1 for _ in takewhile(lambda due: due <= until, self.times(after)))
        if day.month not in self._cron.months or not self._cron.match_day(day):
            return 0
        return self._up_to((until - begin) // 1000) - self._up_to((after - begin) // 1000)

    def _up_to(self, second: int) -> int:
        """Due times of a day that fits, up to and with one of its seconds."""
        if second < 0:
            return 0
        hour, minute = second // 3600, second // 60 % 60
        hours, minutes, seconds = self._cron.hours, self._cron.minutes, self._cron.seconds
        found = sum(1 for one in hours if one < hour) * len(minutes) * len(seconds)
        if hour in hours:
            found += sum(1 for one in minutes if one < minute) * len(seconds)
            if minute in minutes:
                found += sum(1 for one in seconds if one <= second % 60)
        return found

    def _begin(self, day: date) -> int:
        return self._instant(datetime(day.year, day.month, day.day)) * 1000

    # --- times of the wall clock ------------------------------------------------------------------

    def _of_the_wall(self, seconds: int) -> Iterator[int]:
        last = seconds
        for wall in self._walls(self._wall(seconds)):
            due = self._instant(wall)
            if due > last:
                yield due
                last = due

    def _instant(self, wall: datetime) -> int:
        """The first instant at which the clocks show this, or have come past it."""
        before = _seconds(wall) - self._offset_of(wall, fold=0)
        after = _seconds(wall) - self._offset_of(wall, fold=1)
        if before <= after or self._wall(before) == wall:
            return before  # it exists: once, or first of twice
        return self._change(after, before)

    # --- time as it passes ------------------------------------------------------------------------

    def _passing(self, seconds: int) -> Iterator[int]:
        wall, offset = self._wall(seconds), self._offset(seconds)
        while True:
            for shown in self._walls(wall):
                due = _seconds(shown) - offset
                near = min(due, seconds + _SOON_S)
                far = near if self._offset(near) != offset else due
                if self._offset(far) != offset:
                    change = self._change(seconds, far)
                    if due >= change:
                        seconds, offset = change - 1, self._offset(change)
                        wall = _EPOCH + timedelta(seconds=seconds + offset)
                        break
                yield due
                seconds = due
            else:
                return

    def _change(self, before: int, behind: int) -> int:
        """The first second of other clocks: they differ at the two instants."""
        offset = self._offset(before)
        while behind - before > 1:
            middle = (before + behind) // 2
            if self._offset(middle) == offset:
                before = middle
            else:
                behind = middle
        return behind

    # --- clocks -----------------------------------------------------------------------------------

    def _walls(self, after: datetime) -> Iterator[datetime]:
        """Times of a wall clock that is never put forward or back."""
        try:
            yield from CronSim(self.expression, after)
        except (RuntimeError, OverflowError, ValueError):  # fifty years without one; the end of all dates
            return

    def _wall(self, seconds: int) -> datetime:
        return _EPOCH + timedelta(seconds=seconds + self._offset(seconds))

    def _offset(self, seconds: int) -> int:
        shown = datetime.fromtimestamp(min(seconds, _LAST_S), UTC).astimezone(self._zone).utcoffset()
        assert shown is not None
        return int(shown.total_seconds())

    def _offset_of(self, wall: datetime, *, fold: int) -> int:
        offset = wall.replace(tzinfo=self._zone, fold=fold).utcoffset()
        assert offset is not None
        return int(offset.total_seconds())


def _seconds(wall: datetime) -> int:
    return int((wall - _EPOCH).total_seconds())


def _written_out(expression: str) -> str:
    bare = " ".join(expression.split())
    if len(bare) > _MAX_CHARS:
        raise _wrong(bare[:40] + "…", f"it has more than {_MAX_CHARS} characters")
    if bare.startswith("@"):
        if bare.lower() not in _NAMED:
            raise _wrong(bare, f"there are {', '.join(_NAMED)}")
        return _NAMED[bare.lower()]
    return bare


def _wrong(expression: str, why: str) -> UsageError:
    return UsageError(
        f"{expression!r} is no schedule: {why}",
        hint="minute hour day month weekday, as in '0 8 * * 1-5'; seconds may come first",
        code="schedule.cron",
    )


# --- zones ----------------------------------------------------------------------------------------


def zone_named(name: str) -> zoneinfo.ZoneInfo:
    """The time zone of an IANA name; raises :class:`UsageError`."""
    try:
        if name in _zones():
            return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass
    close = nearest(name, _zones(), cutoff=0.5)
    raise UsageError(
        f"there is no time zone {name[:80]!r}",
        hint=f"did you mean {close}?" if close else "names are like Europe/Berlin or UTC",
        code="schedule.zone",
    )


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def local_zone() -> str:
    """The name of this machine's zone; UTC where nothing names one."""
    said = os.environ.get("TZ", "").removeprefix(":")
    if said in _zones():
        return said
    try:
        _, found, name = str(Path("/etc/localtime").readlink()).partition("zoneinfo/")
    except OSError:
        return "UTC"
    return name if found and name in _zones() else "UTC"
