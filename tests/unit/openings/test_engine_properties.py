"""The engine in every weather: random openings, random outcomes, in random order, with crashes in between."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from openings import engine
from openings.definition import Edge, Node, Opening, Retry, Success
from openings.engine import ScheduleNode
from openings.expressions import Compare, Exists, Ref
from openings.replay import AttemptOutcome, Reexecute, replay
from openings.state import LEGAL_MOVES, TERMINAL, NodeState
from openings.testing import Play
from runloop.events import NodeScheduled, RunCancelRequested, RunResumed
from tests.unit.openings.test_engine import answered, asked

VALUES = st.sampled_from([True, False, 0, 1, "x", None])


@st.composite
def openings(draw: st.DrawFn, size: int = 6) -> Opening:
    """An acyclic opening: edges lead from earlier nodes to later ones, some of them guards."""
    count = draw(st.integers(1, size))
    nodes = [
        Node(
            id=f"n{i}",
            use="agent:any",
            retry=Retry(
                max_attempts=draw(st.integers(1, 3)), initial_ms=draw(st.sampled_from([0, 100])), jitter=0.5
            ),
            timeout_ms=draw(st.sampled_from([None, 500])),
            requires=draw(st.sampled_from([None, (), ("p0",)])),
        )
        for i in range(count)
    ]
    edges: dict[str, Edge] = {}
    for target in range(1, count):
        for source in draw(st.lists(st.integers(0, target - 1), max_size=3)):
            op = draw(st.sampled_from([None, None, "==", "!=", ">"]))
            edge = Edge(
                source=Ref(f"n{source}", (draw(st.sampled_from(["out", "ok"])),)),
                node=f"n{target}",
                port=f"p{draw(st.integers(0, 1))}",
                op=op,
                literal=None if op is None else draw(VALUES),
            )
            edges[str(edge)] = edge
    last = Ref(f"n{count - 1}", ("out",))
    success = draw(
        st.sampled_from(
            [
                None,
                Success(mode="any_of", clauses=(Exists(last),)),
                Success(clauses=(Compare(last, "==", True),)),
            ]
        )
    )
    return Opening(name="random", nodes=tuple(nodes), edges=tuple(edges.values()), success=success)


def check_run(play: Play) -> None:
    """What must hold of every record, at every moment."""
    opening = play.state.opening
    assert opening is not None
    scheduled = [
        (e.payload.node, e.payload.attempt) for e in play.events if isinstance(e.payload, NodeScheduled)
    ]
    assert len(scheduled) == len(set(scheduled)), "no attempt starts twice"
    for node in opening.nodes:
        run = play.state.nodes[node.id]
        assert run.attempt <= node.retry.max_attempts, "no attempt beyond the limit"
        if run.attempt == 0:
            continue
        for edge in opening.inbound(node.id):
            assert play.state.nodes[edge.source.node].state in TERMINAL, "fan-in waits"
            if edge.op is not None:
                value = play.state.lookup(edge.source)
                source = play.state.nodes[edge.source.node]
                assert source.state is NodeState.SUCCEEDED, "a guard on what did not succeed is not true"
                if edge.op == "==":
                    assert value == edge.literal, "nothing runs behind a false guard"
                    assert isinstance(value, bool) == isinstance(edge.literal, bool)


class Weather(RuleBasedStateMachine):
    """One run; every rule is something that may happen to it, or a part of what is due being carried out."""

    play: Play
    questions = 0

    @initialize(opening=openings(), timeout=st.sampled_from([None, 10_000]))
    def start(self, opening: Opening, timeout: int | None) -> None:
        self.play = Play(opening, timeout_ms=timeout)
        self.before = dict(self.play.state.nodes)

    def running(self) -> list[str]:
        return [name for name, _ in self.play.state.active]

    @rule(data=st.data())
    def carry_out_some(self, data: st.DataObject) -> None:
        due = self.play.due
        if due:
            # The runner states everything that is due in one append; a prefix is what a crash may leave.
            self.play.carry_out(due[: data.draw(st.integers(1, len(due)))])

    @precondition(lambda self: self.running())
    @rule(data=st.data(), out=VALUES, ok=VALUES, which=st.integers(0, 3))
    def succeed(self, data: st.DataObject, out: Any, ok: Any, which: int) -> None:
        ports = [{"out": out, "ok": ok}, {"out": out}, {"ok": ok}, {}][which]
        self.play.succeed(data.draw(st.sampled_from(self.running())), **ports)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), retryable=st.booleans())
    def fail(self, data: st.DataObject, retryable: bool) -> None:
        self.play.fail(data.draw(st.sampled_from(self.running())), retryable=retryable)

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        self.questions += 1
        node = data.draw(st.sampled_from(self.running()))
        attempt = self.play.state.nodes[node].attempt
        self.play.say(asked(node, f"ap_{self.questions}", attempt))

    @rule(data=st.data(), decision=st.sampled_from(["approved", "denied", "expired", "undone"]))
    def answer(self, data: st.DataObject, decision: str) -> None:
        open_ = [(n.id, ap) for n in self.play.state.nodes.values() for ap in sorted(n.asked)]
        if open_:
            node, approval = data.draw(st.sampled_from(open_))
            self.play.say(answered(node, decision, approval))

    @rule(data=st.data())
    def fire_any_timer(self, data: st.DataObject) -> None:
        timers = sorted(set(self.play.state.timers_set) - self.play.state.timers_fired)
        if timers:
            self.play.fire(data.draw(st.sampled_from(timers)))

    @rule()
    def crash_and_resume(self) -> None:
        self.play.say(RunResumed(reason="the daemon started"))

    @rule(sure=st.integers(0, 9))
    def cancel(self, sure: int) -> None:
        if sure == 0:
            self.play.say(RunCancelRequested(principal="operator:1", reason="enough"))

    @invariant()
    def every_move_is_legal(self) -> None:
        for name, node in self.play.state.nodes.items():
            was = self.before[name].state
            # Between two looks a node may have moved twice at most: pending, ready, running.
            reachable = LEGAL_MOVES[was] | {s for m in LEGAL_MOVES[was] for s in LEGAL_MOVES[m]} | {was}
            assert node.state in reachable
            assert was not in TERMINAL or node == self.before[name], "what has ended stays as it ended"
        self.before = dict(self.play.state.nodes)

    @invariant()
    def the_record_holds(self) -> None:
        check_run(self.play)

    @invariant()
    def growing_and_rebuilding_are_the_same(self) -> None:
        rebuilt = engine.fold(self.play.events)
        assert rebuilt == self.play.state
        assert engine.due(rebuilt) == self.play.due

    @invariant()
    def a_run_that_is_not_over_waits_for_something(self) -> None:
        state = self.play.state
        assert state.finished or self.play.due or state.active or state.live_timers()

    def teardown(self) -> None:
        if not hasattr(self, "play"):
            return
        finish(self.play)
        check_run(self.play)
        assert all(node.state in TERMINAL for node in self.play.state.nodes.values())
        steps = replay(self.play.events)
        try:
            demand = next(steps)
            while True:
                demand = steps.send(faithful(demand))
        except StopIteration as ended:
            report = ended.value
        assert report.divergence is None, report.divergence
        assert report.identical


def faithful(demand: Reexecute) -> AttemptOutcome:
    ended = demand.expected
    if ended is None:
        return AttemptOutcome(ok=True, calls=len(demand.recorded))
    return AttemptOutcome(
        ok=ended.status == "succeeded",
        output_digest=ended.output_digest,
        error=ended.error,
        fuel=ended.fuel,
        calls=ended.calls,
    )


def finish(play: Play) -> None:
    """Let everything come to an end by itself; it must, in a bounded number of steps."""
    for _ in range(500):
        if play.state.finished:
            return
        play.settle()
        running = play.state.active
        if running:
            play.succeed(running[0][0], out=True, ok=True)
        elif timers := play.state.live_timers():
            play.fire(min(timers, key=lambda name: (timers[name], name)))
    raise AssertionError(f"the run does not end: {engine.summary(play.state)}")


TestWeather = Weather.TestCase
TestWeather.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@settings(max_examples=60, deadline=None)
@given(openings(), st.lists(st.tuples(st.integers(0, 3), VALUES, VALUES), max_size=30))
def test_every_run_ends_and_its_definition_survives_json(opening: Opening, script: list[Any]) -> None:
    assert Opening.from_json(opening.to_json()) == opening
    play = Play(opening)
    for how, out, ok in script:
        play.settle()
        if not play.state.active:
            break
        node = play.state.active[0][0]
        if how == 0:
            play.fail(node, retryable=bool(ok))
        else:
            play.succeed(node, **({"out": out, "ok": ok} if how == 1 else {"out": out} if how == 2 else {}))
    finish(play)
    check_run(play)


@pytest.mark.requirement("I2.engine.1")
@settings(max_examples=40, deadline=None)
@given(openings())
def test_what_is_due_does_not_depend_on_how_it_was_carried_out(opening: Opening) -> None:
    """All at once, or one by one: the same attempts with the same inputs and keys."""
    whole, single = Play(opening), Play(opening)
    for _ in range(40):
        whole.carry_out()
        if single.due:
            single.carry_out(single.due[:1])
    first = [c for c in (e.payload for e in whole.events) if isinstance(c, NodeScheduled)]
    second = [c for c in (e.payload for e in single.events) if isinstance(c, NodeScheduled)]
    assert sorted(first, key=repr) == sorted(second, key=repr)
    assert not any(isinstance(c, ScheduleNode) for c in (*whole.due, *single.due))
