"""Decisions of many: a vote, the election of a leader, consensus. One node calls, all hear one outcome.

Knows: who counts, when it is decided, how the outcome is told. Does not know: why somebody says yes. Nothing
is drawn by chance, and no outcome depends on who was faster, only on who answered in time. Whoever took part
makes the outcome again from what it is told, and ends with ``collab.disagreement`` where it is another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from runloop.agent import Fail
from runloop.collab.fan import ALL, WHOEVER, Asked, Enough, FanIn, fan_in, fan_out
from runloop.collab.room import Message, Room, order, replied

__all__ = [
    "Agreement",
    "Elected",
    "Tally",
    "call_election",
    "put_to_vote",
    "seek_consensus",
    "stand",
    "take_part",
    "vote",
]

MAX_ROUNDS = 16
"""Of a consensus: each takes two of the 64 turns that a conversation may have."""


def _roll(members: Iterable[str], what: str) -> list[str]:
    roll = sorted(set(members), key=order)
    if not roll:
        raise Fail("collab.members", f"{what} without anybody")
    return roll


def _tell(room: Room, asked: Asked, outcome: Mapping[str, Any]) -> None:
    for one in asked.questions.values():
        room.host.publish(str(one["to"]), outcome, conversation=str(one["conversation"]))


def _call(room: Room, act: str, key: str, by: str | None) -> Message | None:
    return room.take(lambda one: one["act"] == act and key in _fields(one) and by in (None, one["from"]))


def _names(told: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Nodes that an outcome names; each once, or it is none."""
    names = told.get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Fail("collab.disagreement", f"the outcome names nobody under {key!r}: {names!r}")
    if len(set(names)) != len(names):
        raise Fail("collab.disagreement", f"the outcome counts somebody twice under {key!r}")
    return tuple(names)


def _outcome(room: Room, call: Message, key: str) -> dict[str, Any] | None:
    """What the caller tells of its call; None: nobody is left to tell it."""
    told = room.take(lambda one: _of(one, call) and one["act"] == "inform" and key in _fields(one))
    return None if told is None else dict(told["content"])


def _of(message: Message, call: Message) -> bool:
    """Whether it is said by who called, in that conversation, to the same listeners."""
    return all(message[name] == call[name] for name in ("from", "conversation", "to"))


def _fields(message: Message) -> Mapping[str, Any]:
    content = message["content"]
    return content if isinstance(content, dict) else {}


def _disagree(what: str, told: Any, own: Any) -> Fail:
    return Fail("collab.disagreement", f"{what}: {told!r} was told, but it is {own!r}")


# --- vote -----------------------------------------------------------------------------------------


class Tally(NamedTuple):
    """The outcome of a vote."""

    passed: bool
    """Whether strictly more than half of all who may vote said yes: an even split fails."""
    ayes: tuple[str, ...]
    noes: tuple[str, ...]
    missing: tuple[str, ...]
    """Not heard when it was decided; they count like noes."""

    def to_json(self) -> dict[str, Any]:
        """As it is told to everybody."""
        return {
            "passed": self.passed,
            "ayes": list(self.ayes),
            "noes": list(self.noes),
            "missing": list(self.missing),
        }


def put_to_vote(
    room: Room, to: str | Iterable[str], motion: Any, voters: Iterable[str], *, within_ms: int | None = None
) -> Tally:
    """Put a motion to voters, at a topic or their mailboxes, count, and tell everybody.

    It is over when all voted, after ``within_ms``, or when nobody is left. Each has one vote, its first.
    """
    roll = _roll(voters, "a vote")
    asked = fan_out(
        room, [to] if isinstance(to, str) else to, {"motion": motion}, act="propose", within_ms=within_ms
    )
    cast = fan_in(room, asked, WHOEVER, expected=roll, acts=("accept", "reject"))
    ayes = tuple(name for name in roll if name in cast.answers and cast.answers[name]["act"] == "accept")
    noes = tuple(
        name
        for name in roll
        if name in cast.refusals or (name in cast.answers and cast.answers[name]["act"] == "reject")
    )
    missing = tuple(name for name in roll if name not in ayes and name not in noes)
    tally = Tally(_more_than_half(len(ayes), len(roll)), ayes, noes, missing)
    _tell(room, asked, tally.to_json())
    return tally


