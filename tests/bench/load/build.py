"""Compile the C programs beside this file, and install other people's Python clients, once per version.

Knows: where built things are kept, which compiler. Does not know: what the programs do. Nothing is written
into the checkout or its virtual environment: the cache is ``$XDG_CACHE_HOME/runloop-bench``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["Unavailable", "cache", "packages_of", "peers_python", "program"]

HERE = Path(__file__).parent
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra")


class Unavailable(Exception):
    """Something is not installed; the message says what, and which Debian package has it."""


def cache() -> Path:
    """The folder for built things, made if need be."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "runloop-bench"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    return base


def program(name: str, *libraries: str) -> Path:
    """The executable built from ``name``.c, linked with ``libraries``; raises :class:`Unavailable`."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Unavailable("no C compiler: apt install gcc libc6-dev")
    source = HERE / f"{name}.c"
    digest = hashlib.sha256(" ".join(FLAGS).encode() + source.read_bytes()).hexdigest()[:16]
    built = cache() / f"{name}-{digest}"
    if built.exists():
        return built
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        made = Path(folder) / name
        done = subprocess.run(
            [compiler, *FLAGS, "-o", os.fspath(made), os.fspath(source), *(f"-l{one}" for one in libraries)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Unavailable(f"{source.name} does not compile: {done.stderr.strip()[-400:]}")
        made.replace(built)  # whole or not at all, whoever else is building
    return built


def peers_python(wanted: Path = HERE / "requirements.txt") -> Path:
    """An interpreter that has what is ``wanted``; raises :class:`Unavailable`."""
    digest = hashlib.sha256(sys.version.encode() + wanted.read_bytes()).hexdigest()[:16]
    folder = cache() / f"venv-{digest}"
    finished = folder / "finished"
    python = folder / "bin" / "python"
    if finished.exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    pip = [os.fspath(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for argv in ([sys.executable, "-m", "venv", os.fspath(folder)], [*pip, "-r", os.fspath(wanted)]):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"{' '.join(argv[1:4])} failed: {done.stderr.strip()[-300:]}")
    finished.touch()
    return python


def packages_of(python: str) -> list[str]:
    """Where the packages of a virtual environment are."""
    return [os.fspath(found) for found in sorted(Path(python).parents[1].glob("lib/python3*/site-packages"))]
