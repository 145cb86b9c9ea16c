"""One live connection to one MCP server: two sandboxed processes and the socket between them and the daemon.

Knows: how a server and its bridge are attended and ended, how requests are matched with answers, what a
failure means for whoever asked. Does not know: which tools there are or who may call them (``mcp.source``).

The server never sees the daemon and the daemon never parses MCP: the bridge does, in a sandbox without
network, folders or programs. Whatever ends either of them ends the connection; nothing of it is used again.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any

import msgspec
import structlog

from runloop.errors import RunloopError
from runloopd.broker.mcp.dialling import Dialler, close_all, serve_descriptors
from runloopd.broker.mcp.messages import (
    Answer,
    Ask,
    BridgeError,
    Cancel,
    Changed,
    Failure,
    FromBridge,
    FromDaemon,
    Gone,
    Progress,
    Question,
    Ready,
    Reply,
    Start,
    decode,
    encode,
    size_of,
)
from runloopd.broker.scrubber import Scrubber
from runloopd.broker.toolbox import ToolError
from runloopd.broker.tools.sandbox import Child

__all__ = ["Connection", "Progressed", "Questioned"]

log = structlog.get_logger(__name__)

_TAIL = 4_096
"""Characters of a server's standard error that are kept for the operator."""
_NOT_TAKEN = frozenset({-32700, -32600, -32601, -32602})
"""Errors of JSON-RPC that say nothing was begun: no JSON, no request, no such method, wrong parameters."""
_GRACE_MS = 2_000
"""How much longer the daemon waits than the bridge was told to."""

Progressed = Callable[[Progress], None]
Questioned = Callable[[Question], Awaitable[tuple[str, dict[str, Any] | None]]]
"""Answers a server's question to a person: ``accept`` with content, ``decline`` or ``cancel``."""


