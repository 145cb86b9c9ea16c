"""Control methods that make one run out of another: a fork, and another try of what failed.

Knows: the shapes of the methods, and that only the operator may: an agent cannot fork its own run. Does not
know: what a fork is (``runs.fork``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from pog.reader import Reader
from runloopd.bus.principal import Principal
from runloopd.gateway.methods import Params, Row
from runloopd.runs.fork import Forks, ForkWish

__all__ = ["rows"]


class Fork(Params, frozen=True, kw_only=True):
    run: str
    at: str | None = None
    set: dict[str, Any] = {}
    model: str | None = None
    agents: dict[str, str] = {}
    deny: list[str] = []
    answers: Literal["recorded", "live"] = "recorded"
    origin: dict[str, Any] = {}


class Retry(Params, frozen=True, kw_only=True):
    run: str
    node: str | None = None
    origin: dict[str, Any] = {}


def rows(forks: Forks, reader: Reader) -> Sequence[Row]:
    """``run.fork`` and ``run.retry``. ``reader`` is asked from threads."""

    async def fork(principal: Principal, params: Fork) -> Any:
        wish = ForkWish(
            run=await asyncio.to_thread(reader.find_run, params.run),
            at=params.at,
            set=params.set,
            model=params.model,
            agents=params.agents,
            deny=params.deny,
            answers=params.answers,
            origin=params.origin,
        )
        return await forks.fork(principal, wish)

    async def retry(principal: Principal, params: Retry) -> Any:
        run = await asyncio.to_thread(reader.find_run, params.run)
        return await forks.retry(principal, run, params.node, params.origin)

    return [("run.fork", Fork, fork, True), ("run.retry", Retry, retry, True)]
