"""The life of the daemon of one home: what is built, restored and begun, in which order, and how it ends.

Knows: the parts of :mod:`runloopd.assembly`, what of a start must come before what, and the door that opens
last. Does not know how a part is put together.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine, Mapping
from contextlib import nullcontext
from typing import Any

import structlog

from runloop import __version__
from runloop.clock import SystemClock
from runloop.config import Config, Paths
from runloop.errors import RunloopError
from runloop.events import DaemonStarted, DaemonStopped, Draft, Event
from runloopd.assembly.authority import build_authority
from runloopd.assembly.gate import build_gate
from runloopd.assembly.ground import Longer, Stack, beside, in_order, open_ground, unfinished_runs
from runloopd.assembly.methods import build_methods, shell_names
from runloopd.assembly.work import start_work
from runloopd.authority.approvals import APPROVAL_KINDS
from runloopd.broker.secrets import Known, SecretStore
from runloopd.broker.survey import book_lost
from runloopd.broker.vault import places_of
from runloopd.bus.refusals import RefusalLog
from runloopd.bus.socket import SocketServer

__all__ = ["Daemon"]

log = structlog.get_logger(__name__)

BUILD = __version__
DRAIN_MS = 10_000
"""How long SIGTERM lets working attempts go on."""


class Daemon:
    """One daemon for one home. ``async with`` it; leaving drains and stops everything."""

    def __init__(
        self,
        config: Config,
        paths: Paths,
        stop: asyncio.Event,
        *,
        environ: Mapping[str, str] | None = None,
        known: Known | None = None,
        listener: socket.socket | None = None,
        longer: Longer = nullcontext,
    ) -> None:
        """``environ``: what the process was started with, keys included; None: what it has now. ``known``:
        the secrets the log is kept free of. ``listener``: the socket, where the service manager made it.
        ``longer``: entered while the start takes long, and has a reason to."""
        self._config = config
        self._secrets = SecretStore(
            environ=os.environ if environ is None else environ,
            places=places_of(os.environ, home=paths.home, keys_dir=paths.keys_dir),
            known=known,
        )
        self._paths = paths
        self._listener = listener
        self._longer = longer
        self._stop = stop
        self._stack = Stack()
        self._clock = SystemClock()
        self._drain_ms = DRAIN_MS
        self._prepared = False

    async def __aenter__(self) -> Daemon:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        """Every part, one after the other; then what was under way, and the door."""
        ground = self._ground = await open_ground(
            self._config, self._paths, self._clock, self._secrets, self._stack, self._longer
        )
        runs, unfinished = unfinished_runs(ground.reader)
        authority = self._authority = build_authority(ground)
        guarded = self._guarded = build_gate(ground, authority, unfinished)
        work = self._work = await start_work(ground, authority, guarded)
        self._methods = build_methods(
            ground, authority, guarded, work, unfinished, status=self._status, stop=self._asked_to_stop
        )

        # What was under way goes on; then whoever wants may come in.
        self._recall(unfinished)
        await self._tidy()
        await self._begin(unfinished, runs)
        # Compiling the runner takes seconds, once per build and machine: nobody waits for it who need not.
        self._background(
            authority.approvals.expire_loop(),
            guarded.gate.promises.expire_loop(),
            ground.knowledge.follow(),
            shell_names(ground, guarded).follow(),
            guarded.programs.prepare(),
            self._prepare_agents(),
        )
        await self._go_on()
        await self._open_door()
        log.info(
            "daemon_started", home=str(self._paths.home), socket=str(self._paths.socket), pid=os.getpid()
        )

    def _recall(self, unfinished: list[Event]) -> None:
        """Tell of unfinished runs, and of what the operator asked for outside of any: it lasts until
        answered."""
        reader = self._ground.reader
        self._guarded.gate.restore(unfinished, in_order(beside(reader, unfinished)))
        outside = [event for event in reader.events(kinds=APPROVAL_KINDS) if event.run is None]
        self._authority.approvals.restore(in_order((*unfinished, *outside)))

    async def _tidy(self) -> None:
        """Nothing half installed is left, and what a person agreed to meanwhile is carried out."""
        await asyncio.to_thread(self._work.installer.sweep)
        self._authority.desk.resume()

    async def _begin(self, unfinished: list[Event], runs: int) -> None:
        await book_lost(self._ground.reader, self._ground.journal)
        await self._methods.triggers.restore(unfinished)
        await self._state(DaemonStarted(build=BUILD, pid=os.getpid(), recovered_runs=runs))

    async def _go_on(self) -> None:
        """What was under way first; then what falls due."""
        await self._work.runs.recover()
        self._background(self._methods.triggers.loop())

    async def _open_door(self) -> None:
        self._started_ms = self._clock.now_ms()
        server = SocketServer(
            self._ground.bus,
            self._paths.socket,
            credential=self._ground.keyring.operator_credential,
            build=BUILD,
            clock=self._clock,
            on_lost=self._lost_socket,
            on_refused=RefusalLog(self._clock).note,
            services=self._methods.sessions,
            handed_over=self._listener,
        )
        await server.start()
        self._stack.push_async_callback(server.close)
        # Closed first: while it drains, people can still look and take back.
        self._stack.push_async_callback(self._close_runs)

    async def _close_runs(self) -> None:
        log.info("daemon_draining", runs=len(self._work.runs.active()))
        await self._methods.triggers.close()
        await self._work.runs.close(self._drain_ms)
        await self._state(DaemonStopped(reason="asked to"))

    # --- small hands ------------------------------------------------------------------------------

    async def _state(self, fact: DaemonStarted | DaemonStopped) -> None:
        await self._ground.journal.append(Draft(payload=fact, actor="daemon", scope="system"))

    def _background(self, *works: Coroutine[Any, Any, None]) -> None:
        """Run until the daemon stops."""
        tasks = [asyncio.create_task(work) for work in works]

        async def end() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._stack.push_async_callback(end)

    async def _prepare_agents(self) -> None:
        try:
            for agent in self._authority.registry.list():
                try:
                    await self._work.attempts.make_ready(agent)
                except RunloopError as error:
                    log.error("agent_unprepared", agent=agent.manifest.name, reason=error.message)
        finally:
            self._prepared = True

    def _status(self) -> dict[str, Any]:
        config, paths, journal = self._config, self._paths, self._ground.journal
        runtime, guarded = self._work.runtime, self._guarded
        return {
            "home": str(paths.home),
            "socket": str(paths.socket),
            "log": str(paths.log_file),
            "uptime_ms": self._clock.now_ms() - self._started_ms,
            "bus": self._methods.bus.summary(),
            "events": journal.head_id,
            "views": journal.views_cursor,
            "active_runs": self._work.runs.active(),
            "schedules": self._methods.trigger_methods.summary(),
            "agents_ready": self._prepared,
            "agents_unprepared": self._work.attempts.unprepared(),
            "agents_held": [held["agent"] for held in self._authority.quarantine.show()],
            "workers": runtime.workers,
            "layers": runtime.layers(),
            "programs": guarded.programs.told(),
            "groups": guarded.groups.told(),
            "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
            "bus_step": self._ground.bus.step,
            "engine": runtime.engine,
            "synchronous": config.kb.synchronous,
            "allow_unsigned_agents": config.security.allow_unsigned_agents,
        }

    def _lost_socket(self, reason: str) -> None:
        """Nobody can reach us any more: stop in good order rather than live on unseen."""
        log.error("socket_lost", reason=reason)
        self._stop.set()

    def _asked_to_stop(self, drain: bool) -> None:
        self._drain_ms = DRAIN_MS if drain else 0
        self._stop.set()
