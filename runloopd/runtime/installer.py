"""Installing agents: judged in memory, staged, put to a person, committed by one fact.

Knows: the order of these steps, and what a rollback may do by itself. Does not know: what makes a signature
good (``runloop.bundle.trust``), which version may follow which (``install_rules``), what is asked
(``install_question``) and how (``authority.desk``), where bytes lie (``runtime.store``), how an agent runs.

The fact ``agent.installed`` is the commit: before it nothing is installed, whatever a crash leaves behind;
from it on new runs are served by the new bundle, and runs under way keep the one they began with. There is no
way around the person but going back to a bundle that one said yes to, when it may do no more than the present
one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import structlog

from runloop.bundle.archive import Package, pack, unpack
from runloop.bundle.diff import CapsDiff, capability_diff
from runloop.bundle.digest import read_bundle
from runloop.bundle.index import Index, check_listed
from runloop.bundle.installed import Installation, Installations
from runloop.bundle.semver import precedence
from runloop.bundle.signature import Envelope, PublicKey
from runloop.bundle.trust import Trust, judge, verify
from runloop.caps.policy import Policy, effective
from runloop.clock import Clock
from runloop.errors import ConflictError, NotFoundError, RefusedError, UsageError
from runloop.events import AgentInstalled, AgentRemoved, Draft, Event, Provenance
from runloopd.authority.anchors import Anchors
from runloopd.authority.approval import Approval, Decided
from runloopd.authority.approvals import Approvals
from runloopd.authority.desk import Desk
from runloopd.bus.principal import DAEMON, Principal
from runloopd.journal import Journal
from runloopd.runtime.indexes import Indexes
from runloopd.runtime.install_question import Judged, action_of, caps_digest, fact_of, subject_of, text_of
from runloopd.runtime.install_rules import How, InstallError, Wish, check_place, how_it_comes
from runloopd.runtime.registry import InstalledAgent, Registry
from runloopd.runtime.store import Store, attestations_of

__all__ = ["INSTALL", "USED_RUNS", "Installer", "Used"]

log = structlog.get_logger(__name__)

INSTALL = "agent.install"
"""Op of the question."""
USED_RUNS = 20
"""How many of an agent's last runs say what it really uses."""

_UNPLACED = Path("bundle")
"""Stands for the folder of files that lie nowhere yet, in messages."""

Used = Callable[[str, int], Awaitable[list[tuple[str, str]] | None]]
"""``(agent, runs)`` -> capabilities it used, each with what it used it on; None: it never ran."""


VoidTokens = Callable[[str, str, str, str], Awaitable[object]]
"""``(agent, bundle, reason, actor)``: void the tokens that exactly this bundle holds in runs under way."""


class Blobs(Protocol):
    """Bytes of the ledger by digest."""

    def blob(self, digest_hex: str) -> bytes: ...


