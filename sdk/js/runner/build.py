"""Builds ``runner.wasm.xz`` and its pin ``runner.toml``: run it after changing what the runner is made of.

    python sdk/js/runner/build.py [--componentize-qjs PATH]   # without PATH: npm, into a throw-away folder

componentize-qjs's output differs from build to build, so the artefact is committed and pinned by its own
hash; ``inputs_digest`` ties it to the sources it was made from (a test recomputes it).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from runloop.bundle.runner import pack
from runloop.digest import blob_digest, framed

__all__ = ["COMPONENTIZE_QJS", "build", "inputs", "inputs_digest", "source"]

COMPONENTIZE_QJS = "0.4.5"
"""The pinned generator; it brings QuickJS-ng for the sandbox. Without ``--opt-size``, which costs 40 to 70 %
more time for 65 kB."""

HERE = Path(__file__).resolve().parent
SDK = HERE.parent / "runloop"
WIT = HERE.parents[1] / "runner" / "wit" / "agent.wit"
MODULES = ("boot.js", "bytes.js", "guest.js", "host.js", "index.js", "json.js", "schema.js", "shim.js")
"""Of the SDK: what runs inside the sandbox."""
MARK = "{/* modules */}"


def inputs() -> dict[str, bytes]:
    """Everything the component is made of, by name."""
    return {
        "agent.wit": WIT.read_bytes(),
        "app.js": (HERE / "app.js").read_bytes(),
        "componentize-qjs": COMPONENTIZE_QJS.encode(),
        **{f"runloop/{name}": (SDK / name).read_bytes() for name in MODULES},
    }


def inputs_digest() -> str:
    """Names the sources; equal to ``inputs_digest`` in runner.toml, or the runner is stale."""
    parts = [part for name, data in sorted(inputs().items()) for part in (name.encode(), data)]
    return blob_digest(framed(*parts))


def source() -> str:
    """One ES module: the application with the SDK's CommonJS modules as functions inside."""
    found = inputs()
    modules = "".join(
        f'"{name}": function (module, exports, require) {{\n{found[f"runloop/{name}"].decode()}}},\n'
        for name in MODULES
    )
    application = found["app.js"].decode()
    if application.count(MARK) != 1:
        raise ValueError(f"app.js must hold {MARK} once")
    return application.replace(MARK, f"{{\n{modules}}}")


def build(tool: Path, folder: Path) -> bytes:
    """Make the component in ``folder`` with the given componentize-qjs; returns its bytes."""
    (folder / "wit").mkdir()
    (folder / "wit" / "agent.wit").write_bytes(WIT.read_bytes())
    (folder / "runner.js").write_text(source())
    arguments = ["-w", "wit", "-n", "agent", "-j", "runner.js", "--sync", "--stub-wasi"]
    # A clean environment: what the initialisation can see is frozen into the image.
    env = {"PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC", "LANG": "C.UTF-8"}
    subprocess.run([tool, *arguments, "-o", "runner.wasm"], cwd=folder, env=env, check=True)
    return (folder / "runner.wasm").read_bytes()


def _tool(folder: Path) -> Path:
    subprocess.run(
        ["npm", "install", "--silent", "--prefix", str(folder), f"componentize-qjs@{COMPONENTIZE_QJS}"],
        check=True,
    )
    return folder / "node_modules" / ".bin" / "componentize-qjs"


def main() -> int:
    """Build, pack, pin."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--componentize-qjs", type=Path, help=f"componentize-qjs {COMPONENTIZE_QJS}")
    chosen: Path | None = parser.parse_args().componentize_qjs
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as tools:
        tool = chosen.absolute() if chosen else _tool(Path(tools))
        component = build(tool, Path(made))
    packed = pack(
        HERE,
        component,
        made_by="Written by sdk/js/runner/build.py; the runner that executes every JavaScript agent.",
        generator="componentize_qjs",
        version=COMPONENTIZE_QJS,
        inputs=inputs_digest(),
    )
    sys.stdout.write(f"runner.wasm {len(component)} bytes, packed {packed}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
