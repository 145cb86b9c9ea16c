"""Rows of attacks.md on real parts in one process: ledger, views, gate."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pog.errors import LedgerWriteError
from pog.materializer import Materializer
from pog.query import Knowledge
from runloop.testing import ManualClock
from tests.unit.broker.test_mail import decide
from tests.unit.broker.world import World, ask, mail, within


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(tmp_path, ManualClock()).start()
    await made.run()
    yield made
    await made.stop()


def full_at(world: World, number: int) -> Callable[[], int]:
    """Let commit ``number`` (from one) and all after it fail as on a full disk; returns their counter."""
    honest, made = world.ledger.commit, [0]

    def commit(prepared: Sequence[Any], blobs: Any = ()) -> Any:
        made[0] += 1
        if made[0] >= number:
            raise LedgerWriteError("no space left on device", hint="make room")
        return honest(prepared, blobs)

    world.ledger.commit = commit  # type: ignore[method-assign]
    return lambda: made[0]


@pytest.mark.requirement("L1", "I2.ledger.2")
@pytest.mark.parametrize(
    ("number", "step"), [(1, "asking"), (2, "deciding"), (3, "claiming and admitting"), (4, "delivering")]
)
async def test_an_append_that_fails_at_any_step_of_a_mail_lets_no_unrecorded_effect_out(
    world: World, number: int, step: str
) -> None:
    caller = await world.caller()
    commits = full_at(world, number)
    call = world.begin(caller, "mail.send", mail())
    if step == "asking":
        assert (await within(call)).value["code"] == "ledger.write"
    elif step == "deciding":
        with pytest.raises(LedgerWriteError):
            await decide(world)
        world.clock.advance(5_000)
        assert [approval.state for approval in world.approvals.list()] == ["open"]
    else:
        await decide(world)
        world.clock.advance(5_000)
        assert (await within(call)).value["code"] == "ledger.write"
    assert commits() >= number, "the disk was never full: this proves nothing"
    recorded = {event.kind for event in world.events()}
    assert bool(world.mail.dispatched) == ("hostcall.admitted" in recorded) == (step == "delivering")


@pytest.mark.requirement("L10", "K6")
async def test_another_price_changes_no_total_of_the_past(world: World, tmp_path: Path) -> None:
    def total() -> Any:
        views = Knowledge(tmp_path / "views.db", world.reader)
        with contextlib.closing(views):
            return views.query("SELECT sum(cost_micro_usd) AS spent FROM model_calls", raw=True).rows

    world.models.micro_usd = 7
    assert (await world.call(await world.caller(), "model.complete", ask("hello"))).ok
    await world.journal.views_at(world.events()[-1].id)
    before = total()
    await world.restart()
    world.models.micro_usd = 7_000
    await world.stop()
    with Materializer.open(tmp_path / "views.db", tmp_path / "events.db") as views:
        views.rebuild()
    await world.start()
    assert total() == before
    assert [c.price_version for c in world.payloads("model.called")] == ["test-1"]
