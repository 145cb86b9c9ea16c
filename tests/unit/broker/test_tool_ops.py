"""An agent's own tools at the gate: permitted by name, checked on both sides, counted by the record."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from runloop.bundle.tools import Tool, parse_tools
from runloop.digest import blob_digest, canonical
from runloopd.broker.asks import Ask
from runloopd.broker.calls import Caller
from runloopd.broker.ports import ProviderError
from runloopd.broker.tool_testing import ScriptedTools, offer
from runloopd.broker.toolbox import Offer
from tests.unit.bundle.test_tools import transport, weather

from .test_mail import asked, decide
from .world import OPERATOR, RUN, World, until, within

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


# --- requests that change something elsewhere -----------------------------------------------------

NOTE = {
    "id": "notes.add",
    "transport": {"kind": "http", "method": "POST", "url": "https://api.weather.example/v1/{board}/notes"},
    "input_schema": {
        "type": "object",
        "properties": {"board": {"type": "string"}, "text": {"type": "string"}},
        "required": ["board", "text"],
        "additionalProperties": False,
    },
    "result_schema": True,
}


async def add(world: World, caller: Caller, **args: Any) -> asyncio.Task[Any]:
    return world.begin(
        caller, "tool.call", {"tool": "notes.add", "args": args or {"board": "a", "text": "b"}}
    )


@pytest.mark.requirement("I6.tools.1")
async def test_a_request_that_changes_something_is_shown_whole_and_sent_after_a_yes(world: World) -> None:
    task = await add(world, await agent(world, NOTE), board="x/y", text="Grüezi")
    approval = await asked(world)
    assert world.web.requests == []
    shown = json.loads(world.reader.blob(approval.content_blob))
    assert shown["sends"] == {
        "method": "POST",
        "url": "https://api.weather.example/v1/x%2Fy/notes",
        "headers": {},
        "body": {"text": "Grüezi"},
    }
    body = blob_digest(canonical({"text": "Grüezi"}))
    assert approval.action["resource"] == f"POST https://api.weather.example/v1/x%2Fy/notes body:{body}"
    await decide(world)
    world.clock.advance(5_000)
    assert (await within(task)).value == {"result": {}}
    (sent,) = world.web.requests
    assert (sent.method, json.loads(sent.body)) == ("POST", {"text": "Grüezi"})
    assert ("Idempotency-Key", approval.key) in sent.headers
    assert ("Content-Type", "application/json") in sent.headers


@pytest.mark.parametrize(
    ("effect", "tools", "asks"),
    [
        (None, '["notes.add"]', True),
        ("read", "[]", True),
        ("read", '["notes.*"]', True),
        ("read", '["*"]', True),
        ("send", '["notes.add"]', True),
        ("read", '["notes.add"]', False),
    ],
)
async def test_nobody_is_asked_only_where_bundle_and_policy_both_say_it_changes_nothing(
    world: World, effect: str | None, tools: str, asks: bool
) -> None:
    changed = {**NOTE, **({"effect": effect} if effect else {})}
    task = await add(world, await agent(world, changed, grants=f"{GRANTED}\ntools = {tools}"))
    await until(lambda: task.done() or world.approvals.list())
    assert bool(world.approvals.list()) is asks
    assert task.done() is not asks


@pytest.mark.parametrize(
    ("status", "code", "retried"),
    [(400, "tool.failed", True), (409, "tool.failed", True), (500, "tool.unknown_outcome", False),
     (503, "tool.unknown_outcome", False), (302, "tool.unknown_outcome", False),
     (303, "tool.unknown_outcome", False)],
)  # fmt: skip
async def test_a_server_that_said_no_may_be_asked_again_and_one_that_broke_may_not(
    world: World, status: int, code: str, retried: bool
) -> None:
    world.web.status = status
    safe = {**NOTE, "effect": "read"}
    grants = f'{GRANTED}\ntools = ["notes.add"]'
    answer = await within(await add(world, await agent(world, safe, grants=grants)))
    assert answer.value["code"] == code
    world.web.status = 200
    again = await within(await add(world, await agent(world, safe, grants=grants, attempt=2)))
    assert again.ok is retried
    assert len(world.web.requests) == (2 if retried else 1)


ASKED = {**NOTE, "transport": {**NOTE["transport"], "query": ["pin"]}}  # type: ignore[dict-item]
ASKED["input_schema"] = {
    **NOTE["input_schema"],  # type: ignore[dict-item]
    "properties": {name: {"type": "string"} for name in ("board", "text", "pin")},
}


@pytest.mark.requirement("C2", "C3", "I6.tools.10")
@pytest.mark.parametrize(
    ("args", "asks"),
    [
        ({"board": "a", "text": "b", "pin": "c"}, False),
        ({"pin": "c", "text": "b", "board": "a"}, False),
        ({"board": "a", "text": "other", "pin": "c"}, True),
        ({"board": "a", "text": "b", "pin": "d"}, True),
        ({"board": "a", "text": "b"}, True),
        ({"board": "d", "text": "b", "pin": "c"}, True),
        ({"board": "a/b", "text": "b", "pin": "c"}, True),
    ],
    ids=["same", "reordered", "body", "query", "no-query", "path", "segment"],
)
async def test_a_yes_for_good_to_a_request_is_for_all_of_it_that_leaves(
    world: World, args: dict[str, str], asks: bool
) -> None:
    caller = await agent(world, ASKED)
    task = await add(world, caller, board="a", text="b", pin="c")
    approval = await asked(world)
    await world.standing.give(OPERATOR, approval, approval.action_digest, approval.action["tool"])
    await decide(world)
    world.clock.advance(5_000)
    assert (await within(task)).ok
    again = await add(world, caller, **args)
    await until(lambda: again.done() or world.approvals.list())
    assert bool(world.approvals.list()) is asks
    assert len(world.web.requests) == (1 if asks else 2)


@pytest.mark.requirement("I6.tools.10")
async def test_a_yes_for_good_to_an_agents_tool_is_for_its_arguments(world: World) -> None:
    world.guests = Guests()
    await world.restart()
    changed = {
        "transport": {"kind": "wasm", "tool": "own.do"},
        "capabilities": [],
        "requires_confirmation": True,
    }
    caller = await agent(world, changed)
    call = {"tool": "weather.get_forecast", "args": {"city": "Bern"}}
    world.begin(caller, "tool.call", call)
    approval = await asked(world)
    await world.standing.give(OPERATOR, approval, approval.action_digest, approval.action["tool"])
    await decide(world, "deny")
    assert (await within(world.begin(caller, "tool.call", call))).ok
    world.begin(caller, "tool.call", {**call, "args": {"city": "Basel"}})
    await asked(world)


@pytest.mark.parametrize("kind", ["http", "exec", "wasm"])
async def test_whatever_asks_for_confirmation_is_asked_about(sunny: World, kind: str) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "http": {},
        "exec": {"transport": {"kind": "exec", "argv": ["true"]}, "capabilities": ["exec:true"]},
        "wasm": {"transport": {"kind": "wasm", "tool": "own.do"}, "capabilities": []},
    }
    changed = {**kinds[kind], "requires_confirmation": True, "effect": "read"}
    caller = await agent(sunny, changed, grants=GRANTED + '\nexec = ["true"]')
    call = {"tool": "weather.get_forecast", "args": {"city": "Bern"}}
    task = sunny.begin(caller, "tool.call", call)
    approval = await asked(sunny)
    assert approval.effect == "send" and sunny.web.requests == []
    await decide(sunny, "deny")
    assert (await within(task)).value["code"] == "approval.denied"


# --- secrets --------------------------------------------------------------------------------------

KEY = "runloop/weather/key"
VALUE = "hunter2-hunter2-hunter2"
KEYED = {
    "secrets": [KEY],
    "transport": transport(headers={"Authorization": f"Bearer {{secret:{KEY}}}", "X-Plain": "yes"}),
}
WITH_KEY = f'{GRANTED}\nsecrets = ["{KEY}"]'


async def keep(world: World, *, to: str = "api.weather.example") -> None:
    world.vault.put(KEY, VALUE)
    await world.book.state_set(KEY, "memory", [to], "operator:1000")


@pytest.mark.requirement("I6.tools.6")
async def test_a_secret_is_put_in_where_it_is_sent_and_nowhere_else(sunny: World) -> None:
    await keep(sunny)
    sunny.web.body = json.dumps({"forecast": f"you said {VALUE}", "days": [VALUE.encode().hex()]}).encode()
    value = await forecast(sunny, await agent(sunny, KEYED, grants=WITH_KEY))
    (sent,) = sunny.web.requests
    assert [(key.name, key.prefix, key.secret.reveal()) for key in sent.keys] == [
        ("Authorization", "Bearer ", VALUE)
    ]
    assert ("X-Plain", "yes") in sent.headers
    assert value == {"result": {"forecast": "you said [secret]", "days": ["[secret]"]}}
    (used,) = sunny.payloads("secret.used")
    assert (used.name, used.by, used.to) == (KEY, "agent:writer", "api.weather.example")
    recorded = b"".join(
        sunny.reader.blob(answer.result_blob) for answer in sunny.payloads("hostcall.delivered")
    )
    assert VALUE.encode() not in recorded


@pytest.mark.parametrize(
    ("grants", "to", "there", "code"),
    [
        (GRANTED, "api.weather.example", True, "cap.denied"),
        (WITH_KEY, "evil.example", True, "tool.secrets"),
        (WITH_KEY, "api.weather.example", False, "tool.secrets"),
    ],
    ids=["not-granted", "bound-elsewhere", "absent"],
)
async def test_without_right_destination_or_value_nothing_is_sent(
    sunny: World, grants: str, to: str, there: bool, code: str
) -> None:
    await keep(sunny, to=to)
    if not there:
        sunny.vault.drop(KEY)
    value = await forecast(sunny, await agent(sunny, KEYED, grants=grants))
    assert value["code"] == code
    assert sunny.web.requests == [] and sunny.payloads("secret.used") == []


async def test_a_secret_in_an_error_is_scrubbed(sunny: World) -> None:
    await keep(sunny)
    sunny.web.fails.append(ProviderError(f"the server said {VALUE}", code="http.cut", hint=VALUE))
    value = await forecast(sunny, await agent(sunny, KEYED, grants=WITH_KEY))
    assert value["code"] == "tool.failed"
    assert VALUE not in json.dumps(value)


async def test_a_secret_that_was_asked_about_and_not_used_is_no_news(world: World) -> None:
    await keep(world)
    changed = {
        **NOTE,
        "secrets": [KEY],
        "transport": {**NOTE["transport"], "headers": {"X-Key": f"{{secret:{KEY}}}"}},  # type: ignore[dict-item]
    }
    task = await add(world, await agent(world, changed, grants=WITH_KEY))
    approval = await asked(world)
    assert VALUE.encode() not in world.reader.blob(approval.content_blob)
    assert approval.action["secrets"] == [KEY]
    await decide(world, "deny")
    await within(task)
    assert world.payloads("secret.used") == []


# --- tools of servers and of agents ---------------------------------------------------------------

ALIAS = {
    "id": "board.post",
    "transport": {"kind": "mcp", "server": "board", "tool": "post"},
    "capabilities": [],
    "result_schema": {"type": "object", "required": ["did"]},
}


async def alias(world: World, offered: Offer | None, **more: Any) -> tuple[Caller, ScriptedTools]:
    source = ScriptedTools([] if offered is None else [offered])
    world.sources.append(source)
    await world.restart()
    return await agent(world, {**ALIAS, **more}, grants='tools = ["mcp.board.post"]'), source


async def test_a_tool_of_a_server_is_called_under_the_bundles_own_name_and_both_schemas(
    world: World,
) -> None:
    offered = offer(
        "mcp.board.post", {"city": {"type": "string"}}, source="mcp", effect="read", confirm=False
    )
    caller, source = await alias(world, offered)
    source.label = "mcp:board"  # what it says itself may go back to it unasked
    call = {"tool": "board.post", "args": {"city": "Bern"}}
    assert (await world.call(caller, "tool.call", call)).value == {"result": {"did": "mcp.board.post"}}
    source.answer = lambda name, args: {"done": name}
    assert (await world.call(caller, "tool.call", call)).value["code"] == "tool.result"
    refused = await world.call(replace(await world.caller("time = true", node="o"), tools=caller.tools),
                               "tool.call", call)  # fmt: skip
    assert refused.value["code"] == "cap.denied"
    assert len(source.calls) == 2


async def test_a_bundle_does_not_make_a_servers_tool_harmless_by_saying_so(world: World) -> None:
    offered = offer("mcp.board.post", {"city": {"type": "string"}}, source="mcp")
    caller, source = await alias(world, offered, effect="read")
    world.begin(caller, "tool.call", {"tool": "board.post", "args": {"city": "Bern"}})
    await asked(world)
    assert source.calls == []


async def test_a_server_that_is_not_there_makes_its_tool_unavailable(world: World) -> None:
    caller, _ = await alias(world, None)
    answer = await world.call(caller, "tool.call", {"tool": "board.post", "args": {"city": "Bern"}})
    assert answer.value["code"] == "tool.unavailable"


@dataclass
class Guests:
    """Serves tools of agents, in this process."""

    served: list[tuple[str | None, str, dict[str, Any]]] = field(default_factory=list)

    async def serve(self, ask: Ask, agent: str | None, tool: str, args: dict[str, Any]) -> Any:
        self.served.append((agent, tool, args))
        return {"forecast": "sun"}


async def test_a_tool_of_another_agent_needs_the_right_to_start_it(world: World) -> None:
    guests = world.guests = Guests()
    await world.restart()
    changed = {
        "transport": {"kind": "wasm", "tool": "sky.look", "agent": "astronomer"},
        "capabilities": ["spawn:astronomer"],
    }
    refused = await forecast(world, await agent(world, changed, grants="time = true"))
    assert refused["code"] == "cap.denied" and guests.served == []
    caller = replace(await world.caller('spawn = ["astronomer"]', node="o"), tools=tools(changed))
    assert await forecast(world, caller) == {"result": {"forecast": "sun"}}
    assert guests.served == [("astronomer", "sky.look", {"city": "Bern"})]


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
    assert (await forecast(sunny, await agent(sunny, TWICE)))["code"] == "tool.failed"
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
