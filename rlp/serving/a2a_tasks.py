"""Runs as an agent outside sees them: tasks of Agent2Agent.

Knows: which runs are a client's tasks, how a run's state, words and files read in that protocol. Does not
know: what begins a task (``a2a_face``), or what of a run is anybody's outside (``outcome``).
"""

from __future__ import annotations

import json
from collections.abc import Callable
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
_NEWEST = (
    "SELECT run, started_event FROM runs WHERE principal = ? AND via = 'a2a' AND started_event < ? "
    "ORDER BY started_event DESC LIMIT ?"
)
_ALL = "SELECT count(*) AS tasks FROM runs WHERE principal = ? AND via = 'a2a'"
_LAST = 2**62


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


def page(session: Session, client: str, asked: wire.ListTasks) -> dict[str, Any]:
    before = int(asked.page_token or _LAST)
    rows = _rows(session, _NEWEST, [f"face:{client}", before, asked.page_size])
    tasks = []
    for row in rows:
        task = task_of(session, read(session, client, row["run"]), whole=asked.include_artifacts)
        fits = asked.status in ("TASK_STATE_UNSPECIFIED", task["status"]["state"])
        if fits and asked.context_id in ("", task["contextId"]):
            tasks.append(task)
    more = str(rows[-1]["started_event"]) if len(rows) == asked.page_size else ""
    # Of all there are: what does not fit is left out of its page.
    total = int(_rows(session, _ALL, [f"face:{client}"])[0]["tasks"])
    return {"tasks": tasks, "nextPageToken": more, "pageSize": asked.page_size, "totalSize": total}


def _rows(session: Session, sql: str, params: list[Any]) -> list[dict[str, Any]]:
    answer = session.ask("kb.query", sql=sql, params=params, limit=100)
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