def _more_than_half(ayes: int, of: int) -> bool:
    return 2 * ayes > of


def vote(room: Room, judge: Callable[[Any], bool], *, by: str | None = None) -> Tally | None:
    """Vote on the next motion, and hear the outcome; None where no motion comes any more, or no outcome.

    ``by``: who may put one; left out, anybody.
    """
    call = _call(room, "propose", "motion", by)
    if call is None:
        return None
    yes = bool(judge(call["content"]["motion"]))
    replied(room, call, None, act="accept" if yes else "reject")
    told = _outcome(room, call, "ayes")
    if told is None:
        return None
    ayes, noes, missing = (_names(told, name) for name in ("ayes", "noes", "missing"))
    roll = (*ayes, *noes, *missing)
    own = _more_than_half(len(ayes), len(roll))
    if told.get("passed") is not own or len(set(roll)) != len(roll):
        raise _disagree("the vote", told.get("passed"), own)
    if room.me in (noes if yes else ayes):
        raise _disagree("my vote", "no" if yes else "yes", "yes" if yes else "no")
    return Tally(own, ayes, noes, missing)


# --- election -------------------------------------------------------------------------------------


class Elected(NamedTuple):
    """The outcome of an election."""

    leader: str | None
    """None: nobody stood in time."""
    stood: tuple[str, ...]
    """By id."""


def call_election(
    room: Room,
    topic: str,
    candidates: Iterable[str],
    *,
    within_ms: int | None = None,
    highest: bool = False,
    stand: bool = False,
) -> Elected:
    """Ask who stands, and tell everybody who leads: the smallest id (or ``highest``) of those in time.

    ``stand``: whether the caller, too, is a candidate. Ids are unique, so there is no tie.
    """
    roll = [one for one in _roll(candidates, "an election") if one != room.me]
    asked = fan_out(room, [topic], {"highest": highest}, act="query", within_ms=within_ms)
    came = fan_in(room, asked, WHOEVER, expected=roll)
    stood = tuple(sorted({*came.answers, *([room.me] if stand else [])}, key=order))
    leader = _leader(stood, highest)
    _tell(room, asked, {"leader": leader, "stood": list(stood)})
    return Elected(leader, stood)


def _leader(stood: Sequence[str], highest: bool) -> str | None:
    if not stood:
        return None
    return max(stood, key=order) if highest else min(stood, key=order)


def stand(room: Room, *, willing: bool = True, by: str | None = None) -> Elected | None:
    """Stand in the next election, or decline, and hear who leads; None where no outcome comes any more.

    ``by``: who may call it; left out, anybody. It cannot count somebody who declined, or name another leader
    than the rule does.
    """
    call = _call(room, "query", "highest", by)
    if call is None:
        return None
    in_time = replied(room, call, None, act="inform" if willing else "refuse")
    told = _outcome(room, call, "stood")
    if told is None:
        return None
    stood = _names(told, "stood")
    leader = _leader(stood, bool(call["content"]["highest"]))
    if told.get("leader") != leader:
        raise _disagree("the leader", told.get("leader"), leader)
    if room.me in stood and not (willing and in_time):
        raise _disagree("who stood", room.me, None)
    return Elected(leader, stood)


# --- consensus ------------------------------------------------------------------------------------


class Agreement(NamedTuple):
    """The outcome of a consensus."""

    agreed: bool
    value: Any
    """What was agreed, or proposed last."""
    rounds: int
    accepted: tuple[str, ...]
    """Who accepted in the last round, by id."""

    def to_json(self) -> dict[str, Any]:
        """As it is told to everybody."""
        return {
            "agreed": self.agreed,
            "value": self.value,
            "rounds": self.rounds,
            "accepted": list(self.accepted),
        }


