from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runloop.testing import ManualClock

from .world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = await World(tmp_path, ManualClock()).start()
    await world.run()
    yield world
    await world.stop()
