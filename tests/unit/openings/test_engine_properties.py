"""The engine in every weather: random openings, random outcomes, in random order, with crashes in between."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from openings import engine
from openings.definition import Edge, ForEach, Node, Opening, Retry, Success
from openings.engine import RUN_TIMER, Command, ScheduleNode, SetTimer
from openings.expressions import Compare, Exists, Ref
from openings.replay import AttemptOutcome, Reexecute, replay
from openings.state import (
    EXECUTING,
    LEGAL_MOVES,
    TERMINAL,
    Items,
    NodeState,
    RunState,
    base,
    item_id,
)
from openings.testing import Play
from runloop.events import NodeScheduled, RunCancelRequested, RunResumed
from tests.unit.openings.test_engine import answered, asked

VALUES = st.sampled_from([True, False, 0, 1, "x", None])
OUTPUTS = st.sampled_from([[1, None, 3, [4]], ["a", "b"], [1], [], True, False, 0, 1, "x", None])
"""What a node may give: lists too, for those that map over them."""
MAPPED = st.builds(
    ForEach, port=st.sampled_from(["p0", "p1"]), concurrency=st.integers(1, 3), max_failed=st.integers(0, 2)
)


@st.composite
def openings(draw: st.DrawFn, size: int = 6) -> Opening:
    """An acyclic opening: edges lead from earlier nodes to later ones, some of them guards."""
    count = draw(st.integers(1, size) | st.just(size))
    nodes = [
        Node(
            id=f"n{i}",
            use="agent:any",
            retry=Retry(
                max_attempts=draw(st.integers(1, 3)), initial_ms=draw(st.sampled_from([0, 100])), jitter=0.5
            ),
            timeout_ms=draw(st.sampled_from([None, 500])),
            requires=draw(st.sampled_from([None, (), ("p0",)])),
            for_each=draw(st.one_of(st.none(), MAPPED)) if i else None,
        )
        for i in range(count)
    ]
    edges: dict[str, Edge] = {}
    for target in range(1, count):
        mapped = nodes[target].for_each
        least = 0 if mapped is None else 1
        for source in draw(st.lists(st.integers(0, target - 1), min_size=least, max_size=3)):
            op = draw(st.sampled_from([None, None, "==", "!=", ">"]))
            edge = Edge(
                source=Ref(f"n{source}", (draw(st.sampled_from(["out", "ok"])),)),
                node=f"n{target}",
                port=draw(st.sampled_from(["p0", "p1", *([mapped.port] * 4 if mapped is not None else [])])),
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
    for name, run in play.state.nodes.items():
        assert run.attempt <= play.state.definition(name).retry.max_attempts, "no attempt beyond the limit"
    for node in opening.nodes:
        items = play.state.items.get(node.id)
        if items is not None:
            check_items(play, node, items)
        if play.state.nodes[node.id].attempt == 0 and items is None:
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


def check_items(play: Play, node: Node, items: Items) -> None:
    """What must hold of the items of a mapped node."""
    assert node.for_each is not None
    state = play.state
    assert items.open.bit_count() <= node.for_each.concurrency, "no more at a time than may"
    tried = [name for name in state.nodes if base(name) == node.id and name != node.id]
    assert sorted(tried) == sorted(item_id(node.id, i) for i in range(items.admitted)), "in their order"
    failed = [name for name in tried if state.nodes[name].state is NodeState.FAILED]
    assert len(failed) == items.failed
    first = state.nodes[node.id]
    assert first.attempt == 0, "a mapped node makes no attempt of its own"
    if first.state is NodeState.SUCCEEDED:
        assert items.failed <= node.for_each.max_failed
        assert all(state.nodes[name].state in TERMINAL for name in tried)
        assert all(len(values) == 1 and isinstance(values[0], list) for values in first.ports.values())
    if items.closed and first.state is NodeState.RUNNING and not state.ending:
        due = [c for c in play.due if isinstance(c, ScheduleNode) and base(c.node) == node.id]
        assert not due, "nothing starts once too many have failed"


def looked_at_all(state: RunState) -> list[Command]:
    """What is due, found by looking at every node: what the indexes of the state save."""
    assert state.opening is not None
    names = [
        name
        for node in state.opening.nodes
        for name in (*sorted((n for n in state.nodes if base(n) == node.id != n), key=state.place), node.id)
    ]
    alive = [name for name in names if state.nodes[name].state not in TERMINAL]
    if state.finished or not state.open:
        return engine.due(state)
    if state.ending:
        return [engine._cancel(state, name) for name in alive]
    wait = state.timeout_ms is not None and RUN_TIMER not in state.timers_set
    first = [SetTimer(timer=RUN_TIMER, after_ms=state.timeout_ms or 0)] if wait else []
    found = (engine._next(state, state.nodes[name]) for name in alive)
    return [*first, *(command for command in found if command is not None)]


class Watch:
    """Looks at a run after whatever happened to it, and asserts what must always hold."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.folded = 0
        self.grown = engine.initial()
        self.offered: list[Command] = []

    def look(self) -> None:
        self.every_move_is_legal_and_what_falls_due_is_offered_then()
        self.the_record_holds()
        self.growing_and_rebuilding_are_the_same()
        self.the_indexes_say_what_a_look_at_every_node_says()
        self.little_room_is_filled_from_the_front()
        self.a_run_that_is_not_over_waits_for_something()

    def every_move_is_legal_and_what_falls_due_is_offered_then(self) -> None:
        """The latter is what a replay relies on: nobody looks at the whole run after every event."""
        for event in self.play.events[self.folded :]:
            before, self.grown = self.grown, engine.apply(self.grown, event)
            self.offered += engine.fresh(before, self.grown)
            for name, node in self.grown.nodes.items():
                was = before.nodes.get(name)
                if was is None:
                    assert base(name) != name or before.opening is None, "only items come later"
                    continue
                # One event moves a node twice at most: what should be mapped over is no list.
                moves = LEGAL_MOVES[was.state]
                assert node.state in {was.state, *moves, *(s for m in moves for s in LEGAL_MOVES[m])}
                assert was.state not in TERMINAL or node == was, "what has ended stays as it ended"
                assert node == was or name in self.grown.touched
        self.folded = len(self.play.events)
        assert all(command in self.offered for command in self.play.due)

    def the_record_holds(self) -> None:
        check_run(self.play)

    def growing_and_rebuilding_are_the_same(self) -> None:
        rebuilt = engine.fold(self.play.events)
        assert rebuilt == self.play.state
        assert engine.due(rebuilt) == self.play.due

    def the_indexes_say_what_a_look_at_every_node_says(self) -> None:
        state = self.play.state
        assert state.opening is not None
        assert self.play.due == looked_at_all(state)
        assert dict(state.executing) == {
            n.id: n.attempt for n in state.nodes.values() if n.state in EXECUTING and n.attempt
        }
        assert state.running == sum(state.nodes[name].state is NodeState.RUNNING for name in state.executing)
        for node in state.opening.nodes:
            sources = [state.nodes[edge.source.node].state for edge in state.opening.inbound(node.id)]
            assert state.undecided.get(node.id, 0) == sum(source not in TERMINAL for source in sources)
        wanted = {RUN_TIMER, *(node.live_timer for node in state.nodes.values())}
        live = set(state.timers_set) & wanted - state.timers_fired
        assert set(state.timers) == live

    def little_room_is_filled_from_the_front(self) -> None:
        due = self.play.due
        for room in (0, 1, 2):
            starts = [command for command in due if isinstance(command, ScheduleNode)][room:]
            assert engine.due(self.play.state, room=room) == [c for c in due if c not in starts]

    def a_run_that_is_not_over_waits_for_something(self) -> None:
        state = self.play.state
        assert state.finished or self.play.due or state.active or state.live_timers()


