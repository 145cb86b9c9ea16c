"""Nodes that map over a list, event by event."""

from __future__ import annotations

from typing import Any

import pytest

from openings import engine
from openings.definition import Edge, ForEach, Node, Opening, Retry, Success
from openings.engine import CancelNode, ExpandNode, GatherNode, ScheduleNode, SetTimer
from openings.errors import EngineError
from openings.expressions import Compare, Ref
from openings.state import NodeState, base
from openings.testing import RUN, Play
from runloop.digest import digest
from runloop.events import NodeExpanded, NodeScheduled, RunCancelRequested, RunFinished
from tests.unit.openings.test_engine import answered, asked


def mapped(
    *, concurrency: int = 2, max_failed: int = 0, retry: Retry | None = None, guard: Any = None, **each: Any
) -> Opening:
    """``list`` gives a list and a ``key``, ``each`` maps over it, ``last`` takes what comes of it."""
    node = Node(
        id="each",
        use="agent:each",
        for_each=ForEach(port="x", concurrency=concurrency, max_failed=max_failed),
        retry=retry or Retry(),
        requires=("x",),
        **each,
    )
    ends = Edge(source=Ref("each", ("out",)), node="last", port="xs", **(guard or {}))
    return Opening(
        name="mapped",
        nodes=(Node(id="list", use="agent:list"), node, Node(id="last", use="agent:last")),
        edges=(
            Edge(source=Ref("list", ("out",)), node="each", port="x"),
            Edge(source=Ref("list", ("key",)), node="each", port="key"),
            ends,
        ),
    )


def begun(opening: Opening, values: Any, **policy: Any) -> Play:
    """A run whose list is there."""
    play = Play(opening, **policy)
    play.settle()
    play.succeed("list", out=values, key="k")
    return play


def items(commands: list[engine.Command]) -> list[str]:
    return [c.node for c in commands if isinstance(c, ScheduleNode)]


@pytest.mark.requirement("I5.engine.1")
def test_each_item_is_served_like_a_node_with_its_own_value_and_the_others_whole() -> None:
    play = begun(mapped(), ["a", "b", "c"])
    assert play.carry_out() == [ExpandNode(node="each", items=3, items_digest=digest(["a", "b", "c"]))]
    first, second = play.due
    assert isinstance(first, ScheduleNode)
    assert isinstance(second, ScheduleNode)
    assert (first.node, second.node) == ("each[0]", "each[1]")
    assert first.input == {"ports": {"x": ["a"], "key": ["k"]}, "with": {}}
    assert first.key == digest(["attempt", RUN, "each[0]", 1, digest(first.input)])


@pytest.mark.requirement("I5.engine.1")
def test_no_more_items_than_the_bound_are_tried_at_a_time_and_in_their_order() -> None:
    play = begun(mapped(concurrency=2), [1, 2, 3, 4])
    assert items(play.settle()) == ["each[0]", "each[1]"]
    play.succeed("each[1]", out=1)
    assert items(play.settle()) == ["each[2]"]
    play.succeed("each[0]", out=1)
    assert items(play.settle()) == ["each[3]"]


@pytest.mark.requirement("I5.engine.1")
def test_the_output_is_the_list_of_the_last_values_in_the_order_of_the_items() -> None:
    play = begun(mapped(concurrency=3), [1, 2, 3])
    play.settle()
    for name, value in (("each[2]", 30), ("each[0]", 10)):
        play.succeed(name, out=value)
    play.succeed("each[1]", other=20)
    (gather,) = play.due
    given = {"out": [10, 30], "other": [20]}
    assert gather == GatherNode(
        node="each", status="succeeded", items=3, failed=0, output_digest=digest(given), error=None
    )
    play.carry_out()
    assert play.state.nodes["each"].ports == {"out": ([10, 30],), "other": ([20],)}
    (last,) = play.due
    assert isinstance(last, ScheduleNode)
    assert last.input["ports"] == {"xs": [[10, 30]]}


def test_no_item_gives_empty_lists_on_what_is_asked_for() -> None:
    play = begun(mapped(), [])
    play.settle()
    assert play.state.nodes["each"].ports == {"out": ([],)}
    assert play.state.nodes["last"].state is NodeState.RUNNING


def test_a_field_of_the_items_own_port_is_gathered_as_well() -> None:
    opening = mapped()
    edge = Edge(source=Ref("each", ("ok",)), node="last", port="oks")
    play = begun(Opening(name="m", nodes=opening.nodes, edges=(*opening.edges, edge)), [1, 2])
    play.settle()
    play.succeed("each[0]", each={"ok": True}).succeed("each[1]", each={"ok": False})
    play.settle()
    assert play.state.lookup(Ref("each", ("ok",))) == [True, False]


@pytest.mark.parametrize(
    ("value", "what"),
    [("text", "a string"), ({}, "a object"), (None, "a null"), ([0] * 10_001, "a list of 10001 items")],
    ids=["text", "object", "null", "long"],
)
def test_what_is_no_list_of_a_bearable_length_fails_the_node_by_name(value: Any, what: str) -> None:
    play = begun(mapped(), value)
    (gather,) = play.carry_out()
    assert isinstance(gather, GatherNode)
    assert gather.error is not None
    assert gather.error.code == "node.for_each"
    assert what in gather.error.message
    assert play.state.nodes["each"].state is NodeState.FAILED


