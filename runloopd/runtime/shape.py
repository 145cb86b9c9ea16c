"""How much a component declares, counted before anything of it is parsed for good.

The engine takes whatever the format allows, and some of its work grows with the square of what is declared: a
hundred thousand imports are two megabytes of file and two minutes of one processor. This walks over sections
only (a number, a length, a count), bounded by the size of the file.

Knows: the two kinds of binary (core module, component), their sections, the bounds. Does not know: what any
section means, or whether it is valid; that is the engine's matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType

from runloopd.runtime.engine import ComponentRefused

__all__ = ["LIMITS", "check_shape"]

MAX_DEPTH = 8
"""Components within components."""

_HEADER = 8
_CORE = {
    1: "core types", 2: "core imports", 3: "functions", 4: "tables", 5: "memories", 6: "globals",
    7: "core exports", 9: "elements", 11: "data segments", 13: "tags",
}  # fmt: skip
"""Core section -> what its count counts; the others have none, or one that the engine compares."""
_COMPONENT = {
    2: "core instances", 3: "component types", 5: "instances", 6: "aliases", 7: "component types",
    8: "canonical functions", 10: "imports", 11: "exports",
}  # fmt: skip
_MODULE, _NESTED = 1, 4

LIMITS: Mapping[str, int] = MappingProxyType(
    {
        **dict.fromkeys({*_CORE.values(), *_COMPONENT.values()}, 20_000),
        "functions": 200_000,
        "elements": 50_000,
        "data segments": 20_000,
        "core types": 50_000,
        "core imports": 50_000,
        "core exports": 50_000,
        "imports": 5_000,
        "exports": 5_000,
        "modules": 200,
        "components": 200,
        "custom sections": 10_000,
    }
)
"""Most of each, all modules and nested components together. Python's own interpreter needs a tenth of it."""


def check_shape(wasm: bytes) -> None:
    """Raise :class:`ComponentRefused` when a component declares more than :data:`LIMITS`, or is cut off."""
    counts: Counter[str] = Counter()
    try:
        _walk(memoryview(wasm), counts, depth=0, component=True)
    except IndexError as error:
        raise ComponentRefused("the component is not valid: it ends in the middle") from error


def _walk(data: memoryview, counts: Counter[str], *, depth: int, component: bool) -> None:
    if depth > MAX_DEPTH:
        raise ComponentRefused(f"the component is nested deeper than {MAX_DEPTH}")
    names = _COMPONENT if component else _CORE
    at = _HEADER
    while at < len(data):
        number = data[at]
        size, at = _leb(data, at + 1)
        if at + size > len(data):
            raise IndexError
        content = data[at : at + size]
        at += size
        if number == 0:
            _count(counts, "custom sections", 1)
        elif component and number in (_MODULE, _NESTED):
            _count(counts, "modules" if number == _MODULE else "components", 1)
            _walk(content, counts, depth=depth + 1, component=number == _NESTED)
        elif (name := names.get(number)) is not None:
            _count(counts, name, _leb(content, 0)[0])


def _count(counts: Counter[str], name: str, more: int) -> None:
    counts[name] += more
    if counts[name] > LIMITS[name]:
        raise ComponentRefused(
            f"the component declares {counts[name]} {name}; at most {LIMITS[name]} are taken"
        )


def _leb(data: memoryview, at: int) -> tuple[int, int]:
    """An unsigned number of at most 32 bits, and where it ends."""
    value = shift = 0
    while shift < 35:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ComponentRefused("the component is not valid: a number is too long")
