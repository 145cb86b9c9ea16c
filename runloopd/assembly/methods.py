"""What the operator and sessions may ask of the daemon: each method, beside the service that answers it.

Knows: which services are there for the sake of a question: durable topics, the directory, triggers, figures,
forks. Does not know the socket, nor when anything is restored or begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from pog.topics import Topics
from runloop.events import Event
from runloop.rmp import topics
from runloop.rmp.frame import MAX_BODY
from runloopd.assembly.authority import Authority
from runloopd.assembly.gate import Guarded
from runloopd.assembly.ground import Ground, own_places
from runloopd.assembly.work import Work, engine_versions
from runloopd.authority.faces import FACE_KINDS, Faces
from runloopd.broker.gate import Gate
from runloopd.broker.imports import Imports
from runloopd.broker.statements import Statements
from runloopd.bus.consumers import Consumers
from runloopd.bus.directory import Directory, Hosted
from runloopd.bus.durable import Durable, DurableLimits
from runloopd.bus.parts import SessionService
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
from runloopd.observe.metrics import Metrics
from runloopd.observe.tally import Tally
from runloopd.runs.fork import Forks
from runloopd.runs.replayer import LedgerSource
from runloopd.runs.stops import Stops
from runloopd.triggers.kernel import WallAlarm
from runloopd.triggers.record import Record
from runloopd.triggers.service import Triggers

__all__ = ["Methods", "build_methods", "shell_names"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Methods:
    """What answers for itself after it was built."""

    bus: BusMethods
    sessions: Sequence[SessionService]
    """Told of every session that comes and goes."""
    triggers: Triggers
    """Set going once everything else stands."""
    trigger_methods: TriggerMethods


def build_methods(
    ground: Ground,
    authority: Authority,
    guarded: Guarded,
    work: Work,
    unfinished: list[Event],
    status: Callable[[], dict[str, Any]],
    stop: Callable[[bool], None],
) -> Methods:
    gate, registry, policies = guarded.gate, authority.registry, authority.policies
    journal, reader, scans, knowledge = ground.journal, ground.reader, ground.scans, ground.knowledge
    agents = AgentMethods(
        installer=work.installer,
        anchors=authority.anchors,
        desk=authority.desk,
        registry=registry,
        clock=ground.clock,
        describe=Descriptions(registry, authority.installed, policies, work.usage).describe,
        trial=work.trial,
    )
    bus, sessions = _bus(ground, authority)
    knowing = _knowing(ground, gate)
    triggers = _triggers(ground, work)
    trigger_methods = TriggerMethods(triggers, knowledge)
    rows: list[Row] = [
        *agents.rows(),
        *bus.rows(),
        *knowing,
        *trigger_methods.rows(),
        *retraction_rows(guarded.retractions),
        *grant_rows(guarded.standing, authority.approvals),
        *mcp_rows(guarded.mcp.keeper),
        *FaceMethods(
            Faces(journal, reader.events(kinds=FACE_KINDS)),
            runs=work.runs,
            knowledge=knowledge,
            sources=guarded.sources,
            rights=policies.now,
        ).rows(),
        *ProviderMethods(guarded.survey).rows(),
        *SecretMethods(ground.secrets, guarded.book).rows(),
        *_figures(ground, authority, guarded, work, unfinished),
        *_forks(ground, authority, guarded, work),
        *whatif_rows(
            reader=scans,
            registry=registry,
            source=LedgerSource(scans, registry, work.attempts.prepare),
            runtime=work.runtime,
            override=policies.override,
        ),
        *upkeep_rows(
            Statements(journal=journal, reader=scans), journal, ground.views.rebuild, ground.views.quarantined
        ),
    ]
    ground.stack.own(
        Control(
            bus=ground.bus,
            journal=journal,
            reader=scans,
            runs=work.runs,
            approvals=authority.approvals,
            knowledge=knowledge,
            policies=policies,
            quarantine=authority.quarantine,
            clock=ground.clock,
            status=status,
            stop=stop,
            parked=gate.promises.parked,
            more=rows,
        )
    )
    return Methods(bus=bus, sessions=sessions, triggers=triggers, trigger_methods=trigger_methods)


def _bus(ground: Ground, authority: Authority) -> tuple[BusMethods, Sequence[SessionService]]:
    """Durable topics and the directory: what sessions may ask of them, and the operator."""
    bus, clock, stack, config = ground.bus, ground.clock, ground.stack, ground.config.bus
    index = stack.enter_context(closing(Topics(ground.paths.views_db)))
    limits = DurableLimits(
        patterns=topics.durable_patterns(config.durable_topics),
        publisher_bytes=config.durable_bytes,
        window=config.durable_window,
    )
    durable = stack.own(Durable(bus, ground.journal, index, clock, limits, max_body=MAX_BODY))
    consumers = stack.own(Consumers(bus, durable, ground.journal, ground.scans, index, clock))
    directory = Directory(clock)
    methods = BusMethods(
        bus=bus,
        directory=directory,
        durable=durable,
        consumers=consumers,
        hosted=lambda: hosted(authority),
    )
    return methods, (directory, consumers)


def _knowing(ground: Ground, gate: Gate) -> list[Row]:
    """What the user brings in, what agents remember, and what is waited for."""
    journal, knowledge = ground.journal, ground.knowledge
    return [
        *ImportMethods(Imports(journal=journal, knowledge=knowledge, reader=ground.scans)).rows(),
        *MemoryMethods(knowledge, journal).rows(),
        *PromiseMethods(gate.promises, knowledge).rows(),
    ]


def _triggers(ground: Ground, work: Work) -> Triggers:
    """What starts runs by itself."""
    return Triggers(
        alarm=ground.stack.enter_context(closing(WallAlarm())),
        journal=ground.journal,
        record=Record(ground.scans, alive=ground.head),
        runs=work.runs,
        clock=ground.clock,
        config=ground.config.scheduler,
        never=(*own_places(ground.paths), ground.paths.run_dir),
    )


def _figures(
    ground: Ground, authority: Authority, guarded: Guarded, work: Work, unfinished: list[Event]
) -> Sequence[Row]:
    """What agents at work use, and the operator's hand on them."""
    journal, runtime, under_way = ground.journal, work.runtime, work.attempts.under_way
    tally = Tally()
    tally.restore(unfinished)
    metrics = ground.stack.own(
        Metrics(
            metric_sources(
                registry=authority.registry,
                runtime=runtime,
                under_way=under_way,
                approvals=authority.approvals,
                promises=guarded.gate.promises,
                quarantine=authority.quarantine,
                journal=journal,
                bus=ground.bus,
                runs=work.runs.active,
                groups=guarded.groups,
            ),
            tally=tally,
            now_ms=ground.clock.now_ms,
        )
    )
    journal.listen(metrics.heard)
    stops = Stops(under_way=under_way, runtime=runtime, journal=journal, void=authority.approvals.void)
    return metric_rows(metrics, stops)


