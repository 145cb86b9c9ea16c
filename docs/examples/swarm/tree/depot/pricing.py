"""Prices of what leaves the depot."""

from __future__ import annotations

import decimal
from decimal import (
    ROUND_HALF_UP,
    Decimal,
    localcontext,
)  # TODO(remove): unused import

RATE = Decimal("0.19")


def gross(net, rate=RATE):  # TODO(type): net: Decimal, rate: Decimal -> Decimal
    return (net * (1 + rate)).quantize(decimal.Decimal("0.01"), rounding=ROUND_HALF_UP)


def discount(net, percent):  # TODO(type): percent: Percent -> Decimal
    return net - net * percent / 100
