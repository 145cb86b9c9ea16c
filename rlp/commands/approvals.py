"""``rlp approvals``, ``approve``, ``deny``, ``undo``: what waits for a person, and the person's answer."""

from __future__ import annotations

from typing import Any

from rlp import install as installing
from rlp.ask import ask
from rlp.follow import Follower
from rlp.session import Session
from runloop import approval as held
from runloop.errors import ConflictError, FailedError, ParkedError, RefusedError
from runloop.exits import Exit
from runloop.quantities import ago, moment

__all__ = ["approvals", "approve", "deny", "undo"]

WAIT_S = 1.0
"""Longest silence before the ledger is looked at again, whatever the bus said."""


def approvals(session: Session, *, all: bool) -> Exit:
    """List what waits for a decision."""
    found: list[dict[str, Any]] = session.ask("approvals.list", all=all)["approvals"]
    rows = found if session.json else [_row(approval) for approval in found]
    others = ("asked by",) if any(held.asker(approval["action"]) for approval in found) else ()
    session.console.rows(
        rows,
        ("approval", "state", "what", "recipients", *others, "run", "expires"),
        empty="nothing waits for you",
    )
    waiting = [approval for approval in found if approval["state"] == "open"]
    if waiting and not session.json:
        session.console.say(f"read and decide with: rlp approve {waiting[0]['approval']}")
    return Exit.OK


def _row(approval: dict[str, Any]) -> dict[str, Any]:
    return {
        "approval": approval["approval"],
        "state": _word(approval["state"]),
        "what": held.bare(approval["action"]),
        "recipients": approval["action"].get("recipients"),
        "asked by": held.asker(approval["action"]) or None,
        "run": (approval["run"] or "")[:8],
        "expires": moment(approval["expires_ms"]) if approval["state"] == "open" else None,
    }


def _word(state: str) -> str:
    """The state as people say it."""
    return {"open": "waiting", "active": "approved", "dispatching": "being sent", "consumed": "done"}.get(
        state, state
    )


def approve(
    session: Session, *, approval: str, note: str, yes: bool, wait: bool, always: bool, confirm: str | None
) -> Exit:
    """Show exactly what will happen and let it; on a terminal a last question is asked."""
    console = session.console
    found = session.ask("approvals.show", approval=approval)
    if found["state"] != "open":
        raise ConflictError(
            f"{found['approval']} is {_word(found['state'])} already",
            hint=f"'rlp kb why {found['approval']}' tells how",
            code="approval.state",
        )
    if always and not session.interactive:
        # A pipe types nothing out: what is allowed for good is a person's word, never a flag's alone.
        raise RefusedError(
            "what is allowed for good is confirmed by its name, typed out at a terminal",
            hint=f"'rlp approve {found['approval']}' allows it once; with --always, type it in a terminal",
            code="grant.unasked",
        )
    content = held.content_of(found)
    if not session.json:
        for line in held.describe(found, content, width=console.width):
            console.say(line)
    said = _said(session, found, content, yes=yes, always=always, confirm=confirm)
    if always:
        given = session.ask(
            "grants.give", approval=found["approval"], action_digest=found["action_digest"], confirm=said
        )
        session.console.say(f"{given['grant']}: from now on without asking ('rlp grant revoke' ends that)")
    decided = held.decide(session.client(), found, "approve", note, said)
    if found["run"] is None:  # nobody waits for it but us: tell what came of it
        return installing.outcome(session, found["approval"])
    code = _decided(session, decided, found)
    return _awaited(session, found) if wait else code


def _said(
    session: Session,
    found: dict[str, Any],
    content: bytes,
    *,
    yes: bool,
    always: bool,
    confirm: str | None,
) -> str:
    """What the person said beyond the command itself: the word that confirms, typed out at the terminal, or
    the digest given for it; empty where the command is enough. Raises where there is no yes."""
    if confirm is not None and confirm != found["action_digest"]:
        raise ConflictError(
            f"--confirm names another action than the one {found['approval']} is about",
            hint="read what waits now: 'rlp approvals --json' has its action_digest",
            code="approval.digest",
        )
    if confirm is not None and not always:
        return confirm
    if not session.interactive:
        if held.widens(found):
            raise _unconfirmed(found)
        return ""
    # Not even with --yes: what this machine may do is widened by a word that names it (attacks.md C8).
    if held.widens(found) or always:
        asked = _always(found) if always else found
        if not installing.confirm(session, asked, content):
            raise _waits(found)
        return held.confirming_word(asked)
    if not yes and not _yes(session, content):
        raise _waits(found)
    return ""


