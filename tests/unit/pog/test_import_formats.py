"""Tables, calendars and JSON lines: what is read, what is told, and what no bytes can do."""

from __future__ import annotations

import io
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pog.importers import Import, Item, Problem, named
from pog.importers import table as tables
from pog.importers.ical import parse_calendar
from pog.importers.jsonl import parse_lines
from pog.importers.source import decode_text
from pog.importers.table import parse_table
from runloop.digest import canonical
from runloop.errors import UsageError
from runloop.events import CalendarUpserted, ContactUpserted, DocumentImported, Payload, encode_payload

Told = list[str]


def table(text: str | bytes, **columns: str) -> tuple[list[Payload], Told]:
    problems: list[Problem] = []
    data = text if isinstance(text, bytes) else text.encode()
    return list(parse_table(data, "/in/t.csv", "in/t.csv", problems.append, columns)), list(
        map(str, problems)
    )


def calendar(*components: str) -> tuple[list[CalendarUpserted], Told]:
    text = "\r\n".join(["BEGIN:VCALENDAR", "VERSION:2.0", *components, "END:VCALENDAR", ""])
    return dates(text.encode())


def dates(data: bytes) -> tuple[list[CalendarUpserted], Told]:
    problems: list[Problem] = []
    found = list(parse_calendar(data, "c.ics", problems.append))
    return found, list(map(str, problems))  # type: ignore[return-value]


def event(*lines: str, uid: str = "UID:u1") -> str:
    return "\r\n".join(["BEGIN:VEVENT", uid, *lines, "END:VEVENT"])


def lines(text: str | bytes) -> tuple[list[Payload], Told]:
    problems: list[Problem] = []
    data = text if isinstance(text, bytes) else text.encode()
    return list(parse_lines(io.BytesIO(data), "/in/x.jsonl", "in/x.jsonl", problems.append)), list(
        map(str, problems)
    )


def brought(*paths: Path) -> tuple[list[Item], Told, Told, Import]:
    problems: Told = []
    notes: Told = []
    reading = Import(lambda p: problems.append(p.what), lambda p: notes.append(p.what))
    return list(reading.items(paths)), problems, notes, reading


# --- tables ---------------------------------------------------------------------------------------

GOOGLE = (
    "First Name,Middle Name,Last Name,Nickname,Organization Name,Organization Title,Notes,Birthday,"
    "E-mail 1 - Label,E-mail 1 - Value,E-mail 2 - Value,Phone 1 - Label,Phone 1 - Value\n"
    'Ada,,Byron,"The ""Countess""",Engines,Analyst,"line one\nline two",1815-12-10,'
    "* Work,ada@example.org ::: ada@home.example,a@x.example,Mobile,+44 1\n"
)
OUTLOOK = (
    "Title,First Name,Last Name,Company,Department,Job Title,Business Phone,Mobile Phone,E-mail Address,"
    "E-mail 2 Address,Notes\r\n"
    "Ms,Ada,Byron,Engines,Research,Analyst,+44 1,+44 2,ada@example.org,ada@home.example,met in May\r\n"
)
THUNDERBIRD = (
    "First Name,Last Name,Display Name,Nickname,Primary Email,Secondary Email,Work Phone,Home Phone,"
    "Mobile Number,Job Title,Department,Organization,Notes\n"
    "Ada,Byron,Ada B.,Countess,ada@example.org,ada@home.example,+44 1,,+44 2,Analyst,Research,Engines,x\n"
)


def test_the_address_book_of_google_is_recognised() -> None:
    (ada,), told = table(GOOGLE)
    assert isinstance(ada, ContactUpserted)
    assert told == []
    assert (ada.name, ada.nicknames, ada.org, ada.title) == (
        "Ada Byron",
        ['The "Countess"'],
        "Engines",
        "Analyst",
    )
    assert ada.emails == ["ada@example.org", "ada@home.example", "a@x.example"]
    assert ada.phones == ["+44 1"]
    assert ada.note.startswith("line one\nline two\nBirthday: 1815-12-10")
    assert "Phone 1 - Label: Mobile" in ada.note, "what has no field of its own is kept in the note"


