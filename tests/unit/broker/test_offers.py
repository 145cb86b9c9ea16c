"""Offers of the host and of servers at the gate: who calls them, who says yes, and that it happens once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from runloop.caps.policy import Verdict
from runloop.errors import RefusedError
from runloop.events import QuotaExceeded
from runloopd.authority.approvals import Approval
from runloopd.authority.standing import Scope
from runloopd.broker.asks import CapabilityError
from runloopd.broker.calls import Answer, Caller
from runloopd.broker.tool_testing import ScriptedTools, offer
from runloopd.broker.toolbox import TOOL_CODES, ToolError

from .test_mail import asked, crash, decide
from .world import OPERATOR, PEER, World, quotas, until, within

TEXT = {"type": "string"}
LOOK = offer("notes.look", {"path": TEXT}, effect="read", confirm=False)
KEEP = offer("notes.keep", {"path": TEXT, "text": TEXT}, effect="write", confirm=False, resource=("path",))
POST = offer("board.post", {"to": TEXT, "text": TEXT}, resource=("to",), definition="d" * 64)
RUNS = offer("shell.run", {"line": TEXT}, grantable=False)
GRANTS = 'tools = ["notes.*", "board.post", "shell.run"]'


@pytest.fixture
async def tools(world: World) -> ScriptedTools:
    """A world whose host offers four tools."""
    source = ScriptedTools([LOOK, KEEP, POST, RUNS])
    world.sources.append(source)
    await world.restart()
    return source


async def call(world: World, tool: str, caller: Caller | None = None, **args: Any) -> Answer:
    caller = caller or await world.caller(GRANTS)
    return await world.call(caller, "tool.call", {"tool": tool, "args": args})


def begin(world: World, caller: Caller, tool: str, **args: Any) -> asyncio.Task[Answer]:
    return world.begin(caller, "tool.call", {"tool": tool, "args": args})


async def approved(world: World, caller: Caller, tool: str, **args: Any) -> Answer:
    task = begin(world, caller, tool, **args)
    await decide(world)
    world.clock.advance(5_000)
    return await within(task)


# --- known and permitted --------------------------------------------------------------------------


async def test_an_agent_lists_and_calls_exactly_the_offers_its_policy_names(
    world: World, tools: ScriptedTools
) -> None:
    caller = await world.caller('tools = ["notes.look"]')
    listed = (await world.call(caller, "tool.list")).value["tools"]
    assert [(tool["id"], tool["source"], tool["effect"]) for tool in listed] == [
        ("notes.look", "host", "read")
    ]
    assert (await call(world, "notes.look", caller, path="/a")).value == {"result": {"did": "notes.look"}}
    refused = await call(world, "notes.keep", caller, path="/a", text="x")
    assert refused.value["code"] == "cap.denied"
    assert "tools notes.keep is not granted to writer" in refused.value["message"]
    assert [name for name, _, _ in tools.calls] == ["notes.look"]


async def test_what_nobody_offers_is_unknown_and_a_near_name_is_suggested(
    world: World, tools: ScriptedTools
) -> None:
    answer = await call(world, "notes.lok", path="/a")
    assert (answer.value["code"], answer.value["hint"]) == ("tool.unknown", "did you mean 'notes.look'?")


@pytest.mark.parametrize(
    ("why", "code"),
    [("suspended: its description changed", "tool.suspended"), ("the server is gone", "tool.unavailable")],
)
async def test_what_is_withheld_says_why(world: World, tools: ScriptedTools, why: str, code: str) -> None:
    tools.held = [("notes.old", why)]
    answer = await call(world, "notes.old")
    assert (answer.value["code"], why in answer.value["message"]) == (code, True)


async def test_a_bundles_own_tool_is_not_shadowed_by_an_offer(world: World, tools: ScriptedTools) -> None:
    from .test_tool_ops import FORECAST
    from .test_tool_ops import tools as own

    tools.each.append(offer("weather.get_forecast", {"city": TEXT}, effect="read", confirm=False))
    caller = await world.caller('net = ["api.weather.example"]\ntools = ["weather.*"]')
    caller = replace(caller, tools=own())
    world.web.body = b'{"forecast": "sun", "days": [1.5, null]}'
    assert (await call(world, "weather.get_forecast", caller, city="Bern")).value == {"result": FORECAST}
    assert tools.calls == []


async def test_what_an_offer_needs_beside_its_name_must_be_granted_too(
    world: World, tools: ScriptedTools
) -> None:
    tools.each[0] = replace(LOOK, capabilities=("fs_ro:/docs",))
    refused = await call(world, "notes.look", path="/docs/a")
    assert refused.value["message"].startswith("notes.look needs fs_ro /docs")
    caller = await world.caller(GRANTS + '\nfs_ro = ["/docs"]', node="other")
    assert (await call(world, "notes.look", caller, path="/docs/a")).ok


# --- effects and marks ----------------------------------------------------------------------------


async def test_a_read_leaves_no_mark_a_write_two_and_a_send_waits_for_a_person(
    world: World, tools: ScriptedTools
) -> None:
    caller = await world.caller(GRANTS)
    await call(world, "notes.look", caller, path="/a")
    assert world.kinds() == ["cap.audit", "hostcall.delivered"]
    before = len(world.kinds())
    await call(world, "notes.keep", caller, path="/a", text="x")
    assert world.kinds()[before:] == ["hostcall.admitted", "cap.audit", "tool.called", "hostcall.delivered"]
    before = len(world.kinds())
    assert (await approved(world, caller, "board.post", to="all", text="x")).ok
    assert world.kinds()[before:] == [
        "action.requested", "action.decided", "action.claimed", "hostcall.admitted",
        "cap.audit", "tool.called", "hostcall.delivered",
    ]  # fmt: skip
    effects = [answer.effect for answer in world.payloads("hostcall.delivered")]
    assert effects == ["read", "write", "send"]
    posted = world.payloads("tool.called")[-1]
    assert (posted.outcome, posted.resource) == ("done", 'board.post {"to":"all"}')
    assert posted.approval == world.payloads("action.requested")[0].approval


async def test_what_nobody_classified_is_asked_about(world: World, tools: ScriptedTools) -> None:
    tools.each.append(offer("notes.odd"))
    task = begin(world, await world.caller(GRANTS), "notes.odd")
    approval = await asked(world)
    assert (approval.effect, approval.action["tool"]) == ("send", "notes.odd")
    assert tools.calls == []
    task.cancel()


async def test_a_read_that_is_confirmed_is_asked_about_all_the_same(
    world: World, tools: ScriptedTools
) -> None:
    tools.each[0] = replace(LOOK, confirm=True)
    task = begin(world, await world.caller(GRANTS), "notes.look", path="/a")
    await asked(world)
    assert tools.calls == []
    await decide(world)
    world.clock.advance(5_000)
    assert (await within(task)).ok


@pytest.mark.parametrize("decision", ["deny", "undo"])
async def test_without_a_lasting_yes_nothing_is_called(
    world: World, tools: ScriptedTools, decision: str
) -> None:
    task = begin(world, await world.caller(GRANTS), "board.post", to="all", text="x")
    if decision == "undo":
        approval = await decide(world)
        await world.approvals.decide(OPERATOR, approval.id, approval.action_digest, "undo")
    else:
        await decide(world, "deny", "not today")
    answer = await within(task)
    assert answer.value["code"] == {"deny": "approval.denied", "undo": "approval.undone"}[decision]
    assert tools.calls == [] and "hostcall.admitted" not in world.kinds()


# --- bound to what was shown (attacks.md C1) ------------------------------------------------------


def _definition(world: World, tools: ScriptedTools, approval: Approval) -> None:
    tools.each[2] = replace(POST, definition="e" * 64)


def _secret(world: World, tools: ScriptedTools, approval: Approval) -> None:
    tools.each[2] = replace(POST, secrets=("runloop/other/key",))


def _resource(world: World, tools: ScriptedTools, approval: Approval) -> None:
    tools.each[2] = replace(POST, resource=("text",))


def _classified(world: World, tools: ScriptedTools, approval: Approval) -> None:
    tools.each[2] = replace(POST, effect="write", confirm=True)


def _budget(world: World, tools: ScriptedTools, approval: Approval) -> None:
    tools.each[2] = replace(POST, calls=7)


def _gone(world: World, tools: ScriptedTools, approval: Approval) -> None:
    tools.held, tools.each[2] = [("board.post", "suspended: it changed")], LOOK


def _bound(field: str, value: Any) -> Any:
    def swap(world: World, tools: ScriptedTools, approval: Approval) -> None:
        approval.action = {**approval.action, field: value}
        from runloopd.authority.approval import action_digest

        approval.action_digest = action_digest(approval.action, world.reader.blob(approval.content_blob))

    swap.__name__ = f"_{field}"
    return swap


@pytest.mark.requirement("C1")
@pytest.mark.parametrize(
    "swap",
    [
        _definition, _secret, _resource, _budget, _gone,
        _bound("agent", "reader"), _bound("bundle", "b" * 64), _bound("tool", "board.pin"),
        _bound("key", "k"), _bound("run", "r"), _bound("secrets", ["runloop/x/y"]),
    ],
    ids=lambda swap: swap.__name__.strip("_"),
)  # fmt: skip
async def test_whatever_was_bound_and_changed_after_the_yes_is_not_executed(
    world: World, tools: ScriptedTools, swap: Any
) -> None:
    task = begin(world, await world.caller(GRANTS), "board.post", to="all", text="x")
    approval = await decide(world)
    swap(world, tools, approval)
    world.clock.advance(5_000)
    answer = await within(task)
    assert answer.ok is False
    assert answer.value["code"] in {"approval.voided", "tool.suspended", "cap.denied"}
    assert tools.calls == []
    assert "hostcall.admitted" not in world.kinds()


@pytest.mark.requirement("C1")
async def test_the_bytes_that_are_shown_are_the_arguments_that_are_dispatched(
    world: World, tools: ScriptedTools
) -> None:
    task = begin(world, await world.caller(GRANTS), "board.post", to="all", text="x")
    approval = await asked(world)
    shown = __import__("json").loads(world.reader.blob(approval.content_blob))
    await decide(world)
    world.clock.advance(5_000)
    await within(task)
    ((_, args, _),) = tools.calls
    assert shown["arguments"] == shown["sends"]["arguments"] == args


async def test_a_right_that_is_revoked_while_a_person_thinks_stops_the_call(
    world: World, tools: ScriptedTools
) -> None:
    caller = await world.caller(GRANTS)
    task = begin(world, caller, "board.post", to="all", text="x")
    await decide(world)
    await world.mint.revoke(caller.token_id, "no more", actor="operator:1000")
    world.clock.advance(5_000)
    assert (await within(task)).ok is False
    assert tools.calls == []


KEY = "runloop/far/key"
SEND = offer("far.send", {"url": TEXT}, secrets=(KEY,))


@pytest.mark.requirement("I6.tools.8")
@pytest.mark.parametrize(
    ("url", "goes"),
    [
        ("https://far.example/x", True),
        ("https://FAR.example:443/y", True),
        ("http://127.0.0.1:8080/x", True),
        ("http://far.example/x", False),
        ("https://far.example:8443/x", False),
        ("https://far.example.evil.example/x", False),
        ("https://evil.example/far.example", False),
        ("https://far.example@evil.example/x", False),
        ("far", False),
        ("", False),
    ],
)
async def test_a_secret_goes_to_the_place_that_the_arguments_name_and_to_nobody_else(
    world: World, tools: ScriptedTools, url: str, goes: bool
) -> None:
    tools.each.append(SEND)
    world.vault.put(KEY, "hunter2-hunter2-hunter2")
    await world.book.state_set(KEY, "memory", ["far.example", "127.0.0.1:8080"], "operator:1000")
    caller = await world.caller(f'tools = ["far.send"]\nsecrets = ["{KEY}"]')
    task = begin(world, caller, "far.send", url=url)
    if not goes:
        assert (await within(task)).value["code"] == "tool.secrets"
        assert tools.calls == [] and world.payloads("action.requested") == []
        return
    await decide(world)
    world.clock.advance(5_000)
    assert (await within(task)).ok
    (used,) = world.payloads("secret.used")
    assert used.to == ("127.0.0.1:8080" if "127" in url else "far.example")
    ((_, _, context),) = tools.calls
    assert list(context.secrets) == [KEY]


# --- once -----------------------------------------------------------------------------------------


async def test_an_effect_that_is_on_record_is_not_done_again_by_a_later_attempt(
    world: World, tools: ScriptedTools
) -> None:
    first = await call(world, "notes.keep", path="/a", text="x")
    again = await call(world, "notes.keep", await world.caller(GRANTS, attempt=2), path="/a", text="x")
    assert first.value == again.value
    assert len(tools.calls) == 1


@pytest.mark.requirement("I6.tools.2")
@pytest.mark.parametrize(
    ("knows", "code", "calls"),
    [("unknown", "tool.unknown_outcome", 1), ("done", "tool.result", 1), ("absent", None, 2)],
)
async def test_after_a_crash_only_what_certainly_did_not_happen_is_done_again(
    world: World, tools: ScriptedTools, knows: Any, code: str | None, calls: int
) -> None:
    tools.gate = asyncio.Event()
    begin(world, await world.caller(GRANTS), "notes.keep", path="/a", text="x")
    await until(lambda: tools.calls)
    await crash(world)
    tools.gate, tools.knows = None, knows
    answer = await call(world, "notes.keep", await world.caller(GRANTS, attempt=2), path="/a", text="x")
    assert (None if answer.ok else answer.value["code"]) == code
    assert len(tools.calls) == calls
    if code is not None:
        assert world.payloads("tool.called")[-1].outcome == knows


@pytest.mark.requirement("I6.tools.2")
async def test_an_approved_effect_that_was_begun_and_not_finished_is_shown_and_never_repeated(
    world: World, tools: ScriptedTools
) -> None:
    tools.gate = asyncio.Event()
    begin(world, await world.caller(GRANTS), "board.post", to="all", text="x")
    await decide(world)
    world.clock.advance(5_000)
    await until(lambda: tools.calls)
    await crash(world)
    tools.gate = None
    for attempt in (2, 3):
        later = await world.caller(GRANTS, attempt=attempt)
        answer = await call(world, "board.post", later, to="all", text="x")
        assert answer.value["code"] == "tool.unknown_outcome"
        assert "may or may not have happened" in answer.value["message"]
    assert len(tools.calls) == 1
    assert len(world.payloads("action.requested")) == 1


async def test_what_failed_without_a_trace_is_done_by_a_retry_under_the_same_yes(
    world: World, tools: ScriptedTools
) -> None:
    tools.fails.append(ToolError("the board is closed", code="tool.unavailable", retryable=True))
    first = await approved(world, await world.caller(GRANTS), "board.post", to="all", text="x")
    assert (first.value["code"], first.value["retryable"]) == ("tool.unavailable", True)
    again = await call(world, "board.post", await world.caller(GRANTS, attempt=2), to="all", text="x")
    assert again.ok
    assert len(world.payloads("action.requested")) == 1
    assert [fact.outcome for fact in world.payloads("tool.called")] == ["absent", "done"]


async def test_what_was_done_with_a_result_of_no_use_is_not_done_again(
    world: World, tools: ScriptedTools
) -> None:
    tools.each[1] = offer(
        "notes.keep", {"path": TEXT, "text": TEXT}, effect="write", confirm=False,
        result_schema={"type": "string"},
    )  # fmt: skip
    for attempt in (1, 2):
        caller = await world.caller(GRANTS, attempt=attempt)
        answer = await call(world, "notes.keep", caller, path="/a", text="x")
        assert answer.value["code"] == "tool.result"
    assert len(tools.calls) == 1


async def test_what_a_tool_said_when_its_end_is_not_known_is_told_and_it_is_not_asked_again(
    world: World, tools: ScriptedTools
) -> None:
    tools.fails.append(ToolError("board.post failed: no such board", outcome="unknown"))
    first = await approved(world, await world.caller(GRANTS), "board.post", to="all", text="x")
    assert first.value["code"] == "tool.unknown_outcome"
    assert "no such board" in first.value["message"]
    again = await call(world, "board.post", await world.caller(GRANTS, attempt=2), to="all", text="x")
    assert again.value["code"] == "tool.unknown_outcome"
    assert len(tools.calls) == 1, "one yes is for once"


async def test_a_right_that_hangs_on_the_arguments_is_judged_before_anybody_is_asked(
    world: World, tools: ScriptedTools
) -> None:
    verdict = Verdict(allowed=False, capability="net", target="a.example", reason="not that board")
    tools.refuses.append(CapabilityError(verdict))
    answer = await call(world, "board.post", to="all", text="x")
    assert answer.value["code"] == "cap.denied"
    assert world.payloads("action.requested") == [] and tools.calls == []


async def test_a_tool_that_takes_too_long_is_left_and_its_effect_is_unknown(
    world: World, tools: ScriptedTools
) -> None:
    tools.gate = asyncio.Event()
    task = begin(world, await world.caller(GRANTS), "notes.keep", path="/a", text="x")
    await until(lambda: tools.calls)
    world.clock.advance(90_000)
    assert (await within(task)).value["code"] == "tool.unknown_outcome"
    read = begin(world, await world.caller(GRANTS), "notes.look", path="/a")
    await until(lambda: len(tools.calls) == 2)
    world.clock.advance(90_000)
    assert (await within(read)).value["code"] == "tool.timeout"


# --- the closed list of codes ---------------------------------------------------------------------

OF_THE_GATE = ("cap.", "net.", "budget.", "quota.", "approval.", "token.", "op.")


@pytest.mark.requirement("I6.tools.3")
@pytest.mark.parametrize(
    "error",
    [
        ToolError("no"),
        ToolError("no", code="tool.timeout"),
        ToolError("no", code="mcp.weird"),
        RuntimeError("secret detail"),
        ValueError(),
        KeyError("x"),
        OSError(5, "input/output error"),
        RecursionError(),
    ],
    ids=lambda error: f"{type(error).__name__}-{getattr(error, 'named_code', '')}",
)
@pytest.mark.parametrize("tool", ["notes.look", "notes.keep"])
async def test_no_other_code_leaves_the_gate_however_a_source_breaks(
    world: World, tools: ScriptedTools, tool: str, error: BaseException
) -> None:
    tools.fails.append(error)
    args = {"path": "/a"} if tool == "notes.look" else {"path": "/a", "text": "x"}
    answer = await call(world, tool, **args)
    assert answer.value["code"] in TOOL_CODES
    assert "secret detail" not in answer.value["message"]


@pytest.mark.parametrize(
    "value",
    [{1: 2}, {"x": object()}, float("nan"), 2**60, "a" * (1024 * 1024 + 1), "\ud800", b"bytes"],
    ids=["key", "object", "nan", "big", "long", "surrogate", "bytes"],
)
async def test_a_result_that_cannot_be_kept_is_an_error(
    world: World, tools: ScriptedTools, value: Any
) -> None:
    tools.answer = lambda name, args: value
    answer = await call(world, "notes.look", path="/a")
    assert answer.value["code"] == "tool.result"


@pytest.mark.parametrize("args", [{}, {"path": 1}, {"path": "/a", "more": 1}, {"path": "/a" * 40_000}])
async def test_arguments_that_do_not_fit_reach_nobody(
    world: World, tools: ScriptedTools, args: dict[str, Any]
) -> None:
    answer = await call(world, "notes.look", **args)
    assert answer.value["code"] == "tool.args"
    assert tools.calls == []


# --- budgets --------------------------------------------------------------------------------------


async def test_an_offer_is_called_as_often_as_it_says_and_the_quota_of_calls_counts_it(
    world: World, tools: ScriptedTools
) -> None:
    tools.each[0] = replace(LOOK, calls=2)
    caller = await world.caller(GRANTS)
    codes = [(await call(world, "notes.look", caller, path=f"/{n}")).ok for n in range(3)]
    assert codes == [True, True, False]
    (exceeded,) = world.payloads(QuotaExceeded.kind)
    assert (exceeded.resource, exceeded.limit) == ("tool.notes.look", 2)


async def test_the_agents_quota_of_calls_ends_its_calls_of_tools(world: World, tools: ScriptedTools) -> None:
    world.quotas = quotas(calls=2)
    await world.restart()
    caller = await world.caller(GRANTS)
    answers = [await call(world, "notes.look", caller, path=f"/{n}") for n in range(3)]
    assert answers[2].value["code"] == "quota.exceeded"


# --- standing grants (attacks.md C2, C3) ----------------------------------------------------------


async def always(world: World) -> None:
    """A person allows what is asked for, for good."""
    approval = await asked(world)
    await world.standing.give(OPERATOR, approval, approval.action_digest, approval.action["tool"])
    await decide(world)
    world.clock.advance(5_000)


async def allowed(world: World, caller: Caller, tool: str = "board.post", **args: Any) -> bool:
    """Whether a call goes through without a question."""
    args = args or {"to": "all", "text": "again"}
    before = len(world.payloads("action.requested"))
    task = begin(world, caller, tool, **args)
    await until(lambda: task.done() or len(world.payloads("action.requested")) > before)
    if task.done():
        return task.result().ok
    await decide(world, "deny")
    await within(task)
    return False


@pytest.mark.requirement("I6.tools.4")
async def test_what_is_allowed_for_good_is_not_asked_again_also_after_a_restart(
    world: World, tools: ScriptedTools
) -> None:
    caller = await world.caller(GRANTS)
    task = begin(world, caller, "board.post", to="all", text="x")
    await always(world)
    assert (await within(task)).ok
    assert await allowed(world, caller, to="all", text="other words")
    await world.restart()
    assert await allowed(world, await world.caller(GRANTS, attempt=2), to="all", text="more words")
    done = world.payloads("tool.called")
    assert [fact.grant is not None for fact in done] == [False, True, True]


@pytest.mark.requirement("I6.tools.4")
async def test_a_grant_is_for_one_resource_one_tool_one_definition_one_agent_and_one_bundle(
    world: World, tools: ScriptedTools
) -> None:
    caller = await world.caller(GRANTS)
    task = begin(world, caller, "board.post", to="all", text="x")
    await always(world)
    await within(task)
    assert not await allowed(world, caller, to="some", text="x")
    other = await world.caller(GRANTS, node="other", agent="reader")
    assert not await allowed(world, other)
    tools.each[2] = replace(POST, definition="e" * 64)
    assert not await allowed(world, caller, to="all", text="y")
    tools.each[2] = replace(POST, effect="write", confirm=True, definition="d" * 64)
    assert await allowed(world, caller, to="all", text="z"), "recorded as the same effect"


@pytest.mark.requirement("C2")
async def test_a_grant_is_not_for_a_tool_that_is_lent_a_secret_since(
    world: World, tools: ScriptedTools
) -> None:
    grants = f'{GRANTS}\nsecrets = ["runloop/other/key"]'
    world.vault.put("runloop/other/key", "hunter2-hunter2-hunter2")
    tools.each[2] = offer("mcp.board.post", {"to": TEXT}, source="mcp", definition="d" * 64)
    grants = grants.replace('"board.post"', '"mcp.board.post"')
    await world.book.state_set("runloop/other/key", "memory", ["mcp:board"], "operator:1000")
    caller = await world.caller(grants)
    task = begin(world, caller, "mcp.board.post", to="all")
    await always(world)
    await within(task)
    assert await allowed(world, caller, "mcp.board.post", to="all")
    tools.each[2] = replace(tools.each[2], secrets=("runloop/other/key",))
    assert not await allowed(world, caller, "mcp.board.post", to="all")


@pytest.mark.requirement("C2")
async def test_two_scopes_with_one_id_are_two(
    world: World, tools: ScriptedTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id has 64 bits: an agent that chooses both its calls could look for two that share one."""
    monkeypatch.setattr(Scope, "name", property(lambda _: "gr_0123456789abcdef"))
    caller = await world.caller(GRANTS)
    task = begin(world, caller, "board.post", to="all", text="x")
    await always(world)
    await within(task)
    assert await allowed(world, caller, to="all", text="y")
    assert not await allowed(world, caller, to="everybody else", text="y")
    begin(world, caller, "board.post", to="everybody else", text="y")
    approval = await asked(world)
    with pytest.raises(RefusedError, match="has the id"):
        await world.standing.give(OPERATOR, approval, approval.action_digest, approval.action["tool"])
    (kept,) = world.standing.list()
    assert kept.scope.resource == 'board.post {"to":"all"}'


