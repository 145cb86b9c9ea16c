"""Which agents are installed: a fold of the facts ``agent.installed`` and ``agent.removed``.

Knows: what is current, which versions are kept, who owns a name, the highest version and the newest index
ever seen. Does not know: where the bytes lie (the daemon's store), whether they may be trusted
(``bundle.trust``), or who asked. Pure: the same facts in the same order give the same state, in the daemon
and in whoever only looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from runloop.bundle.semver import precedence
from runloop.events import AgentIndexSeen, AgentInstalled, AgentRemoved, Event

__all__ = ["INSTALL_KINDS", "Installation", "Installations"]

INSTALL_KINDS = (AgentInstalled.kind, AgentRemoved.kind, AgentIndexSeen.kind)
"""Kinds the state is folded from."""

Key = tuple[str, str]
"""Name and variant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Installation:
    """One bundle that is, or was, installed."""

    name: str
    variant: str
    version: str
    bundle: str
    archive_sha256: str
    attestation_blob: str
    publisher: str
    key: str
    dev: bool
    how: str
    event: int
    """Ledger id of its newest ``agent.installed``."""
    installed_ms: int

    def to_json(self) -> dict[str, Any]:
        """As people and ``--json`` see it."""
        shown = asdict(self)
        del shown["attestation_blob"]
        return shown


@dataclass(slots=True)
class Installations:
    """The state, changed by :meth:`apply` only."""

    _current: dict[Key, Installation] = field(default_factory=dict)
    _kept: dict[Key, list[Installation]] = field(default_factory=dict)
    _owners: dict[str, str] = field(default_factory=dict)
    _highest: dict[Key, str] = field(default_factory=dict)
    _indexes: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Publisher -> serial and digest of its newest index."""

    @classmethod
    def folded(cls, events: Iterable[Event]) -> Installations:
        """The state after ``events``, oldest first; other kinds are passed over."""
        state = cls()
        for event in events:
            state.apply(event)
        return state

    def apply(self, event: Event) -> None:
        """Take one fact."""
        if event.kind == AgentInstalled.kind:
            self._installed(event, cast(AgentInstalled, event.payload))
        elif event.kind == AgentRemoved.kind:
            removed = cast(AgentRemoved, event.payload)
            self._current.pop((removed.name, removed.variant), None)
            if removed.released:
                self._owners.pop(removed.name, None)
        elif event.kind == AgentIndexSeen.kind:
            seen = cast(AgentIndexSeen, event.payload)
            if seen.serial > self._indexes.get(seen.publisher, (-1, ""))[0]:
                self._indexes[seen.publisher] = (seen.serial, seen.index_digest)

    def _installed(self, event: Event, fact: AgentInstalled) -> None:
        key = (fact.name, fact.variant)
        now = Installation(
            name=fact.name,
            variant=fact.variant,
            version=fact.agent_version,
            bundle=fact.bundle,
            archive_sha256=fact.archive_sha256,
            attestation_blob=fact.attestation_blob,
            publisher=fact.publisher,
            key=fact.key,
            dev=fact.dev,
            how=fact.how,
            event=event.id,
            installed_ms=event.ts_ms,
        )
        kept = self._kept.setdefault(key, [])
        kept[:] = [*(one for one in kept if one.bundle != now.bundle), now]
        self._current[key] = now
        self._owners.setdefault(fact.name, fact.publisher)  # the first who installs a name owns it here
        high = self._highest.get(key)
        if high is None or precedence(fact.agent_version) > precedence(high):
            self._highest[key] = fact.agent_version

    # --- looking ----------------------------------------------------------------------------------

    def current(self, name: str, variant: str = "default") -> Installation | None:
        """What serves new runs."""
        return self._current.get((name, variant))

    def kept(self, name: str, variant: str = "default") -> tuple[Installation, ...]:
        """Every bundle ever installed under the name, the one installed last at the end."""
        return tuple(self._kept.get((name, variant), ()))

    def previous(self, name: str, variant: str = "default") -> Installation | None:
        """What a rollback goes back to: the bundle that was current before this one, of a lower version.

        A bundle one rolled back from is no way back: it would only swap the two for ever.
        """
        current = self.current(name, variant)
        if current is None:
            return None
        older = [
            one
            for one in self.kept(name, variant)
            if precedence(one.version) < precedence(current.version) and one.bundle != current.bundle
        ]
        return max(older, key=lambda one: (precedence(one.version), one.event), default=None)

    def owner(self, name: str) -> str | None:
        """The publisher that first installed the name here, also after it was removed; None: nobody yet.

        A name lives on in overrides, memory and openings: a stranger does not inherit it by a removal, unless
        the operator released it.
        """
        return self._owners.get(name)

    def highest(self, name: str, variant: str = "default") -> str | None:
        """The highest version ever installed, also after a rollback or a removal."""
        return self._highest.get((name, variant))

    @property
    def serials(self) -> Mapping[str, int]:
        """Publisher -> serial of the newest index of it that was judged good."""
        return {publisher: serial for publisher, (serial, _) in self._indexes.items()}

    def index_digest(self, publisher: str) -> str | None:
        """Digest of the index that had that serial."""
        return self._indexes.get(publisher, (0, None))[1]

    def is_installed(self, name: str) -> bool:
        """Whether any variant of the name is current."""
        return any(key[0] == name for key in self._current)

    def of_bundle(self, digest: str) -> Installation | None:
        """The newest fact about a bundle, by its digest."""
        found = [one for one in self.ever() if one.bundle == digest]
        return max(found, key=lambda one: one.event, default=None)

    def ever(self) -> tuple[Installation, ...]:
        """Every bundle that is or was installed, whatever became of it."""
        return tuple(one for kept in self._kept.values() for one in kept)

    def bundles(self) -> frozenset[str]:
        """Digests of every bundle that is current or kept."""
        return frozenset(one.bundle for one in self.ever())

    def __iter__(self) -> Iterator[Installation]:
        """What is current, by name and variant."""
        return iter([self._current[key] for key in sorted(self._current)])
