"""Agents in C: clang makes a core module of one source file, ``runloop.authoring.wrap`` a component.

Knows: which clang and linker will do (Debian's, or the one inside the ``ziglang`` wheel), the flags that keep
this machine out of the bytes. Does not know: bundles, or what the file does. There is no C library: the SDK's
headers are the whole of it. ``build.toml`` may name the file: ``source = "agent.c"``.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from runloop.authoring.findings import LintFinding
from runloop.authoring.source import op_literals, read_source
from runloop.authoring.toolchains import BuildFailed, Missing, OpUse, ToolchainMissing, build_settings
from runloop.authoring.toolchains.compilers import LLVM_VERSIONS, ask, find, run, version_in
from runloop.authoring.wrap import wrap
from runloop.bundle.manifest import Language
from runloop.config import shipped
from runloop.errors import UsageError

__all__ = ["FLAGS", "CToolchain", "compile_module"]

FLAGS = (
    "-Os",
    "-std=c17",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wdate-time",  # __DATE__ would give other bytes every day
    "-ffreestanding",
    "-fno-builtin",
    "-fno-ident",
    "-nostdlib",
    "-Wl,--no-entry",
    "-Wl,--strip-all",
    "-Wl,--fatal-warnings",
    "-Wl,-z,stack-size=131072",
)
TEST_FILE = "tests/test_agent.c"
TEST_FLAGS = (
    *("-std=c17", "-O1", "-g", "-Wall", "-Wextra", "-Werror"),
    *("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"),
)

_FUNCTIONS = {
    "rl_time_now": "time.now",
    "rl_random_bytes": "random.bytes",
    "rl_log": "log.write",
    "rl_progress": "progress",
    "rl_kb_search": "kb.search",
    "rl_kb_query": "kb.query",
    "rl_kb_read": "kb.read",
    "rl_kb_why": "kb.why",
    "rl_kb_propose": "kb.propose",
    "rl_memory_get": "memory.get",
    "rl_memory_put": "memory.put",
    "rl_put_text": "artifact.put",
    "rl_put_bytes": "artifact.put",
    "rl_blob_read": "blob.read",
    "rl_complete": "model.complete",
    "rl_next_message": "msg.next",
    "rl_fetch": "http.fetch",
    "rl_fs_read": "fs.read",
    "rl_fs_write": "fs.write",
    "rl_fs_list": "fs.list",
    "rl_fs_stat": "fs.stat",
    "rl_list_tools": "tool.list",
    "rl_call_tool": "tool.call",
    "rl_send_mail": "mail.send",
}
"""Functions of runloop_host.h -> the host call; a test compares them with the header."""

_HOSTED = re.compile(
    r"#\s*include\s*<(assert|ctype|errno|locale|math|pthread|setjmp|signal|stdio|stdlib|string|threads|time|unistd|wchar)\.h>"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tools:
    """A compiler, as the beginning of an argv."""

    compiler: tuple[str | Path, ...]
    linker: Path | None
    """None: the compiler brings its own."""
    name: str
    version: str

    @property
    def target(self) -> tuple[str, ...]:
        """How this compiler is told to make a module for no operating system."""
        if self.linker is None:
            return ("--target=wasm32-freestanding", "-s")
        return ("--target=wasm32-unknown-unknown", f"-fuse-ld={self.linker}")


class CToolchain:
    """Builds single C files; implements :class:`runloop.authoring.toolchains.Toolchain`."""

    language: ClassVar[str] = "c"
    manifest_language: ClassVar[Language] = "component"
    leftovers: ClassVar[frozenset[str]] = frozenset({"build", "target"})

    def missing(self) -> list[Missing]:
        """A clang that can write WebAssembly, and its linker."""
        made = _tools()
        return [] if isinstance(made, _Tools) else made

    def versions(self) -> Mapping[str, str]:
        """The compiler and, where it is another program, the linker."""
        made = _needed()
        versions = {made.name: made.version}
        if made.linker is not None:
            versions["wasm-ld"] = version_in(ask(made.linker, "--version"))
        return versions

    def check(self, folder: Path) -> list[LintFinding]:
        """The source file is there, and includes nothing of a C library that is not there."""
        files = read_source(folder, self.leftovers)
        try:
            source = _source(folder)
        except UsageError as error:
            return [LintFinding(file="build.toml", what=error.message, fix=error.hint or "correct it")]
        if source not in files:
            what = f"there is no {source}"
            return [
                LintFinding(file=source, what=what, fix="add it, or name another in build.toml: source = …")
            ]
        return [
            LintFinding(
                file=path,
                line=number,
                what=f"<{found.group(1)}.h> belongs to a C library, and the sandbox has none",
                fix='use the functions of runloop.h and json.h; tests may include it (they lie in "tests/")',
            )
            for path, data in files.items()
            if path.endswith((".c", ".h")) and not path.startswith("tests/")
            for number, line in enumerate(data.decode(errors="replace").splitlines(), 1)
            if (found := _HOSTED.search(line))
        ]

    def uses(self, folder: Path) -> list[OpUse]:
        """``rl_kb_search(…)`` and the like, and op names in quotes."""
        names = {f"{function}(": op for function, op in _FUNCTIONS.items()}
        return op_literals(folder, (".c", ".h"), self.leftovers, names)

    def build(self, folder: Path, work: Path) -> dict[str, bytes]:
        """One component, ``agent.wasm``. Raises :class:`BuildFailed`, :class:`ToolchainMissing`."""
        source = _source(folder)
        if not (folder / source).is_file():
            raise BuildFailed(f"there is no {source}", hint="add it, or name another in build.toml")
        return {"agent.wasm": wrap(compile_module(folder, source, work))}

    def native_test(self, folder: Path, work: Path) -> list[str] | None:
        """The program made of ``tests/test_agent.c``; None without one.

        Raises :class:`BuildFailed` when the compiler refuses it, :class:`ToolchainMissing`.
        """
        if not (folder / TEST_FILE).is_file():
            return None
        compiler = _native_compiler()
        program = work / "test_agent"
        run(
            [*compiler, *TEST_FLAGS, "-I", shipped("sdk/c"), "-I", ".", "-o", program, TEST_FILE],
            cwd=folder.resolve(),
            work=work,
            hide={folder.resolve(): "", shipped("sdk/c"): "sdk/c/"},
        )
        return [str(program)]


def compile_module(folder: Path, source: str, work: Path) -> bytes:
    """The core module of one C file. Raises :class:`BuildFailed`, :class:`ToolchainMissing`."""
    tools = _needed()
    folder, headers, module = folder.resolve(), shipped("sdk/c").resolve(), work / "module.wasm"
    run(
        [
            *(*tools.compiler, *tools.target, *FLAGS),
            *(f"-ffile-prefix-map={folder}=/build/agent", f"-ffile-prefix-map={headers}=/build/runloop"),
            *("-I", headers, "-o", module, source),
        ],
        cwd=folder,
        work=work,
        hide={folder: "", headers: "sdk/c/", work: ""},
    )
    return module.read_bytes()


def _source(folder: Path) -> str:
    """The agent's one translation unit; raises :class:`UsageError` for a name that leaves the folder."""
    source = build_settings(folder).get("source", "agent.c")
    fine = isinstance(source, str) and source.endswith(".c") and not source.startswith(("-", "/"))
    if not fine or ".." in PurePosixPath(source).parts:
        raise UsageError(
            f"build.toml: source = {source!r} is no C file of this folder",
            hint='write source = "agent.c"',
            code="agent.build_file",
        )
    return str(source)


