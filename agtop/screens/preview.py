"""A file of a run in full: as text with its syntax, or in hexadecimal.

Knows: how text gets its colours (lazily, a bounded part of it, escaped first). Does not know: where the bytes
come from.
"""

from __future__ import annotations

from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.widgets import Static

from agtop.lines import Lines
from agtop.model.bytes import is_text
from agtop.model.document import MAX_TEXT_BYTES, Document, readable
from agtop.screens.reading import READING, Reading, painted
from runloop.escape import block, visible
from runloop.quantities import size

__all__ = ["Pages", "PreviewScreen", "pages", "show"]

MAX_COLORED = 65_536
"""Characters that get colours; what follows has none."""
_LEXERS = {
    "application/json": "json",
    "text/markdown": "markdown",
    "text/html": "html",
    "text/css": "css",
    "text/csv": "text",
    "text/x-python": "python",
    "application/yaml": "yaml",
    "application/toml": "toml",
    "application/xml": "xml",
    "text/x-diff": "diff",
}
_ENDINGS = {
    "json": "json", "md": "markdown", "py": "python", "yaml": "yaml", "yml": "yaml", "toml": "toml",
    "html": "html", "js": "javascript", "rs": "rust", "go": "go", "sh": "bash", "sql": "sql", "diff": "diff",
}  # fmt: skip

Pages = list[Text]
"""Rows of a preview."""


def pages(
    data: bytes, name: str, media_type: str, width: int, *, hexadecimal: bool, dark: bool = True
) -> Document | Pages:
    """The rows of a file: in colours where it is text, else bytes. May take a tenth of a second."""
    if hexadecimal or not is_text(data):
        document = Document(width)
        document.content(data, hexadecimal=True)
        return document
    lines = block(readable(data[:MAX_TEXT_BYTES]), width=max(20, width))
    safe = "\n".join(lines)
    lexer = _LEXERS.get(media_type.partition(";")[0]) or _ENDINGS.get(name.rpartition(".")[2].lower(), "")
    head = safe[:MAX_COLORED]
    colored = _colored(head, lexer, dark=dark) if lexer and lexer != "text" else Text(head)
    colored.append(safe[MAX_COLORED:])
    made: Pages = list(colored.split("\n", allow_blank=True))
    if len(data) > MAX_TEXT_BYTES:
        more = f"the first {size(MAX_TEXT_BYTES)} of {size(len(data))}; x shows every byte"
        made.append(Text(more, "bold"))
    return made


def _colored(text: str, lexer: str, *, dark: bool) -> Text:
    """Safe text with the colours of a language; the same characters, whatever the lexer makes of them."""
    from rich.syntax import Syntax

    found = Syntax("", lexer, theme="ansi_dark" if dark else "ansi_light").highlight(text)
    found.rstrip()
    if found.plain != text.rstrip():
        return Text(text)
    colored = Text(found.plain)
    for span in found.spans:
        if isinstance(span.style, Style):  # colours of letters alone: the ground is the theme's
            style = Style(color=span.style.color, bold=span.style.bold, italic=span.style.italic)
            colored.stylize(style, span.start, span.end)
    return colored


class PreviewScreen(Reading[None]):
    """One file, its bytes at hand."""

    HELP = "The file as text, or with x its bytes in hexadecimal. What acts or hides in it is shown escaped."
    BINDINGS: ClassVar[list[BindingType]] = [
        *READING,
        ("x", "hex", "hexadecimal"),
        ("escape,q,enter", "leave", "back"),
    ]

    def __init__(self, name: str, media_type: str, data: bytes) -> None:
        super().__init__()
        self._file = name
        self._media_type = media_type
        self._data = data
        self._hex = False

    def compose(self) -> ComposeResult:
        words = f"{self._file}  {self._media_type}, {size(len(self._data))}"
        yield Static(visible(words), classes="title", markup=False)
        yield Lines(cursor=False)
        yield Static("j k scroll · x hexadecimal · esc back", classes="foot", markup=False)

    def on_mount(self) -> None:
        self.redraw()

    def redraw(self) -> None:
        rows = pages(
            self._data,
            self._file,
            self._media_type,
            self.reading_width,
            hexadecimal=self._hex,
            dark=self.app.current_theme.dark,
        )
        show(self.query_one(Lines), rows)

    def action_hex(self) -> None:
        """Text or hexadecimal."""
        self._hex = not self._hex
        self.redraw()

    def action_leave(self) -> None:
        """Back to the pane."""
        self.dismiss(None)


def show(lines: Lines, rows: Document | Pages) -> None:
    """Put the rows of a preview on the screen."""
    if isinstance(rows, Document):
        colors = lines.app.theme_variables
        lines.set_rows(rows.count, lambda number, _: painted(rows.row(number), colors))
    else:
        lines.set_rows(len(rows), lambda number, _: _one(rows[number]))


def _one(text: Text) -> Text:
    line = text.copy()
    line.no_wrap, line.end = True, ""
    return line
