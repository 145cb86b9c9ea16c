"""Sixty ways out of a sandbox, tried one after the other by whoever runs this file.

Runs as a script of any Python, inside the sandbox and (a harmless part of it, as the control) outside. Reads
``{secret, canary, outside, granted, state, port, name, pid, marker}`` from stdin; prints ``{attempt: "held" |
"ESCAPED" | "died"}``. Every attempt runs in a process of its own: an attempt that is killed has not escaped.
"""

# An attempt is written as an attacker writes it.
# ruff: noqa: PTH104, PTH110, PTH116, PTH123, PTH208, PTH211, SIM115

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import platform
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
COLUMN = {"x86_64": 0, "aarch64": 1}[platform.machine()]
CALLS = {
    "mount": (165, 40), "umount2": (166, 39), "unshare": (272, 97), "clone": (56, 220), "setns": (308, 268),
    "pivot_root": (155, 41), "ptrace": (101, 117), "process_vm_readv": (310, 270), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217), "keyctl": (250, 219),
    "init_module": (175, 105), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "fsopen": (430, 430), "mount_setattr": (442, 442), "move_mount": (429, 429),
    "io_uring_setup": (425, 425), "clone3": (435, 435), "pidfd_getfd": (438, 438), "chroot": (161, 51),
    "fanotify_init": (300, 262), "syslog": (103, 116), "memfd_secret": (447, 447), "kcmp": (312, 272),
    "process_madvise": (440, 440), "iopl": (172, None), "swapoff": (168, 225), "acct": (163, 89),
}  # fmt: skip

GIVEN: dict[str, Any] = {}


def call(name: str, *arguments: Any) -> int:
    """A raw system call; raises OSError."""
    number = CALLS[name][COLUMN]
    if number is None:
        raise OSError(38, "no such call here")
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    done = LIBC.syscall(ctypes.c_long(number), *wide)
    if done < 0:
        raise OSError(ctypes.get_errno(), name)
    return int(done)


def told(path: str) -> bool:
    """Whether the canary can be read there."""
    return GIVEN["canary"] in Path(path).read_text()


def written(path: str) -> bool:
    """Whether a file can be made there."""
    Path(path).write_text("escaped")
    return True


def called(name: str, *arguments: Any) -> Callable[[], bool]:
    """Whether the kernel takes a call."""
    return lambda: call(name, *arguments) >= 0


def connected(family: int, kind: int, address: Any) -> Callable[[], bool]:
    """Whether a socket reaches somebody."""

    def attempt() -> bool:
        with socket.socket(family, kind) as made:
            made.settimeout(2)
            made.connect(address())
            return True

    return attempt


def planted_link() -> bool:
    path = GIVEN["granted"] + "/planted"
    os.symlink(GIVEN["secret"], path)
    return told(path)


def hard_link() -> bool:
    os.link(GIVEN["secret"], GIVEN["granted"] + "/linked")
    return told(GIVEN["granted"] + "/linked")


def rename_out() -> bool:
    written(GIVEN["granted"] + "/mine")
    os.rename(GIVEN["granted"] + "/mine", GIVEN["outside"] + "/moved")
    return True


def by_descriptors(place: str) -> Callable[[], bool]:
    """Up and out of any folder that was left open."""

    def attempt() -> bool:
        for name in os.listdir(place):
            try:
                opened = os.open(f"{place}/{name}", os.O_PATH)
                up = "../" * 40 + GIVEN["secret"].lstrip("/")
                os.close(os.open(up, os.O_RDONLY, dir_fd=int(name) if "self" in place else opened))
            except OSError:
                continue
            return True
        return False

    return attempt


def chroot_out() -> bool:
    os.chroot(GIVEN["granted"])
    for _ in range(40):
        os.chdir("..")
    os.chroot(".")
    return told(GIVEN["secret"])


def by_handle() -> bool:
    handle = ctypes.create_string_buffer(struct.pack("=Ii", 8, 1) + struct.pack("=Q", 2) + bytes(120))
    return call("open_by_handle_at", os.open(GIVEN["granted"], os.O_RDONLY), handle, 0) >= 0


def sees_others() -> bool:
    """Any process that is not ours."""
    for name in os.listdir("/proc"):
        if name.isdigit() and GIVEN["marker"].encode() in Path(f"/proc/{name}/cmdline").read_bytes():
            return True
    return False


