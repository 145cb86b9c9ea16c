"""The pane of agents: every key, every order asked about first, foreign names shown harmless."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from textual.pilot import Pilot

from agtop.app import CockpitApp
from agtop.feed.twin import TwinFeed
from agtop.model.guard import QUIET_MS, STANDS_MS
from agtop.panes.metrics import MetricsPane
from agtop.ports import Link
from agtop.screens import ask
from agtop.screens.agent import AgentScreen
from agtop.screens.ask import ConfirmScreen, LineScreen
from runloop.errors import NotFoundError
from tests.snapshots.frames import cockpit, seen, text_of
from tests.unit.agtop.samples import agent, sample

HOSTILE = "a\x1b[2J\u202e\nb [bold red]{}"
AGENTS = (
    agent("spinner", state="running", cpu_percent=58.0, rss_bytes=41 << 20, calls=12, fuel=7, workers=1),
    agent("writer", state="running", cpu_percent=10.0, rss_bytes=130 << 20, input_tokens=123_456, queue=2),
    agent("asker", state="asking", asking=1, cost_micro_usd=5_000),
    agent("held", state="quarantined", why="8 failures within 600 s", error_percent=100.0, failed=8),
    agent("torn", state="broken", why="its archive is cut", version=None),
)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clock of pauses between keys: a second passes whenever somebody looks, or what is put here, ms."""
    made = [1_000]
    now = [0]

    def look() -> int:
        now[0] += made[0]
        return now[0]

    monkeypatch.setattr(ask, "steady_ms", look)
    return made


class Desk:
    """A cockpit with the pane in front."""

    def __init__(self, app: CockpitApp, pilot: Pilot[None], feed: TwinFeed) -> None:
        self.app, self.pilot, self.feed = app, pilot, feed

    @property
    def pane(self) -> MetricsPane:
        pane = self.app.pane
        assert isinstance(pane, MetricsPane)
        return pane

    @property
    def rows(self) -> list[str]:
        return [str(row["agent"]) for row in self.pane._rows]

    @property
    def here(self) -> str:
        row = self.pane._here
        return "" if row is None else str(row["agent"])

    async def type(self, *keys: str) -> None:
        for key in keys:
            await self.pilot.press(key)
        await self.pilot.pause()

    async def until(self, holds: Any) -> None:
        await seen(self.pilot, holds)

    async def tell(self, told: dict[str, Any]) -> None:
        """The next sample, and the second that brings it."""
        self.feed.shown_metrics = told
        await self.app._tick()
        await self.until(lambda: self.pane.view is not None and self.pane.view.metrics is told)

    def text(self) -> str:
        return text_of(self.app)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    feed = TwinFeed()
    feed.shown_metrics = sample(1, *AGENTS)
    async with cockpit(feed, "agents") as (app, pilot):
        made = Desk(app, pilot, feed)
        await made.until(lambda: made.rows)
        yield made


async def test_the_busiest_stands_first_and_the_daemon_above_it(desk: Desk) -> None:
    assert desk.rows == ["spinner", "writer", "asker", "held", "torn"]
    shown = desk.text()
    assert "daemon 4242" in shown and "2 running" in shown and "1 asks you" in shown
    assert "▼CPU%" in shown and "58.0" in shown


async def test_the_cursor_moves_by_the_keys_of_k9s_and_the_rows_below_tell_of_its_agent(desk: Desk) -> None:
    await desk.type("N")
    assert desk.rows == sorted(desk.rows)
    await desk.type("g")
    assert desk.here == "asker"
    await desk.type("j", "down")
    assert desk.here == "spinner"
    await desk.type("k")
    assert desk.here == "held"
    assert "8 failures within 600 s" in desk.text()
    await desk.type("G")
    assert desk.here == "writer"
    await desk.type("up", "home")
    assert desk.here == "asker"
    await desk.type("end", "pageup")
    assert desk.here == "asker"
    await desk.type("pagedown")
    assert desk.here == "writer"


async def test_the_cursor_stays_on_its_agent_while_the_order_changes(desk: Desk) -> None:
    await desk.type("g", "j")
    assert desk.here == "writer"
    await desk.tell(sample(2, agent("new", cpu_percent=99.0), agent("newer", cpu_percent=98.0), *AGENTS))
    assert (desk.here, desk.rows.index("writer")) == ("writer", 3)
    await desk.tell(sample(3, agent("new")))
    assert desk.here == "new"


