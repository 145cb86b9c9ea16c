"""A home, a small daemon in it, and ways to type at it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rlp.app import run
from tests.unit.rlp.daemon_twin import DaemonTwin


class Done(NamedTuple):
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """stdout as NDJSON."""
        return [json.loads(line) for line in self.out.splitlines()]


Rlp = Callable[..., Done]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own; nothing of the machine's environment leaks in."""
    for name in [*os.environ]:
        if name.startswith("RUNLOOP") or name in ("NO_COLOR", "XDG_RUNTIME_DIR"):
            monkeypatch.delenv(name)
    place = tmp_path / "h"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("RUNLOOP_HOME", str(place))
    monkeypatch.chdir(tmp_path)
    return place


@pytest.fixture
def daemon(home: Path) -> Iterator[DaemonTwin]:
    with DaemonTwin(home) as twin:
        yield twin


@pytest.fixture
def rlp(home: Path, capsys: pytest.CaptureFixture[str]) -> Rlp:
    """Runs a command line in this process, without a terminal."""

    def typed(*words: str) -> Done:
        capsys.readouterr()
        code = run(list(words))
        return Done(code, *capsys.readouterr())

    return typed


class Terminal:
    """A real ``rlp`` process on a pseudo terminal."""

    def __init__(self, *words: str, color: bool = False) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rlp", *([] if color else ["--no-color"]), *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
            preexec_fn=_own_terminal,
        )
        os.close(slave)
        self.seen = ""

    def wait_for(self, text: str, *, times: int = 1, timeout_s: float = 30.0) -> None:
        """Read until ``text`` is on the screen, so many times."""
        deadline = time.monotonic() + timeout_s
        while self.seen.count(text) < times:
            assert self._read(deadline), f"{text!r} never came; seen: {self.seen}"

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self, timeout_s: float = 30.0) -> int:
        """Read to the end and return the exit code."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        return self.process.wait(timeout_s)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65_536)
        except OSError:  # the other side closed the terminal
            return False
        self.seen += data.decode("utf-8", "replace")
        return bool(data)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self._master)


def _own_terminal() -> None:
    """Make the slave the controlling terminal, so that Ctrl-C means something."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(home: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_one(*words: str, color: bool = False) -> Terminal:
        opened.append(Terminal(*words, color=color))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()
