"""Agents in Rust: cargo makes a core module of the agent's crate, ``runloop.authoring.wrap`` a component.

Knows: which rustc, cargo and linker will do, the flags that keep this machine out of the bytes, and how a
crate finds the SDK and its vendored dependencies without a network. Does not know: bundles, or what the crate
does. Works with Debian 12's rustc 1.63 and later ones that have ``std`` for wasm32-unknown-unknown.
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from runloop import toml
from runloop.authoring.findings import LintFinding
from runloop.authoring.source import op_literals, read_source
from runloop.authoring.toolchains import BuildFailed, Missing, OpUse, ToolchainMissing
from runloop.authoring.toolchains.compilers import LLVM_VERSIONS, ask, find, run, version_in
from runloop.authoring.wrap import wrap
from runloop.bundle.manifest import Language
from runloop.config import shipped

__all__ = ["TARGET", "RustToolchain"]

TARGET = "wasm32-unknown-unknown"
MINIMUM = (1, 63)

_DEBIAN = "apt-get install rustc cargo libstd-rust-dev-wasm32 lld"

DEBIANS_OWN = Path("/usr/bin/rustc")
"""Looked at when another rustc, first on the caller's PATH, lacks the target."""

_METHODS = {
    "now_ms": "time.now",
    "random_bytes": "random.bytes",
    "log": "log.write",
    "log_with": "log.write",
    "progress": "progress",
    "kb_search": "kb.search",
    "kb_query": "kb.query",
    "kb_read": "kb.read",
    "kb_why": "kb.why",
    "kb_propose": "kb.propose",
    "memory_get": "memory.get",
    "memory_put": "memory.put",
    "put_text": "artifact.put",
    "put_bytes": "artifact.put",
    "blob_read": "blob.read",
    "complete": "model.complete",
    "complete_stream": "model.complete",
    "next_message": "msg.next",
    "fetch": "http.fetch",
    "fs_read": "fs.read",
    "fs_write": "fs.write",
    "fs_list": "fs.list",
    "fs_stat": "fs.stat",
    "tools": "tool.list",
    "call_tool": "tool.call",
    "send_mail": "mail.send",
}
"""Methods of the SDK's ``Host`` -> the host call; a test compares them with its source."""
_GENERIC = frozenset({"log", "progress", "complete", "fetch", "tools"})
"""Names that other types have too: they count on something called ``host`` only."""

_ABSENT = re.compile(
    r"\b(SystemTime::now|Instant::now|thread::(?:spawn|sleep)|std::(?:fs|net|process|env)::|println!|eprintln!)"
)
"""What compiles for the target and then panics, fails or vanishes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tools:
    """Programs that fit each other."""

    rustc: Path
    cargo: Path
    rustdoc: Path
    linker: Path | None
    """None: rustc brings its own."""
    version: str


class RustToolchain:
    """Builds crates; implements :class:`runloop.authoring.toolchains.Toolchain`."""

    language: ClassVar[str] = "rust"
    manifest_language: ClassVar[Language] = "component"
    leftovers: ClassVar[frozenset[str]] = frozenset({"target"})

    def missing(self) -> list[Missing]:
        """A rustc that has the target, its cargo, and a linker for WebAssembly."""
        made = _tools()
        return [] if isinstance(made, _Tools) else made

    def versions(self) -> Mapping[str, str]:
        """rustc decides; the linker is named where it is not rustc's own."""
        made = _needed()
        versions = {"rustc": made.version}
        if made.linker is not None:
            versions["wasm-ld"] = version_in(ask(made.linker, "--version"))
        return versions

    def check(self, folder: Path) -> list[LintFinding]:
        """The crate's shape, its dependencies, and calls into an operating system that is not there."""
        return [*_crate_findings(folder), *_absent_findings(folder, self.leftovers)]

    def uses(self, folder: Path) -> list[OpUse]:
        """``.kb_search(…)`` and the like, and op names in quotes."""
        names = {f"{'host' if name in _GENERIC else ''}.{name}(": op for name, op in _METHODS.items()}
        found = op_literals(folder, (".rs",), self.leftovers, names)
        return [use for use in found if not use.file.startswith("vendor/")]

    def build(self, folder: Path, work: Path) -> dict[str, bytes]:
        """One component, ``agent.wasm``. Raises :class:`BuildFailed`, :class:`ToolchainMissing`."""
        tools = _needed()
        _refuse_foreign_settings(work)
        crate = _copied(folder, work, self.leftovers)
        target = work / "target"
        run(
            [
                *(tools.cargo, "build", "--release", "--lib", "--offline", "--quiet"),
                *("--target", TARGET, "--target-dir", target),
                *_configured(work),
            ],
            cwd=crate,
            work=work,
            hide={crate: "", work: ""},
            environ=_surroundings(tools, work),
        )
        made = sorted((target / TARGET / "release").glob("*.wasm"))
        if len(made) != 1:
            raise BuildFailed(
                f"cargo made {len(made)} WebAssembly modules, not one",
                hint='Cargo.toml needs [lib] crate-type = ["cdylib", "rlib"]',
            )
        return {"agent.wasm": wrap(made[0].read_bytes())}

    def native_test(self, folder: Path, work: Path) -> list[str] | None:
        """``cargo test`` on a copy, so that nothing is written beside the source. None without any test."""
        files = read_source(folder, self.leftovers)
        tested = (path.endswith(".rs") and b"#[test]" in data for path, data in files.items())
        if not any(tested):
            return None
        tools = _needed()
        crate = _copied(folder, work, self.leftovers)
        return [
            str(word)
            for word in (
                *(tools.cargo, "test", "--offline", "--quiet"),
                *("--manifest-path", crate / "Cargo.toml", "--target-dir", work / "target"),
                *_configured(work),
                *("--config", f"build.rustc={toml.value(str(tools.rustc))}"),
                *("--config", f"build.rustdoc={toml.value(str(tools.rustdoc))}"),
            )
        ]