async def test_a_grant_that_is_taken_back_is_asked_for_again(world: World, tools: ScriptedTools) -> None:
    caller = await world.caller(GRANTS)
    task = begin(world, caller, "board.post", to="all", text="x")
    await always(world)
    await within(task)
    (grant,) = world.standing.list()
    await world.standing.revoke(OPERATOR, grant.id, "enough")
    assert not await allowed(world, caller)
    await world.restart()
    assert world.standing.list() == []


@pytest.mark.requirement("C12")
async def test_nothing_is_admitted_under_a_grant_after_it_was_taken_back(
    world: World, tools: ScriptedTools
) -> None:
    caller = await world.caller(GRANTS)
    task = begin(world, caller, "board.post", to="all", text="x")
    await always(world)
    await within(task)
    (grant,) = world.standing.list()
    before = world.events()[-1].id
    storm = [begin(world, caller, "board.post", to="all", text=str(n)) for n in range(40)]
    await until(lambda: len(tools.calls) > 3)
    await world.standing.revoke(OPERATOR, grant.id)
    await until(lambda: all(t.done() for t in storm) or len(world.approvals.list()) > 0)
    for approval in world.approvals.list():
        await world.approvals.decide(OPERATOR, approval.id, approval.action_digest, "deny", "")
    await until(lambda: all(t.done() for t in storm) or not world.approvals.list())
    (revoked,) = world.events("grant.revoked")
    marks = [event.id for event in world.events("hostcall.admitted") if event.id > before]
    assert marks and max(marks) < revoked.id, "all of them are from before"


