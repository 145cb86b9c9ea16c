"""What a call of an MCP tool costs through gate, bridge and sandbox, against the SDK's plain client.

    .venv/bin/python -m tests.bench mcp [--calls 300] [--rounds 5]

The same server object (``tests/contract/mcp_server.py``), once over standard input and output and once over
HTTP on loopback. Rounds are interleaved: so many calls of ours, so many of the plain client. For each:
p50 and p99 in milliseconds of wall time, and what ours adds. Ours is a whole host call: judged, budgeted,
recorded in the ledger with a hash chain, and answered.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

from runloop.clock import SystemClock
from runloopd.broker.mcp.spec import ServerSpec
from runloopd.broker.tools.bubblewrap import Bubblewrap
from tests.integration.mcp.conftest import SERVER, VENV, Later, Mcp
from tests.unit.broker.world import World

PYTHON = str(VENV / "bin" / "python")


async def ours(world: World, name: str, calls: int) -> list[float]:
    caller = await world.caller('tools = ["mcp.*"]\n', node=f"n{time.monotonic_ns()}")
    taken = []
    for number in range(calls):
        begun = time.perf_counter()
        answer = await world.call(
            caller, "tool.call", {"tool": f"mcp.{name}.echo", "args": {"text": str(number)}}
        )
        taken.append(time.perf_counter() - begun)
        assert answer.ok, answer
    return taken


async def plain(client: Client, calls: int) -> list[float]:
    taken = []
    for number in range(calls):
        begun = time.perf_counter()
        result = await client.call_tool("echo", {"text": str(number)})
        taken.append(time.perf_counter() - begun)
        assert not result.is_error
    return taken


def line(what: str, taken: list[float]) -> float:
    ordered = sorted(taken)
    p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    print(f"  {what:<28} p50 {p50 * 1000:7.2f} ms   p99 {p99 * 1000:7.2f} ms   ({len(taken)} calls)")
    return p50


async def measure(mcp: Mcp, name: str, spec: ServerSpec, server: Any, args: argparse.Namespace) -> None:
    begun = time.perf_counter()
    await mcp.ready(spec, name)
    started = time.perf_counter() - begun
    async with Client(server) as client:
        await client.list_tools()
        us: list[float] = []
        them: list[float] = []
        await ours(mcp.world, name, 20)
        await plain(client, 20)
        for _ in range(args.rounds):
            us += await ours(mcp.world, name, args.calls)
            them += await plain(client, args.calls)
    print(f"{name}: added, started, listed and approved in {started:.2f} s")
    mine, bare = line("gate + bridge + sandbox", us), line("the SDK's plain client", them)
    print(f"  {'added by us':<28} {(mine - bare) * 1000:.2f} ms per call, ratio {mine / bare:.2f}")


async def main(args: argparse.Namespace) -> None:
    """Each server in a world of its own: what one said is not told another without a person's word."""
    async with in_a_world() as mcp:
        server = StdioServerParameters(command=PYTHON, args=[str(SERVER)])
        await measure(mcp, "stdio", mcp.program(), server, args)
    async with in_a_world() as mcp, over_http() as url:
        await measure(mcp, "http", ServerSpec(url=url), url, args)


@asynccontextmanager
async def in_a_world() -> AsyncIterator[Mcp]:
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            world = World(Path(folder), SystemClock())  # type: ignore[arg-type]
            world.sources = [Later()]
            await world.start()
            stack.push_async_callback(world.stop)
            await world.run()
            mcp = Mcp(world, Bubblewrap([Path(folder)]))
            stack.push_async_callback(mcp.close)
            yield mcp


@asynccontextmanager
async def over_http() -> AsyncIterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    served = await asyncio.create_subprocess_exec(
        *(PYTHON, str(SERVER), "http", str(port)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        served.kill()
        await served.wait()


if __name__ == "__main__":
    os.environ.setdefault("NO_COLOR", "1")
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    asyncio.run(main(parser.parse_args()))
    sys.exit(0)
