"""``rlp trust``: who may publish agents here. Widening goes through a person, narrowing happens at once."""

from __future__ import annotations

from typing import Any

from rlp import install as installing
from rlp.session import Session
from runloop.errors import UsageError
from runloop.exits import Exit

__all__ = ["add", "list_", "remove", "revoke"]


def list_(session: Session) -> Exit:
    """One row per publisher, then what was revoked."""
    found: dict[str, Any] = session.ask("trust.list")
    if session.json:
        session.console.json(found)
        return Exit.OK
    session.console.rows(
        [
            {
                **anchor,
                "capabilities": "any" if anchor["capabilities"] is None else anchor["capabilities"],
                "expires": anchor["expires"] or "never",
            }
            for anchor in found["anchors"]
        ],
        ("publisher", "keys", "names", "capabilities", "expires", "from"),
        empty="nobody is trusted: only agents that came with Runloop, and your own with --dev-key",
    )
    for row in found["revoked"]:
        session.console.data(f"revoked {row['key'] or row['bundle']}: {row['reason']}")
    if found["only_system"]:
        session.console.say(f"only {found['system_file']} counts on this machine")
    return Exit.OK


def add(
    session: Session,
    *,
    publisher: str,
    key: str,
    names: tuple[str, ...],
    capabilities: tuple[str, ...],
    expires: str | None,
) -> Exit:
    """Ask for a publisher's key to be trusted."""
    if not names:
        raise UsageError(
            f"say which agents {publisher} may publish",
            hint=f"add --name '{publisher.replace('-', '_')}_*', or --name '*' for any",
            code="cli.argument",
        )
    asked = session.ask(
        "trust.add",
        publisher=publisher,
        key=key,
        names=list(names),
        capabilities=list(capabilities) or None,
        expires=expires,
    )
    if asked["state"] == "waiting":
        return installing.follow(session, asked, f"trust in {publisher}")
    if session.json:
        session.console.json(asked)
    else:
        session.console.say(f"{publisher} is trusted so already; nothing to do")
    return Exit.OK


def remove(session: Session, *, publisher: str) -> Exit:
    """Let nothing new of a publisher in."""
    done = session.ask("trust.remove", publisher=publisher)
    if session.json:
        session.console.json(done)
        return Exit.OK
    session.console.say(f"{publisher} is not trusted any more; its agents that are installed stay")
    session.console.say("to stop those too, revoke its key: 'rlp trust revoke KEY --reason TEXT'")
    return Exit.OK


def revoke(session: Session, *, what: str, reason: str) -> Exit:
    """Believe a key or a bundle no more, and stop what it is behind."""
    done = session.ask("trust.revoke", subject=what, reason=reason)
    if session.json:
        session.console.json(done)
        return Exit.OK
    known = "" if done["event"] else " (it was already)"
    session.console.say(f"{done['subject']} is revoked{known}")
    for name in done["stopped"]:
        session.console.note(f"rlp: {name} is not started any more", "yellow")
    return Exit.OK
