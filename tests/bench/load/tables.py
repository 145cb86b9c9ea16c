"""Medians with their spread, ratios of one round to the same round, Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

__all__ = ["number", "ratio", "spread", "table"]


def number(value: float) -> str:
    """Three significant digits, thousands by commas."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """``median (min–max)``, or a dash for nothing."""
    if not values:
        return "–"
    return f"{number(statistics.median(values))} ({number(min(values))}–{number(max(values))})"


def ratio(ours: Sequence[float | None], theirs: Sequence[float | None]) -> list[float]:
    """Ours through theirs, round by round; rounds that lack one are left out."""
    pairs = zip(ours, theirs, strict=True)
    return [a / b for a, b in pairs if a is not None and b is not None and b > 0]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its columns padded for reading in a terminal."""
    lines = [list(head), *([list(row) for row in rows])]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
