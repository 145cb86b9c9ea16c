"""Which sockets of a home somebody can connect to, as the kernel tells it.

Knows: ``/proc``: which processes belong to a home (the daemon, whatever runs below it, our programs that were
started for it), what they listen on, who could reach that. Does not know: what is served there, or what is
said about it (``commands.doctor``). Asks no process: a daemon that lies about itself is seen all the same.

Some processes cannot be looked into (the daemon lets nobody, so that nobody takes a key from it). Where one
of ours is such, a listening socket of this user's that is in no hand we can see could be its own, and is
told.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from pathlib import Path

__all__ = ["Listener", "family", "internet", "listening", "unix"]

_TCP_LISTENS = "0A"
_UDP_OPEN = "07"
_ACCEPTS = 0x10000
"""``__SO_ACCEPTCON``, in the flags of ``/proc/net/unix``."""
_PROGRAMS = frozenset({"rlp", "agtop", "runloopd"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Listener:
    """One socket somebody can connect to."""

    where: str
    """``tcp 127.0.0.1:80``, or a path."""
    holder: str
    """``rlp, pid 12``; empty where nobody may look into the process."""
    fault: str = ""
    """Why it should not be; empty where it may."""


def listening(daemon: int | None, socket: Path, home: Path, *, proc: Path = Path("/proc")) -> list[Listener]:
    """Everything of a home that listens, the daemon's own socket included, worst first."""
    processes = dict(_processes(proc))
    ours = family(daemon, home, processes, proc)
    held: dict[str, int] = {}
    closed = False
    for pid in {*processes, *ours}:
        inodes = _inodes(proc / str(pid))
        closed |= inodes is None and pid in ours
        for inode in inodes or ():
            if inode not in held or pid in ours:  # a socket may be in several hands
                held[inode] = pid
    shown = {pid: f"{_name(argv)}, pid {pid}" for pid, argv in processes.items()}
    found: list[Listener] = []
    for inode, where, fault in (*internet(proc, os.getuid()), *unix(proc, socket, home)):
        holder = held.get(inode)
        if holder is not None and holder in ours:
            found.append(Listener(where=where, holder=shown.get(holder, f"pid {holder}"), fault=fault))
        elif holder is None and where == f"unix {socket}":
            found.append(Listener(where=where, holder="", fault=fault))
        elif closed and holder is None and fault and not where.startswith("unix @"):  # those tell no owner
            found.append(Listener(where=where, holder="", fault=f"{fault}; nobody can tell whose it is"))
    return sorted(found, key=lambda one: (not one.fault, one.where))


def family(
    daemon: int | None, home: Path, processes: Mapping[int, list[str]], proc: Path = Path("/proc")
) -> set[int]:
    """Processes of a home: the daemon's, and our programs that were started for the same home."""
    found = [pid for pid, argv in processes.items() if _serves(pid, argv, home, proc)]
    if daemon is not None:
        found.append(daemon)
    seen = set(found)
    for pid in found:  # grows while it is walked
        for child in _children(proc / str(pid)):
            if child not in seen:
                seen.add(child)
                found.append(child)
    return seen


# --- sockets --------------------------------------------------------------------------------------


def internet(proc: Path, uid: int) -> Iterator[tuple[str, str, str]]:
    """Inode, address and fault of each internet socket of a user's that takes what comes to it."""
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        for fields in _rows(proc / "net" / table):
            kind = table.rstrip("6")
            takes = {"tcp": fields[3] == _TCP_LISTENS, "udp": fields[3] == _UDP_OPEN, "raw": True}[kind]
            if not takes or int(fields[7]) != uid or (kind == "udp" and not fields[2].endswith(":0000")):
                continue
            host, port = _address(fields[1])
            inner = getattr(host, "ipv4_mapped", None) or host
            shown = f"[{host}]" if host.version == 6 else str(host)
            where = f"{kind} {shown}:{port}"
            yield fields[9], where, "" if inner.is_loopback else "other machines may reach it"


