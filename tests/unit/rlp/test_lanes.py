"""The ladder of a run as a drawing: what is in it, and when it is one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlp.lanes import drawing, inside
from runloop.escape import columns_of
from runloop.ladder import Rung, crossing
from tests.hostile_text import ALL_AT_ONCE, WITNESS, assert_harmless
from tests.unit.rlp.conftest import Rlp, Terminal
from tests.unit.rlp.daemon_twin import RUN, DaemonTwin

HISTORIES = Path(__file__).parents[2] / "histories"


def rungs(history: str) -> list[Rung]:
    events = [json.loads(line) for line in (HISTORIES / f"{history}.jsonl").read_text().splitlines()]
    return [rung for event in events if (rung := crossing(event)) is not None]


def shown(found: list[Rung], width: int) -> list[str]:
    lines = drawing(found, found[0].ts_ms, width)
    assert lines is not None
    return [line.text for line in lines]


def posted(at_ms: int, node: str = "a", to: str = "node/b", **more: Any) -> Rung:
    said = {"node": node, "to": to, "act": "ask", "message": "m1", "in_reply_to": None, "size": 2048, **more}
    event = {
        "id": at_ms,
        "run": RUN,
        "ts_ms": at_ms,
        "kind": "message.posted",
        "actor": "daemon",
        "payload": said,
    }
    rung = crossing(event)
    assert rung is not None
    return rung


@pytest.mark.requirement("I7.ladder.1")
def test_each_party_has_a_lane_and_each_crossing_an_arrow_between_its_lanes() -> None:
    assert shown([posted(0), posted(250, "b", "node/a"), posted(5_250, "a", "node/c")], 80) == [
        "             a",
        "             │      b",
        "             │      │      c",
        "     0 ms    ●──────▶      │    ask m1, 2.0 KiB #0",
        "   250 ms    ◀──────●      │    ask m1, 2.0 KiB #250",
        "             ┆      ┆      ┆    5.0 s later",
        "  5250 ms    ●──────┼──────▶    ask m1, 2.0 KiB #5250",
    ]


@pytest.mark.requirement("I7.ladder.1")
@pytest.mark.parametrize("history", ["approved", "denied", "mapped", "assisted", "partly_failed"])
@pytest.mark.parametrize("width", [80, 100, 200])
def test_every_crossing_of_a_recorded_run_is_one_row_that_fits(history: str, width: int) -> None:
    found = rungs(history)
    lines = drawing(found, found[0].ts_ms, width)
    assert lines is not None
    assert all(columns_of(line.text) <= width for line in lines)
    for rung in found:
        assert sum(line.text.endswith(f" #{rung.event}") for line in lines) == 1
    lanes = {end.lane for rung in found for end in (rung.source, rung.target) if end.lane}
    assert len([line for line in lines if " later" in line.text or "#" in line.text]) >= len(found)
    assert all(any(lane.name[:8] in line.text for line in lines[:3]) for lane in lanes)


def test_nodes_of_a_run_inside_have_lanes_of_their_own() -> None:
    rung = inside(posted(0), "outer/")
    assert (rung.source.lane, rung.target.lane) == (("node", "outer/a"), ("node", "outer/b"))
    assert inside(posted(0), "") == posted(0)


def test_what_is_too_long_is_cut_with_a_mark_and_never_wraps() -> None:
    (_, _, row) = shown([posted(0, act="日本" * 90)], 60)
    assert columns_of(row) <= 60 and "… #0" in row


def test_more_lanes_than_a_terminal_holds_are_no_drawing() -> None:
    many = [posted(number, f"n{number}", f"node/m{number}") for number in range(40)]
    assert drawing(many, 0, 80) is None
    assert drawing(many, 0, 400) is not None
    assert drawing([], 0, 80) is None


@pytest.mark.requirement("C6")
def test_no_foreign_word_in_the_drawing_acts() -> None:
    for line in shown([posted(0, ALL_AT_ONCE, f"node/{ALL_AT_ONCE}x", act=ALL_AT_ONCE)], 200):
        assert_harmless(line)


def test_a_person_sees_the_drawing_a_pipe_and_whoever_asks_get_rows(
    daemon: DaemonTwin, rlp: Rlp, terminal: Callable[..., Terminal]
) -> None:
    daemon.begin()
    daemon.finish()
    piped = rlp("trace", RUN)
    assert "engine -> draft" in " ".join(piped.out.split())
    drawn = terminal("trace", RUN)
    assert drawn.end() == 0 and "●" in drawn.seen and "draft" in drawn.seen
    rows = terminal("trace", RUN, "--rows")
    assert rows.end() == 0 and "●" not in rows.seen and "->" in rows.seen
    assert WITNESS not in rows.seen
