"""One human decision as data: its states, its legal moves, what it is bound to.

Knows: shapes and the table of moves. Does not know: how an approval is stored, who may decide or when
(``authority.approvals``).

    open ──approve──▶ active ──claim──▶ dispatching ──delivered──▶ consumed
     │                  └─ undo, expire, void ─▶ undone · expired · voided
     └─ deny, expire, void ─▶ denied · expired · voided
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from runloop.digest import blob_digest, digest
from runloop.errors import ConflictError
from runloop.events import Provenance

__all__ = [
    "FINAL",
    "MOVES",
    "STATE_OF",
    "Approval",
    "ApprovalError",
    "Decided",
    "Question",
    "State",
    "action_digest",
]

State = Literal["open", "active", "dispatching", "consumed", "denied", "expired", "undone", "voided"]

MOVES: frozenset[tuple[State, State]] = frozenset(
    {
        ("open", "active"),
        ("open", "denied"),
        ("open", "expired"),
        ("open", "voided"),
        ("active", "dispatching"),
        ("active", "undone"),
        ("active", "expired"),
        ("active", "voided"),
        ("dispatching", "consumed"),
    }
)
"""The only legal moves. *Claimed* is the instant between ``active`` and ``dispatching``: both marks are one
transaction, so that a crash leaves either a use that was not taken or one that is known to be taken."""

STATE_OF: dict[str, State] = {
    "approved": "active",
    "denied": "denied",
    "expired": "expired",
    "undone": "undone",
    "voided": "voided",
}
FINAL: frozenset[State] = frozenset({"consumed", "denied", "expired", "undone", "voided"})


class ApprovalError(ConflictError):
    """The approval is not in a state that allows this. Look at it again (``rlp approvals``)."""

    code: ClassVar[str] = "approval.state"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a person is asked: everything a decision is bound to."""

    run: str | None
    """The run that waits; None for what the operator asked for outside of any (an install)."""
    node: str
    attempt: int
    call: int
    op: str
    effect: str
    key: str
    """Idempotency key of the effect: the same question of a later attempt has the same key."""
    args_digest: str
    action: dict[str, Any]
    """Canonical action, as :class:`~runloop.events.ActionRequested` describes it."""
    content: bytes
    """The exact bytes that will be executed."""
    content_type: str
    provenance: Provenance

    @property
    def action_digest(self) -> str:
        """What the decision is bound to."""
        return action_digest(self.action, self.content)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """How a question was answered."""

    approval: str
    state: State
    principal: str
    note: str
    event: int
    """Ledger id of the ``action.decided``; 0 while undecided."""
    dispatch_after_ms: int
    """End of the undo window (unix ms); 0 where none applies."""

    @property
    def approved(self) -> bool:
        """True when the effect may go on, or already did."""
        return self.state in ("active", "dispatching", "consumed")

    def to_json(self) -> dict[str, Any]:
        """As a client sees it."""
        return {
            "approval": self.approval,
            "state": self.state,
            "principal": self.principal,
            "note": self.note,
            "event": self.event,
            "dispatch_after_ms": self.dispatch_after_ms,
        }


@dataclass(slots=True)
class Approval:
    """One question and where it stands. Only :class:`Approvals` writes to it."""

    id: str
    run: str | None
    node: str
    attempt: int
    call: int
    op: str
    effect: str
    key: str
    args_digest: str
    action: dict[str, Any]
    action_digest: str
    content_blob: str
    content_type: str
    requested_ms: int
    expires_ms: int
    requested: int
    """Ledger id of its ``action.requested``."""
    label: str | None = None
    """Lowest trust label of what its run had heard when it asked: who may have put it up to it."""
    state: State = "open"
    decided: int = 0
    principal: str = ""
    note: str = ""
    dispatch_after_ms: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    held: bool = field(default=False, repr=False)
    """A dispatch under this approval is going on in this process."""

    def to_json(self) -> dict[str, Any]:
        """As a client sees it; the content is fetched by its digest."""
        return {
            "approval": self.id,
            "state": self.state,
            "run": self.run,
            "node": self.node,
            "attempt": self.attempt,
            "op": self.op,
            "effect": self.effect,
            "action": self.action,
            "action_digest": self.action_digest,
            "content_blob": self.content_blob,
            "content_type": self.content_type,
            "requested_ms": self.requested_ms,
            "expires_ms": self.expires_ms,
            "principal": self.principal,
            "note": self.note,
            "dispatch_after_ms": self.dispatch_after_ms,
            "event": self.requested,
            "label": self.label,
        }

    def to_request(self) -> dict[str, Any]:
        """Payload of ``intent.action.request.v1`` (schema 3005)."""
        return {
            "v": 1,
            "approval": self.id,
            "run": self.run or "",
            "node": self.node,
            "action": self.action,
            "action_digest": self.action_digest,
            "expires_ms": self.expires_ms,
        }

    @property
    def undoable(self) -> bool:
        """What the operator asked for outside of any run happens at once; it has a way back of its own."""
        return self.run is not None

    def answer(self) -> Decided:
        """Where it stands."""
        return Decided(
            approval=self.id,
            state=self.state,
            principal=self.principal,
            note=self.note,
            event=self.decided,
            dispatch_after_ms=self.dispatch_after_ms,
        )


def action_digest(action: dict[str, Any], content: bytes) -> str:
    """BLAKE3 over the canonical action and the digest of the exact content.

    The action names agent, bundle, resource, recipients and amount, so that none of them can change between
    the decision and the effect.
    """
    return digest({"action": action, "content": blob_digest(content)})
