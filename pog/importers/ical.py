"""iCalendar (RFC 5545): events and todos, one instance or a whole series each.

Knows: components, folding, which properties are kept, revisions. Does not know how a date, a time zone or a
text is written: the library ``icalendar`` does, and is given one component at a time, within bounds, so that
a bad one costs itself only and has a line number.

Kept: title, text, place, start, end or due, status, people, and the rule of a series as it was written.
**Nothing is expanded**: a series is one entry with its first start; an instance that was moved or cancelled
is an entry of its own. Alarms, attachments, free/busy and journals are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from pog.importers.source import (
    Problem,
    Report,
    clean,
    clean_line,
    decode_text,
    is_address,
    read_bounded,
    stable_id,
)
from runloop.digest import blob_digest
from runloop.events import CalendarUpserted, Payload

__all__ = ["parse_calendar", "read_calendar"]

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_ENTRIES = 200_000
MAX_LINE = 64 * 1024
"""Characters of one property, its folds counted."""
MAX_PARAMS = 4 * 1024
MAX_PROPERTIES = 1_000
"""Kept properties of one entry."""
MAX_PEOPLE = 200
MAX_RULE = 4 * 1024
MAX_ZONES = 64
MAX_ZONE_LINES = 400
MAX_ZONE_CHANGES = 5_000
"""Changes of a time zone up to the year 2100: looking a time up in it walks along them."""
MAX_TOLD = 8
"""Properties of one entry that are told of when they cannot be read."""
MAX_SEQUENCE = 2**31 - 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ONCE = frozenset(
    {"UID", "RECURRENCE-ID", "SEQUENCE", "STATUS", "SUMMARY", "DESCRIPTION", "LOCATION", "DTSTART", "DTEND",
     "DUE", "DURATION", "URL", "ORGANIZER"}
)  # fmt: skip
_RULES = frozenset({"RRULE", "RDATE", "EXDATE", "EXRULE"})
_USED = _ONCE | _RULES | {"ATTENDEE"}
_STATUS = frozenset({"confirmed", "tentative", "cancelled", "needs-action", "in-process", "completed"})
_NAME = re.compile(r"([A-Za-z0-9-]{1,64})(?=[;:])")
_NEWLINE = re.compile(r"\r\n|\n|\r")
_LONG_ZONE = re.compile(r"TZID=[^:;]{128}", re.IGNORECASE)
_YEARLY = re.compile(
    r"FREQ=YEARLY(?:;(?:INTERVAL=1|BYMONTH=[0-9]{1,2}|BYDAY=[-+0-9]{0,3}[A-Z]{2}|BYMONTHDAY=[-0-9,]{1,40}"
    r"|BYSETPOS=-?[0-9]|WKST=[A-Z]{2}|UNTIL=[0-9TZ]{8,16}))*\Z"
)
"""Rules of a time zone that give a handful of changes a year, whatever they say."""


@dataclass(slots=True)
class _Part:
    """One component as lines."""

    name: str
    line: int
    lines: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)
    depth: int = 0
    """Components open inside it."""
    many: int = 0
    """Properties beyond those that are kept."""


def read_calendar(path: Path, name: str, report: Report) -> Iterator[Payload]:
    """The entries of a file that people know as ``name``."""
    data = read_bounded(path, MAX_FILE_BYTES, report)
    if data is not None:
        yield from parse_calendar(data, name, report)


def parse_calendar(data: bytes, source: str, report: Report) -> Iterator[Payload]:
    """The entries in the text of a file; of several revisions of one, the newest."""
    newest: dict[str, tuple[CalendarUpserted, int]] = {}
    for line, entry in _entries(decode_text(data), source, report):
        known = newest.get(entry.entry)
        if known is not None and known[0].sequence > entry.sequence:
            report(Problem(f"{source}:{line}", f"line {known[1]} has a newer revision of it", note=True))
            continue
        if known is not None and known[0] != entry:
            report(Problem(f"{source}:{known[1]}", f"line {line} has a newer revision of it", note=True))
        if known is None and len(newest) >= MAX_ENTRIES:
            report(Problem(f"{source}:{line}", f"more than {MAX_ENTRIES} entries; the rest was left out"))
            break
        newest[entry.entry] = (entry, line)
    for entry, _ in newest.values():
        yield entry


def _entries(text: str, source: str, report: Report) -> Iterator[tuple[int, CalendarUpserted]]:
    from icalendar.timezone import tzp

    tzp.use_zoneinfo()  # forgets the zones other files have defined
    method, zones = "", 0
    for part in _parts(text, source, report):
        if part.name == "METHOD":
            method = part.lines[0].upper()
        elif part.name == "VTIMEZONE":
            zones += 1
            if zones <= MAX_ZONES:
                _define_zone(part, source, report)
        else:
            entry = _entry(part, method, source, report)
            if entry is not None:
                yield part.line, entry


# --- lines ------------------------------------------------------------------------------------------


def _parts(text: str, source: str, report: Report) -> Iterator[_Part]:
    """Events, todos, time zones and METHOD, in the order of the file."""
    splitter = _Splitter(source, report)
    for number, line, long in _unfold(text):
        part = splitter.feed(number, line, long)
        if part is not None:
            yield part
        if splitter.over:
            return
    splitter.end()


class _Splitter:
    """Cuts logical lines into components."""

    def __init__(self, source: str, report: Report) -> None:
        self._source = source
        self._report = report
        self._part: _Part | None = None
        self._calendar = False
        self._foreign = 0
        """Components open that nobody asked for."""
        self.over = False
        """What follows is no calendar."""

    def feed(self, number: int, line: str, long: bool) -> _Part | None:
        """Take a line; a component that it completes."""
        word, _, value = line[:100].partition(":")
        word, value = word.strip().upper(), value.strip().upper()
        if self._part is not None:
            return self._inside(self._part, word, value, number, line, long)
        if self._foreign:
            self._foreign += (word == "BEGIN") - (word == "END")
            return None
        return self._outside(word, value, number, line)

    def end(self) -> None:
        """There are no more lines."""
        if self._part is not None:
            self._unended(self._part)

    def _inside(self, part: _Part, word: str, value: str, number: int, line: str, long: bool) -> _Part | None:
        if word == "END" and not part.depth:
            self._part = None
            if value == part.name:
                return part
            self._unended(part)
            self._calendar = self._calendar and value != "VCALENDAR"
            return None
        part.depth += (word == "BEGIN") - (word == "END")
        _keep(part, line, long, f"{self._source}:{number}", self._report)
        return None

    def _outside(self, word: str, value: str, number: int, line: str) -> _Part | None:
        if value == "VCALENDAR" and word in {"BEGIN", "END"}:
            self._calendar = word == "BEGIN"
        elif not self._calendar:
            if line.strip():
                self._report(Problem(f"{self._source}:{number}", "text outside of a calendar"))
                self.over = True
        elif word == "BEGIN" and value in {"VEVENT", "VTODO", "VTIMEZONE"}:
            self._part = _Part(value, number)
        elif word == "BEGIN":
            self._foreign = 1
        elif word == "METHOD":
            return _Part("METHOD", number, [value])
        return None

    def _unended(self, part: _Part) -> None:
        self._report(Problem(f"{self._source}:{part.line}", f"the {part.name} has no END:{part.name}"))


def _keep(part: _Part, line: str, long: bool, place: str, report: Report) -> None:
    """Take a line that is used, if it is within bounds."""
    if part.name == "VTIMEZONE":
        if part.depth <= 1 and not long and len(part.lines) <= MAX_ZONE_LINES:
            part.lines.append(line)
        return
    if part.depth or line[:4].upper() == "END:" or not line.strip():
        return  # an alarm, or the end of one
    match = _NAME.match(line)
    name = match[1].upper() if match else None
    if name is not None and name not in _USED:
        return
    refusal = "this line is no property" if name is None else _refusal(part, name, line, long)
    if refusal is None:
        (part.rules if name in _RULES else part.lines).append(line)
    elif refusal:
        report(Problem(place, refusal))


def _refusal(part: _Part, name: str, line: str, long: bool) -> str | None:
    """Why a property is not taken; empty: for a reason that was told before."""
    if long:
        return f"it is longer than {MAX_LINE} characters"
    if name in _RULES and sum(map(len, part.rules)) + len(line) > MAX_RULE:
        return f"the rules of a series have more than {MAX_RULE} characters"
    if ":" not in line[:MAX_PARAMS]:
        return f"its parameters have more than {MAX_PARAMS} characters"
    if _LONG_ZONE.search(line[:MAX_PARAMS]):
        return "its time zone has no name that could be one"
    if len(part.lines) >= MAX_PROPERTIES:
        part.many += 1
        return f"only {MAX_PROPERTIES} properties of an entry are kept" if part.many == 1 else ""
    return None


def _lines(text: str) -> Iterator[str]:
    """One after the other: a list of all would take many times the room of the text."""
    at = 0
    for end in _NEWLINE.finditer(text):
        yield text[at : end.start()]
        at = end.end()
    yield text[at:]


def _unfold(text: str) -> Iterator[tuple[int, str, bool]]:
    """Logical lines with the number of their first physical one, and whether they were too long."""
    start, parts, used = 0, [""], 0
    for number, line in enumerate(_lines(text), 1):
        if line[:1] in {" ", "\t"} and start:
            if used <= MAX_LINE:
                parts.append(line[1:])
            used += len(line)
        else:
            if start:
                yield start, "".join(parts), used > MAX_LINE
            start, parts, used = number, [line], len(line)
    if start:
        yield start, "".join(parts), used > MAX_LINE


# --- meaning ----------------------------------------------------------------------------------------


def _define_zone(part: _Part, source: str, report: Report) -> None:
    """Let the library know a zone of the file's own, if its rules are such that a year has few changes."""
    import icalendar

    rules = [line.partition(":")[2].upper() for line in part.lines if line[:5].upper() == "RRULE"]
    dates = [line for line in part.lines if line[:5].upper() == "RDATE"]
    if (
        len(part.lines) > MAX_ZONE_LINES
        or sum(map(len, dates)) > MAX_RULE
        or _changes(part.lines) > MAX_ZONE_CHANGES
        or not all(map(_YEARLY.match, rules))
    ):
        report(Problem(f"{source}:{part.line}", "the rules of this time zone are not read", note=True))
        return
    text = "\r\n".join(
        ["BEGIN:VCALENDAR", "BEGIN:VTIMEZONE", *part.lines, "END:VTIMEZONE", "END:VCALENDAR", ""]
    )
    try:
        icalendar.Calendar.from_ical(text)
    except Exception as error:  # a hostile zone may raise anything
        report(Problem(f"{source}:{part.line}", f"this time zone cannot be read: {_short(error)}", note=True))


