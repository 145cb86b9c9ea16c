"""Openings inside openings: which there are, what their ports are, and what must not be.

Knows: walking from one opening to those it uses, recursion, depth, size. Does not know: where a text lies (a
lookup is handed in), agents (their ports are handed in), what a nested run does (``engine``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from openings.definition import Node, Opening, PortSpec, PortTable
from openings.errors import Finding
from openings.load import Reading
from openings.wiring import finding, output, spot

__all__ = ["MAX_DEPTH", "MAX_EXPANDED", "MAX_NESTED", "Lookup", "gather", "interfaces", "judge", "uses"]

MAX_DEPTH = 8
"""Openings inside each other, the outermost not counted."""
MAX_NESTED = 64
"""Different openings inside one."""
MAX_EXPANDED = 20_000
"""Nodes of all runs together, with a mapped node counted once: what nests twice eight times over is many."""

Lookup = Callable[[str], Reading | None]
"""Name of an opening -> what its text says; None where there is no such opening."""


def gather(reading: Reading, lookup: Lookup) -> dict[str, Reading]:
    """Everything that is nested in an opening at any depth, by name; what is not found is left out.

    At most one more than :data:`MAX_NESTED`, which :func:`judge` refuses.
    """
    found: dict[str, Reading] = {}
    waiting = _nested(reading)
    while waiting and len(found) <= MAX_NESTED:
        name = waiting.pop(0)
        if name in found or (there := lookup(name)) is None:
            continue
        found[name] = there
        waiting.extend(_nested(there))
    return found


def uses(reading: Reading, nested: Mapping[str, Reading]) -> set[str]:
    """Every ``agent:…`` that the opening and those nested in it name."""
    return {
        node.use
        for each in (reading, *nested.values())
        if each.opening is not None
        for node in each.opening.nodes
        if node.use and node.nests is None
    }


def interfaces(ports: Mapping[str, PortTable], nested: Mapping[str, Reading]) -> dict[str, PortTable]:
    """``opening:<name>`` -> ports, for every nested opening that could be read as a whole.

    Its inputs are its parameters, its outputs what it saves.
    """
    made: dict[str, PortTable] = {}
    for name in _inside_out(nested):
        reading = nested[name]
        if reading.opening is not None and not reading.findings:
            made[f"opening:{name}"] = _interface(reading.opening, {**ports, **made})
    return made


def _interface(opening: Opening, ports: Mapping[str, PortTable]) -> PortTable:
    return PortTable(
        in_={name: PortSpec(type=p.type, required=p.required) for name, p in opening.params.items()},
        out={
            name: replace(output(opening, ports, ref) or PortSpec(), required=False)
            for name, ref in opening.outputs.items()
        },
    )


def judge(reading: Reading, nested: Mapping[str, Reading]) -> Iterator[Finding]:
    """Recursion, too much depth, too many, and files that hold something else than their name says."""
    if reading.opening is None:
        return
    for name, there in sorted(nested.items()):
        if there.opening is not None and there.opening.name not in ("", name):
            yield finding(
                there.opening,
                ("name",),
                "name",
                f"the opening called '{name}' names itself '{there.opening.name}'",
                "a nested opening is found by the name of its file",
                f"write 'name: {name}', or rename the file",
            )
        if there.opening is not None and len(there.opening.outputs) < len(set(there.opening.save)):
            yield finding(
                there.opening,
                ("artifacts", "save"),
                "duplicate",
                f"two of the ports that '{name}' saves would have one name outside",
                "a port that is saved twice is called <node>_<port>, and another is called that already",
                "rename a node, or save one of them less",
            )
    if len(nested) > MAX_NESTED:
        yield finding(
            reading.opening,
            (),
            "size",
            "too many openings are nested",
            f"at most {MAX_NESTED} different ones",
            "run some of them on their own",
        )
        return
    cycles = list(_cycles(reading.opening, nested))
    yield from cycles
    if not cycles:
        yield from _too_deep(reading.opening, nested)


def _cycles(top: Opening, nested: Mapping[str, Reading]) -> Iterator[Finding]:
    """One finding for each use that leads back to an opening around it. Recursion is a matter of names."""
    done: set[str] = set()
    path = [top.name]
    rest = [_using(top)]
    while rest:
        step = next(rest[-1], None)
        if step is None:
            done.add(path.pop())
            rest.pop()
            continue
        around, node, name = step
        if name in path:
            chain = " -> ".join([*path[path.index(name) :], name])
            yield finding(
                around,
                spot(around, node, "use"),
                "recursion",
                f"the opening '{name}' is nested in itself: {chain}",
                "it would never end",
                "break the circle, or map over a list with for_each",
            )
        elif name not in done and (inner := nested.get(name)) is not None and inner.opening is not None:
            path.append(name)
            rest.append(_using(inner.opening))


def _too_deep(top: Opening, nested: Mapping[str, Reading]) -> Iterator[Finding]:
    """Depth and number of nodes, from the inside out; there is no circle."""
    depth: dict[str, int] = {}
    size: dict[str, int] = {}
    for name in _inside_out(nested):
        inner = nested[name].opening
        depth[name], size[name] = (1, 0) if inner is None else _measure(inner, depth, size)
    if not top.nodes:
        return
    deepest, expanded = _measure(top, depth, size)
    where = max(top.nodes, key=lambda node: depth.get(node.nests or "", 0))
    if deepest - 1 > MAX_DEPTH:
        yield finding(
            top,
            spot(top, where, "use"),
            "depth",
            f"openings are nested {deepest - 1} deep here",
            f"at most {MAX_DEPTH}",
            "copy the nodes of one into the one around it",
        )
    if expanded > MAX_EXPANDED:
        yield finding(
            top,
            (),
            "size",
            f"with what is nested it has {expanded} nodes",
            f"at most {MAX_EXPANDED} in all",
            "nest less often, or map over a list with for_each",
        )


def _measure(opening: Opening, depth: Mapping[str, int], size: Mapping[str, int]) -> tuple[int, int]:
    inside = [name for node in opening.nodes if (name := node.nests) is not None]
    deepest = max((depth.get(name, 0) for name in inside), default=0)
    return 1 + deepest, len(opening.nodes) + sum(size.get(name, 0) for name in inside)


def _inside_out(nested: Mapping[str, Reading]) -> list[str]:
    """Names, each after those nested in it, as far as there is no circle; at most as many steps as uses."""
    order: list[str] = []
    seen: set[str] = set()
    for start in sorted(nested):
        if start in seen:
            continue
        seen.add(start)
        path = [(start, iter(_nested(nested[start])))]
        while path:
            name, rest = path[-1]
            inner = next(rest, None)
            if inner is None:
                order.append(name)
                path.pop()
            elif inner not in seen and inner in nested:
                seen.add(inner)
                path.append((inner, iter(_nested(nested[inner]))))
    return order


def _nested(reading: Reading) -> list[str]:
    nodes: Iterable[Node] = () if reading.opening is None else reading.opening.nodes
    return list(dict.fromkeys(name for node in nodes if (name := node.nests) is not None))


def _using(opening: Opening) -> Iterator[tuple[Opening, Node, str]]:
    for node in opening.nodes:
        if (name := node.nests) is not None:
            yield opening, node, name
