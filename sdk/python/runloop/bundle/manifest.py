"""``manifest.toml``: what an agent says of itself, read strictly and with every mistake reported at once.

Knows: the manifest's keys, port types and how a value is checked against them. Does not know: files on disk,
trust, policy (``runloop.caps``), or how limits are enforced (the runtime). Pure.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

from runloop import toml
from runloop.bundle.semver import is_version
from runloop.errors import UsageError
from runloop.ops import OPS
from runloop.spelling import did_you_mean

__all__ = [
    "MAX_MANIFEST_BYTES",
    "Finding",
    "Language",
    "Limits",
    "Manifest",
    "ManifestError",
    "PortSpec",
    "PortType",
    "Reader",
    "check_values",
    "manifest_of",
    "parse_manifest",
]

Language = Literal["python", "javascript", "component"]
PortType = Literal["any", "string", "object", "list", "boolean", "number"]

MAX_MANIFEST_BYTES = 65_536
MAX_PORTS = 64

_TYPES: dict[str, tuple[type, ...]] = {
    "any": (object,),
    "string": (str,),
    "object": (dict,),
    "list": (list,),
    "boolean": (bool,),
    "number": (int, float),
}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_MESSAGE = re.compile(r"[a-z]+(\.[a-z][a-z0-9_]*)+\.v\d+\Z")
_ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*\Z")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*\Z")

_ENTRYPOINTS: dict[str, tuple[str, Callable[[str], object], str]] = {
    "python": ("agent:handle", _ENTRY.match, "write module:function, as 'agent:handle'"),
    "javascript": (
        "agent.js",
        lambda it: it.endswith(".js") and _FILE.match(it),
        "write the main module's path inside the bundle, as 'agent.js'",
    ),
    "component": (
        "agent.wasm",
        _FILE.match,
        "write the component's path inside the bundle, as 'agent.wasm'",
    ),
}
"""Language -> the usual entrypoint, what makes one right, how to put it right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One mistake in a manifest."""

    line: int
    """Counts from 1; 0 when it concerns the whole file."""
    what: str
    fix: str

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.what}; {self.fix}"


class ManifestError(UsageError):
    """The manifest cannot be used. ``findings`` holds every mistake, in the order of the file."""

    code: ClassVar[str] = "bundle.manifest"

    def __init__(self, origin: str, findings: Iterable[Finding]) -> None:
        self.findings = sorted(findings, key=lambda finding: finding.line)
        super().__init__(
            f"{origin}: " + ". ".join(map(str, self.findings)),
            hint=f"correct {origin}",
            findings=[
                {"line": finding.line, "what": finding.what, "fix": finding.fix} for finding in self.findings
            ],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class PortSpec:
    """One port of an agent."""

    type: PortType = "any"
    required: bool = False
    """Of an input: the node cannot start without a value. Of an output: a success always fills it."""
    description: str = ""
    schema: str | None = None
    """Path of a JSON Schema inside the bundle."""

    def accepts(self, value: Any) -> bool:
        """Whether one value has this port's type. ``number`` does not take booleans."""
        if isinstance(value, bool):
            return self.type in ("any", "boolean")
        return isinstance(value, _TYPES[self.type])

    def to_json(self) -> dict[str, Any]:
        return {"type": self.type, "required": self.required, "description": self.description}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the author says one attempt may need; the operator's own limits narrow it further."""

    fuel: int = 50_000_000_000
    """Units of work, roughly one per instruction."""
    memory_mb: int = 64
    guest_ms: int = 30_000
    """Milliseconds the guest itself may run; waiting for a host call is not counted."""
    max_host_calls: int = 256


