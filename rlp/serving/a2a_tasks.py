"""Runs as an agent outside sees them: tasks of Agent2Agent.

Knows: which runs are a client's tasks, how a run's state, words and files read in that protocol. Does not
know: what begins a task (``a2a_face``), or what of a run is anybody's outside (``outcome``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from rlp.serving import a2a_wire as wire
from rlp.serving.outcome import Rest, read
from rlp.session import Session

__all__ = [
    "Update",
    "artifacts_of",
    "going_on",
    "mine",
    "page",
    "standing_of",
    "status_update",
    "task_of",
]

Update = dict[str, Any]
"""A ``StreamResponse``: ``{task}``, ``{statusUpdate}`` or ``{artifactUpdate}``."""

_STATES: dict[str, wire.State] = {
    "running": "TASK_STATE_WORKING",
    "waiting": "TASK_STATE_INPUT_REQUIRED",
    "succeeded": "TASK_STATE_COMPLETED",
    "failed": "TASK_STATE_FAILED",
    "cancelled": "TASK_STATE_CANCELED",
}
_MAX_PART = 1024 * 1024
"""Bytes of one artifact that are told."""
_MAX_TOLD = 4 * 1024 * 1024
"""The same of all artifacts of a task."""
_MAX_LOOKED = 1_000
"""Newest tasks of a client that are looked through for those of a conversation."""
_BATCH = 100
_NEWEST = (
    "SELECT run, started_event FROM runs WHERE principal = ? AND via = 'a2a' AND started_event < ? "
    "AND state IN ({}) ORDER BY started_event DESC LIMIT 100"
)
_LAST = 2**62
_OVER = {
    "TASK_STATE_COMPLETED": "succeeded",
    "TASK_STATE_FAILED": "failed",
    "TASK_STATE_CANCELED": "cancelled",
}
_GOING_ON = ("running", "waiting", "cancelling")


def mine(session: Session, client: str, name: str) -> Rest:
    """A run this client asked for over this protocol. For any other, there is no such task."""
    rest = read(session, client, name)
    if rest.origin.get("via") != "a2a" or rest.run != name:
        raise wire.NotFoundTaskError("you have no such task")
    return rest


def going_on(client: str, name: str) -> Callable[[Session], str]:
    def begin(session: Session) -> str:
        rest = mine(session, client, name)
        if rest.over is not None:
            raise wire.UnsupportedError("the task is over", hint="GetTask has its result")
        return str(rest.run)

    return begin


def page(
    session: Session, client: str, asked: wire.ListTasks, contexts: MutableMapping[str, str]
) -> dict[str, Any]:
    """What fits of a client's newest tasks, as many as were asked for. ``contexts``: run -> its conversation,
    as far as it was looked up before."""
    before = int(asked.page_token or _LAST)
    fitting = list(_fitting(session, client, asked, contexts))
    left = [row for row in fitting if row["started_event"] < before]
    shown = left[: asked.page_size]
    more = str(shown[-1]["started_event"]) if len(left) > len(shown) else ""
    tasks = [
        task_of(session, read(session, client, row["run"]), whole=asked.include_artifacts) for row in shown
    ]
    return {"tasks": tasks, "nextPageToken": more, "pageSize": asked.page_size, "totalSize": len(fitting)}


def _fitting(
    session: Session, client: str, asked: wire.ListTasks, contexts: MutableMapping[str, str]
) -> Iterator[dict[str, Any]]:
    for row in _newest(session, client, asked.status):
        if asked.context_id and _context(session, row["run"], contexts) != asked.context_id:
            continue
        # Which of those going on wait for a person is not in the row; there are never many.
        live = asked.status not in ("TASK_STATE_UNSPECIFIED", *_OVER)
        if live and standing_of(read(session, client, row["run"]), "")["state"] != asked.status:
            continue
        yield row


def _newest(session: Session, client: str, status: str) -> Iterator[dict[str, Any]]:
    """Rows of a client's tasks, newest first; of a state only those that may have it."""
    states: tuple[str, ...] = (_OVER[status],) if status in _OVER else _GOING_ON
    if status == "TASK_STATE_UNSPECIFIED":
        states = (*_GOING_ON, *_OVER.values())
    sql, before = _NEWEST.format(", ".join(f"'{state}'" for state in states)), _LAST
    for _ in range(_MAX_LOOKED // _BATCH):
        rows = _rows(session, sql, [f"face:{client}", before])
        yield from rows
        if len(rows) < _BATCH:
            return
        before = rows[-1]["started_event"]


def _context(session: Session, run: str, contexts: MutableMapping[str, str]) -> str:
    """What the client calls the conversation of a run: that never changes."""
    known = contexts.get(run)
    if known is None:
        (begun,) = session.ask("run.events", run=run, limit=1)["events"]
        known = contexts[run] = str(begun["payload"]["origin"].get("context") or run)
    return known


def _rows(session: Session, sql: str, params: list[Any]) -> list[dict[str, Any]]:
    answer = session.ask("kb.query", sql=sql, params=params, limit=_BATCH)
    columns = list(answer.get("columns") or ())
    return [row if isinstance(row, dict) else dict(zip(columns, row, strict=True)) for row in answer["rows"]]


def task_of(session: Session, rest: Rest, *, whole: bool = True) -> dict[str, Any]:
    context = str(rest.origin.get("context") or rest.run)
    task: dict[str, Any] = {"id": rest.run, "contextId": context, "status": standing_of(rest, context)}
    if whole and (artifacts := artifacts_of(session, rest)):
        task["artifacts"] = artifacts
    return task


def standing_of(rest: Rest, context: str) -> dict[str, Any]:
    told = rest.told()
    state = _STATES.get(told["state"], "TASK_STATE_FAILED")
    if state == "TASK_STATE_WORKING" and not rest.at_work:
        state = "TASK_STATE_SUBMITTED"
    words = ""
    if waiting := told.get("waiting"):
        words = "Waits for the user: " + ", ".join(f"{one['for']} ({one['id']})" for one in waiting)
    elif error := told.get("error"):
        words = f"{error['code']}: {error['message']}"
    message = wire.said(words, f"{rest.run}-{rest.at}", rest.run, context) if words else None
    return wire.status(state, rest.at_ms, message)


def status_update(task: str, context: str, standing: dict[str, Any]) -> Update:
    return {"statusUpdate": {"taskId": task, "contextId": context, "status": standing}}


def artifacts_of(session: Session, rest: Rest) -> list[dict[str, Any]]:
    """What the opening saves, once the run is over."""
    told = []
    room = _MAX_TOLD
    for name, one in rest.files.items():
        part: dict[str, Any]
        if one["size"] <= min(_MAX_PART, room):
            room -= one["size"]
            part = {"data": json.loads(rest.content(session, name)), "mediaType": "application/json"}
        else:
            part = {"text": f"{one['size']} bytes, more than are told here; the user has it in Runloop"}
        told.append({"artifactId": name, "name": name, "parts": [part]})
    return told
