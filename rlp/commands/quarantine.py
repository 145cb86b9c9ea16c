"""``rlp agent quarantine`` and ``release``: who may not run. The daemon decides; this only asks."""

from __future__ import annotations

from typing import Any

from rlp.session import Session
from runloop.exits import Exit

__all__ = ["held", "quarantine", "release"]


def quarantine(session: Session, *, agent: str, reason: str) -> Exit:
    """Keep an agent from running, from now on and across restarts."""
    done = session.ask("agent.quarantine", agent=agent, reason=reason)
    if all(row["name"] != done["agent"] for row in session.ask("agents.list")["agents"]):
        session.console.note(
            f"rlp: no agent is called {agent} now ('rlp agent list'); what comes by that name is held",
            "yellow",
        )
    return _told(session, done, f"{agent} is quarantined; 'rlp agent release {agent}' lifts it")


def release(session: Session, *, agent: str, reason: str) -> Exit:
    """Let a quarantined agent run again."""
    done = session.ask("agent.release", agent=agent, reason=reason)
    return _told(session, done, f"{agent} may run again; its failures are counted anew")


def held(session: Session) -> Exit:
    """Show who may not run, and why."""
    agents: list[dict[str, Any]] = session.ask("agent.held")["agents"]
    session.console.rows(agents, ("agent", "by", "reason", "event"), empty="no agent is quarantined")
    return Exit.OK


def _told(session: Session, done: dict[str, Any], words: str) -> Exit:
    if session.json:
        session.console.json(done)
    else:
        session.console.say(words)
    return Exit.OK
