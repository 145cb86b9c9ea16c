"""The composition root: the only module that builds services, in order, and stops them in reverse.

Knows every service by name and nothing of what they do. Reading it top to bottom is reading the daemon.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import random
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, closing, nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar

import structlog

import runloop
from openings import engine as openings_engine
from pog.connection import OutdatedError
from pog.ledger import Ledger
from pog.maintain.migrate import migrate
from pog.maintain.rotate import settle
from pog.materializer import Materializer
from pog.query import Knowledge
from pog.reader import Reader
from pog.topics import Topics
from runloop import __version__
from runloop.bundle.installed import INSTALL_KINDS, Installations
from runloop.bundle.keyfile import DEV_KEY, read_key
from runloop.bundle.runner import RUNNERS, read_pin, unpack
from runloop.bundle.signature import PublicKey
from runloop.clock import SystemClock
from runloop.config import Config, Paths, shipped
from runloop.credential import read_key as read_private_key
from runloop.errors import NotFoundError, RunloopError
from runloop.events import (
    AgentTransition,
    DaemonStarted,
    DaemonStopped,
    Draft,
    Event,
    Provenance,
    RunStarted,
)
from runloop.ids import RunId, run_id_to_int
from runloop.rmp import topics
from runloop.rmp.frame import MAX_BODY
from runloopd.authority.anchors import SYSTEM_FILE, Anchors
from runloopd.authority.approvals import APPROVAL_KINDS, Approvals
from runloopd.authority.desk import Desk
from runloopd.authority.faces import FACE_KINDS, Faces
from runloopd.authority.keyring import Keyring
from runloopd.authority.mint import Mint
from runloopd.authority.policies import AgentRights, Policies
from runloopd.authority.retractions import RETRACTION_KINDS, Retractions
from runloopd.authority.standing import STANDING_KINDS, Standing
from runloopd.broker.embedding import EmbedBroker
from runloopd.broker.gate import Gate
from runloopd.broker.imports import Imports
from runloopd.broker.indexing import IndexEmbedder, chosen
from runloopd.broker.knowledge import LedgerKnowledge
from runloopd.broker.mail import MailBroker
from runloopd.broker.mcp.service import MCP_KINDS, McpClient
from runloopd.broker.models import ModelBroker
from runloopd.broker.ports import Delta
from runloopd.broker.promises import Promises
from runloopd.broker.providers.files import Files
from runloopd.broker.providers.web import Web
from runloopd.broker.quotas import Quotas
from runloopd.broker.secret_book import SECRET_KINDS, SecretBook
from runloopd.broker.secret_ops import Lending
from runloopd.broker.secrets import Known, SecretStore
from runloopd.broker.statements import Statements
from runloopd.broker.survey import Survey, book_lost
from runloopd.broker.talk import Talk
from runloopd.broker.toolbox import ToolSource
from runloopd.broker.tools.changes import Changes
from runloopd.broker.tools.choosing import chosen_sandbox
from runloopd.broker.tools.host import host_tools
from runloopd.broker.tripwires import Tripwires
from runloopd.broker.vault import places_of
from runloopd.bus.bus import Bus
from runloopd.bus.consumers import Consumers
from runloopd.bus.directory import Directory, Hosted
from runloopd.bus.durable import Durable, DurableLimits
from runloopd.bus.parts import SessionService
from runloopd.bus.principal import DAEMON
from runloopd.bus.refusals import RefusalLog
from runloopd.bus.socket import SocketServer
from runloopd.cgroups import Bounds, Groups, divided
from runloopd.gateway.agents import AgentMethods
from runloopd.gateway.bus import BusMethods
from runloopd.gateway.control import Control
from runloopd.gateway.describe import Descriptions
from runloopd.gateway.faces import FaceMethods
from runloopd.gateway.forks import rows as fork_rows
from runloopd.gateway.grants import rows as grant_rows
from runloopd.gateway.imports import ImportMethods
from runloopd.gateway.mcp import rows as mcp_rows
from runloopd.gateway.memory import MemoryMethods
from runloopd.gateway.methods import Row
from runloopd.gateway.metrics import rows as metric_rows
from runloopd.gateway.metrics import sources as metric_sources
from runloopd.gateway.names import Names
from runloopd.gateway.promises import PromiseMethods
from runloopd.gateway.providers import ProviderMethods
from runloopd.gateway.retractions import rows as retraction_rows
from runloopd.gateway.secrets import SecretMethods
from runloopd.gateway.triggers import TriggerMethods
from runloopd.gateway.upkeep import rows as upkeep_rows
from runloopd.gateway.whatif import rows as whatif_rows
from runloopd.journal import Journal
from runloopd.observe.metrics import Metrics
from runloopd.observe.tally import Tally
from runloopd.runs.attempts import BusAttempts
from runloopd.runs.fork import Forks
from runloopd.runs.guests import ToolAgents
from runloopd.runs.hearing import Branches
from runloopd.runs.replayer import LedgerSource, Replayer
from runloopd.runs.service import Runs
from runloopd.runs.stops import Stops
from runloopd.runs.trial import Trial
from runloopd.runtime.breaker import Breaker
from runloopd.runtime.indexes import Indexes
from runloopd.runtime.installer import Installer
from runloopd.runtime.library import library_digest
from runloopd.runtime.mailbox import Mailbox
from runloopd.runtime.orders import AttemptOrder
from runloopd.runtime.quarantine import KINDS as QUARANTINE_KINDS
from runloopd.runtime.quarantine import Quarantine
from runloopd.runtime.registry import Registry, read_pins
from runloopd.runtime.store import Store
from runloopd.runtime.supervisor import Runtime
from runloopd.runtime.uses import Usage
from runloopd.triggers.kernel import WallAlarm
from runloopd.triggers.record import Record
from runloopd.triggers.service import Triggers

__all__ = ["Daemon"]

log = structlog.get_logger(__name__)

BUILD = __version__
DRAIN_MS = 10_000
"""How long SIGTERM lets working attempts go on."""
FAILURES_LOOKBACK = 20_000
"""Events in which a daemon that starts looks for failures that count; older ones are no longer a storm."""
TOKEN_MARGIN_MS = 86_400_000
"""A run's tokens outlive the approvals it may wait for by a day."""


