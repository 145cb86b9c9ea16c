"""A daemon that a service manager starts when somebody connects: whoever connected waits for it."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlp.output import Console, Style
from rlp.session import Session
from runloop import __version__, spawn
from runloop.clock import SystemClock
from runloop.errors import UnreachableError
from runloop.spawn import on_its_way, service_said
from runloopd.bus.bus import Bus
from runloopd.bus.door import take_lock
from runloopd.bus.socket import SocketServer
from tests.unit.bus.ledger_house import CREDENTIAL


class Told(io.StringIO):
    """What was said to the person, and somebody who waits for it."""

    def __init__(self, heard: Callable[[], object]) -> None:
        super().__init__()
        self._heard = heard

    def write(self, text: str) -> int:
        written = super().write(text)
        if "is starting" in self.getvalue():
            self._heard()
        return written


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """A manager's socket in a home whose daemon has run before; nobody accepts yet."""
    for folder in ("run", "keys"):
        (tmp_path / folder).mkdir(mode=0o700)
    key = tmp_path / "keys" / "operator.key"
    key.write_bytes(CREDENTIAL)
    key.chmod(0o600)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind(os.fspath(tmp_path / "run" / "rmp.sock"))
        (tmp_path / "run" / "rmp.sock").chmod(0o600)
        made.listen()
        yield made


def session(home: Path, err: io.StringIO, connect_s: float = 0.05) -> Session:
    console = Console(sys.stdout, err, Style())
    return Session(console=console, environ={"RUNLOOP_HOME": str(home)}, connect_s=connect_s)


@pytest.mark.requirement("I8.first.1")
async def test_the_first_command_after_a_login_waits_for_the_daemon_it_woke(
    listener: socket.socket, tmp_path: Path
) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    err = Told(lambda: loop.call_soon_threadsafe(told.set))
    with session(tmp_path, err) as here:
        asking = asyncio.create_task(asyncio.to_thread(here.client))
        await asyncio.wait_for(told.wait(), 30)  # it did not say hello in time, and that is said
        clock = SystemClock()
        server = SocketServer(
            Bus(clock),
            tmp_path / "run" / "rmp.sock",
            credential=CREDENTIAL,
            build=__version__,
            clock=clock,
            handed_over=listener.dup(),
        )
        await server.start()
        assert (await asyncio.wait_for(asking, 30)).principal == "operator"
    await server.close()


@pytest.mark.requirement("I8.first.1")
def test_a_daemon_that_made_its_socket_and_hangs_is_not_waited_for(
    listener: socket.socket, tmp_path: Path
) -> None:
    lock = take_lock(tmp_path / "run" / "rmp.sock.lock")
    err = io.StringIO()
    with session(tmp_path, err) as here, pytest.raises(UnreachableError, match="did not say hello within"):
        here.client()
    assert "starting" not in err.getvalue()
    os.close(lock)


@pytest.mark.parametrize(
    ("said", "comes"),
    [
        (None, True),
        ("", True),
        ("no process", True),
        ("{gone}", True),
        ("{gone} handed over", True),
        ("{here} handed over", True),
        ("{here}", False),
    ],
    ids=["nobody yet", "empty", "an older build", "gone", "gone, kept", "alive, kept", "alive, its own"],
)
def test_the_lock_tells_whether_a_daemon_comes(tmp_path: Path, said: str | None, comes: bool) -> None:
    if said is not None:
        line = said.format(gone=2**22 + 1, here=os.getpid())  # beyond the greatest process number
        (tmp_path / "s.lock").write_text(f"{line}\n")
    assert on_its_way(tmp_path / "s") is comes


@pytest.mark.requirement("I8.first.2")
@pytest.mark.parametrize("alive", [False, True], ids=["nobody", "a daemon that turned it away"])
def test_a_daemon_that_refuses_to_start_is_quoted_to_who_woke_it(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    if alive:
        (tmp_path / "run" / "rmp.sock.lock").write_text(f"{os.getpid()} handed over\n")
    monkeypatch.setattr(
        spawn, "service_said", lambda home, since: f"{home.name} has version 2, this build knows 1"
    )

    def turn_away() -> None:
        listener.accept()[0].close()

    refusing = threading.Thread(target=turn_away)
    refusing.start()
    with session(tmp_path, io.StringIO(), connect_s=30) as here, pytest.raises(UnreachableError) as caught:
        here.client()
    refusing.join()
    quoted = f"; the daemon said: {tmp_path.name} has version 2, this build knows 1"
    assert caught.value.message.endswith(quoted) is not alive


@pytest.mark.parametrize(
    ("script", "home", "said"),
    [
        (
            "echo 'runloopd: old'; echo 'runloopd: no keys; make some'; echo unit failed",
            "h",
            "no keys; make some",
        ),
        ("echo 'Started it'; exit 1", "h", ""),
        ("exit 1", "h", ""),
        ('echo "runloopd: $*"', "h", "--user --since=@1700000000.250 --unit=runloop.service "),
        ('echo "runloopd: $*"', "/var/lib/runloop", ""),
        (None, "h", ""),
    ],
    ids=[
        "its last refusal",
        "nothing of ours",
        "not allowed",
        "a user's journal",
        "the system's",
        "no journal",
    ],
)
def test_the_journal_tells_why_a_service_did_not_start(
    tmp_path: Path, script: str | None, home: str, said: str
) -> None:
    journal = tmp_path / "journalctl"
    if script is not None:
        journal.write_text(f"#!/bin/sh\n{script}\n")
        journal.chmod(0o755)
    found = service_said(tmp_path / home, 1_700_000_000.25, str(journal))
    assert found.startswith(said) and bool(found) == bool(said)


def test_a_line_that_is_late_in_the_journal_is_waited_for(tmp_path: Path) -> None:
    journal = tmp_path / "journalctl"
    journal.write_text(f"#!/bin/sh\ncd {tmp_path}\n[ ! -e asked ] || echo 'runloopd: no keys'\ntouch asked\n")
    journal.chmod(0o755)
    assert service_said(tmp_path, 0.0, str(journal)) == "no keys"
