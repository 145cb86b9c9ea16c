"""Do the nodes of one opening fit the agents that serve them, and each other?

Knows: ports and their types, mapped nodes, cycles, what is never used. Does not know: manifests (port tables
are handed in per ``use``), parameters that were given (``validate``), other openings (``nest``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from openings.definition import Edge, Node, Opening, Place, PortSpec, PortTable
from openings.errors import Finding
from openings.expressions import Compare, Ref, json_type
from openings.source import suggest
from openings.template import TEMPLATE, template_params

__all__ = ["by_with", "finding", "findings", "output", "spot"]

_SLOT = re.compile(r"\{([a-z][a-z0-9_]{0,63})\}")

UNKNOWN = PortSpec()
"""What is assumed of a port whose agent is not known: one finding per cause is enough."""

Ports = Mapping[str, PortTable]
"""``use`` of a node -> ports."""


def findings(
    opening: Opening,
    ports: Ports,
    lost: Iterable[Ref | None] = (),
    *,
    installed: Iterable[str] = (),
    openings: Iterable[str] = (),
    unreadable: Collection[str] = (),
) -> Iterator[Finding]:
    """Everything that does not fit, and warnings.

    ``lost``: where edges that could not be read would have led. ``installed`` and ``openings``: what there
    is, to suggest from. ``unreadable``: uses that exist and whose ports are not known.
    """
    yield from _agents(opening, ports, installed, unreadable)
    yield from _openings(opening, ports, openings, unreadable)
    yield from _edges(opening, ports)
    yield from _mapped(opening, ports)
    yield from _handed(opening, ports)
    yield from _required(opening, ports, tuple(lost))
    yield from _references(opening, ports)
    yield from _cycles(opening)
    yield from _unused(opening)


def finding(
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


def spot(opening: Opening, node: Node, key: str) -> Place:
    """Where a key of a node stands."""
    return (*opening.origin.subject("node", node.id), key)


def _agents(
    opening: Opening, ports: Ports, installed: Iterable[str], unreadable: Collection[str]
) -> Iterator[Finding]:
    missing = [
        node
        for node in opening.nodes
        if node.use and node.nests is None and node.use not in ports and node.use not in unreadable
    ]
    # Read only where something is missing: to know every agent there is, all their files are looked at.
    uses = (use for use in (*ports, *installed) if use.startswith("agent:")) if missing else ()
    known = sorted({use.removeprefix("agent:") for use in uses})
    names = sorted({name.partition("@")[0] for name in known})
    for node in missing:
        name = node.use.removeprefix("agent:")
        exact = "@" in name
        yield finding(
            opening,
            spot(opening, node, "use"),
            "unknown_agent",
            f"there is no agent '{name}'",
            "it is not installed, or not in that variant or version" if exact else "it is not installed",
            suggest(name, known if exact else names) if known else "'rlp list' shows the agents there are",
        )


def _openings(
    opening: Opening, ports: Ports, openings: Iterable[str], unreadable: Collection[str]
) -> Iterator[Finding]:
    missing = [
        (node, name)
        for node in opening.nodes
        if (name := node.nests) is not None and node.use not in ports and node.use not in unreadable
    ]
    known = sorted(set(openings) - {opening.name}) if missing else []
    for node, name in missing:
        yield finding(
            opening,
            spot(opening, node, "use"),
            "unknown_opening",
            f"there is no opening '{name}'",
            "no file of that name is where openings are looked for",
            suggest(name, known) if known else "'rlp list' shows the openings there are",
        )


def output(opening: Opening, ports: Ports, ref: Ref) -> PortSpec | None:
    """The port a reference reads, as far as its type is known; None when there is no such port.

    Of a mapped node every port holds a list: one entry for each item that succeeded.
    """
    node = opening.node(ref.node)
    if node is None or node.use not in ports:
        return UNKNOWN
    out = ports[node.use].out
    if node.for_each is not None:
        return PortSpec(type="list") if ref.path[0] in out and len(ref.path) == 1 else None
    if ref.path[0] in out:
        spec = out[ref.path[0]]
        if len(ref.path) == 1:
            return spec
        return UNKNOWN if spec.type in ("any", "object") else None
    # state.RunState.values: a field of the port that is called like the node itself
    own = out.get(ref.node)
    return UNKNOWN if own is not None and own.type in ("any", "object") else None


def _no_output(opening: Opening, ports: Ports, ref: Ref, place: Place) -> Finding:
    node = opening.node(ref.node)
    assert node is not None
    out = ports[node.use].out
    if ref.path[0] in out:
        kind = "list" if node.for_each is not None else out[ref.path[0]].type
        return finding(
            opening,
            place,
            "type",
            f"'{ref}' looks into a {kind}",
            "only objects have fields",
            f"compare '{ref.node}.{ref.path[0]}' itself",
        )
    return finding(
        opening,
        place,
        "unknown_port",
        f"'{ref.node}' has no output '{ref.path[0]}'",
        f"{node.use} gives {', '.join(sorted(out)) or 'nothing'}",
        suggest(ref.path[0], sorted(out)),
    )


def _edges(opening: Opening, ports: Ports) -> Iterator[Finding]:
    for edge in opening.edges:
        place = opening.origin.subject("edge", str(edge))
        source = output(opening, ports, edge.source)
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
            yield finding(
                opening,
                (*place, "to"),
                "unknown_port",
                f"'{edge.node}' has no input '{edge.port}'",
                f"{target.use} takes {', '.join(known) or 'nothing'}",
                suggest(edge.port, known),
            )
        elif target.for_each is not None and target.for_each.port == edge.port:
            if source is not None and source.type not in ("list", "any"):
                yield _no_list(opening, (*place, "to"), target, f"{edge.source} gives a {source.type}")
        elif source is not None and not _fits(source, accepted):
            yield _misfit(opening, edge, source, accepted, place)


def _fits(source: PortSpec, accepted: PortSpec) -> bool:
    return source.type == accepted.type or "any" in (source.type, accepted.type)


def _a(kind: str) -> str:
    """The name of a type with its article."""
    return kind if kind == "any" else f"{'an' if kind == 'object' else 'a'} {kind}"


def _misfit(opening: Opening, edge: Edge, source: PortSpec, accepted: PortSpec, place: Place) -> Finding:
    return finding(
        opening,
        (*place, "to"),
        "type",
        f"{edge.source} gives {_a(source.type)}, {edge.node}.{edge.port} takes {_a(accepted.type)}",
        "the types do not fit",
        "connect another port, or put a node between them",
    )


def _no_list(opening: Opening, place: Place, node: Node, why: str) -> Finding:
    assert node.for_each is not None
    return finding(
        opening,
        place,
        "for_each",
        f"'{node.id}' is served once for each item of a list on '{node.for_each.port}'",
        why,
        "give it a list, or remove for_each",
    )


def _mapped(opening: Opening, ports: Ports) -> Iterator[Finding]:
    """A mapped node needs a port that its agent takes and that something leads to."""
    for node in opening.nodes:
        if node.for_each is None or not node.use:
            continue
        port, place = node.for_each.port, (*spot(opening, node, "for_each"), "port")
        if node.use in ports and port not in ports[node.use].in_:
            known = sorted(ports[node.use].in_)
            yield finding(
                opening,
                place,
                "unknown_port",
                f"'{node.id}' has no input '{port}'",
                f"{node.use} takes {', '.join(known) or 'nothing'}",
                suggest(port, known),
            )
        elif port in node.with_:
            yield from _mapped_with(opening, node, port)


def _mapped_with(opening: Opening, node: Node, port: str) -> Iterator[Finding]:
    """A list that is written under ``with``, or a parameter that is one."""
    kind = _kind_of(opening, node.with_[port])
    if kind not in ("list", "any"):
        yield _no_list(opening, (*spot(opening, node, "with"), port), node, f"this is a {kind}")


def _kind_of(opening: Opening, value: object) -> str:
    """Type of a value under ``with``: of a template that is all of it, the parameter's."""
    if isinstance(value, str) and TEMPLATE.fullmatch(value) is not None:
        ((_, _, name),) = template_params(value)
        return opening.params[name].type if name is not None and name in opening.params else "any"
    return json_type(value)


