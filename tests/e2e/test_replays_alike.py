"""Replays are the same in any time zone, language and environment; a thousand: ``tests.bench replays``."""

from __future__ import annotations

import pytest

from tests.bench.bench_replays import replays
from tests.home import Home


@pytest.mark.requirement("W6", "I5.replay.8")
def test_replays_under_changed_surroundings_are_all_the_same(home: Home) -> None:
    home.env["RUNLOOP__SECURITY__ALLOW_UNSIGNED_AGENTS"] = "true"
    assert replays(home, 9, 3) == (9, 9, 3)
