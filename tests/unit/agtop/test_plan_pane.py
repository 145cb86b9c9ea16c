"""The Plan pane: every key; what a node shows; a graph of ten thousand nodes."""

from __future__ import annotations

from typing import Any

import pytest
from textual.widgets import Static

from agtop.feed.twin import TwinFeed
from agtop.model.facts import Fact
from agtop.panes.plan import PlanPane
from agtop.screens.node import NodeScreen
from tests.long_runs import RUN, drafts
from tests.snapshots.frames import cockpit, feed, seen, text_of
from tests.unit.agtop.test_reduce import facts_of


def pane_of(app: Any) -> PlanPane:
    assert isinstance(app.pane, PlanPane)
    return app.pane


async def test_the_cursor_goes_from_node_to_node_and_every_pane_hears_of_it() -> None:
    async with cockpit(feed("approved"), "plan") as (app, pilot):
        pane = pane_of(app)
        walked = [pane.node]
        for key in ("j", "down", "k", "up", "G", "g", "end", "home", "pagedown", "pageup"):
            await pilot.press(key)
            walked.append(pane.node)
        assert walked == [
            "contacts", "context", "draft", "context", "contacts", "send", "contacts", "send", "contacts",
            "send", "contacts",
        ]  # fmt: skip
        assert app.view().selected_node == "contacts"


async def test_enter_tells_everything_about_a_node() -> None:
    async with cockpit(feed("denied"), "plan") as (app, pilot):
        await pilot.press("G", "enter")
        await seen(pilot, lambda: isinstance(app.screen, NodeScreen))
        said = text_of(app)
        for words in ("attempt 1", "approval.denied", "asked a person", "after", "contacts, draft, review"):
            assert words in said
        await pilot.press("j", "k", "G", "g", "escape")
        await seen(pilot, lambda: len(app.screen_stack) == 1)


async def test_items_of_a_mapped_node_are_shown_and_hidden_and_the_cursor_stays_with_its_node() -> None:
    async with cockpit(feed("mapped"), "plan") as (app, pilot):
        await pilot.press("j", "o")
        await seen(pilot, lambda: "each[2]" in text_of(app))
        assert pane_of(app).node == "each"
        await pilot.press("j", "o")
        await seen(pilot, lambda: "each[2]" not in text_of(app))
        assert pane_of(app).node == "each"
        await pilot.press("g", "o")
        await seen(pilot, lambda: "list has no items" in text_of(app))


async def test_a_node_without_a_run_inside_says_so() -> None:
    async with cockpit(feed("approved"), "plan") as (app, pilot):
        await pilot.press("i")
        await seen(pilot, lambda: "no run inside this node" in text_of(app))


async def test_w_finds_the_node_that_needs_somebody() -> None:
    facts = facts_of("approved")
    place = next(at for at, fact in enumerate(facts) if fact.kind == "action.requested")
    fed = TwinFeed(facts[: place + 1])
    async with cockpit(fed, "plan") as (app, pilot):
        assert "needs you" in text_of(app)
        assert "asks: send" in text_of(app)
        await pilot.press("w")
        assert pane_of(app).node == "send"
        fed.tell(facts[place + 1 :])
        await seen(pilot, lambda: "needs you" not in text_of(app))
        await pilot.press("g", "w")
        await seen(pilot, lambda: "no node of this run waits for you" in text_of(app))


async def test_where_there_is_room_the_node_below_the_cursor_is_told_beside_the_graph() -> None:
    async with cockpit(feed("approved"), "plan", (160, 40)) as (app, pilot):
        await pilot.press("G")
        await seen(pilot, lambda: "asked a person" in text_of(app))
        assert "━" in text_of(app, app.pane.region)  # when each was tried
    async with cockpit(feed("approved"), "plan", (80, 24)) as (app, pilot):
        await pilot.press("G")
        assert "asked a person" not in text_of(app)


async def test_after_another_pane_the_head_and_the_details_have_the_columns_that_are_there() -> None:
    async with cockpit(feed("approved"), "log", (120, 40)) as (app, pilot):
        await pilot.press("1")
        await seen(pilot, lambda: isinstance(app.pane, PlanPane) and "agent:contact_resolver" in text_of(app))
        head = pane_of(app).query_one("#plan-head", Static)
        await seen(pilot, lambda: "what" in str(head.render()) and "when" not in str(head.render()))


async def test_a_past_moment_shows_the_nodes_as_they_stood_then() -> None:
    async with cockpit(feed("approved"), "plan") as (app, pilot):
        await pilot.press("less_than_sign")
        await pilot.press(*["right_curly_bracket"] * 2)
        await seen(pilot, lambda: "running" in text_of(app, app.pane.region))
        rows = text_of(app, app.pane.region).splitlines()
        assert [row for row in rows if "contacts" in row and "running" in row]
        assert sum("to do" in row for row in rows) == 4


@pytest.mark.requirement("I7.plan.1")
async def test_ten_thousand_nodes_scroll_and_only_those_on_the_screen_are_drawn() -> None:
    made = drafts(3, nodes=10_000, finished=False)
    fed = TwinFeed(
        [Fact(at, at, "d", each.payload.kind, RUN, each.payload) for at, each in enumerate(made, 1)]
    )
    async with cockpit(fed, "plan") as (app, pilot):
        pane = pane_of(app)
        drawn: list[int] = []
        row = pane._row
        pane._row = lambda number, width: drawn.append(number) or row(number, width)  # type: ignore[method-assign,func-returns-value]
        assert app.view().run is not None
        order = [node.id for node in app.view().run.graph.nodes]
        await pilot.press("G")
        assert pane.node == order[-1]
        await seen(pilot, lambda: order[-1] in text_of(app))
        await pilot.press("pageup", "k", "g", "j")
        assert pane.node == order[1]
        assert 0 < len(drawn) < 40 * pane.lines.page


@pytest.mark.requirement("I7.search.1")
async def test_a_search_goes_to_nodes_by_what_is_told_of_them_and_hides_none() -> None:
    async with cockpit(feed("approved"), "plan") as (app, pilot):
        pane = app.pane
        assert isinstance(pane, PlanPane)
        await pilot.press("n")
        await seen(pilot, lambda: "/ asks for what" in text_of(app))
        rows = pane.lines.count
        await pilot.press("slash", *"mail", "enter")
        await seen(pilot, lambda: pane.node == "send")
        assert app.view().selected_node == "send"
        assert pane.lines.count == rows
        await pilot.press("slash", *"zzz", "enter")
        await seen(pilot, lambda: "no row has zzz" in text_of(app))
        await pilot.press("slash", "escape")
        assert (pane.has_focus, pane.node) == (True, "send")
