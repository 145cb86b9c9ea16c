"""The real broker behind the real gate and journal: many calls at a cap's edge, servers that lie or die."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from runloop.config import Models, Price
from runloop.testing import ManualClock
from runloopd.broker.models import ModelBroker, Patience
from runloopd.broker.providers.http import Http, HttpLimits
from runloopd.broker.secrets import SecretStore
from tests.contract import fake_model_server as fake
from tests.contract.conftest import provider
from tests.contract.fake_model_server import FakeModelServer
from tests.unit.broker.world import World, ask, quotas, within

PRICE = Price(input_micro_usd_per_mtok=3_000_000, output_micro_usd_per_mtok=15_000_000, version="list-1")
CAP = 60_001


@pytest.mark.requirement("K6", "K7")
async def test_five_hundred_calls_of_twenty_agents_never_pass_the_cap_whatever_the_server_says(
    tmp_path: Path,
) -> None:
    chance = random.Random(6)
    usages: list[Any] = [(11, 7), (0, 0), (-4, 2), (10**15, 10**15), None, (30, 50)]
    script = [
        chance.choice(
            [fake.openai("Yes.", usage=chance.choice(usages))] * 6
            + [fake.openai_cut("Y"), fake.status(500), fake.raw(b"nonsense")]
        )
        for _ in range(2_000)
    ]
    clock = ManualClock()
    world = World(tmp_path, clock, quotas=quotas(run_micro_usd=CAP, run_tokens=10**9, tokens=10**9))
    with FakeModelServer(*script) as server:
        broker = ModelBroker(
            Models(providers={"far": provider(server.url, name="far", price=PRICE)}, detect="none"),
            secrets=SecretStore(environ={"FAKE_KEY": "sk-test-key-of-nobody"}),
            clock=clock,
            jitter=lambda: 0.0,
            patience=Patience(attempts=1, breaker_failures=10_000),
            http=Http(HttpLimits(connect_ms=20_000, idle_ms=20_000)),
        )
        world.models = broker  # type: ignore[assignment]
        await world.start()
        await world.run()
        callers = [await world.caller(node=f"n{n}", agent=f"agent{n}") for n in range(20)]
        calls = [
            world.begin(caller, "model.complete", ask(f"question {n}", max_tokens=60 + n, model="far"))
            for n in range(25)
            for caller in callers
        ]
        run = world.gate._record.run(world.events()[0].run or "")
        assert run is not None
        answers = await within(asyncio.gather(*calls), 60)
        assert run.purse.held_micro_usd == 0
        last = None
        for number in range(200):  # what is left is used up one by one
            last = await world.call(callers[0], "model.complete", ask(f"rest {number}", model="far"))
            if last.value.get("code") == "budget.exceeded":
                break
        await broker.close()
    spent = sum(called.cost_micro_usd for called in world.payloads("model.called"))
    assert last is not None and last.value["code"] == "budget.exceeded"
    assert CAP - 1024 * 15 - 500 < spent <= CAP, "not one micro-dollar more, and no call less than fits"
    assert (run.purse.spent_micro_usd, run.purse.held_micro_usd) == (spent, 0)
    codes = {answer.value["code"] for answer in answers if not answer.ok}
    assert "budget.exceeded" in codes and codes & {"model.cut", "model.protocol", "model.overloaded"}
    assert all(
        called.cost_micro_usd <= called.reserved_micro_usd for called in world.payloads("model.called")
    )
    await world.stop()