@pytest.mark.parametrize(("text", "name"), [(OUTLOOK, "Ada Byron"), (THUNDERBIRD, "Ada B.")])
def test_the_address_books_of_outlook_and_thunderbird_are_recognised(text: str, name: str) -> None:
    (ada,), told = table(text)
    assert isinstance(ada, ContactUpserted)
    assert told == []
    assert (ada.name, ada.org, ada.emails) == (
        name,
        "Engines, Research",
        ["ada@example.org", "ada@home.example"],
    )
    assert ada.phones == ["+44 1", "+44 2"]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_delimiters_and_encodings_are_found_out(mark: str, encoding: str) -> None:
    text = mark.join(["Name", "Email"]) + "\r\n" + mark.join(["Jörg Müller", "joerg@example.org"]) + "\r\n"
    (joerg,), told = table(text.encode(encoding))
    assert isinstance(joerg, ContactUpserted)
    assert (joerg.name, joerg.emails, told) == ("Jörg Müller", ["joerg@example.org"], [])


def test_text_that_is_no_utf8_is_latin() -> None:
    assert decode_text(b"\xe9\x81") == "\xe9\x81"
    assert decode_text(b"\x80") == "€"


def test_a_column_is_what_the_user_says_it_is() -> None:
    text = "Vorname;Nachname;Adresse;Name\nJörg;Müller;joerg@example.org;Firma\n"
    (row,), _ = table(text)
    assert isinstance(row, DocumentImported)
    (joerg,), told = table(text, first="Vorname", last="Nachname", email="Adresse", org="Name")
    assert isinstance(joerg, ContactUpserted)
    assert (joerg.name, joerg.emails, joerg.org, told) == ("Jörg Müller", ["joerg@example.org"], "Firma", [])
    for columns, word in (({"mail": "Adresse"}, "no field"), ({"email": "Nope"}, "no column")):
        with pytest.raises(UsageError, match=word):
            table(text, **columns)


def test_any_other_table_becomes_records_with_nothing_left_out() -> None:
    text = "part,qty,part\nbolt,4,M8\n,,\nnut,,\n"
    (bolt, nut), told = table(text)
    assert isinstance(bolt, DocumentImported)
    assert (bolt.type, bolt.title, bolt.text) == ("record", "bolt", "part: bolt\nqty: 4\npart 2: M8")
    assert (nut.text, told) == ("part: nut", [])  # type: ignore[attr-defined]


def test_a_table_of_people_whose_columns_nobody_knows_tells_how_it_is_one() -> None:
    text = "Vorname;E-Mail-Adresse\nJörg;joerg@example.org\nÄnne;aenne@example.org\n".encode("latin-1")
    found, told = table(text)
    assert [row.type for row in found if isinstance(row, DocumentImported)] == ["record", "record"]
    assert told == [
        "in/t.csv: its rows are kept as records; if they are people, --column FIELD=HEADER says what is what"
    ]
    assert table(text, first="Vorname", email="E-Mail-Adresse")[1] == []


def test_rows_that_moved_are_the_same_rows_and_a_key_outlives_a_change() -> None:
    def ids(text: str) -> set[str]:
        return {named(row)[1] for row in table(text)[0]}

    assert ids("a,b\n1,2\n3,4\n") == ids("a,b\n3,4\n1,2\n")
    assert ids("id,b\n1,2\n") == ids("id,b\n1,3\n") != ids("id,b\n2,2\n")


def test_two_people_of_one_name_and_no_address_are_two() -> None:
    found, told = table("First Name,Last Name,Phone\nAnn,Lee,1\nAnn,Lee,2\n")
    assert len({named(contact) for contact in found}) == 2
    assert told == []


