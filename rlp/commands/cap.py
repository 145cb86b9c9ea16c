"""``rlp cap``: what agents may do. The daemon decides and records; this only asks."""

from __future__ import annotations

from typing import Any

from rlp.session import Session
from runloop.errors import UsageError
from runloop.escape import json_text
from runloop.exits import Exit

__all__ = ["grant", "list_", "revoke"]


def list_(session: Session, *, agent: str | None) -> Exit:
    """Show every agent's capabilities, one row per capability."""
    agents: list[dict[str, Any]] = session.ask("cap.list", agent=agent)["agents"]
    if session.json:
        session.console.rows(agents, ())
        return Exit.OK
    rows = [row for entry in agents for row in _rows(entry)]
    session.console.rows(rows, ("agent", "capability", "value", "from"), empty="no agents are installed")
    for entry in agents:
        for warning in entry.get("warnings") or []:
            session.console.say(f"rlp: {entry.get('agent')}: {warning}", "yellow")
    return Exit.OK


def _rows(entry: dict[str, Any]) -> list[dict[str, Any]]:
    asked, effective = entry["asked"], entry["effective"]
    rows = [
        {
            "agent": entry["agent"],
            "capability": capability,
            "value": json_text(effective.get(capability, False)),
            "from": "policy.caps" if effective.get(capability) == asked.get(capability) else "override",
        }
        for capability in sorted({*asked, *effective})
    ]
    return rows or [{"agent": entry["agent"], "capability": None, "value": "nothing", "from": None}]


def grant(session: Session, *, agent: str, capability: str, value: str | None) -> Exit:
    """Set a capability in the operator's override, within the agent's own policy."""
    done = session.ask("cap.grant", agent=agent, capability=capability, value=_value(value))
    return _told(session, done, f"{agent} now has {capability}")


def _value(text: str | None) -> Any:
    import json
    import shlex

    if text is None:
        return True
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not JSON",
            hint=f"write true, or a list: {shlex.quote(json_text([text]))}",
            code="cli.argument",
        ) from error


def revoke(session: Session, *, agent: str | None, capability: str | None, token: str | None) -> Exit:
    """Take a capability from an agent, or void a token and its descendants."""
    if token is None and (agent is None or capability is None):
        raise UsageError(
            "nothing to revoke is named",
            hint="'rlp cap revoke AGENT CAPABILITY', or 'rlp cap revoke --token ID'",
            code="cli.argument",
        )
    done = session.ask("cap.revoke", agent=agent, capability=capability, token=token)
    return _told(session, done, f"revoked {token or f'{capability} from {agent}'}")


def _told(session: Session, done: dict[str, Any], words: str) -> Exit:
    if session.json:
        session.console.json(done)
        return Exit.OK
    session.console.say(words)
    for warning in done.get("warnings") or []:
        session.console.note(f"rlp: {warning}", "yellow")
    return Exit.OK
