"""Search in the daemon: which index answers, what is recorded of it, and vectors for agents."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from pog.embed import Vector, quantised
from pog.vectors import Passages
from runloop.errors import RefusedError
from runloop.events import DocumentImported
from runloop.ops import ModelEmbed
from runloopd.broker.embedding import EmbedAnswer
from runloopd.broker.indexing import IndexEmbedder
from runloopd.broker.ports import Budget, ModelCallError, Reservation

from .world import HEX, World, until, within

TEXTS = {"d1": "automobile", "d2": "banana"}


class Meaning:
    """A model that knows which words mean the same. Implements ``EmbedPort``."""

    target = "near:meaning-1"

    def __init__(self, micro_usd: int = 0) -> None:
        self.micro_usd = micro_usd
        self.asked: list[list[str]] = []
        self.fails: Exception | None = None

    async def estimate(self, request: ModelEmbed, permits: Any) -> Reservation:
        assert permits(self.target)
        return Reservation(
            provider="near", model="meaning-1", micro_usd=self.micro_usd, input_tokens=100,
            output_tokens=0, price_version="v",
        )  # fmt: skip

    async def embed(self, request: ModelEmbed, *, budget: Budget) -> EmbedAnswer:
        self.asked.append(list(request.texts))
        if self.fails is not None:
            raise self.fails
        return EmbedAnswer(
            vectors=tuple(self._one(text) for text in request.texts), provider="near", model="meaning-1",
            input_tokens=3, estimated=False, cost_micro_usd=self.micro_usd, price_version="v",
        )  # fmt: skip

    def _one(self, text: str) -> Vector:
        car = any(word in text for word in ("automobile", "car"))
        return quantised([1.0 if car else -1.0, 0.5, 0.5, 0.25])


@pytest.fixture
async def stocked(world: World) -> World:
    await world.state(
        *(
            DocumentImported(document=name, type="note", title=text, text=text, content_digest=HEX)
            for name, text in TEXTS.items()
        )
    )
    return world


async def followed(world: World, model: Meaning, limit: int = 0) -> asyncio.Task[None]:
    """The finder in the background, until its index is whole."""
    finder = world.knowledge.finder
    finder.use(
        IndexEmbedder(
            model, model.target, world.journal, world.clock,
            spent=world.knowledge.spent_on_index, limit_micro_usd=limit,
        )
    )  # fmt: skip
    task = asyncio.ensure_future(finder.follow())
    world.tasks.append(task)
    return task


async def search(world: World, query: str) -> list[dict[str, Any]]:
    return await within(world.knowledge.search(query, 8, [], raw=True))


async def test_without_a_model_the_lexical_index_answers_and_says_so(stocked: World) -> None:
    (hit,) = await search(stocked, "autmobile")
    assert (hit["id"], hit["found_by"]) == ("d1", {"lexical-1": 1})
    assert await search(stocked, "car") == []


@pytest.mark.requirement("I4.search.1")
async def test_a_model_answers_once_its_index_holds_everything(stocked: World) -> None:
    model = Meaning()
    await followed(stocked, model)
    await until(lambda: stocked.knowledge.finder._whole)
    hits = await search(stocked, "car")
    assert (hits[0]["id"], hits[0]["found_by"]) == ("d1", {"near:meaning-1": 1})
    # What was sent where is a fact, and why tells of it.
    (called,) = stocked.events("model.called")
    assert (called.payload.provider, called.payload.finish, called.run) == ("near", "embedded", None)
    ids = {event.id for event in stocked.events("document.imported")}
    assert set(called.provenance.causes) == ids
    found = await stocked.knowledge.why(str(min(ids)), raw=True, impact=True)
    assert "turned text into vectors" in found["hops"][-1]["summary"]


async def test_what_is_learnt_later_is_indexed_too(stocked: World) -> None:
    await followed(stocked, Meaning())
    await until(lambda: stocked.knowledge.finder._whole)
    await stocked.state(
        DocumentImported(document="d3", type="note", title="old car", text="old car", content_digest=HEX)
    )
    await until(lambda: len(stocked.events("model.called")) == 2)
    await until(lambda: stocked.knowledge.finder._model.behind() == 0)  # type: ignore[union-attr]
    assert {hit["id"] for hit in await search(stocked, "automobiles car")} >= {"d1", "d3"}


async def test_when_the_model_fails_the_lexical_index_answers(stocked: World) -> None:
    model = Meaning()
    await followed(stocked, model)
    await until(lambda: stocked.knowledge.finder._whole)
    model.fails = ModelCallError("gone", code="model.timeout")
    (hit,) = await search(stocked, "autmobile")
    assert hit["found_by"] == {"lexical-1": 1}


async def test_a_model_that_cannot_be_paid_indexes_nothing(stocked: World) -> None:
    model = Meaning(micro_usd=10)
    embedder = IndexEmbedder(
        model, model.target, stocked.journal, stocked.clock,
        spent=stocked.knowledge.spent_on_index, limit_micro_usd=15,
    )  # fmt: skip
    batch = [Passages(stocked.events("document.imported")[0].id, "document:d1", "note", ("automobile",))]
    assert await embedder.passages(batch)
    assert await stocked.knowledge.spent_on_index() == 10
    with pytest.raises(RefusedError, match="5 are left"):
        await embedder.passages(batch)
    assert len(model.asked) == 1


async def test_a_failure_that_may_have_cost_is_booked(stocked: World) -> None:
    model = Meaning(micro_usd=10)
    model.fails = ModelCallError("cut", code="model.cut", cost_micro_usd=None)
    embedder = IndexEmbedder(
        model, model.target, stocked.journal, stocked.clock,
        spent=stocked.knowledge.spent_on_index, limit_micro_usd=15,
    )  # fmt: skip
    with pytest.raises(ModelCallError):
        await embedder.question("car")
    assert await stocked.knowledge.spent_on_index() == 10


async def test_a_broken_index_leaves_the_words(stocked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise OSError("no space")

    monkeypatch.setattr("runloopd.broker.finder.VectorIndex.open", broken)
    (hit,) = await search(stocked, "automobile")
    assert hit["found_by"] == {"words": 1}


async def test_a_question_without_end_is_cut_before_anybody_makes_a_vector_of_it(stocked: World) -> None:
    model = Meaning()
    await followed(stocked, model)
    await until(lambda: stocked.knowledge.finder._whole)
    assert await search(stocked, "automobile " + "x" * 3_000_000)
    asked = [text for texts in model.asked for text in texts if text.startswith("automobile x")]
    assert [len(text) for text in asked] == [4_096]


async def test_the_index_follows_without_being_asked(stocked: World) -> None:
    task = asyncio.ensure_future(stocked.knowledge.follow())
    try:
        await until(lambda: (i := stocked.knowledge.finder._lexical) is not None and i.size == 2)
        trace = await stocked.knowledge.trace()
        await until(lambda: trace.cursor >= stocked.journal.head_id)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


# --- model.embed ----------------------------------------------------------------------------------


async def test_an_agent_gets_vectors_and_the_call_is_recorded(world: World) -> None:
    caller = await world.caller()
    answer = await world.call(caller, "model.embed", {"texts": ["one", "two"]})
    assert answer.ok
    value = answer.value
    assert (value["embedder"], value["dimensions"], len(value["vectors"])) == ("lexical:lexical-1", 256, 2)
    assert all(-127 <= number <= 127 for vector in value["vectors"] for number in vector)
    assert world.kinds() == ["hostcall.admitted", "model.called", "hostcall.delivered"]
    (called,) = world.payloads("model.called")
    assert (called.provider, called.model, called.finish, called.generated) == (
        "lexical", "lexical-1", "embedded", False
    )  # fmt: skip


@pytest.mark.parametrize(
    "args",
    [
        {"texts": []},
        {"texts": [" "]},
        {"texts": ["x"] * 65},
        {"texts": ["x" * 262_145]},
        {"texts": ["x"], "model": ""},
        {"texts": "x"},
    ],
)
async def test_what_cannot_be_embedded_is_refused_before_it_is_admitted(
    world: World, args: dict[str, Any]
) -> None:
    caller = await world.caller()
    answer = await world.call(caller, "model.embed", args)
    assert answer.value["code"] == "op.args"
    assert "hostcall.admitted" not in world.kinds()


async def test_only_a_model_that_policy_permits_embeds(world: World) -> None:
    caller = await world.caller('model = ["rules:*"]')
    answer = await world.call(caller, "model.embed", {"texts": ["x"]})
    assert answer.value["code"] == "cap.denied"
    nobody = await world.caller("time = true", node="other")
    assert (await world.call(nobody, "model.embed", {"texts": ["x"]})).value["code"] == "cap.denied"


async def test_a_priced_model_is_within_the_budget_of_the_run(world: World) -> None:
    model = Meaning(micro_usd=10**9)
    world.gate._handlers["model.embed"].__self__._embeddings = model  # type: ignore[attr-defined]
    caller = await world.caller()
    answer = await world.call(caller, "model.embed", {"texts": ["x"]})
    assert not answer.ok and model.asked == []
