"""A text of a program outside is data, in whichever field of what it sends us it stands (attacks.md P6).

Every hostile text of ``tests/foreign.py`` is put into every place that can hold text of every request of
MCP, ACP and Agent2Agent. The faces take it as the protocols' own types have it. Of all those places only the
ones that are named here are read; what stands in any other reaches neither the daemon nor an answer. A field
that a new version of a protocol brings is driven here by itself, and must reach nobody.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import acp
import mcp_types
import msgspec
import pytest
from acp import schema
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, ValidationError

from rlp.serving import a2a_face, mcp_face
from rlp.serving import a2a_wire as wire
from rlp.serving.a2a_face import A2AFace
from rlp.serving.acp_agent import EditorAgent
from rlp.serving.conversation import Conversation, Said
from rlp.serving.exposed import Door
from rlp.serving.keeper import Caller
from rlp.serving.limits import Allowance
from rlp.serving.mcp_face import McpFace
from runloop.errors import NotFoundError, RunloopError
from tests.foreign import PAYLOADS, leaves
from tests.hostile_text import assert_harmless

RUN = "0b7c1d6e-0000-4000-8000-000000000001"
ANY = {"type": "object", "properties": {}, "additionalProperties": True}
DOOR = Door(name="do", what="opening", target="/o.yaml", description="d", schema=ANY)
DESK = Caller("desk", ("opening:do",))


class Seen(list[Any]):
    """What reached the daemon, or the other side, in order."""


class Twin:
    """A link whose daemon writes down what it is asked."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def ask(self, method: str, *_: Any, **params: Any) -> Any:
        """As a session's."""
        self._seen.append((method, params))
        if method == "kb.query":
            return {"rows": []}
        raise NotFoundError("there is none", code="face.run")


class Link:
    stopping = False

    def __init__(self, seen: Seen) -> None:
        self.session: Any = Twin(seen)

    async def ask(self, question: Callable[[Any], Any], who: str | None = None) -> Any:
        return question(self.session)

    async def do(self, work: Callable[[Any, Any], Any], who: str) -> Any:
        return work(self.session, None)


