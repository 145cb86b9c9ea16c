"""What a failed attempt means: try the same again, give up, or believe nothing any more.

Knows: which end of an attempt belongs to which class, how often a crash is recovered from, what counts
against an agent. Does not know: how a worker is started again (``supervisor``), how often an opening retries
a node (``openings.engine``), who is kept from running (``quarantine``).

A policy's denial is in no class, because it ends nothing: the guest hears ``err`` and stays ACTIVE.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "BREACH",
    "CRASHED",
    "FLAPPING",
    "KILLED",
    "MAX_RECOVERIES",
    "NO_WORKER",
    "OOM",
    "RESERVED",
    "RESTARTED",
    "RETRYABLE",
    "FailureClass",
    "failure_class",
]

MAX_RECOVERIES = 3
"""How often one attempt is executed again after its worker was lost."""

BREACH = "guest.breach"
"""The worker spoke out of turn, lied about its fuel or made a forbidden system call."""
CRASHED = "guest.crashed"
"""The worker died, or ended without a result: the engine, the kernel or somebody's signal."""
KILLED = "guest.killed"
"""The operator ended the attempt; whether it is made again is the opening's own matter."""
RESTARTED = "guest.restarted"
"""The operator ended the worker, for the attempt to go on in another one: the end of no attempt."""
NO_WORKER = "guest.no_worker"
"""Nothing of the guest was ever executed: there was no process, or it could not be sandboxed."""
OOM = "guest.oom"
"""The kernel ended the worker for want of memory: the control group of its run was full, or its own."""


class FailureClass(StrEnum):
    """What follows from the end of an attempt."""

    TRANSIENT = "transient"
    """Not the guest's doing. It is executed again from its record (the answers so far are remembered), at
    most :data:`MAX_RECOVERIES` times; then the opening's own retry decides."""
    PERMANENT = "permanent"
    """The guest's doing, with these inputs and answers: FAULTED, and the run is told."""
    BREACH = "breach"
    """An invariant is broken: TERMINATED, its token and all that was narrowed from it are revoked."""


def failure_class(code: str) -> FailureClass:
    """The class of an end that the runtime stated as ``code``; what a guest says of itself is permanent."""
    if code == BREACH:
        return FailureClass.BREACH
    return FailureClass.TRANSIENT if code in (CRASHED, RESTARTED) else FailureClass.PERMANENT


RETRYABLE = frozenset({"guest.deadline", CRASHED, KILLED, NO_WORKER, OOM})
"""Ends after which another attempt of the node may fare better: the clock, the machine or a person had their
part."""

RESERVED = frozenset(
    {
        "agent.quarantined",
        "guest.deadline",
        "guest.fuel",
        "guest.memory",
        "guest.output",
        "guest.trap",
        "quota.exceeded",
        BREACH,
        CRASHED,
        KILLED,
        NO_WORKER,
        OOM,
        RESTARTED,
    }
)
"""Codes that only the host states; a guest that claims one is recorded as ``guest.error``."""

FLAPPING = frozenset({"guest.fuel", "guest.memory", "guest.trap", BREACH, CRASHED})
"""Ends that count against an agent. Not the deadline: on a busy machine it would meet the innocent. Nor want
of memory, where the largest of a run is ended for all of it."""
