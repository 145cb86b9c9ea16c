"""Every key that works everywhere: panes, the time line, runs, the prompt, help; and what is said around."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from textual.binding import Binding

from agtop.app import PANES, CockpitApp
from agtop.feed.twin import TwinFeed
from agtop.ports import Link, Submitted
from agtop.screens import ask
from agtop.screens.ask import ConfirmScreen, LineScreen, RunsScreen
from agtop.screens.help import HelpScreen, keys_of
from agtop.wish import Wish
from runloop.errors import FailedError
from tests.hostile_text import ALL_AT_ONCE, HOSTILE, WITNESS, assert_harmless
from tests.snapshots.frames import NOW_MS, approval, cockpit, feed, question, seen, text_of
from tests.unit.agtop.test_reduce import facts_of

RUN = str(facts_of("approved")[0].run)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two keys there is always time enough for the second to be meant."""
    monkeypatch.setattr(ask, "steady_ms", itertools.count(0, 1_000).__next__)


def hostile_run() -> TwinFeed:
    """A run whose opening, prompt, nodes and errors are foreign from end to end."""
    fed = feed("partly_failed")
    made: list[dict[str, Any]] = []
    for fact in fed._facts[str(facts_of("partly_failed")[0].run)]:
        from agtop.model.facts import told

        payload = told(fact)
        if fact.kind == "run.started":
            payload["opening"] = f"{WITNESS}\x1b[2J\u202e"
            payload["origin"] = {"prompt": ALL_AT_ONCE}
        if payload.get("error"):
            payload["error"] = {"code": "x", "message": ALL_AT_ONCE, "retryable": False}
        if "reason" in payload:
            payload["reason"] = ALL_AT_ONCE
        made.append(
            {
                "id": fact.id,
                "ts_ms": fact.ts_ms,
                "actor": fact.actor,
                "kind": fact.kind,
                "version": fact.payload.version,
                "run": fact.run,
                "provenance": {},
                "payload": payload,
            }
        )
    return TwinFeed(made)


async def test_numbers_and_tab_bring_panes_to_the_front() -> None:
    async with cockpit(feed("approved"), "plan") as (app, pilot):
        for number, (name, _) in enumerate(PANES, 1):
            await pilot.press(str(number))
            assert app.pane.id == name
        await pilot.press("tab")
        assert app.pane.id == PANES[0][0]
        await pilot.press("shift+tab")
        assert app.pane.id == PANES[-1][0]


async def test_a_click_on_its_name_brings_a_pane_to_the_front() -> None:
    async with cockpit(feed("approved"), "plan") as (app, pilot):
        await pilot.click("#tabs", offset=(10, 0))
        await seen(pilot, lambda: app.pane.id == "log")


@pytest.mark.requirement("I7.time.1")
async def test_brackets_and_braces_step_through_the_run_and_every_pane_shows_that_moment() -> None:
    async with cockpit(feed("approved"), "plan") as (app, pilot):
        total = app.view().total
        await pilot.press("left_square_bracket", "left_square_bracket")
        assert (app.view().index, app.view().live) == (total - 2, False)
        await pilot.press("right_square_bracket")
        assert app.view().index == total - 1
        await pilot.press("less_than_sign")
        assert app.view().index == 0
        await pilot.press("right_curly_bracket", "right_curly_bracket")
        state = app.view().run
        assert state is not None
        assert [node for node, each in state.nodes.items() if each.word == "running"] == ["contacts"]
        await pilot.press("left_curly_bracket")
        assert app.view().index == 1
        await seen(pilot, lambda: "1 of" in text_of(app) and "paused" in text_of(app))
        await pilot.press("greater_than_sign")
        assert (app.view().index, app.view().live) == (total, True)


@pytest.mark.requirement("I7.time.1")
async def test_space_stays_at_this_moment_while_facts_come_and_goes_on_with_all_of_them() -> None:
    facts = facts_of("approved")
    fed = TwinFeed(facts[:40])
    async with cockpit(fed, "log") as (app, pilot):
        await pilot.press("space")
        fed.tell(facts[40:])
        await seen(pilot, lambda: app.view().total == len(facts))
        assert app.view().index == 40
        await seen(pilot, lambda: f"paused, {len(facts) - 40} later" in text_of(app))
        await pilot.press("space")
        assert (app.view().index, app.view().live) == (len(facts), True)


@pytest.mark.requirement("I7.time.1")
async def test_marks_are_set_and_found_again() -> None:
    async with cockpit(feed("approved"), "plan") as (app, pilot):
        await pilot.press("apostrophe")
        await seen(pilot, lambda: "nothing is marked yet" in text_of(app))
        await pilot.press("less_than_sign", "right_curly_bracket", "m")
        marked = app.view().index
        await seen(pilot, lambda: "marked" in text_of(app))
        await pilot.press("greater_than_sign", "apostrophe")
        assert app.view().index == marked
        await pilot.press("m", "greater_than_sign", "apostrophe")
        assert app.view().live


