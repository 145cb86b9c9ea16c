"""Which model is asked and why, what is kept of its answers, and answering from a cassette: real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runloop.config import Price
from runloop.errors import RefusedError, UsageError
from runloop.ops import ModelComplete, ModelMessage, ModelTool
from runloopd.broker.models import ModelBroker
from runloopd.broker.ports import Asker, ModelAnswer, ModelCallError
from runloopd.broker.routing.kept import key_of
from runloopd.broker.routing.price_list import listed, price_list
from runloopd.broker.routing.route import Route
from runloopd.broker.routing.told import read, written
from tests.contract import fake_model_server as fake
from tests.contract.conftest import PRICE, BrokerMaker, RestlessClock, ask, budget, provider
from tests.contract.fake_model_server import FakeModelServer

CHEAP = Price(input_micro_usd_per_mtok=1_000_000, output_micro_usd_per_mtok=1_000_000, version="cheap-1")
PUBLIC = Asker(agent="writer", bundle="b" * 64, private=False)
PRIVATE = Asker(agent="writer", bundle="b" * 64, private=True)
TEMPLATE: dict[str, Any] = {"template": "Hello {{name}}", "facts": {"name": "Jo"}}


@pytest.fixture
def here() -> Iterator[FakeModelServer]:
    with FakeModelServer(*[fake.openai("here")] * 20) as server:
        yield server


@pytest.fixture
def away() -> Iterator[FakeModelServer]:
    with FakeModelServer(*[fake.openai("away")] * 20) as server:
        yield server


def local(server: FakeModelServer, **fields: Any) -> Any:
    return provider(server.url, name="near", **fields)


def cloud(server: FakeModelServer, **fields: Any) -> Any:
    return provider(server.url, **({"name": "far", "price": PRICE, "privacy": "cloud"} | fields))


async def complete(
    made: ModelBroker,
    clock: RestlessClock,
    request: ModelComplete | None = None,
    *,
    asker: Asker = PUBLIC,
    key: str = "k" * 64,
    on_delta: Any = None,
    **limits: Any,
) -> ModelAnswer:
    return await made.complete(
        request or ask(),
        budget=budget(clock, **limits),
        on_delta=on_delta,
        idempotency_key=key,
        asker=asker,
    )


# --- privacy --------------------------------------------------------------------------------------


@pytest.mark.requirement("I6.policy.1")
async def test_local_sends_nothing_away_whatever_is_asked_for(
    broker: BrokerMaker, clock: RestlessClock, here: FakeModelServer, away: FakeModelServer
) -> None:
    made = broker(cloud(away), local(here), privacy="local")
    assert (await complete(made, clock)).provider == "near"
    with pytest.raises(RefusedError) as caught:
        await complete(made, clock, ask(model="far"))
    assert caught.value.named_code == "model.private" and "models.privacy is local" in caught.value.message
    assert not away.seen


@pytest.mark.requirement("I6.policy.1")
async def test_hybrid_asks_here_first_and_away_only_for_what_is_not_private(
    broker: BrokerMaker, clock: RestlessClock, away: FakeModelServer
) -> None:
    with FakeModelServer(fake.openai("here"), *[fake.status(500)] * 9) as broken:
        made = broker(cloud(away), local(broken), privacy="hybrid")
        first = await complete(made, clock)
        assert first.provider == "near" and "on this machine comes first" in first.route
        second = await complete(made, clock)
        assert (second.provider, second.text) == ("far", "away")
        assert "after near:fake-1 (model.overloaded)" in second.route
        third = await complete(made, clock, ask(**TEMPLATE), asker=PRIVATE)
    assert third.provider == "rules" and "not far:fake-1: models.privacy is hybrid" in third.route
    assert len(away.posts) == 1


@pytest.mark.requirement("I6.policy.1")
async def test_a_request_nobody_vouches_for_is_private(
    broker: BrokerMaker, clock: RestlessClock, away: FakeModelServer
) -> None:
    made = broker(cloud(away), privacy="hybrid")
    with pytest.raises(RefusedError) as caught:
        await made.complete(ask(model="far"), budget=budget(clock), on_delta=None, idempotency_key="k" * 64)
    assert caught.value.named_code == "model.private" and not away.seen


async def test_a_server_on_this_machine_that_leads_away_is_not_free_and_not_local(
    broker: BrokerMaker, clock: RestlessClock, away: FakeModelServer
) -> None:
    made = broker(cloud(away, price=None), privacy="cloud")
    with pytest.raises(RefusedError) as caught:
        await made.estimate(ask(), lambda target: True)
    assert caught.value.named_code == "model.unpriced" and not away.seen


async def test_a_grant_is_never_widened_by_privacy_or_preference(
    broker: BrokerMaker, clock: RestlessClock, here: FakeModelServer, away: FakeModelServer
) -> None:
    for settings in ({"prefer": "quality"}, {"privacy": "hybrid"}, {"prefer": "cost", "privacy": "local"}):
        made = broker(local(here), cloud(away, quality=99), **settings)
        answer = await complete(made, clock, permits=lambda target: target.startswith("near"))
        assert answer.provider == "near", settings
    assert not away.seen


# --- preference -----------------------------------------------------------------------------------


@pytest.mark.requirement("I6.policy.1")
async def test_the_cheapest_is_asked_first_and_the_others_are_named_with_their_cost(
    broker: BrokerMaker, clock: RestlessClock, here: FakeModelServer, away: FakeModelServer
) -> None:
    made = broker(cloud(away), cloud(here, name="near", model="fake-2", price=CHEAP), prefer="cost")
    reserved = await made.estimate(ask(), lambda target: True, asker=PUBLIC)
    answer = await complete(made, clock)
    dear = reserved.input_tokens * 3 + 100 * 15
    cheap = reserved.input_tokens + 100
    assert answer.route == (
        f"near:fake-2: the cheapest of 3; at most {cheap} micro-dollars; others: far:fake-1 (at most {dear}"
        " micro-dollars), rules:template-1 (free)"
    )
    assert reserved.micro_usd == dear, "what it may fall back to is reserved for"
    assert reserved.route == answer.route


@pytest.mark.requirement("I6.policy.1")
async def test_the_best_in_the_operators_word_is_asked_first(
    broker: BrokerMaker, clock: RestlessClock, here: FakeModelServer, away: FakeModelServer
) -> None:
    made = broker(local(here, quality=40), cloud(away, quality=90), prefer="quality")
    answer = await complete(made, clock)
    assert answer.provider == "far" and "the best of 3, 90 of 100" in answer.route


@pytest.mark.requirement("I6.policy.1")
async def test_the_quickest_is_asked_once_everything_was_measured(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    def after(ms: int, text: str) -> Any:
        def behave(x: fake.Exchange) -> None:
            clock.advance(ms)
            fake.openai(text)(x)

        return behave

    with (
        FakeModelServer(*[after(900, "slow")] * 9) as slow,
        FakeModelServer(*[after(50, "quick")] * 9) as quick,
    ):
        made = broker(local(slow), provider(quick.url, name="other"), prefer="latency")
        told = [await complete(made, clock) for _ in range(4)]
    assert [answer.provider for answer in told] == ["near", "other", "other", "other"]
    assert "not measured yet" in told[0].route and "the quickest of 3, 50 ms" in told[2].route


async def test_a_server_that_refuses_quickly_is_not_the_quickest(
    broker: BrokerMaker, clock: RestlessClock, here: FakeModelServer
) -> None:
    with FakeModelServer(*[fake.status(503)] * 30) as dead:
        made = broker(provider(dead.url, name="dead"), local(here), prefer="latency")
        told = [await complete(made, clock) for _ in range(3)]
    assert [answer.provider for answer in told] == ["near"] * 3
    assert told[0].fallbacks and not told[2].fallbacks


@pytest.mark.requirement("K6")
async def test_what_the_first_may_have_billed_is_told_also_when_the_second_has_no_key(
    broker: BrokerMaker, clock: RestlessClock, away: FakeModelServer
) -> None:
    with FakeModelServer(fake.openai_cut("Y")) as cut:
        keyless = cloud(away, name="other", quality=1, api_key_env="NO_SUCH_KEY")
        made = broker(cloud(cut, quality=9), keyless, prefer="quality")
        with pytest.raises(ModelCallError) as caught:
            await complete(made, clock)
    assert caught.value.cost_micro_usd is None and "NO_SUCH_KEY" in caught.value.message
    assert not away.posts


# --- prices ---------------------------------------------------------------------------------------


@pytest.mark.requirement("I6.policy.2")
async def test_a_hosted_model_is_priced_by_the_list_and_its_version_goes_with_the_call(
    broker: BrokerMaker,
) -> None:
    made = broker(provider("https://api.anthropic.com", "anthropic", model="claude-haiku-4-5"))
    reserved = await made.estimate(ask(), lambda target: True)
    assert reserved.micro_usd == reserved.input_tokens * 1 + 100 * 5
    assert reserved.price_version == price_list().version
    assert reserved.price_version.startswith("2026-")


@pytest.mark.requirement("I6.policy.2")
@pytest.mark.parametrize(
    ("kind", "url", "model"),
    [
        ("openai", "https://models.example.org/v1", "gpt-4o"),
        ("openai", "https://api.openai.com.example.org/v1", "gpt-4o"),
        ("openai", "https://api.openai.com:8443/v1", "gpt-4o"),
        ("openai", "http://api.openai.com/v1", "gpt-4o"),
        ("openai", "https://api.anthropic.com", "claude-haiku-4-5"),
        ("openai", "https://api.openai.com/v1", "gpt-4o-but-dearer"),
        ("openai", "https://api.openai.com/v1", "gpt-99"),
        ("openai", "https://api.openai.com/v1", None),
        ("ollama", "https://api.openai.com/v1", "gpt-4o"),
    ],
)
def test_what_is_not_on_the_list_has_no_price(kind: str, url: str, model: str | None) -> None:
    assert listed(kind, url, model) is None


def test_every_listed_price_is_a_whole_number_above_nothing() -> None:
    rows = [row for models in price_list().prices.values() for row in models.values()]
    assert len(rows) > 50
    for row in rows:
        assert type(row["input"]) is int and type(row["output"]) is int
        assert row["input"] > 0 and row["output"] >= 0 and (row.get("equals") or row.get("starts"))


async def test_the_users_own_price_comes_before_the_listed_one(broker: BrokerMaker) -> None:
    made = broker(provider("https://api.anthropic.com", "anthropic", model="claude-haiku-4-5", price=CHEAP))
    assert (await made.estimate(ask(), lambda target: True)).price_version == "cheap-1"


# --- kept answers ---------------------------------------------------------------------------------


@pytest.fixture
def kept(broker: BrokerMaker, away: FakeModelServer, tmp_path: Path) -> ModelBroker:
    return broker(cloud(away), cache=True, home=tmp_path)


@pytest.mark.requirement("I6.policy.4")
async def test_an_equal_request_of_the_same_agent_is_answered_once_and_paid_for_once(
    kept: ModelBroker, clock: RestlessClock, away: FakeModelServer
) -> None:
    first, second = await complete(kept, clock), await complete(kept, clock)
    assert (first.source, second.source) == ("asked", "cache")
    assert first.text == second.text and len(away.posts) == 1
    assert (second.cost_micro_usd, second.input_tokens) == (0, 0)
    assert second.saved_micro_usd == first.cost_micro_usd > 0
    assert second.price_version == first.price_version
    assert f"from the cache, saved {first.cost_micro_usd}" in second.route


@pytest.mark.requirement("I6.policy.4")
@pytest.mark.parametrize(
    ("request_of", "asker"),
    [
        ({}, Asker(agent="reader", bundle="b" * 64, private=False)),
        ({}, Asker(agent="writer", bundle="c" * 64, private=False)),
        ({}, PRIVATE),
        ({"temperature": 0.1}, PUBLIC),
        ({"max_tokens": 99}, PUBLIC),
        ({"facts": {"a": 1}}, PUBLIC),
        ({"tools": [ModelTool(name="look")]}, PUBLIC),
        ({"text": "Say hello!"}, PUBLIC),
    ],
    ids=["agent", "bundle", "scope", "temperature", "length", "facts", "tools", "text"],
)
async def test_nothing_else_is_answered_from_what_was_kept(
    kept: ModelBroker,
    clock: RestlessClock,
    away: FakeModelServer,
    request_of: dict[str, Any],
    asker: Asker,
) -> None:
    await complete(kept, clock)
    for _ in range(2 if "temperature" in request_of or "tools" in request_of else 1):
        assert (await complete(kept, clock, ask(**request_of), asker=asker)).source == "asked"
    assert len(away.posts) >= 2


@pytest.mark.requirement("I6.policy.4")
@pytest.mark.parametrize("damage", ["cut", "flipped", "other", "empty", "folder"])
async def test_a_damaged_answer_is_a_miss(
    kept: ModelBroker, clock: RestlessClock, away: FakeModelServer, tmp_path: Path, damage: str
) -> None:
    await complete(kept, clock)
    (path,) = (tmp_path / "cache" / "answers").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    data = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "other":
        await complete(kept, clock, ask("Another."))
        (other,) = set((tmp_path / "cache" / "answers").iterdir()) - {path}
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(
            {"cut": data[:-9], "flipped": data.replace(b'"away"', b'"evil"'), "empty": b""}[damage]
        )
    asked = len(away.posts)
    answer = await complete(kept, clock)
    assert (answer.source, answer.text, len(away.posts)) == ("asked", "away", asked + 1)


async def test_a_kept_answer_holds_for_its_time_and_no_longer(
    broker: BrokerMaker, clock: RestlessClock, away: FakeModelServer, tmp_path: Path
) -> None:
    made = broker(cloud(away), cache=True, cache_ttl_ms=1_000, home=tmp_path)
    await complete(made, clock)
    clock.advance(999)
    assert (await complete(made, clock)).source == "cache"
    clock.advance(1)
    assert (await complete(made, clock)).source == "asked"


async def test_no_more_is_kept_than_may_be(
    broker: BrokerMaker, clock: RestlessClock, away: FakeModelServer, tmp_path: Path
) -> None:
    made = broker(cloud(away), cache=True, cache_bytes=0, home=tmp_path)
    await complete(made, clock)
    assert (await complete(made, clock)).source == "asked"


MADE: dict[str, Any] = {
    "kind": "openai",
    "provider": None,
    "price": PRICE,
    "local": False,
    "timeout_ms": 1,
}
_WORDS = st.text(alphabet='ab\x00"\\,:}{é', max_size=6)


@pytest.mark.requirement("L3", "I6.policy.4")
@given(whole=_WORDS, cut=st.integers(0, 6), other=st.integers(0, 6))
def test_no_byte_moved_from_one_field_to_the_next_finds_the_same_answer(
    whole: str, cut: int, other: int
) -> None:
    def key(at: int) -> tuple[tuple[str, str], list[str | None]]:
        left, right = whole[:at], whole[at:]
        route = Route(name=left or "n", model=right, **MADE)
        plain = Route(name="n", model="m", **MADE)
        said = [ModelMessage(role="user", content=left), ModelMessage(role="user", content=right)]
        base = ModelComplete(messages=[ModelMessage(role="user", content="x")])
        asker = Asker(agent="a" + left, bundle=right, private=False)
        return (left, right), [
            key_of(ModelComplete(messages=said), plain, PUBLIC),
            key_of(base, plain, asker),
            key_of(base, route, PUBLIC) if left else None,
        ]

    one, keys = key(cut)
    two, others = key(other)
    if one != two:
        assert all(a is None or b is None or a != b for a, b in zip(keys, others, strict=True))
    else:
        assert keys == others


# --- cassettes ------------------------------------------------------------------------------------


@pytest.mark.requirement("I6.policy.5")
async def test_what_was_recorded_is_told_again_without_a_server_and_without_money(
    broker: BrokerMaker, clock: RestlessClock, tmp_path: Path
) -> None:
    shown: list[str] = []
    with FakeModelServer(fake.openai_stream("He", "llo.")) as server:
        live = broker(cloud(server), mode="record", cassette="told.jsonl", home=tmp_path)
        recorded = await complete(live, clock, ask(stream=True), on_delta=shown.append)
    assert (tmp_path / "told.jsonl").stat().st_mode & 0o777 == 0o600
    again = broker(mode="replay", cassette="told.jsonl", home=tmp_path)
    reserved = await again.estimate(ask(stream=True), lambda target: True)
    assert (reserved.micro_usd, reserved.target, reserved.price_version) == (0, "far:fake-1", "2026-11")
    told: list[str] = []
    answer = await complete(again, clock, ask(stream=True), on_delta=told.append)
    assert told == shown == list(answer.parts) == ["He", "llo."]
    assert (answer.source, answer.cost_micro_usd) == ("cassette", 0)
    assert answer.saved_micro_usd == recorded.cost_micro_usd > 0
    assert (answer.input_tokens, answer.output_tokens) == (recorded.input_tokens, recorded.output_tokens)
    assert [route.target for route in await again.routes()] == ["far:fake-1"]


@pytest.mark.requirement("I6.policy.5")
async def test_a_request_that_is_not_on_the_cassette_is_refused_and_never_asked(
    broker: BrokerMaker, clock: RestlessClock, here: FakeModelServer, tmp_path: Path
) -> None:
    live = broker(local(here), mode="record", cassette="told.jsonl", home=tmp_path)
    await complete(live, clock)
    again = broker(local(here), mode="replay", cassette="told.jsonl", home=tmp_path)
    for request in (ask("Something else."), ask(max_tokens=99), ask(**TEMPLATE)):
        with pytest.raises(RefusedError) as caught:
            await complete(again, clock, request)
        assert caught.value.named_code == "model.not_on_cassette"
        with pytest.raises(RefusedError):
            await again.estimate(request, lambda target: True)
    with pytest.raises(RefusedError) as caught:
        await complete(again, clock, permits=lambda target: False)
    assert caught.value.named_code == "cap.denied"
    assert len(here.posts) == 1


@pytest.mark.requirement("I6.policy.5")
async def test_an_equal_request_gets_its_answers_in_order_and_a_repeated_call_the_same(
    broker: BrokerMaker, clock: RestlessClock, tmp_path: Path
) -> None:
    with FakeModelServer(fake.openai("one"), fake.openai("two")) as server:
        live = broker(local(server), mode="record", cassette="told.jsonl", home=tmp_path)
        for _ in range(2):
            await complete(live, clock)
    again = broker(mode="replay", cassette="told.jsonl", home=tmp_path)
    told = [(await complete(again, clock, key=key)).text for key in ("a", "a", "b", "b", "c")]
    assert told == ["one", "one", "two", "two", "one"]


@pytest.mark.requirement("I6.policy.5", "K6")
async def test_an_answer_that_cannot_be_recorded_fails_with_what_it_cost(
    broker: BrokerMaker, clock: RestlessClock, away: FakeModelServer, tmp_path: Path
) -> None:
    made = broker(cloud(away), mode="record", cassette="told.jsonl", home=tmp_path)
    (tmp_path / "told.jsonl").mkdir()
    with pytest.raises(ModelCallError) as caught:
        await complete(made, clock)
    assert (caught.value.named_code, caught.value.cost_micro_usd) == ("model.cassette", 11 * 3 + 7 * 15)


async def test_pieces_come_as_far_apart_as_they_came(
    broker: BrokerMaker, clock: RestlessClock, tmp_path: Path
) -> None:
    with FakeModelServer(fake.openai_stream("He", "llo.")) as server:
        live = broker(local(server), mode="record", cassette="told.jsonl", home=tmp_path)
        await complete(live, clock, ask(stream=True), on_delta=lambda text: clock.advance(70))
    again = broker(mode="replay", cassette="told.jsonl", cassette_pace="recorded", home=tmp_path)
    clock.slept_ms.clear()
    await complete(again, clock, ask(stream=True), on_delta=lambda text: None)
    assert sum(max(0, ms) for ms in clock.slept_ms) == 70


@pytest.mark.parametrize("damage", ["torn", "changed", "request", "swapped", "no", "absent"])
async def test_a_file_that_is_no_cassette_is_refused_at_the_start(
    broker: BrokerMaker, clock: RestlessClock, here: FakeModelServer, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "told.jsonl"
    live = broker(local(here), mode="record", cassette="told.jsonl", home=tmp_path)
    await complete(live, clock)
    line = path.read_bytes()
    said = json.loads(line)
    match damage:
        case "torn":
            path.write_bytes(line[:-1])
        case "changed":
            path.write_bytes(line.replace(b'"here"', b'"fake"'))
        case "request":
            said["request"]["max_tokens"] = 1
            path.write_text(json.dumps(said) + "\n")
        case "swapped":  # whole in itself, for another request than the one it was given to
            told, beside = read(line)
            beside["request"]["max_tokens"] = 1
            path.write_bytes(written(told, **beside) + b"\n")
        case "no":
            path.write_text("hello\n")
        case "absent":
            path.unlink()
    with pytest.raises(UsageError) as caught:
        broker(mode="replay", cassette="told.jsonl", home=tmp_path)
    assert caught.value.named_code == "model.cassette" and caught.value.hint
