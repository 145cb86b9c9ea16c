"""Rows that are painted over at the bottom of a terminal, and what is said above them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlp.board import Board, Row
from rlp.live import Live, rewraps, watching
from rlp.output import Console, Style
from rlp.progress import Progress
from tests.unit.rlp.conftest import Terminal
from tests.unit.rlp.daemon_twin import RUN, DaemonTwin
from tests.unit.rlp.screen import Screen

RUN_IT = ("run", "compose_email", "-p", "recipient=john", "-p", "topic=Q4 plan", "-p", "tone=friendly")


@contextmanager
def watched(screen: Screen, **live: Any) -> Iterator[tuple[Console, Live]]:
    console = Console(screen, screen, Style(color=True), width=screen.columns)
    with Live(console, size=lambda: (screen.columns, screen.height), **live) as rows:
        yield console, rows


def two(word: str) -> list[Row]:
    return [Row(f"  draft {word}", "cyan"), Row(f"  send {word}")]


@pytest.mark.requirement("I7.run.1")
def test_rows_stay_at_the_bottom_while_lines_are_said_above_and_leave_nothing() -> None:
    screen = Screen()
    with watched(screen) as (console, live):
        live.paint(two("one"))
        assert screen.lines == ["  draft one", "  send one"]
        console.note("said")
        live.paint(two("two"))
        assert screen.lines == ["said", "  draft two", "  send two"]
        live.paint([Row("  only one")])
        assert screen.lines == ["said", "  only one"]
        console.data("data")
    assert screen.lines == ["said", "data", ""]


def test_nothing_is_written_where_nothing_changed() -> None:
    screen = Screen()
    with watched(screen) as (_, live):
        live.paint(two("one"))
        before = screen.writes
        live.paint(two("one"))
        assert screen.writes == before


def test_lines_and_rows_of_one_moment_are_one_write() -> None:
    screen = Screen()
    with watched(screen) as (console, live):
        live.paint(two("one"))
        before = screen.writes
        with console.together():
            for number in range(5):
                console.say(f"line {number}")
            live.paint(two("two"))
        assert screen.writes == before + 1
        assert screen.lines == [*(f"line {number}" for number in range(5)), "  draft two", "  send two"]


def test_what_was_held_is_said_when_the_block_is_interrupted() -> None:
    screen = Screen()
    with watched(screen) as (console, live):
        live.paint(two("one"))
        with pytest.raises(KeyboardInterrupt), console.together():
            console.say("before")
            raise KeyboardInterrupt
        assert screen.lines[0] == "before"
        assert console.err is screen


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.text("abc ", min_size=1, max_size=90), st.integers(1, 6)), min_size=1, max_size=25),
    st.integers(40, 70),
    st.integers(8, 14),
)
def test_no_line_that_was_said_is_ever_painted_over(moves: list[Any], columns: int, rows: int) -> None:
    screen = Screen(columns, rows)
    said = ""
    with watched(screen) as (console, live):
        for number, move in enumerate(moves):
            if isinstance(move, str):
                console.note(f"{number}{move}")
                said += f"{number}{move}"
            else:
                live.paint([Row(f"row {number} {one}"[: columns - 1]) for one in range(min(move, rows // 2))])
    kept = "".join(line.strip() for line in screen.lines).replace("│", "").replace(" ", "")
    assert kept == said.replace(" ", "")


@pytest.mark.parametrize("columns", [41, 50])
def test_a_narrower_window_that_breaks_lines_anew_keeps_what_was_said(columns: int) -> None:
    screen = Screen(60, 20)
    with watched(screen, rewraps=True) as (console, live):
        console.note("said")
        live.paint([Row("x" * 59), Row("y" * 30), Row("z" * 59)])
        screen.narrow(columns)
        live.paint([Row("a" * (columns - 1)), Row("b")])
        assert screen.lines == ["said", "a" * (columns - 1), "b"]
        screen.columns = 60
        live.paint([Row("c" * 59)])
        assert screen.lines == ["said", "c" * 59]


def test_where_nobody_knows_how_lines_break_too_little_is_erased_and_never_too_much() -> None:
    screen = Screen(60, 20)
    with watched(screen, rewraps=False) as (console, live):
        console.note("said")
        live.paint([Row("x" * 59), Row("z" * 59)])
        screen.narrow(45)
        live.paint([Row("new")])
        assert screen.lines[0] == "said" and screen.lines[-1] == "new"


@pytest.mark.parametrize(
    ("environ", "breaks"),
    [
        ({"TERM": "xterm-256color"}, True),
        ({"TERM": "screen-256color", "TMUX": "/tmp/t,1,0"}, True),
        ({"TERM": "xterm-256color", "XTERM_VERSION": "XTerm(379)"}, False),
        ({"TERM": "screen", "STY": "1.pts"}, False),
        ({"TERM": "linux"}, False),
        ({}, False),
    ],
    ids=["modern", "tmux", "xterm", "screen", "console", "unknown"],
)
def test_who_breaks_lines_anew_is_known_by_name(environ: dict[str, str], breaks: bool) -> None:
    assert rewraps(environ) is breaks


def test_after_a_stop_the_prompt_of_the_shell_is_left_alone() -> None:
    screen = Screen()
    before = signal.getsignal(signal.SIGCONT)
    with watched(screen) as (_, live):
        live.paint(two("one"))
        screen.write("\r\n[1]+ Stopped\r\n$ fg\r\nrlp run")
        os.kill(os.getpid(), signal.SIGCONT)
        live.paint(two("two"))
        assert screen.lines[-5:] == ["[1]+ Stopped", "$ fg", "rlp run", "  draft two", "  send two"]
    assert signal.getsignal(signal.SIGCONT) is before


def test_a_painting_that_was_interrupted_costs_no_line_that_was_said() -> None:
    class Torn(Screen):
        def flush(self) -> None:
            if self.tears:
                self.tears = False
                raise KeyboardInterrupt

        tears = False

    screen = Torn(60, 20)
    with watched(screen) as (console, live):
        for number in range(4):
            console.note(f"said {number}")
        live.paint([Row(f"row {number}") for number in range(5)])
        screen.tears = True
        with pytest.raises(KeyboardInterrupt):
            live.paint([Row("one row")])
        console.note("cancelling")
    assert [line for line in screen.lines if line.startswith("said")] == [f"said {n}" for n in range(4)]
    assert screen.lines[-2:] == ["cancelling", ""]


def test_the_echo_of_ctrl_c_leaves_no_row_behind() -> None:
    said = "  0/1 nodes · 1666 min · $0.123456 of $0.50 · 2 000 000 000 tokens"
    screen = Screen(len(said) + 1, 20)
    with watched(screen) as (console, live):
        progress = Progress(console, live=live)
        progress.show(started({"draft": {}}, budget_micro_usd=500_000))
        used = {"node": "draft", "cost_micro_usd": 123_456, "input_tokens": 10**9, "output_tokens": 10**9}
        called = {"generated": True, "provider": "p", "model": "m", **used}
        progress.show({"kind": "model.called", "ts_ms": 1, "run": "r1", "payload": called})
        progress.stand(100_000_000)
        assert "nodes · 1666 min" in screen.lines[-1]
        screen.write("^C")
        console.note("cancelling")
    assert screen.lines[-2:] == ["cancelling", ""] and "" not in screen.lines[:-1]
    assert not [line for line in screen.lines if "to come" in line or "nodes" in line]


def test_a_passing_line_gives_way_to_rows_when_the_window_grows() -> None:
    screen = Screen(30, 5)
    with watched(screen) as (console, live):
        progress = Progress(console, live=live)
        progress.show(started({"draft": {}}))
        progress.stand(1_000)
        screen.columns, screen.height = 60, 20
        progress.stand(2_000)
        assert screen.lines[-2:] == ["  · draft     to come · draft_agent", "  0/1 nodes · 2 s"]
        assert not [line for line in screen.lines if line.startswith("  0/1 nodes · 1 s")]


def test_in_the_background_nothing_is_painted() -> None:
    screen = Screen()
    ours = True
    with watched(screen, foreground=lambda: ours) as (_, live):
        live.paint(two("one"))
        ours = False
        live.paint(two("two"))
        live.wipe()
        assert screen.lines == ["  draft one", "  send one"]


@pytest.mark.parametrize("style", [Style(), Style(color=True, quiet=True), Style(color=True, json=True)])
def test_without_colour_quiet_or_as_json_there_are_lines_only(style: Style) -> None:
    assert watching(Console(Screen(), Screen(), style), {}) is None


def test_a_terminal_too_small_for_rows_gets_one_passing_line() -> None:
    screen = Screen(30, 5)
    with watched(screen) as (console, live):
        progress = Progress(console, live=live)
        progress.show(started({"draft": {}}))
        progress.stand(1_000)
        assert screen.lines[-1] == "  0/1 nodes · 1 s"


# --- what the rows say ----------------------------------------------------------------------------


def started(nodes: dict[str, dict[str, Any]], **policy: Any) -> dict[str, Any]:
    return {
        "kind": "run.started",
        "ts_ms": 0,
        "run": "r1",
        "payload": {
            "opening": "o",
            "agents": {name: {"name": f"{name}_agent"} for name in nodes},
            "definition": {"nodes": [{"id": name, **more} for name, more in nodes.items()]},
            "policy": policy,
        },
    }


class Watched:
    def __init__(self, **nodes: dict[str, Any]) -> None:
        self.board = Board()
        self.board.take(started(nodes))

    def see(self, kind: str, ts_ms: int = 0, path: str = "", **payload: Any) -> None:
        self.board.take({"kind": kind, "ts_ms": ts_ms, "payload": payload}, path)

    def rows(self, now_ms: int, width: int = 100, most: int = 10) -> list[str]:
        return [row.text for row in self.board.rows(now_ms, width=width, most=most)]


@pytest.mark.requirement("I7.run.1")
def test_each_node_has_its_state_its_time_its_attempts_and_what_it_spent() -> None:
    run = Watched(gather={}, draft={"retry": {"max_attempts": 3}}, send={})
    run.see("node.scheduled", 1_000, node="gather", attempt=1)
    run.see("node.finished", 1_300, node="gather", attempt=1, status="succeeded")
    run.see("node.scheduled", 1_300, node="draft", attempt=1)
    run.see("model.called", 1_500, node="draft", cost_micro_usd=2_100)
    error = {"code": "x", "message": "m", "retryable": True}
    run.see("node.finished", 2_000, node="draft", attempt=1, status="failed", error=error)
    assert run.rows(3_000)[1] == "  ↻ draft     again 1 s · attempt 1 of 3 · $0.0021 · draft_agent"
    run.see("node.scheduled", 3_000, node="draft", attempt=2)
    assert run.rows(15_000) == [
        "  ✓ gather    done in 300 ms · gather_agent",
        "  ▸ draft     working 12 s · attempt 2 of 3 · $0.0021 · draft_agent",
        "  · send      to come · send_agent",
    ]


def test_a_failure_that_is_not_tried_again_is_a_failure() -> None:
    run = Watched(draft={"retry": {"max_attempts": 3}}, send={})
    run.see("node.scheduled", node="draft", attempt=1)
    run.see("node.finished", node="draft", attempt=1, status="failed", error={"retryable": False})
    run.see("node.skipped", node="send", reason="r")
    assert [row.split()[:3] for row in run.rows(0)] == [["✗", "draft", "failed"], ["-", "send", "skipped"]]


def test_who_waits_for_a_person_is_said_until_the_person_answered() -> None:
    run = Watched(send={}, outer={})
    run.see("node.scheduled", node="send", attempt=1)
    run.see("action.requested", approval="a1", node="send")
    run.see("promise.created", path="outer/", promise="p1", node="inner", resolver="operator")
    assert [row.split("  ")[-1].strip() for row in run.rows(2_000)] == [
        "waits for you 2 s · send_agent",
        "waits for you 2 s · outer_agent",
    ]
    run.see("action.decided", approval="a1", node="send")
    run.see("promise.resolved", path="outer/", promise="p1")
    assert "waits" not in "".join(run.rows(2_000))


def test_what_was_approved_counts_down_until_it_leaves() -> None:
    run = Watched(send={})
    run.see("node.scheduled", node="send", attempt=1)
    run.see("action.requested", approval="a1", node="send")
    run.see("action.decided", 1_000, approval="a1", node="send", decision="approved", dispatch_after_ms=6_000)
    assert run.rows(1_500)[0].split("  ")[-1].strip() == "leaves in 5 s · send_agent"
    assert run.rows(6_000)[0].split("  ")[-1].strip() == "working 6 s · send_agent"
    run.see("action.decided", 7_000, approval="a1", node="send", decision="undone", dispatch_after_ms=99_000)
    assert "leaves" not in run.rows(7_000)[0]


def test_items_of_a_mapped_node_and_nodes_of_a_run_inside_share_its_row() -> None:
    run = Watched(each={}, outer={})
    run.see("node.expanded", node="each", items=4)
    for number in range(3):
        run.see("node.scheduled", node=f"each[{number}]", attempt=1)
    run.see("node.finished", node="each[0]", attempt=1, status="succeeded")
    run.see("node.scheduled", node="outer", attempt=1)
    run.see("node.scheduled", path="outer/", node="inner", attempt=1)
    run.see("model.called", path="outer/", node="inner", cost_micro_usd=500_000)
    assert run.rows(1_000) == [
        "  ▸ each      working 1 s · 1/4 items · each_agent",
        "  ▸ outer     working 1 s · in inner · $0.50 · outer_agent",
    ]
    run.see("node.gathered", 2_000, node="each", status="succeeded", items=4, failed=0)
    run.see("node.finished", 2_000, node="outer", attempt=1, status="succeeded")
    assert [row.split()[2] for row in run.rows(3_000)] == ["done", "done"]


def test_of_a_thousand_nodes_those_that_need_somebody_have_a_row_and_the_rest_is_counted() -> None:
    run = Watched(**{f"n{number}": {} for number in range(1_000)})
    for number in range(900):
        run.see("node.scheduled", node=f"n{number}", attempt=1)
        run.see("node.finished", node=f"n{number}", attempt=1, status="succeeded")
    run.see("node.scheduled", node="n950", attempt=1)
    run.see("node.scheduled", node="n960", attempt=1)
    run.see("action.requested", approval="a", node="n960")
    assert run.rows(0, most=4) == [
        "  · n900      to come · n900_agent",
        "  ▸ n950      working 0 s · n950_agent",
        "  ? n960      waits for you 0 s · n960_agent",
        "    and 97 to come, 900 done",
    ]


@pytest.mark.requirement("C6")
def test_no_name_in_a_row_acts_on_a_terminal_or_leaves_its_row() -> None:
    run = Watched(**{"a\x1b[2Jb\n" + "x" * 200: {}, "日本" * 40: {}})
    for row in run.rows(0, width=50):
        assert row.isprintable() and len(row.encode("utf-16-le")) <= 100
    assert "\\x1b[2Jb" in run.rows(0)[0]


def test_a_terminal_without_letters_gets_plain_marks() -> None:
    run = Watched(draft={})
    (row,) = run.board.rows(0, width=80, most=3, letters=False)
    assert row.text.startswith("  . draft")


# --- a real terminal ------------------------------------------------------------------------------


@pytest.mark.requirement("I7.run.1")
def test_on_a_real_terminal_rows_come_and_go_and_ctrl_c_leaves_it_clean(
    daemon: DaemonTwin, terminal: Callable[..., Terminal]
) -> None:
    daemon.on_submit = lambda twin: twin.begin()
    shown = terminal(*RUN_IT, color=True)
    shown.wait_for("▸ send")
    shown.type("\x03")
    shown.wait_for("cancelling")
    assert shown.end() == 130
    screen = Screen(80, 200)
    screen.write(shown.seen.replace("^C", "").replace("\r\n", "\n\r"))
    assert not [line for line in screen.lines if "▸" in line or "nodes ·" in line]
    assert f"  run {RUN}" in screen.lines


@pytest.mark.requirement("I7.run.1")
def test_a_question_in_the_midst_has_the_terminal_to_itself(
    daemon: DaemonTwin, terminal: Callable[..., Terminal]
) -> None:
    def held(twin: DaemonTwin) -> None:
        twin.begin()
        twin.hold()

    def decided(twin: DaemonTwin, decision: dict[str, Any]) -> None:
        twin.settle(decision["approval"], "approved")
        twin.finish()

    daemon.on_submit, daemon.on_decision = held, decided
    shown = terminal(*RUN_IT, color=True)
    shown.wait_for("approve? [y/N/v]")
    screen = Screen(80, 200)
    screen.write(shown.seen.replace("\r\n", "\n\r"))
    assert screen.lines[-1].startswith("approve? [y/N/v]")
    assert not [line for line in screen.lines if "nodes ·" in line]
    shown.type("y\n")
    assert shown.end() == 0
    assert [one["decision"] for one in daemon.decisions] == ["approve"]


def test_with_no_color_a_real_terminal_gets_lines(
    daemon: DaemonTwin, terminal: Callable[..., Terminal]
) -> None:
    daemon.on_submit = lambda twin: (twin.begin(), twin.finish())
    shown = terminal(*RUN_IT)
    assert shown.end() == 0
    assert "\x1b" not in shown.seen
    assert "send      started" in shown.seen