WRAPPERS = [
    "ls", "sh -c ls", "env -S 'ls -l'", "ls | sh", "$(ls)", "`ls`", "ls; rm -rf /", "sudo ls", "xargs ls",
    "python3 -c 'print(1)'",
]  # fmt: skip


@pytest.mark.requirement("C2")
@pytest.mark.parametrize("wrapper", WRAPPERS)
async def test_a_grant_does_not_match_a_resource_with_something_around_it(
    world: World, tools: ScriptedTools, wrapper: str
) -> None:
    caller = await world.caller(GRANTS)
    task = begin(world, caller, "board.post", to="ls -l", text="x")
    await always(world)
    await within(task)
    assert await allowed(world, caller, to="ls -l", text="y")
    assert not await allowed(world, caller, to=wrapper, text="y")


@pytest.mark.requirement("C2")
@pytest.mark.parametrize("line", WRAPPERS)
async def test_no_grant_is_given_for_what_runs_commands(
    world: World, tools: ScriptedTools, line: str
) -> None:
    begin(world, await world.caller(GRANTS), "shell.run", line=line)
    approval = await asked(world)
    with pytest.raises(Exception, match="cannot be allowed for good") as caught:
        await world.standing.give(OPERATOR, approval, approval.action_digest, approval.action["tool"])
    assert caught.value.named_code == "grant.refused"  # type: ignore[attr-defined]
    assert world.payloads("grant.given") == []


