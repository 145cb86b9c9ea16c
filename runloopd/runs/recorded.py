"""The answers of one run's record, for another execution of the same opening: a fork, a what-if.

Two ways to find one. While a guest is *in step* with the record, by its place: node, attempt, number of the
call, and then op and arguments must agree. Once it has left the step, by what it asks: node, op and digest of
the arguments, the next recorded answer that was not heard yet. An effect that the record has at all is found
by its identity as well, as the gate finds it in a later attempt: it is known however often it is asked for.

Plain events and a way to read bytes in, answers out. Knows nothing of gates, cones or the daemon; whoever
asks decides what becomes of a call that the record does not know.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from openings.replay import Divergence, match
from openings.state import base
from openings.transcript import AttemptRecord, Key
from runloop.errors import UsageError
from runloop.events import (
    ArtifactCreated,
    Event,
    HostcallAdmitted,
    HostcallDelivered,
    MessagePosted,
    NodeCancelled,
    NodeFinished,
    NodeGathered,
    NodeScheduled,
    NodeSkipped,
    PromiseResolved,
    PromiseTimedOut,
    RunFinished,
    RunStarted,
)

__all__ = ["Hearing", "RecordedAnswer", "RecordedAnswers"]

Ended = NodeFinished | NodeCancelled
COMPANIONS = (ArtifactCreated, MessagePosted)
"""Facts that were stated with an answer and that a run's own folds live on: its artifacts, its talk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedAnswer:
    """One answer of the record."""

    event: Event
    """Its ``hostcall.delivered``."""
    companions: tuple[Event, ...] = ()
    """What was stated with it, see :data:`COMPANIONS`."""

    @property
    def call(self) -> HostcallDelivered:
        """The answer as it was stated."""
        assert isinstance(self.event.payload, HostcallDelivered)
        return self.event.payload


