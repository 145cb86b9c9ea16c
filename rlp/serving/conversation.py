"""One conversation of an editor: a turn is a run, told as it goes, with a person's answers in between.

Knows: which events an editor is told, how a held action is shown and answered. Does not know: the protocol's
wire (``acp_agent``). Runs in a thread; everything it says goes through :class:`Editor`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import acp
from acp import schema

from rlp.commands.why import decide as routed
from rlp.follow import Follower
from rlp.prepare import prepare
from rlp.session import COMPILE_S, Session
from rlp.wishes import ASSISTANT, refuse, words_of
from runloop import approval as held
from runloop.errors import ConflictError, NotFoundError
from runloop.escape import block, visible

__all__ = ["Conversation", "Editor", "Past", "Said", "Turn", "as_it_is", "earlier", "sessions", "shown"]

WAIT_S = 0.5
_MAX_LISTED = 50
_MORE_BYTES = "every byte: v"
"""Ends the last line of an action that is too long to be shown whole."""


@dataclass(frozen=True, slots=True)
class Editor:
    """The other side, from a thread."""

    say: Callable[[Any], Any]
    ask: Callable[[schema.ToolCallUpdate, list[schema.PermissionOption]], str | None]
    gone: threading.Event
    """Set when nobody waits for the turn any more."""
    left: threading.Event
    """Set when the editor is gone altogether: what it began stays, and waits where it must."""


class Said(NamedTuple):
    """A prompt."""

    typed: str
    """The user's own words."""
    files: tuple[str, ...] = ()
    """Names of files the editor put beside them: perhaps somebody else's words."""

    @property
    def text(self) -> str:
        """The whole, as the assistant reads it."""
        return "\n".join((self.typed, *(f"({name})" for name in self.files))) if self.files else self.typed


class Turn(NamedTuple):
    """What was asked, and what came of it."""

    asked: str
    answered: str


class Past(NamedTuple):
    """A conversation on record."""

    name: str
    cwd: str
    title: str


@dataclass
class Conversation:
    """What a session knows beyond the ledger: its last run, and a question that waits for words."""

    name: str
    cwd: str
    client: str = "editor"
    """What the editor is called on record."""
    last: str = ""
    question: tuple[str, str] | None = None
    """Run and promise."""

    def turn(self, session: Session, editor: Editor, said: Said) -> schema.StopReason:
        """Do what was said; why the turn ended. Raises what the daemon raises."""
        try:
            answers = self.question is not None and bool(said.typed.strip())
            run = self._answered(session, said.typed) if answers else self._begun(session, said)
            return _Watch(session, editor, self, run).to_its_end()
        finally:
            session.hang_up()  # and with it what was subscribed to

    def _answered(self, session: Session, text: str) -> str:
        assert self.question is not None
        run, promise = self.question
        with suppress(ConflictError):  # answered elsewhere; the run goes on
            session.ask("promise.resolve", promise=promise, value=text.strip())
        self.question = None
        return run

    def _begun(self, session: Session, said: Said) -> str:
        from openings.load import find

        text = said.text
        found = routed(session, text)
        refuse(found, where="run it in your terminal")
        # Not from the folder the editor has open: what stands there was perhaps written by somebody else.
        if found.kind == "opening" and found.target is not None:
            wish = prepare(session, str(find(found.target, session.openings_dirs)), dict(found.params))
        else:
            given = {"prompt": words_of(text), "continued": self._goes_on(session)}
            wish = prepare(session, str(find(ASSISTANT, session.openings_dirs)), given)
        answer = session.ask(
            "face.submit",
            COMPILE_S,
            client=self.client,
            source=wish.source,
            name=wish.opening.name,
            path=str(wish.path),
            params=wish.params,
            openings=dict(wish.nested),
            editor={
                "session": self.name,
                "prompt": text,
                "cwd": self.cwd,
                "names_files": bool(said.files),
            },
        )
        self.last = str(answer["run"])
        return self.last

    def _goes_on(self, session: Session) -> bool:
        """Whether the assistant's last conversation is this one: it remembers only one."""
        sql = "SELECT run FROM runs WHERE opening = ? AND parent_run IS NULL ORDER BY started_event DESC"
        rows = session.ask("kb.query", sql=sql, params=[ASSISTANT], limit=1)["rows"]
        newest = rows[0]["run"] if rows and isinstance(rows[0], dict) else rows[0][0] if rows else None
        return bool(self.last) and newest == self.last


