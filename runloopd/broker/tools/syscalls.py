"""The system calls that a program in the sandbox cannot make, as classic BPF.

Knows: what a tool never needs and a kernel exploit or an escape does, by number, on two architectures. Does
not know: how a filter is installed (bubblewrap does), or the far shorter list of a worker
(``runtime.seccomp``).

Tools are ordinary programs (git, a compiler, an interpreter), so this is a list of what is refused, with a
ceiling: calls newer than this list do not exist for a program. Arguments are judged where a call has a
harmless use: sockets by their family, ``clone`` by its namespaces, ``ioctl`` by its request.
"""

from __future__ import annotations

import errno
import platform
import struct

__all__ = ["program_filter", "supported"]

# linux/seccomp.h, linux/audit.h, linux/bpf_common.h
_KILL, _ERRNO, _ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000
_LD_ABS, _JEQ, _JGE, _JSET, _AND, _RET = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NR, _ARCH = 0, 4
_X32_BIT = 0x4000_0000
_NEW_NAMESPACES = 0x7E02_0000  # CLONE_NEWNS | …CGROUP | …UTS | …IPC | …USER | …PID | …NET
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_TYPE, _SOCK_STREAM, _SOCK_SEQPACKET = 0xF, 1, 5

_NEWEST = 462
"""``mseal``, Linux 6.10: one number for all architectures since 424."""

_AUDIT = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_COLUMN = {"x86_64": 0, "aarch64": 1}

# Numbers from asm/unistd_64.h and asm-generic/unistd.h; None: the architecture has no such call.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "kcmp": (312, 272), "pidfd_getfd": (438, 438),
    "migrate_pages": (256, 238), "move_pages": (279, 239), "mbind": (237, 235), "set_mempolicy": (238, 237),
    # mounts and namespaces
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "statmount": (457, 457), "listmount": (458, 458),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    # the kernel itself
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "syslog": (103, 116),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "vhangup": (153, 58),
    "iopl": (172, None), "ioperm": (173, None), "modify_ldt": (154, None), "uselib": (134, None),
    "nfsservctl": (180, 42), "lookup_dcookie": (212, 18),
    # keys, clocks, names
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162),
    # memory that no limit counts
    "memfd_secret": (447, 447),
}  # fmt: skip

_ABSENT: dict[str, tuple[int, int]] = {
    # Their arguments lie in memory, where a filter cannot look: libc falls back to what it can judge.
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # Memory that no limit counts; programs fall back to a file in /tmp, which is bounded.
    "memfd_create": (319, 279),
    "shmget": (29, 194),
}

_JUDGED: dict[str, tuple[int, int]] = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "ioctl": (16, 29),
}

_Instruction = tuple[int, int, int, int]


def supported() -> bool:
    """True when a filter can be written for this machine."""
    return platform.machine() in _AUDIT


def program_filter(machine: str, *, egress: bool) -> bytes:
    """The filter for ``machine`` (``x86_64`` or ``aarch64``) as an array of ``struct sock_filter``. Pure.

    ``egress``: it may make sockets of the internet's families; never one that finds others by a file name.
    """
    column = _COLUMN[machine]
    program: list[_Instruction] = [
        (_LD_ABS, 0, 0, _ARCH),
        (_JEQ, 1, 0, _AUDIT[machine]),
        (_RET, 0, 0, _KILL),
        (_LD_ABS, 0, 0, _NR),
        (_JGE, 0, 1, _X32_BIT),
        (_RET, 0, 0, _KILL),
        (_JGE, 0, 1, _NEWEST + 1),
        _refuse(errno.ENOSYS),
    ]
    for name, judge in (
        ("socket", _families(egress)),
        ("socketpair", _pairs()),
        ("clone", _clone()),
        ("ioctl", _ioctl()),
    ):
        program += [(_JEQ, 0, len(judge), _JUDGED[name][column]), *judge]
    for numbers in _ABSENT.values():
        program += [(_JEQ, 0, 1, numbers[column]), _refuse(errno.ENOSYS)]
    for refused in _REFUSED.values():
        if (number := refused[column]) is not None:
            program += [(_JEQ, 0, 1, number), _refuse(errno.EPERM)]
    program.append((_RET, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _refuse(code: int) -> _Instruction:
    return (_RET, 0, 0, _ERRNO | code)


def _argument(index: int) -> _Instruction:
    """The low half of an argument: both architectures are little-endian, and the kernel looks at no more of
    these four."""
    return (_LD_ABS, 0, 0, 16 + 8 * index)


def _families(egress: bool) -> list[_Instruction]:
    # A socket of the family AF_UNIX finds any server whose file a granted folder holds, and datagram ones may
    # be sent to by name: nobody gets one.
    if not egress:
        return [_refuse(errno.EAFNOSUPPORT)]
    return [
        _argument(0),
        (_JEQ, 2, 0, _AF_INET),
        (_JEQ, 1, 0, _AF_INET6),
        _refuse(errno.EAFNOSUPPORT),
        (_RET, 0, 0, _ALLOW),
    ]


def _pairs() -> list[_Instruction]:
    # Pairs are how event loops wake themselves. One of datagrams could be sent to elsewhere by name.
    return [
        _argument(0),
        (_JEQ, 0, 4, _AF_UNIX),
        _argument(1),
        (_AND, 0, 0, _SOCK_TYPE),
        (_JEQ, 2, 0, _SOCK_STREAM),
        (_JEQ, 1, 0, _SOCK_SEQPACKET),
        _refuse(errno.EPERM),
        (_RET, 0, 0, _ALLOW),
    ]


def _clone() -> list[_Instruction]:
    return [
        _argument(0),
        (_JSET, 0, 1, _NEW_NAMESPACES),
        _refuse(errno.EPERM),
        (_RET, 0, 0, _ALLOW),
    ]


def _ioctl() -> list[_Instruction]:
    return [
        _argument(1),
        (_JEQ, 1, 0, _TIOCSTI),
        (_JEQ, 0, 1, _TIOCLINUX),
        _refuse(errno.EPERM),
        (_RET, 0, 0, _ALLOW),
    ]
