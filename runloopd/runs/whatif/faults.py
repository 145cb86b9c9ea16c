"""A good run, once more for each of its effects, with a fault there: what would have been left half done?

Three faults. ``before``: the provider was not there, and nothing happened. ``after``: it happened, and the
answer never came. ``crash``: the daemon ended between the two marks of the effect, and the attempt is taken
up again. What the gate does then is done here: an effect of which nobody knows whether it happened is never
made again by itself, a file and the outbox folder can be looked at, a model is asked again and the money
booked.

Knows: the faults and what is told of them. Does not know: how a run is driven (``simulator``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from runloop.errors import ConflictError, NotFoundError
from runloop.events import HostcallDelivered
from runloopd.broker.asks import UnknownOutcomeError
from runloopd.broker.calls import Answer
from runloopd.broker.ports import ProviderError
from runloopd.runs.recorded import RecordedAnswer
from runloopd.runs.whatif.answering import EXTERNAL, Asked, Effect, Ruling, Stop, is_effect
from runloopd.runs.whatif.library import Library
from runloopd.runs.whatif.simulator import Played, Simulator, ends
from runloopd.runs.whatif.tape import Tape
from runloopd.runtime.supervisor import Runtime

__all__ = ["Fault", "FaultReport", "Faults"]

Kind = Literal["before", "after", "crash"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One fault, at one call of one run."""

    run: str
    node: str
    attempt: int
    call: int
    op: str
    kind: Kind
    args_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultReport:
    """What became of the run."""

    fault: Fault
    outcome: str | None
    """None: its record does not carry to an end; ``stops`` say where."""
    failed: tuple[str, ...]
    """Nodes that failed, or were not reached, and did not in the run that was."""
    made: tuple[dict[str, Any], ...]
    """External effects that were made, or may have been, each with what it was."""
    half_done: tuple[dict[str, Any], ...]
    """Those of them of a run that came to no good end; and in any case those of which nobody knows."""
    repeated: tuple[dict[str, Any], ...]
    """Effects that were made, or may have been, and were made once more."""
    otherwise: tuple[dict[str, Any], ...]
    """External effects that a later attempt asked for with other bytes than one that was made, or may have
    been."""
    stops: tuple[Stop, ...]

    @property
    def clean(self) -> bool:
        """Whether nothing outside was left half done, made twice or left open."""
        return not (self.half_done or self.otherwise or self.stops) and not any(
            one["op"] in EXTERNAL for one in self.repeated
        )

    def to_json(self) -> dict[str, Any]:
        fault = self.fault
        return {
            "run": fault.run,
            "node": fault.node,
            "attempt": fault.attempt,
            "call": fault.call,
            "op": fault.op,
            "fault": fault.kind,
            "outcome": self.outcome,
            "failed": list(self.failed),
            "made": list(self.made),
            "half_done": list(self.half_done),
            "repeated": list(self.repeated),
            "otherwise": list(self.otherwise),
            "needs_live": [stop.to_json() for stop in self.stops],
            "clean": self.clean,
        }


