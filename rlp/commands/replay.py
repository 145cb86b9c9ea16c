"""``rlp replay``: execute a run again from its record and compare. The daemon does it; nothing leaves."""

from __future__ import annotations

from typing import Any

from rlp.session import Session
from runloop.exits import Exit

__all__ = ["replay"]

REPLAY_S = 600.0

COVERAGE = (
    ("recorded", "recorded"),
    ("reexecuted", "re-executed"),
    ("substituted", "substituted"),
    ("not_covered", "not covered"),
)
"""The four numbers of the coverage line (spec/openings.md), in its order and its words."""


def replay(session: Session, *, run: str) -> Exit:
    """Print ``identical`` with a coverage line, or the first divergence with both hashes."""
    report: dict[str, Any] = session.client().call("run.replay", {"run": run}, timeout_s=REPLAY_S)
    same = bool(report["identical"])
    code = Exit.OK if same else Exit.DIVERGED
    if session.json:
        session.console.json(report)
        return code
    console = session.console
    divergence = report.get("divergence")
    if divergence:
        console.data(f"diverged  {divergence.get('code')} at {divergence.get('where')}", "red")
        console.data(f"  expected {divergence.get('expected')}")
        console.data(f"  actual   {divergence.get('actual')}")
    else:
        console.data("identical" if same else "not fully covered", "green" if same else "yellow")
    coverage = report.get("coverage") or {}
    console.data("  " + " / ".join(f"{coverage.get(name, 0)} {words}" for name, words in COVERAGE))
    for gap in report.get("gaps") or ():
        console.data(f"  {gap}", "yellow")
    console.data(f"  run {report.get('run', run)}")
    return code