def pair_sent_elsewhere() -> bool:
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.sendto(b"escaped", GIVEN["granted"] + "/datagrams")
    return True


def types_for_others() -> bool:
    for number in (0, 1, 2):
        try:
            fcntl.ioctl(number, 0x5412, b"x")  # TIOCSTI
        except OSError:
            continue
        return True
    with open("/dev/tty", "rb+", buffering=0) as terminal:
        fcntl.ioctl(terminal, 0x5412, b"x")
        return True


def device(path: str) -> Callable[[], bool]:
    return lambda: os.open(path, os.O_RDONLY) >= 0


def own_device() -> bool:
    path = GIVEN["granted"] + "/disk"
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(254, 0))
    return os.open(path, os.O_RDONLY) >= 0


def becomes_root() -> bool:
    os.setresuid(0, 0, 0)
    return True


def set_id_program() -> bool:
    for path in ("/usr/bin/su", "/usr/bin/mount", "/usr/bin/passwd"):
        if os.path.exists(path) and os.stat(path).st_mode & stat.S_ISUID:
            done = os.spawnv(os.P_WAIT, "/bin/sh", ["sh", "-c", "mount -t tmpfs none /tmp 2>/dev/null"])
            return done == 0
    return False


def raises_limits() -> bool:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (1_000_000, 1_000_000))
    return True


