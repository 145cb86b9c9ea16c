"""``rlp list``: openings that can be run and agents that are installed. Needs no daemon."""

from __future__ import annotations

from typing import Any

from rlp import catalog
from rlp.session import Session
from runloop.errors import RunloopError
from runloop.exits import Exit

__all__ = ["list_"]


def list_(session: Session) -> Exit:
    """One row per opening and agent."""
    rows: list[dict[str, Any]] = []
    dev_bundles = {one.bundle for one in catalog.installed(session) if one.dev}
    for path, opening in catalog.openings(session):
        about = f"does not load; 'rlp plan {path}' says why"
        if opening is not None:
            about = opening.goals[0] if opening.goals else ""
        rows.append(_row("opening", path.stem, None, about, path))
    for path, agent in catalog.manifests(session):
        if isinstance(agent, RunloopError):
            rows.append(_row("agent", path.name, None, f"refused: {agent.message}", path))
            continue
        name = agent.name if agent.variant == "default" else f"{agent.name}@{agent.variant}"
        dev = "dev: " if path.name in dev_bundles else ""
        rows.append(_row("agent", name, agent.version, f"{dev}{agent.description}", path))
    session.console.rows(rows, ("kind", "name", "version", "about"), empty="nothing is installed")
    return Exit.OK


def _row(kind: str, name: str, version: str | None, about: str, path: Any) -> dict[str, Any]:
    return {"kind": kind, "name": name, "version": version, "about": about, "path": str(path)}
