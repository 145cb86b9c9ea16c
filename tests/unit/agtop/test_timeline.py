"""Every moment of a run, live or on record: the time line and its steps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agtop.feed.twin import TwinFeed
from agtop.model.facts import Fact, told
from agtop.model.reduce import fold
from agtop.model.state import RunState
from agtop.model.timeline import OPEN_PAGES, SPACING, Timeline
from runloop.errors import FailedError
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
def test_moments_of_a_long_run_are_the_same_whether_its_pages_are_kept_or_not(places: list[int]) -> None:
    for made in (_let_go(), _thinned()):
        for place in places:
            assert made.at(place) == _plain().at(place)
            near = max(0, place - 3), place
            assert list(made.facts(*near)) == list(_plain().facts(*near))
            assert [made.node_step(place, by) for by in (1, -1)] == [
                _plain().node_step(place, by) for by in (1, -1)
            ]


def _made(*, checkpoints: int = 4_096) -> Timeline:
    desk = TwinFeed(long_run())
    line = Timeline(
        RUN,
        again=lambda after, upto, limit: desk.again(RUN, after, upto, limit),
        warm=SPACING,
        checkpoints=checkpoints,
    )
    for start in range(0, len(long_run()), 300):
        line.extend(long_run()[start : start + 300])
    return line


@cache
def _let_go() -> Timeline:
    return _made()


@cache
def _thinned() -> Timeline:
    return _made(checkpoints=4)


@cache
def _plain() -> Timeline:
    line = Timeline(RUN)
    line.extend(long_run())
    assert line.held == len(long_run())
    return line


@pytest.mark.requirement("S5")
def test_what_is_kept_does_not_grow_with_the_run() -> None:
    """Facts: the newest page or two, and those that are looked at. States: as many as were agreed upon."""
    held = []
    line = _made(checkpoints=4)
    for place in range(0, len(line), SPACING):
        line.fact(place)
        line.at(place)
        held.append((line.held, len(line._checkpoints)))
    assert max(facts for facts, _ in held) <= (OPEN_PAGES + 2) * SPACING < len(long_run())
    assert max(states for _, states in held) <= 4 < len(long_run()) // SPACING
    assert Timeline(RUN, again=_nobody).held == 0


@pytest.mark.requirement("S5")
def test_a_moment_costs_one_look_at_what_was_let_go_however_long_the_run_is() -> None:
    asked: list[int] = []
    line = Timeline(RUN, again=lambda *page: _counted(asked, *page), warm=SPACING)
    line.extend(long_run())
    for place in (SPACING * 7 + 3, SPACING * 2 + 9, 11):
        before = len(asked)
        line.at(place)
        line.place_of(line.fact(place).id)
        line.node_step(place, 1)
        assert len(asked) == before + 1


def _counted(asked: list[int], after: int, upto: int, limit: int) -> Sequence[Fact]:
    asked.append(after)
    return [fact for fact in long_run() if after < fact.id <= upto][:limit]


def _nobody(after: int, upto: int, limit: int) -> Sequence[Fact]:
    raise FailedError("the disk is gone")


def test_what_cannot_be_had_again_is_told_as_that_and_counted() -> None:
    line = Timeline(RUN, again=_nobody, warm=SPACING)
    line.extend(long_run())
    assert told(line.fact(5)) == {"unreadable": "the disk is gone"}
    assert line.at(7).unknown == 7
    another = Timeline(RUN, again=lambda after, upto, limit: long_run()[:3], warm=SPACING)
    another.extend(long_run())
    assert told(another.fact(5)) == {"unreadable": "it is no longer on record"}
    assert line.newest.unknown == 0


def test_facts_that_are_there_already_are_passed_over() -> None:
    line = Timeline(RUN)
    assert line.extend(long_run()[:10]) == 10
    assert line.extend(long_run()[4:12]) == 2
    assert (len(line), line.last_id) == (12, long_run()[11].id)


def test_a_fact_is_found_by_its_ledger_id() -> None:
    line = _let_go()
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
