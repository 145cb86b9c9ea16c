"""Functions that models ask for, against a real server in each dialect, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from runloop.ops import ModelComplete, ModelMessage, ModelTool, ModelToolCall
from runloopd.broker.ports import ModelCallError
from runloopd.broker.providers.anthropic import Anthropic
from runloopd.broker.providers.completion import Completion, Usage
from runloopd.broker.providers.dialect import HttpProvider
from runloopd.broker.providers.http import Http, HttpLimits
from runloopd.broker.providers.ollama import Ollama
from runloopd.broker.providers.openai_compat import OpenAICompat
from runloopd.broker.providers.tool_calls import MAX_CALL_BYTES, MAX_CALLS, MAX_MALFORMED, check_tools
from runloopd.broker.secrets import Secret
from tests.contract import fake_model_server as fake
from tests.contract.conftest import CANARY, PRICE, BrokerMaker, RestlessClock, ask, budget, provider
from tests.contract.fake_model_server import FakeModelServer
from tests.contract.scripted_model import ScriptedModel, Turn, Wanted, call, calls, cut, malformed, say

SEARCH = ModelTool(
    name="kb_search",
    description="Search the notes.",
    parameters={"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
)
CLOCK = ModelTool(name="clock")
DIALECTS = ("openai", "anthropic", "ollama")
BOTH = (False, True)
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}

every_way = [
    pytest.mark.parametrize("dialect", DIALECTS),
    pytest.mark.parametrize("stream", BOTH, ids=["whole", "streamed"]),
]


def in_every_way(test: Any) -> Any:
    for mark in every_way:
        test = mark(test)
    return test


Asking = Callable[..., Awaitable[Completion]]


@pytest.fixture
async def answered() -> AsyncIterator[Asking]:
    """Asks a server through the adapter of its dialect, and checks that only words are shown."""
    http = Http(HttpLimits(connect_ms=2_000, idle_ms=5_000))
    dialects = {
        "openai": lambda url: OpenAICompat(f"{url}/v1"),
        "anthropic": Anthropic,
        "ollama": Ollama,
    }

    async def ask_it(server: FakeModelServer, dialect: str, request: ModelComplete) -> Completion:
        deltas: list[str] = []
        provider = HttpProvider(
            name="main",
            dialect=dialects[dialect](server.url),
            http=http,
            key=lambda: Secret(CANARY, name="$FAKE_KEY"),
        )
        answer = await provider.complete(
            request,
            model="fake-1",
            timeout_s=20,
            on_delta=deltas.append if request.stream else None,
            idempotency_key=f"{len(server.posts):064x}",
        )
        assert not request.stream or "".join(deltas) == answer.text, "arguments are not words to be shown"
        return answer

    yield ask_it
    await http.close()


def rows(answer: Completion) -> list[dict[str, Any]]:
    return [call.as_json() for call in answer.tool_calls]


@pytest.mark.requirement("I6.adapters.6")
@in_every_way
async def test_what_a_model_asks_for_arrives_with_its_words_and_what_it_cost(
    answered: Asking, dialect: str, stream: bool
) -> None:
    turn = calls(
        Wanted("kb_search", {"query": "rollout — “plan”\n", "limit": 3}),
        Wanted("clock", {}),
        Wanted("kb_search", {"query": "john"}),
        text="Let me look.",
    )
    with ScriptedModel([turn]) as server:
        answer = await answered(server, dialect, ask(tools=[SEARCH, CLOCK], stream=stream, max_tokens=500))
    assert answer.text == "Let me look." and answer.finish == "tools"
    assert [(row["name"], row["arguments"]) for row in rows(answer)] == [
        ("kb_search", {"query": "rollout — “plan”\n", "limit": 3}),
        ("clock", {}),
        ("kb_search", {"query": "john"}),
    ]
    assert len({row["id"] for row in rows(answer)}) == 3
    if dialect != "ollama":
        assert [row["id"] for row in rows(answer)] == ["call_0_0", "call_0_1", "call_0_2"]
    assert answer.usage == Usage(input_tokens=11, output_tokens=7)
    assert server.asked[0].tools == ("kb_search", "clock")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_tool_is_offered_with_its_schema_and_its_answer_goes_back(
    answered: Asking, dialect: str
) -> None:
    conversation = [
        ModelMessage(role="system", content="Be brief."),
        ModelMessage(role="user", content="What is new?"),
        ModelMessage(
            role="assistant",
            content="",
            tool_calls=[
                ModelToolCall(id="a1", name="kb_search", arguments={"query": "new"}),
                ModelToolCall(id="a2", name="clock"),
            ],
        ),
        ModelMessage(role="tool", content="two notes", tool_call_id="a2"),
        ModelMessage(role="tool", content="12:00", tool_call_id="a1"),
        ModelMessage(role="user", content="And?"),
    ]
    request = ModelComplete(messages=conversation, tools=[SEARCH, CLOCK], max_tokens=50)
    with ScriptedModel([say("Done.")]) as server:
        answer = await answered(server, dialect, request)
    assert (answer.text, answer.finish, answer.tool_calls) == ("Done.", "stop", ())
    (asked,) = server.asked
    said = {m.answers: m.text for m in asked.messages if m.role == "tool"}
    assert said == {"a2": "two notes", "a1": "12:00"}
    (wanted,) = [m.calls for m in asked.messages if m.role == "assistant"]
    assert wanted == (("a1", "kb_search", {"query": "new"}), ("a2", "clock", {}))
    assert asked.messages[-1].text == "And?" and asked.wish == "What is new?"
    (search, clock_tool) = asked.body["tools"]
    schemas = [t.get("function", t).get("parameters", t.get("input_schema")) for t in (search, clock_tool)]
    assert schemas == [SEARCH.parameters, {"type": "object", "properties": {}}]
    roles = [row["role"] for row in asked.body["messages"]]
    if dialect == "anthropic":
        assert roles == ["user", "assistant", "user"], "what tools said is one turn of the user's"


@pytest.mark.parametrize(
    ("dialect", "choice", "sent"),
    [
        ("openai", "auto", "auto"),
        ("openai", "none", "none"),
        ("openai", "required", "required"),
        ("anthropic", "auto", {"type": "auto"}),
        ("anthropic", "none", {"type": "none"}),
        ("anthropic", "required", {"type": "any"}),
        ("ollama", "required", None),
    ],
)
async def test_the_choice_is_said_in_the_words_of_the_server(
    answered: Asking, dialect: str, choice: Any, sent: Any
) -> None:
    with ScriptedModel([say("ok")]) as server:
        await answered(server, dialect, ask(tools=[CLOCK], tool_choice=choice))
    assert server.asked[0].tool_choice == sent and server.asked[0].tools == ("clock",)


async def test_a_server_without_a_choice_is_offered_nothing_when_nothing_may_be_called(
    answered: Asking,
) -> None:
    with ScriptedModel([say("ok")]) as server:
        await answered(server, "ollama", ask(tools=[CLOCK], tool_choice="none"))
    assert server.asked[0].tools == ()


@pytest.mark.requirement("I6.adapters.6")
@in_every_way
async def test_arguments_that_are_no_object_are_handed_on_as_malformed(
    answered: Asking, dialect: str, stream: bool
) -> None:
    texts = ['{"query": "roll', "[1, 2]", '"kb"', "{'query': 1}", '{"n": 1e999}', '{"n": 9007199254740993}']
    deep = '{"a":' * 60 + "1" + "}" * 60
    turn = calls(*(Wanted("kb_search", text) for text in [*texts, deep, "x" * 9_000]))
    with ScriptedModel([turn]) as server:
        answer = await answered(server, dialect, ask(tools=[SEARCH], stream=stream))
    assert answer.finish == "tools" and len(rows(answer)) == 8
    assert all(set(row) == {"id", "name", "malformed"} for row in rows(answer))
    assert [row["malformed"] for row in rows(answer)][:6] == texts
    assert len(rows(answer)[-1]["malformed"]) == MAX_MALFORMED


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "streamed"])
async def test_no_arguments_at_all_are_an_empty_object(answered: Asking, stream: bool) -> None:
    with ScriptedModel([malformed("clock", "")]) as server:
        answer = await answered(server, "openai", ask(tools=[CLOCK], stream=stream))
    assert rows(answer) == [{"id": "call_0_0", "name": "clock", "arguments": {}}]


@in_every_way
async def test_ids_and_names_nobody_could_send_back_are_replaced(
    answered: Asking, dialect: str, stream: bool
) -> None:
    turn = calls(
        Wanted("kb.search", {}, id="same"),
        Wanted("", {}, id="same"),
        Wanted("rm -rf /\x1b[2J" + "x" * 100, {}, id="bad id\n"),
        Wanted("clock", {}, id="y" * 65),
        Wanted("clock", {}, id=""),
    )
    with ScriptedModel([turn]) as server:
        answer = await answered(server, dialect, ask(tools=[CLOCK], stream=stream))
    found = rows(answer)
    assert len({row["id"] for row in found}) == 5
    assert all(row["id"].replace("_", "").isalnum() and len(row["id"]) <= 64 for row in found)
    assert [row["name"] for row in found[:2]] == ["kb_search", "unnamed"]
    assert found[2]["name"].startswith("rm_-rf____2J") and len(found[2]["name"]) == 64
    again = ModelMessage(
        role="assistant",
        content="",
        tool_calls=[ModelToolCall(id=row["id"], name=row["name"]) for row in found],
    )
    answers = [ModelMessage(role="tool", content="no", tool_call_id=row["id"]) for row in found]
    check_tools(ModelComplete(messages=[again, *answers], tools=[CLOCK]))


@in_every_way
async def test_more_calls_than_anybody_needs_are_refused_and_paid(
    answered: Asking, dialect: str, stream: bool
) -> None:
    fits = calls(*(Wanted("clock", {}) for _ in range(MAX_CALLS)))
    many = calls(*(Wanted("clock", {}) for _ in range(MAX_CALLS + 1)))
    large = calls(Wanted("clock", {"x": "y" * MAX_CALL_BYTES}))
    request = ask(tools=[CLOCK], stream=stream)
    with ScriptedModel([fits]) as server:
        assert len((await answered(server, dialect, request)).tool_calls) == MAX_CALLS
    for turn in (many, large):
        with ScriptedModel([turn]) as server:
            with pytest.raises(ModelCallError) as caught:
                await answered(server, dialect, request)
            assert caught.value.named_code == "model.too_large" and len(server.asked) == 1
            assert caught.value.cost_micro_usd is None, "it may have been billed"


@in_every_way
async def test_a_stream_cut_in_the_middle_of_a_call_is_no_answer_and_is_paid(
    answered: Asking, dialect: str, stream: bool
) -> None:
    turn = cut("", Wanted("clock", {}), Wanted("kb_search", {"query": "a long enough query"}))
    with ScriptedModel([turn, say("late")]) as server, pytest.raises(ModelCallError) as caught:
        await answered(server, dialect, ask(tools=[SEARCH, CLOCK], stream=stream))
    assert caught.value.named_code in ("model.cut", "model.protocol")
    assert caught.value.cost_micro_usd is None


@pytest.mark.requirement("K6")
async def test_a_call_cut_in_its_arguments_is_asked_again_where_that_is_free_and_only_there(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    turns = [cut("", Wanted("kb_search", {"query": "a long enough query"})), call("clock")]
    request = ask(tools=[SEARCH, CLOCK], stream=True)
    for price, expected in ((None, 2), (PRICE, 1)):
        with ScriptedModel(turns) as server:
            made = broker(provider(server.url, price=price))
            try:
                answer = await made.complete(
                    request, budget=budget(clock), on_delta=None, idempotency_key="k" * 64
                )
            except ModelCallError as error:
                assert price is PRICE and error.cost_micro_usd is None
            else:
                assert price is None and [row.name for row in answer.tool_calls] == ["clock"]
            assert len(server.asked) == expected


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_what_a_server_withdrew_is_not_asked_for(answered: Asking, dialect: str) -> None:
    turn = Turn(text="No.", calls=(Wanted("clock", {}),), finish="content_filter")
    with ScriptedModel([turn]) as server:
        answer = await answered(server, dialect, ask(tools=[CLOCK]))
    assert (answer.finish, answer.tool_calls, answer.text) == ("filter", (), "No.")


@pytest.mark.parametrize("stream", BOTH, ids=["whole", "streamed"])
async def test_a_model_that_declines_says_so(answered: Asking, stream: bool) -> None:
    said = {"content": None, "refusal": "I will not."}
    choice = {"index": 0, "delta" if stream else "message": said, "finish_reason": "stop"}
    body = {"model": "m", "choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    behaviour = (lambda x: x.chunks(*fake.sse(body, "[DONE]"))) if stream else fake.as_json(body)
    with FakeModelServer(behaviour) as server:
        answer = await answered(server, "openai", ask(stream=stream))
    assert (answer.text, answer.finish) == ("I will not.", "filter")


async def test_calls_cut_off_by_the_limit_are_told_from_whole_ones(answered: Asking) -> None:
    turn = Turn(calls=(Wanted("clock", {}), Wanted("kb_search", '{"query": "half')), finish="length")
    with ScriptedModel([turn]) as server:
        answer = await answered(server, "openai", ask(tools=[CLOCK], stream=True))
    assert answer.finish == "length"
    assert [sorted(row) for row in rows(answer)] == [["arguments", "id", "name"], ["id", "malformed", "name"]]


# --- fragments as servers send them ---------------------------------------------------------------


def tool_delta(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": {"tool_calls": [fields]}}]}


FRAGMENTS = {
    "name repeated with every piece": [
        tool_delta(index=0, id="c1", function={"name": "clock", "arguments": '{"a"'}),
        tool_delta(index=0, id="c1", function={"name": "clock", "arguments": ": 1}"}),
    ],
    "no index": [
        tool_delta(id="c1", function={"name": "clock", "arguments": '{"a"'}),
        tool_delta(function={"arguments": ": 1}"}),
    ],
    "arguments as an object": [
        tool_delta(index=0, id="c1", function={"name": "clock", "arguments": {"a": 1}})
    ],
    "id after the name": [
        tool_delta(index=7, function={"name": "clock"}),
        tool_delta(index=7, id="c1", function={"arguments": '{"a": 1}'}),
    ],
}


@pytest.mark.parametrize("how", FRAGMENTS)
async def test_fragments_are_put_together_as_their_server_meant_them(answered: Asking, how: str) -> None:
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    with FakeModelServer(lambda x: x.chunks(*fake.sse(*FRAGMENTS[how], end, "[DONE]"))) as server:
        answer = await answered(server, "openai", ask(tools=[CLOCK], stream=True))
    assert rows(answer) == [{"id": "c1", "name": "clock", "arguments": {"a": 1}}]


async def test_two_whole_calls_of_one_index_are_two_calls(answered: Asking) -> None:
    events = [
        tool_delta(index=0, id="c1", function={"name": "clock", "arguments": '{"a": 1}'}),
        tool_delta(index=0, id="c2", function={"name": "clock", "arguments": '{"a": 2}'}),
        tool_delta(function={"name": "clock", "arguments": '{"a": 3}'}),
    ]
    with FakeModelServer(lambda x: x.chunks(*fake.sse(*events, "[DONE]"))) as server:
        answer = await answered(server, "openai", ask(tools=[CLOCK], stream=True))
    assert [row["arguments"] for row in rows(answer)] == [{"a": 1}, {"a": 2}, {"a": 3}]


# --- schemas beside tools -------------------------------------------------------------------------


@in_every_way
async def test_a_schema_and_tools_may_be_asked_for_together(
    answered: Asking, dialect: str, stream: bool
) -> None:
    request = ask(tools=[CLOCK], json_schema=SCHEMA, stream=stream)
    last = call("answer", ok=True) if dialect == "anthropic" else say('{"ok": true}')
    with ScriptedModel([call("clock"), last]) as server:
        first = await answered(server, dialect, request)
        request = ask(tools=[CLOCK], json_schema=SCHEMA)
        second = await answered(server, dialect, request)
        body = server.posts[0].body
    if dialect == "ollama":
        assert "format" not in body, "it would bind every word, and no tool could be called"
        assert json.dumps(SCHEMA, separators=(",", ":")) in body["messages"][0]["content"]
    assert [row["name"] for row in rows(first)] == ["clock"] and first.finish == "tools"
    assert json.loads(second.text) == {"ok": True} and second.tool_calls == ()


async def test_who_asks_for_a_tool_need_not_fit_the_schema_yet_and_who_answers_must(
    broker: BrokerMaker, clock: RestlessClock
) -> None:
    request = ask(tools=[CLOCK], json_schema=SCHEMA)
    with ScriptedModel([call("clock", text="hm"), say("I think so")]) as server:
        made = broker(provider(server.url))
        first = await made.complete(request, budget=budget(clock), on_delta=None, idempotency_key="a" * 64)
        assert [row.name for row in first.tool_calls] == ["clock"] and first.finish == "tools"
        with pytest.raises(ModelCallError) as caught:
            await made.complete(request, budget=budget(clock), on_delta=None, idempotency_key="b" * 64)
    assert caught.value.named_code == "model.schema"


async def test_the_tool_for_answers_never_takes_the_name_of_an_agents_tool(answered: Asking) -> None:
    own = ModelTool(name="answer")
    with ScriptedModel([calls(Wanted("answer", {"x": 1}), Wanted("answer_", {"ok": True}))]) as server:
        answer = await answered(server, "anthropic", ask(tools=[own], json_schema=SCHEMA, stream=True))
    assert [(row["name"], row["arguments"]) for row in rows(answer)] == [("answer", {"x": 1})]
    assert json.loads(answer.text) == {"ok": True}


# --- what must not come back ----------------------------------------------------------------------


@pytest.mark.requirement("K2")
@in_every_way
async def test_the_key_does_not_come_back_in_a_call(answered: Asking, dialect: str, stream: bool) -> None:
    escaped = "".join(f"\\u{ord(char):04x}" for char in CANARY)
    turn = calls(
        Wanted("kb_search", {"query": f"key {CANARY}", CANARY: ["x", {"y": CANARY.encode().hex()}]}),
        Wanted("kb_search", '{"query": "' + escaped + '"}'),
        Wanted("kb_search", "broken " + CANARY),
        Wanted(CANARY, {}, id=CANARY),
    )
    with ScriptedModel([turn]) as server:
        answer = await answered(server, dialect, ask(tools=[SEARCH], stream=stream))
    shown = json.dumps(rows(answer))
    assert CANARY not in shown and CANARY.encode().hex() not in shown
    if dialect != "ollama":  # there, arguments are no text, and this one is malformed
        assert rows(answer)[1]["arguments"] == {"query": "[secret]"}
