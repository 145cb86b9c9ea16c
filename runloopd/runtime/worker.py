"""The process of one attempt: forked from the zygote, hardened, one guest, gone.

Knows: how to speak with the daemon over one socket, how to keep the guest's time, when to give up. Does not
know: what a host call means or whether it is allowed.

Two threads: the guest's, which also does the socket's I/O while the guest waits, and the main one, which only
keeps the time. The guest never runs on the main thread, and threads that run guests have a stack of their own
choosing (lab/wasm.md §E: 512 KiB or less is a segmentation fault).
"""

from __future__ import annotations

import _thread
import os
import socket
import time
from collections.abc import Callable, Collection

import msgspec

from runloop.rmp.frame import Frame, FrameReader, WireError
from runloopd.runtime import hardening
from runloopd.runtime.sandbox import Ending, Engine, Guest, LoadedComponent
from runloopd.runtime.wire import (
    CallRequest,
    CallResponse,
    End,
    Message,
    Start,
    WorkerProtocolError,
    decode,
    encode,
)

__all__ = [
    "EXIT_ORPHANED",
    "EXIT_UNHARDENED",
    "STACK_BYTES",
    "Conversation",
    "Watch",
    "run_worker",
    "warm_up",
]

EXIT_UNHARDENED = 90
"""A mandatory layer is missing; no guest was run."""
EXIT_ORPHANED = 91
"""The daemon went away, or spoke out of turn."""
EXIT_BROKEN = 92
"""A mistake of ours in the worker."""

STACK_BYTES = 8 * 1024 * 1024
_SOURCE_CALLS = 16
_WARM_UPS = 16
_DATA_SLACK = 64 * 1024 * 1024
"""Private memory beyond the guest's own: thread stack, tables, the strings of a host call."""


class Watch:
    """Keeps the guest's time: the clock stands while the guest waits for an answer.

    One thread tells (:meth:`resume`, :meth:`pause`, :meth:`finish`), one keeps. They share one attribute and
    one bell, because :class:`threading.Condition` would cost every worker a quarter of a MiB of copied pages.
    """

    def __init__(self, budget_ms: int, stop: Callable[[], None]) -> None:
        self._left_ns = budget_ms * 1_000_000
        self._stop = stop
        self._deadline: int | None = None
        """When the guest must be stopped, None while the clock stands. Written by the teller alone."""
        self._done = False
        self._bell = _thread.allocate_lock()
        self._bell.acquire()

    def resume(self) -> None:
        """The guest goes on."""
        self._deadline = time.monotonic_ns() + self._left_ns
        self._ring()

    def pause(self) -> None:
        """The guest waits."""
        if self._deadline is not None:
            self._left_ns = self._deadline - time.monotonic_ns()
            self._deadline = None

    def finish(self) -> None:
        """There is nothing to keep time of any more."""
        self._done = True
        self._ring()

    def keep(self) -> None:
        """Block until the time is up, then stop the guest once; or until :meth:`finish`."""
        while not self._done:
            deadline = self._deadline
            if deadline is None:
                self._bell.acquire()
                continue
            left = deadline - time.monotonic_ns()
            if left <= 0:
                self._stop()
                return
            self._bell.acquire(timeout=left / 1e9)

    def _ring(self) -> None:
        if self._bell.locked():  # only the teller unlocks, so it still is in the next line or needs no more
            self._bell.release()


class Conversation:
    """The worker's end of the socket pair: blocking, one message at a time."""

    def __init__(self, connection: int) -> None:
        self._connection = connection
        self._reader = FrameReader()
        self._frames: list[Frame] = []
        self._sent = 0
        self.trace_id = 0

    def send(self, message: Message) -> None:
        self._sent += 1
        data = encode(message, msg_id=self._sent, trace_id=self.trace_id)
        while data:
            data = data[os.write(self._connection, data) :]

    def receive(self) -> Frame:
        """The next frame; raises :class:`EOFError` at the end of the stream, ``WireError`` for nonsense."""
        while not self._frames:
            data = os.read(self._connection, 32_768)
            if not data:
                raise EOFError
            self._frames = self._reader.feed(data)
        return self._frames.pop(0)


