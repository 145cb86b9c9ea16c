"""Calls that take several rounds (``InputRequiredResult``), against a server of the official SDK."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from runloopd.broker.mcp.bridge.serving import MAX_QUESTIONS
from runloopd.broker.mcp.spec import ServerSpec
from runloopd.broker.toolbox import TOOL_CODES, ToolError
from tests.contract.mcp_rounds import STATE
from tests.unit.broker.world import OPERATOR

from .conftest import PYTHON, SERVER, VENV, Mcp

ROUNDS = SERVER.parent / "mcp_rounds.py"


class Rounds:
    """The server, and what it has heard."""

    def __init__(self, mcp: Mcp, folder: Path) -> None:
        self.mcp = mcp
        self.notes = folder / "notes.jsonl"
        folder.mkdir()
        self.spec = ServerSpec(
            argv=(str(VENV / "bin" / "python"), str(ROUNDS), str(self.notes)),
            ro=(*PYTHON, str(ROUNDS.parent)),
            rw=(str(folder),),
        )

    def heard(self, tool: str) -> list[str | None]:
        """The state of each round of a tool."""
        lines = map(json.loads, self.notes.read_text().splitlines())
        return [line["state"] for line in lines if line["tool"] == tool]

    async def asked(self, call: asyncio.Task[Any]) -> Any:
        """The one question that waits for a person."""
        async with asyncio.timeout(20):
            while not (found := self.mcp.world.promises.waiting()):
                await asyncio.wait([call], timeout=0.02)
                assert not call.done(), call
        (promise,) = found
        return promise

    async def answer(self, promise: Any, value: str) -> None:
        await self.mcp.world.promises.resolve(promise.id, value, OPERATOR.label)


@pytest.fixture
async def rounds(mcp: Mcp, tmp_path: Path) -> Rounds:
    made = Rounds(mcp, tmp_path / "rounds")
    await mcp.ready(made.spec, "rounds")
    return made


@pytest.mark.requirement("I6.mcp.3", "I6.mcp.5", "I6.mcp.8", "I6.mcp.10", "M12", "C11")
async def test_rounds_ask_people_only_for_what_may_be_asked_and_end(rounds: Rounds) -> None:
    """One test, for a server of the SDK takes three seconds to start."""
    assert rounds.mcp.keeper.show("rounds")["protocol"] == "2026-07-28"
    await each_round_asks_a_person_and_the_state_goes_back_to_the_server(rounds)
    await a_password_in_a_later_round_is_declined_before_anybody_sees_it(rounds)
    await a_round_that_asks_for_a_model_or_for_folders_gets_neither(rounds)
    await a_server_that_always_wants_another_round_is_stopped(rounds)
    await rounds.mcp.close()
    written = b"".join(path.read_bytes() for path in rounds.mcp.world.home.rglob("*") if path.is_file())
    assert b"Which colour?" in written
    assert STATE.encode() not in written, "the state of a call never leaves the bridge"


async def each_round_asks_a_person_and_the_state_goes_back_to_the_server(rounds: Rounds) -> None:
    call = asyncio.create_task(rounds.mcp.text("mcp.rounds.tours"))
    first = await rounds.asked(call)
    assert "the MCP server rounds asks, while tours runs: Which colour?" in first.question
    await rounds.answer(first, "red")
    second = await rounds.asked(call)
    assert "How large, in red?" in second.question and [*second.choices] == ["small", "large"]
    await rounds.answer(second, "large")
    assert await call == "red large"
    states = rounds.heard("tours")
    assert states[0] is None and [json.loads(state or "")["round"] for state in states[1:]] == [1, 2]
    assert all(STATE in (state or "") for state in states[1:]), "as the server made it"


async def a_password_in_a_later_round_is_declined_before_anybody_sees_it(rounds: Rounds) -> None:
    before = [one.id for one in rounds.mcp.world.promises.waiting(all=True)]
    call = asyncio.create_task(rounds.mcp.text("mcp.rounds.phishes"))
    first = await rounds.asked(call)
    await rounds.answer(first, "red")
    assert await call == "decline"
    assert [one.id for one in rounds.mcp.world.promises.waiting(all=True)] == [*before, first.id]


async def a_round_that_asks_for_a_model_or_for_folders_gets_neither(rounds: Rounds) -> None:
    with pytest.raises(ToolError) as caught:
        await rounds.mcp.call("mcp.rounds.steals")
    assert caught.value.named_code in TOOL_CODES
    assert rounds.heard("steals") == [None], "nobody answered, so there was no second round"
    assert rounds.mcp.world.models.calls == [] and rounds.mcp.world.promises.waiting() == []


async def a_server_that_always_wants_another_round_is_stopped(rounds: Rounds) -> None:
    with pytest.raises(ToolError) as caught:
        await rounds.mcp.call("mcp.rounds.forever")
    assert caught.value.named_code in TOOL_CODES
    assert len(rounds.heard("forever")) <= MAX_QUESTIONS + 1
    assert rounds.mcp.world.promises.waiting() == []