class RecordedAnswers:
    """The record of one run, ready to be heard. Never changes."""

    def __init__(self, events: Iterable[Event], blob: Callable[[str], bytes]) -> None:
        """``events``: those of the run, in ledger order; what comes after a moment may be left out.

        No event at all is the record of a run that never was: it has no answer. Raises :class:`UsageError`
        when others do not begin with ``run.started``.
        """
        self._blob = blob
        self._calls: dict[Key, AttemptRecord] = {}
        self._companions: dict[tuple[str, int, int], list[Event]] = {}
        self._effects: dict[tuple[str, str, int, str], Event] = {}
        self._scheduled: dict[Key, Event] = {}
        self._last: dict[str, int] = {}
        """Node -> its last attempt."""
        self._attempts: dict[str, list[int]] = {}
        """Node -> its attempts that made a call."""
        self._names: dict[str, list[str]] = {}
        """Declared node -> it, or its items, as far as they made a call."""
        self._ended: dict[Key, Ended] = {}
        self._closed: set[str] = set()
        self._cut: set[str] = set()
        self._lost: set[str] = set()
        """Mapped nodes that failed as a whole."""
        self.is_finished = False
        """Whether the run came to its end."""
        self._begun: dict[tuple[str, int, int], HostcallAdmitted] = {}
        self._settled: set[str] = set()
        self._ordinals: dict[Key, Counter[tuple[str, str]]] = {}
        self._started: Event | None = None
        for event in events:
            self._take(event)
        if self._started is None and (self._calls or self._scheduled):
            raise UsageError("a record begins with run.started", code="record.start")

    def _take(self, event: Event) -> None:
        payload = event.payload
        if isinstance(payload, RunStarted):
            self._started = self._started or event
        elif isinstance(payload, HostcallDelivered):
            self._take_call(event, payload)
        elif isinstance(payload, HostcallAdmitted):
            self._begun[payload.node, payload.attempt, payload.call] = payload
        elif isinstance(payload, NodeScheduled):
            self._scheduled[payload.node, payload.attempt] = event
            self._last[payload.node] = max(payload.attempt, self.last_attempt(payload.node))
        elif isinstance(payload, NodeFinished | NodeCancelled):
            self._ended.setdefault((payload.node, payload.attempt or 0), payload)
            if isinstance(payload, NodeCancelled):
                self._cut.add(payload.node)
        elif isinstance(payload, NodeSkipped | NodeGathered):
            self._closed.add(payload.node)
            if isinstance(payload, NodeGathered) and payload.status == "failed":
                self._lost.add(payload.node)
        elif isinstance(payload, RunFinished):
            self.is_finished = True
        elif isinstance(payload, PromiseResolved) or (
            isinstance(payload, PromiseTimedOut) and payload.reason == "deadline"
        ):
            self._settled.add(payload.promise)
        elif isinstance(payload, COMPANIONS):
            where = event.provenance
            if where.node is not None and where.attempt is not None and where.call is not None:
                self._companions.setdefault((where.node, where.attempt, where.call), []).append(event)

    def _take_call(self, event: Event, call: HostcallDelivered) -> None:
        key = (call.node, call.attempt)
        if key not in self._calls:
            self._calls[key] = AttemptRecord()
            if call.node not in self._attempts:
                self._names.setdefault(base(call.node), []).append(call.node)
            self._attempts.setdefault(call.node, []).append(call.attempt)
        answers = self._calls[key].answers
        if call.call in answers:
            return
        answers[call.call] = event
        self._begun.pop((call.node, call.attempt, call.call), None)
        alike = self._ordinals.setdefault(key, Counter())
        ordinal = alike[call.op, call.args_digest]
        alike[call.op, call.args_digest] += 1
        if call.effect not in ("pure", "read") and call.ok:
            self._effects[call.node, call.op, ordinal, call.args_digest] = event

    # --- what there is ----------------------------------------------------------------------------

    @property
    def run(self) -> str:
        """Id of the recorded run; empty for one that never was."""
        return "" if self._started is None else self._started.run or ""

    @property
    def started(self) -> RunStarted:
        """How it began."""
        assert self._started is not None
        assert isinstance(self._started.payload, RunStarted)
        return self._started.payload

    def scheduled(self, node: str, attempt: int) -> Event | None:
        """The attempt's ``node.scheduled``; None when the record has no such attempt."""
        return self._scheduled.get((node, attempt))

    def ended(self, node: str, attempt: int) -> Ended | None:
        """How the attempt ended; None when the record does not say."""
        return self._ended.get((node, attempt))

    def is_closed(self, node: str) -> bool:
        """Whether the record says how the node ended by itself. One that was cut off, that goes on or was
        never reached is open: the record stops there."""
        if node in self._cut:
            return False
        if node in self._closed:
            return True
        last = self._ended.get((node, self.last_attempt(node)))
        if not isinstance(last, NodeFinished):
            return False
        return last.status == "succeeded" or self.is_finished

    def is_lost(self, node: str) -> bool:
        """Whether the node failed, or was cut off."""
        last = self._ended.get((node, self.last_attempt(node)))
        failed = isinstance(last, NodeFinished) and last.status != "succeeded"
        return failed or node in self._lost or node in self._cut

    def calls(self, node: str, attempt: int) -> tuple[RecordedAnswer, ...]:
        """The answers of one attempt by number, contiguous from 0, cut at the first gap."""
        made = self._calls.get((node, attempt))
        return () if made is None else tuple(map(self._answer, made.calls()))

    def of_node(self, node: str) -> tuple[RecordedAnswer, ...]:
        """Every answer to a node, attempt by attempt, in the order of the calls."""
        return tuple(
            self._answer(event)
            for attempt in sorted(self._attempts.get(node, ()))
            for _, event in sorted(self._calls[node, attempt].answers.items())
        )

    def of_whole_node(self, node: str) -> tuple[RecordedAnswer, ...]:
        """Every answer to a node and, of a mapped one, to its items."""
        return tuple(answer for name in self._names.get(node, ()) for answer in self.of_node(name))

    def answers(self) -> Iterator[RecordedAnswer]:
        """Every answer there is."""
        for made in self._calls.values():
            yield from map(self._answer, made.answers.values())

    def attempts(self, node: str) -> tuple[Key, ...]:
        """Every attempt of a declared node: itself, or its items."""
        return tuple(key for key in self._scheduled if base(key[0]) == node)

    def last_attempt(self, node: str) -> int:
        """Number of the node's last attempt on record; 0 when there is none."""
        return self._last.get(node, 0)

    def keeps_promises(self, node: str) -> bool:
        """Whether every promise that the node made was kept, or its time ran out: one that was not is known
        to the recorded run only, and nobody else can wait for it."""
        made = (a for a in self.of_node(node) if a.call.op == "promise.create" and a.call.ok)
        return all(self.value(answer).get("promise") in self._settled for answer in made)

    def effect(self, node: str, op: str, ordinal: int, args_digest: str) -> RecordedAnswer | None:
        """The answer to an effect that was made: ``ordinal`` counts the calls alike in its attempt."""
        event = self._effects.get((node, op, ordinal, args_digest))
        return None if event is None else self._answer(event)

    def begun(self, node: str, op: str, args_digest: str) -> HostcallAdmitted | None:
        """An effect that was begun and whose end is not on record: nobody knows whether it happened."""
        for mark in self._begun.values():
            if (mark.node, mark.op, mark.args_digest) == (node, op, args_digest):
                return mark
        return None

    def sends(self, node: str, op: str, args_digest: str) -> bool:
        """Whether such a call is on record as one that left the machine, or was begun to."""
        mark = self.begun(node, op, args_digest)
        if mark is not None:
            return mark.effect == "send"
        found = (e for (n, o, _, a), e in self._effects.items() if (n, o, a) == (node, op, args_digest))
        return any(isinstance(e.payload, HostcallDelivered) and e.payload.effect == "send" for e in found)

    def value(self, answer: RecordedAnswer) -> Any:
        """What the guest was given: a result, or an error object."""
        return msgspec.json.decode(self._blob(answer.call.result_blob))

    def hearing(self, node: str, attempt: int, before: Iterable[HostcallDelivered] = ()) -> Hearing:
        """Hear the record as this attempt. ``before``: what the node was answered already in the execution
        that hears, all attempts, in order."""
        return Hearing(self, node, attempt, before)

    def _answer(self, event: Event) -> RecordedAnswer:
        call = event.payload
        assert isinstance(call, HostcallDelivered)
        companions = self._companions.get((call.node, call.attempt, call.call), ())
        return RecordedAnswer(event=event, companions=tuple(companions))


