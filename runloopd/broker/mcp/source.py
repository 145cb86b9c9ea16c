"""The tools of foreign MCP servers as a source of offers: what a person approved, as it was approved.

Knows: which tools are offered, when a server is started, looked at again and left alone for a while, how a
call goes. Does not know: who may call (the gate), what is on record (``mcp.book`` folds it), how an operator
approves (``mcp.keeper``).

What an agent and its model see is the definition that was approved, from the ledger, never what the server
says at the moment. Before a call is carried out over a new connection, or one that was not looked at for a
while, the server's list is read again; one byte of difference in the definition suspends the tool
(attacks.md M1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from runloop.bundle.json_schema import Schema
from runloop.clock import Clock
from runloopd.broker.mcp.book import Approved, Book, Server
from runloopd.broker.mcp.connection import Connection
from runloopd.broker.mcp.definitions import Listing, accepting, own_definitions, read_listing
from runloopd.broker.mcp.launching import Launcher
from runloopd.broker.mcp.messages import Progress, Question
from runloopd.broker.mcp.names import qualified, split
from runloopd.broker.mcp.questions import Questions
from runloopd.broker.mcp.record import McpRecord
from runloopd.broker.mcp.results import called, listed
from runloopd.broker.ports import Delta, Outcome
from runloopd.broker.toolbox import Offer, ToolContext, ToolError, ToolResult

__all__ = ["McpSource"]

log = structlog.get_logger(__name__)

FRESH_MS = 60_000
"""How long a list of tools counts as looked at."""
IDLE_MS = 600_000
"""A server nobody calls for so long is ended; the next call starts it again."""
BACKOFF_MS = (1_000, 2_000, 5_000, 15_000, 60_000)
"""Pauses after one, two, … starts or calls that ended with the server's going away."""
AT_ONCE = 8
"""Calls of one server under way."""
LIST_MS = 20_000


@dataclass(kw_only=True, slots=True)
class _Live:
    """What is held of one server while the daemon runs."""

    event: int
    """The fact that added it: another one of the same name is another server."""
    connection: Connection | None = None
    listing: Listing | None = None
    listed_ms: int = 0
    stale: bool = False
    """It said that its list changed."""
    failures: int = 0
    again_ms: int = 0
    """Not before."""
    why: str = ""
    used_ms: int = 0
    under_way: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))


