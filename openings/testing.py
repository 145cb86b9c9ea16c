"""In-memory twins for whoever drives or tests the engine: a run in miniature, with a scripted world.

Knows: how a runner turns commands into facts and what a world may answer. Performs nothing: guests, people
and clocks are the caller's script.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from openings import engine
from openings.definition import Opening
from openings.engine import Command
from openings.replay import AttemptOutcome, Frame, Reexecute
from openings.state import RunState
from runloop.digest import digest
from runloop.events import (
    AgentPin,
    Event,
    GuestError,
    NodeFinished,
    Payload,
    Provenance,
    RunStarted,
    TimerFired,
)

__all__ = ["RUN", "Play", "as_recorded", "pin", "started"]

RUN = "00000000-0000-4000-8000-000000000001"
"""Trace id of the run in miniature."""


def pin(name: str) -> AgentPin:
    """A pin of an agent that does not exist."""
    return AgentPin(
        name=name,
        version="0.1.0",
        variant="default",
        bundle_digest=digest(["bundle", name]),
        component_digest=digest(["component", name]),
        language="python",
    )


def started(opening: Opening, params: Mapping[str, Any] | None = None, **policy: Any) -> RunStarted:
    """``run.started`` of an opening."""
    return RunStarted(
        opening=opening.name,
        definition=opening.to_json(),
        definition_digest=opening.digest,
        params=dict(params or {}),
        agents={node.id: pin(node.use.removeprefix("agent:")) for node in opening.nodes},
        engine={"logic": engine.LOGIC, "sandbox": 1, "wasmtime": "50"},
        policy=opening.policy.to_json() | policy,
        principal="operator:1000",
        origin={"via": "test", "prompt": None, "interactive": False, "source_path": None},
    )


def as_recorded(demand: Reexecute) -> AttemptOutcome:
    """A guest that does exactly what it did."""
    frames = tuple(Frame.of(sent) for sent in demand.frames)
    if demand.expected is None:
        return AttemptOutcome(calls=len(demand.recorded), frames=frames)
    end = demand.expected
    return AttemptOutcome(
        ok=end.status == "succeeded",
        output_digest=end.output_digest,
        error=end.error,
        fuel=end.fuel,
        calls=end.calls,
        frames=frames,
    )


class Play:
    """A run under the hand of a test: say what happened, see what is due."""

    def __init__(
        self, opening: Opening, params: Mapping[str, Any] | None = None, *, run: str = RUN, **policy: Any
    ) -> None:
        self.run = run
        self.events: list[Event] = []
        self.state: RunState = engine.initial()
        self.now_ms = 1_750_000_000_000
        self.say(started(opening, params, **policy))

    @property
    def due(self) -> list[Command]:
        """What is due now."""
        return engine.due(self.state)

    def say(self, *payloads: Payload) -> Play:
        """State facts: each becomes an event and moves the state."""
        for payload in payloads:
            number = len(self.events) + 1
            event = Event(
                id=number,
                ts_ms=self.now_ms,
                actor="daemon",
                kind=payload.kind,
                scope="user",
                run=self.run,
                payload=payload,
                provenance=Provenance(),
                hash=number.to_bytes(32, "big"),
                prev_hash=(number - 1).to_bytes(32, "big"),
            )
            self.events.append(event)
            self.state = engine.apply(self.state, event)
        return self

    def carry_out(self, commands: Iterable[Command] | None = None) -> list[Command]:
        """State what is due (or some of it) as facts; returns it."""
        done = list(self.due if commands is None else commands)
        for command in done:
            self.say(engine.fact(command, now_ms=self.now_ms))
        return done

    def settle(self) -> list[Command]:
        """Carry out until nothing is due; returns everything that was."""
        done: list[Command] = []
        while now := self.carry_out():
            done.extend(now)
        return done

    def succeed(self, node: str, *, fuel: int = 100, calls: int = 0, **ports: Any) -> Play:
        """The node's present attempt gave one value per port."""
        output = {"ports": {name: [value] for name, value in ports.items()}, "artifacts": []}
        return self.say(
            NodeFinished(
                node=node,
                attempt=self.state.nodes[node].attempt,
                status="succeeded",
                output=output,
                output_digest=digest(output),
                fuel=fuel,
                calls=calls,
            )
        )

    def fail(
        self,
        node: str,
        *,
        code: str = "guest.error",
        retryable: bool = False,
        fuel: int = 100,
        calls: int = 0,
    ) -> Play:
        """The node's present attempt failed."""
        return self.say(
            NodeFinished(
                node=node,
                attempt=self.state.nodes[node].attempt,
                status="failed",
                error=GuestError(code=code, message="it did not work", retryable=retryable),
                fuel=fuel,
            )
        )

    def fire(self, timer: str) -> Play:
        """A timer's time has come; the clock moves there."""
        self.now_ms = max(self.now_ms, self.state.timers_set[timer])
        return self.say(TimerFired(timer=timer))
