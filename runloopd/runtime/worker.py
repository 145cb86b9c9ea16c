"""The process of one attempt: forked from the zygote, hardened, one guest, gone.

Knows: how to speak with the daemon over one socket, how to keep the guest's time, when to give up. Does not
know: what a host call means or whether it is allowed.

Two threads: the guest's, which also does the socket's I/O while the guest waits, and the main one, which only
keeps the time. The guest never runs on the main thread, and threads that run guests have a stack of their own
choosing (lab/wasm.md §E: 512 KiB or less is a segmentation fault).
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Collection

from runloop.digest import canonical
from runloop.rmp.frame import Frame, FrameReader, WireError
from runloopd.runtime import hardening
from runloopd.runtime.sandbox import Ending, Guest, LoadedComponent
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

__all__ = ["EXIT_ORPHANED", "EXIT_UNHARDENED", "Conversation", "Watch", "run_worker"]

EXIT_UNHARDENED = 90
"""A mandatory layer is missing; no guest was run."""
EXIT_ORPHANED = 91
"""The daemon went away, or spoke out of turn."""
EXIT_BROKEN = 92
"""A mistake of ours in the worker."""

_STACK_BYTES = 8 * 1024 * 1024
_SOURCE_CALLS = 16
_DATA_SLACK = 64 * 1024 * 1024
"""Private memory beyond the guest's own: thread stack, tables, the strings of a host call."""


class Watch:
    """Keeps the guest's time: the clock stands while the guest waits for an answer."""

    def __init__(self, budget_ms: int, stop: Callable[[], None]) -> None:
        self._left_ns = budget_ms * 1_000_000
        self._stop = stop
        self._since = 0
        self._running = False
        self._done = False
        self._changed = threading.Condition()

    def resume(self) -> None:
        """The guest goes on."""
        with self._changed:
            self._since = time.monotonic_ns()
            self._running = True
            self._changed.notify()

    def pause(self) -> None:
        """The guest waits."""
        with self._changed:
            self._left_ns -= time.monotonic_ns() - self._since
            self._running = False

    def finish(self) -> None:
        """There is nothing to keep time of any more."""
        with self._changed:
            self._done = True
            self._changed.notify()

    def keep(self) -> None:
        """Block until the time is up, then stop the guest once; or until :meth:`finish`."""
        with self._changed:
            while not self._done:
                if not self._running:
                    self._changed.wait()
                    continue
                left = self._left_ns - (time.monotonic_ns() - self._since)
                if left <= 0:
                    self._stop()
                    return
                self._changed.wait(left / 1e9)


class Conversation:
    """The worker's end of the socket pair: blocking, one message at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._reader = FrameReader()
        self._frames: list[Frame] = []
        self._sent = 0
        self.trace_id = 0

    def send(self, message: Message) -> None:
        self._sent += 1
        self._socket.sendall(encode(message, msg_id=self._sent, trace_id=self.trace_id))

    def receive(self) -> Frame:
        """The next frame; raises :class:`EOFError` at the end of the stream, ``WireError`` for nonsense."""
        while not self._frames:
            data = self._socket.recv(32_768)
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
            return _refusal("op.unknown", "agent.source is for the Python runner alone")
        return True, self._start.source


def _refusal(code: str, message: str) -> tuple[bool, str]:
    value = {"code": code, "message": message, "hint": None, "retryable": False}
    return False, canonical(value).decode()


def run_worker(
    *,
    loaded: LoadedComponent,
    connection: socket.socket,
    parent: int,
    keep: Collection[int],
    memory_bytes: int,
    guest_ms: int,
    program: bytes,
    waived: Collection[str],
) -> None:
    """The life of a worker, on the main thread of a freshly forked process. Does not return."""
    hardened = threading.Event()
    watches: list[Watch] = []
    watching = threading.Event()
    # Opened while open() is still allowed; the only descriptor beside the socket and the guest's own image.
    statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)

    def keep_time(watch: Watch) -> None:
        watches.append(watch)
        watching.set()

    def guest() -> None:
        hardened.wait()
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

    threading.stack_size(_STACK_BYTES)
    # Started before the limits and the filter, which forbid new threads and then cover this one too (TSYNC).
    threading.Thread(target=guest, daemon=True).start()
    try:
        hardening.harden_worker(
            parent=parent,
            keep={connection.fileno(), statm, *keep},
            data_bytes=memory_bytes + _DATA_SLACK,
            cpu_seconds=guest_ms // 1000 + 10,
            program=program,
            waived=waived,
        )
    except hardening.HardeningError:
        os._exit(EXIT_UNHARDENED)
    hardened.set()
    watching.wait()
    watches[0].keep()
    threading.Event().wait()  # the guest's thread ends the process, or the daemon does
