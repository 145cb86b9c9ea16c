"""PIPELINE: order lines, parsed, converted and multiplied by three stages that work at the same time."""

from __future__ import annotations

import re
from typing import Any

from runloop.agent import Fail, Result, Task, handler
from runloop.collab import Room, drain, feed, stage
from runloop.host import Host

_PRICE = re.compile(r"(\d{1,9})(?:[.,](\d{2}))?")


@handler
def handle(task: Task, host: Host) -> Result:
    """``role`` source, parse, convert or total."""
    room, role = Room.enter(task, host), task.param("role")
    if role == "source":
        return Result.of(result=source(task, room))
    if role not in STAGES:
        raise Fail("csv_pipeline.role", f"'role' cannot be {role!r}; use source, {', '.join(STAGES)}")
    passed = stage(room, task.param("source"), task.param("to"), STAGES[role])
    return Result.of(result={"passed": passed})


def source(task: Task, room: Room) -> dict[str, Any]:
    feed(room, task.param("to"), task.param("lines"))
    out = drain(room, task.param("source"))
    return {
        "rows": list(out.results.values()),
        "cents": sum(row["cents"] for row in out.results.values()),
        "failed": [{"line": place + 1, **reason} for place, reason in out.failed.items()],
        "missing": list(out.missing),
    }


def parse(line: Any) -> dict[str, str]:
    cells = [cell.strip() for cell in str(line).split(";")]
    if len(cells) != 3 or not cells[0]:
        raise Fail("csv.cells", f"'article;count;price' is wanted, not {line!r}")
    return dict(zip(("article", "count", "price"), cells, strict=True))


def convert(row: Any) -> dict[str, Any]:
    price = _PRICE.fullmatch(row["price"])
    if not re.fullmatch(r"\d{1,6}", row["count"]) or price is None:
        raise Fail("csv.number", f"{row['count']!r} times {row['price']!r} are no numbers")
    return {
        "article": row["article"],
        "count": int(row["count"]),
        "each": int(price[1]) * 100 + int(price[2] or 0),
    }


def total(row: Any) -> dict[str, Any]:
    return {**row, "cents": row["count"] * row["each"]}


STAGES = {"parse": parse, "convert": convert, "total": total}
