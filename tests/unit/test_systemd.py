"""A socket that systemd hands over, and what a service tells it, on real sockets and without systemd."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runloop import __version__
from runloop.client import AsyncClient
from runloop.errors import RefusedError
from runloopd.bus.bus import Bus
from runloopd.bus.door import adopt
from runloopd.bus.socket import SocketServer
from runloopd.systemd import Notifier, take_listener
from tests.unit.bus.ledger_house import CREDENTIAL


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    (tmp_path / "run").mkdir(mode=0o700)
    made.bind(os.fspath(tmp_path / "run" / "s"))
    (tmp_path / "run" / "s").chmod(0o600)
    made.listen()
    yield made
    made.close()


def in_a_child(program: str, passed: socket.socket | int, **environ: str) -> str:
    """Run ``program`` with ``passed`` as descriptor 3, as systemd does."""
    number = passed if isinstance(passed, int) else passed.fileno()
    code = f"import os; os.dup2({number}, 3); os.environ['LISTEN_PID'] = str(os.getpid())\n{program}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        pass_fds=(number,),
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


TAKE = """
from runloop.errors import UsageError
from runloopd.systemd import take_listener
try:
    found = take_listener(os.environ)
    print(found and found.getsockname(), [name for name in os.environ if name.startswith("LISTEN_")],
          found and os.get_inheritable(3))
except UsageError as error:
    print(error.named_code)
"""


def test_the_socket_that_is_handed_over_is_taken_once_and_no_child_believes_in_it(
    listener: socket.socket,
) -> None:
    assert in_a_child(TAKE, listener, LISTEN_FDS="1") == f"{listener.getsockname()} [] False"


def test_what_is_no_listening_unix_socket_is_refused(listener: socket.socket, tmp_path: Path) -> None:
    assert in_a_child(TAKE, listener, LISTEN_FDS="2") == "systemd.sockets"
    with socket.socket() as other:
        assert in_a_child(TAKE, other, LISTEN_FDS="1") == "systemd.sockets"
    with (tmp_path / "file").open("w") as file:
        assert in_a_child(TAKE, file.fileno(), LISTEN_FDS="1") == "systemd.sockets"


def test_what_was_meant_for_another_process_is_not_taken() -> None:
    assert take_listener({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) is None
    assert take_listener({}) is None


@pytest.mark.parametrize("mode", [0o666, 0o660])
def test_a_socket_that_others_could_use_is_not_adopted(
    listener: socket.socket, tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "run" / "s"
    path.chmod(mode)
    with pytest.raises(RefusedError, match=f"{mode:04o}"):
        adopt(listener, path)


def test_a_socket_at_another_place_is_not_adopted(listener: socket.socket, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="listens on"):
        adopt(listener, tmp_path / "run" / "other")


@pytest.mark.parametrize("instead", ["nothing", "a file"])
def test_a_socket_whose_name_was_taken_is_not_adopted(
    listener: socket.socket, tmp_path: Path, instead: str
) -> None:
    path = tmp_path / "run" / "s"
    path.unlink()
    if instead == "a file":
        path.touch(0o600)
    with pytest.raises(RefusedError) as refused:
        adopt(listener, path)
    assert refused.value.named_code == "bus.handed_over"


def test_a_promise_of_a_socket_that_is_not_there_is_refused_in_words() -> None:
    said = (
        "import os, sys; from runloopd.systemd import take_listener; from runloop.errors import UsageError\n"
        "os.closerange(3, 64)\n"
        "try: take_listener({'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'})\n"
        "except UsageError as error: sys.exit(error.message)"
    )
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, timeout=60)
    assert "no socket" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_daemon_serves_on_the_socket_it_was_given_and_leaves_it_there(
    listener: socket.socket, tmp_path: Path
) -> None:
    from runloop.clock import SystemClock

    path = tmp_path / "run" / "s"
    inode = path.stat().st_ino
    for _ in range(2):  # the one after it serves on the same
        server = SocketServer(
            Bus(SystemClock()),
            path,
            credential=CREDENTIAL,
            build=__version__,
            clock=SystemClock(),
            handed_over=listener.dup(),
        )
        await server.start()
        async with await AsyncClient.connect(path, CREDENTIAL) as client:
            await client.ping()
        await server.close()
        assert path.stat().st_ino == inode


@pytest.mark.requirement("B3")
async def test_a_socket_that_was_handed_over_and_is_replaced_is_noticed(
    listener: socket.socket, tmp_path: Path
) -> None:
    from runloop.clock import SystemClock

    path, lost = tmp_path / "run" / "s", asyncio.Event()
    server = SocketServer(
        Bus(SystemClock()),
        path,
        credential=CREDENTIAL,
        build=__version__,
        clock=SystemClock(),
        handed_over=listener.dup(),
        on_lost=lambda _: lost.set(),
    )
    await server.start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(os.fspath(tmp_path / "run" / "new"))
        (tmp_path / "run" / "new").rename(path)
        await asyncio.wait_for(lost.wait(), 30)
    await server.close()
    assert path.exists()  # what stands there now is somebody's


def heard(manager: socket.socket) -> str:
    manager.settimeout(10)
    return manager.recv(100).decode()


@pytest.mark.parametrize("abstract", [False, True], ids=["file", "abstract"])
async def test_the_manager_hears_that_we_are_ready_alive_and_stopping(tmp_path: Path, abstract: bool) -> None:
    name = f"\0{tmp_path}/n" if abstract else f"{tmp_path}/n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        environ = {"NOTIFY_SOCKET": name.replace("\0", "@"), "WATCHDOG_USEC": "20000"}
        notifier = Notifier(environ)
        assert (environ, notifier.alive_every_s) == ({}, 0.01)
        notifier.ready()
        assert heard(manager) == "READY=1"
        for _ in range(3):
            assert await asyncio.to_thread(heard, manager) == "WATCHDOG=1"
        notifier.stopping()
        while (word := await asyncio.to_thread(heard, manager)) != "STOPPING=1":
            assert word == "WATCHDOG=1"
        await notifier.close()


@pytest.mark.requirement("M11")
async def test_what_takes_long_for_a_reason_is_given_more_time_and_no_longer_than_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runloopd.systemd._LONGER_S", 0.03)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{tmp_path}/n")
        notifier = Notifier({"NOTIFY_SOCKET": f"{tmp_path}/n"})
        async with notifier.longer():
            for _ in range(3):
                assert await asyncio.to_thread(heard, manager) == "EXTEND_TIMEOUT_USEC=30000"
        notifier.ready()
        while (word := await asyncio.to_thread(heard, manager)) != "READY=1":
            assert word.startswith("EXTEND_TIMEOUT_USEC=")
        manager.settimeout(0)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


async def test_nobody_is_told_anything_where_nobody_asked_or_the_manager_is_gone(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": f"{tmp_path}/nobody", "WATCHDOG_USEC": "x"}):
        notifier = Notifier(environ)
        notifier.ready()
        notifier.stopping()
        assert notifier.alive_every_s == 0.0
        await notifier.close()


def test_a_watchdog_for_another_process_is_not_ours() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert Notifier(environ).alive_every_s == 0.0