async def test_only_an_operator_gives_and_revokes_and_only_what_was_shown(
    world: World, tools: ScriptedTools
) -> None:
    begin(world, await world.caller(GRANTS), "board.post", to="all", text="x")
    approval = await asked(world)
    for principal, digest in ((PEER, approval.action_digest), (OPERATOR, "0" * 64)):
        with pytest.raises(Exception):  # noqa: B017 - two families, one meaning
            await world.standing.give(principal, approval, digest, approval.action["tool"])
    for said in ("", "yes", "board.pos", "board.*"):
        with pytest.raises(RefusedError, match="typed out"):
            await world.standing.give(OPERATOR, approval, approval.action_digest, said)
    assert world.standing.list() == []
    await world.standing.give(OPERATOR, approval, approval.action_digest, approval.action["tool"])
    (grant,) = world.standing.list()
    with pytest.raises(Exception, match="only the operator"):
        await world.standing.revoke(PEER, grant.id)
    assert len(world.standing.list()) == 1


SPELLINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"path": "/a/b", "text": "x"}, {"text": "x", "path": "/a/b"}),
    ({"path": "/a/b", "text": "x"}, {"path": "//a/./b/", "text": "x"}),
    ({"path": "caf\u00e9", "text": "x"}, {"path": "cafe\u0301", "text": "x"}),
]


