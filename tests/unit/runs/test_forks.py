"""Forks on a real ledger, with a real runner: guests that compute, a world that never says a thing twice."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openings.definition import Edge, ForEach, Node, Opening, Param, Retry, Success
from openings.diff import Told, compare
from openings.expressions import Exists, Ref
from openings.state import base
from openings.testing import pin
from openings.testing import started as run_started
from pog.ledger import Ledger
from pog.reader import Reader
from runloop.digest import blob_digest, canonical, digest
from runloop.errors import RunloopError
from runloop.events import (
    Draft,
    Event,
    GuestError,
    HostcallDelivered,
    NodeFinished,
    NodeScheduled,
    RunFinished,
    RunFork,
    RunStarted,
)
from runloop.ids import new_run_id
from runloop.ops import OPS
from runloop.testing import ManualClock
from runloopd.broker.calls import Answer, Answerer, Caller, HostCall
from runloopd.journal import Journal
from runloopd.runs.hearing import Branches
from runloopd.runs.recorded import RecordedAnswers
from runloopd.runs.runner import Runner

Calls = Callable[[str, Mapping[str, Any]], list[tuple[str, dict[str, Any]]]]


class World:
    """The gate's twin: answers every call with something it never said before, and keeps who asked."""

    def __init__(self, journal: Journal, reader: Reader) -> None:
        self._journal = journal
        self.reader = reader
        self.asked: Counter[tuple[str, str]] = Counter()
        """Run and node -> calls."""
        self.sent: list[str] = []

    def heard(self, run: str, node: str, attempt: int) -> list[int]:
        """Ledger ids of the answers to an attempt, as the gate's own fold has them."""
        return [
            event.id
            for event in self.reader.events(run=run, kinds=(HostcallDelivered.kind,))
            if isinstance(call := event.payload, HostcallDelivered)
            and (call.node, call.attempt) == (node, attempt)
        ]

    def answerer(self, caller: Caller) -> Answerer:
        return _Live(self, caller, self._journal)


class _Live:
    def __init__(self, world: World, caller: Caller, journal: Journal) -> None:
        self._world, self._caller, self._journal = world, caller, journal

    async def answer(self, call: HostCall) -> Answer:
        caller = self._caller
        self._world.asked[caller.run, caller.node] += 1
        if call.op == "mail.send":
            self._world.sent.append(call.args_digest)
        value = {"said": self._world.asked.total(), "model": caller.model}
        text = canonical(value)
        delivered = HostcallDelivered(
            node=caller.node,
            attempt=caller.attempt,
            call=call.index,
            op=call.op,
            effect=OPS[call.op].effect,
            args_digest=call.args_digest,
            args_blob=call.args_digest,
            ok=True,
            result_digest=blob_digest(text),
            result_blob=blob_digest(text),
            request_bytes=call.request_bytes,
            response_bytes=len(text),
            fuel=call.fuel,
        )
        await self._journal.append(
            Draft(payload=delivered, actor="daemon", run=caller.run), blobs=(canonical(call.args), text)
        )
        return Answer(ok=True, value=value)


