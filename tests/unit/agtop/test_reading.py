"""What the panes read from facts, without a terminal: ladder, tree, comparison, documents, bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agtop.model.bytes import hex_row, is_text
from agtop.model.compare import differences, pairs
from agtop.model.document import BAR, Document
from agtop.model.facts import fact_of
from agtop.model.ladder import Ladder, blobs_of, histogram, window
from agtop.model.state import ArtifactRow
from agtop.model.timeline import Timeline
from agtop.model.tree import SpanTree
from agtop.panes.rungs import rung_row
from runloop.ladder import Lane, crossing
from runloop.spans import spans
from tests.hostile_text import HOSTILE, assert_harmless

HISTORIES = Path(__file__).parents[2] / "histories"


def events(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HISTORIES / f"{name}.jsonl").read_text().splitlines()]


def timeline(told: Sequence[dict[str, Any]]) -> Timeline:
    made = Timeline(str(told[0]["run"]))
    made.extend(fact_of(event) for event in told)
    return made


# --- the ladder -------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 7, 1_000])
def test_at_every_moment_the_ladder_has_the_rungs_of_the_facts_so_far(piece: int) -> None:
    told = events("assisted")
    line = timeline(told)
    found = Ladder(line)
    while not found.read(len(line), piece):
        pass
    for index in range(len(told) + 1):
        expected = [made for event in told[:index] if (made := crossing(event)) is not None]
        assert found.count(index) == len(expected)
        assert [found.rung(number).event for number in range(found.count(index))] == [
            made.event for made in expected
        ]
        lanes = {party.lane for made in expected for party in (made.source, made.target)} - {None}
        assert set(found.lanes(index)) == lanes


def test_a_moment_in_the_past_has_only_the_lanes_of_then() -> None:
    line = timeline(events("approved"))
    found = Ladder(line)
    found.read(len(line))
    assert [lane.name for lane in found.lanes(2)] == ["person", "engine", "contacts"]
    assert "outside" in [lane.name for lane in found.lanes(len(line))]


def test_lanes_that_do_not_fit_are_those_far_from_the_row_that_is_read() -> None:
    lanes = [Lane("person", "person"), *(Lane("node", f"n{at}") for at in range(50)), Lane("gate", "gate")]
    line = timeline(events("approved"))
    made = Ladder(line)
    made.read(len(line))
    rung = made.rung(3)
    around = rung._replace(target=rung.target._replace(lane=Lane("node", "n30")))
    shown, width = window(lanes, 40, around, least=5, most=12)
    assert width == 5
    assert len(shown) == 8
    assert {Lane("person", "person"), Lane("gate", "gate"), Lane("node", "n30")} <= set(shown)
    everything, wide = window(lanes[:3], 100, None, least=5, most=12)
    assert (everything, wide) == (lanes[:3], 12)


def test_lines_are_broken_where_nothing_crossed_for_a_while() -> None:
    line = timeline(events("approved"))
    made = Ladder(line)
    made.read(len(line))
    lanes = (made.lanes(len(line)), 5)
    rows = [rung_row(made.rung(5), 0, lanes, 120, {}, silent=silent).plain for silent in (False, True)]
    assert rows[1] == rows[0].replace("│", "┆") != rows[0]


def test_the_histogram_counts_every_moment_once() -> None:
    assert histogram([0, 0, 5, 9, 10], 0, 10, 2) == [3, 2]
    assert sum(histogram(list(range(1_000)), 0, 999, 70)) == 1_000


def test_a_fact_names_the_bytes_that_can_be_looked_at() -> None:
    (delivered, *_) = [fact_of(e) for e in events("approved") if e["kind"] == "hostcall.delivered"]
    assert [words for words, _ in blobs_of(delivered)] == ["what was asked", "what was answered"]


# --- the tree ---------------------------------------------------------------------------------------


def test_the_tree_of_a_whole_run_has_every_span_once_below_what_it_lies_in() -> None:
    told = events("approved")
    line = timeline(told)
    tree = SpanTree(line)
    while not tree.read(len(line), 5):
        pass
    rows = tree.rows(len(line))
    assert sorted(row.span.span for row in rows) == sorted(span["span"] for span in spans(told))
    depth = {row.span.span: row.depth for row in rows}
    for row in rows:
        assert row.depth == (0 if row.span.parent is None else depth[row.span.parent] + 1)
        assert row.ended


def test_a_span_that_ends_later_goes_on_at_an_earlier_moment() -> None:
    told = events("approved")
    line = timeline(told)
    tree = SpanTree(line)
    tree.read(len(line))
    asked = next(place for place, event in enumerate(told, 1) if event["kind"] == "action.requested")
    rows = {row.span.kind: row for row in tree.rows(asked)}
    assert not rows["run"].ended
    assert not rows["wait"].ended
    assert all(row.span.event <= told[asked - 1]["id"] for row in tree.rows(asked))


def test_folding_a_span_hides_what_lies_in_it_and_says_how_much() -> None:
    line = timeline(events("approved"))
    tree = SpanTree(line)
    tree.read(len(line))
    whole = tree.rows(len(line))
    attempt = next(row for row in whole if row.inner > 1 and row.span.kind == "attempt")
    folded = tree.rows(len(line), {attempt.span.span})
    row = next(row for row in folded if row.span.span == attempt.span.span)
    assert (row.open, row.inner) == (False, attempt.inner)
    assert len(folded) < len(whole)


# --- comparing --------------------------------------------------------------------------------------


def row(name: str, blob: str) -> ArtifactRow:
    return ArtifactRow(
        event=1, at_ms=0, name=name, node="n", port=None, media_type="text/plain", blob=blob, size=1
    )


def test_files_are_paired_by_name_and_the_newest_of_a_name_counts() -> None:
    found = pairs(
        [row("a", "1"), row("a", "2"), row("b", "3")], [row("b", "4"), row("a", "2"), row("c", "5")]
    )
    assert [(pair.name, pair.verdict) for pair in found] == [
        ("a", "same"),
        ("b", "changed"),
        ("c", "only there"),
    ]
    assert pairs([row("a", "1")], [])[0].verdict == "only here"


def test_a_difference_is_told_line_by_line_and_json_value_by_value() -> None:
    assert differences(b"a\nb\n", b"a\nc\n") == ["@@ -1,2 +1,2 @@", " a", "-c", "+b"]
    found = differences(b'{"x": 1, "y": 2}', b'{"y": 3, "x": 1}')
    assert [line for line in found if line[:1] in "+-"] == ['-  "y": 3', '+  "y": 2']
    assert differences(b'{"x": 1}', b'{ "x":1 }') == ["the same text, written differently"]
    assert differences(b"\0", b"\1") == ["no texts: 1 bytes there, 1 bytes here"]
    assert differences(b"same", b"same") == []


# --- documents and bytes ----------------------------------------------------------------------------


@pytest.mark.requirement("C6")
@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_no_row_of_a_document_acts_or_hides_or_begins_like_ours(text: str) -> None:
    made = Document(40)
    made.field("name", text)
    made.text(text * 9)
    made.content(text.encode("utf-8", "surrogatepass"), whole=True)
    made.fields({text: text, "inner": {text: [text]}})
    rows = [made.row(number) for number in range(made.count)]
    for one in rows:
        assert_harmless(one.text)
        assert one.kind != "text" or one.text.startswith(BAR)


@given(st.binary(max_size=200))
def test_every_byte_is_in_its_hexadecimal_row(data: bytes) -> None:
    rows = [hex_row(data, number) for number in range(-(-len(data) // 16))]
    assert bytes.fromhex("".join(pairs_ for _, pairs_, _ in rows)) == data
    assert [int(offset, 16) for offset, _, _ in rows] == list(range(0, len(data), 16))
    assert all(text.isascii() and text.isprintable() for _, _, text in rows)


@given(st.binary(max_size=400))
def test_a_whole_content_is_all_there_as_text(data: bytes) -> None:
    made = Document(2_000)
    made.content(data, whole=True)
    shown = "".join(made.row(number).text.removeprefix(BAR) for number in range(made.count))
    if data and data.isascii() and data.decode().isprintable():
        assert shown == data.decode()
    assert made.count >= 1


def test_what_is_cut_within_a_character_is_still_text() -> None:
    assert is_text("ä".encode() * 8_192)
    assert not is_text(b"\xff" * 9)
    assert not is_text(b"text\0")


def test_rows_of_bytes_are_made_only_when_they_are_looked_at() -> None:
    made = Document(80)
    made.head("before")
    made.hex(bytes(16 * 1_000_000))
    made.head("after")
    assert made.count == 1_000_002
    assert made.row(1_000_000).text.startswith("00f423f0")
    assert made.row(1_000_001).text == "after"
    with pytest.raises(IndexError):
        made.row(made.count)
