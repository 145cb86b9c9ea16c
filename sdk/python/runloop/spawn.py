"""Starting this user's daemon: a detached process of its own, ready when its socket says hello.

Knows: the command line of ``runloopd``, its working directory, where its early words go. Does not know: what
the daemon does then. Two commands may start one at the same time: the daemon itself refuses to be the
second, and both commands end up talking to the first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from runloop.config import SYSTEM_HOME, Paths
from runloop.errors import UnreachableError

__all__ = ["START_S", "command_line", "nobody_there", "on_its_way", "service_said", "start_daemon"]

T = TypeVar("T")

START_S = 180.0
"""Seconds a daemon may take from process start to hello: the first start compiles the Python runner."""
PATIENCE_S = 3.0
"""After this the person is told that it takes longer."""
GRACE_S = 3.0
"""Seconds we keep asking after our daemon ended: another one may have won the race and be about to answer."""

JOURNAL_S = 2.0
"""Seconds the journal may take to say why nobody answers."""
REFUSAL = "runloopd: "
"""What the line begins with in which a daemon says why it does not start."""


def command_line(paths: Paths) -> list[str]:
    """The daemon's argv; by the interpreter that runs us, so that PATH decides nothing. Isolated (``-I``):
    the home it stands in and ``PYTHON*`` variables are no places to import from (attacks.md M6)."""
    return [sys.executable, "-I", "-m", "runloopd", "--home", str(paths.home)]


def on_its_way(socket: Path) -> bool:
    """Whether somebody listens on the socket and nobody answers because a service manager holds it: the
    daemon behind it is only starting, or one of them is going and the next one comes. The daemon's lock
    tells: whoever made the socket itself is alive there, and has no such excuse."""
    alive, kept = _holder(socket)
    return kept or not alive


def nobody_there(socket: Path) -> bool:
    """Whether no daemon lives behind the socket, whoever listens on it."""
    return not _holder(socket)[0]


def _holder(socket: Path) -> tuple[bool, bool]:
    """Whether the daemon that the lock names is alive, and whether a service manager keeps the socket."""
    try:
        told, _, kept = socket.with_name(socket.name + ".lock").read_text().strip().partition(" ")
    except OSError:
        return False, False
    return told.isdecimal() and Path(f"/proc/{told}").exists(), bool(kept)


def service_said(home: Path, since_s: float, journalctl: str = "/usr/bin/journalctl") -> str:
    """Why this user's daemon refused to start under systemd, in its own words; "" if nobody kept them.
    ``since_s``: seconds of the system's clock; what was said before that does not count."""
    if home == SYSTEM_HOME:
        return ""  # its operator may not read the system's journal
    words = [f"--since=@{since_s:.3f}", "--unit=runloop.service", "--output=cat", "--quiet", "--no-pager"]
    deadline = time.monotonic() + JOURNAL_S
    while True:
        try:
            told = subprocess.run(
                [journalctl, "--user", *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=JOURNAL_S,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return ""
        lines = told.stdout.decode("utf-8", "replace").splitlines()
        if refusals := [line for line in lines if line.startswith(REFUSAL)]:
            return refusals[-1].removeprefix(REFUSAL)[:300]
        if told.returncode != 0 or time.monotonic() >= deadline:
            return ""
        time.sleep(0.2)  # a line is in the journal a moment after it was written


def start_daemon(
    paths: Paths,
    environ: Mapping[str, str],
    connect: Callable[[], T],
    *,
    on_slow: Callable[[], None] = lambda: None,
    argv: list[str] | None = None,
    start_s: float = START_S,
    patience_s: float = PATIENCE_S,
    grace_s: float | None = None,
) -> T:
    """Start a daemon for ``paths`` and return what ``connect`` returns once it answers.

    ``connect`` raises :class:`UnreachableError` as long as nobody does. Raises the same when the daemon
    ended or did not answer in time, with the last line it wrote.
    """
    paths.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths.log_file.parent.mkdir(mode=0o700, exist_ok=True)
    log = os.open(paths.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    before = os.fstat(log).st_size
    try:
        process = subprocess.Popen(
            argv or command_line(paths),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=paths.home,
            # Both sides must mean the same socket, however we found it.
            env={**environ, "RUNLOOP__RUNTIME__SOCKET_PATH": str(paths.socket)},
            start_new_session=True,
        )
    finally:
        os.close(log)
    grace_s = GRACE_S if grace_s is None else grace_s
    began = time.monotonic()
    deadline = began + start_s
    told = False
    pause = 0.01
    ended = False
    while True:
        try:
            return connect()
        except UnreachableError as error:
            if not ended and process.poll() is not None:
                ended = True
                deadline = min(deadline, time.monotonic() + grace_s)
            if time.monotonic() >= deadline:
                raise _gave_up(paths, process.poll(), before, start_s) from error
        if not told and time.monotonic() - began >= patience_s:
            told = True
            on_slow()
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


def _gave_up(paths: Paths, returncode: int | None, before: int, start_s: float) -> UnreachableError:
    how = f"did not answer within {start_s:g} s" if returncode is None else f"ended with code {returncode}"
    said = _last_line(paths, before)
    return UnreachableError(
        f"the daemon was started and {how}" + (f": {said}" if said else ""),
        hint=f"'rlp logs' or {paths.log_file} says more; 'rlp doctor' looks for causes",
        code="daemon.start",
    )


def _last_line(paths: Paths, before: int) -> str:
    """The last line written to the log since we started it."""
    try:
        with paths.log_file.open("rb") as file:
            file.seek(before)
            lines = file.read(65_536).decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1][:300] if lines else ""
