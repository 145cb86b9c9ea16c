"""The feed of a living daemon: it says what to look at, the ledger says what happened, orders go to the
daemon.

A frame on a run's topic only says *look*: what is shown is read from the ledger, so a shed frame or a lost
connection changes when something is shown, never what. When the daemon goes away the feed says so, goes on
from the record, and looks for a daemon with growing patience, for as long as it lives. Knows nothing of the
screen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from agtop.feed.record import Record
from agtop.feed.route import submit_line
from agtop.model.facts import Fact
from agtop.ports import Change, Link, RunRow, Submitted
from runloop.approval import DECISION_TYPE, decision
from runloop.client import AsyncClient, Delivery
from runloop.config import Paths
from runloop.credential import read_credential
from runloop.errors import RunloopError, UnreachableError
from runloop.rmp import topics
from runloop.rmp.session import Backoff

__all__ = ["LiveFeed"]

T = TypeVar("T")

HEARD = ("rlp/runs/*", "rlp/actions/*")
"""What is listened to: every run's events, and what begins to wait for a person."""
MOST_S = 5.0
"""Longest pause between two looks for a daemon."""
FORK_S = 120.0
"""A fork may have to compile an agent first."""
ASK_S = 10.0
_LISTS = ("run.started", "run.finished", "run.resumed", "action.", "promise.", "trigger.", "agent.")
"""Kinds, or beginnings of kinds, after which the lists of runs and of what waits may be others."""