class Faults:
    """Drives runs again with faults in them."""

    def __init__(self, library: Library, runtime: Runtime) -> None:
        self._library = library
        self._runtime = runtime

    async def replay(self, run: str, *, every_call: bool = False) -> dict[str, Any]:
        """The report as JSON.

        Raises :class:`NotFoundError`, and :class:`ConflictError` for a run that did not succeed, or does not
        even come out the same without a fault.
        """
        tapes = await self._library.whole(run)
        if not tapes:
            raise NotFoundError(f"no run {run}", hint="'rlp runs' lists them", code="run.absent")
        tape = tapes[0]
        if tape.finished is None or tape.finished.outcome != "succeeded":
            how = "goes on" if tape.finished is None else tape.finished.outcome
            raise ConflictError(
                f"run {run} is no good run: it {how}",
                hint="faults are put into a run that succeeded",
                code="faults.run",
            )
        simulator = Simulator(self._library.source, self._runtime, self._library.tape)
        await self._insist(simulator, tape)
        reports = [
            await self._with(simulator, tapes, fault) for fault in _faults(tapes, every_call=every_call)
        ]
        return {
            "run": run,
            "opening": tape.begun.opening,
            "effects": len({(r.fault.run, r.fault.node, r.fault.attempt, r.fault.call) for r in reports}),
            "clean": all(report.clean for report in reports),
            "faults": [report.to_json() for report in reports],
        }

    async def _insist(self, simulator: Simulator, tape: Tape) -> None:
        """Without a fault it is the run it was, or what is told of faults means nothing."""
        played = await simulator.play(tape, _Nothing())
        if played.stops or played.nodes != ends(tape.state()):
            where = played.stops[0].why if played.stops else "a node ends otherwise"
            raise ConflictError(
                f"run {tape.run} does not come out the same when it is driven again: {where}",
                hint=f"'rlp replay {tape.run[:8]}' says where",
                code="faults.record",
            )

    async def _with(self, simulator: Simulator, tapes: Sequence[Tape], fault: Fault) -> FaultReport:
        ruler = _FaultRuler(fault)
        played = await simulator.play(tapes[0], ruler)
        return _told(tapes, played, ruler)


def _faults(tapes: Sequence[Tape], *, every_call: bool) -> Iterator[Fault]:
    for tape in tapes:
        for answer in tape.calls():
            call = answer.call
            if not call.ok or not (every_call or is_effect(call.op)):
                continue
            for kind in _kinds(call):
                yield Fault(
                    run=tape.run,
                    node=call.node,
                    attempt=call.attempt,
                    call=call.call,
                    op=call.op,
                    kind=kind,
                    args_digest=call.args_digest,
                )


def _kinds(call: HostcallDelivered) -> tuple[Kind, ...]:
    """The faults a call can have. What writes into the ledger alone is one transaction with its answer: there
    is nothing between the two, and after a crash it either was or was not."""
    if call.op in EXTERNAL or call.effect == "spend":
        return ("before", "after", "crash")
    return ("before",)


class _Nothing:
    """Rules on nothing. A ``Ruler``."""

    def concerns(self, tape: Tape, node: str) -> bool:
        return False

    async def rule(self, asked: Asked) -> Ruling | None:
        return None


@dataclass
class _FaultRuler:
    """One fault, and what the gate does about what it leaves. A ``Ruler``."""

    fault: Fault
    struck: bool = False
    pending: bool = False
    """The effect may have been made, and no answer to it was heard."""
    repeated: list[Effect] = field(default_factory=list)

    def concerns(self, tape: Tape, node: str) -> bool:
        """See ``Ruler``."""
        return (tape.run, node) == (self.fault.run, self.fault.node)

    async def rule(self, asked: Asked) -> Ruling | None:
        """See ``Ruler``."""
        fault, call = self.fault, asked.call
        if not self.concerns(asked.tape, asked.node):
            return None
        here = (asked.attempt, call.index) == (fault.attempt, fault.call)
        if here and not self.struck and (call.op, call.args_digest) == (fault.op, fault.args_digest):
            self.struck = True
            return self._strike(asked)
        if self.pending and (call.op, call.args_digest) == (fault.op, fault.args_digest):
            return self._again(asked)
        return None

    def _strike(self, asked: Asked) -> Ruling | None:
        if self.fault.kind == "before":
            error = ProviderError(
                f"{self.fault.op}: the provider is not there",
                hint="try again later",
                code="provider.unavailable",
                retryable=True,
            )
            return Ruling(answer=Answer.refusal(error, retryable=True), effect="none")
        self.pending = True
        if self.fault.kind == "after":
            return Ruling(answer=_unknown(self.fault.op), effect="unknown")
        return self._again(asked)

    def _again(self, asked: Asked) -> Ruling | None:
        """The effect is asked for again, by the attempt taken up again or by another."""
        op, found = self.fault.op, asked.found
        if found is not None and op != "mail.send":
            self.pending = False
            if op not in EXTERNAL:
                self.repeated.append(_effect(asked))  # money, once more
            return None  # a file is looked at: it is as it should be
        if found is not None and _can_look(asked.tape, found):
            self.pending = False
            return None
        return Ruling(answer=_unknown(op), effect="unknown")


