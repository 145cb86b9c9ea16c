"""An opening against the agents there are and the parameters it was given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from openings.definition import Opening, PortTable
from openings.errors import OpeningError
from openings.load import load, parse
from openings.validate import bind, check, complete, findings
from tests.unit.openings.conftest import COMPOSE_PORTS, brief, table

GIVEN = {"recipient": "john", "topic": "Q4 plan"}


def codes(opening: Opening, ports: dict[str, PortTable], params: dict[str, Any] | None = None) -> list[str]:
    return [f.code.removeprefix("opening.") for f in findings(opening, ports, params)]


def test_the_reference_opening_fits_the_canonical_agents(compose_email: Opening) -> None:
    assert findings(compose_email, COMPOSE_PORTS, GIVEN) == []
    assert check(compose_email, COMPOSE_PORTS, GIVEN) == {**GIVEN, "tone": "friendly"}


def test_binding_writes_the_required_inputs_in(compose_email: Opening) -> None:
    bound = bind(compose_email, COMPOSE_PORTS)
    assert {node.id: node.requires for node in bound.nodes} == {
        "contacts": (),
        "context": ("contact",),
        "draft": ("context", "recipients"),
        "review": ("in",),
        "send": ("contact", "draft", "review"),
    }
    assert Opening.from_json(bound.to_json()) == bound
    assert bind(compose_email, {}) == compose_email


def test_an_unknown_agent_is_named_where_it_stands() -> None:
    opening = load("version: 0\nname: x\nnodes:\n  - {id: a, use: agent:critik}\n", name="f.yaml")
    (found,) = findings(opening, {"agent:critic": table()})
    assert (found.code, found.file, found.line, found.column) == ("opening.unknown_agent", "f.yaml", 4, 18)
    assert found.fix == "did you mean 'critic'?"
    assert "shows the agents" in findings(opening, {})[0].fix


@pytest.mark.parametrize(
    ("edge", "a", "b", "expected"),
    [
        ("a.out -> b.in", table(out="out"), table("in"), []),
        ("a.uot -> b.in", table(out="out"), table("in"), ["unknown_port"]),
        ("a.out -> b.ni", table(out="out"), table("in"), ["unknown_port"]),
        ("a.out -> b.in", table(out="out:string"), table("in:object"), ["type"]),
        ("a.out -> b.in", table(out="out:string"), table("in:any"), []),
        ("a.out == 1 -> b.in", table(out="out:number"), table("in"), []),
        ("a.out == '1' -> b.in", table(out="out:number"), table("in"), ["type"]),
        ("a.out == null -> b.in", table(out="out:number"), table("in"), []),
        ("a.out > true -> b.in", table(out="out:boolean"), table("in"), ["type"]),
        ("a.out.x == 1 -> b.in", table(out="out:object"), table("in:number"), []),
        ("a.out.x == 1 -> b.in", table(out="out:string"), table("in"), ["type"]),
        ("a.ok == true -> b.in", table(out="a:object"), table("in"), []),
        ("a.ok == true -> b.in", table(out="a:string"), table("in"), ["unknown_port"]),
        ("a.out -> b.in", table(out="out"), table("in need!"), ["unconnected"]),
    ],
)
def test_an_edge_leads_from_a_port_to_a_port_that_takes_it(
    edge: str, a: PortTable, b: PortTable, expected: list[str]
) -> None:
    assert codes(brief("a; b", edge), {"agent:a": a, "agent:b": b}) == expected


def test_success_and_artifacts_name_ports_there_are() -> None:
    opening = brief(
        "a", tail="success: {any_of: [exists(a.x), a.n == 'q', a.s.f == 1]}\nartifacts: {save: [a.y, a.n]}"
    )
    assert codes(opening, {"agent:a": table(out="n:number s:string")}) == [
        "unknown_port",
        "type",
        "type",
        "unknown_port",
    ]


def test_a_cycle_is_shown_with_its_path() -> None:
    opening = brief("a; b; c; d", "a.o -> b.i; b.o -> c.i; c.o -> a.i; c.o -> d.i; d.o -> d.i")
    found = [f for f in findings(opening, {}) if f.code == "opening.cycle"]
    assert [f.what for f in found] == [
        "the nodes wait for each other: a -> b -> c -> a",
        "the nodes wait for each other: d -> d",
    ]
    assert found[0].line == 11


def test_a_diamond_is_no_cycle() -> None:
    assert "cycle" not in codes(brief("a; b; c; d", "a.o -> b.i; a.o -> c.i; b.o -> d.i; c.o -> d.i"), {})


def test_parameters_are_judged_all_at_once(compose_email: Opening) -> None:
    with pytest.raises(OpeningError) as caught:
        check(compose_email, COMPOSE_PORTS, {"recipent": "john", "tone": 5})
    assert [(f.code, f.fix) for f in caught.value.findings] == [
        ("opening.missing_param", "add '-p recipient=…'"),
        ("opening.missing_param", "add '-p topic=…'"),
        ("opening.type", "give a string"),
        ("opening.unknown_param", "did you mean 'recipient'?"),
    ]


def test_text_from_a_command_line_is_read_as_the_declared_type() -> None:
    opening = brief(
        "a 'with': {x: ['{{params.n}}', '{{params.s}}', '{{params.l}}', '{{params.o}}']}",
        tail="params: {n: {type: number}, s: {type: string}, l: {type: list},"
        " o: {type: object, required: false}}",
    )
    ports = {"agent:a": table()}
    assert check(opening, ports, {"n": "3", "s": "3", "l": "[1]"}) == {"n": 3, "s": "3", "l": [1], "o": None}
    assert codes(opening, ports, {"n": "x", "s": 3, "l": "{}", "o": None}) == ["type", "type", "type"]
    assert complete(opening, {"n": "[" * 5000})["n"] == "[" * 5000


def test_a_parameter_without_canonical_form_is_refused() -> None:
    opening = brief("a 'with': {x: '{{params.p}}'}", tail="params: {p: }")
    assert codes(opening, {"agent:a": table()}, {"p": 2**60}) == ["type"]


def test_what_is_only_odd_is_a_warning() -> None:
    opening = brief("a", tail="params: {p: 1}\ngoals: ['do {q}']")
    found = findings(opening, {"agent:a": table()}, {})
    assert [(f.code, f.severity) for f in found] == [
        ("opening.unused_param", "warning"),
        ("opening.unknown_param", "warning"),
    ]
    assert check(opening, {"agent:a": table()}, {}) == {"p": 1}


WRONG_EVERYWHERE = """\
version: 0
name: mixed
params:
  recipient: {type: sting}
