"""The graph of a run as rows: nothing left out, the cursor only on nodes, texts behind names of ours."""

from __future__ import annotations

import pytest

from agtop.model.plan import Layout, bars, details, note, sentence
from agtop.model.state import Edge, Graph, GraphNode, NodeState
from tests.hostile_text import ALL_AT_ONCE, WITNESS, assert_harmless
from tests.unit.agtop.test_reduce import NAMES, upto, whole


def chain(*nodes: str, edges: tuple[tuple[str, str], ...] = ()) -> Graph:
    return Graph(
        nodes=tuple(GraphNode(id=node, use="agent:a") for node in nodes),
        edges=tuple(Edge(source=source, target=target) for source, target in edges),
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_node_has_one_row_and_those_it_waits_for_stand_above_it(name: str) -> None:
    state = whole(name)
    layout = Layout(state.graph, {})
    rows = [row.node for row in layout.rows if row.node is not None]
    assert sorted(rows) == sorted(node.id for node in state.graph.nodes)
    for edge in state.graph.edges:
        assert (layout.find(edge.source) or 0) < (layout.find(edge.target) or 0)


def test_stepping_passes_over_rows_where_lanes_turn_and_stops_at_the_ends() -> None:
    layout = Layout(whole("approved").graph, {})
    at = layout.find("contacts")
    assert at is not None
    walked = [at]
    for _ in range(9):
        walked.append(layout.next(walked[-1], 1))
    assert [layout.rows[row].node for row in walked[:5]] == ["contacts", "context", "draft", "review", "send"]
    assert len(set(walked[4:])) == 1
    assert layout.next(walked[-1], -99) == at


def test_items_stand_below_their_node_where_it_is_unfolded() -> None:
    layout = Layout(whole("mapped").graph, {"each": 3})
    at = layout.find("each") or 0
    assert [row.node for row in layout.rows[at : at + 4]] == ["each", "each[0]", "each[1]", "each[2]"]


def test_a_graph_too_wide_for_lanes_is_indented_ten_thousand_nodes_of_it_too() -> None:
    names = [f"n{number}" for number in range(10_000)]
    wide = chain("a", *names, edges=tuple(("a", name) for name in names))
    layout = Layout(wide, {})
    assert len(layout.rows) == 10_001
    assert layout.wide <= 10
    assert layout.rows[0].lanes != layout.rows[1].lanes


def test_a_circle_in_a_definition_nobody_should_have_written_is_drawn_all_the_same() -> None:
    layout = Layout(chain("a", "b", edges=(("a", "b"), ("b", "a"))), {})
    assert {row.node for row in layout.rows if row.node} == {"a", "b"}


def test_what_matters_most_is_said_first() -> None:
    asked = upto("approved", "action.requested")
    assert note(asked, None, asked.nodes["send"]).startswith("asks: send")
    failed = whole("partly_failed")
    assert "contact.unknown" in note(failed, None, failed.nodes["who"])
    mapped = whole("mapped")
    assert note(mapped, None, mapped.nodes["each"]) == "3 of 3 items"
    calm = whole("approved")
    assert note(calm, None, calm.nodes["draft"]) == "writer"


def test_a_sentence_says_all_that_a_row_shows() -> None:
    state = whole("approved")
    said = sentence(state, None, state.nodes["draft"], "done", 0)
    assert said.startswith("draft: done, writer, took ")
    assert "after contacts, context" in said


def test_bars_lie_within_the_run_and_follow_each_other_as_attempts_did() -> None:
    state = whole("approved")
    found = [bars(state, state.nodes[node.id], 0, 40) for node in state.graph.nodes]
    assert all(0 <= first <= last < 40 for rows in found for first, last, _ in rows)
    begins = [rows[0][0] for rows in found]
    assert begins == sorted(begins)


@pytest.mark.requirement("C6")
def test_details_of_a_node_stand_behind_names_of_ours() -> None:
    state = whole("approved")
    hostile = NodeState(id="draft", word="failed", agent=ALL_AT_ONCE, use=ALL_AT_ONCE, reason=ALL_AT_ONCE)
    rows = details(
        type(state)(run=state.run, graph=state.graph, nodes=state.nodes.set("draft", hostile)), "draft", 60
    )
    assert sum(WITNESS in row.text for row in rows) > 3
    for row in rows:
        assert_harmless(row.text)
    assert details(state, "nobody", 60)[0].text == "this node is none of the run"
