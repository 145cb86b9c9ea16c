"""What hostile guests cost their neighbours, and how long a hostile file is looked at before it is refused.

``python -m tests.bench hostile``. Four endless loops run at once; meanwhile an honest guest with one host
call is served again and again. On two cores four loops want twice what there is.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from runloop.errors import RunloopError
from runloopd.runtime.supervisor import AttemptOrder, GuestLimits, Runtime
from tests.bench.bench_runtime import RUN, FirstCall, spread
from tests.integration.hostile.corpus import CORPUS
from tests.unit.runtime.guests import calling

DEADLINE_MS = 1_000
ROUNDS = 5
DEAR = ("many_imports", "many_exports", "many_data_segments", "deep_types", "many_functions", "huge_data")


def order(component: str, guest_ms: int) -> AttemptOrder:
    return AttemptOrder(
        run=RUN,
        node="n",
        attempt=1,
        component_digest=component,
        source=None,
        entrypoint="",
        input={},
        limits=GuestLimits(guest_ms=guest_ms),
    )


async def prepared(runtime: Runtime, folder: Path, name: str, wasm: bytes) -> str:
    path = folder / f"{name}.wasm"
    path.write_bytes(wasm)
    return await runtime.prepare(path)


async def served(runtime: Runtime, what: AttemptOrder) -> float:
    began = time.perf_counter()
    assert (await runtime.run_attempt(what, FirstCall())).ok
    return time.perf_counter() - began


async def loops(runtime: Runtime, folder: Path) -> None:
    loop = order(await prepared(runtime, folder, "loop", CORPUS["loop"].make()), DEADLINE_MS)
    honest = order(await prepared(runtime, folder, "honest", calling("time.now", "{}")), 10_000)
    spread("an honest guest alone", [await served(runtime, honest) for _ in range(100)])

    async def cut() -> float:
        began = time.perf_counter()
        result = await runtime.run_attempt(loop, FirstCall())
        assert result.error is not None and result.error.code == "guest.deadline"
        return time.perf_counter() - began

    cuts: list[float] = []
    beside: list[float] = []
    for _ in range(ROUNDS):
        hostile = [asyncio.create_task(cut()) for _ in range(4)]
        while not all(task.done() for task in hostile):
            beside.append(await served(runtime, honest))
        cuts += [task.result() for task in hostile]
    spread("an honest guest beside four endless loops", beside)
    spread(f"four endless loops at once, deadline {DEADLINE_MS} ms: until cut", cuts)


async def refusals(runtime: Runtime, folder: Path) -> None:
    for name in DEAR:
        wasm = CORPUS[name].make()
        began = time.perf_counter()
        try:
            await prepared(runtime, folder, name, wasm)
            end = "compiled"
        except RunloopError as error:
            end = error.named_code
        took = 1000 * (time.perf_counter() - began)
        print(f"{name:<24} {len(wasm) / 1024:>8.0f} KiB  {took:>8.0f} ms  {end}")


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="runloop-bench-") as place:
        folder = Path(place)
        runtime = Runtime(cache_dir=folder / "cache", mac_key=b"m" * 32)
        await runtime.start()
        try:
            await loops(runtime, folder)
            await refusals(runtime, folder)
        finally:
            await runtime.close()


if __name__ == "__main__":
    asyncio.run(main())
