"""A vote on a release: everybody judges by one figure, strictly more than half must agree."""

from __future__ import annotations

from typing import Any

from runloop.agent import Fail, Result, Task, handler
from runloop.collab import Room, put_to_vote, vote
from runloop.host import Host

TOPIC = "talk/release"


@handler
def handle(task: Task, host: Host) -> Result:
    """``role`` chair or voter; both give the tally."""
    room = Room.enter(task, host, TOPIC)
    if task.param("role") == "chair":
        tally = put_to_vote(room, TOPIC, task.param("release"), task.param("voters"))
    else:
        heard = vote(room, lambda release: judge(task, release), by=task.param("chair", "node/chair"))
        if heard is None:
            raise Fail("release_vote.silent", "nobody told how the vote ended")
        tally = heard
    return Result.of(result=tally.to_json())


def judge(task: Task, release: dict[str, Any]) -> bool:
    figure = release.get(task.param("figure"))
    if isinstance(figure, bool) or not isinstance(figure, int | float):
        return False
    least, most = task.param("at_least", None), task.param("at_most", None)
    return (least is None or figure >= least) and (most is None or figure <= most)
