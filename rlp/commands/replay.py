"""``rlp replay``: execute a run again from its record and compare. The daemon does it; nothing leaves."""

from __future__ import annotations

from typing import Any

from rlp.commands import whatif
from rlp.session import Session
from runloop.errors import UsageError
from runloop.exits import Exit

__all__ = ["replay", "say"]

REPLAY_S = 600.0

COVERAGE = (
    ("recorded", "recorded"),
    ("reexecuted", "re-executed"),
    ("substituted", "substituted"),
    ("not_covered", "not covered"),
)
"""The four numbers of the coverage line (spec/openings.md), in its order and its words."""

COMPARED = (("attempts", "attempt"), ("messages", "message"), ("hashes", "event hash"), ("runs", "run"))
"""What was made again and compared, as people count it."""


def replay(session: Session, *, run: str, faults: bool = False, every_call: bool = False) -> Exit:
    """Print ``identical`` with a coverage line, or the first divergence with both hashes."""
    if faults:
        return whatif.faults(session, run=run, every_call=every_call)
    if every_call:
        raise UsageError("--every-call goes with --faults", hint="add --faults", code="cli.option")
    report: dict[str, Any] = session.client().call("run.replay", {"run": run}, timeout_s=REPLAY_S)
    if session.json:
        session.console.json(report)
    else:
        say(session, report)
        session.console.data(f"  run {report.get('run', run)}")
    return Exit.OK if report["identical"] else Exit.DIVERGED


def say(session: Session, report: dict[str, Any]) -> None:
    """A replay's report, for people."""
    console = session.console
    divergence = report.get("divergence")
    same = bool(report["identical"])
    if divergence:
        at = divergence.get("event")
        console.data(
            f"diverged  {divergence.get('code')} at {divergence.get('where')}"
            + (f" (event {at})" if at is not None and f"event {at}" not in divergence["where"] else ""),
            "red",
        )
        if divergence.get("what"):
            console.data(f"  {divergence['what']}")
        console.data(f"  expected {divergence.get('expected')}")
        console.data(f"  actual   {divergence.get('actual')}")
    else:
        console.data("identical" if same else "not fully covered", "green" if same else "yellow")
    coverage = report.get("coverage") or {}
    console.data("  " + " / ".join(f"{coverage.get(name, 0)} {words}" for name, words in COVERAGE))
    counted = [_count(int(report.get(name) or 0), word) for name, word in COMPARED if report.get(name)]
    if counted and not divergence:
        console.data(f"  compared {', '.join(counted)}")
    for gap in report.get("gaps") or ():
        console.data(f"  {gap}", "yellow")


def _count(number: int, word: str) -> str:
    plural = "" if number == 1 else "es" if word.endswith("hash") else "s"
    return f"{number} {word}{plural}"
