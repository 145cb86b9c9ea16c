"""A redirect of a tool leads nowhere the call itself could not have gone; over real sockets (C1, P2)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from runloop.bundle.tools import parse_tools
from runloop.caps.destination import parse_destination
from runloopd.broker.calls import Answer, Caller
from runloopd.broker.providers.web import Web, WebRequest
from runloopd.broker.tool_testing import ScriptedTools, offer
from runloopd.broker.toolbox import Offer, ToolContext, ToolResult
from runloopd.broker.tools.http_tools import http_tools
from tests.contract.raw_web import RawWeb, answer

from .test_mail import decide
from .world import World, until, within


class Places:
    """``here`` sends on to ``there``; both are granted."""

    def __init__(self, here: RawWeb, there: RawWeb) -> None:
        self.here, self.there = here, there
        here.says = answer(status="302 Found", Location=f"http://{self.at(there)}/b")

    @staticmethod
    def at(server: RawWeb) -> str:
        return f"127.0.0.1:{server.port}"

    @property
    def grants(self) -> str:
        hosts = json.dumps([self.at(self.here), self.at(self.there)])
        return (
            f'net = [{{hosts = {hosts}, allow_http = true}}]\nkb_read = true\ntools = ["http.get", "odd.go"]'
        )

    def tool(self, *servers: RawWeb, **more: Any) -> Any:
        """A tool of a bundle that asks ``here``, and names these servers."""
        made = {
            "id": "page.look",
            "description": "Looks at a page.",
            "transport": {"kind": "http", "method": "GET", "url": f"http://{self.at(self.here)}/a"},
            "input_schema": {"type": "object", "additionalProperties": False},
            "capabilities": [f"net:{self.at(one)}" for one in (self.here, *servers)],
            **more,
        }
        return parse_tools(json.dumps({"version": 1, "tools": [made]}))


@pytest.fixture
async def places() -> AsyncIterator[Places]:
    async with RawWeb() as here, RawWeb(answer(b"there")) as there:
        yield Places(here, there)


@pytest.fixture
async def net(world: World, places: Places) -> AsyncIterator[World]:
    """A world with the real web, and the host's tool that fetches a page."""
    web = Web()
    world.web = web  # type: ignore[assignment]
    world.sources.append(http_tools(web))
    await world.restart()
    yield world
    await web.close()


async def call(world: World, caller: Caller, tool: str, **args: Any) -> Answer:
    """Said yes to, if anybody is asked."""
    before = len(world.payloads("action.requested"))
    task = world.begin(caller, "tool.call", {"tool": tool, "args": args})
    await until(lambda: task.done() or len(world.payloads("action.requested")) > before)
    if not task.done():
        await decide(world)
        world.clock.advance(5_000)
    return await within(task)


async def get(world: World, places: Places, caller: Caller) -> Answer:
    return await call(world, caller, "http.get", url=f"http://{places.at(places.here)}/a")


@pytest.mark.requirement("C1", "I6.tools.9")
async def test_a_tool_of_a_bundle_stays_with_the_servers_it_names(net: World, places: Places) -> None:
    caller = replace(await net.caller(places.grants), tools=places.tool())
    refused = await call(net, caller, "page.look")
    assert refused.value["code"] == "net.redirect"
    assert places.at(places.there) in refused.value["message"] and places.there.requests == []
    denied = net.payloads("cap.audit")[-1]
    assert (denied.decision, denied.capability, denied.target) == ("denied", "net", places.at(places.there))

    caller = replace(await net.caller(places.grants, node="other"), tools=places.tool(places.there))
    assert (await call(net, caller, "page.look")).value == {"result": "there"}