class Guests:
    """Performs attempts: a pure function of the input and the answers, as guests are."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def perform(self, run: str, started: Event, scheduled: Event) -> None:
        stage, this = self._stage, cast(NodeScheduled, scheduled.payload)
        given: dict[str, Any] = msgspec.json.decode(stage.reader.blob(this.input_blob))
        caller = Caller(
            run=run,
            node=this.node,
            attempt=this.attempt,
            pin=cast(RunStarted, started.payload).agents[base(this.node)],
            token=b"",
            token_id="",
            ops=frozenset(),
            scheduled_id=scheduled.id,
        )
        heard: list[Any] = []
        try:
            answerer = stage.branches.answers(caller, stage.world.answerer(caller))
            for index, (op, args) in enumerate(stage.calls(this.node, given)):
                asked = HostCall(
                    index=index,
                    op=op,
                    args=args,
                    args_digest=blob_digest(canonical(args)),
                    fuel=10 * (index + 1),
                    request_bytes=len(canonical(args)),
                )
                heard.append((await answerer.answer(asked)).value)
            value = "the same" if this.node in stage.blunt else digest([given, heard])
            value = stage.gives.get(this.node, value)
            finished = _succeeded(this, value, len(heard))
        except RunloopError as error:
            finished = NodeFinished(
                node=this.node,
                attempt=this.attempt,
                status="failed",
                error=GuestError(
                    code=error.named_code,
                    message=error.message,
                    retryable=bool(getattr(error, "retryable", False)),
                ),
            )
        if stage.crashes(run, this):
            finished = NodeFinished(
                node=this.node,
                attempt=this.attempt,
                status="failed",
                error=GuestError(code="guest.crashed", message="the worker died", retryable=True),
            )
        await stage.journal.append(Draft(payload=finished, actor="daemon", run=run))


def _succeeded(this: NodeScheduled, value: Any, calls: int) -> NodeFinished:
    output = {"ports": {"out": [value]}, "artifacts": []}
    return NodeFinished(
        node=this.node,
        attempt=this.attempt,
        status="succeeded",
        output=output,
        output_digest=digest(output),
        fuel=100,
        calls=calls,
    )


def one_search(node: str, given: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Two calls: one about the input, one that is always the same."""
    return [("kb.search", {"query": digest(given)}), ("time.now", {})]


class Stage:
    """A ledger, guests and a world; runs whatever is started on it."""

    def __init__(self, folder: Path, opening: Opening, *, blunt: frozenset[str] = frozenset()) -> None:
        self.opening = opening
        self.blunt = blunt
        self.calls: Calls = one_search
        self.gives: dict[str, Any] = {}
        """Node -> what it gives, whatever it hears."""
        self.crashes: Callable[[str, NodeScheduled], bool] = lambda run, this: False
        path = folder / "events.db"
        self.clock = ManualClock()
        self.journal = Journal(Ledger.open(path, clock=self.clock), None, self.clock)
        self.reader = Reader(path)
        self.world = World(self.journal, self.reader)
        self.branches = Branches(reader=self.reader, journal=self.journal, gate=cast(Any, self.world))
        self._runners: dict[str, Runner] = {}
        self.journal.listen(self._feed)

    def _feed(self, events: list[Event]) -> None:
        for event in events:
            if event.run in self._runners:
                self._runners[str(event.run)].feed([event])

    async def close(self) -> None:
        await self.journal.close()
        self.reader.close()

    async def run(self, begun: RunStarted) -> str:
        """Run it to its end; returns its id."""
        name = new_run_id()

        async def settled(node: str, attempt: int) -> None: ...

        self._runners[name] = Runner(
            name, journal=self.journal, attempts=Guests(self), clock=self.clock, settled=settled
        )
        await self.journal.append(Draft(payload=begun, actor="operator:1", run=name))
        async with asyncio.timeout(60):
            await self._runners[name].loop()
        return name

    async def fork(self, origin: str, at: tuple[str, ...] = (), **more: Any) -> str:
        """Fork as the daemon does once the wish is judged."""
        begun = cast(RunStarted, next(self.reader.events(run=origin, limit=1)).payload)
        changes = more.pop("changes", {})
        fork = RunFork(
            run=origin,
            at=list(at),
            call=more.pop("call", None),
            changes=changes,
            answers=more.pop("answers", "recorded"),
        )
        return await self.run(
            msgspec.structs.replace(
                begun,
                params={**begun.params, **changes.get("set", {})},
                fork=fork,
                lineage=begun.lineage or origin,
            )
        )

    def told(self, run: str) -> Told:
        return Told(run=run, events=list(self.reader.events(run=run)))

    def end(self, run: str) -> RunFinished:
        (found,) = self.reader.events(run=run, kinds=(RunFinished.kind,))
        return cast(RunFinished, found.payload)

    def asked(self, run: str) -> set[str]:
        """Nodes of a run that asked the world anything."""
        return {node for name, node in self.world.asked if name == run}


