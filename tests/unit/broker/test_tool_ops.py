"""An agent's own tools at the gate: permitted by name, checked on both sides, counted by the record."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from runloop.bundle.tools import Tool, parse_tools
from runloopd.broker.calls import Caller
from runloopd.broker.ports import ProviderError
from tests.unit.bundle.test_tools import transport, weather

from .world import RUN, World, until, within

GRANTED = 'net = ["api.weather.example"]'
FORECAST = {"forecast": "sun", "days": [1.5, None]}


def tools(*changed: dict[str, Any]) -> tuple[Tool, ...]:
    made = [weather(**more) for more in changed or ({},)]
    return parse_tools(json.dumps({"version": 1, "tools": made}))


async def agent(world: World, *changed: dict[str, Any], grants: str = GRANTED, attempt: int = 1) -> Caller:
    return replace(await world.caller(grants, attempt=attempt), tools=tools(*changed))


async def forecast(world: World, caller: Caller, **args: Any) -> Any:
    call = {"tool": "weather.get_forecast", "args": args or {"city": "Bern"}}
    return (await world.call(caller, "tool.call", call)).value


@pytest.fixture
def sunny(world: World) -> World:
    world.web.body = json.dumps(FORECAST).encode()
    return world


async def test_a_tool_answers_with_a_result_that_fits(sunny: World) -> None:
    assert await forecast(sunny, await agent(sunny), city="St. Gallen & Chur") == {"result": FORECAST}
    (sent,) = sunny.web.requests
    assert sent.owner == RUN
    assert str(sent.place) == ("https://api.weather.example/v1/forecast?city=St.%20Gallen%20%26%20Chur")
    assert sunny.kinds() == ["cap.audit", "cap.audit", "hostcall.delivered"]
    assert [(said.capability, said.target, said.decision) for said in sunny.payloads("cap.audit")] == [
        ("tools", "weather.get_forecast", "allowed"),
        ("net", "GET https://api.weather.example/v1/forecast", "allowed"),
    ]


async def test_a_permission_that_is_missing_is_named(sunny: World) -> None:
    value = await forecast(sunny, await agent(sunny, grants="time = true"))
    assert value["code"] == "cap.denied"
    assert value["message"] == (
        "weather.get_forecast needs net api.weather.example, which is not granted to writer:"
        " nothing of it is granted"
    )
    assert value["hint"] == (
        "if its policy.caps asks for it, the operator may type 'rlp cap grant writer net'"
    )
    (audit,) = sunny.payloads("cap.audit")
    assert (audit.capability, audit.target, audit.decision) == ("net", "api.weather.example", "denied")
    assert sunny.web.requests == []


async def test_another_host_does_not_stand_in_for_the_one_that_is_missing(sunny: World) -> None:
    value = await forecast(sunny, await agent(sunny, grants='net = ["other.example"]'))
    assert "weather.get_forecast needs net api.weather.example" in value["message"]
    assert "only other.example is granted" in value["message"]


async def test_a_narrower_grant_is_checked_for_the_request_itself(sunny: World) -> None:
    narrow = 'net = [{hosts = ["api.weather.example"], paths = ["/v2"]}]'
    value = await forecast(sunny, await agent(sunny, grants=narrow))
    assert value["code"] == "cap.denied"
    assert "GET https://api.weather.example/v1/forecast" in value["message"]
    assert sunny.web.requests == []


async def test_every_capability_a_tool_names_must_be_granted(sunny: World) -> None:
    needs = {"capabilities": ["net:api.weather.example", "kb_read:contacts"]}
    value = await forecast(sunny, await agent(sunny, needs))
    assert value["message"].startswith("weather.get_forecast needs kb_read contacts")


async def test_a_name_that_leads_into_this_machine_is_refused(sunny: World) -> None:
    sunny.web.address = "127.0.0.1"
    value = await forecast(sunny, await agent(sunny))
    assert value["code"] == "net.address"


async def test_the_list_tells_what_each_tool_lacks(world: World) -> None:
    caller = await agent(
        world, {}, {"id": "weather.alerts", "capabilities": ["net:api.weather.example", "time"]}
    )
    answer = await world.call(caller, "tool.list")
    first, second = answer.value["tools"]
    assert (first["id"], first["granted"], first["missing"]) == ("weather.get_forecast", True, [])
    assert (second["granted"], second["missing"]) == (False, ["time"])
    assert first["input_schema"]["required"] == ["city"]


async def test_an_agent_sees_no_tools_but_its_own(world: World) -> None:
    answer = await world.call(await world.caller(GRANTED), "tool.list")
    assert answer.value == {"tools": []}
    value = await forecast(world, await world.caller(GRANTED))
    assert value["code"] == "tool.unknown"


async def test_a_name_that_is_nearly_right_is_suggested(world: World) -> None:
    answer = await world.call(await agent(world), "tool.call", {"tool": "weather.forecast"})
    assert answer.value["code"] == "tool.unknown"
    assert answer.value["hint"] == "did you mean 'weather.get_forecast'?"


# --- arguments and results ------------------------------------------------------------------------


@pytest.mark.parametrize("args", [{"city": 1}, {"town": "Bern"}, {"city": "Bern", "x": 1}])
async def test_arguments_that_do_not_fit_reach_nobody(sunny: World, args: dict[str, Any]) -> None:
    value = await forecast(sunny, await agent(sunny), **args)
    assert value["code"] == "tool.args"
    assert value["message"].startswith("weather.get_forecast: arguments")
    assert sunny.web.requests == []


async def test_arguments_have_a_bound(sunny: World) -> None:
    value = await forecast(sunny, await agent(sunny), city="B" * 70_000)
    assert value["code"] == "tool.args"


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (b"{}", "application/json"),
        (b'{"forecast": "sun"', "application/json"),
        (b'{"forecast": NaN}', "application/json"),
        (b'{"forecast": 9007199254740993}', "application/json"),
        (b"[" * 100_000 + b"]" * 100_000, "application/json"),
        (b'{"forecast": ' + b"[" * 80 + b"]" * 80 + b"}", "application/json"),
        (b'{"forecast": "\xff"}', "application/json"),
        (b'{"forecast": "sun"}', "text/plain"),
        (b"\x89PNG", "image/png"),
        (b"", "application/json"),
    ],
)
async def test_a_result_that_does_not_fit_is_an_error(world: World, body: bytes, media: str) -> None:
    world.web.body, world.web.media_type = body, media
    value = await forecast(world, await agent(world))
    assert value["code"] == "tool.result"
    assert "result" in value["message"]


async def test_half_a_result_is_none(sunny: World) -> None:
    sunny.web.truncated = True
    assert (await forecast(sunny, await agent(sunny)))["code"] == "tool.result"


async def test_text_is_a_result_where_the_schema_takes_it(world: World) -> None:
    world.web.body, world.web.media_type = "Föhn".encode(), "text/plain"
    caller = await agent(world, {"result_schema": {"type": "string"}})
    assert await forecast(world, caller) == {"result": "Föhn"}


@pytest.mark.parametrize(("status", "retryable"), [(404, False), (429, True), (503, True), (302, False)])
async def test_a_server_that_says_no_is_a_failure(sunny: World, status: int, retryable: bool) -> None:
    sunny.web.status = status
    value = await forecast(sunny, await agent(sunny))
    assert (value["code"], value["retryable"]) == ("tool.failed", retryable)
    assert f"HTTP {status}" in value["message"]


# --- what is served later -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"transport": {"kind": "exec"}}, "tool.transport"),
        ({"transport": {"kind": "mcp"}}, "tool.transport"),
        ({"transport": {"kind": "wasm"}}, "tool.transport"),
        ({"secrets": ["runloop/weather/key"]}, "tool.secrets"),
        ({"requires_confirmation": True}, "tool.confirmation"),
        ({"transport": transport(method="POST")}, "http.method"),
    ],
)
async def test_what_is_not_served_yet_is_refused_by_name(
    sunny: World, changed: dict[str, Any], code: str
) -> None:
    value = await forecast(sunny, await agent(sunny, changed))
    assert value["code"] == code
    assert sunny.web.requests == []


# --- budgets --------------------------------------------------------------------------------------

TWICE = {"budget": {"calls": 2}}


async def test_a_tool_is_called_as_often_as_its_budget_says(sunny: World) -> None:
    caller = await agent(sunny, TWICE)
    answers = [await forecast(sunny, caller) for _ in range(3)]
    assert ["result" in answer for answer in answers] == [True, True, False]
    assert answers[2]["code"] == "budget.exceeded"
    assert "tools.json" in answers[2]["hint"]
    (exceeded,) = sunny.payloads("quota.exceeded")
    assert (exceeded.resource, exceeded.limit, exceeded.used) == ("tool.weather.get_forecast", 2, 2)
    assert len(sunny.web.requests) == 2


async def test_a_budget_is_one_for_the_run_across_attempts_and_restarts(sunny: World) -> None:
    sunny.web.fails.append(ProviderError("cut", code="http.cut"))
    assert (await forecast(sunny, await agent(sunny, TWICE)))["code"] == "http.cut"
    await sunny.restart()
    later = await agent(sunny, TWICE, attempt=2)
    assert "result" in await forecast(sunny, later)
    assert (await forecast(sunny, later))["code"] == "budget.exceeded"


async def test_calls_side_by_side_do_not_pass_the_budget(sunny: World) -> None:
    caller = await agent(sunny, TWICE)
    sunny.web.gate = asyncio.Event()
    call = {"tool": "weather.get_forecast", "args": {"city": "Bern"}}
    tasks = [sunny.begin(caller, "tool.call", call) for _ in range(5)]
    await until(lambda: sum(task.done() for task in tasks) == 3)
    sunny.web.gate.set()
    answers = [await within(task) for task in tasks]
    assert sum(answer.ok for answer in answers) == 2
    assert len(sunny.web.requests) == 2
