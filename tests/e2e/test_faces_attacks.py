"""Every front end is the same door: what is forbidden, what changes after a yes (attacks.md C1, C9)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import acp
import mcp
import pytest
from acp import schema

from runloop.client import BlockingClient
from runloop.errors import RunloopError
from runloop.events import ActionDecided, RunStarted
from tests.e2e.test_a2a import MAIL, WANTED, Client, served, state, words
from tests.e2e.test_acp import Editor, drive, yes
from tests.e2e.test_attacks import connect
from tests.e2e.test_faults import HOSTILE, install, opening
from tests.e2e.test_serving import stdio, structured
from tests.home import BIN, ROOT, Home, wait_until


def through_mcp(home: Home, tool: str, args: dict[str, Any]) -> dict[str, Any]:
    async def play() -> dict[str, Any]:
        exposed = ("opening:compose_email", "opening:hostile")
        async with mcp.Client(stdio(home, *exposed), mode="auto") as client:
            return structured(await client.call_tool(tool, args))

    return asyncio.run(play())


def through_acp(home: Home, text: str) -> Editor:
    editor = Editor(yes)

    async def play(agent: Any) -> None:
        session = (await agent.new_session(cwd=str(home.path), mcp_servers=[])).session_id
        await agent.prompt(session_id=session, prompt=[acp.text_block(text)])

    drive(home, editor, play)
    return editor


@pytest.mark.requirement("C1", "C9", "I6.faces.12")
def test_what_is_forbidden_is_so_through_every_face_and_what_changes_after_a_yes_is_not_done(
    home: Home,
) -> None:
    home.env["RUNLOOP__SECURITY__UNDO_WINDOW_MS"] = "600000"
    home.rlp("import", str(ROOT / "docs/examples/contacts.vcf")).check()
    install(home, "loops", HOSTILE["loops"])  # nobody vouches for it
    (home.path / "openings").mkdir()
    path = opening(home.path / "openings" / "hostile.yaml", "loops")
    path.write_text(path.read_text() + "goals: ['stir the big pot of soup']\n")
    token = home.rlp("mcp", "serve", "--new-token", "desk").check().out.strip()
    home.rlp("mcp", "expose", "opening:compose_email", "opening:hostile").check()

    # One forbidden call, one verdict: command, raw frames, MCP, an editor, an agent.
    verdict = home.rlp("run", "hostile", "--no-input", "--json").check(4).ndjson[-1]["error"]["code"]
    with connect(home, operator=True) as raw:
        wanted = {"client": "desk", "source": path.read_text(), "name": "hostile"}
        assert refused_by(raw, "face.submit", wanted) == verdict
    assert through_mcp(home, "opening_hostile", {})["error"]["code"] == verdict
    message = home.rlp("run", "hostile", "--no-input", "--json").ndjson[-1]["error"]["message"]
    said = through_acp(home, "stir the big pot of soup").said(schema.AgentMessageChunk)
    assert message in said
    with served(home) as url:
        desk = Client(url, token)
        refused = desk.send({"data": {}}, metadata={"skill": "opening_hostile"})["task"]
        assert state(refused) == "REJECTED" and verdict in json.dumps(refused)
        (streamed,) = desk.stream(
            "SendStreamingMessage", message=words({"data": {}}, metadata={"skill": "opening_hostile"})
        )
        assert state(streamed["task"]) == "REJECTED"
        assert home.events("run.started") == []

        # A mail of each; the person says yes to all of them, in the terminal and in the editor.
        through_mcp(home, "opening_compose_email", WANTED)
        desk.send({"data": WANTED}, metadata=MAIL)
    for waiting in home.rlp("approvals", "--json").check().ndjson:
        home.rlp("approve", waiting["approval"]).check()
    asked = asyncio.run(_yes_in_the_editor(home))
    assert "john.carter@example.org" in asked
    started = [e.payload for e in home.events("run.started")]
    names = [one.principal for one in started if isinstance(one, RunStarted)]
    assert names == ["face:editor", "face:desk", "face:acp:editor"]
    runs = [event.run for event in home.events("run.started")]
    with connect(home, operator=True) as raw:  # the daemon too lets nobody cancel in another's name
        for run in (*runs, "nobody"):
            assert refused_by(raw, "face.cancel", {"client": "other", "run": run}) == "face.run"
    assert home.events("run.cancel_requested") == []
    home.kill()

    home.env |= {"RUNLOOP__SECURITY__UNDO_WINDOW_MS": "0", "RUNLOOP__MAIL__FROM": "somebody.else@example.org"}
    home.rlp("daemon", "start").check()

    def voided() -> bool:
        decided = [e.payload for e in home.events("action.decided")]
        return [one.decision for one in decided if isinstance(one, ActionDecided)].count("voided") == 3

    wait_until(voided, "each run to come back to its mail")
    home.rlp("daemon", "stop").check()
    assert home.outbox() == [] and home.events("email.sent") == home.events("action.claimed") == []


def refused_by(client: BlockingClient, method: str, params: dict[str, Any]) -> str:
    with pytest.raises(RunloopError) as caught:
        client.call(method, params)
    return caught.value.named_code


async def _yes_in_the_editor(home: Home) -> str:
    """Approve there, and leave before the undo window is over; what was shown."""
    editor = Editor(yes)
    async with acp.spawn_agent_process(editor, str(BIN / "rlp"), "acp", env=home.env) as (agent, _):  # type: ignore[arg-type]
        await agent.initialize(protocol_version=acp.PROTOCOL_VERSION)
        session = (await agent.new_session(cwd=str(home.path), mcp_servers=[])).session_id
        turn = asyncio.create_task(
            agent.prompt(session_id=session, prompt=[acp.text_block("write an email to john about Q4 plan")])
        )
        await asyncio.to_thread(wait_until, lambda: len(home.events("action.decided")) == 3, "the third yes")
        turn.cancel()
    ((call, _),) = editor.asked
    assert call.content is not None
    return "\n".join(part.content.text for part in call.content)  # type: ignore[union-attr]
