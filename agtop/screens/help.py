"""Which keys do what, here and everywhere: made from the bindings themselves, so that it cannot be wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.widgets import Static

from agtop.lines import Lines
from agtop.model.document import Row
from agtop.screens.reading import READING, Reading, painted
from runloop.escape import pieces

__all__ = ["HelpScreen", "key_rows", "keys_of", "named"]

_NAMES = {
    "colon": ":",
    "question_mark": "?",
    "full_stop": ".",
    "comma": ",",
    "slash": "/",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "left_curly_bracket": "{",
    "right_curly_bracket": "}",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "apostrophe": "'",
    "ampersand": "&",
    "plus": "+",
    "minus": "-",
    "equals_sign": "=",
    "pagedown": "PgDn",
    "pageup": "PgUp",
    "escape": "esc",
    "backspace": "⌫",
}


def named(key: str) -> str:
    """A key as it is written on keyboards."""
    *held, last = key.split("+") if len(key) > 1 else [key]
    return "-".join([*held, _NAMES.get(last, last)])


def key_rows(bindings: Iterable[BindingType]) -> list[tuple[str, str]]:
    """Keys and what they do, in the order of the bindings; those of the same action stand together."""
    found: dict[str, tuple[list[str], str]] = {}
    for each in bindings:
        binding = each if isinstance(each, Binding) else Binding(*each)
        if binding.description:
            keys, _ = found.setdefault(binding.action, ([], binding.description))
            keys += [named(key) for key in binding.key.split(",")]
    return [("  ".join(keys), does) for keys, does in found.values()]


def keys_of(front: DOMNode) -> list[BindingType]:
    """The keys of a pane or a screen, those it shares with others of ours first."""
    ours = [kind for kind in reversed(type(front).__mro__) if kind.__module__.startswith("agtop.")]
    return [each for kind in ours for each in vars(kind).get("BINDINGS", ())]


class HelpScreen(Reading[None]):
    """Help on what stood in front when it was asked for."""

    TITLE = "help"
    BINDINGS: ClassVar[list[BindingType]] = [
        *READING,
        Binding("escape,q,question_mark,enter", "leave", "back"),
    ]

    def __init__(
        self, title: str, about: str, here: Sequence[BindingType], everywhere: Sequence[BindingType]
    ) -> None:
        super().__init__()
        self._title = title
        self._about = about
        self._sections = ((f"Keys of {title}", key_rows(here)), ("Keys everywhere", key_rows(everywhere)))

    def compose(self) -> ComposeResult:
        yield Static(f"help: {self._title}", classes="title", markup=False)
        yield Lines(cursor=False)
        yield Static("j k scroll · esc back", classes="foot", markup=False)

    def on_mount(self) -> None:
        self.redraw()

    def redraw(self) -> None:
        rows = list(self._rows(self.reading_width))
        self.query_one(Lines).set_rows(len(rows), lambda number, _: painted(rows[number]))

    def _rows(self, width: int) -> Iterable[Row]:
        for line in " ".join(self._about.split("\n")).replace(". ", ".\n").split("\n"):
            yield from (Row(piece) for piece in pieces(line, width))
        lead = max((len(keys) for _, rows in self._sections for keys, _ in rows), default=0) + 2
        lead = min(lead, width // 2)
        for title, rows in self._sections:
            if rows:
                yield Row("")
                yield Row(title, "head")
                for keys, does in rows:
                    yield Row(f"  {keys:<{lead}}{does}", "field")

    def action_leave(self) -> None:
        self.dismiss(None)
