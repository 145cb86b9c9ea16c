"""What the user already has, as facts: contacts, mail, notes, calendars, tables and JSON lines.

Knows: which reader a path belongs to, what of it is new, what has vanished. Does not know: how facts are
stated. Everything read is foreign: only regular files are opened, never through a symbolic link inside a
folder, every size is bounded, and one bad item does not keep the others out.

Ids are stable: the same source gives the same id, so importing it again changes nothing (:func:`unseen`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pog.errors import ImportProblemsError
from pog.importers import ical, jsonl, mail, notes, table, vcard
from pog.importers.source import Problem, Report, read_bounded
from runloop.digest import blob_digest, canonical
from runloop.errors import NotFoundError
from runloop.events import CalendarUpserted, ContactUpserted, DocumentImported, Payload, encode_payload

__all__ = ["IMPORTABLE", "Import", "Item", "Known", "Problem", "named", "parse", "unseen"]

MAX_FILES = 200_000
"""Files visited by one import."""
MAX_DEPTH = 64
"""Folders inside one another."""
MAX_NAMED = 8
"""Files of no known kind that are named, per folder."""

IMPORTABLE = (ContactUpserted.kind, DocumentImported.kind, CalendarUpserted.kind)
"""What an import may state: knowledge, never history."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that was read."""

    payload: Payload
    origin: str
    """Absolute path of the file it stands in."""


def named(payload: Payload) -> tuple[str, str]:
    """``(kind, id)`` of what an import states, as the views call it: contact, document, event."""
    if isinstance(payload, ContactUpserted):
        return "contact", payload.contact
    if isinstance(payload, DocumentImported):
        return "document", payload.document
    if isinstance(payload, CalendarUpserted):
        return "event", payload.entry
    raise TypeError(f"{payload.kind} is not imported")


@dataclass(slots=True)
class Import:
    """One import of some paths. Iterate over :meth:`items` once; then it tells what it saw.

    What cannot be read is told to ``on_problem`` and passed over; ``on_note`` hears what a person may want to
    know and has lost nothing by. ``columns``: field of a contact -> header of the column that means it.
    """

    on_problem: Report
    on_note: Report = lambda _: None
    columns: Mapping[str, str] = field(default_factory=dict)
    files: int = 0
    """Files read so far."""
    failed: set[str] = field(default_factory=set)
    """Origins in which something could not be read: nothing can be said to have vanished from them."""
    seen: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    """What was read: ``(kind, id)`` -> digest of it, and its revision."""
    whole: bool = True
    """False: there were more files than one import visits."""
    _file: str = ""

    def items(self, paths: Iterable[str | os.PathLike[str]]) -> Iterator[Item]:
        """Everything under ``paths``, in a stable order, each thing once.

        :class:`NotFoundError`, at once, for a path that does not exist.
        """
        places = [Path(path) for path in paths]
        for place in places:
            if not place.exists():
                raise NotFoundError(f"{place} does not exist", hint="check the path", code="import.absent")
        for place in places:
            for reader, found, name in self._walk(place.resolve(), 0):
                self.files += 1
                if self.files > MAX_FILES:
                    self.whole = False
                    self._told(Problem(str(place), f"more than {MAX_FILES} files; the rest was left out"))
                    return
                self._file = str(found)
                for payload in reader(found, name, self._told):
                    if self._is_first(payload, name):
                        yield Item(payload, self._file)
                self._file = ""

    def _is_first(self, payload: Payload, name: str) -> bool:
        """Of several things with one id the first counts; of a calendar's revisions the newest, wherever."""
        key = named(payload)
        revision = payload.sequence if isinstance(payload, CalendarUpserted) else 0
        text = blob_digest(canonical(encode_payload(payload)))
        known = self.seen.get(key)
        if known is not None and (known[0] == text or known[1] >= revision):
            if known[0] != text:
                what = f"{_title(payload)!r} was left out: something with the same id was read before"
                self._told(Problem(name, what, note=True))
            return False
        self.seen[key] = (text, revision)
        return True

    def _told(self, problem: Problem) -> None:
        if problem.note:
            self.on_note(problem)
            return
        if self._file:
            self.failed.add(self._file)
        self.on_problem(problem)

    def _walk(self, path: Path, depth: int) -> Iterator[tuple[_ReadFile, Path, str]]:
        """Each file with its reader and the name people know it by: folder and file."""
        if path.is_dir():
            if mail.is_maildir(path):
                for folder in ("cur", "new"):
                    for file in self._entries(path / folder):
                        if _is_regular(file):
                            yield mail.read_message, file, f"{path.name}/{file.name.partition(':')[0]}"
            elif depth >= MAX_DEPTH:
                self._unread(path, f"folders are nested more than {MAX_DEPTH} deep")
            else:
                yield from self._folder(path, depth)
        elif not _is_regular(path):
            self._told(Problem(str(path), "it is not a regular file"))
        elif reader := self._reader_of(path, given=True):
            yield reader, path, f"{path.parent.name}/{path.name}"

    def _folder(self, path: Path, depth: int) -> Iterator[tuple[_ReadFile, Path, str]]:
        unknown: list[str] = []
        for entry in self._entries(path):
            if entry.is_symlink():
                self._told(Problem(str(entry), "a symbolic link inside a folder is not followed"))
            elif entry.is_dir():
                yield from self._walk(entry, depth + 1)
            elif not _is_regular(entry):
                self._told(Problem(str(entry), "it is not a regular file", note=True))
            elif reader := self._reader_of(entry, given=False):
                yield reader, entry, f"{path.name}/{entry.name}"
            else:
                unknown.append(entry.name)
        if unknown:
            shown = ", ".join(unknown[:MAX_NAMED]) + (", …" if len(unknown) > MAX_NAMED else "")
            self._told(Problem(str(path), f"{len(unknown)} of no known kind left alone: {shown}", note=True))

    def _entries(self, folder: Path) -> list[Path]:
        try:
            return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        except OSError as error:
            self._unread(folder, error.strerror or str(error))
            return []

    def _unread(self, folder: Path, why: str) -> None:
        self.failed.add(f"{folder}/")
        self._told(Problem(str(folder), why))

    def _reader_of(self, path: Path, *, given: bool) -> _ReadFile | None:
        suffix = path.suffix.lower()
        if suffix in _TABLES:
            return partial(table.read_table, columns=self.columns)
        known = next((reader for suffixes, reader in _READERS if suffix in suffixes), None)
        if known is not None and suffix not in _TRADED:
            return known
        if known is None and suffix and not given:
            return None  # a folder may hold anything else
        start = read_bounded(path, 64, self._told, whole=False)
        if start is None:
            return None
        found = _by_content(start) or known
        if found is None and given:
            what = ".vcf, .ics, .csv, .tsv, .jsonl, .eml, .mbox, Maildir, .md, .txt"
            self._told(Problem(str(path), f"it is not known what this is; known: {what}"))
        return found

    def vanished(self, kind: str, name: str, origin: str) -> bool:
        """Whether a thing that an earlier import read from ``origin`` is not in what this one has read."""
        if not self.whole or (kind, name) in self.seen or origin in self.failed:
            return False
        return not any(failed.endswith("/") and origin.startswith(failed) for failed in self.failed)