@pytest.mark.requirement("I7.time.1")
async def test_a_click_on_the_time_line_moves_there() -> None:
    async with cockpit(feed("approved"), "plan") as (app, pilot):
        await pilot.click("#scrubber", offset=(1, 0))
        await seen(pilot, lambda: app.view().index == 0)
        await pilot.click("#scrubber", offset=(20, 0))
        await seen(pilot, lambda: 0 < app.view().index < app.view().total)


async def test_the_run_picker_narrows_as_one_types_and_opens_what_is_chosen() -> None:
    async with cockpit(feed("approved", "cancelled", "denied"), "plan") as (app, pilot):
        await pilot.press("r")
        await seen(pilot, lambda: isinstance(app.screen, RunsScreen))
        await seen(pilot, lambda: "cancelled" in text_of(app))
        await pilot.press(*"cancel")
        await seen(pilot, lambda: "compose_email" not in text_of(app))
        await pilot.press("enter")
        wanted = str(facts_of("cancelled")[0].run)
        await seen(pilot, lambda: app.view().run is not None and app.view().run.run == wanted)
        await seen(pilot, lambda: app.view().total == len(facts_of("cancelled")))


async def test_the_run_picker_moves_leaves_and_looks_for_ids_that_are_not_listed() -> None:
    async with cockpit(feed("approved", "denied"), "plan") as (app, pilot):
        before = app.view().run
        await pilot.press("r", "down", "up", "escape")
        await seen(pilot, lambda: len(app.screen_stack) == 1)
        assert app.view().run == before
        await pilot.press("r", *"ffff", "enter")
        await seen(pilot, lambda: "no run is named" in text_of(app))
        await pilot.press("r", "down", "enter")
        await seen(pilot, lambda: app.view().run is not None and app.view().run != before)


async def test_a_run_inside_a_node_is_gone_into_and_come_back_from() -> None:
    async with cockpit(feed("mapped"), "plan") as (app, pilot):
        await pilot.press("G", "o", "j", "i")
        await seen(pilot, lambda: app.view().run is not None and app.view().run.opening == "inner")
        await pilot.press("backspace")
        await seen(pilot, lambda: app.view().run is not None and app.view().run.opening == "mapped")
        await pilot.press("backspace")
        await seen(pilot, lambda: "not inside another" in text_of(app))


async def test_fork_asks_where_and_orders_it_at_the_moment_that_is_looked_at() -> None:
    fed = feed("approved")
    async with cockpit(fed, "plan") as (app, pilot):
        await pilot.press("less_than_sign", "right_curly_bracket", "f")
        await seen(pilot, lambda: isinstance(app.screen, LineScreen))
        await pilot.press("enter")
        await seen(pilot, lambda: bool(fed.orders))
        assert fed.orders == [("fork", RUN, f"#{facts_of('approved')[0].id}")]
        await pilot.press("greater_than_sign", "j", "f", "enter")
        await seen(pilot, lambda: len(fed.orders) == 2)
        assert fed.orders[1] == ("fork", RUN, "context")


async def test_fork_left_with_escape_orders_nothing_and_a_refusal_is_said() -> None:
    fed = feed("approved")
    async with cockpit(fed, "plan") as (app, pilot):
        await pilot.press("f", "escape")
        await seen(pilot, lambda: len(app.screen_stack) == 1)
        assert fed.orders == []
        fed.refusals["fork"] = FailedError(f"no such place {WITNESS}\x1b[2J", hint="look again")
        await pilot.press("f", "enter")
        await seen(pilot, lambda: "no such place" in text_of(app) and "look again" in text_of(app))
        for line in text_of(app).splitlines():
            assert_harmless(line)


async def test_cancelling_is_asked_about_and_only_y_means_yes() -> None:
    fed = TwinFeed(facts_of("approved")[:40])
    async with cockpit(fed, "plan") as (app, pilot):
        for key in ("n", "escape"):
            await pilot.press("ctrl+x")
            await seen(pilot, lambda: isinstance(app.screen, ConfirmScreen))
            await pilot.press("enter", "space", key)
            await seen(pilot, lambda: len(app.screen_stack) == 1)
        assert fed.orders == []
        await pilot.press("ctrl+x", "y")
        await seen(pilot, lambda: bool(fed.orders))
        assert fed.orders == [("cancel", RUN, "cancelled in the cockpit")]


async def test_a_yes_typed_ahead_cancels_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = TwinFeed(facts_of("approved")[:40])
    monkeypatch.setattr(ask, "steady_ms", itertools.count(0, 10).__next__)
    async with cockpit(fed, "plan") as (app, pilot):
        await pilot.press("ctrl+x", "y")
        await seen(pilot, lambda: "too quickly" in text_of(app))
        assert (fed.orders, isinstance(app.screen, ConfirmScreen)) == ([], True)


