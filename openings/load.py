"""Reading an opening from YAML: everything that is wrong, at once, each with its line and column.

Knows: the keys and types of the language, which node an edge names, where openings are found. Does not know:
YAML (``source``), the installed agents and their ports (``validate``).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

from openings.definition import (
    Edge,
    Node,
    Opening,
    Param,
    Place,
    Policy,
    PortType,
    Retry,
    Success,
    template_params,
)
from openings.errors import Finding, OpeningError
from openings.expressions import Condition, ExpressionError, Ref, json_type
from openings.source import MAX_BYTES, Desk, compose, suggest
from openings.table import Table
from runloop.digest import MAX_SAFE
from runloop.errors import NotFoundError

__all__ = ["MAX_BYTES", "Reading", "catalogue", "find", "load", "parse", "read", "read_text"]

MAX_NODES = 500
MAX_MS = 366 * 24 * 3600 * 1000
"""A year: the longest duration an opening may name."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_USE = re.compile(r"agent:[a-z][a-z0-9_]{0,63}(@[A-Za-z0-9][A-Za-z0-9._+-]{0,63})?\Z")
_NESTED = re.compile(r"opening:[a-z][a-z0-9_]{0,63}\Z")
_TYPES: tuple[str, ...] = ("any", "string", "number", "boolean", "object", "list")

T = TypeVar("T")


class Reading(NamedTuple):
    """What a text says, as far as it can be understood."""

    opening: Opening | None
    """Without what is wrong; None when the text is no mapping at all."""
    findings: tuple[Finding, ...]
    """What is wrong with the language; empty means that ``opening`` is whole."""
    lost_edges: tuple[Ref | None, ...] = ()
    """Where the edges that were left out would have led; None for one that does not say."""


def load(source: str, *, name: str = "<opening>") -> Opening:
    """Read an opening. ``name`` is what messages call the text, usually a path.

    Raises :class:`OpeningError` with every finding.
    """
    reading = parse(source, name=name)
    if reading.findings or reading.opening is None:
        raise OpeningError(reading.findings)
    return reading.opening


def parse(source: str, *, name: str = "<opening>") -> Reading:
    """Read as much of an opening as there is: what is wrong in one line hides nothing in the others."""
    desk = Desk(file=name)
    tree = compose(source, desk)
    opening = _opening(tree, desk) if isinstance(tree, dict) else None
    return Reading(opening, tuple(desk.findings), tuple(desk.lost_edges))


def read(path: Path, *, name: str | None = None) -> Opening:
    """Read an opening from a file. Raises :class:`OpeningError`, :class:`NotFoundError`."""
    return load(read_text(path), name=name or str(path))


def read_text(path: Path) -> str:
    """The text of an opening's file. Raises :class:`OpeningError` when it is too large or not UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise NotFoundError(
            f"cannot read {path}: {error.strerror or error}", hint="check the path", code="opening.not_found"
        ) from error
    try:
        return data.decode("utf-8") if len(data) <= MAX_BYTES else " " * len(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OpeningError(
            [
                Finding(
                    code="opening.encoding",
                    what="the file is not UTF-8",
                    why=f"byte {error.start} does not decode",
                    fix="save it as UTF-8",
                    file=str(path),
                    line=line,
                    column=1,
                )
            ]
        ) from error


def find(name_or_path: str, dirs: Sequence[Path]) -> Path:
    """The file of an opening: a path (with a slash or a YAML suffix), or a name looked up in ``dirs``.

    Raises :class:`NotFoundError` with a suggestion.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if path.is_file():
            return path
        raise NotFoundError(
            f"there is no opening at {name_or_path}", hint="check the path", code="opening.not_found"
        )
    known = catalogue(dirs)
    if name_or_path in known:
        return known[name_or_path]
    close = difflib.get_close_matches(name_or_path, known, n=1)
    raise NotFoundError(
        f"there is no opening called {name_or_path!r}",
        hint=f"did you mean {close[0]}?" if close else "'rlp list' shows the openings there are",
        code="opening.not_found",
        known=sorted(known),
    )


def catalogue(dirs: Sequence[Path]) -> dict[str, Path]:
    """Name -> file of every opening in ``dirs``; where a name occurs twice, the earlier directory wins."""
    found: dict[str, Path] = {}
    for folder in dirs:
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            if path.suffix in {".yaml", ".yml"} and _NAME.match(path.stem) and path.is_file():
                found.setdefault(path.stem, path)
    return found


# --- the language ---------------------------------------------------------------------------------