def _handed(opening: Opening, ports: Ports) -> Iterator[Finding]:
    """What ``with`` hands to a nested opening are its parameters."""
    for node in opening.nodes:
        if node.nests is None or node.use not in ports:
            continue
        accepted = ports[node.use].in_
        for name, value in node.with_.items():
            place = (*spot(opening, node, "with"), name)
            if name not in accepted:
                yield finding(
                    opening,
                    place,
                    "unknown_param",
                    f"'{node.nests}' has no parameter '{name}'",
                    f"it has {', '.join(sorted(accepted)) or 'none'}",
                    suggest(name, sorted(accepted)),
                )
                continue
            kind, want = _kind_of(opening, value), accepted[name].type
            mapped = node.for_each is not None and node.for_each.port == name
            if (
                mapped
                or "any" in (kind, want)
                or kind == want
                or (value is None and not accepted[name].required)
            ):
                continue
            yield finding(
                opening,
                place,
                "type",
                f"the parameter '{name}' of '{node.nests}' is a {want}",
                f"this is a {kind}",
                f"give a {want}",
            )


def _comparison(opening: Opening, guard: Compare, port: PortSpec, place: Place) -> Iterator[Finding]:
    """A comparison that can never hold, by the declared type of its port."""
    want = json_type(guard.literal)
    if port.type == "any" or want == "null":
        return
    ordered = guard.op in {">", "<", ">=", "<="}
    if port.type != want or (ordered and want not in ("number", "string")):
        yield finding(
            opening,
            place,
            "type",
            f"'{guard}' can never hold",
            f"{guard.ref} is a {port.type}, and is compared by {guard.op} with a {want}",
            "compare it with a value of its own type",
        )


