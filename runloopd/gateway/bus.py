"""Control methods about the bus itself: who is there, what was counted, what durable topics hold.

Knows: how agents and peers become one list. Does not know: how any of it is measured (``runloopd.bus``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec

from runloopd.bus.bus import Bus
from runloopd.bus.consumers import Consumers
from runloopd.bus.directory import Directory, Hosted
from runloopd.bus.durable import Durable
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import Nothing, Params, Row

__all__ = ["BusMethods"]

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class Find(Params, frozen=True, kw_only=True):
    id: Text | None = None
    topic: Text | None = None
    capability: Text | None = None
    version: Text | None = None
    gone: bool = False


class BusMethods:
    """The rows ``directory.find`` and ``bus.show``. ``hosted`` is asked in a thread: it reads bundles."""

    def __init__(
        self,
        *,
        bus: Bus,
        directory: Directory,
        durable: Durable,
        consumers: Consumers,
        hosted: Callable[[], Sequence[Hosted]],
    ) -> None:
        self._bus = bus
        self._directory = directory
        self._durable = durable
        self._consumers = consumers
        self._hosted = hosted

    def rows(self) -> list[Row]:
        """Every method there is, written out."""
        return [
            ("directory.find", Find, self._find, True),
            ("bus.show", Nothing, self._show, True),
        ]

    def summary(self) -> dict[str, Any]:
        """For ``status``: the counters, which always add up."""
        counters = self._bus.counters
        return {
            "published": counters.published,
            "addressed": counters.addressed,
            "delivered": counters.delivered,
            "dropped": sum(counters.dropped.values()),
            "queued": self._bus.queued,
            "kept": self._durable.stored,
        }

    async def _find(self, _: Principal, params: Find) -> Any:
        hosted = await asyncio.to_thread(self._hosted)
        found = self._directory.find(
            id=params.id,
            topic=params.topic,
            capability=params.capability,
            version=params.version,
            gone=params.gone,
            hosted=hosted,
        )
        return {"entries": found}

    async def _show(self, _: Principal, __: Nothing) -> Any:
        await self._consumers.open()
        counters = self._bus.counters
        return {
            **self.summary(),
            "dropped": dict(counters.dropped),
            "refused": dict(counters.refused),
            "durable": {
                "patterns": list(self._durable.limits.patterns),
                "kept": self._durable.stored,
                "duplicates": self._durable.duplicates,
                "waiting": self._durable.waiting,
                "bytes": self._durable.usage(),
                "bytes_limit": self._durable.limits.publisher_bytes,
                "consumers": self._consumers.shown(),
            },
            "peers": self._directory.find(),
        }
