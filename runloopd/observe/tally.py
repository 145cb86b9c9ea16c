"""What each agent has done since the daemon started: a fold of the ledger's events.

Knows: which facts count as a call, an end, a failure, a hit of the cache; whose they are. Does not know:
processes, rates, who looks. Folding is the one part of the metrics that goes on when nobody looks: asked for
afterwards, the figures of a long day would have to be read from the ledger again. Most events cost the look
into a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from openings.state import base
from runloop.events import (
    AgentPin,
    Event,
    HostcallDelivered,
    ModelCalled,
    NodeFinished,
    RunFinished,
    RunStarted,
)

__all__ = ["Counts", "Tally"]

_FROM_STORE = frozenset({"cache", "cassette"})
_CHECK = "check"


@dataclass(slots=True)
class Counts:
    """Of one agent. All of them only grow."""

    ended: int = 0
    """Attempts that came to an end, whichever."""
    failed: int = 0
    """Those that did not succeed: failed, timed out or killed."""
    calls: int = 0
    """Host calls that were answered."""
    refused: int = 0
    """Those whose answer was an error: refused, or tried in vain."""
    model_calls: int = 0
    hits: int = 0
    """Model calls that the cache or a cassette answered."""
    input_tokens: int = 0
    output_tokens: int = 0
    fuel: int = 0
    """Of attempts that have ended."""
    micro_usd: int = 0


class Tally:
    """Feed it every committed batch, in order."""

    def __init__(self) -> None:
        self._agents: dict[str, Counts] = {}
        self._pins: dict[str, Mapping[str, AgentPin]] = {}
        """Run that is not over -> node -> its agent: the engine's own facts do not name one."""
        self._folds: dict[str, Callable[[Event], None]] = {
            RunStarted.kind: self._started,
            RunFinished.kind: self._finished,
            NodeFinished.kind: self._ended,
            HostcallDelivered.kind: self._answered,
            ModelCalled.kind: self._asked,
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._agents)

    def of(self, agent: str) -> Counts:
        """What an agent has done; zeros for one that has done nothing."""
        return self._agents.get(agent) or Counts()

    def restore(self, unfinished: Iterable[Event]) -> None:
        """Learn who serves what in runs of before; what was done then is not counted."""
        for event in unfinished:
            if event.kind == RunStarted.kind:
                self._started(event)

    def fold(self, events: Iterable[Event]) -> None:
        """Take in committed events."""
        for event in events:
            if (take := self._folds.get(event.kind)) is not None:
                take(event)

    def _started(self, event: Event) -> None:
        if event.run is not None:
            self._pins[event.run] = cast(RunStarted, event.payload).agents

    def _finished(self, event: Event) -> None:
        if event.run is not None:
            self._pins.pop(event.run, None)

    def _ended(self, event: Event) -> None:
        finished = cast(NodeFinished, event.payload)
        counts = self._whose(event, finished.node)
        if counts is not None:
            counts.ended += 1
            counts.failed += finished.status != "succeeded"
            counts.fuel += finished.fuel

    def _answered(self, event: Event) -> None:
        delivered = cast(HostcallDelivered, event.payload)
        counts = self._whose(event, delivered.node)
        if counts is not None:
            counts.calls += 1
            counts.refused += not delivered.ok

    def _asked(self, event: Event) -> None:
        called = cast(ModelCalled, event.payload)
        counts = None if called.source == _CHECK else self._whose(event, called.node)
        if counts is not None:
            counts.model_calls += 1
            counts.hits += called.source in _FROM_STORE
            counts.input_tokens += called.input_tokens
            counts.output_tokens += called.output_tokens
            counts.micro_usd += called.cost_micro_usd

    def _whose(self, event: Event, node: str) -> Counts | None:
        """None for what is nobody's: a node that another opening serves, the search index."""
        name = event.provenance.agent
        if name is None:
            pin = self._pins.get(event.run or "", {}).get(base(node))
            name = None if pin is None else pin.name
        if name is None:
            return None
        counts = self._agents.get(name)
        if counts is None:
            counts = self._agents[name] = Counts()
        return counts
