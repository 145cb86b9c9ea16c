"""Builds the shipped agent written in C: ``python sdk/c/build.py sdk/agents/critic_c``.

Compiles and wraps it as ``rlp agent build`` would, with the pinned compiler, writes ``agent.wasm`` and, in
``build.toml``, what it was made from: a test recomputes it, and builds it again where the compiler is there.
The same inputs give the same bytes. Not part of an installation.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from runloop.authoring import wrap
from runloop.authoring.toolchains import build_settings
from runloop.authoring.toolchains.c import FLAGS, CToolchain
from runloop.digest import blob_digest, framed

__all__ = ["COMPILER", "build", "inputs_digest"]

COMPILER = {"clang": "14.0.6", "wasm-ld": "14.0.6"}
"""The pinned tools: Debian 12's ``clang`` and ``lld``."""

HERE = Path(__file__).resolve().parent


def inputs_digest(source: Path) -> str:
    """Names everything ``agent.wasm`` is made of: source, headers it includes, wrapper, flags, compiler."""
    files = [source, *_headers(source), Path(wrap.__file__)]
    parts = [part for file in files for part in (file.name.encode(), file.read_bytes())]
    return blob_digest(framed(*parts, " ".join(FLAGS).encode(), repr(sorted(COMPILER.items())).encode()))


def _headers(source: Path) -> list[Path]:
    """The SDK's headers that a file includes, also by way of others, in order of their names."""
    found: set[str] = set()
    waiting = [source]
    while waiting:
        for name in re.findall(r'#include "([a-z_]+\.h)"', waiting.pop().read_text()):
            if name not in found:
                found.add(name)
                waiting.append(HERE / name)
    return [HERE / name for name in sorted(found)]


def build(agent: Path) -> bytes:
    """The component of one agent's folder."""
    with tempfile.TemporaryDirectory() as work:
        return CToolchain().build(agent, Path(work))["agent.wasm"]


def main() -> int:
    """Compile, wrap, pin."""
    parser = argparse.ArgumentParser(description="Builds the shipped agent written in C.")
    parser.add_argument("agent", type=Path, help="folder of the bundle")
    agent = parser.parse_args().agent.resolve()
    if (found := CToolchain().versions()) != COMPILER:
        sys.stderr.write(f"build.py: this machine has {found}; the artefact is pinned to {COMPILER}\n")
        return 1
    component = build(agent)
    source = build_settings(agent)["source"]
    (agent / "agent.wasm").write_bytes(component)
    (agent / "build.toml").write_text(
        "# Written by sdk/c/build.py.\n"
        'language = "c"\n'
        f'source = "{source}"\n'
        f'inputs_digest = "{inputs_digest(agent / source)}"\n'
        f'blake3 = "{blob_digest(component)}"\n'
        f'compiler = "{", ".join(f"{name} {version}" for name, version in sorted(COMPILER.items()))}"\n'
    )
    sys.stdout.write(f"agent.wasm {len(component)} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
