"""The keys of an opening, read from plain data with places: its parameters, limits and nodes.

Knows: every key of the language with its type and range. Does not know: the syntax the data was written in
(``source``, ``brace``), what edges and clauses say (``edges``), the installed agents (``wiring``).
"""

from __future__ import annotations

import re
from typing import Any, cast, get_args

from openings import edges as edges_
from openings.definition import ForEach, Node, Opening, Param, Place, Policy, PortType, Retry
from openings.expressions import json_type
from openings.source import Desk, suggest
from openings.table import Table
from runloop.digest import MAX_SAFE

__all__ = ["FOR_EACH", "MAX_MS", "MAX_NODES", "NAME", "NODE", "PARAM", "POLICY", "RETRY", "TOP", "opening"]

MAX_NODES = 10_000
MAX_MS = 366 * 24 * 3600 * 1000
"""A year: the longest duration an opening may name."""
MAX_CONCURRENCY = 256
"""Items of a mapped node that are tried at a time."""

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_USE = re.compile(r"agent:[a-z][a-z0-9_]{0,63}(@[A-Za-z0-9][A-Za-z0-9._+-]{0,63})?\Z")
_NESTED = re.compile(r"opening:[a-z][a-z0-9_]{0,63}\Z")
_TYPES: tuple[str, ...] = get_args(PortType)

TOP = ("version", "name", "goals", "params", "policy", "nodes", "edges", "success", "artifacts")
NODE = (
    "id",
    "use",
    "with",
    "schema_hints",
    "retry",
    "timeout_ms",
    "budget_tokens",
    "tags",
    "for_each",
)
RETRY = ("max_attempts", "backoff_ms", "initial_ms", "max_ms", "multiplier", "jitter")
FOR_EACH = ("port", "concurrency", "max_failed")
PARAM = ("type", "required", "default", "description")
POLICY = ("budget_tokens", "budget_usd", "ask_micro_usd", "timeout_ms", "confirm_external")


def opening(value: dict[str, Any], desk: Desk) -> Opening:
    """The opening, without what is wrong in it; the findings are on the desk."""
    top = Table(value, (), desk, "the opening", TOP)
    if top.need("version", "write 'version: 0'") and (value["version"] != 0 or value["version"] is False):
        desk.say(
            ("version",),
            "version",
            f"version {value['version']!r} is not known",
            "this build reads version 0",
            "write 'version: 0', or upgrade runloop",
        )
    name = top.text("name") if top.need("name", "give it a name") else ""
    if name and not NAME.match(name):
        desk.say(
            ("name",),
            "name",
            f"{name!r} is not a name",
            "names are lower-case letters, digits and underscores, starting with a letter",
            "rename it",
        )
    params = _params(top)
    nodes = _nodes(top)
    known = {node.id for node in nodes}
    made = Opening(
        name=name,
        goals=top.texts("goals"),
        params=params,
        policy=_policy(top),
        nodes=tuple(nodes),
        edges=tuple(edges_.edges(top, known)),
        success=edges_.success(top, known),
        save=tuple(edges_.saves(top, known)),
        origin=desk.origin(),
    )
    edges_.templates(made, value, desk)
    return made


def _params(top: Table) -> dict[str, Param]:
    made: dict[str, Param] = {}
    for name, value in top.mapping("params").items():
        place: Place = ("params", name)
        if not NAME.match(name):
            top.desk.say(
                place,
                "name",
                f"{name!r} is not a name of a parameter",
                "names are lower-case letters, digits and underscores, starting with a letter",
                "rename it",
                key=True,
            )
            continue
        made[name] = _param(value, place, top.desk)
    return made


def _param(value: Any, place: Place, desk: Desk) -> Param:
    """A mapping declares; any other value is the default; nothing at all: any value, required."""
    if value is None:
        return Param()
    if not isinstance(value, dict):
        return Param(type=cast(PortType, json_type(value)), required=False, default=value)
    table = Table(value, place, desk, "the parameter", PARAM)
    type_ = table.text("type", "any")
    if type_ not in _TYPES:
        desk.say(table.at("type"), "type", f"unknown type '{type_}'", "there are six", suggest(type_, _TYPES))
        type_ = "any"
    default = value.get("default")
    if default is not None and type_ not in ("any", json_type(default)):
        desk.say(
            table.at("default"),
            "type",
            f"the default is a {json_type(default)}",
            f"the parameter is a {type_}",
            "change one of them",
        )
    return Param(
        type=cast(PortType, type_),
        required=table.boolean("required", "default" not in value),
        default=default,
        description=table.text("description"),
    )