async def test_a_capital_letter_sorts_by_its_column_and_again_turns_it_around(desk: Desk) -> None:
    for key, first, last in (
        ("M", "writer", "torn"), ("C", "spinner", "torn"), ("T", "writer", "torn"), ("E", "held", "torn"),
        ("W", "writer", "torn"), ("F", "spinner", "torn"), ("D", "asker", "torn"),
        ("S", "spinner", "torn"), ("N", "asker", "writer"),
    ):  # fmt: skip
        await desk.type(key)
        before = desk.rows
        assert (key, before[0], before[-1]) == (key, first, last)
        await desk.type(key)
        assert desk.rows == before[::-1]


async def test_s_goes_from_column_to_column_and_o_turns_the_order(desk: Desk) -> None:
    await desk.type("N", "s")
    assert desk.pane._by.name == "state"
    before = desk.rows
    await desk.type("o")
    assert desk.rows == before[::-1]
    assert "▼STATE" in desk.text()


async def test_what_is_typed_behind_a_slash_narrows_the_table_and_escape_takes_it_away(desk: Desk) -> None:
    await desk.type("slash", *"runn")
    assert set(desk.rows) == {"spinner", "writer"}
    await desk.type("enter")
    assert desk.pane.has_focus
    await desk.type("N")
    assert desk.rows == ["spinner", "writer"]
    assert "/runn: 2 of" in desk.text()
    await desk.type("slash", "x", "enter")
    assert desk.rows == [] and "no agent matches" in desk.text()
    await desk.type("K", "R", "Q", "enter", "j")
    assert len(desk.app.screen_stack) == 1
    await desk.type("escape")
    assert len(desk.rows) == len(AGENTS)


async def test_enter_tells_everything_of_an_agent_and_escape_goes_back(desk: Desk) -> None:
    await desk.type("N", "g", "j", "enter")
    assert isinstance(desk.app.screen, AgentScreen)
    assert "8 failures within 600 s" in desk.text() and "quarantined" in desk.text()
    await desk.type("G", "escape")
    assert len(desk.app.screen_stack) == 1


@pytest.mark.requirement("I7.top.3")
@pytest.mark.parametrize(("key", "order"), [("K", "kill"), ("R", "restart")])
async def test_an_order_is_given_by_a_yes_on_the_screen_that_names_the_agent_and_by_no_other_key(
    desk: Desk, key: str, order: str
) -> None:
    await desk.type("N", "g", "j", "j")
    for other in ("n", "escape", "enter"):
        await desk.type(key)
        assert isinstance(desk.app.screen, ConfirmScreen)
        assert "spinner" in desk.text()
        await desk.type(other, "escape")
        assert (desk.feed.orders, len(desk.app.screen_stack)) == ([], 1)
    await desk.type(key, "y")
    await desk.until(lambda: desk.feed.orders)
    assert desk.feed.orders == [(order, "spinner", "asked for in the cockpit")]


@pytest.mark.requirement("I7.top.3")
@pytest.mark.parametrize(("key", "order"), [("K", "kill"), ("R", "restart")])
async def test_an_order_needs_a_key_that_was_meant_and_none_that_was_typed_ahead(
    desk: Desk, hasty: list[int], key: str, order: str
) -> None:
    await desk.type("N", "g", "j", "j")
    hasty[0] = STANDS_MS // 20
    await desk.type(key, "y", "y", "y")
    assert (desk.feed.orders, len(desk.app.screen_stack)) == ([], 2)
    assert "too quickly" in desk.text()
    hasty[0] = STANDS_MS + QUIET_MS
    await desk.type("y")
    await desk.until(lambda: desk.feed.orders)
    assert [given[:2] for given in desk.feed.orders] == [(order, "spinner")]


async def test_an_enter_typed_ahead_quarantines_nobody(desk: Desk, hasty: list[int]) -> None:
    await desk.type("N", "G")
    hasty[0] = STANDS_MS // 20
    await desk.type("Q", "enter")
    assert (desk.feed.orders, len(desk.app.screen_stack)) == ([], 2)
    assert "too quickly" in desk.text()
    hasty[0] = STANDS_MS + QUIET_MS
    await desk.type("enter")
    await desk.until(lambda: desk.feed.orders)
    assert desk.feed.orders[0][:2] == ("quarantine", "writer")


async def test_a_quarantine_asks_for_its_reason_and_an_empty_one_does_nothing(desk: Desk) -> None:
    await desk.type("N", "G", "Q")
    assert isinstance(desk.app.screen, LineScreen)
    await desk.type("escape")
    await desk.type("Q", "ctrl+u", "enter")
    assert desk.feed.orders == []
    await desk.type("Q", "ctrl+u", *"odd", "enter")
    await desk.until(lambda: desk.feed.orders)
    assert desk.feed.orders == [("quarantine", "writer", "odd")]