def _changes(lines: Iterable[str]) -> int:
    """How many changes the rules of a zone give, at most."""
    count = since = 0
    ends: list[tuple[int, int]] = []
    for line in lines:
        name, _, value = line.upper().partition(":")
        if name.startswith("DTSTART") and value[:4].isdecimal():
            since = int(value[:4])
        elif name == "RRULE":
            until = re.search(r"UNTIL=([0-9]{4})", value)
            ends.append((int(until[1]) if until else 2_100, _in_a_year(value)))
        elif name == "END":
            count += sum(max(0, end - since) * times for end, times in ends)
            since, ends = 0, []
    return count


def _in_a_year(rule: str) -> int:
    """How often a rule that :data:`_YEARLY` knows may come true in a year, at most."""
    days = re.search(r"BYMONTHDAY=([-0-9,]*)", rule)
    every_week = re.search(r"BYDAY=[A-Z]", rule)
    in_a_month = days[1].count(",") + 1 if days else 5 if every_week else 1
    return in_a_month if "BYMONTH=" in rule else 12 * in_a_month


def _entry(part: _Part, method: str, source: str, report: Report) -> CalendarUpserted | None:
    import icalendar

    place = f"{source}:{part.line}"
    text = "\r\n".join([f"BEGIN:{part.name}", *part.lines, f"END:{part.name}", ""])
    try:
        found = icalendar.Component.from_ical(text)
        entry, floating = _stated(found, part, method, source)
    except Exception as error:  # the library's readers raise many types
        report(Problem(place, f"it cannot be read: {_short(error)}"))
        return None
    for name, why in list(getattr(found, "errors", ()))[:MAX_TOLD]:
        what = clean_line(str(name), 40) if name else "line"
        report(Problem(place, f"its {what} cannot be read: {_short(why)}"))
    if floating:
        report(
            Problem(place, f"the time zone {floating!r} is not known; the time is kept as written", note=True)
        )
    if not entry.title and not entry.start:
        report(Problem(place, "it has neither a title nor a start"))
        return None
    return entry


