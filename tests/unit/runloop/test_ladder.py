"""The ladder: who crosses to whom, in which lane, and how one rung is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runloop.ladder import Lane, Party, Rung, crossing, drawn, ladder, ordered

HISTORIES = sorted((Path(__file__).parents[2] / "histories").glob("*.jsonl"))


def rung(source: str, target: str, kind: Any = "node") -> Rung:
    ends = [Party(name, Lane(kind, name) if name else None) for name in (source, target)]
    return Rung(1, "r", 0, ends[0], ends[1], "message.posted", "words", 0)


LANES = [Lane("node", name) for name in "abc"]


@pytest.mark.parametrize(
    ("source", "target", "row"),
    [
        ("a", "b", "  ●────▶    │  "),
        ("c", "a", "  ◀────┼────●  "),
        ("b", "", "  │    ●    │  "),
        ("", "c", "  │    │    ●  "),
        ("b", "b", "  │    ●    │  "),
        ("a", "gone", "  ●────┼────┼─…"),
        ("gone", "b", "  │    ◀────┼─…"),
        ("", "", "  │    │    │  "),
    ],
)
def test_an_arrow_goes_from_sender_to_receiver_and_crosses_what_is_between(
    source: str, target: str, row: str
) -> None:
    assert drawn(rung(source, target), LANES, 5) == row


def test_a_node_that_is_called_gate_does_not_stand_in_the_lane_of_the_gate() -> None:
    said = {"node": "gate", "op": "kb.read", "ok": True, "request_bytes": 1, "response_bytes": 2}
    made = crossing(
        {"id": 1, "run": "r", "ts_ms": 0, "actor": "daemon", "kind": "hostcall.delivered", "payload": said}
    )
    assert made is not None
    assert (made.source.name, made.target.name) == ("gate", "gate")
    assert (made.source.lane, made.target.lane) == (Lane("gate", "gate"), Lane("node", "gate"))


def test_items_of_a_mapped_node_and_their_agent_stand_in_one_lane() -> None:
    sent = {"sender": "daemon", "receiver": "agent:teller", "type": "t", "topic": "p", "size": 9}
    sent["node"] = "each[3]"
    made = crossing(
        {"id": 1, "run": "r", "ts_ms": 0, "actor": "daemon", "kind": "message.sent", "payload": sent}
    )
    assert made is not None
    assert made.target == Party("agent:teller", Lane("node", "each"))


def test_lanes_stand_in_the_order_of_the_way_through_the_house() -> None:
    mixed = [
        Lane("ledger", "l"),
        Lane("node", "b"),
        Lane("gate", "g"),
        Lane("node", "a"),
        Lane("person", "p"),
    ]
    assert [lane.name for lane in ordered([*mixed, *mixed])] == ["p", "b", "a", "g", "l"]


@pytest.mark.parametrize("path", HISTORIES, ids=[path.stem for path in HISTORIES])
def test_every_rung_of_a_golden_history_has_both_ends_in_lanes(path: Path) -> None:
    events = [json.loads(line) for line in path.read_text().splitlines()]
    rungs = [made for event in events if (made := crossing(event)) is not None]
    assert len(rungs) == len(list(ladder(events)))
    for made in rungs:
        for party in (made.source, made.target):
            assert (party.lane is None) == (party.name == "")
    lanes = ordered(party.lane for made in rungs for party in (made.source, made.target) if party.lane)
    assert all(len(drawn(made, lanes, 7)) == 7 * len(lanes) for made in rungs)
