"""``rlp why`` and ``rlp route``: where a prompt goes and by which rule. Needs no daemon, runs nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rlp.session import Session
from runloop.errors import UsageError
from runloop.exits import Exit

if TYPE_CHECKING:
    from openings.router import Route

__all__ = ["decide", "read_prompt", "route", "why"]

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
_MAX_STDIN = 65_536


def decide(session: Session, text: str, told: Collection[str] = ()) -> Route:
    """Ask the router, with the openings of this home and this machine, and the commands of this machine.

    ``told``: words that the asking shell knows as commands of its own. The session is one of a wish: what
    lies in ``./openings`` is run by its name alone.
    """
    assert not session.here, "a wish does not choose among what lies in the folder one stands in"
    from openings import router
    from rlp.catalog import routable
    from rlp.known import Known

    known = Known(session.environ, router.COMMANDS, told)
    return router.route(text, routable(session), commands=known)


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
    for name, value in found.params.items():
        console.data(f"param     {name} = {value}")
    for name, value in found.features.items():
        console.data(f"feature   {name} = {f'{value:g}' if isinstance(value, float) else value}")
    for other in found.others:
        told = f"{other.name} ({other.score:.2f}: {other.goal})"
        console.data(f"not       {told}: {other.why or 'something else came first'}")
    return Exit.OK


def route(
    session: Session, *, prompt: tuple[str, ...], known: tuple[str, ...] = (), timeout_ms: int | None = None
) -> Exit:
    """Decide and say so by the exit code: 10 shell, 11 agent or opening, 12 not in time, 13 denied.

    A prompt of ``-`` is read from stdin: what is typed at a prompt may hold a secret, and arguments are seen
    by everybody on the machine.
    """
    with _deadline(timeout_ms):
        found = decide(session, read_prompt(session) if prompt == ("-",) else " ".join(prompt), known)
    if session.json:
        session.console.json(found.to_json())
    elif found.kind == "denied":
        session.console.data(f"denied: {found.reason}")
    else:
        session.console.data(found.kind + (f" {found.target}" if found.target else ""))
    return _EXITS[found.kind]


def read_prompt(session: Session) -> str:
    """The prompt, from stdin."""
    if session.stdin is None:
        raise UsageError("there is no stdin to read the prompt from", hint="give the prompt as words")
    text = session.stdin.read(_MAX_STDIN + 1)
    if len(text) > _MAX_STDIN:
        raise UsageError(
            f"the prompt has more than {_MAX_STDIN} characters", hint="put a long text into a file"
        )
    return text


@contextmanager
def _deadline(timeout_ms: int | None) -> Iterator[None]:
    """End the process with exit 12 when the block is not done in time, whatever it waits for."""
    if timeout_ms is None:
        yield
        return
    import os
    import signal

    def too_late(*_: object) -> None:
        os.write(2, b"rlp: no decision in time\n")
        os._exit(int(Exit.ROUTE_TIMEOUT))

    before = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, timeout_ms / 1_000)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
