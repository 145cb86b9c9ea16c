"""Where guests run, and what has them run: the runtime, runs, and how agents come and go.

Knows: what an attempt, a run and an installation need of the parts below. Does not know who asks for them
(:mod:`runloopd.assembly.methods`), nor when recovery begins.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from openings import engine as openings_engine
from runloop.bundle.keyfile import DEV_KEY, read_key
from runloop.bundle.runner import RUNNERS, unpack
from runloop.bundle.signature import PublicKey
from runloop.config import Config, shipped
from runloop.errors import NotFoundError
from runloop.events import AgentTransition, Draft, Provenance
from runloopd.assembly.authority import Authority
from runloopd.assembly.gate import Guarded
from runloopd.assembly.ground import Ground
from runloopd.broker.quotas import Quotas
from runloopd.journal import Journal
from runloopd.runs.attempts import BusAttempts
from runloopd.runs.hearing import Branches
from runloopd.runs.replayer import LedgerSource, Replayer
from runloopd.runs.service import Runs
from runloopd.runs.trial import Trial
from runloopd.runtime.indexes import Indexes
from runloopd.runtime.installer import Installer
from runloopd.runtime.library import library_digest
from runloopd.runtime.mailbox import Mailbox
from runloopd.runtime.orders import AttemptOrder
from runloopd.runtime.supervisor import Runtime
from runloopd.runtime.uses import Usage

__all__ = ["Work", "engine_versions", "start_work"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    runtime: Runtime
    attempts: BusAttempts
    runs: Runs
    trial: Trial
    usage: Usage
    installer: Installer


async def start_work(ground: Ground, authority: Authority, guarded: Guarded) -> Work:
    config, paths, stack = ground.config, ground.paths, ground.stack
    # Where guests run.
    runtime = Runtime(
        cache_dir=paths.cache_dir,
        mac_key=ground.keyring.cache_key,
        on_transition=partial(_moved, ground.journal),
        ours=set(authority.runner_digests.values()),
        groups=guarded.groups,
    )
    await runtime.start()
    stack.push_async_callback(runtime.close)
    mailbox = stack.own(Mailbox(ground.bus, runtime))

    # What has them run.
    runners = {
        name: await asyncio.to_thread(unpack, shipped(place), paths.cache_dir)
        for name, place in RUNNERS.items()
    }
    branches = Branches(reader=ground.reader, journal=ground.journal, gate=guarded.gate)
    attempts = BusAttempts(
        bus=ground.bus,
        mailbox=mailbox,
        runtime=runtime,
        registry=authority.registry,
        runners=runners,
        mint=authority.mint,
        policies=authority.policies,
        gate=guarded.gate,
        journal=ground.journal,
        reader=ground.reader,
        quarantine=authority.quarantine,
        answers=branches.answers,
        narrowed=branches.narrowed,
        guests=guarded.guests,
    )
    runs = Runs(
        bus=ground.bus,
        journal=ground.journal,
        reader=ground.reader,
        registry=authority.registry,
        approvals=authority.approvals,
        attempts=attempts,
        replayer=Replayer(LedgerSource(ground.reader, authority.registry, attempts.prepare), runtime),
        clock=ground.clock,
        engine_versions=lambda: engine_versions(runtime),
        budgets=config.budgets,
        quotas=guarded.quotas,
        quarantine=authority.quarantine,
        parked=guarded.gate.parked,
        talk=guarded.gate.talk,
        branch=branches.nested,
    )
    guarded.gate.delegates.port = runs.delegations

    # How agents are tried, come and go.
    trial = Trial(
        examine=authority.registry.examine,
        sandbox=lambda cache: Runtime(
            cache_dir=cache or paths.cache_dir,
            mac_key=ground.keyring.cache_key,
            max_workers=1,
            max_spares=0,
            groups=guarded.groups,
        ),
        runners=runners,
        prepare=runtime.prepare,
        quotas=Quotas(config.quotas, config.budgets),
    )
    usage = Usage(ground.knowledge, ground.scans.blob)
    installer = _installer(ground, authority, attempts, usage)
    stack.push_async_callback(authority.desk.close)
    return Work(runtime=runtime, attempts=attempts, runs=runs, trial=trial, usage=usage, installer=installer)


def _installer(ground: Ground, authority: Authority, attempts: BusAttempts, usage: Usage) -> Installer:
    config, paths, clock, mint = ground.config, ground.paths, ground.clock, authority.mint
    return Installer(
        store=authority.store,
        installed=authority.installed,
        registry=authority.registry,
        anchors=authority.anchors,
        desk=authority.desk,
        approvals=authority.approvals,
        journal=ground.journal,
        blobs=ground.scans,
        clock=clock,
        used=usage.used,
        void_tokens=lambda agent, bundle, reason, actor: mint.revoke_agent(
            agent, reason, actor=actor, bundle=bundle
        ),
        prepare=attempts.prepare,
        dev_key=lambda: dev_public(paths.keys_dir),
        indexes=Indexes(
            index_place(config),
            installed=authority.installed,
            trust=authority.anchors.trust,
            journal=ground.journal,
            clock=clock,
        ),
    )


async def _moved(journal: Journal, order: AttemptOrder, transition: AgentTransition) -> None:
    if order.recorded:
        return  # a replay: what it does is no news of the run it repeats
    await journal.append(
        Draft(
            payload=transition,
            actor="daemon",
            run=order.run,
            provenance=Provenance(node=order.node, attempt=order.attempt, agent=transition.agent),
        )
    )


def engine_versions(runtime: Runtime) -> dict[str, Any]:
    """What ``run.started`` says of the engine and of where guests run."""
    return {"logic": openings_engine.LOGIC, **runtime.engine, "library": library_digest()}


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
