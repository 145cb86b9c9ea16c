"""The Unix socket: the only door for programs outside.

Knows: who connects (kernel credentials, the proof of the operator credential), how much each peer may hold
and owe, when a peer is cut. Does not know: topics and their rules (``bus``, ``acl``), or how the place of the
socket is made safe (``door``).

Attacks met here (attacks.md): B2 modes and owners, B3 a live socket is never stolen and a replaced one is
noticed, B4 half frames and lies, B5 a flooding or never-reading peer, B6 identity only from the kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from runloop.clock import Clock
from runloop.errors import RefusedError, RunloopError, UsageError
from runloop.rmp import hello, topics
from runloop.rmp.envelope import encode_message, open_frame
from runloop.rmp.frame import HEADER_LEN, MAX_BODY, Frame, FrameReader, Incomplete, WireError, decode_frame
from runloopd.bus.bus import Bus
from runloopd.bus.door import adopt, bind, prepare_directory, take_lock
from runloopd.bus.parts import PeerInfo, Route, SessionService
from runloopd.bus.principal import Principal
from runloopd.bus.queues import BackpressureTimeout, Outbox, Run, limits
from runloopd.bus.turns import AT_ONCE, Turns

__all__ = ["PeerLimits", "SocketServer"]

_PEERCRED = struct.Struct("3i")
_SWEEP_MS = 1_000
_EARLY_BODY = 4_096 - HEADER_LEN
"""Largest body of a frame before the hello is accepted; a hello has some 200 bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PeerLimits:
    """What one peer may hold, owe and take its time for."""

    peers: int = 128
    """Connections at once."""
    strangers: int = 64
    """Connections at once that did not prove the operator credential; the rest is kept for operators."""
    partial_bytes: int = 64 * 1024 * 1024
    """Bytes of begun frames that all of those together may have waiting here."""
    outbox_bytes: int = 8 * 1024 * 1024
    """Bytes waiting for one peer, beyond the socket's own buffers."""
    write_buffer: int = 256 * 1024
    """Bytes handed to the transport before a peer counts as not reading."""
    owed_bytes: int = 1024 * 1024
    """Bytes of one publisher waiting in others' queues before it is not read any more."""
    open_requests: int = 256
    """Control requests of one peer that are not answered yet."""
    hello_ms: int = 5_000
    """From connect to a valid hello."""
    frame_ms: int = 30_000
    """From the first byte of a frame to its last."""
    stall_ms: int = 30_000
    """Without a byte taken by a peer that something waits for; then it is cut."""
    max_body: int = MAX_BODY


