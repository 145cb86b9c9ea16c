"""One crossing in full: what the fact says, and the bytes it names.

Knows: which bytes to ask for, and that they are foreign. Does not know: how they are found (``Desk.blob``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import BindingType
from textual.widgets import Static

from agtop.lines import Lines
from agtop.model.document import Document
from agtop.model.facts import Fact, told
from agtop.model.ladder import blobs_of
from agtop.screens.reading import READING, Reading, painted
from runloop.errors import RunloopError
from runloop.quantities import moment, size

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from agtop.ports import Desk

__all__ = ["HopScreen"]


class HopScreen(Reading[int | None]):
    """Closes with None, or with the ledger id that every pane shall go to."""

    TITLE = "one crossing"
    HELP = (
        "What a fact says, and the bytes it names: as text, or with x in hexadecimal.\n"
        "Rows that begin with a bar are somebody else's words."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        *READING,
        ("x", "hex", "hexadecimal"),
        ("full_stop", "here", "all panes here"),
        ("escape,q,enter", "leave", "back"),
    ]

    def __init__(self, desk: Desk, fact: Fact) -> None:
        super().__init__()
        self._desk = desk
        self._fact = fact
        self._hex = False
        self._bytes: dict[str, bytes | RunloopError] = {}

    def compose(self) -> ComposeResult:
        yield Static(f"#{self._fact.id} {self._fact.kind}", classes="title", markup=False)
        yield Lines(cursor=False)
        yield Static("j k scroll · x hexadecimal · . all panes here · esc back", classes="foot", markup=False)

    def on_mount(self) -> None:
        self.redraw()
        self.run_worker(self._fetch(), exit_on_error=False)

    async def _fetch(self) -> None:
        for _, digest in blobs_of(self._fact):
            if digest not in self._bytes:
                try:
                    self._bytes[digest] = await self._desk.blob(digest)
                except RunloopError as error:
                    self._bytes[digest] = error
                self.redraw()

    def redraw(self) -> None:
        document = self.document()
        self.query_one(Lines).set_rows(
            document.count, lambda number, _: painted(document.row(number), self.app.theme_variables)
        )

    def document(self) -> Document:
        """What is shown now."""
        fact, made = self._fact, Document(self.reading_width)
        made.field("event", f"{fact.id}, stated by {fact.actor} at {moment(fact.ts_ms)}")
        made.field("run", fact.run or "none")
        if fact.provenance.node:
            made.field("came of", f"node {fact.provenance.node}, attempt {fact.provenance.attempt}")
        made.head("what it says", "rule")
        says = told(fact)
        digests = {name: value for name, value in says.items() if name.endswith(("_digest", "blob"))}
        made.fields({name: value for name, value in says.items() if name not in digests})
        named = blobs_of(fact)
        for words, digest in named:
            data = self._bytes.get(digest)
            if isinstance(data, bytes):
                made.head(f"{words}: {size(len(data))}, BLAKE3 {digest[:16]}", "rule")
                made.content(data, hexadecimal=self._hex)
            elif data is None:
                made.head(f"{words}: asked for …", "rule")
            else:
                made.head(f"{words}: not to be had: {data.message}", "note")
        if not named:
            made.head("it names no bytes that the ledger keeps", "note")
        if digests:
            made.head("digests", "rule")
            made.fields(digests)
        return made

    def action_hex(self) -> None:
        """Text or hexadecimal."""
        self._hex = not self._hex
        self.redraw()

    def action_here(self) -> None:
        """Have every pane show the moment right after this fact."""
        self.dismiss(self._fact.id)

    def action_leave(self) -> None:
        """Back to the pane."""
        self.dismiss(None)
