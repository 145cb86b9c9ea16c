"""How a sample of ``agents.metrics`` is read: its columns, how a figure is written, what stands first.

Knows: the fields of a row and what a person calls them. Does not know: where a sample comes from, how wide a
terminal is, or colours. Names and reasons in a row are foreign text: whoever shows them escapes them.

Shared by ``rlp top`` and the cockpit, so that the same figure looks the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from runloop.errors import UsageError
from runloop.quantities import dollars, size

__all__ = ["COLUMNS", "Column", "column", "count", "fitting", "matching", "ordered"]

Row = Mapping[str, Any]

NOTHING = "-"
_STATES = ("running", "asking", "queued", "waiting", "quarantined", "broken", "idle", "gone")
"""Whoever does something first."""
_UNITS = ("k", "M", "G", "T", "P")
STATE_WORDS = {"asking": "asks you"}
"""A state as a person reads it, where that is another word."""


class Column(NamedTuple):
    """One column of the table of agents."""

    name: str
    """As ``--sort`` takes it."""
    title: str
    width: int
    """Columns of a terminal that its figures take."""
    help: str
    write: Callable[[Row], str]
    rank: Callable[[Row], Any]
    """What the table is sorted by; the smallest stands first."""
    left: bool = False
    """Aligned to the left, as words are."""


def count(value: float | None) -> str:
    """A figure in at most five characters: ``0``, ``999``, ``1.2k``, ``45k``, ``3.1M``, ``2.0G``."""
    if value is None:
        return NOTHING
    if value < 1_000:
        return f"{value:.1f}" if value < 9.95 and value != int(value) else f"{value:.0f}"
    scaled, unit = value, ""
    for unit in _UNITS:  # noqa: B007 - the last one stays
        scaled /= 1_000
        if scaled < 999.5:
            break
    return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f}" if value >= 99.95 else f"{value:.1f}"


def _memory(row: Row) -> str:
    return size(int(row["rss_bytes"])).replace("iB", "") if row["rss_bytes"] else NOTHING


def _money(row: Row) -> str:
    spent = int(row["cost_micro_usd"])
    return dollars(-(-spent // 100) * 100) if spent else NOTHING


def _state(row: Row) -> str:
    return STATE_WORDS.get(str(row["state"]), str(row["state"]))


def _most(name: str, then: str = "") -> Callable[[Row], Any]:
    """The largest first, nothing known counts as nothing; then whoever does something, then by name."""
    return lambda row: (-(row.get(name) or 0), -(row.get(then) or 0) if then else 0, *_by_state(row))


def _figure(name: str) -> Callable[[Row], str]:
    return lambda row: count(row.get(name))


def _share(name: str) -> Callable[[Row], str]:
    return lambda row: _percent(row.get(name))


def _by_state(row: Row) -> tuple[int, str]:
    state = str(row["state"])
    return (_STATES.index(state) if state in _STATES else len(_STATES), str(row["agent"]))


COLUMNS: Sequence[Column] = (
    Column("name", "AGENT", 16, "name of the agent", lambda r: str(r["agent"]), lambda r: r["agent"], True),
    Column("state", "STATE", 11, "what it does; 'asks you': it waits for a person", _state, _by_state, True),
    Column(
        "cpu", "CPU%", 5, "of one processor, over the interval", _share("cpu_percent"),
        _most("cpu_percent", "cpu_ms"),
    ),
    Column("rss", "RSS", 7, "memory its processes have resident", _memory, _most("rss_bytes")),
    Column("in", "IN", 5, "tokens that models read for it", _figure("input_tokens"), _most("input_tokens")),
    Column("out", "OUT", 5, "tokens that models wrote", _figure("output_tokens"), _most("output_tokens")),
    Column(
        "errors", "ERR%", 5, "attempts that failed, of those that ended", _share("error_percent"),
        _most("error_percent", "failed"),
    ),
    Column("waits", "WAITS", 5, "attempts that wait for a process", _figure("queue"), _most("queue")),
    Column("calls", "CALLS", 5, "host calls that were answered", _figure("calls"), _most("calls")),
    Column("cost", "SPENT", 8, "money that its model calls cost", _money, _most("cost_micro_usd")),
    Column("fuel", "FUEL", 5, "work of its guests, a unit per instruction", _figure("fuel"), _most("fuel")),
    Column(
        "cache", "HIT%", 5, "model calls that the cache answered", _share("cache_percent"),
        _most("cache_percent", "cache_hits"),
    ),
    Column("workers", "PROC", 4, "its processes", _figure("workers"), _most("workers")),
    Column("tokens", "TOK/S", 5, "tokens over the interval", _figure("tokens_s"), _most("tokens_s")),
    Column("runs", "ENDED", 5, "attempts that ended", _figure("attempts"), _most("attempts")),
)  # fmt: skip
"""In the order in which they are shown; a narrow terminal shows the first of them."""


def column(name: str) -> Column:
    """A column by its name or title. Raises :class:`UsageError` for one that is not there."""
    wanted = name.strip().lower().rstrip("%")
    for one in COLUMNS:
        if wanted in (one.name, one.title.lower().rstrip("%")):
            return one
    names = ", ".join(one.name for one in COLUMNS)
    raise UsageError(f"{name[:40]!r} is no column", hint=f"one of: {names}", code="metrics.column")


def ordered(rows: Iterable[Row], by: Column, *, reverse: bool = False) -> list[Row]:
    """Rows as the column would have them; equal ones by name."""
    return sorted(rows, key=by.rank, reverse=reverse)


def matching(rows: Iterable[Row], words: str) -> list[Row]:
    """Rows whose name or state contains every one of ``words``, whatever their case."""
    wanted = words.casefold().split()
    return [
        row
        for row in rows
        if all(word in f"{row['agent']} {row['state']} {_state(row)}".casefold() for word in wanted)
    ]


def fitting(width: int, name_width: int = 16) -> list[Column]:
    """As many columns as a terminal of ``width`` columns holds, two blanks between them."""
    found: list[Column] = []
    room = width
    for one in COLUMNS:
        takes = (name_width if one.name == "name" else one.width) + (2 if found else 0)
        if takes > room:
            break
        found.append(one)
        room -= takes
    return found
