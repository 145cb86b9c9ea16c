"""``rlp agent kill`` and ``restart``: end what an agent does now. The daemon decides; this only asks."""

from __future__ import annotations

from typing import Any

from rlp.session import Session
from runloop.exits import Exit

__all__ = ["kill", "restart"]


def kill(session: Session, *, agent: str, reason: str) -> Exit:
    """End every attempt an agent is making now; each fails with ``guest.killed``."""
    done = session.ask("agent.kill", agent=agent, reason=reason)
    return _told(session, done, "killed", f"'rlp agent quarantine {agent}' keeps it from beginning again")


def restart(session: Session, *, agent: str, reason: str) -> Exit:
    """Have every attempt of an agent go on in a fresh process, from its record."""
    done = session.ask("agent.restart", agent=agent, reason=reason)
    return _told(session, done, "restarted", "each goes on from its record")


def _told(session: Session, done: dict[str, Any], how: str, then: str) -> Exit:
    if session.json:
        session.console.json(done)
        return Exit.OK
    count = len(done["attempts"])
    tools = f" and {done['tools']} of its tools" if done["tools"] else ""
    session.console.say(f"{done['agent']}: {count} attempt{'' if count == 1 else 's'}{tools} {how}; {then}")
    for one in done["attempts"]:
        session.console.data(f"{one['run'][:8]}  {one['node']}  attempt {one['attempt']}")
    return Exit.OK