class _Service(Protocol):
    async def close(self) -> None: ...


Owned = TypeVar("Owned", bound=_Service)


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
        longer: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
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

    def _later(self, close: Callable[[], Awaitable[None]]) -> None:
        self._stack.push_async_callback(close)

    def _own(self, service: Owned) -> Owned:
        """Close it when the daemon ends: what was owned last is closed first."""
        self._later(service.close)
        return service

    async def _build(self) -> None:
        """Every service, one after the other; then what was under way, and the door."""
        config, paths, clock = self._config, self._paths, self._clock
        paths.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        keyring = _keyring(paths)
        bus = self._bus = Bus(clock)

        # Facts.
        ledger = await self._ledger(keyring)
        views = Materializer.open(paths.views_db, paths.events_db)
        journal = self._journal = self._own(Journal(ledger, views, clock))
        reader = self._stack.enter_context(closing(Reader(paths.events_db)))
        # Readers serve one call at a time: what threads scan is not what the event loop waits for.
        scans = self._stack.enter_context(closing(Reader(paths.events_db)))
        knowledge = self._own(
            LedgerKnowledge(self._stack.enter_context(closing(Knowledge(paths.views_db, scans))), journal)
        )
        unfinished_runs = reader.unfinished_runs()
        unfinished = in_order(event for run in unfinished_runs for event in reader.events(run=run))

        # Authority.
        mint = Mint(keyring, journal, clock, ttl_ms=config.security.approval_expiry_ms + TOKEN_MARGIN_MS)
        mint.restore(reader.events(kinds=("token.issued", "token.revoked")))
        approvals = Approvals(
            journal,
            clock,
            expiry_ms=config.security.approval_expiry_ms,
            undo_window_ms=config.security.undo_window_ms,
        )
        installed = Installations.folded(reader.events(kinds=INSTALL_KINDS))
        desk = Desk(approvals)
        anchors = Anchors(paths.trust_file, journal, approvals, desk)
        store = Store(paths.kept_dir)
        runner_digests = {name: read_pin(shipped(place)).blake3 for name, place in RUNNERS.items()}
        registry = Registry(
            paths.agents_dirs,
            pins=read_pins(shipped("agents")),
            runners=runner_digests,
            allow_unsigned=config.security.allow_unsigned_agents,
            kept=store.kept,
            installed=installed,
            objection=anchors.objection,
        )
        policies = Policies(paths.overrides_dir, lambda: rights_of(registry), journal, mint)
        breaker = Breaker(failures=config.breaker.failures, window_ms=config.breaker.window_ms)
        quarantine = self._quarantine = self._own(Quarantine(journal, mint, breaker))
        quarantine.restore(held_before(reader, ledger.head.id))

        # The gate and what it guards.
        quotas = Quotas(config.quotas, config.budgets)
        retractions = recalled(Retractions(journal, approvals, knowledge.dependants), reader, unfinished)
        gate = self._gate(journal, mint, approvals, quotas, knowledge, retractions, keyring, reader, desk)

        # Where guests run.
        runtime = self._runtime = Runtime(
            cache_dir=paths.cache_dir,
            mac_key=keyring.cache_key,
            on_transition=self._moved,
            ours=set(runner_digests.values()),
            groups=self._groups,
        )
        await runtime.start()
        self._later(runtime.close)
        mailbox = self._own(Mailbox(bus, runtime))

        # Runs.
        runners = {
            name: await asyncio.to_thread(unpack, shipped(place), paths.cache_dir)
            for name, place in RUNNERS.items()
        }
        branches = Branches(reader=reader, journal=journal, gate=gate)
        attempts = BusAttempts(
            bus=bus,
            mailbox=mailbox,
            runtime=runtime,
            registry=registry,
            runners=runners,
            mint=mint,
            policies=policies,
            gate=gate,
            journal=journal,
            reader=reader,
            quarantine=quarantine,
            answers=branches.answers,
            narrowed=branches.narrowed,
            guests=self._guests,
        )
        runs = self._runs = Runs(
            bus=bus,
            journal=journal,
            reader=reader,
            registry=registry,
            approvals=approvals,
            attempts=attempts,
            replayer=Replayer(LedgerSource(reader, registry, attempts.prepare), runtime),
            clock=clock,
            engine_versions=lambda: engine_versions(runtime),
            budgets=config.budgets,
            quotas=quotas,
            quarantine=quarantine,
            parked=gate.parked,
            talk=gate.talk,
            branch=branches.nested,
        )
        gate.delegates.port = runs.delegations
        trial = Trial(
            examine=registry.examine,
            sandbox=lambda cache: Runtime(
                cache_dir=cache or paths.cache_dir,
                mac_key=keyring.cache_key,
                max_workers=1,
                max_spares=0,
                groups=self._groups,
            ),
            runners=runners,
            prepare=runtime.prepare,
            quotas=Quotas(config.quotas, config.budgets),
        )
        usage = Usage(knowledge, scans.blob)
        installer = Installer(
            store=store,
            installed=installed,
            registry=registry,
            anchors=anchors,
            desk=desk,
            approvals=approvals,
            journal=journal,
            blobs=scans,
            clock=clock,
            used=usage.used,
            void_tokens=lambda agent, bundle, reason, actor: mint.revoke_agent(
                agent, reason, actor=actor, bundle=bundle
            ),
            prepare=attempts.prepare,
            dev_key=lambda: dev_public(paths.keys_dir),
            indexes=Indexes(
                index_place(config),
                installed=installed,
                trust=anchors.trust,
                journal=journal,
                clock=clock,
            ),
        )
        self._later(desk.close)

        # Faces.
        self._own(
            Control(
                bus=bus,
                journal=journal,
                reader=scans,
                runs=runs,
                approvals=approvals,
                knowledge=knowledge,
                policies=policies,
                quarantine=quarantine,
                clock=clock,
                status=self._status,
                stop=self._asked_to_stop,
                parked=gate.promises.parked,
                more=AgentMethods(
                    installer=installer,
                    anchors=anchors,
                    desk=desk,
                    registry=registry,
                    clock=clock,
                    describe=Descriptions(registry, installed, policies, usage).describe,
                    trial=trial,
                ).rows()
                + self._bus_rows(bus, journal, scans, lambda: hosted(registry, policies, quarantine))
                + knowing_rows(journal, knowledge, scans, gate.promises)
                + self._trigger_rows(journal, scans, knowledge)
                + list(retraction_rows(retractions))
                + list(grant_rows(self._standing, approvals))
                + list(mcp_rows(self._mcp.keeper))
                + list(
                    FaceMethods(
                        Faces(journal, reader.events(kinds=FACE_KINDS)),
                        runs=runs,
                        knowledge=knowledge,
                        sources=self._sources,
                        rights=policies.now,
                    ).rows()
                )
                + list(ProviderMethods(self._survey).rows())
                + list(SecretMethods(self._secrets, self._secret_book).rows())
                + self._metric_rows(attempts, approvals, gate.promises, registry, unfinished)
                + self._fork_rows(scans, registry, attempts, quotas)
                + list(
                    whatif_rows(
                        reader=scans,
                        registry=registry,
                        source=LedgerSource(scans, registry, attempts.prepare),
                        runtime=runtime,
                        override=policies.override,
                    )
                )
                + upkeep_rows(
                    Statements(journal=journal, reader=scans), journal, views.rebuild, views.quarantined
                ),
            )
        )

        # What was under way goes on; then whoever wants may come in.
        recall(reader, unfinished, gate, approvals)
        await tidied(installer, desk)
        await self._begin(reader, unfinished, len(unfinished_runs))
        # Compiling the runner takes seconds, once per build and machine: nobody waits for it who need not.
        self._background(
            approvals.expire_loop(),
            gate.promises.expire_loop(),
            knowledge.follow(),
            self._names(knowledge).follow(),
            self._programs.prepare(),
            self._prepare_agents(registry, attempts),
        )
        await self._go_on()
        await self._open_door(bus, keyring)
        log.info("daemon_started", home=str(paths.home), socket=str(paths.socket), pid=os.getpid())

    async def _ledger(self, keyring: Keyring) -> Ledger:
        """This build's ledger; an earlier build's becomes one, and stays beside it as it was (ADR 38)."""
        try:
            return self._opened(keyring)
        except OutdatedError:
            await self._migrate(keyring)
            return self._opened(keyring)

    async def _migrate(self, keyring: Keyring) -> None:
        log.info("ledger_migrating", file=str(self._paths.events_db))
        async with self._longer():
            done = await asyncio.to_thread(
                migrate,
                self._paths.events_db,
                key=keyring.ledger_key,
                clock=self._clock,
                anchor=self._paths.ledger_anchor,
            )
        log.warning("ledger_migrated", before=done.before, after=done.after, kept=str(done.kept))

    def _opened(self, keyring: Keyring) -> Ledger:
        """The ledger's lock is what refuses a second daemon of this home."""
        paths = self._paths
        ledger = Ledger.open(
            paths.events_db,
            signing_key=keyring.ledger_key,
            synchronous=self._config.kb.synchronous,
            clock=self._clock,
            anchor=paths.ledger_anchor,
        )
        self._head = ledger.head.id
        if ledger.torn_tail:
            log.warning("ledger_tail_cut", file=str(paths.events_db), head=ledger.head.id)
        return ledger

    def _gate(
        self,
        journal: Journal,
        mint: Mint,
        approvals: Approvals,
        quotas: Quotas,
        knowledge: LedgerKnowledge,
        retractions: Retractions,
        keyring: Keyring,
        reader: Reader,
        desk: Desk,
    ) -> Gate:
        """The gate, with the providers nothing else may reach."""
        config, paths = self._config, self._paths
        # Under the ledger's lock: whatever still lives in the groups is a dead daemon's.
        self._groups = self._own(_groups(config))
        secrets = self._secrets
        self._guests = ToolAgents(self._clock, quotas)
        standing = self._standing = Standing(journal)
        standing.restore(reader.events(kinds=STANDING_KINDS))
        facts = reader.events(kinds=SECRET_KINDS)
        book = self._secret_book = self._own(SecretBook(journal, self._clock, facts))
        secrets.on_use = book.note
        models = self._own(
            ModelBroker(
                config.models,
                secrets=secrets,
                clock=self._clock,
                jitter=random.random,
                home=paths.home,
            )
        )
        self._survey = Survey(models, self._clock, journal)
        programs = self._programs = self._own(
            chosen_sandbox(config.security, (*own_places(paths), paths.run_dir), paths.run_dir, self._groups)
        )
        mail = MailBroker.configured(
            config.mail, outbox=paths.outbox, user=getpass.getuser(), secrets=secrets
        )
        promises = self._own(Promises(journal, self._clock))
        self._mcp = self._own(
            McpClient(
                journal=journal,
                facts=knowledge,
                blob=reader.blob,
                approvals=approvals,
                desk=desk,
                promises=promises,
                sandbox=programs,
                secrets=secrets,
                clock=self._clock,
                authorities=config.security.web_authorities,
                on_delta=self._show,
                known=reader.events(kinds=MCP_KINDS),
            )
        )
        web = self._own(Web(authorities=config.security.web_authorities))
        files = self._own(Files(own_places(paths)))
        host = host_tools(
            files=files,
            changes=self._own(Changes(own_places(paths))),
            sandbox=programs,
            web=web,
            mail=mail,
            knowledge=knowledge,
            on_delta=self._show,
            clock=self._clock,
            authorities=config.security.web_authorities,
        )
        self._sources: list[ToolSource] = [*host, self._mcp.source]
        return self._own(
            Gate(
                journal=journal,
                mint=mint,
                approvals=approvals,
                promises=promises,
                talk=Talk(journal, self._clock, self._bus),
                quotas=quotas,
                models=models,
                embeddings=self._embeddings(secrets, journal, knowledge),
                mail=mail,
                web=web,
                files=files,
                knowledge=knowledge,
                clock=self._clock,
                entropy=os.urandom,
                on_delta=self._show,
                objection=retractions.objection,
                lending=Lending(secrets, book, key=keyring.derived("secret references")),
                standing=standing,
                guests=self._guests,
                sources=self._sources,
                programs=programs,
                private_ok=(self._config.security.private_ok or "").split(),
                wires=Tripwires(
                    trip=self._quarantine.trip,
                    held=self._quarantine.why,
                    leaked=self._quarantine.leaked,
                ),
            )
        )

    def _embeddings(self, secrets: SecretStore, journal: Journal, knowledge: LedgerKnowledge) -> EmbedBroker:
        """Who makes vectors, for agents and for the index of what can be searched for."""
        config = self._config
        broker = self._own(
            EmbedBroker(config.models, secrets=secrets, clock=self._clock, jitter=random.random)
        )
        target = chosen(config.kb, broker)
        if target is not None:
            knowledge.finder.use(
                IndexEmbedder(
                    broker,
                    target,
                    journal,
                    self._clock,
                    spent=knowledge.spent_on_index,
                    limit_micro_usd=config.kb.embed_micro_usd,
                )
            )
        return broker

    def _bus_rows(
        self, bus: Bus, journal: Journal, scans: Reader, agents: Callable[[], list[Hosted]]
    ) -> list[Row]:
        """Durable topics and the directory: what sessions may ask of them, and the operator."""
        config = self._config.bus
        index = self._stack.enter_context(closing(Topics(self._paths.views_db)))
        limits = DurableLimits(
            patterns=topics.durable_patterns(config.durable_topics),
            publisher_bytes=config.durable_bytes,
            window=config.durable_window,
        )
        durable = self._own(Durable(bus, journal, index, self._clock, limits, max_body=MAX_BODY))
        consumers = self._own(Consumers(bus, durable, journal, scans, index, self._clock))
        directory = Directory(self._clock)
        self._services: Sequence[SessionService] = (directory, consumers)
        self._bus_methods = BusMethods(
            bus=bus, directory=directory, durable=durable, consumers=consumers, hosted=agents
        )
        return self._bus_methods.rows()

    def _names(self, knowledge: LedgerKnowledge) -> Names:
        """What a shell offers behind ``rlp``."""
        return Names(
            self._paths.names_file,
            self._journal,
            knowledge.query,
            {
                "grant": lambda: ((one.id, one.scope.tool) for one in self._standing.list()),
                "secret": lambda: ((name, "") for name in self._secret_book.entries()),
                "server": lambda: ((str(one["server"]), "") for one in self._mcp.keeper.listed()),
                "provider": lambda: ((name, "") for name in self._config.models.providers),
            },
        )

    def _fork_rows(
        self, scans: Reader, registry: Registry, attempts: BusAttempts, quotas: Quotas
    ) -> list[Row]:
        """Runs that are made of other runs."""
        forks = Forks(
            journal=self._journal,
            reader=scans,
            registry=registry,
            quarantine=self._quarantine,
            prepare=attempts.prepare,
            engine_versions=lambda: engine_versions(self._runtime),
            budgets=self._config.budgets,
            quotas=quotas,
        )
        return list(fork_rows(forks, scans))

    def _metric_rows(
        self,
        attempts: BusAttempts,
        approvals: Approvals,
        promises: Promises,
        registry: Registry,
        unfinished: list[Event],
    ) -> list[Row]:
        """What agents at work use, and the operator's hand on them."""
        journal, runtime, under_way = self._journal, self._runtime, attempts.under_way
        tally = Tally()
        tally.restore(unfinished)
        metrics = self._own(
            Metrics(
                metric_sources(
                    registry=registry,
                    runtime=runtime,
                    under_way=under_way,
                    approvals=approvals,
                    promises=promises,
                    quarantine=self._quarantine,
                    journal=journal,
                    bus=self._bus,
                    runs=self._runs.active,
                    groups=self._groups,
                ),
                tally=tally,
                now_ms=self._clock.now_ms,
            )
        )
        journal.listen(metrics.heard)
        stops = Stops(under_way=under_way, runtime=runtime, journal=journal, void=approvals.void)
        return list(metric_rows(metrics, stops))

    def _trigger_rows(self, journal: Journal, scans: Reader, knowledge: LedgerKnowledge) -> list[Row]:
        """What starts runs by itself; restored and set going once everything else stands."""
        alarm = self._stack.enter_context(closing(WallAlarm()))
        self._triggers = Triggers(
            journal=journal,
            record=Record(scans, alive=self._head),
            runs=self._runs,
            clock=self._clock,
            alarm=alarm,
            config=self._config.scheduler,
            never=(*own_places(self._paths), self._paths.run_dir),
        )
        self._trigger_methods = TriggerMethods(self._triggers, knowledge)
        return [*self._trigger_methods.rows()]

    async def _open_door(self, bus: Bus, keyring: Keyring) -> None:
        self._started_ms = self._clock.now_ms()
        server = SocketServer(
            bus,
            self._paths.socket,
            credential=keyring.operator_credential,
            build=BUILD,
            clock=self._clock,
            on_lost=self._lost_socket,
            on_refused=RefusalLog(self._clock).note,
            services=self._services,
            handed_over=self._listener,
        )
        await server.start()
        self._later(server.close)
        # Closed first: while it drains, people can still look and take back.
        self._stack.push_async_callback(self._close_runs)

    async def _begin(self, reader: Reader, unfinished: list[Event], runs: int) -> None:
        await book_lost(reader, self._journal)
        await self._triggers.restore(unfinished)
        await self._state(DaemonStarted(build=BUILD, pid=os.getpid(), recovered_runs=runs))

    async def _go_on(self) -> None:
        """What was under way first; then what falls due."""
        await self._runs.recover()
        self._background(self._triggers.loop())

    async def _close_runs(self) -> None:
        log.info("daemon_draining", runs=len(self._runs.active()))
        await self._triggers.close()
        await self._runs.close(self._drain_ms)
        await self._state(DaemonStopped(reason="asked to"))

    async def _state(self, fact: DaemonStarted | DaemonStopped) -> None:
        await self._journal.append(Draft(payload=fact, actor="daemon", scope="system"))

    def _background(self, *works: Coroutine[Any, Any, None]) -> None:
        """Run until the daemon stops."""
        tasks = [asyncio.create_task(work) for work in works]

        async def end() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

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
            "bus": self._bus_methods.summary(),
            "events": self._journal.head_id,
            "views": self._journal.views_cursor,
            "active_runs": self._runs.active(),
            "schedules": self._trigger_methods.summary(),
            "agents_ready": self._prepared,
            "agents_held": [held["agent"] for held in self._quarantine.show()],
            "workers": self._runtime.workers,
            "layers": self._runtime.layers(),
            "programs": self._programs.told(),
            "groups": self._groups.told(),
            "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
            "bus_step": self._bus.step,
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


