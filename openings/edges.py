"""Edges, success clauses, saved ports and templates: whatever in an opening names something else in it.

Knows: the two forms of an expression in an edge, which node an edge names, which parameter a template names.
Does not know: the other keys (``keys``), or whether an agent has such a port (``wiring``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from openings.definition import Edge, Opening, Place, Success
from openings.expressions import Condition, ExpressionError, Ref
from openings.source import Desk, suggest
from openings.table import Table
from openings.template import template_params

__all__ = ["ARTIFACTS", "EDGE", "MODES", "edges", "saves", "success", "templates"]

EDGE = ("from", "to")
MODES: tuple[Literal["any_of", "all_of"], ...] = ("any_of", "all_of")
ARTIFACTS = ("save",)

T = TypeVar("T")


def edges(top: Table, known: set[str]) -> list[Edge]:
    """Every edge that can be used; of the others the desk keeps where they would have led."""
    made: list[Edge] = []
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
        made.append(edge)
    return made


def _edge(value: Any, place: Place, desk: Desk, known: set[str]) -> Edge | None:
    table = Table(value, place, desk, "the edge", EDGE)
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
    if desk.full:
        return False
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


def success(top: Table, known: set[str]) -> Success | None:
    """The success clauses; None where there are none."""
    if top.value.get("success") is None:
        return None
    table = Table(top.value["success"], ("success",), top.desk, "success", MODES)
    if not table.sound:
        return None
    modes = [mode for mode in MODES if table.has(mode)]
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


def saves(top: Table, known: set[str]) -> list[Ref]:
    """The ports that are kept."""
    if top.value.get("artifacts") is None:
        return []
    table = Table(top.value["artifacts"], ("artifacts",), top.desk, "artifacts", ARTIFACTS)
    made: list[Ref] = []
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
        made.append(found[0])
    return made


def templates(opening: Opening, value: dict[str, Any], desk: Desk) -> None:
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