class Known:
    async def of(self, *_: Any) -> dict[str, Door]:
        return {"do": DOOR}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What the faces hand on, at the places where they do."""
    found = Seen()

    def start(_: Any, client: str, door: Door, args: Any, **more: Any) -> str:
        found.append(("start", client, door.name, args, {**more, "message": None}))
        return RUN

    def turn(self: Conversation, _: Any, __: Any, said: Said) -> str:
        found.append(("turn", self.name, self.cwd, self.client, said.typed, list(said.files)))
        return "end_turn"

    monkeypatch.setattr(mcp_face, "start", start)
    monkeypatch.setattr(a2a_face, "start", start)
    monkeypatch.setattr(mcp_face, "watch", lambda *_: {"run": RUN, "state": "running"})
    monkeypatch.setattr(a2a_face, "follow", lambda *_: None)
    monkeypatch.setattr(a2a_face, "task_of", lambda *_: {"id": RUN})
    monkeypatch.setattr(Conversation, "turn", turn)
    return found


# --- one driver per request -----------------------------------------------------------------------


async def _mcp(seen: Seen, method: str, params: Any) -> None:
    face = McpFace(Link(seen), lambda _: DESK, runs=Allowance(per_s=1e6, burst=10**6))  # type: ignore[arg-type]
    face._known = Known()  # type: ignore[assignment]
    ctx: Any = SimpleNamespace(session=None)
    try:
        answer = await getattr(face, method)(ctx, params)
    except MCPError as error:
        seen.append(("error", error.error.message))
    else:
        seen.append(("answer", answer.model_dump(by_alias=True, exclude_none=True)))


async def _editor(seen: Seen, method: str, request: BaseModel) -> None:
    agent = EditorAgent(Link(seen))  # type: ignore[arg-type]
    agent._begin("ses_1", "/here")
    agent.on_connect(SimpleNamespace(session_update=_quiet))
    given = {name: getattr(request, name) for name in type(request).model_fields if name != "field_meta"}
    try:
        answer = await getattr(agent, method)(**given)
        seen.append(("answer", None if answer is None else answer.model_dump(by_alias=True)))
        if method == "new_session":  # where it stands counts with the first prompt
            await agent.prompt(answer.session_id, [acp.text_block("hello")])
            seen.append(("told", [one for one in seen if one[0] == "turn"]))
    except acp.RequestError as error:
        seen.append(("error", str(error), error.data))


async def _quiet(**_: Any) -> None:
    pass


async def _agent(seen: Seen, method: str, params: Any) -> None:
    face = A2AFace(Link(seen), runs=Allowance(per_s=1e6, burst=10**6), url="http://127.0.0.1:1/a2a")  # type: ignore[arg-type]
    face._known = Known()  # type: ignore[assignment]
    try:
        seen.append(
            ("answer", await face.answer(DESK, wire.Call(jsonrpc="2.0", method=method, params=params)))
        )
    except RunloopError as error:
        seen.append(("error", wire.error_of(error)))


Taken = tuple[Any, Any, Callable[[Seen, Any], Any], dict[str, str]]


def _of_mcp(kind: Any, sample: dict[str, Any], method: str, read: dict[str, str]) -> Taken:
    async def drive(seen: Seen, document: Any) -> None:
        await _mcp(seen, method, kind.model_validate(document))

    return kind, sample, drive, read


def _of_editor(kind: Any, sample: dict[str, Any], method: str, read: dict[str, str]) -> Taken:
    async def drive(seen: Seen, document: Any) -> None:
        await _editor(seen, method, kind.model_validate(document))

    return kind, sample, drive, read


def _of_agent(kind: Any, sample: dict[str, Any], method: str, read: dict[str, str]) -> Taken:
    async def drive(seen: Seen, document: Any) -> None:
        await _agent(seen, method, document)

    return kind, sample, drive, read


MESSAGE = {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"data": {}}]}}
REQUESTS: dict[str, Taken] = {
    "mcp.call": _of_mcp(
        mcp_types.CallToolRequestParams,
        {"name": "do", "arguments": {}},
        "_call_tool",
        {"arguments{key}": "data", "arguments{}": "data"},
    ),
    "mcp.read": _of_mcp(mcp_types.ReadResourceRequestParams, {"uri": "u"}, "_read_resource", {}),
    "mcp.tools": _of_mcp(mcp_types.PaginatedRequestParams, {}, "_list_tools", {}),
    "mcp.resources": _of_mcp(mcp_types.PaginatedRequestParams, {}, "_list_resources", {}),
    "mcp.templates": _of_mcp(mcp_types.PaginatedRequestParams, {}, "_list_templates", {}),
    "acp.initialize": _of_editor(schema.InitializeRequest, {"protocolVersion": 1}, "initialize", {}),
    "acp.new": _of_editor(
        schema.NewSessionRequest, {"cwd": "/", "mcpServers": []}, "new_session", {"cwd": "data"}
    ),
    "acp.load": _of_editor(
        schema.LoadSessionRequest,
        {"cwd": "/", "mcpServers": [], "sessionId": "ses_1"},
        "load_session",
        {"sessionId": "data"},  # looked for in the ledger, as a parameter of the question
    ),
    "acp.list": _of_editor(schema.ListSessionsRequest, {}, "list_sessions", {}),
    "acp.prompt": _of_editor(
        schema.PromptRequest,
        {"sessionId": "ses_1", "prompt": [{"type": "text", "text": "t"}]},
        "prompt",
        {"prompt[].text": "data", "prompt[].name": "escaped"},
    ),
    "a2a.send": _of_agent(
        wire.Send,
        MESSAGE,
        "SendMessage",
        {"message.parts[].data": "data", "message.contextId": "word", "message.taskId": "word"},
    ),
    "a2a.list": _of_agent(wire.ListTasks, {}, "ListTasks", {}),
    "a2a.get": _of_agent(wire.GetTask, {"id": "x"}, "GetTask", {"id": "word"}),
    "a2a.cancel": _of_agent(wire.ById, {"id": "x"}, "CancelTask", {"id": "word"}),
}
"""Request -> its type, an honest one, what takes it, and the places that are read: ``data``, kept as it is;
``escaped`` at the door; or a ``word`` of a narrow grammar. All others reach nobody."""
BLOCKS = {
    "text": {"type": "text", "text": "t"},
    "name": {"type": "resource_link", "name": "n", "uri": "u"},
    "title": {"type": "resource_link", "name": "n", "uri": "u"},
    "description": {"type": "resource_link", "name": "n", "uri": "u"},
    "uri": {"type": "resource_link", "name": "n", "uri": "u"},
    "resource": {"type": "resource", "resource": {"uri": "u", "text": "t"}},
    "data": {"type": "image", "data": "AAAA", "mimeType": "image/png"},
}


def _camel(leaf: str) -> str:
    return re.sub(r"_([a-z])", lambda found: found[1].upper(), leaf) if "_meta" not in leaf else leaf


def places() -> list[tuple[str, str]]:
    return [
        (name, leaf)
        for name, (kind, *_) in REQUESTS.items()
        for leaf in sorted({_camel(one) if name.startswith("a2a") else one for one in leaves(kind)})
    ]


def put(name: str, leaf: str, text: str) -> Any:
    """The honest request of this name with the text at a place."""
    made: Any = copy.deepcopy(REQUESTS[name][1])
    steps = re.findall(r"\{key\}|\{\}|\[\]|[^.\[\]{}]+", leaf)
    if name == "acp.prompt" and steps[0] == "prompt":
        made["prompt"] = [{"type": "text", "text": "t"}, copy.deepcopy(BLOCKS.get(steps[2], BLOCKS["text"]))]
        if steps[2] == "mimeType":
            made["prompt"][1] = copy.deepcopy(BLOCKS["data"])
    at = made
    for number, step in enumerate(steps):
        key: Any = text if step == "{key}" else "x" if step == "{}" else -1 if step == "[]" else step
        if number == len(steps) - 1:
            at[key] = "v" if step == "{key}" else {"x": text} if leaf == "message.parts[].data" else text
            return made
        following = steps[number + 1]
        missing = (not at) if step == "[]" else at.get(key) is None
        if missing:
            fresh: Any = [{}] if following == "[]" else {}
            at.append(fresh) if step == "[]" else at.__setitem__(key, fresh)
        at = at[key]
    return made


def texts(value: Any) -> str:
    """All texts in a value, names among them."""
    if isinstance(value, dict):
        return " | ".join(texts(one) for pair in value.items() for one in pair)
    return " | ".join(map(texts, value)) if isinstance(value, list | tuple) else str(value)


@pytest.mark.requirement("P6")
@pytest.mark.parametrize(("name", "leaf"), places(), ids=str)
async def test_a_clients_text_is_data_where_it_is_read_and_reaches_nobody_elsewhere(
    seen: Seen, name: str, leaf: str
) -> None:
    _, _, drive, read = REQUESTS[name]
    fate = read.get(leaf, "dropped")
    reached = False
    for payload in PAYLOADS.values():
        del seen[:]
        text = payload[:50_000]
        try:
            await drive(seen, put(name, leaf, text))
        except (ValidationError, msgspec.ValidationError):
            continue  # the protocol's own types take no such thing there
        told = texts(seen)
        reached = reached or text in told
        if fate == "dropped":
            assert text[:24] not in told, seen
        elif fate == "escaped":
            assert_harmless(told)
        elif fate == "word":
            assert text not in told or re.fullmatch(r"[\x21-\x7e]{1,128}", text), seen
    if fate == "data":
        assert reached, "what is read is tested as read"


@pytest.mark.requirement("P6")
def test_every_place_that_is_said_to_be_read_is_one() -> None:
    there = set(places())
    for name, (_, _, _, read) in REQUESTS.items():
        assert {(name, leaf) for leaf in read} <= there
