"""A system call filter for processes that execute foreign code: an allow-list as classic BPF.

Knows: which calls a worker (and the compile subprocess) still needs once everything is loaded, their numbers
on two architectures, how to install the filter on every thread. Does not know: why a process wants it.

What is not listed fails with EPERM, so that an unexpected but harmless call of libc is no catastrophe. Calls
that no healthy worker ever makes (start a program, open a socket, trace, mount) kill the process: they are
evidence. Memory can never become executable again: compiled code was mapped before the filter.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["SeccompUnavailable", "build_filter", "install", "prepare", "supported"]

# linux/seccomp.h, linux/audit.h, linux/bpf_common.h
_SET_MODE_FILTER = 1
_FILTER_FLAG_TSYNC = 1
_RET_KILL_PROCESS = 0x8000_0000
_RET_ERRNO = 0x0005_0000
_RET_ALLOW = 0x7FFF_0000
_EPERM = 1
_LD_ABS = 0x20
_JEQ = 0x15
_JGE = 0x35
_JSET = 0x45
_RET = 0x06
_NR_OFFSET = 0
_ARCH_OFFSET = 4
_ARG2_LOW_OFFSET = 16 + 8 * 2  # third argument, low half: both architectures are little-endian
_PROT_EXEC = 4
_X32_BIT = 0x4000_0000


@dataclass(frozen=True, kw_only=True, slots=True)
class _Architecture:
    audit: int
    seccomp: int
    column: int
    x32: bool


_ARCHITECTURES = {
    "x86_64": _Architecture(audit=0xC000_003E, seccomp=317, column=0, x32=True),
    "aarch64": _Architecture(audit=0xC000_00B7, seccomp=277, column=1, x32=False),
}

# Numbers from asm/unistd_64.h and asm-generic/unistd.h; None: the architecture has no such call.
_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "poll": (7, None),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "ppoll": (271, 73),
    "set_robust_list": (273, 99),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "rseq": (334, 293),
    "futex_waitv": (449, 449),
    # for the compile subprocess
    "clone": (56, 220),
    "clone3": (435, 435),
    "prctl": (157, 167),
    "pwrite64": (18, 68),
    # evidence of an escape
    "socket": (41, 198),
    "connect": (42, 203),
    "accept": (43, 202),
    "bind": (49, 200),
    "listen": (50, 201),
    "socketpair": (53, 199),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "ptrace": (101, 117),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "mount": (165, 40),
    "umount2": (166, 39),
    "init_module": (175, 105),
    "kexec_load": (246, 104),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "accept4": (288, 242),
    "perf_event_open": (298, 241),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "finit_module": (313, 273),
    "bpf": (321, 280),
    "execveat": (322, 281),
    "userfaultfd": (323, 282),
    "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425),
    "pidfd_getfd": (438, 438),
}

WORKER_ALLOWED: tuple[str, ...] = (
    "futex", "read", "write", "sendto", "recvfrom", "sendmsg", "recvmsg", "poll", "ppoll", "close", "fstat",
    "lseek", "pread64", "mmap", "mprotect", "munmap", "brk", "mremap", "madvise", "rt_sigaction",
    "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "sched_yield", "nanosleep", "clock_nanosleep",
    "clock_gettime", "gettimeofday", "getpid", "gettid", "getrandom", "getrusage", "sched_getaffinity",
    "restart_syscall", "set_robust_list", "rseq", "membarrier", "futex_waitv", "exit", "exit_group",
)  # fmt: skip
"""What a worker needs after it is hardened. No open, no socket, no clone, no exec, no kill of others."""

COMPILER_ALLOWED: tuple[str, ...] = (*WORKER_ALLOWED, "clone", "clone3", "prctl", "pwrite64")
"""The compile subprocess also starts threads of its own, and writes its result to a descriptor."""

EVIDENCE: tuple[str, ...] = (
    "socket", "connect", "accept", "accept4", "bind", "listen", "socketpair", "fork", "vfork", "execve",
    "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "pidfd_send_signal",
    "mount", "umount2",
    "pivot_root", "chroot", "setns", "unshare", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup",
    "keyctl", "add_key", "init_module", "finit_module", "kexec_load", "open_by_handle_at",
)  # fmt: skip
"""Calls that end the process at once."""

_NO_EXEC = ("mmap", "mprotect")


class SeccompUnavailable(OSError):
    """This kernel or architecture has no system call filter. The sandbox refuses to start."""


def supported() -> bool:
    """True when a filter can be written for this architecture."""
    return platform.machine() in _ARCHITECTURES


def build_filter(
    machine: str,
    allowed: Sequence[str],
    *,
    evidence: Sequence[str] = EVIDENCE,
    executable_memory: bool = False,
) -> bytes:
    """The program for ``machine`` (``x86_64`` or ``aarch64``) as an array of ``struct sock_filter``. Pure.

    ``executable_memory``: memory may become executable (the compiler publishes what it made before it can be
    serialised). Raises :class:`SeccompUnavailable` for another architecture.
    """
    guarded = () if executable_memory else _NO_EXEC
    arch = _ARCHITECTURES.get(machine)
    if arch is None:
        raise SeccompUnavailable(f"no system call table for {machine}")

    def numbers(names: Sequence[str]) -> list[int]:
        found = (_NUMBERS[name][arch.column] for name in names)
        return [number for number in found if number is not None]

    # Structured without far jumps: every test is followed by its own return.
    program = [
        (_LD_ABS, 0, 0, _ARCH_OFFSET),
        (_JEQ, 1, 0, arch.audit),
        (_RET, 0, 0, _RET_KILL_PROCESS),
        (_LD_ABS, 0, 0, _NR_OFFSET),
    ]
    if arch.x32:
        program += [(_JGE, 0, 1, _X32_BIT), (_RET, 0, 0, _RET_KILL_PROCESS)]
    for number in numbers([name for name in allowed if name not in guarded]):
        program += [(_JEQ, 0, 1, number), (_RET, 0, 0, _RET_ALLOW)]
    for number in numbers([name for name in evidence if name not in allowed]):
        program += [(_JEQ, 0, 1, number), (_RET, 0, 0, _RET_KILL_PROCESS)]
    for number in numbers([name for name in guarded if name in allowed]):
        program += [
            (_JEQ, 0, 4, number),
            (_LD_ABS, 0, 0, _ARG2_LOW_OFFSET),
            (_JSET, 0, 1, _PROT_EXEC),
            (_RET, 0, 0, _RET_KILL_PROCESS),
            (_RET, 0, 0, _RET_ALLOW),
        ]
    program.append((_RET, 0, 0, _RET_ERRNO | _EPERM))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


@functools.cache
def prepare(program: bytes) -> Callable[[], int]:
    """The system call that installs ``program``, ready to be made: a forked process that prepared nothing
    itself copies fewer pages."""
    arch = _ARCHITECTURES.get(platform.machine())
    if arch is None:
        raise SeccompUnavailable(f"no system call table for {platform.machine()}")
    buffer = ctypes.create_string_buffer(program, len(program))
    argument = _Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    number, mode = ctypes.c_long(arch.seccomp), ctypes.c_ulong(_SET_MODE_FILTER)
    flags, pointer = ctypes.c_ulong(_FILTER_FLAG_TSYNC), ctypes.pointer(argument)

    def install() -> int:
        done: int = syscall(number, mode, flags, pointer)
        return done

    return install


def install(program: bytes) -> None:
    """Put the filter on every thread of this process. Needs no-new-privs. Cannot be undone.

    Raises :class:`SeccompUnavailable` when the kernel refuses.
    """
    done = prepare(program)()
    if done != 0:  # negative: errno; positive: a thread that could not be synchronised
        error = ctypes.get_errno()
        raise SeccompUnavailable(error, f"the system call filter was refused: {os.strerror(error)}")
