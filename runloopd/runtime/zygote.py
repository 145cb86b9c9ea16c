"""The process workers are forked from: single-threaded, components mapped, nothing foreign ever executed.

A runner of our own is instantiated here once: a fork then shares the tables of the engine with all others.

Started by the daemon as ``python -I -m runloopd.runtime.zygote <control fd> <parent pid> [waived layer…]``.
Knows: how to map a compiled component, fork, reap, and tell. Does not know: orders, host calls, the key of
the cache; what the workers inherit by fork holds no secret.

Control messages are JSON datagrams on a ``SOCK_SEQPACKET`` pair, with descriptors beside them: ``load
{component, ours} + memfd`` → ``loaded|refused``; ``spawn {id, component, memory_bytes, guest_ms} + socket`` →
``spawned {id, pid} + pidfd`` and later ``exited {id, status}``; ``probe {id, attempt} + socket`` likewise.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import platform
import resource
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import msgspec

from runloopd.runtime import hardening, landlock, seccomp
from runloopd.runtime.engine import ComponentRefused, wasmtime_version
from runloopd.runtime.sandbox import LoadedComponent, make_engine
from runloopd.runtime.worker import EXIT_BROKEN, EXIT_UNHARDENED, run_worker, warm_up
from runloopd.runtime.zygote_wire import receive_control, send_control

__all__ = ["Zygote", "main"]


def _open_descriptors() -> set[int]:
    listed = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    return {fd for fd in listed if _is_open(fd)}  # without the one that listed them


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


class Zygote:
    """The loop of the zygote."""

    def __init__(self, control: socket.socket, waived: Collection[str]) -> None:
        self._control = control
        self._waived = tuple(waived)
        self._engine = make_engine()
        self._program = (
            seccomp.build_filter(platform.machine(), seccomp.WORKER_ALLOWED) if seccomp.supported() else b""
        )
        if self._program:
            seccomp.prepare(self._program)  # before any fork
        self._landlocked = landlock.version()
        warm_up(self._engine)
        self._loaded: dict[str, tuple[LoadedComponent, frozenset[int]]] = {}
        self._children: dict[int, tuple[int, int]] = {}
        """pidfd -> (id, pid)"""
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def serve(self) -> None:
        """Handle control messages and dead children until the daemon closes the pair."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._control:
                    self._reap(key.fd)
                elif not self._handle():
                    return

    def _handle(self) -> bool:
        received = receive_control(self._control)
        if received is None:
            return False
        message, fds = received
        try:
            match message["do"]:
                case "load":
                    self._load(message["component"], fds[0], ours=message["ours"])
                case "spawn":
                    self._spawn(message, fds[0], self._worker(message))
                case "probe":
                    self._spawn(message, fds[0], self._probe(message))
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _load(self, component: str, memfd: int, *, ours: bool) -> None:
        before = _open_descriptors()
        try:
            loaded = LoadedComponent.map(self._engine, f"/proc/self/fd/{memfd}")
            if ours:
                loaded.make_spare(hardening.data_in_use)
        except ComponentRefused as error:
            send_control(self._control, {"is": "refused", "component": component, "message": error.message})
            return
        # The engine keeps a descriptor of the image open and maps from it at every instantiation: a worker
        # must keep it.
        images = frozenset(_open_descriptors() - before)
        self._loaded[component] = (loaded, images)
        gc.collect()
        gc.freeze()
        gc.disable()  # a collection in a worker would only copy pages
        send_control(self._control, {"is": "loaded", "component": component})

    def _spawn(self, message: dict[str, Any], inherited: int, life: Callable[[int, int], None]) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                life(inherited, parent)
            finally:
                os._exit(EXIT_BROKEN)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = (message["id"], pid)
        self._selector.register(pidfd, selectors.EVENT_READ)
        send_control(self._control, {"is": "spawned", "id": message["id"], "pid": pid}, [pidfd])

    def _worker(self, message: dict[str, Any]) -> Callable[[int, int], None]:
        loaded, images = self._loaded[message["component"]]

        def life(inherited: int, parent: int) -> None:
            run_worker(
                loaded=loaded,
                connection=inherited,
                parent=parent,
                keep=images,
                memory_bytes=message["memory_bytes"],
                guest_ms=message["guest_ms"],
                program=self._program,
                waived=self._waived,
                landlocked=self._landlocked,
            )

        return life

    def _probe(self, message: dict[str, Any]) -> Callable[[int, int], None]:
        def life(inherited: int, parent: int) -> None:
            try:
                layers = hardening.harden_worker(
                    parent=parent,
                    keep={inherited},
                    data_bytes=64 * 1024 * 1024,
                    cpu_seconds=10,
                    program=self._program,
                    waived=self._waived,
                    landlocked=self._landlocked,
                )
            except hardening.HardeningError as error:
                os.write(inherited, msgspec.json.encode({"missing": str(error)}))
                os._exit(EXIT_UNHARDENED)
            os.write(inherited, msgspec.json.encode({"layers": layers}))
            hardening.attempt(message["attempt"])
            os._exit(0)

        return life

    def _reap(self, pidfd: int) -> None:
        number, pid = self._children.pop(pidfd)
        self._selector.unregister(pidfd)
        _, status, used = os.wait4(pid, 0)
        os.close(pidfd)
        send_control(
            self._control,
            {
                "is": "exited",
                "id": number,
                "status": os.waitstatus_to_exitcode(status),
                "cpu_us": round((used.ru_utime + used.ru_stime) * 1_000_000),
            },
        )

    def kill_all(self) -> None:
        """No worker outlives its zygote."""
        for pidfd in self._children:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Entry of the process; returns when the daemon is gone."""
    faulthandler.enable()  # before the first engine: afterwards it would turn every trap into a crash
    control = socket.socket(fileno=int(arguments[0]))
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)  # the daemon decides; it closes the pair, or dies
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    os.chdir("/")
    layers = hardening.isolate_zygote()
    hardening.die_with_parent(int(arguments[1]))  # after the namespaces: new credentials clear it
    zygote = Zygote(control, arguments[2:])
    threads = len(list(Path("/proc/self/task").iterdir()))
    send_control(
        control, {"is": "ready", "wasmtime": wasmtime_version(), "layers": layers, "threads": threads}
    )
    try:
        zygote.serve()
    except OSError:
        return 1  # the daemon went away in the middle of a message
    finally:
        zygote.kill_all()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
