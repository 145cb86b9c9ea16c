"""The template language of the offline rules provider: small, total, and without evaluation.

Knows four forms: ``{{path.to.fact}}`` with optional filters (``{{note.text | sentence | line}}``),
``{{#each path}}…{{/each}}`` (inside, ``{{.}}`` is the item and ``{{.field}}`` a part of it),
``{{#if path}}…{{else}}…{{/if}}``. A tag alone on its line leaves no line behind. Facts are data: a ``{{``
inside a value is shown, never obeyed. Does not know: attributes, calls, arithmetic, files.

A template comes from a guest, so all it may cost is bounded: its words when it is read, and when it is filled
the steps taken and the characters moved, whether or not they are written.

Filters: ``line`` (everything on one line), ``sentence`` (the first sentence), ``json`` (as JSON text).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from runloop.errors import UsageError

__all__ = ["TemplateError", "render"]

MAX_TEMPLATE = 256 * 1024
"""Characters of a template."""
MAX_OUTPUT = 1024 * 1024
"""Characters a template may grow to."""
_MAX_DEPTH = 16
_MAX_STEPS = 200_000
"""Parts written and items visited."""
_MAX_WORK = 4 * 1024 * 1024
"""Characters that substitutions and their filters may make, together."""
_MAX_FILTERS = 4
_MAX_WORDS = 16
_MAX_WORD = 64
_QUOTED = 80
"""Characters of a template that a complaint repeats."""
_REST_OF_LINE = re.compile(r"[ \t\r]*(?:\n|\Z)")
_SENTENCE_ENDS = ".!?…"
_MISSING = object()


class TemplateError(UsageError):
    """The template cannot be filled: its form is wrong, or a fact it names is not there."""

    code = "model.template"


@dataclass(frozen=True, slots=True)
class _Text:
    text: str


@dataclass(frozen=True, slots=True)
class _Path:
    """A name of a fact, split once."""

    text: str
    words: tuple[str, ...]
    of_item: bool
    """Starts at the item of the loop."""


@dataclass(frozen=True, slots=True)
class _Value:
    path: _Path
    filters: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class _Each:
    path: _Path
    body: tuple[_Part, ...]
    line: int


@dataclass(frozen=True, slots=True)
class _If:
    path: _Path
    body: tuple[_Part, ...]
    other: tuple[_Part, ...]
    line: int


_Part = _Text | _Value | _Each | _If


def render(template: str, facts: dict[str, Any]) -> str:
    """Fill ``template`` from ``facts``. Deterministic; raises :class:`TemplateError` naming the line."""
    if len(template) > MAX_TEMPLATE:
        raise TemplateError(f"the template has {len(template)} characters, more than {MAX_TEMPLATE}")
    parts = _Parser(_tokens(template)).block(0, None)
    writer = _Writer(facts)
    writer.write(parts, ())
    return "".join(writer.out)


# --- reading --------------------------------------------------------------------------------------

_Token = tuple[str, str, int]
"""``("text" | "tag", content, line)``"""


def _tokens(template: str) -> list[_Token]:
    tokens: list[_Token] = []
    at, line = 0, 1
    while (start := template.find("{{", at)) >= 0:
        end = template.find("}}", start)
        if end < 0:
            raise TemplateError(f"line {line + template.count(chr(10), at, start)}: '{{{{' is never closed")
        text, tag = template[at:start], template[start + 2 : end].strip()
        line += text.count("\n")
        next_at = end + 2
        if tag.startswith(("#", "/")) or tag == "else":
            text, next_at = _alone(template, text, at, next_at)
        tokens.append(("text", text, line))
        tokens.append(("tag", tag, line))
        line += template.count("\n", start, next_at)
        at = next_at
    tokens.append(("text", template[at:], line))
    return tokens


def _alone(template: str, text: str, at: int, end: int) -> tuple[str, int]:
    """Take the whole line away when a section tag stands alone on it; ``text``, from ``at``, precedes it."""
    begin = text.rfind("\n") + 1
    if begin == 0 and at > 0 and template[at - 1] != "\n":
        return text, end  # another tag shares the line
    rest = _REST_OF_LINE.match(template, end)
    if rest is None or text[begin:].strip(" \t"):
        return text, end
    return text[:begin], rest.end()


class _Parser:
    """Nests a flat list of tokens."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens: Iterator[_Token] = iter(tokens)
        self._ended_by = ""

    def block(self, depth: int, closer: str | None) -> tuple[_Part, ...]:
        """Parts up to ``{{/closer}}`` (or ``{{else}}`` of an ``if``), or to the end where closer is None."""
        if depth > _MAX_DEPTH:
            raise TemplateError(f"sections nested deeper than {_MAX_DEPTH}")
        parts: list[_Part] = []
        for kind, content, line in self._tokens:
            if kind == "text":
                if content:
                    parts.append(_Text(content))
            elif content.startswith("#"):
                parts.append(self._section(content[1:], line, depth))
            elif content.startswith("/") or content == "else":
                if closer is None or (content != f"/{closer}" and not (content == "else" and closer == "if")):
                    raise TemplateError(f"line {line}: {{{{{_cut(content)}}}}} closes nothing")
                self._ended_by = content
                return tuple(parts)
            else:
                path, *filters = (word.strip() for word in content.split("|", _MAX_FILTERS + 1))
                if len(filters) > _MAX_FILTERS:
                    raise TemplateError(f"line {line}: a value has more than {_MAX_FILTERS} filters")
                for name in filters:
                    if name not in ("line", "sentence", "json"):
                        raise TemplateError(
                            f"line {line}: unknown filter {_cut(name)!r}", hint="known: line, sentence, json"
                        )
                parts.append(_Value(_path(path, line), tuple(filters), line))
        if closer is not None:
            raise TemplateError(f"{{{{#{closer}}}}} is never closed with {{{{/{closer}}}}}")
        return tuple(parts)

    def _section(self, content: str, line: int, depth: int) -> _Part:
        word, _, path = content.partition(" ")
        path = path.strip()
        if word == "each":
            return _Each(_path(path, line), self.block(depth + 1, "each"), line)
        if word != "if":
            raise TemplateError(f"line {line}: unknown section {_cut(word)!r}", hint="known: each, if")
        body = self.block(depth + 1, "if")
        other: tuple[_Part, ...] = ()
        if self._ended_by == "else":
            other = self.block(depth + 1, "if")
            if self._ended_by == "else":
                raise TemplateError(f"line {line}: a second {{{{else}}}} in one {{{{#if}}}}")
        return _If(_path(path, line), body, other, line)


