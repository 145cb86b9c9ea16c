"""Builds agents written in TypeScript: ``tsc`` makes CommonJS of them, the shipped runner executes that.

Knows: how to call any tsc from 4.7 on so that equal sources give equal bytes, and how to tell the runner
which line of TypeScript each line of JavaScript came from. Does not know: bundles, or how source is executed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

from runloop.authoring.findings import LintFinding
from runloop.authoring.source import read_source
from runloop.authoring.toolchains import BuildFailed, Missing
from runloop.authoring.toolchains.compilers import SYSTEM_PATH, ask, find, run
from runloop.authoring.toolchains.javascript import INSTALL_NODE, JavaScriptToolchain, absences
from runloop.config import shipped

__all__ = ["TypeScriptToolchain", "line_list"]

INSTALL_TSC = "apt-get install node-typescript"  # or: npm install --global typescript
TYPES = "runloop.d.ts"

_OPTIONS = {
    "strict": True,
    "target": "es2022",
    "lib": ["es2022"],
    "module": "commonjs",
    "types": [],
    "rootDir": "src",
    "outDir": "out",
    "allowJs": True,
    "sourceMap": True,
    "newLine": "lf",
    "noEmitOnError": True,
    "esModuleInterop": True,
    "skipLibCheck": True,
    "declaration": False,
    "incremental": False,
    "forceConsistentCasingInFileNames": True,
}
"""All there is to say to tsc. An author's own tsconfig.json is for the editor: it changes no byte."""

_ERROR = re.compile(r"^(?:src/)?(?P<file>[^(\n]+)\((?P<line>\d+),\d+\): error (?P<what>TS\d+: .*)$")
_MAP_URL = re.compile(r"\n?//# sourceMappingURL=[^\n]*\n?\Z")
_DIGITS = {
    letter: at for at, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
}


class TypeScriptToolchain(JavaScriptToolchain):
    """Runs tsc; implements :class:`runloop.authoring.toolchains.Toolchain`."""

    language: ClassVar[str] = "ts"
    suffixes: ClassVar[tuple[str, ...]] = (".ts", ".js")

    def missing(self) -> list[Missing]:
        """The compiler, and Node, which executes it."""
        lacking = []
        if find("node") is None:
            lacking.append(Missing(what="node", install=INSTALL_NODE))
        if find("tsc") is None:
            lacking.append(Missing(what="the TypeScript compiler tsc", install=INSTALL_TSC))
        return lacking

    def versions(self) -> Mapping[str, str]:
        """The compiler's: another one may write other JavaScript."""
        compiler = find("tsc")
        found = re.search(r"\d+\.\d+\.\d+\S*", ask(compiler, "--version")) if compiler else None
        return {"tsc": found[0] if found else "unknown"}

    def build(self, folder: Path, work: Path) -> dict[str, bytes]:
        """``agent.ts`` becomes ``agent.js``. Raises :class:`BuildFailed` with tsc's own lines."""
        faults = [str(fault) for fault in self.check(folder) if fault.severity == "error"]
        if faults:
            raise BuildFailed("; ".join(faults), hint="'rlp agent lint' lists every mistake")
        files = self.sources(folder) | self._types(folder)
        for path, data in files.items():
            target = work / "src" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        (work / "src" / TYPES).write_bytes((shipped("sdk/js") / "runloop" / TYPES).read_bytes())
        project = {"compilerOptions": _OPTIONS, "files": sorted(f"src/{path}" for path in {*files, TYPES})}
        (work / "tsconfig.json").write_text(json.dumps(project))
        _compile(work)
        out = work / "out"
        made = {
            path.relative_to(out).as_posix(): _with_lines(path, work) for path in sorted(out.rglob("*.js"))
        }
        # Types of a package may be declared, or lie about in a folder above: the package is still not there.
        if absent := [fault for path, data in made.items() for fault in absences(path, data, set(made))]:
            raise BuildFailed("\n".join(absent), hint="bundle what you need into files of this folder")
        return made

    def check(self, folder: Path) -> list[LintFinding]:
        """As for JavaScript; and two files that would become one."""
        findings = super().check(folder)
        files = self.sources(folder)
        twice = [path for path in files if path.endswith(".js") and path.removesuffix(".js") + ".ts" in files]
        return findings + [
            LintFinding(
                file=path,
                what=f"{path.removesuffix('.js')}.ts is compiled to this very file",
                fix="remove one of them; tsc's output needs no place in the folder",
            )
            for path in twice
        ]

    def output(self, path: str) -> str:
        """``a.ts`` becomes ``a.js``."""
        return path.removesuffix(".ts") + ".js" if path.endswith(".ts") else path

    def built(self, folder: Path, work: Path) -> dict[str, str]:
        """Compiles into ``work``; a test's ``loadAgent`` reads the result there."""
        if lacking := self.missing():
            raise BuildFailed(
                f"the tests need {', '.join(item.what for item in lacking)}", hint=lacking[0].install
            )
        scratch, made = work / "compile", work / "built"
        scratch.mkdir()
        for path, data in self.build(folder, scratch).items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_bytes(data)
        return {"RUNLOOP_BUILT": str(made)}

    def _types(self, folder: Path) -> dict[str, bytes]:
        """The author's own declarations; the SDK's come from the SDK, whatever copy an editor was given."""
        return {
            path: data
            for path, data in read_source(folder, self.leftovers).items()
            if path.endswith(".d.ts") and not path.startswith("tests/") and PurePosixPath(path).name != TYPES
        }