async def test_only_what_waits_for_a_person_is_counted_as_waiting() -> None:
    fed = feed("approved")
    yes = {"state": "active", "dispatch_after_ms": NOW_MS + 5_000}
    fed.shown_approvals = {"ap_a": approval("ap_a", **yes), "ap_b": approval("ap_b")}
    fed.shown_questions = [question()]
    async with cockpit(fed, "plan", (120, 24)) as (app, pilot):
        await seen(pilot, lambda: "2 wait for you: 6" in text_of(app))
        assert text_of(app).splitlines()[0].rstrip().endswith("6 Inbox 2")
        fed.shown_questions, fed.shown_approvals["ap_b"]["state"] = [], "denied"
        fed.relink(fed.link)
        app.watch_._refresh_soon()
        await seen(pilot, lambda: "wait for you" not in text_of(app))


async def test_a_run_that_is_over_is_not_cancelled() -> None:
    fed = feed("approved")
    async with cockpit(fed, "plan") as (app, pilot):
        await pilot.press("ctrl+x")
        await seen(pilot, lambda: "over already" in text_of(app))
        assert fed.orders == []


@pytest.mark.requirement("I7.wish.1")
async def test_a_wish_goes_where_rlp_would_take_it_and_its_run_is_looked_at() -> None:
    fed = feed("approved", "denied")
    fed.submitted = Submitted(kind="run", run=RUN, words="compose_email (it asks for it)")
    async with cockpit(fed, "plan") as (app, pilot):
        assert app.view().run is not None
        await pilot.press("p", *"mailjohn", "enter")
        await seen(pilot, lambda: fed.orders == [("submit", "mailjohn")])
        await seen(pilot, lambda: app.view().run is not None and app.view().run.run == RUN)
        await seen(pilot, lambda: not app.query_one(Wish).display)
        await pilot.press("p", "up")
        assert app.query_one(Wish).value == "mailjohn"
        await pilot.press("down")
        assert app.query_one(Wish).value == ""
        await pilot.press(*"never", "escape")
        await seen(pilot, lambda: not app.query_one(Wish).display)
        assert len(fed.orders) == 1
        await pilot.press("2")
        assert app.pane.id == "log"


async def test_a_line_that_is_a_shells_is_named_and_nothing_is_done() -> None:
    fed = feed("approved")
    fed.submitted = Submitted(kind="shell", words="this is a shell line (a command with flags)")
    async with cockpit(fed, "plan") as (app, pilot):
        await pilot.press("p", *"ls", "space", *"-la", "enter")
        await seen(pilot, lambda: "this is a shell line" in text_of(app))


@pytest.mark.requirement("I7.keys.1")
async def test_help_tells_every_key_of_the_pane_and_every_key_that_works_everywhere() -> None:
    async with cockpit(feed("approved"), "plan", (120, 80)) as (app, pilot):
        for number, (name, _) in enumerate(PANES, 1):
            await pilot.press(str(number), "question_mark")
            await seen(pilot, lambda: isinstance(app.screen, HelpScreen))
            said = " ".join(text_of(app).split())
            for each in (*keys_of(app.pane), *CockpitApp.BINDINGS):
                binding = each if isinstance(each, Binding) else Binding(*each)
                assert binding.description, f"{name}: {binding.key} is not described"
                assert binding.description in said, f"{name}: {binding.description}"
            await pilot.press("escape")
            await seen(pilot, lambda: len(app.screen_stack) == 1)


@pytest.mark.requirement("I7.keys.1")
async def test_no_two_panes_take_a_key_that_works_everywhere() -> None:
    everywhere = {key for each in CockpitApp.BINDINGS for key in each.key.split(",")}  # type: ignore[union-attr]
    for name, pane in PANES:
        own = {
            key
            for each in keys_of(pane())
            for key in (each.key if isinstance(each, Binding) else each[0]).split(",")
        }
        assert {"j", "k", "g", "G"} <= own, name
        assert not own & everywhere, name


async def test_the_palette_finds_commands_by_name() -> None:
    async with cockpit(feed("approved"), "plan") as (app, pilot):
        await pilot.press("colon")
        await seen(pilot, lambda: len(app.screen_stack) == 2)
        await pilot.press(*"Pane: Log")
        await seen(pilot, lambda: "bring it to the front" in text_of(app))
        await pilot.pause(0.2)
        await pilot.press("enter")
        await seen(pilot, lambda: app.pane.id == "log")


