"""A client that comes back: what stands, what is asked again, what fails, and when it gives up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from runloop.client import AsyncClient, BlockingClient, Reconnect
from runloop.errors import RefusedError, UnreachableError
from runloop.rmp.session import Backoff
from runloopd.bus.parts import Delivery
from runloopd.bus.socket import PeerLimits
from tests.unit.bus.cutting import Wire
from tests.unit.bus.ledger_house import CREDENTIAL, LedgerHouse
from tests.unit.bus.support import GENERIC
from tests.unit.bus.test_socket import eventually

pytestmark = pytest.mark.requirement("I4.semantics.2")


def at_once(**more: Any) -> Reconnect:
    return Reconnect(random=lambda: 0.0, **more)


class Scene:
    """A daemon whose control face answers when a test says so, behind a wire that can be cut."""

    def __init__(self, folder: Path) -> None:
        self.house = LedgerHouse(folder)
        self.wire = Wire(folder / "w", self.house.path)
        self.asked: list[Delivery] = []
        self.answer = True

    async def start(self) -> None:
        await self.house.start()
        self.house.bus.subscribe("rlp/ctrl", self._asked)

    def _asked(self, delivery: Delivery) -> None:
        self.asked.append(delivery)
        if self.answer:
            self.house.bus.reply(delivery, delivery.payload["params"])

    async def client(self, **more: Any) -> AsyncClient:
        reconnect = more.pop("reconnect", at_once())
        made = await AsyncClient.connect(self.wire.path, CREDENTIAL, reconnect=reconnect, **more)
        made._session._now_ms = self.house.clock.now_ms
        return made


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(tmp_path)
    await made.start()
    await made.wire.start()
    yield made
    await made.wire.close()
    await made.house.stop()


async def test_a_call_in_flight_fails_with_a_clear_error_and_the_next_one_works(scene: Scene) -> None:
    client = await scene.client()
    scene.answer = False
    call = asyncio.create_task(client.call("pay"))
    await eventually(lambda: len(scene.asked) == 1)
    scene.wire.cut()
    with pytest.raises(UnreachableError, match="whether it was done is not known") as caught:
        await call
    assert caught.value.named_code == "client.lost"
    scene.answer = True
    assert await client.call("look", {"a": 1}) == {"a": 1}
    assert [one.payload["method"] for one in scene.asked] == ["pay", "look"]
    client.close()


async def test_an_idempotent_call_is_asked_again_and_answered(scene: Scene) -> None:
    client = await scene.client()
    scene.answer = False
    call = asyncio.create_task(client.call("look", {"a": 1}, idempotent=True))
    await eventually(lambda: len(scene.asked) == 1)
    scene.answer = True
    scene.wire.cut()
    assert await call == {"a": 1}
    assert len(scene.asked) == 2
    client.close()


async def test_every_subscription_stands_again_after_a_reconnect_and_none_that_was_given_up(
    scene: Scene,
) -> None:
    client = await scene.client()
    for pattern in ("demo/a", "demo/b/*", "demo/c"):
        await client.subscribe(pattern)
    await client.unsubscribe("demo/c")
    with pytest.raises(RefusedError):
        await client.subscribe("rlp/ctrl")
    before = client._session.session
    scene.wire.cut()
    await client.ping()
    assert client._session.session != before
    (info,) = [one for one in scene.house.server.peers() if one.session == client._session.session]
    assert sorted(info.patterns) == sorted(["demo/a", "demo/b/*", client.reply_topic])
    client.close()


async def test_a_durable_publish_under_way_is_recorded_once(scene: Scene) -> None:
    """The answer is what is cut: the daemon has the message, and the client does not know it."""
    client = await scene.client()
    await client.ping()
    for count in range(0, 160, 20):  # into the receipt, at its beginning, its middle and behind it
        scene.wire.cut_after("down", count)
        receipt = await client.publish("durable/a", GENERIC, count, durable=True)
        assert receipt.seq > 0
        scene.wire.mend()
    assert len(scene.house.published()) == 8
    assert scene.house.durable.duplicates > 0
    client.close()


async def test_an_ordinary_publish_under_way_is_not_sent_again(scene: Scene) -> None:
    client = await scene.client()
    heard: list[Any] = []
    scene.house.bus.subscribe("demo/a", lambda delivery: heard.append(delivery.payload))
    scene.wire.cut_after("down", 10)
    with pytest.raises(UnreachableError):
        await client.publish("demo/a", GENERIC, 1)
    await client.ping()
    assert heard == [1]
    client.close()


async def test_a_client_gives_up_in_the_end_and_says_why(scene: Scene) -> None:
    now = iter(range(1_000))
    client = await scene.client(reconnect=at_once(give_up_s=10, monotonic=lambda: float(next(now))))
    await scene.house.stop()
    with pytest.raises(UnreachableError, match="the daemon closed the connection"):
        await client.call("x")
    with pytest.raises(UnreachableError):
        await client.call("x")
    client.close()


async def test_a_client_that_finds_the_door_crowded_tries_again(scene: Scene) -> None:
    client = await scene.client()
    full = PeerLimits(peers=0, strangers=0)
    scene.house.server.limits, roomy = full, scene.house.server.limits
    scene.wire.cut()
    await eventually(lambda: any(error.named_code == "bus.peers" for error in scene.house.refused))
    scene.house.server.limits = roomy
    assert await client.ping(timeout_s=20) > 0
    client.close()


async def test_a_daemon_of_another_build_is_not_tried_for_ever(scene: Scene) -> None:
    client = await scene.client()
    scene.house.server.build = "9.9.9"
    scene.wire.cut()
    with pytest.raises(RefusedError, match=r"9\.9\.9"):
        await client.ping()
    client.close()


async def test_without_being_told_to_a_client_does_not_come_back(scene: Scene) -> None:
    client = await scene.client(reconnect=None)
    scene.wire.cut()
    with pytest.raises(UnreachableError, match="closed the connection"):
        await client.ping()
    client.close()


async def test_a_connection_lost_while_it_is_taken_up_is_not_taken_for_a_living_one(scene: Scene) -> None:
    client = await scene.client()
    dial, lost = client._dial, [False]

    async def dial_and_lose() -> None:
        await dial()
        if not lost[0]:
            lost[0] = True
            assert client._transport is not None
            client._transport.abort()
            await eventually(lambda: client._transport is None)

    client._dial = dial_and_lose  # type: ignore[method-assign]
    scene.wire.cut()
    await eventually(lambda: lost[0])
    assert await client.ping(timeout_s=20) > 0
    client.close()


async def test_a_closed_client_does_not_come_back(scene: Scene) -> None:
    client = await scene.client()
    client.close()
    await eventually(lambda: not scene.house.server.peers())


async def test_what_a_program_said_of_itself_is_said_again(scene: Scene) -> None:
    client = await scene.client(about={"version": "1.0.0", "capabilities": ["draw"]})
    await client.announce(version="1.1.0", capabilities=["draw", "paint"])
    scene.wire.cut()
    await client.ping()
    (entry,) = scene.house.directory.find(capability="paint")
    assert entry["version"] == "1.1.0"
    client.close()


@pytest.fixture
def thread(tmp_path: Path) -> Iterator[tuple[Scene, Any]]:
    """The scene on a loop of its own, for the blocking client; and how to run something there."""
    loop = asyncio.new_event_loop()
    running = threading.Thread(target=loop.run_forever, daemon=True)
    running.start()

    def there(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    scene = Scene(tmp_path)
    there(scene.start())
    there(scene.wire.start())
    yield scene, there
    there(scene.wire.close())
    there(scene.house.stop())
    loop.call_soon_threadsafe(loop.stop)
    running.join(10)
    loop.close()


def test_the_blocking_client_comes_back_too(thread: tuple[Scene, Any]) -> None:
    scene, there = thread
    waits: list[float] = []
    client = BlockingClient.connect(
        scene.wire.path, CREDENTIAL, reconnect=Reconnect(random=lambda: 0.0, sleep=waits.append)
    )
    client._session._now_ms = scene.house.clock.now_ms
    client.subscribe("demo/a")
    client.consume("c", "durable/*")
    first = client.publish("durable/a", GENERIC, 1, durable=True)

    async def restart() -> None:
        await scene.house.stop()
        await scene.start()

    there(restart())
    assert client.call("look", {"b": 2}, idempotent=True) == {"b": 2}
    second = client.publish("durable/a", GENERIC, 2, durable=True)
    assert second.seq > first.seq
    found = [client.next_delivery(10), client.next_delivery(10)]
    assert [one and one.payload for one in found] == [1, 2]
    assert client.publish("demo/a", GENERIC, 3).receivers == 1
    client.close()


def test_the_wait_doubles_within_a_bound_and_is_spread() -> None:
    whole = Backoff(lambda: 1.0, first_s=0.1, most_s=2.0)
    assert [whole.next_s() for _ in range(7)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    half = Backoff(lambda: 0.5, first_s=0.1, most_s=2.0)
    assert half.next_s() == 0.05
    for _ in range(10_000):  # no overflow, however long a daemon is away
        assert half.next_s() <= 1.0
