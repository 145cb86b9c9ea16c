"""Definitions of foreign tools: read within bounds, named by digest, compared, shown to a person.

Knows: what of a listing is taken and what is refused and told, when two definitions are the same. Does not
know: how a listing was fetched, or who approved what (``mcp.book``). Pure.

A definition is foreign text from end to end. Its digest covers every field the server sent but ``_meta``
(which neither a person nor a model sees): one changed byte is another definition (attacks.md M1). What a
server says of itself in ``annotations`` is shown, pinned and believed nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from runloop.bundle.json_schema import TYPES, Schema, read_schema
from runloop.digest import blob_digest, canonical
from runloop.errors import RunloopError
from runloopd.broker.mcp.names import fault_of, lookalikes

__all__ = [
    "Definition",
    "Listing",
    "accepting",
    "changes",
    "own_definitions",
    "read_definition",
    "read_listing",
]

MAX_TOOLS = 256
MAX_DEFINITION = 64 * 1024
"""Bytes of one definition in canonical form."""
MAX_DESCRIPTION = 16 * 1024
MAX_LISTING = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """One tool, as its server describes it."""

    tool: str
    raw: dict[str, Any]
    digest: str

    @property
    def description(self) -> str:
        """Foreign text."""
        return str(self.raw.get("description") or "")

    @property
    def input_schema(self) -> dict[str, Any]:
        """As the server wrote it."""
        return dict(self.raw.get("inputSchema") or {"type": "object"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What a server offers at one moment."""

    tools: Mapping[str, Definition]
    refused: Sequence[tuple[str, str]] = ()
    """Name (bounded, foreign) and why it cannot be used."""

    def blob(self) -> bytes:
        """The definitions in canonical form: what the ledger keeps."""
        return canonical({name: one.raw for name, one in sorted(self.tools.items())})

    def digests(self) -> dict[str, str]:
        """Tool -> digest of its definition."""
        return {name: one.digest for name, one in sorted(self.tools.items())}


def read_listing(given: Sequence[Any]) -> Listing:
    """Take what can be used of a server's list of tools; the rest is refused with its reason."""
    tools: dict[str, Definition] = {}
    refused: list[tuple[str, str]] = []
    names = [one.get("name") for one in given[:MAX_TOOLS] if isinstance(one, dict)]
    alike = lookalikes(name for name in names if isinstance(name, str))
    total = 0
    for one in given[:MAX_TOOLS]:
        name = one.get("name") if isinstance(one, dict) else None
        shown = str(name)[:64]
        if why := fault_of(name):
            refused.append((shown, why))
            continue
        if shown in alike:
            other = alike[shown]
            why = "it is there twice" if other == shown else f"it could be taken for {other[:64]!r}"
            refused.append((shown, why))
            continue
        found = _definition(one)
        if isinstance(found, str):
            refused.append((shown, found))
            continue
        total += len(canonical(found.raw))
        if total > MAX_LISTING:
            refused.append((shown, f"the list is larger than {MAX_LISTING} bytes"))
            continue
        tools[found.tool] = found
    if len(given) > MAX_TOOLS:
        refused.append(
            ("…", f"{len(given) - MAX_TOOLS} more; at most {MAX_TOOLS} tools of a server are read")
        )
    return Listing(tools=tools, refused=tuple(refused))


def read_definition(raw: dict[str, Any]) -> Definition:
    """A definition that was taken before, from the ledger."""
    return Definition(tool=str(raw["name"]), raw=raw, digest=blob_digest(canonical(raw)))


