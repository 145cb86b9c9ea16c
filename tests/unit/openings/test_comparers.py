"""Every comparison of a replay is needed: without it, a changed record passes for the real one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import msgspec
import pytest

from openings import comparers
from openings.child import inner
from openings.comparers import Frame, Said
from openings.definition import Opening
from openings.demands import NestedOutcome, ReplayNested
from openings.load import parse
from openings.replay import AttemptOutcome, Reexecute, ReplayReport, replay
from openings.talk import posted
from openings.testing import RUN, Play, as_recorded, pin
from runloop.digest import blob_digest, canonical, digest
from runloop.events import (
    ArtifactCreated,
    Event,
    HostcallDelivered,
    MessagePosted,
    MessageSent,
    NodeFinished,
    NodeScheduled,
    Payload,
    RunParent,
    RunStarted,
)
from runloop.ids import child_run_id
from runloop.ops import MsgPublish

ZEROS = "0" * 64
SPEECH = {"to": "talk/all", "content": "hello"}


@dataclass
class Record:
    """A run, its nested run, and a guest for every attempt of both."""

    events: list[Event]
    inner: list[Event]
    said: dict[int, Said]
    made: tuple[Frame, ...]

    def changed(self, kind: type, node: str | None = None, *, inside: bool = False, **fields: Any) -> Record:
        """A record in which the last such fact says something else; without ``fields``, does not exist."""
        events = list(self.inner if inside else self.events)
        place = max(
            at
            for at, event in enumerate(events)
            if type(event.payload) is kind and (node is None or getattr(event.payload, "node", None) == node)
        )
        payload = msgspec.structs.replace(events[place].payload, **fields)
        events[place : place + 1] = (
            [msgspec.structs.replace(events[place], payload=payload)] if fields else []
        )
        return replace(self, inner=events) if inside else replace(self, events=events)

    def replayed(self) -> ReplayReport:
        return self._walk(self.events)

    def _walk(self, events: list[Event]) -> ReplayReport:
        steps = replay(events)
        try:
            demand = next(steps)
            while True:
                if isinstance(demand, ReplayNested):
                    report = self._walk(self.inner) if self.inner else None
                    demand = steps.send(NestedOutcome(report=report, events=self.inner))
                else:
                    demand = steps.send(self._guest(demand))
        except StopIteration as ended:
            return cast(ReplayReport, ended.value)

    def _guest(self, demand: Reexecute) -> AttemptOutcome:
        if demand.node != "talks":
            return as_recorded(demand)
        output = {"ports": {"out": [1]}, "artifacts": []}
        return AttemptOutcome(
            ok=True, output_digest=digest(output), fuel=100, calls=1, frames=self.made, said=self.said
        )


def sent(type: str) -> MessageSent:
    return MessageSent(
        sender="daemon",
        receiver="agent:talker",
        topic="agent/talker",
        type=type,
        schema_id=1,
        msg_id=1,
        size=100,
        body_digest=digest(type),
        node="talks",
        attempt=1,
    )


def spoken() -> tuple[MessagePosted, bytes]:
    return posted(
        MsgPublish(**SPEECH),  # type: ignore[arg-type]
        lineage=RUN,
        node="talks",
        attempt=1,
        call=0,
        earlier=lambda _: None,
        reply_by_ms=None,
    )


INNER = """
version: 0
name: within
params:
  x: {type: any}
nodes:
  - {id: only, use: "agent:one", with: {in: "{{params.x}}"}}
artifacts: {save: [only.out]}
"""
OUTER = """
version: 0
name: around
nodes:
  - {id: talks, use: "agent:talker"}
  - {id: nests, use: "opening:within"}
edges:
  - {from: talks.out, to: nests.x}
