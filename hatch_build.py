"""Build the optional compiled step of the bus (``runloopd/bus/_gather.c``) into the wheel or the checkout.

Knows: how to call the C compiler. Needs nothing but the standard library and hatchling. Without a compiler or
Python's headers the wheel is pure Python, and complete. ``RUNLOOP_NATIVE=0`` leaves the step out,
``=1`` makes a missing compiler an error. The stable ABI: one build for every Python from 3.11 on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("runloopd/bus/_gather.c")
BUILT = Path("runloopd/bus/_gather.abi3.so")
FLAGS = (
    "-O2",
    "-std=c11",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-fstack-protector-strong",
    "-Wall",
    "-Wextra",
    "-Wno-missing-field-initializers",
    "-Wno-cast-function-type",
    "-Wl,-z,relro,-z,now",
)


class NativeStep(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root, wish = Path(self.root), os.environ.get("RUNLOOP_NATIVE")
        (root / BUILT).unlink(missing_ok=True)  # never one that an older source made
        if wish == "0":
            return
        problem = build(root / SOURCE, root / BUILT)
        if problem is not None:
            if wish == "1":
                raise RuntimeError(f"RUNLOOP_NATIVE=1: {problem}")
            print(f"runloop: the bus stays in pure Python: {problem}", file=sys.stderr)
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        build_data["artifacts"].append(f"/{BUILT}")


def build(source: Path, built: Path, *flags: str) -> str | None:
    """Compile; returns what is missing or wrong, in one line, None when it worked."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return "no C compiler; apt install gcc libc6-dev python3-dev"
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").is_file():
        return "Python's headers are missing; apt install python3-dev"
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        made = Path(folder, built.name)
        command = [*compiler.split(), *FLAGS, *flags, f"-I{include}", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{source.name} does not compile: {done.stderr.strip()[-400:]}"
        made.replace(built)  # whole or not at all: a daemon may be starting
    return None
