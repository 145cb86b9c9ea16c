"""Control methods of agents' memory, for the person it is about: look at it, and forget.

Knows: the shapes of the methods. Does not know: how a version is won (``pog.memory``, behind a port).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from runloop.errors import NotFoundError
from runloop.events import Draft, Provenance
from runloopd.broker.ports import JournalPort, KnowledgePort
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import Params, Row, within

__all__ = ["MemoryMethods"]


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
            params.namespace, prefix=params.prefix, after=params.after, limit=within(params.limit)
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
