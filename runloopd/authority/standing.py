"""Standing grants: what a person allowed for good, so that the same question is not put twice.

Knows: what a grant is bound to (one agent's bundle, one tool's definition, one effect, one resource in
canonical form), and that only the operator gives and revokes. Does not know: tools, or when one is called.
After a restart the same facts give the same grants (:meth:`Standing.restore`).

A grant never names a command or an interpreter: whatever runs commands says so (``grantable`` of its action
is false), and no grant is given for it. Nothing is matched by pattern: two resources are one when their
canonical forms are the same text (attacks.md C2, C3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from runloop.approval import confirms
from runloop.digest import digest
from runloop.errors import ConflictError, NotFoundError, RefusedError
from runloop.events import Draft, Event, GrantGiven, GrantRevoked, Provenance
from runloopd.authority.approvals import Approval
from runloopd.authority.faces import outside
from runloopd.authority.mint import Appender
from runloopd.bus.principal import Principal

__all__ = ["STANDING_KINDS", "Grant", "Scope", "Standing"]

STANDING_KINDS = (GrantGiven.kind, GrantRevoked.kind)
MAX_GRANTS = 10_000
_PREFIX = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What a grant covers: exactly this."""

    agent: str
    bundle: str
    tool: str
    definition: str
    effect: str
    resource: str
    asked_by: str = ""
    """The program outside whose runs it is for; empty: for those of the user. Neither serves the other."""

    @property
    def name(self) -> str:
        """Id of the grant: the same scope has the same."""
        parts = [self.agent, self.bundle, self.tool, self.definition, self.effect, self.resource]
        if self.asked_by:
            parts.append(self.asked_by)
        return f"gr_{digest(parts)[:16]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """One standing grant."""

    scope: Scope
    approval: str
    principal: str
    given_ms: int
    event: int

    @property
    def id(self) -> str:
        """``gr_…``."""
        return self.scope.name

    def to_json(self) -> dict[str, Any]:
        """As a client sees it."""
        scope = self.scope
        return {
            "grant": self.id,
            "agent": scope.agent,
            "bundle": scope.bundle,
            "tool": scope.tool,
            "definition": scope.definition,
            "effect": scope.effect,
            "resource": scope.resource,
            "asked_by": scope.asked_by,
            "approval": self.approval,
            "principal": self.principal,
            "given_ms": self.given_ms,
            "event": self.event,
        }


class Standing:
    """Every standing grant."""

    def __init__(self, journal: Appender) -> None:
        self._journal = journal
        self._grants: dict[str, Grant] = {}

    def restore(self, events: Iterable[Event]) -> None:
        """Take in :data:`STANDING_KINDS`, in order; once, before the first call."""
        for event in events:
            if event.kind == GrantGiven.kind:
                self._take(event)
            elif event.kind == GrantRevoked.kind:
                self._grants.pop(cast(GrantRevoked, event.payload).grant, None)

    def covering(self, scope: Scope) -> Grant | None:
        """The grant for exactly this, at this moment."""
        found = self._grants.get(scope.name)
        # An id is short: who chooses what is asked for could look for two scopes with one id.
        return found if found is not None and found.scope == scope else None

    def list(self, agent: str | None = None) -> list[Grant]:
        """Every grant, oldest first."""
        return [grant for grant in self._grants.values() if agent in (None, grant.scope.agent)]

    async def give(
        self, principal: Principal, approval: Approval, digest_seen: str, confirm: str = ""
    ) -> Grant:
        """Allow for good what ``approval`` asks for once; asking again changes nothing.

        ``digest_seen`` is the ``action_digest`` of what the person was shown, ``confirm`` the tool's name as
        they typed it out. Raises :class:`RefusedError` for anybody but an operator, without that name and
        for what cannot be allowed for good, :class:`ConflictError` when something else was shown or the
        question was refused.
        """
        _operator(principal)
        if approval.action_digest != digest_seen:
            raise ConflictError(
                f"approval {approval.id} is for another action than the one you were shown",
                hint="look at it again: 'rlp approvals' lists what waits",
                code="approval.digest",
            )
        if approval.state not in ("open", "active"):
            raise ConflictError(
                f"{approval.id} is {approval.state}: what is allowed for good is asked for at that moment",
                hint="wait until it is asked again",
                code="approval.decided",
            )
        scope = _scope(approval)
        if not confirms(approval.to_json(), confirm):
            raise RefusedError(
                f"what is allowed for good is confirmed by its name, {scope.tool}, typed out",
                hint=f"in a terminal: 'rlp approve {approval.id} --always'",
                code="approval.unconfirmed",
            )
        known = self._grants.get(scope.name)
        if known is not None and known.scope != scope:
            raise RefusedError(
                f"another standing grant has the id {known.id} already, which no two honest ones have",
                hint=f"look at both: 'rlp grant list' and 'rlp approvals'; 'rlp grant revoke {known.id}'",
                code="grant.refused",
            )
        if known is not None:
            return known
        if len(self._grants) >= MAX_GRANTS:
            raise RefusedError(
                f"there are {MAX_GRANTS} standing grants already",
                hint="'rlp grant revoke' takes some back",
                code="grant.many",
            )
        fact = GrantGiven(
            grant=scope.name,
            agent=scope.agent,
            bundle=scope.bundle,
            tool=scope.tool,
            definition=scope.definition,
            effect=scope.effect,
            resource=scope.resource,
            approval=approval.id,
            principal=principal.label,
            asked_by=scope.asked_by,
        )
        (event,) = await self._journal.append(
            Draft(payload=fact, actor=principal.label, provenance=Provenance(causes=(approval.requested,)))
        )
        return self._take(event)

    async def revoke(self, principal: Principal, name: str, reason: str = "") -> Grant:
        """Take a grant back; what was not admitted yet is asked about again.

        Raises :class:`RefusedError` for anybody but an operator, :class:`NotFoundError`.
        """
        _operator(principal)
        grant = self.find(name)
        fact = GrantRevoked(grant=grant.id, principal=principal.label, reason=reason[:500])
        del self._grants[grant.id]  # at once: whoever asks while the fact is written asks a person
        try:
            await self._journal.append(
                Draft(payload=fact, actor=principal.label, provenance=Provenance(causes=(grant.event,)))
            )
        except BaseException:
            self._grants[grant.id] = grant
            raise
        return grant

    def find(self, name: str) -> Grant:
        """By id or an unambiguous beginning of it; raises :class:`NotFoundError`."""
        wanted = name if name.startswith("gr_") else f"gr_{name}"
        found = [grant for grant in self._grants.values() if grant.id.startswith(wanted)]
        if len(found) == 1 and len(wanted) >= _PREFIX:
            return found[0]
        raise NotFoundError(
            f"{name[:80]!r} names {'several standing grants' if found else 'no standing grant'}",
            hint="'rlp grant list' lists them",
            code="grant.unknown",
        )

    def _take(self, event: Event) -> Grant:
        given = cast(GrantGiven, event.payload)
        scope = Scope(
            agent=given.agent,
            bundle=given.bundle,
            tool=given.tool,
            definition=given.definition,
            effect=given.effect,
            resource=given.resource,
            asked_by=given.asked_by,
        )
        made = Grant(
            scope=scope,
            approval=given.approval,
            principal=given.principal,
            given_ms=event.ts_ms,
            event=event.id,
        )
        self._grants[scope.name] = made
        return made


def _operator(principal: Principal) -> None:
    if principal.kind != "operator":
        raise RefusedError(
            f"{principal.label} may not give or revoke standing grants: only the operator can",
            hint="use 'rlp grant list' as the user who owns the daemon",
            code="approval.principal",
        )


def _scope(approval: Approval) -> Scope:
    """What a question is about. Raises :class:`RefusedError` where no grant is given for it."""
    action = approval.action
    if action.get("kind") != "tool.call" or action.get("grantable") is not True:
        raise RefusedError(
            f"{approval.op} cannot be allowed for good: its name does not say what it would do next time",
            hint=f"'rlp approve {approval.id}' allows it once",
            code="grant.refused",
        )
    return Scope(
        agent=str(action["agent"]),
        bundle=str(action["bundle"]),
        tool=str(action["tool"]),
        definition=str(action["definition"]),
        effect=str(action["effect"]),
        resource=str(action["resource"]),
        asked_by=outside(str(action.get("asked_by") or "")),
    )