artifacts: {save: [talks.out]}
"""


@pytest.fixture
def record() -> Record:
    """A node that talks, a nested run that it feeds, an artifact; all of it replays."""
    nested = parse(INNER, name="within").opening
    outer = parse(OUTER, name="around").opening
    assert nested is not None
    assert outer is not None
    opening = replace(outer, openings={"within": nested})
    play = Play(opening)
    started = cast(RunStarted, play.events[0].payload)
    pins = {"talks": pin("talker"), "within/only": pin("one")}
    play.events[0] = msgspec.structs.replace(
        play.events[0], payload=msgspec.structs.replace(started, agents=pins)
    )
    play.settle()
    made = (Frame.of(sent("a.request.v1")), Frame.of(sent("a.response.v1")))
    args = digest(SPEECH)
    play.say(
        sent("a.request.v1"),
        spoken()[0],
        HostcallDelivered(
            node="talks", attempt=1, call=0, op="msg.publish", effect="write", args_digest=args,
            args_blob=args, ok=True, result_digest=args, result_blob=args, request_bytes=1, response_bytes=1,
            fuel=10,
        ),
        sent("a.response.v1"),
    )  # fmt: skip
    play.succeed("talks", calls=1, out=1).settle()
    child = inside(opening)
    play.succeed("nests", fuel=0, out=2)
    content = canonical(1)
    play.say(
        ArtifactCreated(
            name="talks.out.json", node="talks", port="out", media_type="application/json",
            blob=blob_digest(content), size=len(content),
        )
    )  # fmt: skip
    play.settle()
    assert play.state.finished
    return Record(events=play.events, inner=child, said={0: Said(op="msg.publish", args=SPEECH)}, made=made)


def inside(opening: Opening) -> list[Event]:
    """The nested run, to its end."""
    within = inner(opening, "within")
    assert within is not None
    play = Play(within, {"x": 1}, run=child_run_id(RUN, "nests", 1))
    started = cast(RunStarted, play.events[0].payload)
    parent = RunParent(run=RUN, node="nests", attempt=1, root=RUN)
    play.events[0] = msgspec.structs.replace(
        play.events[0],
        payload=msgspec.structs.replace(started, parent=parent, agents={"only": pin("one")}),
    )
    play.settle()
    play.succeed("only", out=2).settle()
    return play.events


def stray(record: Record) -> Event:
    """A frame of an attempt that never was."""
    last = record.events[-1]
    return msgspec.structs.replace(
        last, kind=MessageSent.kind, payload=msgspec.structs.replace(sent("a.request.v1"), attempt=9)
    )


LEFT = {"ports": {"out": [1]}, "artifacts": [ZEROS]}
NESTED = {"ports": {"out": [2]}, "artifacts": [ZEROS]}
ELSEWHERE = RunParent(run=RUN, node="nests", attempt=2, root=RUN)

CHANGES: dict[str, Callable[[Record], Record]] = {
    "definition": lambda r: r.changed(RunStarted, definition_digest=ZEROS),
    "comparable": lambda r: r.changed(NodeScheduled, key=ZEROS),
    "artifact": lambda r: r.changed(ArtifactCreated, size=2),
    "output": lambda r: r.changed(NodeFinished, "talks", output=LEFT),
    "result": lambda r: r.changed(NodeFinished, "talks", output=LEFT, output_digest=digest(LEFT)),
    "fuel": lambda r: r.changed(NodeFinished, "talks", fuel=101),
    "calls": lambda r: r.changed(NodeFinished, "talks", calls=2),
    "asked": lambda r: replace(r, events=[*r.events[:-1], stray(r), r.events[-1]]),
    "frame": lambda r: r.changed(MessageSent, body_digest=ZEROS),
    "said": lambda r: r.changed(MessageSent),
    "post": lambda r: r.changed(MessagePosted, content_digest=ZEROS),
    "unposted": lambda r: r.changed(MessagePosted),
    "absent": lambda r: replace(r, inner=[]),
    "nested": lambda r: r.changed(RunStarted, inside=True, parent=ELSEWHERE),
    "nested_result": lambda r: r.changed(NodeFinished, "nests", output=NESTED, output_digest=digest(NESTED)),
}
"""Comparison -> a change of the record that it alone can tell."""


def blind(*given: Any, **_: Any) -> Any:
    """A comparison that finds everything equal."""
    return {"kind": given[0].kind} if isinstance(given[0], Payload) else None


def test_the_record_as_it_is_replays(record: Record) -> None:
    report = record.replayed()
    assert report.divergence is None
    assert report.identical
    assert (report.attempts, report.messages, report.runs) == (2, 3, 2)


@pytest.mark.requirement("L8", "I5.replay.6")
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_told_by_its_comparison_and_by_no_other(
    record: Record, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = CHANGES[name](record)
    told = changed.replayed()
    assert told.divergence is not None
    assert told.divergence.expected != told.divergence.actual
    monkeypatch.setattr(comparers, name, blind)
    assert changed.replayed().divergence is None, "something else told it: this comparison is not under test"


def test_every_comparison_there_is_has_such_a_change() -> None:
    helpers = {"Frame", "Said", "diverge", "unstated"}
    assert set(comparers.__all__) - helpers == set(CHANGES)
