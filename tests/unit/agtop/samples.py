"""Samples of ``agents.metrics`` as a daemon would give them, for tests of the pane and of what is drawn."""

from __future__ import annotations

from typing import Any

__all__ = ["agent", "sample"]


def agent(name: str, **figures: Any) -> dict[str, Any]:
    """One row; what is not said is nothing."""
    row: dict[str, Any] = {
        "agent": name, "version": "1.0.0", "state": "idle", "why": None, "workers": 0, "queue": 0,
        "asking": 0, "rss_bytes": 0, "cpu_ms": 0, "input_tokens": 0, "output_tokens": 0,
        "attempts": 0, "failed": 0, "calls": 0, "refused": 0,
        "model_calls": 0, "cache_hits": 0, "fuel": 0, "cost_micro_usd": 0,
        "error_percent": None, "cache_percent": None, "cpu_percent": 0.0, "tokens_s": 0.0, "calls_s": 0.0,
        "fuel_s": 0, "errors": 0,
    }  # fmt: skip
    assert figures.keys() <= row.keys()
    return {**row, **figures}


def sample(number: int = 1, *agents: dict[str, Any], **daemon: Any) -> dict[str, Any]:
    """One sample, a second after the one before."""
    told = {
        "pid": 4242, "cpu_ms": 900, "cpu_percent": 1.5, "rss_bytes": 80 << 20, "zygote_rss_bytes": 37 << 20,
        "queue": 0, "lag_ms": 0.4, "lag_mean_ms": 0.1, "events": 1_200, "events_s": 12.0, "views_behind": 0,
        "bus_queued": 0, "bus_published": 3_000, "bus_published_s": 30.0, "bus_dropped": 0, "workers": 2,
        "spares": 1, "runs": 1,
    }  # fmt: skip
    assert daemon.keys() <= told.keys()
    began = 1_795_000_000_000
    return {
        "sample": number, "at_ms": began + 1_000 * number, "since_ms": began - 60_000,
        "interval_ms": None if number == 1 else 1_000, "agents": list(agents), "left_off": 0,
        "daemon": {**told, **daemon},
    }  # fmt: skip
