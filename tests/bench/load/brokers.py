"""Start the brokers that are compared, each in a temporary folder with a configuration of its own.

Knows: how each program is called, on which socket it listens, which processes it consists of. Does not know:
what is measured. Everything listens on Unix sockets, NATS (which has none) on the loopback address. Whatever
was started here ends with the bench, by its process id, even when the bench is killed.

A program that is not installed raises :class:`~tests.bench.load.build.Unavailable`, which names the package.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.load import build, dbus, wire
from tests.bench.load.build import Unavailable

__all__ = ["BROKERS", "Broker", "cpu_ns", "free_port", "run", "tool"]

ROOT = Path(__file__).resolve().parents[3]
PYTHONPATH = os.pathsep.join((os.fspath(ROOT), os.fspath(ROOT / "sdk" / "python")))
"""This checkout, whatever is installed."""
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


@dataclass
class Broker:
    """A broker that runs."""

    wire: wire.Wire
    pids: list[int]
    version: str
    kept: list[object] = field(default_factory=list)


def tool(name: str, package: str) -> str:
    """The program's path; raises :class:`Unavailable`."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise Unavailable(f"{name} is missing: apt install {package}")
    return found


def first_line(*argv: str) -> str:
    """What a program says about its version."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return next(iter((done.stdout or done.stderr).splitlines()), "").strip()


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def run(
    argv: list[str],
    *,
    folder: Path,
    core: int | None = None,
    env: dict[str, str] | None = None,
    pass_fds: tuple[int, ...] = (),
    user: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """The process, until the block ends; on one ``core`` if that is given. Its output goes to a file."""

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if core is not None:
            os.sched_setaffinity(0, {core})

    if user is not None and os.geteuid() == 0:
        argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--pdeathsig=KILL", *argv]
    with (folder / "output").open("ab") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**os.environ, **(env or {})},
            pass_fds=pass_fds,
            preexec_fn=prepare,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_ns(pids: list[int]) -> int:
    """Nanoseconds that all threads of these processes and of their children have run."""
    total = 0
    for pid in family(pids):
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(task.read_text().split()[0])
    return total


def family(pids: list[int]) -> list[int]:
    """The processes and everything they started."""
    found = list(pids)
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in children.read_text().split()]
    return found


# --- ours ------------------------------------------------------------------------------------------------


def _ours(
    loop: str, *, native: bool
) -> Callable[[Path, int | None], contextlib.AbstractContextManager[Broker]]:
    @contextlib.contextmanager
    def start(folder: Path, core: int | None) -> Iterator[Broker]:
        if loop == "uvloop" and not _importable("uvloop"):
            raise Unavailable("uvloop is missing: pip install runloop[fast]")
        if native and not native_step():
            raise Unavailable("the compiled step of the bus is not built (RUNLOOP_NATIVE=1 at installation)")
        place = folder / "run"  # the bus insists on a directory of its own
        place.mkdir(mode=0o700)
        argv = [sys.executable, "-m", "tests.bench.load.serve", os.fspath(place / "s"), loop]
        env = {"RUNLOOP_NATIVE": "1" if native else "0", "PYTHONPATH": PYTHONPATH}
        with run(argv, folder=folder, core=core, env=env) as process:
            yield Broker(wire.Rmp(place / "s"), [process.pid], f"Python {sys.version.split()[0]}")

    return start


def _importable(name: str) -> bool:
    done = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, check=False)
    return done.returncode == 0


def native_step() -> bool:
    """Whether the bus has its optional compiled step here."""
    done = subprocess.run(
        [sys.executable, "-c", "from runloopd.bus.gather import choose; choose('1')"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    )
    return done.returncode == 0


# --- theirs ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def redis(folder: Path, core: int | None) -> Iterator[Broker]:
    """Publish and subscribe only: nothing is stored; no limit on what waits for a subscriber."""
    server = tool("redis-server", "redis-server")
    (folder / "conf").write_text(
        f"port 0\nunixsocket {folder}/s\nsave ''\nappendonly no\n"
        "client-output-buffer-limit pubsub 0 0 0\ndaemonize no\n"
    )
    with run([server, os.fspath(folder / "conf")], folder=folder, core=core) as process:
        yield Broker(
            wire.Redis(folder / "s"), [process.pid], first_line(server, "--version").split(" sha")[0]
        )


@contextlib.contextmanager
def nats(folder: Path, core: int | None) -> Iterator[Broker]:
    """Core NATS. On one core its scheduler has one processor, as it would have in such a container."""
    server = tool("nats-server", "nats-server")
    port = free_port()
    (folder / "conf").write_text(f"listen: 127.0.0.1:{port}\nmax_pending: 256MB\n")
    with run([server, "-c", os.fspath(folder / "conf")], folder=folder, core=core) as process:
        yield Broker(wire.Nats(("127.0.0.1", port)), [process.pid], first_line(server, "--version"))


@contextlib.contextmanager
def mosquitto(folder: Path, core: int | None) -> Iterator[Broker]:
    """QoS 0, nothing persistent, no limit on queues."""
    server = tool("mosquitto", "mosquitto")
    (folder / "conf").write_text(
        f"listener 0 {folder}/s\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n"
        f"max_queued_bytes 0\nset_tcp_nodelay true\nlog_type none\n"
        + ("user root\n" if os.geteuid() == 0 else "")
    )
    with run([server, "-c", os.fspath(folder / "conf")], folder=folder, core=core) as process:
        yield Broker(wire.Mqtt(folder / "s"), [process.pid], first_line(server, "-h"))


@contextlib.contextmanager
def zeromq(folder: Path, core: int | None) -> Iterator[Broker]:
    """libzmq's own proxy, in C."""
    proxy = build.program("zproxy", "zmq")
    ends = [f"ipc://{folder}/in", f"ipc://{folder}/out"]
    with run([os.fspath(proxy), *ends], folder=folder, core=core) as process:
        version = first_line("dpkg-query", "-W", "-f", "libzmq ${Version}", "libzmq5")
        yield Broker(wire.Zmtp(folder / "in", folder / "out"), [process.pid], version)


