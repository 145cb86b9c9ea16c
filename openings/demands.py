"""What a replay demands of whoever drives it, and what it is told: data, and nothing else.

Knows: the shape of both. Does not know: how a demand is met (the daemon's ``runs.replayer``) or what is made
of the answer (``openings.replay``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openings.certificate import Mismatch, ReplayReport
from openings.comparers import Frame, Said
from runloop.events import (
    AgentPin,
    Event,
    GuestError,
    HostcallDelivered,
    MessagePosted,
    MessageSent,
    NodeFinished,
    RunParent,
)

__all__ = ["AttemptOutcome", "Demand", "NestedOutcome", "Outcome", "Reexecute", "ReplayNested"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reexecute:
    """The demand to run one attempt again."""

    run: str
    """Whose attempt it is."""
    trace: str
    """The run that the guest sees as ``context.run``: this one, or the one it was forked from."""
    node: str
    """Of a mapped node, its item."""
    attempt: int
    pin: AgentPin
    scheduled: Event
    """The attempt's ``node.scheduled``: its payload names the input blob."""
    recorded: tuple[HostcallDelivered, ...]
    """The answers it may hear, by index."""
    frames: tuple[MessageSent, ...] = ()
    """The frames that daemon and agent exchanged, in order."""
    posts: tuple[MessagePosted, ...] = ()
    """What it said to other agents, in order."""
    expected: NodeFinished | None
    """How it ended by itself; None when it was cut off (timed out, cancelled)."""

    @property
    def interrupted(self) -> bool:
        """Whether the attempt was ended from outside: then only its host calls can be compared."""
        return self.expected is None


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptOutcome:
    """How the re-execution of an attempt went."""

    ok: bool = False
    output_digest: str | None = None
    output: Mapping[str, Any] | None = field(default=None, compare=False)
    """What it gave: for whoever drives a run on with it. A replay compares the digest."""
    error: GuestError | None = None
    fuel: int = 0
    calls: int = 0
    frames: tuple[Frame, ...] = ()
    """The request and the response, made again: of an attempt that was cut off, the request alone."""
    said: Mapping[int, Said] = field(default_factory=dict)
    """By index, the calls by which it said something to other agents."""
    mismatch: Mismatch | None = None
    """The first host call that is not as recorded."""
    reason: str | None = None
    """Why it could not be executed at all."""

    @classmethod
    def unavailable(cls, reason: str) -> AttemptOutcome:
        """The attempt cannot be executed here; it will be counted as not covered."""
        return cls(reason=reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayNested:
    """The demand to replay the run that served an attempt of a node that uses an opening."""

    run: str
    """Id of the nested run."""
    parent: RunParent
    """Whose attempt it serves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NestedOutcome:
    """How the replay of a nested run went."""

    report: ReplayReport | None = None
    """None where no such run is recorded."""
    events: Sequence[Event] = ()
    """Its record, as far as it could be read."""


Demand = Reexecute | ReplayNested
Outcome = AttemptOutcome | NestedOutcome
