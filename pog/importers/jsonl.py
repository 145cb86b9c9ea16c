"""JSON lines: one object on each line; contacts, notes and events by their shape, any other a record.

Knows: the shapes (docs/howto/import.md), line numbers, bounds. Does not know: what a field of a foreign
object means: such an object becomes a record, searchable as ``field: value`` lines, with nothing left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from pog.importers.source import (
    MAX_TEXT_CHARS,
    Problem,
    Report,
    addresses_in,
    clean,
    clean_line,
    is_address,
    open_regular,
    stable_id,
    was_cut,
)
from runloop.digest import blob_digest
from runloop.events import CalendarUpserted, ContactUpserted, DocumentImported, Payload

__all__ = ["parse_lines", "read_lines", "record"]

MAX_FILE_BYTES = 1024 * 1024 * 1024
MAX_LINE = 1024 * 1024
MAX_OBJECTS = 1_000_000
MAX_VALUES = 50
MAX_SHOWN = 2_000
"""Fields of a record that get a line of their own; the others follow as JSON."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Shape(msgspec.Struct, forbid_unknown_fields=True):
    type: str


class _Contact(_Shape):
    name: str = ""
    emails: list[str] = []
    phones: list[str] = []
    nicknames: list[str] = []
    org: str = ""
    title: str = ""
    note: str = ""
    id: str = ""


class _Note(_Shape):
    text: str
    title: str = ""
    people: list[str] = []
    date: str = ""
    id: str = ""


class _Event(_Shape):
    title: str
    start: str
    end: str = ""
    kind: Literal["event", "todo"] = "event"
    text: str = ""
    location: str = ""
    status: Literal["", "confirmed", "tentative", "cancelled", "needs-action", "in-process", "completed"] = ""
    timezone: str = ""
    rule: str = ""
    people: list[str] = []
    id: str = ""


_SHAPES: dict[str, type[_Shape]] = {"contact": _Contact, "note": _Note, "event": _Event}


def read_lines(path: Path, name: str, report: Report) -> Iterator[Payload]:
    """What the lines of a file say that people know as ``name``."""
    try:
        with open_regular(path) as file:
            yield from parse_lines(file, str(path), name, report)
    except OSError as error:
        report(Problem(str(path), error.strerror or str(error)))


def parse_lines(file: Any, place: str, name: str, report: Report) -> Iterator[Payload]:
    """What the lines of an open file say; ``place`` makes the ids of records those of this file."""
    objects = read = number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        read += len(line)
        if len(line) > MAX_LINE:
            report(Problem(f"{name}:{number}", f"it is longer than {MAX_LINE} bytes"))
            while line and not line.endswith(b"\n"):
                line = file.readline(MAX_LINE)
                read += len(line)
            continue
        if read > MAX_FILE_BYTES or objects >= MAX_OBJECTS:
            report(Problem(f"{name}:{number}", "the file has more than is read; the rest was left out"))
            return
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        objects += 1
        try:
            said = _said(line, place, name)
        except (ValueError, RecursionError, msgspec.MsgspecError) as error:
            report(Problem(f"{name}:{number}", clean_line(str(error) or type(error).__name__, 300)))
            continue
        if was_cut(getattr(said, "text", "")):
            report(Problem(f"{name}:{number}", f"only its first {MAX_TEXT_CHARS} characters are kept"))
        yield said


def _said(line: bytes, place: str, name: str) -> Payload:
    found = msgspec.json.decode(line)
    if not isinstance(found, dict):
        raise ValueError("it is JSON, and no object")
    word = found.get("type")
    shape = _SHAPES.get(word) if isinstance(word, str) else None
    if shape is None:
        return record(found, place, name)
    said = msgspec.convert(found, shape)
    if isinstance(said, _Contact):
        return _contact(said, name)
    return _note(said, place, name) if isinstance(said, _Note) else _event(said, name)  # type: ignore[arg-type]


