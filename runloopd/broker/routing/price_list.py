"""Prices of hosted models, as they were on one day: a snapshot that comes with the package.

Knows: the file beside it, which hosts it is about, and its version. Does not know: the configuration, whose
own price comes first. ``refresh_prices.py`` beside it makes the file; nothing here asks a network.

Only a provider at the official host of its kind is priced: another server that serves a model of the same
name has prices of its own. What is not listed stays unpriced, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from runloop.config import Price
from runloop.digest import digest

__all__ = ["PriceList", "listed", "price_list"]

_HOSTS = {"openai": "api.openai.com", "anthropic": "api.anthropic.com"}
"""Kind of provider -> host whose prices are listed."""

_DATE = re.compile(r"(?:[-@](?:\d{8}|\d{4}-\d{2}-\d{2}|latest))?")


class PriceList(NamedTuple):
    """One snapshot."""

    date: str
    source: str
    prices: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """Kind -> model -> ``{input, output, equals, starts}``: micro-dollars per million tokens read and written
    (input, output), and the names it goes by."""
    version: str
    """Date and digest: what a call is stated with."""


@cache
def price_list() -> PriceList:
    """The snapshot that came with this build."""
    import orjson

    text = resources.files("runloopd.broker.routing").joinpath("prices.json").read_bytes()
    found: dict[str, Any] = orjson.loads(text)
    return PriceList(
        date=found["date"],
        source=found["source"],
        prices=found["prices"],
        version=f"{found['date']}-{digest(found['prices'])[:12]}",
    )


def listed(kind: str, url: str, model: str | None) -> Price | None:
    """The listed price of a model at the official host of its kind; None for anything else."""
    parts = urlsplit(url)
    if model is None or parts.scheme != "https" or parts.hostname != _HOSTS.get(kind):
        return None
    if parts.port not in (None, 443):
        return None
    row = _row(price_list().prices.get(kind, {}), model)
    if row is None:
        return None
    return Price(
        input_micro_usd_per_mtok=row["input"],
        output_micro_usd_per_mtok=row["output"],
        version=price_list().version,
    )


def _row(models: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """The row that names a model; of several beginnings, the longest."""
    for row in models.values():
        if name in row.get("equals", ()):
            return row
    begun = [
        (start, row) for row in models.values() for start in row.get("starts", ()) if _dated(name, start)
    ]
    return max(begun, key=lambda pair: len(pair[0]))[1] if begun else None


def _dated(name: str, start: str) -> bool:
    """Whether a name is that beginning, alone or with a date behind it: another word may be another price."""
    return name.startswith(start) and _DATE.fullmatch(name[len(start) :]) is not None
