"""The mint: makes capability tokens, remembers which are void, and answers checks from a cache.

Knows: the root key, every revocation of this ledger, and that a token checked before the last revocation
must be checked again. Does not know what a right is used for (the gate), nor which rights an agent should
get (the runs service composes policies). Minting and revoking are stated in the ledger first; a revocation
takes effect in memory even before it is durable, because refusing too early harms nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, cast

from runloop.caps import token as tokens
from runloop.caps.policy import Policy, everything
from runloop.caps.token import Verified
from runloop.clock import Clock
from runloop.digest import blob_digest
from runloop.errors import NotFoundError
from runloop.events import AgentPin, CapAudit, Draft, Event, Provenance, TokenIssued, TokenRevoked
from runloopd.authority.keyring import Keyring

__all__ = ["Appender", "Mint", "Minted"]

_CACHE = 1_024
"""Verified tokens kept; a run has one per node."""


DEFAULT_TTL_MS = 8 * 86_400_000
"""Longer than an approval may wait by default: a node that waits for a person still holds its token."""


class Appender(Protocol):
    """The one thing this room asks of the journal."""

    async def append(self, *drafts: Draft, blobs: Iterable[bytes] = ()) -> list[Event]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Minted:
    """A fresh token."""

    data: bytes
    """The token itself. Never logged, never in the ledger."""
    id: str
    """Revocation id of its newest block: the name the ledger knows it by."""
    parent: str | None
    event: int
    """Ledger id of its ``token.issued``."""
    expires_ms: int

    def __repr__(self) -> str:
        return f"Minted(id={self.id[:16]}…)"


class Mint:
    """Issues, narrows, revokes and verifies the tokens of one installation."""

    def __init__(
        self, keyring: Keyring, journal: Appender, clock: Clock, *, ttl_ms: int = DEFAULT_TTL_MS
    ) -> None:
        self._private = keyring.token_key
        self._public = keyring.token_public
        self._journal = journal
        self._clock = clock
        self._ttl_ms = ttl_ms
        self._runs: dict[str, Minted] = {}
        self._nodes: dict[str, list[tuple[AgentPin, str]]] = {}
        """Run -> ``(agent, token)`` of every attempt's token."""
        self._inside: dict[str, list[str]] = {}
        """Token of a run -> tokens of the runs nested in it."""
        self._revoked: dict[str, str] = {}
        self._known: set[str] = set()
        self._verified: dict[str, tuple[int, Verified]] = {}
        self.generation = 0
        """Rises with every revocation; a check made under an older generation is worth nothing."""

    def restore(self, events: Iterable[Event]) -> None:
        """Take in what the ledger says of tokens: call once at start, with events in order."""
        for event in events:
            if event.kind == TokenRevoked.kind:
                revoked = cast(TokenRevoked, event.payload)
                self._void(revoked.token, revoked.reason)
            elif event.kind == TokenIssued.kind:
                self._known.add(cast(TokenIssued, event.payload).token)

    async def for_run(self, run: str, grants: Policy, *, cause: int, within: str | None = None) -> Minted:
        """Mint the token of a run, the bound of what its nodes may be given. Kept for :meth:`for_node`.

        ``within``: the run around it; this token is void as soon as that one's is. Raises
        :class:`TokenError` when it is so already.
        """
        around = None if within is None else self._runs.get(within)
        if around is not None:
            self.verify(around.data)
        token = tokens.mint(
            self._private, grants, holder="run", run=run, expires_ms=self._clock.now_ms() + self._ttl_ms
        )
        minted = await self._issue(token, (cause,), agent=None, node=None)
        if around is not None:
            self._inside.setdefault(around.id, []).append(minted.id)
            if around.id in self._revoked:  # while this one was being stated
                self._void(minted.id, self._revoked[around.id])
        return self._runs.setdefault(run, minted)

    async def for_node(self, run: str, node: str, pin: AgentPin, grants: Policy, *, cause: int) -> Minted:
        """Narrow the run's token to one node; an agent left with nothing starts all the same, and is audited.

        A run without a token (nobody called :meth:`for_run`, or the daemon was started anew: tokens are not
        kept on disk) gets one first. Raises :class:`TokenError` when the run's token is void or does not
        cover ``grants``.
        """
        root = self._runs.get(run)
        if root is None:
            root = await self.for_run(run, everything(), cause=cause)
        self.verify(root.data)
        token = tokens.attenuate(root.data, self._public, grants, holder=f"agent:{pin.name}", node=node)
        minted = await self._issue(token, (cause, root.event), agent=pin, node=node)
        self._nodes.setdefault(run, []).append((pin, minted.id))
        return minted

    def forget(self, run: str) -> None:
        """Drop the token of a run that has ended."""
        minted = self._runs.pop(run, None)
        if minted is not None:
            self._inside.pop(minted.id, None)
        self._nodes.pop(run, None)

    def verify(self, token: bytes) -> Verified:
        """What ``token`` grants now; raises :class:`TokenError`. Cached until the next revocation."""
        now = self._clock.now_ms()
        name = blob_digest(token)
        generation, verified = self._verified.get(name, (-1, None))
        if verified is not None and generation == self.generation and now < verified.expires_ms:
            return verified
        self._verified.pop(name, None)
        checked = tokens.verify(token, self._public, now_ms=now, revoked=self._revoked)
        while len(self._verified) >= _CACHE:
            del self._verified[next(iter(self._verified))]
        self._verified[name] = (self.generation, checked)
        return checked

    async def revoke(self, token_id: str, reason: str, *, actor: str = "daemon") -> Event:
        """Void a token and all narrowed from it; ``token_id`` may be a prefix of at least 8 characters.

        From the moment this is called nothing is admitted under it. Raises :class:`NotFoundError`, or the
        journal's error when the fact could not be written (the token stays void until the daemon ends).
        """
        name = self._find(token_id)
        self._void(name, reason)
        (event,) = await self._journal.append(
            Draft(payload=TokenRevoked(token=name, reason=reason), actor=actor)
        )
        return event

    async def revoke_agent(
        self, agent: str, reason: str, *, actor: str, bundle: str | None = None
    ) -> list[str]:
        """Void every token an agent holds in a run under way; its next call is refused. Returns their ids.

        ``bundle``: only those of attempts that run exactly these bytes; None: whatever they run.
        """
        held = [
            token
            for tokens in self._nodes.values()
            for pin, token in tokens
            if pin.name == agent and bundle in (None, pin.bundle_digest)
        ]
        live = [token for token in held if token not in self._revoked]
        for token in live:
            self._void(token, reason)
        for token in live:
            await self._journal.append(Draft(payload=TokenRevoked(token=token, reason=reason), actor=actor))
        return live

    def revoked(self) -> dict[str, str]:
        """Revocation id -> reason."""
        return dict(self._revoked)

    def _find(self, token_id: str) -> str:
        if token_id in self._known:
            return token_id
        found = [name for name in self._known if name.startswith(token_id)] if len(token_id) >= 8 else []
        if len(found) != 1:
            raise NotFoundError(
                f"no token is called {token_id!r}"
                if not found
                else f"{token_id!r} names {len(found)} tokens",
                hint="'rlp kb why' of an event shows the tokens behind it",
                code="token.unknown",
            )
        return found[0]

    def _void(self, token_id: str, reason: str) -> None:
        for inside in self._inside.pop(token_id, ()):
            self._void(inside, reason)
        self._revoked.setdefault(token_id, reason)
        self._known.add(token_id)
        self.generation += 1

    async def _issue(
        self, token: bytes, causes: tuple[int, ...], *, agent: AgentPin | None, node: str | None
    ) -> Minted:
        # Read back from the bytes, so that the ledger says what the token says.
        verified = tokens.verify(token, self._public, now_ms=self._clock.now_ms(), revoked=self._revoked)
        provenance = Provenance(
            causes=causes,
            node=node,
            agent=agent.name if agent else None,
            bundle=agent.bundle_digest if agent else None,
            token=verified.token_id,
        )
        drafts = [
            Draft(
                payload=TokenIssued(
                    token=verified.token_id,
                    parent=verified.parent_id,
                    holder=verified.holder,
                    grants=verified.grants.to_json(),
                    expires_ms=verified.expires_ms,
                ),
                actor="daemon",
                run=verified.run,
                provenance=provenance,
            )
        ]
        if agent is not None and verified.grants.empty:
            drafts.append(
                Draft(
                    payload=CapAudit(
                        agent=agent.name,
                        capability="*",
                        op="caps.empty",
                        target="",
                        args_digest=blob_digest(b""),
                        decision="empty",
                        reason=f"nothing is left of {agent.name}'s capabilities; it may only compute",
                        node=node,
                    ),
                    actor="daemon",
                    run=verified.run,
                    provenance=provenance,
                )
            )
        self._known.add(verified.token_id)
        # A token whose issue is in the ledger must not be lost to a cancelled caller.
        event, *_ = await asyncio.shield(asyncio.ensure_future(self._journal.append(*drafts)))
        return Minted(
            data=token,
            id=verified.token_id,
            parent=verified.parent_id,
            event=event.id,
            expires_ms=verified.expires_ms,
        )