def _stated(found: Any, part: _Part, method: str, source: str) -> tuple[CalendarUpserted, str]:
    start = _when(found.get("DTSTART"))
    end = _when(found.get("DTEND") or found.get("DUE"))
    length = getattr(found.get("DURATION"), "dt", None)
    if start is not None and end is None and isinstance(length, timedelta):
        end = _Moment(start.value + length, start.zone)
    again = _when(found.get("RECURRENCE-ID"))
    recurrence = "" if again is None else again.name
    title = clean_line(_text(found, "SUMMARY"))
    uid = clean_line(_text(found, "UID"))
    key = uid or blob_digest("\n".join(part.lines).encode("utf-8", "replace"))
    status = _text(found, "STATUS").strip().lower()
    if not status and method == "CANCEL":
        status = "cancelled"
    url = clean_line(_text(found, "URL"), 2_000)
    floating = next((m.unknown for m in (start, end) if m is not None and m.unknown), "")
    entry = CalendarUpserted(
        entry=stable_id("calendar", f"{key}\n{recurrence}"),
        type="todo" if part.name == "VTODO" else "event",
        uid=uid,
        recurrence=recurrence,
        sequence=_sequence(found.get("SEQUENCE")),
        status=status if status in _STATUS else "",
        title=title,
        text=clean("\n\n".join(filter(None, (_text(found, "DESCRIPTION").strip(), url)))),
        location=clean_line(_text(found, "LOCATION")),
        start="" if start is None else start.text,
        end="" if end is None else end.text,
        start_ms=None if start is None else start.ms,
        end_ms=None if end is None else end.ms,
        all_day=start is not None and not isinstance(start.value, datetime),
        timezone="" if start is None else clean_line(start.zone, 100),
        rule=clean("\n".join(part.rules), MAX_RULE),
        people=_people(found),
        source=clean_line(source),
    )
    return entry, floating


