"""Write ``prices.json`` anew: a tool for whoever makes a release, never imported by the daemon.

    python -m venv /tmp/prices && /tmp/prices/bin/pip install genai-prices
    /tmp/prices/bin/python runloopd/broker/routing/refresh_prices.py 2026-11-21

Takes the models of two hosted services that are billed by tokens of text alone, at the highest tier there
is, in whole micro-dollars, rounded up: a bound is never too small. The day is an argument, so that the file
says of when it is, and the same package makes the same file.
"""

from __future__ import annotations

import importlib
import json
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

SERVICES = ("anthropic", "openai")
_TEXT_ONLY = {"input_mtok", "output_mtok", "web_searches_kcount", "storage_searches_kcount"}
"""What may have a price beside tokens of text: we ask for no searches."""


def main(day: date) -> None:
    """Write the file beside this one."""
    # Not a dependency, and not installed where the types are checked.
    providers = importlib.import_module("genai_prices.data").providers
    prices = {
        service: _prices(next(one for one in providers if one.id == service), day) for service in SERVICES
    }
    whole = {"date": day.isoformat(), "source": f"genai-prices {version('genai-prices')}", "prices": prices}
    text = json.dumps(whole, indent=1, sort_keys=True) + "\n"
    Path(__file__).with_name("prices.json").write_text(text, encoding="utf-8")


def _prices(service: Any, day: date) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for model in service.models:
        price = _of_day(model.prices, day)
        if price is None or not _is_text(price):
            continue
        names = _names(model.match)
        rows[model.id] = {
            "input": _micro_usd(price.input_mtok),
            "output": _micro_usd(price.output_mtok),
            **{kind: sorted(found) for kind, found in names.items() if found},
        }
    return rows


def _of_day(prices: Any, day: date) -> Any:
    """The price that holds on a day; None where that depends on more than the day."""
    if not isinstance(prices, list):
        return prices
    found = None
    for one in prices:
        starts = getattr(one.constraint, "start_date", None)
        if one.constraint is None or (starts is not None and starts <= day):
            found = one.prices
        elif starts is None:
            return None
    return found


def _is_text(price: Any) -> bool:
    named = {name for name, value in vars(price).items() if value is not None}
    rest = {name for name in named if not name.startswith("cache_")}
    return {"input_mtok", "output_mtok"} <= named and rest <= _TEXT_ONLY


def _micro_usd(amount: Any) -> int:
    tiers = [amount] if not hasattr(amount, "base") else [amount.base, *(tier.price for tier in amount.tiers)]
    exact = max(tiers) * 1_000_000
    return -(-int(exact * 1_000_000) // 1_000_000)


def _names(match: Any) -> dict[str, set[str]]:
    """What the clauses of a match name; those that only look for a word somewhere are left out."""
    found: dict[str, set[str]] = {"equals": set(), "starts": set()}
    for clause in getattr(match, "or_", [match]):
        if hasattr(clause, "equals"):
            found["equals"].add(clause.equals)
        elif hasattr(clause, "starts_with"):
            found["starts"].add(clause.starts_with)
        elif hasattr(clause, "regex") and clause.regex.endswith(r"-\d{8}$"):
            found["starts"].add(clause.regex.removeprefix("^").removesuffix(r"-\d{8}$"))
    return found


if __name__ == "__main__":
    main(date.fromisoformat(sys.argv[1]))
