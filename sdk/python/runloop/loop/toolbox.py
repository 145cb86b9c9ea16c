"""The tools of one loop: under names that every provider takes, each call judged before it is made.

Knows: names, schemas, what is wrong with a call and how to say so. Does not know: how often a call may be
made, or what becomes of its result (``pursuit``). What a tool's description says is for choosing it: text of
strangers is cut, cleaned and marked as theirs.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runloop.loop.fit import misfit

__all__ = ["Seen", "Tool", "Toolbox"]

MAX_TOOLS = 128
MAX_DESCRIPTION = 1_000
MAX_SCHEMA = 8_000
"""Characters; a schema that is longer is shown as ``object`` and still judged by the host."""
_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")


@dataclass(frozen=True)
class Seen:
    """What a tool gave, and where it came from."""

    value: Any
    """JSON."""
    label: str
    """Trust label: ``import:mail``, ``web:host``, ``tool:name``, ``user``, ``host`` …"""


@dataclass(frozen=True)
class Tool:
    """One thing the model may ask for."""

    name: str
    """As people and the record know it: ``kb.find``, ``mcp.files.read``."""
    description: str
    parameters: Mapping[str, Any]
    """JSON Schema of an object; empty: no arguments."""
    run: Callable[[dict[str, Any]], Any]
    """Takes the arguments; returns JSON, or :class:`Seen` where it knows a label. ``HostRefused`` and
    ``Fail`` become observations; anything else is a mistake of the author's and ends the attempt."""
    label: str = "host"
    """Of what it gives, where it says nothing else."""
    foreign: bool = False
    """Name and description were written by strangers."""
    waits: bool = False
    """It may wait for a person, and that time is not the loop's."""

    @property
    def schema(self) -> dict[str, Any]:
        """The parameters as an object's schema."""
        given = dict(self.parameters)
        if not given:
            return {"type": "object", "properties": {}, "additionalProperties": False}
        return {"type": "object", **given}


@dataclass
class Toolbox:
    """Tools by the names a model uses. Made once per loop; nothing that is heard later changes it."""

    tools: Mapping[str, Tool]
    """Model's name -> tool."""
    _offered: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, tools: Iterable[Tool]) -> Toolbox:
        """Names fit ``[A-Za-z0-9_-]{1,64}``; of two that would be the same, the later one gets a number.
        The first 128 count."""
        named: dict[str, Tool] = {}
        for tool in list(tools)[:MAX_TOOLS]:
            plain = _UNFIT.sub("_", tool.name).strip("_")[:64] or "tool"
            name, number = plain, 2
            while name in named:
                name, number = f"{plain[:60]}_{number}", number + 1
            named[name] = tool
        return cls(named, [_offer(name, tool) for name, tool in named.items()])

    def offered(self) -> list[dict[str, Any]]:
        """As ``model.complete`` takes them."""
        return self._offered

    def find(self, name: str) -> Tool | None:
        """By the model's name, or by the tool's own."""
        if name in self.tools:
            return self.tools[name]
        return next((tool for tool in self.tools.values() if tool.name == name), None)

    def unknown(self, name: str) -> str:
        """What to say of a name that is none."""
        folded = {known.casefold(): known for known in self.tools}
        close = difflib.get_close_matches(_UNFIT.sub("_", name[:64]).casefold(), folded, n=1, cutoff=0.6)
        hint = f" Did you mean {folded[close[0]]}?" if close else ""
        return f"There is no tool {name[:64]!r}.{hint} There are: {', '.join(self.tools) or 'none'}."

    def misfit(self, tool: Tool, arguments: Mapping[str, Any]) -> str | None:
        """Why the arguments cannot be taken, or None."""
        return misfit(tool.schema, dict(arguments))


def _offer(name: str, tool: Tool) -> dict[str, Any]:
    words = _UNSEEN.sub(" ", tool.description).strip()[:MAX_DESCRIPTION]
    if tool.foreign:
        words = f"[{tool.name[:80]}; described by whoever offers it, not by the user] {words}"
    schema = tool.schema
    if len(json.dumps(schema, ensure_ascii=False, default=str)) > MAX_SCHEMA:
        schema = {"type": "object"}
    return {"name": name, "description": words, "parameters": schema}
