"""No message of a durable topic is lost or delivered twice to a program, whatever is cut or restarted when.

A publisher and a consumer reach a real bus, socket, journal and ledger over wires that Hypothesis cuts at any
byte; the daemon is stopped or killed between any two steps. In the end every message that was published is in
the ledger once and was handed to the consumer once, in the ledger's order.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runloop.client import AsyncClient, Delivery, Reconnect
from tests.memory import quick

from .cutting import Wire
from .ledger_house import CREDENTIAL, LedgerHouse
from .support import GENERIC

BYTES = st.integers(0, 1_500)


def at_once() -> Reconnect:
    """Comes back without waiting, as long as the test lasts."""
    return Reconnect(random=lambda: 0.0, give_up_s=600)


PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""No shrinking: a history that fails may wait half a minute, each time."""


class NoLoss(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="nl", dir=quick()))
        self.loop = asyncio.new_event_loop()
        self.published: list[int] = []
        self.receipts: list[asyncio.Task[Any]] = []
        self.taken: list[Delivery] = []
        self.acked = 0

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 30))

    @initialize()
    def begin(self) -> None:
        self.do(self._begin())

    async def _begin(self) -> None:
        self.house = await LedgerHouse(self.folder, window=5).start()
        self.wires = [await Wire(self.folder / name, self.house.path).start() for name in ("p", "c")]
        self.publisher, self.consumer = [
            await AsyncClient.connect(wire.path, CREDENTIAL, reconnect=at_once()) for wire in self.wires
        ]
        for one in (self.publisher, self.consumer):
            one._session._now_ms = self.house.clock.now_ms
        await self.consumer.consume("c", "durable/*")
        await self.consumer.subscribe("demo/*")

    # --- what may happen ----------------------------------------------------------------------------

    @rule(count=st.integers(1, 8), size=st.integers(0, 2_000))
    def publish(self, count: int, size: int) -> None:
        for _ in range(count):
            number = len(self.published) + 1
            self.published.append(number)
            self.receipts.append(self.loop.create_task(self._publish(number, size)))
        self.turn(3)

    async def _publish(self, number: int, size: int) -> Any:
        return await self.publisher.publish(
            f"durable/{number % 3}", GENERIC, {"n": number, "x": b"x" * size}, durable=True, timeout_s=600
        )

    @rule(wire=st.integers(0, 1), direction=st.sampled_from(["up", "down"]), count=BYTES)
    def cut_after(self, wire: int, direction: str, count: int) -> None:
        self.wires[wire].cut_after(direction, count)

    @rule(wire=st.integers(0, 1))
    def cut_now(self, wire: int) -> None:
        self.wires[wire].cut()
        self.turn(2)

    @rule(crash=st.booleans())
    def restart(self, crash: bool) -> None:
        async def again() -> None:
            await self.house.stop(crash=crash)
            await self.house.start()

        self.do(again())

    @rule(times=st.integers(1, 40))
    def turn(self, times: int) -> None:
        async def some() -> None:
            for _ in range(times):
                await asyncio.sleep(0)

        self.do(some())

    @rule(ms=st.integers(0, 6_000))
    def later(self, ms: int) -> None:
        self.house.clock.advance(ms)  # type: ignore[attr-defined]
        self.turn(5)

    @rule(most=st.integers(1, 10), ack=st.booleans())
    def take(self, most: int, ack: bool) -> None:
        waiting = self.consumer._session.deliveries
        while waiting and most:
            self.taken.append(waiting.popleft())
            most -= 1
        if ack and self.taken:
            self.consumer.ack(self.taken[-1])

    # --- what must hold -----------------------------------------------------------------------------

    @invariant()
    def what_was_taken_is_in_order_and_was_never_taken_before(self) -> None:
        seqs = [one.seq for one in self.taken]
        assert seqs == sorted(set(seqs))

    @invariant()
    def every_frame_is_accounted_for(self) -> None:
        if hasattr(self, "house") and self.house.running:
            assert self.house.balanced

    def teardown(self) -> None:
        try:
            if hasattr(self, "house"):
                self.do(self._end())
        finally:
            self.loop.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _end(self) -> None:
        for wire in self.wires:
            wire.mend()
        receipts = await asyncio.gather(*self.receipts)
        assert sorted(int(self._number(one.seq)) for one in receipts) == self.published
        if self.taken:
            self.consumer.ack(self.taken[-1])
        while len(self.taken) < len(self.published):
            delivery = await self.consumer.next_delivery(20)
            assert delivery is not None, "a message was lost"
            self.taken.append(delivery)
            self.consumer.ack(delivery)
        await self.consumer.ping()
        assert not self.consumer._session.deliveries
        recorded = [event.id for event in self.house.reader.events(kinds=("topic.published",))]
        assert [one.seq for one in self.taken] == recorded
        assert sorted(one.payload["n"] for one in self.taken) == self.published
        assert self.house.balanced
        for one in (self.publisher, self.consumer):
            one.close()
        for wire in self.wires:
            await wire.close()
        await self.house.stop()
        await asyncio.sleep(0)

    def _number(self, seq: int) -> int:
        import msgpack

        event = self.house.reader.event(seq)
        body = self.house.reader.blob(event.payload.body_blob)  # type: ignore[attr-defined]
        return int(msgpack.unpackb(body)["payload"]["n"])


NoLoss.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None, phases=PHASES)


class TestNoLoss(NoLoss.TestCase):  # type: ignore[misc,valid-type]
    """Runs the machine."""

    pytestmark = [pytest.mark.requirement("I4.semantics.1"), pytest.mark.timeout(400)]
