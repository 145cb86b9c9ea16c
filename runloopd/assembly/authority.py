"""Who may: tokens, approvals, installed agents and whom they are vouched for by, policies, quarantine.

Knows: where each of them reads what was decided before. Does not know what is done with a right: no guest, no
provider and no run is in here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pog.reader import Reader
from runloop.bundle.installed import INSTALL_KINDS, Installations
from runloop.bundle.runner import RUNNERS, read_pin
from runloop.config import shipped
from runloop.events import Event
from runloopd.assembly.ground import Ground
from runloopd.authority.anchors import Anchors
from runloopd.authority.approvals import Approvals
from runloopd.authority.desk import Desk
from runloopd.authority.mint import Mint
from runloopd.authority.policies import AgentRights, Policies
from runloopd.runtime.breaker import Breaker
from runloopd.runtime.quarantine import KINDS as QUARANTINE_KINDS
from runloopd.runtime.quarantine import Quarantine
from runloopd.runtime.registry import Registry, read_pins
from runloopd.runtime.store import Store

__all__ = ["Authority", "build_authority"]

FAILURES_LOOKBACK = 20_000
"""Events in which a daemon that starts looks for failures that count; older ones are no longer a storm."""
TOKEN_MARGIN_MS = 86_400_000
"""A run's tokens outlive the approvals it may wait for by a day."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Authority:
    mint: Mint
    approvals: Approvals
    desk: Desk
    anchors: Anchors
    installed: Installations
    store: Store
    runner_digests: Mapping[str, str]
    """Of the runners that are this build's own, by language."""
    registry: Registry
    policies: Policies
    quarantine: Quarantine


def build_authority(ground: Ground) -> Authority:
    config, paths, clock = ground.config, ground.paths, ground.clock
    journal, reader = ground.journal, ground.reader
    mint = Mint(ground.keyring, journal, clock, ttl_ms=config.security.approval_expiry_ms + TOKEN_MARGIN_MS)
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
    quarantine = ground.stack.own(Quarantine(journal, mint, breaker))
    quarantine.restore(held_before(reader, ground.head))
    return Authority(
        mint=mint,
        approvals=approvals,
        desk=desk,
        anchors=anchors,
        installed=installed,
        store=store,
        runner_digests=runner_digests,
        registry=registry,
        policies=policies,
        quarantine=quarantine,
    )


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


def held_before(reader: Reader, head: int) -> Iterator[Event]:
    """What the ledger says of quarantines: every decision, and the newest of the failures that count."""
    recent = max(0, head - FAILURES_LOOKBACK)
    for event in reader.events(kinds=QUARANTINE_KINDS[:2]):
        if event.id <= recent:
            yield event
    yield from reader.events(kinds=QUARANTINE_KINDS, after=recent)
