"""An attempt on its way to its guest: whoever is stopped meanwhile gets no guest, at whatever point."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from runloop.bundle.archive import unpack
from runloop.errors import RefusedError, RunloopError
from runloop.events import Draft, Event, NodeFinished, NodeScheduled, TokenIssued, TokenRevoked
from runloop.testing import ManualClock
from runloopd.authority.policies import AgentRights, Policies
from runloopd.bus.bus import Bus
from runloopd.runs.attempts import BusAttempts
from runloopd.runs.stops import AgentKilledError
from runloopd.runs.underway import UnderWay
from runloopd.runtime.breaker import Breaker
from runloopd.runtime.quarantine import Quarantine
from runloopd.runtime.registry import InstalledAgent, Registry
from tests.bundles import build
from tests.unit.broker.world import HEX, OPERATOR, RUN, World

Meanwhile = Callable[[], Awaitable[object]]


class Bench:
    """Everything an attempt passes before a guest begins; ``meanwhile`` happens while it is compiled."""

    def __init__(self, world: World, root: Path) -> None:
        built = build(name="writer", ops=["time.now"], caps="time = true\n")
        folder = root / "agents" / "writer"
        for name, data in unpack(built.data).files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        self.world = world
        self.registry = Registry(
            [root / "agents"], pins={}, runners={"python": HEX}, allow_unsigned=True, kept=root / "bundles"
        )
        self.agent: InstalledAgent = self.registry.resolve("agent:writer")
        rights = AgentRights(name="writer", version="1.0.0", top=self.agent.ceiling, policy=self.agent.policy)
        self.policies = Policies(root / "caps", lambda: {"writer": rights}, world.journal, world.mint)
        self.quarantine = Quarantine(world.journal, world.mint, Breaker())
        self.meanwhile: Meanwhile | None = None
        self.started: Event | None = None
        self.attempts = BusAttempts(
            bus=Bus(world.clock),
            mailbox=cast(Any, self),
            runtime=cast(Any, self),
            registry=self.registry,
            runners={"python": root / "runner.wasm"},
            mint=world.mint,
            policies=self.policies,
            gate=world.gate,
            journal=world.journal,
            reader=world.reader,
            quarantine=self.quarantine,
        )

    async def prepare(self, _component: Path) -> str:
        """In place of the compiler."""
        if self.meanwhile is not None:
            await self.meanwhile()
        return HEX

    async def perform(self, attempt: int = 1) -> NodeFinished:
        if self.started is None:
            self.started = await self.world.run(agents={"draft": self.agent.pin})
        scheduled = NodeScheduled(node="draft", attempt=attempt, key="k", input_digest=HEX, input_blob=HEX)
        (event,) = await self.world.journal.append(Draft(payload=scheduled, actor="daemon", run=RUN))
        await self.attempts.perform(RUN, self.started, event)
        return cast(NodeFinished, self.world.payloads("node.finished")[-1])

    def live_tokens(self) -> list[TokenIssued]:
        """Tokens of the agent that are still good."""
        void = {fact.token for fact in cast(list[TokenRevoked], self.world.payloads("token.revoked"))}
        issued = cast(list[TokenIssued], self.world.payloads("token.issued"))
        return [one for one in issued if one.holder == "agent:writer" and one.token not in void]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    world = await World(tmp_path, ManualClock()).start()
    yield Bench(world, tmp_path)
    await world.stop()


def code(finished: NodeFinished) -> str:
    assert finished.error is not None
    return finished.error.code


async def test_a_quarantine_imposed_while_it_is_compiled_is_heard(bench: Bench) -> None:
    bench.meanwhile = lambda: bench.quarantine.impose(OPERATOR, "writer", "stop it")
    assert code(await bench.perform()) == "agent.quarantined"


async def test_a_kill_while_it_is_compiled_is_heard_and_is_a_cause_of_the_end(bench: Bench) -> None:
    async def killed() -> None:
        (attempt,) = bench.attempts.under_way.of("writer")
        assert UnderWay.end(attempt, AgentKilledError("writer", "operator:1000", "stop"), stated=1)

    bench.meanwhile = killed
    finished = await bench.perform()
    assert (code(finished), finished.error is not None and finished.error.retryable) == ("guest.killed", True)
    assert 1 in bench.world.events("node.finished")[-1].provenance.causes
    assert not bench.attempts.under_way.counts()


async def test_a_revocation_while_it_is_compiled_is_heard(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[RunloopError] = []

    def objects(_pin: object) -> None:
        if said:
            raise said[0]

    async def revoked() -> None:
        said.append(RefusedError("its key was revoked", code="trust.key_revoked"))

    monkeypatch.setattr(bench.registry, "object_to", objects)
    await bench.perform()  # the run has its token from now on
    bench.meanwhile = revoked
    assert code(await bench.perform(2)) == "trust.key_revoked"


@pytest.mark.requirement("C12")
async def test_a_right_taken_away_while_the_token_is_made_is_in_no_token(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    mint = bench.world.mint
    honest = mint.for_node
    raced: list[object] = []

    async def slow(*given: Any, **named: Any) -> Any:
        if not raced:  # between reading the override and the token's place among those to void
            raced.append(await bench.policies.revoke(OPERATOR, "writer", "time", None))
        return await honest(*given, **named)

    monkeypatch.setattr(mint, "for_node", slow)
    await bench.perform()
    assert raced
    (live,) = bench.live_tokens()
    assert "time" not in live.grants


async def test_revoking_one_bundle_of_an_agent_voids_no_token_of_another(bench: Bench) -> None:
    await bench.perform()
    mint, own = bench.world.mint, bench.agent.bundle_digest
    assert await mint.revoke_agent("writer", "revoked", actor="o", bundle="0" * 64) == []
    assert len(bench.live_tokens()) == 1
    assert len(await mint.revoke_agent("writer", "revoked", actor="o", bundle=own)) == 1
    assert bench.live_tokens() == []