class McpSource:
    """Implements :class:`runloopd.broker.toolbox.ToolSource`. Close it at the end."""

    def __init__(
        self,
        book: Book,
        launcher: Launcher,
        record: McpRecord,
        questions: Questions,
        clock: Clock,
        on_delta: Callable[[Delta], None] = lambda _: None,
    ) -> None:
        """``on_delta`` reaches whoever follows the run: how far a call is."""
        self._on_delta = on_delta
        self._book = book
        self._launcher = launcher
        self._record = record
        self._questions = questions
        self._clock = clock
        self._live: dict[str, _Live] = {}
        self._offers: tuple[int, dict[str, Offer]] = (-1, {})
        self._schemas: dict[str, tuple[dict[str, Any], Schema]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """End every server."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        lives, self._live = list(self._live.values()), {}
        await asyncio.gather(*(live.connection.close() for live in lives if live.connection is not None))

    # --- the port -----------------------------------------------------------------------------------

    def offers(self) -> Collection[Offer]:
        """Every tool that is approved and not suspended, whether or not its server runs."""
        if self._offers[0] != self._book.version:
            self._offers = (self._book.version, {one.name: one for one in self._made()})
        return self._offers[1].values()

    def withheld(self) -> Sequence[tuple[str, str]]:
        """Tools that were seen and may not be called, each with the reason."""
        found: list[tuple[str, str]] = []
        for server in self._book.servers():
            for tool, why in server.suspended.items():
                found.append((qualified(server.name, tool), f"suspended: {why}"))
            for tool in server.seen.tools if server.seen is not None else ():
                if tool not in server.approved:
                    found.append((qualified(server.name, tool), "nobody has approved it yet"))
        return found

    def permit(self, offer: Offer, args: dict[str, Any], context: ToolContext) -> None:
        """See the port: no right hangs on the arguments of a foreign tool; its name is what is granted."""

    def touches(self, offer: Offer, args: dict[str, Any], context: ToolContext) -> dict[str, Any]:
        """See the port: what a server reaches is said where the server is configured."""
        return {}

    async def call(self, offer: Offer, args: dict[str, Any], context: ToolContext) -> ToolResult:
        """Call the tool as it was approved, of the server that was approved."""
        name, tool = split(offer.name)
        server = self._book.get(name)
        approved = None if server is None else server.approved.get(tool)
        if server is None or approved is None or server.definition(tool) != offer.definition:
            raise _error(offer.name, "it is not what was approved any more", "tool.suspended")
        live = self._of(server)
        async with live.places:
            live.under_way += 1
            try:
                connection = await self._looked_at(server, live)
                _insist(server, tool, approved, live)
                return await self._carry_out(server, tool, args, context, connection)
            finally:
                live.under_way -= 1
                live.used_ms = self._clock.now_ms()

    async def reconcile(self, offer: Offer, context: ToolContext) -> Outcome:
        """Nobody can tell: MCP has no way to ask."""
        return "absent" if offer.effect == "read" else "unknown"

    # --- for the keeper -----------------------------------------------------------------------------

    async def look(self, name: str) -> Listing:
        """The server's list of tools as it is now, stated on record when it is another one than before.

        Starts the server if need be. Raises :class:`ToolError`.
        """
        server = self._book.find(name)
        live = self._of(server)
        live.again_ms = 0  # a person asks
        connection = await self._connected(server, live)
        listing = await self._list(server, live, connection)
        await self._state(server, listing, connection, always=True)
        return listing

    async def end(self, name: str) -> None:
        """End the server; calls under way fail."""
        live = self._live.pop(name, None)
        if live is not None and live.connection is not None:
            await live.connection.close("it was ended by the operator")

    def state(self, name: str) -> dict[str, Any]:
        """How it is, for people."""
        live = self._live.get(name)
        if live is None:
            return {"state": "idle", "why": "", "stderr": ""}
        connection = live.connection
        if connection is not None and not connection.closed:
            return {"state": "running", "why": "", "stderr": connection.tail}
        tail = connection.tail if connection is not None else ""
        waiting = live.again_ms > self._clock.now_ms()
        return {"state": "unavailable" if waiting else "idle", "why": live.why, "stderr": tail}

    # --- connections --------------------------------------------------------------------------------

    def _of(self, server: Server) -> _Live:
        live = self._live.get(server.name)
        if live is None or live.event != server.event:
            if live is not None and live.connection is not None:
                self._spawn(live.connection.close("it was added anew"))
            live = self._live[server.name] = _Live(event=server.event, used_ms=self._clock.now_ms())
        return live

    async def _connected(self, server: Server, live: _Live) -> Connection:
        async with live.lock:
            connection = live.connection
            if connection is not None and not connection.closed:
                return connection
            if connection is not None:
                await connection.close()
                self._failed(live, connection.why)
                live.connection = None
            if (left := live.again_ms - self._clock.now_ms()) > 0:
                raise _error(
                    f"the MCP server {server.name}",
                    f"it is not there ({live.why}); it is tried again in {left} ms",
                    "tool.unavailable",
                )
            try:
                live.connection = await self._launcher.open(
                    server.name, server.spec, lambda what: self._changed(server.name, what)
                )
            except ToolError as error:
                self._failed(live, error.message)
                raise
            live.listed_ms = 0
            self._spawn(self._end_when_idle(server.name, live, live.connection))
            return live.connection

    def _failed(self, live: _Live, why: str) -> None:
        pause = BACKOFF_MS[min(live.failures, len(BACKOFF_MS) - 1)]
        live.failures += 1
        live.again_ms = self._clock.now_ms() + pause
        live.why = why[:500]

    def _changed(self, name: str, what: str) -> None:
        live = self._live.get(name)
        if live is not None and what == "tools":
            live.stale = True

    async def _end_when_idle(self, name: str, live: _Live, connection: Connection) -> None:
        while not connection.closed:
            due = live.used_ms + IDLE_MS
            if self._clock.now_ms() >= due and not live.under_way:
                await connection.close("nobody called it")
                if live.connection is connection:
                    live.connection = None
                return
            await self._clock.sleep_until(max(due, self._clock.now_ms() + 1_000))

    # --- looking ------------------------------------------------------------------------------------

    async def _looked_at(self, server: Server, live: _Live) -> Connection:
        """A connection over which the list of tools was read not long ago."""
        try:
            connection = await self._connected(server, live)
            async with live.lock:
                age = self._clock.now_ms() - live.listed_ms
                if live.listing is None or live.stale or age >= FRESH_MS:
                    listing = await self._list(server, live, connection)
                    await self._state(server, listing, connection, always=False)
        except ToolError as error:
            error.outcome = "absent"  # the call itself was not sent
            raise
        return connection

    async def _list(self, server: Server, live: _Live, connection: Connection) -> Listing:
        ready = connection.ready
        assert ready is not None
        live.stale = False
        answer = (
            await connection.request("tools/list", {}, timeout_ms=LIST_MS) if ready.tools else {"tools": []}
        )
        given = answer.get("tools") if isinstance(answer, dict) else None
        found = read_listing(given if isinstance(given, list) else [])
        own = own_definitions(resources=ready.resources, prompts=ready.prompts)
        listing = Listing(tools={**found.tools, **own}, refused=found.refused)
        live.listing, live.listed_ms = listing, self._clock.now_ms()
        return listing

    async def _state(self, server: Server, listing: Listing, connection: Connection, *, always: bool) -> None:
        """What changed of what was approved is suspended, on record."""
        changed = {
            tool: (one, listing.tools[tool])
            for tool, one in server.approved.items()
            if tool in listing.tools
            and listing.tools[tool].digest != one.definition.digest
            and tool not in server.suspended
        }
        seen = server.seen
        known = seen is not None and listing.digests() == {t: d.digest for t, d in seen.tools.items()}
        ready = connection.ready
        assert ready is not None
        if (always or changed or seen is None) and not known:
            await self._record.seen(server.name, listing, ready)
        for tool, (before, after) in changed.items():
            log.warning("mcp_tool_suspended", server=server.name, tool=tool)
            await self._record.suspended(
                server.name, tool, "changed", before.definition.digest, after.digest, principal="daemon"
            )

    # --- calling ------------------------------------------------------------------------------------

    async def _carry_out(
        self, server: Server, tool: str, args: dict[str, Any], context: ToolContext, connection: Connection
    ) -> ToolResult:
        async def questioned(question: Question) -> tuple[str, dict[str, Any] | None]:
            return await self._questions.put(server.name, tool, question, context)

        def progressed(told: Progress) -> None:
            known = told.total is not None and told.total > 0
            fraction = min(1.0, max(0.0, told.progress / told.total)) if known and told.total else None
            text = f"mcp:{server.name}: {told.message[:500]}"
            fields = {"fraction": fraction}
            self._on_delta(
                Delta(run=context.run, node=context.node, kind="progress", text=text, fields=fields)
            )

        method, params, read = _request(server.name, tool, args)
        left = context.deadline_ms - self._clock.now_ms()
        if left <= 0:
            raise _error(f"{tool} of {server.name}", "there is no time left for it", "tool.timeout")
        try:
            answer = await connection.request(
                method, params, timeout_ms=left, questioned=questioned, progressed=progressed
            )
        except ToolError as error:
            if error.outcome == "unknown" and server.approved[tool].effect == "read":
                error.outcome = "absent"  # asking again changes nothing
            raise
        self._of(server).failures = 0
        value = await asyncio.to_thread(read, answer)
        return ToolResult(value=value, label=f"mcp:{server.name}")

    def _made(self) -> list[Offer]:
        return [
            self._offer(server, tool, approved)
            for server in self._book.servers()
            for tool, approved in server.approved.items()
            if tool not in server.suspended
        ]

    def _offer(self, server: Server, tool: str, approved: Approved) -> Offer:
        definition = approved.definition
        if definition.digest not in self._schemas:
            self._schemas[definition.digest] = accepting(definition.input_schema)
        input_schema, accepts = self._schemas[definition.digest]
        return Offer(
            name=qualified(server.name, tool),
            description=definition.description or "Its server does not say what it does.",
            input_schema=input_schema,
            accepts=accepts,
            effect=approved.effect,
            confirm=approved.effect != "read",
            source="mcp",
            definition=server.definition(tool),
            tags=("mcp", f"mcp:{server.name}"),
            leaves=server.spec.url is not None or bool(server.spec.net),
        )

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _request(
    server: str, tool: str, args: dict[str, Any]
) -> tuple[str, dict[str, Any], Callable[[Any], dict[str, Any]]]:
    """Method, parameters, and how the answer is read."""
    match tool:
        case "resources.list":
            return "resources/list", {}, lambda a: listed(server, tool, a, ("resources", "templates"))
        case "resources.read":
            return "resources/read", {"uri": args["uri"]}, lambda a: listed(server, tool, a, ("contents",))
        case "prompts.list":
            return "prompts/list", {}, lambda a: listed(server, tool, a, ("prompts",))
        case "prompts.get":
            params = {"name": args["name"], "arguments": args.get("arguments") or {}}
            return "prompts/get", params, lambda a: listed(server, tool, a, ("description", "messages"))
        case _:
            return "tools/call", {"name": tool, "arguments": args}, lambda a: called(server, tool, a)


def _insist(server: Server, tool: str, approved: Approved, live: _Live) -> None:
    """The last look before it is sent: the definition the server has now is the one that was approved."""
    name = qualified(server.name, tool)
    now = live.listing.tools.get(tool) if live.listing is not None else None
    if now is None:
        raise _error(name, "its server does not offer it any more", "tool.unavailable")
    if tool in server.suspended or now.digest != approved.definition.digest:
        raise _error(name, "its definition changed since it was approved", "tool.suspended")


def _error(what: str, why: str, code: str) -> ToolError:
    server = split(what)[0]
    hint = f"'rlp mcp show {server}' tells more" if server else "'rlp mcp ls' tells more"
    if code == "tool.suspended":
        hint = f"a person looks at the difference with 'rlp mcp show {server}' and approves it again"
    return ToolError(f"{what}: {why}", hint=hint, code=code, retryable=code == "tool.unavailable")
