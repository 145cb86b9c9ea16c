"""``rlp runs`` and ``rlp cancel``."""

from __future__ import annotations

from typing import Any

from rlp.output import ago, moment
from rlp.session import Session
from runloop.exits import Exit

__all__ = ["cancel", "runs"]


def runs(session: Session, *, limit: int, schedule: str | None = None) -> Exit:
    """List runs, newest first; ``schedule``: only those that it started."""
    only = {} if schedule is None else {"schedule": schedule}
    found: list[dict[str, Any]] = session.ask("run.list", limit=limit, **only)["runs"]
    session.console.rows(
        found if session.json else [_row(run) for run in found],
        ("run", "opening", "by", "state", "started", "took", "error"),
        empty="no runs yet; start one with 'rlp run compose_email -p recipient=... -p topic=...'",
    )
    return Exit.OK


def _row(run: dict[str, Any]) -> dict[str, Any]:
    started, finished = run.get("started_ms"), run.get("finished_ms")
    return {
        "run": run.get("run"),
        "opening": run.get("opening"),
        "by": run.get("principal"),
        "state": run.get("outcome") or run.get("state") or "running",
        "started": moment(started) if started else None,
        "took": ago(finished - started) if started and finished else None,
        "error": (run.get("error") or {}).get("message"),
    }


def cancel(session: Session, *, run: str, reason: str) -> Exit:
    """Ask the daemon to end a run; its nodes are stopped and told in the ledger."""
    done = session.ask("run.cancel", run=run, reason=reason)
    if session.json:
        session.console.json(done)
    else:
        session.console.say(f"cancelling {done['run']}; 'rlp trace {done['run'][:8]}' shows how it ends")
    return Exit.OK
