"""Agents whose whole source is one file: config agents, and plugins of the older kind.

Knows: which files these are, and the bundle each stands for. Does not know: their formats
(``bundle.config_agent``, ``bundle.plugin``), or how a bundle is packed (``build``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runloop.authoring.findings import LintError, LintFinding
from runloop.bundle.config_agent import ConfigAgentError, expand, is_config_agent, read_source
from runloop.bundle.digest import bundle_digest
from runloop.bundle.manifest import Manifest, parse_manifest
from runloop.bundle.plugin import PLUGIN_FILE, PluginError, import_plugin
from runloop.errors import NotFoundError, UsageError

__all__ = ["SingleFile", "check_single", "is_single", "read_single"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SingleFile:
    """The bundle that one file stands for."""

    manifest: Manifest
    language: str
    """``config`` or ``plugin``."""
    files: Mapping[str, bytes]
    source_digest: str
    left_behind: tuple[str, ...] = ()
    """Of a plugin: what could not be carried over, a sentence each."""


def is_single(path: Path) -> bool:
    """Whether ``path`` is meant as such a file: anything that is no folder."""
    return not path.is_dir() and (path.is_file() or bool(path.suffix))


def read_single(path: Path) -> SingleFile:
    """The bundle of the file at ``path``.

    Raises :class:`LintError` with every mistake, :class:`NotFoundError`, :class:`BundleError` for what is no
    plain file, and :class:`UsageError` for a file of another kind.
    """
    try:
        if is_config_agent(path):
            return _config_agent(path)
        if path.name.endswith(PLUGIN_FILE):
            return _plugin(path)
    except ConfigAgentError as error:
        raise LintError(
            str(path),
            [
                LintFinding(file=path.name, line=finding.line, what=finding.what, fix=finding.fix)
                for finding in error.findings
            ],
        ) from error
    except PluginError as error:
        parts = (finding.partition("; ") for finding in error.findings)
        raise LintError(
            str(path),
            [LintFinding(file=path.name, what=what, fix=fix or "correct it") for what, _, fix in parts],
        ) from error
    raise UsageError(
        f"{path} is no agent",
        hint=f"name a folder, a config agent (NAME.agent.md, NAME.agent.toml) or a {PLUGIN_FILE}",
        code="agent.source",
    )


def check_single(path: Path) -> list[LintFinding]:
    """What is wrong with the file; empty when it can become a bundle."""
    try:
        read_single(path)
    except LintError as error:
        return error.findings
    return []


def _config_agent(path: Path) -> SingleFile:
    data = read_source(path)
    files = expand(data, origin=str(path))
    return SingleFile(
        manifest=parse_manifest(files["manifest.toml"]),
        language="config",
        files=files,
        source_digest=bundle_digest({path.name: data}),
    )


def _plugin(path: Path) -> SingleFile:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}", code="bundle.missing") from error
    made = import_plugin(data, origin=str(path))
    return SingleFile(
        manifest=made.manifest,
        language="plugin",
        files=made.files,
        source_digest=made.source_digest,
        left_behind=made.left_behind,
    )