def test_what_is_wrong_with_a_table_is_told_with_its_line() -> None:
    found, told = table(
        'Name,Email\nA,"a@x.example\nb"\n,\n,nobody\nB,b@x.example,1,2\nC,"c@x.example\nD,d@x.example\n'
    )
    assert [contact.name for contact in found] == ["A", "D"]  # type: ignore[attr-defined]
    assert told == [
        "in/t.csv:2: 'a@x.example b' is not an address",
        "in/t.csv:5: 'nobody' is not an address",
        "in/t.csv:5: the row has neither a name nor an address",
        "in/t.csv:6: it has 4 cells for 2 columns",
        "in/t.csv:7: a quotation mark is opened here and never closed",
    ]
    assert table("") == ([], ["in/t.csv: it is empty"])


@pytest.mark.requirement("I4.import.2")
@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "bomb",
    [
        "a,b\n" + '"x\n' * 30_000,
        "," * 1_000_000,
        "a,b\n" + "x" * 2_000_000 + ",y\nlast,1\n",
        'a,b\n1,"' + "z\n" * 50_000,
        "a" * 1_000_000,
        "\n" * 1_000_000,
        "a,b\n" + "\r" * 500_000,
        "a,b\n" + ('"' * 999 + "\n") * 1_000,
    ],
)
def test_no_table_takes_long(bomb: str) -> None:
    table(bomb)


# --- calendars ------------------------------------------------------------------------------------

ZONE = (
    "BEGIN:VTIMEZONE\r\nTZID:Our Zone\r\nBEGIN:STANDARD\r\nDTSTART:19701025T030000\r\nTZOFFSETFROM:+0200\r\n"
    "TZOFFSETTO:+0100\r\nRRULE:FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU\r\nEND:STANDARD\r\nBEGIN:DAYLIGHT\r\n"
    "DTSTART:19700329T020000\r\nTZOFFSETFROM:+0100\r\nTZOFFSETTO:+0200\r\n"
    "RRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=-1SU\r\nEND:DAYLIGHT\r\nEND:VTIMEZONE"
)


def test_an_event_is_read_with_its_time_place_and_people() -> None:
    (found,), told = calendar(
        event(
            "DTSTART;TZID=Europe/Berlin:20261105T100000",
            "DTEND;TZID=Europe/Berlin:20261105T113000",
            "SUMMARY:Review\\, the",
            "  second",
            "DESCRIPTION:One\\nTwo\\; three",
            "LOCATION:Room 1",
            "URL:https://example.org/x",
            "STATUS:CONFIRMED",
            "SEQUENCE:3",
            'ORGANIZER;CN="Ann; A":MAILTO:ann@example.org',
            "ATTENDEE:mailto:bob@example.org",
            "ATTENDEE:urn:x",
            "RRULE:FREQ=WEEKLY;COUNT=9",
            "EXDATE:20261112T090000Z",
            "BEGIN:VALARM",
            "SUMMARY:not this",
            "END:VALARM",
        )
    )
    assert told == []
    assert (found.title, found.text, found.location) == (
        "Review, the second",
        "One\nTwo; three\n\nhttps://example.org/x",
        "Room 1",
    )
    assert (found.start, found.end) == ("2026-11-05T10:00:00+01:00", "2026-11-05T11:30:00+01:00")
    assert found.end_ms is not None
    assert found.start_ms == found.end_ms - 5_400_000 == 1_793_869_200_000
    assert (found.status, found.sequence, found.timezone) == ("confirmed", 3, "Europe/Berlin")
    assert found.people == ["ann@example.org", "bob@example.org"]
    assert found.rule == "RRULE:FREQ=WEEKLY;COUNT=9\nEXDATE:20261112T090000Z"


@pytest.mark.parametrize(
    ("start", "text", "zone", "all_day"),
    [
        ("DTSTART:20260701T100000Z", "2026-07-01T10:00:00+00:00", "UTC", False),
        ("DTSTART:20260701T100000", "2026-07-01T10:00:00", "", False),
        ("DTSTART;VALUE=DATE:20260701", "2026-07-01", "", True),
        ("DTSTART;TZID=W. Europe Standard Time:20260701T100000", "2026-07-01T10:00:00+02:00", None, False),
        ("DTSTART;TZID=Our Zone:20260701T100000", "2026-07-01T10:00:00+02:00", "Our Zone", False),
        ("DTSTART;TZID=Our Zone:20261201T100000", "2026-12-01T10:00:00+01:00", "Our Zone", False),
    ],
)
def test_time_zones_of_every_kind(start: str, text: str, zone: str | None, all_day: bool) -> None:
    (found,), told = calendar(ZONE, event(start, "SUMMARY:x"))
    assert (found.start, found.all_day, told) == (text, all_day, [])
    assert zone is None or found.timezone == zone


