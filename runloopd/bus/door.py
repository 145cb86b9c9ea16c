"""Where the socket stands: its folder, its lock, its name; nobody else's, and never a living daemon's.

Knows: modes, owners, dead sockets (attacks.md B2, B3). Does not know: who comes in (``socket``). Raises
:class:`RefusedError` for a place that is not ours alone, :class:`ConflictError` where a daemon lives.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path

from runloop.config import MAX_SOCKET_PATH
from runloop.errors import ConflictError, RefusedError, UsageError

__all__ = ["adopt", "bind", "prepare_directory", "take_lock"]


def prepare_directory(path: Path) -> None:
    """Make the runtime directory 0700, or refuse one that is not ours alone (attacks.md B2)."""
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise UsageError(
            f"the socket path has {len(os.fsencode(path))} bytes, Linux allows {MAX_SOCKET_PATH}: {path}",
            hint="set runtime.socket_path to a shorter one",
            code="bus.socket_path",
        )
    directory = path.parent
    before = os.umask(0o077)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise RefusedError(
            f"{directory} is not a directory of its own: {error.strerror}",
            hint="it must be a real directory, not a symbolic link",
            code="bus.directory",
        ) from error
    finally:
        os.umask(before)
    try:
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise RefusedError(
            f"{directory} has mode {stat.S_IMODE(status.st_mode):04o} and owner {status.st_uid}, "
            f"it must be 0700 and yours",
            hint=f"chmod 700 {directory}",
            code="bus.directory",
        )


def take_lock(path: Path, *, handed_over: bool = False) -> int:
    """Become the only daemon behind this socket; closing the descriptor lets the next one in.

    The file then names our process, and says whether a service manager keeps the socket: whoever connects
    when we have ended starts us anew.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RefusedError(f"cannot open the lock {path}: {error.strerror}", code="bus.lock") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConflictError(
            f"another daemon holds {path}",
            hint="'rlp daemon status' shows it, 'rlp daemon stop' ends it",
            code="bus.lock",
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}{' handed over' if handed_over else ''}\n".encode(), 0)
    return descriptor


def bind(path: Path) -> socket.socket:
    """Bind under umask 077, remove a dead socket, never a live one or anything else (attacks.md B3)."""
    _clear_dead_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o077)
    try:
        listener.bind(os.fspath(path))
    except OSError as error:
        listener.close()
        raise RefusedError(f"cannot bind {path}: {error.strerror}", code="bus.bind") from error
    finally:
        os.umask(before)
    path.chmod(0o600)
    status = os.lstat(path)
    if (
        not stat.S_ISSOCK(status.st_mode)
        or stat.S_IMODE(status.st_mode) != 0o600
        or status.st_uid != os.geteuid()
    ):
        listener.close()
        raise RefusedError(f"{path} changed under our hands", hint="who else writes there?", code="bus.bind")
    return listener


def adopt(listener: socket.socket, path: Path) -> socket.socket:
    """Take a socket that the service manager listens on for us, if it is the one others will look for, and
    as much ours alone as one that :func:`bind` makes."""
    place = listener.getsockname()
    try:
        status = os.lstat(path) if place == os.fspath(path) else None
    except OSError as error:
        raise RefusedError(
            f"{path}, which was handed over, is not there any more: {error.strerror}",
            hint="start the socket unit anew: nobody can connect there",
            code="bus.handed_over",
        ) from error
    if status is None:
        raise RefusedError(
            f"the socket that was handed over listens on {place!r}, not on {path}",
            hint="ListenStream= and the home's socket must be the same",
            code="bus.handed_over",
        )
    if not stat.S_ISSOCK(status.st_mode):
        raise RefusedError(
            f"{path} is no socket: somebody put another file in its place",
            hint="who else writes there?",
            code="bus.handed_over",
        )
    if stat.S_IMODE(status.st_mode) != 0o600 or status.st_uid != os.geteuid():
        raise RefusedError(
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o} and owner {status.st_uid}, "
            f"it must be 0600 and yours",
            hint="SocketMode=0600 and SocketUser= in the socket unit",
            code="bus.handed_over",
        )
    listener.setblocking(False)
    return listener


def _clear_dead_socket(path: Path) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise RefusedError(f"{path} exists and is not a socket", hint="remove it yourself", code="bus.bind")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise ConflictError(f"{path} is in use: {error}", code="bus.live_socket") from error
    raise ConflictError(
        f"a daemon answers on {path}",
        hint="'rlp daemon status' shows it, 'rlp daemon stop' ends it",
        code="bus.live_socket",
    )
