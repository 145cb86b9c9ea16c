"""The Trace pane: every key, the past, what is foreign; a long run costs no more than a short one."""

from __future__ import annotations

from typing import Any

import pytest

from agtop.feed.twin import TwinFeed
from agtop.panes.trace import TracePane
from agtop.screens.hop import HopScreen
from runloop.errors import NotFoundError
from tests.hostile_text import ALL_AT_ONCE, HOSTILE, WITNESS, assert_harmless
from tests.snapshots.frames import cockpit, feed, seen, text_of

RUN = "0b7c3f52-8a55-4c1e-9f6e-2d6f1f0a7b11"


def pane_of(app: Any) -> TracePane:
    pane = app.pane
    assert isinstance(pane, TracePane)
    return pane


def selected(app: Any) -> str:
    """The row with the cursor."""
    rows = text_of(app, app.pane.region).splitlines()
    return next((row for row in rows if row.startswith("▌")), "")


def foot(app: Any) -> str:
    return "\n".join(text_of(app, app.pane.region).splitlines()[-2:])


async def test_the_cursor_moves_by_rows_pages_and_to_both_ends() -> None:
    async with cockpit(feed("approved"), "trace") as (app, pilot):
        lines = pane_of(app).lines
        last = lines.count - 1
        assert lines.cursor == last
        await seen(pilot, lambda: "run succeeded" in selected(app))
        for key, row in [
            ("k", last - 1),
            ("up", last - 2),
            ("j", last - 1),
            ("g", 0),
            ("k", 0),
            ("pagedown", lines.page - 1),
            ("pageup", 0),
            ("down", 1),
            ("G", last),
            ("j", last),
        ]:
            await pilot.press(key)
            assert lines.cursor == row, key
        await pilot.press("g")
        await seen(pilot, lambda: "runs compose_email" in foot(app))
        assert "operator:0 -> daemon" in foot(app)


async def test_ladder_and_tree_show_the_same_fact_and_the_tree_folds() -> None:
    async with cockpit(feed("approved"), "trace", (100, 40)) as (app, pilot):
        pane = pane_of(app)
        await pilot.press("g")
        pane.action_move(19)
        await seen(pilot, lambda: "model.complete admitted" in selected(app))
        await pilot.press("t")
        await seen(pilot, lambda: "call model.complete, ok" in selected(app))
        await pilot.press("k")
        await seen(pilot, lambda: "attempt draft" in selected(app))
        rows = pane.lines.count
        await pilot.press("z")
        await seen(pilot, lambda: pane.lines.count == rows - 2)
        assert "▸" in selected(app)
        await pilot.press("z")
        await seen(pilot, lambda: pane.lines.count == rows)
        await pilot.press("t")
        await seen(pilot, lambda: "attempt 1" in selected(app))


async def test_a_hop_is_shown_with_its_bytes_as_text_and_in_hexadecimal() -> None:
    fed = feed("approved")
    fact = next(one for one in fed._facts[next(iter(fed._facts))] if one.kind == "hostcall.delivered")
    fed.blobs[fact.payload.args_blob] = b'{"query": "john", "k": 3}'  # type: ignore[attr-defined]
    async with cockpit(fed, "trace") as (app, pilot):
        await pilot.press("g", "j", "j", "j", "enter")
        await seen(pilot, lambda: isinstance(app.screen, HopScreen))
        await pilot.press("G")
        await seen(pilot, lambda: '|   "query": "john",' in text_of(app))
        assert "not to be had" in text_of(app)  # the answer's bytes are not in this twin
        await pilot.press("x", "G")
        await seen(pilot, lambda: "7b 22 71 75 65 72 79 22" in text_of(app))
        await pilot.press("g", "j", "pagedown", "escape")
        await seen(pilot, lambda: app.screen_stack == [app.screen])
        assert app.view().live


