"""JSON Schema for strangers: the part that is safe to evaluate inside the daemon.

Knows: which keywords there are, how ``$ref`` inside a schema is resolved, whether a value fits. Does not
know: whose schema it is or what it guards. Pure.

Schema and value both come from strangers and are compared inside the daemon. So there are no ``pattern``\\ s
(a stranger's regular expression can take for ever), no reference that leaves the document or leads back to
itself, and every comparison has a bound of steps. ``format`` is a note, as the standard has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from runloop.digest import canonical
from runloop.errors import RunloopError

__all__ = ["TYPES", "Schema", "read_schema"]

MAX_DEPTH = 32
MAX_NODES = 1_000
"""Schemas inside a schema, references counted as often as they are used."""
MAX_STEPS = 500_000
"""Comparisons of one check."""

_NOTES = frozenset(
    {
        "$schema",
        "$id",
        "$comment",
        "title",
        "description",
        "examples",
        "default",
        "format",
        "deprecated",
        "readOnly",
        "writeOnly",
    }
)
TYPES: dict[str, Any] = {
    "array": list,
    "boolean": bool,
    "integer": int,
    "null": type(None),
    "number": (int, float),
    "object": dict,
    "string": str,
}
"""JSON type -> what holds such a value in Python."""
_COUNTS = {
    "minLength": str,
    "maxLength": str,
    "minItems": list,
    "maxItems": list,
    "minProperties": dict,
    "maxProperties": dict,
}
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_CHILD = ("items", "additionalProperties", "not")
_CHILDREN = ("anyOf", "allOf", "oneOf", "prefixItems")
_KEYWORDS = frozenset(
    {
        *_COUNTS,
        *_NUMBERS,
        *_CHILD,
        *_CHILDREN,
        "$defs",
        "$ref",
        "const",
        "definitions",
        "enum",
        "properties",
        "required",
        "type",
        "uniqueItems",
    }
)

Node = bool | dict[str, Any]


class Schema:
    """A schema that was read without a finding, or checked to be of a narrower kind."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def misfit(self, value: Any) -> str | None:
        """The first reason why ``value`` does not fit, with its place; None when it fits."""
        fit = _Fit()
        # 'not' and 'oneOf' take a misfit for an answer; that the steps ran out is no such answer.
        return fit.misfit(self._node, value, "$") or ("$: too large to check" if fit.exhausted else None)


def read_schema(document: Any, findings: list[str]) -> Schema:
    """Read a schema; every mistake is added to ``findings`` as ``place: what``, and then it is of no use.

    ``document`` must have a canonical form (no NaN, no endless integers).
    """
    reader = _Reader(document, findings)
    return Schema(reader.node(document, "$", 0, ()))


class _Reader:
    """Copies a schema with its references written out, so that what is checked is a plain bounded tree."""

    def __init__(self, document: Any, findings: list[str]) -> None:
        self._document = document
        self._findings = findings
        self._left = MAX_NODES

    def node(self, given: Any, at: str, depth: int, via: tuple[str, ...]) -> Node:
        """``via``: the references that led here."""
        self._left -= 1
        if depth > MAX_DEPTH or self._left < 0:
            if self._left >= -1:
                self._wrong(at, "the schema is too deep or too large")
            self._left = -2 if self._left < 0 else self._left
            return False
        if isinstance(given, bool):
            return given
        if not isinstance(given, dict):
            self._wrong(at, "a schema is an object, true or false")
            return False
        made: dict[str, Any] = {}
        for key, value in given.items():
            if key == "$ref":
                made.setdefault("allOf", []).append(self._reference(value, f"{at}.$ref", depth, via))
            elif key in _KEYWORDS:
                self._keyword(made, key, value, f"{at}.{key}", depth, via)
            elif key in ("pattern", "patternProperties"):
                self._wrong(
                    f"{at}.{key}", "regular expressions of strangers are not run; use enum or maxLength"
                )
            elif key not in _NOTES:
                self._wrong(f"{at}.{key[:64]}", "this keyword is not supported")
        return made

    def _reference(self, value: Any, at: str, depth: int, via: tuple[str, ...]) -> Node:
        if not isinstance(value, str) or not (value == "#" or value.startswith("#/")):
            self._wrong(at, "a reference stays inside the schema: '#/$defs/name'")
            return False
        if value in via or value == "#":
            self._wrong(at, "a schema that contains itself has no bound")
            return False
        found = self._document
        for step in value[2:].split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                self._wrong(at, f"there is nothing at {value[:64]!r}")
                return False
            found = found[name]
        return self.node(found, at, depth + 1, (*via, value))

    def _keyword(
        self, made: dict[str, Any], key: str, value: Any, at: str, depth: int, via: tuple[str, ...]
    ) -> None:
        if key in ("$defs", "definitions"):
            if not isinstance(value, dict):
                self._wrong(at, "must be an object")
            return
        if key in _CHILD:
            made[key] = self.node(value, at, depth + 1, via)
        elif key in _CHILDREN:
            if not isinstance(value, list) or not value:
                self._wrong(at, "must be a list of schemas")
                return
            children = [self.node(child, f"{at}[{n}]", depth + 1, via) for n, child in enumerate(value)]
            made[key] = [*made.get(key, ()), *children]
        elif key == "properties":
            if not isinstance(value, dict):
                self._wrong(at, "must be an object")
                return
            made[key] = {
                name: self.node(child, f"{at}.{name[:64]}", depth + 1, via) for name, child in value.items()
            }
        elif why := _plain_fault(key, value):
            self._wrong(at, why)
        else:
            made[key] = value

    def _wrong(self, at: str, what: str) -> None:
        self._findings.append(f"{at[:200]}: {what}")


