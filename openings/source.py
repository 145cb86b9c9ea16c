"""YAML text as plain data with the place of every value: the subset an opening may be written in.

Knows: one document; no anchors, aliases or tags; YAML 1.2 scalars; no key twice; bounds on size, depth and
number of values, checked before anything is built from the text, which is foreign. Does not know: what
the keys mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from openings.definition import Origin, Place
from openings.errors import Finding
from openings.expressions import Parser, Ref, json_type
from runloop.digest import MAX_SAFE
from runloop.spelling import nearest

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_FINDINGS", "MAX_VALUES", "Desk", "compose", "number", "suggest"]

MAX_BYTES = 4 * 1024 * 1024
"""Size of one opening's text, UTF-8."""
MAX_DEPTH = 24
"""Mappings and lists inside each other."""
MAX_VALUES = 400_000
"""Scalars, mappings and lists of one text."""

MAX_FINDINGS = 200
"""Of one text: who has more of them starts with these."""
MAX_REPAIRS = 5
"""Lines that are left out because they are no YAML, before the text is given up."""
MAX_REPAIRED = 32 * 1024
"""Characters of a text that is read again after such a line."""
MAX_OPTIONS = 500
"""Words a suggestion is looked for among."""

_TAG = "tag:yaml.org,2002:"