class Installer:
    """Installs, upgrades, rolls back and removes agents. One per daemon."""

    def __init__(
        self,
        *,
        store: Store,
        installed: Installations,
        registry: Registry,
        anchors: Anchors,
        desk: Desk,
        approvals: Approvals,
        journal: Journal,
        blobs: Blobs,
        clock: Clock,
        used: Used,
        void_tokens: VoidTokens,
        prepare: Callable[[InstalledAgent], Awaitable[None]],
        dev_key: Callable[[], PublicKey | None],
        indexes: Indexes,
    ) -> None:
        """``prepare`` compiles an agent's component within limits, or raises; ``dev_key`` is the public half
        of this home's development key."""
        self._store = store
        self._installed = installed
        self._registry = registry
        self._anchors = anchors
        self._desk = desk
        self._approvals = approvals
        self._journal = journal
        self._blobs = blobs
        self._clock = clock
        self._used = used
        self._void_tokens = void_tokens
        self._prepare = prepare
        self._dev_key = dev_key
        self._indexes = indexes
        self._changing = asyncio.Lock()
        journal.listen(self._committed)
        desk.serve(INSTALL, self)

    def _committed(self, events: list[Event]) -> None:
        """What is installed follows the ledger, and nothing else."""
        for event in events:
            self._installed.apply(event)

    def sweep(self) -> None:
        """At start: remove what an interrupted install left, unless a person is still asked about it."""
        wanted = {str(approval.action["bundle"]) for approval in self._desk.open(INSTALL)}
        swept = self._store.sweep(wanted)
        if swept:
            log.info("install_leftovers_removed", folders=swept)

    # --- asked for --------------------------------------------------------------------------------

    async def install(
        self, principal: Principal, archive: bytes, wish: Wish, *, upgrade: bool = False
    ) -> dict[str, Any]:
        """Judge a bundle file and put it to a person. ``upgrade``: only for an agent that is installed.

        Returns ``{state: waiting, approval, …}``, or ``{state: current, …}`` when exactly these bytes serve
        already. Raises whatever makes the bundle one that is not installed; then nothing was changed.
        """
        package = await asyncio.to_thread(unpack, archive)
        index = await self._consult(wish)
        return await self._propose(principal, package, wish, index, upgrade=upgrade)

    async def upgrade(self, principal: Principal, name: str, variant: str, wish: Wish) -> dict[str, Any]:
        """Put the newest bundle of the configured index to a person.

        Raises :class:`UsageError` without an index, and what :meth:`install` raises.
        """
        current = self._current(name, variant)
        index = await self._consult(wish)
        if index is None:
            raise UsageError(
                f"no index of agents is configured, so nobody says what {name} could be upgraded to",
                hint="set security.agent_index, or name the file: 'rlp agent upgrade FILE.rlb'",
                code="index.none",
            )
        entry = index.find(name, variant)
        if precedence(entry.version) <= precedence(current.version) and not wish.allow_downgrade:
            return {**current.to_json(), "state": "current", "newest": entry.version}
        archive = await asyncio.to_thread(self._indexes.archive, entry)
        package = await asyncio.to_thread(unpack, archive)
        check_listed(entry, archive, package)
        return await self._propose(principal, package, wish, index, upgrade=True)

    async def rollback(self, principal: Principal, name: str, variant: str) -> dict[str, Any]:
        """Go back to the previous version: at once when it may do no more than the present one, else through
        a person."""
        async with self._changing:
            current = self._current(name, variant)
            target = self._installed.previous(name, variant)
            if target is None:
                raise NotFoundError(
                    f"no earlier version of {name} is kept",
                    hint=f"'rlp agent show {name}' lists what is",
                    code="agent.previous",
                )
            judged = await self._judge_kept(target)
            before = await self._rights_of(current)
            diff = await self._diff(name, before, _rights(judged.agent))
            if diff.widening:
                return await self._ask(judged, Wish(dev_key=target.dev), None, "rollback", current, diff)
            return await self._unasked(principal, judged, current, diff, "rollback")

    async def remove(self, principal: Principal, name: str, variant: str, *, release: bool) -> dict[str, Any]:
        """Serve no new run with an agent. Its bytes stay for the runs that pinned them, and for replays.

        ``release``: another publisher may take the name; that can be said after the removal, too.
        """
        async with self._changing:
            current = self._installed.current(name, variant)
            if current is None and name in self._registry.shipped:
                raise InstallError(
                    f"{name} came with Runloop and cannot be removed",
                    hint=f"'rlp cap revoke {name} <capability>' takes what it may do",
                    code="install.shipped_name",
                )
            kept = self._installed.kept(name, variant)
            if current is None and release and kept and self._installed.owner(name) is not None:
                current = kept[-1]  # it is gone, and its name is still its publisher's
            current = current or self._current(name, variant)
            for approval in self._desk.open(INSTALL, subject_of(name, variant)):
                await self._approvals.void_one(approval.id, "the agent was removed meanwhile")
            fact = AgentRemoved(
                name=name,
                variant=variant,
                agent_version=current.version,
                bundle=current.bundle,
                released=release,
                principal=principal.label,
            )
            (event,) = await self._journal.append(_draft(fact, current.event))
        return {**current.to_json(), "state": "removed", "released": release, "event": event.id}

    async def revoke(self, principal: Principal, subject: str, reason: str) -> dict[str, Any]:
        """Believe a key or a bundle no more: what it is behind starts no more, and what runs of it is
        answered no more."""
        done = await self._anchors.revoke(principal, subject, reason)
        hit = done["subject"]
        for approval in self._desk.open(INSTALL):
            if hit in (approval.action["key"], approval.action["bundle"]):
                await self._approvals.void_one(approval.id, f"revoked meanwhile: {reason}")
        # Also what was upgraded or removed since: runs under way keep the bundle they began with.
        behind = [one for one in self._installed.ever() if hit in (one.key, one.bundle)]
        for one in behind:
            await self._void_tokens(one.name, one.bundle, f"revoked: {reason}", principal.label)
        return {**done, "stopped": sorted({one.name for one in behind})}

    async def _consult(self, wish: Wish) -> Index | None:
        """The configured index; what its publisher took back since is believed no more, installed or not."""
        index = await self._indexes.consult(allow_stale=wish.allow_stale_index)
        if index is None:
            return None
        known = {(one.key_id, one.bundle) for one in self._anchors.trust().revoked}
        for taken in index.revoked:
            hit = any(
                taken.hits(key_id=one.key, bundle=one.bundle, publisher=one.publisher)
                for one in self._installed.ever()
            )
            if hit and (taken.key_id, taken.bundle) not in known:
                await self.revoke(DAEMON, str(taken.key_id or taken.bundle), taken.reason)
        return index

    # --- judging ----------------------------------------------------------------------------------

    async def _propose(
        self,
        principal: Principal,
        package: Package,
        wish: Wish,
        index: Index | None,
        *,
        upgrade: bool,
    ) -> dict[str, Any]:
        async with self._changing:
            judged = await self._judge(package, wish, index)
            manifest = judged.agent.manifest
            current = self._current(*judged.key) if upgrade else self._installed.current(*judged.key)
            if current is not None and current.bundle == package.bundle_digest:
                return await self._mend(package, current)
            how = how_it_comes(
                self._installed, manifest, package.bundle_digest, dev=judged.verdict.dev, wish=wish
            )
            folder = await asyncio.to_thread(self._store.stage, package)
            try:
                if judged.agent.component_path is not None:
                    component = folder / manifest.entrypoint
                    await self._prepare(replace(judged.agent, dir=folder, component_path=component))
                before = None if current is None else await self._rights_of(current)
                diff = await self._diff(manifest.name, before, _rights(judged.agent))
                if wish.dev_swap and _swaps(judged, current, diff):
                    return await self._swap(principal, judged, cast(Installation, current), diff)
                asked = await self._ask(judged, wish, index, how, current, diff)
            except BaseException:
                await self._unstage(package.bundle_digest)
                raise
            log.info("install_asked", agent=manifest.name, version=manifest.version, by=principal.label)
            return asked

    async def _swap(
        self, principal: Principal, judged: Judged, current: Installation, diff: CapsDiff
    ) -> dict[str, Any]:
        """The author's next build in place of the last one: stated like every install, asked of nobody."""
        bundle = judged.package.bundle_digest
        for approval in self._desk.open(INSTALL, subject_of(*judged.key)):
            await self._approvals.void_one(approval.id, "a newer build took its place")
        moved = await asyncio.to_thread(self._store.keep, bundle)
        try:
            done = await self._unasked(principal, judged, current, diff, "swap")
        except BaseException:
            if moved:
                await asyncio.to_thread(self._store.unkeep, bundle)
            raise
        await self._unstage(bundle)
        log.info("agent_swapped", agent=done["name"], version=done["version"], bundle=bundle)
        return done

    async def _unasked(
        self, principal: Principal, judged: Judged, current: Installation, diff: CapsDiff, how: How
    ) -> dict[str, Any]:
        """State what needs no person: one said yes to as much before."""
        fact = fact_of(
            judged,
            how=how,
            current=current,
            shown=caps_digest(diff),
            approval=None,
            principal=principal.label,
        )
        (event,) = await self._journal.append(
            _draft(fact, current.event), blobs=(attestations_of(judged.package),)
        )
        now = cast(Installation, self._installed.current(*judged.key))
        return {**now.to_json(), "state": "done", "replaced": current.version, "event": event.id}

    async def _judge(self, package: Package, wish: Wish, index: Index | None) -> Judged:
        """Everything that can be said against a package without asking a person.

        Its signature comes first: nothing that nobody here signed is ever parsed (attacks.md M4).
        """
        trust, now_ms, dev_key = self._trust(index), self._clock.now_ms(), self._dev_key()
        await asyncio.to_thread(
            verify, package, trust=trust, now_ms=now_ms, dev_key=dev_key, allow_dev=wish.dev_key
        )
        agent = await asyncio.to_thread(self._registry.examine, package.files, _UNPLACED)
        manifest = agent.manifest
        check_place(manifest, self._registry.shipped)
        verdict = judge(
            package,
            manifest,
            agent.policy,
            trust=trust,
            now_ms=now_ms,
            owner_of_name=self._installed.owner(manifest.name),
            dev_key=dev_key,
            allow_dev=wish.dev_key,
        )
        return Judged(package=package, agent=agent, verdict=verdict)

    async def _judge_kept(self, one: Installation) -> Judged:
        """A bundle that was installed before, judged again as if it came today."""

        def read() -> Package:
            agent = self._registry.stored(one)
            lines = self._blobs.blob(one.attestation_blob).splitlines()
            return unpack(pack(read_bundle(agent.dir), [Envelope.from_line(line) for line in lines]))

        package = await asyncio.to_thread(read)
        if package.bundle_digest != one.bundle:
            raise ConflictError(
                "the kept bundle was changed just now", hint="try again", code="agent.changed"
            )
        return await self._judge(package, Wish(dev_key=one.dev), None)

    def _trust(self, index: Index | None) -> Trust:
        trust = self._anchors.trust()
        return trust.with_revoked(index.revoked) if index is not None else trust

    async def _mend(self, package: Package, current: Installation) -> dict[str, Any]:
        """These bytes are current already; if the kept ones were damaged, put them back."""
        if await asyncio.to_thread(self._store.holds, current.bundle):
            return {**current.to_json(), "state": "current"}
        await asyncio.to_thread(self._store.stage, package)
        await asyncio.to_thread(self._store.keep, current.bundle)
        await self._unstage(current.bundle)
        return {**current.to_json(), "state": "mended"}

    # --- rights -----------------------------------------------------------------------------------

    async def _rights_of(self, one: Installation) -> Policy | None:
        """What an installed bundle asks for; None when its bytes cannot tell any more."""
        try:
            return _rights(await asyncio.to_thread(self._registry.stored, one))
        except RefusedError:
            return None  # altered: everything the new one asks for counts as new

    async def _diff(self, name: str, before: Policy | None, now: Policy) -> CapsDiff:
        used = await self._used(name, USED_RUNS) if before is not None else None
        return capability_diff(before, now, used)

    # --- asking -----------------------------------------------------------------------------------

    async def _ask(
        self,
        judged: Judged,
        wish: Wish,
        index: Index | None,
        how: How,
        current: Installation | None,
        diff: CapsDiff,
    ) -> dict[str, Any]:
        action = action_of(judged, how=how, current=current, diff=diff, wish=wish, index=index)
        approval = await self._desk.ask(INSTALL, subject_of(*judged.key), action, text_of(action, diff))
        return {
            "state": "waiting",
            "approval": approval.id,
            **{key: action[key] for key in ("name", "variant", "version", "publisher", "key", "dev", "how")},
            "bundle": action["bundle"],
            "replaces": action["replaces_version"],
        }

    # --- answered: implements runloopd.authority.desk.Handler -------------------------------------

    async def granted(self, approval: Approval, decided: Decided) -> dict[str, Any]:
        """A person said yes: look at everything once more, then state the fact that installs it."""
        action = approval.action
        bundle = str(action["bundle"])
        async with self._changing:
            judged = await self._judge_again(action)
            current = self._installed.current(*judged.key)
            fact = fact_of(
                judged,
                how=action["how"],
                current=current,
                shown=action["caps_digest"],
                approval=approval.id,
                principal=decided.principal,
            )
            content = await asyncio.to_thread(self._blobs.blob, approval.content_blob)
            rollback = action["how"] == "rollback"
            moved = not rollback and await asyncio.to_thread(self._store.keep, bundle)
            try:
                events = await self._approvals.claim(
                    approval.id,
                    action,
                    content,
                    _draft(fact, approval.requested, approval.decided),
                    (attestations_of(judged.package),),
                )
            except BaseException:
                if moved:
                    await asyncio.to_thread(self._store.unkeep, bundle)
                raise
            self._approvals.consumed(approval.id)
            await self._unstage(bundle)
        now = cast(Installation, self._installed.current(*judged.key))
        log.info("agent_installed", agent=now.name, version=now.version, bundle=now.bundle, how=now.how)
        return {**now.to_json(), "replaced": action["replaces_version"], "event": events[-1].id}

    async def refused(self, approval: Approval) -> None:
        """It will not be installed: the staged bytes go, unless another question is about the same ones."""
        async with self._changing:  # a newer question may be about to take its place
            await self._unstage(str(approval.action["bundle"]))

    async def _judge_again(self, action: Mapping[str, Any]) -> Judged:
        """Between question and yes a key may be revoked, another version installed, a byte changed."""
        wish = Wish(**action["wish"])
        current = self._installed.current(str(action["name"]), str(action["variant"]))
        if (current.bundle if current is not None else None) != action["replaces"]:
            raise InstallError(
                f"what is installed of {action['name']} changed since the question was put",
                hint="install it again to see the difference to what is there now",
                code="install.changed",
            )
        if action["how"] == "rollback":
            target = self._installed.previous(str(action["name"]), str(action["variant"]))
            if target is None or target.bundle != action["bundle"]:
                raise InstallError("there is no way back to it any more", code="install.changed")
            judged = await self._judge_kept(target)
        else:
            package = await asyncio.to_thread(self._store.read_staged, str(action["bundle"]))
            index = await self._indexes.consult(allow_stale=wish.allow_stale_index)
            judged = await self._judge(package, wish, index)
            how_it_comes(
                self._installed,
                judged.agent.manifest,
                package.bundle_digest,
                dev=judged.verdict.dev,
                wish=wish,
            )
        if judged.shown != (action["publisher"], action["key"], action["dev"], action["archive_sha256"]):
            raise InstallError(
                "who vouches for it is not who was shown", hint="install it again", code="install.changed"
            )
        return judged

    async def _unstage(self, bundle: str) -> None:
        """Nobody waits for these staged bytes any more, or somebody still does: then they stay."""
        if all(approval.action["bundle"] != bundle for approval in self._desk.open(INSTALL)):
            await asyncio.to_thread(self._store.discard_staged, bundle)

    def _current(self, name: str, variant: str) -> Installation:
        current = self._installed.current(name, variant)
        if current is None:
            which = name if variant == "default" else f"{name}@{variant}"
            raise NotFoundError(
                f"no agent {which} is installed", hint="'rlp agent list' shows what is", code="agent.unknown"
            )
        return current


# --- small hands ----------------------------------------------------------------------------------


def _swaps(judged: Judged, current: Installation | None, diff: CapsDiff) -> bool:
    """Whether a build needs no person: one said yes to the last build of the same author, for no less."""
    same = current is not None and current.dev and judged.verdict.dev and current.key == judged.verdict.key_id
    return same and not diff.widening


def _draft(fact: AgentInstalled | AgentRemoved, *causes: int) -> Draft:
    """A fact about an agent, with what led to it: the question and its answer, or what was there before."""
    stamp = Provenance(causes=causes, agent=fact.name, bundle=fact.bundle)
    return Draft(payload=fact, actor=fact.principal, provenance=stamp)


def _rights(agent: InstalledAgent) -> Policy:
    """What a bundle asks for: its policy, as far as its manifest's host calls reach."""
    return effective(agent.ceiling, agent.policy).policy
