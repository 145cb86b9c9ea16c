"""The Log pane: following, staying, filters, search; a long run is looked through in pieces."""

from __future__ import annotations

from typing import Any

import pytest

from agtop.feed.twin import TwinFeed
from agtop.model.facts import Fact
from agtop.model.line import line_of
from agtop.panes import log
from agtop.panes.log import LogPane
from agtop.screens.hop import HopScreen
from tests.long_runs import drafts
from tests.snapshots.frames import cockpit, feed, seen, text_of
from tests.unit.agtop.test_reduce import facts_of


def pane_of(app: Any) -> LogPane:
    assert isinstance(app.pane, LogPane)
    return app.pane


def cursor_words(app: Any) -> str:
    fact = pane_of(app)._fact()
    assert fact is not None
    return line_of(fact).words


@pytest.mark.requirement("I7.log.1")
async def test_on_its_last_line_the_log_follows_and_above_it_stays_where_it_is() -> None:
    facts = facts_of("approved")
    fed = TwinFeed(facts[:30])
    async with cockpit(fed, "log") as (app, pilot):
        rows = pane_of(app).lines
        assert rows.cursor == 29
        fed.tell(facts[30:40])
        await seen(pilot, lambda: rows.cursor == 39)
        await pilot.press("k", "up")
        here = rows.cursor
        fed.tell(facts[40:])
        await seen(pilot, lambda: rows.count == len(facts))
        assert rows.cursor == here
        await pilot.press("G")
        assert rows.cursor == len(facts) - 1
        await pilot.press("g", "pagedown", "pageup", "home", "down", "end")
        assert rows.cursor == len(facts) - 1


@pytest.mark.requirement("I7.log.1")
async def test_a_filter_shows_lines_as_one_types_and_escape_shows_all_again() -> None:
    async with cockpit(feed("approved"), "log") as (app, pilot):
        await pilot.press("slash", *"mail", "space", *"-agent")
        kept = [
            fact for fact in facts_of("approved")
            if "mail" in (text := f"{fact.kind} {line_of(fact).node} {line_of(fact).words}".lower())
            and "agent" not in text
        ]  # fmt: skip
        await seen(pilot, lambda: pane_of(app).lines.count == len(kept))
        await seen(pilot, lambda: f"{len(kept)} of" in text_of(app))
        await pilot.press("enter", "2")
        assert app.pane.id == "log"
        await pilot.press("escape")
        await seen(pilot, lambda: pane_of(app).lines.count == len(facts_of("approved")))
        await pilot.press("slash", *"zzz")
        await seen(pilot, lambda: pane_of(app).lines.count == 0)
        await pilot.press("enter", "j", "k", "enter", "full_stop", "o", "slash", "escape")
        await seen(pilot, lambda: pane_of(app).lines.count == len(facts_of("approved")))


@pytest.mark.requirement("I7.log.1")
async def test_search_finds_the_next_line_and_the_one_before() -> None:
    async with cockpit(feed("approved"), "log") as (app, pilot):
        await pilot.press("n")
        await seen(pilot, lambda: "nothing is searched" in text_of(app))
        await pilot.press("s", *"begins", "enter")
        await seen(pilot, lambda: "begins" in cursor_words(app))
        first = pane_of(app).lines.cursor
        await pilot.press("N")
        await seen(pilot, lambda: pane_of(app).lines.cursor < first)
        await pilot.press("n")
        await seen(pilot, lambda: pane_of(app).lines.cursor == first)
        assert "begins" in cursor_words(app)
        await pilot.press("s", *"zzz", "enter")
        await seen(pilot, lambda: "no line has zzz" in text_of(app))


async def test_only_the_lines_of_one_node_or_without_the_machinery() -> None:
    async with cockpit(feed("approved"), "log") as (app, pilot):
        pane = pane_of(app)
        await pilot.press("v")
        await seen(pilot, lambda: pane.lines.count < len(facts_of("approved")))
        assert "hidden" in text_of(app)
        await pilot.press("v", "s", *"writer", "enter")
        await seen(pilot, lambda: "writer" in cursor_words(app))
        await pilot.press("o")
        await seen(pilot, lambda: "filter: draft" in text_of(app))
        await pilot.press("o")
        await seen(pilot, lambda: "filter" not in text_of(app))


async def test_times_since_the_beginning_or_of_the_day() -> None:
    async with cockpit(feed("approved"), "log") as (app, pilot):
        assert "0.353" in text_of(app)
        await pilot.press("t")
        await seen(pilot, lambda: "04:13:31.7" in text_of(app, app.pane.region))


async def test_enter_tells_everything_a_fact_says_and_a_full_stop_brings_all_panes_there() -> None:
    async with cockpit(feed("approved"), "log") as (app, pilot):
        await pilot.press("g", "enter")
        await seen(pilot, lambda: isinstance(app.screen, HopScreen))
        await seen(pilot, lambda: "run.started" in text_of(app))
        await pilot.press("escape", "j", "full_stop")
        await seen(pilot, lambda: app.view().index == 2)
        assert pane_of(app).lines.cursor == 1


async def test_in_a_past_moment_nothing_of_what_came_later_is_shown() -> None:
    async with cockpit(feed("approved"), "log") as (app, pilot):
        await pilot.press("less_than_sign")
        await pilot.press(*["right_square_bracket"] * 5)
        await seen(pilot, lambda: pane_of(app).lines.count == 5)
        assert "run succeeded" not in text_of(app)
        await pilot.press("k", "k", "right_square_bracket")
        await seen(pilot, lambda: pane_of(app).lines.cursor == 5)


@pytest.mark.requirement("I7.log.1")
async def test_a_long_run_is_looked_through_in_pieces_that_never_hold_the_keyboard_up() -> None:
    made = [
        Fact(at, at, each.actor, each.payload.kind, each.run, each.payload, each.provenance)
        for at, each in enumerate(drafts(12_000, nodes=30), 1)
    ]
    async with cockpit(TwinFeed(made), "log") as (app, pilot):
        pane = pane_of(app)
        budgets: list[int] = []
        await pilot.press("slash", *"begins")
        assert pane._matches is not None
        scan = pane._matches.scan
        pane._matches.scan = lambda budget: budgets.append(budget) or scan(budget)  # type: ignore[method-assign,func-returns-value]
        await seen(pilot, lambda: pane._matches is not None and not pane._matches.left)
        assert set(budgets) <= {log.AT_ONCE}
        await seen(pilot, lambda: pane.lines.count == 30)
        drawn: list[int] = []
        row = pane._row
        pane._row = lambda number, width: drawn.append(number) or row(number, width)  # type: ignore[method-assign,func-returns-value]
        await pilot.press("enter", "escape", "g", "G", "k")
        await seen(pilot, lambda: pane.lines.count == 12_000)
        assert len(drawn) < 40 * pane.lines.page
