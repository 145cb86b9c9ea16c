"""``rlp why`` and ``rlp route``: where a prompt goes and by which rule. Needs no daemon, runs nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rlp.session import Session
from runloop.exits import Exit

if TYPE_CHECKING:
    from openings.router import Route

__all__ = ["decide", "route", "why"]

_REF = re.compile(
    r"#?\d+\Z|msg:\d+\Z|ap_[0-9a-f]{6,}\Z|[0-9a-f]{8,64}\Z|[0-9a-f]{8}-[0-9a-f-]{4,27}\Z|<\S+@\S+>\Z",
    re.ASCII,
)
"""What is an id and surely not a prompt."""
_EXITS = {
    "shell": Exit.ROUTE_SHELL,
    "agent": Exit.ROUTE_AGENT,
    "opening": Exit.ROUTE_AGENT,
    "denied": Exit.ROUTE_DENIED,
}


def decide(session: Session, text: str) -> Route:
    """Ask the router, with the openings that can be found from here."""
    from openings import router
    from rlp.catalog import routable

    return router.route(text, routable(session))


def why(session: Session, *, prompt: tuple[str, ...]) -> Exit:
    """Explain a prompt's route; an id is explained from the ledger instead."""
    text = " ".join(prompt)
    if _REF.match(text):
        from rlp.commands.kb import why as why_ref

        return why_ref(session, ref=text.removeprefix("#"), impact=False)
    found = decide(session, text)
    if session.json:
        session.console.json(found.to_json())
        return Exit.OK
    console = session.console
    console.data(f"route     {found.kind}" + (f" {found.target}" if found.target else ""), "bold")
    console.data(f"rule      {found.rule}")
    console.data(f"reason    {found.reason}")
    for name, value in (found.params or {}).items():
        console.data(f"param     {name} = {value}")
    for name, value in (found.features or {}).items():
        console.data(f"feature   {name} = {value}")
    return Exit.OK


def route(session: Session, *, prompt: tuple[str, ...]) -> Exit:
    """Decide and say so by the exit code: 10 shell, 11 agent or opening, 13 denied."""
    found = decide(session, " ".join(prompt))
    if session.json:
        session.console.json(found.to_json())
    else:
        session.console.data(f"{found.kind}" + (f" {found.target}" if found.target else ""))
    return _EXITS[found.kind]
