"""Control methods of promises: what waits for somebody's word, and the operator's own word on it.

Knows: the shapes of the methods, and that the views show those of runs long over. Does not know: who may say
what (``broker.promises``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pog.promises import Promise
from runloop.errors import NotFoundError
from runloopd.broker.ports import KnowledgePort
from runloopd.broker.promises import Promises
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import MAX_PAGE, Params, Row

__all__ = ["PromiseMethods"]


class ListPromises(Params, frozen=True, kw_only=True):
    all: bool = False


class OnePromise(Params, frozen=True, kw_only=True):
    promise: str


class Resolve(Params, frozen=True, kw_only=True):
    promise: str
    value: Any


MAX_LISTED_CHARS = 400
"""Of one text in a list. Agents write them: a thousand long ones would fit no frame, and nobody could see
what waits. ``promise.show`` has all of it."""

_ALL = f"""
SELECT promise, run, node, attempt, call, agent, resolver,
       substr(question, 1, {MAX_LISTED_CHARS}) AS question,
       CASE WHEN length(choices) <= {MAX_LISTED_CHARS} THEN choices ELSE '[]' END AS choices, state,
       CASE WHEN length(value) <= {MAX_LISTED_CHARS} THEN value END AS value,
       principal, reason, created_ms, expires_ms, settled_ms, created_event, settled_event
FROM promises ORDER BY created_event DESC
"""  # noqa: S608
_ONE = "SELECT * FROM promises WHERE substr(promise, 1, length(?1)) = ?1 ORDER BY created_event DESC"


class PromiseMethods:
    """``promise.list|show|resolve``: what waits for somebody's word, and the operator's."""

    def __init__(self, promises: Promises, knowledge: KnowledgePort) -> None:
        self._promises = promises
        self._knowledge = knowledge

    def rows(self) -> Sequence[Row]:
        """The methods."""
        return (
            ("promise.list", ListPromises, self._list, True),
            ("promise.show", OnePromise, self._show, True),
            ("promise.resolve", Resolve, self._resolve, True),
        )

    async def _list(self, _: Principal, params: ListPromises) -> Any:
        if not params.all:
            return {"promises": [_listed(promise) for promise in self._promises.waiting()[:MAX_PAGE]]}
        found = await self._knowledge.query(_ALL, [], MAX_PAGE, raw=True)
        return {"promises": [_as_json(row) for row in found["rows"]]}

    async def _show(self, _: Principal, params: OnePromise) -> Any:
        name = params.promise if params.promise.startswith("pr_") else f"pr_{params.promise}"
        found = await self._knowledge.query(_ONE, [name], 2, raw=True)
        if len(found["rows"]) != 1 or len(name) < len("pr_") + 3:
            count = "several promises" if found["rows"] else "no promise"
            raise NotFoundError(
                f"{params.promise[:80]!r} names {count}",
                hint="'rlp promises --all' lists them",
                code="promise.unknown",
            )
        return _as_json(found["rows"][0])

    async def _resolve(self, principal: Principal, params: Resolve) -> Any:
        promise = await self._promises.resolve(params.promise, params.value, principal.label)
        return {**promise.to_json(), "principal": principal.label}


def _listed(promise: Promise) -> dict[str, Any]:
    shown = promise.to_json()
    shown["question"] = promise.question[:MAX_LISTED_CHARS]
    if sum(map(len, promise.choices)) > MAX_LISTED_CHARS:
        shown["choices"] = []
    return shown


def _as_json(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the view as a promise is shown; what it says only when it was said."""
    decode: Callable[[str], Any] = msgspec.json.decode
    shown = {**row, "choices": decode(row["choices"]), "reason": row["reason"] or ""}
    shown["value"] = None if row["value"] is None else decode(row["value"])
    return shown
