"""Runloop as an agent in an editor: sessions, prompts, what goes on, and questions to the person there.

Knows: how the protocol's questions become runs and a run's events become updates. Does not know: what a
prompt means (the router), how anything is done, or who may do it. The person at the editor is the user
whose daemon this is: an answer of theirs is sent as their own decision, bound to the very bytes that were
shown. Only the option that was offered for those bytes is a yes; whatever else comes back is none (attacks.md
C4, C9).
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from dataclasses import dataclass, field
from typing import Any

import acp
from acp import schema

from rlp.serving.conversation import Conversation, Editor, Said, earlier, sessions, shown
from rlp.serving.link import Link
from runloop import __version__
from runloop.errors import RunloopError
from runloop.escape import visible

__all__ = ["EditorAgent"]

MAX_PROMPT = 32_768
MAX_SESSIONS = 64
MAX_FILES = 100
"""Of one prompt, named to the assistant."""


@dataclass
class _Open:
    """A session of this process."""

    cwd: str
    talk: Conversation
    gone: threading.Event = field(default_factory=threading.Event)
    busy: bool = False


class EditorAgent:
    """The protocol's agent side. Everything that waits for the daemon does so in a thread of the link's."""

    def __init__(self, link: Link, client: str = "editor") -> None:
        """``client``: what the editor is called on record."""
        self._link = link
        self._name = client
        self._client: acp.Client | None = None
        self._open: dict[str, _Open] = {}

    def on_connect(self, conn: acp.Client) -> None:
        """Called by the library with the other side."""
        self._client = conn

    async def initialize(self, protocol_version: int, **_: Any) -> schema.InitializeResponse:
        """What we are, and what we can do."""
        return schema.InitializeResponse(
            protocol_version=min(protocol_version, acp.PROTOCOL_VERSION),
            agent_capabilities=schema.AgentCapabilities(
                load_session=True,
                session_capabilities=schema.SessionCapabilities(list=schema.SessionListCapabilities()),
            ),
            agent_info=schema.Implementation(name="runloop", version=__version__),
        )

    async def authenticate(self, method_id: str, **_: Any) -> schema.AuthenticateResponse:
        """Nobody need prove anything: whoever started us is the user."""
        return schema.AuthenticateResponse()

    async def new_session(self, cwd: str, **_: Any) -> schema.NewSessionResponse:
        """A conversation of its own. No server an editor names is let in: that is the user's to say."""
        name = f"ses_{secrets.token_hex(8)}"
        self._begin(name, cwd)
        return schema.NewSessionResponse(session_id=name)

    async def load_session(self, cwd: str, session_id: str, **_: Any) -> schema.LoadSessionResponse:
        """Tell again, from the ledger, what was asked and answered."""
        try:
            told = await self._link.ask(lambda session: earlier(session, session_id))
        except RunloopError as error:
            raise acp.RequestError.invalid_params({"reason": error.message}) from error
        self._begin(session_id, cwd)
        for turn in told:
            await self._say(session_id, acp.update_user_message_text(shown(turn.asked)))
            if turn.answered:
                await self._say(session_id, acp.update_agent_message_text(shown(turn.answered)))
        return schema.LoadSessionResponse()

    async def list_sessions(self, **_: Any) -> schema.ListSessionsResponse:
        """The newest conversations of editors."""
        found = await self._link.ask(sessions)
        return schema.ListSessionsResponse(
            sessions=[
                schema.SessionInfo(session_id=one.name, cwd=one.cwd, title=shown(one.title)[:200])
                for one in found
            ]
        )

    async def prompt(self, session_id: str, prompt: list[Any], **_: Any) -> schema.PromptResponse:
        """Do what is asked, and tell what goes on; one thing at a time."""
        mine = self._open.get(session_id)
        if mine is None:
            raise acp.RequestError.invalid_params({"reason": "there is no such session; begin or load one"})
        if mine.busy:
            raise acp.RequestError.invalid_request({"reason": "this session is at work; cancel it first"})
        said = _said(prompt)
        if not said.text.strip() or len(said.text) > MAX_PROMPT:
            raise acp.RequestError.invalid_params(
                {"reason": f"a prompt is text of 1 to {MAX_PROMPT} characters"}
            )
        mine.busy, mine.gone = True, threading.Event()
        gone, left = mine.gone, threading.Event()
        editor = Editor(
            say=lambda update: self._from_thread(self._say(session_id, update), gone, 30.0, loop),
            ask=lambda call, options: self._from_thread(
                self._permission(session_id, call, options), gone, None, loop
            ),
            gone=gone,
            left=left,
        )
        loop = asyncio.get_running_loop()
        try:
            reason = await self._link.do(lambda session, _: mine.talk.turn(session, editor, said), self._name)
        except RunloopError as error:
            words = f"{error.message}; {error.hint}" if error.hint else error.message
            await self._say(session_id, acp.update_agent_message_text(shown(words)))
            reason = "refusal" if error.named_code == "route.denied" else "end_turn"
        except asyncio.CancelledError:
            left.set()
            gone.set()
            raise
        finally:
            mine.busy = False
        return schema.PromptResponse(stop_reason=reason)

    async def cancel(self, session_id: str, **_: Any) -> None:
        """Stop what the session is at."""
        if (mine := self._open.get(session_id)) is not None:
            mine.gone.set()

    # --- the editor -------------------------------------------------------------------------------

    def _begin(self, name: str, cwd: str) -> None:
        for other in [one for one, session in self._open.items() if not session.busy]:
            if len(self._open) < MAX_SESSIONS:
                break
            del self._open[other]
        if len(self._open) >= MAX_SESSIONS:
            raise acp.RequestError.invalid_request({"reason": "too many sessions are at work"})
        self._open[name] = _Open(cwd=cwd, talk=Conversation(name, cwd, self._name))

    async def _say(self, session_id: str, update: Any) -> None:
        assert self._client is not None
        await self._client.session_update(session_id=session_id, update=update)

    async def _permission(
        self, session_id: str, call: schema.ToolCallUpdate, options: list[schema.PermissionOption]
    ) -> str | None:
        """The option that was chosen; None for a question that was not answered."""
        assert self._client is not None
        answer = await self._client.request_permission(session_id=session_id, tool_call=call, options=options)
        outcome = answer.outcome
        return outcome.option_id if isinstance(outcome, schema.AllowedOutcome) else None

    @staticmethod
    def _from_thread(
        asked: Any, gone: threading.Event, patience_s: float | None, loop: asyncio.AbstractEventLoop
    ) -> Any:
        """Have the loop do it, and wait for it; None when nobody waits for the turn any more."""
        future = asyncio.run_coroutine_threadsafe(asked, loop)
        waited = 0.0
        while not gone.is_set() and (patience_s is None or waited < patience_s):
            try:
                return future.result(timeout=0.25)
            except TimeoutError:
                if future.done():
                    raise
                waited += 0.25
        future.cancel()
        return None


def _said(prompt: list[Any]) -> Said:
    """The words of a prompt and the files it names. What an editor embeds of files is left out."""
    typed = [part.text for part in prompt if isinstance(part, schema.TextContentBlock)]
    files = [visible(part.name)[:200] for part in prompt if isinstance(part, schema.ResourceContentBlock)]
    return Said("\n".join(typed), tuple(files[:MAX_FILES]))