class Weather(RuleBasedStateMachine):
    """One run; every rule is something that may happen to it, or a part of what is due being carried out."""

    play: Play
    questions = 0

    @initialize(opening=openings(), timeout=st.sampled_from([None, 10_000]))
    def start(self, opening: Opening, timeout: int | None) -> None:
        self.play = Play(opening, timeout_ms=timeout)
        self.watch = Watch(self.play)

    def running(self) -> list[str]:
        return [name for name, _ in self.play.state.active]

    @rule(data=st.data())
    def carry_out_some(self, data: st.DataObject) -> None:
        due = self.play.due
        if due:
            # The runner states everything that is due in one append; a prefix is what a crash may leave.
            self.play.carry_out(due[: data.draw(st.integers(1, len(due)))])

    @rule()
    def carry_out_all(self) -> None:
        self.play.settle()

    @rule(out=OUTPUTS, ok=VALUES)
    def everybody_succeeds(self, out: Any, ok: Any) -> None:
        for name in self.running():
            self.play.succeed(name, out=out, ok=ok)
        self.play.settle()

    @precondition(lambda self: self.running())
    @rule(data=st.data(), out=OUTPUTS, ok=VALUES, which=st.integers(0, 3))
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

    @precondition(lambda self: self.running() or self.play.due)
    @rule()
    def crash_and_resume(self) -> None:
        self.play.say(RunResumed(reason="the daemon started"))

    @precondition(lambda self: len(self.play.events) > 6 and self.play.state.cancel is None)
    @rule(sure=st.integers(0, 9))
    def cancel(self, sure: int) -> None:
        if sure == 9:
            self.play.say(RunCancelRequested(principal="operator:1", reason="enough"))

    @invariant()
    def everything_holds(self) -> None:
        self.watch.look()

    def teardown(self) -> None:
        if not hasattr(self, "play"):
            return
        finish(self.play)
        check_run(self.play)
        assert all(node.state in TERMINAL for node in self.play.state.nodes.values())
        assert_replays(self.play)