class SocketServer:
    """Listens on ``path`` for programs of this user and connects them to the bus.

    ``on_lost(reason)`` hears, once, that the socket's place in the file system was taken or removed;
    ``on_refused(principal, error)`` hears of every frame, hello and peer that was turned away.
    ``handed_over``: a socket that listens at ``path`` already, and goes on when the daemon has ended.
    """

    def __init__(
        self,
        bus: Bus,
        path: Path,
        *,
        credential: bytes,
        build: str,
        clock: Clock,
        limits: PeerLimits | None = None,
        uid: int | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        on_lost: Callable[[str], None] | None = None,
        on_refused: Callable[[Principal, RunloopError], None] | None = None,
        services: Sequence[SessionService] = (),
        handed_over: socket.socket | None = None,
    ) -> None:
        self.bus = bus
        self.services = tuple(services)
        self.path = Path(path)
        self.credential = credential
        self.build = build
        self.clock = clock
        self.limits = limits or PeerLimits()
        self.uid = os.geteuid() if uid is None else uid
        self.entropy = entropy
        self._on_lost = on_lost
        self._handed_over = handed_over
        self.on_refused = on_refused or (lambda _principal, _error: None)
        self.closed = False
        self._server: asyncio.AbstractServer | None = None
        self._lock: int | None = None
        self._inode: tuple[int, int] | None = None
        self._sessions: set[_Session] = set()
        self._partial_bytes = 0
        self._dirty: set[_Session] = set()
        self.turns = Turns()
        self.flush_due = False
        """Whether :meth:`flush` will be called anyway."""
        self._sweeper: asyncio.Task[None] | None = None
        self._deadlines: asyncio.Task[None] | None = None
        hello.proof(credential, b"")  # refuse a malformed credential now, not at the first hello

    async def start(self) -> None:
        """Bind and listen. Raises ConflictError where a daemon lives, RefusedError for an unsafe place."""
        loop = asyncio.get_running_loop()
        prepare_directory(self.path)
        lock = self.path.with_name(self.path.name + ".lock")
        self._lock = take_lock(lock, handed_over=self._handed_over is not None)
        try:
            if self._handed_over is not None:
                listener = adopt(self._handed_over, self.path)  # it stays when we go, for the next of us
            else:
                listener = bind(self.path)
            status = os.lstat(self.path)
            self._inode = (status.st_dev, status.st_ino)
            self._server = await loop.create_unix_server(lambda: _Session(self), sock=listener, backlog=128)
        except BaseException:
            self._release_lock()
            raise
        self._sweeper = loop.create_task(self._sweep(), name="bus-sweeper")

    async def close(self) -> None:
        """Stop listening, flush what peers still take at once, cut them, remove the socket."""
        self.closed = True
        for task in (self._sweeper, self._deadlines):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self._sweeper = self._deadlines = None
        if self._server is not None:
            self._server.close()
        self.flush()
        for session in list(self._sessions):
            session.cut()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None
        if self._inode is not None:
            if self._handed_over is None and self._still_ours():
                self.path.unlink()
            self._inode = None
        self._release_lock()

    def peers(self) -> list[PeerInfo]:
        """Everybody who said a valid hello."""
        return [session.info() for session in self._sessions if session.greeted]

    # --- for sessions --------------------------------------------------------------------------------

    def enter(self, session: _Session) -> bool:
        """Register a connection; False when there are too many.

        An operator shows itself only in its hello, so a newcomer always finds room among those who have not
        said theirs: whoever holds most of it gives way.
        """
        alive = [other for other in self._sessions if not other.closing]
        strangers = [other for other in alive if other.stranger]
        if len(alive) >= self.limits.peers or len(strangers) >= self.limits.strangers:
            held = Counter(other.principal.pid for other in strangers)
            silent = [other for other in strangers if not other.greeted]
            if not silent:
                return False
            most = max(held[other.principal.pid] for other in silent)
            first = min(
                (other for other in silent if held[other.principal.pid] == most),
                key=lambda other: other.ident,
            )
            first.turn_away("too many programs connect at once")
        self._sessions.add(session)
        return True

    def room_for_peer(self) -> bool:
        """Whether one more may stay without the credential: a quarter of the room is for saying hello."""
        peers = sum(1 for other in self._sessions if other.greeted and other.stranger and not other.closing)
        return peers < self.limits.strangers - self.limits.strangers // 4

    def leave(self, session: _Session) -> None:
        self._sessions.discard(session)
        self._dirty.discard(session)

    def held(self, change: int) -> None:
        """Account for bytes of frames that strangers began; beyond the budget the greediest is cut."""
        self._partial_bytes += change
        while self._partial_bytes > self.limits.partial_bytes:
            greediest = max((other for other in self._sessions if not other.closing), key=lambda o: o.held)
            greediest.turn_away(f"frames begun and not finished hold over {self.limits.partial_bytes} bytes")

    def mark(self, session: _Session) -> None:
        """See to it that what the session gathered is written before the loop goes to sleep."""
        self._dirty.add(session)
        if not self.flush_due:
            self.flush_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        self.flush_due = False
        while self._dirty:
            self._dirty.pop().flush()

    def watch_deadlines(self) -> None:
        """Something is parked: see that it is given up in time."""
        if self._deadlines is None or self._deadlines.done():
            self._deadlines = asyncio.get_running_loop().create_task(
                self._watch_deadlines(), name="bus-deadlines"
            )

    # --- tasks ---------------------------------------------------------------------------------------

    async def _watch_deadlines(self) -> None:
        while True:
            due = [
                deadline
                for session in self._sessions
                if (deadline := session.outbox.next_deadline) is not None
            ]
            if not due:
                return
            await self.clock.sleep_until(min(due))
            for session in list(self._sessions):
                session.give_up(self.clock.now_ms())

    async def _sweep(self) -> None:
        while True:
            now = self.clock.now_ms()
            for session in list(self._sessions):
                session.check(now)
            if self._inode is not None and not self._still_ours():
                self._inode = None
                if self._on_lost is not None:
                    self._on_lost(f"{self.path} was replaced or removed while the daemon was running")
            await self.clock.sleep_until(now + _SWEEP_MS)

    def _still_ours(self) -> bool:
        try:
            status = os.lstat(self.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._inode

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)  # the file stays: removing it would let two daemons hold two locks
            self._lock = None


