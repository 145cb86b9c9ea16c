"""Whether arguments fit a JSON Schema, said so that a model can do better.

Knows: types, required and unknown members, enumerations, bounds, items, and alternatives. Does not know:
``pattern`` and ``$ref``, which it passes: the host judges every call again by the whole schema. Bounded,
because schemas are written by strangers.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["misfit"]

_DEPTH = 16
_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}
_BOUNDS: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
    ("minimum", operator.lt, "is less than"),
    ("maximum", operator.gt, "is more than"),
    ("exclusiveMinimum", operator.le, "is not more than"),
    ("exclusiveMaximum", operator.ge, "is not less than"),
)


def misfit(schema: Any, value: Any, place: str = "arguments") -> str | None:
    """What is wrong with ``value``, in words, or None."""
    return _misfit(schema, value, place, 0)


def _misfit(schema: Any, value: Any, place: str, depth: int) -> str | None:
    if schema is False:
        return f"{place} may not be there"
    if not isinstance(schema, Mapping) or depth > _DEPTH:
        return None
    return (
        _kind(schema, value, place)
        or _listed(schema, value, place)
        or (_object(schema, value, place, depth) if isinstance(value, dict) else None)
        or (_array(schema, value, place, depth) if isinstance(value, list) else None)
        or (_sized(schema, value, place) if isinstance(value, str) else None)
        or (_bounded(schema, value, place) if _number(value) else None)
        or _alternatives(schema, value, place, depth)
    )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _kind(schema: Mapping[str, Any], value: Any, place: str) -> str | None:
    wanted = schema.get("type")
    names = [wanted] if isinstance(wanted, str) else wanted if isinstance(wanted, list) else []
    known = [name for name in names if isinstance(name, str) and name in _TYPES]
    if not known or any(_is(value, name) for name in known):
        return None
    return f"{place} must be {' or '.join(known)}, not {_named(value)}"


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name])


def _named(value: Any) -> str:
    return next((name for name in _TYPES if _is(value, name)), type(value).__name__)


def _listed(schema: Mapping[str, Any], value: Any, place: str) -> str | None:
    options = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(options, list) or any(_same(option, value) for option in options):
        return None
    shown = ", ".join(json.dumps(option, ensure_ascii=False) for option in options[:20])
    return f"{place} must be one of {shown[:400]}"


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _object(schema: Mapping[str, Any], value: dict[str, Any], place: str, depth: int) -> str | None:
    known = schema.get("properties")
    properties = known if isinstance(known, Mapping) else {}
    required = schema.get("required")
    for name in required if isinstance(required, list) else ():
        if name not in value:
            return f"{place} lacks {name!r}"
    more = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in properties:
            wrong = _misfit(properties[name], item, f"{place}.{name}", depth + 1)
        elif more is False:
            wrong = f"{place} has no {name[:60]!r}; it has {', '.join(map(str, properties)) or 'nothing'}"
        else:
            wrong = _misfit(more, item, f"{place}.{name[:60]}", depth + 1)
        if wrong:
            return wrong
    return None


def _array(schema: Mapping[str, Any], value: list[Any], place: str, depth: int) -> str | None:
    if wrong := _counted(schema, len(value), place, "Items", "items"):
        return wrong
    first = schema.get("prefixItems")
    prefix = first if isinstance(first, list) else []
    for number, item in enumerate(value):
        wanted = prefix[number] if number < len(prefix) else schema.get("items", True)
        if wrong := _misfit(wanted, item, f"{place}[{number}]", depth + 1):
            return wrong
    return None


def _sized(schema: Mapping[str, Any], value: str, place: str) -> str | None:
    return _counted(schema, len(value), place, "Length", "characters")


def _counted(schema: Mapping[str, Any], count: int, place: str, word: str, unit: str) -> str | None:
    least, most = schema.get(f"min{word}"), schema.get(f"max{word}")
    if isinstance(least, int) and count < least:
        return f"{place} has {count} {unit}; at least {least} are needed"
    if isinstance(most, int) and count > most:
        return f"{place} has {count} {unit}; at most {most} are taken"
    return None


def _bounded(schema: Mapping[str, Any], value: float, place: str) -> str | None:
    for name, outside, words in _BOUNDS:
        bound = schema.get(name)
        if _number(bound) and outside(value, bound):
            return f"{place} is {value}, which {words} {bound}"
    return None


def _alternatives(schema: Mapping[str, Any], value: Any, place: str, depth: int) -> str | None:
    for part in _list(schema, "allOf"):
        if wrong := _misfit(part, value, place, depth + 1):
            return wrong
    for name in ("anyOf", "oneOf"):
        wrongs = [_misfit(part, value, place, depth + 1) for part in _list(schema, name)]
        if wrongs and all(wrongs):
            return " or: ".join(str(wrong) for wrong in wrongs[:4])
    return None


def _list(schema: Mapping[str, Any], name: str) -> list[Any]:
    found = schema.get(name)
    return found[:64] if isinstance(found, list) else []
