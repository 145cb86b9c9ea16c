"""Calls of tools, without a server: put together from any fragments, bounded, and told from nonsense."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runloop.digest import canonical
from runloop.errors import UsageError
from runloop.ops import ModelComplete, ModelMessage, ModelTool, ModelToolCall
from runloopd.broker.ports import ModelCallError
from runloopd.broker.providers.completion import prompt_bytes
from runloopd.broker.providers.rules import RulesProvider
from runloopd.broker.providers.tool_calls import MAX_CALLS, MAX_TOOLS, Gathered, check_tools, wanted
from runloopd.broker.scrubber import Scrubber

CLOCK = ModelTool(name="clock")
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def read(gathered: Gathered) -> list[tuple[str, Any]]:
    return [(call.name, call.arguments) for call in wanted(gathered, Scrubber(), key="k" * 64)]


@pytest.mark.parametrize("seed", range(40))
def test_calls_arrive_as_they_were_made_however_they_are_cut_and_mixed(seed: int) -> None:
    chance = random.Random(seed)
    words = ['"', "{", "\\", "ä€😀", "\n", "name", ""]
    made = [
        (f"tool_{number}", {chance.choice(words) + str(n): chance.choice(words) * n for n in range(number)})
        for number in range(chance.randint(1, 6))
    ]
    gathered = Gathered()
    left: dict[int, str] = {}
    for index, (name, arguments) in enumerate(made):
        gathered.add(index, id=f"call_{index}", name=name)
        left[index] = json.dumps(arguments)
    while left:
        index = chance.choice(sorted(left))
        size = chance.randint(1, 9)
        gathered.add(index, piece=left[index][:size])
        left[index] = left[index][size:]
        if not left[index]:
            del left[index]
    assert read(gathered) == made


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(-3, 3),
            st.none() | st.integers() | st.text(max_size=6),
            st.none() | st.booleans() | st.text(max_size=6),
            st.none() | st.text(max_size=12) | values,
        ),
        max_size=40,
    )
)
def test_whatever_fragments_come_each_call_is_fit_to_be_sent_back(fragments: list[tuple[Any, ...]]) -> None:
    gathered = Gathered()
    try:
        for index, id, name, piece in fragments:
            gathered.add(index, id=id, name=name, piece=piece)
    except ModelCallError as error:
        assert error.named_code == "model.too_large"
        return
    calls = wanted(gathered, Scrubber(), key="0" * 64)
    assert len({call.id for call in calls}) == len(calls) <= MAX_CALLS
    for call in calls:
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", call.id) and re.fullmatch(
            r"[A-Za-z0-9_-]{1,64}", call.name
        )
        canonical(call.as_json())
    if calls:
        again = ModelMessage(
            role="assistant",
            content="",
            tool_calls=[
                ModelToolCall(id=call.id, name=call.name, arguments=call.arguments or {}) for call in calls
            ],
        )
        said = [ModelMessage(role="tool", content="", tool_call_id=call.id) for call in calls]
        check_tools(ModelComplete(messages=[again, *said]))


# --- what may be asked ----------------------------------------------------------------------------


def asking(*ids: str, role: Any = "assistant") -> ModelMessage:
    return ModelMessage(
        role=role, content="", tool_calls=[ModelToolCall(id=one, name="clock") for one in ids]
    )


def saying(id: str | None) -> ModelMessage:
    return ModelMessage(role="tool", content="12:00", tool_call_id=id)


USER = ModelMessage(role="user", content="hi")


@pytest.mark.parametrize(
    ("why", "fields"),
    [
        ("more than", {"tools": [ModelTool(name=f"t{n}") for n in range(MAX_TOOLS + 1)]}),
        ("is not 1 to 64", {"tools": [ModelTool(name="git.status")]}),
        ("is not 1 to 64", {"tools": [ModelTool(name="clock\n")]}),
        ("offered twice", {"tools": [CLOCK, CLOCK]}),
        ("schema of an object", {"tools": [ModelTool(name="x", parameters={"type": "string"})]}),
        ("there are no tools", {"tool_choice": "required"}),
        ("did not ask for", {"messages": [USER, saying("a")]}),
        ("did not ask for", {"messages": [asking("a"), saying("b")]}),
        ("did not ask for", {"messages": [asking("a"), saying("a"), saying("a")]}),
        ("did not ask for", {"messages": [asking("a"), saying(None)]}),
        ("comes before the answer", {"messages": [asking("a"), USER]}),
        ("did not ask for", {"messages": [asking("a"), saying("a"), USER, saying("a")]}),
        ("is not answered", {"messages": [asking("a", "b"), saying("a")]}),
        ("two tool_calls of one id", {"messages": [asking("a", "a"), saying("a")]}),
        ("whose id or name", {"messages": [asking("a b"), saying("a b")]}),
        ("not the assistant's", {"messages": [asking("a", role="user"), saying("a")]}),
        ("not a tool's", {"messages": [ModelMessage(role="user", content="", tool_call_id="a")]}),
        ("more than", {"messages": [asking(*(f"c{n}" for n in range(MAX_CALLS + 1)))]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_conversation_no_server_could_take_is_refused_with_the_reason(
    why: str, fields: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        check_tools(ModelComplete(**{"messages": [USER], **fields}))
    assert caught.value.named_code == "op.args"


def test_ids_may_come_again_in_a_later_turn() -> None:
    turn = [asking("a", "b"), saying("b"), saying("a")]
    check_tools(ModelComplete(messages=[USER, *turn, *turn, USER], tools=[CLOCK]))


@pytest.mark.requirement("K6")
def test_everything_a_prompt_carries_counts_against_its_bound() -> None:
    bare = ModelComplete(messages=[USER])
    text = "x" * 10_000
    arguments = ModelToolCall(id="a", name="clock", arguments={"x": text})
    for more in (
        ModelComplete(messages=[USER], tools=[ModelTool(name="a", description=text)]),
        ModelComplete(messages=[USER], tools=[ModelTool(name="a", parameters={"title": text})]),
        ModelComplete(messages=[ModelMessage(role="assistant", content="", tool_calls=[arguments])]),
        ModelComplete(messages=[ModelMessage(role="tool", content=text, tool_call_id="a")]),
        ModelComplete(messages=[USER], json_schema={"title": text}),
    ):
        assert prompt_bytes(more) >= prompt_bytes(bare) + 9_900


# --- the offline rules ----------------------------------------------------------------------------


async def rules(**fields: Any) -> Any:
    request = ModelComplete(messages=[USER], tools=[CLOCK], **fields)
    return await RulesProvider().complete(
        request, model="template-1", timeout_s=1, on_delta=None, idempotency_key="k"
    )


async def test_the_rules_call_no_tool_and_invent_nothing() -> None:
    for choice in ("auto", "required"):
        with pytest.raises(ModelCallError, match="no model available") as caught:
            await rules(tool_choice=choice)
        assert caught.value.named_code == "model.none" and "rlp providers" in str(caught.value.hint)


async def test_the_rules_fill_a_template_beside_tools_as_ever() -> None:
    answer = await rules(template="Hello {{name}}", facts={"name": "Jo"})
    assert (answer.text, answer.finish, answer.tool_calls) == ("Hello Jo", "stop", ())