class _Session(asyncio.Protocol):
    """One connection: hello, then frames both ways. Receiver and publisher of the bus at once."""

    def __init__(self, server: SocketServer) -> None:
        self._server = server
        self._bus = server.bus
        self._limits = server.limits
        self._reader = FrameReader(max_body=min(_EARLY_BODY, server.limits.max_body))
        self._transport: asyncio.Transport | None = None
        self._nonce = server.entropy(hello.NONCE_BYTES)
        self.session = server.entropy(8).hex()
        self.greeted = False
        self.client = ""
        self.instance = ""
        self.heard_ms = 0
        """When a read last came from it."""
        self._bytes_in = 0
        self._bytes_out = 0
        self.outbox = Outbox(max_bytes=server.limits.outbox_bytes)
        self.principal = Principal(kind="peer", name=f"peer:-1#{self.session}")
        self.reply_topic = topics.client_reply(self.session)
        self.tag = b""
        self.routes: dict[tuple[int, str], Route] = {}
        self.known: dict[bytes, Route] = {}
        self.generation = -1
        self.ident, self.born = self._bus.enlist()
        self._patterns: list[str] = []
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._blocked = False
        self._waiting = 0
        """Bytes in the transport when a blocked peer was last looked at."""
        self._msg_id = 0
        self._owed = 0
        self._holds = 0
        self._requests = 0
        self._answered_ms = 0
        self._reading = True
        self._rest: tuple[bytes, int] | None = None
        """What a read brought and its turn had no room for, and from where on."""
        self._asked = False
        """Whether it waits for another turn."""
        self.closing = False
        self.held = 0
        """Bytes of a begun frame that count against the strangers' budget."""
        now = server.clock.now_ms()
        self._since_ms = now
        """Connected, cut, or last took bytes while something waited."""
        self._partial_ms: int | None = None
        self._answering: set[asyncio.Future[None]] = set()

    # --- asyncio ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer)
        # 64 KiB reads: larger ones make glibc map and trim a buffer on every read (lab/bus-store.md).
        with contextlib.suppress(AttributeError):  # uvloop's transports have their own size
            self._transport.max_size = 65_536  # type: ignore[attr-defined]
        raw = transport.get_extra_info("socket")
        pid, uid, _ = _PEERCRED.unpack(raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
        self.principal = Principal(kind="peer", name=f"peer:{uid}#{self.session}", uid=uid, pid=pid)
        if self._server.closed:  # accepted at the last moment
            self.closing = True
            self._transport.abort()
        elif uid != self._server.uid:
            self._end(
                RefusedError(
                    f"this daemon serves uid {self._server.uid}, you are uid {uid}",
                    hint="run your own daemon: rlp daemon start",
                    code="bus.uid",
                )
            )
        elif not self._server.enter(self):
            self._end(
                RefusedError(
                    f"{self._limits.peers} programs are connected already",
                    hint="close some of them",
                    code="bus.peers",
                )
            )
        else:
            self._say(
                "observation.runtime.hello.v1",
                {
                    "protocol": hello.PROTOCOL,
                    "build": self._server.build,
                    "session": self.session,
                    "nonce": self._nonce,
                },
            )

    def data_received(self, data: bytes) -> None:
        if self.closing:
            return
        self.heard_ms = self._server.clock.now_ms()
        self._bytes_in += len(data)
        if self._rest is None:
            self._work(data, self.heard_ms)
        else:  # a loop that had more of it at hand when it was told to stop
            buffer, at = self._rest
            self._rest = buffer[at:] + data, 0

    def go_on(self) -> None:
        """Another turn for what a read brought."""
        self._asked = False
        if self._rest is None or self.closing:
            return
        if not self._free:
            return  # whatever frees it asks again
        try:
            self._work(b"", self._server.clock.now_ms())
        except BaseException:
            if self._transport is not None:  # as the loop does with a protocol that fails
                self._transport.abort()
            raise

    def _work(self, data: bytes, now_ms: int) -> None:
        """Handle what was read, as much as a turn takes."""
        server = self._server
        completed = False
        server.flush_due = True  # below, whatever happens
        try:
            if not self.greeted:
                buffer, headers = self._reader.scan(data)
                if headers:
                    data = self._greet(buffer, headers)
                    self._reader = FrameReader(max_body=self._limits.max_body)
            if self.greeted:
                completed = self._ingest(data, now_ms)
            if self._reader.error is not None:
                raise self._reader.error
        except RunloopError as error:
            self._end(error)
        else:
            if not self._reader.pending:
                self._partial_ms = None
            elif completed or self._partial_ms is None:
                self._partial_ms = now_ms
        finally:
            server.flush()
            if server.turns.left < AT_ONCE:
                server.turns.spent()
        self._account()
        self._hold_or_read()

    def _ingest(self, data: bytes, now_ms: int) -> bool:
        """Route what is there; what is left of it waits for another turn. False when no frame was."""
        reader, rest = self._reader, self._rest
        self._rest = None
        buffer, start = (reader.join(data), 0) if rest is None else rest
        at = self._bus.advance(self, reader, buffer, start, now_ms, self._server.turns)
        if at < len(buffer) and not reader.pending and reader.error is None and not self.closing:
            self._rest = buffer, at
        return at > start

    def _account(self) -> None:
        held = 0
        if self.stranger and not self.closing:
            held = self._reader.pending
            if self._rest is not None:
                held += len(self._rest[0]) - self._rest[1]
        change, self.held = held - self.held, held
        if change:
            self._server.held(change)

    def pause_writing(self) -> None:
        self._blocked = True
        self._since_ms = self._server.clock.now_ms()
        self._waiting = 0

    def resume_writing(self) -> None:
        self._blocked = False
        self._since_ms = self._server.clock.now_ms()
        self._pump()
        self._hold_or_read()
        for service in self._server.services:
            service.roomy(self)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()
        if self.greeted:
            for service in self._server.services:
                service.left(self)
        for task in self._answering:
            task.cancel()
        self._transport = None  # uvloop raises where asyncio shrugs: receipts may still come from the ledger
        self._pending.clear()
        for pattern in self._patterns:
            self._bus.remove(self, pattern)
        self._patterns.clear()
        for run in self.outbox.clear():
            self._bus.dropped(run, self, "receiver_gone")
        self._bus.forget(self)
        self._server.leave(self)

    @property
    def stranger(self) -> bool:
        """Whether it has not proved the operator credential (yet)."""
        return self.principal.kind != "operator"

    # --- receiver ----------------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        return self.outbox.frames

    @property
    def idle(self) -> bool:
        return not (self.closing or self._blocked or self.outbox.frames)

    def complain(self, error: RunloopError) -> None:
        if not self.closing:
            self._say("error.report.v1", {**_report(error), "wire": error.to_wire()})

    def deliver(self, run: Run, sender: Principal) -> None:
        if self.closing:
            self._bus.dropped(run, self, "receiver_gone")
        elif self._blocked or self.outbox.frames:
            self._queue(run)
        else:
            self._write(run.data)
            self._bus.counters.delivered += run.count
            if self._requests:
                self._count_answers(run)

    def _count_answers(self, run: Run) -> None:
        if run.topic == self.reply_topic:
            self._requests = max(0, self._requests - run.count)
            self._answered_ms = self._server.clock.now_ms()
            self._hold_or_read()

    def _queue(self, run: Run) -> None:
        rest = self.outbox.offer(run)
        if rest is None:
            return
        wait_ms = limits(rest.klass).wait_ms
        if wait_ms == 0 or rest.source is None:
            self._drop(rest)  # realtime is shed; the daemon's own code never waits inside a publish
        else:
            self.outbox.park(rest, None if wait_ms is None else self._server.clock.now_ms() + wait_ms)
            self._server.watch_deadlines()

    def give_up(self, now_ms: int) -> None:
        """Drop what was parked for too long."""
        for run in self.outbox.give_up(now_ms):
            self._drop(run)

    def _drop(self, run: Run) -> None:
        self._bus.dropped(run, self, "backpressure_timeout")
        if run.source is not None:
            run.source.timed_out(run)

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            return
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= self._limits.write_buffer:
            self.flush()
        elif len(self._pending) == 1:
            self._server.mark(self)

    def flush(self) -> None:
        """Hand everything gathered to the transport, in one piece."""
        if self._pending and self._transport is not None:
            data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
            self._pending.clear()
            self._pending_bytes = 0
            self._bytes_out += len(data)
            self._transport.write(data)

    def _pump(self) -> None:
        """Move the queue to the transport until it is full again."""
        while not self._blocked and not self.closing and (run := self.outbox.take()) is not None:
            alive, dead = run.parted(self._server.clock.now_ms())
            if dead is not None:
                self._bus.dropped(dead, self, "ttl_expired", retry=False)
            if alive is not None:
                self._bus.counters.delivered += alive.count
                if self._requests:
                    self._count_answers(alive)
                self._write(alive.data)
                if self._pending_bytes >= self._limits.write_buffer // 4:
                    self.flush()
        self.flush()

    # --- publisher ----------------------------------------------------------------------------------------

    def charge(self, size: int) -> None:
        self._owed += size
        if size < 0 and not self._reading:
            self._hold_or_read()

    def hold(self, change: int) -> None:
        self._holds += change
        self._hold_or_read()

    def timed_out(self, run: Run) -> None:
        error = BackpressureTimeout(
            f"{run.count} frames on {run.topic}: a receiver stayed full",
            hint="publish more slowly, or send them again with the same ids",
        )
        self._say("error.report.v1", _report(error))

    def control(self, frame: Frame) -> None:
        """Schema 9: subscribe, unsubscribe, ping. A second hello is an error."""
        payload: Any = None
        try:
            payload = open_frame(frame).payload
            result = self._control(payload)
            if isinstance(result, Awaitable):
                self._answer_later(_ident(payload, frame), result)
                return
        except WireError:
            raise
        except RunloopError as error:
            self._answer(_ident(payload, frame), error=error)
        else:
            self._answer(_ident(payload, frame), result=result)

    def _answer_later(self, ident: str, result: Awaitable[Any]) -> None:
        async def settle() -> None:
            found: Any = None
            failure: RunloopError | None = None
            try:
                found = await result
            except RunloopError as error:
                failure = error
            if not self.closing:
                self._answer(ident, result=found, error=failure)

        if len(self._answering) >= _MAX_PATTERNS:
            result.close() if asyncio.iscoroutine(result) else None
            raise RefusedError("too many control frames wait for their answers", code="bus.controls")
        task = asyncio.ensure_future(settle())
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def receipt(self, msg_id: int, receivers: int, **more: Any) -> None:
        self._answer(str(msg_id), result={"receivers": receivers, **more})

    def refused(self, msg_id: int, error: RunloopError, *, receipt: bool) -> None:
        self._server.on_refused(self.principal, error)
        if receipt:
            self._answer(str(msg_id), error=error)
        else:
            self._say("error.report.v1", {**_report(error), "msg_id": msg_id, "wire": error.to_wire()})

    def requested(self, count: int) -> None:
        self._requests += count
        self._answered_ms = self._server.clock.now_ms()

    def _control(self, payload: Any) -> Any:
        if not isinstance(payload, dict):
            raise UsageError("a control frame's payload is a map", code="bus.control")
        action, pattern = payload.get("action"), payload.get("pattern")
        for service in self._server.services:
            if isinstance(action, str) and action in service.actions:
                answer = service.act(self, action, payload)
                if answer is not NotImplemented:
                    return answer
        if action == "ping":
            return {"now_ms": self._server.clock.now_ms()}
        if action not in ("subscribe", "unsubscribe") or not isinstance(pattern, str) or "durable" in payload:
            raise UsageError(
                f"{str(action)[:40]!r} is not a control action with its pattern",
                hint="subscribe, unsubscribe (both with pattern), ack, announce or ping",
                code="bus.control",
            )
        if action == "subscribe":
            if pattern not in self._patterns:
                if len(self._patterns) >= _MAX_PATTERNS:
                    raise RefusedError(f"more than {_MAX_PATTERNS} subscriptions", code="bus.subscriptions")
                self._bus.add(self, pattern)
                self._patterns.append(pattern)
        elif pattern in self._patterns and pattern != self.reply_topic:
            self._bus.remove(self, pattern)
            self._patterns.remove(pattern)
        return {}

    # --- hello ------------------------------------------------------------------------------------------

    def _greet(self, buffer: bytes, headers: list[Any]) -> bytes:
        """Judge the first frame; return the bytes that follow it, to be read anew under the full cap."""
        end = 4 + headers[0][0]
        frame = decode_frame(buffer[:end], max_body=self._limits.max_body)
        if frame.schema_id != 100:
            raise UsageError("say hello first (schema 100)", code="hello.expected")
        payload = open_frame(frame).payload
        if not isinstance(payload, dict):
            raise UsageError("a hello's payload is a map", code="hello.shape")
        hello.check_versions(
            daemon=(hello.PROTOCOL, self._server.build),
            client=(payload.get("protocol"), payload.get("build")),
        )
        kind = (
            "operator" if hello.proves(payload.get("proof"), self._server.credential, self._nonce) else "peer"
        )
        if kind != "operator" and not self._server.room_for_peer():
            raise RefusedError(
                "as many programs as allowed are connected without the operator credential",
                hint="close some of them",
                code="bus.peers",
            )
        uid, pid = self.principal.uid, self.principal.pid
        self.principal = Principal(
            kind="operator" if kind == "operator" else "peer",
            name=f"{kind}:{uid}#{self.session}",
            uid=uid,
            pid=pid,
        )
        self.tag = self._bus.tag(self.principal)
        self.client = ascii(payload.get("client"))[:64]
        self.instance = hello.instance(self.principal.label, payload.get("instance"), self._nonce)
        for service in self._server.services:
            service.greeted(self, payload)
        self.greeted = True
        self._bus.add(self, self.reply_topic)
        self._patterns.append(self.reply_topic)
        self._answer(
            hello.HELLO_ID,
            result={"principal": kind, "session": self.session, "reply_to": self.reply_topic},
        )
        return buffer[end:]

    # --- upkeep -----------------------------------------------------------------------------------------

    def info(self) -> PeerInfo:
        return PeerInfo(
            principal=self.principal,
            session=self.session,
            client=self.client,
            patterns=tuple(self._patterns),
            queued_frames=self.outbox.frames,
            queued_bytes=self.outbox.bytes,
            reading=self._reading,
            owed_bytes=self._owed,
            open_requests=self._requests,
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
        )

    def check(self, now_ms: int) -> None:
        """Cut the peer if it is late with its hello, with the rest of a frame, or does not read."""
        if self.closing:
            if now_ms - self._since_ms >= self._limits.hello_ms and self._transport is not None:
                self._transport.abort()  # what it was told last, it does not take
        elif not self.greeted and now_ms - self._since_ms >= self._limits.hello_ms:
            self._end(Incomplete("no hello came", hint="speak RMP v0"))
        elif self._partial_ms is not None and now_ms - self._partial_ms >= self._limits.frame_ms:
            self._end(Incomplete(f"a frame was begun and not finished in {self._limits.frame_ms} ms"))
        elif self._blocked and not self._progressed(now_ms):
            self.cut()
        elif self._requests and now_ms - self._answered_ms >= self._limits.frame_ms:
            self._requests = 0  # answers that never came must not hold the peer for ever
            self._hold_or_read()

    def _progressed(self, now_ms: int) -> bool:
        """Tell whether a blocked peer took a byte within the time it may stall."""
        waiting = 0 if self._transport is None else self._transport.get_write_buffer_size()
        if waiting < self._waiting:
            self._since_ms = now_ms
        self._waiting = waiting
        return now_ms - self._since_ms < self._limits.stall_ms

    def cut(self) -> None:
        """End the connection now, whatever waits."""
        self._let_go()
        self._since_ms = self._server.clock.now_ms()
        if self._transport is not None:
            self.flush()
            if self._blocked:
                self._transport.abort()
            else:
                self._transport.close()

    def _let_go(self) -> None:
        """Nothing is read from it any more: give back the bytes it had begun, or that had no turn yet."""
        self.closing = True
        self._reader = FrameReader()
        self._rest = None
        self._account()

    def turn_away(self, why: str) -> None:
        """Cut it to make room for others."""
        self._end(RefusedError(why, hint="try again, with fewer connections", code="bus.peers"))

    def _end(self, error: RunloopError) -> None:
        """Say why, then close: the ``Control`` error of spec/rmp.md."""
        self._bus.counters.refuse(error.named_code)
        self._server.on_refused(self.principal, error)
        if not self.greeted and not isinstance(error, WireError):
            self._answer(hello.HELLO_ID, error=error)
        else:
            self._say("error.report.v1", _report(error))
        self.cut()

    def _answer(self, ident: str, *, result: Any = None, error: RunloopError | None = None) -> None:
        answer: dict[str, Any] = {"id": ident, "ok": error is None}
        if error is None:
            answer["result"] = result
        else:
            answer["error"] = error.to_wire()
        self._say("toolresult.ctrl.response.v1", answer)

    def _say(self, type: str, payload: dict[str, Any]) -> None:
        """A frame of the session itself; it is no publish and not counted as one."""
        self._msg_id += 1
        self._write(
            encode_message(
                type, payload, msg_id=self._msg_id, now_ms=self._server.clock.now_ms(), topic=self.reply_topic
            )
        )

    @property
    def _free(self) -> bool:
        """Whether neither it nor those it writes to are behind (dbus-broker's rule)."""
        return not (
            self._holds
            or self._owed > self._limits.owed_bytes
            or self._requests > self._limits.open_requests
            or self._blocked  # it does not take what it caused: answers would pile up
        )

    def _hold_or_read(self) -> None:
        """Read from the peer only while it may cause more, and what was read had its turn."""
        if self.closing or self._transport is None:
            return
        reading = self._free
        if self._rest is not None:
            if reading and not self._asked:
                self._asked = True
                self._server.turns.ask(self)
                self._server.turns.spent()
            reading = False
        if reading != self._reading:
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()


_MAX_PATTERNS = 256


def _report(error: RunloopError) -> dict[str, Any]:
    return {"error": type(error).__name__, "message": error.message, "hint": error.hint}


def _ident(payload: Any, frame: Frame) -> str:
    ident = payload.get("id") if isinstance(payload, dict) else None
    return ident if isinstance(ident, str) else str(frame.msg_id)
