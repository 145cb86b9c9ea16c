"""What a call from outside costs, against a bare server of the official SDK.

    .venv/bin/python -m tests.bench serving [--calls 200] [--rounds 5]

The SDK's own client on the other side, over pipes and over HTTP on loopback, rounds interleaved: so many
calls of ``kb_search`` at ``rlp mcp serve`` (a search of the ledger's knowledge, through the daemon), so many
of a tool of a bare server that gives back what it is given. For each: p50 and p99 in milliseconds, calls per
second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import mcp
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from tests.home import BIN, ROOT, Home

BARE = """
import sys, uvicorn, anyio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

async def listed(ctx, params):
    return types.ListToolsResult(tools=[types.Tool(name="echo", input_schema={"type": "object"})])

async def called(ctx, params):
    return types.CallToolResult(content=[types.TextContent(text=str(params.arguments))])

server = Server("bare", on_list_tools=listed, on_call_tool=called)

async def pipes():
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())

if sys.argv[1] == "stdio":
    anyio.run(pipes)
else:
    app = server.streamable_http_app(stateless_http=True)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical")
"""


async def calls(client: mcp.Client, tool: str, args: dict[str, Any], count: int) -> list[float]:
    taken = []
    for _ in range(count):
        begun = time.perf_counter()
        result = await client.call_tool(tool, args)
        taken.append(time.perf_counter() - begun)
        assert not result.is_error, result
    return taken


def line(what: str, taken: list[float]) -> float:
    ordered = sorted(taken)
    p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    rate = len(taken) / sum(taken)
    print(f"  {what:<34} p50 {p50 * 1000:7.2f} ms   p99 {p99 * 1000:7.2f} ms   {rate:7.0f} calls/s")
    return p50


@contextlib.asynccontextmanager
async def http(url: str, token: str = "") -> AsyncIterator[mcp.Client]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as web,
        mcp.Client(streamable_http_client(url, http_client=web)) as client,
    ):
        yield client


async def measure(what: str, ours: mcp.Client, bare: mcp.Client, args: argparse.Namespace) -> None:
    query = {"query": "rollout"}
    us: list[float] = []
    them: list[float] = []
    await calls(ours, "kb_search", query, 10)
    await calls(bare, "echo", query, 10)
    for _ in range(args.rounds):
        us += await calls(ours, "kb_search", query, args.calls)
        them += await calls(bare, "echo", query, args.calls)
    print(what)
    ratio = line("rlp mcp serve, kb_search", us) / line("bare server of the SDK, echo", them)
    print(f"  ratio of the p50s: {ratio:.1f}")


async def run(home: Home, args: argparse.Namespace) -> None:
    bare = home.path / "bare.py"
    bare.write_text(BARE)
    words = ["mcp", "serve", "--stdio", "--expose", "kb"]
    ours = StdioServerParameters(command=str(BIN / "rlp"), args=words, env=home.env)
    plain = StdioServerParameters(command=sys.executable, args=[str(bare), "stdio"])
    async with mcp.Client(ours) as client, mcp.Client(plain) as other:
        await measure("over pipes", client, other, args)
    token = home.rlp("mcp", "serve", "--new-token", "bench", "--json").check().json["token"]
    home.rlp("mcp", "expose", "kb").check()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with contextlib.ExitStack() as stack:
        flags = ["mcp", "serve", "--http", "127.0.0.1:0", "--rate", "100000"]
        serving = subprocess.Popen([BIN / "rlp", *flags], env=home.env, stdout=subprocess.PIPE, text=True)
        stack.callback(serving.wait)
        stack.callback(serving.terminate)
        beside = subprocess.Popen([sys.executable, str(bare), str(port)])
        stack.callback(beside.wait)
        stack.callback(beside.terminate)
        assert serving.stdout is not None
        url = serving.stdout.readline().strip()
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            await asyncio.sleep(0.05)
        async with http(url, token) as client, http(f"http://127.0.0.1:{port}/mcp") as other:
            await measure("over HTTP", client, other, args)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="b") as folder, Home(Path(folder) / "h") as home:
        home.path.mkdir(mode=0o700)
        home.rlp("import", str(ROOT / "docs/examples/notes"), timeout=300).check()
        asyncio.run(run(home, args))


if __name__ == "__main__":
    main()