def test_a_zone_of_one_file_is_not_known_in_the_next() -> None:
    assert calendar(ZONE, event("DTSTART;TZID=Our Zone:20260701T100000", "SUMMARY:x"))[1] == []
    (found,), told = calendar(event("DTSTART;TZID=Our Zone:20260701T100000", "SUMMARY:x"))
    assert found.start == "2026-07-01T10:00:00"
    assert told == ["c.ics:3: the time zone 'Our Zone' is not known; the time is kept as written"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "rule", ["FREQ=SECONDLY", "FREQ=YEARLY;BYSECOND=1", "FREQ=YEARLY;INTERVAL=999999999"]
)
def test_a_zone_that_changes_every_second_is_not_believed(rule: str) -> None:
    zone = ZONE.replace("FREQ=YEARLY;BYMONTH=10;BYDAY=-1SU", rule)
    (found,), told = calendar(zone, event("DTSTART;TZID=Our Zone:20260701T100000", "SUMMARY:x"))
    assert found.start == "2026-07-01T10:00:00"
    assert "the rules of this time zone are not read" in told[0]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("start", "rule", "times"),
    [
        ("00010101T000000", "FREQ=YEARLY", 60),
        ("00010101T000000", "FREQ=YEARLY;BYMONTHDAY=1,2,3,4,5,6,7,8,9,10,11,12,13", 1),
        ("16010101T000000", "FREQ=YEARLY;BYDAY=SU", 1),
    ],
)
def test_a_zone_with_thousands_of_changes_is_not_walked_for_every_event(
    start: str, rule: str, times: int
) -> None:
    one = f"DTSTART:{start}\r\nRRULE:{rule}\r\nTZOFFSETFROM:+0100\r\nTZOFFSETTO:+0200\r\nEND:STANDARD"
    zone = f"BEGIN:STANDARD\r\n{one}\r\n" * times
    zone = f"BEGIN:VTIMEZONE\r\nTZID:Our Zone\r\n{zone}END:VTIMEZONE"
    many = [event(f"DTSTART;TZID=Our Zone:20{n:02}0701T100000", f"UID:u{n}", uid="") for n in range(10)]
    found, told = calendar(zone, *many)
    assert {entry.start[10:] for entry in found} == {"T10:00:00"}
    assert "the rules of this time zone are not read" in told[0]


@pytest.mark.parametrize("start", ["16010101T030000", "00010101T030000"])
def test_the_zones_that_programs_write_are_read(start: str) -> None:
    zone = ZONE.replace("19701025T030000", start).replace("19700329T020000", start)
    (found,), told = calendar(zone, event("DTSTART;TZID=Our Zone:20260701T100000", "SUMMARY:x"))
    assert (found.start, told) == ("2026-07-01T10:00:00+02:00", [])


