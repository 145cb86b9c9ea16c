"""Answers from the record: what makes recovery and replay the same execution as the live run.

A guest is a pure function of its input and of the answers to its host calls. Fed with the recorded
answers it arrives at the same point, burns the same fuel, asks the same next question. Recovery then
goes on live; replay stops there. Knows nothing of effects: a replay holds no gate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from openings.replay import Divergence, Said, match
from openings.talk import SPEAKING
from pog.errors import LedgerCorruptError
from runloop.errors import DivergenceError
from runloop.events import HostcallDelivered
from runloopd.broker.calls import Answer, Answerer, HostCall

__all__ = ["AllServed", "RecordedAnswerer", "ResumingAnswerer", "damaged"]


class AllServed(Exception):
    """The record of an attempt that was cut off is used up: there is nothing more to compare."""


class RecordedAnswerer:
    """Serves recorded answers only; the first thing that is not in the record is kept as ``mismatch``."""

    def __init__(
        self, calls: Sequence[HostcallDelivered], blob: Callable[[str], bytes], *, cut_off: bool = False
    ) -> None:
        """``cut_off``: raise :class:`AllServed` at the last recorded call instead of answering it: what the
        guest does from there nobody recorded, and it may never end."""
        self._calls = calls
        self._blob = blob
        self._cut_off = cut_off
        self.served = 0
        self.mismatch: Divergence | None = None
        self.said: dict[int, Said] = {}
        """By index, the calls by which the guest said something to other agents."""

    async def answer(self, call: HostCall) -> Answer:
        if self.mismatch is None:
            found = match(self._calls, call.index, call.op, call.args_digest, call.fuel)
            if isinstance(found, HostcallDelivered):
                self.served += 1
                if call.op in SPEAKING:
                    self.said[call.index] = Said(op=call.op, args=call.args)
                if self._cut_off and self.served == len(self._calls):
                    raise AllServed
                try:
                    return Answer(ok=found.ok, value=msgspec.json.decode(self._blob(found.result_blob)))
                except LedgerCorruptError as error:
                    found = damaged(call.index, found.result_blob, error)
            self.mismatch = found
        return Answer.refusal(DivergenceError(self.mismatch.what, code=self.mismatch.code))

    async def rewind(self) -> None:
        """Serve the record from its beginning; what was found to differ stays found."""
        self.served = 0


def damaged(call: int | None, blob: str, error: LedgerCorruptError) -> Divergence:
    """The record holds other bytes than it held: nothing can be heard from it."""
    return Divergence(
        code="replay.result",
        where="" if call is None else f"call {call}",
        what=error.message,
        expected=blob,
        actual="",
        call=call,
    )


class ResumingAnswerer:
    """Recorded answers while there are any, then the gate: an attempt taken up again after a crash."""

    def __init__(
        self,
        recorded: Callable[[], Sequence[HostcallDelivered]],
        blob: Callable[[str], bytes],
        live: Answerer,
    ) -> None:
        """``recorded``: reads the answers of this attempt that are in the ledger now."""
        self._read = recorded
        self._blob = blob
        self._live = live
        self._take_record()

    def _take_record(self) -> None:
        calls = self._read()
        self._count = len(calls)
        self._recorded = RecordedAnswerer(calls, self._blob)

    async def answer(self, call: HostCall) -> Answer:
        if call.index < self._count or self._recorded.mismatch is not None:
            # Once an attempt has left its record nothing it asks for may reach the world: what it did
            # before the crash is no longer known to be what it would do now.
            return await self._recorded.answer(call)
        return await self._live.answer(call)

    async def rewind(self) -> None:
        """The worker was lost: everything answered so far is in the ledger, and is heard again."""
        if self._recorded.mismatch is None:
            self._take_record()
