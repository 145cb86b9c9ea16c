"""One rule about what became of a call, whoever answered: done is what was said to be done."""

from __future__ import annotations

from typing import Any

import pytest

from runloopd.broker.mcp.results import called
from runloopd.broker.ports import Outcome
from runloopd.broker.tool_results import MAX_RESULT_BYTES, result_of, unkeepable
from runloopd.broker.tool_testing import ScriptedTools, offer
from runloopd.broker.toolbox import ToolError, ToolResult

from .test_offers import approved
from .world import World

LONG = "x" * MAX_RESULT_BYTES
UNFIT = {"long": LONG, "number": 2**60, "surrogate": "\ud800"}


@pytest.mark.parametrize("value", UNFIT.values(), ids=UNFIT)
async def test_a_result_that_cannot_be_kept_is_of_something_that_was_done(value: Any) -> None:
    async def work() -> ToolResult:
        return ToolResult(value=value)

    assert unkeepable(value) is not None and unkeepable("x" * (MAX_RESULT_BYTES - 2)) is None
    with pytest.raises(ToolError) as ours:
        await result_of(work(), "board.post")
    with pytest.raises(ToolError) as theirs:
        called("board", "post", {"content": [], "structuredContent": {"x": value}})
    for error in (ours.value, theirs.value):
        assert (error.named_code, error.outcome) == ("tool.result", "done")


@pytest.mark.parametrize(
    ("answer", "code", "outcome"),
    [
        ({"content": [{"type": "text", "text": "no"}], "isError": True}, "tool.failed", "unknown"),
        ({"isError": True}, "tool.failed", "unknown"),
        ("no result", "tool.result", "unknown"),
        ({"content": "none"}, "tool.result", "unknown"),
    ],
    ids=["failed", "silent", "text", "shape"],
)
def test_what_does_not_say_that_it_was_done_or_refused_may_have_been_done(
    answer: Any, code: str, outcome: Outcome
) -> None:
    with pytest.raises(ToolError) as caught:
        called("board", "post", answer)
    assert (caught.value.named_code, caught.value.outcome) == (code, outcome)


@pytest.mark.parametrize(
    ("error", "code", "recorded"),
    [
        (ToolError("too much", code="tool.result", outcome="done"), "tool.result", "done"),
        (ToolError("no such board", outcome="unknown"), "tool.unknown_outcome", "unknown"),
        (ToolError("it is closed", outcome="absent"), "tool.failed", "absent"),
    ],
    ids=["done", "unknown", "absent"],
)
@pytest.mark.requirement("I6.tools.2")
async def test_what_became_of_a_call_is_on_record_as_its_source_says(
    world: World, error: ToolError, code: str, recorded: Outcome
) -> None:
    source = ScriptedTools([offer("mcp.board.post", {"to": {"type": "string"}}, source="mcp")], fails=[error])
    world.sources.append(source)
    await world.restart()
    caller = await world.caller('tools = ["mcp.board.post"]')
    answer = await approved(world, caller, "mcp.board.post", to="all")
    assert answer.value["code"] == code
    assert [(fact.outcome, fact.code) for fact in world.payloads("tool.called")] == [(recorded, code)]
