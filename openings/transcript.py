"""The record of one run, indexed once: what each attempt was answered, and what it said.

Knows: which events belong to which attempt. Does not know: whether they are right (``openings.comparers``)
or what the engine made of them (``openings.replay``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from openings.certificate import Divergence, DivergenceCode
from runloop.events import Event, HostcallDelivered, MessagePosted, MessageSent

__all__ = ["AttemptRecord", "Key", "Transcript", "match", "recorded_calls"]

Key = tuple[str, int]
"""``(node, attempt)``."""


@dataclass(slots=True)
class AttemptRecord:
    """What one attempt left behind, apart from its beginning and its end."""

    answers: dict[int, Event] = field(default_factory=dict)
    """Call -> the first ``hostcall.delivered`` of it."""
    frames: list[Event] = field(default_factory=list)
    """``message.sent``, in order: requests and responses."""
    posts: list[Event] = field(default_factory=list)
    """``message.posted``, in order."""

    def calls(self) -> tuple[Event, ...]:
        """The answers by index, contiguous from 0, cut at the first gap."""
        contiguous: list[Event] = []
        while (following := self.answers.get(len(contiguous))) is not None:
            contiguous.append(following)
        return tuple(contiguous)


class Transcript:
    """Every attempt's record, by node and attempt: one walk over the events."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._attempts: dict[Key, AttemptRecord] = {}
        self.has_frames = False
        """Whether any frame was recorded at all: a record without them was made by no daemon."""
        for event in events:
            self._take(event)

    def of(self, node: str, attempt: int) -> AttemptRecord:
        """The record of one attempt; an empty one when it left nothing."""
        return self._attempts.get((node, attempt)) or AttemptRecord()

    def _take(self, event: Event) -> None:
        payload = event.payload
        if isinstance(payload, HostcallDelivered):
            self._open(payload.node, payload.attempt).answers.setdefault(payload.call, event)
        elif isinstance(payload, MessagePosted):
            self._open(payload.node, payload.attempt).posts.append(event)
        elif isinstance(payload, MessageSent) and payload.node is not None and payload.attempt is not None:
            self.has_frames = True
            self._open(payload.node, payload.attempt).frames.append(event)

    def _open(self, node: str, attempt: int) -> AttemptRecord:
        return self._attempts.setdefault((node, attempt), AttemptRecord())


def recorded_calls(events: Iterable[Event], node: str, attempt: int) -> tuple[HostcallDelivered, ...]:
    """The delivered host calls of one attempt by index, contiguous from 0, cut at the first gap."""
    found = Transcript(events).of(node, attempt).calls()
    return tuple(event.payload for event in found if isinstance(event.payload, HostcallDelivered))


def match(
    recorded: Sequence[HostcallDelivered], index: int, op: str, args_digest: str, fuel: int | None = None
) -> HostcallDelivered | Divergence:
    """The recorded answer to a host call, or how the call differs. ``fuel`` None: not compared."""
    if index >= len(recorded):
        what = f"host call {index} ({op}) is not in the record"
        return _at_call(index, "replay.missing", what, "", args_digest)
    call = recorded[index]
    if call.op != op:
        what = f"host call {index} is {op}, the record has {call.op}"
        return _at_call(index, "replay.arguments", what, call.op, op)
    if call.args_digest != args_digest:
        what = f"host call {index} ({op}) has other arguments than the record"
        return _at_call(index, "replay.arguments", what, call.args_digest, args_digest)
    if fuel is not None and call.fuel != fuel:
        what = f"the guest burnt {fuel} fuel before host call {index}, the record has {call.fuel}"
        return _at_call(index, "replay.result", what, str(call.fuel), str(fuel))
    return call


def _at_call(index: int, code: DivergenceCode, what: str, expected: str, actual: str) -> Divergence:
    return Divergence(
        code=code, where=f"call {index}", what=what, expected=expected, actual=actual, call=index
    )
