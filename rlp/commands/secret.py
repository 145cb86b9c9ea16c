"""``rlp secret``: what only the host knows. Values come from a prompt or stdin, and are never shown."""

from __future__ import annotations

import sys
from typing import Any

from rlp.session import Session
from runloop.errors import UsageError
from runloop.exits import Exit
from runloop.quantities import moment

__all__ = ["allow", "import_", "list_", "rm", "set_"]

_COLUMNS = ("secret", "where", "for", "last used", "by")
_MAX_CHARS = 65_536
"""Read from stdin, at most; the daemon says what is too long for a secret."""


def set_(session: Session, *, name: str, destinations: tuple[str, ...], store: str | None) -> Exit:
    """Set a secret, or replace it."""
    value = _value(session, name)
    told: dict[str, Any] = {"destinations": list(destinations)} if destinations else {}
    found = session.ask("secret.set", name=name, value=value, store=store, **told)
    if session.json:
        session.console.json(found)
        return Exit.OK
    how = "replaced" if found["replaced"] else "set"
    session.console.say(f"{found['name']} is {how}; it lies in {_PLACES.get(found['store'], found['store'])}")
    session.console.say(_for_whom(found["name"], found["destinations"]))
    return Exit.OK


def allow(session: Session, *, name: str, destinations: tuple[str, ...]) -> Exit:
    """Say where a secret may be sent on behalf of agents; replaces what was said before."""
    wanted = [] if destinations == ("none",) else list(destinations)
    found = session.ask("secret.allow", name=name, destinations=wanted)
    if session.json:
        session.console.json(found)
    else:
        session.console.say(_for_whom(found["name"], found["destinations"]))
    return Exit.OK


def list_(session: Session) -> Exit:
    """List secrets: names, places, who used them. Never values."""
    found = session.ask("secret.list")["secrets"]
    rows = found if session.json else [_row(secret) for secret in found]
    session.console.rows(rows, _COLUMNS, empty="no secrets; 'rlp secret set runloop/models/NAME' sets one")
    if any(secret["store"] == "file" for secret in found):
        session.console.say(
            "secrets.toml holds secrets in clear; 'rlp secret import' encrypts them", "yellow"
        )
    return Exit.OK


def rm(session: Session, *, name: str) -> Exit:
    """Remove a secret."""
    found = session.ask("secret.remove", name=name)
    if session.json:
        session.console.json(found)
    else:
        session.console.say(f"{found['name']} is gone; revoke it where it was made, too")
    return Exit.OK


def import_(session: Session, *, store: str | None) -> Exit:
    """Move the secrets of the old secrets.toml over, and remove that file."""
    found = session.ask("secret.import", store=store)
    if session.json:
        session.console.json(found)
        return Exit.OK
    for name in found["moved"]:
        session.console.data(name)
    place = _PLACES.get(found["store"], found["store"])
    session.console.say(f"{len(found['moved'])} secrets moved to {place}; secrets.toml is removed")
    return Exit.OK


_PLACES = {
    "keyring": "the keyring",
    "age": "the encrypted file of this home",
    "systemd": "a credential of systemd",
    "file": "the old secrets.toml, in clear",
}


def _value(session: Session, name: str) -> str:
    """What is typed without echo, or all of stdin but for the line break at its end."""
    stdin = session.stdin
    if session.interactive:
        import getpass

        value = getpass.getpass(f"value of {name} (not shown): ", stream=sys.stderr)
    elif stdin is None or stdin.isatty():
        raise UsageError(
            "the value is read from stdin, and nobody may be asked for it",
            hint=f'printf %s "$VALUE" | rlp secret set {name}',
            code="secret.value",
        )
    else:
        value = stdin.read(_MAX_CHARS + 1).removesuffix("\n").removesuffix("\r")
    if not value:
        raise UsageError("the value is empty", hint="nothing was changed", code="secret.value")
    if len(value) > _MAX_CHARS:
        raise UsageError(
            "the value is no secret: it is too long", hint="nothing was changed", code="secret.value"
        )
    return value


def _for_whom(name: str, destinations: list[str]) -> str:
    if destinations:
        return f"agents that hold the capability may have it sent to {', '.join(destinations)}"
    return f"no agent may have it sent anywhere; 'rlp secret allow {name} HOST' changes that"


def _row(secret: dict[str, Any]) -> dict[str, Any]:
    used = secret["used_ms"]
    return {
        "secret": secret["name"],
        "where": secret["store"] or "missing",
        "for": " ".join(secret["destinations"]),
        "last used": "" if used is None else moment(used),
        "by": secret["used_by"],
    }
