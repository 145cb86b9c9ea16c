"""Builds ``runner.wasm.xz`` and its pin ``runner.toml``: run it after changing what the runner is made of.

    python sdk/runner/build.py [--componentize-py PATH]   # without PATH: a throw-away venv

componentize-py's output differs from build to build, so the artefact is committed and pinned by its own hash;
``inputs_digest`` ties it to the sources it was made from (a test recomputes it). Not part of an installation.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from runloop.bundle.runner import pack
from runloop.digest import blob_digest, framed

__all__ = ["COMPONENTIZE_PY", "build", "inputs", "inputs_digest"]

COMPONENTIZE_PY = "0.25.1"
"""The pinned generator; it brings CPython 3.14 for the sandbox."""

HERE = Path(__file__).resolve().parent
SDK = HERE.parent / "python" / "runloop"
PACKAGE = b'"""Runloop\'s SDK inside the sandbox: ``runloop.agent`` and ``runloop.host``."""\n'


def inputs() -> dict[str, bytes]:
    """Everything the component is made of, by its path in the build folder."""
    found = {
        "agent.wit": (HERE / "wit" / "agent.wit").read_bytes(),
        "componentize-py": COMPONENTIZE_PY.encode(),
        "src/runloop/__init__.py": PACKAGE,
    }
    for name in ("app.py", "shim.py", "warm_up.py"):
        found[f"src/{name}"] = (HERE / name).read_bytes()
    for name in ("agent.py", "guest.py", "host.py", "schema.py"):
        found[f"src/runloop/{name}"] = (SDK / name).read_bytes()
    return found


def inputs_digest() -> str:
    """Names the sources; equal to ``inputs_digest`` in runner.toml, or the runner is stale."""
    parts = [part for name, data in sorted(inputs().items()) for part in (name.encode(), data)]
    return blob_digest(framed(*parts))


def build(tool: Path, folder: Path) -> bytes:
    """Make the component in ``folder`` with the given componentize-py; returns its bytes."""
    for name, data in inputs().items():
        if name.startswith("src/"):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    arguments = ["-d", str(HERE / "wit"), "-w", "agent", "componentize", "-p", "src", "--stub-wasi"]
    subprocess.run([tool, *arguments, "-o", "runner.wasm", "app"], cwd=folder, check=True)
    return (folder / "runner.wasm").read_bytes()


def _tool(folder: Path) -> Path:
    venv.create(folder / "venv", with_pip=True)
    pip = [folder / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, f"componentize-py=={COMPONENTIZE_PY}"], check=True)
    return folder / "venv" / "bin" / "componentize-py"


def main() -> int:
    """Build, pack, pin."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--componentize-py", type=Path, help=f"componentize-py {COMPONENTIZE_PY}")
    chosen: Path | None = parser.parse_args().componentize_py
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        component = build(chosen.resolve() if chosen else _tool(folder), folder)
    sys.stdout.write(f"runner.wasm {len(component)} bytes, packed {pin(component)}\n")
    return 0


def pin(component: bytes) -> int:
    """Pack and pin a component made from the present inputs; returns the size of the packed file.

    Builds differ by some 40 KiB in what an instance writes (``make bench``): keep the leanest of a few.
    """
    return pack(
        HERE,
        component,
        made_by="Written by sdk/runner/build.py; the runner that executes every Python agent.",
        generator="componentize_py",
        version=COMPONENTIZE_PY,
        inputs=inputs_digest(),
    )


if __name__ == "__main__":
    sys.exit(main())
