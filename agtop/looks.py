"""How things look everywhere: the sign and the colour of a state, themes, and how lengths of time are
written.

Knows: that a sign says as much as a colour, for who sees none (NO_COLOR), and a word as much as a sign, for
who hears (plain). Colours are named as themes name them, and asked of the theme when something is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich.style import Style
from textual.theme import BUILTIN_THEMES, Theme

from runloop.errors import UsageError
from runloop.spelling import did_you_mean

__all__ = ["SIGNS", "THEMES", "WORDS", "chosen", "colored", "span", "tone_of"]

SIGNS: Mapping[str, str] = {
    "pending": "○",
    "running": "●",
    "waiting": "◆",
    "succeeded": "✔",
    "failed": "✘",
    "timed_out": "✘",
    "skipped": "–",
    "cancelled": "⊘",
    "cancelling": "⊘",
    "unknown": "?",
}
WORDS: Mapping[str, str] = {
    "pending": "to do",
    "succeeded": "done",
    "timed_out": "timed out",
    "waiting": "needs you",
}
"""A state as people say it, where the name of the state is not that."""
_TONES: Mapping[str, str] = {
    "running": "primary",
    "waiting": "warning",
    "succeeded": "success",
    "failed": "error",
    "timed_out": "error",
    "cancelled": "error",
    "cancelling": "warning",
}


def tone_of(state: str) -> str:
    """The theme's name for the colour of a state; empty: none but dim."""
    return _TONES.get(state, "")


def colored(variables: Mapping[str, str], tone: str, *, bold: bool = False) -> Style:
    """A style in a colour of the theme (``App.theme_variables``); dim where the tone is ``dim`` or
    unknown."""
    color = variables.get(tone, "")
    if not color.startswith("#"):
        return Style(dim=tone in ("", "dim") or None, bold=bold or None)
    return Style(color=color[:7], bold=bold or None)


def span(ms: int) -> str:
    """A length of time in at most seven columns: ``340ms``, ``12.0s``, ``5m03s``, ``3h12m``, ``4d02h``."""
    if ms < 1_000:
        return f"{max(0, ms)}ms"
    seconds = ms // 1_000
    if seconds < 60:
        return f"{ms / 1000:.1f}s"
    if seconds < 3_600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    if seconds < 86_400:
        return f"{seconds // 3_600}h{seconds % 3_600 // 60:02}m"
    return f"{seconds // 86_400}d{seconds % 86_400 // 3_600:02}h"


THEMES: tuple[Theme, ...] = (
    Theme(
        name="runloop",
        primary="#7cb7ff",
        secondary="#9d8cff",
        accent="#ffb86b",
        success="#7fd88f",
        warning="#f2c14e",
        error="#ff7a85",
        foreground="#d6dae3",
        background="#0f121a",
        surface="#141824",
        panel="#1e2433",
        dark=True,
    ),
    Theme(
        name="runloop-light",
        primary="#1f5fbf",
        secondary="#6545c9",
        accent="#a85b00",
        success="#1c7a35",
        warning="#8a5a00",
        error="#b3202c",
        foreground="#1b1f27",
        background="#fbfbf8",
        surface="#f3f3ee",
        panel="#e4e5df",
        dark=False,
    ),
    Theme(
        name="high-contrast",
        primary="#6ff0ff",
        secondary="#ffffff",
        accent="#ffff00",
        success="#5cff5c",
        warning="#ffff00",
        error="#ff9c9c",
        foreground="#ffffff",
        background="#000000",
        surface="#000000",
        panel="#262626",
        dark=True,
    ),
)
"""Ours; Textual's own can be chosen too."""


def chosen(name: str) -> str:
    """The theme of a name; ``none`` is ours without its colours. Raises :class:`UsageError`."""
    known = {*(theme.name for theme in THEMES), *BUILTIN_THEMES, "none"}
    if name not in known:
        raise UsageError(
            f"there is no theme {name[:64]!r}",
            hint=did_you_mean(name, sorted(known), f"one of {', '.join(sorted(known))}"),
            code="cli.option",
        )
    return THEMES[0].name if name == "none" else name
