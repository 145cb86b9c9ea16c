"""From a folder to the bytes of a bundle: the same source gives the same bytes everywhere.

Knows: the order (lint, compile, complete the tools, inventory, pack) and which files a bundle gets. Does not
know: any compiler (the toolchains), formats (``runloop.bundle``), or the daemon: what an agent says of its
tools is asked in the sandbox by whoever calls :meth:`Draft.completed`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runloop import __version__
from runloop.authoring.findings import LintError, LintFinding
from runloop.authoring.lint import Folder, declared, lint
from runloop.authoring.single import is_single, read_single
from runloop.authoring.source import read_source
from runloop.authoring.toolchains import BuildFailed, Toolchain, ToolchainMissing
from runloop.bundle.archive import archive_name
from runloop.bundle.digest import bundle_digest
from runloop.bundle.manifest import Manifest
from runloop.bundle.runner import RUNNERS, read_pin
from runloop.bundle.sbom import SBOM_FILE, sbom
from runloop.bundle.statement import BuildFacts, build_package
from runloop.bundle.tools import MAX_TOOLS, parse_tools
from runloop.config import shipped
from runloop.errors import FailedError

__all__ = ["Draft", "draft", "linted"]

_DESCRIBED = frozenset({"id", "description", "input_schema", "result_schema"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A built agent, all but its inventory and its statements."""

    manifest: Manifest
    language: str
    files: Mapping[str, bytes]
    facts: BuildFacts
    warnings: tuple[LintFinding, ...] = ()

    @property
    def archive_name(self) -> str:
        """``NAME-VERSION[-VARIANT].rlb``."""
        return archive_name(self.manifest)

    def completed(self, description: Any) -> Draft:
        """The draft with ``tools.json`` completed by what the agent answered to ``describe``.

        Schemas and descriptions come from the source; everything else an author wrote about a tool is kept.
        Raises :class:`BuildFailed` when the answer has another shape, or does not fit the files.
        """
        tools = _described(description)
        self._check_inputs(description)
        before = json.loads(self.files[self.manifest.tools])
        written = {entry["id"]: entry for entry in before["tools"]}
        for id, entry in written.items():
            if entry["transport"]["kind"] == "wasm" and id not in tools:
                raise BuildFailed(
                    f"{self.manifest.tools} has the tool {id}, and the source offers no such tool",
                    hint=f"the source offers: {', '.join(tools) or 'none'}",
                )
        if not tools:
            return self
        for id, tool in tools.items():
            own = written.get(id, {"transport": {"kind": "wasm", "tool": id}})
            if own["transport"]["kind"] != "wasm":
                raise BuildFailed(
                    f"the tool {id} is offered by the source and by {self.manifest.tools}",
                    hint="give one of them another id",
                )
            written[id] = {**own, **tool}
        made = {"version": 1, "tools": [written[id] for id in sorted(written)]}
        text = json.dumps(made, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
        parse_tools(text, origin=self.manifest.tools)
        return replace(self, files={**self.files, self.manifest.tools: text.encode()})

    def _check_inputs(self, description: Mapping[str, Any]) -> None:
        """A handler that names its ports names ports that exist."""
        inputs = description.get("inputs") or {}
        named = inputs.get("properties") if isinstance(inputs, dict) else None
        for name in named if isinstance(named, dict) else ():
            if name not in self.manifest.inputs:
                raise BuildFailed(
                    f"the handler takes {name!r}, and manifest.toml has no such input port",
                    hint=f"add [ports.in.{name}], or rename the parameter",
                )

    def package(self) -> bytes:
        """The unsigned ``.rlb``."""
        files = {**self.files, SBOM_FILE: sbom(self.manifest, self.files, self.facts)}
        return build_package(self.manifest, files, self.facts)


def linted(path: Path) -> tuple[Folder, tuple[LintFinding, ...]]:
    """The folder and its warnings; raises :class:`LintError` with everything that is wrong."""
    folder, findings = lint(path)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise LintError(str(path), findings)
    return folder, tuple(findings)


def draft(path: Path) -> Draft:
    """Check and compile the agent in ``path``; nothing is written there.

    Raises :class:`LintError`, :class:`ToolchainMissing`, :class:`BuildFailed`.
    """
    if is_single(path):
        return _single(path)
    folder, warnings = linted(path)
    made, manifest = folder.toolchain, folder.manifest
    assert made is not None and manifest is not None, "lint has no findings"
    missing = made.missing()
    if missing:
        raise ToolchainMissing(made.language, missing)
    code = _compiled(made, path)
    files = {name: folder.files[name] for name in declared(manifest)}
    files |= {name: data for name, data in folder.files.items() if name.startswith("schemas/")}
    for name in code:
        if name in files or name == SBOM_FILE:
            raise BuildFailed(f"the build makes {name}, which is there already", hint=f"rename {name}")
    if manifest.language == "component" and manifest.entrypoint not in code:
        raise BuildFailed(
            f"the build makes {', '.join(code) or 'nothing'}, and the entrypoint is {manifest.entrypoint!r}",
            hint="correct 'entrypoint' in manifest.toml",
        )
    if dict(read_source(path, made.leftovers)) != dict(folder.files):
        raise FailedError(
            f"{path} was changed while it was built", hint="build it again", code="agent.changed"
        )
    return Draft(
        manifest=manifest,
        language=made.language,
        files={**files, **code},
        facts=BuildFacts(
            language=made.language,
            source_digest=bundle_digest(folder.files),
            tools=dict(made.versions()),
            runner_digest=_runner(manifest),
            builder_version=__version__,
        ),
        warnings=warnings,
    )


def _single(path: Path) -> Draft:
    """The draft of an agent that is one file."""
    one = read_single(path)
    return Draft(
        manifest=one.manifest,
        language=one.language,
        files=one.files,
        facts=BuildFacts(
            language=one.language,
            source_digest=one.source_digest,
            runner_digest=_runner(one.manifest),
            builder_version=__version__,
        ),
        warnings=tuple(
            LintFinding(file=path.name, what=what, fix="see the bundle's README", severity="warning")
            for what in one.left_behind
        ),
    )


def _compiled(made: Toolchain, path: Path) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="runloop-build-") as work:
        return made.build(path, Path(work))


def _runner(manifest: Manifest) -> str:
    """Digest of the shipped component that executes the source; empty for a component of its own."""
    place = RUNNERS.get(manifest.language)
    return "" if place is None else read_pin(shipped(place)).blake3


def _described(answer: Any) -> dict[str, dict[str, Any]]:
    """Id -> what the agent says of it. The answer is a guest's: believed in nothing but its own tools."""
    tools = answer.get("tools") if isinstance(answer, dict) else None
    if not isinstance(tools, list) or len(tools) > MAX_TOOLS:
        raise BuildFailed(
            "the agent does not describe its tools as the ABI demands", hint="see spec/agent-abi.md"
        )
    made = {}
    for tool in tools:
        if not isinstance(tool, dict) or not isinstance(tool.get("id"), str):
            raise BuildFailed("the agent describes a tool without an id", hint="give it one: family.verb")
        if tool["id"] in made:
            raise BuildFailed(f"the agent describes {tool['id']} twice", hint="give each its own id")
        made[tool["id"]] = {key: value for key, value in tool.items() if key in _DESCRIBED}
    return made
