"""Openings in miniature, written as text so that tests read like their authors would write."""

from __future__ import annotations

from pathlib import Path

import pytest

from openings.definition import Opening, PortSpec, PortTable
from openings.load import load, read

LIBRARY = Path(__file__).resolve().parents[3] / "openings" / "library"


def brief(nodes: str, edges: str = "", tail: str = "") -> Opening:
    """``a b(timeout_ms: 5)`` and ``a.out -> b.in`` lines as an opening."""
    lines = ["version: 0", "name: brief", "nodes:"]
    for word in nodes.split(";"):
        name, _, terms = word.strip().partition(" ")
        lines.append(f"  - {{id: {name}, use: agent:{name}{', ' + terms if terms else ''}}}")
    if edges:
        lines.append("edges:")
    for word in edges.split(";") if edges else []:
        start, _, end = word.partition("->")
        lines.append(f"  - {{from: {start.strip()}, to: {end.strip()}}}")
    return load("\n".join(lines) + "\n" + tail)


@pytest.fixture
def compose_email() -> Opening:
    return read(LIBRARY / "compose_email.yaml")


def table(in_: str = "", out: str = "") -> PortTable:
    """``a:string! b`` (``!`` is required) as a port table."""

    def specs(text: str) -> dict[str, PortSpec]:
        made = {}
        for word in text.split():
            name, _, kind = word.rstrip("!").partition(":")
            made[name] = PortSpec(type=kind or "any", required=word.endswith("!"))  # type: ignore[arg-type]
        return made

    return PortTable(in_=specs(in_), out=specs(out))


COMPOSE_PORTS = {
    "agent:contact_resolver": table("", "out:object!"),
    "agent:context_gatherer": table("contact:object!", "out:object!"),
    "agent:writer": table("recipients:object! context:object!", "out:object!"),
    "agent:critic": table("in:object!", "review:object!"),
    "agent:mailer": table("draft:object! review:object! contact:object! in", "out:object!"),
}
"""What the shipped manifests say."""
