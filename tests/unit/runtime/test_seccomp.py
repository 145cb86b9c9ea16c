"""The system call filter, executed by a small BPF machine: what the kernel would answer, for two
architectures."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from runloopd.runtime import seccomp
from runloopd.runtime.seccomp import COMPILER_ALLOWED, EVIDENCE, WORKER_ALLOWED, build_filter

KILL, ALLOW, EPERM = 0x8000_0000, 0x7FFF_0000, 0x0005_0001
X86, ARM = 0xC000_003E, 0xC000_00B7
MACHINES = [("x86_64", X86, 0), ("aarch64", ARM, 1)]


def verdict(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """Run the filter as the kernel does, on one ``struct seccomp_data``."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number, arch, 0, *padded)
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        op, yes, no, k = code[at]
        at += 1
        if op == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif op == 0x06:
            return k
        else:
            taken = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[op]
            at += yes if taken else no


def number(name: str, column: int) -> int | None:
    return seccomp._NUMBERS[name][column]


@pytest.mark.parametrize(("machine", "arch", "column"), MACHINES)
def test_what_a_worker_needs_is_allowed_and_nothing_else(machine: str, arch: int, column: int) -> None:
    program = build_filter(machine, WORKER_ALLOWED)
    allowed = {number(name, column) for name in WORKER_ALLOWED}
    deadly = {number(name, column) for name in EVIDENCE}
    for each in range(600):
        expected = ALLOW if each in allowed else KILL if each in deadly else EPERM
        assert verdict(program, arch, each) == expected, each


@pytest.mark.parametrize(("machine", "arch", "column"), MACHINES)
def test_memory_never_becomes_executable(machine: str, arch: int, column: int) -> None:
    program = build_filter(machine, WORKER_ALLOWED)
    for name in ("mmap", "mprotect"):
        each = number(name, column)
        assert each is not None
        assert verdict(program, arch, each, 0, 4096, 1 | 2) == ALLOW
        for protection in (4, 1 | 4, 1 | 2 | 4):
            assert verdict(program, arch, each, 0, 4096, protection) == KILL


def test_the_compiler_may_publish_code_and_start_threads_but_no_programs() -> None:
    program = build_filter("x86_64", COMPILER_ALLOWED, executable_memory=True)
    assert verdict(program, X86, 10, 0, 4096, 1 | 4) == ALLOW
    assert verdict(program, X86, 56) == ALLOW
    assert verdict(program, X86, 59) == KILL
    assert verdict(program, X86, 41) == KILL
    assert verdict(program, X86, 257) == EPERM


def test_another_architectures_calls_kill() -> None:
    program = build_filter("x86_64", WORKER_ALLOWED)
    assert verdict(program, 0x4000_0003, 3) == KILL  # the 32-bit table: 3 is read there and close here
    assert verdict(program, X86, 0x4000_0000 | 0) == KILL  # x32
    assert verdict(program, ARM, 63) == KILL


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(seccomp.SeccompUnavailable, match="sparc"):
        build_filter("sparc", WORKER_ALLOWED)


HEADERS = [
    ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+)\s+(\d+)", 0),
    ("/usr/include/asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+)\s+(\d+)", 1),
]


@pytest.mark.parametrize(("header", "pattern", "column"), HEADERS)
def test_the_numbers_are_the_kernels(header: str, pattern: str, column: int) -> None:
    if not Path(header).exists():
        pytest.skip("no kernel headers here")
    known = {name: int(value) for name, value in re.findall(pattern, Path(header).read_text())}
    for name, numbers in seccomp._NUMBERS.items():
        if name in known:
            assert numbers[column] == known[name], name
        elif column == 0:
            assert name == "futex_waitv", name