def _forks(ground: Ground, authority: Authority, guarded: Guarded, work: Work) -> Sequence[Row]:
    """Runs that are made of other runs."""
    forks = Forks(
        journal=ground.journal,
        reader=ground.scans,
        registry=authority.registry,
        quarantine=authority.quarantine,
        prepare=work.attempts.prepare,
        engine_versions=lambda: engine_versions(work.runtime),
        budgets=ground.config.budgets,
        quotas=guarded.quotas,
    )
    return fork_rows(forks, ground.scans)


def shell_names(ground: Ground, guarded: Guarded) -> Names:
    """What a shell offers behind ``rlp``."""
    return Names(
        ground.paths.names_file,
        ground.journal,
        ground.knowledge.query,
        {
            "grant": lambda: ((one.id, one.scope.tool) for one in guarded.standing.list()),
            "secret": lambda: ((name, "") for name in guarded.book.entries()),
            "server": lambda: ((str(one["server"]), "") for one in guarded.mcp.keeper.listed()),
            "provider": lambda: ((name, "") for name in ground.config.models.providers),
        },
    )


def hosted(authority: Authority) -> list[Hosted]:
    """The agents of this daemon, with what their policies let them do now."""
    held = {one["agent"] for one in authority.quarantine.show()}
    rights = {one["agent"]: tuple(one["effective"]) for one in authority.policies.show(None)}
    return [
        Hosted(
            name=agent.manifest.name,
            version=agent.manifest.version,
            variant=agent.manifest.variant,
            capabilities=rights.get(agent.manifest.name, ()),
            held=agent.manifest.name in held,
        )
        for agent in authority.registry.list()
    ]
