"""What a program outside may reach: an allow-list, and the tools it becomes.

Knows: the items of the list, how an opening's parameters read as JSON Schema, how a qualified name becomes
one that every client takes. Does not know: MCP, tokens, or whether a call is permitted (the daemon's gate).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rlp.session import Session
from runloop.errors import RunloopError

if TYPE_CHECKING:
    from openings.definition import Opening
    from rlp.serving.link import Link
    from runloop.clock import Clock

__all__ = ["DEFAULT_AGENT", "Door", "Known", "doors", "items_of"]

DEFAULT_AGENT = "errand"
"""Calls a tool of the host for whoever is outside, where the item names no other agent."""
MAX_NAME = 64
_TYPES = {
    "text": "string", "string": "string", "number": "number", "boolean": "boolean", "object": "object",
    "list": "array",
}  # fmt: skip
_FRESH_MS = 3_000
_MAX_LISTS = 128
_UNFIT = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Door:
    """One tool as a program outside sees it."""

    name: str
    what: Literal["opening", "tool", "search", "read", "result"]
    target: str = ""
    """Of an opening its path; of a tool its qualified name."""
    agent: str = ""
    description: str
    schema: dict[str, Any] = field(default_factory=dict)
    reads_only: bool = False


class Known:
    """Lists of doors as they were a moment ago: the daemon judges every call anyway, and files are slow."""

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._lists: OrderedDict[tuple[str, ...], tuple[int, dict[str, Door]]] = OrderedDict()

    async def of(self, items: tuple[str, ...], client: str) -> dict[str, Door]:
        """The doors of a list, for a client. Raises :class:`RunloopError`."""
        now = self._clock.now_ms()
        known = self._lists.get(items)
        if known is not None and 0 <= now - known[0] < _FRESH_MS:
            return known[1]
        found = await self._link.ask(lambda session: doors(session, items), client)
        self._lists[items] = (now, found)
        while len(self._lists) > _MAX_LISTS:
            self._lists.popitem(last=False)
        return found


def items_of(given: Iterable[str]) -> tuple[str, ...]:
    """The list as it is meant: without doubles, in order."""
    return tuple(dict.fromkeys(given))


def doors(session: Session, items: Sequence[str]) -> dict[str, Door]:
    """The tools of a list, by the name they are called by. What does not exist is left out, with a word."""
    found: dict[str, Door] = {}
    offered: dict[str, dict[str, dict[str, Any]]] = {}
    for item in items:
        kind, _, rest = item.partition(":")
        try:
            for door in _behind(session, kind, rest, offered):
                if door.name in found:
                    session.console.note(f"rlp: {item} has the name of another tool; left out", "yellow")
                else:
                    found[door.name] = door
        except RunloopError as error:
            session.console.note(f"rlp: {item} is left out: {error.message}", "yellow")
    if any(door.what in ("opening", "tool") for door in found.values()):
        found["run_result"] = _RESULT
    return found


def _behind(
    session: Session, kind: str, rest: str, offered: dict[str, dict[str, dict[str, Any]]]
) -> Sequence[Door]:
    if kind == "kb":
        return (_SEARCH, _READ)
    if kind == "opening":
        return (_opening(session, rest),)
    name, _, agent = rest.partition("@")
    agent = agent or DEFAULT_AGENT
    if agent not in offered:
        listed = session.ask("face.tools", agent=agent)["tools"]
        offered[agent] = {tool["name"]: tool for tool in listed}
    tool = offered[agent].get(name)
    if tool is None:
        session.console.note(f"rlp: tool:{rest} is not offered to {agent} now; left out", "yellow")
        return ()
    asks = " Waits for a person's yes each time." if tool["confirm"] or tool["effect"] == "send" else ""
    return (
        Door(
            name=_fit(f"tool_{name}"),
            what="tool",
            target=name,
            agent=agent,
            description=f"{tool['description']}{asks}",
            schema=tool["input_schema"],
            reads_only=tool["effect"] == "read",
        ),
    )


def _opening(session: Session, name: str) -> Door:
    from openings.load import find, read

    path = find(name, session.openings_dirs)
    opening = read(path)
    about = opening.goals[0] if opening.goals else name
    return Door(
        name=_fit(f"opening_{opening.name}"),
        what="opening",
        target=str(path),
        description=f"Runs the opening {opening.name}: {about}. What would leave the machine waits for a "
        "person; then the answer says so, and 'run_result' tells the rest later.",
        schema=_schema(opening),
    )


def _schema(opening: Opening) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, param in opening.params.items():
        described: dict[str, Any] = {"description": param.description} if param.description else {}
        if param.type in _TYPES:
            described["type"] = _TYPES[param.type]
        properties[name] = described
    required = [name for name, param in opening.params.items() if param.required]
    return {
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def _fit(name: str) -> str:
    """A name that every client takes: letters, digits, ``_`` and ``-``, 64 at most."""
    return _UNFIT.sub("_", name)[:MAX_NAME]


_RUN = {"type": "string", "description": "The id of a run of yours.", "maxLength": 64}
_RESULT = Door(
    name="run_result",
    what="result",
    description="How a run stands that you started: its result, or what it waits for.",
    schema={
        "type": "object",
        "properties": {"run": _RUN},
        "required": ["run"],
        "additionalProperties": False,
    },
    reads_only=True,
)
_SEARCH = Door(
    name="kb_search",
    what="search",
    description="Searches what the user knows: contacts, notes, mail. Addresses are masked.",
    schema={
        "type": "object",
        "properties": {
            "query": {"type": "string", "minLength": 1, "maxLength": 1_000},
            "k": {"type": "integer", "minimum": 1, "maximum": 20},
            "kinds": {
                "type": "array",
                "items": {"enum": ["contact", "note", "mail", "record", "event"]},
                "maxItems": 5,
            },
        },
        "required": ["query"],
        "additionalProperties": False,
    },
    reads_only=True,
)
_READ = Door(
    name="kb_read",
    what="read",
    description="Reads one thing that kb_search found, whole. Addresses are masked.",
    schema={
        "type": "object",
        "properties": {
            "kind": {"enum": ["contact", "note", "mail", "record", "event"]},
            "id": {"type": "string", "maxLength": 1_000},
        },
        "required": ["kind", "id"],
        "additionalProperties": False,
    },
    reads_only=True,
)
