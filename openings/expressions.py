"""The little language of guards and success clauses: ``exists(node.port)`` and ``node.port op literal``.

Knows: its grammar (lark, LALR, below), evaluation in three values, and why an evaluation is what it is.
Does not know: nodes, runs or ports; the caller looks references up. Nothing here can loop, call or fail:
a comparison that makes no sense is false, with the reason in words.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from runloop.digest import MAX_SAFE
from runloop.errors import UsageError

if TYPE_CHECKING:
    from lark import Lark

__all__ = [
    "ABSENT",
    "GRAMMAR",
    "Compare",
    "Condition",
    "Exists",
    "ExpressionError",
    "Judgement",
    "Lookup",
    "Parser",
    "Ref",
    "Truth",
    "evaluate",
    "json_type",
    "parse_condition",
    "parse_endpoint",
    "walk",
]

GRAMMAR = r"""
endpoint:  ref [OP literal]
condition: _EXISTS "(" ref ")" -> exists
         | ref OP literal       -> compare
ref:       NAME ("." NAME)+
literal:   STRING | NUMBER | TRUE | FALSE | NULL

_EXISTS.2: /exists(?=[ \t]*\()/
OP:     "==" | "!=" | ">=" | "<=" | ">" | "<"
TRUE:   "true"
FALSE:  "false"
NULL:   "null"
NAME:   /[A-Za-z_][A-Za-z0-9_]{0,63}/
STRING: /"([^"\\\x00-\x1f]|\\["\\\/bfnrt]|\\u[0-9a-fA-F]{4})*"/ | /'[^'\x00-\x1f]*'/
NUMBER: /-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,15})?/

%ignore /[ \t]+/
"""
"""Whitespace is blanks and tabs; a string is JSON's, or anything but a quote between single quotes."""

MAX_LENGTH = 1_024
"""Characters of one expression."""
_MAX_SEGMENTS = 8


class ExpressionError(UsageError):
    """The text is no expression of this language. ``column`` counts characters from 1."""

    code = "opening.expression"

    def __init__(self, text: str, column: int, why: str) -> None:
        super().__init__(
            f"{text!r} is not understood at character {column}: {why}",
            hint="write exists(node.port), or node.port followed by == != >= <= > < and a literal",
        )
        self.text, self.column, self.why = text, column, why


class Truth(Enum):
    """Three values: a port that holds nothing makes a comparison neither true nor false."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A truth value and, unless it is true, why."""

    truth: Truth
    reason: str = ""

    def __bool__(self) -> bool:
        return self.truth is Truth.TRUE


@dataclass(frozen=True, slots=True)
class Ref:
    """``node.port``, or ``node.port.field…`` to look into an object."""

    node: str
    path: tuple[str, ...]
    """At least one name. The first is the port, or a field of the port named like the node itself."""

    def __str__(self) -> str:
        return ".".join((self.node, *self.path))


@dataclass(frozen=True, slots=True)
class Exists:
    """``exists(ref)``: never unknown."""

    ref: Ref

    def __str__(self) -> str:
        return f"exists({self.ref})"


@dataclass(frozen=True, slots=True)
class Compare:
    """``ref op literal``."""

    ref: Ref
    op: str
    literal: Any
    """A JSON scalar."""

    def __str__(self) -> str:
        return f"{self.ref} {self.op} {json.dumps(self.literal, ensure_ascii=False)}"


Condition = Exists | Compare


class _Absent(Enum):
    ABSENT = "absent"


ABSENT = _Absent.ABSENT
"""What a lookup gives for a reference that holds nothing."""

Lookup = Callable[[Ref], Any]
"""Reference -> JSON value, or :data:`ABSENT`."""


