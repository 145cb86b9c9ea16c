"""Bundles agents written in JavaScript: CommonJS source that the shipped runner executes as it is.

Knows: which modules an agent can require, and what host calls its source shows. Does not know: how source is
executed (``sdk/js``), or bundles. Needs no tool; Node only for an author's own unit tests.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

from runloop.authoring.findings import LintFinding
from runloop.authoring.source import op_literals, read_source
from runloop.authoring.toolchains import BuildFailed, Missing, OpUse
from runloop.authoring.toolchains.compilers import find
from runloop.bundle.manifest import Language, parse_manifest
from runloop.config import shipped
from runloop.errors import RunloopError

__all__ = ["HOST_CALLS", "INSTALL_NODE", "JavaScriptToolchain", "absences", "requires"]

INSTALL_NODE = "apt-get install nodejs"

HOST_CALLS = {
    "time.now": ("Date.now(", "new Date()", "performance.now(", ".nowMs("),
    "random.bytes": ("Math.random(", "crypto.getRandomValues(", "crypto.randomUUID(", ".randomBytes("),
    "log.write": (
        "console.log(", "console.info(", "console.debug(", "console.trace(", "console.dir(", "console.warn(",
        "console.error(", "console.assert(", "host.log(",
    ),
    "progress": ("host.progress(",),
    "kb.search": (".kbSearch(",),
    "kb.query": (".kbQuery(", ".kbQuery<"),
    "kb.read": (".kbRead(",),
    "kb.why": (".kbWhy(",),
    "kb.propose": (".kbPropose(",),
    "memory.get": (".memoryGet(", ".memoryGet<"),
    "memory.put": (".memoryPut(",),
    "artifact.put": (".putArtifact(",),
    "blob.read": (".blobRead(",),
    "model.complete": ("host.complete(", ".completeStream("),
    "msg.publish": (),
    "msg.subscribe": (),
    "msg.request": (),
    "msg.reply": (),
    "msg.next": (".nextMessage(", ".completeStream("),
    "http.fetch": ("host.fetch(",),
    "fs.read": (),
    "fs.write": (),
    "fs.list": (),
    "fs.stat": (),
    "tool.list": ("host.tools(",),
    "tool.call": (".callTool(",),
    "mail.send": (".sendMail(",),
    "memory.list": (),
    "memory.delete": (),
    "promise.create": (),
    "promise.await": (),
    "promise.resolve": (),
    "input.ask": (),
    "model.embed": (),
    "agent.delegate": (),
    "secret.use": (),
}  # fmt: skip
"""Op -> what it looks like in source: methods of the SDK's host, and what the runner's shim turns into it.