_TOP = ("version", "name", "goals", "params", "policy", "nodes", "edges", "success", "artifacts")
_NODE = (
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
_RETRY = ("max_attempts", "backoff_ms", "initial_ms", "max_ms", "multiplier", "jitter")
_PARAM_KEYS = ("type", "required", "default", "description")
_MODES: tuple[Literal["any_of", "all_of"], ...] = ("any_of", "all_of")
_POLICY = ("budget_tokens", "budget_usd", "timeout_ms", "confirm_external")


def _opening(value: dict[str, Any], desk: Desk) -> Opening:
    top = Table(value, (), desk, "the opening", _TOP)
    if top.need("version", "write 'version: 0'") and (value["version"] != 0 or value["version"] is False):
        desk.say(
            ("version",),
            "version",
            f"version {value['version']!r} is not known",
            "this build reads version 0",
            "write 'version: 0', or upgrade runloop",
        )
    name = top.text("name") if top.need("name", "give it a name") else ""
    if name and not _NAME.match(name):
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
    opening = Opening(
        name=name,
        goals=top.texts("goals"),
        params=params,
        policy=_policy(top),
        nodes=tuple(nodes),
        edges=tuple(_edges(top, known)),
        success=_success(top, known),
        save=tuple(_saves(top, known)),
        origin=desk.origin(),
    )
    _templates(opening, value, desk)
    return opening


def _params(top: Table) -> dict[str, Param]:
    made: dict[str, Param] = {}
    for name, value in top.mapping("params").items():
        place: Place = ("params", name)
        if not _NAME.match(name):
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
    table = Table(value, place, desk, "the parameter", _PARAM_KEYS)
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
    table = Table(top.value["policy"], ("policy",), top.desk, "the policy", _POLICY)
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
    table = Table(value, place, desk, "the node", _NODE)
    name = table.text("id") if table.need("id", "give it an id") else ""
    if name and not _NAME.match(name):
        desk.say(
            table.at("id"),
            "name",
            f"{name!r} is not an id",
            "ids are lower-case letters, digits and underscores, starting with a letter",
            "rename it",
        )
    use = table.text("use") if table.need("use", "say who serves it: 'use: agent:<name>'") else ""
    if use and _NESTED.match(use):
        desk.say(
            table.at("use"),
            "unsupported",
            "an opening inside an opening is not served by this build",
            "only agents are",
            "copy its nodes here",
        )
    elif use and not _USE.match(use):
        fix = (
            f"write 'agent:{use}'" if _NAME.match(use) else "write 'agent:<name>' or 'agent:<name>@<version>'"
        )
        desk.say(table.at("use"), "use", f"{use!r} names no agent", "the form is not known", fix)
    if table.has("for_each"):
        desk.say(
            table.at("for_each"),
            "unsupported",
            "for_each is not served by this build",
            "a node runs once",
            "give the whole list to one agent",
            key=True,
        )
    return Node(
        id=name,
        use=use,
        with_=table.mapping("with"),
        schema_hints=table.mapping("schema_hints"),
        retry=_retry(table),
        timeout_ms=table.integer("timeout_ms", 1, MAX_MS, None),
        budget_tokens=table.integer("budget_tokens", 0, MAX_SAFE, None),
        tags=table.texts("tags"),
    )


def _retry(node: Table) -> Retry:
    """``backoff_ms`` is the same wait before each attempt, ``initial_ms`` the first of a growing one."""
    if node.value.get("retry") is None:
        return Retry()
    table = Table(node.value["retry"], node.at("retry"), node.desk, "retry", _RETRY)
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


def _edges(top: Table, known: set[str]) -> list[Edge]:
    edges: list[Edge] = []
    first: dict[str, int] = {}
    for index, item in enumerate(top.items("edges")):
        place: Place = ("edges", index)
        edge = _edge(item, place, top.desk, known)
        if edge is None:
            continue
        if str(edge) in first:
            line = top.desk.places[("edges", first[str(edge)])][0]
            top.desk.say(
                place,
                "duplicate",
                f"the edge {edge} occurs twice",
                f"it is also in line {line}",
                "remove one",
            )
            continue
        first[str(edge)] = index
        top.desk.subjects[f"edge:{edge}"] = place
        edges.append(edge)
    return edges


def _edge(value: Any, place: Place, desk: Desk, known: set[str]) -> Edge | None:
    table = Table(value, place, desk, "the edge", ("from", "to"))
    has_from = table.need("from", "write 'from: <node>.<port>'")
    has_to = table.need("to", "write 'to: <node>.<port>'")
    start = (
        _parse(desk, table.at("from"), table.text("from"), desk.parser.endpoint)
        if has_from and isinstance(table.value["from"], str)
        else None
    )
    if has_from and not isinstance(table.value["from"], str):
        table.text("from")
    end = _target(table, desk) if has_to else None
    target = end
    if start is not None and not _known(desk, table.at("from"), start[0].node, known):
        start = None
    if end is not None and not _known(desk, table.at("to"), end.node, known):
        end = None
    if start is None or end is None:
        desk.lost_edges.append(target)
        return None
    ref, op, literal = start
    if op is None and len(ref.path) > 1:
        desk.lost_edges.append(target)
        desk.say(
            table.at("from"),
            "edge",
            f"'{ref}' looks into a value",
            "data flows in whole ports; only a comparison may look inside",
            f"write '{ref.node}.{ref.path[0]}', or compare it with something",
        )
        return None
    return Edge(source=ref, node=end.node, port=end.path[0], op=op, literal=literal)


def _target(table: Table, desk: Desk) -> Ref | None:
    value = table.value["to"]
    if not isinstance(value, str):
        table.text("to")
        return None
    found = _parse(desk, table.at("to"), value, desk.parser.endpoint)
    if found is None:
        return None
    ref, op, _ = found
    if op is not None or len(ref.path) != 1:
        desk.say(
            table.at("to"),
            "edge",
            f"an edge leads to a port, not to '{value}'",
            "comparisons belong into 'from'",
            f"write '{ref.node}.{ref.path[0]}'",
        )
        return None
    return ref


def _known(desk: Desk, place: Place, node: str, known: set[str]) -> bool:
    if node in known:
        return True
    desk.say(
        place,
        "unknown_node",
        f"there is no node '{node}'",
        "it is not declared",
        suggest(node, sorted(known)),
    )
    return False


def _parse(desk: Desk, place: Place, text: str, parse: Callable[[str], T]) -> T | None:
    try:
        return parse(text)
    except ExpressionError as error:
        desk.say(
            place,
            "expression",
            f"'{text if len(text) <= 80 else text[:80] + '…'}' is not understood",
            error.why,
            error.hint or "correct it",
            shift=error.column - 1 if "\n" not in text else 0,
        )
        return None


def _success(top: Table, known: set[str]) -> Success | None:
    if top.value.get("success") is None:
        return None
    table = Table(top.value["success"], ("success",), top.desk, "success", ("any_of", "all_of"))
    if not table.sound:
        return None
    modes = [mode for mode in _MODES if table.has(mode)]
    if len(modes) != 1:
        top.desk.say(
            ("success",),
            "success",
            "success has one of any_of and all_of",
            "both are here" if modes else "neither is here",
            "remove one" if modes else "write 'any_of:' and its clauses",
        )
        return None
    mode = modes[0]
    if not table.items(mode):
        top.desk.say(
            ("success", mode), "success", f"{mode} is empty", "nothing could ever hold", "write a clause"
        )
    clauses: list[Condition] = []
    for index, text in enumerate(table.texts(mode)):
        place: Place = ("success", mode, index)
        clause = _parse(top.desk, place, text, top.desk.parser.condition)
        if clause is not None and _known(top.desk, place, clause.ref.node, known):
            top.desk.subjects[f"clause:{clause}"] = place
            clauses.append(clause)
    return Success(mode=mode, clauses=tuple(clauses))


def _saves(top: Table, known: set[str]) -> list[Ref]:
    if top.value.get("artifacts") is None:
        return []
    table = Table(top.value["artifacts"], ("artifacts",), top.desk, "artifacts", ("save",))
    saves: list[Ref] = []
    for index, text in enumerate(table.texts("save")):
        place: Place = ("artifacts", "save", index)
        found = _parse(top.desk, place, text, top.desk.parser.endpoint)
        if found is None or not _known(top.desk, place, found[0].node, known):
            continue
        if found[1] is not None or len(found[0].path) != 1:
            top.desk.say(
                place, "artifact", f"'{text}' is not a port", "whole ports are saved", "write '<node>.<port>'"
            )
            continue
        saves.append(found[0])
    return saves


def _templates(opening: Opening, value: dict[str, Any], desk: Desk) -> None:
    """Templates may name declared parameters and nothing else, and stand in ``with`` only."""
    for index, item in enumerate(value["nodes"] if isinstance(value.get("nodes"), list) else []):
        given = item.get("with") if isinstance(item, dict) else None
        for place, text, param in template_params(given or {}, ("nodes", index, "with")):
            if param is None:
                desk.say(
                    place,
                    "template",
                    f"{text} is not a template",
                    "only {{params.<name>}} is put in",
                    "name a parameter",
                )
            elif param not in opening.params:
                desk.say(
                    place,
                    "unknown_param",
                    f"{text} names no parameter",
                    f"'{param}' is not declared under params",
                    suggest(param, opening.params),
                )