nodes:
  - {id: a, use: agent:critik, timeout_ms: soon}
  - {id: b, use: agent:critic, retrys: 2}
  - {id: c, use: agent:critic}
edges:
  - {from: c.uot, to: b.in}
  - {from: d.out, to: c.in}
"""


def test_mistakes_of_the_language_hide_none_of_the_agents_ports_or_parameters() -> None:
    reading = parse(WRONG_EVERYWHERE, name="f.yaml")
    with pytest.raises(OpeningError) as refusal:
        check(reading, {"agent:critic": table("in!", out="out")}, {"recipent": "x"})
    found = [
        (f.line, f.code.removeprefix("opening.")) for f in refusal.value.findings if f.severity == "error"
    ]
    assert found == [
        (0, "missing_param"),
        (0, "unknown_param"),
        (4, "type"),  # sting
        (6, "unknown_agent"),
        (6, "type"),  # soon
        (7, "unknown_key"),
        (10, "unknown_port"),
        (11, "unknown_node"),
    ]


def test_what_follows_from_a_line_that_could_not_be_read_is_not_told() -> None:
    """The edge from the node that does not exist was meant to feed c: that c gets nothing is no news."""
    ports = {"agent:critic": table("in!", out="out")}
    text = (
        "version: 0\nname: x\nnodes:\n  - {id: a, use: agent:critic}\n  - {id: b, use: agent:critic}\n"
        "edges:\n  - {from: x.out, to: a.in}\n"
    )
    reading = parse(text)
    assert [(f.line, f.code) for f in findings(reading, ports)] == [
        (7, "opening.unknown_node"),
        (5, "opening.unconnected"),
    ]
    unreadable = parse(text.replace("x.out", "a.out").replace("a.in", "'->'"))
    assert [f.line for f in findings(unreadable, ports)] == [7], "it may have led anywhere"


def test_a_misspelt_agent_is_sought_among_all_that_are_installed() -> None:
    opening = load("version: 0\nname: x\nnodes:\n  - {id: a, use: agent:contact_resolvr}\n")
    (found,) = findings(opening, {}, installed=["agent:critic", "agent:contact_resolver"])
    assert found.fix == "did you mean 'contact_resolver'?"


def test_nobody_lists_the_agents_there_are_for_an_opening_that_misses_none() -> None:
    """To list them is to read the files of each, and every run begins here."""

    def listed() -> Iterator[str]:
        raise AssertionError("listed")
        yield

    opening = load("version: 0\nname: x\nnodes:\n  - {id: a, use: agent:critic}\n")
    assert findings(opening, {"agent:critic": table()}, installed=listed()) == []
