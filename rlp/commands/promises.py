"""``rlp promises`` and ``rlp promise``: what waits for somebody's word, and giving it."""

from __future__ import annotations

import json
from typing import Any

from rlp.session import Session
from runloop.errors import UsageError
from runloop.escape import json_text
from runloop.exits import Exit
from runloop.quantities import ago, moment

__all__ = ["promises", "resolve", "said", "show"]


def promises(session: Session, *, all: bool) -> Exit:
    """List what waits for somebody's word; ``all``: also what was said."""
    found = session.ask("promise.list", all=all)["promises"]
    rows = found if session.json else [_row(promise) for promise in found]
    session.console.rows(
        rows, ("promise", "state", "who", "node", "question", "expires"), empty="nothing waits for a word"
    )
    return Exit.OK


def _row(promise: dict[str, Any]) -> dict[str, Any]:
    return {
        "promise": promise["promise"],
        "state": promise["state"],
        "who": "a person" if promise["resolver"] == "operator" else "the run",
        "node": f"{promise['run'][:8]} {promise['node']}" if promise["run"] else promise["node"],
        "question": promise["question"],
        "expires": moment(promise["expires_ms"]),
    }


def show(session: Session, *, promise: str) -> Exit:
    """Show one promise."""
    found = session.ask("promise.show", promise=promise)
    if session.json:
        session.console.json(found)
        return Exit.OK
    console = session.console
    console.data(f"{found['promise']}  {found['state']}  of {found['agent']} in {found['node']}", "bold")
    if found["question"]:
        console.say(f"the agent {found['agent']} asks, in words of its own:")
        console.text(found["question"])
    if found["choices"]:
        console.data(f"one of: {json_text(found['choices'])}")
    if found["state"] == "resolved":
        console.data(f"{found['principal']} said: {json_text(found['value'])}")
    else:
        length = ago(max(0, found["expires_ms"] - found["created_ms"]))
        console.data(f"until {moment(found['expires_ms'])} ({length} after it was made)")
    return Exit.OK


def resolve(session: Session, *, promise: str, value: tuple[str, ...], text: bool) -> Exit:
    """Say what was promised, once."""
    found = session.ask("promise.resolve", promise=promise, value=said(" ".join(value), text=text))
    if session.json:
        session.console.json(found)
        return Exit.OK
    session.console.say(f"{found['promise']} is resolved")
    if found["run"]:
        session.console.say(f"'rlp trace {found['run'][:8]}' shows how the run goes on")
    return Exit.OK


def said(words: str, *, text: bool = False) -> Any:
    """A person's words as JSON: what reads as JSON is that, with ``text`` they are a text."""
    if text:
        return words
    try:
        return json.loads(words, parse_constant=_no_constant)
    except ValueError:
        raise UsageError(
            f"{words[:80]!r} is not JSON", hint="quote a text as '\"yes\"', or give --text", code="cli.value"
        ) from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)
