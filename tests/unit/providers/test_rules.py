"""The offline provider, and the schema subset it fills."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runloop.errors import UsageError
from runloop.ops import ModelComplete, ModelMessage
from runloopd.broker.ports import ModelCallError
from runloopd.broker.providers import rules as rules_module
from runloopd.broker.providers.answer_schema import check, misfit, shape
from runloopd.broker.providers.completion import Completion
from runloopd.broker.providers.rules import RULES_MODEL, RulesProvider


async def rules(on_delta: Any = None, said: str = "Please answer.", **fields: Any) -> Completion:
    request = ModelComplete(messages=[ModelMessage(role="user", content=said)], **fields)
    return await RulesProvider().complete(
        request, model="", timeout_s=1, on_delta=on_delta, idempotency_key="k"
    )


async def test_the_same_request_gives_the_same_answer_and_streams_it_in_lines() -> None:
    deltas: list[str] = []
    fields = {"template": "Dear {{name}},\n\nhello.\n", "facts": {"name": "Jo"}}
    streamed = await rules(deltas.append, stream=True, **fields)
    at_once: list[str] = []
    whole = await rules(at_once.append, **fields)
    assert streamed.text == whole.text == "Dear Jo,\n\nhello.\n"
    assert tuple(deltas) == streamed.parts == ("Dear Jo,\n", "\n", "hello.\n")
    assert at_once == [whole.text], "nobody asked for lines"
    assert whole.parts == () and whole.model == RULES_MODEL and whole.finish == "stop"


async def test_an_open_question_is_refused_plainly_and_for_good() -> None:
    with pytest.raises(ModelCallError) as caught:
        await rules()
    assert caught.value.named_code == "model.none" and not caught.value.retryable
    assert "no model available" in caught.value.message and caught.value.hint


async def test_a_missing_fact_is_named() -> None:
    with pytest.raises(ModelCallError, match="'name' is not there") as caught:
        await rules(template="{{name}}")
    assert caught.value.named_code == "model.template" and caught.value.cost_micro_usd == 0


async def test_nobody_waits_while_a_template_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    filling, others_ran = threading.Event(), threading.Event()

    def render(template: str, facts: dict[str, Any]) -> str:
        filling.set()
        return "done" if others_ran.wait(10) else "the loop stood still"

    monkeypatch.setattr(rules_module, "render", render)
    answer = asyncio.create_task(rules(template="x"))
    while not filling.is_set():
        await asyncio.sleep(0)
    others_ran.set()
    assert (await answer).text == "done"


async def test_an_answer_longer_than_asked_for_is_cut_and_says_so() -> None:
    answer = await rules(template="ä" * 100, max_tokens=10)
    assert answer.finish == "length" and answer.text == "ä" * 20
    assert answer.usage is not None and answer.usage.output_tokens == 10


SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "count": {"type": "integer", "minimum": 0},
        "tone": {"enum": ["formal", "friendly"]},
        "kind": {"const": "mail"},
        "note": {"type": "string"},
        "who": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
    "required": ["title", "count", "tone", "kind", "who"],
    "additionalProperties": False,
}


async def test_a_schema_is_filled_from_facts_of_the_same_names() -> None:
    answer = await rules(
        said="A friendly one, please.",
        json_schema=SCHEMA,
        facts={"title": "Q4", "count": 3, "who": {"name": "Jo"}, "extra": 1},
    )
    assert json.loads(answer.text) == {
        "title": "Q4",
        "count": 3,
        "tone": "friendly",
        "kind": "mail",
        "who": {"name": "Jo"},
    }


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({}, "$.title"),
        ({"title": "Q4", "count": -1, "tone": "formal", "who": {"name": "Jo"}}, "out of bounds"),
        ({"title": "Q4", "count": "3", "tone": "formal", "who": {"name": "Jo"}}, "must be of type integer"),
        ({"title": "Q4", "count": 3, "who": {"name": "Jo"}}, "$.tone"),
        ({"title": "Q4", "count": 3, "tone": "rude", "who": {"name": "Jo"}}, "must be one of"),
        ({"title": "Q4", "count": 3, "tone": "formal", "who": "Jo"}, "must be of type object"),
        ({"title": "Q4", "count": 3, "tone": "formal"}, "$.who.name"),
    ],
)
async def test_nothing_is_invented_for_a_schema(facts: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelCallError) as caught:
        await rules(json_schema=SCHEMA, facts=facts)
    assert why in caught.value.message and caught.value.named_code == "model.facts"


async def test_a_template_may_write_the_json_itself() -> None:
    schema = {"type": "object", "properties": {"t": {"type": "string"}}, "required": ["t"]}
    answer = await rules(template='{"t": {{x | json}}}', json_schema=schema, facts={"x": 'a "b"'})
    assert json.loads(answer.text) == {"t": 'a "b"'}
    for template in ('{"t": {{x}}}', '{"u": {{x | json}}}'):
        with pytest.raises(ModelCallError) as caught:
            await rules(template=template, json_schema=schema, facts={"x": 'a "b"'})
        assert caught.value.named_code == "model.schema"


async def test_a_schema_outside_the_subset_is_refused() -> None:
    with pytest.raises(ModelCallError) as caught:
        await rules(json_schema={"$ref": "#/"}, facts={})
    assert caught.value.named_code == "model.schema"


# --- the subset -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "(a+)+$"},
        {"patternProperties": {}},
        {"$ref": "http://127.0.0.1/x"},
        {"$defs": {}},
        {"type": "text"},
        {"type": []},
        {"type": 7},
        {"properties": []},
        {"properties": {"a": 7}},
        {"required": "a"},
        {"required": [1]},
        {"enum": []},
        {"anyOf": []},
        {"anyOf": [7]},
        {"minimum": "1"},
        {"minimum": True},
        {"minLength": -1},
        {"maxItems": 1.5},
        [],
        "x",
    ],
)
def test_a_schema_the_subset_does_not_know_is_refused(schema: Any) -> None:
    with pytest.raises(UsageError) as caught:
        check(schema)
    assert caught.value.named_code == "model.schema"


def test_a_schema_that_is_too_deep_or_too_large_is_refused() -> None:
    deep: Any = {}
    for _ in range(20):
        deep = {"items": deep}
    with pytest.raises(UsageError, match="too deep"):
        check(deep)
    with pytest.raises(UsageError, match="too large"):
        check({"anyOf": [{}] * 3_000})


def test_a_comparison_ends_however_large_schema_and_value_are() -> None:
    schema = {"items": {"anyOf": [{"const": n} for n in range(1_000)]}}
    check(schema)
    assert misfit(schema, [-1] * 100_000) == "$[0]: fits none of anyOf"
    assert misfit({"items": {"type": "integer"}}, [1] * 10_000) is None
    assert "too large" in str(misfit({"items": {"type": "integer"}}, [1] * 1_000_000))


KINDS = st.sampled_from(["string", "number", "integer", "boolean", "object", "array", "null"])
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text("ab1", max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def schemas() -> st.SearchStrategy[Any]:
    bound = st.integers(-3, 5)
    length = st.integers(0, 3)

    def table(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.fixed_dictionaries(
            {},
            optional={
                "type": KINDS | st.lists(KINDS, min_size=1, max_size=2, unique=True),
                "enum": st.lists(SCALARS, min_size=1, max_size=3),
                "const": SCALARS,
                "minimum": bound,
                "maximum": bound,
                "exclusiveMinimum": bound,
                "exclusiveMaximum": bound,
                "minLength": length,
                "maxLength": length,
                "minItems": length,
                "maxItems": length,
                "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
                "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
                "additionalProperties": inner,
                "items": inner,
                "anyOf": st.lists(inner, min_size=1, max_size=2),
            },
        )

    return st.recursive(st.booleans() | table(st.just(True)), table, max_leaves=5)


@settings(max_examples=400, deadline=None)
@given(schema=schemas(), value=VALUES)
def test_fitting_agrees_with_the_reference_implementation(schema: Any, value: Any) -> None:
    check(schema)
    assert (misfit(schema, value) is None) == jsonschema.Draft202012Validator(schema).is_valid(value)


@settings(max_examples=200, deadline=None)
@given(
    schema=schemas(), facts=st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), text=st.text("ab 1")
)
def test_what_is_made_fits_or_is_refused(schema: Any, facts: dict[str, Any], text: str) -> None:
    try:
        value = shape(schema, facts, text)
    except UsageError:
        return
    assert misfit(schema, value) is None
