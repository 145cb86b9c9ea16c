"""What the engine asks for: one frozen type per command, and the fact that states each.

Knows: which event says that a command was heard. Does not know: when a command is due (``engine``) or who
carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from runloop.digest import canonical, digest
from runloop.events import (
    GuestError,
    NodeCancelled,
    NodeExpanded,
    NodeFinished,
    NodeGathered,
    NodeScheduled,
    NodeSkipped,
    Payload,
    RunFinished,
    TimerSet,
)

__all__ = [
    "CancelNode",
    "Command",
    "EndAttempt",
    "ExpandNode",
    "FinishRun",
    "GatherNode",
    "ScheduleNode",
    "SetTimer",
    "SkipNode",
    "blobs",
    "fact",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleNode:
    """Start an attempt. Stated as ``node.scheduled``."""

    node: str
    """Of a node or of an item."""
    attempt: int
    input: dict[str, Any]
    """``{"ports": {port: [value…]}, "with": {…}}``."""
    key: str
    """Idempotency key of the attempt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SkipNode:
    """This node will not run. Stated as ``node.skipped``."""

    node: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelNode:
    """The run ends before this node did; an attempt that runs is killed. Stated as ``node.cancelled``."""

    node: str
    attempt: int | None
    """None when no attempt runs."""
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EndAttempt:
    """The attempt's time is up; it is killed. Stated as ``node.finished`` with status ``timed_out``."""

    node: str
    attempt: int
    error: GuestError


@dataclass(frozen=True, kw_only=True, slots=True)
class SetTimer:
    """Wake the run in ``after_ms`` milliseconds. Stated as ``timer.set``, later ``timer.fired``."""

    timer: str
    after_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishRun:
    """Nothing is left to do. Stated as ``run.finished``."""

    outcome: Literal["succeeded", "failed", "cancelled"]
    clause: str | None
    """The success clause that held."""
    outputs: dict[str, str]
    """``node.port`` -> digest of the list of its values."""
    output_digest: str
    """Digest of ``outputs``."""
    error: GuestError | None
    """Why it did not succeed; of a succeeded run, the error of a node that failed all the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpandNode:
    """A mapped node's list is there; its items may be tried. Stated as ``node.expanded``."""

    node: str
    items: int
    items_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GatherNode:
    """Every item of a mapped node came to its end. Stated as ``node.gathered``."""

    node: str
    status: Literal["succeeded", "failed"]
    items: int
    failed: int
    output_digest: str | None
    error: GuestError | None


Command = ScheduleNode | SkipNode | CancelNode | EndAttempt | SetTimer | ExpandNode | GatherNode | FinishRun


def fact(command: Command, *, now_ms: int = 0) -> Payload:  # noqa: PLR0911 - one per command
    """The event payload that states a command. ``now_ms``: unix milliseconds, for the due time of a timer."""
    match command:
        case ScheduleNode():
            given = digest(command.input)
            return NodeScheduled(
                node=command.node,
                attempt=command.attempt,
                key=command.key,
                input_digest=given,
                input_blob=given,
            )
        case SkipNode():
            return NodeSkipped(node=command.node, reason=command.reason)
        case CancelNode():
            return NodeCancelled(node=command.node, attempt=command.attempt, reason=command.reason)
        case EndAttempt():
            return NodeFinished(
                node=command.node, attempt=command.attempt, status="timed_out", error=command.error
            )
        case SetTimer():
            return TimerSet(timer=command.timer, after_ms=command.after_ms, due_ms=now_ms + command.after_ms)
        case ExpandNode():
            return NodeExpanded(node=command.node, items=command.items, items_digest=command.items_digest)
        case GatherNode():
            return NodeGathered(
                node=command.node,
                status=command.status,
                items=command.items,
                failed=command.failed,
                output_digest=command.output_digest,
                error=command.error,
            )
        case FinishRun():
            return RunFinished(
                outcome=command.outcome,
                clause=command.clause,
                outputs=command.outputs,
                output_digest=command.output_digest,
                error=command.error,
            )


def blobs(command: Command) -> list[bytes]:
    """Bytes that must be stored beside the fact: the input of a scheduled attempt."""
    return [canonical(command.input)] if isinstance(command, ScheduleNode) else []
