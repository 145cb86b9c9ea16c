"""What can be lost: volatility, the deepest fall, and value at risk by history."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from runloop.agent import Fail, Result, Task, handler
from runloop.host import Host

DAYS_A_YEAR = 252
TAIL = 0.05
LEAST = 60


@handler
def handle(task: Task, host: Host) -> Result:
    """Port ``series`` -> volatility, drawdown and value at risk on port ``opinion``."""
    series = task.port("series")
    closes, dates = [float(close) for close in series["closes"]], list(series["dates"])
    if len(closes) <= LEAST:
        raise Fail("market.short", f"there are {len(closes)} days; more than {LEAST} are needed")
    fall, peak, trough = drawdown(closes)
    opinion: dict[str, Any] = {
        "volatility": round(volatility(closes), 8),
        "max_drawdown": round(fall, 8),
        "peak": dates[peak],
        "trough": dates[trough],
        "value_at_risk": round(value_at_risk(closes), 8),
        "tail": TAIL,
    }
    host.progress(f"value at risk {opinion['value_at_risk']:.2%} of a day")
    return Result.of(opinion=opinion)


def volatility(closes: Sequence[float]) -> float:
    """Standard deviation of the daily log returns (of a sample), for a year."""
    returns = [math.log(after / before) for before, after in itertools.pairwise(closes)]
    level = sum(returns) / len(returns)
    spread = sum((value - level) ** 2 for value in returns) / (len(returns) - 1)
    return math.sqrt(spread) * math.sqrt(DAYS_A_YEAR)


def drawdown(closes: Sequence[float]) -> tuple[float, int, int]:
    """The largest fall from a peak as a share of it, and the places of that peak and its trough."""
    worst, at, high = (0.0, 0, 0), 0, closes[0]
    for place, close in enumerate(closes):
        if close > high:
            at, high = place, close
        fall = 1 - close / high
        if fall > worst[0]:
            worst = (fall, at, place)
    return worst


def value_at_risk(closes: Sequence[float]) -> float:
    """The loss of a day that one day in twenty reached or passed, as a share; 0 where none of them lost."""
    returns = sorted(after / before - 1 for before, after in itertools.pairwise(closes))
    return max(0.0, -returns[math.ceil(TAIL * len(returns)) - 1])
