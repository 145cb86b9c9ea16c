"""Tables (CSV): address books of Google, Outlook and Thunderbird, and rows of anything else.

Knows: encodings, delimiters, the names these programs give their columns, line numbers. Does not know: what
a foreign table means: a row of it becomes a record, one ``column: value`` line each, with nothing left out.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pog.importers.jsonl import record
from pog.importers.source import (
    MAX_TEXT_CHARS,
    Problem,
    Report,
    clean,
    clean_line,
    decode_text,
    is_address,
    read_bounded,
    stable_id,
    was_cut,
)
from runloop.errors import UsageError
from runloop.events import ContactUpserted, Payload

__all__ = ["FIELDS", "parse_table", "read_table"]

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_ROWS = 500_000
MAX_LINES = 4 * MAX_ROWS
"""Rows may be written on several lines; every line costs memory before it is known what is in it."""
MAX_COLUMNS = 500
MAX_BROKEN = 100
"""Quotation marks that are never closed, before the rest of the file is given up."""
MAX_VALUES = 50
DELIMITERS = (",", ";", "\t", "|")

FIELDS = (
    "id", "name", "first", "middle", "last", "prefix", "suffix", "nickname", "email", "phone", "org",
    "department", "title", "note",
)  # fmt: skip
"""What a column can be said to be."""

_MANY = frozenset({"nickname", "email", "phone"})
_KNOWN: tuple[tuple[str, str], ...] = (
    # As the programs call them, without case, blanks and punctuation (Google: E-mail 1 - Value; Outlook:
    # E-mail 2 Address; Thunderbird: Primary Email).
    (r"(?:contact)?(?:id|uid)", "id"),
    (r"(?:full|display|file|contact)?name|fileas", "name"),
    (r"(?:first|given)names?", "first"),
    (r"(?:middle|additional)names?", "middle"),
    (r"(?:last|family)names?|surname", "last"),
    (r"(?:name)?prefix", "prefix"),
    (r"(?:name)?suffix", "suffix"),
    (r"nick(?:name)?|shortname", "nickname"),
    (r"(?:primary|secondary|other|home|work)?e?mail(?:\d{1,2})?(?:value|address)?(?:\d{1,2})?", "email"),
    (r"phone\d{1,2}value|(?:primary|business|home|mobile|work|other|companymain|car|assistants?)?"
     r"(?:tele)?phone(?:number)?\d{0,2}|mobile(?:number)?|cell(?:phone)?|tel", "phone"),
    (r"company(?:name)?|organi[sz]ation(?:1?name)?|org", "org"),
    (r"organi[sz]ation1?department|department", "department"),
    (r"(?:job|organi[sz]ation1?)title", "title"),
    (r"notes?|comments?", "note"),
)  # fmt: skip
_PATTERNS = tuple((re.compile(rf"(?:{pattern})\Z"), field) for pattern, field in _KNOWN)
_ADDRESS_BOOK = frozenset({"name", "first", "last", "email"})
_Make = Callable[[str], ContactUpserted]
"""A contact, once its id is known."""
_JOINED = " ::: "
"""How Google writes several values in one cell."""


def read_table(
    path: Path, name: str, report: Report, columns: Mapping[str, str] | None = None
) -> Iterator[Payload]:
    """The rows of a file that people know as ``name``. ``columns``: field -> the header that means it."""
    data = read_bounded(path, MAX_FILE_BYTES, report)
    if data is not None:
        yield from parse_table(data, str(path), name, report, columns)


def parse_table(
    data: bytes, place: str, name: str, report: Report, columns: Mapping[str, str] | None = None
) -> Iterator[Payload]:
    """The rows in the bytes of a file; the first one names the columns."""
    text = decode_text(data)
    lines = re.split(r"(?<=\n)|(?<=\r)(?!\n)", text, maxsplit=MAX_LINES)
    if len(lines) > MAX_LINES:
        report(Problem(f"{name}:{MAX_LINES + 1}", f"more than {MAX_LINES} lines; the rest was left out"))
        del lines[MAX_LINES:]
    rows = _rows(lines, _delimiter(lines), name, report)
    header = next(((number, row) for number, row in rows if any(cell.strip() for cell in row)), None)
    if header is None:
        report(Problem(name, "it is empty"))
        return
    number, names = header
    if len(names) > MAX_COLUMNS:
        report(Problem(f"{name}:{number}", f"it has more than {MAX_COLUMNS} columns"))
        return
    fields = _fields(names, columns or {})
    whole = _whole(rows, names, name, report)
    if _is_address_book(fields, bool(columns)):
        yield from _contacts(whole, names, fields, place, name, report)
        return
    yield from _records(_hinted(whole, name, report), names, fields, place, name, report)


# --- rows -------------------------------------------------------------------------------------------


def _rows(lines: Sequence[str], delimiter: str, name: str, report: Report) -> Iterator[tuple[int, list[str]]]:
    """``(number of its first line, cells)`` of every row. A row that cannot be read costs its first line."""
    at = broken = 0
    while at < len(lines):
        reader = csv.reader(iter(lines[at:]), delimiter=delimiter)
        base, start = at, at
        while True:
            start = base + reader.line_num
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                what = f"this row cannot be read: {error}"
                break
            used = base + reader.line_num
            if used >= len(lines) and used - start > 1 and _never_closed(lines[start:used], delimiter):
                what = "a quotation mark is opened here and never closed"
                break
            yield start + 1, row
        broken += 1
        report(Problem(f"{name}:{start + 1}", what))
        if broken >= MAX_BROKEN:
            report(Problem(f"{name}:{start + 2}", "too many broken rows; the rest was left out"))
            return
        at = start + 1


def _never_closed(lines: Sequence[str], delimiter: str) -> bool:
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _delimiter(lines: Sequence[str]) -> str:
    """What separates most cells of the first lines, the same number in each."""
    best = (0, 0, ",")
    start = [line[:100_000] for line in lines[:20]]
    for place, mark in enumerate(DELIMITERS):
        try:
            widths = [len(row) for row in csv.reader(start, delimiter=mark) if row]
        except csv.Error:
            continue
        if widths:
            alike = sum(1 for width in widths if width == widths[0])
            best = max(best, (alike * (widths[0] - 1), -place, mark))
    return best[2]


def _whole(
    rows: Iterator[tuple[int, list[str]]], names: Sequence[str], name: str, report: Report
) -> Iterator[tuple[int, list[str]]]:
    """Rows that have something in them, with as many cells as there are columns."""
    count = 0
    for number, row in rows:
        if not any(cell.strip() for cell in row):
            continue
        count += 1
        if count > MAX_ROWS:
            report(Problem(f"{name}:{number}", f"more than {MAX_ROWS} rows; the rest was left out"))
            return
        if len(row) > len(names) and any(cell.strip() for cell in row[len(names) :]):
            report(Problem(f"{name}:{number}", f"it has {len(row)} cells for {len(names)} columns"))
            continue
        yield number, [*row[: len(names)], *[""] * (len(names) - len(row))]


# --- columns ----------------------------------------------------------------------------------------


def _fields(names: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """What each column is; empty for one that nobody knows. What the user says goes before what we know."""
    said = {clean_line(header).casefold(): field for field, header in columns.items()}
    for field, header in columns.items():
        if field not in FIELDS:
            raise UsageError(
                f"{field!r} is no field of a contact",
                hint=f"one of: {', '.join(FIELDS)}",
                code="import.column",
            )
        if clean_line(header).casefold() not in {clean_line(name).casefold() for name in names}:
            shown = ", ".join(clean_line(name, 40) for name in names[:20])
            raise UsageError(
                f"no column is called {header!r}", hint=f"the columns are: {shown}", code="import.column"
            )
    return [said.get(clean_line(name).casefold()) or _known(name, said.values()) for name in names]


def _known(name: str, taken: object) -> str:
    plain = re.sub(r"[\W_]", "", clean_line(name, 100).casefold())
    found = next((field for pattern, field in _PATTERNS if pattern.match(plain)), "")
    return "" if found in taken and found not in _MANY else found  # type: ignore[operator]


def _is_address_book(fields: Sequence[str], said: bool) -> bool:
    known = set(fields)
    return "email" in known or {"first", "last"} <= known or (said and bool(known & _ADDRESS_BOOK))


def _hinted(
    rows: Iterator[tuple[int, list[str]]], name: str, report: Report
) -> Iterator[tuple[int, list[str]]]:
    """The rows; at the first one with an address it is told how such rows become contacts."""
    told = False
    for number, row in rows:
        if not told and any(is_address(cell.strip()) for cell in row):
            told = True
            what = "its rows are kept as records; if they are people, --column FIELD=HEADER says what is what"
            report(Problem(name, what, note=True))
        yield number, row


# --- meaning ----------------------------------------------------------------------------------------


def _contacts(
    rows: Iterator[tuple[int, list[str]]],
    names: Sequence[str],
    fields: Sequence[str],
    place: str,
    name: str,
    report: Report,
) -> Iterator[Payload]:
    seen: dict[str, int] = {}
    for number, row in rows:
        contact = _contact(row, names, fields, f"{name}:{number}", name, report)
        if contact is None:
            continue
        # Two people may have one name and no address: the second one's id says so.
        count = seen[contact[0]] = seen.get(contact[0], 0) + 1
        yield contact[1](stable_id("csv", contact[0] if count == 1 else f"{contact[0]}\n#{count}"))


def _contact(
    row: Sequence[str], names: Sequence[str], fields: Sequence[str], place: str, name: str, report: Report
) -> tuple[str, _Make] | None:
    one: dict[str, str] = {}
    many: dict[str, list[str]] = {}
    rest: list[str] = []
    for cell, field, header in zip(row, fields, names, strict=True):
        value = cell.strip()
        if not value:
            continue
        if field in _MANY:
            many.setdefault(field, []).extend(part.strip() for part in value.split(_JOINED)[:MAX_VALUES])
        elif field and field not in one:
            one[field] = value
        else:
            rest.append(f"{clean_line(header, 100)}: {value}")
    emails = list(dict.fromkeys(clean_line(email) for email in many.get("email", []) if email))
    for email in emails:
        if not is_address(email):
            report(Problem(place, f"{email[:80]!r} is not an address"))
    emails = [email for email in emails if is_address(email)][:MAX_VALUES]
    whole = " ".join(one[part] for part in ("prefix", "first", "middle", "last", "suffix") if part in one)
    full = clean_line(one.get("name", "")) or clean_line(whole) or (emails[0] if emails else "")
    full = full or clean_line(one.get("org", ""))
    if not full:
        report(Problem(place, "the row has neither a name nor an address"))
        return None
    key = clean_line(one.get("id", ""))
    key = f"id\n{key}" if key else f"{full.casefold()}\n{emails[0].casefold() if emails else ''}"
    org = [clean_line(one[part]) for part in ("org", "department") if part in one]

    def make(contact: str) -> ContactUpserted:
        return ContactUpserted(
            contact=contact,
            name=full,
            emails=emails,
            phones=[clean_line(phone) for phone in many.get("phone", []) if phone][:MAX_VALUES],
            org=", ".join(org),
            title=clean_line(one.get("title", "")),
            note=clean("\n".join(filter(None, [one.get("note", ""), *rest])), 16_384),
            nicknames=[clean_line(nick) for nick in many.get("nickname", []) if nick][:MAX_VALUES],
            source=clean_line(name),
        )

    return key, make


def _records(
    rows: Iterator[tuple[int, list[str]]],
    names: Sequence[str],
    fields: Sequence[str],
    place: str,
    name: str,
    report: Report,
) -> Iterator[Payload]:
    headers = _unique([clean_line(header, 200) or f"column {n}" for n, header in enumerate(names, 1)])
    keyed = fields.index("id") if "id" in fields else None
    for number, row in rows:
        cells = {header: cell.strip() for header, cell in zip(headers, row, strict=True) if cell.strip()}
        key = row[keyed].strip() if keyed is not None else ""
        try:
            made = record(dict(cells), place, name, key=key)
        except ValueError as error:
            report(Problem(f"{name}:{number}", str(error)))
            continue
        if was_cut(made.text):
            report(Problem(f"{name}:{number}", f"only its first {MAX_TEXT_CHARS} characters are kept"))
        yield made


def _unique(headers: Sequence[str]) -> list[str]:
    found: dict[str, None] = {}
    for header in headers:
        name, count = header, 1
        while name in found:
            count += 1
            name = f"{header} {count}"
        found[name] = None
    return list(found)
