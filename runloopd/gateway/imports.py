"""Control methods of imports: what a client read from the user's files, and what was read before.

Knows: the shapes of the methods. Does not know: what is new, or how it is stated (``broker.imports``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runloopd.broker.imports import Imports
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import Params, Row, within

__all__ = ["ImportMethods"]


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
        return await self._imports.under(params.path, params.after, within(params.limit))