def graph(edges: list[tuple[int, int]], size: int, using: frozenset[int]) -> Opening:
    """Nodes ``n0`` to ``n<size>``; those in ``using`` have the parameter ``p`` in their ``with``."""
    return Opening(
        name="graph",
        params={"p": Param(type="any", required=False, default=0)},
        nodes=tuple(
            Node(id=f"n{i}", use="agent:a", with_={"p": "{{params.p}}"} if i in using else {"me": i})
            for i in range(size)
        ),
        edges=tuple(Edge(source=Ref(f"n{a}", ("out",)), node=f"n{b}", port=f"in{a}") for a, b in edges),
        save=(Ref(f"n{size - 1}", ("out",)),),
    )


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Opening, frozenset[str], frozenset[str]]:
    """An opening, its nodes that give the same whatever they get, and those that have the parameter."""
    size = draw(st.integers(1, 9))
    pairs = [(a, b) for b in range(size) for a in range(b)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=14)) if pairs else []
    using = draw(st.frozensets(st.integers(0, size - 1), max_size=2))
    blunt = draw(st.frozensets(st.integers(0, size - 1), max_size=3))
    return graph(edges, size, using), _names(blunt), _names(using)


def _names(chosen: frozenset[int]) -> frozenset[str]:
    return frozenset(f"n{i}" for i in chosen)


def reached(opening: Opening, blunt: frozenset[str], using: frozenset[str]) -> set[str]:
    """Nodes whose input really changes with the parameter: worked out here, without the product's graphs."""
    changed: set[str] = set()
    for node in opening.nodes:  # declared in order of the edges
        sources = {edge.source.node for edge in opening.edges if edge.node == node.id}
        if node.id in using or any(source in changed and source not in blunt for source in sources):
            changed.add(node.id)
    return changed


@pytest.mark.requirement("I5.fork.2", "I5.fork.3")
@settings(max_examples=40, deadline=None)
@given(graphs())
def test_a_changed_byte_shows_its_causal_cone_and_nothing_else(
    made: tuple[Opening, frozenset[str], frozenset[str]],
) -> None:
    opening, blunt, using = made

    async def play(folder: Path) -> None:
        stage = Stage(folder, opening, blunt=blunt)
        try:
            origin = await stage.run(run_started(opening, {"p": 1}))
            same = await stage.fork(origin)
            found = compare(stage.told(origin), stage.told(same))
            assert found.identical, found.to_json()["differences"]
            assert stage.asked(same) == set()

            fork = await stage.fork(origin, changes={"set": {"p": 2}})
            found = compare(stage.told(origin), stage.told(fork))
            expected = reached(opening, blunt, using)
            assert found.nodes == expected
            assert stage.asked(fork) == expected
            assert str(found.differences[0].place) == "param p"
            places = [difference.place for difference in found.differences]
            for number, difference in enumerate(found.differences):
                assert difference.causes or difference.place.kind == "param"
                assert set(difference.causes) <= set(places[:number])
        finally:
            await stage.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder)))


CHAIN = graph([(0, 1), (1, 2)], 3, frozenset({1}))
Play = Callable[[Stage], Any]


def on_stage(opening: Opening, play: Play) -> None:
    async def whole(folder: Path) -> None:
        stage = Stage(folder, opening)
        try:
            await play(stage)
        finally:
            await stage.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(whole(Path(folder)))


@pytest.mark.requirement("I5.fork.4")
def test_a_node_outside_the_cone_that_leaves_the_record_ends_the_fork_and_is_never_served_live() -> None:
    async def play(stage: Stage) -> None:
        origin = await stage.run(run_started(CHAIN, {"p": 1}))
        stage.calls = lambda node, given: [
            ("kb.search", {"query": "something else" if node == "n0" else digest(given)}),
            ("time.now", {}),
        ]
        fork = await stage.fork(origin, ("n1",))
        end = stage.end(fork)
        assert end.outcome == "failed"
        assert end.error is not None
        assert end.error.code == "fork.divergence"
        assert "n0 attempt 1" in end.error.message
        assert stage.asked(fork) == set()

    on_stage(CHAIN, play)


def test_a_fork_that_left_the_record_fails_although_another_branch_would_make_it_a_success() -> None:
    opening = replace(
        graph([], 2, frozenset()), success=Success(mode="any_of", clauses=(Exists(Ref("n1", ("out",))),))
    )

    async def play(stage: Stage) -> None:
        origin = await stage.run(run_started(opening, {"p": 1}))
        assert stage.end(origin).outcome == "succeeded"
        stage.calls = lambda node, given: [("kb.search", {"query": "else"})] if node == "n0" else []
        end = stage.end(await stage.fork(origin, ("n1",), answers="live"))
        assert end.outcome == "failed"
        assert end.error is not None
        assert end.error.code == "fork.divergence"

    on_stage(opening, play)


