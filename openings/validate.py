"""Does an opening make sense together with the installed agents, what it nests, and the given parameters?

Knows: what is judged and in which order, parameters, what is written into a definition that is to run. Does
not know: manifests, registries or directories; port tables are handed in per ``use`` string, nested openings
by name. Nothing here has an effect: a mistake found here has cost nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from openings import nest, wiring
from openings.definition import Node, Opening, Param, PortTable
from openings.errors import Finding, OpeningError
from openings.expressions import json_type
from openings.load import Reading
from openings.source import suggest
from runloop.digest import canonical
from runloop.errors import UsageError

__all__ = ["bind", "check", "complete", "findings", "unfit"]


def check(
    reading: Reading | Opening,
    ports: Mapping[str, PortTable],
    params: Mapping[str, Any] | None = None,
    *,
    installed: Iterable[str] = (),
    nested: Mapping[str, Reading] | None = None,
    openings: Iterable[str] = (),
) -> dict[str, Any]:
    """The complete parameters of a run, defaults filled in.

    ``ports`` maps each ``agent:…`` that it and what it nests use to the ports of the agent it resolves to; an
    agent that is not in it is not installed. ``nested``: every opening in it, as :func:`nest.gather` finds
    them. ``installed`` and ``openings`` are the references there are, to suggest from. Raises
    :class:`OpeningError` with every finding when anything is wrong, in the text itself too where a
    :class:`Reading` is given.
    """
    given = params or {}
    found = findings(reading, ports, given, installed=installed, nested=nested, openings=openings)
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
    nested: Mapping[str, Reading] | None = None,
    openings: Iterable[str] = (),
) -> list[Finding]:
    """Everything that is wrong, in it and in what it nests, and warnings. ``params`` None: not judged.

    One cause is told once: what follows from a line that could not be read is left out.
    """
    outer = Reading(reading, ()) if isinstance(reading, Opening) else reading
    inner = nested or {}
    known = dict(ports) | nest.interfaces(ports, inner)
    unreadable = {f"opening:{name}" for name in inner}
    found = list(_one(outer, known, unreadable, installed=installed, openings=openings))
    for name in sorted(inner):
        # Warnings about a nested opening are for whoever writes that one.
        found += [
            finding
            for finding in _one(inner[name], known, unreadable, installed=installed, openings=openings)
            if finding.severity == "error"
        ]
    found += nest.judge(outer, inner)
    if params is not None and outer.opening is not None:
        found += unfit(outer.opening, params)
    return found


def _one(
    reading: Reading,
    ports: Mapping[str, PortTable],
    unreadable: set[str],
    *,
    installed: Iterable[str],
    openings: Iterable[str],
) -> Iterator[Finding]:
    """What is wrong with one opening, whatever else there is."""
    yield from reading.findings
    if reading.opening is None:
        return
    told = {(finding.line, finding.column) for finding in reading.findings}
    for finding in wiring.findings(
        reading.opening,
        ports,
        reading.lost_edges,
        installed=installed,
        openings=openings,
        unreadable=unreadable,
    ):
        if (finding.line, finding.column) not in told:
            yield finding


def bind(
    opening: Opening, ports: Mapping[str, PortTable], nested: Mapping[str, Reading] | None = None
) -> Opening:
    """The opening as it runs: each node's required inputs and every nested opening written in.

    A bound opening needs no manifest and no file to be replayed. Without the required inputs the engine takes
    every connected port for required: a join whose optional branch was skipped would not run.
    """
    inner = nested or {}
    known = dict(ports) | nest.interfaces(ports, inner)
    return replace(
        _bound(opening, known),
        openings={
            name: _bound(there.opening, known)
            for name, there in sorted(inner.items())
            if there.opening is not None
        },
    )


def _bound(opening: Opening, ports: Mapping[str, PortTable]) -> Opening:
    return replace(
        opening,
        nodes=tuple(
            replace(node, requires=_requires(node, ports[node.use])) if node.use in ports else node
            for node in opening.nodes
        ),
    )


def _requires(node: Node, ports: PortTable) -> tuple[str, ...]:
    """Inputs an edge must have brought; a list to map over is one of them."""
    needed = {name for name, spec in ports.in_.items() if spec.required}
    if node.for_each is not None:
        needed.add(node.for_each.port)
    return tuple(sorted(needed - wiring.by_with(node)))


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


# --- parameters ---------------------------------------------------------------------------------


def unfit(opening: Opening, params: Mapping[str, Any]) -> Iterator[Finding]:
    """What is wrong with the parameters of a run."""
    for name in params:
        if name not in opening.params:
            yield Finding(
                code="opening.unknown_param",
                what=f"there is no parameter '{name}'",
                why=f"{opening.name} has {', '.join(opening.params) or 'none'}",
                fix=suggest(name, opening.params) if opening.params else "leave it out",
                file="<parameters>",
            )
    for name, param in opening.params.items():
        if name not in params:
            if param.required:
                yield Finding(
                    code="opening.missing_param",
                    what=f"the parameter '{name}' is not given",
                    why=param.description.rstrip(".") or "it is required and has no default",
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
