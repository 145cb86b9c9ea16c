"""What facts mean for a run: golden histories folded without a terminal."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agtop.model.facts import Fact, Unknown, fact_of, told
from agtop.model.line import line_of
from agtop.model.reduce import fold, reduce
from agtop.model.state import OVER, RunState
from agtop.model.trail import Trail
from runloop.errors import UsageError
from runloop.events import KINDS

HISTORIES = Path(__file__).parents[2] / "histories"
NAMES = sorted(path.stem for path in HISTORIES.glob("*.jsonl"))


@cache
def facts_of(name: str) -> tuple[Fact, ...]:
    return tuple(fact_of(json.loads(line)) for line in (HISTORIES / f"{name}.jsonl").open())


def whole(name: str) -> RunState:
    facts = facts_of(name)
    return fold(RunState(run=str(facts[0].run)), facts)


def upto(name: str, kind: str, *, more: int = 0) -> RunState:
    """The state right after the first fact of a kind."""
    facts = facts_of(name)
    place = next(at for at, fact in enumerate(facts) if fact.kind == kind)
    return fold(RunState(run=str(facts[0].run)), facts[: place + 1 + more])


@pytest.mark.parametrize("name", NAMES)
def test_at_its_end_a_run_says_how_it_ended_and_no_node_is_left_under_way(name: str) -> None:
    state = whole(name)
    (finished,) = (fact for fact in facts_of(name) if fact.kind == "run.finished" and fact.run == state.run)
    assert state.outcome == told(finished)["outcome"]
    assert state.finished_ms is not None
    assert {node.word for node in state.nodes.values()} <= OVER
    assert not state.asks
    assert not state.unknown


@pytest.mark.parametrize("name", NAMES)
def test_every_node_of_the_opening_is_there_from_the_first_fact_on(name: str) -> None:
    state = fold(RunState(run=str(facts_of(name)[0].run)), facts_of(name)[:1])
    declared = {node.id for node in state.graph.nodes}
    assert declared == set(state.nodes)
    assert {node.word for node in state.nodes.values()} == {"pending"}
    place = {node.id: at for at, node in enumerate(state.graph.nodes)}
    assert all(place[edge.source] < place[edge.target] for edge in state.graph.edges)


def test_a_node_that_asks_a_person_waits_and_runs_on_when_they_answered() -> None:
    asked = upto("approved", "action.requested")
    assert (asked.nodes["send"].word, asked.asks, asked.word) == ("waiting", 1, "waiting")
    (approval,) = asked.approvals.values()
    assert approval.state == "open"
    decided = upto("approved", "action.decided")
    assert (decided.nodes["send"].word, decided.asks, decided.word) == ("running", 0, "running")
    assert next(iter(decided.approvals.values())).state == "approved"


def test_a_denied_effect_is_told_with_who_denied_it() -> None:
    (approval,) = whole("denied").approvals.values()
    assert approval.state == "denied"
    assert approval.principal.startswith("operator:")


def test_what_nobody_answered_is_void_once_the_run_is_over() -> None:
    facts = facts_of("approved")
    place = next(at for at, fact in enumerate(facts) if fact.kind == "action.requested")
    state = fold(RunState(run=str(facts[0].run)), (*facts[: place + 1], facts[-1]))
    assert [approval.state for approval in state.approvals.values()] == ["voided"]
    assert state.asks == 0


def test_a_question_to_a_person_makes_its_node_wait() -> None:
    asked = upto("assisted", "promise.created")
    assert (asked.word, asked.asks) == ("waiting", 1)
    (question,) = whole("assisted").questions.values()
    assert question.state == "resolved"


def test_an_attempt_begun_anew_after_a_crash_is_one_attempt() -> None:
    state = whole("crashed")
    for node in state.nodes.values():
        numbers = [attempt.attempt for attempt in node.attempts]
        assert numbers == sorted(set(numbers))
    assert state.resumed == 1


def test_items_of_a_mapped_node_are_counted_as_they_end() -> None:
    state = whole("mapped")
    assert (state.nodes["each"].items, state.nodes["each"].done, state.nodes["each"].failed) == (3, 3, 0)
    assert state.nodes["each[1]"].agent == "teller"
    begun = upto("mapped", "node.expanded", more=1)
    assert (begun.nodes["each"].word, begun.nodes["each"].done) == ("running", 0)


def test_runs_inside_are_known_by_how_they_ended_and_their_nodes_stay_their_own() -> None:
    state = whole("mapped")
    assert sorted(state.inside.values()) == ["succeeded"] * 3
    assert not {"told", "only"} & set(state.nodes)


def test_spending_of_runs_inside_counts_for_the_run_around() -> None:
    facts = list(facts_of("approved"))
    model = next(fact for fact in facts if fact.kind == "model.called")
    inside = Fact(model.id, model.ts_ms, model.actor, model.kind, "another-run", model.payload)
    once, twice = whole("approved").spend, fold(whole("approved"), [inside]).spend
    assert twice.input_tokens == 2 * once.input_tokens
    assert sum(node.spend.calls for node in whole("approved").nodes.values()) == once.calls


@pytest.mark.requirement("I7.model.2")
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=12)
def test_folding_in_pieces_is_folding_at_once(name: str, data: st.DataObject) -> None:
    facts = facts_of(name)
    cut = data.draw(st.integers(0, len(facts)))
    first = fold(RunState(run=str(facts[0].run)), facts[:cut])
    assert fold(first, facts[cut:]) == whole(name)


@pytest.mark.requirement("I7.model.2")
def test_an_earlier_state_is_not_changed_by_what_comes_after_it() -> None:
    facts = facts_of("approved")
    states = [RunState(run=str(facts[0].run))]
    for fact in facts:
        states.append(reduce(states[-1], fact))
    again = RunState(run=str(facts[0].run))
    for state, fact in zip(states, facts, strict=False):
        assert state == again
        again = reduce(again, fact)


def test_a_kind_of_a_newer_daemon_is_counted_and_moves_the_time_on() -> None:
    event = json.loads((HISTORIES / "approved.jsonl").open().readline())
    odd = fact_of({**event, "id": 10_000, "kind": "node.dreamt", "payload": {"node": "send"}})
    assert isinstance(odd.payload, Unknown)
    assert told(odd) == {"node": "send"}
    state = reduce(whole("approved"), odd)
    assert (state.unknown, state.last_id, state.index) == (1, 10_000, len(facts_of("approved")) + 1)


def test_a_newer_version_of_a_known_kind_is_not_guessed_at() -> None:
    event = json.loads((HISTORIES / "approved.jsonl").open().readline())
    assert isinstance(fact_of({**event, "version": 99}).payload, Unknown)


@pytest.mark.parametrize("value", [{}, {"id": 1}, {"id": "x", "ts_ms": 1, "kind": "k", "actor": "a"}])
def test_what_is_no_event_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="not an event"):
        fact_of(value)


def test_every_kind_there_is_can_be_reduced_though_nothing_is_known_of_the_run() -> None:
    for kind, payload in KINDS.items():
        kept = json.loads((HISTORIES / "formats" / f"{kind}.v{payload.version}.json").read_text())
        for fields in kept["payloads"]:
            event = {"id": 1, "ts_ms": 1, "actor": "daemon", "run": "r", "provenance": {}, "kind": kind}
            fact = fact_of({**event, "version": payload.version, "payload": fields})
            assert not isinstance(fact.payload, Unknown), kind
            for run in ("r", "another"):
                assert reduce(RunState(run=run), fact).index == 1, kind
            assert line_of(fact).words, kind


def test_a_trail_keeps_every_earlier_length_and_a_branch_leaves_it_alone() -> None:
    trail = Trail[int]()
    kept = [trail]
    for number in range(5):
        kept.append(kept[-1].grown(number))
    assert [list(each) for each in kept] == [list(range(size)) for size in range(6)]
    branch = kept[2].grown(99)
    assert (list(branch), list(kept[5])) == ([0, 1, 99], [0, 1, 2, 3, 4])
    assert kept[2].grown(2) == kept[3]
    assert kept[3][-1] == 2
    assert kept[5][1:3] == [1, 2]
    with pytest.raises(IndexError):
        kept[3][3]
