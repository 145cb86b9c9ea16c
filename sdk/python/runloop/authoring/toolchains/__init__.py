"""What turns the source of one language into the content of a bundle, and which languages there are.

Knows: the protocol every language implements, and the list of them. Does not know: any language (one module
each beside this one), bundles, or daemons. A toolchain is imported when it is asked for.
"""

from __future__ import annotations

import importlib
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

from runloop import toml
from runloop.authoring.findings import LintFinding
from runloop.bundle.manifest import Language
from runloop.errors import FailedError, UsageError

__all__ = [
    "BUILD_FILE",
    "LANGUAGES",
    "BuildFailed",
    "Missing",
    "OpUse",
    "Toolchain",
    "ToolchainMissing",
    "build_settings",
    "toolchain",
    "toolchain_of",
]

BUILD_FILE = "build.toml"
"""Says in which language an agent is written: ``language = "rust"``; further keys are the toolchain's own.

It stays with the source and is never part of a bundle. Without it an agent is Python.
"""

LANGUAGES: dict[str, str] = {
    "python": "runloop.authoring.toolchains.python:PythonToolchain",
    "rust": "runloop.authoring.toolchains.rust:RustToolchain",
    "ts": "runloop.authoring.toolchains.typescript:TypeScriptToolchain",
    "js": "runloop.authoring.toolchains.javascript:JavaScriptToolchain",
    "c": "runloop.authoring.toolchains.c:CToolchain",
}
"""The word after ``--lang`` -> the class that builds it."""

MAX_BUILD_FILE_BYTES = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """A tool this machine lacks."""

    what: str
    """Such as ``rustc 1.70 with the target wasm32-unknown-unknown``."""
    install: str
    """The exact line to type, naming the Debian package, wheel or npm package."""

    def __str__(self) -> str:
        return f"{self.what}: {self.install}"


@dataclass(frozen=True, kw_only=True, slots=True)
class OpUse:
    """A host call that the source makes."""

    op: str
    file: str
    """Relative to the agent's folder."""
    line: int


class ToolchainMissing(UsageError):
    """Nothing can be built here before these are installed."""

    code: ClassVar[str] = "toolchain.missing"

    def __init__(self, language: str, missing: list[Missing]) -> None:
        self.missing = missing
        super().__init__(
            f"building {language} needs {'; '.join(item.what for item in missing)}",
            hint=" && ".join(dict.fromkeys(item.install for item in missing)),
            missing=[{"what": item.what, "install": item.install} for item in missing],
        )


class BuildFailed(FailedError):
    """The compiler said no; its own words are in the message."""

    code: ClassVar[str] = "agent.build"


class Toolchain(Protocol):
    """Builds agents of one language. Stateless; made without arguments; must not touch the network.

    ``folder`` is the agent's source, which only the author's own tools may write to.
    """

    language: ClassVar[str]
    """A key of :data:`LANGUAGES`."""
    manifest_language: ClassVar[Language]
    """What ``manifest.toml`` of such an agent says under ``language``."""
    leftovers: ClassVar[frozenset[str]]
    """Names of directories that the language's tools leave in a folder (``target``, ``node_modules``). They
    are not source: nothing in them is read, bundled or named in the provenance."""

    def missing(self) -> list[Missing]:
        """What must be installed first; empty when :meth:`build` can run. Fast: looks, compiles nothing."""
        ...

    def versions(self) -> Mapping[str, str]:
        """Tools that determine the bytes, for the provenance: ``{"rustc": "1.96.0"}``. No paths, no times."""
        ...

    def check(self, folder: Path) -> list[LintFinding]:
        """What is wrong with the source, as far as one can tell without the tools (syntax, entrypoint)."""
        ...

    def uses(self, folder: Path) -> list[OpUse]:
        """Every host call that is seen in the source, in order of file and line."""
        ...

    def build(self, folder: Path, work: Path) -> dict[str, bytes]:
        """Bundle content beyond the declarative files: path in the bundle -> bytes.

        ``work`` is an empty scratch directory that is removed afterwards; everything a tool writes goes
        there. Equal sources give equal bytes, wherever ``folder`` and ``work`` lie and whatever TZ, LANG,
        umask, PYTHONHASHSEED, HOME, file times and CPU count are: pass tools a clean environment and the
        flags that keep paths out. Raises :class:`BuildFailed` with the compiler's own lines.
        """
        ...

    def native_test(self, folder: Path, work: Path) -> list[str] | None:
        """The argv of the author's own unit tests (run in ``folder``; exit 0 = passed); None without any.

        They run against the language's fake host, and where it can they also run ``tests/cases.toml``.
        Temporary output belongs in ``work``.
        """
        ...


def toolchain(language: str) -> Toolchain:
    """The toolchain of a language; raises :class:`UsageError` for one there is not."""
    where = LANGUAGES.get(language) if isinstance(language, str) else None
    if where is None:
        raise UsageError(
            f"there is no language {language!r}", hint=f"known: {', '.join(LANGUAGES)}", code="agent.language"
        )
    module, _, name = where.partition(":")
    made: Toolchain = getattr(importlib.import_module(module), name)()
    return made


def build_settings(folder: Path) -> dict[str, Any]:
    """``build.toml`` of a folder; empty without one. Raises :class:`UsageError` when it is not TOML."""
    path = folder / BUILD_FILE
    try:
        facts = path.lstat()
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_BUILD_FILE_BYTES:
            raise UsageError(
                f"{BUILD_FILE} is no small plain file", hint="correct it", code="agent.build_file"
            )
        return toml.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            f"{BUILD_FILE} cannot be read: {error}", hint="correct it", code="agent.build_file"
        ) from error


def toolchain_of(folder: Path) -> Toolchain:
    """The toolchain of an agent's folder, as its ``build.toml`` says."""
    return toolchain(cast(str, build_settings(folder).get("language", "python")))
