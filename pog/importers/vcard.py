"""vCard 2.1, 3.0 and 4.0: names, addresses, phones, organisation. Pictures and the rest are passed over."""

from __future__ import annotations

import quopri
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pog.importers.source import (
    Problem,
    clean,
    clean_line,
    decode_text,
    is_address,
    read_bounded,
    stable_id,
)
from runloop.events import ContactUpserted, Payload

__all__ = ["parse_cards", "read_cards"]

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_CARDS = 100_000
MAX_VALUES = 50
"""Addresses, phones or nicknames of one card, parts of one value."""
MAX_LINE = 64 * 1024
"""Characters of one property, each of its physical lines counting as one more."""
ENCODING_WITHIN = 4 * 1024
"""Characters in which a property says how its value is encoded."""
_USED = frozenset({"FN", "N", "ORG", "TITLE", "NOTE", "UID", "EMAIL", "TEL", "NICKNAME"})

_PROPERTY = re.compile(
    r"(?:[A-Za-z0-9-]{1,64}\.)?(?P<name>[A-Za-z0-9-]{1,64})"
    r"(?P<params>(?:;[^=;:\"]{1,64}(?:=(?:\"[^\"]{0,1000}\"|[^\";:]{0,1000}))?){0,32}):(?P<value>.*)\Z",
    re.DOTALL,
)
_UNESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(slots=True)
class _Card:
    line: int
    one: dict[str, str] = field(default_factory=dict)
    many: dict[str, list[str]] = field(default_factory=dict)


def read_cards(path: Path, name: str, report: Callable[[Problem], None]) -> Iterator[Payload]:
    """The contacts of a file that people know as ``name``."""
    data = read_bounded(path, MAX_FILE_BYTES, report)
    if data is not None:
        yield from parse_cards(data, name, report)


def parse_cards(data: bytes, source: str, report: Callable[[Problem], None]) -> Iterator[Payload]:
    """The contacts in the text of a file; cards without a name or address are reported."""
    text = decode_text(data)
    card: _Card | None = None
    count = 0
    for number, line, long in _unfold(text):
        upper = line[:100].strip().upper()
        if upper == "BEGIN:VCARD":
            if card is not None:
                report(Problem(f"{source}:{card.line}", "the card has no END:VCARD"))
            card = _Card(number)
        elif upper == "END:VCARD" and card is not None:
            count += 1
            if count > MAX_CARDS:
                report(Problem(source, f"more than {MAX_CARDS} cards; the rest was left out"))
                return
            contact = _contact(card, source, report)
            card = None
            if contact is not None:
                yield contact
        elif card is not None:
            if long:
                if _name(line) in _USED:  # a picture may be as long as it likes: it is not read
                    report(Problem(f"{source}:{number}", f"it is longer than {MAX_LINE} characters"))
                continue
            _take(card, line, number, source, report)
        elif line.strip():
            report(Problem(f"{source}:{number}", "text outside of a card"))
            return
    if card is not None:
        report(Problem(f"{source}:{card.line}", "the card has no END:VCARD"))


def _unfold(text: str) -> Iterator[tuple[int, str, bool]]:
    """Logical lines with the number of their first physical one (RFC 6350 §3.2; soft breaks of vCard 2.1).

    Of a line longer than :data:`MAX_LINE` only the beginning is kept; the last value says so.
    """
    start, parts, used = 0, [""], 0
    soft = quoted = False
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        if soft or (line[:1] in {" ", "\t"} and start):
            if used <= MAX_LINE:
                parts.append("\n" + line if soft else line[1:])  # quopri joins the soft ones
                used += len(parts[-1]) + 1
        else:
            if start:
                yield start, "".join(parts), used > MAX_LINE
            start, parts, used = number, [line], len(line)
            quoted = "QUOTED-PRINTABLE" in line[:ENCODING_WITHIN].upper()
        soft = quoted and line.endswith("=")
    if start:
        yield start, "".join(parts), used > MAX_LINE


def _name(line: str) -> str:
    """The name of a property, without its group."""
    return re.split("[;:]", line[:200], maxsplit=1)[0].rpartition(".")[2].upper()


def _take(card: _Card, line: str, number: int, source: str, report: Callable[[Problem], None]) -> None:
    if not line.strip():
        return
    match = _PROPERTY.match(line)
    if match is None:
        report(Problem(f"{source}:{number}", "this line is no property"))
        return
    name, params, value = match["name"].upper(), match["params"].upper(), match["value"]
    if "QUOTED-PRINTABLE" in params:
        raw = quopri.decodestring(value.encode("utf-8", "replace"))
        value = raw.decode("utf-8", "replace")
    if name in {"FN", "N", "ORG", "TITLE", "NOTE", "UID"}:
        card.one.setdefault(name, value)
    elif name in {"EMAIL", "TEL", "NICKNAME"}:
        values = card.many.setdefault(name, [])
        if len(values) < MAX_VALUES:
            # The preferred one first, whichever way this version says so.
            values.insert(0 if re.search(r"(?:^|[;=,])PREF\b", params) and values else len(values), value)


def _contact(card: _Card, source: str, report: Callable[[Problem], None]) -> ContactUpserted | None:
    emails = []
    for value in card.many.get("EMAIL", []):
        address = clean_line(_plain(value)).removeprefix("mailto:")
        if is_address(address):
            emails.append(address)
        elif address:
            report(Problem(f"{source}:{card.line}", f"{address[:80]!r} is not an address"))
    name = clean_line(_plain(card.one.get("FN", ""))) or _structured_name(card.one.get("N", ""))
    if not name and not emails:
        report(Problem(f"{source}:{card.line}", "the card has neither a name nor an address"))
        return None
    name = name or emails[0]
    nicknames = [
        clean_line(_plain(part))
        for value in card.many.get("NICKNAME", [])
        for part in _split(value, ",")[:MAX_VALUES]
    ]
    uid = clean_line(card.one.get("UID", ""))
    return ContactUpserted(
        contact=stable_id("vcard", uid or f"{name.casefold()}\n{emails[0].casefold() if emails else ''}"),
        name=name,
        emails=list(dict.fromkeys(emails)),
        phones=[clean_line(_plain(value)).removeprefix("tel:") for value in card.many.get("TEL", [])],
        org=", ".join(
            clean_line(_plain(part))
            for part in _split(card.one.get("ORG", ""), ";")[:MAX_VALUES]
            if part.strip()
        ),
        title=clean_line(_plain(card.one.get("TITLE", ""))),
        note=clean(_plain(card.one.get("NOTE", "")), 16_384),
        nicknames=[nickname for nickname in nicknames if nickname][:MAX_VALUES],
        source=source,
    )


def _structured_name(value: str) -> str:
    """``Doe;John;Quincy;Dr.;`` read aloud: prefix, given, additional, family, suffix."""
    parts = [clean_line(_plain(part)) for part in _split(value, ";")[:5]] + [""] * 5
    family, given, additional, prefix, suffix = parts[:5]
    return " ".join(part for part in (prefix, given, additional, family, suffix) if part)


def _split(value: str, separator: str) -> list[str]:
    """The parts of a value, at most one more than are used."""
    return re.split(rf"(?<!\\){re.escape(separator)}", value, maxsplit=MAX_VALUES)


def _plain(value: str) -> str:
    return _UNESCAPE.sub(lambda match: "\n" if match[1] in "nN" else match[1], value).strip()
