"""Reads the recorded prices of one symbol from a CSV file, and trusts nothing in it."""

from __future__ import annotations

import base64
import csv
import io
import math
import re
from datetime import date
from typing import Any

from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host

MAX_BYTES = 1_048_576
LEAST_DAYS = 61
SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9.-]{0,11}\Z")


@handler
def handle(task: Task, host: Host) -> Result:
    """``with.path`` and ``with.symbol`` -> ``{symbol, dates, closes}``, oldest first, on port ``series``."""
    symbol = str(task.param("symbol")).upper()
    if not SYMBOL.match(symbol):
        raise Fail("market.symbol", f"{symbol[:40]!r} is no symbol; use 1 to 12 of A-Z, 0-9, '.' and '-'")
    found = host.call("fs.read", {"path": str(task.param("path")), "length": MAX_BYTES})
    if not found["eof"]:
        raise Fail("market.size", f"the file has {found['size']} bytes, more than {MAX_BYTES}")
    raw = base64.b64decode(found["base64"]) if found.get("base64") is not None else found["text"].encode()
    days = prices(raw.decode("utf-8-sig", "replace"), symbol)
    if len(days) < LEAST_DAYS:
        raise Fail("market.short", f"there are {len(days)} days of {symbol}; {LEAST_DAYS} are needed")
    host.log(f"{len(days)} days of {symbol}, {days[0][0]} to {days[-1][0]}", digest=found["digest"])
    series: dict[str, Any] = {
        "symbol": symbol,
        "dates": [day for day, _ in days],
        "closes": [close for _, close in days],
    }
    return Result.of(series=series)


def prices(text: str, symbol: str) -> list[tuple[str, float]]:
    """``(day, close)`` of the rows of one symbol, by day. Without a column ``symbol`` every row counts."""
    rows = csv.DictReader(io.StringIO(text, newline=""))
    names = {str(name).strip().lower(): name for name in rows.fieldnames or ()}
    missing = [name for name in ("date", "close") if name not in names]
    if missing:
        raise Fail("market.columns", f"the first line names no column {' and no '.join(missing)}")
    found: dict[str, float] = {}
    for row in rows:
        line = rows.line_num
        if "symbol" in names and str(row[names["symbol"]] or "").strip().upper() != symbol:
            continue
        day = _day(str(row[names["date"]] or "").strip(), line)
        if day in found:
            raise Fail("market.twice", f"line {line}: {day} occurs twice")
        found[day] = _price(str(row[names["close"]] or "").strip(), line)
    return sorted(found.items())


def _day(text: str, line: int) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise Fail("market.date", f"line {line}: {text[:40]!r} is no date; write YYYY-MM-DD") from error


def _price(text: str, line: int) -> float:
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not (math.isfinite(price) and price > 0):
        raise Fail("market.price", f"line {line}: {text[:40]!r} is no price")
    return price
