"""One session with one MCP server, served to the daemon as requests and answers.

Knows: both eras of the protocol (through the SDK); how requests, progress, questions and new lists become
messages. Does not know: who asks, what is permitted, what was approved. It holds a server's ``requestState``
for as long as a call lasts; it never leaves this process (attacks.md M12). Models, folders and keys are not
offered to servers: sampling and roots are refused by not being declared.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from itertools import count
from typing import Any

import anyio
import anyio.abc
import mcp_types as types
import msgspec
from mcp.client.client import Client
from mcp.client.session import ClientRequestContext
from mcp.client.subscriptions import PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from runloop import __version__
from runloopd.broker.mcp.bridge.wires import Channel, http_wires, pipe_wires
from runloopd.broker.mcp.messages import (
    MAX_TEXT,
    Answer,
    Ask,
    BridgeError,
    Cancel,
    Changed,
    Failure,
    FromBridge,
    FromDaemon,
    Gone,
    Listened,
    Progress,
    Question,
    Ready,
    Reply,
    Start,
    decode,
    encode,
    size_of,
)

__all__ = ["Bridge"]

MAX_PAGES = 64
MAX_ITEMS = 2_000
"""Of one list of a server, over all its pages."""
MAX_QUESTIONS = 8
"""Rounds in which a server may ask for more before a call fails."""
_PROGRESS_S = 0.1
"""Between two words on how far a call is."""

_asking: ContextVar[int] = ContextVar("asking", default=-1)


class Bridge:
    """Serves until the daemon hangs up or the server is gone."""

    def __init__(self, control: socket.socket, channel: socket.socket) -> None:
        self._control = control
        self._channel = Channel(channel)
        self._scopes: dict[int, anyio.CancelScope] = {}
        self._replies: dict[int, tuple[anyio.Event, list[Reply]]] = {}
        self._questions = count()
        self._sending = anyio.Lock()
        self._faults: list[str] = []
        """Bounds that the server broke: the connection is over then."""

    async def serve(self) -> None:
        """From the first message to the last."""
        control = await anyio.abc.UNIXSocketStream.from_socket(self._control)
        self._stream: anyio.abc.SocketStream = control
        self._held = bytearray()
        start = await self._read()
        if not isinstance(start, Start):
            return
        try:
            await self._session(start)
            why = "the server closed the connection"
        except BaseException as error:  # the border to the daemon: said in one sentence, then over
            why = self._faults[0] if self._faults else _words(error)
        with anyio.move_on_after(2, shield=True):
            await self._say(Gone(message=why))

    async def _session(self, start: Start) -> None:
        wires = (
            pipe_wires(self._channel, self._faults)
            if start.url is None
            else http_wires(self._channel, start.url, start.bearer, start.authorities)
        )
        client = Client(
            wires,
            mode=start.era,
            client_info=types.Implementation(name="runloop", version=__version__),
            elicitation_callback=self._elicited,
            message_handler=self._noticed,
            input_required_max_rounds=MAX_QUESTIONS,
            cache=None,
        )
        with anyio.fail_after(start.connect_ms / 1000) as connecting:
            async with client:
                connecting.deadline = float("inf")
                await self._say(_ready(client))
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._listen, client)
                    await self._requests(client, tasks)
                    tasks.cancel_scope.cancel()

    async def _requests(self, client: Client, tasks: anyio.abc.TaskGroup) -> None:
        while (message := await self._read()) is not None:
            match message:
                case Ask():
                    tasks.start_soon(self._perform, client, message)
                case Cancel():
                    if scope := self._scopes.get(message.id):
                        scope.cancel()
                case Reply():
                    if waiting := self._replies.get(message.question):
                        waiting[1].append(message)
                        waiting[0].set()
                case _:
                    return

    # --- requests -----------------------------------------------------------------------------------

    async def _perform(self, client: Client, ask: Ask) -> None:
        _asking.set(ask.id)
        with anyio.CancelScope() as scope:
            self._scopes[ask.id] = scope
            try:
                with anyio.fail_after(ask.timeout_ms / 1000):
                    value = await _METHODS[ask.method](self, client, ask)
                await self._answer(ask, value)
            except Exception as error:
                failure = _failure(ask.id, error)
                if failure.kind == "closed" and self._faults:
                    failure = msgspec.structs.replace(failure, message=self._faults[0])
                await self._say(failure)
            finally:
                self._scopes.pop(ask.id, None)

    async def _answer(self, ask: Ask, value: Any) -> None:
        try:
            await self._say(Answer(id=ask.id, value=value))
        except BridgeError as error:
            await self._say(Failure(id=ask.id, kind="protocol", message=error.message))

    async def _call(self, client: Client, ask: Ask) -> Any:
        told = -_PROGRESS_S

        async def progressed(progress: float, total: float | None, message: str | None) -> None:
            nonlocal told
            if anyio.current_time() - told < _PROGRESS_S:
                return  # nobody reads faster
            told = anyio.current_time()
            text = (message or "")[:MAX_TEXT]
            await self._say(Progress(id=ask.id, progress=progress, total=total, message=text))

        name, arguments = str(ask.params["name"]), ask.params.get("arguments") or {}
        result = await client.call_tool(name, arguments, progress_callback=progressed)
        return _plain(result)

    async def _tools(self, client: Client, _: Ask) -> Any:
        return {"tools": await _paged(client.list_tools, "tools")}

    async def _resources(self, client: Client, _: Ask) -> Any:
        resources = await _paged(client.list_resources, "resources")
        templates: list[Any] = []
        try:
            found = await client.list_resource_templates(cache_mode="bypass")
            templates = [_plain(one) for one in found.resource_templates]
        except MCPError:
            templates = []  # not every server has them
        return {"resources": resources, "templates": templates[:MAX_ITEMS]}

    async def _read_resource(self, client: Client, ask: Ask) -> Any:
        return _plain(await client.read_resource(str(ask.params["uri"]), cache_mode="bypass"))

    async def _prompts(self, client: Client, _: Ask) -> Any:
        return {"prompts": await _paged(client.list_prompts, "prompts")}

    async def _prompt(self, client: Client, ask: Ask) -> Any:
        return _plain(await client.get_prompt(str(ask.params["name"]), ask.params.get("arguments") or {}))

    # --- what the server starts by itself -----------------------------------------------------------

    async def _listen(self, client: Client) -> None:
        """Hear of changed lists: in the new era they are told to whoever listens for them."""
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            told = client.server_capabilities.tools
            await self._say(Listened(honored=bool(told and told.list_changed)))
            return
        try:
            async with client.listen(tools_list_changed=True, prompts_list_changed=True) as events:
                await self._say(Listened(honored=True))
                async for event in events:
                    if isinstance(event, ToolsListChanged):
                        await self._say(Changed(what="tools"))
                    elif isinstance(event, PromptsListChanged):
                        await self._say(Changed(what="prompts"))
        except Exception:
            await self._say(Listened(honored=False))  # the daemon looks again from time to time

    async def _noticed(self, message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            await self._say(Changed(what="tools"))

    async def _elicited(
        self, context: ClientRequestContext, params: Any
    ) -> types.ElicitResult | types.ErrorData:
        """A question to a person: passed on with the call it belongs to; without one, nobody is asked."""
        ask = _asking.get()
        if ask < 0:
            ask = next(iter(self._scopes)) if len(self._scopes) == 1 else -1
        if ask < 0:
            return types.ElicitResult(action="decline")
        number = next(self._questions)
        answered, replies = self._replies[number] = (anyio.Event(), [])
        schema = getattr(params, "requested_schema", None) or {}
        try:
            await self._say(
                Question(
                    question=number,
                    ask=ask,
                    message=str(params.message)[:MAX_TEXT],
                    schema=schema if isinstance(schema, dict) else _plain(schema),
                    url=getattr(params, "url", None),
                )
            )
            await answered.wait()
        finally:
            self._replies.pop(number, None)
        reply = replies[0]
        action: Any = reply.action if reply.action in ("accept", "decline", "cancel") else "decline"
        return types.ElicitResult(action=action, content=reply.content if action == "accept" else None)

    # --- frames -------------------------------------------------------------------------------------

    async def _say(self, message: FromBridge) -> None:
        frame = encode(message)
        async with self._sending:
            await self._stream.send(frame)

    async def _read(self) -> FromDaemon | None:
        head = await self._exactly(4)
        if head is None:
            return None
        body = await self._exactly(size_of(head))
        return None if body is None else decode(body, FromDaemon)

    async def _exactly(self, size: int) -> bytes | None:
        while len(self._held) < size:
            try:
                self._held += await self._stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return None
        piece = bytes(self._held[:size])
        del self._held[:size]
        return piece


_METHODS = {
    "tools/call": Bridge._call,
    "tools/list": Bridge._tools,
    "resources/list": Bridge._resources,
    "resources/read": Bridge._read_resource,
    "prompts/list": Bridge._prompts,
    "prompts/get": Bridge._prompt,
}


def _ready(client: Client) -> Ready:
    info, can = client.server_info, client.server_capabilities
    return Ready(
        protocol=client.protocol_version[:32],
        name=(info.name if info else "")[:128],
        version=(info.version if info else "")[:64],
        instructions=(client.instructions or "")[:MAX_TEXT],
        tools=can.tools is not None,
        resources=can.resources is not None,
        prompts=can.prompts is not None,
    )


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _failure(ask: int, error: BaseException) -> Failure:
    words = _words(error)
    found = _cause(error)
    match found:
        case TimeoutError():
            return Failure(id=ask, kind="timeout", message="it did not answer in time")
        case MCPError() if found.error.code == types.CONNECTION_CLOSED:
            return Failure(id=ask, kind="closed", message=words)
        case MCPError():
            return Failure(id=ask, kind="refused", message=words, code=found.error.code)
        case anyio.ClosedResourceError() | anyio.BrokenResourceError() | anyio.EndOfStream():
            return Failure(id=ask, kind="closed", message="the connection was closed")
        case _:
            return Failure(id=ask, kind="protocol", message=words)


def _cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error


def _words(error: BaseException) -> str:
    """One sentence; foreign text is in it, bounded."""
    found = _cause(error)
    if isinstance(found, MCPError):
        return str(found.error.message)[:MAX_TEXT]
    if isinstance(found, TimeoutError):
        return "it did not answer in time"
    return f"{type(found).__name__}: {found}"[:MAX_TEXT]


async def _paged(ask: Callable[..., Awaitable[Any]], what: str) -> list[Any]:
    """Everything of one kind that a server lists, page after page, within bounds."""
    found: list[Any] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await ask(cursor=cursor, cache_mode="bypass")
        found += [_plain(one) for one in getattr(page, what)]
        if (cursor := page.next_cursor) is None or len(found) > MAX_ITEMS:
            break
    return found[:MAX_ITEMS]
