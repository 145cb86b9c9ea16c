"""Vectors from real servers: both wires, what comes back, what it costs, what is never sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from pog.embed import LEXICAL
from runloop.clock import SystemClock
from runloop.config import Kb, Models, Price, Provider
from runloop.errors import RefusedError, UsageError
from runloop.ops import ModelEmbed
from runloopd.broker.embedding import EmbedBroker
from runloopd.broker.indexing import chosen
from runloopd.broker.models import Patience
from runloopd.broker.ports import ModelCallError
from runloopd.broker.providers.http import Http, HttpLimits
from runloopd.broker.secrets import SecretStore
from tests.contract import fake_model_server as fake
from tests.contract.conftest import CANARY, RestlessClock, budget, provider
from tests.contract.fake_model_server import FakeModelServer

TEXTS = ["one", "two"]
VECTORS = [[0.5, -1.0, 0.0], [1.0, 1.0, 1.0]]
KEPT = [[64, -127, 0], [127, 127, 127]]
EmbedMaker = Callable[..., EmbedBroker]


@pytest.fixture
async def embedder(clock: RestlessClock) -> AsyncIterator[EmbedMaker]:
    made: list[EmbedBroker] = []

    def make(*providers: Provider, **settings: Any) -> EmbedBroker:
        made.append(
            EmbedBroker(
                Models(providers={one.name: one for one in providers}, **settings),
                secrets=SecretStore(environ={"FAKE_KEY": CANARY}),
                clock=clock,
                jitter=lambda: 0.5,
                patience=Patience(),
                http=Http(HttpLimits(connect_ms=2_000, idle_ms=5_000, max_bytes=1 << 20)),
            )
        )
        return made[-1]

    yield make
    for one in made:
        await one.close()


def embeds(url: str, kind: str = "openai", **fields: Any) -> Provider:
    return provider(url, kind, **({"embed_model": "embed-1", "model": "fake-1"} | fields))


def openai(vectors: Any = VECTORS, **more: Any) -> fake.Behaviour:
    data = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return fake.as_json({"data": data[::-1], "usage": {"prompt_tokens": 5}} | more)


def ollama(vectors: Any = VECTORS, **more: Any) -> fake.Behaviour:
    return fake.as_json({"embeddings": vectors, "prompt_eval_count": 4} | more)


async def embed(made: EmbedBroker, clock: RestlessClock, **fields: Any) -> Any:
    request = ModelEmbed(**({"texts": TEXTS} | fields))
    return await made.embed(request, budget=budget(clock))


def numbers(answer: Any) -> list[list[int]]:
    return [list(memoryview(vector.numbers).cast("b")) for vector in answer.vectors]


@pytest.mark.requirement("I4.search.1")
async def test_an_openai_compatible_server_embeds(embedder: EmbedMaker, clock: RestlessClock) -> None:
    with FakeModelServer(openai()) as server:
        answer = await embed(embedder(embeds(server.url)), clock)
    assert numbers(answer) == KEPT
    assert (answer.target, answer.input_tokens, answer.estimated) == ("main:embed-1", 5, False)
    (seen,) = server.posts
    assert seen.path == "/v1/embeddings"
    assert seen.headers["Authorization"] == f"Bearer {CANARY}"
    assert seen.body == {"model": "embed-1", "input": TEXTS, "encoding_format": "float"}


@pytest.mark.requirement("I4.search.1")
async def test_ollama_embeds(embedder: EmbedMaker, clock: RestlessClock) -> None:
    with FakeModelServer(ollama()) as server:
        answer = await embed(embedder(embeds(server.url, "ollama", api_key_env=None)), clock)
    assert numbers(answer) == KEPT
    assert (answer.target, answer.cost_micro_usd) == ("main:embed-1", 0)
    (seen,) = server.posts
    assert (seen.path, seen.body["input"]) == ("/api/embed", TEXTS)


async def test_without_a_model_the_lexical_embedder_answers_under_its_own_name(
    embedder: EmbedMaker, clock: RestlessClock
) -> None:
    answer = await embed(embedder(), clock)
    assert (answer.provider, answer.model, answer.cost_micro_usd) == ("lexical", "lexical-1", 0)
    assert answer.vectors == tuple(LEXICAL.embed(TEXTS))


async def test_a_priced_model_costs_what_it_says_within_what_was_reserved(
    embedder: EmbedMaker, clock: RestlessClock
) -> None:
    price = Price(input_micro_usd_per_mtok=1_000_000, version="v1")
    with FakeModelServer(openai()) as server:
        made = embedder(embeds(server.url, price=price))
        bound = await made.estimate(ModelEmbed(texts=TEXTS), lambda target: True)
        answer = await embed(made, clock)
    assert (bound.micro_usd, answer.cost_micro_usd, answer.price_version) == (22, 5, "v1")
    with pytest.raises(RefusedError, match="reserved"):
        await made.embed(ModelEmbed(texts=TEXTS), budget=budget(clock, micro_usd=21))
    assert len(server.posts) == 1


@pytest.mark.parametrize("told", [0, -1, 10**9, None])
async def test_a_count_nobody_can_believe_is_replaced_by_the_bound(
    embedder: EmbedMaker, clock: RestlessClock, told: int | None
) -> None:
    with FakeModelServer(openai(usage={"prompt_tokens": told})) as server:
        answer = await embed(embedder(embeds(server.url)), clock)
    assert (answer.input_tokens, answer.estimated) == (22, True)


BAD: dict[str, Any] = {
    "no json": fake.raw(b"<html>"),
    "too few": openai(VECTORS[:1]),
    "too many": openai([*VECTORS, [1.0, 2.0, 3.0]]),
    "two lengths": openai([[1.0], [1.0, 2.0]]),
    "empty": openai([[], []]),
    "zero": openai([[0.0, 0.0], [1.0, 1.0]]),
    "huge number": fake.raw(
        b'{"data": [{"index": 0, "embedding": [1e999]}, {"index": 1, "embedding": [1]}]}'
    ),
    "twice the same": fake.as_json({"data": [{"index": 0, "embedding": [1.0]}] * 2}),
    "text": fake.as_json({"data": [{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": "AAAA"}]}),
    "too long": openai([[1.0] * 8_193] * 2),
}


@pytest.mark.parametrize("behaviour", BAD.values(), ids=BAD)
async def test_what_is_no_vector_is_refused(
    embedder: EmbedMaker, clock: RestlessClock, behaviour: fake.Behaviour
) -> None:
    with FakeModelServer(behaviour) as server, pytest.raises(ModelCallError) as refused:
        await embed(embedder(embeds(server.url)), clock)
    assert refused.value.named_code == "model.protocol"
    assert len(server.posts) == 1


async def test_a_busy_server_is_asked_again_and_a_refusing_one_is_not(
    embedder: EmbedMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(fake.status(503), openai()) as server:
        assert numbers(await embed(embedder(embeds(server.url)), clock)) == KEPT
    with FakeModelServer(fake.status(400, "too long")) as server:
        with pytest.raises(ModelCallError, match="too long"):
            await embed(embedder(embeds(server.url)), clock)
        assert len(server.posts) == 1


async def test_a_server_that_never_answers_costs_the_deadline() -> None:
    clock = SystemClock()
    with FakeModelServer(fake.stall) as server:
        patient = EmbedBroker(
            Models(providers={"main": embeds(server.url, timeout_ms=300)}),
            secrets=SecretStore(environ={"FAKE_KEY": CANARY}),
            clock=clock,
            jitter=lambda: 0.0,
        )
        try:
            with pytest.raises(ModelCallError):
                await asyncio.wait_for(patient.embed(ModelEmbed(texts=TEXTS), budget=budget(clock)), 15)
        finally:
            await patient.close()


async def test_a_key_in_an_answer_does_not_come_through(embedder: EmbedMaker, clock: RestlessClock) -> None:
    behaviour = fake.status(400, f"bad key {CANARY}")
    with FakeModelServer(behaviour) as server, pytest.raises(ModelCallError) as refused:
        await embed(embedder(embeds(server.url)), clock)
    assert CANARY not in str(refused.value) and "[secret]" in refused.value.message


# --- what is never sent ---------------------------------------------------------------------------

REMOTE = "https://models.example"
PRICED = Price(input_micro_usd_per_mtok=1, version="v")


@pytest.mark.requirement("I4.search.1")
async def test_a_remote_model_is_used_only_when_it_is_named(
    embedder: EmbedMaker, clock: RestlessClock
) -> None:
    made = embedder(embeds(REMOTE, price=PRICED))
    assert made.default() == "lexical:lexical-1"
    assert (await embed(made, clock)).provider == "lexical"
    bound = await made.estimate(ModelEmbed(texts=TEXTS, model="main:*"), lambda target: True)
    assert bound.target == "main:embed-1"


@pytest.mark.requirement("I4.search.1")
async def test_the_index_goes_to_a_remote_model_only_when_the_configuration_says_so(
    embedder: EmbedMaker,
) -> None:
    remote, local = embeds(REMOTE, name="far"), embeds("http://127.0.0.1:9", name="near")
    assert chosen(Kb(), embedder(remote)) is None
    assert chosen(Kb(), embedder(remote, local)) == "near:embed-1"
    assert chosen(Kb(embedder="lexical"), embedder(remote, local)) is None
    assert chosen(Kb(embedder="far"), embedder(remote, local)) == "far:embed-1"
    with pytest.raises(UsageError, match="has no embedding model"):
        chosen(Kb(embedder="far"), embedder(local))


@pytest.mark.requirement("I6.policy.1")
async def test_a_server_here_that_is_the_door_to_one_elsewhere_is_not_local(embedder: EmbedMaker) -> None:
    door = embeds("http://127.0.0.1:9", kind="ollama", embed_model="big-cloud", name="door")
    assert chosen(Kb(), embedder(door)) is None
    with pytest.raises(UsageError, match=r"models\.privacy"):
        chosen(Kb(embedder="door"), embedder(door, privacy="local"))


@pytest.mark.requirement("I6.policy.1")
@pytest.mark.parametrize("privacy", ["local", "hybrid"])
async def test_where_privacy_counts_no_text_leaves_to_become_a_vector(
    embedder: EmbedMaker, clock: RestlessClock, privacy: str
) -> None:
    with FakeModelServer(openai()) as server:
        far = embeds(server.url, price=PRICED, privacy="cloud", name="far")
        made = embedder(far, privacy=privacy)
        with pytest.raises(RefusedError, match="privacy"):
            await embed(made, clock, model="far")
        with pytest.raises(UsageError, match=r"models\.privacy"):
            chosen(Kb(embedder="far"), made)
        assert (await embed(made, clock)).provider == "lexical"
        assert server.posts == []


@pytest.mark.requirement("I6.policy.5")
async def test_a_replay_turns_nothing_into_vectors_elsewhere(
    embedder: EmbedMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(openai()) as server:
        made = embedder(embeds(server.url), mode="replay", cassette="none")
        assert (await embed(made, clock)).provider == "lexical"
        assert chosen(Kb(embedder="main"), made) is None
        with pytest.raises(UsageError):
            await embed(made, clock, model="main")
        assert server.posts == []


async def test_policy_and_price_come_before_the_first_byte(
    embedder: EmbedMaker, clock: RestlessClock
) -> None:
    with FakeModelServer(openai()) as server:
        made = embedder(embeds(server.url))
        with pytest.raises(RefusedError, match="policy"):
            await made.embed(ModelEmbed(texts=TEXTS), budget=budget(clock, permits=lambda target: False))
        assert server.posts == []
    unpriced = embedder(embeds(REMOTE))
    with pytest.raises(RefusedError, match="price"):
        await unpriced.estimate(ModelEmbed(texts=TEXTS, model="main"), lambda target: True)
    with pytest.raises(UsageError, match="no embedding model matches"):
        await unpriced.estimate(ModelEmbed(texts=TEXTS, model="else"), lambda target: True)


def test_a_kind_that_serves_no_embeddings_is_refused_at_the_start(embedder: EmbedMaker) -> None:
    with pytest.raises(UsageError, match="serves no embeddings"):
        embedder(embeds("https://a.example", "anthropic"))
    with pytest.raises(UsageError, match="plain http"):
        embedder(embeds("http://models.example"))
