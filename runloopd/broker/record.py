"""What the gate remembers of a run: a fold of its events, the same live and after a restart.

Knows: which calls an attempt has made, which effects were admitted and which delivered, what was spent,
which files were made. Does not know: how to do anything. Feed it every committed batch
(``journal.listen(record.fold)``) and, at start, the events of unfinished runs in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from runloop.digest import digest
from runloop.events import (
    ArtifactCreated,
    Event,
    HostcallAdmitted,
    HostcallDelivered,
    ModelCalled,
    QuotaWarned,
    RunFinished,
    RunStarted,
)
from runloopd.broker.quotas import Purse, Quotas, Usage

__all__ = ["Attempt", "Delivered", "Effect", "Record", "Run", "effect_key"]


def effect_key(run: str, node: str, op: str, ordinal: int, args_digest: str) -> str:
    """Idempotency key: the same effect of a later attempt, or after a restart, has the same key.

    ``ordinal`` counts the calls of this op with the same arguments in one attempt, from 0.
    """
    return digest([run, node, op, ordinal, args_digest])


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """A call whose answer is on record."""

    event: int
    op: str
    effect: str
    args_digest: str
    ok: bool
    result_digest: str


@dataclass(slots=True)
class Attempt:
    """One attempt of a node."""

    calls: dict[int, Delivered] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)

    def ordinal(self, op: str, args_digest: str, before: int) -> int:
        """How many calls before call number ``before`` had this op and these arguments."""
        return sum(
            1 for n, c in self.calls.items() if n < before and c.op == op and c.args_digest == args_digest
        )

    def seen(self, before: int) -> tuple[int, ...]:
        """Ledger ids of the answers the guest has seen, apart from clock, chance and log."""
        return tuple(c.event for n, c in sorted(self.calls.items()) if n < before and c.effect != "pure")


@dataclass(slots=True)
class Effect:
    """One effect, across attempts."""

    key: str
    admitted: int
    """Ledger id of the newest ``hostcall.admitted``."""
    place: tuple[str, int, int]
    """Node, attempt, call of that mark."""
    delivered: Delivered | None = None
    """The answer to that mark; None: the outcome is not on record."""


@dataclass(slots=True)
class Run:
    """One run that is not over."""

    id: str
    purse: Purse
    attempts: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    effects: dict[str, Effect] = field(default_factory=dict)
    artifacts: set[str] = field(default_factory=set)
    warned_run: set[str] = field(default_factory=set)
    """Resources of the run that were warned of."""
    warned: dict[tuple[str, int], set[str]] = field(default_factory=dict)
    """Node and attempt -> resources that were warned of."""

    def attempt(self, node: str, number: int) -> Attempt:
        """The record of one attempt; an empty one if it has made no call."""
        return self.attempts.setdefault((node, number), Attempt())

    def warned_of(self, node: str, number: int) -> set[str]:
        """What was warned of in one attempt; the caller adds to it."""
        return self.warned.setdefault((node, number), set())


class Record:
    """Every run that is not over."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._runs: dict[str, Run] = {}

    def run(self, name: str) -> Run | None:
        """The run, or None when it was never started or is over."""
        return self._runs.get(name)

    def fold(self, events: Iterable[Event]) -> None:
        """Take in committed events, in order."""
        for event in events:
            if event.run is None:
                continue
            if event.kind == RunStarted.kind:
                self._runs[event.run] = self._started(event.run, cast(RunStarted, event.payload))
            elif event.kind == RunFinished.kind:
                self._runs.pop(event.run, None)
            elif (run := self._runs.get(event.run)) is not None:
                _fold(run, event)

    def _started(self, name: str, started: RunStarted) -> Run:
        money = started.policy.get("budget_micro_usd")
        tokens = started.policy.get("budget_tokens")
        purse = Purse(
            limit_micro_usd=self._quotas.run.run_micro_usd if money is None else int(money),
            limit_tokens=self._quotas.run.run_tokens if tokens is None else int(tokens),
            node_tokens=_node_tokens(started.definition),
        )
        return Run(name, purse)


def _node_tokens(definition: Mapping[str, Any]) -> dict[str, int]:
    nodes = definition.get("nodes")
    return {
        str(node["id"]): int(node["budget_tokens"])
        for node in (nodes if isinstance(nodes, list) else ())
        if isinstance(node, Mapping) and node.get("budget_tokens") is not None
    }


def _fold(run: Run, event: Event) -> None:
    if event.kind == HostcallAdmitted.kind:
        admitted = cast(HostcallAdmitted, event.payload)
        run.effects[admitted.key] = Effect(
            admitted.key, event.id, (admitted.node, admitted.attempt, admitted.call)
        )
    elif event.kind == HostcallDelivered.kind:
        _deliver(run, event.id, cast(HostcallDelivered, event.payload))
    elif event.kind == ModelCalled.kind:
        called = cast(ModelCalled, event.payload)
        run.purse.spend(called.node, called.cost_micro_usd, called.input_tokens + called.output_tokens)
    elif event.kind == ArtifactCreated.kind:
        run.artifacts.add(cast(ArtifactCreated, event.payload).blob)
    elif event.kind == QuotaWarned.kind:
        resource, where = cast(QuotaWarned, event.payload).resource, event.provenance
        if resource.startswith("run."):
            run.warned_run.add(resource)
        elif where.node is not None and where.attempt is not None:
            run.warned_of(where.node, where.attempt).add(resource)


def _deliver(run: Run, event: int, answer: HostcallDelivered) -> None:
    attempt = run.attempt(answer.node, answer.attempt)
    delivered = Delivered(
        event=event,
        op=answer.op,
        effect=answer.effect,
        args_digest=answer.args_digest,
        ok=answer.ok,
        result_digest=answer.result_digest,
    )
    attempt.calls[answer.call] = delivered
    attempt.usage.calls += 1
    attempt.usage.bytes += answer.request_bytes + answer.response_bytes
    attempt.usage.mails += answer.ok and answer.op == "mail.send"
    place = (answer.node, answer.attempt, answer.call)
    for effect in run.effects.values():
        if effect.place == place and effect.delivered is None:
            effect.delivered = delivered
