"""The way of frames into the ledger, without a ledger: what is judged when, who is told, in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from pog.errors import LedgerWriteError
from runloop.errors import RunloopError
from runloop.events import Draft
from runloop.rmp.frame import Frame, decode_frame, encode_frame
from runloopd.bus import intake as module
from runloopd.bus.intake import Intake, Offer
from runloopd.bus.principal import DAEMON

from .support import NOW


class Publisher:
    """Whoever published; owes bytes while they are under way."""

    def __init__(self) -> None:
        self.owed = 0
        self.answers: list[tuple[int, str]] = []

    def charge(self, size: int) -> None:
        self.owed += size

    def refused(self, msg_id: int, error: RunloopError, *, receipt: bool) -> None:
        self.answers.append((msg_id, error.named_code))

    def receipt(self, msg_id: int, receivers: int, *, seq: int, duplicate: bool) -> None:
        self.answers.append((msg_id, f"{'again ' if duplicate else ''}{seq}"))


class World:
    """The rules and the pen: every statement waits until it is let go."""

    def __init__(self) -> None:
        self.statements: list[tuple[tuple[Draft, ...], asyncio.Future[list[Any]]]] = []
        self.seq = 0
        self.charged = 0
        self.intake = Intake(self, self)  # type: ignore[arg-type]
        self.publisher = Publisher()

    async def append(self, *drafts: Draft, blobs: Iterable[bytes] = ()) -> list[Any]:
        done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.statements.append((drafts, done))
        return await done

    def let(self, number: int, error: Exception | None = None) -> None:
        drafts, done = self.statements[number]
        if error is not None:
            done.set_exception(error)
            return
        done.set_result([self._event() for _ in drafts])

    def _event(self) -> Any:
        self.seq += 1
        return type("Event", (), {"id": self.seq})()

    async def ready(self) -> None:
        return None

    async def judge(self, offer: Offer) -> int | None:
        self.charged += offer.cost
        return None

    def give_back(self, label: str, size: int) -> None:
        self.charged -= size

    def recorded(self, offer: Offer, seq: int) -> None:
        offer.confirm(0, seq, duplicate=False)

    def repeated(self, offer: Offer, seq: int) -> None:
        offer.confirm(0, seq, duplicate=True)

    def refused(self, offer: Offer, error: RunloopError) -> None:
        offer.refuse(error)

    def add(self, *numbers: int) -> None:
        for number in numbers:
            self.intake.add(
                Offer(self.publisher, DAEMON, "i", "durable/x", "t", _frame(number), receipt=True)  # type: ignore[arg-type]
            )


def _frame(number: int) -> Frame:
    return decode_frame(encode_frame(schema_id=1, body=b"body", created_at_ms=NOW, msg_id=number))


async def turns(count: int = 200) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_frames_are_judged_while_the_disk_works_and_everybody_is_answered_in_order() -> None:
    world = World()
    world.add(*range(1, 21))
    await turns()
    assert [len(drafts) for drafts, _ in world.statements] == [8, 8, 4]
    assert (world.publisher.answers, world.publisher.owed) == ([], 80)
    for number in range(3):
        world.let(number)
    await world.intake.end()
    assert world.publisher.answers == [(number, str(number)) for number in range(1, 21)]
    assert (world.publisher.owed, world.intake.busy, world.intake._bytes) == (0, False, 0)


async def test_what_comes_while_a_statement_waits_is_stated_without_waiting_for_it() -> None:
    world = World()
    world.add(1)
    await turns()
    world.add(2)
    await turns()
    assert len(world.statements) == 2
    world.let(0)
    world.let(1)
    await world.intake.end()
    assert world.publisher.answers == [(1, "1"), (2, "2")]


async def test_only_so_much_is_under_way_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_UNDER_WAY", 16)
    world = World()
    world.add(*range(1, 41))
    await turns()
    assert (len(world.statements), world.intake.waiting) == (2, 24)
    world.let(0)
    await turns()
    assert (len(world.statements), world.intake.waiting) == (3, 16)
    for number in (1, 2):
        world.let(number)
    await turns()
    for number in (3, 4):
        world.let(number)
    await world.intake.end()
    assert len(world.publisher.answers) == 40


async def test_a_message_that_comes_again_while_it_is_under_way_is_stated_once() -> None:
    world = World()
    world.add(1)
    await turns()
    world.add(1, 2)
    await turns()
    assert [len(drafts) for drafts, _ in world.statements] == [1, 1]
    world.let(0)
    world.let(1)
    await world.intake.end()
    assert world.publisher.answers == [(1, "1"), (1, "again 1"), (2, "2")]


async def test_a_statement_that_fails_is_told_to_everybody_in_it_and_costs_nobody_anything() -> None:
    world = World()
    world.add(1)
    await turns()
    world.add(1, 2)
    await turns()
    world.let(0, LedgerWriteError("full", hint="make room", code="ledger.write"))
    world.let(1)
    await world.intake.end()
    assert world.publisher.answers == [(1, "ledger.write"), (1, "ledger.write"), (2, "1")]
    assert world.charged == 4 + module.OVERHEAD
    assert (world.publisher.owed, world.intake._under_way) == (0, {})
    world.add(1)
    await turns()
    world.let(2)
    await world.intake.end()
    assert world.publisher.answers[-1] == (1, "2")


async def test_a_fault_of_ours_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    async def broken(offer: Offer) -> int | None:
        if offer.frame.msg_id == 2:
            raise ZeroDivisionError
        return await World.judge(world, offer)

    monkeypatch.setattr(world, "judge", broken)
    world.add(1, 2, 3)
    await turns()
    world.let(0)
    await world.intake.end()
    assert world.publisher.answers == [(2, "bus.durable"), (1, "1"), (3, "2")]
