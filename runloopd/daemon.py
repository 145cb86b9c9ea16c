"""The composition root: the only module that builds services, in order, and stops them in reverse.

Knows every service by name and nothing of what they do. Reading it top to bottom is reading the daemon.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import random
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any

import structlog

from openings import engine as openings_engine
from pog.ledger import Ledger
from pog.materializer import Materializer
from pog.query import Knowledge
from pog.reader import Reader
from runloop import __version__
from runloop.bundle.runner import read_pin, unpack
from runloop.clock import SystemClock
from runloop.config import Config, Paths, shipped
from runloop.errors import RunloopError
from runloop.events import AgentTransition, DaemonStarted, DaemonStopped, Draft, Provenance
from runloop.ids import RunId, run_id_to_int
from runloop.rmp import topics
from runloopd.authority.approvals import Approvals
from runloopd.authority.keyring import Keyring
from runloopd.authority.mint import Mint
from runloopd.authority.policies import AgentRights, Policies
from runloopd.broker.gate import Gate
from runloopd.broker.knowledge import LedgerKnowledge
from runloopd.broker.mail import MailBroker
from runloopd.broker.models import ModelBroker
from runloopd.broker.ports import Delta
from runloopd.broker.quotas import Quotas
from runloopd.broker.secrets import SecretStore, keyring_lookup
from runloopd.bus.bus import Bus
from runloopd.bus.principal import DAEMON
from runloopd.bus.refusals import RefusalLog
from runloopd.bus.socket import SocketServer
from runloopd.gateway.control import Control
from runloopd.journal import Journal
from runloopd.runs.attempts import BusAttempts
from runloopd.runs.replayer import Replayer
from runloopd.runs.service import Runs
from runloopd.runtime.mailbox import Mailbox
from runloopd.runtime.orders import AttemptOrder
from runloopd.runtime.registry import Registry, read_pins
from runloopd.runtime.supervisor import Runtime

__all__ = ["Daemon"]

log = structlog.get_logger(__name__)

BUILD = __version__
DRAIN_MS = 10_000
"""How long SIGTERM lets working attempts go on."""
TOKEN_MARGIN_MS = 86_400_000
"""A run's tokens outlive the approvals it may wait for by a day."""


