"""Where the price is going: two moving averages, a fitted line, momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host

SHORT, LONG = 20, 50
FIT = 60
STEEP = 0.002
"""A slope of this share of the mean per day counts in full."""
STRONG = 0.10
"""A momentum of this share counts in full."""


@handler
def handle(task: Task, host: Host) -> Result:
    """Port ``series`` -> the averages, slope, fit, momentum and a score from -1 to 1 on port ``opinion``."""
    closes = [float(close) for close in task.port("series")["closes"]]
    if len(closes) <= FIT:
        raise Fail("market.short", f"there are {len(closes)} days; more than {FIT} are needed")
    short, long = mean(closes[-SHORT:]), mean(closes[-LONG:])
    slope, fit = line(closes[-FIT:])
    momentum = closes[-1] / closes[-1 - SHORT] - 1
    slope_share = slope / mean(closes[-FIT:])
    score = (
        0.4 * ((short > long) - (short < long))
        + 0.3 * clamp(slope_share / STEEP)
        + 0.3 * clamp(momentum / STRONG)
    )
    opinion: dict[str, Any] = {
        "average_short": round(short, 6),
        "average_long": round(long, 6),
        "slope_per_day": round(slope, 8),
        "fit_r2": round(fit, 6),
        "momentum": round(momentum, 8),
        "score": round(score, 6),
    }
    host.progress(f"trend {score:+.2f}")
    return Result.of(opinion=opinion)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def line(values: Sequence[float]) -> tuple[float, float]:
    """Least squares over 0, 1, 2, …: slope per step, and R² (0 where all values are equal)."""
    middle, level = (len(values) - 1) / 2, mean(values)
    across = sum((x - middle) ** 2 for x in range(len(values)))
    along = sum((y - level) ** 2 for y in values)
    both = sum((x - middle) * (y - level) for x, y in enumerate(values))
    return both / across, (both * both / (across * along) if along else 0.0)


def clamp(value: float) -> float:
    return max(-1.0, min(1.0, value))
