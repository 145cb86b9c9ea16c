"""``rlp "<prompt>"``: route a wish in plain words and act on it."""

from __future__ import annotations

from rlp.commands.run import start
from rlp.commands.why import decide
from rlp.prepare import parameters, prepare
from rlp.session import Session
from runloop.errors import RefusedError, UsageError
from runloop.exits import Exit

__all__ = ["prompt"]


def prompt(session: Session, *, text: str, params: tuple[str, ...] = ()) -> Exit:
    """Run the opening a prompt means. Shell lines are named, not executed; denied ones are refused."""
    found = decide(session, text)
    match found.kind:
        case "denied":
            raise RefusedError(
                f"this is never run: {found.reason}", hint="'rlp why' explains the rule", code="route.denied"
            )
        case "shell":
            raise UsageError(
                f"this is a shell line ({found.reason})",
                hint="type it into your shell; rlp runs openings",
                code="route.shell",
            )
        case "agent":
            raise UsageError(
                f"no opening matches this wish ({found.reason})",
                hint="'rlp list' shows what can be run; 'rlp why' explains the route",
                code="route.agent",
            )
    assert found.target is not None
    session.console.say(f"rlp: {found.target} ({found.reason})")
    given = dict(found.params)
    if params:
        from openings.load import find, read

        given |= parameters(read(find(found.target, session.paths.openings_dirs)), params)
    return start(session, prepare(session, found.target, given), prompt=text)
