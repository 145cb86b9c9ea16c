"""Runloop as an MCP server: exposed openings, tools and the knowledge, for programs outside.

Knows: how the protocol's questions become questions to the daemon, in both eras of the protocol. Does not
know: the transport, or who the client is (it is told). Whoever calls has no person's authority: what needs
one is answered with ``waiting``, and stays parked for ``rlp approvals`` (attacks.md C9).
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

from rlp.serving.exposed import Door, Known
from rlp.serving.keeper import Caller
from rlp.serving.limits import Allowance
from rlp.serving.link import Busy, Link
from rlp.serving.outcome import file_of, rest_of, start, watch
from rlp.session import Session
from runloop import __version__
from runloop.bundle.json_schema import Schema, read_schema
from runloop.clock import SystemClock
from runloop.errors import NotFoundError, RunloopError, UsageError

__all__ = ["McpFace"]

Context = ServerRequestContext[Any, Any]

_INSTRUCTIONS = (
    "Runloop runs things for its user. Whatever would leave the machine waits for the user's own yes in "
    "Runloop: a result with state 'waiting' is not done yet, and nothing you say can do it. Ask "
    "run_result later."
)
_REMEMBERED = 100
"""Files of a client's runs that are listed; every file of a run of its own can be read."""
_MAX_CLIENTS = 128


