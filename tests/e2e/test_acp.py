"""An editor drives Runloop: the client side of the official library, the installed command on its pipes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import acp
import pytest
from acp import schema
from acp.exceptions import RequestError

from runloop.events import ActionDecided, RunStarted
from tests.contract.scripted_model import ScriptedModel, call, say
from tests.home import BIN, ROOT, Home, wait_until

Choose = Callable[[schema.ToolCallUpdate, list[schema.PermissionOption]], str | None]


class Editor:
    """The editor's side: it keeps what it is told, and answers as the test says."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.updates: list[Any] = []
        self.asked: list[tuple[schema.ToolCallUpdate, list[schema.PermissionOption]]] = []
        self.working = asyncio.Event()

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        self.updates.append(update)
        if isinstance(update, schema.ToolCallStart):
            self.working.set()

    async def request_permission(
        self, session_id: str, tool_call: Any, options: list[schema.PermissionOption], **_: Any
    ) -> schema.RequestPermissionResponse:
        self.asked.append((tool_call, options))
        chosen = self.choose(tool_call, options)
        outcome: Any = (
            schema.DeniedOutcome(outcome="cancelled")
            if chosen is None
            else schema.AllowedOutcome(outcome="selected", option_id=chosen)
        )
        return schema.RequestPermissionResponse(outcome=outcome)

    def said(self, kind: type) -> str:
        """The words of all updates of a kind."""
        return "".join(one.content.text for one in self.updates if isinstance(one, kind))


def drive(home: Home, editor: Editor, play: Callable[[Any], Any]) -> Any:
    async def go() -> Any:
        client: Any = editor
        async with acp.spawn_agent_process(client, str(BIN / "rlp"), "acp", env=home.env) as (agent, _):
            await agent.initialize(protocol_version=acp.PROTOCOL_VERSION)
            return await asyncio.wait_for(play(agent), 90)

    return asyncio.run(go())


def yes(_: schema.ToolCallUpdate, options: list[schema.PermissionOption]) -> str:
    return next(one.option_id for one in options if one.kind == "allow_once")


MAIL = "write an email to john about Q4 plan"


@pytest.mark.requirement("I6.faces.5", "I6.faces.6", "C9")
def test_an_editor_sees_the_exact_mail_and_only_the_option_it_was_offered_is_a_yes(home: Home) -> None:
    home.rlp("import", str(ROOT / "docs/examples/contacts.vcf")).check()
    offered: list[str] = []

    def invented(_: schema.ToolCallUpdate, options: list[schema.PermissionOption]) -> str:
        offered.extend(one.option_id for one in options)
        return "allow" if len(offered) == 2 else offered[0]  # a word of its own; then the yes of another mail

    for _ in range(2):
        editor = Editor(invented)

        async def once(agent: Any) -> str:
            session = (await agent.new_session(cwd=str(home.path), mcp_servers=[])).session_id
            ended = await agent.prompt(session_id=session, prompt=[acp.text_block(MAIL)])
            return str(ended.stop_reason)

        assert drive(home, editor, once) == "end_turn"
        assert len(editor.asked) == 1
    decided = [e.payload for e in home.events("action.decided")]
    assert [one.decision for one in decided if isinstance(one, ActionDecided)] == ["denied", "denied"]
    assert not list((home.path / "outbox").rglob("*.eml"))

    editor = Editor(yes)
    sessions: list[str] = []

    async def approve(agent: Any) -> None:
        sessions.append((await agent.new_session(cwd=str(home.path), mcp_servers=[])).session_id)
        await agent.prompt(session_id=sessions[0], prompt=[acp.text_block(MAIL)])

    drive(home, editor, approve)
    tool, options = editor.asked[0]
    text = tool.content[0].content.text
    assert "john.carter@example.org" in text and "Q4 plan" in text and "bundle" in text
    assert [one.kind for one in options] == ["allow_once", "reject_once"]  # never for good
    last = home.events("action.decided")[-1].payload
    assert isinstance(last, ActionDecided) and last.decision == "approved"
    assert last.principal.startswith("operator:")
    plans = [one for one in editor.updates if isinstance(one, schema.AgentPlanUpdate)]
    assert [entry.status for entry in plans[-1].entries] == ["completed"] * 5
    assert any(
        isinstance(one, schema.ToolCallProgress) and one.status == "completed" for one in editor.updates
    )
    started = home.events("run.started")[-1].payload
    assert isinstance(started, RunStarted)
    assert started.origin["via"] == f"acp:{sessions[0]}" and started.origin["prompt"] == MAIL

    # Another editor, later: the conversation is told again from the ledger.
    later = Editor(yes)

    async def load(agent: Any) -> Any:
        listed = await agent.list_sessions()
        await agent.load_session(cwd=str(home.path), session_id=sessions[0], mcp_servers=[])
        with pytest.raises(RequestError):
            await agent.load_session(cwd=str(home.path), session_id="ses_0", mcp_servers=[])
        return listed

    listed = drive(home, later, load)
    assert sessions[0] in {one.session_id for one in listed.sessions}
    assert later.said(schema.UserMessageChunk) == MAIL


