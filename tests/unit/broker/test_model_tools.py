"""Tools of models at the gate: what is refused before anything is held, and what is on record after."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runloop.config import Models, Provider
from runloop.testing import ManualClock
from runloopd.broker.models import ModelBroker
from runloopd.broker.secrets import SecretStore
from tests.contract.scripted_model import ScriptedModel, Wanted, calls, say
from tests.unit.broker.world import World, ask

TOOL = {"name": "clock", "parameters": {"type": "object", "properties": {}}}
ASKED = {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "name": "clock"}]}


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"name": "git.status"}]},
        {"tools": [TOOL, TOOL]},
        {"tools": [{**TOOL, "strict": True}]},
        {"messages": [{"role": "tool", "content": "x", "tool_call_id": "never asked"}]},
        {"messages": [ASKED, {"role": "user", "content": "and?"}]},
        {"tool_choice": "clock", "tools": [TOOL]},
    ],
    ids=["name", "twice", "unknown field", "nobody asked", "unanswered", "choice"],
)
async def test_what_no_model_could_take_is_refused_before_anything_is_held(
    world: World, fields: dict[str, Any]
) -> None:
    caller = await world.caller("model = true")
    answer = await world.call(caller, "model.complete", {**ask("hello"), **fields})
    assert not answer.ok and answer.value["code"] == "op.args"
    assert world.models.calls == world.models.askers == []
    assert "hostcall.admitted" not in world.kinds() and "model.called" not in world.kinds()


@pytest.fixture
async def tooled(tmp_path: Path) -> AsyncIterator[tuple[World, ScriptedModel]]:
    """A world whose model is a real broker before a real server."""
    turn = calls(Wanted("clock", {"zone": "UTC"}), Wanted("clock", "{broken"), text="One moment. ")
    with ScriptedModel([turn, say("Noon.")]) as server:
        clock = ManualClock()
        settings = Provider(name="main", kind="openai", base_url=server.url, model="m")
        broker = ModelBroker(
            Models(providers={"main": settings}, detect="none"),
            secrets=SecretStore(environ={}),
            clock=clock,
            jitter=lambda: 0.5,
        )
        world = World(tmp_path, clock)
        world.models = broker  # type: ignore[assignment]
        await world.start()
        await world.run()
        yield world, server
        await world.stop()
        await broker.close()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_what_a_model_asks_for_is_in_its_answer_and_counted_on_record(
    tooled: tuple[World, ScriptedModel], stream: bool
) -> None:
    world, _ = tooled
    caller = await world.caller("model = true")
    answer = await world.call(
        caller, "model.complete", {**ask("What time is it?"), "tools": [TOOL], "stream": stream}
    )
    assert answer.ok and answer.value["finish"] == "tools"
    assert [(c["id"], c.get("arguments"), c.get("malformed")) for c in answer.value["tool_calls"]] == [
        ("call_0_0", {"zone": "UTC"}, None),
        ("call_0_1", None, "{broken"),
    ]
    (called,) = world.payloads("model.called")
    assert (called.tool_calls, called.finish) == (2, "tools")
    (delivered,) = world.payloads("hostcall.delivered")
    assert json.loads(world.reader.blob(delivered.result_digest)) == answer.value, "a replay serves just this"
    if stream:
        heard = await world.call(caller, "msg.next", {"stream": answer.value["stream"]})
        assert heard.value["item"], "the words are read as ever"
    again = await world.call(caller, "model.complete", {**ask("And now?"), "tools": [TOOL]})
    assert "tool_calls" not in again.value and again.value["finish"] == "stop"
