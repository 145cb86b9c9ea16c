"""The first thing that runs inside the sandbox: builds the last walls, then becomes the program.

Runs as a script of a bare interpreter (``python -I -S``), so it imports the standard library only and nothing
of Runloop. Knows: Landlock, resource limits, how a program is started clean. Does not know: what is foreign
about the program. It is told everything by descriptor; whatever fails, fails before the program exists.

Talks on one socket: ``R`` once it runs, with the listening socket of the network where there is to be one;
then the end of the stream when the program was started, or a line that says why it was not.

Under bubblewrap it is handed its descriptors and runs beside bubblewrap's own first process. In a container
it is the first process itself (``door``): it fetches its descriptors from a socket of the daemon, leaves the
program to a child, and goes, with all that is inside, when the daemon goes. There it believes no engine: each
wall is looked at from inside before the program exists (``walls``), and the filter of calls is put on here.
"""

# Every module that is imported here is waited for at each start of a program.
# ruff: noqa: PTH103, PTH110, PTH112, PTH113, PTH116, PTH120, PTH123, PTH208, SIM105

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
_DUMPABLE, _SECCOMP, _FILTER = 4, 22, 2
_HIGH = 512
_REAP_MS = 1_000
_MAX_PROGRAMS = 20_000
_LOADERS = ("/lib64", "/lib")

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


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


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


# --- in a container -------------------------------------------------------------------------------


def walls(expected: dict[str, object]) -> None:
    """Raise unless what an engine was asked for is so: namespaces, capabilities, the root, every mount."""
    with open("/proc/self/status") as source:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in source if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if int(status[name], 16):
            raise OSError(f"the engine left capabilities ({name} {status[name]})")
    if status.get("NoNewPrivs") != "1":
        raise OSError("the engine lets a program gain privileges")
    if os.getpid() != 1 and os.getppid() != 1:
        raise OSError("the engine put another process first")
    for name, outside in expected["namespaces"].items():  # type: ignore[attr-defined]
        if os.stat(f"/proc/self/ns/{name}").st_ino == outside:
            raise OSError(f"the engine shares the {name} namespace of the machine")
    with open("/proc/net/dev") as source:
        devices = [line.split(":")[0].strip() for line in source if ":" in line]
    if devices not in ([], ["lo"]):
        raise OSError(f"the engine left a network ({', '.join(devices)})")
    if not os.statvfs("/").f_flag & os.ST_RDONLY:
        raise OSError("the engine left the root writable")
    for path, device, inode, writable in expected["mounts"]:  # type: ignore[attr-defined]
        found = os.stat(path)
        if (found.st_dev, found.st_ino) != (device, inode):
            raise OSError(f"{path} is not what was granted: it was exchanged meanwhile")
        if not writable and not os.statvfs(path).f_flag & os.ST_RDONLY:
            raise OSError(f"the engine left {path} writable")


def seccomp(code: bytes) -> None:
    """Put the filter of calls on. Needs no_new_privs."""
    program = _Filter(len(code) // 8, code)
    if _libc.prctl(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the filter of calls was refused")


def root(aside: list[str]) -> list[str]:
    """What lies in the root of an image, but for what is not its own."""
    names = (f"/{name}" for name in sorted(os.listdir("/")) if name not in aside)
    return [place for place in names if os.path.exists(place)]


def make(files: dict[str, str]) -> None:
    """Files that lie in memory alone; behind Landlock they are read."""
    for path, data in files.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb") as made:
            made.write(bytes.fromhex(data))


def door(path: str) -> None:
    """Be the first process of a container: fetch what the daemon hands over, and guard the program."""
    import socket

    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.connect(path)
    child = os.fork()
    if child == 0:
        # Only the program's side is told anything: its guardian holds neither a secret nor a way out.
        _, handed, _, _ = socket.recv_fds(channel, 1, 64)
        channel.close()
        for wanted, number in enumerate(handed[:3]):
            os.dup2(number, wanted, inheritable=True)
            os.close(number)
        main(handed[3], handed[4], handed[5:])
    guard(child, channel)


def guard(child: int, channel: object) -> None:
    """Until the program ends, and no longer than the daemon lives."""
    import select

    _libc.prctl(_DUMPABLE, 0, 0, 0, 0)
    poller = select.poll()
    # Its end only: what the daemon says there is for the child.
    poller.register(channel.fileno(), select.POLLRDHUP)  # type: ignore[attr-defined]
    poller.register(os.pidfd_open(child), select.POLLIN)
    while True:
        for number, _ in poller.poll(_REAP_MS):
            if number == channel.fileno():  # type: ignore[attr-defined]
                os._exit(137)  # nobody is there to read what it says
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(137)
            if ended == 0:
                break
            if ended == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)


def bound() -> int | None:
    """Bytes that the engine itself lets a container hold; None: it says nothing that can be read."""
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(place) as source:
                return int(source.read())
        except (OSError, ValueError):
            continue
    return None


def trial(expected: str, path: str) -> None:
    """Say which programs an image has, and how far the engine bounds it, if the walls stand."""
    walls(json.loads(expected))
    found: dict[str, str] = {}
    for folder in path.split(":"):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            place = f"{folder}/{name}"
            if len(found) < _MAX_PROGRAMS and os.path.isfile(place) and os.access(place, os.X_OK):
                found[place] = os.path.realpath(place)
    print(json.dumps({"programs": found, "memory": bound()}))


# --- the program ----------------------------------------------------------------------------------


def main(config_fd: int, status_fd: int, kept: list[int] | None = None) -> None:
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
        readable = config["readable"]
        executable = [place for place in config["executable"] if os.path.exists(place)]
        if config["executable"] and not executable:
            raise OSError("no program that may be executed is there")  # none named would mean all of them
        if config.get("walls") is not None:
            step = "walls"
            walls(config["walls"])
            readable = [*readable, *root(config["aside"])]
            executable = executable and [*executable, *loaders()]
            make(config["files"])
        step = "cwd"
        os.chdir(config["cwd"])
        step = "oom score"
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
        step = "Landlock"
        landlock(readable, config["writable"], config["devices"], executable, port)
        step = "limits"
        limit(config["limits"])
        step = "program"
        inherit(config["kept"] if kept is None else kept)
        os.umask(0o022)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # the interpreter ignores both
        if config.get("filter"):
            step = "filter"
            seccomp(bytes.fromhex(config["filter"]))
            step = "program"
        os.execve(config["argv"][0], config["argv"], env)  # noqa: S606
    except BaseException as error:
        os.write(status_fd, f"{step}: {error}".encode()[:1000])
        os._exit(126)


def loaders() -> list[str]:
    """What the kernel executes beside a program, in an image: its dynamic loaders."""
    found = []
    for folder in filter(os.path.isdir, _LOADERS):
        found += [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if name.startswith("ld-")]
    return found


if __name__ == "__main__":
    if sys.argv[1] == "door":
        door(sys.argv[2])
    elif sys.argv[1] == "trial":
        trial(sys.argv[2], sys.argv[3])
    else:
        main(int(sys.argv[1]), int(sys.argv[2]))