def _plain_fault(key: str, value: Any) -> str | None:
    """What is wrong with a keyword that holds no schema."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    listed = value if isinstance(value, list) else []
    names = listed or [value]
    faults = {
        "const": (True, ""),
        "enum": (0 < len(listed) <= MAX_NODES, "must be a list of values"),
        "required": (
            isinstance(value, list) and all(isinstance(name, str) for name in listed),
            "must be a list of names",
        ),
        "type": (
            all(isinstance(name, str) and name in TYPES for name in names),
            f"must name types: {', '.join(TYPES)}",
        ),
        "uniqueItems": (isinstance(value, bool), "must be true or false"),
    }
    if key in _COUNTS:
        good, why = number and value >= 0 and float(value).is_integer(), "must be a count"
    else:
        good, why = faults.get(key, (number, "must be a number"))
    return None if good else why


# --- fitting --------------------------------------------------------------------------------------


class _Fit:
    """One comparison."""

    def __init__(self) -> None:
        self._steps = MAX_STEPS

    @property
    def exhausted(self) -> bool:
        return self._steps < 0

    def misfit(self, schema: Node, value: Any, at: str) -> str | None:
        self._steps -= 1
        if self._steps < 0:
            return f"{at[:200]}: too large to check"
        if isinstance(schema, bool):
            return None if schema else f"{at[:200]}: nothing is allowed here"
        return (
            _kind_misfit(schema, value, at)
            or _bound_misfit(schema, value, at)
            or self._value_misfit(schema, value, at)
            or self._choice_misfit(schema, value, at)
            or self._child_misfit(schema, value, at)
        )

    def _value_misfit(self, schema: dict[str, Any], value: Any, at: str) -> str | None:
        if "const" in schema and not self._same(schema["const"], value):
            return f"{at}: must be {_shown(schema['const'])}"
        if "enum" in schema and not any(self._same(choice, value) for choice in schema["enum"]):
            return f"{at}: must be one of {', '.join(map(_shown, schema['enum'][:8]))}"
        if schema.get("uniqueItems") and isinstance(value, list) and self._repeats(value):
            return f"{at}: has the same item twice"
        return None

    def _choice_misfit(self, schema: dict[str, Any], value: Any, at: str) -> str | None:
        for part in schema.get("allOf", ()):
            if why := self.misfit(part, value, at):
                return why
        if "anyOf" in schema and all(self.misfit(part, value, at) for part in schema["anyOf"]):
            return f"{at}: fits none of anyOf"
        if "oneOf" in schema and sum(self.misfit(part, value, at) is None for part in schema["oneOf"]) != 1:
            return f"{at}: does not fit exactly one of oneOf"
        if "not" in schema and self.misfit(schema["not"], value, at) is None:
            return f"{at}: must not fit 'not'"
        return None

    def _child_misfit(self, schema: dict[str, Any], value: Any, at: str) -> str | None:
        if isinstance(value, list):
            children = _items(schema, value, at)
        elif isinstance(value, dict):
            for name in schema.get("required", ()):
                if name not in value:
                    return f"{at}: {name!r} is missing"
            children = _members(schema, value, at)
        else:
            return None
        return next((why for child in children if (why := self.misfit(*child))), None)

    def _repeats(self, items: list[Any]) -> bool:
        """Whether two items are equal, as JSON has it."""
        seen = set()
        for item in items:
            try:
                text = canonical(item)
            except RunloopError:
                return True  # beyond what can be compared: refused rather than believed
            self._steps -= 1 + len(text) // 16
            if text in seen or self._steps < 0:
                return True
            seen.add(text)
        return False

    def _same(self, one: Any, two: Any) -> bool:
        """JSON equality: 1 is 1.0, and true is not 1."""
        self._steps -= 1
        if self._steps < 0 or isinstance(one, bool) or isinstance(two, bool):
            return one is two
        if isinstance(one, list) and isinstance(two, list):
            return len(one) == len(two) and all(map(self._same, one, two))
        if isinstance(one, dict) and isinstance(two, dict):
            return one.keys() == two.keys() and all(self._same(one[key], two[key]) for key in one)
        return bool(one == two)


def _items(schema: Mapping[str, Any], value: list[Any], at: str) -> Iterable[tuple[Node, Any, str]]:
    first: list[Node] = schema.get("prefixItems", [])
    other: Node = schema.get("items", True)
    for index, item in enumerate(value):
        yield first[index] if index < len(first) else other, item, f"{at}[{index}]"


def _members(schema: Mapping[str, Any], value: dict[str, Any], at: str) -> Iterable[tuple[Node, Any, str]]:
    known: Mapping[str, Node] = schema.get("properties", {})
    other: Node = schema.get("additionalProperties", True)
    for name, item in value.items():
        yield known.get(name, other), item, f"{at}.{name[:64]}"


def _kind_misfit(schema: Mapping[str, Any], value: Any, at: str) -> str | None:
    kinds = schema.get("type")
    if kinds is None:
        return None
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return None if any(_is(value, kind) for kind in kinds) else f"{at}: must be of type {' or '.join(kinds)}"


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES[kind])


def _bound_misfit(schema: Mapping[str, Any], value: Any, at: str) -> str | None:
    kind: Any
    for key, kind in _COUNTS.items():
        if key in schema and isinstance(value, kind):
            wrong = len(value) < schema[key] if key.startswith("min") else len(value) > schema[key]
            if wrong:
                return f"{at}: {key} is {schema[key]}, and it has {len(value)}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    inside = (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
    )
    return None if inside else f"{at}: out of bounds"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"