# --- tools ----------------------------------------------------------------------------------------


def _needed() -> _Tools:
    made = _tools()
    if isinstance(made, _Tools):
        return made
    raise ToolchainMissing("c", made)


def _tools() -> _Tools | list[Missing]:
    """Debian's clang with a linker of the same age, or zig's."""
    numbered = [("clang", "wasm-ld"), *((f"clang-{n}", f"wasm-ld-{n}") for n in LLVM_VERSIONS)]
    for names in numbered:
        compiler, linker = find(names[0]), find(names[1])
        if compiler is not None and linker is not None:
            version = version_in(ask(compiler, "--version"))
            return _Tools(compiler=(compiler,), linker=linker, name="clang", version=version)
    if importlib.util.find_spec("ziglang") is not None:
        zig = (sys.executable, "-m", "ziglang")
        return _Tools(
            compiler=(*zig, "cc"), linker=None, name="zig", version=version_in(ask(*zig, "version"))
        )
    return [Missing(what="clang with its linker for WebAssembly", install="apt-get install clang lld")]


def _native_compiler() -> tuple[str | Path, ...]:
    """A compiler for this machine; raises :class:`ToolchainMissing`."""
    found = find("cc", "gcc", "clang", *(f"clang-{number}" for number in LLVM_VERSIONS))
    if found is not None:
        return (found,)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc")
    raise ToolchainMissing(
        "c", [Missing(what="a C compiler for this machine", install="apt-get install gcc libc6-dev")]
    )
