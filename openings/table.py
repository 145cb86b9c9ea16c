"""One mapping of the source, read key by key with its types; what is wrong is laid on the desk, not raised.

Knows: types, ranges, unknown and missing keys. Does not know: which keys there are (``load`` says so).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from openings.definition import Place
from openings.expressions import json_type
from openings.source import Desk, suggest

__all__ = ["Table"]

T = TypeVar("T")


class Table:
    """One mapping of the source, read key by key; what is left over is unknown."""

    def __init__(self, value: Any, place: Place, desk: Desk, what: str, keys: Sequence[str]) -> None:
        self.place, self.desk, self.what = place, desk, what
        self.value: dict[str, Any] = value if isinstance(value, dict) else {}
        self.sound = isinstance(value, dict)
        if not self.sound:
            desk.say(
                place,
                "type",
                f"{what} is a mapping",
                f"this is a {json_type(value)}",
                f"write its keys: {', '.join(keys[:4])}…",
            )
        for key in self.value:
            if desk.full:
                break
            if key not in keys:
                desk.say(
                    (*place, key),
                    "unknown_key",
                    f"unknown key '{key}' in {what}",
                    "nothing would read it",
                    suggest(key, keys),
                    key=True,
                )

    def at(self, key: str) -> Place:
        return (*self.place, key)

    def has(self, key: str) -> bool:
        return key in self.value

    def need(self, key: str, fix: str) -> bool:
        """Whether a required key is there; else a finding."""
        if key in self.value:
            return True
        if self.sound:
            self.desk.say(self.place, "missing", f"{self.what} has no '{key}'", "it is required", fix)
        return False

    def wrong(self, key: str, wanted: str, fix: str) -> None:
        value = self.value[key]
        self.desk.say(self.at(key), "type", f"'{key}' must be {wanted}", f"this is {_show(value)}", fix)

    def text(self, key: str, default: str = "") -> str:
        value = self.value.get(key, default)
        if isinstance(value, str):
            return value
        self.wrong(key, "text", "put it in quotes")
        return default

    def integer(self, key: str, low: int, high: int, default: T) -> int | T:
        value = self.value.get(key)
        if key not in self.value:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.wrong(key, f"a whole number from {low} to {high}", "write such a number")
        return default

    def number(self, key: str, low: float, high: float, default: T) -> float | T:
        value = self.value.get(key)
        if key not in self.value:
            return default
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.wrong(key, f"a number from {low:g} to {high:g}", "write such a number")
        return default

    def boolean(self, key: str, default: bool) -> bool:
        value = self.value.get(key, default)
        if isinstance(value, bool):
            return value
        self.wrong(key, "true or false", "write true or false")
        return default

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.value.get(key)
        if value is None:
            return {}
        if isinstance(value, dict):
            return value
        self.wrong(key, "a mapping", "write 'key: value' lines below it")
        return {}

    def items(self, key: str) -> list[Any]:
        value = self.value.get(key)
        if value is None:
            return []
        if isinstance(value, list):
            return value
        self.wrong(key, "a list", "write '- …' lines below it")
        return []

    def texts(self, key: str) -> tuple[str, ...]:
        made = []
        for index, item in enumerate(self.items(key)):
            if isinstance(item, str):
                made.append(item)
            else:
                self.desk.say(
                    (*self.at(key), index),
                    "type",
                    f"'{key}' is a list of text",
                    f"this is {_show(item)}",
                    "put it in quotes",
                )
        return tuple(made)


def _show(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"a {json_type(value)}"
    text = f"the {json_type(value)} {value!r}" if value is not None else "empty"
    return text if len(text) <= 60 else text[:60] + "…"
