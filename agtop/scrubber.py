"""The time line of the run as one row: where one is, what is marked, what came while one looked elsewhere.

Knows: how a place in the row is a place in the run. Moving is the application's matter: a click says where
to.
"""

from __future__ import annotations

import time

from rich.style import Style
from rich.text import Text
from textual import events
from textual.message import Message

from agtop.model.timeline import Timeline
from agtop.panes.pane import View
from agtop.status import Line

__all__ = ["Scrubber"]


class Scrubber(Line):
    """``━━━━━●──────  512 of 71 204  12:41:07.113``."""

    class Moved(Message):
        """Somebody clicked on a place, or drew the mark there."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    DEFAULT_CSS = "Scrubber { height: 1; width: 100%; }"

    _bar: tuple[int, int] = (0, 0)
    """Columns of the bar, from and to."""

    def render(self) -> Text:
        view = self.view
        if view is None or view.timeline is None or view.run is None:
            return Text("")
        words = self._words(view, view.timeline)
        if view.plain:
            return Text(f" {words.plain.strip()}", no_wrap=True)
        width = self.size.width - words.cell_len - 1
        self._bar = (1, max(1, width))
        bar = Text(" ", no_wrap=True, end="")
        if width > 8:
            bar.append_text(self._drawn(view, view.timeline, width - 1))
        bar.append_text(words)
        bar.truncate(self.size.width)
        return bar

    def _words(self, view: View, timeline: Timeline) -> Text:
        text = Text("  ", no_wrap=True, end="")
        text.append(f"{view.index:,}".replace(",", " "))
        text.append(f" of {view.total:,}".replace(",", " "), self.tone("dim"))
        if view.run is not None and view.run.at_ms and self.size.width >= 60:
            text.append(f"  {_clock(view.run.at_ms)}", self.tone("dim"))
        if view.live:
            ended = view.run is not None and view.run.outcome is not None
            text.append("  end " if ended else "  follows ", self.tone("dim" if ended else "success"))
        elif view.index < view.total:
            behind = f"{view.total - view.index:,}".replace(",", " ")
            text.append(f"  paused, {behind} later ", self.tone("warning", bold=True))
        else:
            text.append("  paused ", self.tone("warning", bold=True))
        if view.index in timeline.bookmarks:
            text.append("marked ", self.tone("accent", bold=True))
        return text

    def _drawn(self, view: View, timeline: Timeline, width: int) -> Text:
        def column(index: int) -> int:
            return 0 if not view.total else min(width - 1, index * (width - 1) // view.total)

        here = column(view.index)
        marks = {column(mark) for mark in timeline.bookmarks}
        text = Text(no_wrap=True, end="")
        for at in range(width):
            if at == here:
                text.append("●", self.tone("accent" if not view.live else "primary", bold=True))
            elif at in marks:
                text.append("▾", self.tone("accent", bold=True))
            elif at < here:
                text.append("━", self.tone("primary"))
            else:
                text.append("─", Style(dim=True))
        return text

    def on_click(self, event: events.Click) -> None:
        self._moved(event.x)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if event.button:
            self._moved(event.x)

    def _moved(self, x: int) -> None:
        begin, end = self._bar
        if self.view is not None and begin <= x < end:
            share = (x - begin) / max(1, end - begin - 2)
            self.post_message(self.Moved(round(min(1.0, share) * self.view.total)))


def _clock(ms: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(ms / 1000)) + f".{ms % 1000:03}"