def _keyring(paths: Paths) -> Keyring:
    """The keys, once an exchange of the ledger's that something stopped is at its end (ADR 37)."""
    settle(
        paths.events_db,
        key_file=paths.keys_dir / "ledger.key",
        anchor=paths.ledger_anchor,
        read=read_private_key,
    )
    return Keyring.open(paths.keys_dir)


def _groups(config: Config) -> Groups:
    """The control groups of this daemon; none where none was handed over to it."""
    wanted = config.runtime
    return divided(
        run=Bounds(memory=wanted.run_memory_bytes, tasks=wanted.run_processes, weight=wanted.run_cpu_weight),
        required=config.security.control_groups == "required",
    )


def engine_versions(runtime: Runtime) -> dict[str, Any]:
    """What ``run.started`` says of the engine and of where guests run."""
    return {"logic": openings_engine.LOGIC, **runtime.engine, "library": library_digest()}


def hosted(registry: Registry, policies: Policies, quarantine: Quarantine) -> list[Hosted]:
    """The agents of this daemon, with what their policies let them do now."""
    held = {one["agent"] for one in quarantine.show()}
    rights = {one["agent"]: tuple(one["effective"]) for one in policies.show(None)}
    return [
        Hosted(
            name=agent.manifest.name,
            version=agent.manifest.version,
            variant=agent.manifest.variant,
            capabilities=rights.get(agent.manifest.name, ()),
            held=agent.manifest.name in held,
        )
        for agent in registry.list()
    ]


