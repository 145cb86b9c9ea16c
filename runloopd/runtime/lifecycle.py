"""The life of a guest instance: the only legal moves (spec/capabilities.md), as data.

Knows: states, triggers and the table. Does not know: who stores a transition or what makes one happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from runloop.errors import FailedError

__all__ = ["MOVES", "LifecycleError", "State", "Trigger", "move"]


class State(StrEnum):
    """Where an instance is in its life."""

    DEFINED = "DEFINED"
    SPAWNED = "SPAWNED"
    ACTIVE = "ACTIVE"
    WAITING = "WAITING"
    RESUMABLE = "RESUMABLE"
    COMPLETING = "COMPLETING"
    FAULTED = "FAULTED"
    RECOVERING = "RECOVERING"
    TERMINATED = "TERMINATED"


class Trigger(StrEnum):
    """What moves it on."""

    SPAWN = "spawn"
    ACTIVATE = "activate"
    YIELD = "yield"
    AWAIT_TOOL = "await_tool"
    COMPLETE = "complete"
    ERROR = "error"
    SUSPEND = "suspend"
    RESUME = "resume"
    TIMEOUT = "timeout"
    EXPIRE = "expire"
    TEARDOWN_OK = "teardown_ok"
    RECOVER = "recover"
    ABANDON = "abandon"
    RECOVERY_SUCCESS = "recovery_success"
    RECOVERY_EXHAUSTED = "recovery_exhausted"
    BREACH = "breach"


_TABLE: dict[tuple[State, Trigger], State] = {
    (State.DEFINED, Trigger.SPAWN): State.SPAWNED,
    (State.SPAWNED, Trigger.ACTIVATE): State.ACTIVE,
    (State.ACTIVE, Trigger.YIELD): State.WAITING,
    (State.ACTIVE, Trigger.AWAIT_TOOL): State.WAITING,
    (State.ACTIVE, Trigger.COMPLETE): State.COMPLETING,
    (State.ACTIVE, Trigger.ERROR): State.FAULTED,
    (State.ACTIVE, Trigger.SUSPEND): State.RESUMABLE,
    (State.WAITING, Trigger.RESUME): State.ACTIVE,
    (State.WAITING, Trigger.TIMEOUT): State.FAULTED,
    (State.WAITING, Trigger.ERROR): State.FAULTED,
    (State.RESUMABLE, Trigger.RESUME): State.ACTIVE,
    (State.RESUMABLE, Trigger.EXPIRE): State.TERMINATED,
    (State.COMPLETING, Trigger.TEARDOWN_OK): State.TERMINATED,
    (State.COMPLETING, Trigger.ERROR): State.FAULTED,
    (State.FAULTED, Trigger.RECOVER): State.RECOVERING,
    (State.FAULTED, Trigger.ABANDON): State.TERMINATED,
    (State.RECOVERING, Trigger.RECOVERY_SUCCESS): State.ACTIVE,
    (State.RECOVERING, Trigger.RECOVERY_EXHAUSTED): State.TERMINATED,
    # "any live state -breach-> TERMINATED": DEFINED has no instance yet, TERMINATED has none any more.
    **{
        (state, Trigger.BREACH): State.TERMINATED
        for state in State
        if state not in (State.DEFINED, State.TERMINATED)
    },
}
MOVES: Mapping[tuple[State, Trigger], State] = MappingProxyType(_TABLE)
"""Every legal move; anything else is a :class:`LifecycleError`."""


class LifecycleError(FailedError):
    """Somebody tried to move an instance in a way the table does not know."""

    code = "lifecycle.move"

    def __init__(self, state: State, trigger: Trigger) -> None:
        legal = sorted(t.value for s, t in MOVES if s is state)
        super().__init__(
            f"an instance that is {state.value} cannot {trigger.value}",
            hint=f"legal from here: {', '.join(legal) or 'nothing'}",
        )
        self.state, self.trigger = state, trigger


def move(state: State, trigger: Trigger) -> State:
    """Return the state after ``trigger``; raise :class:`LifecycleError` for an illegal move. Pure."""
    after = MOVES.get((state, trigger))
    if after is None:
        raise LifecycleError(state, trigger)
    return after
