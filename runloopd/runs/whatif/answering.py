"""Answers the host calls of one attempt in a run that is driven again in memory.

Every call is found in the record (strictly while the guest is in step, then loosely), ruled on by whoever
asks "what if", and otherwise answered as it was. What the record does not know ends the attempt: nobody is
asked. Of that, only what touches nothing is made up, the same each time: a log line, a progress note, the
time as the simulation has it, and random bytes drawn from the call itself.

Knows: one attempt. Does not know: runs, why somebody rules otherwise. Holds no gate and no provider.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pog.errors import LedgerCorruptError
from runloop.digest import digest
from runloop.errors import NotFoundError, RunloopError
from runloop.events import AgentPin
from runloop.ops import OPS, decode_args
from runloopd.broker.calls import Answer, HostCall
from runloopd.runs.answers import AllServed
from runloopd.runs.recorded import Hearing, RecordedAnswer
from runloopd.runs.whatif.tape import Tape

__all__ = ["EXTERNAL", "Asked", "Change", "Effect", "Ruling", "SimulatedAnswerer", "Stop", "is_effect"]

EXTERNAL = frozenset({"mail.send", "fs.write"})
"""Effects that are seen outside Runloop: they cannot be taken back by forgetting the run."""
WAITS_FOR_PEOPLE = frozenset({"mail.send", "input.ask", "promise.await", "promise.create", "msg.request"})


def is_effect(op: str) -> bool:
    """Whether a call may change something."""
    row = OPS.get(op)
    return row is not None and row.effect in ("write", "send", "spend")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Where a run that is driven again cannot go on, and why."""

    run: str
    node: str
    attempt: int
    call: int | None
    op: str
    kind: Literal["unrecorded", "parked", "granted", "open", "cause", "unavailable"]
    """``parked``: a person or another would be asked. ``granted``: it was denied and would not be now.
    ``open``: it would be let in, and hear something else. ``cause``: what it heard would not have been said.
    ``unavailable``: the agent, or its record, is not to be had."""
    why: str

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "node": self.node,
            "attempt": self.attempt,
            "call": self.call,
            "op": self.op,
            "kind": self.kind,
            "why": self.why,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A call that met one verdict, and would meet another."""

    run: str
    node: str
    attempt: int
    call: int
    agent: str
    op: str
    before: str
    """``allowed``, ``denied``; ``unasked`` for a call that the record does not have."""
    after: str
    """``allowed``, ``denied``; ``open`` where it would be let in and hear something else."""
    capability: str
    target: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """An effect that was made, or may have been."""

    run: str
    node: str
    attempt: int
    call: int
    op: str
    args_digest: str
    state: Literal["done", "unknown"]

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A call, and what the record has for it."""

    tape: Tape
    pin: AgentPin
    node: str
    attempt: int
    call: HostCall
    found: RecordedAnswer | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ruling:
    """What becomes of a call otherwise than recorded."""

    answer: Answer | None = None
    """Given instead; None: the recorded one."""
    stop: Stop | None = None
    """The run cannot go on here."""
    change: Change | None = None
    effect: Literal["done", "unknown", "none"] | None = None
    """Whether it was made all the same; None: as the answer says."""


class Ruler(Protocol):
    """Says what is otherwise."""

    async def rule(self, asked: Asked) -> Ruling | None:
        """None: it is answered as it was."""
        ...

    def concerns(self, tape: Tape, node: str) -> bool:
        """Whether it may rule on a call of this node; False: what its attempts come to may be remembered."""
        ...


