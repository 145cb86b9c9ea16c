"""``rlp daemon``: start, stop and look at this user's daemon."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Any

from rlp.output import words
from rlp.session import Session
from runloop.errors import FailedError, RefusedError, UnreachableError, UsageError
from runloop.exits import Exit
from runloop.quantities import ago, moment

__all__ = ["answers", "listener", "settings_of", "start", "status", "stop"]

_PLACES = ("socket", "log")
STOP_S = 30.0
"""Seconds a draining daemon may take before we say so."""


def start(session: Session, *, settings: tuple[str, ...]) -> Exit:
    """Start the daemon; fine when it already runs, unless settings were given that it would not see."""
    values = settings_of(settings)
    session.configured(values)  # a wrong value is said here, with its findings, not in the daemon's log
    if session.running():
        if values:
            raise UsageError(
                "the daemon already runs; settings given now would not reach it",
                hint="'rlp daemon stop' first",
                code="daemon.running",
            )
        session.console.say("the daemon already runs")
    else:
        session.start(values)
        session.console.say("the daemon runs")
    return _show(session)


def settings_of(settings: tuple[str, ...]) -> dict[str, str]:
    """``KEY=VALUE`` words as a mapping."""
    values = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(
                f"--set {setting!r} has no value", hint="--set section.key=value", code="cli.option"
            )
        values[key] = value
    return values


def status(session: Session) -> Exit:
    """Tell whether the daemon runs; exit 3 when it does not."""
    if session.running() is None:
        raise UnreachableError(
            f"no daemon is running on {session.paths.socket}",
            hint="start it with 'rlp daemon start'",
            code="daemon.absent",
        )
    return _show(session)


def _show(session: Session) -> Exit:
    found = session.ask("status")
    if session.json:
        session.console.json(
            {"socket": str(session.paths.socket), "log": str(session.paths.log_file), **found}
        )
        return Exit.OK
    rows = {"socket": session.paths.socket, "log": session.paths.log_file, **found}
    width = max(map(len, rows))
    for name, value in rows.items():
        shown = _parts(value) if isinstance(value, dict) else words(str(value) if name in _PLACES else value)
        if name.endswith("_ms") and isinstance(value, int):
            shown = moment(value) if value > 10**12 else ago(value)
        session.console.data(f"{name.removesuffix('_ms'):<{width}}  {shown}")
    return Exit.OK


def _parts(found: dict[str, Any]) -> str:
    """``published 7, delivered 7``; of what is there or not, ``seccomp, no rlimits``."""
    said = [
        (name if value else f"no {name}") if isinstance(value, bool) else f"{name} {words(value)}"
        for name, value in found.items()
    ]
    return words(said)


def stop(session: Session, *, now: bool) -> Exit:
    """Ask the daemon to end, and wait until its process is gone: only then may another one start."""
    try:
        if session.running() is None:
            session.console.say("no daemon is running")
            return Exit.OK
        pid, kept = served_by(session.paths.socket)
        session.ask("daemon.stop", drain=not now)
    except RefusedError as error:
        if error.named_code != "hello.version":
            raise
        # Another build does not speak with us; the kernel still tells who listens, and SIGTERM drains.
        session.console.say(f"rlp: {error.message}", "yellow")
        pid, kept = served_by(session.paths.socket)
        os.kill(pid, signal.SIGTERM)
    session.hang_up()
    deadline = time.monotonic() + STOP_S
    while lives(pid) or (not kept and answers(session.paths.socket)):
        if time.monotonic() >= deadline:
            raise FailedError(
                f"the daemon is still finishing its work after {STOP_S:g} s",
                hint="'rlp daemon stop --now' does not wait for it",
                code="daemon.draining",
            )
        time.sleep(0.05)
    session.console.say(
        "the daemon has stopped" + ("; systemd starts it when somebody connects" if kept else "")
    )
    return Exit.OK


def served_by(path: Path) -> tuple[int, bool]:
    """The daemon's process, and whether a service manager keeps its socket and starts it anew: the daemon's
    lock says so. The kernel names whoever called listen() last, which may be either of the two."""
    owner = listener(path)
    try:
        told, _, kept = path.with_name(path.name + ".lock").read_text().strip().partition(" ")
    except OSError:
        return owner, False
    if not told.isdecimal() or not kept:  # a daemon of an older build names nobody
        return owner, False
    pid = int(told)
    try:
        ours = pid > 1 and Path(f"/proc/{pid}").stat().st_uid == os.getuid()
    except OSError:
        ours = False
    if not ours:
        raise RefusedError(
            f"the daemon behind {path} is process {pid}, which is gone or another user's",
            hint="systemctl --user status runloop",
            code="daemon.foreign",
        )
    return pid, True


def lives(pid: int) -> bool:
    """Whether the process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def answers(path: Path) -> bool:
    """Whether anybody accepts connections on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except TimeoutError:
            return True
        except OSError:
            return False
    return True


def listener(path: Path) -> int:
    """Process id of whoever listens on a socket, from the kernel; refuses one of another user."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            raise UnreachableError(f"nobody answers on {path}", hint="rlp daemon start") from error
        pid, uid, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != os.getuid() or pid <= 1:
        raise RefusedError(
            f"the daemon on {path} belongs to user {uid}", hint="ask that user", code="daemon.foreign"
        )
    return int(pid)
