"""What passes between a guest and the gate: one call in, one answer out.

Shared by the runtime (which carries the bytes), the gate (which decides) and the runs service (which serves
answers from the record). Knows nothing of sockets or policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from runloop.bundle.tools import Tool
from runloop.digest import canonical
from runloop.errors import RunloopError
from runloop.events import AgentPin

__all__ = ["Answer", "Answerer", "Caller", "HostCall", "Rewindable"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """On whose behalf a guest calls; made by the runs service when an attempt starts."""

    run: str
    node: str
    attempt: int
    pin: AgentPin
    token: bytes
    """Serialised capability token, already narrowed to this node."""
    token_id: str
    ops: frozenset[str]
    """Host calls its manifest declares; no other is answered."""
    scheduled_id: int
    """Ledger id of this attempt's ``node.scheduled``: the cause of everything it does."""
    tools: tuple[Tool, ...] = ()
    """What its bundle's ``tools.json`` offers it."""
    model: str | None = None
    """Pattern of the model its completions are asked of, whatever they name; None: what they name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostCall:
    """One call, as it left the guest."""

    index: int
    """Counts the calls of this attempt from 0."""
    op: str
    args: Any
    """Decoded JSON; not yet validated."""
    args_digest: str
    fuel: int
    """Fuel burnt by the guest up to this call."""
    request_bytes: int
    """Size of the frame that carried it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the guest is going to see: a JSON value, or an error ``{code, message, hint, retryable}``."""

    ok: bool
    value: Any

    @property
    def text(self) -> str:
        """Canonical JSON text: the very characters handed to the guest."""
        return canonical(self.value).decode()

    @classmethod
    def refusal(cls, error: RunloopError, *, retryable: bool = False) -> Answer:
        """The answer a guest sees when a call is refused or failed; it may go on after it."""
        return cls(
            ok=False,
            value={
                "code": error.named_code,
                "message": error.message,
                "hint": error.hint,
                "retryable": retryable,
            },
        )


class Answerer(Protocol):
    """Answers the host calls of one attempt, in order. Never raises: nothing unwinds through a guest."""

    async def answer(self, call: HostCall) -> Answer: ...


@runtime_checkable
class Rewindable(Protocol):
    """An answerer with a memory: it can give the answers so far again, to a guest that starts again.

    Only an attempt whose answerer is one is recovered after a crash of its worker: without the answers it
    has heard, executing a guest again would repeat what it did.
    """

    async def rewind(self) -> None:
        """The next call is number 0 again. No call is under way when this is called."""
        ...