def by_with(node: Node) -> set[str]:
    """Inputs that ``with`` holds a value for: a nested opening's parameters, and the list that is mapped."""
    if node.nests is not None:
        return set(node.with_)
    return {node.for_each.port} & set(node.with_) if node.for_each is not None else set()


def _required(opening: Opening, ports: Ports, lost: Iterable[Ref | None]) -> Iterator[Finding]:
    def may_be_fed(node: str, port: str) -> bool:
        """Whether an edge that could not be read was meant to lead here, as far as it says."""
        return any(
            to is None or (to.path[0] == port and (to.node == node or opening.node(to.node) is None))
            for to in lost
        )

    for node in opening.nodes:
        if node.use not in ports:
            continue
        connected = {edge.port for edge in opening.inbound(node.id)} | by_with(node)
        mapped = None if node.for_each is None else node.for_each.port
        for name, spec in sorted(ports[node.use].in_.items()):
            needed = spec.required or name == mapped
            if needed and name not in connected and not may_be_fed(node.id, name):
                yield finding(
                    opening,
                    spot(opening, node, "id"),
                    "unconnected",
                    f"nothing leads to '{node.id}.{name}'",
                    f"{node.use} cannot start without it",
                    f"add an edge to {node.id}.{name}"
                    + (f", or {name} under 'with'" if node.nests or name == mapped else ""),
                )


def _references(opening: Opening, ports: Ports) -> Iterator[Finding]:
    success = opening.success
    for clause in () if success is None else success.clauses:
        place = opening.origin.subject("clause", str(clause))
        port = output(opening, ports, clause.ref)
        if port is None:
            yield _no_output(opening, ports, clause.ref, place)
        elif isinstance(clause, Compare):
            yield from _comparison(opening, clause, port, place)
    for index, ref in enumerate(opening.save):
        if output(opening, ports, ref) is None:
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
    return finding(
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
            yield finding(
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
                yield finding(
                    opening,
                    ("goals", index),
                    "unknown_param",
                    f"the slot {{{slot}}} names no parameter",
                    "the router could not fill it",
                    suggest(slot, opening.params),
                    warning=True,
                )
