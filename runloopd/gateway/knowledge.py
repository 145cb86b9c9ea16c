"""Control methods of imports, of agents' memory and of promises: what the user's own things are asked for.

Each is a line or two on a service of the broker. Knows nothing of how anything is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from runloop.errors import NotFoundError
from runloop.events import Draft, Provenance
from runloopd.broker.imports import Imports
from runloopd.broker.ports import JournalPort, KnowledgePort
from runloopd.broker.promises import Promises
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import Params, Row

__all__ = ["ImportMethods", "MemoryMethods", "PromiseMethods"]

_MAX_ROWS = 1_000


class TakeItems(Params, frozen=True, kw_only=True):
    payloads: list[dict[str, Any]]
    dry_run: bool = False
    """True: only tell what would be stated."""


class Under(Params, frozen=True, kw_only=True):
    path: str
    after: tuple[str, str, str] = ("", "", "")
    """Origin, kind and id of the last item of the page before."""
    limit: int = 500


class ImportMethods:
    """``kb.import`` and ``kb.imported``."""

    def __init__(self, imports: Imports) -> None:
        self._imports = imports

    def rows(self) -> Sequence[Row]:
        """The methods."""
        return (("kb.import", TakeItems, self._take, True), ("kb.imported", Under, self._under, True))

    async def _take(self, principal: Principal, params: TakeItems) -> Any:
        return await self._imports.take(principal.label, params.payloads, dry_run=params.dry_run)

    async def _under(self, _: Principal, params: Under) -> Any:
        return await self._imports.under(params.path, params.after, _within(params.limit))


class ListMemory(Params, frozen=True, kw_only=True):
    namespace: str | None = None
    """None: the namespaces themselves."""
    prefix: str = ""
    after: str = ""
    limit: int = 200


class OneKey(Params, frozen=True, kw_only=True):
    namespace: str
    key: str


class ForgetKey(Params, frozen=True, kw_only=True):
    namespace: str
    key: str
    expected_version: int | None = None


class MemoryMethods:
    """``memory.list|show|forget``: what agents remember, for people."""

    def __init__(self, knowledge: KnowledgePort, journal: JournalPort) -> None:
        self._memory = knowledge.memory
        self._journal = journal

    def rows(self) -> Sequence[Row]:
        """The methods."""
        return (
            ("memory.list", ListMemory, self._list, True),
            ("memory.show", OneKey, self._show, True),
            ("memory.forget", ForgetKey, self._forget, True),
        )

    async def _list(self, _: Principal, params: ListMemory) -> Any:
        if params.namespace is None:
            spaces = await self._memory.spaces()
            return {"spaces": [{"namespace": n, "keys": s.keys, "bytes": s.bytes} for n, s in spaces.items()]}
        found, more = await self._memory.listed(
            params.namespace, prefix=params.prefix, after=params.after, limit=_within(params.limit)
        )
        return {"keys": msgspec.to_builtins(list(found)), "truncated": more}

    async def _show(self, _: Principal, params: OneKey) -> Any:
        entry = await self._memory.get(params.namespace, params.key)
        if not entry.exists:
            raise NotFoundError(
                f"{params.namespace} has no key {params.key!r}", hint="rlp memory list", code="memory.absent"
            )
        return {
            **msgspec.to_builtins(params),
            "value": entry.value,
            "version": entry.version,
            "event": entry.event,
        }

    async def _forget(self, principal: Principal, params: ForgetKey) -> Any:
        write = await self._memory.forget(params.namespace, params.key, params.expected_version)
        if write is None:
            raise NotFoundError(
                f"{params.namespace} has no key {params.key!r}", hint="rlp memory list", code="memory.absent"
            )
        try:
            causes = () if write.before.event is None else (write.before.event,)
            provenance = Provenance(causes=causes, label="user")
            scope = params.namespace if params.namespace.startswith("agent:") else "user"
            draft = Draft(payload=write.payload, actor=principal.label, scope=scope, provenance=provenance)
            (event,) = await self._journal.append(draft)
        finally:
            write.end()
        return {**msgspec.to_builtins(params), "version": write.payload.entry_version, "event": event.id}


class ListPromises(Params, frozen=True, kw_only=True):
    all: bool = False


class OnePromise(Params, frozen=True, kw_only=True):
    promise: str


class Resolve(Params, frozen=True, kw_only=True):
    promise: str
    value: Any


_ALL = "SELECT * FROM promises ORDER BY created_event DESC"
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
            return {"promises": [promise.to_json() for promise in self._promises.waiting()]}
        found = await self._knowledge.query(_ALL, [], _MAX_ROWS, raw=True)
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


def _as_json(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the view as a promise is shown; what it says only when it was said."""
    decode: Callable[[str], Any] = msgspec.json.decode
    shown = {**row, "choices": decode(row["choices"]), "reason": row["reason"] or ""}
    shown["value"] = None if row["value"] is None else decode(row["value"])
    return shown


def _within(asked: int) -> int:
    return max(1, min(asked, _MAX_ROWS))
