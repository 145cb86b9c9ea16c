"""An opening against the agents there are and the parameters it was given."""

from __future__ import annotations

from typing import Any

import pytest

from openings.definition import Opening, PortTable
from openings.errors import OpeningError
from openings.load import load
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
