"""What the sandbox of programs costs, and whether a race gets anything past it.

``python -m tests.bench programs [--seconds N]``. Starts are interleaved: one bare, one held, and so on. The
race swaps a granted folder for a link to a private one, as fast as it can, for N seconds (60), while programs
are started on it: every reading of the private file would be an escape.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from runloop.errors import RunloopError
from runloopd.broker.tools.bubblewrap import Bubblewrap
from runloopd.broker.tools.sandbox import Limits, Mount, Program
from tests.bench.bench_runtime import spread

ROUNDS = 60
CANARY = b"canary-race"


async def starts() -> None:
    sandbox = Bubblewrap()
    sandbox.layers()
    bare, held = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await (await asyncio.create_subprocess_exec("/usr/bin/true")).wait()
        bare.append(time.perf_counter() - began)
        began = time.perf_counter()
        await sandbox.run(Program(argv=("/usr/bin/true",)))
        held.append(time.perf_counter() - began)
    spread("a program, bare", bare)
    spread("a program in the sandbox", held)
    bare.sort()
    held.sort()
    print(f"median in the sandbox / bare: {held[ROUNDS // 2] / bare[ROUNDS // 2]:.1f}")


async def race(seconds: float) -> tuple[int, int, int]:
    """Programs that ran, that were refused, and that read what they were not granted."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        (root / "granted").mkdir()
        (root / "private").mkdir()
        (root / "private" / "file").write_bytes(CANARY)
        (root / "granted" / "file").write_bytes(b"granted")
        over = threading.Event()

        def swap() -> None:
            (root / "link").symlink_to(root / "private")
            while not over.is_set():
                os.rename(root / "granted", root / "aside")  # noqa: PTH104
                os.rename(root / "link", root / "granted")  # noqa: PTH104
                os.rename(root / "granted", root / "link")  # noqa: PTH104
                os.rename(root / "aside", root / "granted")  # noqa: PTH104

        thread = threading.Thread(target=swap)
        thread.start()
        ran = refused = escaped = 0
        sandbox = Bubblewrap()
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                path = str(root / "granted")
                program = Program(
                    argv=("/bin/cat", f"{path}/file"),
                    mounts=(Mount(path=path),),
                    limits=Limits(wall_ms=10_000),
                )
                try:
                    result = await sandbox.run(program)
                except RunloopError:
                    refused += 1
                    continue
                ran += 1
                escaped += CANARY in result.stdout
        finally:
            over.set()
            thread.join()
            await sandbox.close()
        return ran, refused, escaped


async def main(seconds: float) -> int:
    await starts()
    ran, refused, escaped = await race(seconds)
    print(f"a race of {seconds:.0f} s: {ran} ran, {refused} refused, {escaped} escaped")
    return 1 if escaped else 0


if __name__ == "__main__":
    words = sys.argv[1:]
    given = float(words[words.index("--seconds") + 1]) if "--seconds" in words else 60.0
    sys.exit(asyncio.run(main(given)))
