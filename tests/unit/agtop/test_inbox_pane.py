"""The Inbox: every byte before a yes, a yes only by a key that was meant; and a way back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from textual.events import Paste
from textual.widgets import TextArea

from agtop.app import CockpitApp
from agtop.feed.twin import TwinFeed
from agtop.model.document import Document
from agtop.model.guard import QUIET_MS, STANDS_MS
from agtop.model.inbox import Item
from agtop.panes import inbox
from agtop.panes.inbox import InboxPane
from agtop.screens.answer import AnswerScreen
from agtop.screens.approval import ApprovalScreen, EditScreen, editable
from agtop.screens.typed import Typed, TypedScreen
from runloop.errors import ConflictError, NotFoundError
from tests.hostile_text import ALL_AT_ONCE, HOSTILE, WITNESS, assert_harmless
from tests.snapshots.frames import MAIL, NOW_MS, approval, cockpit, feed, question, seen, text_of

LONG = MAIL + b"".join(b"line %d of the mail\r\n" % number for number in range(300))
AP = "ap_1234567890abcdef"


class Clock:
    """The clock of pauses between keys: it goes when a test says so."""

    def __init__(self) -> None:
        self.ms = 1_000

    def __call__(self) -> int:
        return self.ms

    def wait(self) -> None:
        """Long enough for a key to be meant."""
        self.ms += STANDS_MS + QUIET_MS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(inbox, "steady_ms", made)
    yield made


def holding(*approvals: dict[str, Any], questions: tuple[dict[str, Any], ...] = ()) -> TwinFeed:
    made = feed("approved")
    made.shown_approvals = {one["approval"]: one for one in approvals}
    made.shown_questions = list(questions)
    return made


def foot(app: CockpitApp) -> str:
    return "\n".join(text_of(app).splitlines()[-2:])


async def opened(app: CockpitApp, pilot: Any, key: str = "enter") -> ApprovalScreen:
    await seen(pilot, lambda: "wait" in text_of(app))
    await pilot.press("g", key)
    await seen(pilot, lambda: any(isinstance(one, ApprovalScreen) for one in app.screen_stack))
    return next(one for one in app.screen_stack if isinstance(one, ApprovalScreen))


# --- yes --------------------------------------------------------------------------------------------


@pytest.mark.requirement("I7.inbox.1")
async def test_a_short_action_is_shown_whole_and_approved_by_a_key(clock: Clock) -> None:
    fed = holding(approval(label="import:mail"))
    async with cockpit(fed, "inbox", (100, 40)) as (app, pilot):
        await opened(app, pilot)
        await seen(pilot, lambda: "that was all of it" in text_of(app))
        shown = text_of(app)
        for words in ("john.carter@example.org", "nobody can call it back", "MIME-Version: 1.0", "strangers"):
            assert words in shown
        clock.wait()
        await seen(pilot, lambda: "y approves it, once" in foot(app))
        await pilot.press("y")
        await seen(pilot, lambda: bool(fed.orders))
        assert fed.orders == [("decide", AP, approval()["action_digest"], "approve", "")]
        await seen(pilot, lambda: "u takes it back" in text_of(app))


@pytest.mark.requirement("I7.inbox.1")
async def test_after_another_pane_what_it_is_about_is_set_only_in_the_columns_that_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    widths, about = [], InboxPane._about

    def noted(pane: InboxPane, item: Item, width: int) -> Document:
        widths.append(width)
        return about(pane, item, width)

    monkeypatch.setattr(InboxPane, "_about", noted)
    async with cockpit(holding(approval(AP)), "plan", (100, 40)) as (app, pilot):
        await pilot.press("6")
        await seen(pilot, lambda: isinstance(app.pane, InboxPane) and "mailer, node send" in text_of(app))
    assert min(widths) >= 90


async def test_a_long_action_is_read_to_its_last_byte_before_it_can_be_approved(clock: Clock) -> None:
    fed = holding(approval(content=LONG))
    async with cockpit(fed, "inbox") as (app, pilot):
        await opened(app, pilot)
        clock.wait()
        await seen(pilot, lambda: "read to the end" in foot(app))
        await pilot.press("y")
        await seen(pilot, lambda: "read to the end first" in foot(app))
        await pilot.press("space", "j", "pagedown", "k", "pageup", "g")
        clock.wait()
        await pilot.press("y")
        assert fed.orders == []
        await pilot.press("G")
        await seen(pilot, lambda: "line 299 of the mail" in text_of(app))
        clock.wait()
        await pilot.press("y")
        await seen(pilot, lambda: [order[3] for order in fed.orders] == ["approve"])


@pytest.mark.requirement("I7.inbox.2")
async def test_keys_typed_ahead_or_held_down_approve_nothing(clock: Clock) -> None:
    fed = holding(approval())
    async with cockpit(fed, "inbox", (100, 40)) as (app, pilot):
        await opened(app, pilot, "a")
        await seen(pilot, lambda: "that was all of it" in text_of(app))
        for _ in range(12):
            await pilot.press("y")
            clock.ms += QUIET_MS - 1
        assert fed.orders == []
        await seen(pilot, lambda: "too quickly" in foot(app))
        clock.wait()
        await pilot.press("j", "y")  # any other key begins the pause anew
        assert fed.orders == []
        clock.ms += QUIET_MS
        await pilot.press("y")
        await seen(pilot, lambda: len(fed.orders) == 1)


@pytest.mark.requirement("I7.inbox.2")
async def test_what_is_pasted_and_what_is_clicked_approve_nothing(clock: Clock) -> None:
    fed = holding(approval())
    async with cockpit(fed, "inbox", (100, 40)) as (app, pilot):
        screen = await opened(app, pilot)
        await seen(pilot, lambda: "that was all of it" in text_of(app))
        clock.wait()
        screen.post_message(Paste("y\ny\n"))
        for place in ((2, 1), (2, 38), (2, 39), (20, 39)):
            await pilot.click(offset=place)
            await pilot.double_click(offset=place)
        assert fed.orders == []
        assert app.screen is screen
        await pilot.press("y")  # the paste began the pause anew
        assert fed.orders == []


@pytest.mark.requirement("I7.inbox.1")
@pytest.mark.parametrize("what", ["content", "action"])
async def test_what_is_shown_is_what_is_bound_or_it_cannot_be_approved(clock: Clock, what: str) -> None:
    held = approval() if what == "content" else approval(action={"recipients": ["eve@example.org"]})
    held |= {"content": approval(content=LONG)["content"]} if what == "content" else {}
    held["action_digest"] = approval()["action_digest"]
    fed = holding(held)
    async with cockpit(fed, "inbox", (100, 40)) as (app, pilot):
        await opened(app, pilot)
        await seen(pilot, lambda: "DO NOT APPROVE" in text_of(app))
        clock.wait()
        await pilot.press("G", "y")
        clock.wait()
        await pilot.press("y", "e")
        assert fed.orders == []
        assert "cannot be approved" in foot(app)
        await pilot.press("n")
        await seen(pilot, lambda: isinstance(app.screen, TypedScreen))
        clock.wait()
        await pilot.press("enter")
        await seen(pilot, lambda: [order[3] for order in fed.orders] == ["deny"])


@pytest.mark.requirement("I7.inbox.1")
def test_every_byte_is_below_what_was_made_of_them_for_people() -> None:
    hidden = MAIL.replace(b"text/plain", b"multipart/alternative; boundary=x") + (
        b"--x\r\nContent-Type: text/plain\r\n\r\nhonest\r\n"
        b"--x\r\nContent-Type: text/html\r\nX-Odd: 1\r\n\r\n<b>not said in the text</b>\r\n--x--\r\n"
    )
    many = b"".join(b"line %d\n" % number for number in range(5_000))
    for content, kind in ((hidden, "message/rfc822"), (many, "text/plain")):
        made = ApprovalScreen(approval(content=content, type=kind), lambda: 0).document(100, False)
        rows = [made.row(number).text for number in range(made.count)]
        below = rows[next(at for at, row in enumerate(rows) if row.startswith("every byte")) + 1 : -1]
        assert [row.removeprefix("| ") for row in below] == content.decode().replace("\r\n", "\n").split("\n")


@pytest.mark.requirement("C8")
async def test_what_widens_authority_takes_its_name_typed_out(clock: Clock) -> None:
    fed = holding(approval(op="agent.install", run=None, action={"name": "weather"}))
    async with cockpit(fed, "inbox", (100, 40)) as (app, pilot):
        await opened(app, pilot)
        await seen(pilot, lambda: "that was all of it" in text_of(app))

        async def type_out(word: str) -> None:
            clock.wait()
            await pilot.press("y")
            await seen(pilot, lambda: isinstance(app.screen, TypedScreen))
            await pilot.press(*word, "enter")
            await seen(pilot, lambda: not isinstance(app.screen, TypedScreen))

        await type_out("wether")
        await seen(pilot, lambda: "that is not weather" in foot(app))
        clock.wait()
        await pilot.press("y")
        await seen(pilot, lambda: isinstance(app.screen, TypedScreen))
        app.screen.query_one(Typed).post_message(Paste("weather"))
        await pilot.pause()
        assert app.screen.query_one(Typed).value == ""
        await pilot.press("escape")
        assert fed.orders == []
        await type_out("weather")
        await seen(pilot, lambda: [order[3] for order in fed.orders] == ["approve"])
        assert fed.orders[0][5] == "weather", "the daemon is told the word that was typed"


# --- no, and other words ------------------------------------------------------------------------------


async def test_a_no_carries_a_reason_and_a_second_thought_leaves_it_waiting(clock: Clock) -> None:
    fed = holding(approval())
    async with cockpit(fed, "inbox", (100, 40)) as (app, pilot):
        await opened(app, pilot, "d")
        await seen(pilot, lambda: isinstance(app.screen, TypedScreen))
        await pilot.press("enter")  # typed ahead
        await seen(pilot, lambda: "too quickly" in text_of(app))
        await pilot.press("escape", "escape")
        await seen(pilot, lambda: len(app.screen_stack) == 1)
        assert fed.orders == []
        await opened(app, pilot)
        await pilot.press("n")
        await seen(pilot, lambda: isinstance(app.screen, TypedScreen))
        clock.wait()
        await pilot.press(*"too long", "enter")
        await seen(pilot, lambda: bool(fed.orders))
        assert fed.orders[0][3:] == ("deny", "too long")


@pytest.mark.requirement("I7.inbox.3")
async def test_editing_denies_and_tells_the_agent_the_persons_words(clock: Clock) -> None:
    fed = holding(approval())
    async with cockpit(fed, "inbox", (100, 40)) as (app, pilot):
        await opened(app, pilot, "e")
        await seen(pilot, lambda: isinstance(app.screen, EditScreen))
        area = app.screen.query_one(TextArea)
        assert area.text == "Hello John,\nthe plan.\n"
        area.text = "x" * 2_000
        await pilot.press("ctrl+s")
        await seen(pilot, lambda: "characters too many" in text_of(app))
        assert fed.orders == []
        area.text = "Hello John,\nthe short plan."
        await pilot.press("ctrl+s")
        await seen(pilot, lambda: bool(fed.orders))
        name, _, digest, word, note = fed.orders[0]
        assert (name, digest, word) == ("decide", approval()["action_digest"], "deny")
        assert note == EditScreen.LEAD + "Hello John,\nthe short plan."


def test_what_is_edited_hides_nothing() -> None:
    safe = editable(ALL_AT_ONCE.encode("utf-8", "replace"), "text/plain")
    for line in safe.split("\n"):
        assert_harmless(line)
    assert editable(b"no mail at all", "message/rfc822")


# --- back, and questions ------------------------------------------------------------------------------


async def test_a_yes_is_taken_back_while_its_time_runs_and_not_after() -> None:
    now = [NOW_MS]
    fed = holding(approval(state="active", dispatch_after_ms=NOW_MS + 4_500))
    async with cockpit(fed, "inbox", now_ms=lambda: now[0]) as (app, pilot):
        await seen(pilot, lambda: "leaves in 5 s" in text_of(app))
        now[0] += 3_000
        await seen(pilot, lambda: "leaves in 2 s" in text_of(app))  # counted down without a new fact
        await pilot.press("g", "enter")
        await seen(pilot, lambda: "it waits for nobody" in text_of(app))
        await pilot.press("u")
        await seen(pilot, lambda: [order[3] for order in fed.orders] == ["undo"])
        now[0] += 3_000
        await pilot.press("u")
        await seen(pilot, lambda: "nothing to take back" in text_of(app))
        assert len(fed.orders) == 1


async def test_a_question_is_answered_by_choice_by_text_and_as_json(clock: Clock) -> None:
    asked = (question("pr_1", choices=["Friday", "Monday"]), question("pr_2", created_ms=NOW_MS - 1))
    fed = holding(questions=asked)
    async with cockpit(fed, "inbox") as (app, pilot):
        await seen(pilot, lambda: "2 things wait" in text_of(app))

        async def ask() -> None:
            await pilot.press("enter")
            await seen(pilot, lambda: isinstance(app.screen, AnswerScreen))
            assert "the agent assistant asks you" in text_of(app)

        await pilot.press("g")
        await ask()
        await pilot.press("enter")  # typed ahead
        await seen(pilot, lambda: "too quickly" in text_of(app))
        clock.wait()
        await pilot.press("j", "k", "down", "up", "j", "enter")
        await seen(pilot, lambda: fed.orders == [("answer", "pr_1", "Monday")])
        await pilot.press("j")
        await ask()
        clock.wait()
        await pilot.press("enter")
        await seen(pilot, lambda: "not empty" in text_of(app))
        await pilot.press(*"[1,", "ctrl+t", "enter")
        await seen(pilot, lambda: "no JSON" in text_of(app))
        await pilot.press("2", "]", "enter")
        await seen(pilot, lambda: fed.orders[-1] == ("answer", "pr_2", [1, 2]))
        await ask()
        await pilot.press("escape")
        await seen(pilot, lambda: len(app.screen_stack) == 1)
        await ask()
        clock.wait()
        await pilot.press(*"42", "enter")
        await seen(pilot, lambda: fed.orders[-1] == ("answer", "pr_2", "42"))


# --- what goes wrong ----------------------------------------------------------------------------------


async def test_a_decision_that_came_too_late_is_told_and_the_cockpit_goes_on(clock: Clock) -> None:
    fed = holding(approval())
    fed.refusals["decide"] = ConflictError(f"already denied {WITNESS}\x07", hint="look again")
    async with cockpit(fed, "inbox", (100, 40)) as (app, pilot):
        await opened(app, pilot)
        clock.wait()
        await pilot.press("G")
        clock.wait()
        await pilot.press("y")
        await seen(pilot, lambda: "already denied" in text_of(app) and "look again" in text_of(app))
        fed.refusals["approval"] = NotFoundError("it is gone")
        await pilot.press("enter")
        await seen(pilot, lambda: "it is gone" in text_of(app))
        assert len(app.screen_stack) == 1


async def test_the_past_shows_what_was_asked_and_decides_nothing() -> None:
    async with cockpit(feed("approved"), "inbox") as (app, pilot):
        state = app.view().run
        assert state is not None
        (held,) = state.approvals.values()
        await seen(pilot, lambda: "nothing waits for you" in text_of(app) and "done" in text_of(app))
        app.go_to_event(held.event)
        await seen(pilot, lambda: "the past" in text_of(app) and " waits\n" in text_of(app))
        await pilot.press("enter", "d", "e", "a", "u", "o", "j", "k", "G")
        await seen(pilot, lambda: "this is the past" in text_of(app))
        assert len(app.screen_stack) == 1


@pytest.mark.requirement("C6")
@pytest.mark.parametrize("plain", [False, True])
async def test_no_foreign_text_acts_or_hides_in_the_inbox(plain: bool) -> None:
    approvals = [
        approval(f"ap_{number}", requested_ms=number, node=text, action={"summary": text, "agent": text})
        for number, text in enumerate(HOSTILE)
    ]
    asked = question(question=ALL_AT_ONCE, agent=HOSTILE[27], choices=HOSTILE[:9], node=HOSTILE[30])
    fed = holding(*approvals, questions=(asked,))
    async with cockpit(fed, "inbox", (200, 60), plain=plain) as (app, pilot):
        pane = app.pane
        assert isinstance(pane, InboxPane)
        await seen(pilot, lambda: pane.lines.count == len(HOSTILE) + 2)
        for number, item in enumerate(pane._items):
            assert_harmless(pane._row(number, 300).plain)
            about = pane._about(item, 60)
            for row in range(about.count):
                assert_harmless(about.row(row).text)
        pane.lines.place(len(HOSTILE))
        await pilot.press("enter")
        await seen(pilot, lambda: isinstance(app.screen, AnswerScreen))
        for line in text_of(app).splitlines():
            assert_harmless(line)


@pytest.mark.requirement("C6")
def test_no_byte_of_an_action_acts_or_hides_on_the_screen_that_decides() -> None:
    raw = ALL_AT_ONCE.encode("utf-8", "surrogatepass")
    mail = b"From: " + raw.replace(b"\n", b" ") + b"\r\nSubject: x\r\n\r\n" + raw
    for content, kind in (
        (raw, "text/plain"),
        (mail, "message/rfc822"),
        (json.dumps([ALL_AT_ONCE]).encode(), ""),
    ):
        held = approval(content=content, type=kind, label=ALL_AT_ONCE, action={"summary": ALL_AT_ONCE})
        for hexadecimal in (False, True):
            made = ApprovalScreen(held, lambda: 0).document(72, hexadecimal)
            for number in range(made.count):
                assert_harmless(made.row(number).text)