# --- tools ----------------------------------------------------------------------------------------


def _needed() -> _Tools:
    made = _tools()
    if isinstance(made, _Tools):
        return made
    raise ToolchainMissing("rust", made)


def _tools() -> _Tools | list[Missing]:
    """The first rustc that can build for the target: the caller's own, then Debian's."""
    found = [path for path in (find("rustc"), DEBIANS_OWN) if path is not None and path.is_file()]
    lacking = [Missing(what=f"rustc and cargo with the target {TARGET}", install=_DEBIAN)]
    for rustc in dict.fromkeys(found):
        made = _with(rustc)
        if isinstance(made, _Tools):
            return made
        if made:
            lacking = made
    return lacking


def _with(rustc: Path) -> _Tools | list[Missing]:
    told = ask(rustc, "--print", "sysroot")
    if not told:
        return []
    sysroot = Path(told)
    real = sysroot / "bin" / "rustc"  # behind rustup's proxy, which would need its owner's home
    if not real.is_file():
        real = rustc
    version = version_in(ask(real, "--version"))
    if tuple(map(int, version.split(".")[:2])) < MINIMUM:
        return [Missing(what="rustc 1.63 or later", install=_DEBIAN)]
    if not list((sysroot / "lib" / "rustlib" / TARGET / "lib").glob("libstd-*.rlib")):
        rustup = "rustup" in told
        install = f"rustup target add {TARGET}" if rustup else "apt-get install libstd-rust-dev-wasm32"
        return [Missing(what=f"the target {TARGET} of rustc {version}", install=install)]
    beside = real.with_name("cargo")
    cargo = beside if beside.is_file() else find("cargo")
    if cargo is None:
        return [Missing(what="cargo", install="apt-get install cargo")]
    own = list((sysroot / "lib" / "rustlib").glob("*/bin/rust-lld"))
    linker = None if own else find("wasm-ld", *(f"wasm-ld-{number}" for number in LLVM_VERSIONS))
    if linker is None and not own:
        return [Missing(what="a linker for WebAssembly", install="apt-get install lld")]
    return _Tools(rustc=real, cargo=cargo, rustdoc=real.with_name("rustdoc"), linker=linker, version=version)


# --- building -------------------------------------------------------------------------------------


def _refuse_foreign_settings(work: Path) -> None:
    """Cargo obeys ``.cargo/config.toml`` in every folder above ``work``, and others may write to /tmp."""
    for above in work.resolve().parents:
        for name in ("config.toml", "config"):
            if os.path.lexists(above / ".cargo" / name):
                raise BuildFailed(
                    f"cargo would obey {above / '.cargo' / name}, which lies above the folder it builds in",
                    hint="remove that file, or set TMPDIR to a folder that has none above it",
                )


def _copied(folder: Path, work: Path, leftovers: frozenset[str]) -> Path:
    """A copy of the crate in ``work``, beside a directory source that holds the SDK and what is vendored."""
    crate, vendor = work / "agent", work / "vendor"
    _write(crate, {path: data for path, data in read_source(folder, leftovers).items() if _wanted(path)})
    sdk = shipped("sdk/rust")
    _write(
        vendor / "runloop",
        {path: data for path, data in read_source(sdk, leftovers).items() if _wanted(path)},
    )
    (vendor / "runloop" / ".cargo-checksum.json").write_text('{"files":{}}')
    for dependency in sorted((folder / "vendor").iterdir()) if (folder / "vendor").is_dir() else ():
        if dependency.is_dir() and dependency.name != "runloop":
            shutil.copytree(dependency, vendor / dependency.name, symlinks=True)
    return crate


