"""What a guest hears when its run is told again: the recorded answers by place, with stand-ins in them.

Knows: how a call is matched (the same op at the same place; its arguments are whatever comes of the
stand-ins), which attempts the record has and how they ended. Does not know: facts, or the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from openings import foresee
from openings.certificate import Divergence
from openings.comparers import Said
from openings.talk import SPEAKING
from runloop.errors import DivergenceError
from runloop.events import Event, HostcallDelivered, NodeCancelled, NodeFinished
from runloopd.broker.calls import Answer, Answerer, HostCall
from runloopd.runs.answers import AllServed
from runloopd.runs.replayer import Source
from runloopd.runs.sealed.changed import Bytes
from runloopd.runtime.orders import AttemptOrder, AttemptResult
from runloopd.runtime.supervisor import Runtime

__all__ = ["Instead", "Key", "Outputs", "Retold", "indexed", "is_cut"]

Key = tuple[str, str, int]
"""Run, node and attempt."""


class Retold:
    """Answers with stand-ins, by place; keeps what it was asked."""

    def __init__(self, calls: Sequence[HostcallDelivered], bytes_: Bytes, *, cut_off: bool) -> None:
        self._calls = calls
        self._bytes = bytes_
        self._cut_off = cut_off
        self.heard: list[HostCall] = []
        self.said: dict[int, Said] = {}
        self.mismatch: Divergence | None = None

    async def answer(self, call: HostCall) -> Answer:
        recorded = self._calls[call.index] if call.index < len(self._calls) else None
        if self.mismatch is None and (recorded is None or recorded.op != call.op):
            before = "nothing" if recorded is None else recorded.op
            self.mismatch = Divergence(
                code="replay.arguments",
                where=f"call {call.index}",
                what=f"host call {call.index} is {call.op} where it was {before}",
                expected=before,
                actual=call.op,
                call=call.index,
            )
        if self.mismatch is not None or recorded is None:
            return Answer.refusal(DivergenceError("the run goes another way", code="redact.otherwise"))
        self.heard.append(call)
        if call.op in SPEAKING:
            self.said[call.index] = Said(op=call.op, args=call.args)
        if self._cut_off and len(self.heard) == len(self._calls):
            raise AllServed
        return Answer(
            ok=recorded.ok,
            value=msgspec.json.decode(self._bytes.made[self._bytes.blob(recorded.result_blob)]),
        )

    async def rewind(self) -> None:
        """The worker was lost: it is told everything again."""
        self.heard.clear()


class Outputs:
    """A runtime that remembers what came out of it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._made: dict[Key, dict[str, Any] | None] = {}

    async def run_attempt(self, order: AttemptOrder, answerer: Answerer) -> AttemptResult:
        result = await self._runtime.run_attempt(order, answerer)
        self._made[order.run, order.node, order.attempt] = result.output
        return result

    def of(self, key: Key) -> dict[str, Any] | None:
        return self._made.get(key)


class Instead:
    """The agents of the file, and the bytes of the derived record."""

    def __init__(self, source: Source, made: Mapping[str, bytes]) -> None:
        self._source = source
        self._made = made
        self.rows, self.children = source.rows, source.children
        self.pinned, self.prepare = source.pinned, source.prepare

    def blob(self, digest_: str) -> bytes:
        return self._made[digest_]


def indexed(
    events: Iterable[Event],
) -> tuple[dict[Key, list[HostcallDelivered]], dict[Key, NodeFinished | NodeCancelled]]:
    """The answers of each attempt, contiguous from 0, and how it first ended."""
    calls: dict[Key, dict[int, HostcallDelivered]] = {}
    ends: dict[Key, NodeFinished | NodeCancelled] = {}
    for event in events:
        payload, run = event.payload, event.run or ""
        if isinstance(payload, HostcallDelivered):
            calls.setdefault((run, payload.node, payload.attempt), {}).setdefault(payload.call, payload)
        elif isinstance(payload, NodeFinished):  # noqa: SIM114 - its attempt is a number for sure
            ends.setdefault((run, payload.node, payload.attempt), payload)
        elif isinstance(payload, NodeCancelled) and payload.attempt is not None:
            ends.setdefault((run, payload.node, payload.attempt), payload)
    listed: dict[Key, list[HostcallDelivered]] = {}
    for key, found in calls.items():
        row = listed[key] = []
        while (following := found.get(len(row))) is not None:
            row.append(following)
    return listed, ends


def is_cut(finished: NodeFinished | NodeCancelled) -> bool:
    """Whether it was not the guest that came to this end."""
    return isinstance(finished, NodeCancelled) or foresee.is_cut(finished)