def test_a_calendar_of_many_lines_takes_room_in_proportion() -> None:
    """What a list of all lines would take is many times the file."""
    text = b"BEGIN:VCALENDAR\n" + b"X:1\n" * 60_000
    dates(text)
    tracemalloc.start()
    dates(text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(text)


def test_more_lines_than_a_table_has_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_LINES", 3)
    found, told = table("a,b\n1,2\n3,4\n5,6\n")
    assert (len(found), told) == (2, ["in/t.csv:4: more than 3 lines; the rest was left out"])


def test_a_revision_replaces_an_older_one_and_an_instance_is_its_own_entry() -> None:
    found, told = calendar(
        event("SUMMARY:new", "SEQUENCE:2", "DTSTART:20260701T100000Z"),
        event("SUMMARY:old", "SEQUENCE:1", "DTSTART:20260701T100000Z"),
        event("SUMMARY:gone", "RECURRENCE-ID;TZID=Europe/Berlin:20260708T120000", "STATUS:CANCELLED"),
        event("SUMMARY:gone", "RECURRENCE-ID:20260708T100000Z", "STATUS:CANCELLED"),
    )
    assert [(e.title, e.recurrence, e.status) for e in found] == [
        ("new", "", ""),
        ("gone", "2026-07-08T10:00:00+00:00", "cancelled"),
    ]
    assert told == ["c.ics:9: line 3 has a newer revision of it"]
    assert found[0].uid == found[1].uid


def test_a_todo_and_a_cancelling_calendar() -> None:
    found, told = calendar(
        "METHOD:CANCEL",
        "BEGIN:VTODO\r\nSUMMARY:pay\r\nDUE;VALUE=DATE:20260801\r\nEND:VTODO",
        event("SUMMARY:off", "DTSTART:20260701T100000Z", "DURATION:PT30M"),
        "BEGIN:VJOURNAL\r\nSUMMARY:not read\r\nEND:VJOURNAL",
    )
    assert [(e.type, e.title, e.end, e.status) for e in found] == [
        ("todo", "pay", "2026-08-01", "cancelled"),
        ("event", "off", "2026-07-01T10:30:00+00:00", "cancelled"),
    ]
    assert told == []


def test_a_bad_entry_costs_itself_and_is_told_with_its_line() -> None:
    found, told = calendar(
        event("SUMMARY:bad", "DTSTART:nonsense"),
        event("SUMMARY:good", "@@@", uid="UID:u2"),
        event(uid="UID:u3"),
        "BEGIN:VEVENT\r\nSUMMARY:open",
    )
    assert [e.title for e in found] == ["good"]
    assert [line.split(":")[1] for line in told] == ["3", "11", "13", "16"]
    assert "cannot be read" in told[0]
    assert told[1:] == [
        "c.ics:11: this line is no property",
        "c.ics:13: it has neither a title nor a start",
        "c.ics:16: the VEVENT has no END:VEVENT",
    ]
    assert dates(b"hello\n") == ([], ["c.ics:1: text outside of a calendar"])


@pytest.mark.requirement("I4.import.2")
@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "bomb",
    [
        "SUMMARY:x" + "\r\n " * 300_000,
        "BEGIN:VEVENT\r\n" * 50_000,
        "BEGIN:VALARM\r\n" * 50_000,
        "ATTENDEE" + ";a=b" * 100_000 + ":x",
        "ATTENDEE;CN=" + '"' * 60_000,
        "RDATE:" + "20260101T000000," * 100_000,
        "ATTENDEE:mailto:a@b.example\r\n" * 50_000,
        "DESCRIPTION:" + "\\n" * 30_000,
        "DTSTART;TZID=" + "A" * 3_000 + ":20260101T000000",
        "DTSTART;TZID=../../../etc/passwd:20260101T000000",
        "DTSTART:99999999T999999",
        "DTSTART:00010101T000000\r\nDURATION:-P9999999D",
        "SEQUENCE:" + "9" * 5_000,
        "DURATION:P99999999999999999999W",
    ],
)
def test_no_calendar_takes_long_and_its_neighbour_is_read(bomb: str) -> None:
    found, _ = calendar(event("SUMMARY:first", uid="UID:u0"), event("SUMMARY:ok", bomb))
    assert found[0].title == "first"
    for entry in found:
        canonical(encode_payload(entry))


# --- JSON lines -----------------------------------------------------------------------------------


def test_contacts_notes_and_events_are_known_by_their_type() -> None:
    (ann, hint, review), told = lines(
        '{"type":"contact","name":"Ann","emails":["ann@example.org"],"org":"Acme","id":"a1"}\n\n'
        '{"type":"note","title":"Hint","text":"ask bob@example.org","date":"2026-10-01"}\n'
        '{"type":"event","title":"Review","start":"2026-11-05T10:00:00+01:00","end":"2026-11-05T11:00:00+01:00"}\n'
    )
    assert told == []
    assert isinstance(ann, ContactUpserted)
    assert isinstance(hint, DocumentImported)
    assert isinstance(review, CalendarUpserted)
    assert (ann.name, ann.emails, ann.org, ann.source) == ("Ann", ["ann@example.org"], "Acme", "in/x.jsonl")
    assert (hint.type, hint.people, hint.written_ms) == ("note", ["bob@example.org"], 1_790_812_800_000)
    assert (review.start, review.start_ms, review.all_day) == (
        "2026-11-05T10:00:00+01:00",
        1_793_869_200_000,
        False,
    )


