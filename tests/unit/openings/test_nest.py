"""Mapped nodes and openings inside openings: read, judged and bound."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from openings import nest
from openings.definition import ForEach, Opening, PortTable
from openings.errors import OpeningError
from openings.load import Reading, Shelf, load, parse
from openings.validate import bind, check, findings
from tests.unit.openings.conftest import table

PORTS = {"agent:a": table("in!", out="out:list one:object"), "agent:b": table("in! more", out="out:object")}


def opening(name: str, nodes: str, rest: str = "") -> str:
    return f"version: 0\nname: {name}\nnodes:\n{nodes}{rest}"


INNER = """\
version: 0
name: inner
params:
  who: {type: string}
  many: {type: list, default: []}
nodes:
  - {id: x, use: agent:none_needed, with: {q: "{{params.who}}", m: "{{params.many}}"}}
artifacts: {save: [x.out, x.note]}
"""
WITH_INNER = PORTS | {"agent:none_needed": table("", out="out:object note:string")}


def told(
    text: str, ports: Mapping[str, PortTable] = WITH_INNER, **texts: str
) -> list[tuple[str, int, str, str]]:
    """``(file, line, code, fix)`` of every error."""
    reading = parse(text, name="outer.yaml")
    shelf = Shelf((), texts)
    nested = nest.gather(reading, shelf)
    return [
        (f.file, f.line, f.code.removeprefix("opening."), f.fix)
        for f in findings(reading, ports, nested=nested, openings=shelf.names)
        if f.severity == "error"
    ]


# --- for_each -------------------------------------------------------------------------------------


def test_a_mapped_node_has_a_port_a_bound_and_a_number_of_failures_it_bears() -> None:
    read = load(
        opening(
            "m",
            "  - {id: a, use: agent:a, for_each: in}\n"
            "  - {id: b, use: agent:b, for_each: {port: in, concurrency: 2, max_failed: 3}}\n",
        )
    )
    assert [node.for_each for node in read.nodes] == [
        ForEach(port="in"),
        ForEach(port="in", concurrency=2, max_failed=3),
    ]
    assert Opening.from_json(read.to_json()) == read
    assert "for_each" not in load(opening("m", "  - {id: a, use: agent:a}\n")).to_json()["nodes"][0]


@pytest.mark.parametrize(
    "for_each",
    ["{}", "{port: in, concurrency: 257}", "{port: in, max_failed: -1}", "{port: 3}", "[in]", "''"],
)
def test_a_for_each_that_says_nothing_useful_is_refused(for_each: str) -> None:
    with pytest.raises(OpeningError):
        load(opening("m", f"  - {{id: a, use: agent:a, for_each: {for_each}}}\n"))


def mapped(edge: str, b: str = "for_each: in", tail: str = "") -> list[tuple[str, int, str, str]]:
    text = opening(
        "m", f"  - {{id: a, use: agent:s}}\n  - {{id: b, use: agent:b, {b}}}\n", f"edges: [{edge}]\n{tail}"
    )
    return told(text, PORTS | {"agent:s": table("", out="out:list one:object")})


@pytest.mark.requirement("I5.language.3")
def test_the_type_of_a_mapped_port_is_judged_for_each_item() -> None:
    assert mapped("{from: a.out, to: b.in}") == []
    assert [found[2] for found in mapped("{from: a.one, to: b.in}")] == ["for_each"]
    assert [found[2] for found in mapped("{from: a.one, to: b.in}, {from: a.out, to: b.more}")] == [
        "for_each"
    ]


def test_a_mapped_port_must_be_one_the_agent_takes_and_something_must_lead_to_it() -> None:
    assert mapped("{from: a.out, to: b.in}", "for_each: im")[0][2:] == ("unknown_port", "did you mean 'in'?")
    assert [found[2] for found in mapped("{from: a.out, to: b.in}", "for_each: more")] == ["unconnected"]
    assert mapped("{from: a.out, to: b.in}", "for_each: more, with: {more: [1, 2]}") == []
    found = mapped("{from: a.out, to: b.in}", "for_each: more, with: {more: 5}")
    assert [each[2] for each in found] == ["for_each"]


def test_what_a_mapped_node_gives_is_a_list() -> None:
    three = (
        "  - {id: a, use: agent:s}\n  - {id: b, use: agent:b, for_each: in}\n  - {id: c, use: agent:c}\n"
        "edges: [{from: a.out, to: b.in}, {from: b.out, to: c.in}]\n"
    )
    ports = PORTS | {"agent:s": table("", out="out:list")}
    assert told(opening("m", three), ports | {"agent:c": table("in:list!")}) == []
    assert [f[2] for f in told(opening("m", three), ports | {"agent:c": table("in:object!")})] == ["type"]
    wrong = told(opening("m", three, "success: {all_of: [b.out.x == 1, b.out == 'q']}\n"), ports)
    assert [found[2] for found in wrong] == ["unknown_agent", "type", "type"]


def test_binding_makes_the_list_a_required_input_unless_it_is_written_out() -> None:
    text = opening(
        "m",
        "  - {id: a, use: agent:s}\n  - {id: b, use: agent:b, for_each: more}\n"
        "  - {id: c, use: agent:b, for_each: more, with: {more: [1]}}\n",
    )
    bound = bind(load(text), PORTS)
    assert [node.requires for node in bound.nodes] == [None, ("in", "more"), ("in",)]


# --- openings in openings -------------------------------------------------------------------------

OUTER = opening(
    "outer",
    "  - {id: n, use: opening:inner, with: {who: me}}\n  - {id: b, use: agent:b}\n",
    "edges: [{from: n.out, to: b.in}]\n",
)


def test_the_ports_of_a_nested_opening_are_its_parameters_and_what_it_saves() -> None:
    assert told(OUTER, inner=INNER) == []
    reading = parse(OUTER)
    nested = nest.gather(reading, Shelf((), {"inner": INNER}))
    made = nest.interfaces(WITH_INNER, nested)["opening:inner"]
    assert {name: (spec.type, spec.required) for name, spec in made.in_.items()} == {
        "who": ("string", True),
        "many": ("list", False),
    }
    assert {name: spec.type for name, spec in made.out.items()} == {"out": "object", "note": "string"}


def test_a_port_that_is_saved_by_two_nodes_is_called_after_its_node_too() -> None:
    read = load(
        opening(
            "i",
            "  - {id: x, use: agent:a}\n  - {id: y, use: agent:a}\n",
            "artifacts: {save: [x.out, y.out, y.one, y.one]}\n",
        )
    )
    assert {name: str(ref) for name, ref in read.outputs.items()} == {
        "x_out": "x.out",
        "y_out": "y.out",
        "one": "y.one",
    }
    clash = opening(
        "inner",
        "  - {id: x, use: agent:s}\n  - {id: y, use: agent:s}\n  - {id: z, use: agent:z}\n",
        "artifacts: {save: [x.out, y.out, z.x_out]}\n",
    )
    ports = PORTS | {"agent:s": table("", out="out"), "agent:z": table("", out="x_out")}
    text = opening("outer", "  - {id: n, use: opening:inner}\n")
    assert [found[1:3] for found in told(text, ports, inner=clash)] == [(7, "duplicate")]


@pytest.mark.parametrize(
    ("old", "new", "line", "code"),
    [
        ("who: me", "whom: me", 4, "unknown_param"),
        ("who: me", "who: 3", 4, "type"),
        (", with: {who: me}", "", 4, "unconnected"),
        ("from: n.out", "from: n.uot", 6, "unknown_port"),
        ("from: n.out, to: b.in", "from: b.out, to: n.many", 6, "type"),
    ],
)
def test_what_does_not_fit_a_nested_opening_is_told_where_it_is_used(
    old: str, new: str, line: int, code: str
) -> None:
    assert (line, code) in [found[1:3] for found in told(OUTER.replace(old, new), inner=INNER)]


def test_a_mistake_in_a_nested_opening_names_its_file_and_line_beside_those_of_the_outer_one() -> None:
    broken = INNER.replace("agent:none_needed", "agent:nobody").replace("type: string", "type: sting")
    found = told(OUTER.replace("agent:b", "agent:bb"), inner=broken)
    assert [(file, line, code) for file, line, code, _ in found] == [
        ("outer.yaml", 5, "unknown_agent"),
        ("opening:inner", 4, "type"),
        ("opening:inner", 7, "unknown_agent"),
    ]


def test_an_opening_that_does_not_exist_is_named_with_the_nearest_that_does() -> None:
    (found,) = told(
        OUTER.replace("from: n.out", "from: n.out").replace("opening:inner", "opening:iner"), inner=INNER
    )
    assert found == ("outer.yaml", 4, "unknown_opening", "did you mean 'inner'?")


def test_a_file_that_holds_another_opening_than_its_name_says_is_refused() -> None:
    found = told(OUTER, inner=INNER.replace("name: inner", "name: other"))
    assert [each[:3] for each in found] == [("opening:inner", 2, "name")]


def chain(length: int, last: str = "agent:s") -> dict[str, str]:
    """``o1`` nests ``o2`` nests … the last of which uses ``last``."""
    texts = {}
    for number in range(1, length + 1):
        use = f"opening:o{number + 1}" if number < length else last
        texts[f"o{number}"] = opening(f"o{number}", f"  - {{id: n, use: '{use}'}}\n")
    return texts


LEAF = {"agent:s": table("", out="out")}


@pytest.mark.requirement("I5.language.4")
@pytest.mark.parametrize("last", ["opening:outer", "opening:o1", "opening:o3"])
def test_an_opening_inside_itself_is_refused_at_the_use_that_closes_the_circle(last: str) -> None:
    text = opening("outer", "  - {id: n, use: opening:o1}\n")
    found = told(text, LEAF, **chain(3, last), outer=text)
    assert [each[:3] for each in found] == [("opening:o3", 4, "recursion")]


def test_an_opening_that_names_itself_is_refused() -> None:
    text = opening("outer", "  - {id: n, use: opening:outer}\n")
    assert [each[2] for each in told(text, LEAF, outer=text)] == ["recursion"]


@pytest.mark.requirement("I5.language.4")
def test_eight_deep_is_allowed_and_nine_is_not() -> None:
    text = opening("outer", "  - {id: n, use: opening:o1}\n")
    assert told(text, LEAF, **chain(8)) == []
    assert [each[:3] for each in told(text, LEAF, **chain(9))] == [("outer.yaml", 4, "depth")]


@pytest.mark.requirement("I5.language.4")
def test_openings_that_multiply_each_other_are_counted_before_anything_runs() -> None:
    nodes = "".join(f"  - {{id: n{i}, use: 'opening:NEXT'}}\n" for i in range(30))
    texts = {f"o{i}": opening(f"o{i}", nodes.replace("NEXT", f"o{i + 1}")) for i in range(1, 5)}
    texts["o5"] = opening("o5", "  - {id: n, use: agent:s}\n")
    text = opening("outer", "  - {id: n, use: opening:o1}\n")
    assert [each[:3] for each in told(text, LEAF, **texts)] == [("outer.yaml", 1, "size")]


def test_too_many_different_openings_are_refused_without_reading_them_all() -> None:
    read: list[str] = []

    def endless(name: str) -> Reading:
        read.append(name)
        return parse(opening(name, f"  - {{id: n, use: 'opening:o{len(read)}'}}\n"))

    reading = parse(opening("outer", "  - {id: n, use: opening:o0}\n"))
    nested = nest.gather(reading, endless)
    assert "opening.size" in [found.code for found in findings(reading, LEAF, nested=nested)]
    assert len(read) == nest.MAX_NESTED + 1


@pytest.mark.requirement("I5.language.3")
def test_a_bound_opening_holds_everything_that_is_nested_in_it() -> None:
    text = opening("outer", "  - {id: n, use: opening:o1}\n")
    reading = parse(text)
    nested = nest.gather(reading, Shelf((), chain(3)))
    check(reading, LEAF, nested=nested)
    bound = bind(load(text), LEAF, nested)
    assert list(bound.openings) == ["o1", "o2", "o3"]
    assert all(not inner.openings for inner in bound.openings.values())
    assert [node.requires for node in bound.openings["o3"].nodes] == [()]
    assert Opening.from_json(bound.to_json()) == bound
    assert bound.digest != load(text).digest


def test_the_agents_of_nested_openings_are_known_before_anything_starts() -> None:
    reading = parse(OUTER)
    nested = nest.gather(reading, Shelf((), {"inner": INNER}))
    assert nest.uses(reading, nested) == {"agent:b", "agent:none_needed"}
