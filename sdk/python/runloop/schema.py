"""JSON Schemas from type hints, and values between JSON and the types that hints name.

    schema_for(list[int])            -> {"type": "array", "items": {"type": "integer"}}
    build(Forecast, {"city": "Bern"}) -> Forecast(city="Bern")

Knows: ``str int float bool None Any list dict tuple Literal Optional Union Annotated``, dataclasses and
TypedDicts. Does not know: what a schema is for. Runs inside the sandbox, so it imports the standard library
only.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["Misfit", "arguments_schema", "build", "plain", "schema_for"]

_SCALARS: dict[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
}
_LISTS = (list, Sequence, tuple)
_MAPPINGS = (dict, Mapping)


class Misfit(ValueError):
    """A value that does not have the type its hint names; ``str`` says which and where."""


def schema_for(hint: Any) -> dict[str, Any]:  # noqa: PLR0911  one line for each kind of hint
    """The JSON Schema (2020-12) of a type hint.

    Raises TypeError for a type that JSON has no place for, such as ``bytes`` or a plain class.
    """
    if get_origin(hint) is typing.Annotated:
        inner, *notes = get_args(hint)
        words = [note for note in notes if isinstance(note, str)]
        return {**schema_for(inner), **({"description": words[0]} if words else {})}
    if hint is Any or hint is inspect.Parameter.empty:
        return {}
    if hint is None:
        return {"type": "null"}
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if _is_union(hint):
        return _union(get_args(hint))
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    kind = get_origin(hint) or hint
    if kind in _LISTS:
        return _list(kind, get_args(hint))
    if kind in _MAPPINGS:
        return _mapping(get_args(hint))
    if dataclasses.is_dataclass(hint) or typing.is_typeddict(hint):
        return _record(hint)
    raise TypeError(
        f"{_name(hint)} has no JSON form; use str, int, float, bool, list, dict, a dataclass or Any"
    )


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _union(members: Sequence[Any]) -> dict[str, Any]:
    schemas = [schema_for(member) for member in members]
    plain_types = [schema["type"] for schema in schemas if set(schema) == {"type"}]
    return {"type": plain_types} if len(plain_types) == len(schemas) else {"anyOf": schemas}


def _list(kind: Any, members: Sequence[Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "array"}
    if kind is tuple and members and members[-1] is not Ellipsis:
        return {
            **made,
            "prefixItems": [schema_for(member) for member in members],
            "items": False,
            "minItems": len(members),
        }
    items = schema_for(members[0]) if members else {}
    return {**made, "items": items} if items else made


def _mapping(members: Sequence[Any]) -> dict[str, Any]:
    if members and members[0] is not str:
        raise TypeError(f"keys of a JSON object are text, not {_name(members[0])}")
    values = schema_for(members[1]) if members else {}
    return {"type": "object", "additionalProperties": values} if values else {"type": "object"}


def _record(kind: Any) -> dict[str, Any]:
    hints, required = _fields(kind)
    return {
        "type": "object",
        "properties": {name: schema_for(hint) for name, hint in hints.items()},
        "required": sorted(required),
        "additionalProperties": False,
    }


def _fields(kind: Any) -> tuple[dict[str, Any], set[str]]:
    """Name -> hint of a dataclass or TypedDict, and which of them must be given."""
    hints = get_type_hints(kind, include_extras=True)
    if typing.is_typeddict(kind):
        # Not __required_keys__: where annotations are strings, Python 3.11 takes every key for required.
        marks = {name: get_origin(hint) for name, hint in hints.items()}
        wrapped = (typing.Required, typing.NotRequired)
        bare = {name: get_args(h)[0] if marks[name] in wrapped else h for name, h in hints.items()}
        default = typing.Required if kind.__total__ else typing.NotRequired
        must = {name: mark if mark in wrapped else default for name, mark in marks.items()}
        return bare, {name for name, mark in must.items() if mark is typing.Required}
    given = [field for field in dataclasses.fields(kind) if field.init]
    missing = dataclasses.MISSING
    required = {f.name for f in given if f.default is missing and f.default_factory is missing}
    return {field.name: hints[field.name] for field in given}, required


def arguments_schema(function: Callable[..., Any], leave_out: Sequence[str] = ()) -> dict[str, Any]:
    """The schema of a function's arguments as one object. Raises TypeError for what JSON cannot give."""
    hints = get_type_hints(function, include_extras=True)
    properties: dict[str, Any] = {}
    required = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in leave_out:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{function.__name__}: parameter {name!r} must be one that can be given by name")
        properties[name] = schema_for(hints.get(name, Any))
        if parameter.default is parameter.empty:
            required.append(name)
        elif _is_json(parameter.default):
            properties[name] = {**properties[name], "default": parameter.default}
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(required),
        "additionalProperties": False,
    }


