"""The subprocess that compiles one component: limited, without network, without secrets.

Started as ``python -I -m runloopd.runtime.compiler <wasm fd> <result fd> <parent pid> [waived layer…]``.
Exits 0 with the compiled form in the result, ``EXIT_REFUSED`` with a message in it. Does not know: the cache
or its key; the daemon authenticates what comes out, and only a hardened worker ever executes it.
"""

from __future__ import annotations

import faulthandler
import os
import platform
import sys

from runloopd.runtime import hardening, landlock, seccomp
from runloopd.runtime.engine import COMPILE_LIMITS, ComponentRefused
from runloopd.runtime.sandbox import compile_component, make_engine
from runloopd.runtime.shape import check_shape

__all__ = ["EXIT_REFUSED", "EXIT_UNHARDENED", "main"]

EXIT_REFUSED = 3
EXIT_UNHARDENED = 90


def main(arguments: list[str]) -> int:
    """Entry of the process."""
    faulthandler.enable()
    wasm_fd, result_fd, parent = (int(argument) for argument in arguments[:3])
    wasm = os.pread(wasm_fd, COMPILE_LIMITS.wasm_bytes + 1, 0)
    engine = make_engine(parallel=True)  # reads files: not possible any more once hardened
    if seccomp.supported():
        program = seccomp.build_filter(platform.machine(), seccomp.COMPILER_ALLOWED, executable_memory=True)
    else:
        program = b""
    try:
        hardening.isolate_zygote()
        hardening.harden_worker(
            parent=parent,
            keep={2, result_fd},
            data_bytes=COMPILE_LIMITS.data_bytes,
            cpu_seconds=COMPILE_LIMITS.cpu_seconds,
            file_bytes=COMPILE_LIMITS.cwasm_bytes,
            program=program,
            waived=arguments[3:],
            threads=True,
            landlocked=landlock.version(),
        )
    except hardening.HardeningError as error:
        _write(result_fd, str(error).encode())
        return EXIT_UNHARDENED
    try:
        check_shape(wasm)
        _write(result_fd, compile_component(engine, wasm))
    except ComponentRefused as error:
        _write(result_fd, error.message.encode())
        return EXIT_REFUSED
    return 0


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # no teardown of compiler threads
