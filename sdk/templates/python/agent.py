"""Finds what a text asks of its reader: things to do, questions, and by when.

``handle`` serves the nodes of an opening; ``requests`` is a tool that others can call, its schemas made from
the type hints. Both run in the sandbox: no files, no network, no clock, but what ``host`` offers and
``policy.caps`` grants.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from runloop.agent import Fail, Result, Task, handler, tool
from runloop.host import Host

TODO = re.compile(r"\s*(?:[-*]\s+)?(?:\[ \]|todo:?|please,?)\s+(?P<what>.+)", re.IGNORECASE)
DATE = re.compile(r"\b\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])\b")


@dataclass(frozen=True)
class Request:
    """One thing that a text asks for."""

    kind: Literal["todo", "question"]
    line: int
    text: str
    due: str | None = None


@tool("__NAME__.requests")
def requests(text: str, limit: Annotated[int, "at most this many"] = 100) -> list[Request]:
    """What a text asks of its reader, in the order it asks."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        todo, due = TODO.fullmatch(line), DATE.search(line)
        if todo is not None:
            found.append(Request("todo", number, todo["what"].strip(), due and due[0]))
        elif line.rstrip().endswith("?"):
            found.append(Request("question", number, line.strip(), due and due[0]))
    return found[:limit]


@handler
def handle(task: Task, host: Host) -> Result:
    """The text on port ``text``, or under ``with``, -> what it asks for on port ``out``."""
    text = task.port("text", None) or task.param("text", "")
    if not isinstance(text, str) or not text.strip():
        raise Fail("__NAME__.empty", "there is no text to read")
    found = requests(text)
    host.log(f"found {len(found)} requests", lines=len(text.splitlines()))
    return Result.of(
        out={
            "todos": [request.text for request in found if request.kind == "todo"],
            "questions": [request.text for request in found if request.kind == "question"],
            "next_due": min((request.due for request in found if request.due), default=None),
        }
    )
