"""Answers from the record: what makes recovery and replay the same execution as the live run.

A guest is a pure function of its input and of the answers to its host calls. Fed with the recorded
answers it arrives at the same point, burns the same fuel, asks the same next question. Recovery then
goes on live; replay stops there. Knows nothing of effects: a replay holds no gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import msgspec

from runloop.errors import DivergenceError
from runloop.events import Event, HostcallDelivered
from runloopd.broker.calls import Answer, Answerer, HostCall

__all__ = ["Mismatch", "RecordedAnswerer", "ResumingAnswerer", "recorded_calls"]


def recorded_calls(events: Iterable[Event], node: str, attempt: int) -> list[HostcallDelivered]:
    """The delivered host calls of one attempt, by index: contiguous from 0, or cut at the first gap."""
    delivered: dict[int, HostcallDelivered] = {}
    for event in events:
        if event.kind == HostcallDelivered.kind:
            call = cast(HostcallDelivered, event.payload)
            if call.node == node and call.attempt == attempt:
                delivered.setdefault(call.call, call)
    calls: list[HostcallDelivered] = []
    while (following := delivered.get(len(calls))) is not None:
        calls.append(following)
    return calls


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """The first place where an execution left its record."""

    code: str
    """``replay.missing``, ``replay.arguments`` or ``replay.result`` (spec/openings.md)."""
    call: int
    what: str
    expected: str
    actual: str


class RecordedAnswerer:
    """Serves recorded answers only; the first thing that is not in the record is kept as ``mismatch``."""

    def __init__(self, calls: Sequence[HostcallDelivered], blob: Callable[[str], bytes]) -> None:
        self._calls = calls
        self._blob = blob
        self.served = 0
        self.mismatch: Mismatch | None = None

    async def answer(self, call: HostCall) -> Answer:
        if self.mismatch is None:
            self.mismatch = self._compare(call)
        if self.mismatch is not None:
            return Answer.refusal(DivergenceError(self.mismatch.what, code=self.mismatch.code))
        recorded = self._calls[call.index]
        self.served += 1
        return Answer(ok=recorded.ok, value=msgspec.json.decode(self._blob(recorded.result_blob)))

    def _compare(self, call: HostCall) -> Mismatch | None:
        if call.index >= len(self._calls):
            return Mismatch(
                code="replay.missing",
                call=call.index,
                what=f"host call {call.index} ({call.op}) is not in the record",
                expected="",
                actual=call.args_digest,
            )
        recorded = self._calls[call.index]
        if recorded.op != call.op:
            return Mismatch(
                code="replay.arguments",
                call=call.index,
                what=f"host call {call.index} is {call.op}, the record has {recorded.op}",
                expected=recorded.op,
                actual=call.op,
            )
        if recorded.args_digest != call.args_digest:
            return Mismatch(
                code="replay.arguments",
                call=call.index,
                what=f"host call {call.index} ({call.op}) has other arguments than the record",
                expected=recorded.args_digest,
                actual=call.args_digest,
            )
        if recorded.fuel != call.fuel:
            return Mismatch(
                code="replay.result",
                call=call.index,
                what=f"the guest burnt {call.fuel} fuel before host call {call.index}, the record has"
                f" {recorded.fuel}",
                expected=str(recorded.fuel),
                actual=str(call.fuel),
            )
        return None


class ResumingAnswerer:
    """Recorded answers while there are any, then the gate: an attempt taken up again after a crash."""

    def __init__(
        self, calls: Sequence[HostcallDelivered], blob: Callable[[str], bytes], live: Answerer
    ) -> None:
        self._count = len(calls)
        self._recorded = RecordedAnswerer(calls, blob)
        self._live = live

    async def answer(self, call: HostCall) -> Answer:
        if call.index < self._count or self._recorded.mismatch is not None:
            # Once an attempt has left its record nothing it asks for may reach the world: what it did
            # before the crash is no longer known to be what it would do now.
            return await self._recorded.answer(call)
        return await self._live.answer(call)
