"""A book, a source and a keeper with real parts: ledger, approvals, sandbox, bridge, servers."""

from __future__ import annotations

import asyncio
import base64
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from runloop.clock import SystemClock
from runloop.events import Event
from runloopd.authority.desk import Desk
from runloopd.broker.mcp.service import MCP_KINDS, McpClient
from runloopd.broker.mcp.spec import ServerSpec
from runloopd.broker.secrets import SecretStore
from runloopd.broker.toolbox import Offer, ToolContext, ToolResult
from runloopd.broker.tools.bubblewrap import Bubblewrap
from tests.unit.broker.world import OPERATOR, RUN, World

ROOT = Path(__file__).parents[3]
SERVER = ROOT / "tests" / "contract" / "mcp_server.py"
VENV = Path(sys.prefix)
PYTHON = tuple(sorted({str(VENV), str(Path(sys.base_prefix).resolve())} - {"/usr"}))
"""Where the interpreter of a server lies: the environment, and what it was made from."""
CANARY = "canary-5e1f0c77a1b2"


class Later:
    """Stands for a source that is made after the gate, which takes its sources when it is made."""

    def __init__(self) -> None:
        self.source: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)


class Mcp:
    """One daemon's worth of MCP client."""

    def __init__(self, world: World, sandbox: Bubblewrap) -> None:
        self.world = world
        self.sandbox = sandbox
        self.secrets = SecretStore(environ={}, places=(world.vault,))
        self._keys = count()
        self.build()

    def build(self) -> None:
        """As the daemon does when it starts."""
        world = self.world
        self.desk = Desk(world.approvals)
        self.client = McpClient(
            journal=world.journal,
            facts=world.knowledge,
            blob=world.reader.blob,
            approvals=world.approvals,
            desk=self.desk,
            promises=world.promises,
            sandbox=self.sandbox,
            secrets=self.secrets,
            clock=world.clock,
            on_delta=world.deltas.append,
            known=world.reader.events(kinds=MCP_KINDS),
        )
        self.source, self.keeper = self.client.source, self.client.keeper
        for later in world.sources:
            assert isinstance(later, Later)
            later.source = self.source

    async def again(self) -> None:
        """As after a restart: everything from the ledger."""
        await self.close()
        self.build()

    async def close(self) -> None:
        await self.desk.close()
        await self.client.close()

    def program(self, *argv: str, **more: Any) -> ServerSpec:
        """The test's own server."""
        given: dict[str, Any] = {"ro": (*PYTHON, str(SERVER.parent)), **more}
        return ServerSpec(argv=(str(VENV / "bin" / "python"), str(SERVER), *argv), **given)

    async def add(self, name: str, spec: ServerSpec) -> dict[str, Any]:
        return await self.answer(await self.keeper.ask_add(name, spec))

    async def approve(self, name: str, *tools: str, effect: str = "send") -> dict[str, Any]:
        return await self.answer(await self.keeper.ask_approve(name, list(tools), effect))

    async def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A person's yes, carried out."""
        approval = self.world.approvals.find(asked["approval"])
        await self.world.approvals.decide(
            OPERATOR, approval.id, approval.action_digest, "approve", "", approval.action_digest
        )
        outcome = await self.desk.outcome(approval.id, 30)
        assert outcome is not None
        if outcome.error is not None:
            raise outcome.error
        return outcome.result or {}

    def content(self, asked: dict[str, Any]) -> str:
        """What the person reads."""
        return self.world.reader.blob(self.world.approvals.find(asked["approval"]).content_blob).decode()

    def offer(self, name: str) -> Offer:
        return next(offer for offer in self.source.offers() if offer.name == name)

    def context(self, wait_ms: int = 20_000) -> ToolContext:
        return ToolContext(
            agent="writer",
            run=RUN,
            node="draft",
            key=f"key{next(self._keys)}",
            deadline_ms=self.world.clock.now_ms() + wait_ms,
        )

    async def call(self, name: str, wait_ms: int = 20_000, /, **args: Any) -> ToolResult:
        return await self.source.call(self.offer(name), args, self.context(wait_ms))

    async def text(self, name: str, /, **args: Any) -> str:
        """The text of a result."""
        result = await self.call(name, **args)
        return str(result.value["content"][0]["text"])

    async def facts(self, kind: str) -> list[Event]:
        return list(self.world.reader.events(kinds=(kind,)))

    async def ready(self, spec: ServerSpec, name: str = "tester", effect: str = "read") -> None:
        """Added, and everything of it approved."""
        await self.add(name, spec)
        await self.approve(name, effect=effect)


@pytest.fixture
async def mcp(tmp_path: Path) -> AsyncIterator[Mcp]:
    home = tmp_path / "home"
    home.mkdir()
    world = World(home, SystemClock())  # type: ignore[arg-type]
    world.sources = [Later()]
    await world.start()
    await world.run()
    sandbox = Bubblewrap([home])
    made = Mcp(world, sandbox)
    yield made
    await made.close()
    await sandbox.close()
    await world.stop()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The test's own server, over HTTP on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = int(free.getsockname()[1])
    process = await asyncio.create_subprocess_exec(
        str(VENV / "bin" / "python"),
        str(SERVER),
        "http",
        str(number),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", number)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        yield number
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def encodings(secret: str) -> list[str]:
    """A secret, as it likes to come back."""
    return [secret, base64.b64encode(secret.encode()).decode().rstrip("="), secret.encode().hex()]
