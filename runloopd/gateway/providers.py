"""Control methods of model providers: which there are, and whether they answer.

Knows: the shapes of the methods. Does not know: how models are found, chosen or asked (``broker``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runloopd.broker.survey import Survey
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import Params, Row

__all__ = ["ProviderMethods"]


class ListProviders(Params, frozen=True, kw_only=True):
    check: bool = False
    spend: bool = False


class ProviderMethods:
    """``provider.list``: every way to a model."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey

    def rows(self) -> Sequence[Row]:
        """The methods."""
        return (("provider.list", ListProviders, self._list, True),)

    async def _list(self, principal: Principal, params: ListProviders) -> Any:
        if not params.check:
            return {"providers": await self._survey.rows()}
        rows = self._survey.checked(spend=params.spend, actor=principal.label)
        return {"providers": [row async for row in rows]}
