"""What the user already has, as facts: contacts from vCards, mail from Maildir and mbox, notes from text.

Knows: which reader a path belongs to, and what the ledger already says. Does not know: how facts are stated.
Everything read is foreign: only regular files are opened, never through a symbolic link inside a folder,
every size is bounded, and one bad item does not keep the others out.

Ids are stable: the same source gives the same id, so importing it again changes nothing (:func:`unseen`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pog.errors import ImportProblemsError
from pog.importers import mail, notes, vcard
from pog.importers.source import Problem, read_bounded
from pog.reader import Reader
from runloop.digest import blob_digest, canonical
from runloop.errors import NotFoundError
from runloop.events import ContactUpserted, DocumentImported, Payload, encode_payload

__all__ = ["Problem", "parse", "unseen"]

MAX_FILES = 200_000
"""Files visited by one import."""


def parse(
    paths: Iterable[str | os.PathLike[str]], *, on_problem: Callable[[Problem], None] | None = None
) -> Iterator[Payload]:
    """Payloads of everything under ``paths``, in a stable order.

    What cannot be read is told to ``on_problem`` and passed over. Without one, :class:`ImportProblemsError`
    is raised at the end, after everything readable was given. :class:`NotFoundError`, at once, for a path
    that does not exist.
    """
    files = [Path(path) for path in paths]
    for file in files:
        if not file.exists():
            raise NotFoundError(f"{file} does not exist", hint="check the path", code="import.absent")
    problems: list[Problem] = []
    report = on_problem or problems.append
    visited = 0
    for file in files:
        for reader, found, name in _walk(file.resolve(), report):
            visited += 1
            if visited > MAX_FILES:
                report(Problem(str(file), f"more than {MAX_FILES} files; the rest was left out"))
                break
            yield from reader(found, name, report)
    if problems:
        raise ImportProblemsError(
            f"{len(problems)} of the items could not be read; first: {problems[0]}",
            hint="correct or remove them, and import again: what is known already is skipped",
            problems=[str(problem) for problem in problems],
        )


def unseen(reader: Reader, payloads: Iterable[Payload]) -> Iterator[Payload]:
    """Those that say something the ledger's newest word on the same contact or document does not."""
    known = reader.knowledge_digests()
    for payload in payloads:
        if isinstance(payload, ContactUpserted):
            key = (payload.kind, payload.contact)
        elif isinstance(payload, DocumentImported):
            key = (payload.kind, payload.document)
        else:
            yield payload
            continue
        text = blob_digest(canonical(encode_payload(payload)))
        if known.get(key) != text:
            known[key] = text
            yield payload


_Report = Callable[[Problem], None]
_ReadFile = Callable[[Path, str, _Report], Iterator[Payload]]
_READERS: tuple[tuple[frozenset[str], _ReadFile], ...] = (
    (frozenset({".vcf", ".vcard"}), vcard.read_cards),
    (frozenset({".eml"}), mail.read_message),
    (frozenset({".mbox", ".mbx"}), mail.read_mbox),
    (frozenset({".md", ".markdown", ".txt", ".text"}), notes.read_note),
)


def _walk(path: Path, report: _Report) -> Iterator[tuple[_ReadFile, Path, str]]:
    """Each file with its reader and the name people know it by: folder and file, without Maildir flags."""
    if path.is_dir():
        if mail.is_maildir(path):
            for folder in ("cur", "new"):
                for file in _entries(path / folder, report):
                    if _is_regular(file):
                        yield mail.read_message, file, f"{path.name}/{file.name.partition(':')[0]}"
            return
        for entry in _entries(path, report):
            if entry.is_symlink():
                report(Problem(str(entry), "a symbolic link inside a folder is not followed"))
            elif entry.is_dir():
                yield from _walk(entry, report)
            elif _is_regular(entry) and (reader := _reader_of(entry, report, given=False)):
                yield reader, entry, f"{path.name}/{entry.name}"
    elif not _is_regular(path):
        report(Problem(str(path), "it is not a regular file"))
    elif reader := _reader_of(path, report, given=True):
        yield reader, path, f"{path.parent.name}/{path.name}"


def _entries(folder: Path, report: _Report) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        report(Problem(str(folder), error.strerror or str(error)))
        return []


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _reader_of(path: Path, report: _Report, *, given: bool) -> _ReadFile | None:
    suffix = path.suffix.lower()
    for suffixes, reader in _READERS:
        if suffix in suffixes:
            return reader
    start = read_bounded(path, 64, report, whole=False) if given else None
    if start is None:
        return None  # a folder may hold anything else
    if start.startswith(b"From "):
        return mail.read_mbox
    if start.removeprefix(b"\xef\xbb\xbf").upper().startswith(b"BEGIN:VCARD"):
        return vcard.read_cards
    report(Problem(str(path), "it is not known what this is; known: .vcf, .eml, .mbox, Maildir, .md, .txt"))
    return None
