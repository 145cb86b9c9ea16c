"""Which process a daemon is, where systemd listens for it and the kernel names systemd."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlp.commands.daemon import served_by
from runloop.errors import RefusedError, UnreachableError
from runloopd.bus.door import take_lock


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A socket that this process, the manager, listens on."""
    place = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(os.fspath(place))
        listener.listen()
        yield place


def lock(path: Path) -> Path:
    return path.with_name("s.lock")


def test_a_daemon_that_made_its_socket_is_who_listens(path: Path) -> None:
    assert served_by(path) == (os.getpid(), False), "a build that names nobody"
    descriptor = take_lock(lock(path))
    assert served_by(path) == (os.getpid(), False)
    os.close(descriptor)


def test_a_daemon_behind_the_managers_socket_is_who_holds_the_lock(path: Path) -> None:
    program = (
        "import sys, pathlib; from runloopd.bus.door import take_lock\n"
        "take_lock(pathlib.Path(sys.argv[1]), handed_over=True)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(lock(path))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdin is not None
        assert daemon.stdout.readline() == b"held\n"
        assert served_by(path) == (daemon.pid, True)
        daemon.stdin.close()
    with pytest.raises(RefusedError, match="gone or another user's"):
        served_by(path)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError):
        served_by(tmp_path / "s")