def test_an_attempt_that_a_machine_ended_ends_so_again_and_the_fork_is_identical() -> None:
    opening = Opening(
        name="graph",
        params={"p": Param(type="any", required=False, default=0)},
        nodes=(Node(id="n0", use="agent:a", retry=Retry(max_attempts=2)), Node(id="n1", use="agent:a")),
        edges=(Edge(source=Ref("n0", ("out",)), node="n1", port="in"),),
    )

    async def play(stage: Stage) -> None:
        stage.crashes = lambda run, this: (this.node, this.attempt) == ("n0", 1)
        origin = await stage.run(run_started(opening, {"p": 1}))
        stage.crashes = lambda run, this: False
        fork = await stage.fork(origin)
        attempts = [e.payload for e in stage.reader.events(run=fork, kinds=(NodeScheduled.kind,))]
        assert [(a.node, a.attempt) for a in attempts if isinstance(a, NodeScheduled)] == [
            ("n0", 1),
            ("n0", 2),
            ("n1", 1),
        ]
        assert compare(stage.told(origin), stage.told(fork)).identical
        assert stage.asked(fork) == set()

    on_stage(opening, play)


def test_a_guest_that_asks_for_more_than_the_record_has_ends_the_fork() -> None:
    async def play(stage: Stage) -> None:
        origin = await stage.run(run_started(CHAIN, {"p": 1}))
        stage.calls = lambda node, given: [*one_search(node, given), ("time.now", {})]
        fork = await stage.fork(origin)
        error = stage.end(fork).error
        assert error is not None
        assert error.code == "fork.divergence"
        assert stage.asked(fork) == set()

    on_stage(CHAIN, play)


def test_in_the_cone_what_the_record_knows_is_heard_from_it_and_only_the_rest_is_asked() -> None:
    async def play(stage: Stage) -> None:
        origin = await stage.run(run_started(CHAIN, {"p": 1}))
        fork = await stage.fork(origin, changes={"set": {"p": 2}})
        calls = [e.payload for e in stage.reader.events(run=fork, kinds=(HostcallDelivered.kind,))]
        heard = {
            (call.node, call.op): call.recorded_in for call in calls if isinstance(call, HostcallDelivered)
        }
        assert heard["n0", "kb.search"] == heard["n0", "time.now"] == origin
        assert heard["n1", "time.now"] == heard["n2", "time.now"] == origin  # the same words as before
        assert heard["n1", "kb.search"] is None
        assert heard["n2", "kb.search"] is None

    on_stage(CHAIN, play)


def test_live_answers_ask_everything_in_the_cone_anew_but_never_send_the_same_twice() -> None:
    async def play(stage: Stage) -> None:
        stage.calls = lambda node, given: [("time.now", {}), ("mail.send", {"to": [node]})]
        origin = await stage.run(run_started(CHAIN, {"p": 1}))
        assert len(stage.world.sent) == 3
        fork = await stage.fork(origin, ("n1",), answers="live")
        assert stage.asked(fork) == {"n1", "n2"}
        assert len(stage.world.sent) == 3
        stage.calls = lambda node, given: [("time.now", {}), ("mail.send", {"to": [node, "eve"]})]
        other = await stage.fork(origin, ("n2",), answers="live")
        assert stage.end(other).error is not None  # n0 and n1 hear the record alone, and say something else
        assert len(stage.world.sent) == 3

    on_stage(CHAIN, play)


def test_a_fork_at_a_call_hears_the_record_alone_up_to_there() -> None:
    async def play(stage: Stage) -> None:
        origin = await stage.run(run_started(CHAIN, {"p": 1}))
        fork = await stage.fork(origin, ("n1",), call=1, answers="live")
        calls = [e.payload for e in stage.reader.events(run=fork, kinds=(HostcallDelivered.kind,))]
        heard = [
            (call.call, call.recorded_in)
            for call in calls
            if isinstance(call, HostcallDelivered) and call.node == "n1"
        ]
        assert heard == [(0, origin), (1, None)]

    on_stage(CHAIN, play)