@contextlib.contextmanager
def dbus_daemon(folder: Path, core: int | None) -> Iterator[Broker]:
    """The reference implementation, everything allowed, limits as in Debian's session.conf."""
    server = tool("dbus-daemon", "dbus-daemon")
    limits = (
        "max_incoming_bytes", "max_outgoing_bytes", "max_message_size",
    )  # fmt: skip
    (folder / "conf").write_text(
        '<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" '
        '"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">\n'
        f"<busconfig><type>session</type><listen>unix:path={folder}/s</listen><auth>EXTERNAL</auth>"
        '<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>'
        '<allow own="*"/></policy>'
        + "".join(f'<limit name="{name}">1000000000</limit>' for name in limits)
        + "</busconfig>\n"
    )
    argv = [server, f"--config-file={folder}/conf", "--nofork", "--nopidfile", "--nosyslog"]
    with run(argv, folder=folder, core=core) as process:
        yield Broker(wire.Dbus(folder / "s"), [process.pid], first_line(server, "--version"))


_BATCH = "bta(btbs)a(btssssuutt)a(btssssuutt)"
_POLICY = f"(a(u({_BATCH}))a(buu({_BATCH}))a(ss)bs)"


@contextlib.contextmanager
def dbus_broker(folder: Path, core: int | None) -> Iterator[Broker]:
    """dbus-broker with ourselves as its controller: its launcher wants systemd's journal and manager.

    The policy handed over says what the configuration of :func:`dbus_daemon` says: everything is allowed.
    """
    server = tool("dbus-broker", "dbus-broker")
    anything = (True, 1, "", "", "", "", 0, 0, 0, 2**64 - 1)
    batch = (True, 1, [(True, 1, True, "")], [anything], [anything])
    policy: tuple[Any, ...] = ([(2**32 - 1, batch)], [], [], False, "user")
    ours, theirs = socket.socketpair()
    listener = socket.socket(socket.AF_UNIX)
    with ours, listener:
        listener.bind(os.fspath(folder / "s"))
        listener.listen(64)
        listener.setblocking(False)  # the broker accepts until there is nobody left
        argv = [server, "--controller", str(theirs.fileno()), "--machine-id", "0" * 31 + "1"]
        argv += ["--max-bytes", str(1 << 30), "--max-matches", "65536"]
        with run(argv, folder=folder, core=core, pass_fds=(theirs.fileno(),)) as process:
            theirs.close()
            ours.settimeout(10)
            dbus.authenticate(ours, pass_fds=True)
            dbus.call(
                ours,
                1,
                path="/org/bus1/DBus/Broker",
                interface="org.bus1.DBus.Broker",
                member="AddListener",
                destination=None,
                signature="ohv",
                values=("/org/bus1/DBus/Listener/0", 0, (_POLICY, policy)),
                fds=(listener.fileno(),),
            )
            version = first_line(server, "--version")
            yield Broker(wire.Dbus(folder / "s"), [process.pid], version, [ours])


BROKERS: dict[str, Callable[[Path, int | None], contextlib.AbstractContextManager[Broker]]] = {
    "ours native": _ours("uvloop", native=True),
    "ours uvloop": _ours("uvloop", native=False),
    "ours asyncio": _ours("asyncio", native=False),
    "redis": redis,
    "nats": nats,
    "zeromq": zeromq,
    "mosquitto": mosquitto,
    "dbus-broker": dbus_broker,
    "dbus-daemon": dbus_daemon,
}
"""By name; ``ours …`` first."""