async def test_a_row_takes_every_pane_to_its_moment_and_selects_its_node() -> None:
    async with cockpit(feed("approved"), "trace") as (app, pilot):
        await pilot.press("g", "j", "j", "j", "v")
        await seen(pilot, lambda: app.view().selected_node == "contacts")
        place = pane_of(app)._ladder
        assert place is not None
        await pilot.press("full_stop")
        await seen(pilot, lambda: app.view().index == place.place(3) + 1)
        await seen(pilot, lambda: pane_of(app).lines.count == 4)
        await pilot.press("enter")
        await seen(pilot, lambda: isinstance(app.screen, HopScreen))
        await pilot.press("full_stop")
        await seen(pilot, lambda: not isinstance(app.screen, HopScreen))
        assert app.view().index == place.place(3) + 1


async def test_bytes_that_are_gone_are_said_to_be_gone() -> None:
    fed = feed("approved")
    fed.refusals["blob"] = NotFoundError(f"no bytes for {WITNESS}\x1b[2J", code="blob.absent")
    async with cockpit(fed, "trace") as (app, pilot):
        await pilot.press("g", "j", "j", "j", "enter", "pagedown")
        await seen(pilot, lambda: f"not to be had: no bytes for {WITNESS}\\x1b[2J" in text_of(app))


def made(texts: list[str]) -> list[dict[str, Any]]:
    """Facts whose every text is foreign."""
    told: list[dict[str, Any]] = []
    for text in texts:
        payload = {
            "name": text, "node": f"n{text}", "port": None, "media_type": text, "blob": "ab" * 32, "size": 1,
        }  # fmt: skip
        told.append({"kind": "artifact.created", "payload": payload})
    return [
        {
            "id": place,
            "ts_ms": 1_750_000_000_000 + place,
            "actor": "daemon",
            "run": RUN,
            "provenance": {},
            **one,
        }
        for place, one in enumerate(told, 1)
    ]


@pytest.mark.requirement("C6")
@pytest.mark.parametrize("plain", [False, True])
async def test_no_foreign_text_acts_or_hides_in_a_rung(plain: bool) -> None:
    async with cockpit(TwinFeed(made([*HOSTILE, ALL_AT_ONCE])), "trace", (120, 40), plain=plain) as (
        app,
        pilot,
    ):
        pane = pane_of(app)
        assert pane.lines.count == len(HOSTILE) + 1
        for number in range(pane.lines.count):
            row = pane._row(number, 400).plain
            assert WITNESS in row
            assert_harmless(row)
        await pilot.press("g", "enter")
        await seen(pilot, lambda: isinstance(app.screen, HopScreen))
        await pilot.press("escape", "t")
        for line in text_of(app).splitlines():
            assert_harmless(line)


@pytest.mark.requirement("I7.trace.1")
async def test_only_the_rows_on_the_screen_are_made() -> None:
    told = made([f"file {number}" for number in range(12_000)])
    async with cockpit(TwinFeed(told), "trace") as (app, pilot):
        pane = pane_of(app)
        await seen(pilot, lambda: pane.lines.count == 12_000)
        asked: list[int] = []
        ladder = pane._ladder
        assert ladder is not None
        rung = ladder.rung
        ladder.rung = lambda number: asked.append(number) or rung(number)  # type: ignore[method-assign,func-returns-value]
        await pilot.press("g", "G", "k", "pageup")
        await seen(pilot, lambda: pane.lines.cursor < 12_000 - 10)
        assert 0 < len(set(asked)) < 5 * pane.lines.page


@pytest.mark.requirement("I7.search.1")
@pytest.mark.parametrize("tree", [False, True])
async def test_a_search_goes_from_hit_to_hit_in_the_ladder_and_in_the_tree(tree: bool) -> None:
    async with cockpit(feed("approved"), "trace", (120, 40)) as (app, pilot):
        pane = pane_of(app)
        await pilot.press(*("t" if tree else ""), "g", "slash", *"model", "enter")
        hits = [row for row in range(pane.lines.count) if "model" in pane.said(row).lower()]
        assert len(hits) > 1
        first = next(row for row in hits if row)
        await seen(pilot, lambda: pane.lines.cursor == first)
        await pilot.press("n")
        later = [row for row in hits if row > first]
        await seen(pilot, lambda: pane.lines.cursor == (later or hits)[0])
        await pilot.press("N")
        await seen(pilot, lambda: pane.lines.cursor == first)
