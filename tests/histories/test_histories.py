"""Old runs stay explainable: every golden history goes through the present engine, fact by fact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import msgspec
import pytest

from openings.replay import NestedOutcome, ReplayNested, ReplayReport, replay
from openings.testing import as_recorded
from runloop.events import Event, NodeFinished

HISTORIES = sorted(Path(__file__).parent.glob("*.jsonl"))


def history(path: Path) -> list[Event]:
    return [Event.from_json(json.loads(line)) for line in path.read_text().splitlines()]


def walk(events: list[Event]) -> ReplayReport:
    """The replay of a history's outermost run, and of every run in it that is nested in that one."""
    runs: dict[str | None, list[Event]] = {}
    for event in events:
        runs.setdefault(event.run, []).append(event)
    return _walk(runs, events[0].run)


def _walk(runs: dict[str | None, list[Event]], run: str | None) -> ReplayReport:
    steps = replay(runs[run])
    try:
        demand = next(steps)
        while True:
            if isinstance(demand, ReplayNested):
                nested = runs.get(demand.run, [])
                report = _walk(runs, demand.run) if nested else None
                demand = steps.send(NestedOutcome(report=report, events=nested))
            else:
                demand = steps.send(as_recorded(demand))
    except StopIteration as done:
        return cast(ReplayReport, done.value)


def gave(path: Path) -> bool:
    """Whether any attempt of the history gave something."""
    return any(isinstance(e.payload, NodeFinished) and e.payload.output is not None for e in history(path))


@pytest.mark.requirement("I5.replay.9")
@pytest.mark.parametrize("path", HISTORIES, ids=[path.stem for path in HISTORIES])
def test_a_recorded_history_is_what_the_engine_would_state_again(path: Path) -> None:
    report = walk(history(path))
    assert report.divergence is None
    assert report.gaps == ()
    assert report.identical
    assert report.attempts > 0


@pytest.mark.parametrize("path", [path for path in HISTORIES if gave(path)], ids=lambda path: path.stem)
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
    assert {path.stem for path in HISTORIES} >= {
        "approved",
        "denied",
        "crashed",
        "partly_failed",
        "mapped",
        "timed_out",
        "cancelled",
    }
