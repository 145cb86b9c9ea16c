"""Reading an opening from its text: everything that is wrong, at once, each with its line and column.

Knows: which syntax a text is in, where openings are found. Does not know: the syntaxes (``source``,
``brace``), the keys (``keys``), the installed agents and their ports (``validate``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from openings import brace, keys
from openings import source as source_
from openings.definition import Opening
from openings.errors import Finding, OpeningError
from openings.expressions import Ref
from openings.source import MAX_BYTES, Desk
from runloop.errors import NotFoundError
from runloop.spelling import nearest

__all__ = [
    "MAX_BYTES",
    "SUFFIXES",
    "Reading",
    "Shelf",
    "catalogue",
    "find",
    "load",
    "parse",
    "read",
    "read_text",
]


SUFFIXES = (".yaml", ".yml", brace.SUFFIX)
"""Of files that hold an opening; where two files of a directory differ in nothing else, the first wins."""


_MISSED = {f"opening.{word}" for word in ("missing", "unknown_node", "unknown_param", "type", "success")}
"""Findings that may follow from a line that was left out."""


class Reading(NamedTuple):
    """What a text says, as far as it can be understood."""

    opening: Opening | None
    """Without what is wrong; None when the text is no mapping at all."""
    findings: tuple[Finding, ...]
    """What is wrong with the language; empty means that ``opening`` is whole."""
    lost_edges: tuple[Ref | None, ...] = ()
    """Where the edges that were left out would have led; None for one that does not say."""


def load(source: str, *, name: str = "<opening>") -> Opening:
    """Read an opening. ``name`` is what messages call the text, usually a path.

    Raises :class:`OpeningError` with every finding.
    """
    reading = parse(source, name=name)
    if reading.findings or reading.opening is None:
        raise OpeningError(reading.findings)
    return reading.opening


def parse(source: str, *, name: str = "<opening>") -> Reading:
    """Read as much of an opening as there is: what is wrong in one line hides nothing in the others."""
    desk = Desk(file=name)
    compose = brace.compose if brace.is_brace(source, name) else source_.compose
    tree = compose(source, desk)
    before = len(desk.findings)
    opening = keys.opening(tree, desk) if isinstance(tree, dict) else None
    if desk.damaged:
        # What is missing may stand in the part that could not be read.
        desk.findings[before:] = [f for f in desk.findings[before:] if f.code not in _MISSED]
        desk.lost_edges.append(None)
    return Reading(opening, tuple(desk.findings), tuple(desk.lost_edges))


def read(path: Path, *, name: str | None = None) -> Opening:
    """Read an opening from a file. Raises :class:`OpeningError`, :class:`NotFoundError`."""
    return load(read_text(path), name=name or str(path))


def read_text(path: Path) -> str:
    """The text of an opening's file. Raises :class:`OpeningError` when it is too large or not UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise NotFoundError(
            f"cannot read {path}: {error.strerror or error}", hint="check the path", code="opening.not_found"
        ) from error
    try:
        return data.decode("utf-8") if len(data) <= MAX_BYTES else " " * len(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OpeningError(
            [
                Finding(
                    code="opening.encoding",
                    what="the file is not UTF-8",
                    why=f"byte {error.start} does not decode",
                    fix="save it as UTF-8",
                    file=str(path),
                    line=line,
                    column=1,
                )
            ]
        ) from error


def find(name_or_path: str, dirs: Sequence[Path]) -> Path:
    """The file of an opening: a path (with a slash or a suffix), or a name looked up in ``dirs``.

    Raises :class:`NotFoundError` with a suggestion.
    """
    if "/" in name_or_path or name_or_path.endswith(SUFFIXES):
        path = Path(name_or_path)
        if path.is_file():
            return path
        raise NotFoundError(
            f"there is no opening at {name_or_path}", hint="check the path", code="opening.not_found"
        )
    known = catalogue(dirs)
    if name_or_path in known:
        return known[name_or_path]
    close = nearest(name_or_path, known)
    raise NotFoundError(
        f"there is no opening called {name_or_path!r}",
        hint=f"did you mean {close}?" if close else "'rlp list' shows the openings there are",
        code="opening.not_found",
        known=sorted(known),
    )


def catalogue(dirs: Sequence[Path]) -> dict[str, Path]:
    """Name -> file of every opening in ``dirs``; where a name occurs twice, the earlier directory wins."""
    found: dict[str, Path] = {}
    for folder in dirs:
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir(), key=_rank):
            if path.suffix in SUFFIXES and keys.NAME.match(path.stem) and path.is_file():
                found.setdefault(path.stem, path)
    return found


def _rank(path: Path) -> tuple[str, int]:
    return path.stem, SUFFIXES.index(path.suffix) if path.suffix in SUFFIXES else len(SUFFIXES)


class Shelf:
    """Openings by name, for those that nest them: texts that were handed in, then files."""

    def __init__(self, dirs: Sequence[Path], texts: Mapping[str, str] | None = None) -> None:
        self._files = catalogue(dirs)
        self._given = dict(texts or {})
        self.texts: dict[str, str] = {}
        """What was taken from it so far."""

    def __call__(self, name: str) -> Reading | None:
        """What the text of that name says; None where there is none."""
        if name in self._given:
            self.texts[name] = self._given[name]
            return parse(self._given[name], name=f"opening:{name}")
        if name not in self._files:
            return None
        try:
            self.texts[name] = read_text(self._files[name])
        except OpeningError as error:
            return Reading(None, error.findings)
        except NotFoundError:  # it was there a moment ago
            return None
        return parse(self.texts[name], name=str(self._files[name]))

    @property
    def names(self) -> list[str]:
        """Every name on it."""
        return sorted({*self._given, *self._files})
