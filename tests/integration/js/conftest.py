"""A real runtime with the shipped JavaScript runner in it; one for all tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from runloop.bundle.runner import read_pin, unpack
from runloopd.runtime.orders import AttemptOrder, AttemptResult, GuestLimits
from runloopd.runtime.supervisor import Runtime
from tests.home import CACHE_KEY
from tests.integration.guest.conftest import RUN, Script, asked

RUNNER = Path(__file__).parents[3] / "sdk" / "js" / "runner"


class Stage:
    """The runtime, and the words to run JavaScript with."""

    def __init__(self, runtime: Runtime, runner: str) -> None:
        self.runtime = runtime
        self.runner = runner

    async def run(
        self,
        modules: dict[str, str] | str,
        script: Script | None = None,
        *,
        input: dict[str, Any] | None = None,
        **limits: Any,
    ) -> AttemptResult:
        """One attempt of an agent that is only a few lines."""
        order = AttemptOrder(
            run=RUN,
            node="n",
            attempt=1,
            component_digest=self.runner,
            source={"agent.js": modules} if isinstance(modules, str) else modules,
            entrypoint="agent.js",
            input=asked({}, {}) | (input or {}),
            limits=GuestLimits(**limits),
            agent="lines",
        )
        return await self.runtime.run_attempt(order, script or Script())


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def stage(compiled: Path) -> AsyncIterator[Stage]:
    pin = read_pin(RUNNER)
    runtime = Runtime(cache_dir=compiled, mac_key=CACHE_KEY, ours={pin.blake3})
    await runtime.start()
    try:
        runner = await runtime.prepare(unpack(RUNNER, compiled))
        assert runner == pin.blake3
        yield Stage(runtime, runner)
    finally:
        await runtime.close()