class Daemon:
    """One daemon for one home. ``async with`` it; leaving drains and stops everything."""

    def __init__(self, config: Config, paths: Paths, stop: asyncio.Event) -> None:
        self._config = config
        self._paths = paths
        self._stop = stop
        self._stack = AsyncExitStack()
        self._clock = SystemClock()
        self._drain_ms = DRAIN_MS
        self._prepared = False

    async def __aenter__(self) -> Daemon:
        try:
            await self._build()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _later(self, close: Any, *args: Any) -> None:
        self._stack.push_async_callback(close, *args)

    async def _build(self) -> None:
        config, paths, clock = self._config, self._paths, self._clock
        paths.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        keyring = Keyring.open(paths.keys_dir)
        bus = self._bus = Bus(clock)

        # Facts. The ledger's lock is what refuses a second daemon of this home.
        ledger = Ledger.open(
            paths.events_db,
            signing_key=keyring.ledger_key,
            synchronous=config.kb.synchronous,
            clock=clock,
            anchor=paths.ledger_anchor,
        )
        if ledger.torn_tail:
            log.warning("ledger_tail_cut", file=str(paths.events_db), head=ledger.head.id)
        journal = self._journal = Journal(ledger, Materializer.open(paths.views_db, paths.events_db), clock)
        self._later(journal.close)
        reader = self._reader = Reader(paths.events_db)
        self._stack.callback(reader.close)
        # Readers serve one call at a time: what threads scan is not what the event loop waits for.
        scans = Reader(paths.events_db)
        self._stack.callback(scans.close)
        views = Knowledge(paths.views_db, scans)
        self._stack.callback(views.close)
        knowledge = LedgerKnowledge(views, journal)
        unfinished_runs = reader.unfinished_runs()
        unfinished = [event for run in unfinished_runs for event in reader.events(run=run)]
        unfinished.sort(key=lambda event: event.id)

        # Authority.
        mint = Mint(keyring, journal, clock, ttl_ms=config.security.approval_expiry_ms + TOKEN_MARGIN_MS)
        mint.restore(reader.events(kinds=("token.issued", "token.revoked")))
        approvals = Approvals(
            journal,
            clock,
            expiry_ms=config.security.approval_expiry_ms,
            undo_window_ms=config.security.undo_window_ms,
        )
        registry = Registry(
            paths.agents_dirs,
            pins=read_pins(shipped("agents")),
            runner_digest=read_pin(shipped("runner")).blake3,
            allow_unsigned=config.security.allow_unsigned_agents,
            kept=paths.home / "bundles",
        )
        policies = Policies(paths.overrides_dir, lambda: rights_of(registry), journal, mint)

        # The gate and what it guards.
        secrets = SecretStore(environ=os.environ, file=paths.home / "secrets.toml", keyring=keyring_lookup)
        models = ModelBroker(config.models, secrets=secrets, clock=clock, jitter=random.random)
        self._later(models.close)
        gate = Gate(
            journal=journal,
            mint=mint,
            approvals=approvals,
            quotas=Quotas(config.quotas, config.budgets),
            models=models,
            mail=MailBroker.configured(
                config.mail, outbox=paths.outbox, user=getpass.getuser(), secrets=secrets
            ),
            knowledge=knowledge,
            clock=clock,
            entropy=os.urandom,
            on_delta=self._show,
        )
        self._later(gate.close)

        # Where guests run.
        runtime = self._runtime = Runtime(
            cache_dir=paths.cache_dir,
            mac_key=keyring.cache_key,
            on_transition=self._moved,
            ours={read_pin(shipped("runner")).blake3},
        )
        await runtime.start()
        self._later(runtime.close)
        mailbox = Mailbox(bus, runtime)
        self._later(mailbox.close)

        # Runs.
        attempts = BusAttempts(
            bus=bus,
            mailbox=mailbox,
            runtime=runtime,
            registry=registry,
            runner_path=await asyncio.to_thread(unpack, shipped("runner"), paths.cache_dir),
            mint=mint,
            policies=policies,
            gate=gate,
            journal=journal,
            reader=reader,
        )
        runs = self._runs = Runs(
            bus=bus,
            journal=journal,
            reader=reader,
            registry=registry,
            approvals=approvals,
            attempts=attempts,
            replayer=Replayer(reader=reader, registry=registry, runtime=runtime, attempts=attempts),
            clock=clock,
            engine_versions=lambda: {"logic": openings_engine.LOGIC, **runtime.engine},
            budgets=config.budgets,
        )
        # Faces.
        control = Control(
            bus=bus,
            journal=journal,
            reader=scans,
            runs=runs,
            approvals=approvals,
            knowledge=knowledge,
            policies=policies,
            clock=clock,
            status=self._status,
            stop=self._asked_to_stop,
        )
        self._later(control.close)

        gate.restore(unfinished)
        approvals.restore(unfinished)
        self._background(approvals.expire_loop())
        await journal.append(
            Draft(
                payload=DaemonStarted(build=BUILD, pid=os.getpid(), recovered_runs=len(unfinished_runs)),
                actor="daemon",
                scope="system",
            )
        )
        # Compiling the runner takes seconds, once per build and machine: nobody waits for it who need not.
        self._background(self._prepare_agents(registry, attempts))
        await runs.recover()
        self._started_ms = clock.now_ms()
        server = SocketServer(
            bus,
            paths.socket,
            credential=keyring.operator_credential,
            build=BUILD,
            clock=clock,
            on_lost=self._lost_socket,
            on_refused=RefusalLog(clock).note,
        )
        await server.start()
        self._later(server.close)
        # Closed first: while it drains, people can still look and take back.
        self._stack.push_async_callback(self._close_runs)
        log.info("daemon_started", home=str(paths.home), socket=str(paths.socket), pid=os.getpid())

    async def _close_runs(self) -> None:
        log.info("daemon_draining", runs=len(self._runs.active()))
        await self._runs.close(self._drain_ms)
        await self._journal.append(
            Draft(payload=DaemonStopped(reason="asked to"), actor="daemon", scope="system")
        )

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run until the daemon stops."""
        task = asyncio.create_task(work)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._later(end)

    # --- small hands ------------------------------------------------------------------------------

    async def _prepare_agents(self, registry: Registry, attempts: BusAttempts) -> None:
        for agent in registry.list():
            try:
                await attempts.prepare(agent)
            except RunloopError as error:
                log.error("agent_unprepared", agent=agent.manifest.name, reason=error.message)
        self._prepared = True

    def _show(self, delta: Delta) -> None:
        """Ephemeral progress goes to whoever follows the run; it is never recorded."""
        # The fields are a guest's: they never stand for what the daemon says itself.
        body = {"delta": {**delta.fields, "node": delta.node, "kind": delta.kind, "text": delta.text}}
        trace = run_id_to_int(RunId(delta.run))
        frame = self._bus.compose(
            DAEMON, topics.run_events(delta.run), "observation.opening.event.v1", body, trace_id=trace
        )
        self._bus.publish(frame)

    async def _moved(self, order: AttemptOrder, transition: AgentTransition) -> None:
        if order.recorded:
            return  # a replay: what it does is no news of the run it repeats
        await self._journal.append(
            Draft(
                payload=transition,
                actor="daemon",
                run=order.run,
                provenance=Provenance(node=order.node, attempt=order.attempt, agent=transition.agent),
            )
        )

    def _status(self) -> dict[str, Any]:
        return {
            "home": str(self._paths.home),
            "socket": str(self._paths.socket),
            "log": str(self._paths.log_file),
            "uptime_ms": self._clock.now_ms() - self._started_ms,
            "events": self._journal.head_id,
            "views": self._journal.views_cursor,
            "active_runs": self._runs.active(),
            "agents_ready": self._prepared,
            "workers": self._runtime.workers,
            "layers": self._runtime.layers(),
            "engine": self._runtime.engine,
            "synchronous": self._config.kb.synchronous,
            "allow_unsigned_agents": self._config.security.allow_unsigned_agents,
        }

    def _lost_socket(self, reason: str) -> None:
        """Nobody can reach us any more: stop in good order rather than live on unseen."""
        log.error("socket_lost", reason=reason)
        self._stop.set()

    def _asked_to_stop(self, drain: bool) -> None:
        self._drain_ms = DRAIN_MS if drain else 0
        self._stop.set()


def rights_of(registry: Registry) -> Mapping[str, AgentRights]:
    """What each installed agent asks for; a broken bundle is left out (and shown by ``rlp doctor``)."""
    return {
        agent.manifest.name: AgentRights(
            name=agent.manifest.name,
            version=agent.manifest.version,
            top=agent.ceiling,
            policy=agent.policy,
        )
        for agent in registry.list()
    }
