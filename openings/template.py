"""Templates in JSON values: ``{{params.x}}`` stands for a parameter of the opening.

Knows: how one is written, which there are in a value, and how parameters are put in their places. Does not
know: where in an opening templates may stand (``edges``, ``wiring``). Nothing in one is ever evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from openings.definition import Place
from runloop.digest import canonical

__all__ = ["TEMPLATE", "fill", "template_params"]

TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
"""Anything that looks like a template; only ``params.<name>`` inside is one."""

_PARAM = re.compile(r"\s*params\.([a-z][a-z0-9_]{0,63})\s*\Z")


def template_params(value: Any, place: Place = ()) -> Iterator[tuple[Place, str, str | None]]:
    """Every template in a JSON value: place, text, and the parameter it names (None: it is no template)."""
    if isinstance(value, str):
        for found in TEMPLATE.finditer(value):
            named = _PARAM.match(found.group(1))
            yield place, found.group(0), named.group(1) if named else None
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from template_params(item, (*place, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from template_params(item, (*place, index))


def fill(value: Any, params: Mapping[str, Any]) -> Any:
    """Put parameters in place of ``{{params.x}}``.

    A template that is the whole string keeps the parameter's type; inside a longer string a text is put in as
    it is and anything else as canonical JSON. What was put in is not looked at again. An unknown name
    is null.
    """
    if isinstance(value, str):
        return _fill_text(value, params)
    if isinstance(value, Mapping):
        return {key: fill(item, params) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [fill(item, params) for item in value]
    return value


def _fill_text(text: str, params: Mapping[str, Any]) -> Any:
    whole = TEMPLATE.fullmatch(text)
    if whole is not None and (named := _PARAM.match(whole.group(1))) is not None:
        return params.get(named.group(1))

    def put(found: re.Match[str]) -> str:
        named = _PARAM.match(found.group(1))
        if named is None:
            return found.group(0)
        value = params.get(named.group(1))
        return value if isinstance(value, str) else canonical(value).decode()

    return TEMPLATE.sub(put, text)