None for those that are made with ``host.call`` until the next build of the runner."""

_REQUIRE = re.compile(r"""\brequire\(\s*(["'])([^"'\n]+)\1\s*\)""")
_ESM = re.compile(r"""^(?:import\s+[\w{*"']|export\s+[\w{*])""")
_AWAIT = re.compile(r"\bawait\s+[\w(\[]")
_COMMENT = re.compile(r"^\s*(?://|\*|/\*)")


class JavaScriptToolchain:
    """Copies modules; implements :class:`runloop.authoring.toolchains.Toolchain`."""

    language: ClassVar[str] = "js"
    manifest_language: ClassVar[Language] = "javascript"
    leftovers: ClassVar[frozenset[str]] = frozenset({"node_modules", "build", "dist", "coverage"})
    suffixes: ClassVar[tuple[str, ...]] = (".js",)

    def missing(self) -> list[Missing]:
        """Nothing: the runner comes with Runloop."""
        return []

    def versions(self) -> Mapping[str, str]:
        """Nothing but the source determines the bytes."""
        return {}

    def check(self, folder: Path) -> list[LintFinding]:
        """Modules that are no CommonJS, that are not there or not UTF-8; the entrypoint; waiting."""
        files = self.sources(folder)
        findings: list[LintFinding] = []
        for path, data in files.items():
            try:
                text = data.decode()
            except UnicodeDecodeError as error:
                line = data[: error.start].count(b"\n") + 1
                findings.append(LintFinding(file=path, line=line, what="not UTF-8", fix="save it as UTF-8"))
                continue
            findings += self._module_findings(path, text, files)
        return findings + self._entrypoint(folder, files)

    def uses(self, folder: Path) -> list[OpUse]:
        """Quoted names of ops, methods of the host, and what the shim reroutes."""
        names = {word: op for op, words in HOST_CALLS.items() for word in words}
        found = op_literals(folder, self.suffixes, self.leftovers, names)
        # One text can stand for two ops: names is a dictionary, and a stream is also read.
        streams = op_literals(folder, self.suffixes, self.leftovers, {".completeStream(": "model.complete"})
        return sorted({*found, *streams}, key=lambda use: (use.file, use.line, use.op))

    def build(self, folder: Path, work: Path) -> dict[str, bytes]:
        """Every module, byte for byte. Raises :class:`BuildFailed` for what the runner could not load."""
        faults = [str(fault) for fault in self.check(folder) if fault.severity == "error"]
        if faults:
            raise BuildFailed("; ".join(faults), hint="'rlp agent lint' lists every mistake")
        return self.sources(folder)

    def native_test(self, folder: Path, work: Path) -> list[str] | None:
        """``node --test`` on ``tests/*.test.js``, where there are any. Without Node it says so and passes."""
        tests = sorted(path.as_posix() for path in (folder / "tests").glob("*.test.js"))
        if not tests:
            return None
        node = find("node")
        if node is None:
            words = f"tests/*.test.js were not run: there is no node ({INSTALL_NODE})"
            return [sys.executable, "-c", f"print({words!r})"]
        surroundings = {"NODE_PATH": str(shipped("sdk/js")), **self.built(folder, work)}
        pairs = [f"{name}={value}" for name, value in surroundings.items()]
        return [str(find("env") or "env"), *pairs, str(node), "--test", *tests]

    def built(self, folder: Path, work: Path) -> dict[str, str]:
        """What a test's process is told of compiled source: nothing, it is tested as it is."""
        return {}

    def sources(self, folder: Path) -> dict[str, bytes]:
        """The agent's own modules by path; its tests, and types alone, stay behind."""
        return {
            path: data
            for path, data in read_source(folder, self.leftovers).items()
            if path.endswith(self.suffixes) and not path.startswith("tests/") and not path.endswith(".d.ts")
        }

    def output(self, path: str) -> str:
        """Where a source file ends up in the bundle."""
        return path

    # --- checks -----------------------------------------------------------------------------------

    def _module_findings(self, path: str, text: str, files: Mapping[str, bytes]) -> Iterable[LintFinding]:
        outputs = {self.output(name) for name in files}
        for number, line in enumerate(text.splitlines(), 1):
            if _COMMENT.match(line):
                continue
            if path.endswith(".js") and _ESM.match(line):
                yield LintFinding(
                    file=path,
                    line=number,
                    what="import and export belong to ES modules; the runner loads CommonJS",
                    fix='write const { handler } = require("runloop") and exports.name = …, or TypeScript',
                )
            if _AWAIT.search(line):
                yield LintFinding(
                    file=path,
                    line=number,
                    what="await: nothing settles a promise in the sandbox",
                    fix="leave it out, host calls answer at once",
                    severity="warning",
                )
            for name in requires(line):
                if not _resolves(name, self.output(path), outputs):
                    yield LintFinding(
                        file=path,
                        line=number,
                        what=f"there is no module {name!r} in the sandbox",
                        fix='require "runloop" or "./a_file.js" of this folder; bundle what else you need',
                    )

    def _entrypoint(self, folder: Path, files: Mapping[str, bytes]) -> list[LintFinding]:
        try:
            manifest = parse_manifest((folder / "manifest.toml").read_bytes())
        except (OSError, RunloopError):
            return []  # the manifest's own findings say so
        if manifest.language != self.manifest_language:
            return []
        if manifest.entrypoint in {self.output(path) for path in files}:
            return []
        name = manifest.entrypoint.removesuffix(".js") + self.suffixes[0]
        what = f"the entrypoint {manifest.entrypoint!r} comes from no file of this folder"
        return [LintFinding(file="manifest.toml", what=what, fix=f"add {name}, or correct 'entrypoint'")]


def requires(line: str) -> list[str]:
    """What a line of source requires by name."""
    return [name for _, name in _REQUIRE.findall(line)]


def absences(path: str, data: bytes, modules: set[str]) -> list[str]:
    """In words: every module that the compiled one at ``path`` requires and that is not among ``modules``."""
    return [
        f"{path}: there is no module {name!r} in the sandbox"
        for line in data.decode(errors="replace").splitlines()
        for name in ([] if _COMMENT.match(line) else requires(line))
        if not _resolves(name, path, modules)
    ]


def _resolves(name: str, path: str, outputs: set[str]) -> bool:
    """Whether ``name``, required by the module ``path``, is there, as the runner looks for it."""
    if name == "runloop":
        return True
    if not name.startswith(("./", "../")):
        return False
    joined = os.path.normpath(PurePosixPath(path).parent / name)
    return bool({joined, f"{joined}.js", f"{joined}/index.js"} & outputs)
