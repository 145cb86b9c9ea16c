"""Every moment of a run, live or on record: the time line and its steps."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agtop.model.facts import Fact
from agtop.model.reduce import fold
from agtop.model.state import RunState
from agtop.model.timeline import OPEN_PAGES, SPACING, Timeline
from tests.long_runs import RUN, drafts
from tests.unit.agtop.test_reduce import NAMES, facts_of


@cache
def long_run(events: int = SPACING * (OPEN_PAGES + 4) + 17) -> tuple[Fact, ...]:
    return tuple(
        Fact(
            number * 3, 1_000 + number, each.actor, each.payload.kind, each.run, each.payload, each.provenance
        )
        for number, each in enumerate(drafts(events, nodes=40), 1)
    )


@pytest.mark.requirement("I7.model.1")
@pytest.mark.parametrize("name", NAMES)
def test_any_moment_is_the_fold_of_the_facts_before_it(name: str) -> None:
    facts = facts_of(name)
    line = Timeline(str(facts[0].run))
    line.extend(facts)
    state = RunState(run=str(facts[0].run))
    for index in range(len(facts) + 1):
        assert line.at(index) == state
        state = fold(state, facts[index : index + 1])
    for index in reversed(range(len(facts) + 1)):
        assert line.at(index).index == index


@pytest.mark.requirement("I7.model.1")
@given(places=st.lists(st.integers(0, len(long_run())), min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
def test_moments_of_a_long_run_are_the_same_whether_its_pages_are_packed_or_not(places: list[int]) -> None:
    packed, plain = _packed(), _plain()
    for place in places:
        assert packed.at(place) == plain.at(place)
        assert list(packed.facts(max(0, place - 3), place)) == list(plain.facts(max(0, place - 3), place))


@cache
def _packed() -> Timeline:
    line = Timeline(RUN, warm=SPACING)
    for start in range(0, len(long_run()), 300):
        line.extend(long_run()[start : start + 300])
    assert sum(isinstance(page, bytes) for page in line._pages) > OPEN_PAGES
    return line


@cache
def _plain() -> Timeline:
    line = Timeline(RUN)
    line.extend(long_run())
    assert not any(isinstance(page, bytes) for page in line._pages)
    return line


def test_no_more_pages_are_kept_unpacked_than_are_looked_at() -> None:
    line = _packed()
    for place in range(0, len(line), SPACING):
        line.fact(place)
    assert len(line._opened) <= OPEN_PAGES


def test_facts_that_are_there_already_are_passed_over() -> None:
    line = Timeline(RUN)
    assert line.extend(long_run()[:10]) == 10
    assert line.extend(long_run()[4:12]) == 2
    assert (len(line), line.last_id) == (12, long_run()[11].id)


def test_a_fact_is_found_by_its_ledger_id() -> None:
    line = _packed()
    assert line.place_of(long_run()[700].id) == 700
    assert line.place_of(long_run()[700].id + 1) is None
    assert line.place_of(0) is None
    with pytest.raises(IndexError):
        line.fact(len(line))


def test_steps_stay_within_the_run() -> None:
    line = Timeline(RUN)
    line.extend(long_run()[:10])
    assert [line.step(at, by) for at, by in ((0, -1), (3, 1), (10, 1), (5, -100))] == [0, 4, 10, 0]


def test_a_node_step_stops_behind_the_next_fact_of_a_node() -> None:
    line = Timeline(RUN)
    line.extend(long_run()[:400])
    at = 0
    stops = []
    while at < len(line):
        at = line.node_step(at, 1)
        stops.append(at)
    kinds = [line.fact(stop - 1).kind for stop in stops[:-1]]
    assert {kind.partition(".")[0] for kind in kinds} == {"node", "run"}
    back = []
    for _ in stops:
        at = line.node_step(at, -1)
        back.append(at)
    assert back[0] in stops
    assert back[-1] == 0


def test_marks_are_kept_in_order_and_come_round() -> None:
    line = Timeline(RUN)
    line.extend(long_run()[:10])
    assert line.next_bookmark(3) is None
    assert line.bookmark(7)
    assert line.bookmark(0)
    assert line.bookmarks == (0, 7)
    assert (line.next_bookmark(3), line.next_bookmark(7)) == (7, 0)
    assert not line.bookmark(7)
    assert line.bookmarks == (0,)
