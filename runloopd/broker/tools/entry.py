"""The first thing that runs inside the sandbox: builds the last walls, then becomes the program.

Runs as a script of a bare interpreter (``python -I -S``), so it imports the standard library only and nothing
of Runloop. Knows: Landlock, resource limits, how a program is started clean. Does not know: what is foreign
about the program. It is told everything by descriptor; whatever fails, fails before the program exists.

Talks on one socket: ``R`` once it runs, with the listening socket of the network where there is to be one;
then the end of the stream when the program was started, or a line that says why it was not.
"""

# Every module that is imported here is waited for at each start of a program.
# ruff: noqa: PTH112, PTH123, PTH208, SIM105

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import sys

# linux/landlock.h: one and the same number on every architecture.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_PATH_BENEATH, _NET_PORT = 1, 2
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_SOCK, _MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 11
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_ALL_RIGHTS = (1 << 16) - 1
_CONNECT_TCP, _BIND_TCP = 1 << 1, 1 << 0
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1
_NO_NEW_PRIVS = 38
_HIGH = 512

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


class _Port(ctypes.Structure):
    _fields_ = (("rights", ctypes.c_uint64), ("port", ctypes.c_uint64))


def _call(*arguments: object) -> int:
    done: int = _libc.syscall(*arguments)
    if done < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return done


def landlock(
    readable: list[str], writable: list[str], devices: list[str], executable: list[str], port: int
) -> None:
    """Files below these places only; of the network, one port of this machine, or nothing."""
    version = _call(ctypes.c_long(_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    rights = _RIGHTS.get(version, _ALL_RIGHTS)
    rules = _Ruleset(
        files=rights,
        net=_CONNECT_TCP | _BIND_TCP if version >= 4 else 0,
        scoped=_ABSTRACT_SOCKETS | _SIGNALS if version >= 6 else 0,
    )
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _call(ctypes.c_long(_CREATE), ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    of_files = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
    run = _EXECUTE | _READ_FILE | _READ_DIR
    read = run & ~_EXECUTE if executable else run
    write = rights & ~(_MAKE_CHAR | _MAKE_BLOCK | _MAKE_SOCK | _IOCTL_DEV | (_EXECUTE if executable else 0))
    given = ((readable, read), (writable, write), (devices, _READ_FILE | _WRITE_FILE), (executable, run))
    for places, wanted in given:
        for place in places:
            opened = os.open(place, os.O_PATH | os.O_CLOEXEC)
            allowed = wanted & rights if os.path.isdir(place) else wanted & rights & of_files
            rule = _Beneath(rights=allowed, descriptor=opened)
            _call(ctypes.c_long(_ADD), ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH),
                  ctypes.byref(rule), ctypes.c_uint32(0))  # fmt: skip
            os.close(opened)
    if port and version >= 4:
        door = _Port(rights=_CONNECT_TCP, port=port)
        _call(ctypes.c_long(_ADD), ctypes.c_int(ruleset), ctypes.c_int(_NET_PORT),
              ctypes.byref(door), ctypes.c_uint32(0))  # fmt: skip
    if _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs was refused")
    _call(ctypes.c_long(_RESTRICT), ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


def listen(status: int) -> int:
    """A server socket of this network namespace, given to the daemon: it alone serves what is asked there."""
    import socket

    server = socket.create_server(("127.0.0.1", 0), backlog=64)
    port: int = server.getsockname()[1]
    with socket.socket(fileno=os.dup(status)) as channel:
        socket.send_fds(channel, [b"R"], [server.fileno()])
    server.close()
    return port


def limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # A second more, so that the signal that says "time is over" comes before the one that ends it.
        last = most + 1 if name == "RLIMIT_CPU" and hard in (resource.RLIM_INFINITY, most + 1) else most
        resource.setrlimit(number, (most, last))


def inherit(kept: list[int]) -> None:
    """Give the program these, from 3 on, and nothing else: a descriptor of a folder of the host is a way out
    of any mount namespace."""
    high = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _HIGH) for number in kept]
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2:
            try:
                os.set_inheritable(number, False)
            except OSError:
                pass  # the listing's own, closed by now
    for wanted, number in enumerate(high, start=3):
        os.dup2(number, wanted, inheritable=True)


def main(config_fd: int, status_fd: int) -> None:
    with os.fdopen(config_fd, "rb") as source:
        config = json.loads(source.read())
    status_fd = fcntl.fcntl(status_fd, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    step = "network"
    try:
        env = dict(config["env"])
        port = 0
        if config["listen"]:
            port = listen(status_fd)
            proxy = f"http://127.0.0.1:{port}"
            for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"):
                env[name] = proxy
        else:
            os.write(status_fd, b"R")
        step = "cwd"
        os.chdir(config["cwd"])
        step = "oom score"
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
        step = "Landlock"
        landlock(config["readable"], config["writable"], config["devices"], config["executable"], port)
        step = "limits"
        limit(config["limits"])
        step = "program"
        inherit(config["kept"])
        os.umask(0o022)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # the interpreter ignores both
        os.execve(config["argv"][0], config["argv"], env)  # noqa: S606
    except BaseException as error:
        os.write(status_fd, f"{step}: {error}".encode()[:1000])
        os._exit(126)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
