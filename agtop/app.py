"""The cockpit's composition: a feed behind, panes in front, one time line for all of them.

Knows: which panes there are, which keys work everywhere, when to draw. Does not know: what facts mean
(``model``), where they come from (``feed``), what is looked at (``watch``), how a pane draws. Nothing polls:
a change of the feed wakes the watch, and what is seen is drawn anew, at most twenty times a second.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, ClassVar

from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import ContentSwitcher
from textual.worker import Worker

from agtop.looks import THEMES
from agtop.panes.artifacts import ArtifactsPane
from agtop.panes.inbox import InboxPane
from agtop.panes.log import LogPane
from agtop.panes.metrics import MetricsPane
from agtop.panes.pane import Pane, View
from agtop.panes.plan import PlanPane
from agtop.panes.trace import TracePane
from agtop.ports import Desk, Submitted
from agtop.scrubber import Scrubber
from agtop.status import RunLine, StatusLine, Tabs
from agtop.watch import Watch
from agtop.wish import Wish
from runloop.errors import RunloopError
from runloop.escape import visible

__all__ = ["PANES", "CockpitApp"]

PANES: tuple[tuple[str, type[Pane]], ...] = (
    ("plan", PlanPane),
    ("log", LogPane),
    ("artifacts", ArtifactsPane),
    ("agents", MetricsPane),
    ("trace", TracePane),
    ("inbox", InboxPane),
)
"""The panes in the order of their keys, ``1`` to ``6``."""

FRAME_S = 0.05
"""Shortest time between two drawings."""
TICK_S = 1.0
"""How often lengths of time that go on are drawn anew, and metrics asked for while they are seen."""
SAID_CHARS = 400
"""Of one notice."""


class CockpitApp(App[None]):
    """``agtop``."""

    TITLE = "agtop"
    CSS_PATH = "agtop.tcss"
    COMMAND_PALETTE_BINDING = "colon"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(number), f"pane('{name}')", f"pane {name}")
            for number, (name, _) in enumerate(PANES, 1)
        ),
        Binding("tab", "turn(1)", "next pane"),
        Binding("shift+tab", "turn(-1)", "previous pane"),
        Binding("p", "wish", "type a wish, as rlp takes it"),
        Binding("r", "runs", "pick a run"),
        Binding("backspace", "around", "back to the run around this one"),
        Binding("space", "pause", "stay at this moment, or follow again"),
        Binding("left_square_bracket", "step(-1)", "one fact back"),
        Binding("right_square_bracket", "step(1)", "one fact on"),
        Binding("left_curly_bracket", "node_step(-1)", "back to where a node began or ended"),
        Binding("right_curly_bracket", "node_step(1)", "on to where a node began or ended"),
        Binding("less_than_sign", "begin", "to the beginning of the run"),
        Binding("greater_than_sign", "follow", "to the newest, and follow"),
        Binding("m", "bookmark", "mark this moment, or unmark it"),
        Binding("apostrophe", "next_bookmark", "to the next mark"),
        Binding("f", "fork", "fork the run from here"),
        Binding("ctrl+x", "cancel_run", "cancel the run"),
        Binding("colon,ctrl+p", "command_palette", "commands"),
        Binding("question_mark", "help", "this help"),
        Binding("q", "quit", "leave"),
    ]

    def __init__(
        self,
        desk: Desk,
        *,
        run: str | None = None,
        plain: bool = False,
        theme: str | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        super().__init__()
        for each in THEMES:
            self.register_theme(each)
        self.theme = theme if theme in self.available_themes else THEMES[0].name
        self.desk = desk
        self.watch_ = Watch(desk, wanted=run, on_news=self._draw_soon, on_error=self._wrong)
        self._plain = plain
        self.now_ms = now_ms
        self._metrics: dict[str, Any] | None = None
        self._measuring: Worker[None] | None = None
        """The question for metrics that is under way."""
        self._node: str | None = None
        self._drawing = False
        self._drawn_s = 0.0

    def compose(self) -> ComposeResult:
        yield Tabs([(name, pane.TITLE) for name, pane in PANES], id="tabs")
        yield RunLine(id="run")
        with ContentSwitcher(initial=PANES[0][0], id="panes"):
            for name, pane in PANES:
                yield pane(id=name)
        yield Scrubber(id="scrubber")
        yield StatusLine(id="status")
        yield Wish(id="wish")

    def on_mount(self) -> None:
        self.set_class(self._plain, "plain")
        self.run_worker(self.watch_.listen(), name="listen")
        self.run_worker(self.watch_.load(), name="load")
        self.set_interval(TICK_S, self._tick)
        self.pane.focus()
        self._draw()

    async def on_unmount(self) -> None:
        await self.desk.close()

    # --- drawing --------------------------------------------------------------------------------------

    def _draw_soon(self) -> None:
        if not self._drawing and self.is_running:
            self._drawing = True
            wait = max(0.0, self._drawn_s + FRAME_S - time.monotonic())
            self.set_timer(wait, self._draw) if wait else self.call_next(self._draw)

    def _draw(self) -> None:
        self._drawing = False
        if not self.is_running or not self.screen_stack:
            return
        view = self.view()
        home = self.screen_stack[0]
        for line in (home.query_one(Tabs), home.query_one(RunLine), home.query_one(Scrubber)):
            line.show(view)
        home.query_one(StatusLine).show(view)
        self.pane.show(view)
        self._drawn_s = time.monotonic()

    def view(self) -> View:
        """What there is to be shown now."""
        watch = self.watch_
        state = watch.state
        going_on = watch.live and state is not None and state.outcome is None
        return View(
            run=state,
            timeline=watch.timeline,
            index=watch.index,
            total=watch.total,
            live=watch.live,
            now_ms=self.now_ms() if going_on else 0,
            runs=watch.runs,
            approvals=watch.approvals,
            questions=watch.questions,
            link=self.desk.link,
            metrics=self._metrics,
            selected_node=self._node,
            plain=self._plain,
        )

    async def _tick(self) -> None:
        """What changes with nothing but the time."""
        if not self.is_running:
            return  # whoever leaves takes the panes down first, and this clock last
        if self.pane.NEEDS_METRICS and self.desk.link.how == "live" and len(self.screen_stack) == 1:
            if self._measuring is None or self._measuring.is_finished:  # keys do not wait for a slow daemon
                self._measuring = self.run_worker(self._measure(), group="metrics")
        else:
            state = self.watch_.state
            if (self.watch_.live and state is not None and state.outcome is None) or self._waits():
                self._draw_soon()

    async def _measure(self) -> None:
        try:
            self._metrics = await self.desk.metrics()
        except RunloopError as error:
            self._metrics = {"error": error.message}
        self._draw_soon()

    def _waits(self) -> bool:
        return bool(self.watch_.approvals) or self.desk.link.how == "gone"

    @property
    def pane(self) -> Pane:
        """The pane that is seen."""
        home = self.screen_stack[0]
        shown = home.query_one("#panes", ContentSwitcher).current or PANES[0][0]
        return home.query_one(f"#{shown}", Pane)

    # --- what panes may ask of it ---------------------------------------------------------------------

    def select_node(self, node: str | None) -> None:
        self._node = node
        self._draw_soon()

    def open_run(self, run: str) -> None:
        self._node = None
        self.run_worker(self.watch_.open(run), group="open", exclusive=True)

    def go_to_event(self, event: int) -> None:
        if not self.watch_.go_to_event(event):
            self.say(f"event {event} is none of this run", wrong=True)

    def show_pane(self, name: str) -> None:
        home = self.screen_stack[0]
        home.query_one("#panes", ContentSwitcher).current = name
        home.query_one(Tabs).pick(name)
        self.pane.focus()
        if self.pane.NEEDS_METRICS:
            self.call_next(self._tick)  # at once, not with the next second
        self._draw_soon()

    def say(self, words: str, *, wrong: bool = False) -> None:
        said = visible(" ".join(words.split()))[:SAID_CHARS]
        self.notify(said, severity="error" if wrong else "information", markup=False)

    def order(self, work: Awaitable[object], done: str) -> None:
        async def carry_out() -> None:
            try:
                await work
            except RunloopError as error:
                self._wrong(error)
            else:
                self.say(done)

        self.run_worker(carry_out(), group="orders")

    def _wrong(self, error: RunloopError) -> None:
        self.say(error.message + (f"; {error.hint}" if error.hint else ""), wrong=True)

    # --- panes ----------------------------------------------------------------------------------------

    def action_pane(self, name: str) -> None:
        self.show_pane(name)

    def action_focus_next(self) -> None:
        """What Textual's screens do with tab: between panes there is but one place to go."""
        self.action_turn(1) if len(self.screen_stack) == 1 else super().action_focus_next()

    def action_focus_previous(self) -> None:
        self.action_turn(-1) if len(self.screen_stack) == 1 else super().action_focus_previous()

    def action_turn(self, by: int) -> None:
        names = [name for name, _ in PANES]
        self.show_pane(names[(names.index(self.pane.id or names[0]) + by) % len(names)])

    def on_tabs_picked(self, event: Tabs.Picked) -> None:
        self.show_pane(event.pane)

    def action_help(self) -> None:
        """Help on what stands in front."""
        from agtop.screens.help import HelpScreen, keys_of

        screen = self.screen
        front: Pane | Screen[Any] = self.pane if len(self.screen_stack) == 1 else screen
        title = front.TITLE or type(front).__name__
        self.push_screen(HelpScreen(title, front.HELP or "", keys_of(front), type(self).BINDINGS))

    # --- the time line --------------------------------------------------------------------------------

    def action_pause(self) -> None:
        self.watch_.pause()

    def action_step(self, by: int) -> None:
        self.watch_.step(by)

    def action_node_step(self, by: int) -> None:
        self.watch_.node_step(by)

    def action_begin(self) -> None:
        self.watch_.go(0)

    def action_follow(self) -> None:
        self.watch_.follow()

    def action_bookmark(self) -> None:
        self.watch_.bookmark()

    def action_next_bookmark(self) -> None:
        if not self.watch_.next_bookmark():
            self.say("nothing is marked yet; m marks a moment")

    def on_scrubber_moved(self, event: Scrubber.Moved) -> None:
        self.watch_.go(event.index)

    # --- runs -----------------------------------------------------------------------------------------

    def action_runs(self) -> None:
        from agtop.screens.ask import RunsScreen

        timeline = self.watch_.timeline
        current = None if timeline is None else timeline.run
        self.push_screen(RunsScreen(self.watch_.runs, current, self.now_ms()), self._picked)

    def _picked(self, run: str | None) -> None:
        if run is not None:
            self.open_run(run)

    async def action_around(self) -> None:
        if not await self.watch_.leave_inside():
            self.say("this run is not inside another")

    def action_fork(self) -> None:
        """Ask where, and fork there: at the node that is looked at, or after the fact that is."""
        from agtop.screens.ask import LineScreen

        state = self.watch_.state
        if state is None or not state.index:
            self.say("there is no run to fork", wrong=True)
            return
        at = self._node if self.watch_.live and self._node else f"#{state.last_id}"
        self.push_screen(
            LineScreen(
                f"Fork {state.opening} {state.run[:8]} at",
                "A node, or #N for an event. What came before is heard from the record, what comes after is "
                "lived anew. The run itself stays as it is.",
                at,
            ),
            partial(self._fork_at, state.run),
        )

    def _fork_at(self, run: str, at: str | None) -> None:
        if at is None:
            return

        async def fork() -> None:
            made = await self.desk.fork(run, at.strip() or None)
            await self.watch_.open(made)

        self.order(fork(), f"forked at {at.strip() or 'its beginning'}")

    def action_cancel_run(self) -> None:
        from agtop.screens.ask import ConfirmScreen

        timeline = self.watch_.timeline
        if timeline is None or timeline.newest.outcome is not None:
            self.say("this run is over already", wrong=True)
            return
        run = timeline.newest

        def decided(yes: bool | None) -> None:
            if yes:
                self.order(self.desk.cancel(run.run, "cancelled in the cockpit"), f"cancelling {run.run[:8]}")

        self.push_screen(
            ConfirmScreen(
                f"Cancel {run.opening} {run.run[:8]}?", "Nodes under way are ended; it cannot go on."
            ),
            decided,
        )

    # --- the prompt -------------------------------------------------------------------------------------

    def action_wish(self) -> None:
        self.query_one(Wish).open()

    def on_wish_closed(self, event: Wish.Closed) -> None:
        self.pane.focus()
        if event.line:
            self.say(f"handing it to rlp: {event.line}")
            self.run_worker(self._submit(event.line), group="orders")

    async def _submit(self, line: str) -> None:
        try:
            done: Submitted = await self.desk.submit(line)
        except RunloopError as error:
            self._wrong(error)
            return
        if done.kind != "run":
            self.say(done.words, wrong=True)
        elif done.run is not None:
            await self.watch_.open(done.run)
            if done.words:
                self.say(done.words)

    # --- commands ---------------------------------------------------------------------------------------

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Everything that keys do, by name; and what has no key."""
        for name, pane in PANES:
            yield SystemCommand(f"Pane: {pane.TITLE}", "bring it to the front", partial(self.show_pane, name))
        yield SystemCommand("Wish", "type what you want, as rlp takes it", self.action_wish)
        yield SystemCommand("Runs", "pick the run to look at", self.action_runs)
        yield SystemCommand("Fork", "fork the run from the moment that is looked at", self.action_fork)
        yield SystemCommand("Cancel the run", "after a question", self.action_cancel_run)
        yield SystemCommand("Beginning", "look at the beginning of the run", self.action_begin)
        yield SystemCommand("Newest", "follow the run as it goes on", self.action_follow)
        yield SystemCommand("Mark", "mark this moment, or unmark it", self.action_bookmark)
        yield SystemCommand("Words only", "for screen readers: no boxes, no bars; and back", self.turn_plain)
        yield SystemCommand("Theme", "choose colours", self.action_change_theme)
        yield SystemCommand("Picture", "save what is seen as an SVG file", self.action_picture)
        yield SystemCommand("Help", "keys and what is seen", self.action_help)
        yield SystemCommand("Quit", "leave; runs go on", self.action_quit)

    def turn_plain(self) -> None:
        """To words only, or back."""
        self._plain = not self._plain
        self.set_class(self._plain, "plain")
        self._draw_soon()

    def action_picture(self) -> None:
        """Save the screen as SVG in the working directory, under a name that is new."""
        name = f"agtop-{self.now_ms()}.svg"
        try:
            self.save_screenshot(name)
        except OSError as error:
            self.say(f"the picture cannot be written: {error.strerror}", wrong=True)
        else:
            self.say(f"saved as {name}")
