"""One node's place in the talk of its run: it listens once, and keeps what it heard until somebody asks.

Knows: how to wait for a certain message by the host's recorded clock, what is late, how to ask one node and
how to answer questions. Does not know: any pattern built of that. Everything here is made of
``host.publish``, ``reply``, ``request``, ``subscribe``, ``hear`` and, where a time is given, ``now_ms``; so
what an outcome depends on is in the record, and a replay comes to the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from runloop import speech
from runloop.agent import Fail, Task
from runloop.host import Host, HostRefused

__all__ = ["REFUSALS", "Message", "Refuse", "Room", "Served", "ask", "order", "serve"]

Message = Mapping[str, Any]
"""As ``host.hear`` gives it: ``{message, from, to, act, conversation, in_reply_to, reply_by_ms, content,
sent_ms}``."""

REFUSALS = frozenset({"refuse", "failure", "not_understood"})
"""Acts that end a question without an answer."""
_MAX_WAIT_MS = 86_400_000


class Refuse(Exception):
    """Raise it while answering: the question is refused, in words for who asked."""


class Room:
    """What a node hears: its own mailbox and some topics, from the first message of the run on.

    Make one for the whole attempt: a second one would hear everything again.
    """

    def __init__(self, host: Host, me: str, *topics: str) -> None:
        """``me`` is this node's own address."""
        self.host = host
        self.me = me
        self.kept: list[Message] = []
        """Heard, and not yet wanted by anybody."""
        self.silent = False
        """Whether the last wait ended because nobody can speak any more."""
        self._stream = host.subscribe(*topics)

    @classmethod
    def enter(cls, task: Task, host: Host, *topics: str) -> Room:
        """The room of the node that a task is for."""
        return cls(host, speech.mailbox(str(task.context["node"])), *topics)

    def due(self, within_ms: int | None) -> int | None:
        """The time ``within_ms`` from now; None where there is no limit, and then the clock is not asked."""
        return None if within_ms is None else self.host.now_ms() + within_ms

    def take(self, wanted: Callable[[Message], bool], due_ms: int | None = None) -> Message | None:
        """The first message that is wanted, kept or as it comes. Others are kept, in order.

        None: the time is over, or nobody can speak any more (then :attr:`silent` is set). What was sent after
        ``due_ms`` is never taken, what was sent before it always is, however late this node looks.
        """
        self.silent = False
        for place, message in enumerate(self.kept):
            if _in_time(message, due_ms) and wanted(message):
                return self.kept.pop(place)
        while (heard := self._next(due_ms)) is not None:
            if _in_time(heard, due_ms) and wanted(heard):
                return heard
            self.kept.append(heard)
            if not _in_time(heard, due_ms):
                return None
        return None

    def _next(self, due_ms: int | None) -> Message | None:
        try:
            if due_ms is None:
                heard = self.host.hear(self._stream)
            else:
                left = min(max(due_ms - self.host.now_ms(), 0), _MAX_WAIT_MS)
                heard = self.host.hear(self._stream, timeout_ms=left)
        except TimeoutError:
            return None
        self.silent = heard is None
        return heard


def _in_time(message: Message, due_ms: int | None) -> bool:
    return due_ms is None or int(message["sent_ms"]) <= due_ms


def order(address: str) -> tuple[str, int]:
    """A key by which no two nodes are equal: by id, items of a mapped node by index."""
    place = speech.node_of(address)
    if place is None:
        raise Fail("collab.address", f"{address!r} is the address of no node")
    return place[0], -1 if place[1] is None else place[1]


# --- one question, one answer ---------------------------------------------------------------------


def ask(room: Room, to: str, content: Any, *, within_ms: int = 30_000, act: str = "request") -> Any:
    """The content of the answer of one node.

    Raises :class:`runloop.agent.Fail`: ``collab.refused`` for a refusal or failure, ``msg.timed_out``,
    ``msg.nobody``.
    """
    try:
        answer = room.host.request(to, content, act=act, timeout_ms=within_ms)
    except HostRefused as refused:
        if refused.code in ("msg.timed_out", "msg.nobody"):
            raise Fail(refused.code, refused.message) from refused
        raise
    if answer["act"] in REFUSALS:
        raise Fail("collab.refused", f"{to} answered {answer['act']}: {answer['content']}")
    return answer["content"]


class Served:
    """How many questions were answered, and how."""

    def __init__(self) -> None:
        self.answered = self.refused = self.failed = self.late = 0

    def to_json(self) -> dict[str, int]:
        """The four counts."""
        return {
            "answered": self.answered,
            "refused": self.refused,
            "failed": self.failed,
            "late": self.late,
        }


def serve(room: Room, answer: Callable[[Any], Any], *, acts: Iterable[str] = ("request", "query")) -> Served:
    """Answer every question with ``answer(content)`` until nobody is left to put one.

    An answer that raises :class:`Refuse` is a refusal, :class:`runloop.agent.Fail` a failure with its code;
    anything else ends the attempt. An answer that comes too late is counted, and not heard by anybody.
    """
    served, taken = Served(), frozenset(acts)
    while (question := room.take(lambda message: message["act"] in taken)) is not None:
        act, content = "inform", None
        try:
            content = answer(question["content"])
        except Refuse as refused:
            act, content = "refuse", {"why": str(refused)}
        except Fail as failed:
            act, content = "failure", {"code": failed.code, "message": failed.message}
        if not replied(room, question, content, act=act):
            served.late += 1
        elif act == "inform":
            served.answered += 1
        elif act == "refuse":
            served.refused += 1
        else:
            served.failed += 1
    return served


def replied(
    room: Room, message: Message, content: Any, *, act: str, reply_within_ms: int | None = None
) -> str | None:
    """The id of the answer that was given, or None where it was too late for one."""
    try:
        said = room.host.reply(message, content, act=act, reply_within_ms=reply_within_ms)
    except HostRefused as refused:
        if refused.code == "msg.late":
            return None
        raise
    return str(said["message"])
