"""The feed without a daemon: a ledger on disk, to be read and not to be changed.

Knows: that a ledger may still grow (somebody else's daemon writes it), and looks for that once a second.
Every order is refused: there is nobody to carry it out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from agtop.feed.record import Record
from agtop.model.facts import Fact
from agtop.ports import Change, Link, RunRow, Submitted
from runloop.errors import RefusedError

__all__ = ["RecordedFeed"]

T = TypeVar("T")

LOOK_S = 1.0
"""How often the ledger is looked at for something new."""


class RecordedFeed:
    """Serves :class:`agtop.ports.Desk` from a ledger."""

    def __init__(self, ledger: Path, *, look_s: float = LOOK_S) -> None:
        self._record = Record(ledger)
        self._look_s = look_s
        self._head = 0
        """Newest event that was told of. At first none: what came while the lists were read is not missed."""
        now_ms = time.time_ns() // 1_000_000
        self._link = Link(how="recorded", since_ms=now_ms, words=str(ledger))
        self._one = asyncio.Lock()
        """The record is for one thread at a time."""

    @property
    def link(self) -> Link:
        return self._link

    async def _read(self, read: Callable[..., T], *args: Any) -> T:
        async with self._one:
            return await asyncio.to_thread(read, *args)

    async def change(self) -> Change:
        while True:
            head = await self._read(self._record.head)
            if head != self._head:
                break
            await asyncio.sleep(self._look_s)
        self._head = head
        return Change(every=True, approvals=True)

    async def runs(self, limit: int = 200) -> Sequence[RunRow]:
        return await self._read(self._record.runs, limit)

    async def find_run(self, prefix: str) -> str:
        return await self._read(self._record.find_run, prefix)

    async def facts(self, run: str, after: int = 0, limit: int = 2_000) -> Sequence[Fact]:
        return await self._read(self._record.facts, run, after, limit)

    def again(self, run: str, after: int, upto: int, limit: int) -> Sequence[Fact]:
        return self._record.again(run, after, upto, limit)

    async def blob(self, digest: str) -> bytes:
        return await self._read(self._record.blob, digest)

    async def approvals(self) -> Sequence[dict[str, Any]]:
        return await self._read(self._record.approvals)

    async def approval(self, name: str) -> dict[str, Any]:
        import base64

        from runloop.errors import NotFoundError

        for approval in await self.approvals():
            if approval["approval"] == name:
                content = await self.blob(approval["content_blob"])
                return {**approval, "content": base64.b64encode(content).decode()}
        raise NotFoundError(f"{name!r} does not wait for anybody", code="approval.absent")

    async def questions(self) -> Sequence[dict[str, Any]]:
        return ()

    async def question(self, promise: str) -> dict[str, Any]:
        _only_read()

    async def metrics(self) -> dict[str, Any]:
        return {}

    async def decide(
        self, approval: dict[str, Any], word: str, note: str = "", confirm: str = ""
    ) -> dict[str, Any]:
        _only_read()

    async def answer(self, promise: str, value: Any) -> dict[str, Any]:
        _only_read()

    async def submit(self, line: str) -> Submitted:
        _only_read()

    async def fork(self, run: str, at: str | None = None) -> str:
        _only_read()

    async def cancel(self, run: str, reason: str) -> None:
        _only_read()

    async def quarantine(self, agent: str, reason: str) -> None:
        _only_read()

    async def release(self, agent: str, reason: str) -> None:
        _only_read()

    async def kill(self, agent: str, reason: str) -> None:
        _only_read()

    async def restart(self, agent: str, reason: str) -> None:
        _only_read()

    async def close(self) -> None:
        await self._read(self._record.close)


def _only_read() -> NoReturn:
    raise RefusedError(
        "this is a record: there is no daemon to act",
        hint="run agtop without --recorded; 'rlp daemon start' starts a daemon",
        code="agtop.recorded",
    )
