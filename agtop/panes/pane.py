"""What every pane is: a widget that is told what to show, and says what its keys do.

A pane never asks for facts itself: :meth:`Pane.show` hands it a :class:`View`, at most some twenty times a
second, and only while the pane can be seen; :meth:`Pane.show` must be quick (no I/O, nothing that grows with
the run: draw what is visible). Orders go through ``self.desk`` in a worker (:meth:`Pane.order`). Foreign text
goes through ``runloop.escape`` and into ``rich.text.Text``, never into markup.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, ClassVar, Protocol, cast

import msgspec
from textual.widget import Widget

from agtop.model.state import RunState
from agtop.model.timeline import Timeline
from agtop.ports import Desk, Link, RunRow

__all__ = ["Cockpit", "Pane", "View"]


class Cockpit(Protocol):
    """What a pane may ask of the application around it."""

    desk: Desk

    def select_node(self, node: str | None) -> None:
        """Look at a node: every pane hears of it as ``View.selected_node``."""
        ...

    def open_run(self, run: str) -> None:
        """Look at another run (whole id, or its beginning)."""
        ...

    def go_to_event(self, event: int) -> None:
        """Move every pane to right after a fact of this run, by its ledger id."""
        ...

    def show_pane(self, name: str) -> None:
        """Bring a pane to the front: ``plan``, ``log``, ``artifacts``, ``agents``, ``trace``, ``inbox``."""
        ...

    def say(self, words: str, *, wrong: bool = False) -> None:
        """Tell the person something, for a few seconds. ``words`` may be foreign."""
        ...

    def now_ms(self) -> int:
        """Unix milliseconds by the clock of the application: for what is counted down, live or not."""
        ...

    def order(self, work: Awaitable[object], done: str) -> None:
        """Carry out an order without waiting; say ``done`` when it was, else what went wrong and the hint."""
        ...


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to be shown, of one moment."""

    run: RunState | None = None
    """The run that is looked at, after ``index`` facts; None while none is."""
    timeline: Timeline | None = None
    """All of its facts: ``fact(place)``, ``facts(start, stop)``. Those from ``index`` on are not shown."""
    index: int = 0
    total: int = 0
    live: bool = True
    """Whether the newest fact is what is shown; False: somebody moved back in time."""
    now_ms: int = 0
    """Wall clock for lengths of time that go on; 0 where what is shown is over or past."""
    runs: tuple[RunRow, ...] = ()
    approvals: tuple[dict[str, Any], ...] = ()
    """What waits for a person, of all runs, oldest first."""
    questions: tuple[dict[str, Any], ...] = ()
    link: Link = Link(how="recorded")
    metrics: dict[str, Any] | None = None
    selected_node: str | None = None
    plain: bool = False
    """Screen-reader mode: lines of words; no boxes, no bars, no lanes."""


class Pane(Widget, can_focus=True):
    """Base of the six panes. A subclass sets ``TITLE``, ``BINDINGS`` and ``HELP``."""

    TITLE: ClassVar[str] = ""
    HELP: ClassVar[str | None] = ""
    """Text of the help screen below the keys: what is seen here, in short sentences, one a line."""
    NEEDS_METRICS: ClassVar[bool] = False
    """Whether ``View.metrics`` is to be filled (asked of the daemon each second) while this pane is seen."""

    view: View | None = None
    """What was shown last."""

    def show(self, view: View) -> None:
        """Draw this. The base keeps it as :attr:`view`."""
        self.view = view

    @property
    def cockpit(self) -> Cockpit:
        """The application."""
        return cast("Cockpit", self.app)

    @property
    def desk(self) -> Desk:
        """Where questions and orders go."""
        return self.cockpit.desk

    def order(self, work: Awaitable[object], done: str) -> None:
        """Have an order carried out without waiting for it; ``done`` is said when it was, else why not."""
        self.cockpit.order(work, done)