@pytest.mark.requirement("I5.engine.1")
def test_one_failure_too_many_starts_nothing_more_and_lets_what_runs_end() -> None:
    play = begun(mapped(concurrency=2, max_failed=1), list(range(6)))
    play.settle()
    play.fail("each[0]")
    assert items(play.settle()) == ["each[2]"]
    play.fail("each[1]")
    assert play.settle() == [], "each[2] still runs"
    play.succeed("each[2]", out=1)
    (gather, *_) = play.settle()
    assert isinstance(gather, GatherNode)
    assert (gather.status, gather.items, gather.failed) == ("failed", 6, 2)
    assert gather.error is not None
    assert gather.error.message == "2 of 6 items failed; each[0]: it did not work"


def test_an_item_that_waits_for_its_next_attempt_is_given_up_when_too_many_have_failed() -> None:
    play = begun(mapped(retry=Retry(max_attempts=2, initial_ms=100)), [1, 2])
    play.settle()
    play.fail("each[0]", retryable=True)
    play.settle()
    play.fail("each[1]")
    assert play.carry_out() == [CancelNode(node="each[0]", attempt=None, reason="1 items of each failed")]
    play.settle()
    assert play.state.nodes["each"].state is NodeState.FAILED
    finished = play.events[-1].payload
    assert isinstance(finished, RunFinished)
    assert finished.outcome == "failed", "nobody cancelled the run"


def test_failures_that_may_be_are_left_out() -> None:
    play = begun(mapped(max_failed=1), [1, 2, 3])
    play.settle()
    play.fail("each[0]").succeed("each[1]", out=2)
    play.settle()
    play.succeed("each[2]", out=3)
    play.settle()
    assert play.state.nodes["each"].ports == {"out": ([2, 3],)}


def test_retries_time_limits_and_questions_are_each_items_own() -> None:
    play = begun(mapped(retry=Retry(max_attempts=2, initial_ms=100, jitter=0), timeout_ms=500), [1, 2])
    play.settle()
    assert set(play.state.live_timers()) == {"node:each[0]:1:timeout", "node:each[1]:1:timeout"}
    play.fail("each[0]", retryable=True)
    assert play.due == [SetTimer(timer="node:each[0]:2:backoff", after_ms=100)]
    play.settle()
    play.say(asked("each[1]"))
    assert play.state.waiting == {"each[1]"}
    play.say(answered("each[1]", "approved"))
    assert play.due == [SetTimer(timer="node:each[1]:1:timeout:2", after_ms=500)]
    play.fire("node:each[0]:2:backoff")
    assert items(play.settle()) == ["each[0]"]
    assert play.state.nodes["each[0]"].attempt == 2


def test_a_cancelled_run_ends_the_items_before_the_node() -> None:
    play = begun(mapped(), [1, 2, 3])
    play.settle()
    play.say(RunCancelRequested(principal="operator:1", reason="enough"))
    assert [(c.node, c.attempt) for c in play.due if isinstance(c, CancelNode)] == [
        ("each[0]", 1),
        ("each[1]", 1),
        ("each", None),
        ("last", None),
    ]
    play.settle()
    assert "each[2]" not in play.state.nodes
    assert play.state.outcome == "cancelled"


def test_guards_and_success_judge_the_list() -> None:
    opening = mapped(guard={"op": "!=", "literal": None})
    success = Success(clauses=(Compare(Ref("each", ("out",)), "!=", None),))
    play = begun(Opening(name="m", nodes=opening.nodes, edges=opening.edges, success=success), [1])
    play.settle()
    play.succeed("each[0]", out=5)
    play.settle()
    assert play.state.nodes["last"].state is NodeState.RUNNING
    play.succeed("last", out=1)
    play.settle()
    assert play.state.outcome == "succeeded"


@pytest.mark.parametrize(
    "payload",
    [
        NodeExpanded(node="each", items=2, items_digest=digest([1])),
        NodeScheduled(node="each", attempt=1, key="k", input_digest="d", input_blob="d"),
        NodeScheduled(node="each[0]", attempt=1, key="k", input_digest="d", input_blob="d"),
    ],
    ids=["another_list", "the_node_itself", "an_item_before_its_time"],
)
def test_a_record_this_engine_cannot_have_led_to_is_refused(payload: Any) -> None:
    play = begun(mapped(), [1])
    with pytest.raises(EngineError):
        play.say(payload)


def test_people_see_how_many_are_done_and_the_items_that_are_not() -> None:
    play = begun(mapped(concurrency=2), [1, 2, 3])
    play.settle()
    play.succeed("each[0]", out=1)
    play.settle()
    shown = engine.summary(play.state)["nodes"]
    assert shown["each"]["items"] == {"total": 3, "done": 1, "open": 2, "failed": 0}
    assert [name for name in shown if base(name) == "each"] == ["each", "each[1]", "each[2]"]