def seek_consensus(
    room: Room,
    to: str | Iterable[str],
    members: Iterable[str],
    merge: Callable[[Mapping[str, Any]], Any],
    *,
    about: Any = None,
    enough: Enough = ALL,
    rounds: int = 5,
    within_ms: int | None = None,
) -> Agreement:
    """Hear everybody's position, propose what ``merge`` makes of them, and again until enough accept.

    ``merge`` gets ``{member: position}`` in the order of ids; who rejects gives a new position. ``enough`` is
    :data:`ALL` or :data:`MAJORITY` of the members. ``within_ms`` is for each turn.
    """
    roll = _roll(members, "a consensus")
    if not 1 <= rounds <= MAX_ROUNDS:
        raise Fail("collab.rounds", f"a consensus has 1 to {MAX_ROUNDS} rounds, not {rounds}")
    asked = fan_out(
        room, [to] if isinstance(to, str) else to, {"about": about}, act="query", within_ms=within_ms
    )
    positions = dict(fan_in(room, asked, WHOEVER, expected=roll).answers)
    held = {name: message["content"] for name, message in positions.items()}
    value, number = None, 0
    accepted: tuple[str, ...] = ()
    while held and number < rounds:
        number += 1
        value = merge({name: held[name] for name in roll if name in held})
        turn = _propose(room, asked, {"value": value, "round": number}, within_ms)
        came = fan_in(room, turn, WHOEVER, expected=roll, acts=("accept", "reject"))
        accepted, held = _judged(came, roll, held)
        if len(accepted) >= enough.least(len(roll)):
            break
    agreed = number > 0 and len(accepted) >= enough.least(len(roll))
    outcome = Agreement(agreed, value, number, accepted)
    _tell(room, asked, outcome.to_json())
    return outcome


def _propose(room: Room, asked: Asked, content: Any, within_ms: int | None) -> Asked:
    """A proposal in each of the conversations."""
    proposed: dict[str, Message] = {}
    for one in asked.questions.values():
        said = room.host.publish(
            str(one["to"]),
            content,
            act="propose",
            conversation=str(one["conversation"]),
            reply_within_ms=within_ms,
        )
        proposed[str(said["message"])] = {**said, "to": one["to"]}
    return Asked(proposed, room.due(within_ms))


def _judged(
    came: FanIn, roll: Sequence[str], held: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Who accepted, and what everybody holds now."""
    accepted = tuple(name for name in roll if name in came.answers and came.answers[name]["act"] == "accept")
    moved = {
        name: message["content"]["position"]
        for name, message in came.answers.items()
        if message["act"] == "reject" and "position" in _fields(message)
    }
    return accepted, {**held, **moved}


def take_part(
    room: Room,
    position: Callable[[Any], Any],
    judge: Callable[[Any], tuple[bool, Any]],
    *,
    by: str | None = None,
) -> Agreement | None:
    """Take part in the next consensus, and hear its outcome; None where none comes any more.

    ``position(about)`` is what this node holds at first; ``judge(value)`` gives whether it accepts a
    proposal, and what it holds now. ``by``: who may call; left out, anybody.
    """
    call = _call(room, "query", "about", by)
    if call is None:
        return None
    replied(room, call, position(call["content"]["about"]), act="inform")
    mine: tuple[bool, Any] = False, None
    """Whether I accepted the last proposal, and what it was."""
    while True:
        turn = room.take(lambda one: _of(one, call) and one["act"] in ("propose", "inform"))
        if turn is None:
            return None
        content = _fields(turn)
        if turn["act"] == "inform":
            agreed, rounds = content.get("agreed") is True, content.get("rounds")
            if not isinstance(rounds, int):
                raise Fail("collab.disagreement", f"the outcome is of no round: {rounds!r}")
            accepted = _names(content, "accepted")
            if room.me in accepted and mine != (True, content.get("value")):
                raise _disagree("what I accepted", content.get("value"), mine[1])
            return Agreement(agreed, content.get("value"), rounds, accepted)
        yes, now = judge(content.get("value"))
        mine = yes, content.get("value")
        replied(room, turn, {"position": now}, act="accept" if yes else "reject")
