"""``rlp grant``: what was allowed for good, and taking it back."""

from __future__ import annotations

from typing import Any

from rlp.session import Session
from runloop.approval import asker
from runloop.exits import Exit
from runloop.quantities import moment

__all__ = ["list_", "revoke"]


def list_(session: Session, *, agent: str | None) -> Exit:
    """List what is done without asking, by whose word."""
    found = session.ask("grants.list", agent=agent)["grants"]
    rows = found if session.json else [_row(grant) for grant in found]
    others = ("for",) if any(grant["asked_by"] for grant in found) else ()
    session.console.rows(
        rows,
        ("grant", "agent", "tool", "effect", "resource", *others, "given"),
        empty="nothing is allowed for good; 'rlp approve ID --always' allows what waits",
    )
    return Exit.OK


def _row(grant: dict[str, Any]) -> dict[str, Any]:
    given = f"{moment(grant['given_ms'])} by {grant['principal']}"
    return {**grant, "for": asker(grant) or None, "given": given}


def revoke(session: Session, *, grant: str, reason: str) -> Exit:
    """Take one back: from now on a person is asked again."""
    taken = session.ask("grants.revoke", grant=grant, reason=reason)
    if session.json:
        session.console.json(taken)
    else:
        session.console.say(f"{taken['agent']} asks again before {taken['tool']} on {taken['resource']}")
    return Exit.OK