class Connection:
    """Requests to one server. ``closed`` once nothing of it can be used any more."""

    def __init__(self, server: str, scrubber: Scrubber, changed: Callable[[str], None]) -> None:
        self.server = server
        self.scrubber = scrubber
        self.ready: Ready | None = None
        self.why = ""
        """Why it is over; foreign text may be in it, scrubbed and bounded."""
        self._changed = changed
        self._closed = asyncio.Event()
        self._children: list[Child] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sockets: list[socket.socket] = []
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._questioned: dict[int, Questioned] = {}
        self._progressed: dict[int, Progressed] = {}
        self._numbers = count(1)
        self._writer: asyncio.StreamWriter | None = None
        self._tail = ""
        self._cut = False
        self._listening: list[asyncio.Task[Any]] = []
        self._pipes: list[int] = []

    @property
    def closed(self) -> bool:
        """Nothing is answered any more."""
        return self._closed.is_set()

    @property
    def tail(self) -> str:
        """The last of what the server wrote on standard error: foreign text, scrubbed."""
        said = self._tail
        if self._cut:
            # Masks are shorter than what they hide: half a secret at the front would come in view.
            said = said.partition("\n")[2]
        return self.scrubber.page(said)[-_TAIL:]

    # --- building, for the launcher -----------------------------------------------------------------

    def hold(self, held: socket.socket) -> None:
        """Close it at the end."""
        self._sockets.append(held)

    async def attend(self, child: Child) -> None:
        """The connection ends when ``child`` does, and ends it."""
        self._children.append(child)
        self._spawn(self._until_it_ends(child))

    def serve_descriptors(self, channel: socket.socket, dialler: Dialler, pipes: list[int]) -> None:
        """Give the bridge what it may have."""
        self._pipes = pipes
        self._spawn(serve_descriptors(channel, dialler, pipes))

    def complaints(self) -> int:
        """A descriptor to use as standard error; close it once it was handed over."""
        reads, writes = os.pipe()
        self._listening.append(self._spawn(self._listen(reads)))
        return writes

    async def begin(self, control: socket.socket, start: Start) -> None:
        """Say the first word and wait for the server to be there."""
        reader, self._writer = await asyncio.open_unix_connection(sock=control)
        self._say(start)
        first = await self._read(reader)
        if isinstance(first, Gone):
            self.why = self.why or self._foreign(first.message)
        if not isinstance(first, Ready):
            raise self.unavailable(await self._last_words(self.why or "its bridge ended"))
        self.ready = first
        self._spawn(self._pump(reader))

    # --- asking -------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        params: dict[str, Any],
        *,
        timeout_ms: int,
        questioned: Questioned | None = None,
        progressed: Progressed | None = None,
    ) -> Any:
        """The server's result as JSON: foreign, scrubbed of this server's secrets.

        Raises :class:`ToolError`: ``tool.failed`` when the server said no, ``tool.timeout``, and
        ``tool.unavailable`` when it went away; ``outcome="unknown"`` for these two, as it may have done it.
        Cancelling tells the server.
        """
        if self.closed or self._writer is None:
            raise self.unavailable(self.why)
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        if questioned is not None:
            self._questioned[number] = questioned
        if progressed is not None:
            self._progressed[number] = progressed
        try:
            self._say(Ask(id=number, method=method, params=params, timeout_ms=max(1, timeout_ms)))
            async with asyncio.timeout((timeout_ms + _GRACE_MS) / 1000):
                return self.scrubber.value(await answer)
        except TimeoutError:
            # A bridge that does not even say that time is over is stuck in something the server sent.
            await self.close("it stopped answering")
            raise self._error("it did not answer in time", "tool.timeout", unknown=True) from None
        except asyncio.CancelledError:
            with suppress(RunloopError):
                self._say(Cancel(id=number))
            raise
        finally:
            self._waiting.pop(number, None)
            self._questioned.pop(number, None)
            self._progressed.pop(number, None)

    async def close(self, why: str = "it was closed") -> None:
        """End the server and its bridge, and everything they started."""
        self._over(why)
        for child in self._children:
            with suppress(RunloopError, OSError):
                await child.kill()
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
        for held in self._sockets:
            held.close()
        close_all(self._pipes)

    def unavailable(self, why: str) -> ToolError:
        """The error of whoever wanted something of a server that is not there. Nothing was done."""
        return self._error(f"it is not there: {why or 'it ended'}", "tool.unavailable", retryable=True)

    # --- inside -------------------------------------------------------------------------------------

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _say(self, message: FromDaemon) -> None:
        assert self._writer is not None
        self._writer.write(encode(message))

    async def _read(self, reader: asyncio.StreamReader) -> FromBridge | None:
        try:
            head = await reader.readexactly(4)
            return decode(await reader.readexactly(size_of(head)), FromBridge)
        except (asyncio.IncompleteReadError, OSError):
            return None

    async def _pump(self, reader: asyncio.StreamReader) -> None:
        why = "its bridge ended"
        try:
            while (message := await self._read(reader)) is not None:
                match message:
                    case Answer():
                        self._settle(message.id, message.value)
                    case Failure():
                        self._settle(message.id, self._failed(message))
                        if message.kind == "closed":
                            why = self._foreign(message.message)
                            break
                    case Changed():
                        self._changed(message.what[:32])
                    case Progress():
                        self._show(message)
                    case Question():
                        self._spawn(self._ask(message))
                    case Gone():
                        why = self._foreign(message.message)
                        break
                    case _:
                        continue
        except BridgeError as error:
            why = error.message
            log.warning("mcp_bridge_broke", server=self.server, why=why)
        self._over(why)
        self._spawn(self.close(why))

    async def _last_words(self, why: str) -> str:
        """``why``, and what the server complained of last, once all of it was heard."""
        if self._listening:
            await asyncio.wait(self._listening, timeout=1)
        said = self.tail.strip().splitlines()
        return f"{why}; it said last: {said[-1][:300]}" if said else why

    def _settle(self, number: int, outcome: Any) -> None:
        waiting = self._waiting.get(number)
        if waiting is None or waiting.done():
            return  # nobody waits any more
        if isinstance(outcome, ToolError):
            waiting.set_exception(outcome)
        else:
            waiting.set_result(outcome)

    def _show(self, progress: Progress) -> None:
        progressed = self._progressed.get(progress.id)
        if progressed is not None:
            progressed(msgspec.structs.replace(progress, message=self.scrubber.text(progress.message)))

    async def _ask(self, question: Question) -> None:
        questioned = self._questioned.get(question.ask)
        action, content = "decline", None
        if questioned is not None:
            try:
                action, content = await questioned(question)
            except RunloopError as error:
                log.warning("mcp_question_failed", server=self.server, why=error.message)
        with suppress(RunloopError, OSError):
            self._say(Reply(question=question.question, action=action, content=content))

    async def _until_it_ends(self, child: Child) -> None:
        code = await child.wait()
        cause = f", ended for its use of {child.killed_by}" if child.killed_by else ""
        self.why = self.why or f"its process ended with {code}{cause}"
        # What it said last may still be on its way, an answer among it: the bridge tells of the end.
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_MS / 1000):
                await self._closed.wait()
        self._spawn(self.close(self.why))

    async def _listen(self, descriptor: int) -> None:
        reader = asyncio.StreamReader(limit=64 * 1024)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
        )
        try:
            while piece := await reader.read(16 * 1024):
                # Twice what is shown: a secret that is cut at the front is scrubbed where it is whole.
                said = self._tail + piece.decode("utf-8", "replace")
                self._cut = self._cut or len(said) > 2 * _TAIL
                self._tail = said[-2 * _TAIL :]
        finally:
            transport.close()

    def _over(self, why: str) -> None:
        if self.closed:
            return
        self.why = self.why or why
        self._closed.set()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(
                    self._error(f"it went away: {self.why}", "tool.unavailable", retryable=True, unknown=True)
                )

    def _failed(self, failure: Failure) -> ToolError:
        words = self._foreign(failure.message)
        match failure.kind:
            case "refused":
                taken = failure.code not in _NOT_TAKEN  # whatever went wrong then, it may have begun
                return self._error(f"it says: {words}", "tool.failed", unknown=taken)
            case "timeout":
                return self._error("it did not answer in time", "tool.timeout", unknown=True)
            case "closed":
                return self._error(f"it went away: {words}", "tool.unavailable", retryable=True, unknown=True)
            case _:
                return self._error(f"its answer cannot be used: {words}", "tool.result", unknown=True)

    def _foreign(self, text: str) -> str:
        return self.scrubber.page(text)[:1_000]

    def _error(self, why: str, code: str, *, retryable: bool = False, unknown: bool = False) -> ToolError:
        return ToolError(
            f"the MCP server {self.server}: {why}",
            hint=f"'rlp mcp show {self.server}' tells more",
            code=code,
            retryable=retryable,
            outcome="unknown" if unknown else "absent",
        )
