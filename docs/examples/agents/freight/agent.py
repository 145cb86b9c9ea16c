"""Contract net: who brings the load, and for how much?"""

from __future__ import annotations

from math import asin, ceil, cos, radians, sin, sqrt
from typing import Any

from runloop.agent import Fail, Result, Task, handler
from runloop.collab import Refuse, Room, bid, contract
from runloop.host import Host

TOPIC = "talk/loads"


@handler
def handle(task: Task, host: Host) -> Result:
    """``role`` dispatcher or carrier."""
    room = Room.enter(task, host, TOPIC)
    return Result.of(result=dispatch(task, room) if task.param("role") == "dispatcher" else carry(task, room))


def dispatch(task: Task, room: Room) -> dict[str, Any]:
    return contract(
        room,
        TOPIC,
        {"load": task.param("load"), "at_most_cents": task.param("at_most_cents", None)},
        bidders=task.param("carriers"),
        rounds=task.param("rounds", 1),
        within_ms=task.param("within_ms", None),
        work_within_ms=task.param("work_within_ms", None),
        terms=dearer,
    ).to_json()


def dearer(call: dict[str, Any], number: int) -> dict[str, Any]:
    """A tenth more in each round, in whole cents."""
    limit = call["at_most_cents"]
    return {**call, "at_most_cents": limit if limit is None else limit * (9 + number) // 10}


def carry(task: Task, room: Room) -> dict[str, Any]:
    def offer(call: Any) -> Any:
        load, limit = call["load"], call["at_most_cents"]
        if load["kg"] > task.param("capacity_kg"):
            raise Refuse("too heavy")
        way = km(task.param("depot"), load["from"]) + km(load["from"], load["to"])
        price = ceil(way * task.param("cents_per_km") + load["kg"] * task.param("cents_per_kg"))
        if limit is not None and price > limit:
            raise Refuse("too cheap")
        return {"price": price, "km": round(way, 1)}

    def work(call: Any, offered: Any) -> Any:
        if offered["km"] > task.param("range_km", 10_000):
            raise Fail("freight.range", f"broke down: {offered['km']} km are too far")
        return {
            "delivered": call["load"]["kg"],
            "hours": round(offered["km"] / task.param("km_per_h", 70), 1),
        }

    return bid(room, offer, work, by=task.param("dispatcher", "node/dispatcher")).to_json()


def km(one: list[float], other: list[float]) -> float:
    """Along a great circle."""
    (lat1, lon1), (lat2, lon2) = ([radians(degrees) for degrees in place] for place in (one, other))
    half = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin((lon2 - lon1) / 2) ** 2
    return 2 * 6371.0 * asin(sqrt(half))