def parse(
    paths: Iterable[str | os.PathLike[str]],
    *,
    on_problem: Callable[[Problem], None] | None = None,
    columns: Mapping[str, str] | None = None,
) -> Iterator[Payload]:
    """Payloads of everything under ``paths``, in a stable order.

    What cannot be read is told to ``on_problem`` and passed over. Without one, :class:`ImportProblemsError`
    is raised at the end, after everything readable was given. :class:`NotFoundError`, at once, for a path
    that does not exist.
    """
    problems: list[Problem] = []
    reading = Import(on_problem or problems.append, columns=columns or {})
    for item in reading.items(paths):
        yield item.payload
    if problems:
        raise ImportProblemsError(
            f"{len(problems)} of the items could not be read; first: {problems[0]}",
            hint="correct or remove them, and import again: what is known already is skipped",
            problems=[str(problem) for problem in problems],
        )


Known = Callable[[str, str], Payload | None]
"""``(kind, id)`` -> what the ledger says of it now, if anything."""


def unseen(known: Known, payloads: Iterable[Payload]) -> Iterator[Payload]:
    """Those that say something the ledger's newest word on the same thing does not. An older revision of a
    calendar entry says nothing new."""
    here: dict[tuple[str, str], Payload] = {}
    for payload in payloads:
        key = named(payload)
        before = here[key] if key in here else known(*key)
        if before == payload or _is_older(payload, before):
            continue
        here[key] = payload
        yield payload


def _is_older(payload: Payload, before: Payload | None) -> bool:
    if not (isinstance(payload, CalendarUpserted) and isinstance(before, CalendarUpserted)):
        return False
    return payload.sequence < before.sequence


_ReadFile = Callable[[Path, str, Report], Iterator[Payload]]
_TABLES = frozenset({".csv", ".tsv"})
_READERS: tuple[tuple[frozenset[str], _ReadFile], ...] = (
    (frozenset({".vcf", ".vcard"}), vcard.read_cards),
    (frozenset({".ics", ".ical", ".ifb", ".icalendar"}), ical.read_calendar),
    (frozenset({".jsonl", ".ndjson"}), jsonl.read_lines),
    (frozenset({".eml"}), mail.read_message),
    (frozenset({".mbox", ".mbx"}), mail.read_mbox),
    (frozenset({".md", ".markdown", ".txt", ".text"}), notes.read_note),
)
_TRADED = frozenset({".vcf", ".vcard", ".ics", ".ical", ".icalendar"})
"""Names that programs give to each other's content."""


def _by_content(start: bytes) -> _ReadFile | None:
    if start.startswith(b"From "):
        return mail.read_mbox
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().upper()
    if text.startswith(b"BEGIN:VCARD"):
        return vcard.read_cards
    if text.startswith(b"BEGIN:VCALENDAR"):
        return ical.read_calendar
    return jsonl.read_lines if text.startswith(b'{"') else None


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _title(payload: Payload) -> str:
    return str(getattr(payload, "title", "") or getattr(payload, "name", ""))[:80]
