"""What a model call costs beyond the model: host call, gate, broker, record, against a bare HTTP request.

    python -m tests.bench broker                [--calls 400] [--rounds 5]

A server in a process of its own answers at once, always the same, so that everything left is overhead. Beside
each other, call by call in turn, on connections that stay open: ``bare`` is httpx2 sending the same body and
parsing the same answer; ``broker`` is ``ModelBroker.complete`` (routes, reservation's bounds, secrets,
reading, scrubbing); ``gate`` is the host call as a guest's arrives (token, grants, quota, budget, two
transactions in the ledger over files with ``synchronous`` FULL, and the broker between them); ``guest`` is an
agent in its sandbox making it, request to request, in rounds of their own. Then the same for the first word
of a streamed answer, which is shown before the whole is there. Milliseconds; the ratios are to ``bare``. A
real model takes 100 to 10 000 ms for an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import lzma
import multiprocessing
import socket
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import orjson

from runloop.config import Models, Provider
from runloop.digest import blob_digest
from runloop.ops import ModelComplete, ModelMessage
from runloop.testing import ManualClock
from runloopd.broker.models import ModelBroker
from runloopd.broker.ports import Budget
from runloopd.broker.secrets import SecretStore
from runloopd.runtime.supervisor import Runtime
from tests.bench.bench_agents import KEY, Moments, told
from tests.bench.languages import SDK, Agent
from tests.unit.broker.world import RUN, World, caps, quotas

WORDS = "The rollout is planned for Monday; John has the list. " * 4
PIECES = [WORDS[at : at + 12] for at in range(0, len(WORDS), 12)]
GRANTS = "model = true"
SOURCE = """
from runloop.agent import Result, handler

@handler
def handle(task, host):
    for i in range(task.param("calls")):
        said = [{"role": "user", "content": "Say hello."}]
        host.call("model.complete", {"messages": said, "max_tokens": 100})
    return Result()
"""


# --- the server -----------------------------------------------------------------------------------


def _whole() -> bytes:
    body = json.dumps(
        {
            "model": "bench-1",
            "choices": [{"index": 0, "message": {"content": WORDS}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 50},
        }
    ).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head + body


def _chunk(value: Any) -> bytes:
    data = value if isinstance(value, str) else json.dumps(value)
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n" % len(event) + event + b"\r\n"


def _delta(text: str) -> bytes:
    return _chunk({"model": "bench-1", "choices": [{"index": 0, "delta": {"content": text}}]})


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def _serve(listening: socket.socket) -> None:
    whole, deltas = _whole(), [_delta(piece) for piece in PIECES]
    end = _chunk({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    end += _chunk({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 50}})
    end += _chunk("[DONE]") + b"0\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(size)
                if b'"stream":true' not in body:
                    writer.write(whole)
                    continue
                writer.write(STREAM_HEAD + deltas[0])
                await writer.drain()
                await asyncio.sleep(0.002)  # the first word is there, and the rest is not
                writer.write(b"".join(deltas[1:]) + end)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, sock=listening)
    await server.serve_forever()


def _run(listening: socket.socket) -> None:
    asyncio.run(_serve(listening))


# --- the four ways --------------------------------------------------------------------------------


def request(*, stream: bool) -> ModelComplete:
    """What is asked, the same each time."""
    return ModelComplete(
        messages=[ModelMessage(role="user", content="Say hello.")], max_tokens=100, stream=stream
    )


class Bare:
    """The request and nothing else."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._client = httpx2.AsyncClient(trust_env=False, headers={"Accept-Encoding": "identity"})
        self._body = {
            stream: orjson.dumps(
                {
                    "model": "bench-1",
                    "messages": [{"role": "user", "content": "Say hello."}],
                    "max_tokens": 100,
                    "temperature": 0.0,
                    "stream": stream,
                }
            )
            for stream in (False, True)
        }

    async def call(self, *, stream: bool) -> tuple[float, float]:
        """Seconds to the first word and to the end."""
        began = time.perf_counter()
        headers = {"Content-Type": "application/json"}
        asked = self._client.stream("POST", self._url, content=self._body[stream], headers=headers)
        first = None
        async with asked as response:
            body = b""
            async for piece in response.aiter_bytes():
                first = first or time.perf_counter()
                body += piece
        if not stream:
            assert orjson.loads(body)["choices"][0]["message"]["content"] == WORDS
        return (first or began) - began, time.perf_counter() - began

    async def close(self) -> None:
        await self._client.aclose()