@pytest.mark.requirement("C1", "I6.tools.9")
async def test_what_a_person_was_asked_about_stays_with_the_server_that_was_shown(
    net: World, places: Places
) -> None:
    tools = places.tool(places.there, requires_confirmation=True)
    caller = replace(await net.caller(places.grants), tools=tools)
    answered = await call(net, caller, "page.look")
    assert answered.value["code"] == "net.redirect" and places.there.requests == []

    places.here.says = _once(places, "/c")
    again = await call(net, replace(await net.caller(places.grants, node="o"), tools=tools), "page.look")
    assert again.value == {"result": "moved"}, "within one server it may move"


def _once(places: Places, to: str) -> Any:
    async def says(head: bytes, writer: Any) -> None:
        there = head.startswith(f"GET {to} ".encode())
        sent = answer(b"moved") if there else answer(status="302 Found", Location=to)
        writer.write(sent)
        await writer.drain()

    return says


async def test_a_run_that_has_heard_nothing_follows_where_it_might_have_gone_at_first(
    net: World, places: Places
) -> None:
    followed = await get(net, places, await net.caller(places.grants))
    assert followed.value["result"]["text"] == "there"
    assert followed.value["result"]["url"] == f"http://{places.at(places.there)}/b"


@pytest.mark.requirement("P2", "I6.tools.9")
async def test_a_server_that_hears_its_own_words_back_does_not_send_them_on(
    net: World, places: Places
) -> None:
    places.here.says = answer(b"private words")
    caller = await net.caller(places.grants)
    assert (await get(net, places, caller)).value["result"]["text"] == "private words"
    places.here.says = answer(status="302 Found", Location=f"http://{places.at(places.there)}/?q=private")
    refused = await get(net, places, caller)
    assert refused.value["code"] == "label.private" and places.there.requests == []
    assert len(places.here.requests) == 2
    assert net.payloads("action.requested") == [], "back to its own server nobody is asked"


@pytest.mark.requirement("P2", "I6.tools.9")
async def test_a_yes_to_one_server_that_is_told_what_is_private_is_no_yes_to_the_next(
    net: World, places: Places
) -> None:
    caller = await net.caller(places.grants)
    assert (await net.call(caller, "kb.search", {"query": "rollout"})).ok
    refused = await get(net, places, caller)
    assert len(net.payloads("action.requested")) == 1
    assert refused.value["code"] == "net.redirect" and places.there.requests == []
    assert len(places.here.requests) == 1


class Wanderer(ScriptedTools):
    """A source that goes where its arguments do not say."""

    def __init__(self, web: Web, place: str) -> None:
        super().__init__([offer("odd.go", effect="read", confirm=False)])
        self._web, self._to = web, parse_destination(f"http://{place}/x")

    async def call(self, offer: Offer, args: dict[str, Any], context: ToolContext) -> ToolResult:
        got = await self._web.exchange(WebRequest(method="GET", place=self._to), context.net)
        return ToolResult(value=got.body.decode())


@pytest.mark.requirement("P2", "I6.tools.9")
async def test_a_place_that_no_argument_names_is_told_nothing_private(net: World, places: Places) -> None:
    net.sources.append(Wanderer(net.web, places.at(places.there)))  # type: ignore[arg-type]
    await net.restart()
    caller = await net.caller(places.grants)
    assert (await call(net, caller, "odd.go")).value == {"result": "there"}
    assert (await net.call(caller, "kb.search", {"query": "rollout"})).ok
    assert (await call(net, caller, "odd.go")).value["code"] == "label.private"
    assert len(places.there.requests) == 1


@pytest.mark.requirement("P2", "I6.tools.9")
async def test_a_place_the_operator_marked_is_sent_on_to(net: World, places: Places) -> None:
    places.here.says = answer(b"private words")
    net.private_ok = (places.at(places.there),)
    await net.restart()
    caller = await net.caller(places.grants)
    assert (await get(net, places, caller)).ok
    places.here.says = answer(status="302 Found", Location=f"http://{places.at(places.there)}/b")
    assert (await get(net, places, caller)).value["result"]["text"] == "there"
