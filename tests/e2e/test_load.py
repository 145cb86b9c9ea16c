"""Many programs at once on one real daemon: nothing is lost but what may be, and that is counted."""

from __future__ import annotations

import asyncio

import pytest

from tests.bench.bench_loom import PER_MINUTE, load
from tests.home import Home


@pytest.mark.requirement("I4.load.1")
@pytest.mark.timeout(300)
def test_a_minute_of_twenty_agents_loses_only_realtime_at_the_slow_one_and_counts_it(home: Home) -> None:
    home.rlp("daemon", "start").check()
    found = asyncio.run(load(home, 1, PER_MINUTE))
    assert found["faults"] == []
    assert (
        found["missing_at_the_slow_consumer"]["realtime"]
        == found["dropped_by_the_daemon"]["backpressure_timeout"]
        > 0
    )