def _definition(one: dict[str, Any]) -> Definition | str:  # noqa: PLR0911 (one reason each)
    """The definition, or why it is refused."""
    raw = {key: value for key, value in one.items() if key != "_meta"}
    try:
        size = len(canonical(raw))
    except RunloopError as error:
        return f"its definition cannot be kept: {error.message[:120]}"
    if size > MAX_DEFINITION:
        return f"its definition has {size} bytes; at most {MAX_DEFINITION} are read"
    for key in ("description", "title"):
        if raw.get(key) is not None and not isinstance(raw[key], str):
            return f"its {key} is no text"
    if len(raw.get("description") or "") > MAX_DESCRIPTION:
        return f"its description is longer than {MAX_DESCRIPTION} characters"
    schema = raw.get("inputSchema")
    if not isinstance(schema, dict):
        return "it does not say what arguments it takes"
    if raw.get("outputSchema") is not None and not isinstance(raw["outputSchema"], dict):
        return "its outputSchema is no schema"
    return read_definition(raw)


# --- resources and prompts: tools of ours with fixed definitions -----------------------------------


def _own(name: str, description: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"name": name, "description": description, "inputSchema": schema}


_TEXT = {"type": "string", "minLength": 1, "maxLength": 4_096}
_RESOURCES = (
    _own("resources.list", "Lists the resources and resource templates of this server.", {}, []),
    _own("resources.read", "Reads one resource of this server by its URI.", {"uri": _TEXT}, ["uri"]),
)
_PROMPTS = (
    _own("prompts.list", "Lists the prompts of this server.", {}, []),
    _own(
        "prompts.get",
        "Gets one prompt of this server, filled with arguments.",
        {"name": _TEXT, "arguments": {"type": "object", "additionalProperties": {"type": "string"}}},
        ["name"],
    ),
)


def own_definitions(*, resources: bool, prompts: bool) -> dict[str, Definition]:
    """The tools under which a server's resources and prompts are reached, if it has any."""
    given = (_RESOURCES if resources else ()) + (_PROMPTS if prompts else ())
    return {one["name"]: read_definition(one) for one in given}


# --- what arguments are judged by -------------------------------------------------------------------

_KNOWN = frozenset(
    {
        *("type", "enum", "const", "required", "additionalProperties", "items", "properties", "anyOf"),
        *("allOf", "oneOf", "not", "$ref", "$defs", "definitions", "title", "description"),
        *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "uniqueItems", "default", "format"),
    }
)


def accepting(schema: dict[str, Any]) -> tuple[dict[str, Any], Schema]:
    """What the arguments of a foreign tool are judged by before they leave, as JSON and ready for use.

    The keywords that can be evaluated safely are kept; others are left to the server, which checks its own.
    A schema that cannot be read at all accepts any object.
    """
    findings: list[str] = []
    kept = {**_loosened(schema, schemas=False), "type": "object"}
    made = read_schema(kept, findings)
    if not findings:
        return kept, made
    return {"type": "object"}, read_schema({"type": "object"}, [])


def _loosened(node: Any, *, schemas: bool) -> Any:
    """``node`` without keywords that are not evaluated; ``schemas``: its members are names, not keywords."""
    if isinstance(node, list):
        return [_loosened(item, schemas=False) for item in node]
    if not isinstance(node, dict):
        return node
    if schemas:
        return {name: _loosened(item, schemas=False) for name, item in node.items()}
    kept: dict[str, Any] = {}
    for key, value in node.items():
        if key not in _KNOWN or (key == "type" and isinstance(value, str) and value not in TYPES):
            continue
        if key in ("enum", "const", "default", "required"):
            kept[key] = value
        else:
            kept[key] = _loosened(value, schemas=key in ("properties", "$defs", "definitions"))
    return kept


# --- showing ----------------------------------------------------------------------------------------


def pretty(raw: Mapping[str, Any]) -> list[str]:
    """A definition as lines, every field on its own; foreign text stands inside JSON."""
    text = orjson.dumps(dict(raw), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
    return text.splitlines()


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two definitions, as lines of a unified diff without a header."""
    lines = difflib.unified_diff(pretty(before), pretty(after), "approved", "now", lineterm="", n=2)
    return list(lines)[:2_000]
