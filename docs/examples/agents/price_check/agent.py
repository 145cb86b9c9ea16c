"""Fan-out and fan-in: what does it cost, and where?"""

from __future__ import annotations

from typing import Any

from runloop.agent import Fail, Result, Task, handler
from runloop.collab import ALL, MAJORITY, WHOEVER, Enough, Refuse, Room, fan_in, fan_out, first, serve
from runloop.host import Host

RULES = {"all": ALL, "majority": MAJORITY, "whoever": WHOEVER}


@handler
def handle(task: Task, host: Host) -> Result:
    """``role`` buyer or shop."""
    room = Room.enter(task, host)
    return Result.of(result=buyer(task, room) if task.param("role") == "buyer" else shop(task, room))


def shop(task: Task, room: Room) -> dict[str, Any]:
    stock = task.param("stock")

    def price(asked: Any) -> Any:
        article = asked["article"]
        if article not in stock:
            raise Refuse(f"no {article} here")
        return {"cents": stock[article] * asked["count"]}

    return serve(room, price).to_json()


def buyer(task: Task, room: Room) -> dict[str, Any]:
    wish = {"article": task.param("article"), "count": task.param("count", 1)}
    asked = fan_out(room, task.param("shops"), wish, within_ms=task.param("within_ms", None))
    came = fan_in(room, asked, rule(task.param("enough", "all")))
    prices = {shop: content["cents"] for shop, content in came.contents().items()}
    best = min(prices.items(), key=lambda one: (one[1], one[0]), default=(None, None))
    return {
        "met": came.met,
        "ended": came.ended,
        "prices": prices,
        "refused": sorted(came.refusals),
        "missing": came.missing,
        "best": best[0],
    }


def rule(name: Any) -> Enough:
    if isinstance(name, int):
        return first(name)
    if name not in RULES:
        raise Fail(
            "price_check.enough", f"'enough' cannot be {name!r}; use a number or one of {', '.join(RULES)}"
        )
    return RULES[name]
