"""A house for every test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.triggers.house import House

Make = Callable[..., Awaitable[House]]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    """Builds a house with some settings and starts it."""
    made: list[House] = []

    async def house(**settings: Any) -> House:
        made.append(House(tmp_path, **settings))
        return await made[0].start()

    yield house
    for one in made:
        await one.kill()


@pytest.fixture
async def house(make: Make) -> House:
    return await make()