@pytest.mark.requirement("C3")
@pytest.mark.parametrize(("first", "second"), SPELLINGS, ids=["keys", "path", "unicode"])
async def test_one_action_in_two_spellings_is_one_prompt_and_one_match(
    world: World, tools: ScriptedTools, first: dict[str, Any], second: dict[str, Any]
) -> None:
    tools.each[1] = replace(KEEP, confirm=True)
    caller = await world.caller(GRANTS)
    task = begin(world, caller, "notes.keep", **first)
    await always(world)
    await within(task)
    assert await allowed(world, caller, "notes.keep", **second)
    assert len(world.payloads("action.requested")) == 1
    assert tools.calls[0][1]["path"] == tools.calls[1][1]["path"], "one form is dispatched"


@pytest.mark.requirement("C3")
@pytest.mark.parametrize(
    ("first", "second"),
    [("/caf\u00e9", "/cafe\u0301"), ("/a/b", "/a/B"), ("/a/b", "/a/b "), ("/a", "/a\u200b")],
    ids=["unicode", "case", "blank", "zero-width"],
)
async def test_two_files_are_two_prompts_however_alike_they_look(
    world: World, tools: ScriptedTools, first: str, second: str
) -> None:
    tools.each[1] = replace(KEEP, confirm=True)
    caller = await world.caller(GRANTS)
    task = begin(world, caller, "notes.keep", path=first, text="x")
    await always(world)
    await within(task)
    assert not await allowed(world, caller, "notes.keep", path=second, text="x")


async def test_a_path_that_leads_upwards_is_no_spelling_of_another(
    world: World, tools: ScriptedTools
) -> None:
    answer = await call(world, "notes.keep", path="/a/../b", text="x")
    assert answer.value["code"] == "tool.args"
    assert tools.calls == []


# --- whom the answer is trusted as ----------------------------------------------------------------


async def test_a_result_is_labelled_for_its_tool_or_as_its_source_says(
    world: World, tools: ScriptedTools
) -> None:
    await call(world, "notes.look", path="/a")
    tools.label = "import:mail"
    await call(world, "notes.look", path="/b")
    labels = [event.provenance.label for event in world.events("hostcall.delivered")]
    assert labels == ["tool:notes.look", "import:mail"]
