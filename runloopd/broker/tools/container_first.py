"""How this machine's own interpreter comes into a container, whatever the image is.

Knows: the interpreter, its loader and its libraries, and under which names they are mounted. Does not know:
what the first process does (``tools.entry``), or what a program is given (``tools.container``).

An image may have no interpreter, or another C library: the first process is started by this machine's loader,
with this machine's libraries, and becomes a program of the image in the end.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from runloopd.broker.tools.container_engine import Bind
from runloopd.broker.tools.enclosure import ROOT_LINKS
from runloopd.broker.tools.sandbox import SandboxError

__all__ = ["HERE", "first", "first_binds", "userland"]

HERE = "/.runloop"
"""Where it lies inside; behind Landlock nobody reads there."""


@functools.cache
def _libraries() -> tuple[str, tuple[str, ...]]:
    """The loader of this interpreter, and where its libraries lie, by what is mapped at this moment."""
    import ctypes  # noqa: F401 - so that what the first process needs is mapped

    loader, folders = "", dict[str, None]()
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.partition("/")[2]
        name = Path(path).name
        if re.match(r"ld-(linux|musl).*\.so", name):
            loader = f"/{path}"
        if re.match(r"(lib(c|m|dl|pthread|util|ffi|z|expat|python[0-9.]*)[.-].*so|ld-)", name):
            folders[str(Path(f"/{path}").parent)] = None
    if not loader:
        raise SandboxError("the dynamic loader of this interpreter was not found")
    return loader, tuple(folders)


def _base() -> tuple[Path, Path]:
    """This interpreter and its prefix."""
    program = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    prefix = Path(sys.base_prefix).resolve()
    if not program.is_relative_to(prefix):
        raise SandboxError(f"the interpreter {program} does not lie in its own prefix {prefix}")
    return program, prefix


def first(*words: str) -> list[str]:
    """The first process inside: this machine's own interpreter by its own loader, whatever the image is."""
    loader, folders = _libraries()
    inside = f"{HERE}/host"
    return [
        f"{inside}{loader}",
        *("--library-path", ":".join(f"{inside}{folder}" for folder in folders)),
        f"{inside}{_base()[0]}",
        *("-I", "-S", f"{HERE}/entry.py", *words),
    ]


def first_binds() -> Iterator[Bind]:
    """What the first process needs; behind Landlock nobody reads there."""
    loader, folders = _libraries()
    wanted = {str(_base()[1]), str(Path(loader).parent), *folders}
    for folder in sorted(wanted):
        if not any(other != folder and Path(folder).is_relative_to(other) for other in wanted):
            yield Bind(folder, f"{HERE}/host{folder}")
    yield Bind(str(Path(__file__).with_name("entry.py")), f"{HERE}/entry.py")


def userland() -> Iterator[Bind]:
    """The system's own programs and libraries, over those of the image: for Runloop's own code."""
    yield Bind("/usr", "/usr")
    for name in ROOT_LINKS:
        if Path("/", name).is_dir():
            yield Bind(str(Path("/", name).resolve()), f"/{name}")
