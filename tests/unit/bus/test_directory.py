"""Who is there: announced, found, alive; and nothing a peer says of itself passes for a fact."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runloop.bundle.semver import in_range
from runloop.client import AsyncClient
from runloop.digest import canonical
from runloop.errors import RunloopError, UsageError
from runloop.rmp.frame import MAX_BODY
from runloopd.bus.directory import KEEP_MS, MAX_GONE, Hosted
from runloopd.bus.socket import PeerLimits

from .ledger_house import CREDENTIAL, LedgerHouse
from .test_socket import eventually

pytestmark = pytest.mark.requirement("I4.semantics.3")

PAINTER = {"version": "1.4.0", "serves": ["demo/paint", "art/*"], "capabilities": ["paint", "draw"]}
WRITER = Hosted(name="writer", version="0.3.0", variant="default", capabilities=("model",), held=False)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[LedgerHouse]:
    made = await LedgerHouse(tmp_path).start()
    yield made
    await made.stop()


async def connected(house: LedgerHouse, credential: bytes | None = CREDENTIAL, **about: Any) -> AsyncClient:
    made = await AsyncClient.connect(house.path, credential, about=about)
    made._session._now_ms = house.clock.now_ms
    return made


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [entry["id"] for entry in found]


async def test_somebody_is_found_by_id_topic_capability_and_version(house: LedgerHouse) -> None:
    painter = await connected(house, **PAINTER)
    other = await connected(house, None, version="0.9.0")
    find = house.directory.find
    own, foreign = painter._session.session, other._session.session
    assert ids(find(hosted=[WRITER])) == ["writer", own, foreign]
    assert ids(find(id=own[:6])) == [own]
    assert ids(find(topic="art/oil/large")) == [own]
    assert ids(find(topic="art")) == []
    assert ids(find(capability="draw")) == [own]
    assert ids(find(version=">=1")) == [own]
    assert ids(find(version="<1", hosted=[WRITER])) == ["writer", foreign]
    assert ids(find(capability="paint", version="<1")) == []
    assert ids(find(topic="agent/writer", hosted=[WRITER])) == ["writer"]
    for one in (painter, other):
        one.close()


async def test_identity_is_the_daemons_and_capabilities_of_peers_are_claims(house: LedgerHouse) -> None:
    liar = await connected(house, None, kind="agent", id="writer", principal="operator:0", capabilities=["x"])
    (entry,) = house.directory.find(capability="x")
    assert (entry["kind"], entry["id"], entry["claimed"]) == ("peer", liar._session.session, True)
    assert entry["principal"].startswith("peer:")
    (agent,) = house.directory.find(capability="model", hosted=[WRITER])
    assert (agent["kind"], agent["claimed"]) == ("agent", False)
    liar.close()


async def test_whoever_promised_a_heartbeat_and_misses_three_is_gone_until_it_is_heard_again(
    house: LedgerHouse,
) -> None:
    quiet = await connected(house)
    beating = await connected(house, heartbeat_ms=1_000)
    house.clock.advance(2_999)  # type: ignore[attr-defined]
    assert len(house.directory.find()) == 2
    house.clock.advance(1)  # type: ignore[attr-defined]
    assert ids(house.directory.find()) == [quiet._session.session]
    assert [entry["state"] for entry in house.directory.find(gone=True)] == ["live", "gone"]
    await beating.ping()
    assert len(house.directory.find()) == 2
    house.clock.advance(2_000)  # type: ignore[attr-defined]
    await beating.publish("demo/x", "observation.generic.v1", 1)  # any frame is a heartbeat
    house.clock.advance(2_000)  # type: ignore[attr-defined]
    assert len(house.directory.find()) == 2
    for one in (quiet, beating):
        one.close()


async def test_whoever_left_is_listed_as_gone_for_a_while(house: LedgerHouse) -> None:
    painter = await connected(house, **PAINTER)
    session = painter._session.session
    painter.close()
    await eventually(lambda: not house.server.peers())
    assert house.directory.find() == []
    (entry,) = house.directory.find(gone=True, capability="paint")
    assert (entry["id"], entry["state"]) == (session, "gone")
    house.clock.advance(KEEP_MS)  # type: ignore[attr-defined]
    assert house.directory.find(gone=True) == []


async def test_who_left_does_not_grow_the_daemon(house: LedgerHouse) -> None:
    for _ in range(MAX_GONE + 20):
        (await connected(house)).close()
    await eventually(lambda: not house.server.peers())
    assert len(house.directory.find(gone=True)) == MAX_GONE


async def test_an_announcement_says_no_more_than_a_hello_could(house: LedgerHouse) -> None:
    client = await connected(house, **PAINTER)
    with pytest.raises(UsageError, match="4096 characters"):
        await client.announce(serves=["demo/" + "x" * 100] * 40)
    assert ids(house.directory.find(capability="paint")) == [client._session.session]
    client.close()


async def test_everybody_who_left_with_all_he_was_allowed_to_say_is_one_answer(house: LedgerHouse) -> None:
    """A program without the credential must not make the list too long to be shown."""
    for _ in range(2):
        client = await connected(house, credential=None)
        for number in range(255):
            await client.subscribe(f"demo/{number:03}/" + "x" * 240)
        await client.announce(serves=[f"demo/{number:02}" + "x" * 55 for number in range(64)])
        client.close()
    await eventually(lambda: not house.server.peers())
    found = house.directory.find(gone=True)
    assert [len(entry["serves"]) for entry in found] == [64, 64]
    assert len(canonical(found)) / len(found) * (MAX_GONE + PeerLimits().peers) < MAX_BODY


async def test_an_announcement_replaces_what_was_said_before(house: LedgerHouse) -> None:
    client = await connected(house, **PAINTER)
    await client.announce(capabilities=["sculpt"])
    (entry,) = house.directory.find()
    assert (entry["capabilities"], entry["serves"], entry["client"]) == (["sculpt"], [], "runloop")
    client.close()


@pytest.mark.parametrize(
    "about",
    [
        {"version": "1"},
        {"version": 1},
        {"serves": "demo/*"},
        {"serves": ["*/x"]},
        {"serves": ["demo/x"] * 65},
        {"capabilities": ["a b"]},
        {"capabilities": ["\x1b[2J"]},
        {"capabilities": [1]},
        {"heartbeat_ms": 1},
        {"heartbeat_ms": True},
        {"instance": b"short"},
        {"instance": "x" * 32},
    ],
)
async def test_what_cannot_be_shown_is_refused_in_the_hello_and_in_an_announcement(
    house: LedgerHouse, about: dict[str, Any]
) -> None:
    with pytest.raises(RunloopError) as caught:
        await connected(house, **about)
    assert caught.value.named_code in ("hello.shape", "topic")
    assert house.directory.find(gone=True) == []
    if "instance" not in about:
        client = await connected(house, **PAINTER)
        with pytest.raises(UsageError):
            await client.announce(**about)
        assert ids(house.directory.find(capability="paint")) == [client._session.session]
        client.close()


@pytest.mark.parametrize(
    ("version", "bounds", "holds"),
    [
        ("1.2.0", ">=1.2 <2", True),
        ("2.0.0", ">=1.2 <2", False),
        ("2.0.0-rc.1", "<2", True),
        ("1.2.0", "1.2.0", True),
        ("1.2.1", "=1.2", False),
        ("1.2.1", ">1.2 <=1.2.1", True),
    ],
)
def test_a_range_is_a_list_of_bounds(version: str, bounds: str, holds: bool) -> None:
    assert in_range(version, bounds) is holds


@pytest.mark.parametrize("bounds", ["", "x", ">=", "1.2.3.4", ">=1 || <2", "^1", ">=01"])
def test_a_range_that_is_none_is_refused(bounds: str) -> None:
    with pytest.raises(UsageError):
        in_range("1.0.0", bounds)
