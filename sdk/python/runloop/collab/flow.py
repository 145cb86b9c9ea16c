"""Work that flows: MAP_REDUCE over workers, and a PIPELINE of stages.

Knows: who works on what, what is tried again, in which order results are put together: always that of the
items, whoever was faster. Does not know: the work. The other side of MAP_REDUCE is ``room.serve``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

from runloop.agent import Fail
from runloop.collab.room import REFUSALS, Message, Room, order

__all__ = ["Mapped", "Piped", "drain", "feed", "map_over", "map_reduce", "stage"]


class Mapped(NamedTuple):
    """What came of each item."""

    results: dict[int, Any]
    """Index of the item -> result, in the order of the items."""
    failed: dict[int, str]
    """Index -> what was said against it the last time."""
    missing: tuple[int, ...]
    """Nobody was heard on these."""
    by: dict[int, str]
    """Index -> who did it. Depends on who was faster; results do not."""

    @property
    def complete(self) -> bool:
        """Whether every item has a result."""
        return not self.failed and not self.missing


def map_over(
    room: Room,
    workers: Iterable[str],
    items: Sequence[Any],
    *,
    within_ms: int | None = None,
    item_within_ms: int | None = None,
    attempts: int = 2,
) -> Mapped:
    """Have every item worked on by one of the workers, as many at a time as there are workers.

    A worker gets the next item when it has answered. What was refused, failed, or took longer than
    ``item_within_ms``, is given to another worker, up to ``attempts`` times altogether. Over after
    ``within_ms``, or when nobody is left.
    """
    crew = sorted(set(workers), key=order)
    if not crew or attempts < 1:
        raise Fail("collab.workers", "a map needs workers, and at least one attempt")
    due_ms = room.due(within_ms)
    waiting: deque[int] = deque(range(len(items)))
    idle: deque[str] = deque(crew)
    out: dict[str, tuple[int, str, int | None]] = {}
    """Question -> item, worker, until when."""
    tried: dict[int, list[str]] = {}
    results: dict[int, Any] = {}
    failed: dict[int, str] = {}
    by: dict[int, str] = {}

    def give(index: int, worker: str) -> None:
        said = room.host.publish(
            worker, {"n": index, "item": items[index]}, act="request", reply_within_ms=item_within_ms
        )
        tried.setdefault(index, []).append(worker)
        out[str(said["message"])] = index, worker, room.due(item_within_ms)

    def again(index: int, why: str) -> None:
        if len(tried[index]) < attempts:
            waiting.append(index)
        else:
            failed[index] = why

    while waiting or out:
        for index, worker in _pairs(waiting, idle, tried, [*idle, *(one for _, one, _ in out.values())]):
            give(index, worker)
        if not out:
            break
        until = min((due for _, _, due in out.values() if due is not None), default=None)
        until = due_ms if until is None else until if due_ms is None else min(until, due_ms)
        answer = room.take(lambda one: str(one["in_reply_to"]) in out and one["act"] in _ENDS, until)
        if answer is not None:
            index, worker, _ = out.pop(str(answer["in_reply_to"]))
            idle.append(worker)
            if answer["act"] == "inform":
                results[index], by[index] = answer["content"], worker
            else:
                again(index, f"{answer['act']}: {answer['content']}")
        elif room.silent or until is None or until == due_ms:
            break
        else:  # who is late gets no more, as it may be at it still
            for question, (index, _, due) in list(out.items()):
                if due is not None and due <= until:
                    del out[question]
                    again(index, "late")
    missing = tuple(n for n in range(len(items)) if n not in results and n not in failed)
    return Mapped({n: results[n] for n in sorted(results)}, dict(sorted(failed.items())), missing, by)


_MAX_ITEMS = 1_000_000
_ENDS = REFUSALS | {"inform"}


def _pairs(
    waiting: deque[int], idle: deque[str], tried: Mapping[int, Sequence[str]], present: Sequence[str]
) -> list[tuple[int, str]]:
    """Who gets what now: an item goes to one that has not tried it, while such a one is present."""
    pairs: list[tuple[int, str]] = []
    for index in list(waiting):
        before = tried.get(index, ())
        fresh = [one for one in present if one not in before]
        worker = next((one for one in idle if one in fresh or not fresh), None)
        if worker is not None:
            waiting.remove(index)
            idle.remove(worker)
            pairs.append((index, worker))
        if not idle:
            break
    return pairs


def map_reduce(
    room: Room,
    workers: Iterable[str],
    items: Sequence[Any],
    fold: Callable[[Any, Any], Any],
    start: Any,
    *,
    within_ms: int | None = None,
    item_within_ms: int | None = None,
    attempts: int = 2,
) -> tuple[Any, Mapped]:
    """:func:`map_over`, and the results folded in the order of the items: ``(value, what came of each)``."""
    mapped = map_over(
        room, workers, items, within_ms=within_ms, item_within_ms=item_within_ms, attempts=attempts
    )
    return reduce(fold, mapped.results.values(), start), mapped


# --- pipeline -------------------------------------------------------------------------------------


class Piped(NamedTuple):
    """What came out of a pipeline."""

    results: dict[int, Any]
    """Place of the item -> result, in the order they were fed."""
    failed: dict[int, Mapping[str, Any]]
    """Place -> ``{stage, code, message}`` of the stage that could not do it."""
    missing: tuple[int, ...]


def feed(room: Room, to: str, items: Iterable[Any]) -> int:
    """Put items into the first stage, each a conversation, and say how many there were."""
    count = 0
    for count, item in enumerate(items, 1):
        room.host.publish(to, {"n": count - 1, "value": item})
    room.host.publish(to, {"fed": count})
    return count


def stage(room: Room, source: str, to: str, work: Callable[[Any], Any]) -> int:
    """Work on everything that ``source`` passes on, and pass it on; how many items passed.

    Stages work at the same time, each on another item. One that raises :class:`runloop.agent.Fail` marks the
    item as failed, and later stages pass it on as it is.
    """
    passed = 0
    while (message := _flowing(room, source)) is not None:
        content = message["content"]
        if "value" in content:
            content = _worked(content, work, room.me)
        room.host.publish(to, content, in_reply_to=str(message["message"]))
        if "fed" in content:
            return passed
        passed += 1
    raise Fail("collab.pipeline", f"{source} ended before everything had passed")


def _worked(content: Mapping[str, Any], work: Callable[[Any], Any], me: str) -> dict[str, Any]:
    try:
        return {"n": content["n"], "value": work(content["value"])}
    except Fail as failed:
        reason = {"stage": me, "code": failed.code, "message": failed.message}
        return {"n": content["n"], "failed": reason}


def _is_flow(content: Any) -> bool:
    """``{n, value}``, ``{n, failed}`` or, at the end, ``{fed}``."""
    if not isinstance(content, dict):
        return False
    shape = content.keys()
    number = content.get("fed" if "fed" in shape else "n")
    known = shape in ({"fed"}, {"n", "value"}, {"n", "failed"})
    return known and isinstance(number, int) and not isinstance(number, bool) and 0 <= number < _MAX_ITEMS


def _flowing(room: Room, source: str, due_ms: int | None = None) -> Message | None:
    return room.take(
        lambda one: (
            one["from"] == source
            and one["to"] == room.me
            and one["act"] == "inform"
            and _is_flow(one["content"])
        ),
        due_ms,
    )


def drain(room: Room, source: str, *, within_ms: int | None = None) -> Piped:
    """Take what comes out of the last stage, until everything has, after ``within_ms``, or when nobody is
    left."""
    due_ms = room.due(within_ms)
    results: dict[int, Any] = {}
    failed: dict[int, Mapping[str, Any]] = {}
    fed: int | None = None
    while fed is None and (message := _flowing(room, source, due_ms)) is not None:
        content = message["content"]
        if "fed" in content:
            fed = int(content["fed"])
        elif "failed" in content:
            failed[int(content["n"])] = content["failed"]
        else:
            results[int(content["n"])] = content["value"]
    known = range(max([*results, *failed, -1]) + 1 if fed is None else fed)
    missing = tuple(n for n in known if n not in results and n not in failed)
    return Piped(dict(sorted(results.items())), dict(sorted(failed.items())), missing)