def _compile(work: Path) -> None:
    compiler, node = find("tsc"), find("node")
    if compiler is None or node is None:
        raise BuildFailed("there is no tsc", hint=INSTALL_TSC)
    # Node is found by the compiler's first line, on a path that names nothing else of this machine.
    path = os.pathsep.join((str(node.parent), SYSTEM_PATH))
    argv: list[str | Path] = [compiler, "--project", "tsconfig.json", "--pretty", "false"]
    try:
        run(argv, cwd=work, work=work, hide={}, environ={"PATH": path})
    except BuildFailed as error:
        raise BuildFailed(_words(error.message), hint="correct the source; nothing was built") from error


def _words(output: str) -> str:
    """tsc's complaints with the author's own file names; all it said where none is understood."""
    found = [
        f"{match['file']}:{match['line']}: {match['what']}"
        for line in output.splitlines()
        if (match := _ERROR.match(line))
    ]
    return "\n".join(found) if found else output.strip()[:4_000] or "tsc failed and said nothing"


# --- which line came from where ---------------------------------------------------------------------


def _with_lines(compiled: Path, work: Path) -> bytes:
    """The module, its source map replaced by the runner's short form of one."""
    text = _MAP_URL.sub("\n", compiled.read_text(encoding="utf-8"))
    beside = compiled.with_name(compiled.name + ".map")
    if not beside.is_file():
        return text.encode()
    mapped = json.loads(beside.read_text(encoding="utf-8"))
    source = os.path.normpath(compiled.parent / mapped["sources"][0])
    origin = Path(source).relative_to(os.path.normpath(work / "src")).as_posix()
    if origin.endswith(".js"):
        return text.encode()  # tsc copies its lines
    return f"{text}//# runloop-lines={origin}:{line_list(mapped['mappings'])}\n".encode()


def line_list(mappings: str) -> str:
    """Of a source map's ``mappings``: for every line, how far its origin is from that of the line before.

    Counted from 1; a line that came from nowhere counts as the one before it.
    """
    steps, before, source_line = [], 0, 0
    for line in mappings.split(";"):
        origins = []
        for segment in line.split(",") if line else ():
            fields = list(_decoded(segment))
            if len(fields) >= 4:
                source_line += fields[2]
                origins.append(source_line + 1)
        at = origins[0] if origins else before
        steps.append(at - before)
        before = at
    return ",".join(map(str, steps))


def _decoded(segment: str) -> Iterator[int]:
    """The numbers of one segment: base 64, least digits first, the lowest bit is the sign."""
    value = shift = 0
    for letter in segment:
        digit = _DIGITS[letter]
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            yield -(value >> 1) if value & 1 else value >> 1
            value = shift = 0