def _policy(top: Table) -> Policy:
    if not top.has("policy") or top.value["policy"] is None:
        return Policy()
    table = Table(top.value["policy"], ("policy",), top.desk, "the policy", POLICY)
    usd = table.number("budget_usd", 0, 1_000_000, None)
    if not table.boolean("confirm_external", True):
        top.desk.say(
            ("policy", "confirm_external"),
            "confirm",
            "an opening cannot switch confirmation off",
            "every send, delete and spend needs a person, whatever agent does it",
            "remove the line; standing grants are the operator's to give",
        )
    return Policy(
        budget_tokens=table.integer("budget_tokens", 0, MAX_SAFE, None),
        budget_micro_usd=None if usd is None else round(usd * 1_000_000),
        ask_micro_usd=table.integer("ask_micro_usd", 0, 10**12, None),
        timeout_ms=table.integer("timeout_ms", 1, MAX_MS, None),
    )


def _nodes(top: Table) -> list[Node]:
    if not top.need("nodes", "declare at least one node"):
        return []
    items = top.items("nodes")
    if not items and isinstance(top.value["nodes"], list | None):
        top.desk.say(("nodes",), "missing", "there is no node", "an opening has at least one", "declare one")
    if len(items) > MAX_NODES:
        top.desk.say(
            ("nodes",),
            "size",
            f"{len(items)} nodes are too many",
            f"at most {MAX_NODES}",
            "split the opening",
        )
        return []
    nodes: list[Node] = []
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        node = _one_node(item, ("nodes", index), top.desk)
        if node.id in first:
            line = top.desk.places.get(("nodes", first[node.id], "id"), (0, 0))[0]
            top.desk.say(
                ("nodes", index, "id"),
                "duplicate",
                f"the node '{node.id}' is declared twice",
                f"it is also in line {line}",
                "rename one",
            )
            continue
        if node.id:
            top.desk.subjects[f"node:{node.id}"] = ("nodes", index)
            first[node.id] = index
            nodes.append(node)
    return nodes


def _one_node(value: Any, place: Place, desk: Desk) -> Node:
    table = Table(value, place, desk, "the node", NODE)
    name = table.text("id") if table.need("id", "give it an id") else ""
    if name and not NAME.match(name):
        desk.say(
            table.at("id"),
            "name",
            f"{name!r} is not an id",
            "ids are lower-case letters, digits and underscores, starting with a letter",
            "rename it",
        )
    use = table.text("use") if table.need("use", "say who serves it: 'use: agent:<name>'") else ""
    if use and not _USE.match(use) and not _NESTED.match(use):
        fix = (
            f"write 'agent:{use}'" if NAME.match(use) else "write 'agent:<name>' or 'agent:<name>@<version>'"
        )
        desk.say(table.at("use"), "use", f"{use!r} names no agent", "the form is not known", fix)
    return Node(
        id=name,
        use=use,
        with_=table.mapping("with"),
        schema_hints=table.mapping("schema_hints"),
        retry=_retry(table),
        timeout_ms=table.integer("timeout_ms", 1, MAX_MS, None),
        budget_tokens=table.integer("budget_tokens", 0, MAX_SAFE, None),
        tags=table.texts("tags"),
        for_each=_for_each(table),
    )


def _for_each(node: Table) -> ForEach | None:
    """A mapping, or just the name of the port."""
    given = node.value.get("for_each")
    if given is None:
        return None
    if isinstance(given, str):
        given, place = {"port": given}, node.at("for_each")
        node.desk.places[(*place, "port")] = node.desk.origin().find(place)
    table = Table(given, node.at("for_each"), node.desk, "for_each", FOR_EACH)
    port = table.text("port") if table.need("port", "write 'port: <input>'") else ""
    if not port:
        if table.value.get("port") == "":
            table.wrong("port", "the name of an input", "name the input that gets the list")
        return None
    return ForEach(
        port=port,
        concurrency=table.integer("concurrency", 1, MAX_CONCURRENCY, 8),
        max_failed=table.integer("max_failed", 0, MAX_SAFE, 0),
    )


def _retry(node: Table) -> Retry:
    """``backoff_ms`` is the same wait before each attempt, ``initial_ms`` the first of a growing one."""
    if node.value.get("retry") is None:
        return Retry()
    table = Table(node.value["retry"], node.at("retry"), node.desk, "retry", RETRY)
    grows = table.has("initial_ms")
    if grows and table.has("backoff_ms"):
        node.desk.say(
            table.at("backoff_ms"),
            "retry",
            "backoff_ms and initial_ms exclude each other",
            "one is a constant wait, the other the first of a growing one",
            "remove one",
            key=True,
        )
    initial = table.integer("initial_ms" if grows else "backoff_ms", 0, MAX_MS, 0)
    return Retry(
        max_attempts=table.integer("max_attempts", 1, 100, 1),
        initial_ms=initial,
        max_ms=table.integer("max_ms", 0, MAX_MS, max(60_000, initial)),
        multiplier=table.number("multiplier", 1, 100, 2 if grows else 1),
        jitter=table.number("jitter", 0, 1, 0.1),
    )