def live_on() -> bool:
    """Leave a process behind, in a session of its own, that writes when this is long over."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.alarm(0)
            for number in (0, 1, 2):
                os.close(number)
            import time

            time.sleep(3)
            written(GIVEN["granted"] + "/survivor")
        os._exit(0)
    return False  # looked at from outside


def kills_others() -> bool:
    os.kill(GIVEN["pid"], 0)
    return True


def clones_a_namespace() -> bool:
    made = call("clone", 0x1000_0000 | signal.SIGCHLD, 0, 0, 0, 0)
    if made == 0:
        os._exit(0)
    return True


READS: dict[str, Callable[[], bool]] = {
    "reads a file outside": lambda: told(GIVEN["secret"]),
    "reads it through '..'": lambda: told(GIVEN["granted"] + "/../private/secret.txt"),
    "reads it through a link that was there": lambda: told(GIVEN["granted"] + "/link"),
    "reads it through a link of its own": planted_link,
    "reads it through a hard link": hard_link,
    "reads it through /proc/self/root": lambda: told("/proc/self/root" + GIVEN["secret"]),
    "reads it through /proc/self/cwd": lambda: told("/proc/self/cwd/" + "../" * 30 + GIVEN["secret"][1:]),
    "reads Runloop's own": lambda: told(GIVEN["state"] + "/events.db"),
    "reads Runloop's own in a folder below": lambda: told(GIVEN["state"] + "/keys/root.key"),
    "writes a file outside": lambda: written(GIVEN["outside"] + "/escaped"),
    "renames a file out": rename_out,
    "writes among Runloop's own": lambda: written(GIVEN["state"] + "/planted"),
    "sees other processes": sees_others,
    "signals another process": kills_others,
    "reaches a server of this machine": connected(
        socket.AF_INET, socket.SOCK_STREAM, lambda: ("127.0.0.1", GIVEN["port"])
    ),
    "reaches a socket in a granted folder": connected(
        socket.AF_UNIX, socket.SOCK_STREAM, lambda: GIVEN["granted"] + "/server"
    ),
    "reaches an abstract socket": connected(socket.AF_UNIX, socket.SOCK_STREAM, lambda: "\0" + GIVEN["name"]),
    "sends from a pair to a socket's name": pair_sent_elsewhere,
}
"""Those that any process can do, and harm nobody: outside, each of them must succeed."""

DEEDS: dict[str, Callable[[], bool]] = {
    "reads it through /proc/1/root": lambda: told("/proc/1/root" + GIVEN["secret"]),
    "climbs out of a descriptor": by_descriptors("/proc/self/fd"),
    "climbs out of a descriptor of another": by_descriptors("/proc/1/fd"),
    "climbs out of a chroot": chroot_out,
    "opens a file by its handle": by_handle,
    "asks for a handle": called(
        "name_to_handle_at", -100, b"/usr", ctypes.create_string_buffer(136), ctypes.byref(ctypes.c_int()), 0
    ),
    "reads what its starter holds": lambda: bool(Path("/proc/1/environ").read_bytes()),
    "reads its starter's memory": lambda: bool(Path("/proc/1/mem").open("rb").read(1)),
    "traces its starter": called("ptrace", 16, 1, 0, 0),
    "takes a descriptor of another": called("pidfd_getfd", 0, 0, 0),
    "compares with another": called("kcmp", 1, os.getpid(), 0, 0, 0),
    "mounts": called("mount", b"none", b"/tmp", b"tmpfs", 0, 0),
    "mounts the host's processes": called("mount", b"proc", b"/proc", b"proc", 0, 0),
    "takes a mask away": called("umount2", b"/tmp", 2),
    "opens a tree of mounts": called("open_tree", -100, b"/", 1),
    "opens a file system": called("fsopen", b"tmpfs", 0),
    "makes a mount writable": called("mount_setattr", -100, b"/usr", 0, ctypes.create_string_buffer(32), 32),
    "turns its root": called("pivot_root", b".", b"."),
    "changes its root": called("chroot", b"/tmp"),
    "leaves its namespaces": called("unshare", 0x1002_0000),
    "clones into a namespace": clones_a_namespace,
    "clones by the newer call": called("clone3", ctypes.create_string_buffer(88), 88),
    "enters another namespace": lambda: call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0) >= 0,
    "loads a program into the kernel": called("bpf", 5, ctypes.create_string_buffer(128), 128),
    "watches the kernel": called("perf_event_open", ctypes.create_string_buffer(128), 0, -1, -1, 0),
    "handles page faults": called("userfaultfd", 0),
    "talks to the kernel by a ring": called("io_uring_setup", 8, ctypes.create_string_buffer(120)),
    "keeps a key in the kernel": called("add_key", b"user", b"x", b"y", 1, -3),
    "reads the kernel's keys": called("keyctl", 0, -3, 1),
    "loads a module": called("init_module", b"", 0, b""),
    "watches every file": called("fanotify_init", 0, 0),
    "reads the kernel's log": called("syslog", 3, ctypes.create_string_buffer(64), 64),
    "hides memory": called("memfd_secret", 0),
    "reaches ports of the machine": called("iopl", 3),
    "turns accounting on": called("acct", 0),
    "speaks to the kernel by netlink": lambda: bool(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)),
    "listens to the wire": lambda: bool(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)),
    "reaches the host of a virtual machine": lambda: bool(socket.socket(40, socket.SOCK_STREAM)),
    "uses the kernel's ciphers": lambda: bool(socket.socket(38, socket.SOCK_SEQPACKET)),
    "reaches the internet": connected(socket.AF_INET, socket.SOCK_STREAM, lambda: ("192.0.2.1", 80)),
    "sends a datagram": lambda: bool(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "reads the disk": device("/dev/vda"),
    "reads memory": device("/dev/mem"),
    "reads the kernel's messages": device("/dev/kmsg"),
    "makes a device": own_device,
    "types for others": types_for_others,
    "writes a system's program": lambda: written("/usr/bin/escaped"),
    "has a library loaded everywhere": lambda: written("/etc/ld.so.preload"),
    "writes to its root": lambda: written("/escaped"),
    "changes what a crash runs": lambda: written("/proc/sys/kernel/core_pattern"),
    "asks the kernel to act": lambda: written("/proc/sysrq-trigger"),
    "has a program run by a cgroup": lambda: written("/sys/fs/cgroup/release_agent"),
    "reads the first process's code": lambda: bool(Path("/.runloop/entry.py").read_text()),
    "becomes root": becomes_root,
    "runs a set-id program": set_id_program,
    "raises its limits": raises_limits,
    "lives on": live_on,
}
"""Those that need a hole, or would do harm where there is no sandbox."""


def tried(attempt: Callable[[], bool]) -> str:
    """How one attempt ended."""
    child = os.fork()
    if child == 0:
        signal.alarm(5)
        try:
            os._exit(42 if attempt() else 0)
        except BaseException:
            os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "ESCAPED" if code == 42 else "held" if code == 0 else "died"


def main() -> None:
    GIVEN.update(json.loads(sys.stdin.read()))
    chosen = READS if "control" in sys.argv else {**READS, **DEEDS}
    print(json.dumps({name: tried(attempt) for name, attempt in chosen.items()}))


if __name__ == "__main__":
    main()