def _can_look(tape: Tape, found: RecordedAnswer) -> bool:
    """Whether the provider of a mail can tell whether it has it."""
    value = tape.answers.value(found)
    return isinstance(value, dict) and value.get("provider") == "outbox"


def _unknown(op: str) -> Answer:
    return Answer.refusal(
        UnknownOutcomeError(
            f"{op}: it was begun, and nobody can tell whether it happened", hint="ask the recipient"
        )
    )


def _effect(asked: Asked) -> Effect:
    return Effect(
        run=asked.tape.run,
        node=asked.node,
        attempt=asked.attempt,
        call=asked.call.index,
        op=asked.call.op,
        args_digest=asked.call.args_digest,
        state="done",
    )


# --- what is told ---------------------------------------------------------------------------------


def _told(tapes: Sequence[Tape], played: Played, ruler: _FaultRuler) -> FaultReport:
    by_run = {tape.run: tape for tape in tapes}
    made = [_shown(by_run, effect) for effect in _once(played.effects) if effect.op in EXTERNAL]
    good = played.outcome == "succeeded"
    before = ends(tapes[0].state())
    failed = [
        name
        for name, node in played.nodes.items()
        if node.state in ("failed", "skipped", "cancelled")
        and (name not in before or before[name].state != node.state)
    ]
    return FaultReport(
        fault=ruler.fault,
        outcome=played.outcome,
        failed=tuple(failed),
        made=tuple(made),
        half_done=tuple(one for one in made if not good or one["state"] == "unknown"),
        repeated=tuple(_shown(by_run, effect) for effect in ruler.repeated),
        otherwise=tuple(_otherwise(by_run, played)),
        stops=tuple(played.stops),
    )


def _once(effects: Sequence[Effect]) -> Iterator[Effect]:
    """Each effect once: that it is known is told to every attempt that asks for it again."""
    kept: dict[tuple[str, str, str, str, int], Effect] = {}
    for effect in effects:
        alike = sum(
            1
            for other in effects
            if (other.run, other.node, other.attempt, other.op, other.args_digest)
            == (effect.run, effect.node, effect.attempt, effect.op, effect.args_digest)
            and other.call < effect.call
        )
        key = (effect.run, effect.node, effect.op, effect.args_digest, alike)
        if key not in kept or effect.state == "done":
            kept[key] = effect
    yield from kept.values()


def _otherwise(tapes: dict[str, Tape], played: Played) -> Iterator[dict[str, Any]]:
    """What a later attempt asked for that none before it did, while something of theirs was made."""
    for run, node, attempt, op, args in played.asked:
        if op not in EXTERNAL:
            continue
        earlier = {
            digest for r, n, a, o, digest in played.asked if (r, n, o) == (run, node, op) and a < attempt
        }
        was_made = any(
            (e.run, e.node, e.op) == (run, node, op) and e.attempt < attempt for e in played.effects
        )
        if was_made and args not in earlier:
            yield {"run": run, "node": node, "attempt": attempt, "op": op, "args_digest": args}


def _shown(tapes: dict[str, Tape], effect: Effect) -> dict[str, Any]:
    """An effect, with what it was about as the record has it."""
    shown = effect.to_json()
    tape = tapes.get(effect.run)
    answer = None if tape is None else tape.alike(effect.node, effect.op, effect.args_digest)
    if tape is not None and answer is not None:
        args = tape.args(answer)
        if effect.op == "mail.send":
            shown["about"] = ", ".join(str(a) for f in ("to", "cc", "bcc") for a in args.get(f) or ())
        elif effect.op == "fs.write":
            shown["about"] = str(args.get("path", ""))
    return shown
