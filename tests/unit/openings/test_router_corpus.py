"""The router against the labelled corpus: floors for each class, and nothing that destroys gets through.

The floors lie a little below what ``python -m tests.bench router`` reports, on the part of the corpus that
nothing was tuned on and on the whole of it.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from openings import ruin
from openings.deny import denied
from openings.router import MAX_JUDGED, MAX_PROMPT, route
from tests.router import train
from tests.router.corpus import KINDS, cases, is_held, judged, openings


class Heard(NamedTuple):
    """An opening, as far as the router looks at one."""

    name: str
    goals: tuple[str, ...]
    params: dict[str, None] = {}


FLOORS = {  # kind: precision and recall of the held part, then of the whole
    "shell": (0.96, 0.94, 0.97, 0.96),
    "agent": (0.90, 0.96, 0.95, 0.97),
    "opening": (0.95, 0.90, 0.97, 0.96),
    "denied": (1.0, 1.0, 1.0, 1.0),
}


def test_the_corpus_is_large_half_hostile_and_its_held_part_was_not_picked_by_hand() -> None:
    lines = [case.line for case in cases()]
    assert len(lines) == len(set(lines)) >= 600
    assert sum(case.adversarial for case in cases()) * 2 >= len(lines)
    assert all(case.held == is_held(case.line) for case in cases())
    assert {case.kind for case in cases() if case.held} == set(KINDS)
    names = {opening.name for opening in openings()}
    assert all(case.target in names for case in cases() if case.kind == "opening")


@pytest.mark.requirement("I6.router.1")
@pytest.mark.parametrize("kind", KINDS)
def test_every_class_keeps_its_precision_and_recall(kind: str) -> None:
    held = judged([case for case in cases() if case.held])
    whole = judged(list(cases()))
    reached = (held.precision[kind], held.recall[kind], whole.precision[kind], whole.recall[kind])
    missed = [(case.line[:60], found.kind) for case, found in whole.wrong if kind in (case.kind, found.kind)]
    assert all(have >= floor for have, floor in zip(reached, FLOORS[kind], strict=True)), (reached, missed)


@pytest.mark.requirement("I6.router.2")
def test_no_line_that_destroys_goes_anywhere_but_to_denied() -> None:
    lost = [case.line for case in cases() if case.kind == "denied" and route(case.line).kind != "denied"]
    assert lost == []


def test_every_rule_against_ruin_is_needed_by_some_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the rules for the commonest commands away one by one: lines must be lost each time."""
    lines = [case.line for case in cases() if case.kind == "denied"]
    for name in (
        "rm",
        "chmod",
        "chown",
        "mv",
        "find",
        "dd",
        "mkfs",
        "wipefs",
        "shred",
        "kill",
        "rsync",
        "tee",
    ):
        with monkeypatch.context() as without:
            without.setattr(ruin, "_RULES", {key: rule for key, rule in ruin._RULES.items() if key != name})
            assert [line for line in lines if denied(line) is None], name


def test_the_weights_are_those_the_corpus_teaches() -> None:
    assert train.main(["--check"]) == 0


@pytest.mark.parametrize("size", [MAX_PROMPT + 10, MAX_JUDGED - 10])
def test_a_long_line_is_looked_through_to_its_end(size: int) -> None:
    padding = "x" * (size - 40)
    assert route(f"echo {padding}; rm -rf /").kind == "denied"
    assert route(f"docker run --label a={padding} app").kind == "shell"
    assert route(f"please read this: {padding}").kind == "agent"
    assert route("docker run -e " + "x" * MAX_JUDGED).rule == "long"


def test_characters_that_a_terminal_obeys_never_reach_a_shell() -> None:
    for hidden in ("ls\x1b[2K", "ls\x00-la", "ls \u202eal-", "git\u2028status", "ls\x08"):
        assert route(hidden).rule == "control", hidden


def test_an_opening_never_takes_the_name_or_the_lines_of_a_command() -> None:
    """An opening may lie in a folder that somebody else wrote."""
    rogue = Heard("ls", ("ls {x}", "git {x}", "make {x}"), {"x": None})
    for line in ("ls", "ls -la", "git status", "git commit -m 'x'", "make test"):
        assert route(line, [rogue]).kind == "shell", line
    assert route("run ls", [rogue]).kind == "opening"


@pytest.mark.requirement("I6.router.3")
def test_of_two_openings_that_fit_alike_the_first_is_taken_and_the_other_named() -> None:
    one, two = (Heard(name, ("water the roses",)) for name in ("one", "two"))
    found = route("water the roses", [one, two])
    assert (found.target, [other.name for other in found.others]) == ("one", ["two"])
    assert "two would fit as well" in found.reason


@pytest.mark.requirement("I6.router.3")
def test_an_opening_is_found_by_its_words_where_it_is_clearly_the_nearest() -> None:
    roses = Heard("roses", ("water the roses in the garden",))
    tulips = Heard("tulips", ("cut the tulips in the garden",))
    found = route("go and see that the garden roses are watered", [roses, tulips])
    assert found.kind == "agent"  # two words more than the goal has: not clear enough
    found = route("the garden roses: water them", [roses, tulips])
    assert (found.kind, found.target, found.rule) == ("opening", "roses", "near")
    assert [(other.name, bool(other.why)) for other in found.others] == [("tulips", True)]


def test_openings_that_are_as_near_as_each_other_are_a_tie_for_the_agent() -> None:
    one, two = (Heard(name, ("water all garden roses now",)) for name in ("one", "two"))
    found = route("roses in garden: water now", [one, two])
    assert (found.kind, found.rule) == ("agent", "tie")
    assert "one and two" in found.reason


@pytest.mark.requirement("I6.router.3")
def test_a_slot_is_never_guessed_and_a_word_that_turns_the_sense_is_never_passed_over() -> None:
    slot = Heard("a", ("water the {plant}",), {"plant": None})
    found = route("some water for roses", [slot])
    assert found.kind == "agent"
    plain = Heard("b", ("water the roses",))
    assert route("do not water the roses", [plain]).kind == "agent"
    assert route("water not the roses", [plain]).kind == "agent"


def test_a_wish_with_a_second_wish_in_it_is_not_an_openings() -> None:
    wish = "summarise the three newest notes about the rollout and draft a mail to john"
    assert route(wish, openings()).kind == "agent"
    assert route("summarise my notes on the rollout and the budget", openings()).target == "digest_topic"


def test_every_decision_says_what_was_seen_and_why() -> None:
    for case in cases():
        found = route(case.line, openings())
        assert found.reason and found.rule, case.line
        assert found.to_json()["others"] == [other._asdict() for other in found.others]
        if found.rule == "prose" or found.rule.startswith("command"):
            assert found.features.get("first") is not None or found.reason.startswith("it is a command")
