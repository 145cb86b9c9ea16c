"""The daemon's end of the zygote: load components, get workers, kill them, learn how they ended.

Knows: one zygote process and its control messages, which of its workers live. Does not know: what a worker is
asked to do (:mod:`runloopd.runtime.session`), or when to start another zygote
(:mod:`runloopd.runtime.supervisor`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from runloop.errors import RunloopError, UnreachableError
from runloopd.runtime.engine import ComponentRefused
from runloopd.runtime.zygote_wire import receive_control, send_control

__all__ = ["Worker", "ZygoteGone", "ZygoteProcess"]

_STARTUP_S = 30.0
_ANSWER_S = 30.0


class ZygoteGone(UnreachableError):
    """The zygote ended, or does not answer. The next attempt gets a new one."""

    code = "zygote.gone"


@dataclass(slots=True, eq=False)
class Worker:
    """One living or dead worker process."""

    pid: int
    connection: socket.socket
    """Our end of its socket pair."""
    exited: asyncio.Future[int]
    """Exit code, or minus the signal; set when the zygote has reaped it, or is gone."""
    _pidfd: int = field(repr=False)
    cpu_us: int = 0
    """Microseconds of processor time it has used; known once it has been reaped."""

    @property
    def pidfd(self) -> int:
        """A descriptor of the process, until it is released."""
        return self._pidfd

    def give_way(self) -> None:
        """Let the guests of other workers and the daemon compute first; nobody is slower who is alone.

        Only the guest's thread: the main one keeps its time, and must not be late.
        """
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, 0)  # it lives, so its numbers are still its own
            for thread in map(int, os.listdir(f"/proc/{self.pid}/task")):  # noqa: PTH208
                if thread != self.pid:
                    os.setpriority(os.PRIO_PROCESS, thread, LONG_NICE)

    def kill(self) -> None:
        """SIGKILL. Safe at any time: a pidfd never names another process."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def release(self) -> None:
        """Close what the daemon holds of it."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self.connection.close()


LONG_NICE = 10
"""Niceness of a guest that computes for long: about a tenth of the time where a fresh one wants it all."""


class ZygoteProcess:
    """One zygote, from start to end."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._loop = asyncio.get_running_loop()
        self._count = 0
        self._ready: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._loading: dict[str, asyncio.Future[None]] = {}
        self._sending = asyncio.Lock()
        self._spawning: dict[int, asyncio.Future[tuple[int, int]]] = {}
        self._exits: dict[int, asyncio.Future[int]] = {}
        self._workers: dict[int, Worker] = {}
        """Those that live, by number: to be told what they have used."""
        self.facts: dict[str, Any] = {}
        """What it said of itself: ``wasmtime``, ``layers``, ``threads``."""
        self.alive = True
        control.setblocking(False)
        self._loop.add_reader(control, self._readable)

    @classmethod
    async def start(cls, waived: Collection[str]) -> ZygoteProcess:
        """Start a zygote and wait until it is ready; raises :class:`ZygoteGone`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220 - vfork; the wait for it is asynchronous
                [
                    sys.executable, "-I", "-m", "runloopd.runtime.zygote", str(theirs.fileno()),
                    str(os.getpid()), *waived,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Two arenas: the guest's thread gets a fresh one, instead of the gaps of the zygote's pages.
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC", "MALLOC_ARENA_MAX": "2"},
                cwd="/",
                start_new_session=True,
            )  # fmt: skip
        zygote = cls(process, ours)
        try:
            zygote.facts = await asyncio.wait_for(zygote._ready, _STARTUP_S)
        except (TimeoutError, ZygoteGone) as error:
            await zygote.close()
            raise ZygoteGone(
                "the worker host did not start",
                hint="look at the daemon's log; 'rlp doctor' checks the sandbox",
            ) from error
        return zygote

    @property
    def pid(self) -> int:
        return self._process.pid

    async def load(self, component: str, memfd: int, *, ours: bool = False) -> None:
        """Have the compiled form mapped; ``ours``: and instantiated, which runs its start.

        Raises :class:`ComponentRefused`, :class:`ZygoteGone`.
        """
        waiting = self._loading.get(component)
        if waiting is None:
            waiting = self._loading[component] = self._loop.create_future()
            try:
                await self._send({"do": "load", "component": component, "ours": ours}, memfd)
            except ZygoteGone:
                self._loading.pop(component, None)
                waiting.cancel()
                raise
        await asyncio.wait_for(asyncio.shield(waiting), _ANSWER_S)

    async def spawn(self, component: str, *, memory_bytes: int, guest_ms: int) -> Worker:
        """Fork a worker for a loaded component. Raises :class:`ZygoteGone`."""
        return await self._fork(
            {"do": "spawn", "component": component, "memory_bytes": memory_bytes, "guest_ms": guest_ms}
        )

    async def probe(self, attempt: str) -> Worker:
        """Fork a process that hardens itself, tells its layers on the socket, and tries ``attempt``."""
        return await self._fork({"do": "probe", "attempt": attempt})

    async def _fork(self, message: dict[str, Any]) -> Worker:
        self._count += 1
        number = self._count
        spawned = self._spawning[number] = self._loop.create_future()
        exited = self._exits[number] = self._loop.create_future()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                await self._send({**message, "id": number}, theirs.fileno())
            pid, pidfd = await asyncio.wait_for(asyncio.shield(spawned), _ANSWER_S)
        except BaseException as error:
            ours.close()
            # A worker that appears later is killed when its message arrives; it has no order and sees no one.
            spawned.add_done_callback(_discard)
            if isinstance(error, TimeoutError):
                raise ZygoteGone("the worker host does not answer") from error
            raise
        finally:
            self._spawning.pop(number, None) if spawned.done() else None
        ours.setblocking(False)
        worker = Worker(pid, ours, exited, pidfd)
        if not exited.done():
            self._workers[number] = worker
        return worker

    async def _send(self, message: dict[str, Any], fd: int) -> None:
        # One at a time: the loop knows one waiting writer of a socket, and would forget all but the last.
        async with self._sending:
            while self.alive:
                try:
                    send_control(self._control, message, [fd])
                    return
                except BlockingIOError:
                    writable = self._loop.create_future()
                    self._loop.add_writer(self._control, _wake, writable)
                    try:
                        await asyncio.wait_for(writable, _ANSWER_S)
                    except TimeoutError as error:
                        raise ZygoteGone("the worker host does not read") from error
                    finally:
                        self._loop.remove_writer(self._control)
                except OSError:
                    self._gone()
        raise ZygoteGone("the worker host is gone")

    def _readable(self) -> None:
        try:
            while (received := receive_control(self._control)) is not None:
                self._handle(*received)
            self._gone()
        except BlockingIOError:
            return
        except OSError:
            self._gone()

    def _handle(self, message: dict[str, Any], fds: list[int]) -> None:
        match message["is"]:
            case "ready":
                self._ready.set_result(message)
            case "loaded":
                _resolve(self._loading[message["component"]], None)
            case "refused":
                waiting = self._loading.pop(message["component"])
                if not waiting.done():
                    waiting.set_exception(ComponentRefused(message["message"]))
            case "spawned":
                spawned = self._spawning.pop(message["id"])
                if spawned.cancelled():
                    _kill(fds[0])
                else:
                    spawned.set_result((message["pid"], fds[0]))
            case "exited":
                if (worker := self._workers.pop(message["id"], None)) is not None:
                    worker.cpu_us = message["cpu_us"]
                _resolve(self._exits.pop(message["id"]), message["status"])

    def _gone(self) -> None:
        """The zygote is no more, and with it (parent death) every worker."""
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._control)
        gone: RunloopError = ZygoteGone("the worker host is gone")
        pending: list[asyncio.Future[Any]] = [self._ready, *self._loading.values(), *self._spawning.values()]
        for waiting in pending:
            if not waiting.done():
                waiting.set_exception(gone)
                waiting.exception()  # seen: nobody may be waiting
        for exited in self._exits.values():
            _resolve(exited, -signal.SIGKILL)
        self._spawning.clear()
        self._exits.clear()
        self._workers.clear()

    async def close(self) -> None:
        """Close the pair, which ends the zygote and its workers; SIGKILL if it lingers."""
        self._gone()
        self._control.close()
        try:
            await asyncio.to_thread(self._process.wait, 2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)


def _wake(writable: asyncio.Future[None]) -> None:
    _resolve(writable, None)


def _resolve(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _kill(pidfd: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def _discard(spawned: asyncio.Future[tuple[int, int]]) -> None:
    if not spawned.cancelled() and spawned.exception() is None:
        _kill(spawned.result()[1])
