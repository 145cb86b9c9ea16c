"""Every mistake in an agent's folder at once, each with the file and the line.

Knows: which files an agent has and how they must agree with one another. Does not know: any language (the
toolchains), how findings are shown, trust. Runs no code of the agent and needs no daemon.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runloop.authoring.cases import CASES_FILE, Case, CasesError, parse_cases
from runloop.authoring.findings import LintFinding
from runloop.authoring.source import SourceError, read_source
from runloop.authoring.toolchains import BUILD_FILE, LANGUAGES, OpUse, Toolchain, build_settings, toolchain
from runloop.bundle.content import ContentError, check_content
from runloop.bundle.json_schema import read_schema
from runloop.bundle.manifest import Manifest, ManifestError, check_values, parse_manifest
from runloop.bundle.tools import ToolsError, parse_tools
from runloop.caps.policy import CONTACTS_RAW, CapsError, Policy, parse_policy
from runloop.errors import RunloopError, UsageError
from runloop.ops import OPS
from runloop.spelling import did_you_mean

__all__ = ["MANIFEST", "Folder", "declared", "lint"]

MANIFEST = "manifest.toml"
_TEXTS = ("README.md", "LICENSE")
_FREE_OPS = frozenset({"progress", "log.write"})
"""Need no right, so declaring one too many asks nothing of anybody."""


@dataclass(slots=True)
class Folder:
    """An agent's folder as far as it could be read."""

    path: Path
    toolchain: Toolchain | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    manifest: Manifest | None = None
    policy: Policy | None = None
    tools: tuple[str, ...] | None = None
    """Ids in ``tools.json``."""
    cases: list[Case] = field(default_factory=list)

    def line_of(self, file: str, *words: str) -> int:
        """The first line of a file that has every one of ``words``; 0 when none has."""
        text = self.files.get(file, b"").decode(errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if all(word in line for word in words):
                return number
        return 0


def lint(path: Path) -> tuple[Folder, list[LintFinding]]:
    """The folder and what is wrong with it, errors and warnings, sorted by file and line.

    Raises :class:`NotFoundError` when there is no such folder.
    """
    folder, findings = Folder(path), []
    for step in _STEPS:
        findings += list(step(folder))
    unique = dict.fromkeys(findings)
    return folder, sorted(unique, key=lambda finding: (finding.file, finding.line, finding.severity))


def declared(manifest: Manifest) -> tuple[str, ...]:
    """The files every bundle has besides code."""
    schemas = [p.schema for side in (manifest.inputs, manifest.outputs) for p in side.values() if p.schema]
    return (MANIFEST, manifest.caps, manifest.tools, *_TEXTS, *dict.fromkeys(schemas))


# --- reading --------------------------------------------------------------------------------------


def _language(folder: Folder) -> Iterator[LintFinding]:
    try:
        settings = build_settings(folder.path)
    except UsageError as error:
        yield LintFinding(file=BUILD_FILE, what=error.message, fix="correct it")
        return
    language = settings.get("language", "python")
    if not isinstance(language, str) or language not in LANGUAGES:
        yield LintFinding(
            file=BUILD_FILE, what=f"there is no language {language!r}", fix=f"known: {', '.join(LANGUAGES)}"
        )
        return
    try:
        folder.toolchain = toolchain(language)
    except ImportError as error:
        yield LintFinding(
            file=BUILD_FILE,
            what=f"this Runloop cannot build {language}: {error}",
            fix="install runloop again",
        )


def _read(folder: Folder) -> Iterator[LintFinding]:
    leftovers = folder.toolchain.leftovers if folder.toolchain else frozenset()
    try:
        folder.files = read_source(folder.path, leftovers)
    except SourceError as error:
        yield LintFinding(file=".", what=error.message, fix=error.hint or "remove it")
    folded: dict[str, str] = {}
    for path in folder.files:
        if not path.isprintable() or "\\" in path or any("\ud800" <= char <= "\udfff" for char in path):
            fix = "use printable characters"
            yield LintFinding(file=ascii(path), what="the file's name is not allowed in a bundle", fix=fix)
        other = folded.setdefault(path.casefold(), path)
        if other != path:
            what = f"its name differs from {other} in case only"
            yield LintFinding(file=path, what=what, fix="rename one: not every file system keeps them apart")


def _manifest(folder: Folder) -> Iterator[LintFinding]:
    data = folder.files.get(MANIFEST)
    if data is None:
        yield LintFinding(
            file=MANIFEST, what="the file is missing", fix="'rlp agent scaffold' makes a folder with one"
        )
        return
    try:
        folder.manifest = manifest = parse_manifest(data)
    except ManifestError as error:
        for finding in error.findings:
            yield LintFinding(file=MANIFEST, line=finding.line, what=finding.what, fix=finding.fix)
        return
    wanted = folder.toolchain.manifest_language if folder.toolchain else manifest.language
    if manifest.language != wanted:
        yield LintFinding(
            file=MANIFEST,
            line=folder.line_of(MANIFEST, "language"),
            what=f"the language is {manifest.language!r}, and what is built here is {wanted!r}",
            fix=f'write language = "{wanted}"',
        )
    if not manifest.description:
        yield LintFinding(
            file=MANIFEST,
            what="there is no description",
            fix='say what it does: description = "…"',
            severity="warning",
        )


def _policy(folder: Folder) -> Iterator[LintFinding]:
    name = folder.manifest.caps if folder.manifest else "policy.caps"
    data = folder.files.get(name)
    if data is None:
        yield LintFinding(file=name, what="the file is missing", fix="write [capabilities] for none")
        return
    try:
        folder.policy = parse_policy(data, origin=name)
    except CapsError as error:
        for what in error.findings:
            at = re.search(r"at line (\d+)", what)
            word = re.match(r"(?:unknown \w+ )?'?([\w.]+)'?", what)
            line = int(at[1]) if at else folder.line_of(name, word[1]) if word else 0
            yield LintFinding(file=name, line=line, what=what, fix="see docs/howto/write-an-agent.md")


def _tools(folder: Folder) -> Iterator[LintFinding]:
    name = folder.manifest.tools if folder.manifest else "tools.json"
    data = folder.files.get(name)
    if data is None:
        yield LintFinding(file=name, what="the file is missing", fix='write {"version": 1, "tools": []}')
        return
    try:
        json.loads(data)
    except ValueError as error:
        line = getattr(error, "lineno", 0)
        yield LintFinding(file=name, line=line, what=f"not JSON: {error}", fix="correct it")
        return
    try:
        folder.tools = tuple(tool.id for tool in parse_tools(data, origin=name))
    except ToolsError as error:
        for what in error.findings:
            id = what.partition(":")[0]
            line = folder.line_of(name, f'"{id}"') if "." in id else 0
            yield LintFinding(file=name, line=line, what=what, fix="see docs/howto/write-an-agent.md")


def _texts(folder: Folder) -> Iterator[LintFinding]:
    for name in _TEXTS:
        if not folder.files.get(name, b"").strip():
            fix = (
                "say what the agent does and takes" if name == "README.md" else "say who may use it, and how"
            )
            yield LintFinding(file=name, what="the file is missing or empty", fix=fix)
    try:
        check_content({path: data for path, data in folder.files.items() if path in _bundled(folder)})
    except ContentError as error:
        yield LintFinding(file=str(error.data.get("path", ".")), what=error.message, fix=error.hint or "")


def _bundled(folder: Folder) -> set[str]:
    named = set(declared(folder.manifest)) if folder.manifest else {MANIFEST, *_TEXTS}
    return named | {path for path in folder.files if path.startswith("schemas/")}


# --- agreement ------------------------------------------------------------------------------------


def _schemas(folder: Folder) -> Iterator[LintFinding]:
    for side, ports in (
        (("in", folder.manifest.inputs), ("out", folder.manifest.outputs)) if folder.manifest else ()
    ):
        for port, spec in ports.items():
            if spec.schema is None:
                continue
            if spec.schema not in folder.files:
                yield LintFinding(
                    file=MANIFEST,
                    line=folder.line_of(MANIFEST, "schema", spec.schema),
                    what=f"the schema of ports.{side}.{port} is no file of this folder",
                    fix=f"add {spec.schema}",
                )
                continue
            yield from _schema(spec.schema, folder.files[spec.schema])


def _schema(path: str, data: bytes) -> Iterator[LintFinding]:
    faults: list[str] = []
    try:
        read_schema(json.loads(data), faults)
    except ValueError as error:
        line = getattr(error, "lineno", 0)
        yield LintFinding(file=path, line=line, what=f"not JSON: {error}", fix="correct it")
    for fault in faults:
        yield LintFinding(file=path, what=f"at {fault}", fix="see docs/howto/write-an-agent.md")


def _source(folder: Folder) -> Iterator[LintFinding]:
    if folder.toolchain is None or not folder.files:
        return
    yield from folder.toolchain.check(folder.path)
    uses = folder.toolchain.uses(folder.path)
    if folder.manifest is not None:
        yield from _ops(folder, folder.manifest, uses)


def _ops(folder: Folder, manifest: Manifest, uses: list[OpUse]) -> Iterator[LintFinding]:
    """Calls that are not declared, and declarations that nothing calls."""
    for use in uses:
        if use.op not in OPS:
            what, fix = f"there is no host call {use.op!r}", did_you_mean(use.op, OPS)
            yield LintFinding(file=use.file, line=use.line, what=what, fix=fix)
        elif use.op not in manifest.ops:
            yield LintFinding(
                file=use.file,
                line=use.line,
                what=f"calls {use.op}, which {MANIFEST} does not declare",
                fix=f'add "{use.op}" to ops = […] in {MANIFEST}',
            )
    called = {use.op for use in uses}
    for op in manifest.ops:
        if op not in called and op not in _FREE_OPS:
            yield LintFinding(
                file=MANIFEST,
                line=folder.line_of(MANIFEST, f'"{op}"'),
                what=f"declares {op}, and no call of it was found in the source",
                fix=f'take "{op}" out of ops',
                severity="warning",
            )


def _rights(folder: Folder) -> Iterator[LintFinding]:
    """Host calls that no right covers, and rights that no host call needs."""
    if folder.manifest is None or folder.policy is None:
        return
    manifest, policy = folder.manifest, folder.policy
    needed = {OPS[op].capability for op in manifest.ops if op in OPS}
    for op in manifest.ops:
        capability = OPS[op].capability
        if capability is not None and not policy.allows(capability).allowed:
            yield LintFinding(
                file=MANIFEST,
                line=folder.line_of(MANIFEST, f'"{op}"'),
                what=f"{op} needs the capability {capability}, which {manifest.caps} does not ask for",
                fix=f"add {capability} under [capabilities] in {manifest.caps}",
            )
    for capability in policy.grants:
        base = "kb_read" if capability == CONTACTS_RAW else capability
        if base not in needed and not _for_tools(folder, capability):
            yield LintFinding(
                file=manifest.caps,
                line=folder.line_of(manifest.caps, capability.partition(".")[0]),
                what=f"asks for {capability}, which none of the declared host calls needs",
                fix="take it out: a person has to accept every line",
                severity="warning",
            )


def _for_tools(folder: Folder, capability: str) -> bool:
    """Whether a tool of ``tools.json`` names the capability."""
    data = folder.files.get(folder.manifest.tools if folder.manifest else "tools.json", b"")
    try:
        tools = parse_tools(data)
    except RunloopError:
        return True  # its own findings come first
    return any(word.partition(":")[0] == capability for tool in tools for word in tool.capabilities)


def _cases(folder: Folder) -> Iterator[LintFinding]:
    data = folder.files.get(CASES_FILE)
    if data is None:
        fix = "write one: it says what the agent does, to people and to 'rlp agent test'"
        yield LintFinding(file=CASES_FILE, what="there are no cases", fix=fix, severity="warning")
        return
    try:
        folder.cases = parse_cases(data)
    except CasesError as error:
        yield from error.findings
        return
    if not folder.cases:
        yield LintFinding(
            file=CASES_FILE, what="there are no cases", fix="write [[case]]", severity="warning"
        )
    if folder.manifest is not None:
        for case in folder.cases:
            yield from _case(folder.manifest, case)


def _case(manifest: Manifest, case: Case) -> Iterator[LintFinding]:
    def wrong(what: str, fix: str, severity: str = "error") -> LintFinding:
        return LintFinding(
            file=CASES_FILE,
            line=case.line,
            what=f"{case.name}: {what}",
            fix=fix,
            severity="warning" if severity == "warning" else "error",
        )

    if case.op == "handle" and "error" not in case.expect:
        for fault in check_values(manifest.inputs, dict(case.ports), direction="input"):
            yield wrong(fault, f"correct the case, or the ports in {MANIFEST}")
        for name in case.expect.get("ports", {}):
            if name not in manifest.outputs:
                yield wrong(
                    f"expects output port {name!r}, which {MANIFEST} does not have", "correct one of them"
                )
    if case.op == "tool" and set(case.expect.get("ports", {})) - {"result"}:
        yield wrong("a tool answers on port 'result' only", "write expect = { ports = { result = [ … ] } }")
    for op in case.host:
        if op not in manifest.ops:
            yield wrong(
                f"answers {op}, which {MANIFEST} does not declare: the gate will refuse it first",
                f'add "{op}" to ops, or take the answer out',
                "warning",
            )


_STEPS: tuple[Callable[[Folder], Iterator[LintFinding]], ...] = (
    _language, _read, _manifest, _policy, _tools, _texts, _schemas, _source, _rights, _cases,
)  # fmt: skip
