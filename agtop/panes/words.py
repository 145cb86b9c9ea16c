"""Words that panes share: cutting a safe text to a width. Knows nothing of what it says."""

from __future__ import annotations

from rich.cells import set_cell_size

from runloop.escape import columns_of

__all__ = ["clipped"]


def clipped(text: str, width: int) -> str:
    """A safe text in at most ``width`` columns; what is cut off is marked."""
    if width <= 0:
        return ""
    if columns_of(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…" if width > 1 else "…"
