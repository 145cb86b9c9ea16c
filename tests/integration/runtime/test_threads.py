"""Both threads of a worker are held alike: capabilities and Landlock are each thread's own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from runloopd.runtime import hardening, landlock
from runloopd.runtime.supervisor import Runtime
from tests.integration.runtime.conftest import MAC_KEY, Bench, Script
from tests.unit.runtime.guests import calling

CAPS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


@pytest.mark.requirement("S1", "I2.sandbox.8")
async def test_the_guests_own_thread_has_given_everything_up_too(bench: Bench) -> None:
    seen: list[dict[str, str]] = []

    async def looks(_: object) -> int:
        (worker,) = bench.runtime._workers
        for task in Path(f"/proc/{worker.pid}/task").iterdir():
            lines = (task / "status").read_text().splitlines()
            seen.append(dict(line.split(":\t", 1) for line in lines if ":\t" in line))
        return 1

    assert (await bench.run(calling("time.now", "{}"), Script(looks))).ok
    assert len(seen) == 2
    for status in seen:
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        # The bounding set of somebody who is not root has no effect, and cannot be emptied by him.
        held = CAPS if os.geteuid() == 0 else [name for name in CAPS if name != "CapBnd"]
        assert {name: int(status[name], 16) for name in held} == dict.fromkeys(held, 0)


@pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock, or it is off")
@pytest.mark.requirement("S1")
async def test_where_the_kernel_has_landlock_it_holds_without_the_filter_of_calls(compiled: Path) -> None:
    runtime = Runtime(cache_dir=compiled, mac_key=MAC_KEY, waived_layers=["seccomp"])
    await runtime.start()
    try:
        zygote = await runtime._live_zygote()
        worker = await zygote.probe("read")
        assert await asyncio.wait_for(worker.exited, 20) == 0, "a file was opened"
        worker.release()
        assert runtime.layers()["landlock"]
    finally:
        await runtime.close()


def test_landlock_is_a_layer_that_is_told_of() -> None:
    assert "landlock" in hardening.OPTIONAL
