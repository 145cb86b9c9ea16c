"""The control groups of guests: which share of the machine a worker gets, and what its end then means.

Knows: the bounds that follow from an order, that a worker without its group does not live on, that one the
kernel ended for want of memory has a name of its own. Does not know: how groups are made (``cgroups``), how a
worker is (``supervisor``). Where there are no groups nothing of it happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace

import structlog

from runloop.events import GuestError
from runloopd.cgroups import Bounds, Groups, Member, Used
from runloopd.runtime.engine import COMPILE_LIMITS
from runloopd.runtime.failures import CRASHED, NO_WORKER, OOM
from runloopd.runtime.orders import MIB, AttemptOrder, AttemptResult
from runloopd.runtime.workers import Worker, ZygoteGone, ZygoteProcess

__all__ = ["COMPILE_BOUNDS", "Share", "Shares", "worker_bounds"]

log = structlog.get_logger(__name__)

_WORKER_SLACK = 192 * MIB
"""Beside a guest's own memory: what it may hold privately (64 MiB), pages it was forked with and wrote to,
the image of its component, tables of the kernel. Resource limits come first; this is for what they miss."""
_WORKER_TASKS = 8
"""Two threads, and no way to a third."""
COMPILE_BOUNDS = Bounds(
    memory=COMPILE_LIMITS.data_bytes + 2 * (COMPILE_LIMITS.wasm_bytes + COMPILE_LIMITS.cwasm_bytes), tasks=256
)


def worker_bounds(memory_bytes: int) -> Bounds:
    """Of a worker whose guest may have so much."""
    return Bounds(memory=memory_bytes + _WORKER_SLACK, tasks=_WORKER_TASKS)


class Shares:
    """Puts the runtime's processes into groups. One per runtime."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._leaving: set[asyncio.Future[Used]] = set()

    async def beginning(self, zygote: ZygoteProcess) -> ZygoteProcess:
        """The zygote, in its place before it forks anything. Raises :class:`ZygoteGone`."""
        try:
            await self._groups.place("zygote", zygote.pid)
        except OSError as error:
            await zygote.close()
            raise ZygoteGone(f"the worker host has no control group: {error}") from error
        return zygote

    @contextlib.asynccontextmanager
    async def of(self, worker: Worker, order: AttemptOrder) -> AsyncIterator[Share]:
        """A group of its own in that of its run, as long as the worker serves. The worker moves while its
        guest begins: a move waits for all processors, and the resource limits hold meanwhile."""
        member = self._groups.enter(
            "worker",
            worker.pid,
            pidfd=worker.pidfd,
            run=order.run,
            agent=order.agent or order.node,
            bounds=worker_bounds(order.limits.memory_bytes),
        )
        if member is not None:
            member.begun.add_done_callback(lambda _: self._settled(member, worker))
        try:
            yield Share(self._groups, member)
        finally:
            worker.kill()
            if member is not None:
                self._later(member)

    @contextlib.asynccontextmanager
    async def compiling(self, pid: int) -> AsyncIterator[None]:
        """A group for a process that compiles."""
        member = None
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                member = self._groups.enter(
                    "compile", pid, pidfd=pidfd, run="", agent="", bounds=COMPILE_BOUNDS
                )
            finally:
                os.close(pidfd)
        try:
            yield
        finally:
            if member is not None:
                self._later(member)

    async def close(self) -> None:
        """Every group that was left is gone."""
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def _settled(self, member: Member, worker: Worker) -> None:
        if (why := self._groups.refused(member)) is not None:
            log.error("worker_without_group", reason=why)
            worker.kill()

    def _later(self, member: Member) -> None:
        leaving = asyncio.ensure_future(self._groups.left(member))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._left)

    def _left(self, leaving: asyncio.Future[Used]) -> None:
        self._leaving.discard(leaving)
        if not leaving.cancelled():
            leaving.exception()  # said already, by the groups


class Share:
    """One worker's."""

    def __init__(self, groups: Groups, member: Member | None) -> None:
        self._groups = groups
        self._member = member

    async def judged(self, result: AttemptResult) -> AttemptResult:
        """A worker that is gone without a word: the kernel may have ended it, or we did."""
        member = self._member
        if member is None or result.error is None or result.error.code != CRASHED:
            return result
        if (why := self._groups.refused(member)) is not None:
            return _ended(result, NO_WORKER, f"the worker could not be given its control group: {why}")
        try:
            used = await self._groups.left(member)
        except OSError:
            return result
        if not used.ooms:
            return result
        most = "" if used.peak is None else f", at {-(-used.peak // MIB)} MiB"
        return _ended(
            result, OOM, f"the kernel ended the worker{most}: the memory of its run, or its own, was used up"
        )


def _ended(result: AttemptResult, code: str, message: str) -> AttemptResult:
    return replace(result, error=GuestError(code=code, message=message, retryable=True))
