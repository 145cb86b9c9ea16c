"""Heat in a rod, one node for each part: a step is computed when everybody told theirs, and not before."""

from __future__ import annotations

from typing import Any

from runloop.agent import Result, Task, handler
from runloop.collab import Room, barrier
from runloop.host import Host

TOPIC = "talk/rod"


@handler
def handle(task: Task, host: Host) -> Result:
    """``members`` in the order of the rod, ``start`` in degrees, ``steps`` -> the course of this part."""
    room = Room.enter(task, host, TOPIC)
    members = list(task.param("members"))
    place = members.index(room.me)
    course = [float(task.param("start"))]
    for step in range(1, task.param("steps") + 1):
        host.publish(TOPIC, {"step": step, "degrees": course[-1]})
        barrier(room, TOPIC, members, number=step)
        near = [
            told(room, members[side], step) for side in (place - 1, place + 1) if 0 <= side < len(members)
        ]
        course.append((course[-1] + sum(near)) / (1 + len(near)))
    return Result.of(result={"course": course})


def told(room: Room, member: str, step: int) -> float:
    """What a neighbour told before it came to the barrier: it has been heard by now."""
    waiting = len(room.kept)
    message = room.take(lambda one: one["from"] == member and fields(one).get("step") == step)
    assert message is not None, f"{member} came to the barrier without a word"
    assert len(room.kept) == waiting - 1, "a barrier let this node through before everybody had told"
    return float(message["content"]["degrees"])


def fields(message: Any) -> dict[str, Any]:
    return message["content"] if isinstance(message["content"], dict) else {}