def test_another_model_is_asked_below_the_point_and_nowhere_else() -> None:
    async def play(stage: Stage) -> None:
        stage.calls = lambda node, given: [("model.complete", {"messages": [], "template": node})]
        origin = await stage.run(run_started(CHAIN, {"p": 1}))
        fork = await stage.fork(origin, ("n1",), changes={"model": "other:one"})
        assert stage.asked(fork) == {"n1", "n2"}
        found = compare(stage.told(origin), stage.told(fork))
        assert found.nodes == {"n1", "n2"}
        assert str(found.differences[0].place) == "call n1 #0"

    on_stage(CHAIN, play)


MAPPED = Opening(
    name="graph",
    params={"p": Param(type="any", required=False, default=0)},
    nodes=(
        Node(id="n0", use="agent:a"),
        Node(id="m", use="agent:a", for_each=ForEach(port="in")),
        Node(id="n2", use="agent:a"),
    ),
    edges=(
        Edge(source=Ref("n0", ("out",)), node="m", port="in"),
        Edge(source=Ref("m", ("out",)), node="n2", port="in"),
    ),
)


def test_one_item_of_a_mapped_node_is_tried_anew_and_its_neighbours_hear_the_record() -> None:
    async def play(stage: Stage) -> None:
        stage.gives = {"n0": ["x", "y", "z"]}
        origin = await stage.run(run_started(MAPPED, {"p": 1}))
        assert compare(stage.told(origin), stage.told(await stage.fork(origin))).identical
        fork = await stage.fork(origin, ("m[1]",), answers="live")
        assert stage.asked(fork) == {"m[1]", "n2"}
        assert compare(stage.told(origin), stage.told(fork)).nodes == {"m[1]", "n2"}

    on_stage(MAPPED, play)


def test_a_fork_of_a_fork_is_the_same_run_to_its_guests() -> None:
    async def play(stage: Stage) -> None:
        origin = await stage.run(run_started(CHAIN, {"p": 1}))
        first = await stage.fork(origin, changes={"set": {"p": 2}})
        second = await stage.fork(first)
        assert compare(stage.told(first), stage.told(second)).identical
        begun = next(stage.reader.events(run=second, limit=1)).payload
        assert isinstance(begun, RunStarted)
        assert begun.lineage == origin

    on_stage(CHAIN, play)


def test_what_came_after_the_fork_was_made_is_no_part_of_what_it_repeats() -> None:
    async def play(stage: Stage) -> None:
        origin = await stage.run(run_started(CHAIN, {"p": 1}))
        events = list(stage.reader.events(run=origin))
        begun = cast(RunStarted, events[0].payload)
        fork = RunFork(run=origin, at=[], call=None, changes={}, answers="recorded")
        name = new_run_id()
        await stage.journal.append(
            Draft(payload=msgspec.structs.replace(begun, fork=fork), actor="operator:1", run=name)
        )
        (last,) = [e.payload for e in events if isinstance(e.payload, HostcallDelivered)][1:2]
        late = msgspec.structs.replace(last, call=last.call + 1)
        await stage.journal.append(Draft(payload=late, actor="daemon", run=origin))
        branch = stage.branches.of(name)
        assert branch is not None
        assert [a.call.call for a in branch.record.calls(late.node, late.attempt)] == [0, 1]

        half = [event for event in events if event.id < events[len(events) // 2].id]
        record = RecordedAnswers(half, stage.reader.blob)
        assert record.is_closed("n0")
        assert not record.is_closed("n2")
        assert not record.is_finished

    on_stage(CHAIN, play)


def test_runs_of_different_openings_are_refused_by_name() -> None:
    async def play(stage: Stage) -> None:
        one = await stage.run(run_started(CHAIN, {"p": 1}))
        other = await stage.run(
            msgspec.structs.replace(run_started(CHAIN, {"p": 1}), opening="another", agents=_pins(CHAIN))
        )
        with pytest.raises(RunloopError, match=r"is of graph, run .* of another"):
            compare(stage.told(one), stage.told(other))

    on_stage(CHAIN, play)


def _pins(opening: Opening) -> dict[str, Any]:
    return {node.id: pin("a") for node in opening.nodes}
