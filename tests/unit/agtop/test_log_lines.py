"""A fact as one line, and which lines a filter takes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agtop.model.line import MINOR, Filter, Matches, line_of
from agtop.model.timeline import Timeline
from tests.unit.agtop.test_reduce import NAMES, facts_of


def line_of_run(name: str) -> Timeline:
    made = Timeline(str(facts_of(name)[0].run))
    made.extend(facts_of(name))
    return made


@pytest.mark.parametrize("name", NAMES)
def test_every_fact_of_every_history_has_words_on_one_line(name: str) -> None:
    for fact in facts_of(name):
        line = line_of(fact)
        assert line.words
        assert "\n" not in line.words
        assert line.minor == (fact.kind in MINOR)


def test_what_went_wrong_needs_a_person_or_went_well_has_a_colour_of_its_own() -> None:
    tones = {fact.kind: line_of(fact).tone for fact in facts_of("approved")}
    assert tones["action.requested"] == "warning"
    assert tones["run.finished"] == tones["email.sent"] == "success"
    assert tones["agent.transition"] == "dim"
    failed = [line_of(fact) for fact in facts_of("partly_failed") if fact.kind == "node.finished"]
    assert {line.tone for line in failed} == {"error", "success"}
    assert any(line.words.startswith("failed: contact.unknown") for line in failed)


@given(typed=st.lists(st.sampled_from(["mail", "-mail", "send", "-agent", "NODE", "john"]), max_size=3))
@settings(max_examples=25)
def test_a_filter_takes_exactly_the_lines_with_all_its_words_and_none_of_the_unwanted(
    typed: list[str],
) -> None:
    line = line_of_run("approved")
    wanted = Filter.parse(" ".join(typed))
    matches = Matches(line, wanted)
    while not matches.scan(7):
        assert matches.left
    found = {matches.place(row) for row in range(matches.count(len(line)))}
    for place, fact in enumerate(line.facts()):
        text = f"{fact.kind} {line_of(fact).node} {line_of(fact).words}".lower()
        good = all((word[1:] not in text) if word[0] == "-" else (word.lower() in text) for word in typed)
        assert (place in found) == good


def test_rows_of_a_past_moment_are_those_before_it() -> None:
    line = line_of_run("approved")
    matches = Matches(line, Filter.parse("node.scheduled"))
    matches.scan(10_000)
    places = [place for place, fact in enumerate(line.facts()) if fact.kind == "node.scheduled"]
    for index in range(len(line) + 1):
        assert matches.count(index) == sum(place < index for place in places)
    assert [matches.row(place) for place in places] == list(range(len(places)))


def test_the_machinery_can_be_left_out_but_never_what_was_denied() -> None:
    matches = Matches(line_of_run("approved"), Filter.parse("", minor=False))
    matches.scan(10_000)
    kinds = {
        matches.timeline.fact(matches.place(row)).kind for row in range(matches.count(len(matches.timeline)))
    }
    assert "agent.transition" not in kinds
    assert {"run.started", "action.decided", "email.sent"} <= kinds


def test_a_dash_alone_is_a_word() -> None:
    assert Filter.parse("- -").wanted == ("-", "-")
    assert Filter.parse("").takes_all