class Hearing:
    """One attempt that hears a record, call by call. Equal calls in equal order hear the same."""

    def __init__(
        self, record: RecordedAnswers, node: str, attempt: int, before: Iterable[HostcallDelivered]
    ) -> None:
        self._record = record
        self._node = node
        self._strict = record.calls(node, attempt)
        self._strict_calls = tuple(answer.call for answer in self._strict)
        self._loose: dict[tuple[str, str], deque[RecordedAnswer]] = {}
        """Op and digest of the arguments -> answers to the node, in the order they were given."""
        for answer in record.of_node(node):
            self._loose.setdefault((answer.call.op, answer.call.args_digest), deque()).append(answer)
        self._heard: set[int] = set()
        """Ledger ids of answers that were heard."""
        self._alike: Counter[tuple[str, str]] = Counter()
        self.in_step = True
        """Whether every call so far was the recorded one, at its place."""
        self._catch_up(attempt, before)

    def _catch_up(self, attempt: int, before: Iterable[HostcallDelivered]) -> None:
        others: dict[int, Hearing] = {}
        for call in before:
            of = self if call.attempt == attempt else others.get(call.attempt)
            if of is None:
                of = others[call.attempt] = Hearing(self._record, self._node, call.attempt, ())
                of._heard = self._heard  # an answer is heard once, by whichever attempt
            if call.recorded_in is None:
                of.passed(call.call, call.op, call.args_digest)
            else:
                of.hear(call.call, call.op, call.args_digest)

    def strictly(
        self, index: int, op: str, args_digest: str, fuel: int | None = None
    ) -> RecordedAnswer | Divergence:
        """The answer at this very place, or how the call differs. ``fuel`` None: not compared."""
        found = match(self._strict_calls, index, op, args_digest, fuel)
        if isinstance(found, Divergence):
            self.in_step = False
            return found
        return self._take(self._strict[index])

    def hear(self, index: int, op: str, args_digest: str) -> RecordedAnswer | None:
        """The record's answer to a call, or None when it has none (left): then tell of it with
        :meth:`passed`."""
        if self._is_next(index, op, args_digest):
            return self._take(self._strict[index])
        left = self._loose.get((op, args_digest), ())
        while left and left[0].event.id in self._heard:
            left.popleft()
        found = left[0] if left else self._effect(op, args_digest)
        if found is None:
            return None
        self.in_step = False
        return self._take(found)

    def effect(self, index: int, op: str, args_digest: str) -> RecordedAnswer | None:
        """The answer to the effect that this call would be, if the record has that it was made: also when
        nothing else is to be heard from it. None: tell of it with :meth:`passed`."""
        found = self._effect(op, args_digest)
        if found is None:
            return None
        self.in_step = self._is_next(index, op, args_digest)
        return self._take(found)

    def passed(self, index: int, op: str, args_digest: str) -> None:
        """This call was answered by somebody else. Where it is the recorded one, the guest stays in step, and
        the recorded answer is heard by nobody."""
        if self._is_next(index, op, args_digest):
            self._heard.add(self._strict[index].event.id)
        else:
            self.in_step = False
        self._alike[op, args_digest] += 1

    def _effect(self, op: str, args_digest: str) -> RecordedAnswer | None:
        return self._record.effect(self._node, op, self._alike[op, args_digest], args_digest)

    def _is_next(self, index: int, op: str, args_digest: str) -> bool:
        if not self.in_step or index >= len(self._strict_calls):
            return False
        call = self._strict_calls[index]
        return (call.op, call.args_digest) == (op, args_digest)

    def _take(self, answer: RecordedAnswer) -> RecordedAnswer:
        self._heard.add(answer.event.id)
        self._alike[answer.call.op, answer.call.args_digest] += 1
        return answer
