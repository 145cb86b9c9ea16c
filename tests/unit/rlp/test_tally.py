"""Where a run stands, in one line."""

from __future__ import annotations

import io
from typing import Any

import pytest

from rlp.output import Console, Style
from rlp.tally import Tally


class Watched:
    def __init__(self) -> None:
        self.tally = Tally()
        self.now = 0
        self.see(
            "run.started",
            definition={"nodes": [{}, {}, {}]},
            agents={},
            policy={"budget_micro_usd": 500_000},
        )

    def see(self, kind: str, after_ms: int = 0, **payload: Any) -> str:
        self.now += after_ms
        self.tally.take({"kind": kind, "ts_ms": self.now, "payload": payload})
        return self.tally.line(self.now)


def test_it_says_how_far_the_run_is_and_what_works_how_long() -> None:
    run = Watched()
    run.see("node.scheduled", node="draft", attempt=1)
    assert (
        run.see("node.scheduled", 2_500, node="notes", attempt=1) == "0/3 nodes · 2 s · draft 2 s, notes 0 s"
    )
    assert run.see("node.finished", node="draft", status="succeeded") == "1/3 nodes · 2 s · notes 0 s"
    assert run.see("node.skipped", node="send") == "2/3 nodes · 2 s · notes 0 s"


def test_a_node_that_begins_again_is_not_over() -> None:
    run = Watched()
    run.see("node.scheduled", node="draft", attempt=1)
    run.see("node.finished", node="draft", status="failed")
    assert run.see("node.scheduled", node="draft", attempt=2).startswith("0/3")
    assert run.see("node.finished", node="draft", status="succeeded").startswith("1/3")


def test_items_of_a_mapped_node_count() -> None:
    run = Watched()
    assert run.see("node.expanded", node="each", items=4).startswith("0/7")
    run.see("node.finished", node="each[0]", status="succeeded")
    assert run.see("node.gathered", node="each", status="succeeded").startswith("2/7")


def test_it_says_whom_the_run_waits_for_until_they_answered() -> None:
    run = Watched()
    run.see("node.scheduled", node="send", attempt=1)
    asked = run.see("action.requested", approval="a1", node="send")
    assert asked == "0/3 nodes · 0 s · waits for you: send"
    assert "waits" not in run.see("action.decided", approval="a1", node="send")
    run.see("promise.created", promise="p", node="ask", resolver="operator")
    assert run.see("promise.created", promise="q", node="other", resolver="run").endswith("you: ask")
    assert "waits" not in run.see("promise.resolved", promise="p")


def test_an_attempt_that_ended_waits_for_nobody() -> None:
    run = Watched()
    run.see("action.requested", approval="a1", node="send")
    assert "waits" not in run.see("node.cancelled", node="send")


@pytest.mark.parametrize(
    ("micro_usd", "tokens", "said"),
    [
        (0, 0, ""),
        (0, 1234, "$0.00 · 1 234 tokens"),
        (2_100, 12, "$0.0021 of $0.50 · 12 tokens"),
        (1_000_001, 1, "$1.000001 of $0.50 · 1 tokens"),
    ],
)
def test_money_is_exact(micro_usd: int, tokens: int, said: str) -> None:
    run = Watched()
    run.see("model.called", cost_micro_usd=micro_usd, input_tokens=tokens, output_tokens=0)
    assert run.tally.spend() == said


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_passing_line_gives_way_to_whatever_is_said_next() -> None:
    err = Terminal()
    console = Console(io.StringIO(), err, Style(), width=20)
    console.passing("cut \x1b[2J where the row ends")
    console.passing("second")
    console.note("said")
    console.wipe()
    first = "cut \\x1b[2J where "
    assert err.getvalue() == f"{first}\r{' ' * 18}\rsecond\r{' ' * 6}\rsaid\n"


def test_nobody_who_does_not_watch_gets_a_passing_line() -> None:
    for err, style in (
        (io.StringIO(), Style()),
        (Terminal(), Style(quiet=True)),
        (Terminal(), Style(json=True)),
    ):
        Console(io.StringIO(), err, style).passing("where it stands")
        assert err.getvalue() == ""