@pytest.mark.requirement("I6.faces.5", "I6.faces.7")
def test_a_wish_streams_its_answer_escaped_and_a_denied_line_and_a_cancel_end_the_turn(home: Home) -> None:
    words = "All is well.\x1b]52;c;ZXZpbA==\x07 \u202edone"
    script: dict[str, list[Any]] = {
        "": [say(words)],
        "colour": [call("ask_user", question="Which?", choices=["red", "blue"]), lambda a: say(a.last.text)],
    }
    with ScriptedModel(script) as model:
        home.env.update(model.env())
        editor = Editor(yes)

        async def talk(agent: Any) -> list[str]:
            session = (await agent.new_session(cwd=str(home.path), mcp_servers=[])).session_id
            reasons = []
            for text in ("tell me how things are today, please", "rm -rf /"):
                ended = await agent.prompt(session_id=session, prompt=[acp.text_block(text)])
                reasons.append(str(ended.stop_reason))
            with pytest.raises(RequestError):
                await agent.prompt(session_id="ses_nobody", prompt=[acp.text_block("hello")])
            return reasons

        assert drive(home, editor, talk) == ["end_turn", "refusal"]
        said = editor.said(schema.AgentMessageChunk)
        assert "All is well." in said and "\\x1b]52" in said and "\\u202e" in said
        assert not {"\x1b", "\x07", "\u202e"} & set(said)
        assert len(home.events("run.started")) == 1  # the denied line began nothing

        # A question of the agent ends the turn; the next prompt is its answer, and the same run goes on.
        asked = Editor(yes)

        async def answer(agent: Any) -> None:
            session = (await agent.new_session(cwd=str(home.path), mcp_servers=[])).session_id
            for text in ("find me a colour for the wall, please", "blue"):
                await agent.prompt(session_id=session, prompt=[acp.text_block(text)])

        drive(home, asked, answer)
        assert "Which?\nred, blue" in asked.said(schema.AgentMessageChunk)
        assert '"result":"blue"' in asked.said(schema.AgentMessageChunk)
        assert len(home.events("run.started")) == 2

    cancelling = Editor(lambda _, __: None)
    home.rlp("import", str(ROOT / "docs/examples/contacts.vcf")).check()

    async def stop(agent: Any) -> str:
        session = (await agent.new_session(cwd=str(home.path), mcp_servers=[])).session_id
        turn = asyncio.create_task(agent.prompt(session_id=session, prompt=[acp.text_block(MAIL)]))
        await cancelling.working.wait()
        await agent.cancel(session_id=session)
        return str((await turn).stop_reason)

    assert drive(home, cancelling, stop) == "cancelled"
    wait_until(lambda: len(home.events("run.finished")) == 3, "the run to be cancelled")
    assert home.events("run.finished")[-1].payload.outcome == "cancelled"  # type: ignore[attr-defined]
