"""The plan, before anything is run."""

from __future__ import annotations

from openings.definition import Opening
from openings.plan import layers, plan
from tests.unit.openings.conftest import brief


def test_a_node_stands_one_below_the_lowest_it_waits_for() -> None:
    opening = brief("a; b; c; d", "a.o -> c.i; c.o -> d.i; b.o -> d.i")
    assert layers(opening) == (("a", "b"), ("c",), ("d",))


def test_a_cycle_does_not_hang_the_plan() -> None:
    assert layers(brief("a; b; c", "b.o -> c.i; c.o -> b.i")) == (("a",),)


def test_the_plan_reads_from_top_to_bottom(compose_email: Opening) -> None:
    text = plan(compose_email).text()
    assert text.splitlines()[:6] == [
        "compose_email: 5 nodes in 5 layers",
        "●      contacts     agent:contact_resolver  (at most 30s, 2 attempts, 2500ms apart)",
        "├─┬─╮",
        "● │ │  context      agent:context_gatherer",
        "│ │ │      contact <- contacts.out",
        "╰─┤ │",
    ]
    assert "      in <- only if review.ok == true" in text
    assert text.endswith("succeeds if review.ok == true\nsaves draft.out")


def test_the_plan_is_json_too(compose_email: Opening) -> None:
    made = plan(compose_email).to_json()
    assert made["layers"] == [["contacts"], ["context"], ["draft"], ["review"], ["send"]]
    assert made["nodes"]["send"]["waits_for"] == ["draft", "review", "contacts"]
    assert made["edges"][-1] == {
        "from": "review.ok",
        "to": "send.in",
        "guard": "review.ok == true",
    }
    assert made["success"] == {"any_of": ["review.ok == true"]}


def test_without_a_success_section_no_node_may_fail() -> None:
    assert plan(brief("a")).text().endswith("succeeds if no node fails")
    assert plan(brief("a")).to_json()["success"] is None
