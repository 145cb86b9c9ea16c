"""From a name and some words to something worth submitting: mistakes cost nothing here.

Knows: where openings are found, which ports the installed agents have, how words become typed parameters.
Does not know: what the daemon makes of it (it checks everything again).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlp.session import Session
from runloop.errors import UsageError

if TYPE_CHECKING:
    from openings.definition import Opening, PortTable

__all__ = ["EXAMPLES", "Wish", "parameters", "prepare"]

EXAMPLES = {"number": "3", "boolean": "true", "object": """'{"key": "value"}'""", "list": """'["a", "b"]'"""}
"""What stands behind ``:=`` for a parameter of each type that is written as JSON, quoted for a shell."""


class Wish(NamedTuple):
    """An opening that was found, read and checked, with its parameters."""

    opening: Opening
    source: str
    path: Path
    params: dict[str, Any]
    ports: Mapping[str, PortTable]
    nested: Mapping[str, str]
    """Texts of the openings nested in it at any depth, by name."""


def prepare(
    session: Session, name: str, params: Iterable[str] | Mapping[str, Any], *, judge: bool = True
) -> Wish:
    """Find, load and validate an opening; raises with every finding at once.

    Without ``judge`` the parameters are left alone: the graph is looked at, nothing is to be run.
    """
    from openings import nest
    from openings.errors import OpeningError
    from openings.load import Shelf, find, parse, read_text
    from openings.validate import check, findings
    from rlp.catalog import agents

    path = find(name, session.openings_dirs)
    source = read_text(path)
    reading = parse(source, name=str(path))
    if reading.opening is None:
        raise OpeningError(reading.findings)
    installed = agents(session)
    shelf = Shelf(session.openings_dirs)
    nested = nest.gather(reading, shelf)
    ports = {use: installed[use] for use in nest.uses(reading, nested) if use in installed}
    given = dict(params) if isinstance(params, Mapping) else parameters(reading.opening, params)
    if judge:
        given = check(reading, ports, given, installed=installed, nested=nested, openings=shelf.names)
    else:
        found = findings(reading, ports, installed=installed, nested=nested, openings=shelf.names)
        if any(finding.severity == "error" for finding in found):
            raise OpeningError(found)
    whole = replace(
        reading.opening, openings={n: r.opening for n, r in sorted(nested.items()) if r.opening is not None}
    )
    return Wish(whole, source, path, given, ports, shelf.texts)


def parameters(opening: Opening, words: Iterable[str]) -> dict[str, Any]:
    """``name=text`` and ``name:=JSON`` as values; text is read by the type the opening declares."""
    import json

    values: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.strip(":"):
            raise UsageError(
                f"-p {word!r} is not NAME=VALUE",
                hint="for example -p topic='Q4 plan', or -p count:=3",
                code="cli.param",
            )
        as_json = name.endswith(":")
        name = name.removesuffix(":")
        if name in values:
            raise UsageError(f"-p {name} is given twice", hint="keep one", code="cli.param")
        declared = opening.params.get(name)
        if as_json or (declared is not None and declared.type in EXAMPLES):
            try:
                values[name] = json.loads(text)
            except ValueError as error:
                known = declared is not None and declared.type in EXAMPLES
                wanted = declared.type if declared is not None and known else "list"
                kind = f"{'an' if wanted == 'object' else 'a'} {wanted} in JSON" if known else "JSON"
                raise UsageError(
                    f"-p {name}: {text!r} is not {kind}: {error}",
                    hint=f"for example -p {name}:={EXAMPLES[wanted]}",
                    code="cli.param",
                ) from error
        else:
            values[name] = text
    return values
