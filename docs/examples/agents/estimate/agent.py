"""CONSENSUS on one figure, of estimators that see the same readings and trust other methods."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean, median
from typing import Any

from runloop.agent import Fail, Result, Task, handler
from runloop.collab import Room, seek_consensus, take_part
from runloop.host import Host

TOPIC = "talk/estimates"


@handler
def handle(task: Task, host: Host) -> Result:
    """``role`` chair or estimator; both give the outcome."""
    room = Room.enter(task, host, TOPIC)
    if task.param("role") == "chair":
        outcome = seek_consensus(
            room, TOPIC, task.param("members"), middle, about="middle", rounds=task.param("rounds", 5)
        )
        return Result.of(result=outcome.to_json())
    return Result.of(result=estimator(task, room))


def middle(held: Mapping[str, Any]) -> float:
    return round(median(held.values()), 3)


def estimator(task: Task, room: Room) -> dict[str, Any]:
    first = held = estimate(task.param("method"), task.param("readings"))

    def judge(value: float) -> tuple[bool, float]:
        nonlocal held
        near = abs(value - held) <= task.param("tolerance")
        held = held if near else round((held + value) / 2, 3)
        return near, held

    outcome = take_part(room, lambda about: held, judge, by=task.param("chair", "node/chair"))
    if outcome is None:
        raise Fail("estimate.silent", "nobody told how it ended")
    return {**outcome.to_json(), "first": first, "last": held}


def estimate(method: str, readings: list[float]) -> float:
    ordered = sorted(readings)
    if not ordered:
        raise Fail("estimate.readings", "there are no readings")
    fifth = len(ordered) // 5
    kinds = {
        "mean": lambda: fmean(ordered),
        "median": lambda: median(ordered),
        "trimmed": lambda: fmean(ordered[fifth : len(ordered) - fifth]),
    }
    if method not in kinds:
        raise Fail("estimate.method", f"'method' cannot be {method!r}; use {', '.join(kinds)}")
    return round(kinds[method](), 3)