async def test_the_status_says_when_the_daemon_is_gone_and_when_it_is_back() -> None:
    fed = feed("approved")
    async with cockpit(fed, "plan") as (app, pilot):
        await seen(pilot, lambda: "live" in text_of(app))
        fed.relink(Link(how="gone", since_ms=1, words="the daemon went away"))
        await seen(pilot, lambda: "the daemon went away" in text_of(app) and "looking for it" in text_of(app))
        fed.relink(Link(how="live", words="home"))
        await seen(pilot, lambda: "went away" not in text_of(app) and "live" in text_of(app))


async def test_what_waits_for_a_person_is_counted_in_the_status_and_beside_the_inbox() -> None:
    fed = feed("approved")
    fed.shown_approvals = {"ap_1": {"approval": "ap_1", "state": "open", "action": {}, "expires_ms": 0}}
    async with cockpit(fed, "plan") as (app, pilot):
        await seen(pilot, lambda: "1 waits for you" in text_of(app))
        assert " 6 Inbox 1" in text_of(app)


async def test_without_any_run_the_cockpit_says_how_to_begin() -> None:
    fed = TwinFeed()
    async with cockpit(fed, "plan") as (app, pilot):
        assert "no run yet: p takes a wish" in text_of(app)
        await pilot.press(*"jkfm[]<> ", "enter")
        fed.tell(facts_of("approved"))
        await seen(pilot, lambda: "compose_email" in text_of(app))


async def test_the_newest_run_is_looked_at_unless_one_was_named() -> None:
    older = str(facts_of("approved")[0].run)
    async with cockpit(feed("approved", "denied"), "plan") as (app, _):
        assert app.view().run is not None and app.view().run.run != older
    async with cockpit(feed("approved", "denied"), "plan", run=older) as (app, _):
        assert app.view().run is not None and app.view().run.run == older


@pytest.mark.parametrize("theme", ["runloop", "runloop-light", "high-contrast", "no such theme"])
async def test_it_is_drawn_in_every_theme_and_an_unknown_one_is_the_usual(theme: str) -> None:
    async with cockpit(feed("approved"), "plan", theme=theme) as (app, pilot):
        assert app.theme == (theme if " " not in theme else "runloop")
        await seen(pilot, lambda: "compose_email" in text_of(app))


@pytest.mark.parametrize("size", [(20, 6), (200, 60)])
async def test_no_size_breaks_it(size: tuple[int, int]) -> None:
    async with cockpit(feed("approved"), "plan", size) as (app, pilot):
        for number in range(1, len(PANES) + 1):
            await pilot.press(str(number), "j", "k")
        assert len(text_of(app).splitlines()) == size[1]


@pytest.mark.requirement("I7.plain.1")
async def test_in_words_only_there_is_no_box_no_bar_and_no_sign() -> None:
    async with cockpit(feed("approved"), "plan", plain=True) as (app, pilot):
        await seen(pilot, lambda: "draft: done" in text_of(app))
        for number in range(1, len(PANES) + 1):
            await pilot.press(str(number))
            await pilot.pause()
            drawn = text_of(app).replace("▌", "")
            assert not set("│─╭╮╰╯├┤┬┴┼●◆✔✘━▾") & set(drawn), drawn
        app.turn_plain()
        await pilot.press("1")
        await seen(pilot, lambda: "✔" in text_of(app))


@pytest.mark.requirement("C6")
@pytest.mark.parametrize("plain", [False, True])
async def test_no_foreign_text_acts_or_hides_above_below_or_in_plan_and_log(plain: bool) -> None:
    fed = hostile_run()
    async with cockpit(fed, "plan", (120, 40), plain=plain) as (app, pilot):
        for number in ("1", "2"):
            await pilot.press(number)
            await seen(pilot, lambda: WITNESS in text_of(app))
            for key in ("enter", "G", "escape", "escape", "v"):
                await pilot.press(key)
                for line in text_of(app).splitlines():
                    assert_harmless(line)
        await pilot.press("r")
        await seen(pilot, lambda: isinstance(app.screen, RunsScreen))
        for line in text_of(app).splitlines():
            assert_harmless(line)


@pytest.mark.requirement("C6")
async def test_no_foreign_text_acts_in_what_is_said() -> None:
    async with cockpit(feed("approved"), "plan", (120, 60)) as (app, pilot):
        for text in HOSTILE[:: len(HOSTILE) // 8]:
            app.say(text, wrong=True)
        await seen(pilot, lambda: text_of(app).count(WITNESS) >= 8)
        for line in text_of(app).splitlines():
            assert_harmless(line)


async def test_a_last_tick_while_it_is_left_finds_no_pane_and_does_no_harm() -> None:
    async with cockpit(feed("approved"), "plan") as (app, _):
        assert app.is_running
    await app._tick()


async def test_leaving_hangs_up() -> None:
    fed = feed("approved")
    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    fed.close = close  # type: ignore[method-assign]
    async with cockpit(fed, "plan") as (_, pilot):
        await pilot.press("q")
    assert closed.is_set()
