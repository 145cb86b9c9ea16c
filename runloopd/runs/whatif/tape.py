"""One recorded run, as a what-if needs it: its answers, and when and by whom what was stated.

Knows: how to find in a record the time of a fact, the audits and grants of a call, what people decided, and
the call an event came of. Does not know: how the run is driven again (``simulator``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from openings.engine import fold
from openings.state import RunState, base
from runloop.caps.policy import CapsError, Policy
from runloop.errors import NotFoundError
from runloop.events import (
    ActionDecided,
    ActionRequested,
    AgentPin,
    CapAudit,
    Event,
    HostcallDelivered,
    MessagePosted,
    Payload,
    RunCancelRequested,
    RunFinished,
    RunResumed,
    RunStarted,
    TimerFired,
    TimerSet,
    TokenIssued,
)
from runloopd.broker.hindsight import World
from runloopd.runs.recorded import RecordedAnswer, RecordedAnswers

__all__ = ["AFTER", "Call", "Moment", "Tape", "about"]

Call = tuple[str, int, int]
"""Node, attempt, number of the call."""
Moment = tuple[int, int]
"""Unix milliseconds, and ledger id: the order in which a record states its facts."""
AFTER = 2**62
"""In the place of the id, of what is not on record: it comes after all that is."""


def about(payload: Payload) -> tuple[Any, ...]:
    """What a fact of the engine is about; a run states each of them once."""
    return (
        payload.kind,
        getattr(payload, "node", None),
        getattr(payload, "attempt", None),
        getattr(payload, "timer", None),
    )


class Tape:
    """A recorded run. Never changes."""

    def __init__(self, events: Sequence[Event], blob: Callable[[str], bytes]) -> None:
        """Raises :class:`NotFoundError` where there are none."""
        if not events or not isinstance(events[0].payload, RunStarted):
            raise NotFoundError("there is no such run", hint="'rlp runs' lists them", code="run.absent")
        self.events = events
        self.blob = blob
        self.answers = RecordedAnswers(events, blob)
        self.started = events[0]
        self.run = events[0].run or ""
        self.moments: dict[tuple[Any, ...], Moment] = {}
        """Fact -> when it was stated."""
        self.asides: list[Event] = []
        """What came from outside and concerns no attempt: cancelling, restarts."""
        self.people: dict[tuple[str, int], list[tuple[int, Event]]] = {}
        """Attempt -> the calls that asked a person, with question and decision, in order."""
        self.origins: dict[int, Call] = {}
        """Event -> the call it came of."""
        self._audits: dict[Call, list[CapAudit]] = {}
        self._posted: dict[Call, MessagePosted] = {}
        self._grants: dict[str, dict[str, Any]] = {}
        self._unfired: set[str] = set()
        self._by_id = {event.id: event for event in events}
        self.finished: RunFinished | None = None
        asked: dict[str, tuple[str, int, int]] = {}
        for event in events:
            self._take(event, asked)

    def _take(self, event: Event, asked: dict[str, Call]) -> None:
        payload, where = event.payload, event.provenance
        self.moments.setdefault(about(payload), (event.ts_ms, event.id))
        if where.node is not None and where.attempt is not None and where.call is not None:
            self.origins[event.id] = (where.node, where.attempt, where.call)
        self._take_call(event)
        if isinstance(payload, ActionRequested):
            asked[payload.approval] = (payload.node, payload.attempt, payload.call)
            self.people.setdefault((payload.node, payload.attempt), []).append((payload.call, event))
        elif isinstance(payload, ActionDecided):
            if (place_ := asked.get(payload.approval)) is not None:
                self.people[place_[:2]].append((place_[2], event))
        elif isinstance(payload, RunCancelRequested | RunResumed):
            self.asides.append(event)
        elif isinstance(payload, TimerSet):
            self._unfired.add(payload.timer)
        elif isinstance(payload, TimerFired):
            self._unfired.discard(payload.timer)
        elif isinstance(payload, RunFinished):
            self.finished = payload

    def _take_call(self, event: Event) -> None:
        """What was stated with a call, or about one."""
        payload = event.payload
        if isinstance(payload, CapAudit):
            if payload.node is not None and payload.attempt is not None and payload.call is not None:
                place = (payload.node, payload.attempt, payload.call)
                self._audits.setdefault(place, []).append(payload)
        elif isinstance(payload, MessagePosted):
            if event.id in self.origins:
                self._posted[self.origins[event.id]] = payload
        elif isinstance(payload, TokenIssued):
            self._grants[payload.token] = payload.grants

    @property
    def begun(self) -> RunStarted:
        """How it began."""
        assert isinstance(self.started.payload, RunStarted)
        return self.started.payload

    def pin(self, node: str) -> AgentPin | None:
        """The agent that serves a node, or an item of one."""
        return self.begun.agents.get(base(node))

    @property
    def denied(self) -> frozenset[str]:
        """Capabilities that it went without as a fork, whatever its agents have."""
        fork = self.begun.fork
        deny = [] if fork is None else fork.changes.get("deny", [])
        return frozenset(deny if isinstance(deny, list) else ())

    def state(self) -> RunState:
        """Where the run stood at the end of its record."""
        return fold(self.events)

    def event(self, name: int) -> Event:
        """One of its events, by ledger id."""
        return self._by_id[name]

    def never_fired(self, timer: str) -> bool:
        """Whether a timer was set, and the run ended without it."""
        return timer in self._unfired

    @property
    def end_ms(self) -> int:
        """Unix milliseconds of the last event."""
        return self.events[-1].ts_ms

    def calls(self) -> Iterator[RecordedAnswer]:
        """Every answer of the run, in the order they were given."""
        for event in self.events:
            if isinstance(event.payload, HostcallDelivered):
                yield RecordedAnswer(event=event)

    def alike(self, node: str, op: str, args_digest: str) -> HostcallDelivered | None:
        """The first answer that a node was given to this very question."""
        for answer in self.answers.of_node(node):
            if (answer.call.op, answer.call.args_digest) == (op, args_digest):
                return answer.call
        return None

    def refusal(self, answer: RecordedAnswer) -> CapAudit | None:
        """The denial a call met; None for one that was let in."""
        call = answer.call
        if call.ok:
            return None
        audits = self._audits.get((call.node, call.attempt, call.call), ())
        return next((audit for audit in audits if audit.decision == "denied"), None)

    def world(self, answer: RecordedAnswer) -> World:
        """What is on record of a call, for judging it again."""
        call = answer.call
        place = (call.node, call.attempt, call.call)
        audits = self._audits.get(place, ())
        post = self._posted.get(place)
        return World(
            ok=call.ok,
            value=self.answers.value(answer),
            hops=[a.target for a in audits if a.decision == "allowed" and a.capability == "net"],
            to=None if post is None else post.to,
            grants=self._held(answer.event.provenance.token),
        )

    def args(self, call: HostcallDelivered) -> Any:
        """The arguments of a call, decoded."""
        return msgspec.json.decode(self.blob(call.args_blob))

    def _held(self, token: str | None) -> Policy | None:
        grants = None if token is None else self._grants.get(token)
        try:
            return None if grants is None else Policy.from_json(grants)
        except CapsError:
            return None
