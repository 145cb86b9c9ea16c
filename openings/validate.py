"""Does an opening make sense together with the installed agents and the given parameters?

Knows: ports and their types, cycles, parameters. Does not know: manifests or registries; port tables are
handed in per ``use`` string. Nothing here has an effect: a mistake found here has cost nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from openings.definition import Edge, Node, Opening, Param, Place, PortSpec, PortTable, template_params
from openings.errors import Finding, OpeningError
from openings.expressions import Compare, Ref, json_type
from openings.load import Reading
from openings.source import suggest
from runloop.digest import canonical
from runloop.errors import UsageError

__all__ = ["bind", "check", "complete", "findings"]

_SLOT = re.compile(r"\{([a-z][a-z0-9_]{0,63})\}")

UNKNOWN = PortSpec()
"""What is assumed of a port whose agent is not known: one finding per cause is enough."""


def check(
    reading: Reading | Opening,
    ports: Mapping[str, PortTable],
    params: Mapping[str, Any] | None = None,
    *,
    installed: Iterable[str] = (),
) -> dict[str, Any]:
    """The complete parameters of a run, defaults filled in.

    ``ports`` maps each node's ``use`` to the ports of the agent it resolves to; an agent that is not in it is
    not installed. ``installed`` are the references there are, to suggest from. Raises :class:`OpeningError`
    with every finding when anything is wrong, in the text itself too where a :class:`Reading` is given.
    """
    given = params or {}
    found = findings(reading, ports, given, installed=installed)
    opening = reading.opening if isinstance(reading, Reading) else reading
    if opening is None or any(finding.severity == "error" for finding in found):
        raise OpeningError(found)
    return complete(opening, given)


def findings(
    reading: Reading | Opening,
    ports: Mapping[str, PortTable],
    params: Mapping[str, Any] | None = None,
    *,
    installed: Iterable[str] = (),
) -> list[Finding]:
    """Everything that is wrong, and warnings. ``params`` None: the parameters are not judged.

    One cause is told once: what follows from a line that could not be read is left out.
    """
    if isinstance(reading, Opening):
        reading = Reading(reading, ())
    opening = reading.opening
    if opening is None:
        return list(reading.findings)
    found = [
        *_agents(opening, ports, installed),
        *_edges(opening, ports),
        *_required(opening, ports, reading.lost_edges),
        *_references(opening, ports),
        *_cycles(opening),
        *_unused(opening),
    ]
    told = {(finding.line, finding.column) for finding in reading.findings}
    found = [finding for finding in found if (finding.line, finding.column) not in told]
    judged = [] if params is None else _given(opening, params)
    return [*reading.findings, *found, *judged]


def bind(opening: Opening, ports: Mapping[str, PortTable]) -> Opening:
    """The opening with each node's required inputs written in: a run needs no manifest to be replayed.

    Without it the engine takes every connected port for required: a join whose optional branch was skipped
    would not run.
    """
    return replace(
        opening,
        nodes=tuple(
            replace(
                node,
                requires=tuple(sorted(name for name, spec in ports[node.use].in_.items() if spec.required)),
            )
            if node.use in ports
            else node
            for node in opening.nodes
        ),
    )


def complete(opening: Opening, params: Mapping[str, Any]) -> dict[str, Any]:
    """Given parameters and defaults, one value per declared parameter; text is read as the declared type."""
    return {
        name: _value(param, params[name]) if name in params else param.default
        for name, param in opening.params.items()
    }


def _value(param: Param, given: Any) -> Any:
    """A value from a command line is text: read as JSON where the parameter is declared otherwise."""
    if not isinstance(given, str) or param.type in ("any", "string"):
        return given
    try:
        read = json.loads(given)
    except (ValueError, RecursionError):
        return given
    return read if json_type(read) == param.type else given


# --- findings -------------------------------------------------------------------------------------


def _finding(
    opening: Opening, place: Place, code: str, what: str, why: str, fix: str, *, warning: bool = False
) -> Finding:
    line, column = opening.origin.find(place)
    return Finding(
        code=f"opening.{code}",
        what=what,
        why=why,
        fix=fix,
        file=opening.origin.file,
        line=line,
        column=column,
        severity="warning" if warning else "error",
    )


def _place(opening: Opening, node: Node, key: str) -> Place:
    return (*opening.origin.subject("node", node.id), key)


def _agents(opening: Opening, ports: Mapping[str, PortTable], installed: Iterable[str]) -> Iterator[Finding]:
    missing = [node for node in opening.nodes if node.use not in ports]
    # Read only where something is missing: to know every agent there is, all their files are looked at.
    known = sorted({use.removeprefix("agent:") for use in (*ports, *installed)}) if missing else []
    for node in missing:
        name = node.use.removeprefix("agent:")
        yield _finding(
            opening,
            _place(opening, node, "use"),
            "unknown_agent",
            f"there is no agent '{name}'",
            "it is not installed, or not in that variant or version",
            suggest(name, known) if known else "'rlp list' shows the agents there are",
        )


def _output(opening: Opening, ports: Mapping[str, PortTable], ref: Ref) -> PortSpec | None:
    """The port a reference reads, as far as its type is known; None when there is no such port."""
    node = opening.node(ref.node)
    if node is None or node.use not in ports:
        return UNKNOWN
    out = ports[node.use].out
    if ref.path[0] in out:
        spec = out[ref.path[0]]
        if len(ref.path) == 1:
            return spec
        return UNKNOWN if spec.type in ("any", "object") else None
    # state.RunState.values: a field of the port that is called like the node itself
    own = out.get(ref.node)
    return UNKNOWN if own is not None and own.type in ("any", "object") else None


def _no_output(opening: Opening, ports: Mapping[str, PortTable], ref: Ref, place: Place) -> Finding:
    node = opening.node(ref.node)
    assert node is not None
    out = ports[node.use].out
    if ref.path[0] in out:
        return _finding(
            opening,
            place,
            "type",
            f"'{ref}' looks into a {out[ref.path[0]].type}",
            "only objects have fields",
            f"compare '{ref.node}.{ref.path[0]}' itself",
        )
    return _finding(
        opening,
        place,
        "unknown_port",
        f"'{ref.node}' has no output '{ref.path[0]}'",
        f"{node.use} gives {', '.join(sorted(out)) or 'nothing'}",
        suggest(ref.path[0], sorted(out)),
    )


def _edges(opening: Opening, ports: Mapping[str, PortTable]) -> Iterator[Finding]:
    for edge in opening.edges:
        place = opening.origin.subject("edge", str(edge))
        source = _output(opening, ports, edge.source)
        if source is None:
            yield _no_output(opening, ports, edge.source, (*place, "from"))
        elif edge.guard is not None:
            yield from _comparison(opening, edge.guard, source, (*place, "from"))
        target = opening.node(edge.node)
        if target is None or target.use not in ports:
            continue
        accepted = ports[target.use].in_.get(edge.port)
        if accepted is None:
            known = sorted(ports[target.use].in_)
            yield _finding(
                opening,
                (*place, "to"),
                "unknown_port",
                f"'{edge.node}' has no input '{edge.port}'",
                f"{target.use} takes {', '.join(known) or 'nothing'}",
                suggest(edge.port, known),
            )
        elif source is not None and not _fits(source, accepted):
            yield _misfit(opening, edge, source, accepted, place)


def _fits(source: PortSpec, accepted: PortSpec) -> bool:
    return source.type == accepted.type or "any" in (source.type, accepted.type)


def _misfit(opening: Opening, edge: Edge, source: PortSpec, accepted: PortSpec, place: Place) -> Finding:
    return _finding(
        opening,
        (*place, "to"),
        "type",
        f"{edge.source} gives a {source.type}, {edge.node}.{edge.port} takes a {accepted.type}",
        "the types do not fit",
        "connect another port, or put a node between them",
    )


def _comparison(opening: Opening, guard: Compare, port: PortSpec, place: Place) -> Iterator[Finding]:
    """A comparison that can never hold, by the declared type of its port."""
    want = json_type(guard.literal)
    if port.type == "any" or want == "null":
        return
    ordered = guard.op in {">", "<", ">=", "<="}
    if port.type != want or (ordered and want not in ("number", "string")):
        yield _finding(
            opening,
            place,
            "type",
            f"'{guard}' can never hold",
            f"{guard.ref} is a {port.type}, and is compared by {guard.op} with a {want}",
            "compare it with a value of its own type",
        )


def _required(
    opening: Opening, ports: Mapping[str, PortTable], lost: Iterable[Ref | None]
) -> Iterator[Finding]:
    def may_be_fed(node: str, port: str) -> bool:
        """Whether an edge that could not be read was meant to lead here, as far as it says."""
        return any(
            to is None or (to.path[0] == port and (to.node == node or opening.node(to.node) is None))
            for to in lost
        )

    for node in opening.nodes:
        if node.use not in ports:
            continue
        connected = {edge.port for edge in opening.inbound(node.id)}
        for name, spec in sorted(ports[node.use].in_.items()):
            if spec.required and name not in connected and not may_be_fed(node.id, name):
                yield _finding(
                    opening,
                    _place(opening, node, "id"),
                    "unconnected",
                    f"nothing leads to '{node.id}.{name}'",
                    f"{node.use} cannot start without it",
                    f"add an edge to {node.id}.{name}",
                )


def _references(opening: Opening, ports: Mapping[str, PortTable]) -> Iterator[Finding]:
    success = opening.success
    for clause in () if success is None else success.clauses:
        place = opening.origin.subject("clause", str(clause))
        port = _output(opening, ports, clause.ref)
        if port is None:
            yield _no_output(opening, ports, clause.ref, place)
        elif isinstance(clause, Compare):
            yield from _comparison(opening, clause, port, place)
    for index, ref in enumerate(opening.save):
        if _output(opening, ports, ref) is None:
            yield _no_output(opening, ports, ref, ("artifacts", "save", index))


def _cycles(opening: Opening) -> Iterator[Finding]:
    """One finding per cycle found, with its path."""
    following: dict[str, list[str]] = {node.id: [] for node in opening.nodes}
    for edge in opening.edges:
        if edge.node not in following[edge.source.node]:
            following[edge.source.node].append(edge.node)
    done: set[str] = set()
    for start, first in following.items():
        if start in done:
            continue
        path = [start]
        rest = [iter(first)]
        while path:
            after = next(rest[-1], None)
            if after is None:
                done.add(path.pop())
                rest.pop()
            elif after in path:
                yield _cycle(opening, [*path[path.index(after) :], after])
            elif after not in done:
                path.append(after)
                rest.append(iter(following[after]))


def _cycle(opening: Opening, path: list[str]) -> Finding:
    closing = next(e for e in opening.edges if e.source.node == path[-2] and e.node == path[-1])
    return _finding(
        opening,
        opening.origin.subject("edge", str(closing)),
        "cycle",
        f"the nodes wait for each other: {' -> '.join(path)}",
        "none of them could ever start",
        "remove one of these edges",
    )


def _unused(opening: Opening) -> Iterator[Finding]:
    used = {name for node in opening.nodes for _, _, name in template_params(node.with_)}
    for name in opening.params:
        if name not in used:
            yield _finding(
                opening,
                ("params", name),
                "unused_param",
                f"the parameter '{name}' is never used",
                "no node has {{params." + name + "}} in its 'with'",
                "use it or remove it",
                warning=True,
            )
    for index, goal in enumerate(opening.goals):
        for slot in _SLOT.findall(goal):
            if slot not in opening.params:
                yield _finding(
                    opening,
                    ("goals", index),
                    "unknown_param",
                    f"the slot {{{slot}}} names no parameter",
                    "the router could not fill it",
                    suggest(slot, opening.params),
                    warning=True,
                )


def _given(opening: Opening, params: Mapping[str, Any]) -> Iterator[Finding]:
    for name in params:
        if name not in opening.params:
            yield Finding(
                code="opening.unknown_param",
                what=f"there is no parameter '{name}'",
                why=f"{opening.name} has {', '.join(opening.params) or 'none'}",
                fix=suggest(name, opening.params),
                file="<parameters>",
            )
    for name, param in opening.params.items():
        if name not in params:
            if param.required:
                yield Finding(
                    code="opening.missing_param",
                    what=f"the parameter '{name}' is not given",
                    why=param.description or "it is required and has no default",
                    fix=f"add '-p {name}=…'",
                    file="<parameters>",
                )
            continue
        yield from _judged(name, param, _value(param, params[name]))


def _judged(name: str, param: Param, value: Any) -> Iterator[Finding]:
    kind = json_type(value)
    if param.type not in ("any", kind) and not (value is None and not param.required):
        yield Finding(
            code="opening.type",
            what=f"the parameter '{name}' is a {kind}",
            why=f"it is declared as {param.type}",
            fix=f"give a {param.type}",
            file="<parameters>",
        )
        return
    try:
        canonical(value)
    except UsageError as error:
        yield Finding(
            code="opening.type",
            what=f"the parameter '{name}' has no canonical form",
            why=error.message,
            fix=error.hint or "give another value",
            file="<parameters>",
        )
