"""Leader election of replicas: the fresh ones stand, the smallest id leads, all end with the same log."""

from __future__ import annotations

from typing import Any

from runloop.agent import Fail, Result, Task, handler
from runloop.collab import Room, ask, call_election, serve, stand
from runloop.host import Host

TOPIC = "talk/replicas"


@handler
def handle(task: Task, host: Host) -> Result:
    """``role`` convener or replica."""
    room = Room.enter(task, host, TOPIC)
    if task.param("role") == "convener":
        elected = call_election(room, TOPIC, task.param("replicas"), highest=task.param("highest", False))
        return Result.of(result={"leader": elected.leader, "stood": list(elected.stood)})
    return Result.of(result=replica(task, room))


def replica(task: Task, room: Room) -> dict[str, Any]:
    log = list(task.param("log"))
    elected = stand(
        room, willing=len(log) >= task.param("quorum"), by=task.param("convener", "node/convener")
    )
    if elected is None or elected.leader is None:
        raise Fail("replica.leader", "nobody leads: no replica is fresh enough")
    if elected.leader == room.me:
        served = serve(room, lambda asked: {"entries": log[asked["after"] :], "length": len(log)})
        return {"leader": elected.leader, "log": log, "served": served.answered}
    shared = len(log)
    answer = ask(room, elected.leader, {"after": shared})
    log = log[: answer["length"]] + answer["entries"]
    return {"leader": elected.leader, "log": log, "received": len(answer["entries"])}