@dataclass(kw_only=True)
class Heard:
    """What an attempt did, told by its calls."""

    events: list[RecordedAnswer] = field(default_factory=list)
    """Recorded answers it was given, in order."""
    in_step: bool = True
    """Whether it heard its own record and nothing else."""
    changes: list[Change] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Op and digest of the arguments of every effect it asked for."""
    stop: Stop | None = None


class SimulatedAnswerer:
    """One attempt's answerer. Implements ``Answerer`` and ``Rewindable``."""

    def __init__(
        self,
        tape: Tape,
        pin: AgentPin,
        node: str,
        attempt: int,
        ruler: Ruler,
        *,
        as_attempt: int,
        now_ms: int,
        cut_off: bool,
    ) -> None:
        """``as_attempt``: the recorded attempt it hears. ``cut_off``: that one did not end by itself, and the
        last call of its record is where it goes no further."""
        self._tape, self._pin, self._node, self._attempt = tape, pin, node, attempt
        self._ruler = ruler
        self._as = as_attempt
        self._now_ms = now_ms
        self._cut_off = cut_off
        self._recorded: Sequence[RecordedAnswer] = tape.answers.calls(node, as_attempt)
        self._begin()

    def _begin(self) -> None:
        self._hearing: Hearing = self._tape.answers.hearing(self._node, self._as)
        self.heard = Heard()

    async def rewind(self) -> None:
        """See :class:`Rewindable`: the guest starts again, and so does all that is told of it."""
        self._begin()

    async def answer(self, call: HostCall) -> Answer:
        """See :class:`Answerer`. Raises :class:`AllServed` where the attempt is not to go on."""
        if self.heard.stop is not None:
            raise AllServed
        index, op, args = call.index, call.op, call.args_digest
        if is_effect(op):
            self.heard.asked.append((op, args))
        found = self._hearing.hear(index, op, args)
        if found is None:
            self._hearing.passed(index, op, args)
        strict = found is not None and self._hearing.in_step
        self.heard.in_step = self.heard.in_step and strict
        ruling = await self._ruler.rule(self._asked(call, found)) or Ruling()
        if ruling.change is not None:
            self.heard.changes.append(ruling.change)
        if ruling.stop is not None:
            self._stop(ruling.stop)
        if ruling.answer is not None:
            self.heard.in_step = False
            self._note(call, ruling.answer.ok, ruling.effect)
            return ruling.answer
        if found is None:
            return self._made_up(call)
        return self._as_recorded(call, found, ruling, strict=strict)

    def _asked(self, call: HostCall, found: RecordedAnswer | None) -> Asked:
        return Asked(
            tape=self._tape,
            pin=self._pin,
            node=self._node,
            attempt=self._attempt,
            call=call,
            found=found,
        )

    def _as_recorded(self, call: HostCall, found: RecordedAnswer, ruling: Ruling, *, strict: bool) -> Answer:
        self.heard.events.append(found)
        try:
            value = self._tape.answers.value(found)
        except (NotFoundError, LedgerCorruptError) as error:
            self._stop(self._at(call, "unavailable", error.message))
        self._note(call, found.call.ok, ruling.effect)
        if self._cut_off and strict and call.index == len(self._recorded) - 1 and self.heard.in_step:
            raise AllServed
        return Answer(ok=found.call.ok, value=value)

    def _note(self, call: HostCall, ok: bool, effect: str | None) -> None:
        state = effect or ("done" if ok else "none")
        if not is_effect(call.op) or state == "none":
            return
        self.heard.effects.append(
            Effect(
                run=self._tape.run,
                node=self._node,
                attempt=self._attempt,
                call=call.index,
                op=call.op,
                args_digest=call.args_digest,
                state="unknown" if state == "unknown" else "done",
            )
        )

    def _made_up(self, call: HostCall) -> Answer:
        """What needs nobody; for all else the attempt ends here."""
        try:
            decode_args(call.op, call.args)
        except RunloopError as error:  # the gate would say so, too
            return Answer.refusal(error)
        if call.op in ("log.write", "progress"):
            return Answer(ok=True, value={})
        if call.op == "time.now":
            return Answer(ok=True, value={"now_ms": self._now_ms})
        if call.op == "random.bytes":
            place = ["whatif", self._tape.run, self._node, self._attempt, call.index]
            return Answer(ok=True, value={"base64": _drawn(place, int(call.args["n"]))})
        people = call.op in WAITS_FOR_PEOPLE
        why = "somebody would be asked for it" if people else "the record has no answer to it"
        self._stop(self._at(call, "parked" if people else "unrecorded", why))
        raise AssertionError

    def _at(self, call: HostCall, kind: Any, why: str) -> Stop:
        return Stop(
            run=self._tape.run,
            node=self._node,
            attempt=self._attempt,
            call=call.index,
            op=call.op,
            kind=kind,
            why=why,
        )

    def _stop(self, stop: Stop) -> None:
        self.heard.stop = stop
        self.heard.in_step = False
        raise AllServed


def _drawn(place: list[Any], n: int) -> str:
    """``n`` bytes that are the same for the same place."""
    data = b"".join(bytes.fromhex(digest([*place, block])) for block in range(-(-n // 32)))
    return base64.b64encode(data[:n]).decode()