def _wanted(path: str) -> bool:
    return not path.startswith("vendor/") and path != "Cargo.lock"


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _configured(work: Path) -> list[str]:
    """All crates come from the directory source: cargo then names none of them by where it lies."""
    return [
        *("--config", 'source.crates-io.replace-with="vendored"'),
        *("--config", f"source.vendored.directory={toml.value(str(work / 'vendor'))}"),
    ]


def _surroundings(tools: _Tools, work: Path) -> dict[str, str]:
    """What makes equal bytes of equal sources: no paths, no symbols, one order of code."""
    linker = {} if tools.linker is None else {"CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER": str(tools.linker)}
    return {
        "RUSTC": str(tools.rustc),
        "CARGO_HOME": str(work / "cargo"),
        "CARGO_NET_OFFLINE": "true",
        "CARGO_INCREMENTAL": "0",
        "CARGO_TERM_COLOR": "never",
        "CARGO_PROFILE_RELEASE_PANIC": "abort",
        "CARGO_PROFILE_RELEASE_STRIP": "true",
        "CARGO_PROFILE_RELEASE_DEBUG": "false",
        "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "1",
        "CARGO_ENCODED_RUSTFLAGS": f"--remap-path-prefix={work}=/build",
        **linker,
    }


# --- linting --------------------------------------------------------------------------------------


def _crate_findings(folder: Path) -> Iterator[LintFinding]:
    try:
        crate = toml.loads((folder / "Cargo.toml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        yield LintFinding(file="Cargo.toml", what="there is none", fix="add the crate's Cargo.toml")
        return
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        yield LintFinding(file="Cargo.toml", what=f"cannot be read: {error}", fix="correct it")
        return
    library = crate.get("lib", {})
    if not isinstance(library, dict) or "cdylib" not in library.get("crate-type", ()):
        yield LintFinding(
            file="Cargo.toml",
            what="the crate makes no WebAssembly module",
            fix='add [lib] crate-type = ["cdylib", "rlib"]',
        )
        library = {}
    source = folder / str(library.get("path", "src/lib.rs"))
    if not source.is_file():
        yield LintFinding(file="src/lib.rs", what="there is none", fix="put the agent's code there")
    yield from _dependency_findings(folder, crate.get("dependencies", {}))


def _dependency_findings(folder: Path, dependencies: Any) -> Iterator[LintFinding]:
    for name, wish in dependencies.items() if isinstance(dependencies, dict) else ():
        crate = str(wish.get("package", name)) if isinstance(wish, dict) else str(name)
        foreign = isinstance(wish, dict) and ({"git", "path"} & set(wish)) and crate == "runloop"
        if foreign:
            yield LintFinding(
                file="Cargo.toml",
                what="the SDK is taken from a place of this machine or of the network",
                fix='write runloop = "0.1"; rlp brings the SDK that fits it',
            )
        elif isinstance(wish, dict) and "git" in wish:
            what, fix = (
                f"{name} comes from a network, and builds have none",
                "run 'cargo vendor' and name a version",
            )
            yield LintFinding(file="Cargo.toml", what=what, fix=fix)
        elif (
            crate != "runloop"
            and not (isinstance(wish, dict) and "path" in wish)
            and not _vendored(folder, crate)
        ):
            what, fix = (
                f"{name} is not in the folder vendor, and builds have no network",
                "run 'cargo vendor'",
            )
            yield LintFinding(file="Cargo.toml", what=what, fix=fix)


def _vendored(folder: Path, crate: str) -> bool:
    return any((folder / "vendor").glob(f"{crate}/Cargo.toml")) or any(
        (folder / "vendor").glob(f"{crate}-[0-9]*/Cargo.toml")
    )


def _absent_findings(folder: Path, leftovers: frozenset[str]) -> Iterator[LintFinding]:
    for path, data in read_source(folder, leftovers).items():
        if not (path.endswith(".rs") and path.startswith("src/")):
            continue
        for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
            found = _ABSENT.search(line.partition("//")[0])
            if found:
                yield LintFinding(
                    file=path,
                    line=number,
                    what=f"{found.group(1)} does not work in the sandbox",
                    fix="an agent has no clock, threads, files or output of its own; ask the host",
                    severity="warning",
                )