class McpFace:
    """The handlers, and the little they remember."""

    def __init__(self, link: Link, caller: Callable[[Context], Caller], *, runs: Allowance) -> None:
        """``caller``: who asks; raises :class:`RunloopError` for somebody who may not. ``runs``: how often a
        client may start something."""
        self._link = link
        self._caller = caller
        self._runs = runs
        self._known = Known(link, SystemClock())
        self._files: OrderedDict[str, deque[dict[str, Any]]] = OrderedDict()

    def server(self) -> Server[Any]:
        """The protocol's side."""
        return Server(
            "runloop",
            version=__version__,
            instructions=_INSTRUCTIONS,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
        )

    # --- tools ------------------------------------------------------------------------------------

    async def _list_tools(
        self, ctx: Context, _: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        caller = self._who(ctx)
        try:
            found = await self._known.of(caller.items, caller.client)
        except RunloopError as error:
            raise _protocol(error) from error
        tools = [
            types.Tool(
                name=door.name,
                description=door.description,
                input_schema=door.schema,
                annotations=types.ToolAnnotations(read_only_hint=door.reads_only),
            )
            for door in found.values()
        ]
        return types.ListToolsResult(tools=tools)

    async def _call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        caller = self._who(ctx)
        try:
            door = (await self._known.of(caller.items, caller.client)).get(params.name)
            if door is None:
                # The same words whether it exists or not: what is not exposed is nobody's business.
                raise MCPError(types.INVALID_PARAMS, "there is no such tool here")
            return _told(await self._behind(ctx, caller, door, dict(params.arguments or {})))
        except RunloopError as error:
            return _failed(error)

    async def _behind(self, ctx: Context, caller: Caller, door: Door, args: dict[str, Any]) -> Any:
        match door.what:
            case "opening" | "tool":
                return await self._run(ctx, caller, door, args)
            case "result":
                _fitting(door, args)
                return await self._link.ask(
                    lambda session: rest_of(session, caller.client, args["run"]), caller.client
                )
            case "search":
                _fitting(door, args)
                return await self._link.ask(lambda session: session.ask("face.search", **args), caller.client)
            case "read":
                _fitting(door, args)
                return await self._link.ask(lambda session: session.ask("face.read", **args), caller.client)

    async def _run(self, ctx: Context, caller: Caller, door: Door, args: dict[str, Any]) -> Any:
        if not self._runs.take(caller.client):
            raise Busy("too many runs are asked for", hint="wait a little, and ask for less")
        loop = asyncio.get_running_loop()

        def told(step: int, line: str) -> None:
            report = ctx.session.report_progress(step, None, line)
            with suppress(Exception):  # a client that does not listen has no progress, and its run goes on
                asyncio.run_coroutine_threadsafe(report, loop).result(timeout=5)

        def work(session: Session, gone: Any) -> dict[str, Any]:
            run = start(session, caller.client, door, args)
            return watch(session, caller.client, run, told, gone, self._link)

        rest = await self._link.do(work, caller.client)
        self._remember(caller.client, rest.get("artifacts", ()))
        return rest

    # --- files of runs ----------------------------------------------------------------------------

    async def _list_resources(
        self, ctx: Context, _: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        caller = self._who(ctx)
        listed = [
            types.Resource(uri=one["uri"], name=one["name"], mime_type=one["media_type"], size=one["size"])
            for one in self._files.get(caller.client, ())
        ]
        return types.ListResourcesResult(resources=listed)

    async def _list_templates(
        self, ctx: Context, _: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        self._who(ctx)
        template = types.ResourceTemplate(
            uri_template="runloop://run/{run}/artifact/{name}",
            name="artifact",
            description="A file that a run of yours produced.",
        )
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def _read_resource(
        self, ctx: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        caller = self._who(ctx)
        uri = str(params.uri)
        try:
            run, name = _place(uri)
            one, data = await self._link.ask(
                lambda session: file_of(session, caller.client, run, name), caller.client
            )
        except RunloopError as error:
            raise _protocol(error) from error
        contents: types.TextResourceContents | types.BlobResourceContents
        try:
            contents = types.TextResourceContents(
                uri=uri, mime_type=one["media_type"], text=data.decode("utf-8")
            )
        except UnicodeDecodeError:
            contents = types.BlobResourceContents(
                uri=uri, mime_type=one["media_type"], blob=base64.b64encode(data).decode()
            )
        return types.ReadResourceResult(contents=[contents])

    def _remember(self, client: str, files: Sequence[dict[str, Any]]) -> None:
        kept = self._files.setdefault(client, deque(maxlen=_REMEMBERED))
        kept.extend(files)
        self._files.move_to_end(client)
        while len(self._files) > _MAX_CLIENTS:
            self._files.popitem(last=False)

    def _who(self, ctx: Context) -> Caller:
        try:
            return self._caller(ctx)
        except RunloopError as error:
            raise _protocol(error) from error


def _fitting(door: Door, args: dict[str, Any]) -> None:
    findings: list[str] = []
    schema: Schema = read_schema(door.schema, findings)
    why = schema.misfit(args)
    if why is not None:
        raise UsageError(f"{door.name}: arguments{why.removeprefix('$')}", code="tool.args")


def _place(uri: str) -> tuple[str, str]:
    parts = uri.removeprefix("runloop://run/").split("/")
    if not uri.startswith("runloop://run/") or len(parts) != 3 or parts[1] != "artifact" or not parts[0]:
        raise NotFoundError(
            "there is no such resource", hint="runloop://run/<run>/artifact/<name>", code="face.resource"
        )
    return parts[0], unquote(parts[2])


def _told(value: Any) -> types.CallToolResult:
    structured = value if isinstance(value, dict) else {"result": value}
    failed = structured.get("state") in ("failed", "cancelled")
    text = json.dumps(structured, ensure_ascii=False)
    return types.CallToolResult(
        content=[types.TextContent(text=text)], structured_content=structured, is_error=failed
    )


def _failed(error: RunloopError) -> types.CallToolResult:
    text = f"{error.message}; {error.hint}" if error.hint else error.message
    return types.CallToolResult(
        content=[types.TextContent(text=text)],
        structured_content={"error": {"code": error.named_code, "message": text}},
        is_error=True,
    )


def _protocol(error: RunloopError) -> MCPError:
    return MCPError(types.INVALID_PARAMS, f"{error.named_code}: {error.message}")