def knowing_rows(
    journal: Journal, knowledge: LedgerKnowledge, reader: Reader, promises: Promises
) -> list[Row]:
    """Methods on what the user brings in, what agents remember, and what is waited for."""
    imports = Imports(journal=journal, knowledge=knowledge, reader=reader)
    return [
        *ImportMethods(imports).rows(),
        *MemoryMethods(knowledge, journal).rows(),
        *PromiseMethods(promises, knowledge).rows(),
    ]


def recall(reader: Reader, unfinished: list[Event], gate: Gate, approvals: Approvals) -> None:
    """Tell of unfinished runs, and of what the operator asked for outside of any: it lasts until answered."""
    gate.restore(unfinished, in_order(beside(reader, unfinished)))
    outside = [event for event in reader.events(kinds=APPROVAL_KINDS) if event.run is None]
    approvals.restore(in_order((*unfinished, *outside)))


def recalled(retractions: Retractions, reader: Reader, unfinished: list[Event]) -> Retractions:
    """Tell of what was taken back, and of what unfinished runs have heard."""
    retractions.restore(reader.events(kinds=RETRACTION_KINDS), unfinished)
    return retractions


def beside(reader: Reader, unfinished: list[Event]) -> Iterator[Event]:
    """The events of finished runs that are in one tree with an unfinished one: what they used counts."""
    live = {event.run: event.payload for event in unfinished if isinstance(event.payload, RunStarted)}
    roots = {
        run if started.parent is None else started.parent.root
        for run, started in live.items()
        if run is not None and (started.parent is not None or "openings" in started.definition)
    }
    for root in sorted(roots):
        for run in (root, *reader.runs_below(root)):
            if run not in live:
                yield from reader.events(run=run)