class First:
    """Notes when the first word is shown."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self, _: Any) -> None:
        self.at = self.at or time.perf_counter()


async def through_broker(broker: ModelBroker, clock: ManualClock, *, stream: bool) -> tuple[float, float]:
    """As the gate calls it."""
    first = First()
    budget = Budget(
        micro_usd=0, tokens=10_000, deadline_ms=clock.now_ms() + 60_000, permits=lambda target: True
    )
    began = time.perf_counter()
    await broker.estimate(request(stream=stream), lambda target: True)
    answer = await broker.complete(
        request(stream=stream), budget=budget, on_delta=first if stream else None, idempotency_key="b" * 64
    )
    took = time.perf_counter() - began
    assert answer.text == WORDS and answer.provider == "bench"
    return first.at - began, took


async def through_gate(world: World, caller: Any, first: First, *, stream: bool) -> tuple[float, float]:
    """As a guest's host call arrives."""
    args: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 100}
    if stream:
        args["stream"] = True
    first.at = 0.0
    began = time.perf_counter()
    answer = await world.gate.answerer(caller).answer(world.hostcall(caller, "model.complete", args))
    took = time.perf_counter() - began
    assert answer.ok, answer
    return first.at - began, took


# --- measuring ------------------------------------------------------------------------------------


async def bench(url: str, scratch: Path, wanted: argparse.Namespace) -> None:
    settings = Models(
        providers={"bench": Provider(name="bench", kind="openai", base_url=f"{url}/v1", model="bench-1")},
        detect="none",
    )
    clock = ManualClock()
    broker = ModelBroker(settings, secrets=SecretStore(environ={}), clock=clock, jitter=lambda: 0.5)
    bare, first = Bare(url), First()
    wide = quotas(
        calls=10_000_000, bytes=10**12, tokens=10**12, run_tokens=10**12, run_micro_usd=10**12, wall_ms=10**9
    )
    world = World(scratch, clock, quotas=wide, synchronous="FULL")
    world.models = broker  # type: ignore[assignment]
    world.deltas = _Noting(first)
    await world.start()
    await world.run()
    caller = await world.caller(caps(GRANTS))
    ways: dict[str, Callable[..., Awaitable[tuple[float, float]]]] = {
        "bare": bare.call,
        "broker": lambda *, stream: through_broker(broker, clock, stream=stream),
        "gate": lambda *, stream: through_gate(world, caller, first, stream=stream),
    }
    for stream in (False, True):
        taken: dict[str, list[float]] = defaultdict(list)
        for number in range(wanted.calls + 20):
            for name, call in ways.items():
                to_first, whole = await call(stream=stream)
                if number >= 20:  # warm
                    taken[name].append(to_first if stream else whole)
        if not stream:
            taken["guest"] = await guests(world, scratch, wanted)
        table("first word of a stream" if stream else "whole answer", taken)
    await world.stop()
    await bare.close()


class _Noting(list[Any]):
    """The list a world keeps its deltas in; here only the moment counts."""

    def __init__(self, first: First) -> None:
        super().__init__()
        self.append = first  # type: ignore[method-assign]


async def guests(world: World, scratch: Path, wanted: argparse.Namespace) -> list[float]:
    """The whole way, from one request of an agent to its next."""
    wasm = scratch / "runner.wasm"
    wasm.write_bytes(lzma.decompress((SDK / "runner" / "runner.wasm.xz").read_bytes()))
    runtime = Runtime(
        cache_dir=scratch / "cache", mac_key=KEY, ours={blob_digest(wasm.read_bytes())}, max_spares=0
    )
    await runtime.start()
    agent = Agent(name="Python", wasm=wasm, source={"agent": SOURCE}, entrypoint="agent:handle")
    what = told(await runtime.prepare(wasm), agent, wanted.calls)
    gaps: list[float] = []
    for attempt in range(1, wanted.rounds + 1):
        seen = Moments(world.gate.answerer(await world.caller(caps(GRANTS), attempt=attempt + 1)))
        result = await runtime.run_attempt(replace(what, run=RUN, node="draft", attempt=attempt + 1), seen)
        assert result.ok, result
        gaps += [after - before for before, after in zip(seen.at, seen.at[1:], strict=False)]
    await runtime.close()
    return gaps


def table(title: str, taken: dict[str, list[float]]) -> None:
    """Medians and tails, in milliseconds and beside the first row."""
    print(f"\n{title}; {len(taken['bare'])} calls each")
    print(f"{'':10} {'p50 ms':>9} {'p99 ms':>9} {'p50':>7} {'p99':>7}   over bare, p50")
    base: tuple[float, float] | None = None
    for name, seconds in taken.items():
        middle, tail = statistics.median(seconds) * 1e3, statistics.quantiles(seconds, n=100)[98] * 1e3
        base = base or (middle, tail)
        print(
            f"{name:10} {middle:9.3f} {tail:9.3f} {middle / base[0]:6.2f}x {tail / base[1]:6.2f}x"
            f"   {middle - base[0]:+.3f} ms",
            flush=True,
        )


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    wanted = parser.parse_args(argv)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        process = multiprocessing.get_context("fork").Process(target=_run, args=(listening,), daemon=True)
        process.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            with tempfile.TemporaryDirectory(prefix="rl-bench") as scratch:
                asyncio.run(bench(url, Path(scratch), wanted))
        finally:
            process.kill()
            process.join()


if __name__ == "__main__":
    main(sys.argv[1:])
