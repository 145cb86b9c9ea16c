"""``rlp "<prompt>"``: route a wish in plain words and act on it."""

from __future__ import annotations

from typing import Any

from rlp.answering import Answering
from rlp.commands.run import Following, start, submit
from rlp.commands.why import decide, read_prompt
from rlp.prepare import parameters, prepare
from rlp.session import Session
from rlp.wishes import ASSISTANT, refuse, words_of
from runloop.errors import UsageError
from runloop.exits import Exit

__all__ = ["prompt"]


def prompt(
    session: Session,
    *,
    text: str,
    params: tuple[str, ...] = (),
    continued: bool = False,
    detach: bool = False,
) -> Exit:
    """Run the opening a prompt means, or have the assistant do what it asks. Shell lines are named, not
    executed; denied ones are refused. A text of ``-`` is read from stdin, as ``rlp route`` does.

    The session knows nothing of the folder one stands in.
    """
    if text == "-":
        text = read_prompt(session)
    found = decide(session, text)
    if found.kind == "agent" or (continued and found.kind != "denied"):
        return _wish(session, text, params, continued, detach)
    refuse(found, where="type it into your shell")
    assert found.target is not None
    session.console.say(f"rlp: {found.target} ({found.reason})")
    given = dict(found.params)
    if params:
        from openings.load import find, read

        given |= parameters(read(find(found.target, session.openings_dirs)), params)
    return start(session, prepare(session, found.target, given), detach=detach, prompt=text)


def _wish(session: Session, text: str, params: tuple[str, ...], continued: bool, detach: bool) -> Exit:
    """Have the assistant do it, and follow it to its answer."""
    from openings.load import find

    if params:
        raise UsageError(
            "-p gives a parameter to an opening, and no opening fits this wish",
            hint="'rlp why' shows where it goes; 'rlp run OPENING -p …' runs one by name",
            code="route.params",
        )
    wish = words_of(text)
    if not wish:
        raise UsageError(
            "there is nothing in the wish", hint='say what you want: rlp "…"', code="route.empty"
        )
    path = find(ASSISTANT, session.openings_dirs)
    given = {"prompt": wish, "continued": continued}
    wished = prepare(session, str(path), given)
    if detach:
        return start(session, wished, detach=True, prompt=text)
    run_id = submit(session, wished, prompt=text)
    return _Wish(session, run_id).to_the_end()


class _Wish(Following):
    """The run of a wish being watched."""

    def __init__(self, session: Session, run_id: str) -> None:
        self._shown = Answering(session.console)
        super().__init__(session, run_id, self._shown)

    def _take(self, event: dict[str, Any]) -> None:
        if self._session.json:
            self._shown.take_in(event)
        super()._take(event)

    def _delta(self, delta: dict[str, Any]) -> None:
        if not self._session.json:
            self._shown.delta(delta)

    def _closing(self) -> Exit:
        if self._session.json and self._finished is not None:
            self._finished = {**self._finished, "answer": self._shown.outcome.get("answer")}
        return super()._closing()

    def _exit(self, finished: dict[str, Any]) -> Exit:
        """As of any run; and what a person refused on the way was not done, whatever the answer says."""
        code = super()._exit(finished)
        return Exit.REFUSED if code is Exit.OK and self._shown.denied else code