class Parser:
    """The grammar, built once by whoever parses; building it is what makes importing lark worth deferring."""

    def __init__(self) -> None:
        from lark import Lark

        self._lark: Lark = Lark(
            GRAMMAR, parser="lalr", start=["endpoint", "condition"], maybe_placeholders=True
        )

    def endpoint(self, text: str) -> tuple[Ref, str | None, Any]:
        """``node.port[ op literal]`` as ``(ref, op, literal)``; ``op`` is None for plain data."""
        tree = self._parse(text, "endpoint")
        ref, op, literal = tree.children
        if op is None:
            return self._ref(text, ref), None, None
        return self._ref(text, ref), str(op), self._literal(text, literal)

    def condition(self, text: str) -> Condition:
        """A success clause."""
        tree = self._parse(text, "condition")
        ref = self._ref(text, tree.children[0])
        if tree.data == "exists":
            return Exists(ref)
        return Compare(ref, str(tree.children[1]), self._literal(text, tree.children[2]))

    def _parse(self, text: str, start: str) -> Any:
        from lark.exceptions import UnexpectedEOF, UnexpectedInput, UnexpectedToken

        if len(text) > MAX_LENGTH:
            raise ExpressionError(text[:40] + "…", MAX_LENGTH, f"longer than {MAX_LENGTH} characters")
        try:
            return self._lark.parse(text, start=start)
        except UnexpectedInput as error:
            ended = isinstance(error, UnexpectedEOF) or (
                isinstance(error, UnexpectedToken) and error.token.type == "$END"
            )
            column = len(text) + 1 if ended or not isinstance(error.column, int) else error.column
            why = (
                "it ends too early" if ended else f"{text[column - 1 : column] or 'this'!r} does not fit here"
            )
            raise ExpressionError(text, max(column, 1), why) from error

    def _ref(self, text: str, tree: Any) -> Ref:
        names = [str(token) for token in tree.children]
        if len(names) > _MAX_SEGMENTS:
            raise ExpressionError(text, 1, f"a reference has at most {_MAX_SEGMENTS} names")
        return Ref(names[0], tuple(names[1:]))

    def _literal(self, text: str, tree: Any) -> Any:
        token = tree.children[0]
        raw = token.type == "STRING" and token.startswith("'")
        value = str(token)[1:-1] if raw else json.loads(str(token))
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_SAFE:
            raise ExpressionError(text, token.column or 1, "the number is beyond 2^53-1")
        if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
            raise ExpressionError(text, token.column or 1, "the string holds half a surrogate pair")
        return value


def parse_condition(text: str) -> Condition:
    """Parse one success clause; raise :class:`ExpressionError`. Parsing many? Keep a :class:`Parser`."""
    return Parser().condition(text)


def parse_endpoint(text: str) -> tuple[Ref, str | None, Any]:
    """Parse the ``from`` side of one edge; raise :class:`ExpressionError`."""
    return Parser().endpoint(text)


def json_type(value: Any) -> str:
    """The type of a JSON value in the words of port declarations."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "list" if isinstance(value, list | tuple) else "object"


def walk(value: Any, fields: tuple[str, ...]) -> Any:
    """Follow field names through objects; :data:`ABSENT` where one is missing."""
    for field in fields:
        if not isinstance(value, dict) or field not in value:
            return ABSENT
        value = value[field]
    return value


def evaluate(condition: Condition, lookup: Lookup) -> Judgement:
    """Judge a condition. Total: no input raises."""
    value = lookup(condition.ref)
    if isinstance(condition, Exists):
        if value is ABSENT:
            return Judgement(Truth.FALSE, f"{condition.ref} holds nothing")
        return Judgement(Truth.TRUE)
    if value is ABSENT:
        return Judgement(Truth.UNKNOWN, f"{condition.ref} holds nothing")
    return _compare(condition, value)


def _compare(condition: Compare, value: Any) -> Judgement:
    literal, op = condition.literal, condition.op
    have, want = json_type(value), json_type(literal)
    if want == "null" or have == "null":
        held = (value is None) == (literal is None)
        if op in {"==", "!="} and (want == "null" or op == "=="):
            return _verdict(held if op == "==" else not held, condition, value)
        return Judgement(
            Truth.FALSE, f"{condition.ref} is {have}, which does not compare by {op} with {want}"
        )
    if have != want:
        return Judgement(
            Truth.FALSE, f"{condition.ref} is {have}, not {want}: the comparison {op} makes no sense"
        )
    if op in {"==", "!="}:
        return _verdict((value == literal) == (op == "=="), condition, value)
    if have not in {"number", "string"}:
        return Judgement(Truth.FALSE, f"{condition.ref} is {have}, which has no order for {op}")
    held = {
        ">": value > literal,
        "<": value < literal,
        ">=": value >= literal,
        "<=": value <= literal,
    }[op]
    return _verdict(held, condition, value)


def _verdict(held: bool, condition: Compare, value: Any) -> Judgement:
    if held:
        return Judgement(Truth.TRUE)
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= 60 else shown[:60] + "…"
    return Judgement(Truth.FALSE, f"{condition} does not hold: it is {shown}")