@dataclass(frozen=True, slots=True)
class _Moment:
    """A date or time as the source has it."""

    value: Any
    """``date`` or ``datetime``."""
    zone: str

    @property
    def text(self) -> str:
        return str(self.value.isoformat())

    @property
    def ms(self) -> int:
        if not isinstance(self.value, datetime):
            moment = datetime(self.value.year, self.value.month, self.value.day, tzinfo=UTC)
        else:
            moment = self.value if self.value.tzinfo else self.value.replace(tzinfo=UTC)
        return int((moment - _EPOCH) / timedelta(milliseconds=1))

    @property
    def name(self) -> str:
        """One name for one moment, whatever zone it is written in."""
        if isinstance(self.value, datetime) and self.value.tzinfo:
            return self.value.astimezone(UTC).isoformat()
        return self.text

    @property
    def unknown(self) -> str:
        """The zone that was named and is not known."""
        return self.zone if isinstance(self.value, datetime) and self.value.tzinfo is None else ""


def _when(found: Any) -> _Moment | None:
    if isinstance(found, list):
        found = found[0]
    value = getattr(found, "dt", None)
    if not isinstance(value, date):
        return None
    zone = str(getattr(found, "params", {}).get("TZID", ""))
    if not zone and isinstance(value, datetime) and value.tzinfo is not None:
        zone = "UTC"
    return _Moment(value, zone)


def _sequence(found: Any) -> int:
    try:
        return min(max(int(found), 0), MAX_SEQUENCE)
    except (TypeError, ValueError):
        return 0


def _text(found: Any, name: str) -> str:
    value = found.get(name)
    if isinstance(value, list):
        value = value[0]
    return "" if value is None else str(value)


def _people(found: Any) -> list[str]:
    values: list[Any] = []
    for name in ("ORGANIZER", "ATTENDEE"):
        there = found.get(name)
        values += there if isinstance(there, list) else [] if there is None else [there]
    addresses = (_address(str(value)) for value in values[: 2 * MAX_PEOPLE])
    return list(dict.fromkeys(filter(is_address, addresses)))[:MAX_PEOPLE]


def _address(value: str) -> str:
    return clean_line(value[7:] if value[:7].lower() == "mailto:" else value)


def _short(why: Iterable[Any] | Any) -> str:
    return clean_line(str(why), 200) or type(why).__name__