_LIMIT_BOUNDS = {
    "fuel": (1_000_000, 2**53 - 1),
    "memory_mb": (1, 1024),
    "guest_ms": (10, 600_000),
    "max_host_calls": (0, 10_000),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A valid manifest."""

    name: str
    version: str
    """SemVer."""
    variant: str = "default"
    """Implementations of one name differ by variant: ``agent:critic@c``."""
    language: Language = "python"
    entrypoint: str = "agent:handle"
    """``module:function`` for Python; otherwise a file: the main module, or the component."""
    description: str = ""
    inputs: Mapping[str, PortSpec] = field(default_factory=dict)
    outputs: Mapping[str, PortSpec] = field(default_factory=dict)
    ops: tuple[str, ...] = ()
    """Host calls it uses: the ceiling of its capabilities."""
    caps: str = "policy.caps"
    tools: str = "tools.json"
    limits: Limits = field(default_factory=Limits)
    accepts: str = "intent.generic.v1"
    """Type of the message that carries its task."""
    replies: str = "toolresult.generic.v1"
    """Type of the message that carries its result."""
    min_runloop: str = "0.1.0"

    def to_json(self) -> dict[str, Any]:
        """For people and for ``--json``."""
        return {
            "name": self.name,
            "version": self.version,
            "variant": self.variant,
            "language": self.language,
            "entrypoint": self.entrypoint,
            "description": self.description,
            "ports": {
                "in": {name: port.to_json() for name, port in self.inputs.items()},
                "out": {name: port.to_json() for name, port in self.outputs.items()},
            },
            "ops": list(self.ops),
            "accepts": self.accepts,
            "replies": self.replies,
            "min_runloop": self.min_runloop,
        }


def check_values(ports: Mapping[str, PortSpec], values: Mapping[str, Any], *, direction: str) -> list[str]:
    """What is wrong with ``{port: [value…]}`` in words; empty when every value fits its port.

    ``direction`` is ``input`` or ``output`` and only serves the words.
    """
    wrong: list[str] = []
    for name, items in values.items():
        spec = ports.get(name)
        if spec is None:
            wrong.append(f"there is no {direction} port {name!r}{_suggest(name, ports)}")
        elif not isinstance(items, list):
            wrong.append(f"{direction} port {name!r} must carry a list of values")
        else:
            wrong += [
                f"{direction} port {name!r} takes {spec.type}, not {_kind(item)}"
                for item in items
                if not spec.accepts(item)
            ]
    wrong += [
        f"{direction} port {name!r} is required and got no value"
        for name, spec in ports.items()
        if spec.required and not values.get(name)
    ]
    return wrong


def _kind(value: Any) -> str:
    names: tuple[PortType, ...] = ("boolean", "string", "object", "list", "number")
    for name in names:
        if PortSpec(type=name).accepts(value):
            return name
    return "null"


def _suggest(word: str, known: Iterable[str]) -> str:
    names = list(known)
    return f"; {did_you_mean(word, names)}" if names else ""


# --- reading --------------------------------------------------------------------------------------


class Reader:
    """Collects findings while it reads one table after the other."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self.findings: list[Finding] = []

    def line_of(self, *path: str) -> int:
        """Where a key is written, as well as the text of a TOML file tells; 0 when nowhere."""
        *tables, key = path
        inside = not tables
        for number, line in enumerate(self._lines, 1):
            bare = line.strip()
            if bare.startswith("["):
                inside = bare.strip("[] ").replace('"', "").replace(" ", "") == ".".join(tables)
                if bare.strip("[] ").replace('"', "").replace(" ", "") == ".".join(path):
                    return number
            elif inside and re.match(rf'"?{re.escape(key)}"?\s*[=.]', bare):
                return number
        return 0

    def wrong(self, path: tuple[str, ...], what: str, fix: str) -> None:
        self.findings.append(Finding(line=self.line_of(*path), what=what, fix=fix))

    def unknown(self, path: tuple[str, ...], table: Mapping[str, Any], known: Iterable[str]) -> None:
        known = list(known)
        for key in table:
            if key not in known:
                fix = did_you_mean(key, known, f"known keys: {', '.join(known)}")
                self.wrong((*path, key), f"unknown key {'.'.join((*path, key))!r}", fix)

    def table(self, path: tuple[str, ...], owner: Mapping[str, Any]) -> dict[str, Any]:
        value = owner.get(path[-1], {})
        if isinstance(value, dict):
            return value
        self.wrong(path, f"{'.'.join(path)!r} must be a table", f"write it as [{'.'.join(path)}]")
        return {}

    def text(
        self,
        path: tuple[str, ...],
        table: Mapping[str, Any],
        default: str,
        fits: Callable[[str], object] = lambda _: True,
        fix: str = "write it in quotes",
    ) -> str:
        value: str = table.get(path[-1], default)
        if path[-1] not in table or (isinstance(value, str) and fits(value)):
            return value
        self.wrong(path, f"{'.'.join(path)!r} cannot be {value!r}", fix)
        return default


_KEYS = (
    "name",
    "version",
    "variant",
    "language",
    "entrypoint",
    "description",
    "ports",
    "ops",
    "caps",
    "tools",
    "limits",
    "accepts",
    "replies",
    "min_runloop",
)


def parse_manifest(text: str | bytes, *, origin: str = "manifest.toml") -> Manifest:
    """Read and validate; raises :class:`ManifestError` with every finding. ``origin`` names the file."""
    if len(text) > MAX_MANIFEST_BYTES:
        raise ManifestError(
            origin, [Finding(line=0, what=f"larger than {MAX_MANIFEST_BYTES} bytes", fix="shorten it")]
        )
    try:
        plain = text.decode() if isinstance(text, bytes) else text
        top = toml.loads(plain)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        at = re.search(r"at line (\d+)", str(error))
        finding = Finding(line=int(at[1]) if at else 0, what=f"not TOML: {error}", fix="see https://toml.io")
        raise ManifestError(origin, [finding]) from error
    reader = Reader(plain)
    made = manifest_of(reader, top)
    if reader.findings:
        raise ManifestError(origin, reader.findings)
    return made


def manifest_of(reader: Reader, top: Mapping[str, Any]) -> Manifest:
    """The manifest a TOML document is; what is wrong with it is left with the ``reader``."""
    reader.unknown((), top, _KEYS)
    for key in ("name", "version"):
        if key not in top:
            reader.wrong((key,), f"{key!r} is missing", "every agent has a name and a version")
    words = "use lower-case letters, digits and underscores, starting with a letter"
    semver = "write MAJOR.MINOR.PATCH, as semver.org has it"
    message = "write family.kind.vN, as 'intent.draft.write.v1'"
    language = reader.text(
        ("language",), top, "python", _ENTRYPOINTS.__contains__, f"use {', '.join(_ENTRYPOINTS)}"
    )
    entry, fits, fix = _ENTRYPOINTS[language]
    ports = reader.table(("ports",), top)
    reader.unknown(("ports",), ports, ("in", "out"))
    return Manifest(
        name=reader.text(("name",), top, "", _NAME.match, words),
        version=reader.text(("version",), top, "0.0.0", is_version, semver),
        variant=reader.text(("variant",), top, "default", _NAME.match, words),
        language=cast(Language, language),
        entrypoint=reader.text(("entrypoint",), top, entry, fits, fix),
        description=reader.text(("description",), top, "", lambda it: len(it) <= 1_000, "use 1000 letters"),
        inputs=_ports(reader, "in", ports),
        outputs=_ports(reader, "out", ports),
        ops=_ops(reader, top),
        caps=reader.text(("caps",), top, "policy.caps", _FILE.match, "write a path inside the bundle"),
        tools=reader.text(("tools",), top, "tools.json", _FILE.match, "write a path inside the bundle"),
        limits=_limits(reader, top),
        accepts=reader.text(("accepts",), top, "intent.generic.v1", _MESSAGE.match, message),
        replies=reader.text(("replies",), top, "toolresult.generic.v1", _MESSAGE.match, message),
        min_runloop=reader.text(("min_runloop",), top, "0.1.0", is_version, semver),
    )


def _ports(reader: Reader, side: str, ports: Mapping[str, Any]) -> dict[str, PortSpec]:
    table = reader.table(("ports", side), ports)
    if len(table) > MAX_PORTS:
        reader.wrong(("ports", side), f"more than {MAX_PORTS} ports", "group values in objects")
        return {}
    made = {}
    for name, given in table.items():
        path = ("ports", side, name)
        if not _NAME.match(name):
            reader.wrong(path, f"{name!r} is not a port name", "use lower-case letters, digits, underscores")
        if not isinstance(given, dict):
            reader.wrong(path, f"port {name!r} must be a table", f"write it as [ports.{side}.{name}]")
            continue
        reader.unknown(path, given, ("type", "required", "description", "schema"))
        required = given.get("required", False)
        if not isinstance(required, bool):
            reader.wrong((*path, "required"), f"'required' cannot be {required!r}", "use true or false")
        schema = reader.text((*path, "schema"), given, "", _FILE.match, "write a path inside the bundle")
        made[name] = PortSpec(
            type=cast(
                PortType,
                reader.text((*path, "type"), given, "any", _TYPES.__contains__, f"use {', '.join(_TYPES)}"),
            ),
            required=required is True,
            description=reader.text((*path, "description"), given, ""),
            schema=schema or None,
        )
    return made


def _ops(reader: Reader, top: Mapping[str, Any]) -> tuple[str, ...]:
    value = top.get("ops", [])
    if not isinstance(value, list):
        reader.wrong(("ops",), "'ops' must be a list of host calls", 'write it as ops = ["kb.search"]')
        return ()
    for op in value:
        if not isinstance(op, str) or op not in OPS:
            reader.wrong(("ops",), f"there is no host call {op!r}", did_you_mean(str(op), OPS))
    return tuple(dict.fromkeys(op for op in value if isinstance(op, str)))


def _limits(reader: Reader, top: Mapping[str, Any]) -> Limits:
    table = reader.table(("limits",), top)
    reader.unknown(("limits",), table, _LIMIT_BOUNDS)
    given: dict[str, int] = {}
    for key, (low, high) in _LIMIT_BOUNDS.items():
        value = table.get(key)
        if value is None:
            continue
        if type(value) is int and low <= value <= high:
            given[key] = value
        else:
            reader.wrong(
                ("limits", key), f"'limits.{key}' cannot be {value!r}", f"use an integer from {low} to {high}"
            )
    return Limits(**given)
