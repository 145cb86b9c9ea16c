"""The picture of an opening says what the opening says: it is read back, lane by lane."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openings.definition import Edge, ForEach, Node, Opening
from openings.drawing import ASCII, MAX_LANES, Row, draw, mermaid
from openings.expressions import Ref
from openings.plan import layers, plan
from tests.unit.openings.conftest import brief

Lead = tuple[str, str]


def opening_of(size: int, leads: set[tuple[int, int]]) -> Opening:
    return Opening(
        name="made_up",
        nodes=tuple(Node(id=f"n{at}", use="agent:a") for at in range(size)),
        edges=tuple(Edge(source=Ref(f"n{a}", ("out",)), node=f"n{b}", port="in") for a, b in sorted(leads)),
    )


@st.composite
def openings(draw_: st.DrawFn) -> Opening:
    size = draw_(st.integers(1, 9))
    pairs = [(a, b) for a in range(size) for b in range(a + 1, size)]
    leads = draw_(st.sets(st.sampled_from(pairs), max_size=14)) if pairs else set()
    return opening_of(size, leads)


def picture(opening: Opening) -> list[Row]:
    rows = draw(opening, [name for layer in layers(opening) for name in layer])
    assert rows is not None
    return rows


def read_back(rows: list[Row]) -> set[Lead]:
    """What a person sees who follows the lines with a finger."""
    found: set[Lead] = set()
    for at, row in enumerate(rows):
        if row.node is not None:
            for column, start in _leaving(rows, at):
                found.add((row.node, _arrives(rows, start, column)))
    return found


def _cell(line: str, column: int) -> str:
    return line[2 * column] if 2 * column < len(line) else " "


def _leaving(rows: list[Row], at: int) -> list[tuple[int, int]]:
    """Columns in which lanes go on from the node in a row, each with the row below."""
    row = rows[at]
    column = next(i for i in range(len(row.lanes)) if _cell(row.lanes, i) in "●◇▣")
    if _cell(row.below, column) == " ":
        return []
    if at + 1 == len(rows) or rows[at + 1].node is not None:
        return [(column, at + 1)]
    turn = rows[at + 1].lanes
    ends = [column] if _cell(turn, column) in "│├┤┼┬" else []
    for step in (1, -1):
        here = column
        while turn[2 * here + step : 2 * here + step + 1] == "─":
            here += step
            if _cell(turn, here) not in "│─":
                ends.append(here)
    return [(end, at + 2) for end in ends]


def _arrives(rows: list[Row], start: int, column: int) -> str:
    for row in rows[start:]:
        if _cell(row.lanes, column) in "●◇▣":
            assert row.node is not None
            return row.node
        assert _cell(row.lanes, column) != " ", "a lane that breaks off"
    raise AssertionError("a lane that leads nowhere")


@given(openings())
def test_who_follows_the_lines_finds_the_edges_and_no_others(opening: Opening) -> None:
    wanted = {(edge.source.node, edge.node) for edge in opening.edges}
    assert read_back(picture(opening)) == wanted


@given(openings())
def test_every_node_stands_in_the_picture_once(opening: Opening) -> None:
    named = [row.node for row in picture(opening) if row.node is not None]
    assert sorted(named) == sorted(node.id for node in opening.nodes)


def test_what_nobody_could_follow_is_a_list() -> None:
    wide = opening_of(MAX_LANES + 3, {(0, b) for b in range(1, MAX_LANES + 3)})
    assert draw(wide, [node.id for node in wide.nodes]) is None
    assert "\n2\n  n1 " in plan(wide).text()


def test_guards_nested_and_mapped_nodes_have_marks_of_their_own() -> None:
    opening = Opening(
        name="marks",
        nodes=(
            Node(id="a", use="agent:a"),
            Node(id="b", use="agent:b"),
            Node(id="c", use="opening:c"),
            Node(id="d", use="agent:d", for_each=ForEach(port="in", concurrency=3)),
        ),
        edges=(
            Edge(source=Ref("a", ("ok",)), node="b", port="in", op="==", literal=True),
            Edge(source=Ref("b", ("o",)), node="c", port="in"),
            Edge(source=Ref("c", ("o",)), node="d", port="in"),
        ),
    )
    assert [row.lanes for row in picture(opening)] == ["●", "◇", "▣", "▣"]
    assert "for each of in, 3 at a time" in plan(opening).text()
    assert plan(opening).text(ascii_only=True).isascii()
    assert "●◇▣│╰".translate(ASCII).isascii()


def test_a_chart_has_every_edge_and_says_which_only_lets_through() -> None:
    made = mermaid(brief("a; b", "a.o -> b.i; a.ok == true -> b.go"))
    assert made.splitlines() == [
        "flowchart TD",
        '  n0["a<br/>agent:a"]',
        '  n1["b<br/>agent:b"]',
        '  n0 -->|"i"| n1',
        '  n0 -.->|"a.ok == true"| n1',
    ]


def test_no_word_of_an_opening_ends_a_charts_quotes() -> None:
    hostile = Opening(
        name="h",
        nodes=(Node(id="a", use="agent:a"), Node(id="b", use="agent:b")),
        edges=(
            Edge(
                source=Ref("a", ("o",)),
                node="b",
                port="i",
                op="==",
                literal='"| n1\nclick n0 "javascript:alert(1)"<script>',
            ),
        ),
    )
    line = mermaid(hostile).splitlines()[-1]
    assert line.startswith('  n0 -.->|"') and line.endswith('"| n1')
    inside = line.removeprefix('  n0 -.->|"').removesuffix('"| n1')
    assert not set(inside) & set('"|<>[]{}`')
