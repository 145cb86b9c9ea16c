"""Finds what is likely wrong in a table, by counting."""

from __future__ import annotations

import csv
import io
from collections import Counter
from statistics import median
from typing import Any

from runloop.agent import Fail, Result, Task, handler


@handler
def handle(task: Task, host: Any) -> Result:
    """Port ``rows`` or ``with.text`` -> what is wrong with them on ``problems``, all of it on ``out``."""
    rows = task.port("rows", None)
    if rows is None:
        rows = parsed(str(task.param("text")))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Fail("table.input", "the rows are not a list of objects")
    if not rows:
        raise Fail("table.empty", "there is no row to check")
    spread = task.param("spread", 5)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    problems = [*empty(rows, columns), *twice(rows), *repeated(rows, task.param("unique", []))]
    for column in columns:
        problems += mixed(rows, column, spread)
    return Result.of(
        out={"ok": not problems, "rows": len(rows), "columns": columns, "problems": problems},
        problems=problems,
    )


def parsed(text: str) -> list[dict[str, str]]:
    """CSV with a header; the delimiter is the one the header has most of."""
    head = text.lstrip("\ufeff").split("\n", 1)[0]
    delimiter = max(",;\t|", key=head.count)
    reader = csv.DictReader(
        io.StringIO(text.lstrip("\ufeff")), delimiter=delimiter, restval="", restkey="(more)"
    )
    return [{str(k): v if isinstance(v, str) else ", ".join(v) for k, v in row.items()} for row in reader]


def empty(rows: list[dict[str, Any]], columns: list[str]) -> list[str]:
    counts = {column: sum(row.get(column) in (None, "") for row in rows) for column in columns}
    return [f"{column}: {count} of {len(rows)} rows are empty" for column, count in counts.items() if count]


def twice(rows: list[dict[str, Any]]) -> list[str]:
    seen: dict[str, int] = {}
    found = []
    for number, row in enumerate(rows, 1):
        key = repr(sorted(row.items()))
        if key in seen:
            found.append(f"row {number} repeats row {seen[key]}")
        seen.setdefault(key, number)
    return found


def repeated(rows: list[dict[str, Any]], columns: Any) -> list[str]:
    """Values that occur more than once where each should be its own; case does not count."""
    found = []
    for column in columns if isinstance(columns, list) else []:
        counts = Counter(str(row.get(column) or "").strip().casefold() for row in rows)
        found += [f"{column}: {value!r} occurs {n} times" for value, n in counts.items() if value and n > 1]
    return found


def mixed(rows: list[dict[str, Any]], column: str, spread: Any) -> list[str]:
    """A column that is nearly all numbers and is not, and numbers far from the others."""
    values = [
        (i, str(row[column]).strip()) for i, row in enumerate(rows, 1) if row.get(column) not in (None, "")
    ]
    numbers = {i: number for i, text in values if (number := as_number(text)) is not None}
    if not values or len(numbers) * 2 <= len(values):
        return []
    found = [f"{column}: row {i} has {text!r} among numbers" for i, text in values if i not in numbers]
    middle = median(numbers.values())
    distance = median(abs(number - middle) for number in numbers.values())
    if distance and isinstance(spread, int | float):
        found += [
            f"{column}: row {i} has {number:g}, the median is {middle:g}"
            for i, number in numbers.items()
            if abs(number - middle) > spread * distance
        ]
    return found


def as_number(text: str) -> float | None:
    try:
        return float(text.replace(" ", ""))
    except ValueError:
        return None
