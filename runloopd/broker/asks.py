"""One host call on its way through the gate: what is known of it, and how it can end.

Knows: shapes only. The gate makes an :class:`Ask`, an op's function answers with :class:`Done` or raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from runloop.caps.policy import Policy, Verdict
from runloop.errors import FailedError, RefusedError, RunloopError
from runloop.events import CapAudit, Payload
from runloop.ops import Args, Op
from runloopd.broker.calls import Answer, Caller, HostCall
from runloopd.broker.record import Run

__all__ = ["Ask", "CapabilityError", "Done", "GateError", "Handler", "UnknownOutcomeError", "require"]


class GateError(FailedError):
    """The gate could not do its part. Nothing was dispatched."""

    code: ClassVar[str] = "gate.failed"


class CapabilityError(RefusedError):
    """The caller lacks the right. The hint says who can give it."""

    code: ClassVar[str] = "cap.denied"

    def __init__(self, verdict: Verdict, *, code: str | None = None) -> None:
        super().__init__(verdict.reason, hint=verdict.how_to_obtain, code=code)
        self.verdict = verdict


class UnknownOutcomeError(FailedError):
    """An effect was begun and nobody can tell whether it happened. It is never repeated by itself."""

    code: ClassVar[str] = "effect.unknown_outcome"


@dataclass(slots=True, kw_only=True)
class Ask:
    """A call that passed the first checks."""

    caller: Caller
    call: HostCall
    op: Op
    args: Args
    args_blob: bytes
    """Canonical JSON of the arguments."""
    args_digest: str
    key: str
    """Idempotency key, see :func:`~runloopd.broker.record.effect_key`."""
    grants: Policy
    """What the token grants, at the moment of the check."""
    run: Run
    check: Callable[[], object]
    """Check the token again; raises. Called right before an effect is admitted: the linearisation point."""
    facts: list[Payload] = field(default_factory=list)
    """To be stated together with the answer: warnings, audits."""
    speaker: str | None = None
    """Trust label of whoever may have put words into an error; None: only the host has."""
    outbound: Callable[[str, int, int], None] = lambda place, size, address: None
    """Count what is about to leave for a place: bytes in all, and of the address. Raises what suspends it."""
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the attempt was stopped: an effect under way is cut short where that is safe."""

    @property
    def agent(self) -> str:
        """The caller's name."""
        return self.caller.pin.name

    @property
    def known(self) -> tuple[int, ...]:
        """Causes of whatever this call does: the scheduling, and every answer the guest has seen."""
        seen = self.run.attempt(self.caller.node, self.caller.attempt).seen(self.call.index)
        return (self.caller.scheduled_id, *seen)


@dataclass(slots=True, kw_only=True)
class Done:
    """How a call ended."""

    value: Any
    """JSON; for the guest."""
    ok: bool = True
    facts: list[Payload] = field(default_factory=list)
    """Stated in the same transaction as the answer."""
    blobs: list[bytes] = field(default_factory=list)
    causes: tuple[int, ...] = ()
    """Ledger ids of what the answer was made from, beyond the caller's own."""
    label: str | None = None
    """Trust label of the facts."""
    recorded: Callable[[], None] | None = None
    """Called once the answer is durable."""
    unrecorded: Callable[[], None] | None = None
    """Called instead when the answer could not be stated."""

    @classmethod
    def failed(cls, error: RunloopError, **more: Any) -> Done:
        """The guest is told no; ``facts`` and the rest as for any end."""
        return cls(value=Answer.refusal(error, retryable=retryable(error)).value, ok=False, **more)


class Handler(Protocol):
    """Performs one op. Raises families of :mod:`runloop.errors`."""

    def __call__(self, ask: Ask) -> Coroutine[Any, Any, Done]: ...


def require(ask: Ask, capability: str, target: str) -> None:
    """Raise :class:`CapabilityError` unless the caller may use ``capability`` on ``target``."""
    verdict = ask.grants.allows(capability, target, agent=ask.agent)
    if not verdict.allowed:
        raise CapabilityError(verdict)


def audit(ask_agent: str, verdict: Verdict, caller: Caller, call: HostCall, *, reason: str = "") -> CapAudit:
    """The event that states a verdict."""
    return CapAudit(
        agent=ask_agent,
        capability=verdict.capability,
        op=call.op[:128],
        target=verdict.target[:512],
        args_digest=call.args_digest,
        decision="allowed" if verdict.allowed else "denied",
        reason=reason or verdict.reason,
        node=caller.node,
        attempt=caller.attempt,
        call=call.index,
    )


def retryable(error: RunloopError) -> bool:
    """Whether the guest, or a retry of its node, may do better with the same call."""
    return bool(getattr(error, "retryable", False))