def test_any_other_object_is_a_record_with_nothing_left_out() -> None:
    (found,), told = lines('{"sku":"A-1","deep":{"a":[1,null,true]},"n":12345678901234567890,"type":7}\n')
    assert isinstance(found, DocumentImported)
    assert (found.type, found.title, told) == ("record", "A-1", [])
    assert found.text == 'sku: A-1\ndeep: {"a":[1,null,true]}\nn: 12345678901234567890\ntype: 7'


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[1]", "no object"),
        ("nope", "malformed"),
        ("{}", "empty"),
        ('{"a":NaN}', "malformed"),
        ('{"type":"contact","x":1}', "unknown field `x`"),
        ('{"type":"contact"}', "neither a name nor an address"),
        ('{"type":"contact","emails":["x"]}', "not an address"),
        ('{"type":"note"}', "`text`"),
        ('{"type":"event","title":"t","start":"soon"}', "ISO 8601"),
        ('{"a":' * 5_000 + "1" + "}" * 5_000, "recursion"),
        ('{"a":"' + "x" * 1_100_000 + '"}', "longer than"),
    ],
    ids=range(11),
)
def test_what_is_wrong_with_a_line_is_told_and_the_rest_is_read(line: str, why: str) -> None:
    found, told = lines(f'{{"a":1}}\n{line}\n{{"b":2}}\n')
    assert len(found) == 2
    assert len(told) == 1
    assert told[0].startswith("in/x.jsonl:2: ")
    assert why in told[0]


# --- no bytes at all ------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
WORDS = st.sampled_from(
    ["BEGIN:VEVENT", "END:VEVENT", "BEGIN:VTODO", "END:VTODO", "BEGIN:VTIMEZONE", "END:VTIMEZONE", "UID:1",
     "BEGIN:STANDARD", "END:STANDARD", "DTSTART;TZID=Our Zone:20260101T000000", "TZID:Our Zone", "SEQUENCE:x",
     "RRULE:FREQ=YEARLY", "SUMMARY:é", "DTSTART:", "TZOFFSETTO:+9999", "TZOFFSETFROM:-0000",
     "RECURRENCE-ID:1",
     "ATTENDEE;X=\"", "DUE;VALUE=DATE:2026", "DURATION:-P", " folded", ";:", "METHOD:CANCEL", "END:VCALENDAR",
     "BEGIN:VCALENDAR", "DTEND:20260101T000000Z", "BEGIN:VALARM", "END:VALARM", "URL;VALUE=URI:\\", "\x00"]
)  # fmt: skip


def _all_storable(found: list[Payload] | list[CalendarUpserted]) -> None:
    for payload in found:
        canonical(encode_payload(payload))


@pytest.mark.requirement("I4.import.2")
@given(st.binary(max_size=300), st.text(max_size=200))
def test_no_bytes_break_the_table_reader(data: bytes, text: str) -> None:
    for body in (data, b"Name,Email\n" + data, text.encode("utf-8", "replace"), b'id;"b"\n' + data + b'"'):
        _all_storable(table(body)[0])


@pytest.mark.requirement("I4.import.2")
@given(st.lists(WORDS | st.text(max_size=20), max_size=30), st.binary(max_size=200))
def test_no_bytes_break_the_calendar_reader(words: list[str], data: bytes) -> None:
    _all_storable(calendar(*words)[0])
    _all_storable(calendar(ZONE, event(*words))[0])
    _all_storable(dates(data)[0])
    _all_storable(dates(b"BEGIN:VCALENDAR\nBEGIN:VEVENT\n" + data + b"\nEND:VEVENT\nEND:VCALENDAR")[0])