@dataclass
class _Watch:
    """One run being told."""

    session: Session
    editor: Editor
    talk: Conversation
    run: str
    _open: dict[str, str] = field(default_factory=dict)
    """Approvals nobody has decided -> the run they belong to."""
    _questions: dict[str, dict[str, Any]] = field(default_factory=dict)
    _plan: dict[str, str] = field(default_factory=dict)
    _over: dict[str, Any] | None = None
    _answer: str = ""
    _said: str = ""

    def to_its_end(self) -> schema.StopReason:
        follower = Follower(self.session, self.run, on_delta=self._delta)
        while True:
            for event in follower.next(WAIT_S):
                self._take(event)
            if self._over is not None:
                return self._closing()
            if self.editor.gone.is_set():
                if self.editor.left.is_set():
                    return "cancelled"
                with suppress(ConflictError):  # it ended meanwhile
                    self.session.ask("run.cancel", run=self.run, reason="cancelled in the editor")
                return "cancelled"
            for approval in list(self._open):
                if not self._ask(approval):
                    if self.editor.gone.is_set():
                        break  # cancelled while it stood: the run goes, the question with it
                    self._text(f"This waits for you: rlp approve {approval}   (or: rlp deny {approval})")
                    return "end_turn"
            if self._questions and not self.editor.gone.is_set():
                return self._question()

    # --- telling ----------------------------------------------------------------------------------

    def _take(self, event: dict[str, Any]) -> None:
        payload = event["payload"]
        ours = event["run"] == self.run
        match event["kind"]:
            case "run.started" if ours:
                nodes = (payload.get("definition") or {}).get("nodes", ())
                self._plan = {str(node["id"]): "pending" for node in nodes}
                self._tell_plan()
            case "node.scheduled":
                self._node(event, "in_progress")
            case "node.finished":
                if ours:
                    self._hear(payload)
                self._node(event, "completed" if payload["status"] == "succeeded" else "failed")
            case "action.requested":
                self._open[payload["approval"]] = event["run"]
            case "action.decided":
                self._open.pop(payload["approval"], None)
            case "promise.created" if payload["resolver"] == "operator":
                self._questions[payload["promise"]] = payload
            case "promise.resolved" | "promise.timed_out":
                self._questions.pop(payload["promise"], None)
            case "run.finished" if ours:
                self._over = payload
            case "run.finished":
                for name in [name for name, of in self._open.items() if of == event["run"]]:
                    self._open.pop(name)

    def _node(self, event: dict[str, Any], status: str) -> None:
        payload = event["payload"]
        node = str(payload["node"])
        call = f"{event['run']}/{node}/{payload['attempt']}"
        if status == "in_progress":
            self.editor.say(acp.start_tool_call(call, visible(node), kind="other", status="in_progress"))
        else:
            done: schema.ToolCallStatus = "completed" if status == "completed" else "failed"
            error = (payload.get("error") or {}).get("message")
            content = [acp.tool_content(acp.text_block(shown(str(error))))] if error else None
            self.editor.say(acp.update_tool_call(call, status=done, content=content))
        if event["run"] == self.run and node in self._plan:
            self._plan[node] = "in_progress" if status == "in_progress" else "completed"
            self._tell_plan()

    def _tell_plan(self) -> None:
        entries = [
            acp.plan_entry(
                visible(node),
                status="pending" if at == "pending" else "completed" if at == "completed" else "in_progress",
            )
            for node, at in self._plan.items()
        ]
        self.editor.say(acp.update_plan(entries))

    def _delta(self, delta: dict[str, Any]) -> None:
        text = str(delta.get("text", ""))
        if delta.get("kind") == "text":
            lead = "\\" if self._said.endswith("!") and text.startswith("[") else ""
            self._said += text
            self._text(text, lead)
        elif delta.get("kind") == "progress" and text:
            self._said = ""  # the next words are another turn of the model
            self.editor.say(acp.update_agent_thought_text(shown(text) + "\n"))

    def _text(self, text: str, lead: str = "") -> None:
        if text:
            self.editor.say(acp.update_agent_message_text(lead + shown(text)))

    def _hear(self, payload: dict[str, Any]) -> None:
        for value in ((payload.get("output") or {}).get("ports") or {}).get("out") or ():
            if isinstance(value, dict) and isinstance(value.get("answer"), str):
                self._answer = value["answer"]

    # --- asking -----------------------------------------------------------------------------------

    def _ask(self, name: str) -> bool:
        """Put a held action to the person; False when it was not answered. What is no yes is a no."""
        try:
            approval = self.session.ask("approvals.show", approval=name)
        except NotFoundError:
            self._open.pop(name, None)
            return True
        content = held.content_of(approval)
        lines = held.describe(approval, content, width=100)
        if any(line.endswith(_MORE_BYTES) for line in lines):
            return False  # nobody approves here what cannot be shown here whole
        # The yes names what was shown: one that was meant for another action is none.
        yes = f"allow:{approval['action_digest']}"
        call = schema.ToolCallUpdate(
            tool_call_id=f"approval/{name}",
            title=shown(held.bare(approval["action"])),
            kind="other",
            status="pending",
            content=[acp.tool_content(acp.text_block(as_it_is(lines)))],
        )
        options = [
            schema.PermissionOption(option_id=yes, name="Approve this once", kind="allow_once"),
            schema.PermissionOption(option_id="deny", name="Deny", kind="reject_once"),
        ]
        chosen = self.editor.ask(call, options)
        if chosen is None:
            return False
        self._open.pop(name, None)
        with suppress(ConflictError):  # somebody was quicker; the ledger says who
            held.decide(
                self.session.client(), approval, "approve" if chosen == yes else "deny", "in the editor"
            )
        return True

    def _question(self) -> schema.StopReason:
        name, asked = next(iter(self._questions.items()))
        self.talk.question = (self.run, name)
        self._text(f"The agent {asked['agent']} asks you, in words of its own (no password here):\n\n")
        self._text(str(asked["question"]))
        if asked["choices"]:
            self._text("\n" + ", ".join(map(str, asked["choices"])))
        return "end_turn"

    def _closing(self) -> schema.StopReason:
        assert self._over is not None
        if self._answer and self._answer.strip() != self._said.strip():
            self._text(self._answer)
        error = self._over.get("error")
        if self._over["outcome"] != "succeeded" and not self._answer:
            self._text(f"It {self._over['outcome']}: {(error or {}).get('message', 'see rlp trace')}")
        elif not self._answer and not self._said:
            self._text(f"Done: run {self.run}.")
        return "cancelled" if self._over["outcome"] == "cancelled" else "end_turn"


