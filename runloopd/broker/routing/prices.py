"""What tokens cost, in whole micro-dollars.

Knows: how a price becomes money, and that it is rounded up. Does not know: which price a model has
(``catalogue``), or what was spent (``quotas``).
"""

from __future__ import annotations

from runloop.config import Price

__all__ = ["FREE", "price_of"]

FREE = Price(version="local")
"""What a model on this machine costs."""


def price_of(price: Price, input_tokens: int, output_tokens: int) -> int:
    """Micro-dollars for so many tokens, rounded up."""
    exact: int = (
        price.input_micro_usd_per_mtok * input_tokens + price.output_micro_usd_per_mtok * output_tokens
    )
    return -(-exact // 1_000_000)
