"""The gate, with the providers that nothing else may reach.

Knows: which provider stands behind which kind of effect, and with what bounds. Does not know what a run is:
runs are built on the gate (:mod:`runloopd.assembly.work`), as are the guests that serve tools.
"""

from __future__ import annotations

import getpass
import os
import random
from dataclasses import dataclass
from functools import partial

from runloop.config import Config
from runloop.events import Event
from runloop.ids import RunId, run_id_to_int
from runloop.rmp import topics
from runloopd.assembly.authority import Authority
from runloopd.assembly.ground import Ground, own_places
from runloopd.authority.retractions import RETRACTION_KINDS, Retractions
from runloopd.authority.standing import STANDING_KINDS, Standing
from runloopd.broker.embedding import EmbedBroker
from runloopd.broker.gate import Gate
from runloopd.broker.indexing import IndexEmbedder, chosen
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
from runloopd.broker.survey import Survey
from runloopd.broker.talk import Talk
from runloopd.broker.toolbox import ToolSource
from runloopd.broker.tools.bubblewrap import Bubblewrap
from runloopd.broker.tools.changes import Changes
from runloopd.broker.tools.choosing import chosen_sandbox
from runloopd.broker.tools.container import Container
from runloopd.broker.tools.host import host_tools
from runloopd.broker.tripwires import Tripwires
from runloopd.bus.bus import Bus
from runloopd.bus.principal import DAEMON
from runloopd.cgroups import Bounds, Groups, divided
from runloopd.runs.guests import ToolAgents

__all__ = ["Guarded", "build_gate"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Guarded:
    """The gate, and what of it others have to know by name."""

    gate: Gate
    quotas: Quotas
    retractions: Retractions
    groups: Groups
    programs: Bubblewrap | Container
    guests: ToolAgents
    standing: Standing
    book: SecretBook
    survey: Survey
    mcp: McpClient
    sources: list[ToolSource]


def build_gate(ground: Ground, authority: Authority, unfinished: list[Event]) -> Guarded:
    config, paths, clock = ground.config, ground.paths, ground.clock
    secrets, own = ground.secrets, ground.stack.own
    journal, reader, knowledge = ground.journal, ground.reader, ground.knowledge
    approvals, quarantine = authority.approvals, authority.quarantine
    show = partial(tell_followers, ground.bus)

    # What an effect is measured against.
    quotas = Quotas(config.quotas, config.budgets)
    retractions = Retractions(journal, approvals, knowledge.dependants)
    retractions.restore(reader.events(kinds=RETRACTION_KINDS), unfinished)
    # Under the ledger's lock: whatever still lives in the groups is a dead daemon's.
    groups = own(control_groups(config))
    guests = ToolAgents(clock, quotas)
    standing = Standing(journal)
    standing.restore(reader.events(kinds=STANDING_KINDS))
    book = own(SecretBook(journal, clock, reader.events(kinds=SECRET_KINDS)))
    secrets.on_use = book.note

    # Who carries it out.
    models = own(
        ModelBroker(config.models, secrets=secrets, clock=clock, jitter=random.random, home=paths.home)
    )
    survey = Survey(models, clock, journal)
    programs = own(
        chosen_sandbox(config.security, (*own_places(paths), paths.run_dir), paths.run_dir, groups)
    )
    mail = MailBroker.configured(config.mail, outbox=paths.outbox, user=getpass.getuser(), secrets=secrets)
    promises = own(Promises(journal, clock))
    mcp = own(
        McpClient(
            journal=journal,
            facts=knowledge,
            blob=reader.blob,
            approvals=approvals,
            desk=authority.desk,
            promises=promises,
            sandbox=programs,
            secrets=secrets,
            clock=clock,
            authorities=config.security.web_authorities,
            on_delta=show,
            known=reader.events(kinds=MCP_KINDS),
        )
    )
    web = own(Web(authorities=config.security.web_authorities))
    files = own(Files(own_places(paths)))
    host = host_tools(
        files=files,
        changes=own(Changes(own_places(paths))),
        sandbox=programs,
        web=web,
        mail=mail,
        knowledge=knowledge,
        on_delta=show,
        clock=clock,
        authorities=config.security.web_authorities,
    )
    sources: list[ToolSource] = [*host, mcp.source]

    gate = own(
        Gate(
            journal=journal,
            mint=authority.mint,
            approvals=approvals,
            promises=promises,
            talk=Talk(journal, clock, ground.bus),
            quotas=quotas,
            models=models,
            embeddings=_embeddings(ground),
            mail=mail,
            web=web,
            files=files,
            knowledge=knowledge,
            clock=clock,
            entropy=os.urandom,
            on_delta=show,
            objection=retractions.objection,
            lending=Lending(secrets, book, key=ground.keyring.derived("secret references")),
            standing=standing,
            guests=guests,
            sources=sources,
            programs=programs,
            private_ok=(config.security.private_ok or "").split(),
            wires=Tripwires(trip=quarantine.trip, held=quarantine.why, leaked=quarantine.leaked),
        )
    )
    return Guarded(
        gate=gate,
        quotas=quotas,
        retractions=retractions,
        groups=groups,
        programs=programs,
        guests=guests,
        standing=standing,
        book=book,
        survey=survey,
        mcp=mcp,
        sources=sources,
    )


def _embeddings(ground: Ground) -> EmbedBroker:
    """Who makes vectors, for agents and for the index of what can be searched for."""
    config, knowledge = ground.config, ground.knowledge
    broker = ground.stack.own(
        EmbedBroker(config.models, secrets=ground.secrets, clock=ground.clock, jitter=random.random)
    )
    target = chosen(config.kb, broker)
    if target is not None:
        knowledge.finder.use(
            IndexEmbedder(
                broker,
                target,
                ground.journal,
                ground.clock,
                spent=knowledge.spent_on_index,
                limit_micro_usd=config.kb.embed_micro_usd,
            )
        )
    return broker


def control_groups(config: Config) -> Groups:
    """The control groups of this daemon; none where none was handed over to it."""
    wanted = config.runtime
    return divided(
        run=Bounds(memory=wanted.run_memory_bytes, tasks=wanted.run_processes, weight=wanted.run_cpu_weight),
        required=config.security.control_groups == "required",
    )


def tell_followers(bus: Bus, delta: Delta) -> None:
    """Ephemeral progress goes to whoever follows the run; it is never recorded."""
    # The fields are a guest's: they never stand for what the daemon says itself.
    body = {"delta": {**delta.fields, "node": delta.node, "kind": delta.kind, "text": delta.text}}
    trace = run_id_to_int(RunId(delta.run))
    frame = bus.compose(
        DAEMON, topics.run_events(delta.run), "observation.opening.event.v1", body, trace_id=trace
    )
    bus.publish(frame)
