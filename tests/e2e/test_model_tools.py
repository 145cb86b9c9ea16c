"""A model that asks for functions, as an agent and a user meet it: on record, replayed, priced and listed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runloop.events import ModelCalled, NodeFinished
from tests.contract.fake_model_server import drip
from tests.contract.scripted_model import Behave, Fail, ScriptedModel, Turn, Wanted, call, calls, say
from tests.home import Home

MANIFEST = """\
name = "caller"
version = "0.1.0"
language = "python"
entrypoint = "agent:handle"
description = "Asks a model, says what its tools would say, and asks again."
ops = ["model.complete", "msg.next"]

[ports.out.out]
type = "object"
required = true
"""
SOURCE = """\
from runloop.agent import Result, Task, handler
from runloop.host import Host, HostRefused

TOOL = {"name": "kb_search", "description": "Search.", "parameters": {"type": "object", "properties": {}}}


@handler
def handle(task: Task, host: Host) -> Result:
    messages = [{"role": "user", "content": task.param("wish")}]
    turns = []
    for _ in range(4):
        request = {"messages": messages, "tools": [TOOL], "stream": task.param("stream"), "max_tokens": 200}
        try:
            answer = host.call("model.complete", request)
        except HostRefused as refused:
            turns.append({"refused": refused.code})
            break
        words = answer.get("text", "")
        while "stream" in answer and "item" in (piece := host.call("msg.next", {"stream": answer["stream"]})):
            words += piece["item"]
        turns.append({"words": words, "finish": answer["finish"], "calls": answer.get("tool_calls", [])})
        if not answer.get("tool_calls"):
            break
        asked = [{"id": c["id"], "name": c["name"], "arguments": c.get("arguments", {})}
                 for c in answer["tool_calls"]]
        messages.append({"role": "assistant", "content": words, "tool_calls": asked})
        for one in answer["tool_calls"]:
            messages.append({"role": "tool", "content": "it says so", "tool_call_id": one["id"]})
    return Result.of(out={"turns": turns})
