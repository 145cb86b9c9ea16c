"""``rlp opening``: openings as texts. Needs no daemon and executes nothing."""

from __future__ import annotations

from rlp.session import Session
from runloop.errors import UsageError
from runloop.exits import Exit

__all__ = ["show"]


def show(session: Session, *, opening: str, yaml: bool, brace: bool) -> Exit:
    """The definition in one of its two syntaxes, written anew; what is wrong with the text is told first."""
    from openings.load import find, read
    from openings.write import to_brace, to_yaml

    if yaml and brace:
        raise UsageError("--yaml and --brace exclude each other", hint="take one", code="cli.options")
    made = read(find(opening, session.paths.openings_dirs))
    if session.json:
        session.console.json({"digest": made.digest, **made.to_json()})
        return Exit.OK
    session.console.text((to_brace if brace else to_yaml)(made).rstrip("\n"))
    return Exit.OK
