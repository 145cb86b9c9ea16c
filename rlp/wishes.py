"""What a wish in plain words is turned into, whoever hands it in: the prompt, an editor, a golden task.

Knows: the assistant's opening, what is said to a line that is no wish. Does not know: how a run is submitted
or followed.
"""

from __future__ import annotations

from openings.router import Route
from runloop.errors import RefusedError, UsageError

__all__ = ["ASSISTANT", "refuse", "words_of"]

ASSISTANT = "assistant"
"""The opening that does what no other fits."""


def words_of(text: str) -> str:
    """The wish itself, without the mark that says it is one."""
    return text.strip().removeprefix("?").strip()


def refuse(found: Route, *, where: str) -> None:
    """Raise for a line that is never run, and for one that is a shell's. ``where``: to type it instead."""
    if found.kind == "denied":
        raise RefusedError(
            f"this is never run: {found.reason}", hint="'rlp why' explains the rule", code="route.denied"
        )
    if found.kind == "shell":
        raise UsageError(
            f"this is a shell line ({found.reason})",
            hint=f"{where}; to have the assistant read it, begin with '?'",
            code="route.shell",
        )
