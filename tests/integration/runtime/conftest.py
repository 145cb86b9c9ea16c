"""A real runtime for every test: its own zygote, one cache for all, so that each guest is compiled once."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from runloop.bundle.runner import unpack
from runloop.config import shipped
from runloop.events import AgentTransition
from runloopd.broker.calls import Answer, HostCall
from runloopd.runtime.supervisor import AttemptOrder, AttemptResult, GuestLimits, Runtime
from tests.home import CACHE_KEY

RUN = "0b7c0b7c-0000-4000-8000-000000000001"
MAC_KEY = CACHE_KEY


class Script:
    """An answerer: what it was asked, and what it says (a value, or a function of the call)."""

    def __init__(self, says: Any = None) -> None:
        self.calls: list[HostCall] = []
        self._says = says

    async def answer(self, call: HostCall) -> Answer:
        self.calls.append(call)
        said = self._says(call) if callable(self._says) else self._says
        if isinstance(said, Awaitable):
            said = await said
        return said if isinstance(said, Answer) else Answer(ok=True, value=said)


class Bench:
    """The runtime under test and the words to ask it with."""

    def __init__(self, runtime: Runtime, transitions: list[AgentTransition], scratch: Path) -> None:
        self.runtime = runtime
        self.transitions = transitions
        self._scratch = scratch

    @property
    def moves(self) -> list[str]:
        """The transitions so far, as ``BEFORE trigger AFTER``."""
        return [f"{t.before} {t.trigger} {t.after}" for t in self.transitions]

    def file(self, wasm: bytes) -> Path:
        path = self._scratch / f"{hashlib.sha256(wasm).hexdigest()[:16]}.wasm"
        path.write_bytes(wasm)
        return path

    async def order(self, wasm: bytes, **overrides: Any) -> AttemptOrder:
        digest = await self.runtime.prepare(self.file(wasm))
        limits = GuestLimits(**overrides.pop("limits", {}))
        return AttemptOrder(
            run=RUN,
            node=overrides.pop("node", "n"),
            attempt=1,
            component_digest=digest,
            source=overrides.pop("source", None),
            entrypoint="agent:handle",
            input=overrides.pop("input", {}),
            limits=limits,
            agent="tester",
        )

    async def run(self, wasm: bytes, answerer: Script | None = None, **overrides: Any) -> AttemptResult:
        return await self.runtime.run_attempt(await self.order(wasm, **overrides), answerer or Script())


@pytest.fixture
def make_bench(compiled: Path, tmp_path: Path) -> Callable[..., Awaitable[Bench]]:
    async def make(**settings: Any) -> Bench:
        transitions: list[AgentTransition] = []

        async def heard(_: AttemptOrder, transition: AgentTransition) -> None:
            transitions.append(transition)

        ours: dict[str, Any] = {"cache_dir": compiled, "mac_key": MAC_KEY, "on_transition": heard}
        # An answer that is late because the machine is busy is no WAITING: who means that one says so.
        ours |= {"grace_ms": 300, "waiting_after_ms": 60_000}
        runtime = Runtime(**ours | settings)
        await runtime.start()
        return Bench(runtime, transitions, tmp_path)

    return make


@pytest.fixture
async def bench(make_bench: Callable[..., Awaitable[Bench]]) -> AsyncIterator[Bench]:
    made = await make_bench()
    yield made
    await made.runtime.close()


@pytest.fixture(scope="session")
def runner(compiled: Path) -> bytes:
    """The component that executes Python agents."""
    return unpack(shipped("runner"), compiled).read_bytes()