class LiveFeed:
    """Serves :class:`agtop.ports.Desk` of one home, its daemon running or not."""

    def __init__(self, paths: Paths, *, home: str | None = None, connect_s: float = 5.0) -> None:
        """``home``: as it was named on the command line, for the programs that are started on its behalf."""
        self._paths = paths
        self._home = home
        self._connect_s = connect_s
        self._record = Record(paths.events_db)
        self._one = asyncio.Lock()
        """The record is for one thread at a time."""
        self._client: AsyncClient | None = None
        self._refused: RunloopError | None = None
        """Why a daemon that is there does not hear us, where that is so."""
        self._sample: int | None = None
        """Number of the newest sample of metrics: the next one has rates over the time since."""
        self._keeper: asyncio.Task[None] | None = None
        self._link = Link(how="recorded", since_ms=_now_ms(), words="looking for the daemon")
        self._pending = Change()
        self._news = asyncio.Event()

    @property
    def link(self) -> Link:
        return self._link

    async def change(self) -> Change:
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())
        await self._news.wait()
        self._news.clear()
        change, self._pending = self._pending, Change()
        return change

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        self._hang_up()
        await self._read(self._record.close)

    # --- the connection ---------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Stay connected, for ever; say how it stands."""
        backoff = Backoff(_random, first_s=0.1, most_s=MOST_S)
        while True:
            try:
                client = await self._connected()
            except RunloopError as error:
                self._refused = None if isinstance(error, UnreachableError) else error
                self._stands(_away(self._link, error))
            else:
                backoff = Backoff(_random, first_s=0.1, most_s=MOST_S)
                await self._hear(client)
            await asyncio.sleep(backoff.next_s())

    async def _connected(self) -> AsyncClient:
        proof = await asyncio.to_thread(read_credential, self._paths)
        client = await AsyncClient.connect(self._paths.socket, proof, self._connect_s, client="agtop")
        try:
            for pattern in HEARD:
                await client.subscribe(pattern)
            async with self._one:
                self._record.reopen()  # a restore puts another file in its place
        except BaseException:
            client.close()
            raise
        self._client, self._refused = client, None
        self._stands(Link(how="live", since_ms=_now_ms(), words=str(self._paths.home)))
        return client

    async def _hear(self, client: AsyncClient) -> None:
        """Take in what the daemon says until it goes away."""
        try:
            async for delivery in client.deliveries():
                self._heard(delivery)
        except RunloopError as error:
            self._stands(_away(self._link, error))
        finally:
            self._hang_up()

    def _heard(self, delivery: Delivery) -> None:
        part = delivery.topic.split("/")
        if part[1] != "runs":
            self._tell(Change(approvals=True))
            return
        if part[-1] != "events" or not isinstance(delivery.payload, dict):
            return
        event = delivery.payload.get("event")
        if isinstance(event, dict):
            lists = str(event.get("kind")).startswith(_LISTS)
            self._tell(Change(runs=frozenset({part[2]}), approvals=lists))

    def _stands(self, link: Link) -> None:
        if (link.how, link.words) != (self._link.how, self._link.words):
            self._link = link
            self._tell(Change(link=link, every=True, approvals=True))

    def _tell(self, change: Change) -> None:
        before = self._pending
        if change.runs <= before.runs and (before.approvals or not change.approvals) and not change.link:
            self._news.set()
            return
        self._pending = Change(
            runs=before.runs | change.runs,
            every=before.every or change.every,
            link=change.link or before.link,
            approvals=before.approvals or change.approvals,
        )
        self._news.set()

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    # --- reading ------------------------------------------------------------------------------------------

    async def _read(self, read: Callable[..., T], *args: Any) -> T:
        async with self._one:
            return await asyncio.to_thread(read, *args)

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
        if self._client is None:
            return await self._read(self._record.approvals)
        found: list[dict[str, Any]] = (await self._ask("approvals.list", all=False))["approvals"]
        return found

    async def approval(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("approvals.show", approval=name)
        return found

    async def questions(self) -> Sequence[dict[str, Any]]:
        if self._client is None:
            return ()
        found: list[dict[str, Any]] = (await self._ask("promise.list"))["promises"]
        return [promise for promise in found if promise["resolver"] == "operator"]

    async def question(self, promise: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("promise.show", promise=promise)
        return found

    async def metrics(self) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("agents.metrics", since=self._sample)
        self._sample = int(found["sample"])
        return found

    # --- acting -------------------------------------------------------------------------------------------

    async def decide(
        self, approval: dict[str, Any], word: str, note: str = "", confirm: str = ""
    ) -> dict[str, Any]:
        client = self._reached()
        answer: dict[str, Any] = await client.request(
            topics.ACTION_DECISION, DECISION_TYPE, decision(approval, word, note, confirm)
        )
        return answer

    async def answer(self, promise: str, value: Any) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("promise.resolve", promise=promise, value=value)
        return found

    async def submit(self, line: str) -> Submitted:
        return await submit_line(line, home=self._home)

    async def fork(self, run: str, at: str | None = None) -> str:
        origin = {"via": "agtop", "interactive": True}
        made = await self._ask("run.fork", FORK_S, run=run, at=at, origin=origin)
        return str(made["run"])

    async def cancel(self, run: str, reason: str) -> None:
        await self._ask("run.cancel", run=run, reason=reason)

    async def quarantine(self, agent: str, reason: str) -> None:
        await self._ask("agent.quarantine", agent=agent, reason=reason)

    async def release(self, agent: str, reason: str) -> None:
        await self._ask("agent.release", agent=agent, reason=reason)

    async def kill(self, agent: str, reason: str) -> None:
        await self._ask("agent.kill", agent=agent, reason=reason)

    async def restart(self, agent: str, reason: str) -> None:
        await self._ask("agent.restart", agent=agent, reason=reason)

    async def _ask(self, method: str, timeout_s: float = ASK_S, /, **params: Any) -> Any:
        return await self._reached().call(method, params, timeout_s)

    def _reached(self) -> AsyncClient:
        if self._client is None and self._refused is not None:
            raise self._refused
        if self._client is None:
            raise UnreachableError(
                "there is no daemon to ask",
                hint="it is looked for; 'rlp daemon start' starts one",
                code="agtop.no_daemon",
            )
        return self._client


def _away(before: Link, error: RunloopError) -> Link:
    """Nobody answers: new to somebody who was connected, and no news to somebody who never was."""
    if before.how == "recorded" and isinstance(error, UnreachableError):
        return Link(how="recorded", since_ms=before.since_ms, words="no daemon runs; this is the record")
    since = before.since_ms if before.how == "gone" else _now_ms()
    words = "the daemon went away" if isinstance(error, UnreachableError) else error.message
    return Link(how="gone", since_ms=since, words=words)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _random() -> float:
    return int.from_bytes(os.urandom(7), "big") / (1 << 56)
