"""Artifacts: the files a run produced, what is in them, and what another run made of the same.

Knows: the list, the preview beside or below it, and the keys. Does not know: how files are compared
(``model.compare``), how text gets colours (``screens.preview``), where bytes are (``Desk.blob``). Nothing is
opened or written unless a key said so, and never over a file that is there.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.widgets import Static

from agtop.files import pager_input, plain_name, written
from agtop.lines import Lines
from agtop.looks import colored
from agtop.model.compare import Pair, differences, newest, pairs
from agtop.model.state import ArtifactRow
from agtop.panes.pane import View
from agtop.panes.rows import Rows
from agtop.panes.words import clipped
from agtop.ports import RunRow
from agtop.screens.choose import ChooseScreen
from agtop.screens.preview import PreviewScreen, pages, show
from agtop.screens.typed import TypedScreen
from runloop.errors import RunloopError
from runloop.escape import block, columns_of, visible
from runloop.events import ArtifactCreated
from runloop.quantities import moment, size

__all__ = ["ArtifactsPane"]

WIDE = 110
"""From so many columns on the preview stands beside the list."""
KEPT = 8
"""Files whose bytes are kept at hand."""
PAGE = 2_000
_MARKS = {"same": "=", "changed": "~", "only here": "+", "only there": "-"}
_TONES = {"same": "dim", "changed": "warning", "only here": "success", "only there": "error"}


class ArtifactsPane(Rows):
    """The list, and what the selected file holds."""

    TITLE = "Artifacts"
    LIST = "#artifacts-rows"
    HELP = (
        "The files this run has produced by the moment you look at; the newest of each name counts.\n"
        "d compares them with another run of the same opening. s saves one as a new file of yours;\n"
        "o shows it in $PAGER, escaped. Neither happens by itself."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pagedown,ctrl+f", "scroll_preview(1)", "preview down", show=False),
        Binding("pageup,ctrl+b", "scroll_preview(-1)", "preview up", show=False),
        Binding("enter", "whole", "the whole file"),
        Binding("x", "hex", "hexadecimal"),
        Binding("d", "compare", "compare with a run"),
        Binding("s", "save", "save as"),
        Binding("o", "pager", "open in $PAGER"),
        Binding("full_stop", "here", "all panes here"),
    ]
    DEFAULT_CSS = """
    ArtifactsPane { layout: vertical; }
    ArtifactsPane > #artifacts-head { height: 1; }
    ArtifactsPane > #artifacts-body { height: 1fr; layout: vertical; }
    ArtifactsPane #artifacts-rows { height: 1fr; min-height: 3; max-height: 40%; }
    ArtifactsPane #artifacts-right { height: 2fr; layout: vertical; border-top: solid $primary; }
    ArtifactsPane #artifacts-about { height: 1; }
    ArtifactsPane.-wide > #artifacts-body { layout: horizontal; }
    ArtifactsPane.-wide #artifacts-rows { width: 2fr; height: 1fr; max-height: 100%; }
    ArtifactsPane.-wide #artifacts-right {
        width: 3fr; height: 1fr; border-top: none; border-left: solid $primary;
    }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: list[Pair] = []
        self._seen: tuple[object, ...] = ()
        self._other: tuple[str, list[ArtifactRow]] | None = None
        """The run that is compared with, and its files."""
        self._bytes: OrderedDict[str, bytes | RunloopError] = OrderedDict()
        self._hex = False
        self._shown: object = None
        self._drawn: object = None

    def compose(self) -> ComposeResult:
        yield Static("", id="artifacts-head", markup=False)
        with Container(id="artifacts-body"):
            yield Lines(id="artifacts-rows")
            with Container(id="artifacts-right"):
                yield Static("", id="artifacts-about", markup=False)
                yield Lines(cursor=False, id="artifacts-preview")

    # --- what is shown ----------------------------------------------------------------------------

    def show(self, view: View) -> None:
        before = None if self.view is None or self.view.run is None else self.view.run.run
        super().show(view)
        run = view.run
        if run is not None and before not in (None, run.run):
            self._other, self.lines.cursor = None, 0
        files = () if run is None else run.artifacts
        seen = (None if run is None else run.run, len(files), self._other, view.plain)
        if seen != self._seen:
            self._seen = seen
            self.lines.follows = False
            self._rows = (
                [Pair(row.name, row, None) for row in newest(files).values()]
                if self._other is None
                else pairs(files, self._other[1])
            )
            self.lines.set_rows(len(self._rows), self._row)
            self._shown = None
        self._show_head()
        self._look()

    @property
    def _preview(self) -> Lines:
        return self.query_one("#artifacts-preview", Lines)

    @property
    def _pair(self) -> Pair | None:
        return self._rows[self.lines.cursor] if self._rows else None

    def _show_head(self) -> None:
        run = None if self.view is None else self.view.run
        if run is None:
            words = "no run is looked at; : finds one"
        elif self._other is not None:
            counts = {verdict: sum(pair.verdict == verdict for pair in self._rows) for verdict in _MARKS}
            told = ", ".join(f"{number} {verdict}" for verdict, number in counts.items() if number)
            words = f"here {run.run[:8]}, there {self._other[0][:8]}: {told or 'no files'} (d ends it)"
        else:
            number = len(self._rows)
            many = f"{number} files" if number > 1 else "one file"
            words = many if number else "the run has produced no files so far"
        self.query_one("#artifacts-head", Static).update(Text(" " + words, "bold", no_wrap=True))

    def _row(self, number: int, width: int) -> Text:
        pair = self._rows[number]
        row = pair.here or pair.there
        assert row is not None
        weight = f"{size(row.size):>9}"
        text = Text(no_wrap=True, end="")
        if self.view is not None and self.view.plain:
            verdict = "" if self._other is None else f"{pair.verdict}: "
            words = f"{verdict}{row.name}, {size(row.size)}, {row.media_type}, by {row.node}"
            return text.append(clipped(visible(words), width))
        if self._other is not None:
            tone = colored(self.app.theme_variables, _TONES[pair.verdict])
            text.append(f"{_MARKS[pair.verdict]} ", tone)
        details = f"{row.node}  {row.media_type}" if width >= 60 else row.node
        room = max(8, (width - len(weight) - text.cell_len - 3) * 3 // 5)
        name = clipped(visible(row.name), room)
        text.append(name + " " * max(0, room - columns_of(name)) + "  ", "bold")
        left = max(0, width - text.cell_len - len(weight) - 1)
        what = clipped(visible(details), left)
        text.append(what + " " * max(0, left - columns_of(what)) + " ", "dim")
        return text.append(weight)

    # --- the preview ------------------------------------------------------------------------------

    def _look(self) -> None:
        """Show what the selected file holds, once its bytes are there."""
        pair = self._pair
        about = self.query_one("#artifacts-about", Static)
        if pair is None:
            about.update("")
            show(self._preview, [])
            return
        wanted = [row for row in (pair.here, pair.there) if row is not None]
        missing = [row.blob for row in wanted if row.blob not in self._bytes]
        now = (pair, self._hex, self._preview.columns, about.size.width, bool(missing))
        if now == self._shown:
            return
        self._shown = now
        row = wanted[0]
        words = f"{row.name}  {row.media_type}, {size(row.size)}, by {row.node} at {moment(row.at_ms)}"
        about.update(Text(" " + clipped(visible(words), max(10, about.size.width - 1)), "bold", no_wrap=True))
        if missing:
            show(self._preview, [Text("asked for …", "dim")])
            self.run_worker(self._fetch(missing), exclusive=True, group="artifact", exit_on_error=False)
        else:
            self.run_worker(self._draw(pair), exclusive=True, group="artifact", exit_on_error=False)

    async def _fetch(self, digests: list[str]) -> None:
        for digest in digests:
            self._keep(digest, await self._read(digest))
        self._look()

    async def _read(self, digest: str) -> bytes | RunloopError:
        try:
            return await self.desk.blob(digest)
        except RunloopError as error:
            return error

    def _keep(self, digest: str, data: bytes | RunloopError) -> None:
        self._bytes[digest] = data
        while len(self._bytes) > KEPT:
            self._bytes.popitem(last=False)

    async def _draw(self, pair: Pair) -> None:
        width = max(20, self._preview.columns)
        row = pair.here or pair.there
        assert row is not None
        found = [self._bytes.get(one.blob) for one in (pair.here, pair.there) if one is not None]
        wrong = next((data for data in found if isinstance(data, RunloopError)), None)
        data = [data for data in found if isinstance(data, bytes)]
        if wrong is not None:
            tone = colored(self.app.theme_variables, "warning", bold=True)
            show(self._preview, [Text(visible(f"not to be had: {wrong.message}"), tone)])
        elif self._other is not None and pair.verdict == "changed" and len(data) == 2:
            here, there = data
            lines = await asyncio.to_thread(differences, here, there)
            show(self._preview, _diffed(lines, width, self.app.theme_variables))
        elif data:
            how = {"hexadecimal": self._hex, "dark": self.app.current_theme.dark}
            rows = await asyncio.to_thread(pages, data[0], row.name, row.media_type, width, **how)
            show(self._preview, rows)
        if self._drawn != (pair, self._hex):  # what is only drawn anew stays where it was scrolled to
            self._drawn = (pair, self._hex)
            self._preview.to_top()

    # --- keys -------------------------------------------------------------------------------------

    def moved(self) -> None:
        self._look()

    def action_scroll_preview(self, pages_: int) -> None:
        self._preview.move(pages_ * self._preview.page)

    def action_hex(self) -> None:
        """Text or hexadecimal."""
        self._hex = not self._hex
        self._look()

    def action_whole(self) -> None:
        """The file on the whole screen."""
        self._with_bytes(self._open_whole)

    def _open_whole(self, row: ArtifactRow, data: bytes) -> None:
        self.app.push_screen(PreviewScreen(row.name, row.media_type, data))

    def action_here(self) -> None:
        """Have every pane show the moment right after this file was made."""
        if (pair := self._pair) is not None and pair.here is not None:
            self.cockpit.go_to_event(pair.here.event)

    def action_save(self) -> None:
        """Ask where to, and write a new file there."""
        self._with_bytes(self._ask_where)

    def _ask_where(self, row: ArtifactRow, data: bytes) -> None:
        def save(path: str | None) -> None:
            if path:
                target = Path(path).expanduser()
                self.order(asyncio.to_thread(written, target, data), f"{len(data)} bytes in {target}")

        question = f"save {row.name} ({size(len(data))}) as a new file:"
        self.app.push_screen(TypedScreen(question, plain_name(row.name)), save)

    def action_pager(self) -> None:
        """Show the file in $PAGER, escaped: what is in it cannot act on the terminal."""
        self._with_bytes(self._open_pager)

    def _open_pager(self, row: ArtifactRow, data: bytes) -> None:
        try:
            command = shlex.split(os.environ.get("PAGER") or "less")
            with self.app.suspend():
                # The person's own program, named by his environment, on a key of his; it gets text alone.
                secure = {**os.environ, "LESSSECURE": "1"}
                subprocess.run(command, input=pager_input(row.name, data), check=False, env=secure)
        except SuspendNotSupported:
            self.cockpit.say("this terminal cannot be lent to another program", wrong=True)
        except (OSError, ValueError) as error:
            self.cockpit.say(f"$PAGER cannot be started: {error}; set it to a program", wrong=True)
        self.app.refresh()

    def action_compare(self) -> None:
        """Choose a run to compare with, or end the comparison."""
        view = self.view
        if view is None or view.run is None:
            return
        if self._other is not None:
            self._other = None
            self.show(view)
            return
        mine = view.run
        rows = [row for row in view.runs if row.opening == mine.opening and row.run != mine.run]
        rows.sort(key=lambda row: (row.run != mine.fork_of, -row.started_ms))
        if not rows:
            self.cockpit.say(f"there is no other run of {mine.opening}", wrong=True)
            return
        chosen = ChooseScreen(f"compare {mine.run[:8]} with", [(row.run, _run_words(row)) for row in rows])
        self.app.push_screen(chosen, self._compare)

    def _compare(self, run: str | None) -> None:
        if run is not None:
            self.run_worker(self._read_other(run), exclusive=True, group="compare", exit_on_error=False)

    async def _read_other(self, run: str) -> None:
        files: list[ArtifactRow] = []
        after = 0
        try:
            while True:
                facts = await self.desk.facts(run, after, PAGE)
                for fact in facts:
                    if fact.run == run and isinstance(made := fact.payload, ArtifactCreated):
                        files.append(_file(fact.id, fact.ts_ms, made))
                if len(facts) < PAGE:
                    break
                after = facts[-1].id
        except RunloopError as error:
            self.cockpit.say(error.message, wrong=True)
            return
        self._other = (run, files)
        if self.view is not None:
            self.show(self.view)

    def _with_bytes(self, then: Callable[[ArtifactRow, bytes], None]) -> None:
        """Do something with the selected file, when its bytes are at hand."""
        pair = self._pair
        row = None if pair is None else pair.here or pair.there
        if row is None:
            return
        data = self._bytes.get(row.blob)
        if isinstance(data, bytes):
            then(row, data)
        else:
            words = data.message if isinstance(data, RunloopError) else "its bytes are still on their way"
            self.cockpit.say(words, wrong=True)

    def on_resize(self) -> None:
        self.set_class(self.size.width >= WIDE, "-wide")
        self._shown = None
        if self.view is not None:
            self.call_after_refresh(self._look)

    def on_lines_resized(self) -> None:
        """Whatever becomes wide or narrow takes its place later than the pane around it."""
        if self.view is not None:
            self._look()


def _file(event: int, at_ms: int, made: ArtifactCreated) -> ArtifactRow:
    return ArtifactRow(
        event=event,
        at_ms=at_ms,
        name=made.name,
        node=made.node,
        port=made.port,
        media_type=made.media_type,
        blob=made.blob,
        size=made.size,
    )


def _run_words(row: RunRow) -> str:
    return f"{row.run[:8]}  {row.opening}  {row.state}  {moment(row.started_ms)}"


def _diffed(lines: list[str], width: int, variables: Mapping[str, str]) -> list[Text]:
    """A difference in colours; each row keeps its sign, so that none is needed."""
    tones = {"+": "success", "-": "error", "@": "primary"}
    return [
        Text(piece, colored(variables, tones[line[0]]) if line[:1] in tones else "")
        for line in lines or ["the same bytes"]
        for piece in block(line, width=width)
    ]
