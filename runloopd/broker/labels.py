"""Trust labels: where content came from, and that nothing made from it is trusted more (attacks.md P7).

Knows: the order of labels, and what the answer of each op is labelled. Does not know: who may do what: a
label grants nothing. A guest's every fact carries the lowest label among its own and everything its run has
heard, so that a summary, a memory or a note of an agent never looks better than what it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from runloop.ops import Args, FsList, FsRead, FsStat, HttpFetch, KbQuery, KbWhy, MemoryList, ToolCall

__all__ = ["UNKNOWN", "heard", "lowest", "may_be_private"]

UNKNOWN = "unknown"
"""Rows of a query name no source, so nobody can say where they came from."""

_RANKS: Mapping[str, int] = {
    "user": 4,
    "agent": 3,
    "model": 2,
    "import": 1,
    "file": 1,
    "web": 1,
    "tool": 1,
    "site": 1,
    "face": 1,
    "unknown": 0,
}
"""What stands before the colon -> trust. Content of the user's files and mail is other people's words."""


_TELLS_NOTHING = frozenset(
    {
        "artifact.put",
        "log.write",
        "mail.send",
        "model.complete",
        "model.embed",
        "msg.next",
        "msg.publish",
        "msg.reply",
        "msg.request",
        "msg.subscribe",
        "progress",
        "promise.create",
        "promise.resolve",
        "random.bytes",
        "secret.use",
        "time.now",
        "tool.list",
    }
)
"""Ops whose answers hold nothing of the user's that the tree of runs has not heard before."""


def may_be_private(op: str) -> bool:
    """Whether an answer of the op may hold what is the user's own. What is not known to be harmless may."""
    return op not in _TELLS_NOTHING


def _rank(label: str) -> int:
    return _RANKS.get(label.partition(":")[0], 0)


def lowest(*labels: str | None) -> str | None:
    """The label that is trusted least; the first among equals. None stands for the host itself: no label."""
    found = [label for label in labels if label is not None]
    return min(found, key=_rank) if found else None


def heard(args: Args) -> str | None:
    """The label of what an op without effect answers, where the op's own code cannot tell a better one."""
    match args:
        case KbQuery() | KbWhy() | MemoryList():
            return UNKNOWN
        case HttpFetch():
            return f"web:{urlsplit(args.url).hostname or ''}"
        case ToolCall():
            return f"tool:{args.tool}"
        case FsRead() | FsList() | FsStat():
            return "file:read"
    return None