def assert_replays(play: Play) -> None:
    steps = replay(play.events)
    try:
        demand = next(steps)
        while True:
            assert isinstance(demand, Reexecute)
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
    for _ in range(1_000):
        if play.state.finished:
            return
        play.settle()
        running = play.state.active
        if running:
            name = running[0][0]
            follows = () if play.state.opening is None else play.state.opening.outbound(base(name))
            maps = any(play.state.definition(edge.node).for_each is not None for edge in follows)
            play.succeed(name, out=[1, 2] if maps else True, ok=True)
        elif timers := play.state.live_timers():
            play.fire(min(timers, key=lambda name: (timers[name], name)))
    raise AssertionError(f"the run does not end: {engine.summary(play.state)}")


TestWeather = Weather.TestCase
TestWeather.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@settings(max_examples=60, deadline=None)
@given(openings(), st.lists(st.tuples(st.integers(0, 3), OUTPUTS, VALUES), max_size=30))
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


def drawn(dice: Random) -> Opening:
    """An opening with long chains, wide joins, guards and lists, most of which run."""
    nodes, edges = [], {}
    for i in range(dice.randint(3, 12)):
        plan = ForEach(port="p0", concurrency=dice.randint(1, 4), max_failed=dice.randint(0, 2))
        node = Node(
            id=f"n{i}",
            use="agent:any",
            retry=Retry(max_attempts=dice.randint(1, 3), initial_ms=dice.choice([0, 100]), jitter=0.5),
            timeout_ms=dice.choice([None, 500]),
            requires=dice.choice([None, (), ()]),
            for_each=plan if i and dice.random() < 0.4 else None,
        )
        nodes.append(node)
        for source in dice.sample(range(i), k=min(i, dice.randint(1, 3))):
            guard = dice.random() < 0.15
            edge = Edge(
                source=Ref(f"n{source}", (dice.choice(["out", "out", "ok"]),)),
                node=node.id,
                port=dice.choice(["p0", "p0", "p1"]),
                op="==" if guard else None,
                literal=True if guard else None,
            )
            edges[str(edge)] = edge
    return Opening(name="random", nodes=tuple(nodes), edges=tuple(edges.values()))


def something_happens(play: Play, dice: Random, number: int) -> None:
    running = [name for name, _ in play.state.active]
    timers = sorted(play.state.live_timers())
    what = dice.random()
    if play.due and what < 0.4:
        play.carry_out(play.due[: dice.randint(1, len(play.due))])
    elif running and what < 0.85:
        name = dice.choice(running)
        if dice.random() < 0.2:
            play.fail(name, retryable=dice.random() < 0.6)
        elif dice.random() < 0.15:
            play.say(asked(name, f"ap_{number}", play.state.nodes[name].attempt))
        else:
            out = dice.choice([[1, 2, 3], [], list(range(7)), [True], True, "x"])
            play.succeed(name, out=out, ok=dice.choice([True, True, False]))
    elif what < 0.9 and (waiting := sorted(play.state.waiting)):
        node = play.state.nodes[waiting[0]]
        play.say(answered(node.id, dice.choice(["approved", "denied"]), min(node.approvals)))
    elif what < 0.94 and timers:
        play.fire(dice.choice(timers))
    elif what < 0.98:
        play.say(RunResumed(reason="the daemon started"))
    elif dice.random() < 0.15:
        play.say(RunCancelRequested(principal="operator:1", reason="enough"))


@pytest.mark.requirement("I5.engine.3")
@pytest.mark.parametrize("part", range(8))
def test_whatever_happens_every_run_holds_ends_and_replays(part: int) -> None:
    """Deep runs, where the machine above finds short ones: each of so many is another world."""
    kinds: Counter[str] = Counter()
    for seed in range(part * 25, part * 25 + 25):
        dice = Random(seed)
        play = Play(drawn(dice), timeout_ms=dice.choice([None, None, 10_000]))
        watch = Watch(play)
        for number in range(120):
            if play.state.finished:
                break
            something_happens(play, dice, number)
            watch.look()
        finish(play)
        watch.look()
        assert_replays(play)
        kinds.update(event.kind for event in play.events)
    every = ("node.gathered", "node.expanded", "node.skipped", "node.cancelled", "timer.fired", "run.resumed")
    assert all(kinds[kind] for kind in every), "these worlds have everything in them"
