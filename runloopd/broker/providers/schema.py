"""The JSON Schema subset in which an agent may ask for structured answers.

Knows: which keywords are allowed, whether a value fits, and how to make a value from facts. The subset has
no ``$ref`` (no fetching, no recursion) and no ``pattern`` (a guest's regular expression would run inside the
daemon). Everything is bounded. Does not know: who asked, or which model answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
_PYTHON: dict[str, Any] = {
    "array": list,
    "boolean": bool,
    "integer": int,
    "null": type(None),
    "number": (int, float),
    "object": dict,
    "string": str,
}
_MAX_STEPS = 500_000
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
                bool(names) and all(isinstance(name, str) and name in _PYTHON for name in names),
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
    return _Fit().misfit(schema, value, "$")


class _Fit:
    """One comparison, under a bound of steps: schema and value both come from strangers."""

    def __init__(self) -> None:
        self._steps = _MAX_STEPS

    def misfit(self, schema: Any, value: Any, at: str) -> str | None:
        self._steps -= 1
        if self._steps < 0:
            return f"{at}: too large to check"
        if isinstance(schema, bool):
            return None if schema else f"{at}: nothing is allowed here"
        return (
            _kind_misfit(schema, value, at)
            or _bound_misfit(schema, value, at)
            or self._choice_misfit(schema, value, at)
            or self._child_misfit(schema, value, at)
        )

    def _choice_misfit(self, schema: dict[str, Any], value: Any, at: str) -> str | None:
        if "const" in schema and not self._same(schema["const"], value):
            return f"{at}: not the constant asked for"
        if "enum" in schema and not any(self._same(choice, value) for choice in schema["enum"]):
            return f"{at}: not one of the choices"
        if "anyOf" in schema and all(self.misfit(choice, value, at) for choice in schema["anyOf"]):
            return f"{at}: fits none of anyOf"
        return None

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

    def _child_misfit(self, schema: dict[str, Any], value: Any, at: str) -> str | None:
        if isinstance(value, list) and "items" in schema:
            children = ((schema["items"], item, f"{at}[{index}]") for index, item in enumerate(value))
        elif isinstance(value, dict):
            for name in schema.get("required", ()):
                if name not in value:
                    return f"{at}: {name!r} is missing"
            known = schema.get("properties", {})
            other = schema.get("additionalProperties", True)
            children = ((known.get(name, other), item, f"{at}.{name}") for name, item in value.items())
        else:
            return None
        return next((why for child in children if (why := self.misfit(*child))), None)


def _kind_misfit(schema: dict[str, Any], value: Any, at: str) -> str | None:
    kinds = schema.get("type")
    if kinds is None:
        return None
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if any(_is_kind(value, kind) for kind in kinds):
        return None
    return f"{at}: not of type {' or '.join(kinds)}"


def _is_kind(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _PYTHON[kind])


def _bound_misfit(schema: dict[str, Any], value: Any, at: str) -> str | None:
    if isinstance(value, str | list):
        low, high = ("minLength", "maxLength") if isinstance(value, str) else ("minItems", "maxItems")
        if not schema.get(low, 0) <= len(value) <= schema.get(high, len(value)):
            return f"{at}: its length is out of bounds"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        inside = (
            schema.get("minimum", value) <= value <= schema.get("maximum", value)
            and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
            and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
        )
        return None if inside else f"{at}: out of bounds"
    return None


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