async def tidied(installer: Installer, desk: Desk) -> None:
    """Nothing half installed is left, and what a person agreed to meanwhile is carried out."""
    await asyncio.to_thread(installer.sweep)
    desk.resume()


def in_order(events: Iterable[Event]) -> list[Event]:
    """As the ledger has them."""
    return sorted(events, key=lambda event: event.id)


def own_places(paths: Paths) -> tuple[Path, ...]:
    """What no grant of files reaches: this home, the socket, the system's settings, the program itself, and
    what systemd handed over in confidence."""
    program = (Path(__file__).parent, Path(runloop.__file__).parent, shipped("agents"))
    handed = os.environ.get("CREDENTIALS_DIRECTORY")
    return (paths.home, paths.socket, SYSTEM_FILE.parent, *program, *([Path(handed)] if handed else []))


def index_place(config: Config) -> Path | None:
    """Where the operator said the index of agents lies."""
    place = config.security.agent_index
    return Path(place).expanduser() if place is not None else None


def dev_public(keys_dir: Path) -> PublicKey | None:
    """The public half of this home's development key; None while there is none."""
    try:
        return read_key(keys_dir / DEV_KEY).public
    except NotFoundError:
        return None


def held_before(reader: Reader, head: int) -> Iterator[Event]:
    """What the ledger says of quarantines: every decision, and the newest of the failures that count."""
    recent = max(0, head - FAILURES_LOOKBACK)
    for event in reader.events(kinds=QUARANTINE_KINDS[:2]):
        if event.id <= recent:
            yield event
    yield from reader.events(kinds=QUARANTINE_KINDS, after=recent)


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
