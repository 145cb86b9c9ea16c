"""Characters of a brace text: blanks, comments, words, values, and where they stand.

Knows: the lexical part of the grammar in ``docs/reference/openings.md`` and JSON values. Does not know:
statements (``brace``), or what they mean (``keys``).
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from typing import Any

from openings.definition import Place
from openings.durations import DURATION, milliseconds
from openings.source import MAX_DEPTH, Desk, number

__all__ = ["Scanner", "Unreadable"]

_BLANK = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+"')
_SINGLE = re.compile(r"'[^'\x00-\x1f]*'")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_.])")
_WORD = re.compile(r"[^\s{}\[\](),;:=\"'#<>!?$.]+")
_CHUNK = re.compile(r"[^\s{};#]+")
_MONEY = re.compile(r"\$[0-9]+(?:\.[0-9]{1,6})?(?![A-Za-z0-9_.])")
_WORDS = {"true": True, "false": False, "null": None}
_SURROGATE = re.compile("[\ud800-\udfff]")


class Unreadable(Exception):
    """A statement that is not understood, from ``offset`` on."""

    def __init__(self, offset: int, what: str, why: str, fix: str, code: str = "syntax") -> None:
        super().__init__(what)
        self.offset, self.what, self.why, self.fix, self.code = offset, what, why, fix, code


class Scanner:
    """A text and how far it was read."""

    def __init__(self, source: str, desk: Desk) -> None:
        self.source, self.desk = source, desk
        self.offset = 0
        self._lines = [0, *(found.end() for found in re.finditer("\n", source))]

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column, from 1."""
        line = bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1

    def blank(self) -> int:
        """Go past blanks and comments; where the next thing stands."""
        found = _BLANK.match(self.source, self.offset)
        assert found is not None
        self.offset = found.end()
        return self.offset

    @property
    def ended(self) -> bool:
        return self.blank() >= len(self.source)

    def try_(self, pattern: re.Pattern[str]) -> str | None:
        """What comes next, if it is of that form."""
        found = pattern.match(self.source, self.blank())
        if found is None or found.end() == found.start():
            return None
        self.offset = found.end()
        return found.group()

    def sees(self, sign: str) -> bool:
        return self.source.startswith(sign, self.blank())

    def sign(self, sign: str) -> bool:
        """Take a punctuation mark if it comes next."""
        if not self.sees(sign):
            return False
        self.offset += len(sign)
        return True

    def keyword(self, *words: str) -> bool:
        """Take these words if they come next, whole."""
        before = self.offset
        for word in words:
            if self.try_(_WORD) != word:
                self.offset = before
                return False
        return True

    def refuse(self, wanted: str, fix: str, offset: int | None = None) -> Unreadable:
        """What to raise where something else was wanted."""
        at = self.blank() if offset is None else offset
        line = self.source[at:].split("\n", 1)[0][:20].strip() if at < len(self.source) else ""
        what = f"{line!r} does not fit here" if line else "the text ends too early"
        return Unreadable(at, what, f"{wanted} is expected", fix)

    def need(self, sign: str, fix: str) -> None:
        if not self.sign(sign):
            raise self.refuse(f"'{sign}'", fix)

    def word(self, wanted: str, fix: str) -> str:
        found = self.try_(_WORD)
        if found is None:
            raise self.refuse(wanted, fix)
        return found

    def chunk(self, wanted: str, fix: str) -> str:
        """Everything up to a blank or a bracket."""
        found = self.try_(_CHUNK)
        if found is None:
            raise self.refuse(wanted, fix)
        return found

    def key(self, wanted: str) -> str:
        """A name, or any text in quotes."""
        return self.string() if self.sees('"') else self.word(wanted, "write a name, or a text in quotes")

    def string(self) -> str:
        at = self.blank()
        found = self.try_(_STRING)
        if found is None:
            if self.source.startswith('"', at):
                why = "it is cut off by the end of the line, or holds an escape that JSON does not have"
                raise Unreadable(at, "the text does not end", why, "close it with '\"'; a new line is '\\n'")
            raise self.refuse("a text in quotes", 'write "…"')
        text = str(json.loads(found))
        if _SURROGATE.search(text):
            why = "it holds half a surrogate pair"
            raise Unreadable(at, "the text is broken", why, "replace the character", "text")
        return text

    def number(self, wanted: str = "a number", fix: str = "write a number") -> int | float:
        at = self.blank()
        found = self.try_(_NUMBER)
        if found is None:
            raise self.refuse(wanted, fix)
        try:
            return number(found)
        except ValueError as error:
            what = f"the number {found[:40]} cannot be used"
            raise Unreadable(at, what, str(error), "write it as text, in quotes", "number") from error

    def duration(self) -> int:
        """Milliseconds."""
        found = self.try_(DURATION)
        if found is None:
            raise self.refuse("a duration", "write a number and a unit, as in 500ms, 30s, 10m, 2h or 1d")
        at = self.offset - len(found)
        try:
            return milliseconds(found)
        except ValueError as error:
            raise Unreadable(
                at, f"{found[:40]} is too long", "it is beyond 2^53-1 ms", "shorten it", "number"
            ) from error

    def money(self) -> float | None:
        """US dollars; None when no money comes next."""
        found = self.try_(_MONEY)
        try:
            return None if found is None else number(found[1:])
        except ValueError as error:
            at = self.offset - len(found or "")
            raise Unreadable(at, "that is too much money", str(error), "write less", "number") from error

    def value(self, place: Place, depth: int = 0) -> Any:
        """A JSON value; keys of objects may stand without quotes. Notes where everything is."""
        at = self.blank()
        self.desk.places[place] = self.place(at)
        if depth > MAX_DEPTH:
            raise Unreadable(at, "nested too deeply", f"at most {MAX_DEPTH} levels", "flatten it", "depth")
        if self.sees('"'):
            return self.string()
        if self.sign("["):
            return self._list(place, depth)
        if self.sign("{"):
            return self._object(place, depth)
        for word, value in _WORDS.items():
            if self.keyword(word):
                return value
        return self.number(
            "a value", "write a text in quotes, a number, true, false, null, a list or an object"
        )

    def _list(self, place: Place, depth: int) -> list[Any]:
        made: list[Any] = []
        while not self.sign("]"):
            made.append(self.value((*place, len(made)), depth + 1))
            if not self.sign(",") and not self.sees("]"):
                raise self.refuse("',' or ']'", "close the list")
        return made

    def _object(self, place: Place, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        while not self.sign("}"):
            at = self.blank()
            key = self.key("a key")
            if key in made:
                raise Unreadable(
                    at, f"the key '{key}' occurs twice", "one would be lost", "remove one", "duplicate"
                )
            self.need(":", "write 'key: value'")
            self.desk.keys[(*place, key)] = self.place(at)
            made[key] = self.value((*place, key), depth + 1)
            if not self.sign(",") and not self.sees("}"):
                raise self.refuse("',' or '}'", "close the object")
        return made

    def expression(self, ends: tuple[str, ...]) -> tuple[str, int]:
        """Text up to one of ``ends``, which is left, and where it begins; strings are passed over whole.

        Line breaks and comments in it count as one blank.
        """
        start = self.blank()
        parts: list[str] = []
        while not self.ended and not self.source.startswith(("{", "}", *ends), self.offset):
            before = self.offset
            for pattern in (_STRING, _SINGLE):
                if (found := self.try_(pattern)) is not None:
                    parts.append(found)
                    break
            else:
                self.offset += 1
                parts.append(self.source[before])
            if _BLANK.match(self.source, self.offset).end() > self.offset:  # type: ignore[union-attr]
                parts.append(" ")
        text = "".join(parts).strip()
        if not text:
            raise self.refuse("a port, as in node.port", "write '<node>.<port>'")
        return text, start

    def recover(self, start: int, stops: re.Pattern[str]) -> None:
        """Go on behind the statement that began at ``start``: after its ';' or its block, before a '}', or
        where a line begins with what ``stops`` knows as a beginning."""
        self.offset = start
        depth = 0
        while self.offset < len(self.source):
            if self.source[self.offset] in " \t\r\n#":
                before = self.offset
                self.blank()
                new_line = depth == 0 and "\n" in self.source[before : self.offset]
                if new_line and stops.match(self.source, self.offset):
                    return
                continue
            if self.source[self.offset] in "\"'":
                whole = (_STRING if self.source[self.offset] == '"' else _SINGLE).match(
                    self.source, self.offset
                )
                line_end = self.source.find("\n", self.offset)
                self.offset = whole.end() if whole else (len(self.source) if line_end < 0 else line_end)
                if whole is None and depth == 0:
                    return
                continue
            sign = self.source[self.offset]
            if sign == "}" and depth == 0:
                return
            self.offset += 1
            depth += (sign == "{") - (sign == "}")
            if depth == 0 and sign in ";}":
                return
