"""MAP_REDUCE: the words of many texts."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from runloop.agent import Fail, Result, Task, handler
from runloop.collab import Room, map_reduce, serve
from runloop.host import Host

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


@handler
def handle(task: Task, host: Host) -> Result:
    """``role`` lead or counter."""
    room = Room.enter(task, host)
    return Result.of(
        result=lead(task, room) if task.param("role") == "lead" else serve(room, count).to_json()
    )


def count(asked: Any) -> dict[str, int]:
    text = asked["item"]
    if not isinstance(text, str):
        raise Fail("wordcount.text", f"item {asked['n']} is no text")
    return dict(Counter(word.casefold() for word in _WORD.findall(text)))


def lead(task: Task, room: Room) -> dict[str, Any]:
    total, mapped = map_reduce(
        room, task.param("workers"), task.param("texts"), lambda one, more: one + Counter(more), Counter()
    )
    ranked = sorted(total.items(), key=lambda entry: (-entry[1], entry[0]))
    return {
        "words": sum(total.values()),
        "top": [list(entry) for entry in ranked[: task.param("top", 5)]],
        "texts": len(mapped.results),
        "failed": {str(place): why for place, why in mapped.failed.items()},
        "missing": list(mapped.missing),
    }
