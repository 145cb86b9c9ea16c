"""``rlp runs`` and ``rlp cancel``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from rlp.session import Session
from runloop.clock import SystemClock
from runloop.exits import Exit
from runloop.quantities import ago, brief_moment, moment

__all__ = ["cancel", "runs"]


def runs(session: Session, *, limit: int, schedule: str | None = None, tree: bool = False) -> Exit:
    """List runs, newest first; ``schedule``: only those that it started. ``tree``: each with the runs inside
    it, oldest first."""
    only = {} if schedule is None else {"schedule": schedule}
    found: list[dict[str, Any]] = session.ask("run.list", limit=limit, **only)["runs"]
    if tree:
        found = [one for each in found for one in _with_those_inside(session, each)]
    session.console.rows(
        found if session.json else [_row(run, brief=session.console.out.isatty()) for run in found],
        ("run", "opening", "by", "state", "started", "took", "error"),
        prose=("error",),
        empty="no runs yet; start one with 'rlp run compose_email -p recipient=... -p topic=...'",
    )
    return Exit.OK


def _with_those_inside(session: Session, run: dict[str, Any], depth: int = 0) -> Iterator[dict[str, Any]]:
    yield {**run, "depth": depth}
    for inner in session.ask("run.show", run=run["run"])["nested"]:
        yield from _with_those_inside(session, inner, depth + 1)


def _row(run: dict[str, Any], *, brief: bool) -> dict[str, Any]:
    """``brief``: for a terminal, which is narrow; a pipe gets whole dates."""
    started, finished = run.get("started_ms"), run.get("finished_ms")
    when = partial(brief_moment, now_ms=SystemClock().now_ms()) if brief else moment
    return {
        "run": str(run.get("run"))[:8],
        "opening": _placed(run),
        "by": "you" if brief and run.get("principal") == f"operator:{os.getuid()}" else run.get("principal"),
        "state": run.get("outcome") or run.get("state") or "running",
        "started": when(started) if started else None,
        "took": ago(finished - started) if started and finished else None,
        "error": (run.get("error") or {}).get("message"),
    }


def _placed(run: dict[str, Any]) -> str:
    """The opening; below another run, behind the node that it serves there."""
    parent, depth = run.get("parent"), run.get("depth", 0)
    served = f"{'  ' * depth}{parent['node']}: " if parent and depth else ""
    return f"{served}{run.get('opening')}"


def cancel(session: Session, *, run: str, reason: str) -> Exit:
    """Ask the daemon to end a run; its nodes are stopped and told in the ledger."""
    done = session.ask("run.cancel", run=run, reason=reason)
    if session.json:
        session.console.json(done)
    else:
        session.console.say(f"cancelling {done['run']}; 'rlp trace {done['run'][:8]}' shows how it ends")
    return Exit.OK
