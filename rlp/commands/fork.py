"""``rlp fork``, ``rlp retry`` and ``rlp resume``: go on from where a run was, or was not.

Knows: how a point of a run and its changes are written on a command line. Does not know: what they mean for
the run; the daemon judges them before there is a fork.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rlp.commands.run import follow
from rlp.session import Session
from runloop.errors import ConflictError, UsageError
from runloop.exits import Exit

__all__ = ["fork", "resume", "retry"]

ASK_S = 120.0
"""The first use of another agent compiles it."""


def fork(
    session: Session,
    *,
    run: str,
    set: tuple[str, ...],
    model: str | None,
    agents: tuple[str, ...],
    deny: tuple[str, ...],
    live: bool,
    recorded: bool,
    detach: bool,
) -> Exit:
    """Make a fork and, unless detached, follow it; its outcome becomes the exit code."""
    if live and recorded:
        raise UsageError("--live and --recorded exclude each other", hint="keep one", code="cli.option")
    name, at_sign, place = run.partition("@")
    if at_sign and not place:
        raise UsageError(
            f"{run!r} names no point", hint="for example 3f2a@draft, or 3f2a@#123", code="cli.argument"
        )
    made = session.client().call(
        "run.fork",
        {
            "run": name,
            "at": place or None,
            "set": _values(set),
            "model": model,
            "agents": dict(_pair(word, "--agent", "draft=writer@formal") for word in agents),
            "deny": [each for word in deny for each in word.split(",") if each],
            "answers": "live" if live else "recorded",
            "origin": _origin(session),
        },
        timeout_s=ASK_S,
    )
    return _begun(session, made, detach=detach)


def retry(session: Session, *, run: str, node: str | None, detach: bool) -> Exit:
    """Try again what failed, as another run, and follow it."""
    asked = {"run": run, "node": node, "origin": _origin(session)}
    made = session.client().call("run.retry", asked, timeout_s=ASK_S)
    return _begun(session, made, detach=detach)


def resume(session: Session, *, run: str) -> Exit:
    """Follow a run that goes on; of one that ended, say so."""
    shown = session.ask("run.show", run=run)
    name, outcome = str(shown["run"]), shown["outcome"]
    if outcome is not None:
        again = f"'rlp fork {name[:8]}@<node>'" if outcome == "succeeded" else f"'rlp retry {name[:8]}'"
        raise ConflictError(
            f"run {name} {'was cancelled' if outcome == 'cancelled' else outcome} already",
            hint=f"{again} makes another run of it",
            code="resume.ended",
        )
    return follow(session, name)


def _begun(session: Session, made: dict[str, Any], *, detach: bool) -> Exit:
    run, console = str(made["run"]), session.console
    if session.json:
        console.json({"fork": made} if not detach else made)
    else:
        where = f" at {', '.join(made['at'])}" if made["at"] else ""
        console.say(f"fork of {made['fork_of']}{where}, {made['answers']} answers")
        if detach:
            console.data(run)
    if detach:
        return Exit.OK
    code = follow(session, run)
    if code is not Exit.PARKED and not session.json:
        console.say(f"'rlp diff {str(made['fork_of'])[:8]} {run[:8]}' compares the two")
    return code


def _origin(session: Session) -> dict[str, Any]:
    return {"via": "cli", "interactive": session.interactive}


def _values(words: Iterable[str]) -> dict[str, Any]:
    """``name=text`` and ``name:=JSON``; the daemon reads text by the type the opening declares."""
    values: dict[str, Any] = {}
    for word in words:
        name, text = _pair(word, "--set", "tone=formal")
        if name.removesuffix(":") in values:
            raise UsageError(f"--set {name} is given twice", hint="keep one", code="cli.param")
        if not name.endswith(":"):
            values[name] = text
            continue
        try:
            values[name.removesuffix(":")] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--set {word!r}: not JSON: {error}", code="cli.param") from error
    return values


def _pair(word: str, option: str, example: str) -> tuple[str, str]:
    name, equals, text = word.partition("=")
    if not equals or not name.strip(":"):
        raise UsageError(
            f"{option} {word!r} is not NAME=VALUE", hint=f"for example {option} {example}", code="cli.param"
        )
    return name, text
