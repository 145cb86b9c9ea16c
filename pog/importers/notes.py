"""Notes: Markdown and text files, with a title from front matter, the first heading, or the file's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pog.importers.source import (
    MAX_TEXT_CHARS,
    Problem,
    addresses_in,
    clean,
    clean_line,
    decode_text,
    is_address,
    read_bounded,
    stable_id,
)
from runloop.digest import blob_digest
from runloop.events import DocumentImported, Payload

__all__ = ["read_note"]

MAX_FILE_BYTES = 4 * MAX_TEXT_CHARS
_FRONT = re.compile(r"---[ \t]*\n(?P<front>.{0,16384}?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FIELD = re.compile(r"(?P<key>[A-Za-z_][\w-]{0,63})[ \t]*:[ \t]*(?P<value>.*)\Z")


def read_note(path: Path, name: str, report: Callable[[Problem], None]) -> Iterator[Payload]:
    """The one note of a file. Its id is that of the file's path, or of ``id`` in the front matter."""
    data = read_bounded(path, MAX_FILE_BYTES, report)
    if data is None:
        return
    if b"\x00" in data[:4096]:
        report(Problem(str(path), "it is not text"))
        return
    whole = clean(decode_text(data), MAX_FILE_BYTES)
    match = _FRONT.match(whole)
    front = _fields(match["front"]) if match else {}
    text = clean(whole[match.end() :] if match else whole).strip("\n")
    if not text.strip() and "title" not in front:
        report(Problem(str(path), "it is empty"))
        return
    if len(whole) > MAX_TEXT_CHARS:
        report(Problem(str(path), f"only its first {MAX_TEXT_CHARS} characters are kept", note=True))
    people = [word for word in re.split(r"[\s,;\[\]<>'\"]+", front.get("people", "")) if is_address(word)]
    yield DocumentImported(
        document=stable_id("note", front.get("id") or str(path)),
        type="note",
        title=clean_line(front.get("title") or _heading(text) or path.stem.replace("_", " ")),
        text=text,
        content_digest=blob_digest(text.encode()),
        people=list(dict.fromkeys([*people, *addresses_in(text)])),
        written_ms=_moment(front.get("date", "")),
        source=clean_line(name),
    )


def _fields(front: str) -> dict[str, str]:
    """Plain ``key: value`` lines; anything richer is not needed here and not guessed at."""
    found: dict[str, str] = {}
    for line in front.split("\n"):
        match = _FIELD.match(line)
        if match:
            found.setdefault(match["key"].lower(), match["value"].strip().strip("\"'"))
    return found


def _heading(text: str) -> str:
    for line in text[:16_384].split("\n"):
        marks = len(line) - len(line.lstrip("#"))
        if 1 <= marks <= 6 and line[marks : marks + 1] in {" ", "\t"}:
            return line.strip("# \t")
    return ""


def _moment(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