"""

TURNS = [
    calls(Wanted("kb_search", {"query": "rollout"}), Wanted("kb_search", '{"quer'), text="Let me look. "),
    call("kb_search", query="john"),
    say("There are three notes."),
]
SCRIPTS: dict[str, Any] = {
    "whole": TURNS,
    "streamed": TURNS,
    "deny": [Fail(400, "this model does not support tools")],
    "drip": [Behave(drip)],
    "Say yes": [
        Fail(400, "registry: tiny does not support tools"),
        Turn(text="yes", finish="length", usage=(11, 1)),
    ],
}


@pytest.fixture(scope="module")
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel(SCRIPTS) as server:
        yield server


@pytest.fixture(scope="module")
def home(seed: Path, tmp_path_factory: pytest.TempPathFactory, model: ScriptedModel) -> Iterator[Home]:
    path = tmp_path_factory.mktemp("m")
    for part in ("keys", "cache"):
        shutil.copytree(seed / part, path / part)
    (path / "keys" / "ledger.head").unlink(missing_ok=True)
    path.chmod(0o700)
    with Home(path) as made:
        made.write_agent("caller", MANIFEST, SOURCE, "model = true\n")
        made.env |= model.env()
        stem = "RUNLOOP__MODELS__PROVIDERS__"
        for name in ("HOSTED", "DEAR"):
            made.env |= {
                f"{stem}{name}__KIND": "anthropic",
                f"{stem}{name}__BASE_URL": model.url if name == "DEAR" else "https://models.example",
                f"{stem}{name}__MODEL": "big",
            }
        made.env |= {
            f"{stem}DEAR__PRICE__INPUT_MICRO_USD_PER_MTOK": "3000000",
            f"{stem}DEAR__PRICE__OUTPUT_MICRO_USD_PER_MTOK": "15000000",
            f"{stem}DEAR__PRICE__VERSION": "2026-11",
        }
        yield made


def opening(home: Home, wish: str, *, stream: bool) -> str:
    path = home.path / f"{wish}.yaml"
    given = json.dumps({"wish": wish, "stream": stream})
    path.write_text(
        f'version: 0\nname: {wish}\nnodes:\n  - {{id: ask, use: "agent:caller", with: {given}}}\n'
    )
    return str(path)


def turns_of(home: Home) -> list[dict[str, Any]]:
    end = home.events("node.finished")[-1].payload
    assert isinstance(end, NodeFinished) and end.output is not None
    found: list[dict[str, Any]] = end.output["ports"]["out"][0]["turns"]
    return found


@pytest.mark.requirement("I6.adapters.2")
@pytest.mark.parametrize("wish", ["whole", "streamed"])
def test_a_run_whose_model_asks_for_functions_replays_identical(
    home: Home, model: ScriptedModel, wish: str
) -> None:
    home.rlp("run", opening(home, wish, stream=wish == "streamed"), "--no-input", "--json").check()
    first, second, third = turns_of(home)
    assert (first["words"], first["finish"]) == ("Let me look. ", "tools")
    assert first["calls"] == [
        {"id": "call_0_0", "name": "kb_search", "arguments": {"query": "rollout"}},
        {"id": "call_0_1", "name": "kb_search", "malformed": '{"quer'},
    ]
    assert second["calls"][0]["arguments"] == {"query": "john"} and second["words"] == ""
    assert (third["words"], third["finish"], third["calls"]) == ("There are three notes.", "stop", [])
    called = [event.payload for event in home.events("model.called")][-3:]
    assert [payload.tool_calls for payload in called if isinstance(payload, ModelCalled)] == [2, 1, 0]

    asked = len(model.asked)
    run = home.rlp("runs", "--json").check().ndjson[0]["run"]
    report = home.rlp("replay", run, "--json").check().json
    assert report["identical"] and len(model.asked) == asked, "a replay asks no model"


def test_a_model_that_cannot_call_tools_says_so_and_what_to_do(home: Home) -> None:
    home.rlp("run", opening(home, "deny", stream=False), "--no-input", "--json").check()
    assert turns_of(home) == [{"refused": "model.no_tools"}]


@pytest.mark.requirement("I6.adapters.3")
def test_cancelling_a_run_hangs_up_on_its_model(home: Home, model: ScriptedModel) -> None:
    home.rlp("run", opening(home, "drip", stream=True), "--no-input", "--json", "--detach").check()
    assert model.stalled.wait(30), "the model is answering"
    assert not model.client_gone.is_set()
    run = home.rlp("runs", "--json").check().ndjson[0]["run"]
    home.rlp("cancel", run).check()
    assert model.client_gone.wait(30), "the connection is closed, not only forgotten"


@pytest.mark.requirement("I6.adapters.4")
def test_the_models_are_listed_with_their_price_and_what_keeps_them_from_answering(
    home: Home, model: ScriptedModel
) -> None:
    asked = len(model.seen)
    rows = {row["target"]: row for row in home.rlp("providers", "--json").check().ndjson}
    assert set(rows) == {"fake:scripted-1", "hosted:big", "dear:big", "rules:template-1"}
    assert rows["fake:scripted-1"]["local"] and rows["fake:scripted-1"]["state"] == "ready"
    assert rows["hosted:big"]["state"] == "unpriced" and not rows["hosted:big"]["local"]
    assert rows["dear:big"]["price"]["output_micro_usd_per_mtok"] == 15_000_000
    assert rows["rules:template-1"]["tools"] == "no"
    assert len(model.seen) == asked, "listing asks nobody for an answer"
    table = home.rlp("providers").check().out
    assert "$3/$15 per million" in table and "refused" in table


@pytest.mark.requirement("I6.adapters.4")
def test_a_check_asks_what_is_free_and_what_costs_only_when_told_to(home: Home, model: ScriptedModel) -> None:
    rows = {row["target"]: row for row in home.rlp("providers", "--check", "--json").check().ndjson}
    free = rows["fake:scripted-1"]
    assert (free["state"], free["tools"], free["cost_micro_usd"]) == ("answers", "no", 0)
    assert rows["dear:big"]["state"] == "not asked" and "--yes" in rows["dear:big"]["why"]
    assert {asked.dialect for asked in model.asked if asked.wish == "Say yes."} == {"openai"}

    rows = {row["target"]: row for row in home.rlp("providers", "--check", "--yes", "--json").check().ndjson}
    assert rows["dear:big"]["state"] == "answers"
    assert rows["dear:big"]["cost_micro_usd"] == 11 * 3 + 1 * 15
    assert rows["hosted:big"]["state"] == "unpriced", "what has no price is not asked at all"
    (asked,) = [asked for asked in model.asked if asked.dialect == "anthropic"]
    assert asked.body["max_tokens"] == 1 and asked.tools == ()
