"""The lines above and below the panes: which pane, which run, how the daemon is, what waits.

Knows: what is said first when there is little room. Does not know: anything of its own; it draws a
:class:`agtop.panes.pane.View`.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from rich.text import Text
from textual import events
from textual.message import Message
from textual.widget import Widget

from agtop.looks import SIGNS, WORDS, colored, span, tone_of
from agtop.model.inbox import items, waiting
from agtop.model.state import OVER, RunState
from agtop.panes.pane import View
from runloop.escape import columns_of, pieces, visible
from runloop.quantities import dollars

__all__ = ["Line", "RunLine", "StatusLine", "Tabs", "cut"]

Piece = tuple[str, Style | str]


def cut(text: str, width: int) -> str:
    """A foreign text, safe, in at most so many columns."""
    safe = visible(text)
    if columns_of(safe) <= width:
        return safe
    return pieces(safe, max(1, width - 1))[0].rstrip()[: max(0, width - 1)] + "…" if width > 0 else ""


class Line(Widget):
    """One row, drawn from the view."""

    DEFAULT_CSS = "Line { height: 1; width: 100%; }"

    view: View | None = None

    def show(self, view: View) -> None:
        self.view = view
        self.refresh()

    def tone(self, name: str, *, bold: bool = False) -> Style:
        return colored(self.app.theme_variables, name, bold=bold)


class Tabs(Line):
    """The panes by their keys; the one that is seen stands out."""

    class Picked(Message):
        """Somebody clicked on a pane's name."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.pane = name

    def __init__(self, panes: Sequence[tuple[str, str]], *, id: str | None = None) -> None:
        """``panes``: name and title of each."""
        super().__init__(id=id)
        self._panes = panes
        self._current = panes[0][0]
        self._places: list[tuple[int, int, str]] = []

    def pick(self, name: str) -> None:
        self._current = name
        self.refresh()

    def render(self) -> Text:
        view, pieces_, self._places = self.view, [], []
        asks = 0 if view is None else waiting(items(view.approvals, view.questions))
        column = 0
        for number, (name, title) in enumerate(self._panes, 1):
            here = name == self._current
            label = f" {number} {title} " if self.size.width >= 76 or here else f" {number} "
            count = f"{asks} " if name == "inbox" and asks else ""
            begin, column = column, column + len(label) + len(count)
            self._places.append((begin, column, name))
            if here:
                pieces_.append((label, self._chosen()))
            else:
                pieces_.append((label, self.tone("dim")))
            if count:
                pieces_.append((count, self.tone("warning", bold=True)))
        return _row(pieces_, [], self.size.width)

    def _chosen(self) -> Style:
        """Of the pane's name that is seen; reverse where there are no colours. Not where there are: a console
        of sixteen draws the reverse of a bright colour as grey on it."""
        colours = self.app.theme_variables
        if self.app.no_color:
            return Style(reverse=True)
        return Style(color=colours["background"][:7], bgcolor=colours["primary"][:7])

    def on_click(self, event: events.Click) -> None:
        for begin, end, name in self._places:
            if begin <= event.x < end:
                self.post_message(self.Picked(name))


class RunLine(Line):
    """The run: how it stands, which it is, how long, how far, what it cost."""

    def render(self) -> Text:
        view = self.view
        run = None if view is None else view.run
        if view is None or run is None or run.started_ms is None:
            words = "no run yet: p takes a wish" if view is None or not view.runs else "reading the record"
            return Text(f" {words}", style=self.tone("dim"), no_wrap=True)
        word = run.word
        told = WORDS.get(word, word)
        sign = "" if view.plain else f"{SIGNS.get(word, '?')} "
        left: list[Piece] = [(f" {sign}{told}", self.tone(tone_of(word), bold=True))]
        right = self._figures(view, run)
        room = self.size.width - sum(columns_of(text) for text, _ in (*left, *right)) - 12
        name = cut(run.opening, max(8, min(24, room)))
        left += [("  ", ""), (name, Style(bold=True)), (f" {run.run[:8]}", self.tone("dim"))]
        what = run.error if run.outcome not in (None, "succeeded") else run.prompt
        room -= columns_of(name) + 2
        if what and room > 12:
            left.append((f"  {cut(what, room)}", self.tone("dim")))
        return _row(left, right, self.size.width)

    def _figures(self, view: View, run: RunState) -> list[Piece]:
        took = view.now_ms - (run.started_ms or 0) if view.now_ms else run.took_ms
        over = sum(run.nodes[node.id].word in OVER for node in run.graph.nodes if node.id in run.nodes)
        found: list[Piece] = [(f"{span(took)}  {over}/{len(run.graph.nodes)} nodes", "")]
        if run.spend.calls or run.budget_micro_usd:
            spent = dollars(run.spend.micro_usd)
            if run.budget_micro_usd:
                tight = run.spend.micro_usd * 10 >= run.budget_micro_usd * 8
                found.append((f"  {spent}", self.tone("warning", bold=True) if tight else ""))
                found.append((f" of {dollars(run.budget_micro_usd)}", self.tone("dim")))
            else:
                found.append((f"  {spent}", ""))
        if self.size.width >= 100 and (tokens := run.spend.input_tokens + run.spend.output_tokens):
            found.append((f"  {tokens} tokens", self.tone("dim")))
        return [*found, (" ", "")]


class StatusLine(Line):
    """The daemon, all runs, what waits for a person; and the keys that lead everywhere else."""

    def render(self) -> Text:
        view = self.view
        if view is None:
            return Text(" starting", no_wrap=True)
        left = [*self._link(view), *self._counts(view)]
        keys = "p wish  r runs  : commands  ? help  q quit "
        room = self.size.width - sum(columns_of(text) for text, _ in left) - 2
        for shorter in (keys, "p wish  r runs  ? help ", "? help ", ""):
            if len(shorter) <= room:
                return _row(left, [(shorter, self.tone("dim"))], self.size.width)
        return _row(left, [], self.size.width)

    def _link(self, view: View) -> list[Piece]:
        link = view.link
        if link.how == "live":
            return [(" ● live" if not view.plain else " live", self.tone("success"))]
        if link.how == "gone":
            since = f" for {span(view.now_ms - link.since_ms)}" if view.now_ms else ""
            return [(f" ✘ {visible(link.words)}{since}; looking for it", self.tone("error", bold=True))]
        words = "record, no daemon" if link.words.startswith("no daemon") else "record"
        return [(f" ○ {words}" if not view.plain else f" {words}", self.tone("accent"))]

    def _counts(self, view: View) -> list[Piece]:
        going = sum(row.state in ("running", "waiting") for row in view.runs)
        asks = waiting(items(view.approvals, view.questions))
        found: list[Piece] = []
        if going:
            found.append((f"  {going} run{'s' if going != 1 else ''} going on", self.tone("primary")))
        elif view.runs:
            found.append((f"  {len(view.runs)} run{'s' if len(view.runs) != 1 else ''}", self.tone("dim")))
        if asks:
            found.append(
                (f"  {asks} wait{'s' if asks == 1 else ''} for you: 6", self.tone("warning", bold=True))
            )
        return found


def _row(left: Sequence[Piece], right: Sequence[Piece], width: int) -> Text:
    """Left and right of one row, cut at the right end where there is too much."""
    text = Text(no_wrap=True, end="")
    for words, style in left:
        text.append(words, style)
    gap = width - text.cell_len - sum(columns_of(words) for words, _ in right)
    if gap >= 0:
        text.append(" " * gap)
        for words, style in right:
            text.append(words, style)
    text.truncate(width)
    return text