def _contact(said: _Contact, name: str) -> ContactUpserted:
    emails = [clean_line(email) for email in said.emails[:MAX_VALUES]]
    for email in emails:
        if not is_address(email):
            raise ValueError(f"{email[:80]!r} is not an address")
    full = clean_line(said.name) or (emails[0] if emails else "")
    if not full:
        raise ValueError("the contact has neither a name nor an address")
    first = emails[0].casefold() if emails else ""
    return ContactUpserted(
        contact=stable_id("jsonl", said.id or f"{full.casefold()}\n{first}"),
        name=full,
        emails=list(dict.fromkeys(emails)),
        phones=[clean_line(phone) for phone in said.phones[:MAX_VALUES]],
        org=clean_line(said.org),
        title=clean_line(said.title),
        note=clean(said.note, 16_384),
        nicknames=[clean_line(nickname) for nickname in said.nicknames[:MAX_VALUES]],
        source=clean_line(name),
    )


def _note(said: _Note, place: str, name: str) -> DocumentImported:
    text = clean(said.text).strip("\n")
    title = clean_line(said.title) or clean_line(text.partition("\n")[0], 200)
    if not title:
        raise ValueError("the note is empty")
    people = [person for person in map(clean_line, said.people) if is_address(person)]
    return DocumentImported(
        document=stable_id("jsonl", said.id or f"{place}\n{title}\n{text}"),
        type="note",
        title=title,
        text=text,
        content_digest=blob_digest(text.encode()),
        people=list(dict.fromkeys([*people, *addresses_in(text)]))[:200],
        written_ms=_moment(said.date)[1] if said.date else None,
        source=clean_line(name),
    )


def _event(said: _Event, name: str) -> CalendarUpserted:
    start, start_ms, all_day = _moment(said.start)
    end, end_ms, _ = _moment(said.end) if said.end else ("", None, False)
    title = clean_line(said.title)
    people = [person for person in map(clean_line, said.people) if is_address(person)]
    return CalendarUpserted(
        entry=stable_id("jsonl", said.id or f"{title}\n{start}"),
        type=said.kind,
        uid=clean_line(said.id),
        status=said.status,
        title=title,
        text=clean(said.text),
        location=clean_line(said.location),
        start=start,
        end=end,
        start_ms=start_ms,
        end_ms=end_ms,
        all_day=all_day,
        timezone=clean_line(said.timezone, 100),
        rule=clean(said.rule, 4_096),
        people=list(dict.fromkeys(people))[:200],
        source=clean_line(name),
    )


def _moment(text: str) -> tuple[str, int, bool]:
    """ISO 8601 as ``(text, unix milliseconds, whole day)``; raises :class:`ValueError`."""
    short = len(text) <= 10
    try:
        day = date.fromisoformat(text) if short else None
        moment = datetime(day.year, day.month, day.day) if day else datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a date or time in ISO 8601") from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    written = day.isoformat() if day else moment.isoformat()
    return written, int((aware - _EPOCH) / timedelta(milliseconds=1)), short


# --- records ----------------------------------------------------------------------------------------


def record(found: dict[str, Any], place: str, name: str, *, key: str = "") -> DocumentImported:
    """An object nobody knows, as a document. Its id is that of ``key``, ``id`` or else its content, in its
    file."""
    lines = [_line(field, value) for field, value in list(found.items())[:MAX_SHOWN]]
    rest = dict(list(found.items())[MAX_SHOWN:])
    text = clean("\n".join([*lines, _plain(rest)] if rest else lines))
    if not text.strip():
        raise ValueError("it is empty")
    own = key or next((str(found[f]) for f in ("id", "uid", "key") if _names(found.get(f))), "")
    title = next(
        (str(found[f]) for f in ("title", "name", "subject", "summary") if _names(found.get(f))), ""
    ) or next((str(value) for value in found.values() if _names(value)), name)
    return DocumentImported(
        document=stable_id("record", f"{place}\n{'id' if own else 'content'}\n{own or text}"),
        type="record",
        title=clean_line(title, 200),
        text=text,
        content_digest=blob_digest(text.encode()),
        people=addresses_in(text[:MAX_TEXT_CHARS]),
        source=clean_line(name),
    )


def _names(value: Any) -> bool:
    return (isinstance(value, str) and bool(value.strip())) or (type(value) is int)


def _line(field: str, value: Any) -> str:
    return f"{clean_line(field, 200)}: {value if isinstance(value, str) else _plain(value)}"


def _plain(value: Any) -> str:
    return msgspec.json.encode(value).decode()
