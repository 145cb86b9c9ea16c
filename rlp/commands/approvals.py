"""``rlp approvals``, ``approve``, ``deny``, ``undo``: what waits for a person, and the person's answer."""

from __future__ import annotations

from typing import Any

from rlp import approval as held
from rlp.ask import ask
from rlp.output import ago, moment
from rlp.session import Session
from runloop.errors import ParkedError
from runloop.exits import Exit

__all__ = ["approvals", "approve", "deny", "undo"]


def approvals(session: Session, *, all: bool) -> Exit:
    """List what waits for a decision."""
    found: list[dict[str, Any]] = session.ask("approvals.list", all=all)["approvals"]
    rows = found if session.json else [_row(approval) for approval in found]
    session.console.rows(
        rows,
        ("approval", "state", "what", "recipients", "run", "expires"),
        empty="nothing waits for you",
    )
    waiting = [approval for approval in found if approval["state"] == "open"]
    if waiting and not session.json:
        session.console.say(f"read and decide with: rlp approve {waiting[0]['approval']}")
    return Exit.OK


def _row(approval: dict[str, Any]) -> dict[str, Any]:
    return {
        "approval": approval["approval"],
        "state": "waiting" if approval["state"] == "open" else approval["state"],
        "what": held.bare(approval["action"]),
        "recipients": approval["action"].get("recipients"),
        "run": approval["run"][:8],
        "expires": moment(approval["expires_ms"]) if approval["state"] == "open" else None,
    }


def approve(session: Session, *, approval: str, note: str, yes: bool) -> Exit:
    """Show exactly what will happen and let it; on a terminal a last question is asked."""
    console = session.console
    found = session.ask("approvals.show", approval=approval)
    content = held.content_of(found)
    if not session.json:
        for line in held.describe(found, content, width=console.width):
            console.say(line)
    if session.interactive and not yes:
        assert session.stdin is not None
        while (answer := ask(session.stdin, console.err, "approve? [y/N/v] (v shows every byte) ")) in (
            "v",
            "view",
        ):
            for line in held.raw_lines(content, width=console.width):
                console.note(line)
        if answer not in ("y", "yes"):
            raise ParkedError(
                f"{found['approval']} still waits", hint=f"'rlp deny {found['approval']}' refuses it for good"
            )
    return _decided(session, held.decide(session, found, "approve", note), found)


def deny(session: Session, *, approval: str, note: str) -> Exit:
    """Refuse it for good."""
    found = session.ask("approvals.show", approval=approval)
    return _decided(session, held.decide(session, found, "deny", note), found)


def undo(session: Session, *, approval: str, note: str) -> Exit:
    """Take an approval back while its undo window is open."""
    found = session.ask("approvals.show", approval=approval)
    return _decided(session, held.decide(session, found, "undo", note), found)


def _decided(session: Session, decided: dict[str, Any], approval: dict[str, Any]) -> Exit:
    if session.json:
        session.console.json(decided)
        return Exit.OK
    words = {"active": "approved", "dispatching": "approved", "consumed": "approved"}
    state = words.get(decided["state"], decided["state"])
    session.console.say(f"{approval['approval']} is {state}")
    window = session.config.security.undo_window_ms
    if decided["state"] == "active" and decided.get("dispatch_after_ms") and window:
        session.console.say(f"it leaves in {ago(window)}; 'rlp undo {approval['approval']}' takes it back")
    session.console.say(f"'rlp trace {approval['run'][:8]}' shows how the run goes on")
    return Exit.OK
