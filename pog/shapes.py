"""What the fields of a payload may hold, as its closed schema says.

Knows types only, no values. A field is *plain* when it holds one text, integer or truth value, or None.
"""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any

import msgspec

from runloop.digest import MAX_SAFE

__all__ = ["integer_fields", "plain_fields", "plain_shape"]

_PLAIN = frozenset({str, int, bool, type(None)})
_SAFE = typing.Annotated[int, msgspec.Meta(ge=-MAX_SAFE, le=MAX_SAFE)]


@cache
def plain_fields(kind: type[msgspec.Struct]) -> frozenset[str]:
    """Names of the plain fields."""
    return frozenset(name for name, hint in _hints(kind) if _held(hint))


@cache
def integer_fields(kind: type[msgspec.Struct]) -> frozenset[str]:
    """Names of the fields that hold one integer, and never None."""
    return frozenset(name for name, hint in _hints(kind) if hint is int)


@cache
def plain_shape(kind: type[msgspec.Struct]) -> type[msgspec.Struct] | None:
    """A shape that ``msgspec.convert`` holds the values of a kind against, in order: exactly the types of its
    schema, integers within 2^53-1. None for a kind with a field that is not plain.
    """
    hints = _hints(kind)
    if len(plain_fields(kind)) != len(hints):
        return None
    fields = [(name, _bounded(hint)) for name, hint in hints]
    return msgspec.defstruct(f"{kind.__name__}Values", fields, array_like=True, forbid_unknown_fields=True)


def _held(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return all(type(choice) is str for choice in typing.get_args(hint))
    return all(choice in _PLAIN for choice in _choices(hint))


def _bounded(hint: Any) -> Any:
    choices = tuple(_SAFE if choice is int else choice for choice in _choices(hint))
    return typing.Union[choices]  # noqa: UP007 - built from a tuple


def _choices(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _hints(kind: type[msgspec.Struct]) -> list[tuple[str, Any]]:
    hints = typing.get_type_hints(kind)
    return [(field.name, hints[field.name]) for field in msgspec.structs.fields(kind)]