def _unconfirmed(approval: dict[str, Any]) -> RefusedError:
    """Without a terminal nobody has read it: a script must name the very bytes that somebody has."""
    name = approval["approval"]
    return RefusedError(
        f"{name} widens what this machine does or believes, and there is no terminal to type"
        f" {held.confirming_word(approval)} at; it still waits",
        hint=f"in a terminal: rlp approve {name}; in a script, for exactly what was read:"
        f" rlp approve {name} --confirm {approval['action_digest']}",
        code="approval.unconfirmed",
    )


def _yes(session: Session, content: bytes) -> bool:
    """The person's last word at the terminal."""
    console = session.console
    assert session.stdin is not None
    while True:
        answer = ask(session.stdin, console.err, "approve? [y/N/v] (v shows every byte) ")
        if answer not in ("v", "view"):
            return answer in ("y", "yes")
        for line in held.raw_lines(content, width=console.width):
            console.note(line)


def _always(approval: dict[str, Any]) -> dict[str, Any]:
    """The question with the word that confirms it: the tool's name, typed out."""
    action = approval["action"]
    if action.get("kind") != "tool.call" or action.get("grantable") is not True:
        raise RefusedError(
            f"{approval['op']} cannot be allowed for good: its name does not say what it would do next time",
            hint=f"'rlp approve {approval['approval']}' allows it once",
            code="grant.refused",
        )
    return {**approval, "action": {**action, "name": action["tool"]}}


def _waits(approval: dict[str, Any]) -> ParkedError:
    name = approval["approval"]
    return ParkedError(f"{name} still waits", hint=f"'rlp deny {name}' refuses it for good")


def _awaited(session: Session, approval: dict[str, Any]) -> Exit:
    """Stay until the effect is on record and the run has ended or asks again; or tell why there is none."""
    follower = Follower(session, str(approval["run"]))
    sent = False
    try:
        while True:
            for event in follower.next(WAIT_S):
                payload = event["payload"]
                if event["kind"] == "tool.called" and payload["approval"] == approval["approval"]:
                    session.console.say(f"{payload['tool']} on {payload['resource']}: {payload['outcome']}")
                    sent = True
                elif event["kind"] == "email.sent" and payload["approval"] == approval["approval"]:
                    session.console.say(
                        f"sent to {', '.join(payload['recipients'])} -> {payload['location']}", "green"
                    )
                    sent = True
                elif sent and event["kind"] in ("run.finished", "action.requested"):
                    return Exit.OK
                elif event["kind"] == "action.decided" and payload["approval"] == approval["approval"]:
                    if payload["decision"] != "approved":
                        session.console.say(f"{approval['approval']} is {payload['decision']}", "yellow")
                        return Exit.REFUSED
                elif event["kind"] == "run.finished":
                    reason = (payload.get("error") or {}).get("message", "the run ended without it")
                    raise FailedError(reason, hint=f"rlp trace {approval['run'][:8]}")
    except KeyboardInterrupt:
        session.hang_up()
        held.decide(session.client(), approval, "undo", "taken back at the prompt")
        session.console.say(f"{approval['approval']} is taken back", "yellow")
        return Exit.INTERRUPTED


def deny(session: Session, *, approval: str, note: str) -> Exit:
    """Refuse it for good."""
    found = session.ask("approvals.show", approval=approval)
    return _decided(session, held.decide(session.client(), found, "deny", note), found)


def undo(session: Session, *, approval: str, note: str) -> Exit:
    """Take an approval back while its undo window is open."""
    found = session.ask("approvals.show", approval=approval)
    return _decided(session, held.decide(session.client(), found, "undo", note), found)


def _decided(session: Session, decided: dict[str, Any], approval: dict[str, Any]) -> Exit:
    if session.json:
        session.console.json(decided)
        return Exit.OK
    state = "approved" if decided["state"] in ("active", "dispatching", "consumed") else decided["state"]
    session.console.say(f"{approval['approval']} is {state}")
    window = session.config.security.undo_window_ms
    if decided["state"] == "active" and decided.get("dispatch_after_ms") and window:
        session.console.say(f"it leaves in {ago(window)}; 'rlp undo {approval['approval']}' takes it back")
    if approval["run"] is not None:
        session.console.say(f"'rlp trace {approval['run'][:8]}' shows how the run goes on")
    return Exit.OK