@pytest.mark.requirement("I4.import.2")
@given(st.binary(max_size=300), JSON, st.sampled_from(["contact", "note", "event", ""]))
def test_no_bytes_break_the_reader_of_json_lines(data: bytes, value: object, kind: str) -> None:
    import json

    _all_storable(lines(data)[0])
    shaped = {**value, "type": kind} if isinstance(value, dict) else value
    _all_storable(lines(json.dumps(shaped) + "\n")[0])


# --- folders --------------------------------------------------------------------------------------


def test_a_mixed_folder_is_read_and_what_is_no_import_is_only_mentioned(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text(GOOGLE)
    (tmp_path / "cal.ics").write_text("BEGIN:VCALENDAR\n" + event("SUMMARY:x") + "\nEND:VCALENDAR\n")
    (tmp_path / "x.ndjson").write_text('{"a":1}\n')
    (tmp_path / "n.md").write_text("note")
    (tmp_path / "wrong.vcf").write_text(
        "BEGIN:VCALENDAR\n" + event("SUMMARY:y", uid="UID:2") + "\nEND:VCALENDAR\n"
    )
    (tmp_path / "nameless").write_text("BEGIN:VCARD\nFN:Bob\nEND:VCARD\n")
    (tmp_path / "photo.png").write_bytes(b"PNG")
    os.mkfifo(tmp_path / "pipe")
    found, problems, notes, _ = brought(tmp_path)
    kinds = sorted(named(item.payload)[0] for item in found)
    assert kinds == ["contact", "contact", "document", "document", "event", "event"]
    assert {Path(item.origin).parent for item in found} == {tmp_path}
    assert problems == []
    assert notes == ["it is not a regular file", "1 of no known kind left alone: photo.png"]


def test_a_thing_that_stands_in_two_files_is_read_once(tmp_path: Path) -> None:
    card = "BEGIN:VCARD\nUID:1\nFN:{}\nEND:VCARD\n"
    (tmp_path / "a.vcf").write_text(card.format("Ann"))
    (tmp_path / "b.vcf").write_text(card.format("Ann B."))
    for name, sequence in (("a.ics", 1), ("b.ics", 2), ("c.ics", 1)):
        text = event(f"SUMMARY:{name}", f"SEQUENCE:{sequence}")
        (tmp_path / name).write_text(f"BEGIN:VCALENDAR\n{text}\nEND:VCALENDAR\n")
    found, problems, notes, _ = brought(tmp_path)
    titles = [getattr(item.payload, "title", "") or item.payload.name for item in found]  # type: ignore[attr-defined]
    assert titles == ["a.ics", "Ann", "b.ics"]
    assert problems == []
    assert [note.partition(" was left out")[0] for note in notes] == ["'Ann B.'", "'c.ics'"]


def test_only_from_what_was_read_whole_can_something_vanish(tmp_path: Path) -> None:
    good, bad, gone = tmp_path / "good.vcf", tmp_path / "bad.vcf", tmp_path / "gone.vcf"
    good.write_text("BEGIN:VCARD\nFN:Ann\nEND:VCARD\n")
    bad.write_text("BEGIN:VCARD\nFN:Bob\n")
    found, problems, _, reading = brought(tmp_path)
    ann = named(found[0].payload)
    assert len(problems) == 1
    assert not reading.vanished(*ann, str(good))
    assert not reading.vanished(*ann, str(gone)), "it is here, wherever it was"
    assert not reading.vanished("contact", "other", str(bad)), "it may stand in what could not be read"
    assert reading.vanished("contact", "other", str(good))
    assert reading.vanished("contact", "other", str(gone))


def test_from_a_folder_that_cannot_be_read_nothing_vanishes(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(66):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "n.md").write_text("x")
    found, problems, _, reading = brought(tmp_path)
    assert (found, len(problems)) == ([], 1)
    assert "nested" in problems[0]
    assert not reading.vanished("document", "x", str(deep / "n.md"))
    assert reading.vanished("document", "x", str(tmp_path / "n.md"))
