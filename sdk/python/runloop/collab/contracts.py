"""Contract net: call for proposals, take the best, have the work done; anew where nobody can or it fails.

Knows: rounds, late and missing bids, what is said to whom. Does not know: what a bid is worth (``choose``
does) or how the work is done. The choice is made of the bids in the order of their bidders' ids, so it does
not depend on who was faster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import isfinite
from typing import Any, Literal, NamedTuple

from runloop.agent import Fail
from runloop.collab.fan import WHOEVER, FanIn, fan_in, fan_out
from runloop.collab.room import Message, Refuse, Room, order, replied

__all__ = ["Award", "Bidder", "Bids", "Choose", "bid", "contract", "lowest"]

Bids = Sequence[tuple[str, Any]]
"""Bidder and bid, ordered by bidder."""
Choose = Callable[[Bids], str | None]
"""The bidder to be taken, or None where no bid will do."""


class Award(NamedTuple):
    """How a contract net ended."""

    outcome: Literal["done", "no_bid", "failed"]
    """``failed``: somebody was taken, and nobody delivered."""
    rounds: int
    """Calls for proposals that were made."""
    contractor: str | None = None
    bid: Any = None
    result: Any = None
    bids: int = 0
    """In time, in the last round."""
    failures: tuple[tuple[str, str], ...] = ()
    """Who was taken and did not deliver, and why."""

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "outcome": self.outcome,
            "rounds": self.rounds,
            "contractor": self.contractor,
            "bid": self.bid,
            "result": self.result,
            "bids": self.bids,
            "failures": [list(one) for one in self.failures],
        }


def lowest(field: str = "price", *, at_most: float | None = None) -> Choose:
    """The bid with the least number in a field; of equal ones, that of the smallest id. What is no bid with a
    finite number, or above ``at_most``, is passed over."""

    def choose(bids: Bids) -> str | None:
        best: tuple[float, str] | None = None
        for bidder, offer in bids:
            price = offer.get(field) if isinstance(offer, dict) else None
            if isinstance(price, bool) or not isinstance(price, int | float):
                continue
            if isinstance(price, float) and not isfinite(price):
                continue
            if (at_most is None or price <= at_most) and (best is None or price < best[0]):
                best = price, bidder
        return None if best is None else best[1]

    return choose


def contract(
    room: Room,
    to: str | Iterable[str],
    task: Any,
    *,
    bidders: Sequence[str] | int | None = None,
    choose: Choose | None = None,
    within_ms: int | None = None,
    work_within_ms: int | None = None,
    rounds: int = 1,
    terms: Callable[[Any, int], Any] = lambda task, number: task,
) -> Award:
    """Give a task to the best of those who bid for it.

    ``to``: a topic, then ``bidders`` says who may answer or how many do; or the bidders' addresses. A round
    ends when everybody answered, after ``within_ms``, or when nobody is left. Who is taken has
    ``work_within_ms``; if it fails or is late, the next round is made without it. ``terms(task, number)`` is
    what is called in round 1, 2, …
    """
    addresses = [to] if isinstance(to, str) else list(to)
    if rounds < 1:
        raise Fail("collab.rounds", f"a contract net has at least one round, not {rounds}")
    failures: list[tuple[str, str]] = []
    bids: list[tuple[str, Any]] = []
    for number in range(1, rounds + 1):
        asked = fan_out(room, addresses, terms(task, number), act="cfp", within_ms=within_ms)
        came = fan_in(room, asked, WHOEVER, expected=bidders, acts=("propose",))
        bids = _admitted(came, {name for name, _ in failures})
        chosen = (choose or lowest())(bids) if bids else None
        offers = dict(bids)
        if chosen is not None and chosen not in offers:
            raise Fail("collab.choice", f"{chosen!r} was chosen, and has made no bid")
        accepted = _settle(room, came, chosen, work_within_ms)
        if chosen is None or accepted is None:
            continue
        result, why = _delivered(room, chosen, accepted, room.due(work_within_ms))
        if why is None:
            return Award("done", number, chosen, offers[chosen], result, len(bids), tuple(failures))
        failures.append((chosen, why))
    return Award("failed" if failures else "no_bid", rounds, bids=len(bids), failures=tuple(failures))


def _admitted(came: FanIn, excluded: set[str]) -> list[tuple[str, Any]]:
    senders = sorted(came.answers.keys() - excluded, key=order)
    return [(sender, came.answers[sender]["content"]) for sender in senders]


def _settle(room: Room, came: FanIn, chosen: str | None, within_ms: int | None) -> str | None:
    """Tell every bidder; the id of the acceptance."""
    accepted = None
    if chosen is not None:
        accepted = replied(room, came.answers[chosen], None, act="accept", reply_within_ms=within_ms)
    for sender, proposal in came.answers.items():
        if sender != chosen:
            replied(room, proposal, None, act="reject")
    return accepted


def _delivered(room: Room, contractor: str, accepted: str, due_ms: int | None) -> tuple[Any, str | None]:
    """Result, and why there is none."""
    message = room.take(
        lambda one: one["in_reply_to"] == accepted and one["act"] in ("inform", "failure", "not_understood"),
        due_ms,
    )
    if message is None:
        return None, "silent" if room.silent else "late"
    return message["content"], None if message["act"] == "inform" else str(message["act"])


# --- the other side -------------------------------------------------------------------------------


class Bidder:
    """What a bidder lived through; ``late`` are bids and results that came too late."""

    def __init__(self) -> None:
        self.calls = self.bids = self.late = self.lost = self.done = self.failed = 0

    def to_json(self) -> dict[str, int]:
        """The counts."""
        return dict(vars(self))


def bid(
    room: Room, offer: Callable[[Any], Any], work: Callable[[Any, Any], Any], *, by: str | None = None
) -> Bidder:
    """Answer calls for proposals, and do what was won, until nobody is left.

    ``offer(task)`` is the bid; None, or :class:`Refuse`, is a refusal. ``work(task, bid)`` is the result; it
    may raise :class:`runloop.agent.Fail`. ``by``: whose calls are heard; left out, anybody's.
    """
    life = Bidder()
    made: dict[str, tuple[Message, Any]] = {}
    while (message := room.take(lambda one: _concerns(one, made, by))) is not None:
        if message["act"] == "cfp":
            life.calls += 1
            _offer(room, message, offer, made, life)
            continue
        call, offered = made.pop(str(message["in_reply_to"]))
        if message["act"] == "reject":
            life.lost += 1
        else:
            _deliver(room, message, partial(work, call["content"], offered), life)
    return life


def _concerns(message: Message, made: dict[str, tuple[Message, Any]], by: str | None) -> bool:
    if message["act"] == "cfp":
        return by in (None, message["from"])
    mine = made.get(str(message["in_reply_to"]))
    return mine is not None and message["act"] in ("accept", "reject") and message["from"] == mine[0]["from"]


def _offer(
    room: Room,
    call: Message,
    offer: Callable[[Any], Any],
    made: dict[str, tuple[Message, Any]],
    life: Bidder,
) -> None:
    try:
        offered, why = offer(call["content"]), None
    except Refuse as refused:
        offered, why = None, {"why": str(refused)}
    act = "refuse" if offered is None else "propose"
    said = replied(room, call, why if offered is None else offered, act=act)
    if said is None:
        life.late += 1
    elif offered is not None:
        made[said] = call, offered
        life.bids += 1


def _deliver(room: Room, accepted: Message, work: Callable[[], Any], life: Bidder) -> None:
    act, content = "inform", None
    try:
        content = work()
    except Fail as failed:
        act, content = "failure", {"code": failed.code, "message": failed.message}
    if replied(room, accepted, content, act=act) is None:
        life.late += 1
    elif act == "inform":
        life.done += 1
    else:
        life.failed += 1