def unix(proc: Path, socket: Path, home: Path) -> Iterator[tuple[str, str, str]]:
    """Inode, path and fault of each Unix socket that listens in the home or where the daemon's is, and of
    each without a path."""
    for fields in _rows(proc / "net" / "unix"):
        if not int(fields[3], 16) & _ACCEPTS or len(fields) < 8:
            continue
        name = " ".join(fields[7:])
        if name.startswith("@"):
            yield fields[6], f"unix {name}", "it has no path, so any process on this machine may connect"
        elif Path(name) == socket or Path(name).is_relative_to(home):
            yield fields[6], f"unix {name}", _open_to(Path(name))


def _open_to(path: Path) -> str:
    """Who else could connect to a socket at a path."""
    try:
        found = path.lstat()
    except OSError as error:
        return f"its path cannot be looked at: {error.strerror}"
    if not stat.S_ISSOCK(found.st_mode):
        return "something that is no socket stands at its path"
    if found.st_uid != os.getuid():
        return f"its path belongs to user {found.st_uid}"
    mode = stat.S_IMODE(found.st_mode)
    return f"its mode is {mode:04o}: others may connect" if mode & 0o077 else ""


def _address(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    host, _, port = text.rpartition(":")
    raw = bytes.fromhex(host)
    swapped = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return ip_address(swapped), int(port, 16)


def _rows(table: Path) -> Iterator[list[str]]:
    try:
        lines = table.read_text(errors="replace").splitlines()[1:]
    except OSError:
        return
    yield from (fields for line in lines if len(fields := line.split()) >= 7)


# --- processes ------------------------------------------------------------------------------------


def _processes(proc: Path) -> Iterator[tuple[int, list[str]]]:
    """Every process of this user's, with its arguments."""
    for place in proc.iterdir():
        if not place.name.isdigit():
            continue
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            if place.stat().st_uid == os.getuid() or _real_uid(place) == os.getuid():
                yield int(place.name), [os.fsdecode(word) for word in words]
        except OSError:
            continue  # it ended


def _real_uid(place: Path) -> int:
    """Of a process that lets nobody look into it: its files are root's, what it says of itself is not."""
    for line in (place / "status").read_text(errors="replace").splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[1])
    return -1


def _serves(pid: int, argv: list[str], home: Path, proc: Path) -> bool:
    """Whether a process is one of our programs, for this home."""
    if _name(argv) not in _PROGRAMS or pid == os.getpid():
        return False
    try:
        words = (proc / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    environ = dict(os.fsdecode(word).partition("=")[::2] for word in words if b"=" in word)
    named = environ.get("RUNLOOP_HOME")
    for flag, value in pairwise(argv):
        named = value if flag == "--home" else named
    for word in argv:
        named = word.removeprefix("--home=") if word.startswith("--home=") else named
    mine = Path(named).expanduser().absolute() if named else Path(environ.get("HOME", "/")) / ".runloop"
    return mine == home


def _name(argv: list[str]) -> str:
    """What a process is called: ``rlp`` also where an interpreter runs it."""
    for place, word in enumerate(argv[:6]):
        if word == "-m" and place + 1 < len(argv):
            return argv[place + 1].partition(".")[0]
        name = os.path.basename(word)  # noqa: PTH119 - a word, not a place
        if name in _PROGRAMS:
            return name
    return os.path.basename(argv[0])[:40] if argv else ""  # noqa: PTH119


def _inodes(process: Path) -> set[str] | None:
    """Of the sockets that a process holds; None where it lets nobody look."""
    found: set[str] = set()
    try:
        for link in os.scandir(process / "fd"):
            with contextlib.suppress(OSError):  # it was closed meanwhile
                target = os.readlink(link.path)  # noqa: PTH115 - thousands of them
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    except OSError:
        return None if process.exists() else set()
    return found


def _children(place: Path) -> list[int]:
    found: list[int] = []
    try:
        for task in (place / "task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except OSError:
        return found
    return found
