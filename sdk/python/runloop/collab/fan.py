"""Ask many, hear as many as are needed: fan-out, fan-in, and the barrier.

Knows: how many answers are enough, and when there is no use in waiting. Does not know: what answers mean.
Of each sender the first answer in the order of the ledger counts; an outcome is a function of the messages
that were sent in time, and ``contents`` come in the order of who was expected, not of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from runloop.agent import Fail
from runloop.collab.room import REFUSALS, Message, Room, order
from runloop.speech import is_topic

__all__ = [
    "ALL",
    "MAJORITY",
    "WHOEVER",
    "Asked",
    "Enough",
    "FanIn",
    "barrier",
    "collect",
    "fan_in",
    "fan_out",
    "first",
    "scatter",
]

Ended = Literal["enough", "impossible", "late", "silent"]


class Enough(NamedTuple):
    """A rule: with so many answers of so many expected ones a fan-in is over, or in vain."""

    name: str
    stop: Callable[[int], int]
    """Number expected -> answers with which no more are waited for."""
    least: Callable[[int], int]
    """Number expected -> answers without which the fan-in failed."""


ALL = Enough("all", lambda n: n, lambda n: n)
"""Everybody; over at the first refusal."""
MAJORITY = Enough("majority", lambda n: n // 2 + 1, lambda n: n // 2 + 1)
"""Strictly more than half of those expected."""
WHOEVER = Enough("whoever", lambda n: n, lambda n: 0)
"""Complete or timeout: everybody is waited for, and whoever answered in time is enough."""


def first(k: int) -> Enough:
    """The first ``k`` answers."""
    if k < 1:
        raise Fail("collab.rule", f"the first {k} answers are no answers; use 1 or more")
    return Enough(f"first {k}", lambda n: k, lambda n: k)


class Asked(NamedTuple):
    """Questions that are out."""

    questions: Mapping[str, Message]
    """Message id -> ``{message, conversation, to}``."""
    due_ms: int | None
    """Until when an answer counts."""

    @property
    def to(self) -> list[str]:
        """Whom they went to."""
        return [str(one["to"]) for one in self.questions.values()]


class FanIn(NamedTuple):
    """What came of it."""

    met: bool
    """Whether there were enough answers."""
    ended: Ended
    answers: dict[str, Message]
    """Sender -> its answer, in the order of the ledger."""
    refusals: dict[str, Message]
    missing: list[str]
    """Expected by name, and not heard when it ended."""
    asked: tuple[str, ...]
    """Expected by name, in that order."""

    def contents(self) -> dict[str, Any]:
        """Sender -> content, in the order in which they were expected, or by id: never by arrival."""
        senders = [name for name in self.asked if name in self.answers]
        senders += sorted(self.answers.keys() - set(senders), key=order)
        return {name: self.answers[name]["content"] for name in senders}

    def values(self) -> list[Any]:
        """The contents without their senders."""
        return list(self.contents().values())


def fan_out(
    room: Room, to: Iterable[str], content: Any, *, act: str = "request", within_ms: int | None = None
) -> Asked:
    """Put one question to many addresses: mailboxes, or a topic where everybody listens."""
    return scatter(room, dict.fromkeys(to, content), act=act, within_ms=within_ms)


def scatter(
    room: Room, contents: Mapping[str, Any], *, act: str = "request", within_ms: int | None = None
) -> Asked:
    """Put to each address a question of its own, each a conversation: ``{address: content}``.

    The host refuses answers after ``within_ms`` (milliseconds).
    """
    questions: dict[str, Message] = {}
    for to, content in contents.items():
        said = room.host.publish(to, content, act=act, reply_within_ms=within_ms)
        questions[str(said["message"])] = {**said, "to": to}
    return Asked(questions, room.due(within_ms))


def fan_in(
    room: Room,
    asked: Asked,
    enough: Enough = ALL,
    *,
    expected: Sequence[str] | int | None = None,
    acts: Iterable[str] = ("inform",),
) -> FanIn:
    """Hear the answers to questions, until there are enough, it is in vain, it is late, or nobody is left.

    ``expected``: who answers (left out: whom was asked), or how many do where a topic was asked; ``acts`` are
    answers, refuse, failure and not_understood are refusals, anything else is kept in the room.
    """
    if expected is None and any(is_topic(to) for to in asked.to):
        raise Fail("collab.expected", "a topic was asked; say who is expected to answer, or how many are")
    return collect(
        room,
        asked.to if expected is None else expected,
        lambda message: message["in_reply_to"] in asked.questions,
        enough,
        due_ms=asked.due_ms,
        acts=acts,
    )


def collect(
    room: Room,
    expected: Sequence[str] | int,
    wanted: Callable[[Message], bool],
    enough: Enough = ALL,
    *,
    due_ms: int | None = None,
    acts: Iterable[str] = ("inform",),
) -> FanIn:
    """Hear the first wanted message of each expected sender; for what is said without being asked."""
    names = None if isinstance(expected, int) else frozenset(expected)
    count = expected if isinstance(expected, int) else len(frozenset(expected))
    taken = frozenset(acts)
    answers: dict[str, Message] = {}
    refusals: dict[str, Message] = {}
    stop, least = enough.stop(count), enough.least(count)

    def fits(message: Message) -> bool:
        known = names is None or message["from"] in names
        return known and message["act"] in taken | REFUSALS and wanted(message)

    ended: Ended | None = None
    while ended is None:
        open_still = count - len(answers) - len(refusals)
        if len(answers) >= stop:
            ended = "enough"
        elif len(answers) + open_still < least:
            ended = "impossible"
        elif open_still <= 0:
            ended = "enough"
        elif (message := room.take(fits, due_ms)) is None:
            ended = "silent" if room.silent else "late"
        elif message["from"] not in answers and message["from"] not in refusals:
            (answers if message["act"] in taken else refusals)[str(message["from"])] = message
    asked = () if isinstance(expected, int) else tuple(dict.fromkeys(expected))
    missing = [name for name in asked if name not in answers and name not in refusals]
    return FanIn(len(answers) >= least, ended, answers, refusals, missing, asked)


# --- barrier --------------------------------------------------------------------------------------


def barrier(
    room: Room,
    topic: str,
    members: Iterable[str],
    *,
    name: str = "",
    number: int = 1,
    within_ms: int | None = None,
) -> list[str]:
    """Wait until every member came here; all of them call it with the same words. Gives who came, by id.

    Nobody gets through before everybody's arrival is on record. ``number`` tells passages of the same members
    apart. Raises :class:`runloop.agent.Fail` ``collab.barrier`` where somebody does not come in time, or can
    no more; with a time limit that may be so for one member and not for another.
    """
    everybody = sorted(set(members), key=order)
    if room.me not in everybody:
        raise Fail("collab.barrier", f"{room.me} is no member of the barrier")
    mark = {"barrier": name, "number": number}
    room.host.publish(topic, mark)
    others = [one for one in everybody if one != room.me]
    came = collect(
        room,
        others,
        lambda message: message["to"] == topic and message["content"] == mark,
        ALL,
        due_ms=room.due(within_ms),
    )
    if not came.met:
        why = "can speak any more" if came.ended == "silent" else f"came within {within_ms} ms"
        raise Fail("collab.barrier", f"not everybody {why}; missing: {', '.join(came.missing)}")
    return everybody