def _path(path: str, line: int) -> _Path:
    words = path.removeprefix(".").split(".", _MAX_WORDS) if path != "." else []
    if len(words) > _MAX_WORDS or any(len(word) > _MAX_WORD for word in words):
        raise TemplateError(
            f"line {line}: {_cut(path)!r} has more than {_MAX_WORDS} words, or one of more than {_MAX_WORD} "
            "characters"
        )
    if any(not word or not word.replace("_", "a").replace("-", "a").isalnum() for word in words):
        raise TemplateError(f"line {line}: {_cut(path)!r} names no fact")
    return _Path(path, tuple(words), path.startswith("."))


def _cut(text: str) -> str:
    return text if len(text) <= _QUOTED else text[:_QUOTED] + "…"


# --- writing --------------------------------------------------------------------------------------


class _Writer:
    """Fills parsed parts; ``items`` are the items of the loops we are in, innermost last."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts
        self._size = 0
        self._steps = 0
        self._work = 0
        self.out: list[str] = []

    def write(self, parts: Sequence[_Part], items: tuple[Any, ...]) -> None:
        for part in parts:
            self._step()
            match part:
                case _Text(text):
                    self._put(text)
                case _Value():
                    self._put(self._shown(part, items))
                case _If(path, body, other, _):
                    chosen = self._find(path, items)
                    truth = chosen is not _MISSING and bool(chosen)
                    self.write(body if truth else other, items)
                case _Each(path, body, line):
                    values = self._find(path, items)
                    if not isinstance(values, list | tuple):
                        what = "missing" if values is _MISSING else f"a {type(values).__name__}"
                        raise TemplateError(f"line {line}: {path.text!r} is {what}, not a list")
                    for item in values:
                        self._step()  # an empty body costs as well
                        self.write(body, (*items, item))

    def _step(self) -> None:
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise TemplateError(f"the template takes more than {_MAX_STEPS} steps")

    def _made(self, text: str, line: int) -> str:
        """Charge what a substitution or a filter made."""
        self._work += len(text)
        if self._work > _MAX_WORK:
            raise TemplateError(f"line {line}: the values and filters make more than {_MAX_WORK} characters")
        return text

    def _put(self, text: str) -> None:
        self._size += len(text)
        if self._size > MAX_OUTPUT:
            raise TemplateError(f"the filled template has more than {MAX_OUTPUT} characters")
        self.out.append(text)

    def _find(self, path: _Path, items: tuple[Any, ...]) -> Any:
        value: Any = self._facts
        if path.of_item:
            if not items:
                return _MISSING
            value = items[-1]
        for word in path.words:
            if isinstance(value, dict):
                value = value.get(word, _MISSING)
            elif isinstance(value, list | tuple) and word.isdecimal():
                value = value[int(word)] if len(word) < 10 and int(word) < len(value) else _MISSING
            else:
                return _MISSING
            if value is _MISSING:
                return _MISSING
        return value

    def _shown(self, part: _Value, items: tuple[Any, ...]) -> str:
        value = self._find(part.path, items)
        if value is _MISSING or value is None:
            raise TemplateError(
                f"line {part.line}: the fact {part.path.text!r} is not there",
                hint=f"guard it with {{{{#if {part.path.text}}}}}…{{{{/if}}}}, or provide it",
            )
        for name in part.filters:
            if name == "json":
                value = self._made(_json(value, part), part.line)
            else:
                text = self._made(str(value), part.line)
                value = _one_line(text) if name == "line" else _first_sentence(text)
        if isinstance(value, bool):
            return "yes" if value else "no"
        if not isinstance(value, str | int | float):
            raise TemplateError(
                f"line {part.line}: the fact {part.path.text!r} is a {type(value).__name__}, not text",
                hint="name a field of it, loop with {{#each}}, or use the filter json",
            )
        return self._made(str(value), part.line)


def _json(value: Any, part: _Value) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise TemplateError(f"line {part.line}: the fact {part.path.text!r} is no JSON: {error}") from error


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence (a blank or the end follows), or the first paragraph."""
    paragraph = text.strip().split("\n\n", 1)[0]
    for at, char in enumerate(paragraph):
        if char in _SENTENCE_ENDS and (at + 1 == len(paragraph) or paragraph[at + 1].isspace()):
            return paragraph[: at + 1]
    return paragraph
