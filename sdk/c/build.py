"""Builds an agent written in C: ``python sdk/c/build.py sdk/agents/critic_c critic.c [--zig PYTHON]``.

Compiles the file with zig's C compiler (from a throw-away venv, or with a Python that has ``ziglang``), wraps
the module into a component (``wrap``), writes ``agent.wasm`` and, in ``build.toml``, what it was made from: a
test recomputes it. The same inputs give the same bytes. Not part of an installation.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from runloop.digest import blob_digest, framed

__all__ = ["ZIG", "build", "inputs_digest"]

ZIG = "0.17.0"
"""The pinned compiler."""

HERE = Path(__file__).resolve().parent
FLAGS = [
    "--target=wasm32-freestanding",
    "-Oz",
    "-s",
    "-std=c17",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-nostdlib",
    "-fno-builtin",
    "-Wl,--no-entry",
    "-Wl,-z,stack-size=131072",
]


def inputs_digest(source: Path) -> str:
    """Names everything ``agent.wasm`` is made of: source, headers, wrapper, flags, compiler."""
    files = [source, *sorted(HERE.glob("*.h")), HERE / "wrap.py"]
    parts = [part for file in files for part in (file.name.encode(), file.read_bytes())]
    return blob_digest(framed(*parts, " ".join(FLAGS).encode(), ZIG.encode()))


def build(source: Path, python: Path) -> bytes:
    """The component of one C file, compiled with the zig of ``python``."""
    sys.path.insert(0, str(HERE))
    from wrap import wrap

    with tempfile.TemporaryDirectory() as made:
        module = Path(made) / "module.wasm"
        command = [python, "-m", "ziglang", "cc", *FLAGS, "-I", HERE, "-o", module, source.name]
        subprocess.run(command, cwd=source.parent, check=True)
        return wrap(module.read_bytes())


def main() -> int:
    """Compile, wrap, pin."""
    parser = argparse.ArgumentParser(description="Builds an agent written in C.")
    parser.add_argument("agent", type=Path, help="folder of the bundle")
    parser.add_argument("source", help="the C file in it")
    parser.add_argument("--zig", type=Path, help=f"a Python that has ziglang {ZIG}")
    options = parser.parse_args()
    source = options.agent.resolve() / options.source
    with tempfile.TemporaryDirectory() as made:
        python: Path | None = options.zig
        if python is None:
            venv.create(made, with_pip=True)
            python = Path(made) / "bin" / "python"
            subprocess.run([python, "-m", "pip", "install", "--quiet", f"ziglang=={ZIG}"], check=True)
        component = build(source, python)
    (source.parent / "agent.wasm").write_bytes(component)
    (source.parent / "build.toml").write_text(
        "# Written by sdk/c/build.py.\n"
        f'source = "{source.name}"\n'
        f'inputs_digest = "{inputs_digest(source)}"\n'
        f'blake3 = "{blob_digest(component)}"\n'
        f'zig = "{ZIG}"\n'
    )
    sys.stdout.write(f"agent.wasm {len(component)} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
