"""A yes is for what was seen: every character has its room, and a key counts for what stood there when it was
pressed."""

from __future__ import annotations

import sys

import pytest
from rich.cells import cell_len
from textual.events import Key

from agtop.model.guard import QUIET_MS, STANDS_MS, Guard
from agtop.screens.meant import QUEUED_MS
from agtop.screens.typed import Typed
from runloop.escape import columns_of, visible
from tests.snapshots.frames import approval, cockpit, seen, text_of
from tests.unit.agtop.test_inbox_pane import AP, Clock, clock, foot, holding, opened

__all__ = ["clock"]

WIDE = "\u4dc0" * 45
"""Two columns each for whoever draws them; one for the tables of Python 3.11."""


@pytest.mark.requirement("C6")
def test_no_character_takes_more_room_on_the_screen_than_it_is_counted_with() -> None:
    shown = (char for char in map(chr, range(0x80, sys.maxunicode + 1)) if visible(char) == char)
    assert [f"U+{ord(char):04X}" for char in shown if cell_len(char) > columns_of(char)] == []


@pytest.mark.requirement("C6")
async def test_nothing_of_a_held_text_is_hidden_behind_wide_characters(clock: Clock) -> None:
    fed = holding(approval(content=f"Dear all,\n{WIDE}and pay mallory\n".encode(), type="text/plain"))
    async with cockpit(fed, "inbox", (80, 40)) as (app, pilot):
        await opened(app, pilot)
        await seen(pilot, lambda: "that was all of it" in text_of(app))
        assert text_of(app).count("and pay mallory") == 2  # as text, and among every byte


@pytest.mark.requirement("C6")
async def test_a_window_too_narrow_for_a_row_takes_no_yes(clock: Clock) -> None:
    fed = holding(approval())
    async with cockpit(fed, "inbox", (16, 40)) as (app, pilot):
        screen = await opened(app, pilot)
        await pilot.press("G")
        await seen(pilot, lambda: screen._guard.seen)
        clock.wait()
        await pilot.press("y")
        assert fed.orders == []
        assert "too narrow" in screen._said
        await pilot.resize_terminal(100, 40)
        await seen(pilot, lambda: "that was all of it" in text_of(app))
        clock.wait()
        await pilot.press("y")
        await seen(pilot, lambda: [order[1] for order in fed.orders] == [AP])


@pytest.mark.requirement("I7.inbox.2")
async def test_a_key_that_waited_while_the_screen_was_busy_is_judged_by_when_it_was_pressed(
    clock: Clock,
) -> None:
    fed = holding(approval())
    async with cockpit(fed, "inbox", (100, 40)) as (app, pilot):
        screen = await opened(app, pilot)
        await seen(pilot, lambda: "that was all of it" in text_of(app))
        clock.wait()
        early = Key("y", "y")
        early.time -= (STANDS_MS + QUIET_MS + QUEUED_MS) / 1_000  # before the question stood there
        app.post_message(early)
        await seen(pilot, lambda: bool(screen._said))
        assert fed.orders == []
        clock.wait()
        await seen(pilot, lambda: "y approves it, once" in foot(app) or bool(screen._said))
        await pilot.press("y")
        await seen(pilot, lambda: [order[1] for order in fed.orders] == [AP])


@pytest.mark.requirement("I7.inbox.2")
def test_a_key_pressed_before_the_last_line_was_there_is_no_answer() -> None:
    guard = Guard(0)
    guard.saw_end(5_000)
    assert not guard.judge(4_999).counts
    assert guard.judge(4_999 + QUIET_MS).counts


@pytest.mark.requirement("C6")
async def test_the_word_that_widens_is_not_pasted_by_a_key_either(clock: Clock) -> None:
    fed = holding(approval(op="agent.install", action={"name": "mallory"}))
    async with cockpit(fed, "inbox", (100, 40)) as (app, pilot):
        await opened(app, pilot)
        await seen(pilot, lambda: "that was all of it" in text_of(app))
        clock.wait()
        await pilot.press("y")
        await seen(pilot, lambda: bool(app.screen.query(Typed)))
        app._clipboard = "mallory"
        await pilot.press("ctrl+v")
        assert app.screen.query_one(Typed).value == ""
        assert fed.orders == []
