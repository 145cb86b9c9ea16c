"""What was promised: a fold of ``promise.*``, the same live and after a restart.

Knows: the states of a promise and the legal moves, who may keep it, what may be said. Does not know: time,
waiting, or how a fact is stated (``runloopd.broker.promises``). Values stay in the ledger: a fold over many
promises holds their shape only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast

from pog.errors import PromiseError
from runloop.digest import canonical
from runloop.errors import RefusedError, UsageError
from runloop.events import Event, PromiseCreated, PromiseResolved, PromiseTimedOut

__all__ = [
    "MAX_VALUE_BYTES",
    "Promise",
    "State",
    "check_open",
    "check_question",
    "check_value",
    "fold",
]

State = Literal["open", "resolved", "timed_out"]

MAX_VALUE_BYTES = 256 * 1024
MAX_QUESTION_CHARS = 4_000
MAX_CHOICES = 32
MAX_CHOICE_CHARS = 200
MAX_TIMEOUT_MS = 366 * 86_400_000


@dataclass(kw_only=True, slots=True)
class Promise:
    """One promise. ``open`` moves to ``resolved`` or ``timed_out``, once; there is no way back."""

    id: str
    run: str | None
    node: str
    agent: str
    """Who made it."""
    resolver: Literal["run", "operator"]
    question: str
    choices: tuple[str, ...]
    created_ms: int
    expires_ms: int
    created: int
    """Ledger id of its ``promise.created``."""
    state: State = "open"
    settled: int | None = None
    """Ledger id of the event that ended it."""
    reason: str = ""
    """Why it timed out: deadline, run_over."""

    def to_json(self) -> dict[str, Any]:
        """As people and programs see it."""
        return {
            "promise": self.id,
            "run": self.run,
            "node": self.node,
            "agent": self.agent,
            "resolver": self.resolver,
            "question": self.question,
            "choices": list(self.choices),
            "state": self.state,
            "created_ms": self.created_ms,
            "expires_ms": self.expires_ms,
            "created_event": self.created,
            "settled_event": self.settled,
            "reason": self.reason,
        }


def fold(promises: dict[str, Promise], events: Iterable[Event]) -> list[Promise]:
    """Take committed events in, in order; return the promises that moved. The first word counts."""
    moved: list[Promise] = []
    for event in events:
        if event.kind == PromiseCreated.kind:
            made = _made(event)
            moved.append(promises.setdefault(made.id, made))
        elif event.kind in (PromiseResolved.kind, PromiseTimedOut.kind):
            said = cast(PromiseResolved | PromiseTimedOut, event.payload)
            promise = promises.get(said.promise)
            if promise is None or promise.state != "open":
                continue
            promise.state = "resolved" if isinstance(said, PromiseResolved) else "timed_out"
            promise.settled = event.id
            promise.reason = said.reason if isinstance(said, PromiseTimedOut) else ""
            moved.append(promise)
    return moved


def check_question(question: str, choices: list[str], timeout_ms: int) -> None:
    """Raise :class:`UsageError` for what cannot be asked."""
    if len(question) > MAX_QUESTION_CHARS:
        raise UsageError(f"the question has more than {MAX_QUESTION_CHARS} characters", code="op.args")
    if len(choices) > MAX_CHOICES or any(not 0 < len(choice) <= MAX_CHOICE_CHARS for choice in choices):
        raise UsageError(
            f"the choices are at most {MAX_CHOICES} texts of 1 to {MAX_CHOICE_CHARS} characters",
            code="op.args",
        )
    if not 1 <= timeout_ms <= MAX_TIMEOUT_MS:
        raise UsageError(f"timeout_ms is {timeout_ms}, not 1 to {MAX_TIMEOUT_MS}", code="op.args")


def check_value(promise: Promise, value: Any) -> None:
    """Raise :class:`UsageError` or :class:`RefusedError` for what cannot be said."""
    size = len(canonical(value))
    if size > MAX_VALUE_BYTES:
        raise UsageError(
            f"the value has {size} bytes, more than {MAX_VALUE_BYTES}",
            hint="keep it in an artifact and say its digest",
            code="promise.size",
        )
    if promise.choices and value not in promise.choices:
        raise RefusedError(
            f"promise {promise.id} takes one of its choices only",
            hint=f"one of: {', '.join(promise.choices)}",
            code="promise.choice",
        )


def check_open(promise: Promise, *, held: bool, now_ms: int) -> None:
    """Raise :class:`PromiseError` unless somebody may resolve it now."""
    if promise.state == "timed_out" or (promise.state == "open" and now_ms >= promise.expires_ms):
        raise PromiseError(
            f"promise {promise.id} has timed out",
            hint="'rlp promises' lists what waits",
            code="promise.timed_out",
        )
    if promise.state == "resolved" or held:
        raise PromiseError(
            f"promise {promise.id} is {'being resolved' if held else 'resolved'} by somebody else",
            hint="a promise is resolved once; await it to hear what was said",
            code="promise.resolved",
        )


def _made(event: Event) -> Promise:
    made = cast(PromiseCreated, event.payload)
    return Promise(
        id=made.promise,
        run=event.run,
        node=made.node,
        agent=made.agent,
        resolver=made.resolver,
        question=made.question,
        choices=tuple(made.choices),
        created_ms=event.ts_ms,
        expires_ms=made.expires_ms,
        created=event.id,
    )