@dataclass(kw_only=True)
class Desk:
    """Findings and places of one reading."""

    file: str
    places: dict[Place, tuple[int, int]] = field(default_factory=dict)
    subjects: dict[str, Place] = field(default_factory=dict)
    keys: dict[Place, tuple[int, int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    lost_edges: list[Ref | None] = field(default_factory=list)
    """Where edges that cannot be used would have led, as far as that is known."""
    damaged: bool = False
    """A part of the text could not be read at all: what is missing may stand there."""
    seen: set[int] = field(default_factory=set)
    """Values of the text that were taken over."""
    parser: Parser = field(default_factory=Parser)

    def origin(self) -> Origin:
        return Origin(file=self.file, places=self.places, subjects=self.subjects)

    def say(
        self,
        place: Place,
        code: str,
        what: str,
        why: str,
        fix: str,
        *,
        key: bool = False,
        shift: int = 0,
    ) -> None:
        """Lay a finding down. ``key``: about the key, not the value; ``shift``: columns to the right."""
        line, column = self.keys[place] if key and place in self.keys else self.origin().find(place)
        self.at(line, column + shift, code, what, why, fix)

    @property
    def full(self) -> bool:
        """Whether nothing more is said."""
        return len(self.findings) >= MAX_FINDINGS

    def at(self, line: int, column: int, code: str, what: str, why: str, fix: str) -> None:
        if self.full:
            return
        self.findings.append(
            Finding(
                code=f"opening.{code}", what=what, why=why, fix=fix, file=self.file, line=line, column=column
            )
        )


def suggest(word: str, known: Iterable[str]) -> str:
    """The fix for an unknown word: the nearest known one, or all of them."""
    options = list(known)[:MAX_OPTIONS]
    close = nearest(word, options, cutoff=0.5)
    if close is not None:
        return f"did you mean '{close}'?"
    more = ", …" if len(options) > 20 else ""
    return f"use one of: {', '.join(options[:20]) or 'none'}{more}"


def compose(source: str, desk: Desk) -> dict[str, Any] | None:
    """The document as plain data, with places noted. None, and findings, when it cannot be worked with."""
    root = _parse(source, desk)
    if root is None:
        return None
    value = _plain(root, (), desk)
    if isinstance(value, dict):
        return value
    why = f"this is a {json_type(value)}"
    desk.at(1, 1, "type", "an opening is a mapping", why, "start with 'version: 0'")
    return None


def _parse(source: str, desk: Desk) -> Any:
    """The root of YAML's own tree; None, and a finding, when there is none.

    A line that is no YAML is told and left out, so that it hides nothing in the others; what else is no YAML
    then may follow from that and is not told.
    """
    if len(source.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        why = f"an opening has at most {MAX_BYTES} bytes"
        desk.at(1, 1, "size", "the text is too large", why, "make it smaller")
        return None
    for repair in range(MAX_REPAIRS + 1):
        found = _tree(source, desk, quiet=repair > 0)
        if not isinstance(found, int):
            return found
        desk.damaged = True
        if len(source) > MAX_REPAIRED:
            return None
        lines = source.split("\n")
        lines[min(found, len(lines)) - 1] = ""
        source = "\n".join(lines)
    return None


def _tree(source: str, desk: Desk, *, quiet: bool) -> Any:
    """The root, None where there is nothing to work with, or the number of the line that is no YAML."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        if not _scan(YAML(typ="safe", pure=True).parse(source), desk if not quiet else Desk(file="")):
            return None
        root = YAML(typ="safe", pure=True).compose(source)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        why = " ".join(str(part) for part in (error.context, error.problem) if part)
        if not quiet and not any(
            told.code == "opening.alias" and told.line == line for told in desk.findings
        ):
            desk.at(
                line, column, "yaml", "this is not YAML", why or "it does not parse", "correct the syntax"
            )
        return line
    except (YAMLError, ValueError) as error:
        line, column = _place_of(source, error)
        why = str(error).splitlines()[0] if str(error) else "it does not parse"
        if not quiet:
            desk.at(line, column, "yaml", "this is not YAML", why, "correct the syntax")
        return None
    if root is None and not quiet:
        why = "an opening has a version, a name and nodes"
        desk.at(1, 1, "empty", "there is nothing in it", why, "write one")
    return root


def _place_of(source: str, error: Exception) -> tuple[int, int]:
    """Where a reader error (a control character, for instance) is."""
    position = getattr(error, "position", None)
    if not isinstance(position, int):
        return 1, 1
    before = source[:position]
    return before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1


def _scan(events: Iterable[Any], desk: Desk) -> bool:
    """Check the bounds on the event stream, before anything recursive looks at the text."""
    from ruamel.yaml.events import (
        CollectionEndEvent,
        CollectionStartEvent,
        DocumentStartEvent,
        NodeEvent,
    )

    depth = values = documents = 0
    for event in events:
        place = event.start_mark.line + 1, event.start_mark.column + 1
        depth += isinstance(event, CollectionStartEvent)
        depth -= isinstance(event, CollectionEndEvent)
        documents += isinstance(event, DocumentStartEvent)
        if depth > MAX_DEPTH:
            desk.at(*place, "depth", "nested too deeply", f"at most {MAX_DEPTH} levels", "flatten it")
            return False
        if isinstance(event, DocumentStartEvent) and documents == 2:
            fix = "split the file at '---'"
            desk.at(*place, "documents", "a second document", "a file holds one opening", fix)
            return False
        if isinstance(event, NodeEvent):
            values += 1
            _forbidden(event, place, desk)
        if values > MAX_VALUES:
            desk.at(*place, "size", "too many values", f"at most {MAX_VALUES}", "make it smaller")
            return False
    return True


def _forbidden(event: Any, place: tuple[int, int], desk: Desk) -> None:
    """What YAML has and an opening must not: it hides what a definition says, or builds foreign objects."""
    if event.anchor:
        what = "anchors and aliases are not part of the language"
        desk.at(*place, "alias", what, "they hide what a definition says", "write the value out")
        return
    tag = getattr(event, "tag", None)
    if tag is not None:
        desk.at(*place, "tag", f"the tag {tag} is not known", "values are plain", "remove it")


def _plain(node: Any, place: Place, desk: Desk) -> Any:
    """A composed YAML node as JSON, noting where everything is."""
    if id(node) in desk.seen:
        return None  # an alias, which was told; nothing is expanded
    desk.seen.add(id(node))
    desk.places[place] = (node.start_mark.line + 1, node.start_mark.column + 1)
    kind = node.id if isinstance(getattr(node, "id", None), str) else type(node).__name__.lower()
    if kind.startswith("mapping"):
        return _mapping(node, place, desk)
    if kind.startswith("sequence"):
        return [_plain(item, (*place, index), desk) for index, item in enumerate(node.value)]
    return _scalar(node, place, desk)


def _mapping(node: Any, place: Place, desk: Desk) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
        key = key_node.value if isinstance(key_node.value, str) else None
        if key is None or not str(key_node.tag).endswith((":str", ":int", ":bool", ":null", ":float")):
            desk.at(line, column, "key", "a key must be a word", "this one is not", "write it as text")
            continue
        if key in made:
            first = desk.keys[(*place, key)][0]
            desk.at(
                line,
                column,
                "duplicate",
                f"the key '{key}' occurs twice",
                f"it is also in line {first}, and one of them would be lost",
                "remove one",
            )
            continue
        desk.keys[(*place, key)] = (line, column)
        made[key] = _plain(value_node, (*place, key), desk)
    return made


def _scalar(node: Any, place: Place, desk: Desk) -> Any:
    tag, text = str(node.tag).removeprefix(_TAG), str(node.value)
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag in ("int", "float"):
        try:
            return _integer(text) if tag == "int" else _float(text)
        except ValueError as error:
            what = f"the number {text[:40]} cannot be used"
            desk.say(place, "number", what, str(error), "write it as text, in quotes")
            return 0
    if any("\ud800" <= char <= "\udfff" for char in text):
        why = "it holds half a surrogate pair"
        desk.say(place, "text", "the text is broken", why, "replace the character")
        return ""
    return text  # timestamps, binary and the like are the text they are written as


def _integer(text: str) -> int:
    if len(text) > 40:
        raise ValueError("it is beyond 2^53-1")
    digits = text.replace("_", "")
    plain = digits.lstrip("+-")
    value = int(digits, 0) if plain[:2].lower() in {"0x", "0o", "0b"} else int(digits)
    if abs(value) > MAX_SAFE:
        raise ValueError("it is beyond 2^53-1")
    return value


def number(text: str) -> float | int:
    """A number in JSON's form. Raises :class:`ValueError` with the reason for one that has no exact place."""
    return _integer(text) if text.lstrip("-").isdigit() else _float(text)


def _float(text: str) -> float | int:
    value = float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    if not -MAX_SAFE <= value <= MAX_SAFE:
        raise ValueError("it is infinite, not a number, or beyond 2^53-1")
    return int(value) if value.is_integer() else value
