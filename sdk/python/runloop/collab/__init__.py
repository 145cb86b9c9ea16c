"""Patterns of collaboration for agents of one run, made of messages only.

    from runloop.collab import Room, fan_in, fan_out, first

    room = Room.enter(task, host)
    asked = fan_out(room, ["node/a", "node/b", "node/c"], {"symbol": "ACME"}, within_ms=5_000)
    prices = fan_in(room, asked, first(2)).contents()

Knows: fan-out and fan-in, barrier, contract net, vote, election, consensus, MAP_REDUCE, PIPELINE. Does not
know: how messages travel, or who may talk: the daemon checks every act, conversation and reply. Served to
agents as source, so it imports nothing but the standard library and what agents have; and a pattern is
compiled when somebody imports it, for in a guest that takes longer than most agents' work.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runloop.collab.contracts import Award, Bidder, bid, contract, lowest
    from runloop.collab.decide import (
        Agreement,
        Elected,
        Tally,
        call_election,
        put_to_vote,
        seek_consensus,
        stand,
        take_part,
        vote,
    )
    from runloop.collab.fan import (
        ALL,
        MAJORITY,
        WHOEVER,
        Asked,
        Enough,
        FanIn,
        barrier,
        collect,
        fan_in,
        fan_out,
        first,
        scatter,
    )
    from runloop.collab.flow import Mapped, Piped, drain, feed, map_over, map_reduce, stage
    from runloop.collab.room import Message, Refuse, Room, Served, ask, serve

__all__ = [
    "ALL",
    "MAJORITY",
    "WHOEVER",
    "Agreement",
    "Asked",
    "Award",
    "Bidder",
    "Elected",
    "Enough",
    "FanIn",
    "Mapped",
    "Message",
    "Piped",
    "Refuse",
    "Room",
    "Served",
    "Tally",
    "ask",
    "barrier",
    "bid",
    "call_election",
    "collect",
    "contract",
    "drain",
    "fan_in",
    "fan_out",
    "feed",
    "first",
    "lowest",
    "map_over",
    "map_reduce",
    "put_to_vote",
    "scatter",
    "seek_consensus",
    "serve",
    "stage",
    "stand",
    "take_part",
    "vote",
]

_NAMES = {
    "contracts": "Award Bidder bid contract lowest",
    "decide": "Agreement Elected Tally call_election put_to_vote seek_consensus stand take_part vote",
    "fan": "ALL MAJORITY WHOEVER Asked Enough FanIn barrier collect fan_in fan_out first scatter",
    "flow": "Mapped Piped drain feed map_over map_reduce stage",
    "room": "Message Refuse Room Served ask serve",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
