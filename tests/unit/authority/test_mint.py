"""The mint: stated first, cached until the next revocation, cascading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pog.errors import LedgerWriteError
from runloop.caps import token as tokens
from runloop.caps.policy import NOTHING, Policy, everything, parse_policy
from runloop.caps.token import TokenError
from runloop.errors import NotFoundError
from runloop.events import AgentPin
from runloop.testing import ManualClock
from runloopd.authority.keyring import Keyring
from runloopd.authority.mint import Mint

from .journal import MemoryJournal

PIN = AgentPin(
    name="writer",
    version="1.0.0",
    variant="",
    bundle_digest="b" * 64,
    component_digest="c" * 64,
    language="python",
)
TIME = parse_policy("[capabilities]\ntime = true")


class Shop:
    def __init__(self, home: Path, **more: Any) -> None:
        self.clock = ManualClock()
        self.journal = MemoryJournal(self.clock)
        self.keyring = Keyring.open(home / "keys")
        self.mint = Mint(self.keyring, self.journal, self.clock, **more)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


async def test_the_token_of_a_node_is_narrowed_from_its_runs_and_both_are_stated(shop: Shop) -> None:
    run = await shop.mint.for_run("r1", everything(), cause=1)
    node = await shop.mint.for_node("r1", "draft", PIN, TIME, cause=2)
    first, second = shop.journal.payloads("token.issued")
    assert (first.token, first.parent, first.holder) == (run.id, None, "run")
    assert (second.token, second.parent, second.holder) == (node.id, run.id, "agent:writer")
    assert second.grants == {"time": True}
    assert shop.mint.verify(node.data).grants == TIME
    assert shop.journal.events[1].provenance.causes == (2, run.event)


async def test_a_run_without_a_token_gets_one_first_and_only_once(shop: Shop) -> None:
    await shop.mint.for_node("r1", "a", PIN, TIME, cause=1)
    await shop.mint.for_node("r1", "b", PIN, TIME, cause=1)
    assert [issued.holder for issued in shop.journal.payloads("token.issued")] == [
        "run",
        "agent:writer",
        "agent:writer",
    ]
    shop.mint.forget("r1")
    await shop.mint.for_node("r1", "c", PIN, TIME, cause=1)
    assert len(shop.journal.payloads("token.issued")) == 5


async def test_a_node_cannot_be_given_more_than_its_run_has(shop: Shop) -> None:
    await shop.mint.for_run("r1", TIME, cause=1)
    with pytest.raises(TokenError, match="random"):
        await shop.mint.for_node("r1", "a", PIN, Policy({"random": True}), cause=1)


async def test_no_token_is_ever_in_the_ledger(shop: Shop) -> None:
    node = await shop.mint.for_node("r1", "a", PIN, TIME, cause=1)
    assert all(node.data.hex() not in repr(event) for event in shop.journal.events)
    assert node.data.hex() not in repr(node) and repr(node.data) not in repr(node)


async def test_an_agent_with_nothing_left_is_audited_and_still_gets_its_token(shop: Shop) -> None:
    node = await shop.mint.for_node("r1", "a", PIN, NOTHING, cause=1)
    (audit,) = shop.journal.payloads("cap.audit")
    assert (audit.decision, audit.agent, audit.node) == ("empty", "writer", "a")
    assert shop.mint.verify(node.data).grants.empty


async def test_a_token_expires_with_the_injected_clock_even_from_the_cache(tmp_path: Path) -> None:
    shop = Shop(tmp_path, ttl_ms=1_000)
    node = await shop.mint.for_node("r1", "a", PIN, TIME, cause=1)
    shop.mint.verify(node.data)
    shop.clock.advance(999)
    shop.mint.verify(node.data)
    shop.clock.advance(1)
    with pytest.raises(TokenError) as caught:
        shop.mint.verify(node.data)
    assert caught.value.named_code == "token.expired"


async def test_a_revocation_cascades_through_the_cache(shop: Shop) -> None:
    run = await shop.mint.for_run("r1", everything(), cause=1)
    one = await shop.mint.for_node("r1", "a", PIN, TIME, cause=1)
    two = await shop.mint.for_node("r1", "b", PIN, TIME, cause=1)
    shop.mint.verify(one.data)
    before = shop.mint.generation
    await shop.mint.revoke(one.id, "test")
    assert shop.mint.generation == before + 1
    with pytest.raises(TokenError):
        shop.mint.verify(one.data)
    shop.mint.verify(two.data)
    await shop.mint.revoke(run.id[:12], "all of it", actor="operator:1000")
    with pytest.raises(TokenError):
        shop.mint.verify(two.data)
    with pytest.raises(TokenError):
        await shop.mint.for_node("r1", "c", PIN, TIME, cause=1)
    assert shop.journal.events[-1].actor == "operator:1000"
    assert shop.mint.revoked() == {one.id: "test", run.id: "all of it"}


async def test_a_revocation_holds_even_when_it_cannot_be_written(shop: Shop) -> None:
    node = await shop.mint.for_node("r1", "a", PIN, TIME, cause=1)
    shop.journal.broken = True
    with pytest.raises(LedgerWriteError):
        await shop.mint.revoke(node.id, "test")
    with pytest.raises(TokenError):
        shop.mint.verify(node.data)


async def test_revocations_are_known_after_a_restart(shop: Shop) -> None:
    node = await shop.mint.for_node("r1", "a", PIN, TIME, cause=1)
    await shop.mint.revoke(node.id, "test")
    again = Mint(shop.keyring, shop.journal, shop.clock)
    again.restore(shop.journal.events)
    with pytest.raises(TokenError) as caught:
        again.verify(node.data)
    assert caught.value.named_code == "token.revoked"


async def test_a_token_of_before_a_restart_still_verifies(shop: Shop) -> None:
    node = await shop.mint.for_node("r1", "a", PIN, TIME, cause=1)
    again = Mint(shop.keyring, shop.journal, shop.clock)
    assert again.verify(node.data).token_id == node.id


@pytest.mark.parametrize("name", ["", "short", "f" * 128])
async def test_a_token_that_is_not_known_cannot_be_revoked(shop: Shop, name: str) -> None:
    await shop.mint.for_node("r1", "a", PIN, TIME, cause=1)
    with pytest.raises(NotFoundError):
        await shop.mint.revoke(name, "test")


async def test_nothing_is_issued_when_the_ledger_refuses(shop: Shop) -> None:
    shop.journal.broken = True
    with pytest.raises(LedgerWriteError):
        await shop.mint.for_run("r1", TIME, cause=1)


async def test_the_cache_of_verified_tokens_is_bounded(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runloopd.authority.mint._CACHE", 2)
    minted = [await shop.mint.for_node("r1", f"n{n}", PIN, TIME, cause=1) for n in range(5)]
    for token in minted:
        shop.mint.verify(token.data)
    assert len(shop.mint._verified) == 2


async def test_a_check_from_the_cache_asks_no_cryptography(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await shop.mint.for_node("r1", "a", PIN, TIME, cause=1)
    shop.mint.verify(node.data)
    monkeypatch.setattr(tokens, "verify", None)
    assert shop.mint.verify(node.data).node == "a"
