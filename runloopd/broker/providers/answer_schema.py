"""The JSON Schema subset in which an agent may ask for structured answers.

Knows: which keywords are allowed and how to make a value from facts. The subset has no ``$ref`` (no fetching,
no recursion) and no ``pattern`` (a guest's regular expression would run inside the daemon). Everything is
bounded. Does not know: whether a value fits (``runloop.bundle.json_schema``), who asked, or which model
answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runloop.bundle.json_schema import TYPES, Schema
from runloop.errors import UsageError

__all__ = ["check", "misfit", "shape"]

_MAX_DEPTH = 16
_MAX_NODES = 2_000
_NOTES = frozenset({"$schema", "$id", "title", "description", "examples", "default", "$comment"})
_KEYWORDS = frozenset(
    {
        "additionalProperties",
        "anyOf",
        "const",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "items",
        "maxItems",
        "maxLength",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "properties",
        "required",
        "type",
    }
)
_MISSING: Any = object()


def check(schema: Any) -> None:
    """Refuse (:class:`UsageError`, ``model.schema``) a schema outside the subset, naming the place."""
    budget = [_MAX_NODES]
    _check(schema, "$", 0, budget)


def _check(schema: Any, at: str, depth: int, budget: list[int]) -> None:
    budget[0] -= 1
    if depth > _MAX_DEPTH or budget[0] < 0:
        raise _refused(at, "the schema is too deep or too large")
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise _refused(at, "a schema is an object or a boolean")
    for key, value in schema.items():
        if key in _NOTES:
            continue
        if key not in _KEYWORDS:
            raise _refused(f"{at}.{key}", f"the keyword {key!r} is not supported")
        _check_keyword(key, value, at, depth, budget)


def _check_keyword(key: str, value: Any, at: str, depth: int, budget: list[int]) -> None:
    here = f"{at}.{key}"
    match key:
        case "properties":
            _expect(isinstance(value, dict), here, "must be an object")
            for name, child in value.items():
                _check(child, f"{here}.{name}", depth + 1, budget)
        case "items" | "additionalProperties":
            _check(value, here, depth + 1, budget)
        case "anyOf":
            _expect(isinstance(value, list) and bool(value), here, "must be a list of schemas")
            for index, child in enumerate(value):
                _check(child, f"{here}[{index}]", depth + 1, budget)
        case "enum":
            _expect(isinstance(value, list) and 0 < len(value) <= _MAX_NODES, here, "must be a list")
        case "required":
            _expect(
                isinstance(value, list) and all(isinstance(name, str) for name in value),
                here,
                "must name fields",
            )
        case "type":
            names = value if isinstance(value, list) else [value]
            _expect(
                bool(names) and all(isinstance(name, str) and name in TYPES for name in names),
                here,
                "must name JSON types",
            )
        case "const":
            pass
        case _:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            counts = key.startswith(("minL", "maxL", "minI", "maxI"))
            _expect(number and not (counts and (value < 0 or value != int(value))), here, "must be a number")


def _expect(true: bool, at: str, why: str) -> None:
    if not true:
        raise _refused(at, why)


def _refused(at: str, why: str) -> UsageError:
    return UsageError(
        f"json_schema at {at[:200]}: {why}",
        hint=f"the keywords are {', '.join(sorted(_KEYWORDS))}",
        code="model.schema",
    )


# --- fitting --------------------------------------------------------------------------------------


def misfit(schema: Any, value: Any) -> str | None:
    """Why ``value`` does not fit a checked ``schema``; None when it does."""
    return Schema(schema).misfit(value)


# --- making ---------------------------------------------------------------------------------------


def shape(schema: Any, facts: Mapping[str, Any], text: str) -> Any:
    """Make a value of a checked ``schema`` from facts of the same names, without inventing any.

    A choice among an ``enum`` of words is made by the one word that stands in ``text``. Raises
    :class:`UsageError` (``model.facts``) naming the first field no fact gives.
    """
    value = _shape(schema, facts, text, "$", given=_MISSING)
    if value is _MISSING:
        raise UsageError("no fact gives $", hint="pass facts named like the fields", code="model.facts")
    why = misfit(schema, value)
    if why is not None:
        raise UsageError(f"the facts do not fit the schema: {why}", code="model.facts")
    return value


def _shape(schema: Any, facts: Mapping[str, Any], text: str, at: str, *, given: Any) -> Any:
    if isinstance(schema, bool):
        return given
    if "const" in schema:
        return schema["const"]
    nested = schema.get("type") == "object" or "properties" in schema
    if nested and (given is _MISSING or isinstance(given, dict)):
        return _shape_object(schema, facts if given is _MISSING else given, text, at)
    return _chosen(schema, text) if given is _MISSING else given


def _chosen(schema: dict[str, Any], text: str) -> Any:
    """The one choice that ``text`` names, the only choice, or the default."""
    choices = schema.get("enum", [])
    words = _words(text)
    named = [choice for choice in choices if isinstance(choice, str) and _words(choice) <= words]
    for only in (named, choices):
        if len(only) == 1:
            return only[0]
    return schema.get("default", _MISSING)


def _shape_object(schema: dict[str, Any], facts: Mapping[str, Any], text: str, at: str) -> Any:
    made: dict[str, Any] = {}
    required = schema.get("required", ())
    for name, child in schema.get("properties", {}).items():
        if name not in facts and name not in required:
            continue
        value = _shape(child, facts, text, f"{at}.{name}", given=facts.get(name, _MISSING))
        if value is _MISSING:
            raise UsageError(
                f"no fact gives {at}.{name}", hint=f"pass a fact named {name!r}", code="model.facts"
            )
        made[name] = value
    return made


def _words(text: str) -> set[str]:
    cleaned = "".join(char if char.isalnum() else " " for char in text.lower())
    return set(cleaned.split())