# --- what was ---------------------------------------------------------------------------------------


def earlier(session: Session, name: str) -> list[Turn]:
    """The turns of a conversation on record, oldest first. Raises :class:`NotFoundError` for none."""
    sql = "SELECT run, prompt FROM runs WHERE via = ? ORDER BY started_event DESC"
    rows = _rows(session, sql, [f"acp:{name}"])
    if not rows:
        raise NotFoundError("there is no such session", hint="begin a new one", code="acp.session")
    return [Turn(str(row["prompt"] or ""), _answer_of(session, row["run"])) for row in reversed(rows)]


def sessions(session: Session) -> list[Past]:
    """Conversations on record, the newest first."""
    sql = (
        "SELECT via, max(started_event) AS newest, min(started_event) AS oldest, prompt FROM runs "
        "WHERE via LIKE 'acp:%' GROUP BY via ORDER BY newest DESC"
    )
    found = []
    for row in _rows(session, sql, []):
        found.append(Past(str(row["via"]).removeprefix("acp:"), "/", str(row["prompt"] or "")))
    return found


def _rows(session: Session, sql: str, params: list[Any]) -> list[dict[str, Any]]:
    answer = session.ask("kb.query", sql=sql, params=params, limit=_MAX_LISTED)
    columns = list(answer.get("columns") or ())
    return [row if isinstance(row, dict) else dict(zip(columns, row, strict=True)) for row in answer["rows"]]


def _answer_of(session: Session, run: str) -> str:
    answer = ""
    for event in session.events(run):
        payload = event["payload"]
        if event["kind"] == "node.finished":
            for value in ((payload.get("output") or {}).get("ports") or {}).get("out") or ():
                if isinstance(value, dict) and isinstance(value.get("answer"), str):
                    answer = value["answer"]
        elif event["kind"] == "run.finished" and not answer:
            answer = f"It {payload['outcome']}: run {run}."
    return answer


def as_it_is(lines: Sequence[str]) -> str:
    """Lines in a fence: an editor takes text for Markdown, in which a comment is not seen and an image is
    fetched, and whoever decides must see what stands there (attacks.md C6, P3)."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join((f"{fence}text", *lines, fence))


def shown(text: str) -> str:
    """Foreign text for an editor: every character that acts or hides is an escape (attacks.md C6), and what
    would be an image is none, because whoever shows one asks its server for it (P3)."""
    return "\n".join(block(text)).replace("![", "!\\[")