def _is_json(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))


# --- values ---------------------------------------------------------------------------------------


def build(hint: Any, value: Any, place: str = "value") -> Any:  # noqa: PLR0911  as above
    """The JSON ``value`` as the type that ``hint`` names; raises :class:`Misfit` where it is another."""
    if get_origin(hint) is typing.Annotated:
        return build(get_args(hint)[0], value, place)
    if hint is Any or hint is inspect.Parameter.empty:
        return value
    if hint is None or hint in _SCALARS:
        return _scalar(type(None) if hint is None else hint, value, place)
    if _is_union(hint):
        return _one_of(get_args(hint), value, place)
    if get_origin(hint) is Literal:
        if any(value == option and type(value) is type(option) for option in get_args(hint)):
            return value
        raise Misfit(f"{place} must be one of {', '.join(map(repr, get_args(hint)))}, not {value!r}")
    kind, members = get_origin(hint) or hint, get_args(hint)
    if kind in _LISTS:
        return _built_list(kind, members, value, place)
    if kind in _MAPPINGS:
        if not isinstance(value, dict):
            raise Misfit(f"{place} must be an object, not {_kind(value)}")
        inner = members[1] if members else Any
        return {name: build(inner, item, f"{place}.{name}") for name, item in value.items()}
    return _built_record(hint, value, place)


def _scalar(hint: Any, value: Any, place: str) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if hint is float and (whole or isinstance(value, float)):
        return float(value)
    if (hint is int and whole) or (hint is not int and type(value) is hint):
        return value
    raise Misfit(f"{place} must be {_article(_SCALARS[hint])}, not {_kind(value)}")


def _one_of(members: Sequence[Any], value: Any, place: str) -> Any:
    wrong = []
    for member in members:
        try:
            return build(member, value, place)
        except Misfit as misfit:
            wrong.append(str(misfit))
    raise Misfit("; or ".join(wrong))


def _built_list(kind: Any, members: Sequence[Any], value: Any, place: str) -> Any:
    if not isinstance(value, list):
        raise Misfit(f"{place} must be a list, not {_kind(value)}")
    if kind is tuple and members and members[-1] is not Ellipsis:
        if len(value) != len(members):
            raise Misfit(f"{place} must have {len(members)} items, not {len(value)}")
        hints = list(members)
    else:
        hints = [members[0] if members else Any] * len(value)
    items = [
        build(hint, item, f"{place}[{n}]") for n, (hint, item) in enumerate(zip(hints, value, strict=True))
    ]
    return tuple(items) if kind is tuple else items


def _built_record(kind: Any, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise Misfit(f"{place} must be an object, not {_kind(value)}")
    hints, required = _fields(kind)
    _names(set(value), set(hints), required, place)
    made = {name: build(hints[name], item, f"{place}.{name}") for name, item in value.items()}
    return kind(**made)


def _names(given: set[str], known: set[str], required: set[str], place: str) -> None:
    for name in sorted(given - known):
        raise Misfit(f"{place} has no {name!r}; it has {', '.join(sorted(known)) or 'nothing'}")
    for name in sorted(required - given):
        raise Misfit(f"{place} lacks {name!r}")


def plain(value: Any) -> Any:
    """A value with its dataclasses as JSON objects and its tuples as lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", type(None): "null", float: "a number"}
    return names.get(type(value)) or _article(_SCALARS.get(type(value), type(value).__name__))


def _article(word: str) -> str:
    return word if word == "null" else f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))
