"""Old runs stay explainable: every golden history goes through the present engine, fact by fact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import msgspec
import pytest

from openings.replay import AttemptOutcome, Reexecute, ReplayReport, replay
from runloop.events import Event, NodeFinished

HISTORIES = sorted(Path(__file__).parent.glob("*.jsonl"))


def history(path: Path) -> list[Event]:
    return [Event.from_json(json.loads(line)) for line in path.read_text().splitlines()]


def as_recorded(demand: Reexecute) -> AttemptOutcome:
    """A guest that does exactly what it did."""
    calls = len(demand.recorded)
    if demand.expected is None:
        return AttemptOutcome(calls=calls)
    end = demand.expected
    return AttemptOutcome(
        ok=end.status == "succeeded",
        output_digest=end.output_digest,
        error=end.error,
        fuel=end.fuel,
        calls=end.calls,
    )


def walk(events: list[Event]) -> ReplayReport:
    steps = replay(events)
    try:
        demand = next(steps)
        while True:
            demand = steps.send(as_recorded(demand))
    except StopIteration as done:
        return cast(ReplayReport, done.value)


@pytest.mark.parametrize("path", HISTORIES, ids=[path.stem for path in HISTORIES])
def test_a_recorded_history_is_what_the_engine_would_state_again(path: Path) -> None:
    report = walk(history(path))
    assert report.divergence is None
    assert report.gaps == ()
    assert report.identical
    assert report.attempts > 0


@pytest.mark.parametrize("path", HISTORIES, ids=[path.stem for path in HISTORIES])
def test_a_history_with_another_output_in_it_is_told_apart(path: Path) -> None:
    """The comparison itself is under test: without it every history would pass (attacks.md L8)."""
    events = history(path)
    place, event = next(
        (place, event)
        for place, event in enumerate(events)
        if isinstance(event.payload, NodeFinished) and event.payload.output is not None
    )
    finished = cast(NodeFinished, event.payload)
    output = {**cast(dict[str, object], finished.output), "ports": {"out": ["another"]}}
    events[place] = msgspec.structs.replace(event, payload=msgspec.structs.replace(finished, output=output))
    assert not walk(events).identical


def test_there_are_histories_of_every_kind_of_end() -> None:
    assert {path.stem for path in HISTORIES} >= {"approved", "denied", "crashed", "partly_failed"}
