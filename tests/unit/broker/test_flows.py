"""What is private goes to nobody outside whom it is not from, unless a person read that very call (P2)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from runloopd.broker.calls import Answer, Caller
from runloopd.broker.flows import OWN, Flows, whose
from runloopd.broker.tool_testing import ScriptedTools, offer
from runloopd.broker.toolbox import ToolError

from .test_mail import asked, decide
from .test_tool_ops import tools as bundled
from .world import World, mail, within

TEXT = {"type": "string"}
GRANTS = """
net = ["pages.example", "*.wild.example", "10.0.0.7", "api.weather.example"]
kb_read = true
mail = true
tools = ["*"]
"""
PAGE = "https://pages.example/a"
LOOK = offer("mcp.far.look", {"text": TEXT}, effect="read", confirm=False, source="mcp")
POST = offer("mcp.far.post", {"text": TEXT}, source="mcp")
OTHER = offer("mcp.other.look", {"text": TEXT}, effect="read", confirm=False, source="mcp")
HERE = offer("mcp.here.look", {"text": TEXT}, effect="read", confirm=False, source="mcp", leaves=False)
FILES = offer("files.look", {"path": TEXT}, effect="read", confirm=False)
KEEP = offer("files.keep", {"path": TEXT}, effect="write", confirm=False)


class Source(ScriptedTools):
    """Each server labels what it says, as the client of servers does."""

    async def call(self, offer: Any, args: Any, context: Any) -> Any:
        given = await super().call(offer, args, context)
        server = offer.name.split(".")[1]
        return replace(given, label=f"mcp:{server}") if offer.source == "mcp" else given


@pytest.fixture
async def source(world: World) -> Source:
    made = Source([LOOK, POST, OTHER, HERE, FILES, KEEP])
    world.sources.append(made)
    await world.restart()
    return made


async def agent(world: World, node: str = "draft") -> Caller:
    return replace(await world.caller(GRANTS, node=node), tools=bundled())


async def fetch(world: World, caller: Caller, url: str = PAGE) -> Any:
    return (await world.call(caller, "http.fetch", {"url": url})).value


async def look(world: World, caller: Caller, tool: str = "mcp.far.look", **args: Any) -> Answer:
    call = {"tool": tool, "args": args or {"text": "x"}}
    return await world.call(caller, "tool.call", call)


def begin(world: World, caller: Caller, tool: str, **args: Any) -> asyncio.Task[Answer]:
    return world.begin(caller, "tool.call", {"tool": tool, "args": args or {"text": "x"}})


async def read_notes(world: World, caller: Caller) -> None:
    assert (await world.call(caller, "kb.search", {"query": "rollout"})).ok


# --- refused, with a why --------------------------------------------------------------------------


@pytest.mark.requirement("P2")
async def test_a_page_is_not_asked_for_by_who_has_read_the_users_notes(world: World) -> None:
    caller = await agent(world)
    assert (await fetch(world, caller))["status"] == 200
    await read_notes(world, caller)
    value = await fetch(world, caller, PAGE + "?stolen=words")
    assert value["code"] == "label.private"
    assert value["message"] == (
        "writer has heard what is private (the user's own), and pages.example is no place that may be told it"
    )
    assert "security.private_ok" in value["hint"]
    assert len(world.web.requests) == 1
    denied = world.payloads("cap.audit")[-1]
    assert (denied.decision, denied.capability, denied.target) == ("denied", "net", "pages.example")
    assert "stolen" not in denied.reason


@pytest.mark.requirement("P2")
async def test_what_one_agent_has_read_the_others_of_its_run_do_not_tell_either(world: World) -> None:
    await read_notes(world, await agent(world))
    assert (await fetch(world, await agent(world, "other")))["code"] == "label.private"
    await world.restart()
    assert (await fetch(world, await agent(world, "third")))["code"] == "label.private"


@pytest.mark.requirement("P2")
@pytest.mark.parametrize("url", ["https://pages.example/", "https://x.wild.example/", "https://10.0.0.7/"])
async def test_no_granted_place_is_told_unless_it_is_marked(world: World, url: str) -> None:
    caller = await agent(world)
    await read_notes(world, caller)
    assert (await fetch(world, caller, url))["code"] == "label.private"


@pytest.mark.requirement("P2")
async def test_a_place_in_this_network_is_told_its_own_words_and_no_page_is(world: World) -> None:
    caller = await agent(world)
    assert (await fetch(world, caller, "https://10.0.0.7/one"))["status"] == 200
    assert (await fetch(world, caller, "https://10.0.0.7/two"))["status"] == 200
    assert (await fetch(world, caller))["message"].startswith(
        "writer has heard what is private (what web:10.0.0.7 told)"
    )


@pytest.mark.requirement("P2")
async def test_what_was_heard_is_never_forgotten_for_something_heard_later(
    world: World, source: Source
) -> None:
    caller = await agent(world)
    await read_notes(world, caller)
    assert (await look(world, caller, "mcp.here.look")).ok
    value = await fetch(world, caller)
    assert "(what mcp:here told, the user's own)" in value["message"]


# --- or asked about -------------------------------------------------------------------------------


@pytest.mark.requirement("P2")
async def test_a_tool_that_reads_elsewhere_asks_a_person_once_the_run_is_private(
    world: World, source: Source
) -> None:
    caller = await agent(world)
    assert (await look(world, caller)).ok and not world.approvals.list()
    await read_notes(world, caller)
    task = begin(world, caller, "mcp.far.look", text="the notes")
    approval = await asked(world)
    assert approval.action["private"] == [OWN]
    assert len(source.calls) == 1
    await decide(world)
    world.clock.advance(5_000)
    assert (await within(task)).ok
    assert source.calls[-1][1] == {"text": "the notes"}


@pytest.mark.requirement("P2")
async def test_no_is_no(world: World, source: Source) -> None:
    caller = await agent(world)
    await read_notes(world, caller)
    task = begin(world, caller, "mcp.far.look")
    await decide(world, "deny")
    assert (await within(task)).value["code"] == "approval.denied"
    assert source.calls == []


@pytest.mark.requirement("P2")
async def test_a_tool_of_the_bundle_that_reaches_the_web_asks_as_well(world: World) -> None:
    caller = await agent(world)
    await read_notes(world, caller)
    task = begin(world, caller, "weather.get_forecast", city="the notes")
    assert (await asked(world)).action["private"] == [OWN]
    await decide(world, "deny")
    assert (await within(task)).value["code"] == "approval.denied"
    assert world.web.requests == []


@pytest.mark.requirement("P2")
async def test_a_servers_words_go_back_to_it_and_to_no_other_server(world: World, source: Source) -> None:
    """The poisoned issue: a private repository read through one server, told through another."""
    caller = await agent(world)
    assert (await look(world, caller)).ok
    assert (await look(world, caller, text="again")).ok
    task = begin(world, caller, "mcp.other.look")
    assert (await asked(world)).action["private"] == ["mcp:far"]
    await decide(world, "deny")
    assert not (await within(task)).ok


@pytest.mark.requirement("P2")
async def test_an_error_of_a_server_is_its_word_too(world: World, source: Source) -> None:
    caller = await agent(world)
    source.fails.append(ToolError("private words", code="tool.failed"))
    assert not (await look(world, caller)).ok
    assert world.events("hostcall.delivered")[-1].provenance.label == "mcp:far"
    assert (await fetch(world, caller))["code"] == "label.private"


@pytest.mark.requirement("P2")
async def test_a_yes_for_good_does_not_stand_for_what_is_private(world: World, source: Source) -> None:
    flows, caller = Flows(), await agent(world)
    await read_notes(world, caller)
    run = world.gate._record.run(caller.run)
    assert run is not None
    plan = world.gate._tools._bench._box.plan(caller, "mcp.far.post")
    assert plan is not None and plan.grantable
    assert not flows.guarded(run.tree, plan, {"text": "x"}).grantable


# --- and what stays as it was ---------------------------------------------------------------------


@pytest.mark.requirement("P2")
@pytest.mark.parametrize("tool", ["files.look", "files.keep", "mcp.here.look"])
async def test_what_stays_on_this_machine_asks_nobody(world: World, source: Source, tool: str) -> None:
    caller = await agent(world)
    await read_notes(world, caller)
    args = {"path": "/a"} if tool.startswith("files") else {"text": "x"}
    assert (await look(world, caller, tool, **args)).ok


@pytest.mark.requirement("P2")
async def test_pages_for_everybody_make_no_run_private(world: World) -> None:
    caller = await agent(world)
    world.web.body = b'{"forecast": "sun", "days": [1.5, null]}'
    for number in range(3):
        assert (await fetch(world, caller, f"{PAGE}{number}"))["status"] == 200
        assert (await look(world, caller, "weather.get_forecast", city=f"c{number}")).ok
    assert not world.approvals.list()


@pytest.mark.requirement("P2")
async def test_a_mail_asks_once_as_it_always_did(world: World) -> None:
    caller = await agent(world)
    await read_notes(world, caller)
    task = world.begin(caller, "mail.send", mail())
    await decide(world)
    world.clock.advance(5_000)
    assert (await within(task)).ok
    assert len(world.payloads("action.requested")) == 1


@pytest.mark.requirement("P2")
def test_a_mark_is_for_one_place_and_nothing_like_it() -> None:
    class Tree:
        origins = {OWN, "mcp:a"}

    flows = Flows(["Pages.example", "mcp:far"])
    assert flows.strangers(Tree(), "web:pages.example") == flows.strangers(Tree(), "mcp:far") == ()
    for sink in ("web:pages.example:8443", "web:x.pages.example", "mcp:farther", "web:far"):
        assert flows.strangers(Tree(), sink) == ("mcp:a", OWN)
    assert flows.strangers(Tree(), "mcp:a") == (OWN,)


@pytest.mark.requirement("P2")
@pytest.mark.parametrize("label", ["web:pages.example", "mcp:far", "site:pages.example", None, "model:x"])
@pytest.mark.parametrize(
    "op", ["memory.get", "kb.read", "kb.query", "blob.read", "fs.read", "an.op.of.tomorrow"]
)
def test_what_was_kept_is_the_users_whatever_its_label_says(op: str, label: str | None) -> None:
    """Notes and a page, remembered together, bear the page's label: nothing is laundered by that."""
    assert whose(op, "read", label) == OWN


@pytest.mark.requirement("P2")
def test_the_label_of_an_effect_is_no_evidence() -> None:
    assert whose("tool.call", "send", "web:x", "program:/usr/bin/cat") == OWN
    assert whose("tool.call", "send", "web:x", "POST https://a.example/b") == "web:a.example"
    for more in (f" query:{'a' * 64} body:{'b' * 64}", "c" * 900 + "… (" + "d" * 64 + ")", "/x y/z"):
        assert whose("tool.call", "send", "web:x", f"POST https://a.example:8443/b{more}") == (
            "web:a.example:8443"
        )
    assert whose("tool.call", "write", "web:x", 'mcp.far.post {"text":"x"}') == "mcp:far"
    assert whose("tool.call", "send", "web:x", None) is None
