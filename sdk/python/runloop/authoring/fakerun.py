"""Runs the cases of a Python agent against the fake host, in a process of its own.

``python -m runloop.authoring.fakerun FOLDER ANSWERS`` reads ``[case…]`` as JSON from stdin and writes the
outcomes as JSON to the file ANSWERS; whatever the agent prints stays on its own streams. The agent runs here
with its author's rights and without a sandbox, as every unit test does: it is not for foreign agents.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from runloop.authoring.source import modules_of, read_source
from runloop.authoring.toolchains.python import PythonToolchain
from runloop.bundle.manifest import Manifest, check_values, parse_manifest
from runloop.guest import Program
from runloop.guest_testing import FakeHost, Refuse

__all__ = ["main", "run_case"]

_WITHOUT_SCRIPT = frozenset({"time.now", "random.bytes", "log.write", "progress"})


def run_case(modules: dict[str, str], manifest: Manifest, case: dict[str, Any]) -> dict[str, Any]:
    """``{ok, ports, code, message, unscripted}`` of one case, with freshly imported modules."""
    ports = case["input"].get("ports", {})
    if faults := check_values(manifest.inputs, ports, direction="input") if case["op"] == "handle" else []:
        return {"ok": False, "code": "node.input", "message": "; ".join(faults)}
    answers = {op: _scripted(answer) for op, answer in case["host"].items()}
    fake = FakeHost(answers)
    program = Program(modules, manifest.entrypoint)
    for name in modules:
        sys.modules.pop(name, None)
    try:
        ok, text = program.handle(json.dumps(case["input"]), fake.host)
    finally:
        if program.finder in sys.meta_path:
            sys.meta_path.remove(program.finder)
    answer = json.loads(text)
    asked = {call.op for call in fake.calls} - set(answers) - _WITHOUT_SCRIPT
    unscripted = {"unscripted": sorted(asked)}
    if not ok:
        return {"ok": False, "code": answer["code"], "message": answer["message"], **unscripted}
    if case["op"] == "handle" and (
        faults := check_values(manifest.outputs, answer["ports"], direction="output")
    ):
        return {"ok": False, "code": "guest.output", "message": "; ".join(faults), **unscripted}
    return {"ok": True, "ports": answer["ports"], **unscripted}


def _scripted(answer: Any) -> Any:
    if not (isinstance(answer, dict) and set(answer) == {"refuse"}):
        return answer
    given = answer["refuse"]
    return Refuse(
        given["code"],
        given.get("message", "refused"),
        given.get("hint"),
        bool(given.get("retryable", False)),
    )


def main(argv: list[str]) -> int:
    """See the module."""
    folder, answers = Path(argv[0]), Path(argv[1])
    files = read_source(folder, PythonToolchain.leftovers)
    modules = {name: files[path].decode() for name, path in modules_of(files).items()}
    manifest = parse_manifest(files["manifest.toml"])
    outcomes = [run_case(modules, manifest, case) for case in json.load(sys.stdin)]
    answers.write_text(json.dumps(outcomes), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