async def test_one_that_is_quarantined_is_released_after_a_yes(desk: Desk) -> None:
    await desk.type("N", "g", "j", "Q")
    assert isinstance(desk.app.screen, ConfirmScreen)
    assert "8 failures" in desk.text()
    await desk.type("y")
    await desk.until(lambda: desk.feed.orders)
    assert desk.feed.orders == [("release", "held", "asked for in the cockpit")]


async def test_an_order_that_is_refused_is_told_with_the_way_out(desk: Desk) -> None:
    desk.feed.refusals["kill"] = NotFoundError("torn does nothing now", hint="'rlp top' shows who works")
    await desk.type("N", "g", "j", "j", "j", "K", "y")
    await desk.until(lambda: any("'rlp top' shows" in said.message for said in desk.app._notifications))


async def test_names_and_reasons_of_agents_are_shown_harmless_everywhere() -> None:
    feed = TwinFeed()
    feed.shown_metrics = sample(1, agent(HOSTILE, state="broken", why=HOSTILE), agent("other", why=HOSTILE))
    async with cockpit(feed, "agents") as (app, pilot):
        desk = Desk(app, pilot, feed)
        await desk.until(lambda: desk.rows)
        await desk.type("N", "g")
        for keys in ((), ("enter",), ("escape", "K"), ("escape", "Q"), ("escape",)):
            await desk.type(*keys)
            shown = desk.text()
            assert not {char for char in shown if char in "\x1b\u202e\x07"}
            assert "[bold red]" in shown or "\\x1b" in shown
        await desk.type("K", "y")
        await desk.until(lambda: feed.orders)
        assert feed.orders[0][1] == HOSTILE


async def test_without_a_daemon_the_pane_says_so_and_figures_of_before_stay(desk: Desk) -> None:
    desk.feed.relink(Link(how="gone", since_ms=1, words="it ended"))
    await desk.until(lambda: "these figures are of before" in desk.text())
    assert "spinner" in desk.text()
    desk.feed.relink(Link(how="recorded", words="a file"))
    await desk.until(lambda: "no daemon is looked at" in desk.text())


async def test_a_daemon_that_does_not_tell_is_told_of_and_the_next_sample_is_taken(desk: Desk) -> None:
    desk.feed.refusals["metrics"] = NotFoundError("unknown method agents.metrics")
    await desk.app._tick()
    await desk.until(lambda: "no figures: unknown method" in desk.text())
    del desk.feed.refusals["metrics"]
    await desk.tell(sample(2, *AGENTS))
    await desk.until(lambda: "daemon 4242" in desk.text())


async def test_two_hundred_agents_scroll_and_only_what_is_seen_is_drawn() -> None:
    feed = TwinFeed()
    feed.shown_metrics = sample(1, *(agent(f"agent_{number:03}") for number in range(200)))
    async with cockpit(feed, "agents") as (app, pilot):
        desk = Desk(app, pilot, feed)
        await desk.until(lambda: desk.rows)
        drawn: set[int] = set()
        figures = desk.pane._figures
        row = figures.row

        def noted(told: Any, shape: Any, width: int) -> Any:
            drawn.add(int(str(told["agent"])[-3:]))
            return row(told, shape, width)

        figures.row = noted  # type: ignore[method-assign]
        await desk.type("G")
        await desk.until(lambda: "agent_199" in desk.text() and "agent_000" not in desk.text())
        drawn.clear()
        desk.pane.lines.refresh()
        await desk.until(lambda: 199 in drawn)
        assert len(drawn) <= 24 and min(drawn) > 170


async def test_words_only_have_no_bars_and_say_what_the_table_shows() -> None:
    feed = TwinFeed()
    feed.shown_metrics = sample(1, *AGENTS)
    async with cockpit(feed, "agents", (120, 30), plain=True) as (app, pilot):
        desk = Desk(app, pilot, feed)
        await desk.until(lambda: desk.rows)
        await desk.until(lambda: "spinner, running, cpu 58.0%" in desk.text())
        assert not {char for char in text_of(app, app.pane.region) if char in "▁▂▃▄▅▆▇█●◆○⊘✘▼▲"}


@pytest.mark.parametrize("size", [(20, 10), (60, 20), (200, 60)])
async def test_no_row_is_wider_than_the_terminal_at_any_size(size: tuple[int, int]) -> None:
    feed = TwinFeed()
    feed.shown_metrics = sample(1, *AGENTS)
    async with cockpit(feed, "agents", size) as (app, pilot):
        desk = Desk(app, pilot, feed)
        await desk.until(lambda: desk.rows)
        assert max(map(len, desk.text().splitlines())) <= size[0]
        await desk.type("j", "M", "enter", "escape")