class Session:
    """One guest, from its order to its ending."""

    def __init__(
        self, loaded: LoadedComponent, talk: Conversation, *, memory: Callable[[], int] = lambda: 0
    ) -> None:
        self._loaded = loaded
        self._talk = talk
        self._memory = memory
        self._calls = 0
        self._sources = 0

    def run(self, watching: Callable[[Watch], None]) -> Ending:
        """Receive the order, execute the guest, return how it ended. ``watching`` is given the clock."""
        frame = self._talk.receive()
        self._talk.trace_id = frame.trace_id
        self._start = start = decode(frame, Start)
        baseline = self._memory()
        self._guest = Guest(
            self._loaded,
            fuel=start.fuel,
            memory_bytes=start.memory_bytes,
            output_bytes=start.output_bytes,
            call=self.call,
            memory_in_use=lambda: self._memory() - baseline,
        )
        self._watch = Watch(start.guest_ms, self._guest.stop)
        watching(self._watch)
        self._watch.resume()
        ending = self._guest.run(start.input)
        self._watch.finish()
        return ending

    def call(self, op: str, payload: str) -> tuple[bool, str]:
        """Answer one host call of the guest, by asking the daemon."""
        if op == "agent.source":
            return self._source()
        if self._calls >= self._start.host_calls:
            return _refusal("quota.calls", f"more than {self._start.host_calls} host calls in one attempt")
        self._calls += 1
        size = len(op.encode()) + len(payload.encode())
        if size > self._start.request_bytes:
            return _refusal(
                "request.too_large",
                f"the call has {size} bytes; at most {self._start.request_bytes} are allowed",
            )
        return self._ask(op, payload)

    def _ask(self, op: str, payload: str) -> tuple[bool, str]:
        index = self._asked
        try:
            self._talk.send(CallRequest(index=index, op=op, args=payload, fuel=self._guest.fuel_burnt()))
            self._watch.pause()
            response = decode(self._talk.receive(), CallResponse)
            if response.index != index:
                raise WorkerProtocolError(f"the answer to call {response.index} came for call {index}")
        except (OSError, EOFError, WireError, WorkerProtocolError):
            os._exit(EXIT_ORPHANED)  # nothing may unwind through the guest, and nobody listens any more
        self._asked = index + 1
        self._watch.resume()
        return response.ok, response.text

    _asked = 0

    def _source(self) -> tuple[bool, str]:
        self._sources += 1
        if self._start.source is None or self._sources > _SOURCE_CALLS:
            return _refusal("op.unknown", "agent.source is for runners alone")
        return True, self._start.source


def _refusal(code: str, message: str) -> tuple[bool, str]:
    value = {"code": code, "message": message, "hint": None, "retryable": False}
    return False, msgspec.json.encode(value, order="sorted").decode()


def warm_up(engine: Engine) -> None:
    """Run a guest of our own a few times, in the zygote: what the interpreter and the bindings remember of
    code they have run, they write where it is kept, and what is written before the fork stays shared."""
    echo = LoadedComponent.echo(engine)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for op in ("agent.source", "time.now") * _WARM_UPS:
            start = Start(
                input=op, source="{}", fuel=1_000_000, memory_bytes=1 << 20, guest_ms=1_000, host_calls=1,
                request_bytes=1_000, output_bytes=1_000,
            )  # fmt: skip
            ours.sendall(encode(start, msg_id=1))
            ours.sendall(encode(CallResponse(index=0, ok=True, text="{}"), msg_id=2))
            talk = Conversation(theirs.fileno())
            ending = Session(echo, talk, memory=hardening.data_in_use).run(lambda _: None)
            if ending.code != "ok":
                raise RuntimeError(f"the engine does not work: {ending.code}: {ending.text}")
            if op == "agent.source":
                talk.receive()  # the answer that nobody asked for
            talk.send(End(code=ending.code, text=ending.text, fuel=ending.fuel))
            ours.recv(65_536)


def run_worker(
    *,
    loaded: LoadedComponent,
    connection: int,
    parent: int,
    keep: Collection[int],
    memory_bytes: int,
    guest_ms: int,
    program: bytes,
    waived: Collection[str],
    landlocked: int,
) -> None:
    """The life of a worker, on the main thread of a freshly forked process. Does not return."""
    locks = shut, hardened, watching = tuple(_thread.allocate_lock() for _ in range(3))
    for lock in locks:
        lock.acquire()
    watches: list[Watch] = []
    # Opened while open() is still allowed; the only descriptor beside the socket and the guest's own image.
    statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def keep_time(watch: Watch) -> None:
        watches.append(watch)
        watching.release()

    def guest() -> None:
        try:
            hardening.harden_thread(landlocked=landlocked, waived=waived)
        except hardening.HardeningError:
            os._exit(EXIT_UNHARDENED)
        shut.release()
        hardened.acquire()
        try:
            talk = Conversation(connection)
            session = Session(loaded, talk, memory=lambda: hardening.data_in_use(statm))
            ending = session.run(keep_time)
            talk.send(End(code=ending.code, text=ending.text, fuel=ending.fuel))
        except (OSError, EOFError, WireError, WorkerProtocolError):
            os._exit(EXIT_ORPHANED)
        except BaseException:
            os._exit(EXIT_BROKEN)
        os._exit(0)

    _thread.stack_size(STACK_BYTES)
    # Started before the limits and the filter, which forbid new threads and then cover this one too (TSYNC).
    _thread.start_new_thread(guest, ())
    shut.acquire()
    try:
        hardening.harden_worker(
            parent=parent,
            keep={connection, statm, *keep},
            data_bytes=memory_bytes + _DATA_SLACK,
            cpu_seconds=guest_ms // 1000 + 10,
            program=program,
            waived=waived,
            landlocked=landlocked,
        )
    except hardening.HardeningError:
        os._exit(EXIT_UNHARDENED)
    hardened.release()
    watching.acquire()
    watches[0].keep()
    watching.acquire()  # for ever: the guest's thread ends the process, or the daemon does
